//! Resync: a replica takes a partition whole from another one.
//!
//! It must where nothing less helps: it is behind ([`doubt`](super::doubt)), or it lacks dots of which
//! nobody's log knows the keys any more, because logs are bounded and their oldest segments are cut.
//! It takes all objects of the partition, page by page in the order of their keys, joins each, and at
//! the end adopts the sender's clock, what the sender knew to be stable, and of actors that ended
//! ([`ends`](super::ends)): everything they speak of is part of what was sent.
//!
//! - **Both sides are looked at** (`Stability-resync-one-sided`): a sibling that came and was
//!   overwritten here stays away, as with any replicated object; a sibling that is here goes if the
//!   sender's clock has it and it is not alive there, also where the sender has nothing of the key any
//!   more. So the own objects are walked along with the pages.
//! - The clock is that of the **start**, before the first page was read. What the sender sees later
//!   may be to keys that were sent before (refuted for layouts: `Layout-clock-at-end`).
//! - It is adopted **after the last object**, in that object's commit or a later one. If a batch on
//!   the way is lost, or an object cannot be joined, it begins anew.
//! - Pages are read and taken in between two batches, so that clock, cache and disk are of one moment.
//! - The sender looks first whether it has seen what the asking replica knows to be stable: it may be
//!   the one that is behind.
//! - Where all replicas are behind, one of them **gathers**: it takes the partition from one after the
//!   other, all of whom must be behind still, and then serves.
//!
//! A page that is lost is asked for again. A connection that is lost ends it: at its other end there
//! may be another run, on another disk.
//!
//! Bounded (I10): one partition at a time; pages by the bytes that the asking shard grants, own rows
//! some at a time; questions of others wait in a short queue, and are dropped beyond it.

mod pages;

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;

use holm_protocol::ids::{Actor, BucketId, NodeId, Partition};
use holm_protocol::limits::KEY_LEN_MAX;
use holm_protocol::version_vector::VersionVector;

use crate::clock::{ACTORS_MAX, DotSet};
use crate::keys::{OBJECT_KEY_HEAD_LEN, object_key};
use crate::peer::{OpId, PageObject, PeerMessage, Position, Standing};
use crate::shard::ends::End;
use crate::shard::event::Effect;
use crate::shard::replica::Incoming;
use crate::shard::{Shard, Turn};
use crate::store::{Store, Table};
use crate::time::Mono;

use pages::PageAsked;

/// Rows read at a time.
const ROWS: usize = 64;

/// Questions of others that wait for the end of a batch.
const WAITING_MAX: usize = 16;

/// Pages that do not come, in a row, before another replica is asked.
const LATE_MAX: u32 = 2;

/// How long a page may take to come, and how long after a failure it is begun anew, milliseconds.
const PAGE_MS: u64 = 2_000;
const AGAIN_MS: u64 = 2_000;

/// How long after somebody gave none, because it does not vouch for what it has, milliseconds.
const ASIDE_MS: u64 = 100;

/// Where a page begins: after this object.
type Cursor = Option<(BucketId, Bytes)>;

/// A page that has come, as far as it is not taken in.
#[derive(Debug)]
struct Page {
    objects: VecDeque<PageObject>,
    /// Up to which own row it goes, exclusive.
    end: Vec<u8>,
    is_last: bool,
}

/// A partition on its way here.
#[derive(Debug)]
struct Resync {
    partition: Partition,
    peer: NodeId,
    op: OpId,
    after: Cursor,
    /// What the peer had seen, knew to be stable, and knew of actors that ended, at the start.
    clock: DotSet,
    know: VersionVector,
    ends: Vec<(Actor, End)>,
    page: Option<Page>,
    /// From which own row on the partition is still to be walked.
    walked: Vec<u8>,
    /// Replicas from which it is to be taken too, before this one serves.
    left: Vec<NodeId>,
    gathers: bool,
    deadline: Mono,
    /// Pages that did not come, in a row.
    late: u32,
}

