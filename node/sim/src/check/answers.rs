//! An answer shows every write that its context covers, but for those that were overwritten by
//! somebody who saw them, and none that was; and its context covers whatever the writers of the
//! values beside it saw.
//!
//! This is what makes a context safe to write with: whatever the next write drops, its writer was
//! shown, or a writer before it; and whatever its writer was shown, it drops. Here the vectors of
//! the database meet the event sets of [`crate::history`].

use holm_protocol::dot::Dot;
use holm_protocol::version_vector::VersionVector;

use crate::check::{Property, Verdict, Violation};
use crate::history::{Answer, EventId, History};

/// I5.
pub const VISIBLE_OR_OVERWRITTEN: Property = Property {
    name: "covered is visible or overwritten",
    invariant: "I5",
    statement: "an answer whose context covers a value shows it, or its context covers a write that saw it",
    source: "Preguica et al., PODC 2012; concurrent writes survive until a writer saw them",
    tla: Some("tla/Causality.tla!NothingVanishes"),
    file: file!(),
};

/// I4.
pub const NOTHING_DOMINATED: Property = Property {
    name: "nothing overwritten is shown",
    invariant: "I4",
    statement: "an answer whose context covers a write shows nothing that this write saw",
    source: "TESTING 1, P6: siblings are exactly the causally maximal writes",
    tla: Some("tla/Causality.tla!NoResurrection"),
    file: file!(),
};

/// I8.
pub const CONTEXT_GENUINE: Property = Property {
    name: "contexts open and cover what is shown",
    invariant: "I8",
    statement: "every context that a node gives out opens under the key it was given for, and covers the values beside it",
    source: "DESIGN 3: contexts are authenticated and bound to their key",
    tla: None,
    file: file!(),
};

/// I4's premise.
pub const CONTEXT_CLOSED: Property = Property {
    name: "contexts cover what writers saw",
    invariant: "I4",
    statement: "a context covers every write that the writers of the values beside it saw",
    source: "Preguica et al., PODC 2012: causal histories are closed; Riak kv679 and its kin",
    tla: Some("tla/Causality.tla!ContextsCoverWhatIsShown"),
    file: file!(),
};

/// I5.
pub const WRITERS_CONTEXT: Property = Property {
    name: "a writer's context covers what it saw",
    invariant: "I5",
    statement: "the context given to a writer covers its own write, what it saw, and else only what was overwritten by a write that is covered too",
    source: "Preguica et al., PODC 2012; DESIGN 3",
    tla: Some("tla/Causality.tla!ContextsClaimNoMore"),
    file: file!(),
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
    // What every replica had is part of the answer, whether it is named or not: what was forgotten before
    // it was asked for must show; what was forgotten since need not be named.
    let mut before = history.forgotten_before(answer.key, answer.asked_us);
    before.merge(&answer.covers);
    let with =
        &Answer { covers: history.with_forgotten(answer.key, &answer.covers), ..answer.clone() };
    let answer = &Answer { covers: before, ..answer.clone() };
    for &dot in answer.shown.iter().filter(|_| !key.is_lww) {
        history.by_dot(key.partition, dot).map_or(Ok(()), |id| is_closed(history, id, with))?;
    }
    for (id, event) in history.events_of(answer.key) {
        let Some(dot) = event.dot else { continue };
        let is_shown = answer.shown.contains(&dot);
        if event.value.is_none() || !answer.covers.covers(dot) {
            continue;
        }
        if !is_shown && !is_explained(history, id, with) {
            let how = format!(
                "not shown, covered, and overwritten by nobody: {}; the answer shows {} and covers {:?}; {}",
                history.describe(id),
                dots(answer.shown.iter().copied()),
                dots(answer.covers.iter()),
                who_saw(history, id),
            );
            return Err(Violation::new(&VISIBLE_OR_OVERWRITTEN, how));
        }
        if is_shown && !key.is_lww {
            not_dominated(history, id, answer)?;
        }
    }
    Ok(())
}

/// Dots in a row, for people.
fn dots(dots: impl Iterator<Item = Dot>) -> String {
    let dots: Vec<String> = dots.map(|dot| dot.to_string()).collect();
    if dots.is_empty() { "nothing".to_owned() } else { dots.join(", ") }
}

