//! Resync: a replica takes a partition whole from another one.
//!
//! The log of a replica is bounded: its oldest segments are cut. A replica that was away for so long
//! asks for dots of which nobody knows the keys any more. It then takes all objects of the
//! partition, page by page in the order of their keys, joins each as any replicated object, and at
//! the end adopts the sender's clock: everything that clock has seen is part of what was sent. What the
//! sender knows of actors that ended comes with it ([`super::ends`]).
//!
//! - The clock is that of the **start**, before the first page was read. What the sender sees later
//!   may be to keys that were sent before (refuted for layouts: `Layout-clock-at-end`).
//! - It is adopted **after the last object**, in that object's commit or a later one. If a batch on
//!   the way is lost, or an object cannot be joined, it begins anew.
//! - Pages are read between two batches, so that clock and objects are of one moment: the open
//!   batch's objects are not in the store.
//!
//! A page that is lost is asked for again. A connection that is lost ends it: at its other end there
//! may be another run, on another disk.
//!
//! Bounded (I10): one partition at a time; pages by the bytes that the asking shard grants; questions
//! of others wait in a short queue, and are dropped beyond it.
//!
//! Nothing is ever removed from a partition yet, so a join is two-sided: whatever either side has
//! overwritten is covered by an object there.

use std::collections::VecDeque;

use bytes::Bytes;

use holm_protocol::ids::{Actor, BucketId, NodeId, Partition};
use holm_protocol::limits::FRAME_LEN_MAX;

use crate::clock::{ACTORS_MAX, DotSet};
use crate::keys::{OBJECT_KEY_HEAD_LEN, object_key};
use crate::peer::{OpId, PageObject, PeerMessage};
use crate::shard::ends::End;
use crate::shard::event::Effect;
use crate::shard::replica::Incoming;
use crate::shard::{Shard, Turn};
use crate::store::{Store, Table};
use crate::time::Mono;

/// Bytes of objects in one page, whatever is asked for, unless it is one object; and how many.
const PAGE_BYTES_MAX: usize = 1 << 20;
const PAGE_OBJECTS_MAX: usize = 256;

/// What an actor or a range of a clock takes in a page, at most, bytes.
const RANGE_BYTES: usize = 24;

/// Rows read at a time.
const ROWS: usize = 64;

/// Questions of others that wait for the end of a batch.
const WAITING_MAX: usize = 16;

/// Pages that do not come, in a row, before another replica is asked.
const LATE_MAX: u32 = 2;

/// How long a page may take to come, and how long after a failure it is begun anew, milliseconds.
const PAGE_MS: u64 = 2_000;
const AGAIN_MS: u64 = 2_000;

/// Where a page begins: after this object.
type Cursor = Option<(BucketId, Bytes)>;

/// A partition on its way here.
#[derive(Debug)]
struct Resync {
    partition: Partition,
    peer: NodeId,
    op: OpId,
    after: Cursor,
    /// What the peer had seen at the start, and knew of actors that ended.
    clock: DotSet,
    ends: Vec<(Actor, End)>,
    deadline: Mono,
    /// Pages that did not come, in a row.
    late: u32,
}

/// A question of another replica.
#[derive(Debug)]
struct PageAsked {
    from: NodeId,
    op: OpId,
    partition: Partition,
    after: Cursor,
    bytes_max: u32,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Resyncs {
    open: Option<Resync>,
    not_before: Mono,
    /// Who did not send a page the last time.
    failed: Option<NodeId>,
    waiting: VecDeque<PageAsked>,
}

impl Resyncs {
    /// Another replica wants a page.
    pub(super) fn asked(
        &mut self,
        (from, op): (NodeId, OpId),
        partition: Partition,
        after: Cursor,
        bytes_max: u32,
    ) {
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push_back(PageAsked { from, op, partition, after, bytes_max });
        }
    }

