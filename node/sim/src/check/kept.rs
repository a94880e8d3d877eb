//! Acknowledged writes are kept.

use holm_protocol::dot::Dot;
use holm_protocol::version_vector::VersionVector;

use crate::check::{Property, Verdict, Violation};
use crate::history::{History, KeyId};

/// I2.
pub const ACKNOWLEDGED_KEPT: Property = Property {
    name: "acknowledged writes are kept",
    invariant: "I2",
    statement: "in the end an acknowledged write is a sibling, or was overwritten by a write that saw it",
    source: "TESTING 2, W2: the union of siblings; Jepsen's set workload",
    tla: Some("tla/Replication.tla!AcknowledgedSurvives"),
    file: file!(),
};

/// Checks a key's final state: the live dots and what the context covers.
///
/// # Errors
/// A write that is owed and gone.
pub fn check(history: &History, key: KeyId, live: &[Dot], covers: &VersionVector) -> Verdict {
    if history.key(key).is_lww {
        return Ok(());
    }
    for (id, event) in history.events_of(key).filter(|(_, event)| event.is_owed()) {
        let Some(dot) = event.dot else { continue };
        let kept = covers.covers(dot)
            && (event.value.is_none() || live.contains(&dot) || history.is_overwritten(id, covers));
        if !kept {
            return Err(Violation::new(
                &ACKNOWLEDGED_KEPT,
                format!("lost: {}", history.describe(id)),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::tests::{Told, covers, dot};

    /// Goal: kept, overwritten and legitimately lost writes pass; a missing one does not, nor does
    /// one that was overwritten by a write that did not see it.
    #[test]
    fn good_and_bad() {
        let mut told = Told::default();
        let (a, b) = (told.put("a", &[]), told.put("b", &[]));
        told.acknowledge(a, dot(1, 1), &[1]);
        let verdict = |told: &Told, live: &[Dot], covered: &[(u64, u64)]| {
            check(&told.history, told.key, live, &covers(covered)).is_ok()
        };
        assert!(verdict(&told, &[dot(1, 1)], &[(1, 1)]));
        assert!(!verdict(&told, &[], &[]));
        assert!(!verdict(&told, &[], &[(1, 1)]));
        told.acknowledge(b, dot(2, 1), &[1]);
        assert!(!verdict(&told, &[dot(2, 1)], &[(1, 1), (2, 1)]));
        let c = told.put("c", &[a]);
        told.acknowledge(c, dot(2, 2), &[1]);
        assert!(verdict(&told, &[dot(2, 1), dot(2, 2)], &[(1, 1), (2, 2)]));
        let partition = told.history.key(told.key).partition;
        told.history.lose(holm_protocol::ids::NodeId(1), partition, dot(2, 1));
        assert!(verdict(&told, &[dot(2, 2)], &[(1, 1), (2, 2)]));
    }
}
