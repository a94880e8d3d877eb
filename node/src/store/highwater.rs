//! The durable high-water mark: how far the store had got, written down in a second place.
//!
//! RocksDB recovers what it finds. It cannot say that its newest write-ahead log was deleted, or
//! cut at a record's end: what is left is a sound, older store. So every commit also writes its
//! sequence number to this file, and a store that opens behind it has forgotten something.
//!
//! Two numbers, because a crash of the process and one of the machine lose different things:
//! - *written*: the last commit that was acknowledged. The kernel keeps it when the process dies,
//!   so within one boot of the machine the store must reach it.
//! - *synced*: the last commit known to be fsynced. After a power cut the store must reach that
//!   one; what lies between the two is what `sync = interval` says it may lose.
//!
//! The boot id in the mark tells which case it is.
//!
//! # Layout
//! [`SLOTS`] slots, [`SLOT_STRIDE`] bytes apart so that no two share a page. A slot: magic (8),
//! generation (8, little-endian as all numbers here), store id (16), boot id (16), written (8),
//! synced (8), flags (1, bit 0: `sync = always`), opening (3), crc32c of all before it (4).
//! The slot with the highest generation counts. Three slots, not two: one is being written, one is
//! being synced, and one is on the disk for certain, so that no power cut takes them all.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::files;

const MAGIC: [u8; 8] = *b"holmhwm1";
/// One written, one being synced, one safe.
pub(super) const SLOTS: usize = 3;
/// A page: what the kernel writes back as one piece.
pub(super) const SLOT_STRIDE: usize = 4096;
pub(super) const SLOT_LEN: usize = 72;
const FILE_LEN: usize = SLOTS * SLOT_STRIDE;
const FLAG_ALWAYS: u8 = 1;
/// What three bytes hold.
pub(super) const OPENING_MAX: u32 = 0xff_ffff;

/// What one slot says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) store_id: u128,
    /// The machine's boot in which it was written; zeros if the kernel did not say.
    pub(super) boot: [u8; 16],
    /// Sequence number of the last acknowledged commit.
    pub(super) written: u64,
    /// Sequence number of the last commit that is known to be fsynced.
    pub(super) synced: u64,
    /// Whether every commit was fsynced before its acknowledgement.
    pub(super) always: bool,
    /// Names the opening of the store since which the mark is written, at most [`OPENING_MAX`]; 0
    /// in a store of before there were such names.
    pub(super) opening: u32,
}

impl Mark {
    fn encode(&self, generation: u64) -> [u8; SLOT_LEN] {
        let mut slot = [0; SLOT_LEN];
        slot[..8].copy_from_slice(&MAGIC);
        slot[8..16].copy_from_slice(&generation.to_le_bytes());
        slot[16..32].copy_from_slice(&self.store_id.to_le_bytes());
        slot[32..48].copy_from_slice(&self.boot);
        slot[48..56].copy_from_slice(&self.written.to_le_bytes());
        slot[56..64].copy_from_slice(&self.synced.to_le_bytes());
        slot[64] = if self.always { FLAG_ALWAYS } else { 0 };
        slot[65..68].copy_from_slice(&self.opening.to_le_bytes()[..3]);
        let checksum = crc32c::crc32c(&slot[..SLOT_LEN - 4]);
        slot[SLOT_LEN - 4..].copy_from_slice(&checksum.to_le_bytes());
        slot
    }

    /// Generation and mark, if the bytes are exactly what [`Mark::encode`] makes.
    fn decode(slot: &[u8; SLOT_LEN]) -> Option<(u64, Mark)> {
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&slot[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let wide = |at: usize| {
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&slot[at..at + 16]);
            bytes
        };
        let mark = Mark {
            store_id: u128::from_le_bytes(wide(16)),
            boot: wide(32),
            written: number(48),
            synced: number(56),
            always: slot[64] == FLAG_ALWAYS,
            opening: u32::from_le_bytes([slot[65], slot[66], slot[67], 0]),
        };
        let generation = number(8);
        (mark.encode(generation) == *slot).then_some((generation, mark))
    }
}

