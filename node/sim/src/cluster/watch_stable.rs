//! What the recorder of forgetting is told ([`crate::steps::stability`]), if there is one.

use holm_core::object::Object;
use holm_core::peer::{CompareMessage, HintMessage, PeerMessage};
use holm_core::shard::config::shard_of;
use holm_core::shard::event::{Effect, Input};
use holm_core::store::Table;
use holm_protocol::dot::Dot;
use holm_protocol::ids::NodeId;

use super::Cluster;
use super::node::Node;
use crate::history::KeyId;
use crate::steps::Shown;
use crate::steps::stability::{Brought, Held, Recorder, Trace, dots_of};
use crate::store::SyncMode;
use crate::trace::whole_frame;

impl Cluster {
    /// From now on records how a key, of which nothing has happened yet, is forgotten.
    pub fn record_forgetting(&mut self, key: KeyId) {
        self.forgetting = self.watched(key).map(Recorder::new);
    }

    /// What was recorded.
    pub fn take_forgetting(&mut self) -> Option<Trace> {
        self.forgetting.take().map(Recorder::into_trace)
    }

    /// What an input brings that a node's shard is about to handle.
    pub(super) fn brought(&self, input: Option<&Input>) -> Option<Brought> {
        let recorder = self.forgetting.as_ref()?;
        Some(input.map_or(Brought::Other, |input| brought(input, recorder)))
    }

    /// The shard has handled it, with these effects.
    pub(super) fn watch_handled(&mut self, id: NodeId, brought: Option<Brought>, out: &[Effect]) {
        let (Some(brought), Some(recorder)) = (brought, &mut self.forgetting) else { return };
        let Some(node) = self.nodes.get(&id) else { return };
        let Some(mut held) = held(node, recorder) else { return };
        let shard = node.slots.get(shard_of(recorder.partition, node.slots.len().max(1)));
        if let Some(object) = shard.and_then(|slot| slot.shard.in_memory(&recorder.row)) {
            held.object = Shown::of(Some(object));
        }
        let notes = |effect: &Effect| {
            matches!(effect, Effect::Send { message: PeerMessage::Noted { .. }, .. })
        };
        recorder.handled(id, node.actor, &brought, (held, out.iter().any(notes)));
    }

    /// A node has committed.
    pub(super) fn watch_store(&mut self, id: NodeId) {
        let is_synced = self.setup.sync == SyncMode::Always;
        let (Some(recorder), Some(node)) = (&mut self.forgetting, self.nodes.get_mut(&id)) else {
            return;
        };
        if let (Some(held), Some(log)) = (held(node, recorder), log(node, recorder)) {
            recorder.committed((id, node.actor), held, log, is_synced);
        }
    }

    /// A node's store has synced what was committed.
    pub(super) fn watch_sync(&mut self, id: NodeId) {
        if let Some(recorder) = &mut self.forgetting {
            recorder.synced(id);
        }
    }

    /// Somebody copies a node's disk.
    pub(super) fn watch_copy(&mut self, id: NodeId) {
        if let Some(recorder) = &mut self.forgetting {
            recorder.copied(id);
        }
    }

    /// A node gets another disk.
    pub(super) fn watch_disk(&mut self, id: NodeId, from: Option<NodeId>) {
        if let Some(recorder) = &mut self.forgetting {
            recorder.replaced(id, from);
        }
    }

    /// A message leaves.
    pub(super) fn watch_message(&mut self, from: NodeId, to: NodeId, frame: &bytes::Bytes) {
        let Some(recorder) = &mut self.forgetting else { return };
        let message = whole_frame(frame).map(|frame| PeerMessage::decode(&frame));
        if let Some(Ok(message)) = message {
            recorder.told(from, to, &message);
        }
    }

    /// A node has started.
    pub(super) fn watch_found(&mut self, id: NodeId) {
        let (Some(recorder), Some(node)) = (&mut self.forgetting, self.nodes.get_mut(&id)) else {
            return;
        };
        if let (Some(held), Some(log)) = (held(node, recorder), log(node, recorder)) {
            recorder.started(id, node.actor, held, log);
        }
    }
}

/// What a node holds of the partition, with the object that its store has.
fn held(node: &Node, recorder: &Recorder) -> Option<Held> {
    let slot = node.slots.get(shard_of(recorder.partition, node.slots.len().max(1)))?;
    let state = slot.shard.partition(recorder.partition)?;
    let object = node.store.row(Table::Objects, &recorder.row);
    let object = object.and_then(|row| Object::decode(row).ok());
    Some(Held {
        object: Shown::of(object.as_ref()),
        seen: dots_of(state.clock()),
        know: state.all_known(),
        standing: slot.shard.standing(recorder.partition),
    })
}

fn log(node: &mut Node, recorder: &Recorder) -> Option<Vec<Dot>> {
    let slot = node.slots.get(shard_of(recorder.partition, node.slots.len().max(1)))?;
    slot.shard.in_log(recorder.partition, &mut node.store).ok().map(|log| dots_of(&log))
}

fn brought(input: &Input, recorder: &Recorder) -> Brought {
    match input {
        Input::PeerUp(node, run) => Brought::Run(*node, *run),
        Input::Client { request, .. } => Brought::Request(request.clone()),
        Input::Peer { from, message } => match message {
            PeerMessage::Proxy { request, .. } => Brought::Request(request.clone()),
            PeerMessage::Write { object, .. }
            | PeerMessage::Repair { object, .. }
            | PeerMessage::Hint(HintMessage::HandOff { object, .. }) => {
                Brought::Object(object.clone())
            }
            PeerMessage::GapAnswer { objects, .. } => {
                let watched = objects.iter().find(|it| recorder.watches(it.bucket, &it.key));
                watched.map_or(Brought::Other, |it| Brought::Object(it.object.clone()))
            }
            PeerMessage::Seen { run, clocks, .. } => {
                let claim = recorder.claimed(*run, clocks);
                claim.map_or(Brought::Other, |claim| Brought::Claim(*from, claim))
            }
            PeerMessage::Compare(CompareMessage::Compared { op, positions }) => {
                let position = recorder.position(positions);
                position.map_or(Brought::Other, |it| Brought::Position(*from, *op, it))
            }
            PeerMessage::PageAnswer { .. } => {
                let page = recorder.page(message);
                page.map_or(Brought::Other, |page| Brought::Page(*from, page))
            }
            _ => Brought::Other,
        },
        _ => Brought::Other,
    }
}