    /// When a page is late.
    pub(super) fn due(&self) -> Option<Mono> {
        self.open.as_ref().map(|open| open.deadline)
    }

    /// When the next partition can be begun, as far as is known.
    pub(super) fn free_at(&self) -> Mono {
        self.due().unwrap_or(self.not_before)
    }

    /// A node cannot be reached.
    pub(super) fn down(&mut self, node: NodeId) {
        self.open.take_if(|open| open.peer == node);
        self.waiting.retain(|asked| asked.from != node);
    }

    /// What came may be gone.
    pub(super) fn give_up(&mut self) {
        self.open = None;
    }
}

impl Shard {
    /// Between two batches: takes a partition whole, if nothing else helps.
    pub(super) fn start_resyncs<S: Store>(&mut self, turn: &mut Turn<'_, S>) {
        let now = turn.now.mono;
        if self.resyncs.open.is_some() || self.resyncs.not_before > now {
            return;
        }
        let from = |partition: Partition| {
            let failed = self.resyncs.failed;
            let peer = self.gaps.resync_from((partition, failed), |n| self.peers.is_up(n))?;
            Some((partition, peer))
        };
        let Some((partition, peer)) = self.gaps.partitions().into_iter().find_map(from) else {
            return;
        };
        self.counters.resyncs += 1;
        let (after, clock, ends, op) = (None, DotSet::new(), Vec::new(), OpId(0));
        let open = Resync { partition, peer, op, after, clock, ends, deadline: now, late: 0 };
        self.ask_for_page(open, turn);
    }

    fn ask_for_page<S: Store>(&mut self, mut open: Resync, turn: &mut Turn<'_, S>) {
        open.op = self.new_op();
        open.deadline = turn.now.mono.plus_ms(PAGE_MS);
        let (op, partition, after) = (open.op, open.partition, open.after.clone());
        let bytes_max = self.config.gap_bytes_max as u32;
        let run = self.run;
        let message = PeerMessage::PageAsk { op, partition, after, run, bytes_max };
        turn.out.push(Effect::Send { to: vec![open.peer], message });
        self.resyncs.open = Some(open);
    }

    /// Between two batches: answers others' questions, and asks again for what is late.
    pub(super) fn turn_pages<S: Store>(&mut self, turn: &mut Turn<'_, S>) {
        while let Some(asked) = self.resyncs.waiting.pop_front() {
            // Not answered, it is asked again, or of somebody else.
            if let Some(message) = self.page(&asked, turn.store) {
                turn.out.push(Effect::Send { to: vec![asked.from], message });
            }
        }
        let now = turn.now.mono;
        if let Some(mut open) = self.resyncs.open.take_if(|open| open.deadline <= now) {
            open.late += 1;
            if open.late < LATE_MAX {
                return self.ask_for_page(open, turn);
            }
            self.resyncs.failed = Some(open.peer);
            self.gaps.look_at(now);
        }
    }

