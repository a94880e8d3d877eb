//! Messages as frames: see [the layout](super).

use bytes::{BufMut, Bytes, BytesMut};

use holm_protocol::admin;
use holm_protocol::frame::{Frame, put_frame};
use holm_protocol::ids::{Actor, BucketId, NodeId, Partition};
use holm_protocol::limits::{FRAME_LEN_MAX, KEY_LEN_MAX, OBJECT_LEN_MAX, RECEIPT_NODES_MAX};
use holm_protocol::message::{Reply, Request, kind};
use holm_protocol::version_vector::VersionVector;
use holm_protocol::wire::{Reader, WireError, put_slice, put_varint};

use super::fingerprint::FingerprintMessage;
use super::{
    CloseMessage, CompareMessage, Found, HintMessage, OpId, PeerMessage, Refusal, Want, gaps,
    verify,
};
use crate::clock::{ACTORS_MAX, DotSet};

const WRITE: u8 = kind::PEER_FIRST;
const WRITE_REPLY: u8 = WRITE + 1;
const READ: u8 = WRITE + 2;
const READ_REPLY: u8 = WRITE + 3;
const REPAIR: u8 = WRITE + 4;
const PROXY: u8 = WRITE + 5;
const PROXY_REPLY: u8 = WRITE + 6;
const INSPECT: u8 = WRITE + 7;
const INSPECT_REPLY: u8 = WRITE + 8;
const PULSE: u8 = WRITE + 9;
const SEEN: u8 = WRITE + 10;
const NOTED: u8 = WRITE + 11;
const GAP_ASK: u8 = WRITE + 12;
const GAP_ANSWER: u8 = WRITE + 13;
const PAGE_ASK: u8 = WRITE + 14;
const PAGE_ANSWER: u8 = WRITE + 15;
const VERIFY: u8 = WRITE + 16;
const VERIFY_REPLY: u8 = WRITE + 17;

impl PeerMessage {
    /// The kinds of frames that hold what goes on bulk lanes: it is long, and no request waits for it.
    pub const BULK_KINDS: [u8; 2] = [GAP_ANSWER, PAGE_ANSWER];

    /// Whether it goes on the bulk lane.
    #[must_use]
    pub fn is_bulk(&self) -> bool {
        Self::BULK_KINDS.contains(&self.kind_and_op().0)
    }

    /// The partition that the message is about; of several the first.
    #[must_use]
    pub fn partition(&self) -> Partition {
        match self {
            PeerMessage::Write { partition, .. }
            | PeerMessage::WriteReply { partition, .. }
            | PeerMessage::Read { partition, .. }
            | PeerMessage::ReadReply { partition, .. }
            | PeerMessage::Repair { partition, .. }
            | PeerMessage::Proxy { partition, .. }
            | PeerMessage::ProxyReply { partition, .. }
            | PeerMessage::Verify { partition, .. }
            | PeerMessage::VerifyReply { partition, .. }
            | PeerMessage::Inspect { partition, .. }
            | PeerMessage::InspectReply { partition, .. }
            | PeerMessage::Noted { partition, .. }
            | PeerMessage::GapAsk { partition, .. }
            | PeerMessage::GapAnswer { partition, .. }
            | PeerMessage::PageAsk { partition, .. }
            | PeerMessage::PageAnswer { partition, .. } => *partition,
            PeerMessage::Pulse { counters, .. } => gaps::first_of(counters),
            PeerMessage::Seen { clocks, .. } => gaps::first_of(clocks),
            PeerMessage::Hint(message) => message.partition(),
            PeerMessage::Fingerprint(message) => message.partition(),
            PeerMessage::Compare(message) => message.partition(),
            PeerMessage::Close(message) => message.partition(),
        }
    }

    /// Appends the message as one frame.
    pub fn encode(&self, out: &mut BytesMut) {
        let partition = self.partition().to_u32();
        let (kind, op) = self.kind_and_op();
        put_frame(out, kind, op.0, |out| {
            out.put_u32(partition);
            self.encode_rest(out);
        });
    }

