//! Choices drawn from the bytes of an input, and encodings made by them.
//!
//! A mutated input must still mean nearly the same, so choices are read from the front, a byte or a
//! few each, and an exhausted input draws zeros. Checksums are always made right here: no mutation
//! finds them, and behind them is what is to be tested.

use bytes::{BufMut, Bytes};
use holm_protocol::dot::Dot;
use holm_protocol::ids::{Actor, Hlc};
use holm_protocol::version_vector::VersionVector;
use holm_protocol::wire::{put_slice, put_varint};

/// A source of choices.
#[derive(Debug, Clone)]
pub struct Input<'a> {
    left: &'a [u8],
}

impl<'a> Input<'a> {
    /// Reads from the first byte on.
    #[must_use]
    pub fn new(data: &'a [u8]) -> Input<'a> {
        Input { left: data }
    }

    /// Whether nothing is left: from here on all choices are zero.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        match self.left.split_first() {
            Some((&byte, left)) => {
                self.left = left;
                byte
            }
            None => 0,
        }
    }

    /// A number below `limit`, which is at least 1.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::from(self.byte()) % limit
    }

    /// One of two.
    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        if from.is_empty() { None } else { from.get(self.below(from.len())).copied() }
    }

    /// Any number: mostly small, sometimes at an edge, sometimes eight bytes of the input.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            byte @ 0..=199 => u64::from(byte),
            200..=219 => u64::MAX - u64::from(self.byte()),
            220..=229 => 1 << (self.byte() % 64),
            _ => (0..8).fold(0, |number, _| number << 8 | u64::from(self.byte())),
        }
    }

    /// Up to `max` bytes; how many is a byte of the input.
    pub fn bytes(&mut self, max: usize) -> &'a [u8] {
        let len = usize::from(self.byte()).min(max).min(self.left.len());
        let (taken, left) = self.left.split_at(len);
        self.left = left;
        taken
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.left)
    }

    /// A version vector of a few small actors.
    pub fn vector(&mut self) -> VersionVector {
        (0..self.below(6)).map(|_| Dot::new(Actor(self.below(8) as u64), self.number())).collect()
    }
}

/// Appends the CRC-32C that ends objects and log records.
#[must_use]
pub fn sealed(mut body: Vec<u8>) -> Bytes {
    let crc = crc32c::crc32c(&body);
    body.put_u32(crc);
    body.into()
}

/// An object as it is written, before anything has checked it: fields may contradict each other.
#[derive(Debug, Clone, Default)]
pub struct RawObject {
    /// The kind's tag.
    pub kind: u8,
    /// The context's entries.
    pub context: Vec<(Actor, u64)>,
    /// The live writes: the place of the actor among the entries, counter, reading, and the value,
    /// or none for a deletion.
    pub live: Vec<(u64, u64, Hlc, Option<Vec<u8>>)>,
}

impl RawObject {
    /// Its bytes, with right checksums.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = vec![1, self.kind];
        put_varint(&mut out, self.context.len() as u64);
        for &(actor, counter) in &self.context {
            out.put_u64(actor.0);
            put_varint(&mut out, counter);
        }
        if self.kind == 1 {
            put_varint(&mut out, self.live.len() as u64);
        } else if self.live.is_empty() {
            out.push(0);
        }
        for (place, counter, hlc, value) in &self.live {
            let actor = self.context.get(*place as usize).map_or(Actor(0), |entry| entry.0);
            if self.kind != 1 {
                out.push(if value.is_some() { 1 } else { 2 });
            }
            put_varint(&mut out, *place);
            put_varint(&mut out, *counter);
            out.put_u64(hlc.0);
            if let Some(value) = value {
                out.put_u32(value_checksum(Dot::new(actor, *counter), *hlc, value));
                put_slice(&mut out, value);
            }
        }
        sealed(out)
    }
}

/// The checksum that a coordinator gives a value.
#[must_use]
pub fn value_checksum(dot: Dot, hlc: Hlc, value: &[u8]) -> u32 {
    holm_core::object::Sibling::new(dot, hlc, Bytes::copy_from_slice(value)).checksum
}
