//! How far this replica is behind the others, and how long writes take until they can be seen here.
//!
//! **Behind.** Pulses and claims name what other replicas have; what of it is not in the clock here is
//! how many writes this replica is behind (`gaps`). That is told per region: behind whoever of the
//! region's replicas has more. Nothing is estimated but bytes, from the mean of the objects that came.
//!
//! **Seconds.** The age of the oldest such write is not known before it is here. It is told from
//! below: since when it is known to be lacking; or, while gap repair brings older writes than that, by the
//! reading of what it brought last, because it asks for the oldest first. A region none of whose
//! replicas of a partition can be reached may have written anything: behind it this replica is
//! since it was last connected with one of them.
//!
//! **Until visible.** A write's clock reading is drawn when it is coordinated, just before it is
//! committed there. When the object that carries it is committed here, the difference is how long it
//! took, as far as the clocks agree. Only the first arrival counts, and only of values: deletes carry
//! no reading. Writes that a coordinator or a relay sent are told apart from those that a repair, a
//! hint or a resync brought.

use std::collections::BTreeMap;

use holm_protocol::ids::{Actor, Hlc, NodeId, Partition, RegionId};

use crate::clock::DotSet;
use crate::peer::PeerMessage;
use crate::shard::Shard;
use crate::shard::gaps::Lacking;
use crate::time::{Mono, Now};

/// Arrivals kept for who asks for them: some turns' worth. What is beyond is not measured.
const ARRIVALS_MAX: usize = 4096;

/// Runs whose nodes are remembered: thousands of restarts.
const RUNS_MAX: usize = 4096;

/// What is taken for the length of an object before any came, bytes.
const OBJECT_BYTES: u64 = 256;

/// How far this replica is behind one region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegionLag {
    /// The region that is ahead.
    pub region: RegionId,
    /// Writes that its replicas are known to have, and this one lacks; those on their way too.
    pub writes: u64,
    /// Their bytes, estimated from the objects that have come.
    pub bytes: u64,
    /// For how long, milliseconds; see the [module](self).
    pub ms: u64,
    /// Partitions that replicas there hold too.
    pub partitions: u64,
    /// Of these, the ones of which something is lacking that no message on its way explains.
    pub partitions_lacking: u64,
    /// For how long the oldest of that is lacking, milliseconds.
    pub gap_ms: u64,
    /// Partitions of which no replica there can be reached.
    pub partitions_unheard: u64,
}

impl RegionLag {
    /// Behind a region of which nothing is known to be lacking.
    #[must_use]
    pub const fn none(region: RegionId) -> RegionLag {
        RegionLag {
            region,
            writes: 0,
            bytes: 0,
            ms: 0,
            partitions: 0,
            partitions_lacking: 0,
            gap_ms: 0,
            partitions_unheard: 0,
        }
    }
}

/// What brought a write here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bringer {
    /// Its coordinator, or a relay.
    Write,
    /// A repair after a read, a hint, gap repair, a resync or a verification.
    Repair,
}

impl Bringer {
    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Bringer::Write => "write",
            Bringer::Repair => "repair",
        }
    }
}

/// A write of another node that can be seen here now, for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// When it was coordinated.
    pub hlc: Hlc,
    /// The region of the node that did; `None` if its run is not known yet.
    pub region: Option<RegionId>,
    /// What brought it.
    pub by: Bringer,
}

/// What the figures are made of.
#[derive(Debug)]
pub(super) struct Lag {
    /// When this run first knew of a layout.
    born: Option<Mono>,
    /// Since when nodes cannot be reached that could be.
    away: BTreeMap<NodeId, Mono>,
    runs: BTreeMap<Actor, NodeId>,
    /// What brings the message that is being handled.
    by: Bringer,
    /// Arrivals of the open batch.
    open: Vec<(Actor, Hlc, Bringer)>,
    arrived: Vec<(Actor, Hlc, Bringer)>,
    joined: u64,
    joined_bytes: u64,
}

impl Lag {
    pub(super) const fn new() -> Lag {
        Lag {
            born: None,
            away: BTreeMap::new(),
            runs: BTreeMap::new(),
            by: Bringer::Repair,
            open: Vec::new(),
            arrived: Vec::new(),
            joined: 0,
            joined_bytes: 0,
        }
    }

    /// A layout is in force.
    pub(super) fn born(&mut self, now: Mono) {
        self.born.get_or_insert(now);
    }

    /// A node can be reached, or not any more.
    pub(super) fn reachable(&mut self, node: NodeId, up: bool, now: Mono) {
        if up {
            self.away.remove(&node);
        } else {
            self.away.insert(node, now);
        }
    }

    /// A node says which run it is.
    pub(super) fn runs(&mut self, node: NodeId, actor: Actor) {
        if self.runs.insert(actor, node).is_none() && self.runs.len() > RUNS_MAX {
            // Those that write make themselves known again.
            self.runs = [(actor, node)].into();
        }
    }

