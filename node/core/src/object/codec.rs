//! An object's bytes, on disk and on the wire alike.
//!
//! Layout: version (1 byte), kind (1 byte), context (as [`VersionVector::encode`]), entries, and
//! CRC-32C over all of that (4 bytes). Integers are big-endian, counts and lengths varints.
//! - Siblings: a count, then per sibling dot, reading (8 bytes), checksum (4 bytes), value length
//!   and value; dots strictly ascending.
//! - Last-writer-wins: a byte that says nothing (0), value (1) or deletion (2); then for a value
//!   the same as for a sibling, for a deletion dot and reading.
//!
//! A dot is written as the place of its actor among the context's entries, and its counter: a live
//! dot is always covered, and most often it is that very entry.
//!
//! One object has one encoding, and nothing else decodes: two replicas whose bytes differ differ
//! in state. The trailing checksum finds damage to anything; each sibling's own checksum, made by
//! the coordinator, finds what was damaged before this encoding was made.

use holm_protocol::dot::Dot;
use holm_protocol::ids::Hlc;
use holm_protocol::limits::{
    CONTEXT_ENTRIES_MAX, OBJECT_LEN_MAX, SIBLINGS_HARD_MAX, VALUE_LEN_MAX,
};
use holm_protocol::version_vector::VersionVector;
use holm_protocol::wire::{Reader, WireError, put_slice, put_varint};

use super::join::{Entry, Latest, Siblings};
use super::{Object, ObjectKind, Sibling, State};

/// The layout above.
const VERSION: u8 = 1;

/// The trailing checksum, in bytes.
const CRC_BYTES: usize = 4;

/// A sibling with an empty value: place (1), counter (1), reading (8), checksum (4), length (1).
const SIBLING_BYTES_MIN: usize = 15;

/// What a sibling takes at most besides its value: place, counter, reading, checksum, length.
const SIBLING_BYTES_MAX: usize = 2 + 10 + 8 + 4 + 3;

/// A context's entry at most: actor and counter.
const ENTRY_BYTES_MAX: usize = 8 + 10;

/// Room for what surrounds a value, so that one reservation serves the common object.
const OVERHEAD_BYTES: usize = 48;

/// Markers of what a last-writer-wins object holds.
const LATEST_NOTHING: u8 = 0;
const LATEST_VALUE: u8 = 1;
const LATEST_DELETION: u8 = 2;

/// Why bytes are not an object, or an object is not to be written. Nothing was built or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectError {
    /// Written by a release that this one does not know.
    #[error("object format {got} is not known, this release reads {VERSION}")]
    Version {
        /// The version found.
        got: u8,
    },
    /// The bytes are damaged.
    #[error("checksum over the object's {len} bytes does not match")]
    Damaged {
        /// How many bytes there are.
        len: usize,
    },
    /// One value was damaged before these bytes were made.
    #[error("value written as {dot} does not match its coordinator's checksum")]
    ValueDamaged {
        /// Which write.
        dot: Dot,
    },
    /// A live dot is not covered by the object's context.
    #[error("live dot {dot} is not covered by the object's context")]
    Uncovered {
        /// Which dot.
        dot: Dot,
    },
    /// Live dots are not strictly ascending.
    #[error("live dot {dot} is out of order")]
    Unordered {
        /// The dot that should not follow.
        dot: Dot,
    },
    /// The bytes do not follow the layout, or a limit is exceeded.
    #[error(transparent)]
    Wire(#[from] WireError),
}

