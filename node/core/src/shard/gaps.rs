//! What other replicas have and this one lacks.
//!
//! A peer's pulse or claim names dots that are not in the clock here. Mostly they are on their way:
//! the message that brings them left before. So a dot is *ripening* for a while, and only
//! what is lacking after that is *ripe*, to be asked for. Per peer there are two sets that ripen, an
//! older and a younger, so that a dot ripens for one to two times the patience, and no time is
//! kept for each.
//!
//! Per partition at most one question is under way, so that nothing is asked for twice; if its peer
//! does not answer in time, or what it answers brings nothing forward, another is asked, and that
//! peer only after a while.
//!
//! Bounded (I10): what one peer may have said that it has, by entries and ranges; questions of all
//! partitions together.
//!
//! What a peer has claimed once it is not asked to claim again. So a claim is forgotten only when
//! its dots are in the clock here, or that peer says that it does not have them.

use std::collections::BTreeMap;

use holm_protocol::ids::{Hlc, NodeId, Partition};

use crate::clock::{DotSet, PartitionClock};
use crate::peer::OpId;
use crate::time::Mono;

/// What is remembered of one peer's claims, in entries and ranges: a few megabytes. Of whom more
/// is lacking, that is asked for first.
const WEIGHT_MAX: usize = 1 << 16;

/// How long a peer that did not answer, or could not help, is left alone, milliseconds; doubles each
/// time up to the second.
const HOLD_MS: u64 = 100;
/// From this on nobody waits for such a peer: it has failed several times.
const HOPELESS_MS: u64 = 1_000;
/// How long an object that could not be taken is not asked for, milliseconds: what is too new for
/// this node's clock is taken after a while, what is too large never.
const PUT_OFF_MS: u64 = 500;
const HOLD_MS_MAX: u64 = 5_000;

/// What one peer has and this node lacks, of one partition.
#[derive(Debug, Default)]
struct Lack {
    ripe: DotSet,
    ripening: DotSet,
    ripens_at: Mono,
    /// Since when the oldest of what is ripe, or ripening, is known; of what a look finds ripe by then.
    ripe_since: Mono,
    ripening_since: Mono,
    later: DotSet,
    /// The clock reading of what repair brought last, while more is ripe.
    repaired: Option<Hlc>,
    /// Not to be asked before.
    hold_until: Mono,
    hold_ms: u64,
}

impl Lack {
    fn notice(&mut self, lacked: &DotSet, (now, ripens_at): (Mono, Mono)) {
        if self.ripening.is_empty() {
            self.ripening = lacked.clone();
            (self.ripens_at, self.ripening_since) = (ripens_at, now);
        } else {
            self.later.merge(lacked);
        }
    }

    fn ripen(&mut self, clock: &PartitionClock, now: Mono, patience_ms: u64) {
        if !self.ripe.is_empty() {
            self.ripe = self.ripe.without(clock);
        }
        if self.ripe.is_empty() {
            (self.ripe_since, self.repaired) = (self.ripening_since, None);
        }
        if !self.ripening.is_empty() && self.ripens_at <= now {
            self.ripe.merge(&self.ripening.without(clock));
            self.ripening = std::mem::take(&mut self.later).without(clock);
            (self.ripens_at, self.ripening_since) = (now.plus_ms(patience_ms), now);
        }
    }

    fn is_empty(&self) -> bool {
        self.ripe.is_empty() && self.ripening.is_empty() && self.later.is_empty()
    }

    fn weight(&self) -> usize {
        self.ripe.weight() + self.ripening.weight() + self.later.weight()
    }

    fn hold(&mut self, now: Mono) {
        self.hold_ms = (self.hold_ms * 2).clamp(HOLD_MS, HOLD_MS_MAX);
        self.hold_until = now.plus_ms(self.hold_ms);
    }
}

/// What one peer has and this node lacks, to be told. It may have come since the last look.
#[derive(Debug)]
pub(super) struct Lacking {
    pub(super) partition: Partition,
    pub(super) peer: NodeId,
    /// What no message on its way explains.
    pub(super) ripe: DotSet,
    /// What may be on its way.
    pub(super) fresh: DotSet,
    /// Since when they are known.
    pub(super) since: Mono,
    pub(super) fresh_since: Mono,
    /// The clock reading of what repair brought last.
    pub(super) repaired: Option<Hlc>,
}

/// A question under way.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) op: OpId,
    pub(super) peer: NodeId,
    pub(super) missing: DotSet,
    pub(super) sent: Mono,
    pub(super) deadline: Mono,
}

