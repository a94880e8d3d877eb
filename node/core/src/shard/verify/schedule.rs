//! Which partition is to be verified with whom, and when it last was.

use std::collections::BTreeMap;

use holm_protocol::ids::{NodeId, Partition};

use crate::layout::Layout;
use crate::peer::OpId;
use crate::shard::config::Boot;
use crate::time::Mono;

/// A failed verification is tried again after a sixteenth of the interval.
const RETRY_SHARE: u64 = 16;

/// How long after a look that found nobody to verify with the next one is, milliseconds.
const LOOK_MS: u64 = 500;

/// When a pair is due of which verification is switched off, until an operator asks for it.
const NEVER: Mono = Mono(u64::MAX);

/// One partition and one other replica.
pub(crate) type Pair = (Partition, NodeId);

#[derive(Debug, Clone, Copy)]
struct Entry {
    due: Mono,
    verified: Option<Mono>,
}

/// Pairs by when they are due.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    pairs: BTreeMap<Pair, Entry>,
    every_ms: u64,
    running: Option<OpId>,
    /// When to look for what is due: not before, so that pairs whose peer is away cost nothing.
    look: Option<Mono>,
    /// Others' sessions here.
    pub(super) sessions: BTreeMap<(NodeId, OpId), OpId>,
}

impl Schedule {
    /// Takes up the pairs of a layout that this node is to begin with: of two replicas the lower
    /// one does. New pairs are spread over the interval, so that a start is no storm.
    pub(crate) fn plan(&mut self, layout: &Layout, boot: &Boot, (now, every_ms): (Mono, u64)) {
        self.every_ms = every_ms;
        let mut pairs = BTreeMap::new();
        for partition in layout.partitions_of(boot.node).filter(|p| boot.owns(*p)) {
            for &peer in layout.replicas(partition).iter().filter(|&&peer| peer > boot.node) {
                let fresh = Entry { due: now, verified: None };
                let known = self.pairs.get(&(partition, peer)).copied();
                pairs.insert((partition, peer), known.unwrap_or(fresh));
            }
        }
        let count = pairs.len() as u64;
        for (place, entry) in pairs.values_mut().enumerate() {
            if entry.due == now && entry.verified.is_none() {
                entry.due = match every_ms {
                    0 => NEVER,
                    _ => now.plus_ms(every_ms * (place as u64 + 1) / count.max(1)),
                };
            }
        }
        self.pairs = pairs;
        self.look = self.soonest();
    }

    /// Makes pairs due at once.
    pub(crate) fn hurry(&mut self, now: Mono, wanted: impl Fn(&Pair) -> bool) -> u64 {
        let mut count = 0;
        for (_, entry) in self.pairs.iter_mut().filter(|(pair, _)| wanted(pair)) {
            entry.due = entry.due.min(now);
            count += 1;
        }
        self.look = Some(now);
        count
    }

    pub(super) fn is_busy(&self) -> bool {
        self.running.is_some()
    }

    /// The pair that is longest due and can be reached.
    pub(super) fn next_due(&mut self, now: Mono, is_able: impl Fn(Pair) -> bool) -> Option<Pair> {
        self.look = self.soonest().map(|due| due.max(now.plus_ms(LOOK_MS)));
        let due = self.pairs.iter().filter(|(pair, entry)| entry.due <= now && is_able(**pair));
        due.min_by_key(|(pair, entry)| (entry.due, **pair)).map(|(pair, _)| *pair)
    }

    pub(super) fn began(&mut self, id: OpId) {
        self.running = Some(id);
    }

    pub(super) fn ended(&mut self, now: Mono, pair: Pair, is_verified: bool) {
        self.running = None;
        if let Some(entry) = self.pairs.get_mut(&pair) {
            let pause = if is_verified { self.every_ms } else { self.every_ms / RETRY_SHARE };
            entry.due = if pause == 0 { NEVER } else { now.plus_ms(pause) };
            if is_verified {
                entry.verified = Some(now);
            }
        }
        self.look = self.soonest().map(|due| due.max(now));
    }

    fn soonest(&self) -> Option<Mono> {
        self.pairs.values().map(|entry| entry.due).filter(|due| *due != NEVER).min()
    }

    /// When to look for what is due.
    pub(crate) fn next(&self) -> Option<Mono> {
        self.look.filter(|_| !self.is_busy())
    }

    /// Every pair and when it was last verified in this run.
    pub(crate) fn ages(&self) -> impl Iterator<Item = (Pair, Option<Mono>)> + '_ {
        self.pairs.iter().map(|(pair, entry)| (*pair, entry.verified))
    }
}
