//! Requests of clients and the answers of nodes.
//!
//! Put, get and delete have a compact layout of their own, because they are most of the traffic;
//! everything rare goes through [`AdminRequest`] in postcard. Integers are varints unless said
//! otherwise; byte strings carry their length.

use bytes::{BufMut, Bytes, BytesMut};

use crate::admin::{self, AdminReply, AdminRequest};
use crate::dot::Dot;
use crate::error::RequestError;
use crate::frame::{Frame, put_frame};
use crate::ids::{Actor, BucketId, Hlc, NodeId, RegionId, RequestId};
use crate::level::Level;
use crate::limits::{
    CONTEXT_LEN_MAX, KEY_LEN_MAX, RECEIPT_NODES_MAX, SIBLINGS_HARD_MAX, VALUE_LEN_MAX,
};
use crate::wire::{Reader, WireError, put_slice, put_varint};

/// Frame kinds of a lane's first frame and its answers, the same for clients and peers.
pub mod kind {
    /// A hello ([`crate::handshake`]).
    pub const HELLO: u8 = 1;
    /// The answer to a hello.
    pub const WELCOME: u8 = 2;
    /// A [`crate::error::RequestError`], in postcard.
    pub const ERROR: u8 = 3;
    /// A put.
    pub const PUT: u8 = 10;
    /// A get.
    pub const GET: u8 = 11;
    /// A delete.
    pub const DELETE: u8 = 12;
    /// A rare request.
    pub const ADMIN: u8 = 13;
    /// A put or delete was acknowledged.
    pub const WRITTEN: u8 = 20;
    /// The answer to a get.
    pub const VALUES: u8 = 21;
    /// The answer to a rare request.
    pub const ADMIN_REPLY: u8 = 22;
    /// The first kind of messages between nodes; all below are shared or of clients.
    pub const PEER_FIRST: u8 = 64;
}

/// A write of one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// The bucket.
    pub bucket: BucketId,
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// The opaque context of the read this write follows; empty for a blind write.
    pub context: Bytes,
    /// The level, or the bucket's default.
    pub level: Option<Level>,
    /// The write's name, for safe repetition.
    pub request: RequestId,
    /// How long the client waits, milliseconds.
    pub timeout_ms: u32,
}

/// A delete of everything the context covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delete {
    /// The bucket.
    pub bucket: BucketId,
    /// The key.
    pub key: Bytes,
    /// The opaque context of a read. Never empty in a `siblings` bucket.
    pub context: Bytes,
    /// The level, or the bucket's default.
    pub level: Option<Level>,
    /// The write's name, for safe repetition.
    pub request: RequestId,
    /// How long the client waits, milliseconds.
    pub timeout_ms: u32,
}

/// A read of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Get {
    /// The bucket.
    pub bucket: BucketId,
    /// The key.
    pub key: Bytes,
    /// The level, or the bucket's default.
    pub level: Option<Level>,
    /// How long the client waits, milliseconds.
    pub timeout_ms: u32,
}

/// What a client asks a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Write a value.
    Put(Put),
    /// Read a key.
    Get(Get),
    /// Delete a key.
    Delete(Delete),
    /// Anything rare.
    Admin(AdminRequest),
}

/// Which guarantee an answer met: who stands behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The node that coordinated.
    pub coordinator: NodeId,
    /// The level that was met.
    pub level: Level,
    /// The replicas that had made the write durable, or whose state the read includes, when the
    /// answer was given. More may follow.
    pub replicas: Vec<ReceiptEntry>,
}

/// One replica behind an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReceiptEntry {
    /// The node.
    pub node: NodeId,
    /// Its region.
    pub region: RegionId,
    /// Whether it stood in for a home replica.
    pub fallback: bool,
}

/// An acknowledged write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The write's dot.
    pub dot: Dot,
    /// Its clock reading at the coordinator.
    pub hlc: Hlc,
    /// The opaque context after the write: covers it and all it overwrote.
    pub context: Bytes,
    /// Who stands behind it.
    pub receipt: Receipt,
}

/// One of the values a key holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sibling {
    /// The value.
    pub value: Bytes,
    /// When it was written, by its coordinator's clock.
    pub hlc: Hlc,
    /// The dot of its write.
    pub dot: Dot,
}

/// The answer to a get. No siblings: the key is absent or deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Values {
    /// The concurrent values.
    pub siblings: Vec<Sibling>,
    /// The opaque context to hand back with the write that follows.
    pub context: Bytes,
    /// Who stands behind it.
    pub receipt: Receipt,
}

/// What a node answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// To a put or delete.
    Written(Written),
    /// To a get.
    Values(Values),
    /// To a rare request.
    Admin(Box<AdminReply>),
    /// To anything.
    Error(RequestError),
}

