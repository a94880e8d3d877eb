//! What replicas say to each other when they verify that they hold the same: the messages of
//! [`crate::shard::verify`].

use bytes::{BufMut, Bytes, BytesMut};

use holm_protocol::ids::BucketId;
use holm_protocol::limits::{KEY_LEN_MAX, OBJECT_LEN_MAX};
use holm_protocol::wire::{Reader, WireError, put_slice, put_varint};

use crate::clock::PartitionClock;
use crate::merkle::{Hash, MIDDLE, MIDDLE_NODES, SEGMENTS};
use crate::peer::Refusal;

/// Keys that one message lists at most.
pub const KEYS_MAX: usize = 4096;

/// Keys whose objects one message has at most.
pub const OBJECTS_MAX: usize = 64;

/// A key in the order of the store: bucket, then key.
pub type Place = (BucketId, Bytes);

/// A key and what is stored under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyState {
    /// The key.
    pub at: Place,
    /// The encoded object; `None` if there is none, or none that can be read.
    pub object: Option<Bytes>,
}

/// A question about a partition that both replicas hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Digest the partition: what is the tree's level in the middle?
    Middle,
    /// The leaves under these nodes of the level in the middle?
    Leaves(Vec<u16>),
    /// The keys of these segments, after this place?
    Keys {
        /// The segments, ascending.
        segments: Vec<u16>,
        /// Where an earlier answer ended.
        after: Option<Place>,
    },
    /// Here is what I have under these keys, and all that I have seen: take it in, and tell me the
    /// same of you.
    Objects(PartitionClock, Vec<KeyState>),
}

/// An answer to a [`Question`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The level in the middle.
    Middle(Vec<Hash>),
    /// The leaves, 32 of each node that was asked for.
    Leaves(Vec<Hash>),
    /// Keys with values and their digests, in the order of the store.
    Keys {
        /// Each key and its digest.
        keys: Vec<(Place, u128)>,
        /// Up to where the answer goes; `None` to the end.
        until: Option<Place>,
    },
    /// What was here before the asker's objects were taken in, and all that was seen by then.
    Objects(PartitionClock, Vec<KeyState>),
    /// It could not look.
    Refused(Refusal),
}

