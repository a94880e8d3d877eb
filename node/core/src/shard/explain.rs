//! `holm explain`: where a key lives, what each of its replicas holds of it, and what others keep
//! for them.

use std::collections::BTreeMap;

use bytes::Bytes;

use holm_protocol::admin::{ExplainedMember, Explanation, ReplicaState};
use holm_protocol::error::RequestError;
use holm_protocol::ids::{BucketId, NodeId, RegionId};

use crate::peer::{OpId, PeerMessage};
use crate::shard::event::{Caller, Effect, Effects};
use crate::shard::stand_in::fallbacks;
use crate::shard::{Op, Route, Shard, Turn};
use crate::store::Store;
use crate::time::Mono;

/// How long replicas have to describe themselves, milliseconds: a few of the longest round trips.
const EXPLAIN_TIMEOUT_MS: u64 = 2_000;

/// Fallbacks of each region that are asked: hints are kept by the most preferred that could be
/// reached, so more would be many dead nodes in a row.
const FALLBACKS_ASKED_MAX: usize = 16;

/// An explanation in the making.
#[derive(Debug)]
pub(super) struct ExplainOp {
    caller: Caller,
    route: Route,
    states: BTreeMap<NodeId, ReplicaState>,
    /// Others that can be reached.
    asked: Vec<NodeId>,
    wake: Mono,
}

impl Shard {
    /// Asks every replica of a key to describe what it holds.
    pub(super) fn on_explain<S: Store>(
        &mut self,
        caller: Caller,
        bucket: BucketId,
        key: Bytes,
        turn: &mut Turn<'_, S>,
    ) {
        let route = self.admit().and_then(|()| self.route(bucket, &key));
        let route = match route {
            Ok(route) => route,
            Err(error) => {
                turn.out.push(Effect::Explained { caller, result: Err(error) });
                return;
            }
        };
        let id = self.new_op();
        let me = self.boot.node;
        let partition = route.partition;
        let mut states = BTreeMap::new();
        states.insert(me, self.inspect(partition, bucket, &key, turn.store));
        let replicas = route.layout.replicas(partition).iter().copied();
        let regions = (0..route.layout.regions().len()).map(|index| RegionId(index as u16));
        let others = regions.flat_map(|region| {
            fallbacks(&route.layout, partition, region).take(FALLBACKS_ASKED_MAX)
        });
        let asked = replicas.chain(others);
        let to: Vec<NodeId> = asked.filter(|&n| n != me && self.peers.is_up(n)).collect();
        let wake = turn.now.mono.plus_ms(EXPLAIN_TIMEOUT_MS);
        let op = ExplainOp { caller, route, states, asked: to.clone(), wake };
        self.in_flight += 1;
        if to.is_empty() {
            return self.finish_explain(op, turn.out);
        }
        turn.out.push(Effect::Send {
            to,
            message: PeerMessage::Inspect { op: id, partition, bucket, key },
        });
        self.timers.set(wake, id);
        self.ops.insert(id.0, Op::Explain(Box::new(op)));
    }

    /// A replica's description.
    pub(super) fn on_inspect_reply(
        &mut self,
        id: OpId,
        from: NodeId,
        state: ReplicaState,
        out: &mut Effects,
    ) {
        let mut op = match self.ops.remove(&id.0) {
            Some(Op::Explain(op)) if op.asked.contains(&from) => op,
            Some(other) => {
                self.counters.peer_rejections += 1;
                self.ops.insert(id.0, other);
                return;
            }
            None => return,
        };
        op.states.insert(from, state);
        if op.asked.iter().all(|node| op.states.contains_key(node)) {
            self.timers.clear(op.wake, id);
            self.finish_explain(*op, out);
        } else {
            self.ops.insert(id.0, Op::Explain(op));
        }
    }

    /// Answers with what is known by now.
    pub(super) fn finish_explain(&mut self, mut op: ExplainOp, out: &mut Effects) {
        self.in_flight -= 1;
        let Route { layout, region, partition, .. } = &op.route;
        let replicas = layout.replicas(*partition);
        let fallbacks = layout.preference_list(*partition, *region);
        let fallbacks = fallbacks.into_iter().filter(|node| !replicas.contains(node));
        let listed = replicas.iter().map(|&node| (node, true));
        let mut members = Vec::new();
        for (node, replica) in listed.chain(fallbacks.map(|node| (node, false))) {
            let Some(region) = layout.region_of(node) else { continue };
            members.push(ExplainedMember { node, region, replica, state: op.states.remove(&node) });
        }
        // Elsewhere only those that keep something.
        for (node, state) in op.states.into_iter().filter(|(_, state)| !state.hints.is_empty()) {
            let Some(region) = layout.region_of(node) else { continue };
            members.push(ExplainedMember { node, region, replica: false, state: Some(state) });
        }
        let explanation = Explanation { partition: *partition, asked_by: self.boot.node, members };
        let result: Result<Explanation, RequestError> = Ok(explanation);
        out.push(Effect::Explained { caller: op.caller, result });
    }
}