impl Object {
    /// Appends the object's bytes. Those of an object that fails [`Object::check_limits`] cannot
    /// be read back.
    pub fn encode(&self, out: &mut Vec<u8>) {
        debug_assert_eq!(self.check(), Ok(()));
        let start = out.len();
        // What it takes in memory is a little more than its bytes: one reservation serves nearly all.
        out.reserve(self.size_bytes());
        out.push(VERSION);
        out.push(self.kind().tag());
        self.context.encode(out);
        match &self.state {
            State::Siblings(siblings) => {
                put_varint(out, siblings.values.len() as u64);
                for sibling in &siblings.values {
                    self.put_sibling(out, sibling);
                }
            }
            State::Latest(latest) => match &latest.entry {
                None => out.push(LATEST_NOTHING),
                Some(Entry::Value(sibling)) => {
                    out.push(LATEST_VALUE);
                    self.put_sibling(out, sibling);
                }
                Some(Entry::Deletion { dot, hlc }) => {
                    out.push(LATEST_DELETION);
                    self.put_dot(out, *dot);
                    out.extend_from_slice(&hlc.0.to_be_bytes());
                }
            },
        }
        let crc = crc32c::crc32c(&out[start..]);
        out.extend_from_slice(&crc.to_be_bytes());
    }

    /// Reads what [`Object::encode`] wrote, and nothing else.
    ///
    /// # Errors
    /// The input is never trusted; every variant of [`ObjectError`] says that nothing was built.
    /// Limits ([`CONTEXT_ENTRIES_MAX`], [`SIBLINGS_HARD_MAX`], [`VALUE_LEN_MAX`]) are checked
    /// before allocating.
    pub fn decode(bytes: &[u8]) -> Result<Object, ObjectError> {
        let version = *bytes.first().ok_or(WireError::Truncated { missing: 1 })?;
        if version != VERSION {
            return Err(ObjectError::Version { got: version });
        }
        let damaged = ObjectError::Damaged { len: bytes.len() };
        let (body, crc) = bytes.split_last_chunk::<CRC_BYTES>().ok_or(damaged.clone())?;
        if crc32c::crc32c(body) != u32::from_be_bytes(*crc) {
            return Err(damaged);
        }
        let mut reader = Reader::new(body);
        reader.u8()?; // The version, seen above.
        let tag = reader.u8()?;
        let kind = ObjectKind::from_tag(tag)
            .ok_or(WireError::Invalid { field: "object kind", got: u64::from(tag) })?;
        let context = VersionVector::decode(&mut reader, CONTEXT_ENTRIES_MAX)?;
        let state = match kind {
            ObjectKind::Siblings => State::Siblings(read_siblings(&mut reader, &context)?),
            ObjectKind::Lww => State::Latest(read_latest(&mut reader, &context)?),
        };
        reader.finish()?;
        Ok(Object { state, context })
    }

    /// Checks that the object can be read back once written: joins of many replicas' states can
    /// grow past what a decoder accepts.
    ///
    /// # Errors
    /// [`ObjectError::Wire`] with the limit that is exceeded.
    pub fn check_limits(&self) -> Result<(), ObjectError> {
        let longest = self.siblings().iter().map(|s| s.value.len()).max().unwrap_or(0);
        let measures = [
            ("object", self.encoded_bytes(), OBJECT_LEN_MAX),
            ("version vector entries", self.context.len(), CONTEXT_ENTRIES_MAX),
            ("siblings", self.siblings().len(), SIBLINGS_HARD_MAX),
            ("value", longest, VALUE_LEN_MAX),
        ];
        for (field, got, limit) in measures {
            if got > limit {
                let (got, limit) = (got as u64, limit as u64);
                return Err(WireError::TooLong { field, got, limit }.into());
            }
        }
        Ok(())
    }

    /// Whether the join with another object keeps the limits for certain.
    #[must_use]
    pub fn has_room_for(&self, other: &Object) -> bool {
        self.context.len() + other.context.len() <= CONTEXT_ENTRIES_MAX
            && self.siblings().len() + other.siblings().len() <= SIBLINGS_HARD_MAX
            && self.encoded_bytes_max() + other.encoded_bytes_max() <= OBJECT_LEN_MAX
    }

