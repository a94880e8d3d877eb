//! The small files beside the database, and how they are written: whole or not at all.
//!
//! | file | what |
//! | --- | --- |
//! | `FORMAT` | the version of everything in the directory |
//! | `IDENTITY` | cluster, node and store id; a copy is in the database |
//! | `HIGHWATER` | how far the store had got ([`super::highwater`]) |
//! | `AMNESIA` | why the store cannot vouch for what it holds; absent in a sound store |
//! | `LOCK` | held while a process has the directory open |
//! | `db/` | RocksDB |

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use holm_protocol::ids::NodeId;
use rustix::fs::{FlockOperation, flock};

use super::error::OpenError;
use super::{AmnesiaReason, StoreIdentity};

/// The version this program writes. Raised when an older program could misread the directory.
/// Version 1 had marks without the name of an opening: a program of that time takes one with a name
/// for damage. It is still read, and raised before the first such mark.
pub(super) const FORMAT_VERSION: u32 = 2;
const FORMAT_OLDEST: u32 = 1;
const FORMAT_HEAD: &str = "holm-store ";
const IDENTITY_HEAD: &str = "holm-identity 1";
/// None of these files is longer; a longer one is not ours.
const SMALL_FILE_MAX: u64 = 64 * 1024;

/// Where everything is.
#[derive(Debug, Clone)]
pub(super) struct Paths {
    pub(super) dir: PathBuf,
    pub(super) db: PathBuf,
    pub(super) format: PathBuf,
    pub(super) identity: PathBuf,
    pub(super) mark: PathBuf,
    pub(super) amnesia: PathBuf,
    pub(super) lock: PathBuf,
}

impl Paths {
    pub(super) fn new(dir: &Path) -> Paths {
        Paths {
            dir: dir.to_path_buf(),
            db: dir.join("db"),
            format: dir.join("FORMAT"),
            identity: dir.join("IDENTITY"),
            mark: dir.join("HIGHWATER"),
            amnesia: dir.join("AMNESIA"),
            lock: dir.join("LOCK"),
        }
    }
}

/// Makes or replaces a file durably: whoever reads it sees the old bytes or the new ones.
pub(super) fn replace(
    path: &Path,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    let fresh = path.with_file_name(name);
    let mut file = File::create(&fresh)?;
    fill(&mut file)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    sync_parent(path)
}

/// Removes a file durably; it may be absent.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// The text of a small file; `None` if it is absent. What is not UTF-8 is replaced, so that
/// damage is found by whoever reads the text.
pub(super) fn read_small(path: &Path) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => {
            io::Read::read_to_end(&mut io::Read::take(file, SMALL_FILE_MAX), &mut bytes)?;
            Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Takes the directory for this process, for as long as the file is kept open.
pub(super) fn lock(paths: &Paths) -> Result<File, OpenError> {
    fs::create_dir_all(&paths.dir).map_err(|error| OpenError::io(&paths.dir, &error))?;
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&paths.lock)
        .map_err(|error| OpenError::io(&paths.lock, &error))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::InUse { dir: paths.dir.clone() }),
        Err(errno) => Err(OpenError::io(&paths.lock, &errno.into())),
    }
}

/// Checks the format marker; writes it into a directory that holds nothing yet.
pub(super) fn check_format(paths: &Paths, holds_something: bool) -> Result<(), OpenError> {
    let file = paths.format.clone();
    let text = read_small(&file).map_err(|error| OpenError::io(&file, &error))?;
    let Some(text) = text else {
        if holds_something {
            return Err(OpenError::FormatUnknown { file });
        }
        return write_format(paths);
    };
    let found = text.trim_end().strip_prefix(FORMAT_HEAD).and_then(|rest| rest.parse().ok());
    match found {
        Some(FORMAT_OLDEST..=FORMAT_VERSION) => Ok(()),
        Some(found) if found > FORMAT_VERSION => {
            Err(OpenError::FormatNewer { file, found, known: FORMAT_VERSION })
        }
        _ => Err(OpenError::FormatUnknown { file }),
    }
}

