//! A node: shards over one disk, and what its shell knows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use holm_core::shard::Shard;
use holm_core::shard::config::Standing;
use holm_core::shard::event::Input;
use holm_core::time::{Mono, Now, WallMs};
use holm_protocol::ids::{Actor, NodeId, Partition};
use rand::rngs::ChaCha8Rng;

use crate::store::{DiskCopy, SimStore};

/// What the wall clocks of all nodes show when a run starts, milliseconds. Any date will do.
const WALL_START_MS: u64 = 1_700_000_000_000;

/// A wall clock, against the truth.
#[derive(Debug, Default)]
pub(super) struct WallClock {
    /// How far it was set off, milliseconds.
    pub(super) skew_ms: i64,
    /// How much faster than time it runs, percent, and since when.
    drift: (i64, u64),
    /// The farthest that it ever was ahead, milliseconds.
    pub(super) ahead_max_ms: i64,
}

impl WallClock {
    /// How far it is off, milliseconds.
    pub(super) fn off_ms(&self, now_us: u64) -> i64 {
        let (percent, since_us) = self.drift;
        self.skew_ms + percent * now_us.saturating_sub(since_us) as i64 / 100_000
    }

    /// From now on it runs this many percent fast. With 0 it goes right, and is set right.
    pub(super) fn set_drift(&mut self, percent: i64, now_us: u64) {
        self.drift = (percent, now_us);
    }

    pub(super) fn drifts(&self) -> bool {
        self.drift.0 != 0
    }
}

/// A shard and its inbox.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) shard: Shard,
    pub(super) inbox: VecDeque<Input>,
    /// A batch is open: its commit is on its way.
    pub(super) is_busy: bool,
    /// When it wants to be woken, if nothing happens before.
    pub(super) wake_us: Option<u64>,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) region: usize,
    pub(super) store: SimStore,
    /// How long its disk takes.
    pub(super) disk_rng: ChaCha8Rng,
    /// Empty while the node is down.
    pub(super) slots: Vec<Slot>,
    /// Counts starts, so that events of an earlier run are known.
    pub(super) run: u32,
    /// Counts actors, for their names: more than runs if one was given up.
    pub(super) actors: u32,
    pub(super) actor: Actor,
    /// The actor under which this run began: its name among the nodes.
    pub(super) run_actor: Actor,
    /// The actor that wrote the disk, where another disk was put in.
    pub(super) disk_actor: Option<Actor>,
    pub(super) booted_us: u64,
    pub(super) is_up: bool,
    pub(super) amnesia: bool,
    /// Its disk was replaced by one of earlier, and it has not yet shown that it has what it must.
    pub(super) is_older: bool,
    /// How it began its run.
    pub(super) standing: Standing,
    /// Whether it must ask before it serves, and of which partitions it has heard in this run.
    pub(super) asks: bool,
    pub(super) compared: BTreeSet<Partition>,
    pub(super) clock: WallClock,
    /// A copy of its disk, and whether the node had lost its memory then.
    pub(super) copy: Option<(DiskCopy, bool)>,
    /// The process is stopped until then.
    pub(super) paused_until_us: u64,
    /// How many times slower the disk is than usual.
    pub(super) slowness: u64,
    /// How long whatever comes in waits, microseconds.
    pub(super) lag_us: u64,
    /// The last time at which something made it late: it is not held to deadlines for a while.
    pub(super) disturbed_us: u64,
    /// Connections, with the run of the node at the other end.
    pub(super) links: BTreeMap<NodeId, u32>,
    /// Dies at its next commit, which the disk keeps and nobody hears of.
    pub(super) dies_in_commit: bool,
    /// Its clock and its disk may differ, because a read failed when a commit had to be undone.
    pub(super) is_doubtful: bool,
}

impl Node {
    pub(super) fn new(
        (id, region): (NodeId, usize),
        store: SimStore,
        disk_rng: ChaCha8Rng,
    ) -> Node {
        Node {
            id,
            region,
            store,
            disk_rng,
            slots: Vec::new(),
            run: 0,
            actors: 0,
            actor: Actor(0),
            run_actor: Actor(0),
            disk_actor: None,
            booted_us: 0,
            is_up: false,
            amnesia: false,
            is_older: false,
            standing: Standing::Serves,
            asks: false,
            compared: BTreeSet::new(),
            clock: WallClock::default(),
            copy: None,
            paused_until_us: 0,
            slowness: 1,
            lag_us: 0,
            disturbed_us: 0,
            links: BTreeMap::new(),
            dies_in_commit: false,
            is_doubtful: false,
        }
    }

    /// Both of the node's clocks.
    pub(super) fn now(&mut self, now_us: u64) -> Now {
        let wall_ms = WALL_START_MS + now_us / 1000;
        let off_ms = self.clock.off_ms(now_us);
        self.clock.ahead_max_ms = self.clock.ahead_max_ms.max(off_ms);
        Now {
            mono: Mono(now_us.saturating_sub(self.booted_us)),
            wall: WallMs(wall_ms.saturating_add_signed(off_ms)),
        }
    }

    /// Holds the node to deadlines again some time after whatever slowed it has ended.
    pub(super) fn note_slowness(&mut self, now_us: u64) {
        let is_slow = self.slowness > 1 || self.lag_us > 0;
        self.disturbed_us = if is_slow { u64::MAX } else { now_us.max(self.paused_until_us) };
    }

    /// The simulated time of a reading of the node's clock.
    pub(super) fn time_of(&self, mono: Mono) -> u64 {
        self.booted_us.saturating_add(mono.0)
    }
}
