//! A node: shards over one disk, and what its shell knows.

use std::collections::{BTreeMap, VecDeque};

use holm_core::shard::Shard;
use holm_core::shard::event::Input;
use holm_core::time::{Mono, Now, WallMs};
use holm_protocol::ids::{Actor, NodeId};
use rand::rngs::ChaCha8Rng;

use crate::store::SimStore;

/// What the wall clocks of all nodes show when a run starts, milliseconds. Any date will do.
const WALL_START_MS: u64 = 1_700_000_000_000;

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
    pub(super) booted_us: u64,
    pub(super) is_up: bool,
    pub(super) amnesia: bool,
    /// How far the wall clock is off, milliseconds.
    pub(super) skew_ms: i64,
    /// The process is stopped until then.
    pub(super) paused_until_us: u64,
    /// How many times slower the disk is than usual.
    pub(super) slowness: u64,
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
            booted_us: 0,
            is_up: false,
            amnesia: false,
            skew_ms: 0,
            paused_until_us: 0,
            slowness: 1,
            disturbed_us: 0,
            links: BTreeMap::new(),
            dies_in_commit: false,
            is_doubtful: false,
        }
    }

    /// Both of the node's clocks.
    pub(super) fn now(&self, now_us: u64) -> Now {
        let wall_ms = WALL_START_MS + now_us / 1000;
        Now {
            mono: Mono(now_us.saturating_sub(self.booted_us)),
            wall: WallMs(wall_ms.saturating_add_signed(self.skew_ms)),
        }
    }

    /// The simulated time of a reading of the node's clock.
    pub(super) fn time_of(&self, mono: Mono) -> u64 {
        self.booted_us.saturating_add(mono.0)
    }
}