    /// How long the encoding is, exactly where that matters: near the limit, objects are encoded to
    /// see.
    fn encoded_bytes(&self) -> usize {
        let most = self.encoded_bytes_max();
        if most <= OBJECT_LEN_MAX {
            return most;
        }
        let mut out = Vec::with_capacity(most);
        self.encode(&mut out);
        out.len()
    }

    /// At least as many bytes as the encoding takes.
    fn encoded_bytes_max(&self) -> usize {
        let siblings = self.siblings();
        let values: usize = siblings.iter().map(|sibling| sibling.value.len()).sum();
        OVERHEAD_BYTES
            + self.context.len() * ENTRY_BYTES_MAX
            + siblings.len() * SIBLING_BYTES_MAX
            + values
    }

    fn put_dot(&self, out: &mut Vec<u8>, dot: Dot) {
        // Every live dot is covered, so its actor is in the context. Were it not, the place past
        // the end makes the bytes undecodable rather than wrong.
        let place = self.context.index_of(dot.actor).unwrap_or(self.context.len());
        put_varint(out, place as u64);
        put_varint(out, dot.counter);
    }

    fn put_sibling(&self, out: &mut Vec<u8>, sibling: &Sibling) {
        self.put_dot(out, sibling.dot);
        out.extend_from_slice(&sibling.hlc.0.to_be_bytes());
        out.extend_from_slice(&sibling.checksum.to_be_bytes());
        put_slice(out, &sibling.value);
    }
}

fn read_siblings(
    reader: &mut Reader<'_>,
    context: &VersionVector,
) -> Result<Siblings, ObjectError> {
    let count = reader.length("siblings", SIBLINGS_HARD_MAX)?;
    // Room only for as many as the bytes can hold: the count alone is a promise.
    let mut values: Vec<Sibling> =
        Vec::with_capacity(count.min(reader.left().len() / SIBLING_BYTES_MIN));
    for _ in 0..count {
        let sibling = read_sibling(reader, context)?;
        if values.last().is_some_and(|last| last.dot >= sibling.dot) {
            return Err(ObjectError::Unordered { dot: sibling.dot });
        }
        values.push(sibling);
    }
    Ok(Siblings { values })
}

fn read_latest(reader: &mut Reader<'_>, context: &VersionVector) -> Result<Latest, ObjectError> {
    let entry = match reader.u8()? {
        LATEST_NOTHING => None,
        LATEST_VALUE => Some(Entry::Value(read_sibling(reader, context)?)),
        LATEST_DELETION => {
            let dot = read_dot(reader, context)?;
            Some(Entry::Deletion { dot, hlc: Hlc(reader.u64()?) })
        }
        other => {
            return Err(WireError::Invalid { field: "entry", got: u64::from(other) }.into());
        }
    };
    Ok(Latest { entry })
}

fn read_sibling(reader: &mut Reader<'_>, context: &VersionVector) -> Result<Sibling, ObjectError> {
    let dot = read_dot(reader, context)?;
    let hlc = Hlc(reader.u64()?);
    let checksum = reader.u32()?;
    let value = reader.bytes("value", VALUE_LEN_MAX)?;
    let sibling = Sibling { dot, hlc, value, checksum };
    if !sibling.verify() {
        return Err(ObjectError::ValueDamaged { dot });
    }
    Ok(sibling)
}

fn read_dot(reader: &mut Reader<'_>, context: &VersionVector) -> Result<Dot, ObjectError> {
    let place = reader.varint("actor's place in the context")?;
    let counter = reader.varint("dot counter")?;
    let entry = usize::try_from(place).ok().and_then(|place| context.entry(place));
    let Some(entry) = entry else {
        let field = "actor's place in the context";
        return Err(WireError::Invalid { field, got: place }.into());
    };
    let dot = Dot { actor: entry.actor, counter };
    if counter == 0 {
        return Err(WireError::Invalid { field: "dot counter", got: 0 }.into());
    }
    if counter > entry.counter {
        return Err(ObjectError::Uncovered { dot });
    }
    Ok(dot)
}