    fn kind_and_op(&self) -> (u8, OpId) {
        match self {
            PeerMessage::Write { op, .. } => (WRITE, *op),
            PeerMessage::WriteReply { op, .. } => (WRITE_REPLY, *op),
            PeerMessage::Read { op, .. } => (READ, *op),
            PeerMessage::ReadReply { op, .. } => (READ_REPLY, *op),
            PeerMessage::Repair { .. } => (REPAIR, OpId(0)),
            PeerMessage::Proxy { op, .. } => (PROXY, *op),
            PeerMessage::ProxyReply { op, .. } => (PROXY_REPLY, *op),
            PeerMessage::Verify { op, .. } => (VERIFY, *op),
            PeerMessage::VerifyReply { op, .. } => (VERIFY_REPLY, *op),
            PeerMessage::Inspect { op, .. } => (INSPECT, *op),
            PeerMessage::InspectReply { op, .. } => (INSPECT_REPLY, *op),
            PeerMessage::Hint(message) => message.kind_and_op(),
            PeerMessage::Fingerprint(message) => message.kind_and_op(),
            PeerMessage::Compare(message) => message.kind_and_op(),
            PeerMessage::Close(message) => message.kind_and_op(),
            PeerMessage::Pulse { .. } => (PULSE, OpId(0)),
            PeerMessage::Seen { op, .. } => (SEEN, *op),
            PeerMessage::Noted { op, .. } => (NOTED, *op),
            PeerMessage::GapAsk { op, .. } => (GAP_ASK, *op),
            PeerMessage::GapAnswer { op, .. } => (GAP_ANSWER, *op),
            PeerMessage::PageAsk { op, .. } => (PAGE_ASK, *op),
            PeerMessage::PageAnswer { op, .. } => (PAGE_ANSWER, *op),
        }
    }

    fn encode_rest(&self, out: &mut BytesMut) {
        match self {
            PeerMessage::Write { bucket, key, object, fan_out, .. } => {
                put_target(out, *bucket, key);
                put_nodes(out, fan_out);
                put_slice(out, object);
            }
            PeerMessage::WriteReply { durable, refused, .. } => {
                put_nodes(out, durable);
                put_varint(out, refused.len() as u64);
                for (node, refusal) in refused {
                    put_varint(out, node.0);
                    out.put_u8(*refusal as u8);
                }
            }
            PeerMessage::Read { bucket, key, want, .. } => {
                put_target(out, *bucket, key);
                out.put_u8((*want == Want::Full).into());
            }
            PeerMessage::ReadReply { found, .. } => put_found(out, found),
            PeerMessage::Repair { bucket, key, object, .. } => {
                put_target(out, *bucket, key);
                put_slice(out, object);
            }
            PeerMessage::Proxy { request, .. } => request.encode(0, out),
            PeerMessage::ProxyReply { reply, .. } => reply.encode(0, out),
            PeerMessage::Verify { question, .. } => question.encode(out),
            PeerMessage::VerifyReply { answer, .. } => answer.encode(out),
            PeerMessage::Inspect { bucket, key, .. } => put_target(out, *bucket, key),
            PeerMessage::InspectReply { state, .. } => out.put_slice(&admin::encode(state)),
            PeerMessage::Hint(message) => message.encode_rest(out),
            PeerMessage::Fingerprint(message) => message.encode_rest(out),
            PeerMessage::Compare(message) => message.encode_rest(out),
            PeerMessage::Close(message) => message.encode_rest(out),
            PeerMessage::Pulse { actor, hlc, counters } => {
                gaps::put_pulse(out, (*actor, *hlc), counters);
            }
            PeerMessage::Seen { run, layout, clocks, .. } => {
                gaps::put_seen(out, (*run, *layout), clocks);
            }
            PeerMessage::Noted { shard, shards, .. } => {
                out.put_u16(*shard);
                out.put_u16(*shards);
            }
            PeerMessage::GapAsk { missing, bytes_max, .. } => {
                out.put_u32(*bytes_max);
                missing.encode(out);
            }
            PeerMessage::GapAnswer { objects, cut, unknown, .. } => {
                gaps::put_objects(out, objects);
                cut.encode(out);
                unknown.encode(out);
            }
            PeerMessage::PageAsk { after, know, gathers, run, bytes_max, .. } => {
                out.put_u64(run.0);
                out.put_u32(*bytes_max);
                out.put_u8(after.is_some().into());
                after.iter().for_each(|(bucket, key)| put_target(out, *bucket, key));
                know.encode(out);
                out.put_u8((*gathers).into());
            }
            PeerMessage::PageAnswer { clock, know, ends, objects, is_last, .. } => {
                out.put_u8((*is_last).into());
                clock.encode(out);
                know.encode(out);
                gaps::put_ends(out, ends);
                gaps::put_page(out, objects);
            }
        }
    }

