//! What is not stable yet, and so cannot be forgotten: per partition since when, because of whom, and what
//! its clock and log take in memory meanwhile.
//!
//! A replica that is down holds back tombstones, contexts and logs of all partitions that it holds. Nothing
//! is lost by that, and nothing grows beyond its bound; but an operator has to see who it is.
//!
//! **Age.** Of an actor the first write that is not known to be stable is looked at: its clock reading, while
//! the log has it in memory, or else since when it was found here to be the first. So an age is told from
//! below, after a restart too.

use std::collections::BTreeMap;

use holm_protocol::dot::Dot;
use holm_protocol::ids::{Actor, NodeId, Partition};

use crate::shard::Shard;
use crate::time::{Mono, Now};

/// What a clock takes in memory for an actor and a range of dots, about, bytes. Generous.
const RANGE_BYTES: u64 = 48;

/// What one partition keeps because it is not stable, and what that costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backlog {
    /// The partition.
    pub partition: Partition,
    /// How old the oldest write is that is not known to be stable, milliseconds, at least; 0 if there is none.
    pub unstable_ms: u64,
    /// The replicas that are not known to have that write, this one too; none if all have it, and it is not
    /// known everywhere yet that they do.
    pub held_by: Vec<NodeId>,
    /// What the clock takes in memory, about, bytes.
    pub clock_bytes: u64,
    /// What the log's entries take in memory, about, bytes.
    pub log_bytes: u64,
}

/// Since when each actor's first unstable write is the first.
#[derive(Debug, Default)]
pub(super) struct Unstable {
    since: BTreeMap<(Partition, Actor), (u64, Mono)>,
}

impl Shard {
    /// What each partition that this shard holds keeps. Some microseconds for each partition.
    pub fn backlogs(&mut self, now: Now) -> Vec<Backlog> {
        let before = std::mem::take(&mut self.unstable.since);
        let mut since = BTreeMap::new();
        let mut found = Vec::with_capacity(self.partitions.len());
        for (&partition, state) in &self.partitions {
            let replicas =
                self.cluster.layout.as_ref().map_or(&[][..], |layout| layout.replicas(partition));
            let mut oldest: Option<(u64, Dot)> = None;
            for (actor, seen) in state.clock().iter() {
                let first = Dot { actor, counter: state.knows(actor) + 1 };
                if seen.max() < first.counter {
                    continue;
                }
                let place = (partition, actor);
                let known = before.get(&place).filter(|(counter, _)| *counter == first.counter);
                let noticed = known.map_or(now.mono, |(_, at)| *at);
                since.insert(place, (first.counter, noticed));
                let written = self.log.recent_place(partition, first).map(|place| place.hlc);
                // Deletes carry no reading.
                let written = written.filter(|hlc| hlc.wall_ms() > 0);
                let age = written.map_or(0, |hlc| now.wall.0.saturating_sub(hlc.wall_ms()));
                let age = age.max(noticed.ms_until(now.mono));
                if oldest.is_none_or(|(oldest, _)| age > oldest) {
                    oldest = Some((age, first));
                }
            }
            let held_by = oldest.map_or_else(Vec::new, |(_, dot)| {
                let lacks = |node: &NodeId| !self.stable.has_claimed(partition, *node, dot);
                replicas.iter().copied().filter(lacks).collect()
            });
            found.push(Backlog {
                partition,
                unstable_ms: oldest.map_or(0, |(age, _)| age),
                held_by,
                clock_bytes: state.clock().weight() as u64 * RANGE_BYTES,
                log_bytes: self.log.bytes_of(partition) as u64,
            });
        }
        self.unstable.since = since;
        found
    }
}
