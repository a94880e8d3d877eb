//! Goal: ends are remembered exactly, undone with their batch, and bar just what they should.

use std::collections::BTreeSet;

use bytes::Bytes;
use holm_protocol::ids::Hlc;
use proptest::prelude::*;

use super::*;
use crate::object::{ObjectKind, Sibling};
use crate::shard::tests::Disk;

fn partition(number: u32) -> Partition {
    Partition::from_u32(number)
}

fn set(counters: impl IntoIterator<Item = u64>) -> IntervalSet {
    counters.into_iter().collect()
}

fn dot(actor: u64, counter: u64) -> Dot {
    Dot { actor: Actor(actor), counter }
}

/// Goal: what was committed is read back, of owned partitions only, and what was not is undone.
#[test]
fn steps_are_kept_or_undone_with_their_batch() {
    let mut store = Disk::default();
    let mut ends = Ends::default();
    ends.load(|_| true, &mut store).unwrap();
    ends.set(partition(1), Actor(1), End::Frozen);
    ends.set(partition(2), Actor(2), End::Frozen);
    ends.set(partition(2), Actor(2), End::Closed(set([1, 3])));
    assert!(ends.has_changes());
    ends.stage(&mut store);
    store.commit().unwrap();
    ends.committed();
    assert!(!ends.has_changes() && ends.frozen().len() == 1);

    ends.set(partition(1), Actor(1), End::Closed(set([5])));
    ends.set(partition(1), Actor(1), End::Folded(set([5])));
    ends.set(partition(3), Actor(3), End::Frozen);
    ends.roll_back();
    assert_eq!(ends.get(partition(1), Actor(1)), Some(&End::Frozen));
    assert_eq!(ends.get(partition(3), Actor(3)), None);
    assert_eq!(ends.frozen().len(), 1);

    let mut again = Ends::default();
    again.load(|partition| partition.to_u32() == 2, &mut store).unwrap();
    assert_eq!(again.of(partition(1)).count(), 0);
    assert_eq!(again.get(partition(2), Actor(2)), Some(&End::Closed(set([1, 3]))));
}

/// Goal: a damaged row is found, and so is a key that is none.
#[test]
fn damage_is_found() {
    for end in [End::Frozen, End::Closed(set([1, 2, 9])), End::Folded(set([4]))] {
        let row = end.encode();
        assert_eq!(End::decode(&row), Ok(end));
        for at in 0..row.len() {
            let mut damaged = row.clone();
            damaged[at] ^= 1;
            assert!(End::decode(&damaged).is_err() && End::decode(&row[..at]).is_err(), "{at}");
        }
    }
    for key in [&b"ends/0000"[..], b"ends/0000111111112"] {
        let mut store = Disk::default();
        store.stage_put(Table::Meta, key, &End::Frozen.encode());
        store.commit().unwrap();
        let loaded = Ends::default().load(|_| true, &mut store);
        assert!(matches!(loaded, Err(StoreError::Corrupt(_))));
    }
}

/// Goal: a clock that was read from the disk is marked and folded as it was.
#[test]
fn clocks_are_folded_again() {
    let mut ends = Ends::default();
    ends.set(partition(1), Actor(1), End::Folded(set([1, 3])));
    ends.set(partition(1), Actor(2), End::Closed(set([1, 4])));
    let mut clock = PartitionClock::new();
    clock.insert_range(Actor(1), 1, 3);
    clock.insert_range(Actor(2), 1, 1);
    ends.mark(partition(1), &mut clock);
    assert_eq!(clock.retired().collect::<Vec<_>>(), [(Actor(1), 3)]);
    assert!(clock.contains(dot(1, 2)) && !clock.contains(dot(1, 4)));
    assert!(clock.contains(dot(2, 3)) && !clock.contains(dot(2, 4)));
}

proptest! {
    /// Goal: a frozen actor's dots pass if they are here, a closed one's if they exist, and a context
    /// is lowered to what it covers alive, where all of that is here. Method: compare with explicit sets;
    /// every third dot is of this key and alive.
    #[test]
    fn what_is_void_is_barred(
        exist in prop::collection::btree_set(1u64..20, 1..12),
        here in prop::collection::btree_set(1u64..20, 0..12),
    ) {
        let at = partition(7);
        let mut clock = PartitionClock::new();
        here.iter().for_each(|&counter| _ = clock.insert(dot(1, counter)));
        let alive: BTreeSet<u64> = exist.iter().copied().filter(|counter| counter % 3 == 0).collect();
        let mut object = Object::new(ObjectKind::Siblings);
        for &counter in &alive {
            let sibling = Sibling::new(dot(1, counter), Hlc(1), Bytes::from_static(b"v"));
            object.put(&VersionVector::new(), sibling);
        }
        let mut ends = Ends::default();
        ends.set(at, Actor(1), End::Frozen);
        for counter in 1..24 {
            let is_here = here.contains(&counter);
            let expected = if is_here { Ok(()) } else { Err(Bar::Frozen) };
            prop_assert_eq!(ends.check(at, dot(1, counter), Some(&clock)), expected);
            prop_assert_eq!(ends.check(at, dot(1, counter), None), Err(Bar::Frozen));
            prop_assert_eq!(ends.check(at, dot(2, counter), None), Ok(()));
            let context: VersionVector = [dot(1, counter), dot(2, 1)].into_iter().collect();
            let expected = if is_here { Ok(context.clone()) } else { Err(Bar::Frozen) };
            prop_assert_eq!(ends.lower(at, &context, (&object, Some(&clock))), expected);
        }
        for folded in [false, true] {
            let dots = set(exist.clone());
            let end = if folded { End::Folded(dots) } else { End::Closed(dots) };
            ends.set(at, Actor(1), end);
            // Who learned it has marked what is void.
            clock.insert_range(Actor(1), 1, exist.iter().max().copied().unwrap_or(0));
            let mut clock = clock.without(&exist.iter().filter(|it| !here.contains(it)).fold(
                PartitionClock::new(),
                |mut lacking, &counter| {
                    lacking.insert(dot(1, counter));
                    lacking
                },
            ));
            clock.insert(dot(2, 1));
            for counter in 1..24 {
                let expected = if exist.contains(&counter) { Ok(()) } else { Err(Bar::Void) };
                prop_assert_eq!(ends.check(at, dot(1, counter), Some(&clock)), expected);
                let context: VersionVector = [dot(1, counter), dot(2, 1)].into_iter().collect();
                let lowered = ends.lower(at, &context, (&object, Some(&clock)));
                let is_whole = exist.range(..=counter).all(|counter| here.contains(counter));
                let below = alive.range(..counter).next_back();
                let expected = match (exist.contains(&counter), is_whole) {
                    (true, _) => Ok(context.clone()),
                    (false, true) => {
                        let below = below.map(|&counter| dot(1, counter));
                        Ok(below.into_iter().chain([dot(2, 1)]).collect())
                    }
                    (false, false) => Err(Bar::Frozen),
                };
                prop_assert_eq!(lowered, expected);
                let nowhere = ends.lower(at, &context, (&object, None));
                prop_assert_eq!(nowhere.is_ok(), exist.contains(&counter));
            }
        }
    }
}
