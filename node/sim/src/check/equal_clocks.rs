//! Replicas that have seen the same writes hold the same values.

use std::collections::BTreeMap;

use holm_core::clock::PartitionClock;
use holm_protocol::dot::Dot;
use holm_protocol::ids::{NodeId, Partition};

use holm_core::shard::event::Violation as Found;

use crate::check::{Property, Verdict, Violation};

/// I3.
pub const EQUAL_STATES: Property = Property {
    name: "equal clocks, equal live states",
    invariant: "I3",
    statement: "replicas with equal partition clocks hold the same live dots under every key",
    source: "DottedDB (SRDS 2017): clocks beside objects; DESIGN 7",
    tla: Some("tla/Stability.tla!EqualClocksEqualStates"),
    file: file!(),
};

/// I3, as the replicas themselves see it.
pub const NOTHING_UNEXPLAINED: Property = Property {
    name: "verification finds nothing unexplained",
    invariant: "I3",
    statement: "while no disk loses rows, replicas that verify what they hold find no value that is gone without a trace; a damaged row is one",
    source: "Dynamo (SOSP 2007) 4.7; DESIGN 7: a difference under equal clocks is a violation",
    tla: Some("tla/Stability.tla!EqualClocksEqualStates"),
    file: file!(),
};

/// Judges what a verification found. A row that is damaged is its own explanation.
///
/// # Errors
/// A value is gone without a trace.
pub fn check_found(finder: NodeId, found: &Found) -> Verdict {
    if found.is_damaged || found.lost.is_empty() {
        return Ok(());
    }
    Err(Violation::new(&NOTHING_UNEXPLAINED, format!("{finder} finds {found:?}")))
}

/// The live dots of each key that has any.
pub type LiveDots = BTreeMap<Vec<u8>, Vec<Dot>>;

/// Compares two replicas of a partition. `live` is asked for only if the clocks are equal.
///
/// # Errors
/// The clocks are equal and the states are not.
pub fn check(
    partition: Partition,
    one: (NodeId, &PartitionClock),
    other: (NodeId, &PartitionClock),
    live: impl Fn(NodeId) -> LiveDots,
) -> Verdict {
    if !one.1.has_seen_the_same(other.1) || one.1.is_empty() {
        return Ok(());
    }
    let (ours, theirs) = (live(one.0), live(other.0));
    if ours == theirs {
        return Ok(());
    }
    let differing = ours.iter().find(|(key, dots)| theirs.get(*key) != Some(dots));
    let differing = differing.or_else(|| theirs.iter().find(|(key, _)| !ours.contains_key(*key)));
    let key = differing.map_or(String::new(), |(key, _)| {
        let user_key = key.get(holm_core::keys::OBJECT_KEY_HEAD_LEN..).unwrap_or_default();
        String::from_utf8_lossy(user_key).into_owned()
    });
    let how =
        format!("{} and {} have equal clocks of {partition} and differ at {key}", one.0, other.0);
    Err(Violation::new(&EQUAL_STATES, how))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::tests::dot;

    /// Goal: only equal clocks with different states are told.
    #[test]
    fn good_and_bad() {
        let mut clock = PartitionClock::new();
        clock.insert(dot(1, 1));
        let mut ahead = clock.clone();
        ahead.insert(dot(2, 1));
        let live = |node: NodeId| match node.0 {
            1 | 2 => LiveDots::from([(b"k".to_vec(), vec![dot(1, 1)])]),
            _ => LiveDots::new(),
        };
        let verdict = |a: u64, b: u64, other: &PartitionClock| {
            let partition = Partition::from_u32(0);
            check(partition, (NodeId(a), &clock), (NodeId(b), other), live).is_ok()
        };
        assert!(verdict(1, 2, &clock));
        assert!(!verdict(1, 3, &clock));
        assert!(!verdict(3, 1, &clock));
        assert!(verdict(1, 3, &ahead));
    }
}
