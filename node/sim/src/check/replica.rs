//! A replica's state only goes forward: checked at every commit, on what was on disk before and
//! after.

use std::collections::BTreeSet;

use holm_core::clock::PartitionClock;
use holm_core::object::{Object, State};
use holm_protocol::dot::Dot;
use holm_protocol::version_vector::VersionVector;

use crate::check::{Property, Verdict, Violation};
use crate::history::{EventId, History, KeyId};

/// I4.
pub const NOTHING_RETURNS: Property = Property {
    name: "nothing overwritten returns to a replica",
    invariant: "I4",
    statement: "a commit never adds a live dot that the object's context covered before, or that was forgotten",
    source: "TESTING 1, P4; Almeida, Shoker, Baquero, JPDC 2018, section 7",
    tla: Some("tla/Causality.tla!NoResurrection"),
    file: file!(),
};

/// I4's premise.
pub const FORGOTTEN_IS_KNOWN: Property = Property {
    name: "what is forgotten every replica knows to be stable",
    invariant: "I4",
    statement: "a context stops covering a write, or its object goes, only if every replica of the partition has claimed that write to be stable, and one that saw it; and what is alive stays named",
    source: "DESIGN 7; watermarks of DottedDB (SRDS 2017), and a second round of them",
    tla: Some("tla/Stability.tla!ForgottenIsSeen"),
    file: file!(),
};

/// I5.
pub const NOTHING_VANISHES: Property = Property {
    name: "nothing vanishes from a replica",
    invariant: "I5",
    statement: "a commit removes a live dot only if the new context covers a write that saw it",
    source: "TESTING 1, P6: no false dominance",
    tla: Some("tla/Causality.tla!NothingVanishes"),
    file: file!(),
};

/// I3's premise.
pub const CLOCK_NAMES_ALL: Property = Property {
    name: "the clock has seen what objects name",
    invariant: "I3",
    statement: "after a commit and after a restart the partition clock contains every dot that an object names",
    source: "DESIGN 7: object and log entry are of one commit",
    tla: Some("tla/Causality.tla!EqualClocksEqualStates"),
    file: file!(),
};

/// One object's change.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// Whose object.
    pub key: KeyId,
    /// The object before the commit.
    pub before: &'a Object,
    /// And after it.
    pub after: &'a Object,
    /// What every replica of the partition has claimed to know to be stable.
    pub known: &'a VersionVector,
    /// The words for where.
    pub place: &'a str,
}

/// Checks one object's change in one commit.
///
/// # Errors
/// Which rule it breaks.
pub fn check(history: &History, change: Change<'_>) -> Verdict {
    let Change { key, before, after, known, place } = change;
    let name = String::from_utf8_lossy(&history.key(key).name).into_owned();
    let returned = |how: String| Err(Violation::new(&NOTHING_RETURNS, format!("{place}: {how}")));
    if let Err(broken) = after.check() {
        return returned(format!("{name} is no object: {broken}"));
    }
    if let Some(dot) = kept_by_some(history, (key, before, after), known) {
        let how = format!(
            "{place}: the context of {name} shrinks, and not every replica knows {dot} to be stable, or what overwrote it"
        );
        return Err(Violation::new(&FORGOTTEN_IS_KNOWN, how));
    }
    let after_with = history.with_forgotten(key, &after.context);
    let live_before: BTreeSet<Dot> = before.live_dots().collect();
    let live_after: BTreeSet<Dot> = after.live_dots().collect();
    for &dot in live_after.difference(&live_before) {
        // Not what lies below a forgotten dot: it may have stayed alive, and a new disk has nothing of it.
        if before.context.covers(dot) || history.is_forgotten(key, dot) {
            return returned(format!("{dot} of {name} was gone and is back"));
        }
    }
    for &dot in live_before.difference(&live_after) {
        let explained = match (&before.state, &after.state) {
            (State::Latest(before), State::Latest(after)) => after.hlc() >= before.hlc(),
            _ => history
                .by_dot(history.key(key).partition, dot)
                .is_none_or(|id| history.is_overwritten(id, &after_with)),
        };
        if !explained {
            let how = format!("{place}: {dot} of {name} is gone, and nobody who saw it wrote");
            return Err(Violation::new(&NOTHING_VANISHES, how));
        }
    }
    Ok(())
}

/// A dot that a context does not cover any more, and that some replica may still need it for: without the
/// dot itself it would take an old message for news; without what overwrote it, it may hold it alive. That
/// other entries stay says nothing: who was cut, and written to since, is taken whole by another replica
/// that had the new write beside the uncut rest.
fn kept_by_some(
    history: &History,
    (key, before, after): (KeyId, &Object, &Object),
    known: &VersionVector,
) -> Option<Dot> {
    let is_lost = |dot: &Dot| before.context.covers(*dot) && !after.context.covers(*dot);
    let named = before.context.iter().filter(is_lost);
    let written = history.events_of(key).filter_map(|(_, event)| event.dot).filter(is_lost);
    let lost: BTreeSet<Dot> = named.chain(written).collect();
    let is_dead = |dot: Dot| {
        let id = history.by_dot(history.key(key).partition, dot);
        let is_dead = |id: EventId| {
            // Where the last writer wins, whatever ranks higher wins over it, wherever it is met.
            history.key(key).is_lww
                || history.event(id).value.is_none()
                || history.is_overwritten(id, known)
        };
        id.is_none_or(is_dead)
    };
    lost.into_iter().find(|&dot| !known.covers(dot) || !is_dead(dot))
}

