//! What the recorder of protocol steps is told ([`crate::steps`]), if there is one.

use holm_core::object::Object;
use holm_core::peer::{HintMessage, PeerMessage};
use holm_core::shard::event::{Effects, Input};
use holm_core::store::Table;
use holm_core::time::Now;
use holm_protocol::ids::NodeId;
use holm_protocol::message::Reply;

use super::Cluster;
use super::node::Node;
use crate::history::KeyId;
use crate::steps::{Brought, Recorder, Shown, Trace, Watched};
use crate::store::{Changed, SimStore};

impl Cluster {
    /// From now on records the protocol's steps on a key, of which nothing has happened yet.
    pub fn record(&mut self, key: KeyId) {
        self.recorder = self.watched(key).map(Recorder::new);
    }

    /// What a recorder must know of a key; nothing while there is no cluster.
    pub(super) fn watched(&self, key: KeyId) -> Option<Watched> {
        let facts = self.referee.history().key(key);
        let (bucket, key, partition) = (facts.bucket, facts.name.clone(), facts.partition);
        let mut row = Vec::new();
        holm_core::keys::object_key(&mut row, partition, bucket, &key);
        let runs = self.nodes.values().map(|node| (node.id, node.actor)).collect();
        let secrets = self.state.secrets.clone()?;
        Some(Watched { bucket, key, partition, row, secrets, runs })
    }

    /// What was recorded.
    pub fn take_steps(&mut self) -> Option<Trace> {
        self.recorder.take().map(Recorder::into_trace)
    }

    /// A node has committed these rows.
    pub(super) fn watch_commit(&mut self, id: NodeId, rows: &[Changed]) {
        let Some(recorder) = &mut self.recorder else { return };
        let is_key = |row: &Changed| row.table == Table::Objects && row.key == recorder.row;
        let Some(node) = self.nodes.get(&id).filter(|_| rows.iter().any(is_key)) else { return };
        let safe = node.store.safe_row(Table::Objects, &recorder.row);
        let object = safe.and_then(|row| Object::decode(row).ok());
        recorder.committed(node.actor, Shown::of(object.as_ref()));
    }

    /// A node has started.
    pub(super) fn watch_start(&mut self, id: NodeId) {
        let (Some(recorder), Some(node)) = (&mut self.recorder, self.nodes.get(&id)) else {
            return;
        };
        let object = on_disk(&node.store, &recorder.row);
        recorder.started(id, node.actor, object);
    }

    /// A node answers a client.
    pub(super) fn watch_answer(&mut self, reply: &Reply) {
        if let Some(recorder) = &mut self.recorder {
            recorder.answered(reply);
        }
    }
}

/// Has a shard handle one input, or look at the time if there is none.
pub(super) fn handle(
    node: &mut Node,
    (shard, now): (usize, Now),
    input: Option<Input>,
    out: &mut Effects,
    recorder: Option<&mut Recorder>,
) {
    let watched = recorder.map(|recorder| {
        let brought = input.as_ref().map_or(Brought::Other, |input| brought(input, recorder));
        (in_memory(node, shard, &recorder.row), brought, recorder)
    });
    let Some(slot) = node.slots.get_mut(shard) else { return };
    match input {
        Some(input) => {
            // Only a new layout can fail here, and there is one layout.
            let _ = slot.shard.handle(now, input, &mut node.store, out);
        }
        None => slot.shard.tick(now, &mut node.store, out),
    }
    if let Some((before, brought, recorder)) = watched {
        let after = in_memory(node, shard, &recorder.row);
        recorder.handled(node.actor, &brought, &before, after);
    }
}

fn brought(input: &Input, recorder: &Recorder) -> Brought {
    match input {
        Input::Client { request, .. }
        | Input::Peer { message: PeerMessage::Proxy { request, .. }, .. } => {
            Brought::Request(request.clone())
        }
        Input::Peer {
            message:
                PeerMessage::Write { object, .. }
                | PeerMessage::Repair { object, .. }
                | PeerMessage::Hint(HintMessage::HandOff { object, .. }),
            ..
        } => Brought::Object(object.clone()),
        Input::Peer { message: PeerMessage::GapAnswer { objects, .. }, .. } => {
            let watched = objects.iter().find(|it| recorder.watches(it.bucket, &it.key));
            watched.map_or(Brought::Other, |it| Brought::Object(it.object.clone()))
        }
        Input::Peer { message: PeerMessage::PageAnswer { objects, .. }, .. } => {
            let watched = objects.iter().find(|it| recorder.watches(it.bucket, &it.key));
            watched.map_or(Brought::Other, |it| Brought::Object(it.object.clone()))
        }
        _ => Brought::Other,
    }
}

/// An object as the open batch has made it.
fn in_memory(node: &Node, shard: usize, row: &[u8]) -> Shown {
    let object = node.slots.get(shard).and_then(|slot| slot.shard.in_memory(row));
    object.map_or_else(|| on_disk(&node.store, row), |object| Shown::of(Some(object)))
}

fn on_disk(store: &SimStore, row: &[u8]) -> Shown {
    let object = store.row(Table::Objects, row).and_then(|row| Object::decode(row).ok());
    Shown::of(object.as_ref())
}