    /// Reads a message from a frame.
    ///
    /// # Errors
    /// [`WireError`]: the input is never trusted, lengths are checked before anything is
    /// allocated. Encoded objects inside are not decoded yet.
    pub fn decode(frame: &Frame) -> Result<PeerMessage, WireError> {
        let mut reader = Reader::new(&frame.body);
        let partition = Partition::from_u32(reader.u32()?);
        let op = OpId(frame.id);
        let message = match frame.kind {
            WRITE => {
                let (bucket, key) = target(&mut reader)?;
                let fan_out = nodes(&mut reader)?;
                let object = reader.bytes("object", OBJECT_LEN_MAX)?;
                PeerMessage::Write { op, partition, bucket, key, object, fan_out }
            }
            WRITE_REPLY => {
                let durable = nodes(&mut reader)?;
                let refused = refusals(&mut reader)?;
                PeerMessage::WriteReply { op, partition, durable, refused }
            }
            READ => {
                let (bucket, key) = target(&mut reader)?;
                let want = match reader.u8()? {
                    0 => Want::Digest,
                    1 => Want::Full,
                    got => return Err(WireError::Invalid { field: "want", got: got.into() }),
                };
                PeerMessage::Read { op, partition, bucket, key, want }
            }
            READ_REPLY => PeerMessage::ReadReply { op, partition, found: found(&mut reader)? },
            REPAIR => {
                let (bucket, key) = target(&mut reader)?;
                let object = reader.bytes("object", OBJECT_LEN_MAX)?;
                PeerMessage::Repair { partition, bucket, key, object }
            }
            PROXY => {
                let request = Request::decode(&inner_frame(&mut reader)?)?;
                PeerMessage::Proxy { op, partition, request }
            }
            PROXY_REPLY => {
                let reply = Reply::decode(&inner_frame(&mut reader)?)?;
                PeerMessage::ProxyReply { op, partition, reply }
            }
            VERIFY => {
                let question = verify::Question::decode(&mut reader)?;
                PeerMessage::Verify { op, partition, question }
            }
            VERIFY_REPLY => {
                let answer = verify::Answer::decode(&mut reader)?;
                PeerMessage::VerifyReply { op, partition, answer }
            }
            INSPECT => {
                let (bucket, key) = target(&mut reader)?;
                PeerMessage::Inspect { op, partition, bucket, key }
            }
            INSPECT_REPLY => {
                let bytes = reader.take(reader.left().len())?;
                let invalid = WireError::Invalid { field: "replica state", got: 0 };
                let state = admin::decode(bytes).ok_or(invalid)?;
                PeerMessage::InspectReply { op, partition, state }
            }
            kind if HintMessage::is_kind(kind) => {
                PeerMessage::Hint(HintMessage::decode(kind, op, partition, &mut reader)?)
            }
            kind if CompareMessage::is_kind(kind) => {
                let message = CompareMessage::decode(kind, op, partition, &mut reader)?;
                PeerMessage::Compare(message)
            }
            kind if FingerprintMessage::is_kind(kind) => {
                let message = FingerprintMessage::decode(kind, op, partition, &mut reader)?;
                PeerMessage::Fingerprint(message)
            }
            kind if CloseMessage::is_kind(kind) => {
                PeerMessage::Close(CloseMessage::decode(kind, partition, &mut reader)?)
            }
            PULSE => gaps::pulse(partition, &mut reader)?,
            SEEN => gaps::seen(op, partition, &mut reader)?,
            NOTED => {
                let (shard, shards) = (reader.u16()?, reader.u16()?);
                PeerMessage::Noted { op, partition, shard, shards }
            }
            GAP_ASK => {
                let bytes_max = reader.u32()?;
                let missing = DotSet::decode(&mut reader)?;
                PeerMessage::GapAsk { op, partition, missing, bytes_max }
            }
            GAP_ANSWER => {
                let objects = gaps::objects(&mut reader)?;
                let cut = DotSet::decode(&mut reader)?;
                let unknown = DotSet::decode(&mut reader)?;
                PeerMessage::GapAnswer { op, partition, objects, cut, unknown }
            }
            PAGE_ASK => {
                let run = Actor(reader.u64()?);
                let bytes_max = reader.u32()?;
                let after = flag(&mut reader)?.then(|| target(&mut reader)).transpose()?;
                let know = VersionVector::decode(&mut reader, ACTORS_MAX)?;
                let gathers = flag(&mut reader)?;
                PeerMessage::PageAsk { op, partition, after, know, gathers, run, bytes_max }
            }
            PAGE_ANSWER => {
                let is_last = flag(&mut reader)?;
                let clock = DotSet::decode(&mut reader)?;
                let know = VersionVector::decode(&mut reader, ACTORS_MAX)?;
                let ends = gaps::ends(&mut reader)?;
                let objects = gaps::page(&mut reader)?;
                PeerMessage::PageAnswer { op, partition, clock, know, ends, objects, is_last }
            }
            got => return Err(WireError::Invalid { field: "frame kind", got: got.into() }),
        };
        reader.finish()?;
        Ok(message)
    }
}

