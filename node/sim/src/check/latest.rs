//! Where the last writer wins, nobody later was acknowledged.

use holm_protocol::dot::Dot;
use holm_protocol::ids::Hlc;

use crate::check::{Property, Verdict, Violation};
use crate::history::{History, KeyId};

/// W10.
pub const LATEST_WINS: Property = Property {
    name: "the last writer wins",
    invariant: "I3",
    statement: "in the end a last-writer-wins key holds no write that ranks below an acknowledged one",
    source: "TESTING 2, W10; Kulkarni et al., OPODIS 2014 for the clock",
    tla: None,
    file: file!(),
};

/// Checks a key's final entry: the reading and dot of the write that won, a deletion's too.
///
/// # Errors
/// An acknowledged write that should have won.
pub fn check(history: &History, key: KeyId, winner: Option<(Hlc, Option<Dot>)>) -> Verdict {
    if !history.key(key).is_lww {
        return Ok(());
    }
    for (id, event) in history.events_of(key).filter(|(_, event)| event.is_owed()) {
        let Some((hlc, dot)) = event.hlc.zip(event.dot) else { continue };
        if winner.is_none_or(|winner| winner < (hlc, Some(dot))) {
            let how = format!("{winner:?} won over {hlc:?} of {}", history.describe(id));
            return Err(Violation::new(&LATEST_WINS, how));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::tests::{Told, dot};

    /// Goal: the acknowledged write of the greatest reading must win, or one beyond it.
    #[test]
    fn good_and_bad() {
        let mut told = Told::lww();
        let (a, b) = (told.put("a", &[]), told.put("b", &[]));
        told.acknowledge(a, dot(1, 1), &[1]);
        told.acknowledge(b, dot(2, 1), &[1]);
        told.history.event_mut(a).hlc = Some(Hlc(5));
        told.history.event_mut(b).hlc = Some(Hlc(7));
        let verdict = |winner| check(&told.history, told.key, winner).is_ok();
        assert!(verdict(Some((Hlc(7), Some(dot(2, 1))))));
        assert!(verdict(Some((Hlc(8), Some(dot(3, 1))))));
        assert!(!verdict(Some((Hlc(5), Some(dot(1, 1))))));
        assert!(!verdict(None));
    }
}