impl Request {
    /// Appends the request as one frame.
    pub fn encode(&self, id: u64, out: &mut BytesMut) {
        match self {
            Request::Put(put) => put_frame(out, kind::PUT, id, |out| put.encode(out)),
            Request::Get(get) => put_frame(out, kind::GET, id, |out| get.encode(out)),
            Request::Delete(delete) => put_frame(out, kind::DELETE, id, |out| delete.encode(out)),
            Request::Admin(request) => {
                put_frame(out, kind::ADMIN, id, |out| out.put_slice(&admin::encode(request)));
            }
        }
    }

    /// Reads a request from a frame.
    ///
    /// # Errors
    /// [`WireError`] if the body is not what its kind says; lengths are checked before anything is
    /// allocated.
    pub fn decode(frame: &Frame) -> Result<Request, WireError> {
        let mut reader = Reader::new(&frame.body);
        let request = match frame.kind {
            kind::PUT => Request::Put(Put::decode(&mut reader)?),
            kind::GET => Request::Get(Get::decode(&mut reader)?),
            kind::DELETE => Request::Delete(Delete::decode(&mut reader)?),
            kind::ADMIN => {
                let invalid = WireError::Invalid { field: "admin request", got: 0 };
                return admin::decode(&frame.body).map(Request::Admin).ok_or(invalid);
            }
            other => return Err(WireError::Invalid { field: "frame kind", got: other.into() }),
        };
        reader.finish()?;
        Ok(request)
    }
}

impl Put {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        put_write_head(out, self.bucket, self.level, self.timeout_ms, self.request);
        put_slice(out, &self.key);
        put_slice(out, &self.context);
        put_slice(out, &self.value);
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn decode(reader: &mut Reader<'_>) -> Result<Put, WireError> {
        let (bucket, level, timeout_ms, request) = write_head(reader)?;
        Ok(Put {
            bucket,
            level,
            timeout_ms,
            request,
            key: reader.bytes("key", KEY_LEN_MAX)?,
            context: reader.bytes("context", CONTEXT_LEN_MAX)?,
            value: reader.bytes("value", VALUE_LEN_MAX)?,
        })
    }
}

impl Delete {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        put_write_head(out, self.bucket, self.level, self.timeout_ms, self.request);
        put_slice(out, &self.key);
        put_slice(out, &self.context);
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn decode(reader: &mut Reader<'_>) -> Result<Delete, WireError> {
        let (bucket, level, timeout_ms, request) = write_head(reader)?;
        Ok(Delete {
            bucket,
            level,
            timeout_ms,
            request,
            key: reader.bytes("key", KEY_LEN_MAX)?,
            context: reader.bytes("context", CONTEXT_LEN_MAX)?,
        })
    }
}

impl Get {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u32(self.bucket.0);
        out.put_u8(Level::to_byte(self.level));
        put_varint(out, self.timeout_ms.into());
        put_slice(out, &self.key);
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn decode(reader: &mut Reader<'_>) -> Result<Get, WireError> {
        Ok(Get {
            bucket: BucketId(reader.u32()?),
            level: Level::from_byte(reader.u8()?)?,
            timeout_ms: timeout(reader)?,
            key: reader.bytes("key", KEY_LEN_MAX)?,
        })
    }
}

fn put_write_head(
    out: &mut BytesMut,
    bucket: BucketId,
    level: Option<Level>,
    timeout_ms: u32,
    request: RequestId,
) {
    out.put_u32(bucket.0);
    out.put_u8(Level::to_byte(level));
    put_varint(out, timeout_ms.into());
    out.put_u64(request.client);
    put_varint(out, request.sequence);
}

type WriteHead = (BucketId, Option<Level>, u32, RequestId);

fn write_head(reader: &mut Reader<'_>) -> Result<WriteHead, WireError> {
    let bucket = BucketId(reader.u32()?);
    let level = Level::from_byte(reader.u8()?)?;
    let timeout_ms = timeout(reader)?;
    let client = reader.u64()?;
    let sequence = reader.varint("request sequence")?;
    Ok((bucket, level, timeout_ms, RequestId { client, sequence }))
}

fn timeout(reader: &mut Reader<'_>) -> Result<u32, WireError> {
    // Any u32 is taken: the node cuts it to its own limit.
    Ok(reader.length("timeout", u32::MAX as usize)? as u32)
}

impl Reply {
    /// Appends the answer as one frame.
    pub fn encode(&self, id: u64, out: &mut BytesMut) {
        match self {
            Reply::Written(written) => {
                put_frame(out, kind::WRITTEN, id, |out| written.encode(out));
            }
            Reply::Values(values) => put_frame(out, kind::VALUES, id, |out| values.encode(out)),
            Reply::Admin(reply) => {
                put_frame(out, kind::ADMIN_REPLY, id, |out| out.put_slice(&admin::encode(reply)));
            }
            Reply::Error(error) => {
                put_frame(out, kind::ERROR, id, |out| out.put_slice(&admin::encode(error)));
            }
        }
    }