#[derive(Debug, Default)]
struct Wanted {
    lacks: BTreeMap<NodeId, Lack>,
    ask: Option<Ask>,
    /// What peers have and do not know the keys of any more.
    cut: BTreeMap<NodeId, DotSet>,
    cut_since: Mono,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Gaps {
    wanted: BTreeMap<Partition, Wanted>,
    asks: usize,
    due: Option<Mono>,
}

impl Gaps {
    /// A peer has dots that this node lacks.
    pub(super) fn notice(
        &mut self,
        (partition, peer): (Partition, NodeId),
        lacked: &DotSet,
        (now, ripens_at): (Mono, Mono),
    ) {
        if lacked.is_empty() {
            return;
        }
        let lacks = &mut self.wanted.entry(partition).or_default().lacks;
        lacks.entry(peer).or_default().notice(lacked, (now, ripens_at));
        self.look_at(ripens_at);
    }

    /// Whether more of what a peer has can be remembered.
    pub(super) fn has_room(&self, peer: NodeId) -> bool {
        let of = |wanted: &Wanted| wanted.lacks.get(&peer).map_or(0, Lack::weight);
        self.wanted.values().map(of).sum::<usize>() < WEIGHT_MAX
    }

    /// When to look what is ripe, or late.
    pub(super) fn due(&self) -> Option<Mono> {
        self.due
    }

    /// Looks again at this time, or earlier.
    pub(super) fn look_at(&mut self, at: Mono) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// The look is over; the next one is due by what is known now of peers that are up and partitions
    /// that serve, and not before `earliest`. A partition can be taken whole from `resync_at` on.
    pub(super) fn looked(
        &mut self,
        (earliest, resync_at): (Mono, Mono),
        is_up: impl Fn(NodeId) -> bool,
        serves: impl Fn(Partition) -> bool,
    ) {
        let mut due = None;
        for (_, wanted) in self.wanted.iter().filter(|(partition, _)| serves(**partition)) {
            let ask = wanted.ask.as_ref().map(|ask| ask.deadline);
            let lacks = wanted.lacks.iter().filter(|(node, _)| is_up(**node));
            let lacks = lacks.flat_map(|(_, lack)| {
                let ripening = (!lack.ripening.is_empty()).then_some(lack.ripens_at);
                let idle = !lack.ripe.is_empty() && wanted.ask.is_none();
                [ripening, idle.then_some(lack.hold_until)]
            });
            let cut = wanted.cut.keys().any(|node| is_up(*node)).then_some(resync_at);
            due = lacks.flatten().chain(ask).chain(cut).chain(due).min();
        }
        self.due = due.map(|due| due.max(earliest));
    }

    /// How many questions are under way.
    pub(super) fn asks(&self) -> usize {
        self.asks
    }

    /// Partitions of which something is lacking.
    pub(super) fn partitions(&self) -> Vec<Partition> {
        self.wanted.keys().copied().collect()
    }

    /// Peers that can be asked about a partition now, with what they have.
    pub(super) fn askable(
        &mut self,
        partition: Partition,
        clock: &PartitionClock,
        (now, patience_ms): (Mono, u64),
    ) -> Vec<(NodeId, DotSet)> {
        let Some(wanted) = self.wanted.get_mut(&partition) else { return Vec::new() };
        wanted.lacks.values_mut().for_each(|lack| lack.ripen(clock, now, patience_ms));
        wanted.lacks.retain(|_, lack| !lack.is_empty());
        wanted.cut.values_mut().for_each(|cut| *cut = cut.without(clock));
        wanted.cut.retain(|_, cut| !cut.is_empty());
        if wanted.ask.as_ref().is_some_and(|ask| ask.deadline <= now) {
            self.fail(partition, now);
        }
        let Some(wanted) = self.wanted.get(&partition) else { return Vec::new() };
        if wanted.ask.is_some() {
            return Vec::new();
        }
        if wanted.lacks.is_empty() && wanted.cut.is_empty() {
            self.wanted.remove(&partition);
            return Vec::new();
        }
        let can = |(_, lack): &(&NodeId, &Lack)| !lack.ripe.is_empty() && lack.hold_until <= now;
        let peers = wanted.lacks.iter().filter(can);
        peers.map(|(node, lack)| (*node, lack.ripe.clone())).collect()
    }

    /// A question leaves.
    pub(super) fn asked(&mut self, partition: Partition, ask: Ask) {
        if let Some(wanted) = self.wanted.get_mut(&partition) {
            self.asks += usize::from(wanted.ask.is_none());
            wanted.ask = Some(ask);
        }
    }

    /// The answer to a question that is under way.
    pub(super) fn answered(&mut self, partition: Partition, peer: NodeId, op: OpId) -> Option<Ask> {
        let wanted = self.wanted.get_mut(&partition)?;
        let ask = wanted.ask.take_if(|ask| ask.op == op && ask.peer == peer)?;
        self.asks -= 1;
        if let Some(lack) = wanted.lacks.get_mut(&peer) {
            (lack.hold_ms, lack.hold_until) = (0, Mono(0));
        }
        self.look_at(Mono(0));
        Some(ask)
    }