/// What was found where the mark should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MarkFound {
    /// No file.
    Missing,
    /// A file without one sound slot.
    Damaged,
    /// A mark. `newest` is false if a damaged slot may have held a later one.
    Sound {
        /// The latest sound one.
        mark: Mark,
        /// Whether it is certainly the last that was written.
        newest: bool,
    },
}

/// Reads the mark; damage of any kind is an answer, not an error.
///
/// # Errors
/// Those of reading a file, other than its absence.
pub(super) fn read(path: &Path) -> io::Result<MarkFound> {
    let mut bytes = Vec::new();
    match File::open(path) {
        // One byte more than it should have, so that a file of another kind is not read whole.
        Ok(file) => file.take(FILE_LEN as u64 + 1).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(MarkFound::Missing),
        Err(error) => return Err(error),
    };
    let mut newest = bytes.len() == FILE_LEN;
    let mut best: Option<(u64, Mark)> = None;
    for index in 0..SLOTS {
        let start = index * SLOT_STRIDE;
        let mut slot = [0; SLOT_LEN];
        let Some(found) = bytes.get(start..start + SLOT_LEN) else { continue };
        slot.copy_from_slice(found);
        match Mark::decode(&slot) {
            Some(sound) if best.is_none_or(|(generation, _)| sound.0 > generation) => {
                best = Some(sound);
            }
            Some(_) => {}
            None => newest &= slot.iter().all(|byte| *byte == 0), // Blank: not used yet.
        }
    }
    Ok(best.map_or(MarkFound::Damaged, |(_, mark)| MarkFound::Sound { mark, newest }))
}

/// The open mark. Its numbers only grow.
#[derive(Debug)]
pub(super) struct HighWater {
    file: Arc<File>,
    mark: Mark,
    generation: u64,
    slot: usize,
    unsynced: bool,
}

impl HighWater {
    /// Replaces the file by one that says `mark`, durably and at once.
    pub(super) fn create(path: &Path, mark: Mark) -> io::Result<HighWater> {
        let mut bytes = vec![0; FILE_LEN];
        bytes[..SLOT_LEN].copy_from_slice(&mark.encode(1));
        files::replace(path, |file| file.write_all(&bytes))?;
        let file = Arc::new(OpenOptions::new().write(true).open(path)?);
        Ok(HighWater { file, mark, generation: 1, slot: 1, unsynced: false })
    }

    /// Notes an acknowledged commit; with `sync = always` it is also a synced one.
    pub(super) fn note_written(&mut self, sequence: u64) -> io::Result<()> {
        if sequence <= self.mark.written {
            return Ok(());
        }
        self.mark.written = sequence;
        if self.mark.always {
            self.mark.synced = sequence;
        }
        self.write()
    }

    /// Notes that everything up to `sequence` is fsynced.
    pub(super) fn note_synced(&mut self, sequence: u64) -> io::Result<()> {
        if sequence <= self.mark.synced {
            return Ok(());
        }
        self.mark.synced = sequence;
        self.mark.written = self.mark.written.max(sequence);
        self.write()
    }

    fn write(&mut self) -> io::Result<()> {
        self.generation += 1;
        self.unsynced = true;
        let offset = self.slot * SLOT_STRIDE;
        self.file.write_all_at(&self.mark.encode(self.generation), offset as u64)
    }

    /// The file to fdatasync, if there is something to sync. Later notes go to the next slot, so
    /// the caller can sync without holding the lock; one caller at a time.
    pub(super) fn start_sync(&mut self) -> Option<Arc<File>> {
        if !self.unsynced {
            return None;
        }
        self.unsynced = false;
        self.slot = (self.slot + 1) % SLOTS;
        Some(Arc::clone(&self.file))
    }
}

/// This boot of the machine, or zeros where the kernel does not say.
pub(super) fn boot_id() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).unwrap_or(0).to_be_bytes()
}