fn flag(reader: &mut Reader<'_>) -> Result<bool, WireError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        got => Err(WireError::Invalid { field: "flag", got: got.into() }),
    }
}

pub(super) fn put_target(out: &mut BytesMut, bucket: BucketId, key: &[u8]) {
    out.put_u32(bucket.0);
    put_slice(out, key);
}

pub(super) fn target(reader: &mut Reader<'_>) -> Result<(BucketId, Bytes), WireError> {
    let bucket = BucketId(reader.u32()?);
    match reader.bytes("key", KEY_LEN_MAX)? {
        key if key.is_empty() => Err(WireError::Invalid { field: "key length", got: 0 }),
        key => Ok((bucket, key)),
    }
}

fn put_nodes(out: &mut BytesMut, nodes: &[NodeId]) {
    put_varint(out, nodes.len() as u64);
    for node in nodes {
        put_varint(out, node.0);
    }
}

fn nodes(reader: &mut Reader<'_>) -> Result<Vec<NodeId>, WireError> {
    let count = reader.length("nodes", RECEIPT_NODES_MAX)?;
    (0..count).map(|_| reader.varint("node").map(NodeId)).collect()
}

fn refusals(reader: &mut Reader<'_>) -> Result<Vec<(NodeId, Refusal)>, WireError> {
    let count = reader.length("refusals", RECEIPT_NODES_MAX)?;
    let one = |_| Ok((NodeId(reader.varint("node")?), Refusal::from_byte(reader.u8()?)?));
    (0..count).map(one).collect()
}

fn put_found(out: &mut BytesMut, found: &Found) {
    match found {
        Found::Object(object) => {
            out.put_u8(1);
            put_slice(out, object);
        }
        Found::Digest(digest) => {
            out.put_u8(2);
            out.put_u64(*digest);
        }
        Found::Absent => out.put_u8(3),
        Found::Refused(refusal) => {
            out.put_u8(4);
            out.put_u8(*refusal as u8);
        }
    }
}

fn found(reader: &mut Reader<'_>) -> Result<Found, WireError> {
    Ok(match reader.u8()? {
        1 => Found::Object(reader.bytes("object", OBJECT_LEN_MAX)?),
        2 => Found::Digest(reader.u64()?),
        3 => Found::Absent,
        4 => Found::Refused(Refusal::from_byte(reader.u8()?)?),
        got => return Err(WireError::Invalid { field: "found", got: got.into() }),
    })
}

/// A client's frame inside a peer's: length, kind, an unused id, body.
fn inner_frame(reader: &mut Reader<'_>) -> Result<Frame, WireError> {
    let len = reader.u32()? as usize;
    if len > FRAME_LEN_MAX {
        let (got, limit) = (len as u64, FRAME_LEN_MAX as u64);
        return Err(WireError::TooLong { field: "inner frame", got, limit });
    }
    let mut inner = Reader::new(reader.take(len)?);
    let (kind, id) = (inner.u8()?, inner.u64()?);
    if id != 0 {
        return Err(WireError::Invalid { field: "inner frame id", got: id });
    }
    Ok(Frame { kind, id, body: Bytes::copy_from_slice(inner.left()) })
}
