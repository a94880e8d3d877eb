//! Fingerprints: whether all regions hold the same, told from digests.
//!
//! A node's shards ask a replica of each of their partitions in each region, this node among
//! them, for one digest per bucket (`digests`). The sums over all partitions are equal in all regions
//! exactly if each region holds the same values, but for accidents of hashing. Tombstones and absence
//! are alike, as in [`crate::merkle`], whose digests of keys these are.
//!
//! The answers are of about the same time, not of one moment: under load regions differ by what is on
//! its way. Equal answers prove that what the replicas held when each was read is the same.
//!
//! 1. Of each region the replica is asked that can be reached and answers fastest; if it refuses or is
//!    lost, the next one. Or all replicas are asked, to find differences within a region too.
//! 2. Each scans what has changed since it last did, a slice at a time, and answers.
//! 3. When all have answered, or time is over, the sums are told, with the partitions whose replicas
//!    differ and those of which nobody answered.
//!
//! A replica that lost state refuses: what it holds stands for nothing.

mod digests;

use std::collections::{BTreeMap, BTreeSet};

use holm_protocol::error::{NotReady, RequestError};
use holm_protocol::ids::{BucketId, NodeId, Partition, RegionId};

use crate::layout::Layout;
use crate::peer::fingerprint::{BucketDigest, FingerprintMessage};
use crate::peer::{OpId, PeerMessage, Refusal};
use crate::shard::event::{Caller, Effect};
use crate::shard::{Op, Shard, Turn};
use crate::store::Store;
use crate::time::Mono;

pub(super) use digests::Digests;
use digests::Waiter;

/// Fingerprints gathered at a time: each asks for everything.
const GATHERED_MAX: usize = 4;

/// When to come back if more are wanted, milliseconds.
const RETRY_MS: u32 = 500;

/// What the replicas of this shard's partitions hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fingerprint {
    /// The sum of the digests, and the number of keys, of each bucket in each region. What a region
    /// holds nothing of is not named.
    pub sums: BTreeMap<(BucketId, RegionId), (u128, u64)>,
    /// Rows without values, of each bucket that has some, on all replicas that were asked: deletes
    /// that these have not forgotten yet.
    pub tombstones: BTreeMap<BucketId, u64>,
    /// Partitions of which all that were asked have answered.
    pub partitions: u64,
    /// Partitions of which replicas hold different values.
    pub differing: BTreeSet<Partition>,
    /// Partitions of which nobody answered in a region; or one of several that were asked did not.
    pub unanswered: BTreeSet<(Partition, RegionId)>,
}

impl Fingerprint {
    /// Takes in that of another shard.
    pub fn merge(&mut self, other: Fingerprint) {
        for (place, (digest, keys)) in other.sums {
            self.add(place, digest, keys);
        }
        for (bucket, tombstones) in other.tombstones {
            *self.tombstones.entry(bucket).or_default() += tombstones;
        }
        self.partitions += other.partitions;
        self.differing.extend(other.differing);
        self.unanswered.extend(other.unanswered);
    }

    /// Whether everybody has answered, and holds the same.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.differing.is_empty() && self.unanswered.is_empty()
    }

    fn add(&mut self, place: (BucketId, RegionId), digest: u128, keys: u64) {
        let sum = self.sums.entry(place).or_default();
        *sum = (sum.0.wrapping_add(digest), sum.1.saturating_add(keys));
    }
}

/// One answer that is wanted.
#[derive(Debug)]
struct Slot {
    partition: Partition,
    region: RegionId,
    /// Who can still be asked, the best last.
    left: Vec<NodeId>,
    asked: Option<NodeId>,
    answer: Option<Vec<BucketDigest>>,
}

/// A fingerprint in the making.
#[derive(Debug)]
pub(super) struct GatherOp {
    caller: Caller,
    slots: Vec<Slot>,
    /// Which slot waits for which answer.
    waiting: BTreeMap<(NodeId, Partition), usize>,
    wake: Mono,
}

impl GatherOp {
    /// Whether it is this node whose answer is awaited.
    pub(super) fn waits_for(&self, node: NodeId) -> bool {
        self.waiting
            .range((node, Partition::from_u32(0))..)
            .next()
            .is_some_and(|(k, _)| k.0 == node)
    }