    fn page<S: Store>(&mut self, asked: &PageAsked, store: &mut S) -> Option<PeerMessage> {
        let &PageAsked { op, partition, ref after, bytes_max, .. } = asked;
        let state = self.partitions.get(&partition).filter(|_| self.may_claim())?;
        let (mut clock, mut ends) = (DotSet::new(), Vec::new());
        if after.is_none() {
            clock = state.clock().clone();
            ends.extend(self.ends.of(partition).map(|(actor, end)| (actor, end.clone())));
        }
        let mut from = Vec::new();
        match after {
            Some((bucket, key)) => {
                object_key(&mut from, partition, *bucket, key);
                from.push(0);
            }
            None => from.extend(partition.to_u32().to_be_bytes()),
        }
        let end = partition.to_u32().checked_add(1);
        let to = end.map_or(vec![0xff; 5], |end| end.to_be_bytes().to_vec());
        let bytes_max = (bytes_max as usize).min(PAGE_BYTES_MAX);
        let dots = ends.iter().filter_map(|(_, end)| end.dots());
        let weight = ends.len() + dots.map(|dots| dots.ranges().len()).sum::<usize>();
        let clock_bytes = (clock.weight() + weight) * RANGE_BYTES;
        let (mut objects, mut bytes) = (Vec::new(), 0);
        loop {
            let rows = store.scan(Table::Objects, &from, &to, ROWS).ok()?;
            let is_end = rows.len() < ROWS;
            for (row, object) in rows {
                let bucket = row.get(4..OBJECT_KEY_HEAD_LEN)?.try_into().ok()?;
                let bucket = BucketId(u32::from_be_bytes(bucket));
                bytes += row.len() + object.len();
                let is_full = bytes > bytes_max || objects.len() >= PAGE_OBJECTS_MAX;
                if is_full && !objects.is_empty() {
                    let is_last = false;
                    return Some(PeerMessage::PageAnswer {
                        op,
                        partition,
                        clock,
                        ends,
                        objects,
                        is_last,
                    });
                }
                if clock_bytes + bytes > FRAME_LEN_MAX {
                    return None;
                }
                let key = Bytes::copy_from_slice(&row[OBJECT_KEY_HEAD_LEN..]);
                objects.push(PageObject { bucket, key, object: object.into() });
                from = row;
                from.push(0);
            }
            if is_end {
                let is_last = true;
                return Some(PeerMessage::PageAnswer {
                    op,
                    partition,
                    clock,
                    ends,
                    objects,
                    is_last,
                });
            }
        }
    }

    /// A page of a partition that is taken whole.
    pub(super) fn on_page<S: Store>(
        &mut self,
        (from, op): (NodeId, OpId),
        partition: Partition,
        (clock, ends): (DotSet, Vec<(Actor, End)>),
        (objects, is_last): (Vec<PageObject>, bool),
        turn: &mut Turn<'_, S>,
    ) {
        let is_it =
            |open: &mut Resync| open.op == op && open.peer == from && open.partition == partition;
        let Some(mut open) = self.resyncs.open.take_if(is_it) else { return };
        open.late = 0;
        if open.after.is_none() {
            (open.clock, open.ends) = (clock, ends);
        }
        if objects.is_empty() && !is_last {
            return self.fail_resync(turn.now.mono);
        }
        for PageObject { bucket, key, object } in objects {
            open.after = Some((bucket, key.clone()));
            let write = Incoming { partition, bucket, key, object };
            if self.join_incoming(&write, turn).is_err() {
                return self.fail_resync(turn.now.mono);
            }
            self.counters.resync_objects += 1;
        }
        if !is_last {
            return self.ask_for_page(open, turn);
        }
        // Before the clock, in which what is void counts as seen.
        self.adopt_ends(partition, &open.ends);
        if self.adopt(partition, &open.clock) {
            self.adopt_folds(partition, &open.ends);
        } else {
            self.fail_resync(turn.now.mono);
        }
        self.gaps.look_at(turn.now.mono);
    }

    fn fail_resync(&mut self, now: Mono) {
        self.counters.peer_rejections += 1;
        self.resyncs.not_before = now.plus_ms(AGAIN_MS);
        self.gaps.look_at(self.resyncs.not_before);
    }

    /// Marks what another replica had seen, all of whose objects are joined. Says whether that can be.
    pub(super) fn adopt(&mut self, partition: Partition, clock: &DotSet) -> bool {
        let Some(state) = self.partitions.get_mut(&partition) else { return false };
        // Only this run can have made this run's dots.
        let own = clock.get(self.boot.actor).map_or(0, |own| own.max());
        let new = clock.iter().filter(|(actor, _)| state.clock().get(*actor).is_none()).count();
        if own > state.own_counter() || state.clock().actors() + new > ACTORS_MAX {
            return false;
        }
        state.adopt(clock);
        self.log.adopt(partition);
        true
    }
}
