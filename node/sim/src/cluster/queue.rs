//! What is to happen, in order of time, and within one time in the order in which it was planned.

use std::collections::BTreeMap;

use bytes::Bytes;
use holm_protocol::ids::NodeId;

use super::{CallId, CallResult};

/// Something that will happen.
#[derive(Debug)]
pub(super) enum Event {
    /// A message of one node reaches another; if a run is named, only in that run.
    Peer { from: NodeId, to: NodeId, run: Option<u32>, frame: Bytes },
    /// A request reaches a node.
    Request { call: CallId },
    /// A call ends for its client.
    Answer { call: CallId, result: CallResult, frame: Bytes },
    /// A shard takes a batch from its inbox.
    Run { node: NodeId, run: u32, shard: usize },
    /// A shard's batch is written.
    Commit { node: NodeId, run: u32, shard: usize },
    /// A shard's timer.
    Wake { node: NodeId, run: u32, shard: usize, at_us: u64 },
    /// A disk is synced.
    Sync { node: NodeId, run: u32 },
    /// A node looks whether its connection to another is as it thinks.
    Link { node: NodeId, peer: NodeId },
    /// A process starts.
    Boot { node: NodeId },
    /// A node gets the layout in force.
    Layout { node: NodeId, run: u32 },
    /// A process whose disk failed gives up.
    StepAside { node: NodeId, run: u32 },
    /// A shard that refused writes looks whether it can take them again.
    Recover { node: NodeId, run: u32, shard: usize },
    /// Something of the driver's.
    Alarm(u64),
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Queue {
    events: BTreeMap<(u64, u64), Event>,
    planned: u64,
}

impl Queue {
    pub(super) fn plan(&mut self, at_us: u64, event: Event) {
        self.planned += 1;
        self.events.insert((at_us, self.planned), event);
    }

    pub(super) fn next(&mut self) -> Option<(u64, Event)> {
        self.events.pop_first().map(|((at_us, _), event)| (at_us, event))
    }

    pub(super) fn next_us(&self) -> Option<u64> {
        self.events.first_key_value().map(|((at_us, _), _)| *at_us)
    }
}
