//! After faults stop, all replicas come to hold the same, and to know the same, by themselves.

use holm_core::clock::PartitionClock;
use holm_core::object::Object;
use holm_protocol::ids::{NodeId, Partition};
use holm_protocol::version_vector::VersionVector;

use crate::check::{Property, Verdict, Violation};

/// I6: what they hold.
pub const SAME_EVERYWHERE: Property = Property {
    name: "replicas converge",
    invariant: "I6",
    statement: "after faults stop, and with nobody reading or writing, all replicas of a key come to hold the same live values",
    source: "DottedDB (SRDS 2017): anti-entropy by clocks; DESIGN 7, gap repair",
    tla: Some("tla/Replication.tla!Converges"),
    file: file!(),
};

/// I6: what they know.
pub const SAME_CLOCKS: Property = Property {
    name: "clocks converge",
    invariant: "I6",
    statement: "after faults stop, and with nobody reading or writing, all replicas of a partition come to have seen the same writes",
    source: "DottedDB (SRDS 2017): anti-entropy by clocks; DESIGN 7, gap repair",
    tla: Some("tla/Replication.tla!Converges"),
    file: file!(),
};

/// Compares the clocks of a partition's replicas.
///
/// # Errors
/// Two that differ.
pub fn check_clocks(partition: Partition, clocks: &[(NodeId, PartitionClock)]) -> Verdict {
    for pair in clocks.windows(2) {
        let [(one, ours), (other, theirs)] = pair else { continue };
        if !ours.has_seen_the_same(theirs) {
            let (here, there) = (ours.difference(theirs), theirs.difference(ours));
            let how = format!(
                "of {partition}, {one} has seen {here:?} and {other} has not, {other} has seen \
                 {there:?} and {one} has not"
            );
            return Err(Violation::new(&SAME_CLOCKS, how));
        }
    }
    Ok(())
}

/// Whether two objects show the same. When contexts are cut is each replica's own affair.
#[must_use]
pub fn is_same(one: &Object, other: &Object) -> bool {
    one.kind() == other.kind() && one.siblings() == other.siblings()
}

/// What every replica has goes in the end.
pub const ALL_FORGOTTEN: Property = Property {
    name: "tombstones go in the end",
    invariant: "I10",
    statement: "after faults stop, and with no disk lost, no replica keeps a tombstone all of whose dots every replica has in the contiguous prefix of its clock, but where the last writer wins",
    source: "DottedDB (SRDS 2017): deletes without tombstones; DESIGN 7",
    tla: Some("tla/Stability.tla!AllIsForgotten"),
    file: file!(),
};

/// Checks a replica's object of a key. `stable` is what every replica of the partition has in its prefix.
///
/// # Errors
/// A tombstone that nobody needs.
pub fn check_forgotten(
    (node, key): (NodeId, &str),
    object: &Object,
    stable: &VersionVector,
) -> Verdict {
    let is_left = !object.context.is_empty()
        && object.live_dots().next().is_none()
        && object.context.iter().all(|dot| stable.covers(dot));
    if is_left {
        let how = format!("{node} still has a tombstone of {key}: {:?}", object.context);
        return Err(Violation::new(&ALL_FORGOTTEN, how));
    }
    Ok(())
}

/// Compares the replicas' objects of one key.
///
/// # Errors
/// Two that differ.
pub fn check(key: &str, replicas: &[(NodeId, Object)]) -> Verdict {
    for pair in replicas.windows(2) {
        let [(one, ours), (other, theirs)] = pair else { continue };
        if !is_same(ours, theirs) {
            let how = format!("{one} and {other} differ at {key}: {ours:?} and {theirs:?}");
            return Err(Violation::new(&SAME_EVERYWHERE, how));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use holm_core::object::{ObjectKind, Sibling};
    use holm_protocol::ids::Hlc;
    use holm_protocol::version_vector::VersionVector;

    use super::*;
    use crate::check::tests::dot;

    /// Goal: a replica that lacks a value is told; one that lacks a tombstone may have forgotten it.
    #[test]
    fn good_and_bad() {
        let empty = Object::new(ObjectKind::Siblings);
        let mut deleted = empty.clone();
        deleted.delete(&VersionVector::new(), dot(1, 1), Hlc(1));
        let (one, other) = (NodeId(1), NodeId(2));
        assert_eq!(check("k", &[(one, deleted.clone()), (other, deleted.clone())]), Ok(()));
        assert_eq!(check("k", &[(one, deleted), (other, empty.clone())]), Ok(()));
        let mut written = empty.clone();
        let value = bytes::Bytes::from_static(b"v");
        written.put(&VersionVector::new(), Sibling::new(dot(1, 1), Hlc(1), value));
        assert!(check("k", &[(one, written), (other, empty)]).is_err());
    }

    /// Goal: a replica that has not seen a write is told, whether it is the first or not.
    #[test]
    fn good_and_bad_clocks() {
        let mut ahead = PartitionClock::new();
        ahead.insert(dot(1, 1));
        let behind = PartitionClock::new();
        let verdict = |clocks: [&PartitionClock; 2]| {
            let clocks = clocks.map(Clone::clone);
            let [one, other] = clocks;
            let clocks = [(NodeId(1), one), (NodeId(2), other)];
            check_clocks(Partition::from_u32(0), &clocks).is_ok()
        };
        assert!(verdict([&ahead, &ahead]));
        assert!(!verdict([&ahead, &behind]));
        assert!(!verdict([&behind, &ahead]));
    }
}