/// Raises the format of a directory that [`check_format`] took to the one this program writes.
pub(super) fn raise_format(paths: &Paths) -> Result<(), OpenError> {
    let text = read_small(&paths.format).map_err(|error| OpenError::io(&paths.format, &error))?;
    let is_current =
        text.is_some_and(|it| it.trim_end() == format!("{FORMAT_HEAD}{FORMAT_VERSION}"));
    if is_current { Ok(()) } else { write_format(paths) }
}

fn write_format(paths: &Paths) -> Result<(), OpenError> {
    replace(&paths.format, |out| writeln!(out, "{FORMAT_HEAD}{FORMAT_VERSION}"))
        .map_err(|error| OpenError::io(&paths.format, &error))
}

/// Who the store says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredIdentity {
    pub(super) who: StoreIdentity,
    pub(super) store_id: u128,
}

impl StoredIdentity {
    /// Lines of text and their checksum; the cluster's name comes last, it may hold anything but
    /// line breaks.
    pub(super) fn encode(&self) -> String {
        let body = format!(
            "{IDENTITY_HEAD}\nstore {:032x}\nnode {}\ncluster {}\n",
            self.store_id, self.who.node.0, self.who.cluster
        );
        let checksum = crc32c::crc32c(body.as_bytes());
        format!("{body}crc32c {checksum:08x}\n")
    }

    /// The reverse; `None` for anything else.
    pub(super) fn decode(text: &str) -> Option<StoredIdentity> {
        let mut lines = text.lines();
        lines.next().filter(|head| *head == IDENTITY_HEAD)?;
        let store_id = u128::from_str_radix(lines.next()?.strip_prefix("store ")?, 16).ok()?;
        let node = NodeId(lines.next()?.strip_prefix("node ")?.parse().ok()?);
        let cluster = lines.next()?.strip_prefix("cluster ")?.to_owned();
        let found = StoredIdentity { who: StoreIdentity { cluster, node }, store_id };
        (found.encode() == text).then_some(found)
    }

    /// Refuses the store of another cluster or node.
    pub(super) fn check(&self, expected: &StoreIdentity, file: &Path) -> Result<(), OpenError> {
        if self.who.cluster != expected.cluster {
            return Err(OpenError::ForeignCluster {
                file: file.to_path_buf(),
                found: self.who.cluster.clone(),
                expected: expected.cluster.clone(),
            });
        }
        if self.who.node != expected.node {
            return Err(OpenError::ForeignNode {
                file: file.to_path_buf(),
                found: self.who.node.0,
                expected: expected.node.0,
            });
        }
        Ok(())
    }

    pub(super) fn write(&self, paths: &Paths) -> Result<(), OpenError> {
        replace(&paths.identity, |out| out.write_all(self.encode().as_bytes()))
            .map_err(|error| OpenError::io(&paths.identity, &error))
    }
}

/// What the identity file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum IdentityFound {
    Missing,
    Damaged,
    Sound(StoredIdentity),
}

pub(super) fn read_identity(paths: &Paths) -> Result<IdentityFound, OpenError> {
    let text =
        read_small(&paths.identity).map_err(|error| OpenError::io(&paths.identity, &error))?;
    Ok(text.map_or(IdentityFound::Missing, |text| {
        StoredIdentity::decode(&text).map_or(IdentityFound::Damaged, IdentityFound::Sound)
    }))
}

/// The amnesia that was declared and not yet cleared. The file's presence is what counts.
pub(super) fn read_amnesia(paths: &Paths) -> Result<Option<AmnesiaReason>, OpenError> {
    let text = read_small(&paths.amnesia).map_err(|error| OpenError::io(&paths.amnesia, &error))?;
    Ok(text.map(|text| AmnesiaReason::decode(&text)))
}

pub(super) fn write_amnesia(paths: &Paths, reason: &AmnesiaReason) -> Result<(), OpenError> {
    replace(&paths.amnesia, |out| out.write_all(reason.encode().as_bytes()))
        .map_err(|error| OpenError::io(&paths.amnesia, &error))
}
