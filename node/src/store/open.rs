//! Opening a store: whose it is, what it lost, and whether to believe it.
//!
//! The order of steps is the point; each leaves a directory that the next start judges at least as
//! severely:
//! 1. lock, format, identity on file: refuse what is not ours before touching anything;
//! 2. read the mark and the logs as they lie ([`super::highwater`], [`super::wal`]);
//! 3. on doubt write `AMNESIA` *before* RocksDB recovers, because recovery destroys the evidence;
//! 4. open, compare with the mark, decide;
//! 5. only then start a new mark from what the store holds now, and give this opening a name, in the
//!    mark and in a table. A new store has a mark before it has a name: whatever holds more than the
//!    identity had a mark once.
//!
//! The name is for this: RocksDB moves the logs of the run before into tables and removes them. If the
//! manifest's record of those tables is damaged later, it looks like one that a crash has cut short:
//! the tables are removed too, and the logs of the run since are replayed as if nothing were missing.
//! But the manifest has then lost the record of the name behind it as well.
//!
//! A new store's identity is written last, so that a crash while making it is not taken for a loss.

use std::path::Path;

use rocksdb::DB;
use tracing::{error, info, warn};

use super::error::{OpenError, file_named};
use super::files::{self, IdentityFound, Paths, StoredIdentity};
use super::highwater::{self, HighWater, Mark, MarkFound};
use super::rocks::{self, Recovery};
use super::wal;
use super::{AmnesiaReason, Opened, StoreIdentity, StoreOptions, SyncPolicy};

/// The store's own keys, in [`rocks::OWN_FAMILY`].
const IDENTITY_KEY: &[u8] = b"identity";
const AMNESIA_KEY: &[u8] = b"amnesia";
const OPENING_KEY: &[u8] = b"opening";

/// An open database and what goes with it.
pub(super) struct Parts {
    pub(super) db: DB,
    pub(super) mark: HighWater,
    /// How far the store has got; all of it is fsynced.
    pub(super) sequence: u64,
    pub(super) opened: Opened,
}

/// What lay in the directory before RocksDB was started.
struct Found {
    identity: IdentityFound,
    mark: MarkFound,
    amnesia: Option<AmnesiaReason>,
    database: bool,
}

/// Opens the store. The caller holds the directory's lock.
pub(super) fn open(
    paths: &Paths,
    options: &StoreOptions,
    who: &StoreIdentity,
) -> Result<Parts, OpenError> {
    let found = look(paths, who)?;
    let lost = found.identity != IdentityFound::Missing
        || found.mark != MarkFound::Missing
        || found.amnesia.is_some();
    if found.database && !clear_unborn(paths, &found)? {
        open_existing(paths, options, who, found)
    } else {
        create(paths, options, who, lost.then_some(AmnesiaReason::StoreLost))
    }
}

fn look(paths: &Paths, who: &StoreIdentity) -> Result<Found, OpenError> {
    let database = holds_database(paths)?;
    let identity = files::read_identity(paths)?;
    let mark = highwater::read(&paths.mark).map_err(|e| OpenError::io(&paths.mark, &e))?;
    let held = database || identity != IdentityFound::Missing || mark != MarkFound::Missing;
    files::check_format(paths, held)?;
    match &identity {
        IdentityFound::Sound(stored) => stored.check(who, &paths.identity)?,
        IdentityFound::Damaged if !database => {
            return Err(OpenError::IdentityDamaged { file: paths.identity.clone() });
        }
        IdentityFound::Damaged | IdentityFound::Missing => {}
    }
    let amnesia = files::read_amnesia(paths)?;
    if !database {
        refuse_headless(paths)?;
    }
    Ok(Found { identity, mark, amnesia, database })
}

/// RocksDB takes a directory without `CURRENT` for an empty one and would clear it.
fn holds_database(paths: &Paths) -> Result<bool, OpenError> {
    let current = paths.db.join("CURRENT");
    current.try_exists().map_err(|error| OpenError::io(&current, &error))
}