    fn take_slots_of(&mut self, node: NodeId) -> Vec<usize> {
        let of: Vec<(NodeId, Partition)> =
            self.waiting.keys().filter(|(asked, _)| *asked == node).copied().collect();
        of.iter().filter_map(|key| self.waiting.remove(key)).collect()
    }

    /// What is known by now.
    fn result(self) -> Fingerprint {
        let mut fingerprint = Fingerprint::default();
        let mut first: BTreeMap<Partition, Vec<(BucketId, u128, u64)>> = BTreeMap::new();
        let mut summed: BTreeSet<(Partition, RegionId)> = BTreeSet::new();
        for Slot { partition, region, answer, .. } in self.slots {
            let Some(digests) = answer else {
                fingerprint.unanswered.insert((partition, region));
                continue;
            };
            // Of a region the first replica stands for it; if another differs, that is told.
            if summed.insert((partition, region)) {
                for (bucket, digest, keys) in digests.iter().filter_map(BucketDigest::live) {
                    fingerprint.add((bucket, region), digest, keys);
                }
            }
            for it in digests.iter().filter(|it| it.tombstones > 0) {
                *fingerprint.tombstones.entry(it.bucket).or_default() += it.tombstones;
            }
            let live = digests.iter().filter_map(BucketDigest::live).collect();
            match first.get(&partition) {
                Some(known) if *known != live => _ = fingerprint.differing.insert(partition),
                Some(_) => {}
                None => _ = first.insert(partition, live),
            }
        }
        let missing: BTreeSet<Partition> = fingerprint.unanswered.iter().map(|(p, _)| *p).collect();
        fingerprint.partitions = first.keys().filter(|p| !missing.contains(p)).count() as u64;
        fingerprint
    }
}

impl Shard {
    /// Somebody wants to know whether all regions hold the same.
    pub(super) fn on_fingerprint<S: Store>(
        &mut self,
        caller: Caller,
        (timeout_ms, all): (u32, bool),
        turn: &mut Turn<'_, S>,
    ) {
        let gathered = self.digests.gathering;
        let refused = match &self.cluster.layout {
            None => Some(RequestError::NotReady { reason: NotReady::NoLayout }),
            Some(_) if gathered >= GATHERED_MAX => Some(RequestError::Overloaded {
                in_flight: gathered as u32,
                limit: GATHERED_MAX as u32,
                retry_after_ms: RETRY_MS,
            }),
            Some(_) => None,
        };
        if let Some(error) = refused {
            turn.out.push(Effect::Fingerprinted { caller, result: Err(error) });
            return;
        }
        let slots = self.slots(all, turn.now.mono);
        let id = self.new_op();
        let wake = self.deadline(turn.now, timeout_ms);
        let places: Vec<usize> = (0..slots.len()).collect();
        let op = GatherOp { caller, slots, waiting: BTreeMap::new(), wake };
        self.digests.gathering += 1;
        self.timers.set(wake, id);
        self.ask_slots(id, Box::new(op), places, turn);
    }

    /// Whom to ask about what.
    fn slots(&self, all: bool, now: Mono) -> Vec<Slot> {
        let Some(layout) = &self.cluster.layout else { return Vec::new() };
        let mut slots = Vec::new();
        for partition in partitions(layout).filter(|&partition| self.boot.owns(partition)) {
            for region in (0..layout.regions().len()).map(|region| RegionId(region as u16)) {
                let replicas = layout.replicas_in(partition, region);
                let slot = |left| Slot { partition, region, left, asked: None, answer: None };
                if all {
                    slots.extend(replicas.iter().map(|&replica| slot(vec![replica])));
                } else if !replicas.is_empty() {
                    let mut left = replicas.to_vec();
                    let cost = |node: &NodeId| {
                        let is_last = self.peers.is_last(*node, now);
                        (*node != self.boot.node, is_last, self.peers.srtt_us(*node), *node)
                    };
                    left.sort_by_cached_key(|node| std::cmp::Reverse(cost(node)));
                    slots.push(slot(left));
                }
            }
        }
        slots
    }

