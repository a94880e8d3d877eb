//! Of a run that ended, what exists is decided once, and nothing that somebody has is called void.

use holm_core::clock::{IntervalSet, PartitionClock};
use holm_protocol::dot::Dot;
use holm_protocol::ids::Actor;

use crate::check::{Property, Verdict, Violation};

/// I3's premise: void dots are marked as seen.
pub const ONE_DECISION: Property = Property {
    name: "a run's end is decided once",
    invariant: "I3",
    statement: "all nodes that learn which dots an actor of a run that ended has, learn the same",
    source: "rules 23 and 24 of tla/RULES.md: who decides again adopts what exists",
    tla: None,
    file: file!(),
};

/// I5.
pub const NOTHING_HELD_IS_VOID: Property = Property {
    name: "nothing held is void",
    invariant: "I5",
    statement: "no write that is decided to be void is in the clock or an object of a replica, or in a hint of a node, that remembers, but for clocks that were told so",
    source: "Chandy, Lamport, TOCS 1985: answers of nodes that froze are a consistent cut",
    tla: Some("tla/Retirement.tla!NothingHeldIsVoid"),
    file: file!(),
};

/// I10.
pub const ALL_FOLDED: Property = Property {
    name: "runs that ended leave clocks in the end",
    invariant: "I10",
    statement: "after faults stop, with no disk lost and where shards look for such runs, no replica's clock has an entry of a run that ended, but of one that has a write that no disk has any more",
    source: "DESIGN 7: clocks stay small under thousands of restarts",
    tla: Some("tla/Retirement.tla!AllIsFolded"),
    file: file!(),
};

/// Checks a replica's clock at the end. `ended` says whether an actor was one of a run that ended.
///
/// # Errors
/// It has an entry of one.
pub fn check_folded(clock: &PartitionClock, ended: impl Fn(Actor) -> bool, place: &str) -> Verdict {
    match clock.iter().map(|(actor, _)| actor).find(|&actor| ended(actor)) {
        None => Ok(()),
        Some(actor) => {
            let how = format!("{place} still has an entry of {actor}, which ended");
            Err(Violation::new(&ALL_FOLDED, how))
        }
    }
}

/// Checks what a node learns against what is known.
///
/// # Errors
/// Another decision.
pub fn check(
    actor: Actor,
    known: Option<&IntervalSet>,
    dots: &IntervalSet,
    place: &str,
) -> Verdict {
    match known.filter(|known| *known != dots) {
        None => Ok(()),
        Some(known) => {
            let spans = |dots: &IntervalSet| dots.spans().collect::<Vec<_>>();
            let (ours, theirs) = (spans(dots), spans(known));
            let how = format!("{place} learns that {actor} has {ours:?}, and others {theirs:?}");
            Err(Violation::new(&ONE_DECISION, how))
        }
    }
}

/// Checks what an object or a hint names of an actor that has just these dots.
///
/// # Errors
/// Something void.
pub fn check_held(
    actor: Actor,
    dots: &IntervalSet,
    named: impl IntoIterator<Item = Dot>,
    place: &str,
) -> Verdict {
    let is_void = |dot: &Dot| dot.actor == actor && !dots.contains(dot.counter);
    match named.into_iter().find(is_void) {
        None => Ok(()),
        Some(dot) => {
            let how = format!("{place} has {dot}, which is decided to be void");
            Err(Violation::new(&NOTHING_HELD_IS_VOID, how))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::tests::dot;

    /// Goal: the same decision passes, also twice, and what exists may be held; another decision
    /// and a void dot that is held do not pass.
    #[test]
    fn good_and_bad() {
        let mut dots = IntervalSet::from_prefix(2);
        dots.insert(4);
        assert_eq!(check(Actor(1), None, &dots, "n1"), Ok(()));
        assert_eq!(check(Actor(1), Some(&dots), &dots, "n1"), Ok(()));
        let other = IntervalSet::from_prefix(2);
        assert!(check(Actor(1), Some(&dots), &other, "n1").is_err());

        assert_eq!(check_held(Actor(1), &dots, [dot(1, 4), dot(2, 3)], "n1"), Ok(()));
        assert!(check_held(Actor(1), &dots, [dot(1, 3)], "n1").is_err());
        assert!(check_held(Actor(1), &dots, [dot(1, 5)], "n1").is_err());

        let mut clock = PartitionClock::new();
        clock.insert(dot(1, 1));
        let ended = |actor: Actor| actor == Actor(1);
        assert!(check_folded(&clock, ended, "n1").is_err());
        assert_eq!(check_folded(&clock, |_| false, "n1"), Ok(()));
        clock.retire(Actor(1), 4);
        assert_eq!(check_folded(&clock, ended, "n1"), Ok(()));
    }
}