/// Whether the database's directory holds a file of one of these kinds.
fn holds_files(paths: &Paths, kinds: &[&str]) -> Result<bool, OpenError> {
    let refuse = |error: std::io::Error| OpenError::io(&paths.db, &error);
    let entries = match std::fs::read_dir(&paths.db) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(refuse(error)),
    };
    for entry in entries {
        let path = entry.map_err(refuse)?.path();
        if path.extension().is_some_and(|found| kinds.iter().any(|&kind| found == kind)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Clears a database whose making was cut short before it had a log: nothing was ever in it, and
/// RocksDB would take the missing log for a lost one. A finished store always has a table, which
/// holds its identity. Says whether it was one.
fn clear_unborn(paths: &Paths, found: &Found) -> Result<bool, OpenError> {
    let made = found.identity != IdentityFound::Missing
        || found.mark != MarkFound::Missing
        || found.amnesia.is_some();
    if made || holds_files(paths, &["log", "sst"])? {
        return Ok(false);
    }
    warn!(dir = %paths.db.display(), "a first start was cut short: starting again");
    std::fs::remove_dir_all(&paths.db).map_err(|error| OpenError::io(&paths.db, &error))?;
    Ok(true)
}

/// Refuses to start afresh over tables that may still be of use to somebody.
fn refuse_headless(paths: &Paths) -> Result<(), OpenError> {
    if !holds_files(paths, &["sst"])? {
        return Ok(());
    }
    let detail = "it is missing beside tables that need it".to_owned();
    Err(OpenError::Corrupt { file: paths.db.join("CURRENT"), detail })
}

/// Makes an empty store, also in the place of one that is gone.
fn create(
    paths: &Paths,
    options: &StoreOptions,
    who: &StoreIdentity,
    lost: Option<AmnesiaReason>,
) -> Result<Parts, OpenError> {
    if let Some(reason) = &lost {
        declare(paths, options, reason)?;
    }
    let db = rocks::open(&paths.db, options, Recovery::Strict, true)
        .map_err(|error| OpenError::rocks(&paths.dir, &paths.db, &error))?;
    let stored = StoredIdentity { who: who.clone(), store_id: rand::random() };
    put_own(paths, &db, IDENTITY_KEY, stored.encode().as_bytes())?;
    // With it, the identity is in a table at once: losing the log does not lose whose store this is.
    let parts = finish(paths, options, db, (stored.store_id, 0), lost)?;
    stored.write(paths)?;
    info!(dir = %paths.dir.display(), "made a new store");
    Ok(Parts { opened: Opened { fresh: true, ..parts.opened }, ..parts })
}

fn open_existing(
    paths: &Paths,
    options: &StoreOptions,
    who: &StoreIdentity,
    found: Found,
) -> Result<Parts, OpenError> {
    let (db, damage) = open_database(paths, options, found.amnesia.is_some())?;
    let sequence = db.latest_sequence_number();
    let (stored, unmarked) = settle_identity(paths, &db, who, &found)?;
    let recorded = match found.amnesia {
        Some(reason) => Some(reason),
        None => get_own(paths, &db, AMNESIA_KEY)?
            .map(|text| AmnesiaReason::decode(&String::from_utf8_lossy(&text))),
    };
    let known_before = recorded.is_some();
    let is_current = read_opening(paths, &db)?.fits(found.mark);
    let amnesia = recorded
        .or_else(|| judge(found.mark, stored.store_id, sequence, damage.as_ref()))
        .or_else(|| (!is_current).then_some(AmnesiaReason::TablesLost))
        .or_else(|| unmarked.then_some(AmnesiaReason::StoreLost));
    match &amnesia {
        Some(reason) if !known_before || !options.allow_amnesia => {
            declare(paths, options, reason)?;
        }
        None if damage.is_some() => {
            warn!(dir = %paths.dir.display(), "dropped half a commit that was never acknowledged");
            files::remove(&paths.amnesia).map_err(|e| OpenError::io(&paths.amnesia, &e))?;
        }
        _ => {}
    }
    finish(paths, options, db, (stored.store_id, marked(found.mark)), amnesia)
}

/// The names of the last opening, and of the one whose mark it found. The mark may still have the
/// latter: the last opening may have been cut short before it wrote its own.
#[derive(Debug, Clone, Copy, Default)]
struct Opening {
    last: u32,
    marked: u32,
}

impl Opening {
    /// Whether the mark is of one of the two. Without a mark there is nothing to compare.
    fn fits(self, found: MarkFound) -> bool {
        match found {
            MarkFound::Sound { mark, .. } => [self.last, self.marked].contains(&mark.opening),
            MarkFound::Missing | MarkFound::Damaged => true,
        }
    }
}

/// The opening that a mark is of.
fn marked(found: MarkFound) -> u32 {
    match found {
        MarkFound::Sound { mark, .. } => mark.opening,
        MarkFound::Missing | MarkFound::Damaged => 0,
    }
}

fn read_opening(paths: &Paths, db: &DB) -> Result<Opening, OpenError> {
    let Some(bytes) = get_own(paths, db, OPENING_KEY)? else { return Ok(Opening::default()) };
    let text = String::from_utf8_lossy(&bytes);
    let names = text.split_once(' ').map(|(last, marked)| (last.parse(), marked.parse()));
    // Anything else would be a table that is damaged in spite of its checksums: it fits no mark.
    Ok(match names {
        Some((Ok(last), Ok(marked))) => Opening { last, marked },
        _ => Opening { last: u32::MAX, marked: u32::MAX },
    })
}

/// Names this opening, in a table: behind the record of the tables that recovery made.
fn name_opening(paths: &Paths, db: &DB, marked: u32) -> Result<u32, OpenError> {
    let last = rand::random_range(1..=highwater::OPENING_MAX);
    put_own(paths, db, OPENING_KEY, format!("{last} {marked}").as_bytes())?;
    db.flush().map_err(|error| OpenError::rocks(&paths.dir, &paths.db, &error))?;
    Ok(last)
}

/// What made a strict opening impossible. See [`wal::Damage`].
struct LogDamage {
    detail: String,
    torn_tail: bool,
    sound_until: Option<u64>,
}

/// RocksDB's words for a log that is shorter than its manifest, or the log after it, says.
const SHORT_LOG: [&str; 2] =
    ["Mismatched size of the WAL", "Mismatched last sequence number recorded in the WAL"];

/// Opens RocksDB, strictly if possible. If not, amnesia is on file before a lenient attempt.
fn open_database(
    paths: &Paths,
    options: &StoreOptions,
    amnesiac: bool,
) -> Result<(DB, Option<LogDamage>), OpenError> {
    let refuse = |error: &rocksdb::Error| OpenError::rocks(&paths.dir, &paths.db, error);
    let scanned = wal::scan(&paths.db).map_err(|error| OpenError::io(&paths.db, &error))?;
    let damage = match scanned {
        Err(damage) => LogDamage {
            detail: format!("{} at byte {}: {}", damage.file.display(), damage.offset, damage.what),
            torn_tail: damage.torn_tail,
            sound_until: damage.sound_until,
        },
        Ok(end) => match rocks::open(&paths.db, options, Recovery::Strict, false) {
            Ok(db) => return Ok((db, None)),
            Err(error) if rocks::may_be_lenient(&error) => {
                let detail = error.into_string();
                // All records are sound and follow each other; there were to be more. A write that
                // failed for lack of room leaves a log like that: whether what is lacking was
                // acknowledged, the mark tells.
                let sound_until =
                    end.filter(|_| SHORT_LOG.iter().any(|short| detail.contains(short)));
                LogDamage { detail, torn_tail: false, sound_until }
            }
            Err(error) => return Err(refuse(&error)),
        },
    };
    let reason = AmnesiaReason::OpenedLeniently { detail: damage.detail.clone() };
    // A damaged table is not cured by leniency towards the log: say so before declaring anything.
    let table = file_named(&paths.db, &damage.detail).filter(|file| !is_log(file));
    if let Some(file) = table {
        return Err(OpenError::Corrupt { file, detail: damage.detail });
    }
    if !options.allow_amnesia && !damage.torn_tail {
        return Err(OpenError::Amnesia { dir: paths.dir.clone(), reason });
    }
    if !amnesiac {
        files::write_amnesia(paths, &reason)?;
    }
    warn!(damage = %damage.detail, "write-ahead log is not sound: opening leniently");
    let opened = rocks::open(&paths.db, options, Recovery::Prefix, false)
        .or_else(|_| rocks::open(&paths.db, options, Recovery::Salvage, false));
    match opened {
        Ok(db) => Ok((db, Some(damage))),
        Err(error) => {
            if !amnesiac {
                // Nothing was opened, so nothing was recovered: the evidence is still there.
                files::remove(&paths.amnesia).map_err(|e| OpenError::io(&paths.amnesia, &e))?;
            }
            Err(refuse(&error))
        }
    }
}

fn is_log(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "log")
}

/// Whose store it is; true if the database had forgotten it. File and database repair each other.
fn settle_identity(
    paths: &Paths,
    db: &DB,
    who: &StoreIdentity,
    found: &Found,
) -> Result<(StoredIdentity, bool), OpenError> {
    let inside = get_own(paths, db, IDENTITY_KEY)?
        .and_then(|bytes| StoredIdentity::decode(&String::from_utf8_lossy(&bytes)));
    match (&found.identity, inside) {
        (IdentityFound::Sound(file), Some(inside)) if *file == inside => Ok((inside, false)),
        (IdentityFound::Sound(file), _) => {
            put_own(paths, db, IDENTITY_KEY, file.encode().as_bytes())?;
            Ok((file.clone(), true))
        }
        (_, Some(inside)) => {
            inside.check(who, &paths.db)?;
            warn!(file = %paths.identity.display(), "identity restored from the database");
            inside.write(paths)?;
            Ok((inside, false))
        }
        // A first start that was cut short: nothing was ever stored.
        (IdentityFound::Missing, None)
            if found.mark == MarkFound::Missing && db.latest_sequence_number() == 0 =>
        {
            let fresh = StoredIdentity { who: who.clone(), store_id: rand::random() };
            put_own(paths, db, IDENTITY_KEY, fresh.encode().as_bytes())?;
            fresh.write(paths)?;
            Ok((fresh, false))
        }
        (_, None) => Err(OpenError::IdentityDamaged { file: paths.identity.clone() }),
    }
}

/// Whether the store can vouch for every write it acknowledged.
///
/// Within one boot of the machine the mark is exact: a log damaged behind it lost nothing that was
/// acknowledged. After a reboot the mark may be a moment old, so what was dropped is only believed
/// to be half a commit if it looks like one; with `sync = interval` what was not fsynced may be
/// gone, which is what that setting says.
fn judge(
    found: MarkFound,
    store_id: u128,
    store: u64,
    damage: Option<&LogDamage>,
) -> Option<AmnesiaReason> {
    let lenient = |detail: &str| AmnesiaReason::OpenedLeniently { detail: detail.to_owned() };
    let (mark, newest) = match found {
        MarkFound::Sound { mark, newest } if mark.store_id == store_id => (mark, newest),
        // The identity is record 1, and a mark comes before all others.
        MarkFound::Missing if store <= 1 && damage.is_none() => return None,
        _ => return Some(AmnesiaReason::MarkLost),
    };
    let same_boot = mark.boot == highwater::boot_id() && mark.boot != [0; 16];
    let needed = if same_boot { mark.written } else { mark.synced };
    if let Some(damage) = damage {
        // Damage in the very first record of the logs: what is before it is all in tables.
        let reached = damage.sound_until.unwrap_or(if damage.torn_tail { store } else { 0 });
        let explained = newest && (same_boot || !mark.always || damage.torn_tail);
        let kept = store >= needed && reached >= needed && explained;
        return (!kept).then(|| lenient(&damage.detail));
    }
    if store < needed {
        return Some(AmnesiaReason::BehindMark { store, mark: needed });
    }
    if store < mark.written {
        warn!(
            store,
            acknowledged = mark.written,
            "the machine restarted before an fsync: writes \
            acknowledged under sync = interval are gone from this node"
        );
    }
    None
}

/// Puts amnesia on file, where it stays until it is cleared.
fn declare(paths: &Paths, options: &StoreOptions, reason: &AmnesiaReason) -> Result<(), OpenError> {
    if !options.allow_amnesia {
        return Err(OpenError::Amnesia { dir: paths.dir.clone(), reason: reason.clone() });
    }
    error!(dir = %paths.dir.display(), %reason, "this store may have lost acknowledged writes");
    files::write_amnesia(paths, reason)
}

/// Records amnesia in the database too and starts a mark from what the store holds now.
fn finish(
    paths: &Paths,
    options: &StoreOptions,
    db: DB,
    (store_id, marked): (u128, u32),
    amnesia: Option<AmnesiaReason>,
) -> Result<Parts, OpenError> {
    if let Some(reason) = &amnesia {
        files::write_amnesia(paths, reason)?;
        put_own(paths, &db, AMNESIA_KEY, reason.encode().as_bytes())?;
    }
    files::raise_format(paths)?;
    let start = |opening| {
        let sequence = db.latest_sequence_number();
        // Recovery wrote what it replayed into tables and synced them: everything is durable.
        let mark = Mark {
            store_id,
            boot: highwater::boot_id(),
            written: sequence,
            synced: sequence,
            always: options.sync == SyncPolicy::Always,
            opening,
        };
        let started = HighWater::create(&paths.mark, mark);
        started.map(|mark| (mark, sequence)).map_err(|error| OpenError::io(&paths.mark, &error))
    };
    // Before the opening's name there is a mark, so that a store without one is known to be empty.
    if !is_marked(paths)? {
        start(marked)?;
    }
    let opening = name_opening(paths, &db, marked)?;
    let (mark, sequence) = start(opening)?;
    Ok(Parts { db, mark, sequence, opened: Opened { store_id, amnesia, fresh: false } })
}

fn is_marked(paths: &Paths) -> Result<bool, OpenError> {
    paths.mark.try_exists().map_err(|error| OpenError::io(&paths.mark, &error))
}

/// Forgets the amnesia. The file goes last: until then a crash leaves it declared.
pub(super) fn clear_amnesia(paths: &Paths, db: &DB) -> Result<(), OpenError> {
    let refuse = |error: rocksdb::Error| OpenError::rocks(&paths.dir, &paths.db, &error);
    db.delete_opt(AMNESIA_KEY, &synced()).map_err(refuse)?;
    files::remove(&paths.amnesia).map_err(|error| OpenError::io(&paths.amnesia, &error))
}

fn get_own(paths: &Paths, db: &DB, key: &[u8]) -> Result<Option<Vec<u8>>, OpenError> {
    db.get(key).map_err(|error| OpenError::rocks(&paths.dir, &paths.db, &error))
}

fn put_own(paths: &Paths, db: &DB, key: &[u8], value: &[u8]) -> Result<(), OpenError> {
    db.put_opt(key, value, &synced())
        .map_err(|error| OpenError::rocks(&paths.dir, &paths.db, &error))
}

fn synced() -> rocksdb::WriteOptions {
    let mut options = rocksdb::WriteOptions::default();
    options.set_sync(true);
    options
}