/// Checks that a partition clock knows all dots of an object.
///
/// # Errors
/// A dot that it does not.
pub fn check_clock(clock: &PartitionClock, object: &Object, place: &str) -> Verdict {
    match object.named_dots().find(|&dot| !clock.contains(dot)) {
        None => Ok(()),
        Some(dot) => {
            let how = format!("{place}: an object names {dot}, which the clock has not seen");
            Err(Violation::new(&CLOCK_NAMES_ALL, how))
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use holm_core::object::{ObjectKind, Sibling};
    use holm_protocol::ids::Hlc;

    use super::*;
    use crate::check::tests::{Told, covers, dot};

    fn object(live: &[(u64, u64)], covered: &[(u64, u64)]) -> Object {
        let mut object = Object::new(ObjectKind::Siblings);
        for &(actor, counter) in live {
            let value = Bytes::from(format!("{actor}:{counter}"));
            object.put(&covers(&[]), Sibling::new(dot(actor, counter), Hlc(1), value));
        }
        object.context.merge(&covers(covered));
        object
    }

    fn verdict(told: &Told, before: &Object, after: &Object) -> Option<&'static Property> {
        let known = &VersionVector::new();
        let change = Change { key: told.key, before, after, known, place: "n1" };
        check(&told.history, change).err().map(|violation| violation.property)
    }

    /// Goal: adding siblings and overwriting what was seen pass; a zombie, a shrunk context and a
    /// sibling dropped unseen do not.
    #[test]
    fn good_and_bad() {
        let mut told = Told::default();
        let (a, b) = (told.put("a", &[]), told.put("b", &[]));
        let c = told.put("c", &[a]);
        told.acknowledge(a, dot(1, 1), &[1]);
        told.acknowledge(b, dot(2, 1), &[1]);
        told.acknowledge(c, dot(3, 1), &[1]);
        let one = object(&[(1, 1)], &[]);
        let two = object(&[(1, 1), (2, 1)], &[]);
        let overwritten = object(&[(3, 1), (2, 1)], &[(1, 1)]);
        assert_eq!(verdict(&told, &object(&[], &[]), &one), None);
        assert_eq!(verdict(&told, &one, &two), None);
        assert_eq!(verdict(&told, &two, &overwritten), None);
        let dropped = object(&[(3, 1)], &[(1, 1), (2, 1)]);
        assert_eq!(verdict(&told, &two, &dropped), Some(&NOTHING_VANISHES));
        let zombie = object(&[(3, 1), (2, 1), (1, 1)], &[]);
        assert_eq!(verdict(&told, &overwritten, &zombie), Some(&NOTHING_RETURNS));
        assert_eq!(verdict(&told, &overwritten, &two), Some(&FORGOTTEN_IS_KNOWN));
    }

    /// Goal: a new disk gets a value that is alive, and none that was forgotten, whichever has the greater
    /// dot. Method: of two writes of one actor either is deleted and forgotten.
    #[test]
    fn a_new_disk_gets_what_is_alive() {
        for (dead, alive) in [(dot(1, 2), dot(1, 1)), (dot(1, 1), dot(1, 2))] {
            let mut told = Told::default();
            let (a, b) = (told.put("a", &[]), told.put("b", &[]));
            told.acknowledge(a, dead, &[1]);
            told.acknowledge(b, alive, &[1]);
            told.history.forget(told.key, [dead], 1);
            let of = |dot: Dot| object(&[(dot.actor.0, dot.counter)], &[]);
            assert_eq!(verdict(&told, &object(&[], &[]), &of(alive)), None);
            assert_eq!(verdict(&told, &object(&[], &[]), &of(dead)), Some(&NOTHING_RETURNS));
        }
    }

    /// Goal: a write is forgotten when every replica knows it to be stable, and what overwrote it; what came
    /// later may stay. Method: `b` saw `a`, `c` saw `b`.
    #[test]
    fn what_may_be_forgotten() {
        let mut told = Told::default();
        let a = told.put("a", &[]);
        let b = told.put("b", &[a]);
        let c = told.put("c", &[b]);
        told.acknowledge(a, dot(1, 1), &[1]);
        told.acknowledge(b, dot(2, 1), &[1]);
        told.acknowledge(c, dot(3, 1), &[1]);
        let before = object(&[(3, 1)], &[(1, 1), (2, 1)]);
        let verdict = |left: &[(u64, u64)], known: &[(u64, u64)]| {
            let (after, known) = (object(&[(3, 1)], left), &covers(known));
            let change =
                Change { key: told.key, before: &before, after: &after, known, place: "n1" };
            check(&told.history, change).err().map(|violation| violation.property)
        };
        assert_eq!(verdict(&[], &[(1, 1), (2, 1), (3, 1)]), None);
        assert_eq!(verdict(&[(2, 1)], &[(1, 1), (2, 1)]), None);
        assert_eq!(verdict(&[(2, 1)], &[(1, 1)]), Some(&FORGOTTEN_IS_KNOWN));
        assert_eq!(verdict(&[(2, 1)], &[(2, 1)]), Some(&FORGOTTEN_IS_KNOWN));
        assert_eq!(verdict(&[], &[(1, 1), (2, 1)]), Some(&FORGOTTEN_IS_KNOWN));
    }

    /// Goal: a clock that lacks a named dot is told.
    #[test]
    fn clocks_lag_or_not() {
        let mut clock = PartitionClock::new();
        let object = object(&[(1, 1)], &[(2, 3)]);
        clock.insert(dot(1, 1));
        assert!(check_clock(&clock, &object, "n1").is_err());
        clock.insert(dot(2, 3));
        assert_eq!(check_clock(&clock, &object, "n1"), Ok(()));
    }
}
