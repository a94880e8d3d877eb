//! Contexts name writes of their key, and nothing else.
//!
//! Each entry of a context is itself the dot of a write to the key. So a context is bounded by the
//! runs of nodes that coordinated writes to it, and none covers what has not been written yet.

use holm_protocol::version_vector::VersionVector;

use crate::check::{Property, Verdict, Violation};
use crate::history::{History, KeyId};

/// I10.
pub const CONTEXT_NAMES_WRITES: Property = Property {
    name: "contexts name writes of their key",
    invariant: "I10",
    statement: "each entry of a context is the dot of a write to its key that may have happened, so contexts are bounded and cover nothing of the future",
    source: "DESIGN 3: each entry is itself a dot of this key; TESTING 1, P7",
    tla: Some("tla/Causality.tla!TypeOK"),
    file: file!(),
};

/// Checks a context at the end, when all dots are known that anybody saw. A write that nobody saw
/// may have any dot, but only one.
///
/// # Errors
/// More entries than there are writes for them.
pub fn check(history: &History, key: KeyId, covers: &VersionVector) -> Verdict {
    let partition = history.key(key).partition;
    let unknown = history.events_of(key).filter(|(_, e)| e.dot.is_none() && e.may_have_happened());
    let mut unknown = unknown.count();
    for dot in covers.iter() {
        match history.by_dot(partition, dot).map(|id| history.event(id)) {
            Some(event) if event.key == key && event.may_have_happened() => {}
            None if unknown > 0 => unknown -= 1,
            _ => {
                let name = String::from_utf8_lossy(&history.key(key).name).into_owned();
                let how = format!("a context of {name} names {dot}, no write to it");
                return Err(Violation::new(&CONTEXT_NAMES_WRITES, how));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::tests::{Told, covers, dot};

    /// Goal: known dots and as many others as there are unknown writes pass; more do not, nor does
    /// a counter beyond the write.
    #[test]
    fn good_and_bad() {
        let mut told = Told::default();
        let a = told.put("a", &[]);
        told.acknowledge(a, dot(1, 3), &[1]);
        let verdict = |told: &Told, covered: &[(u64, u64)]| {
            check(&told.history, told.key, &covers(covered)).is_ok()
        };
        assert!(verdict(&told, &[(1, 3)]));
        assert!(!verdict(&told, &[(1, 4)]));
        assert!(!verdict(&told, &[(1, 3), (2, 1)]));
        told.delete(&[]);
        assert!(verdict(&told, &[(1, 3), (2, 1)]));
        assert!(!verdict(&told, &[(1, 3), (2, 1), (3, 1)]));
    }
}
