//! Which partition is to be verified with whom, and when it last was.

use std::collections::BTreeMap;

use holm_protocol::ids::{NodeId, Partition};

use crate::layout::Layout;
use crate::peer::OpId;
use crate::shard::config::Boot;
use crate::shard::event::{Demanded, Verified, VerifyEnd};
use crate::time::Mono;

/// A failed verification is tried again after a sixteenth of the interval.
const RETRY_SHARE: u64 = 16;

/// How often a pair is tried for an operator, and the pause between, milliseconds: who is asked by
/// many at once refuses some.
const TRIES: u32 = 10;
const RETRY_MS: u64 = 500;

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
    /// How often it may still be tried for an operator; 0: none waits for it.
    tries: u32,
}

/// Pairs by when they are due.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    pairs: BTreeMap<Pair, Entry>,
    every_ms: u64,
    running: Option<OpId>,
    demanded: Demanded,
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
                let fresh = Entry { due: now, verified: None, tries: 0 };
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
        let gone = self.pairs.iter().filter(|(pair, it)| it.tries > 0 && !pairs.contains_key(pair));
        let gone = gone.count() as u64;
        self.demanded.pending -= gone;
        self.demanded.failed += gone;
        self.pairs = pairs;
        self.look = self.soonest();
    }

    /// Makes pairs due at once; of those that were verified after a time, none. Those whose other
    /// replica cannot be reached have failed.
    pub(super) fn demand(
        &mut self,
        number: u64,
        (now, verified_before): (Mono, Mono),
        wanted: impl Fn(&Pair) -> bool,
        is_up: impl Fn(NodeId) -> bool,
    ) {
        self.demanded.number = number;
        for (pair, entry) in self.pairs.iter_mut().filter(|(pair, _)| wanted(pair)) {
            if entry.tries > 0 || entry.verified.is_some_and(|at| at > verified_before) {
                continue;
            }
            if is_up(pair.1) {
                entry.tries = TRIES;
                entry.due = entry.due.min(now);
                self.demanded.pending += 1;
            } else {
                self.demanded.failed += 1;
            }
        }
        self.look = Some(now);
    }

    /// A replica cannot be reached any more: nobody is to wait for what is demanded with it.
    pub(crate) fn lost(&mut self, node: NodeId) {
        for (_, entry) in self.pairs.iter_mut().filter(|((_, peer), _)| *peer == node) {
            if std::mem::take(&mut entry.tries) > 0 {
                self.demanded.pending -= 1;
                self.demanded.failed += 1;
            }
        }
    }

    /// What became of demands.
    pub(crate) fn demanded(&self) -> Demanded {
        self.demanded
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

    pub(super) fn ended(&mut self, now: Mono, how: &Verified) {
        self.running = None;
        let is_verified = matches!(how.end, VerifyEnd::Equal | VerifyEnd::Mended);
        if let Some(entry) = self.pairs.get_mut(&(how.partition, how.peer)) {
            let pause = if is_verified { self.every_ms } else { self.every_ms / RETRY_SHARE };
            entry.due = if pause == 0 { NEVER } else { now.plus_ms(pause) };
            if is_verified {
                entry.verified = Some(now);
            }
            let demanded = &mut self.demanded;
            if entry.tries > 0 {
                demanded.differing_keys += how.differing_keys;
                entry.tries = if is_verified { 0 } else { entry.tries - 1 };
                if entry.tries > 0 {
                    entry.due = entry.due.min(now.plus_ms(RETRY_MS));
                } else {
                    demanded.pending -= 1;
                    demanded.verified += u64::from(is_verified);
                    demanded.mended += u64::from(how.end == VerifyEnd::Mended);
                    demanded.failed += u64::from(!is_verified);
                }
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
