//! Who may answer for a partition: what nodes were told when they started, against what they do.

use holm_core::peer::verify::Answer;
use holm_core::peer::{CompareMessage, Found, OpId, PeerMessage, Position};
use holm_core::shard::config::Standing;
use holm_protocol::ids::{NodeId, Partition};

use super::Cluster;
use crate::check::quarantine;

impl Cluster {
    /// A message arrives: a started node hears where others stand.
    pub(super) fn note_compared(&mut self, to: NodeId, message: &PeerMessage) {
        let partitions: Vec<Partition> = match message {
            PeerMessage::Compare(
                CompareMessage::Compare { positions, .. }
                | CompareMessage::Compared { positions, .. },
            ) => positions.iter().map(|(partition, _)| *partition).collect(),
            PeerMessage::PageAnswer { partition, is_last: true, .. } => vec![*partition],
            _ => return,
        };
        if let Some(node) = self.nodes.get_mut(&to) {
            node.compared.extend(partitions);
        }
    }

    /// A node tells another where it stands. A bug may change that on its way.
    pub(super) fn remember_positions(&mut self, message: &PeerMessage) {
        if let Some((op, positions)) = positions(message).filter(|_| self.setup.tamper.is_some()) {
            self.positions.insert(op, positions.clone());
        }
    }

    /// A node has taken in where another stands: if it lacks what that one knows to be stable, it
    /// answers for the partition no more.
    pub(super) fn audit_position(&mut self, id: NodeId, shard: usize, message: &PeerMessage) {
        let Some((op, told)) = positions(message) else { return };
        let told = self.positions.get(&op).unwrap_or(told);
        let Some(slot) = self.nodes.get(&id).and_then(|node| node.slots.get(shard)) else { return };
        let verdict = told.iter().try_for_each(|(partition, position)| {
            let lacks = slot
                .shard
                .partition(*partition)
                .is_some_and(|state| !state.has_seen_all(&position.know));
            let is_aside = slot.shard.standing(*partition) == Standing::Behind;
            quarantine::check_lacking(id, *partition, lacks && !is_aside)
        });
        self.referee.judge(verdict);
    }

    /// A node tells others something: as one that answers for the partition, or not.
    pub(super) fn audit_standing(&mut self, id: NodeId, message: &PeerMessage) {
        let partitions: Vec<Partition> = match message {
            PeerMessage::ReadReply { found: Found::Refused(_), .. }
            | PeerMessage::VerifyReply { answer: Answer::Refused(_), .. } => return,
            PeerMessage::ReadReply { partition, .. }
            | PeerMessage::VerifyReply { partition, .. }
            | PeerMessage::Repair { partition, .. } => vec![*partition],
            PeerMessage::GapAnswer { partition, objects, .. } if !objects.is_empty() => {
                vec![*partition]
            }
            PeerMessage::Pulse { counters, .. } => counters.iter().map(|(at, _)| *at).collect(),
            PeerMessage::Seen { clocks, .. } => clocks.iter().map(|(at, _)| *at).collect(),
            _ => return,
        };
        let Some(node) = self.nodes.get(&id) else { return };
        let verdict = partitions.into_iter().try_for_each(|partition| {
            let replicas = self.layout.replicas(partition);
            if !replicas.contains(&id) || replicas.len() < 2 {
                return Ok(());
            }
            let has_asked = !node.asks || node.compared.contains(&partition);
            quarantine::check_asked(id, partition, has_asked)
        });
        self.referee.judge(verdict);
    }

    /// The partitions for which replicas that run do not answer, and why.
    #[must_use]
    pub fn quarantined(&self) -> Vec<(NodeId, Partition, Standing)> {
        let of = |node: &super::node::Node| {
            let id = node.id;
            let all = node.slots.iter().flat_map(|slot| slot.shard.quarantined());
            all.map(move |(partition, standing)| (id, partition, standing)).collect::<Vec<_>>()
        };
        self.nodes.values().flat_map(of).collect()
    }
}

fn positions(message: &PeerMessage) -> Option<(OpId, &Vec<(Partition, Position)>)> {
    match message {
        PeerMessage::Compare(
            CompareMessage::Compare { op, positions, .. }
            | CompareMessage::Compared { op, positions },
        ) => Some((*op, positions)),
        _ => None,
    }
}
