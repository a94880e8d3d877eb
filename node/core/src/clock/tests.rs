//! Goal: clocks and interval sets agree with explicit sets of events, and decoders are total.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// The model: every dot seen, one by one.
type Seen = BTreeSet<Dot>;

const ACTORS: u64 = 4;
const COUNTERS: u64 = 24;

/// One way of marking dots: from the bottom or not, one or several.
#[derive(Debug, Clone)]
enum Step {
    One(Dot),
    Range(Actor, u64, u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (1..=ACTORS, 0..=COUNTERS, 0..6u64, any::<bool>()).prop_map(
        |(a, first, len, one)| match one {
            true => Step::One(Dot::new(Actor(a), first)),
            false => Step::Range(Actor(a), first, (first + len).saturating_sub(1)),
        },
    );
    prop::collection::vec(step, 0..24)
}

/// Builds clock and model from the same steps, comparing what each insertion says.
fn build(steps: &[Step]) -> (PartitionClock, Seen) {
    let (mut clock, mut seen) = (PartitionClock::new(), Seen::new());
    for step in steps {
        match *step {
            Step::One(dot) => {
                let new = dot.counter > 0 && seen.insert(dot);
                assert_eq!(clock.insert(dot), new, "{dot}");
            }
            Step::Range(actor, first, last) => {
                clock.insert_range(actor, first, last);
                seen.extend((first.max(1)..=last).map(|counter| Dot { actor, counter }));
            }
        }
        check(&clock);
    }
    (clock, seen)
}

/// The representation's invariants.
fn check(clock: &PartitionClock) {
    for (actor, set) in clock.iter() {
        assert!(!set.is_empty(), "{actor} is empty");
        let mut end = set.prefix();
        for &(first, last) in set.ranges() {
            assert!(first > end + 1 && first <= last, "{actor}: {set:?}");
            end = last;
        }
    }
}

fn dots_of(ranges: &[(Actor, Vec<(u64, u64)>)]) -> Seen {
    let mut out = Seen::new();
    for (actor, ranges) in ranges {
        let mut end = None;
        for &(first, last) in ranges {
            assert!(end.is_none_or(|end| first > end + 1) && first <= last, "{ranges:?}");
            out.extend((first..=last).map(|counter| Dot { actor: *actor, counter }));
            end = Some(last);
        }
    }
    out
}

fn prefix(seen: &Seen, actor: Actor) -> u64 {
    (1..).take_while(|counter| seen.contains(&Dot::new(actor, *counter))).last().unwrap_or(0)
}

proptest! {
    /// Goal: clocks and event sets agree. Method: the same dots into both, then every question.
    #[test]
    fn clocks_agree_with_event_sets(a in steps(), b in steps()) {
        let (clock_a, seen_a) = build(&a);
        let (clock_b, seen_b) = build(&b);
        for actor in (1..=ACTORS + 1).map(Actor) {
            for counter in 0..COUNTERS + 8 {
                let dot = Dot { actor, counter };
                prop_assert_eq!(clock_a.contains(dot), seen_a.contains(&dot));
            }
            prop_assert_eq!(clock_a.prefixes().get(actor), prefix(&seen_a, actor));
            let max = seen_a.iter().filter(|dot| dot.actor == actor).map(|dot| dot.counter).max();
            prop_assert_eq!(clock_a.get(actor).map(IntervalSet::max), max);
        }
        prop_assert_eq!(clock_a.count(), seen_a.len() as u64);
        // A range begins at each dot beyond a gap.
        let begins = |dot: &&Dot| {
            dot.counter > 1 && !seen_a.contains(&Dot { counter: dot.counter - 1, ..**dot })
        };
        prop_assert_eq!(clock_a.ranges(), seen_a.iter().filter(begins).count());
        prop_assert_eq!(clock_a.is_empty(), seen_a.is_empty());
        prop_assert_eq!(clock_a == clock_b, seen_a == seen_b);
        prop_assert_eq!(clock_a.covers(&clock_b), seen_a.is_superset(&seen_b));
        let difference: Seen = seen_a.difference(&seen_b).copied().collect();
        prop_assert_eq!(dots_of(&clock_a.difference(&clock_b)), difference);

        let mut merged = clock_a.clone();
        merged.merge(&clock_b);
        check(&merged);
        let mut union = PartitionClock::new();
        for dot in seen_a.union(&seen_b) {
            union.insert(*dot);
        }
        prop_assert_eq!(merged, union);
    }

    /// Goal: folding actors away changes no answer of a clock. Method: of two clocks any whole
    /// actors are folded away, in either or in both; every question is asked of both forms.
    #[test]
    fn folding_changes_no_answer(a in steps(), b in steps(), fold_a: [bool; 4], fold_b: [bool; 4]) {
        let folded = |(clock, _): &(PartitionClock, Seen), which: [bool; 4]| {
            let mut folded = clock.clone();
            for (actor, seen) in clock.iter() {
                if which[actor.0 as usize - 1] && seen.ranges().is_empty() {
                    folded.retire(actor, seen.prefix());
                    assert!(folded.get(actor).is_none());
                }
            }
            folded
        };
        let (a, b) = (build(&a), build(&b));
        let (folded_a, folded_b) = (folded(&a, fold_a), folded(&b, fold_b));
        for actor in (1..=ACTORS + 1).map(Actor) {
            prop_assert_eq!(folded_a.seen_of(actor), a.0.seen_of(actor));
            for counter in 0..COUNTERS + 8 {
                let dot = Dot { actor, counter };
                prop_assert_eq!(folded_a.contains(dot), a.1.contains(&dot));
            }
        }
        prop_assert_eq!(folded_a.is_empty(), a.1.is_empty());
        prop_assert_eq!(folded_a.covers(&folded_b), a.0.covers(&b.0));
        prop_assert_eq!(folded_a.difference(&folded_b), a.0.difference(&b.0));
        prop_assert_eq!(folded_a.has_seen_the_same(&folded_b), a.1 == b.1);
        let mut merged = folded_a.clone();
        merged.merge(&folded_a);
        prop_assert_eq!(&merged, &folded_a);
        for (actor, end) in folded_a.retired() {
            prop_assert!(!merged.insert(Dot { actor, counter: end + 1 }), "it has ended");
        }
    }

    /// Goal: the stable clock never passes a dot that one replica lacks, and is no lower than it
    /// must be. Method: compare with the shortest prefix in the models.
    #[test]
    fn minimum_is_the_shortest_prefix(all in prop::collection::vec(steps(), 0..4)) {
        let built: Vec<_> = all.iter().map(|steps| build(steps)).collect();
        let minimum = PartitionClock::minimum(built.iter().map(|(clock, _)| clock));
        for actor in (1..=ACTORS).map(Actor) {
            let shortest = built.iter().map(|(_, seen)| prefix(seen, actor)).min().unwrap_or(0);
            prop_assert_eq!(minimum.get(actor), shortest);
        }
    }

    /// Goal: one clock has one encoding. Method: write, read back.
    #[test]
    fn encoding_reads_back(steps in steps()) {
        let (clock, _) = build(&steps);
        let mut out = Vec::new();
        clock.encode(&mut out);
        let mut reader = Reader::new(&out);
        prop_assert_eq!(PartitionClock::decode(&mut reader), Ok(clock));
        prop_assert_eq!(reader.finish(), Ok(()));
    }

    /// Goal: the decoder is total and takes nothing but what the encoder writes. Method: damage
    /// an encoding; whatever still reads keeps the invariants and encodes to what it was read from.
    #[test]
    fn decoder_is_total(steps in steps(), at: prop::sample::Index, noise: Vec<u8>) {
        let (clock, _) = build(&steps);
        let mut bytes = Vec::new();
        clock.encode(&mut bytes);
        let at = at.index(bytes.len());
        bytes.splice(at..bytes.len().min(at + noise.len()), noise);
        let mut reader = Reader::new(&bytes);
        if let Ok(read) = PartitionClock::decode(&mut reader) {
            let mut again = Vec::new();
            read.encode(&mut again);
            prop_assert_eq!(&bytes[..bytes.len() - reader.left().len()], &again[..]);
        }
    }

    /// Goal: the ends of the number range hold no surprise. Method: sets near the highest counter,
    /// compared with a model of their own.
    #[test]
    fn highest_counters_do_not_overflow(
        a in prop::collection::vec((0u64..12, 0u64..4), 0..8),
        b in prop::collection::vec((0u64..12, 0u64..4), 0..8),
    ) {
        let build = |ranges: &[(u64, u64)]| {
            let (mut set, mut model) = (IntervalSet::new(), BTreeSet::new());
            for &(below, len) in ranges {
                let first = u64::MAX - below;
                let last = first.saturating_add(len);
                set.insert_range(first, last);
                model.extend(first..=last);
            }
            (set, model)
        };
        let ((set_a, model_a), (set_b, model_b)) = (build(&a), build(&b));
        prop_assert_eq!(set_a.count(), model_a.len() as u64);
        prop_assert_eq!(set_a.covers(&set_b), model_a.is_superset(&model_b));
        let difference: BTreeSet<u64> =
            set_a.difference(&set_b).into_iter().flat_map(|(first, last)| first..=last).collect();
        prop_assert_eq!(difference, model_a.difference(&model_b).copied().collect());
        let mut out = Vec::new();
        set_a.encode(&mut out);
        prop_assert_eq!(IntervalSet::decode(&mut Reader::new(&out)), Ok(set_a));
    }
}

/// Goal: everything and nothing are sets too. Method: the full set, and what can be added to it.
#[test]
fn the_full_set() {
    let mut set = IntervalSet::from_prefix(u64::MAX);
    assert!(!set.insert(u64::MAX) && !set.insert(0) && set.contains(u64::MAX));
    set.insert_range(5, u64::MAX);
    assert_eq!((set.prefix(), set.ranges().len(), set.count()), (u64::MAX, 0, u64::MAX));
    assert!(IntervalSet::from_prefix(9).difference(&set).is_empty());
    assert_eq!(set.difference(&IntervalSet::from_prefix(9)), [(10, u64::MAX)]);
}

/// Goal: promises of many entries cost nothing. Method: counts without what they count.
#[test]
fn announced_counts_are_not_trusted() {
    let mut out = Vec::new();
    put_varint(&mut out, ACTORS_MAX as u64 + 1);
    let refused = PartitionClock::decode(&mut Reader::new(&out));
    assert!(matches!(refused, Err(WireError::TooLong { .. })));

    out.clear();
    put_varint(&mut out, ACTORS_MAX as u64);
    let refused = PartitionClock::decode(&mut Reader::new(&out));
    assert!(matches!(refused, Err(WireError::Truncated { .. })));

    // No room is made for ranges before their bytes are there: two for each.
    let refused = IntervalSet::decode(&mut Reader::new(&[5, 100, 1]));
    assert_eq!(refused, Err(WireError::Truncated { missing: 200 - 1 }));

    // One actor with nothing seen would be a second encoding of the empty clock.
    let refused = PartitionClock::decode(&mut Reader::new(&[1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]));
    assert!(matches!(refused, Err(WireError::Invalid { .. })));
}

/// Goal: the encoding is a contract between releases. Method: pinned bytes: of actor 9, 1 to 5,
/// 7, and 10 to 12.
#[test]
fn encoding_is_pinned() {
    let mut clock = PartitionClock::new();
    for (first, last) in [(1, 5), (7, 7), (10, 12)] {
        clock.insert_range(Actor(9), first, last);
    }
    let mut out = Vec::new();
    clock.encode(&mut out);
    assert_eq!(out, [1, 0, 0, 0, 0, 0, 0, 0, 9, 5, 2, 0, 0, 1, 2]);
}
