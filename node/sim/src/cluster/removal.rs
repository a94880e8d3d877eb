//! Nodes that die for good and are taken out of the layout.
//!
//! What only such a node had is lost, as if its disk had been: the referee is told so. The others learn
//! of the new layout one after the other, each after a delay of its own.

use std::sync::Arc;

use holm_core::shard::config::ClusterState;
use holm_core::shard::event::Input;
use holm_protocol::ids::NodeId;
use rand::RngExt;

use super::Cluster;
use super::queue::Event;
use crate::rng::stream;

/// Until a node has a new layout, microseconds: some round trips and a commit.
const SPREAD_US: u64 = 2_000_000;

impl Cluster {
    /// A node dies and never starts again. Says whether that may be: not if another has lost something,
    /// for then nobody might have what it had, nor if its region has no other.
    pub fn bury(&mut self, id: NodeId) -> bool {
        let region = self.region_of(id);
        let others = self.nodes.values().filter(|node| node.region == region).count();
        if others < 2 || !self.may_forget(id) {
            return false;
        }
        self.kill(id);
        self.buried.insert(id);
        self.note(format!("{id} is dead for good"));
        true
    }

    /// Takes the buried out of the layout, when all receipts that name them have arrived. Who lives
    /// learns it sooner or later, who starts has it.
    pub fn take_out_buried(&mut self) {
        self.buried.clone().into_iter().for_each(|id| self.wipe(id));
        let mut spec = self.layout.spec().clone();
        spec.version += 1;
        spec.nodes.retain(|node| !self.buried.contains(&node.id));
        let rest = spec.clone();
        for (region, factor) in spec.placements.iter_mut().flat_map(|it| &mut it.replication) {
            *factor = rest.at_most(region, *factor);
        }
        let layout = match self.layout.without(spec) {
            Ok(layout) => Arc::new(layout),
            Err(error) => unreachable!("the rest of a layout is one: {error}"),
        };
        self.note(format!("layout {} without the dead", layout.version()));
        self.referee.set_layout(layout.clone());
        self.layout = layout.clone();
        self.state = Arc::new(ClusterState { layout: Some(layout), ..(*self.state).clone() });
        let ids: Vec<NodeId> = self.node_ids().filter(|id| self.is_up(*id)).collect();
        for id in ids {
            let rng = &mut stream(self.setup.seed, &format!("new layout {id}"));
            let at_us = self.now_us + rng.random_range(0..SPREAD_US);
            let run = self.current_run(id);
            self.queue.plan(at_us, Event::Layout { node: id, run });
        }
    }

    /// A node has got the layout in force.
    pub(super) fn learn_layout(&mut self, id: NodeId, run: u32) {
        if self.current_run(id) != run || !self.is_up(id) {
            return;
        }
        self.note(format!("{id} has the new layout"));
        for shard in 0..self.setup.shape.shards {
            self.push_input(id, shard, Input::Cluster(self.state.clone()));
        }
    }
}