    /// Asks the next replica of some slots. The operation is not in the table meanwhile.
    fn ask_slots<S: Store>(
        &mut self,
        id: OpId,
        mut op: Box<GatherOp>,
        places: Vec<usize>,
        turn: &mut Turn<'_, S>,
    ) {
        for place in places {
            let slot = &mut op.slots[place];
            slot.asked = None;
            while let Some(node) = slot.left.pop() {
                let partition = slot.partition;
                if node == self.boot.node {
                    match self.want_digests(partition, Waiter::Own(id), turn.now.mono) {
                        Ok(Some(digests)) => slot.answer = Some(digests),
                        Ok(None) => slot.asked = Some(node),
                        Err(_) => continue,
                    }
                } else if self.peers.is_up(node) {
                    let ask = FingerprintMessage::Ask { op: id, partition };
                    let message = PeerMessage::Fingerprint(ask);
                    turn.out.push(Effect::Send { to: vec![node], message });
                    slot.asked = Some(node);
                } else {
                    continue;
                }
                break;
            }
            if let Some(node) = slot.asked {
                op.waiting.insert((node, slot.partition), place);
            }
        }
        if op.waiting.is_empty() {
            self.timers.clear(op.wake, id);
            self.finish_fingerprint(*op, turn);
        } else {
            self.ops.insert(id.0, Op::Gather(op));
        }
    }

    /// A replica's digests, or why there are none.
    fn on_digests<S: Store>(
        &mut self,
        (from, id): (NodeId, OpId),
        partition: Partition,
        result: Result<Vec<BucketDigest>, Refusal>,
        turn: &mut Turn<'_, S>,
    ) {
        let mut op = match self.ops.remove(&id.0) {
            Some(Op::Gather(op)) if op.waiting.contains_key(&(from, partition)) => op,
            Some(other) => {
                self.counters.peer_rejections += 1;
                self.ops.insert(id.0, other);
                return;
            }
            // Too late.
            None => return,
        };
        let place = op.waiting.remove(&(from, partition));
        let mut again = Vec::new();
        if let Some(place) = place {
            match &result {
                Ok(digests) => op.slots[place].answer = Some(digests.clone()),
                Err(_) => again.push(place),
            }
        }
        self.ask_slots(id, op, again, turn);
    }

    /// A replica cannot be reached any more.
    pub(super) fn gather_lost<S: Store>(&mut self, id: OpId, node: NodeId, turn: &mut Turn<'_, S>) {
        match self.ops.remove(&id.0) {
            Some(Op::Gather(mut op)) => {
                let again = op.take_slots_of(node);
                self.ask_slots(id, op, again, turn);
            }
            Some(other) => _ = self.ops.insert(id.0, other),
            None => {}
        }
    }

    /// Tells what is known by now.
    pub(super) fn finish_fingerprint<S>(&mut self, op: GatherOp, turn: &mut Turn<'_, S>) {
        self.digests.gathering -= 1;
        let caller = op.caller;
        turn.out.push(Effect::Fingerprinted { caller, result: Ok(op.result()) });
    }

    /// A question of another node, or an answer.
    pub(super) fn on_fingerprint_message<S: Store>(
        &mut self,
        from: NodeId,
        message: FingerprintMessage,
        turn: &mut Turn<'_, S>,
    ) {
        match message {
            FingerprintMessage::Ask { op, partition } => {
                let waiter = Waiter::Peer(from, op);
                let result = match self.want_digests(partition, waiter, turn.now.mono) {
                    Ok(None) => return,
                    Ok(Some(digests)) => Ok(digests),
                    Err(refusal) => Err(refusal),
                };
                send_digests((from, op), partition, result, turn);
            }
            FingerprintMessage::Answer { op, partition, result } => {
                self.on_digests((from, op), partition, result, turn);
            }
        }
    }
}

fn send_digests<S>(
    (to, op): (NodeId, OpId),
    partition: Partition,
    result: Result<Vec<BucketDigest>, Refusal>,
    turn: &mut Turn<'_, S>,
) {
    let answer = FingerprintMessage::Answer { op, partition, result };
    turn.out.push(Effect::Send { to: vec![to], message: PeerMessage::Fingerprint(answer) });
}

/// Every partition of every placement.
fn partitions(layout: &Layout) -> impl Iterator<Item = Partition> + '_ {
    layout.placements().iter().flat_map(|placement| {
        (0..placement.partitions())
            .map(|index| Partition { placement: placement.id, index: index as u16 })
    })
}
