//! What a replica says that it has seen, its objects account for.
//!
//! The other half of [`super::replica::CLOCK_NAMES_ALL`]. A dot that is marked as seen without its
//! write's effect is never asked for again: the write is lost here for good, and with gap repair
//! everybody would believe the mark.

use holm_core::clock::PartitionClock;
use holm_core::shard::log::LogEntry;
use holm_protocol::ids::NodeId;
use holm_protocol::version_vector::VersionVector;

use crate::check::{Property, Verdict, Violation};
use crate::history::{History, KeyId};

/// I3's premise, at every commit.
pub const LOG_HAS_OBJECT: Property = Property {
    name: "what is logged is stored",
    invariant: "I3",
    statement: "after a commit the object of every logged write's key covers the write's dot",
    source: "DESIGN 7: object and log entry are written in the same batch",
    tla: Some("tla/Causality.tla!SeenIsIncluded"),
    file: file!(),
};

/// I3's premise, after restarts.
pub const CLOCK_HONEST: Property = Property {
    name: "clocks claim nothing that is missing",
    invariant: "I3",
    statement: "a replica whose clock contains a write has an object that covers it",
    source: "DottedDB (SRDS 2017): node clocks never run ahead of the data",
    tla: Some("tla/Causality.tla!SeenIsIncluded"),
    file: file!(),
};

/// Checks one log entry of a commit. `covers` is the context of its key's object after it.
///
/// # Errors
/// The object does not account for it.
pub fn check(entry: &LogEntry, covers: Option<&VersionVector>, place: &str) -> Verdict {
    if covers.is_some_and(|covers| covers.covers(entry.dot)) {
        return Ok(());
    }
    let key = String::from_utf8_lossy(&entry.key);
    let how = format!("{place} logs {} of {key}, and its object does not cover it", entry.dot);
    Err(Violation::new(&LOG_HAS_OBJECT, how))
}

/// Checks a replica's clock against its object of one key. `covers` is that object's context.
///
/// # Errors
/// A write that the clock contains and the object does not account for.
pub fn check_clock(
    history: &History,
    key: KeyId,
    (node, clock): (NodeId, &PartitionClock),
    covers: &VersionVector,
) -> Verdict {
    for (id, event) in history.events_of(key) {
        let Some(dot) = event.dot else { continue };
        // What is void is marked as seen, and has no effect.
        if history.is_void(history.key(key).partition, dot) {
            continue;
        }
        if clock.contains(dot) && !covers.covers(dot) {
            let how = format!("{node} has seen and does not have {}", history.describe(id));
            return Err(Violation::new(&CLOCK_HONEST, how));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use holm_protocol::ids::{BucketId, Hlc, Partition};

    use super::*;
    use crate::check::tests::{Told, covers, dot};

    /// Goal: an entry whose object covers it passes, one without does not; likewise a clock.
    #[test]
    fn good_and_bad() {
        let entry = LogEntry {
            partition: Partition::from_u32(0),
            dot: dot(1, 2),
            hlc: Hlc(0),
            bucket: BucketId(1),
            key: Bytes::from_static(b"k"),
            has_more: false,
        };
        assert_eq!(check(&entry, Some(&covers(&[(1, 2)])), "n1"), Ok(()));
        assert!(check(&entry, Some(&covers(&[(1, 1)])), "n1").is_err());
        assert!(check(&entry, None, "n1").is_err());

        let mut told = Told::default();
        let a = told.put("a", &[]);
        told.acknowledge(a, dot(1, 1), &[1]);
        let mut clock = PartitionClock::new();
        let verdict = |clock: &PartitionClock, covered: &[(u64, u64)]| {
            check_clock(&told.history, told.key, (NodeId(1), clock), &covers(covered)).is_ok()
        };
        assert!(verdict(&clock, &[]));
        clock.insert(dot(1, 1));
        assert!(verdict(&clock, &[(1, 1)]));
        assert!(!verdict(&clock, &[]));
    }
}
