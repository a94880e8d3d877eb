//! An answer shows every write that its context covers, but for those that were overwritten by
//! somebody who saw them, and none that was.
//!
//! This is what makes a context safe to write with: whatever the next write drops, its writer has
//! seen, or a writer before it had.

use crate::check::{Property, Verdict, Violation};
use crate::history::{Answer, EventId, History};

/// I5.
pub const VISIBLE_OR_OVERWRITTEN: Property = Property {
    name: "covered is visible or overwritten",
    invariant: "I5",
    statement: "an answer whose context covers a value shows it, or its context covers a write that saw it",
    source: "Preguica et al., PODC 2012; concurrent writes survive until a writer saw them",
};

/// I4.
pub const NOTHING_DOMINATED: Property = Property {
    name: "nothing overwritten is shown",
    invariant: "I4",
    statement: "an answer whose context covers a write shows nothing that this write saw",
    source: "TESTING 1, P6: siblings are exactly the causally maximal writes",
};

/// I8.
pub const CONTEXT_GENUINE: Property = Property {
    name: "contexts open and cover what is shown",
    invariant: "I8",
    statement: "every context that a node gives out opens under the key it was given for, and covers the values beside it",
    source: "DESIGN 3: contexts are authenticated and bound to their key",
};

/// Checks one answer with what is known of dots so far. Knowing more dots can only make it
/// stricter.
///
/// # Errors
/// Which rule it breaks.
pub fn check(history: &History, answer: &Answer) -> Verdict {
    let key = history.key(answer.key);
    if let Some(dot) = answer.shown.iter().find(|&&dot| !answer.covers.covers(dot)) {
        let how = format!("a context does not cover the value {dot} beside it");
        return Err(Violation::new(&CONTEXT_GENUINE, how));
    }
    for (id, event) in history.events_of(answer.key) {
        let Some(dot) = event.dot else { continue };
        let is_shown = answer.shown.contains(&dot);
        if event.value.is_none() || !answer.covers.covers(dot) {
            continue;
        }
        if !is_shown && !is_explained(history, id, answer) {
            let how =
                format!("not shown, covered, and overwritten by nobody: {}", history.describe(id));
            return Err(Violation::new(&VISIBLE_OR_OVERWRITTEN, how));
        }
        if is_shown && !key.is_lww {
            not_dominated(history, id, answer)?;
        }
    }
    Ok(())
}

fn is_explained(history: &History, id: EventId, answer: &Answer) -> bool {
    if !history.key(answer.key).is_lww {
        return history.is_overwritten(id, &answer.covers);
    }
    // The last writer wins: something that ranks higher is accounted for.
    let rank = |id: EventId| {
        let event = history.event(id);
        event.hlc.zip(event.dot)
    };
    let mine = rank(id);
    history.events_of(answer.key).any(|(other, by)| {
        let accounted = by.dot.is_none_or(|dot| answer.covers.covers(dot));
        let higher = mine.zip(rank(other)).is_none_or(|(mine, other)| other > mine);
        other != id && by.may_have_happened() && accounted && higher
    })
}

fn not_dominated(history: &History, id: EventId, answer: &Answer) -> Verdict {
    let Some(dot) = history.event(id).dot else { return Ok(()) };
    let dominating = history.events_of(answer.key).find(|(other, by)| {
        *other != id && by.saw.covers(dot) && by.dot.is_some_and(|by| answer.covers.covers(by))
    });
    match dominating {
        None => Ok(()),
        Some((by, _)) => {
            let (this, by) = (history.describe(id), history.describe(by));
            let how = format!("{this} is shown beside the effect of {by}, which saw it");
            Err(Violation::new(&NOTHING_DOMINATED, how))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::tests::{Told, covers, dot};

    fn verdict(
        told: &Told,
        shown: &[(u64, u64)],
        covered: &[(u64, u64)],
    ) -> Option<&'static Property> {
        let shown = shown.iter().map(|&(actor, counter)| dot(actor, counter)).collect();
        let answer = Answer { key: told.key, shown, covers: covers(covered) };
        check(&told.history, &answer).err().map(|violation| violation.property)
    }

    /// Goal: siblings, an overwritten value and a deleted one pass; a hidden sibling, a returned
    /// value and a context that lags behind do not. Method: two concurrent puts, then a third
    /// write that saw the first.
    #[test]
    fn good_and_bad() {
        for is_delete in [false, true] {
            let mut told = Told::default();
            let a = told.put("a", &[]);
            let b = told.put("b", &[]);
            let c = if is_delete { told.delete(&[(1, 1)]) } else { told.put("c", &[(1, 1)]) };
            told.acknowledge(a, dot(1, 1), &[1]);
            told.acknowledge(b, dot(2, 1), &[2]);
            told.acknowledge(c, dot(1, 2), &[1]);
            let with = |shown: &[(u64, u64)]| {
                let third = [(1, 2)].into_iter().filter(|_| !is_delete);
                shown.iter().copied().chain(third).collect::<Vec<_>>()
            };
            assert_eq!(verdict(&told, &[], &[]), None);
            assert_eq!(verdict(&told, &[(1, 1), (2, 1)], &[(1, 1), (2, 1)]), None);
            assert_eq!(verdict(&told, &with(&[(2, 1)]), &[(1, 2), (2, 1)]), None);
            assert_eq!(
                verdict(&told, &with(&[]), &[(1, 2), (2, 1)]),
                Some(&VISIBLE_OR_OVERWRITTEN)
            );
            assert_eq!(
                verdict(&told, &with(&[(1, 1), (2, 1)]), &[(1, 2), (2, 1)]),
                Some(&NOTHING_DOMINATED)
            );
            assert_eq!(verdict(&told, &[(2, 1)], &[(1, 1)]), Some(&CONTEXT_GENUINE));
        }
    }

    /// Goal: a write whose dot nobody knows may explain a disappearance, unless it did not happen.
    #[test]
    fn unknown_writes_explain() {
        let mut told = Told::default();
        let a = told.put("a", &[]);
        told.acknowledge(a, dot(1, 1), &[1]);
        let lost = told.delete(&[(1, 1)]);
        assert_eq!(verdict(&told, &[], &[(1, 1), (9, 1)]), None);
        told.history.event_mut(lost).outcome = crate::history::Outcome::NotDone;
        assert_eq!(verdict(&told, &[], &[(1, 1), (9, 1)]), Some(&VISIBLE_OR_OVERWRITTEN));
    }
}