    /// A message is handled from now on.
    pub(super) fn hears(&mut self, message: &PeerMessage) {
        let is_write = matches!(message, PeerMessage::Write { .. });
        self.by = if is_write { Bringer::Write } else { Bringer::Repair };
    }

    /// An object of so many bytes was joined.
    pub(super) fn joined(&mut self, bytes: usize) {
        self.joined += 1;
        self.joined_bytes += bytes as u64;
    }

    /// A dot was seen for the first time, in the open batch.
    pub(super) fn saw(&mut self, actor: Actor, hlc: Hlc) {
        if hlc != Hlc(0) && self.open.len() + self.arrived.len() < ARRIVALS_MAX {
            self.open.push((actor, hlc, self.by));
        }
    }

    pub(super) fn committed(&mut self) {
        self.arrived.append(&mut self.open);
    }

    pub(super) fn roll_back(&mut self) {
        self.open.clear();
    }

    fn bytes_of(&self, writes: u64) -> u64 {
        let mean = self.joined_bytes.checked_div(self.joined).unwrap_or(OBJECT_BYTES);
        writes.saturating_mul(mean)
    }
}

impl Shard {
    /// How far this shard's partitions are behind those of each region that holds them too.
    #[must_use]
    pub fn lag(&self, now: Now) -> Vec<RegionLag> {
        let mut lags = self.unheard(now.mono);
        let mut lacked: BTreeMap<(RegionId, Partition), (DotSet, bool)> = BTreeMap::new();
        let Some(layout) = &self.cluster.layout else { return Vec::new() };
        for lacking in self.gaps.lacking() {
            let Lacking { partition, peer, ripe, fresh, since, fresh_since, repaired } = lacking;
            let Some(state) = self.partitions.get(&partition) else { continue };
            let Some(region) = layout.region_of(peer) else { continue };
            let Some(lag) = lags.get_mut(&region) else { continue };
            let (ripe, fresh) = (ripe.without(state.clock()), fresh.without(state.clock()));
            if !ripe.is_empty() {
                let gap_ms = since.ms_until(now.mono);
                lag.gap_ms = lag.gap_ms.max(gap_ms);
                let of_clock = repaired.map(|hlc| now.wall.0.saturating_sub(hlc.wall_ms()));
                lag.ms = lag.ms.max(of_clock.unwrap_or(gap_ms));
            }
            if !fresh.is_empty() {
                lag.ms = lag.ms.max(fresh_since.ms_until(now.mono));
            }
            let (dots, is_ripe) = lacked.entry((region, partition)).or_default();
            *is_ripe |= !ripe.is_empty();
            dots.merge(&ripe);
            dots.merge(&fresh);
        }
        for ((region, _), (dots, is_ripe)) in lacked {
            let Some(lag) = lags.get_mut(&region) else { continue };
            lag.writes = lag.writes.saturating_add(dots.count());
            lag.partitions_lacking += u64::from(is_ripe);
        }
        let with_bytes = |lag: RegionLag| RegionLag { bytes: self.lag.bytes_of(lag.writes), ..lag };
        lags.into_values().map(with_bytes).collect()
    }

    /// What each region holds too, and of what of that nothing can be heard.
    fn unheard(&self, now: Mono) -> BTreeMap<RegionId, RegionLag> {
        let mut lags = BTreeMap::new();
        let Some(layout) = &self.cluster.layout else { return lags };
        for region in (0..layout.regions().len()).map(|region| RegionId(region as u16)) {
            let mut lag = RegionLag::none(region);
            for &partition in self.partitions.keys() {
                let replicas = layout.replicas_in(partition, region);
                if replicas.iter().all(|&node| node == self.boot.node) {
                    continue;
                }
                lag.partitions += 1;
                let mut others = replicas.iter().filter(|&&node| node != self.boot.node);
                if !others.any(|&node| self.peers.is_up(node)) {
                    lag.partitions_unheard += 1;
                    lag.ms = lag.ms.max(self.unheard_since(replicas, now).ms_until(now));
                }
            }
            if lag.partitions > 0 {
                lags.insert(region, lag);
            }
        }
        lags
    }

    /// Since when none of these nodes can be reached.
    fn unheard_since(&self, replicas: &[NodeId], now: Mono) -> Mono {
        let born = self.lag.born.unwrap_or(now);
        let others = replicas.iter().filter(|&&node| node != self.boot.node);
        let away = others.map(|node| self.lag.away.get(node).copied().unwrap_or(born));
        away.max().unwrap_or(born)
    }

    /// Writes of other nodes that have become visible here since this was last asked.
    pub fn take_arrivals(&mut self) -> Vec<Arrival> {
        if self.lag.arrived.is_empty() {
            return Vec::new();
        }
        let layout = self.cluster.layout.as_ref();
        let arrived = std::mem::take(&mut self.lag.arrived);
        let arrival = |(actor, hlc, by): (Actor, Hlc, Bringer)| {
            let node = self.lag.runs.get(&actor);
            let region = node.and_then(|node| layout.and_then(|it| it.region_of(*node)));
            Arrival { hlc, region, by }
        };
        arrived.into_iter().map(arrival).collect()
    }
}
