//! A second opinion on RocksDB's write-ahead logs, read before RocksDB touches them.
//!
//! The problem: RocksDB's strict recovery refuses a log with a damaged record, and its lenient one
//! drops everything behind it; neither says whether what is dropped was ever acknowledged. A
//! process killed in the middle of a write leaves half a record, which is no loss; a flipped bit in
//! the middle of the log is one. And a hole of zeros is skipped in silence even by strict recovery.
//!
//! The rule: records are checked one by one (checksum, fragments, and that each batch's sequence
//! number follows its predecessor's). Damage is a *torn tail* only if nothing sound begins behind
//! it; records behind damage prove that the damaged one was complete once.
//!
//! The format is RocksDB's: blocks of 32 KiB; records of masked crc32c (4), length (2), type (1)
//! and payload, never across a block's end; a payload is a piece of a write batch, which begins
//! with its sequence number (8) and count (4). Logs are neither compressed nor recycled here.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

const BLOCK_LEN: usize = 32 * 1024;
const HEADER_LEN: usize = 7;
/// Sequence number and count of a write batch.
const BATCH_HEADER_LEN: usize = 12;
const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;
/// Types from here on are notes that a reader may skip.
const SKIPPABLE: u8 = 128;
/// Notes about timestamps, which this store never writes but RocksDB may.
const TIMESTAMP_SIZES: u8 = 10;

/// The first damage found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Damage {
    pub(super) file: PathBuf,
    /// Bytes from the file's start.
    pub(super) offset: u64,
    pub(super) what: &'static str,
    /// Whether nothing sound begins behind it: half a record, as a crash leaves it.
    pub(super) torn_tail: bool,
    /// The last sequence number known to be sound before it; `None` if no log got so far.
    pub(super) sound_until: Option<u64>,
}

/// Reads all logs in the database's directory: the last sequence number in them, if they have
/// any, or damage.
///
/// # Errors
/// Those of listing and reading files; damage is not an error.
pub(super) fn scan(db: &Path) -> io::Result<Result<Option<u64>, Damage>> {
    let mut next_sequence = None;
    let mut damage: Option<Damage> = None;
    for path in logs(db)? {
        let mut blocks = Blocks { file: File::open(&path)?, block: Vec::new(), start: 0 };
        let mut reader = Records { next_sequence, batch: None };
        while blocks.next()? {
            if let Some(found) = &damage {
                if begins_record(&blocks.block, 0) {
                    return Ok(Err(Damage { torn_tail: false, ..found.clone() }));
                }
                continue;
            }
            if let Err((at, what)) = reader.block(&blocks.block) {
                let torn_tail = !begins_record(&blocks.block, at);
                let offset = blocks.start + at as u64;
                let sound_until = reader.sound_until();
                let found = Damage { file: path.clone(), offset, what, torn_tail, sound_until };
                if !torn_tail {
                    return Ok(Err(found));
                }
                damage = Some(found);
            }
        }
        if damage.is_none() && reader.batch.is_some() {
            let offset = blocks.start + blocks.block.len() as u64;
            let what = "the log ends inside a record";
            let sound_until = reader.sound_until();
            let file = path.clone();
            damage = Some(Damage { file, offset, what, torn_tail: true, sound_until });
        }
        next_sequence = reader.next_sequence;
    }
    Ok(damage.map_or(Ok(next_sequence.map(|next: u64| next.saturating_sub(1))), Err))
}