impl Question {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        match self {
            Question::Middle => out.put_u8(1),
            Question::Leaves(nodes) => {
                out.put_u8(2);
                put_numbers(out, nodes);
            }
            Question::Keys { segments, after } => {
                out.put_u8(3);
                put_numbers(out, segments);
                put_place(out, after.as_ref());
            }
            Question::Objects(clock, states) => {
                out.put_u8(4);
                put_states(out, clock, states);
            }
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Question, WireError> {
        Ok(match reader.u8()? {
            1 => Question::Middle,
            2 => Question::Leaves(numbers(reader, MIDDLE_NODES)?),
            3 => Question::Keys { segments: numbers(reader, SEGMENTS)?, after: place(reader)? },
            4 => {
                let (clock, states) = states(reader)?;
                Question::Objects(clock, states)
            }
            got => return Err(WireError::Invalid { field: "question", got: got.into() }),
        })
    }
}

impl Answer {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        match self {
            Answer::Middle(nodes) => {
                out.put_u8(1);
                put_hashes(out, nodes);
            }
            Answer::Leaves(leaves) => {
                out.put_u8(2);
                put_hashes(out, leaves);
            }
            Answer::Keys { keys, until } => {
                out.put_u8(3);
                put_varint(out, keys.len() as u64);
                for ((bucket, key), digest) in keys {
                    out.put_u32(bucket.0);
                    put_slice(out, key);
                    out.put_u128(*digest);
                }
                put_place(out, until.as_ref());
            }
            Answer::Objects(clock, states) => {
                out.put_u8(4);
                put_states(out, clock, states);
            }
            Answer::Refused(refusal) => {
                out.put_u8(5);
                out.put_u8(*refusal as u8);
            }
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Answer, WireError> {
        Ok(match reader.u8()? {
            1 => Answer::Middle(hashes(reader, MIDDLE_NODES)?),
            2 => Answer::Leaves(hashes(reader, MIDDLE_NODES << MIDDLE)?),
            3 => {
                let count = reader.length("keys", KEYS_MAX)?;
                let mut keys = Vec::new();
                for _ in 0..count {
                    let bucket = BucketId(reader.u32()?);
                    let key = reader.bytes("key", KEY_LEN_MAX)?;
                    keys.push(((bucket, key), digest(reader)?));
                }
                Answer::Keys { keys, until: place(reader)? }
            }
            4 => {
                let (clock, states) = states(reader)?;
                Answer::Objects(clock, states)
            }
            5 => Answer::Refused(Refusal::from_byte(reader.u8()?)?),
            got => return Err(WireError::Invalid { field: "answer", got: got.into() }),
        })
    }
}

fn put_numbers(out: &mut BytesMut, numbers: &[u16]) {
    put_varint(out, numbers.len() as u64);
    numbers.iter().for_each(|number| out.put_u16(*number));
}

/// Ascending numbers below `limit`.
fn numbers(reader: &mut Reader<'_>, limit: usize) -> Result<Vec<u16>, WireError> {
    let count = reader.length("numbers", limit)?;
    let mut numbers: Vec<u16> = Vec::new();
    for _ in 0..count {
        let [high, low] = [reader.u8()?, reader.u8()?];
        let number = u16::from_be_bytes([high, low]);
        if usize::from(number) >= limit || numbers.last().is_some_and(|last| *last >= number) {
            return Err(WireError::Invalid { field: "number", got: number.into() });
        }
        numbers.push(number);
    }
    Ok(numbers)
}

fn put_hashes(out: &mut BytesMut, hashes: &[Hash]) {
    put_varint(out, hashes.len() as u64);
    hashes.iter().for_each(|hash| out.put_slice(hash));
}

fn hashes(reader: &mut Reader<'_>, limit: usize) -> Result<Vec<Hash>, WireError> {
    let count = reader.length("hashes", limit)?;
    let mut hashes = Vec::new();
    for _ in 0..count {
        let mut hash = Hash::default();
        hash.copy_from_slice(reader.take(size_of::<Hash>())?);
        hashes.push(hash);
    }
    Ok(hashes)
}

fn digest(reader: &mut Reader<'_>) -> Result<u128, WireError> {
    let mut digest = [0; 16];
    digest.copy_from_slice(reader.take(16)?);
    Ok(u128::from_be_bytes(digest))
}

fn put_place(out: &mut BytesMut, place: Option<&Place>) {
    match place {
        None => out.put_u8(0),
        Some((bucket, key)) => {
            out.put_u8(1);
            out.put_u32(bucket.0);
            put_slice(out, key);
        }
    }
}

fn place(reader: &mut Reader<'_>) -> Result<Option<Place>, WireError> {
    Ok(match reader.u8()? {
        0 => None,
        1 => Some((BucketId(reader.u32()?), reader.bytes("key", KEY_LEN_MAX)?)),
        got => return Err(WireError::Invalid { field: "place", got: got.into() }),
    })
}

fn put_states(out: &mut BytesMut, clock: &PartitionClock, states: &[KeyState]) {
    clock.encode(out);
    put_varint(out, states.len() as u64);
    for KeyState { at: (bucket, key), object } in states {
        out.put_u32(bucket.0);
        put_slice(out, key);
        // An object is never empty: no bytes stand for none.
        put_slice(out, object.as_deref().unwrap_or_default());
    }
}

fn states(reader: &mut Reader<'_>) -> Result<(PartitionClock, Vec<KeyState>), WireError> {
    let clock = PartitionClock::decode(reader)?;
    let count = reader.length("objects", OBJECTS_MAX)?;
    let mut states = Vec::new();
    for _ in 0..count {
        let at = (BucketId(reader.u32()?), reader.bytes("key", KEY_LEN_MAX)?);
        let object = reader.bytes("object", OBJECT_LEN_MAX)?;
        states.push(KeyState { at, object: Some(object).filter(|object| !object.is_empty()) });
    }
    Ok((clock, states))
}