/// Names the writes whose writers saw one.
fn who_saw(history: &History, id: EventId) -> String {
    let place = history.event(id).place;
    let by = history.events_of(history.event(id).key).filter(|(_, by)| by.saw.contains(place));
    let by: Vec<String> = by.map(|(by, _)| history.describe(by)).collect();
    if by.is_empty() {
        "nobody who wrote had seen it".to_owned()
    } else {
        format!("seen by the writers of {}", by.join(", "))
    }
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

/// Whether an answer that shows a write covers what its writer saw.
fn is_closed(history: &History, id: EventId, answer: &Answer) -> Verdict {
    let partition = history.key(answer.key).partition;
    // What is void has left contexts again, and never had an effect that is left.
    let uncovered = |other: &EventId| {
        let dot = history.event(*other).dot;
        dot.is_some_and(|dot| !answer.covers.covers(dot) && !history.is_void(partition, dot))
    };
    match history.seen_by(id).find(uncovered) {
        None => Ok(()),
        Some(other) => {
            let (this, other) = (history.describe(id), history.describe(other));
            let how = format!("a context covers {this}, and not {other}, which its writer saw");
            Err(Violation::new(&CONTEXT_CLOSED, how))
        }
    }
}

fn not_dominated(history: &History, id: EventId, answer: &Answer) -> Verdict {
    let place = history.event(id).place;
    let dominating = history.events_of(answer.key).find(|(_, by)| {
        by.saw.contains(place) && by.dot.is_some_and(|by| answer.covers.covers(by))
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

/// Checks the context that a writer got back. `stable` is what every replica has claimed to know to be
/// stable. Where the last writer wins, nobody writes by it.
///
/// # Errors
/// It covers a value that the writer did not see and that nobody overwrote.
pub fn check_writer(
    history: &History,
    id: EventId,
    covers: &VersionVector,
    stable: &VersionVector,
) -> Verdict {
    let key = history.event(id).key;
    let partition = history.key(key).partition;
    if history.key(key).is_lww {
        return Ok(());
    }
    let with = history.with_forgotten(key, covers);
    for (other, event) in history.events_of(key) {
        let is_covered = event.dot.is_some_and(|dot| covers.covers(dot));
        // What is forgotten was overwritten everywhere.
        let is_dead = |dot| stable.covers(dot) && history.is_overwritten(other, stable);
        let is_needed =
            event.dot.is_some_and(|dot| !history.is_forgotten(key, dot) && !is_dead(dot));
        let is_hidden = event.value.is_some() && is_needed && other != id;
        let is_hidden = is_hidden && !history.saw(id, other);
        if is_covered && is_hidden && !history.is_overwritten(other, &with) {
            let how = format!("a writer's context covers {}", history.describe(other));
            return Err(Violation::new(&WRITERS_CONTEXT, how));
        }
        let is_lost =
            event.dot.is_some_and(|dot| !with.covers(dot) && !history.is_void(partition, dot));
        if is_lost && history.saw(id, other) {
            let how = format!("a writer's context lost {}", history.describe(other));
            return Err(Violation::new(&WRITERS_CONTEXT, how));
        }
    }
    Ok(())
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
        let answer = Answer { key: told.key, shown, covers: covers(covered), asked_us: 0 };
        check(&told.history, &answer).err().map(|violation| violation.property)
    }

    /// Goal: siblings, an overwritten value and a deleted one pass; a hidden sibling, a returned
    /// value and contexts that lag behind do not. Method: two concurrent puts, then a third write
    /// that saw the first.
    #[test]
    fn good_and_bad() {
        for is_delete in [false, true] {
            let mut told = Told::default();
            let a = told.put("a", &[]);
            let b = told.put("b", &[]);
            let c = if is_delete { told.delete(&[a]) } else { told.put("c", &[a]) };
            told.acknowledge(a, dot(1, 1), &[1]);
            told.acknowledge(b, dot(2, 1), &[2]);
            told.acknowledge(c, dot(3, 1), &[1]);
            let with = |shown: &[(u64, u64)]| {
                let third = [(3, 1)].into_iter().filter(|_| !is_delete);
                shown.iter().copied().chain(third).collect::<Vec<_>>()
            };
            let all = [(1, 1), (2, 1), (3, 1)];
            assert_eq!(verdict(&told, &[], &[]), None);
            assert_eq!(verdict(&told, &[(1, 1), (2, 1)], &[(1, 1), (2, 1)]), None);
            assert_eq!(verdict(&told, &with(&[(2, 1)]), &all), None);
            assert_eq!(verdict(&told, &with(&[]), &all), Some(&VISIBLE_OR_OVERWRITTEN));
            let returned = verdict(&told, &with(&[(1, 1), (2, 1)]), &all);
            assert_eq!(returned, Some(&NOTHING_DOMINATED));
            assert_eq!(verdict(&told, &[(2, 1)], &[(1, 1)]), Some(&CONTEXT_GENUINE));
            if !is_delete {
                assert_eq!(verdict(&told, &[(3, 1)], &[(3, 1)]), Some(&CONTEXT_CLOSED));
            }
        }
    }

    /// Goal: a write whose dot nobody knows may explain a disappearance, unless it did not happen.
    #[test]
    fn unknown_writes_explain() {
        let mut told = Told::default();
        let a = told.put("a", &[]);
        told.acknowledge(a, dot(1, 1), &[1]);
        let lost = told.delete(&[a]);
        assert_eq!(verdict(&told, &[], &[(1, 1), (9, 1)]), None);
        told.history.event_mut(lost).outcome = crate::history::Outcome::NotDone;
        assert_eq!(verdict(&told, &[], &[(1, 1), (9, 1)]), Some(&VISIBLE_OR_OVERWRITTEN));
    }

    /// Goal: a writer's context may leave its own write out, and no more; it covers nothing that
    /// the writer did not see, unless its overwriting is covered too.
    #[test]
    fn writers_contexts() {
        let mut told = Told::default();
        let a = told.put("a", &[]);
        told.acknowledge(a, dot(1, 1), &[1]);
        let b = told.put("b", &[]);
        told.acknowledge(b, dot(2, 1), &[2]);
        let c = told.put("c", &[a]);
        told.acknowledge(c, dot(3, 1), &[1]);
        let verdict = |told: &Told, covered: &[(u64, u64)]| {
            check_writer(&told.history, c, &covers(covered), &VersionVector::new()).is_ok()
        };
        assert!(verdict(&told, &[(1, 1), (3, 1)]));
        assert!(verdict(&told, &[(1, 1)]));
        assert!(!verdict(&told, &[(3, 1)]));
        assert!(!verdict(&told, &[(1, 1), (2, 1), (3, 1)]));
        let d = told.delete(&[b]);
        told.acknowledge(d, dot(4, 1), &[2]);
        assert!(!verdict(&told, &[(1, 1), (2, 1), (3, 1)]));
        assert!(verdict(&told, &[(1, 1), (2, 1), (3, 1), (4, 1)]));
    }
}