    /// A peer says that it does not have these after all, or not the keys they were to.
    pub(super) fn has_not(&mut self, partition: Partition, peer: NodeId, dots: &DotSet) {
        let lack = self.wanted.get_mut(&partition).and_then(|it| it.lacks.get_mut(&peer));
        if let Some(lack) = lack {
            lack.ripe = lack.ripe.without(dots);
        }
    }

    /// A peer has these, and does not know their keys any more.
    pub(super) fn has_cut(&mut self, partition: Partition, peer: NodeId, dots: &DotSet) {
        if let Some(wanted) = self.wanted.get_mut(&partition).filter(|_| !dots.is_empty()) {
            if wanted.cut.is_empty() {
                wanted.cut_since = wanted.lacks.get(&peer).map_or(Mono(0), |lack| lack.ripe_since);
            }
            wanted.cut.entry(peer).or_default().merge(dots);
        }
    }

    /// A peer from which a partition must be taken whole: of those that are up, one that has cut what
    /// is lacking, if no other can be asked for more; rather another than who has just failed.
    pub(super) fn resync_from(
        &self,
        (partition, failed): (Partition, Option<NodeId>),
        is_up: impl Fn(NodeId) -> bool,
    ) -> Option<NodeId> {
        let wanted = self.wanted.get(&partition)?;
        let can_help = |(node, lack): (&NodeId, &Lack)| {
            is_up(*node) && !lack.ripe.is_empty() && lack.hold_ms < HOPELESS_MS
        };
        if wanted.ask.is_some() || wanted.lacks.iter().any(can_help) {
            return None;
        }
        let up = wanted.cut.keys().copied().filter(|&node| is_up(node));
        up.min_by_key(|&node| Some(node) == failed)
    }

    /// What a peer sent of these could not be taken: not asked of it again for a while.
    pub(super) fn put_off(&mut self, partition: Partition, peer: NodeId, dots: &DotSet, now: Mono) {
        let lack = self.wanted.get_mut(&partition).and_then(|it| it.lacks.get_mut(&peer));
        if let Some(lack) = lack {
            lack.ripe = lack.ripe.without(dots);
            lack.notice(dots, (now, now.plus_ms(PUT_OFF_MS)));
        }
    }

    /// Repair has brought something as old as this that a peer has.
    pub(super) fn brought(&mut self, partition: Partition, peer: NodeId, oldest: Hlc) {
        let lack = self.wanted.get_mut(&partition).and_then(|it| it.lacks.get_mut(&peer));
        if let Some(lack) = lack {
            lack.repaired = Some(oldest);
        }
    }

    /// Everything that is lacking, as of the last look.
    pub(super) fn lacking(&self) -> impl Iterator<Item = Lacking> + '_ {
        self.wanted.iter().flat_map(|(&partition, wanted)| {
            let lacks = wanted.lacks.iter().map(move |(&peer, lack)| {
                let mut fresh = lack.ripening.clone();
                fresh.merge(&lack.later);
                Lacking {
                    partition,
                    peer,
                    ripe: lack.ripe.clone(),
                    fresh,
                    since: lack.ripe_since,
                    fresh_since: lack.ripening_since,
                    repaired: lack.repaired,
                }
            });
            let cut = wanted.cut.iter().map(move |(&peer, cut)| Lacking {
                partition,
                peer,
                ripe: cut.clone(),
                fresh: DotSet::new(),
                since: wanted.cut_since,
                fresh_since: wanted.cut_since,
                repaired: None,
            });
            lacks.chain(cut)
        })
    }

    /// A peer could not help just now.
    pub(super) fn hold(&mut self, partition: Partition, peer: NodeId, now: Mono) {
        let lack = self.wanted.get_mut(&partition).and_then(|it| it.lacks.get_mut(&peer));
        if let Some(lack) = lack {
            lack.hold(now);
        }
    }

    /// What is asked of this peer will not be answered. What it has cut its next run says again.
    pub(super) fn down(&mut self, peer: NodeId, now: Mono) {
        self.wanted.values_mut().for_each(|wanted| _ = wanted.cut.remove(&peer));
        let asks = |wanted: &Wanted| wanted.ask.as_ref().is_some_and(|ask| ask.peer == peer);
        let concerned: Vec<Partition> =
            self.wanted.iter().filter(|(_, wanted)| asks(wanted)).map(|(p, _)| *p).collect();
        for partition in concerned {
            self.fail(partition, now);
        }
        self.look_at(now);
    }

    fn fail(&mut self, partition: Partition, now: Mono) {
        let Some(wanted) = self.wanted.get_mut(&partition) else { return };
        let Some(ask) = wanted.ask.take() else { return };
        self.asks -= 1;
        if let Some(lack) = wanted.lacks.get_mut(&ask.peer) {
            lack.hold(now);
        }
    }
}
