//! A replica that a receipt names has the write on its disk.
//!
//! Looked up on the disks themselves when the answer reaches its client: what a power cut at that
//! moment would leave.

use holm_protocol::ids::NodeId;
use holm_protocol::version_vector::VersionVector;

use crate::check::{Property, Verdict, Violation};
use crate::history::{EventId, History, KeyId};

/// P1, I2.
pub const ON_DISK: Property = Property {
    name: "acknowledged is durable",
    invariant: "I2",
    statement: "when a write is acknowledged, the disk of every replica that its receipt names has it, synced under `sync = always`, or has lost it by a fault that may do that; so has each fallback, for a replica that is not named, or that replica since",
    source: "TESTING 1, P1; Pillai et al., OSDI 2014: what a crash leaves",
    tla: Some("tla/Replication.tla!AcknowledgedIsDurable"),
    file: file!(),
};

/// P1, P2.
pub const OUTLIVES_CRASHES: Property = Property {
    name: "what was acknowledged outlives a crash",
    invariant: "I2",
    statement: "after a restart a node's disk has every write for which a receipt named the node, as a hint until it is home if the node stood in for another, unless a fault that may do that took it",
    source: "TESTING 1, P1 and P2; Pillai et al., OSDI 2014",
    tla: Some("tla/Replication.tla!AcknowledgedIsDurable"),
    file: file!(),
};

/// What is on a replica's disk of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copy {
    /// It is there, as safe as the node promises.
    Kept,
    /// It was there, and a fault that may do that has taken it.
    LostSince,
    /// It is there until the next power cut, though the node promises more.
    Unsynced,
    /// It is not there.
    Missing,
}

/// Checks the copies that a write's receipt speaks of.
///
/// # Errors
/// One that is not there, or not safe.
pub fn check(history: &History, id: EventId, copies: &[(NodeId, Copy)]) -> Verdict {
    let promised = |copy: &Copy| matches!(copy, Copy::Kept | Copy::LostSince);
    match copies.iter().find(|(_, copy)| !promised(copy)) {
        None => Ok(()),
        Some((node, copy)) => {
            let how =
                format!("{copy:?} at {node}, which its receipt names: {}", history.describe(id));
            Err(Violation::new(&ON_DISK, how))
        }
    }
}

/// Checks a restarted node's disk. `covers` is the context of its object of this key.
///
/// # Errors
/// A write that it had acknowledged is gone.
pub fn check_restart(
    history: &History,
    key: KeyId,
    node: NodeId,
    covers: &VersionVector,
) -> Verdict {
    for (id, event) in history.events_of(key) {
        let Some(dot) = event.dot else { continue };
        let owes = event.durable.contains(&node) && !event.lost.contains(&node);
        if owes && !covers.covers(dot) {
            let how = format!("{node} restarts without {}", history.describe(id));
            return Err(Violation::new(&OUTLIVES_CRASHES, how));
        }
    }
    Ok(())
}

/// Checks what a restarted node keeps for others. `kept` are the contexts of its hints for this key.
///
/// # Errors
/// A write that it had acknowledged for another is gone.
pub fn check_hints_after_restart(
    history: &History,
    key: KeyId,
    node: NodeId,
    kept: &[VersionVector],
) -> Verdict {
    for (id, event) in history.events_of(key) {
        let Some(dot) = event.dot else { continue };
        let owes = event.hinted.contains(&node) && !event.lost.contains(&node);
        if owes && !kept.iter().any(|covers| covers.covers(dot)) {
            let how = format!("{node} restarts without its hint of {}", history.describe(id));
            return Err(Violation::new(&OUTLIVES_CRASHES, how));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::tests::{Told, covers, dot};

    /// Goal: kept and legitimately lost copies pass; a missing and an unsynced one do not.
    #[test]
    fn good_and_bad() {
        let mut told = Told::default();
        let a = told.put("a", &[]);
        let verdict = |copies: &[Copy]| {
            let nodes = (1..).map(NodeId).zip(copies.iter().copied()).collect::<Vec<_>>();
            check(&told.history, a, &nodes).is_ok()
        };
        assert!(verdict(&[Copy::Kept, Copy::LostSince]));
        assert!(!verdict(&[Copy::Kept, Copy::Missing]));
        assert!(!verdict(&[Copy::Unsynced]));
    }

    /// Goal: a restarted node owes what it acknowledged and has not lost; others owe nothing.
    #[test]
    fn restarts() {
        let mut told = Told::default();
        let a = told.put("a", &[]);
        told.acknowledge(a, dot(1, 1), &[1]);
        let verdict = |told: &Told, node: u64, covered: &[(u64, u64)]| {
            check_restart(&told.history, told.key, NodeId(node), &covers(covered)).is_ok()
        };
        assert!(verdict(&told, 1, &[(1, 1)]) && verdict(&told, 2, &[]));
        assert!(!verdict(&told, 1, &[]));
        let partition = told.history.key(told.key).partition;
        told.history.lose(NodeId(1), partition, dot(1, 1));
        assert!(verdict(&told, 1, &[]));
    }

    /// Goal: a restarted fallback owes its hints, until they are home or lost.
    #[test]
    fn restarts_of_fallbacks() {
        let mut told = Told::default();
        let a = told.put("a", &[]);
        told.acknowledge(a, dot(1, 1), &[1]);
        told.history.acknowledged_by_fallback(a, NodeId(4));
        let verdict = |told: &Told, kept: &[VersionVector]| {
            check_hints_after_restart(&told.history, told.key, NodeId(4), kept).is_ok()
        };
        let has = [covers(&[]), covers(&[(1, 1)])];
        assert!(verdict(&told, &has));
        assert!(!verdict(&told, &has[..1]));
        let mut home = Told { history: told.history.clone(), key: told.key };
        home.history.went_home((NodeId(4), NodeId(2)), told.key, (&has[1], &[]), 5);
        assert!(verdict(&home, &[]));
        assert!(home.history.event(a).durable.contains(&NodeId(2)), "it owes it now");
        let partition = told.history.key(told.key).partition;
        told.history.lose(NodeId(4), partition, dot(1, 1));
        assert!(verdict(&told, &[]));
    }
}
