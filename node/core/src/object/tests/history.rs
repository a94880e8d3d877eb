//! Histories of puts, deletes and joins, and the model they are held against.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

/// The writes somebody has heard of.
pub(super) type Known = BTreeSet<Dot>;

/// What a client had read before it wrote.
#[derive(Debug, Clone)]
pub(super) enum Read {
    /// Nothing: a blind write.
    Blind,
    /// The coordinator's own state.
    Fresh,
    /// Any state that any replica was ever in.
    Stale(Index),
}

/// One event.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// A put, or a delete if `value` is false. `skip` counters went to other keys before it.
    Write { replica: usize, value: bool, skip: u64, hlc: u64, read: Read },
    /// A replica takes in any state that any replica was ever in.
    Join { replica: usize, sent: Index },
    /// A replica restarts: its actor is a new one.
    Restart { replica: usize },
}

struct Write {
    hlc: Hlc,
    value: bool,
    seen: Known,
}

struct Replica {
    actor: u64,
    counter: u64,
    object: Object,
    known: Known,
}

/// A history as far as it has come.
pub(super) struct World {
    kind: ObjectKind,
    writes: BTreeMap<Dot, Write>,
    replicas: Vec<Replica>,
    actors: u64,
    /// Every state that a replica was ever in, and what it had heard of.
    pub(super) states: Vec<(Object, Known)>,
}

const REPLICAS: usize = 3;

pub(super) fn kinds() -> impl Strategy<Value = ObjectKind> {
    prop_oneof![Just(ObjectKind::Siblings), Just(ObjectKind::Lww)]
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let read = || {
        prop_oneof![
            1 => Just(Read::Blind),
            2 => Just(Read::Fresh),
            2 => any::<Index>().prop_map(Read::Stale),
        ]
    };
    let write = (0..REPLICAS, prop::bool::weighted(0.7), 0..3u64, 0..8u64, read()).prop_map(
        |(replica, value, skip, hlc, read)| Step::Write { replica, value, skip, hlc, read },
    );
    let join =
        (0..REPLICAS, any::<Index>()).prop_map(|(replica, sent)| Step::Join { replica, sent });
    let restart = (0..REPLICAS).prop_map(|replica| Step::Restart { replica });
    prop::collection::vec(prop_oneof![5 => write, 4 => join, 1 => restart], 0..32)
}

/// Worlds after any history.
pub(super) fn worlds() -> impl Strategy<Value = World> {
    (kinds(), steps()).prop_map(|(kind, steps)| World::after(kind, &steps))
}

impl World {
    pub(super) fn after(kind: ObjectKind, steps: &[Step]) -> World {
        let mut world = World {
            kind,
            writes: BTreeMap::new(),
            replicas: Vec::new(),
            actors: 0,
            states: vec![(Object::new(kind), Known::new())],
        };
        for _ in 0..REPLICAS {
            let actor = world.new_actor();
            let object = Object::new(kind);
            world.replicas.push(Replica { actor, counter: 0, object, known: Known::new() });
        }
        for step in steps {
            world.step(step);
        }
        world
    }

    /// Actors in no particular order.
    fn new_actor(&mut self) -> u64 {
        self.actors += 1;
        self.actors.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Write { replica, value, skip, hlc, read } => {
                let (ctx, seen) = self.read(*replica, read);
                self.write(*replica, (*value, Hlc(*hlc)), *skip, (ctx, seen));
            }
            Step::Join { replica, sent } => {
                let (object, known) = self.states[sent.index(self.states.len())].clone();
                let to = &mut self.replicas[*replica];
                to.object.join(object).unwrap();
                to.known.extend(known);
                self.states.push((to.object.clone(), to.known.clone()));
            }
            Step::Restart { replica } => {
                let actor = self.new_actor();
                let restarted = &mut self.replicas[*replica];
                (restarted.actor, restarted.counter) = (actor, 0);
            }
        }
    }

    fn read(&self, replica: usize, read: &Read) -> (VersionVector, Known) {
        let (object, known) = match read {
            Read::Blind => &self.states[0],
            Read::Stale(index) => &self.states[index.index(self.states.len())],
            Read::Fresh => {
                let own = &self.replicas[replica];
                return (own.object.context.clone(), own.known.clone());
            }
        };
        (object.context.clone(), known.clone())
    }

    /// One write at a replica, on the object and in the model.
    pub(super) fn write(
        &mut self,
        replica: usize,
        (value, hlc): (bool, Hlc),
        skip: u64,
        (ctx, seen): (VersionVector, Known),
    ) -> Dot {
        let at = &mut self.replicas[replica];
        at.counter += 1 + skip;
        let dot = dot(at.actor, at.counter);
        match value {
            true => at.object.put(&ctx, sibling(dot, hlc.0)),
            false => at.object.delete(&ctx, dot, hlc),
        }
        if self.kind == ObjectKind::Siblings {
            // What the writer had seen is overwritten here, whether or not it was ever here.
            at.known.extend(&seen);
        }
        at.known.insert(dot);
        self.writes.insert(dot, Write { hlc, value, seen });
        self.states.push((at.object.clone(), at.known.clone()));
        dot
    }

    /// The values that somebody who has heard of `known` must see.
    pub(super) fn visible(&self, known: &Known) -> Vec<Sibling> {
        let value = |dot: &Dot| sibling(*dot, self.writes[dot].hlc.0);
        match self.kind {
            ObjectKind::Siblings => known
                .iter()
                .filter(|dot| self.writes[*dot].value)
                .filter(|dot| !known.iter().any(|later| self.writes[later].seen.contains(*dot)))
                .map(value)
                .collect(),
            ObjectKind::Lww => known
                .iter()
                .max_by_key(|dot| (self.writes[*dot].hlc, **dot))
                .filter(|dot| self.writes[*dot].value)
                .map(value)
                .into_iter()
                .collect(),
        }
    }

    /// Compares an object with what the model says of somebody who has heard of `known`.
    pub(super) fn compare(&self, object: &Object, known: &Known) {
        assert_eq!(object.check(), Ok(()));
        assert_eq!(object.siblings(), self.visible(known), "known: {known:?}");
        assert!(object.siblings().iter().all(Sibling::verify));
        let context: VersionVector = known.iter().copied().collect();
        assert_eq!(object.context, context);
        let named: Vec<Dot> = object.named_dots().collect();
        let unique: Known = named.iter().copied().collect();
        assert_eq!(unique.len(), named.len(), "a dot is named twice");
        assert!(unique.is_subset(known), "a dot is named that was never heard of");
        assert!(object.live_dots().all(|dot| unique.contains(&dot)));
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("states", &self.states).finish_non_exhaustive()
    }
}
