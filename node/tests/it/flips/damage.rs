//! The files of a node's data directory, and how they can be damaged.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::Dice;

/// The longest run of bytes that one damage fills with zeros: a page.
const HOLE_MAX: usize = 4096;

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Table,
    Wal,
    Manifest,
    Current,
    Options,
    RocksIdentity,
    HighWater,
    Identity,
    Format,
    Amnesia,
}

impl Kind {
    pub(crate) const ALL: [Kind; 10] = [
        Kind::Table,
        Kind::Wal,
        Kind::Manifest,
        Kind::Current,
        Kind::Options,
        Kind::RocksIdentity,
        Kind::HighWater,
        Kind::Identity,
        Kind::Format,
        Kind::Amnesia,
    ];

    /// What a file in a data directory is; `None` for locks and RocksDB's text logs, of which nothing
    /// is read back.
    fn of(file: &Path) -> Option<Kind> {
        let in_database = file.parent()?.ends_with("db");
        let name = file.file_name()?.to_str()?;
        match (in_database, name) {
            (true, name) if name.ends_with(".sst") => Some(Kind::Table),
            (true, name) if name.ends_with(".log") => Some(Kind::Wal),
            (true, name) if name.starts_with("MANIFEST-") => Some(Kind::Manifest),
            (true, "CURRENT") => Some(Kind::Current),
            (true, name) if name.starts_with("OPTIONS-") => Some(Kind::Options),
            (true, "IDENTITY") => Some(Kind::RocksIdentity),
            (false, "HIGHWATER") => Some(Kind::HighWater),
            (false, "IDENTITY") => Some(Kind::Identity),
            (false, "FORMAT") => Some(Kind::Format),
            (false, "AMNESIA") => Some(Kind::Amnesia),
            _ => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Table => "table (.sst)",
            Kind::Wal => "WAL (.log)",
            Kind::Manifest => "MANIFEST",
            Kind::Current => "CURRENT",
            Kind::Options => "OPTIONS",
            Kind::RocksIdentity => "db/IDENTITY",
            Kind::HighWater => "HIGHWATER",
            Kind::Identity => "IDENTITY",
            Kind::Format => "FORMAT",
            Kind::Amnesia => "AMNESIA",
        })
    }
}

/// All files of a kind in a data directory, in the order of their names.
pub(crate) fn files(data: &Path, kind: Kind) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for dir in [data.to_owned(), data.join("db")] {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        found.extend(entries.filter(|path| path.is_file() && Kind::of(path) == Some(kind)));
    }
    found.sort();
    found
}

/// Copies a data directory.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (path, copied) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &copied);
        } else {
            fs::copy(&path, &copied).unwrap();
        }
    }
}

/// One damage to one file.
#[derive(Debug)]
pub(crate) enum Damage {
    /// Bits turned over: where, and which.
    Flips(Vec<(usize, u8)>),
    /// A run of bytes turned into zeros: where, and how many.
    Zeros(usize, usize),
    /// Cut off there.
    Cut(usize),
    /// Gone.
    Deleted,
}

impl Damage {
    /// Six flips of a bit in ten, one of several bytes, one hole, two cuts. Something always changes.
    pub(crate) fn roll(dice: &mut Dice, bytes: &[u8]) -> Damage {
        let len = bytes.len();
        if len == 0 {
            return Damage::Deleted;
        }
        match dice.below(10) {
            0..6 => Damage::Flips(vec![(dice.below(len), 1 << dice.below(8))]),
            6 => {
                let mut flip = |_| (dice.below(len), dice.below(255) as u8 + 1);
                Damage::Flips((0..4).map(&mut flip).collect())
            }
            7 => {
                let start = dice.below(len);
                let run = 1 + dice.below(HOLE_MAX.min(len - start));
                if bytes[start..start + run].iter().all(|&byte| byte == 0) {
                    return Damage::Flips(vec![(start, 0xff)]);
                }
                Damage::Zeros(start, run)
            }
            // As often near the end, where a crash would cut, as anywhere.
            8 => Damage::Cut(dice.below(len)),
            _ => Damage::Cut(len - 1 - dice.below(len.min(200))),
        }
    }

    /// Does it.
    pub(crate) fn inflict(&self, file: &Path) {
        let mut bytes = fs::read(file).unwrap();
        match self {
            Damage::Flips(flips) => flips.iter().for_each(|&(at, mask)| bytes[at] ^= mask),
            Damage::Zeros(start, run) => bytes[*start..start + run].fill(0),
            Damage::Cut(len) => bytes.truncate(*len),
            Damage::Deleted => return fs::remove_file(file).unwrap(),
        }
        fs::write(file, bytes).unwrap();
    }
}
