//! The laws of `join`, and what puts and deletes promise, over real histories.

use proptest::prelude::*;
use proptest::sample::Index;

use super::history::{Known, World, kinds, steps, worlds};
use super::*;

fn joined(a: &Object, b: &Object) -> Object {
    let mut out = a.clone();
    out.join(b.clone()).unwrap();
    out
}

proptest! {
    /// Goal: an object is what its history says. Method: every state of a history against the
    /// model.
    #[test]
    fn objects_agree_with_their_history(world in worlds()) {
        for (object, known) in &world.states {
            world.compare(object, known);
        }
    }

    /// Goal: join is commutative, associative, idempotent, and loses nothing. Method: any three
    /// states of a history.
    #[test]
    fn join_laws(world in worlds(), picks: [Index; 3]) {
        let [a, b, c] = picks.map(|pick| &world.states[pick.index(world.states.len())]);
        let (known_a, known_b) = (&a.1, &b.1);
        let (a, b, c) = (&a.0, &b.0, &c.0);
        let ab = joined(a, b);
        prop_assert_eq!(&ab, &joined(b, a), "commutative");
        prop_assert_eq!(joined(&ab, c), joined(a, &joined(b, c)), "associative");
        prop_assert_eq!(&joined(a, a), a, "idempotent");
        prop_assert_eq!(&joined(&ab, b), &ab, "absorbs what it has");
        world.compare(&ab, &known_a.union(known_b).copied().collect());
    }

    /// Goal: any delivery order and duplication of the same states gives the same object. Method:
    /// all states of a history, some of them twice, in an order drawn at random.
    #[test]
    fn delivery_order_does_not_matter(
        world in worlds(),
        repeats in prop::collection::vec(any::<Index>(), 0..16),
        order in prop::collection::vec(any::<u32>(), 64),
    ) {
        let mut sent: Vec<&(Object, Known)> = world.states.iter().collect();
        sent.extend(repeats.iter().map(|index| &world.states[index.index(world.states.len())]));
        let mut drawn: Vec<_> = sent.iter().zip(order.iter().cycle()).collect();
        drawn.sort_by_key(|(_, place)| **place);
        let mut object = Object::new(world.states[0].0.kind());
        for ((state, _), _) in drawn {
            object.join(state.clone()).unwrap();
        }
        let known: Known = world.states.iter().flat_map(|(_, known)| known).copied().collect();
        world.compare(&object, &known);
    }

    /// Goal: a put with the context of everything makes one sibling, everywhere; a delete none.
    /// Method: join all states, write with that context at any replica, join all again.
    #[test]
    fn a_write_that_saw_everything_leaves_only_itself(
        kind in kinds(),
        steps in steps(),
        replica in 0usize..3,
        value: bool,
    ) {
        let mut world = World::after(kind, &steps);
        let mut all = Object::new(kind);
        let mut known = Known::new();
        for (state, heard) in &world.states {
            all.join(state.clone()).unwrap();
            known.extend(heard);
        }
        let ctx = (all.context.clone(), known.clone());
        // Above every reading in the history, as a coordinator's clock makes sure.
        let dot = world.write(replica, (value, Hlc(1000)), 0, ctx);
        all.join(world.states.last().unwrap().0.clone()).unwrap();
        known.insert(dot);
        world.compare(&all, &known);
        let left: Vec<Dot> = all.siblings().iter().map(|sibling| sibling.dot).collect();
        prop_assert_eq!(left, if value { vec![dot] } else { vec![] });
        prop_assert_eq!(all.is_deleted(), !value);
    }

    /// Goal: concurrent puts all survive (I5), and in a last-writer-wins object the greatest does.
    /// Method: every replica puts with the same context, which none of the others' puts is in.
    #[test]
    fn concurrent_puts_all_survive(kind in kinds(), steps in steps(), read: Index) {
        let mut world = World::after(kind, &steps);
        let (base, known) = world.states[read.index(world.states.len())].clone();
        let mut all = base.clone();
        let mut put = Vec::new();
        for replica in 0..3 {
            let ctx = (base.context.clone(), known.clone());
            put.push(world.write(replica, (true, Hlc(1000)), 0, ctx));
            all.join(world.states.last().unwrap().0.clone()).unwrap();
        }
        let alive: Known = all.siblings().iter().map(|sibling| sibling.dot).collect();
        match kind {
            ObjectKind::Siblings => prop_assert!(put.iter().all(|dot| alive.contains(dot))),
            ObjectKind::Lww => prop_assert_eq!(alive, put.into_iter().max().into_iter().collect()),
        }
    }

    /// Goal: states that show the same have equal digests, whatever their contexts; others have not.
    /// Method: all pairs of states in a history.
    #[test]
    fn digests_tell_states_apart(world in worlds()) {
        for (a, _) in &world.states {
            for (b, _) in &world.states {
                let shows_the_same = a.live_dots().eq(b.live_dots());
                prop_assert_eq!(shows_the_same, a.digest() == b.digest());
            }
        }
    }
}
