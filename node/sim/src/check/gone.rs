//! What was overwritten or deleted does not come back.

use holm_protocol::dot::Dot;

use crate::check::{Property, Verdict, Violation};
use crate::history::{History, KeyId};

/// I4.
pub const OVERWRITTEN_GONE: Property = Property {
    name: "overwritten values stay gone",
    invariant: "I4",
    statement: "in the end no value is alive that an acknowledged write saw",
    source: "TESTING 2, W4; Riak kv679 and its kin",
    tla: Some("tla/Stability.tla!NoResurrection"),
    file: file!(),
};

/// Checks a key's final live dots.
///
/// # Errors
/// A value that came back.
pub fn check(history: &History, key: KeyId, live: &[Dot]) -> Verdict {
    let partition = history.key(key).partition;
    if history.key(key).is_lww {
        return Ok(());
    }
    for &dot in live {
        let Some(id) = history.by_dot(partition, dot) else { continue };
        let by = history
            .events_of(key)
            .find(|(other, event)| event.is_owed() && history.saw(*other, id));
        if let Some((by, _)) = by {
            let (this, by) = (history.describe(id), history.describe(by));
            return Err(Violation::new(&OVERWRITTEN_GONE, format!("{this} is alive after {by}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::tests::{Told, dot};

    /// Goal: concurrent values may live; one that an acknowledged delete saw may not, one that an
    /// unknown delete saw may.
    #[test]
    fn good_and_bad() {
        let mut told = Told::default();
        let (a, b) = (told.put("a", &[]), told.put("b", &[]));
        told.acknowledge(a, dot(1, 1), &[1]);
        told.acknowledge(b, dot(2, 1), &[1]);
        let delete = told.delete(&[a]);
        let verdict = |told: &Told, live: &[Dot]| check(&told.history, told.key, live).is_ok();
        assert!(verdict(&told, &[dot(1, 1), dot(2, 1)]));
        told.acknowledge(delete, dot(3, 1), &[1]);
        assert!(!verdict(&told, &[dot(1, 1), dot(2, 1)]));
        assert!(verdict(&told, &[dot(2, 1)]));
    }
}