impl Resync {
    fn new(partition: Partition, (peer, left): (NodeId, Vec<NodeId>), gathers: bool) -> Resync {
        Resync {
            partition,
            peer,
            op: OpId(0),
            after: None,
            clock: DotSet::new(),
            know: VersionVector::new(),
            ends: Vec::new(),
            page: None,
            walked: first_row(partition),
            left,
            gathers,
            deadline: Mono(0),
            late: 0,
        }
    }
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
        (partition, after): (Partition, Cursor),
        (know, gathers): (VersionVector, bool),
        bytes_max: u32,
    ) {
        if self.waiting.len() < WAITING_MAX {
            let asked = PageAsked { from, op, partition, after, know, gathers, bytes_max };
            self.waiting.push_back(asked);
        }
    }

    /// When a page is late, or the rest of one is to be taken in.
    pub(super) fn due(&self) -> Option<Mono> {
        let due = |open: &Resync| if open.page.is_some() { Mono(0) } else { open.deadline };
        self.open.as_ref().map(due)
    }

    /// When the next partition can be begun, as far as is known.
    pub(super) fn free_at(&self) -> Mono {
        self.due().unwrap_or(self.not_before)
    }

    /// A node cannot be reached: its next run may have another disk.
    pub(super) fn down(&mut self, node: NodeId) {
        self.open.take_if(|open| open.peer == node || open.gathers);
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
        let is_free = self.resyncs.open.is_none() && self.resyncs.not_before <= now;
        if !is_free || self.writable(turn.store).is_err() {
            return;
        }
        let Some(open) = self.next_resync() else { return };
        self.counters.resyncs += 1;
        self.ask_for_page(open, turn);
    }

    /// Between two batches: takes what is behind.
    pub(super) fn resync_behind<S: Store>(&mut self, turn: &mut Turn<'_, S>) {
        if !self.doubts.is_empty() {
            self.start_resyncs(turn);
        }
    }

    /// What is to be taken next: what is behind before what only lacks something.
    fn next_resync(&mut self) -> Option<Resync> {
        let failed = self.resyncs.failed;
        let is_failed = |node: &NodeId| Some(*node) == failed;
        let near = |node: &NodeId| {
            let layout = self.cluster.layout.as_ref();
            layout.is_some_and(|layout| layout.region_of(*node) == self.region)
        };
        let serving = |(partition, serving): (Partition, Vec<NodeId>)| {
            let up = serving.into_iter().filter(|&node| self.peers.is_up(node));
            let peer =
                up.min_by_key(|node| (is_failed(node), !near(node), self.peers.srtt_us(*node)))?;
            Some(Resync::new(partition, (peer, Vec::new()), false))
        };
        if let Some(open) = self.doubts.behind().find_map(serving) {
            return Some(open);
        }
        let quarantined: Vec<Partition> =
            self.doubts.all().map(|(partition, _)| partition).collect();
        for partition in quarantined {
            if let Some(mut others) = self.others_to_gather(partition)
                && let Some(peer) = others.pop()
            {
                return Some(Resync::new(partition, (peer, others), true));
            }
        }
        let from = |partition: Partition| {
            let peer = self.gaps.resync_from((partition, failed), |n| self.peers.is_up(n))?;
            Some(Resync::new(partition, (peer, Vec::new()), false))
        };
        let serving = |partition: &Partition| self.serves(*partition);
        self.gaps.partitions().into_iter().filter(serving).find_map(from)
    }

    fn ask_for_page<S: Store>(&mut self, mut open: Resync, turn: &mut Turn<'_, S>) {
        open.op = self.new_op();
        open.deadline = turn.now.mono.plus_ms(PAGE_MS);
        let (op, partition, after) = (open.op, open.partition, open.after.clone());
        let bytes_max = self.config.gap_bytes_max as u32;
        let state = self.partitions.get(&partition).filter(|_| after.is_none());
        let know = state.map(|state| state.all_known()).unwrap_or_default();
        let (gathers, run) = (open.gathers, self.run);
        let message = PeerMessage::PageAsk { op, partition, after, know, gathers, run, bytes_max };
        turn.out.push(Effect::Send { to: vec![open.peer], message });
        self.resyncs.open = Some(open);
    }

    /// Between two batches: answers others' questions, and asks again for what is late.
    pub(super) fn turn_pages<S: Store>(&mut self, turn: &mut Turn<'_, S>) {
        while let Some(asked) = self.resyncs.waiting.pop_front() {
            // Not answered, it is asked again, or of somebody else.
            if let Some(message) = self.page_or_standing(&asked, turn.store) {
                turn.out.push(Effect::Send { to: vec![asked.from], message });
            }
        }
        let now = turn.now.mono;
        let is_late = |open: &mut Resync| open.page.is_none() && open.deadline <= now;
        if let Some(mut open) = self.resyncs.open.take_if(is_late) {
            open.late += 1;
            if open.late < LATE_MAX {
                return self.ask_for_page(open, turn);
            }
            self.resyncs.failed = Some(open.peer);
            self.gaps.look_at(now);
        }
    }

    /// A page of a partition that is taken whole. It is taken in between two batches.
    pub(super) fn on_page(
        &mut self,
        (from, op): (NodeId, OpId),
        partition: Partition,
        (clock, know, ends): (DotSet, VersionVector, Vec<(Actor, End)>),
        (objects, is_last): (Vec<PageObject>, bool),
        now: Mono,
    ) {
        let is_it = |open: &mut Resync| {
            open.op == op && open.peer == from && open.partition == partition && open.page.is_none()
        };
        let Some(mut open) = self.resyncs.open.take_if(is_it) else { return };
        open.late = 0;
        if open.after.is_none() {
            (open.clock, open.know, open.ends) = (clock, know, ends);
            // What is folded away there was seen there, and is not in a clock that is sent.
            for (actor, end) in &open.ends {
                if let End::Folded(dots) = end {
                    open.clock.insert_range(*actor, 1, dots.max());
                }
            }
        }
        let end = match (objects.last(), is_last) {
            (_, true) => end_row(partition),
            (Some(PageObject { bucket, key, .. }), false) => {
                open.after = Some((*bucket, key.clone()));
                after_row(partition, *bucket, key)
            }
            (None, false) => return self.fail_resync(from, now),
        };
        open.page = Some(Page { objects: objects.into(), end, is_last });
        self.resyncs.open = Some(open);
    }

    /// The replica of which a page was asked says where it stands instead.
    pub(super) fn on_no_page(
        &mut self,
        (from, op): (NodeId, OpId),
        positions: &[(Partition, Position)],
        now: Mono,
    ) {
        let is_it = |open: &mut Resync| open.op == op && open.peer == from && open.page.is_none();
        let Some(open) = self.resyncs.open.take_if(is_it) else { return };
        for (partition, theirs) in positions.iter().filter(|(at, _)| *at == open.partition) {
            self.compare(*partition, from, theirs);
        }
        // Rather from somebody else. If there is nobody, that one needs time to come back.
        self.resyncs.failed = Some(from);
        self.resyncs.not_before = now.plus_ms(ASIDE_MS);
        self.gaps.look_at(self.resyncs.not_before);
    }

    /// Between two batches: takes in some of a page that has come.
    pub(super) fn take_page<S: Store>(&mut self, turn: &mut Turn<'_, S>) {
        let has_page = |open: &mut Resync| open.page.is_some();
        let Some(mut open) = self.resyncs.open.take_if(has_page) else { return };
        let Some(mut page) = open.page.take() else { return };
        let Ok(()) = self.walk_page(&mut open, &mut page, turn) else {
            return self.fail_resync(open.peer, turn.now.mono);
        };
        if open.walked < page.end {
            open.page = Some(page);
            self.resyncs.open = Some(open);
        } else if !page.is_last {
            self.ask_for_page(open, turn);
        } else {
            self.end_resync(open, turn);
        }
    }

    /// Walks through the page and the own rows beside it, as far as one batch goes.
    fn walk_page<S: Store>(
        &mut self,
        open: &mut Resync,
        page: &mut Page,
        turn: &mut Turn<'_, S>,
    ) -> Result<(), ()> {
        let partition = open.partition;
        let rows =
            turn.store.scan(Table::Objects, &open.walked, &page.end, ROWS).map_err(|_| ())?;
        let until = match rows.last() {
            Some((last, _)) if rows.len() >= ROWS => [last, &[0][..]].concat(),
            _ => page.end.clone(),
        };
        let mut came = BTreeSet::new();
        while let Some(PageObject { bucket, key, .. }) = page.objects.front() {
            let mut row = Vec::new();
            object_key(&mut row, partition, *bucket, key);
            if row < open.walked || row >= page.end {
                // Pages are in the order of keys.
                return Err(());
            }
            if row >= until {
                break;
            }
            let Some(PageObject { bucket, key, object }) = page.objects.pop_front() else { break };
            let write = Incoming { partition, bucket, key, object };
            self.join_whole(&write, &open.clock, turn).map_err(|_| ())?;
            self.counters.resync_objects += 1;
            came.insert(row);
        }
        for (row, _) in rows.iter().filter(|(row, _)| !came.contains(row)) {
            let (bucket, key) = place_of(row).ok_or(())?;
            self.drop_dead(partition, (bucket, key), &open.clock, turn.store).map_err(|_| ())?;
        }
        open.walked = until;
        Ok(())
    }

    /// All of a replica is here: adopts what it had seen, and serves if that was all.
    fn end_resync<S: Store>(&mut self, mut open: Resync, turn: &mut Turn<'_, S>) {
        let now = turn.now.mono;
        let partition = open.partition;
        // Before the clock, in which what is void counts as seen.
        self.adopt_ends(partition, &open.ends);
        if !self.adopt(partition, (&open.clock, &open.know)) {
            return self.fail_resync(open.peer, now);
        }
        self.adopt_folds(partition, &open.ends);
        if let Some(peer) = open.left.pop() {
            let next = Resync::new(partition, (peer, open.left), open.gathers);
            return self.ask_for_page(next, turn);
        }
        if self.standing(partition) == Standing::Behind {
            self.heal(partition);
        }
        self.resyncs.failed = None;
        self.gaps.look_at(now);
    }

    /// What came cannot be taken: begun anew later, rather from somebody else.
    fn fail_resync(&mut self, peer: NodeId, now: Mono) {
        self.counters.peer_rejections += 1;
        self.resyncs.failed = Some(peer);
        self.resyncs.not_before = now.plus_ms(AGAIN_MS);
        self.gaps.look_at(self.resyncs.not_before);
    }

    /// Marks what another replica had seen, all of whose objects are joined. Says whether that can be.
    pub(super) fn adopt(
        &mut self,
        partition: Partition,
        (clock, know): (&DotSet, &VersionVector),
    ) -> bool {
        let Some(state) = self.partitions.get_mut(&partition) else { return false };
        // Only this run can have made this run's dots.
        let own = clock.get(self.boot.actor).map_or(0, |own| own.max());
        let new =
            clock.iter().filter(|(actor, _)| state.clock().seen_of(*actor).is_empty()).count();
        if own > state.own_counter() || state.clock().actors() + new > ACTORS_MAX {
            return false;
        }
        state.adopt(clock);
        // What nobody has seen is not known by anybody.
        if state.has_seen_all(know) {
            state.learn_stable(know);
        }
        self.log.adopt(partition);
        self.log.account(partition);
        // Of what came the log need not tell everything: what was seen here before has no entry any more.
        self.owe_sweep(partition);
        true
    }
}

/// The least row of a partition, and the least above them.
fn first_row(partition: Partition) -> Vec<u8> {
    partition.to_u32().to_be_bytes().to_vec()
}

fn end_row(partition: Partition) -> Vec<u8> {
    let end = partition.to_u32().checked_add(1);
    end.map_or(vec![0xff; OBJECT_KEY_HEAD_LEN + KEY_LEN_MAX + 1], |end| end.to_be_bytes().to_vec())
}

/// The least row above an object's.
fn after_row(partition: Partition, bucket: BucketId, key: &[u8]) -> Vec<u8> {
    let mut row = Vec::new();
    object_key(&mut row, partition, bucket, key);
    row.push(0);
    row
}

/// Bucket and key of a row.
fn place_of(row: &[u8]) -> Option<(BucketId, Bytes)> {
    let bucket = row.get(4..OBJECT_KEY_HEAD_LEN)?.try_into().ok()?;
    let key = Bytes::copy_from_slice(row.get(OBJECT_KEY_HEAD_LEN..)?);
    Some((BucketId(u32::from_be_bytes(bucket)), key))
}