/// The log files, oldest first.
fn logs(db: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(db)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            if let Ok(number) = stem.parse::<u64>() {
                found.push((number, path));
            }
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// A file, block by block.
struct Blocks {
    file: File,
    block: Vec<u8>,
    /// Where the block starts in the file.
    start: u64,
}

impl Blocks {
    fn next(&mut self) -> io::Result<bool> {
        self.start += self.block.len() as u64;
        self.block.clear();
        (&mut self.file).take(BLOCK_LEN as u64).read_to_end(&mut self.block)?;
        Ok(!self.block.is_empty())
    }
}

/// What a record must fit onto.
struct Records {
    next_sequence: Option<u64>,
    /// The first bytes of a batch whose last fragment has not come yet.
    batch: Option<Vec<u8>>,
}

impl Records {
    fn sound_until(&self) -> Option<u64> {
        self.next_sequence.map(|next| next.saturating_sub(1))
    }

    /// Checks the records of one block; the error is where the first bad one starts and what is
    /// wrong with it.
    fn block(&mut self, block: &[u8]) -> Result<(), (usize, &'static str)> {
        let mut at = 0;
        while block.len() - at >= HEADER_LEN {
            let (kind, payload) = record(block, at).map_err(|what| (at, what))?;
            self.record(kind, payload).map_err(|what| (at, what))?;
            at += HEADER_LEN + payload.len();
        }
        // The last bytes of a whole block are padding; at the file's end they are half a header.
        if at < block.len() && block.len() < BLOCK_LEN {
            return Err((at, "the log ends inside a record's header"));
        }
        Ok(())
    }

    fn record(&mut self, kind: u8, payload: &[u8]) -> Result<(), &'static str> {
        let head = &payload[..payload.len().min(BATCH_HEADER_LEN)];
        match (kind, self.batch.as_mut()) {
            (FULL, None) => self.finish(head),
            (FIRST, None) => {
                self.batch = Some(head.to_vec());
                Ok(())
            }
            (MIDDLE | LAST, Some(batch)) => {
                let missing = BATCH_HEADER_LEN.saturating_sub(batch.len());
                batch.extend_from_slice(&payload[..payload.len().min(missing)]);
                if kind == MIDDLE {
                    return Ok(());
                }
                let batch = self.batch.take().unwrap_or_default();
                self.finish(&batch)
            }
            (SKIPPABLE.. | TIMESTAMP_SIZES, None) => Ok(()),
            _ => Err("a record's fragments do not fit together"),
        }
    }

    fn finish(&mut self, head: &[u8]) -> Result<(), &'static str> {
        let Some((sequence, count)) = head
            .split_first_chunk::<8>()
            .zip(head.last_chunk::<4>())
            .filter(|_| head.len() == BATCH_HEADER_LEN)
            .map(|((sequence, _), count)| {
                (u64::from_le_bytes(*sequence), u32::from_le_bytes(*count))
            })
        else {
            return Err("a record too short for a write batch");
        };
        if self.next_sequence.is_some_and(|expected| expected != sequence) {
            return Err("records are missing before this one");
        }
        self.next_sequence = sequence.checked_add(u64::from(count));
        Ok(())
    }
}

/// The record that starts at `at`: its type and payload.
fn record(block: &[u8], at: usize) -> Result<(u8, &[u8]), &'static str> {
    let Some((header, rest)) = block.get(at..).and_then(|rest| rest.split_at_checked(HEADER_LEN))
    else {
        return Err("half a header");
    };
    let length = usize::from(u16::from_le_bytes([header[4], header[5]]));
    let kind = header[6];
    if kind == 0 {
        return Err("zeros where a record should start");
    }
    let Some(payload) = rest.get(..length) else {
        return Err("a record longer than the rest of its block");
    };
    let stored = unmask(u32::from_le_bytes([header[0], header[1], header[2], header[3]]));
    let found = crc32c::crc32c_append(crc32c::crc32c(&[kind]), payload);
    if stored != found {
        return Err("a record's checksum does not match");
    }
    Ok((kind, payload))
}

/// Whether a sound record that begins a batch lies anywhere at or behind `from`. After damage a
/// record's length cannot be trusted, so every offset is tried.
fn begins_record(block: &[u8], from: usize) -> bool {
    (from..block.len())
        .any(|at| matches!(block.get(at + 6), Some(&(FULL | FIRST))) && record(block, at).is_ok())
}

/// RocksDB stores checksums rotated and shifted, so that a checksum of bytes that hold checksums
/// stays sound.
fn unmask(masked: u32) -> u32 {
    masked.wrapping_sub(0xa282_ead8).rotate_left(15)
}