    /// Reads an answer from a frame.
    ///
    /// # Errors
    /// [`WireError`] if the body is not what its kind says.
    pub fn decode(frame: &Frame) -> Result<Reply, WireError> {
        let mut reader = Reader::new(&frame.body);
        let reply = match frame.kind {
            kind::WRITTEN => Reply::Written(Written::decode(&mut reader)?),
            kind::VALUES => Reply::Values(Values::decode(&mut reader)?),
            kind::ADMIN_REPLY => {
                let invalid = WireError::Invalid { field: "admin reply", got: 0 };
                return admin::decode(&frame.body)
                    .map(|r| Reply::Admin(Box::new(r)))
                    .ok_or(invalid);
            }
            kind::ERROR => {
                let invalid = WireError::Invalid { field: "error", got: 0 };
                return admin::decode(&frame.body).map(Reply::Error).ok_or(invalid);
            }
            other => return Err(WireError::Invalid { field: "frame kind", got: other.into() }),
        };
        reader.finish()?;
        Ok(reply)
    }
}

impl Written {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        put_dot(out, self.dot);
        out.put_u64(self.hlc.0);
        put_slice(out, &self.context);
        self.receipt.encode(out);
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn decode(reader: &mut Reader<'_>) -> Result<Written, WireError> {
        Ok(Written {
            dot: dot(reader)?,
            hlc: Hlc(reader.u64()?),
            context: reader.bytes("context", CONTEXT_LEN_MAX)?,
            receipt: Receipt::decode(reader)?,
        })
    }
}

impl Values {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        put_varint(out, self.siblings.len() as u64);
        for sibling in &self.siblings {
            put_dot(out, sibling.dot);
            out.put_u64(sibling.hlc.0);
            put_slice(out, &sibling.value);
        }
        put_slice(out, &self.context);
        self.receipt.encode(out);
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn decode(reader: &mut Reader<'_>) -> Result<Values, WireError> {
        let count = reader.length("siblings", SIBLINGS_HARD_MAX)?;
        let mut siblings = Vec::with_capacity(count);
        for _ in 0..count {
            let dot = dot(reader)?;
            let hlc = Hlc(reader.u64()?);
            siblings.push(Sibling { dot, hlc, value: reader.bytes("value", VALUE_LEN_MAX)? });
        }
        let context = reader.bytes("context", CONTEXT_LEN_MAX)?;
        Ok(Values { siblings, context, receipt: Receipt::decode(reader)? })
    }
}

impl Receipt {
    /// Appends the receipt.
    pub fn encode(&self, out: &mut BytesMut) {
        put_varint(out, self.coordinator.0);
        out.put_u8(Level::to_byte(Some(self.level)));
        put_varint(out, self.replicas.len() as u64);
        for entry in &self.replicas {
            put_varint(out, entry.node.0);
            put_varint(out, u64::from(entry.region.0) << 1 | u64::from(entry.fallback));
        }
    }

    /// Reads a receipt.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn decode(reader: &mut Reader<'_>) -> Result<Receipt, WireError> {
        let coordinator = NodeId(reader.varint("coordinator")?);
        let level = Level::from_byte(reader.u8()?)?
            .ok_or(WireError::Invalid { field: "receipt level", got: 0 })?;
        let count = reader.length("receipt replicas", RECEIPT_NODES_MAX)?;
        let mut replicas = Vec::with_capacity(count);
        for _ in 0..count {
            let node = NodeId(reader.varint("replica")?);
            let packed = reader.length("region", usize::from(u16::MAX) << 1 | 1)?;
            let region = RegionId((packed >> 1) as u16);
            replicas.push(ReceiptEntry { node, region, fallback: packed & 1 == 1 });
        }
        Ok(Receipt { coordinator, level, replicas })
    }
}

/// Appends a dot: actor (8 bytes, big-endian), counter (varint).
pub fn put_dot(out: &mut impl BufMut, dot: Dot) {
    out.put_u64(dot.actor.0);
    put_varint(out, dot.counter);
}

/// Reads a dot.
///
/// # Errors
/// [`WireError`]; a counter is never 0.
pub fn dot(reader: &mut Reader<'_>) -> Result<Dot, WireError> {
    let actor = Actor(reader.u64()?);
    match reader.varint("counter")? {
        0 => Err(WireError::Invalid { field: "counter", got: 0 }),
        counter => Ok(Dot { actor, counter }),
    }
}

#[cfg(test)]
mod tests;
