//! Anti-entropy: two replicas verify that they hold the same of a partition, and mend what differs.
//!
//! Clocks say which writes a replica has taken in, and gap repair brings the others. Verification
//! finds what clocks cannot: rows that a disk lost or damaged, and bugs. It is no part of keeping
//! replicas equal while all is well.
//!
//! 1. Both scan the partition, a slice at a time, and compare digests ([`crate::merkle`]).
//! 2. Of the segments that differ they compare keys; under load most such keys are writes on their way.
//! 3. Of the keys that differ each sends what it has *and its clock*, and takes in the other's.
//!
//! **What is a violation.** A value that lives there and not here, although this clock has seen its
//! dot and no context here covers it, was either overwritten by a write that is forgotten here, or
//! was lost here. If their clock has seen all that this one has, they have seen that write too, and would
//! not hold the value (I3). So it was lost, or else they hold what they should not: their clock cannot
//! both be right and agree with ours. It is counted, told with both states, and the value is restored: of two
//! mistakes that cannot be told apart, a loss is the worse one (I5 before I4), and an operator is told of both.
//! A context that covers the value is evidence that it was overwritten, and the usual join drops it there.
//!
//! **Damaged rows** are replaced by the other's object, if its clock has seen all that this one has:
//! otherwise the clock here would claim writes that went with the row.
//!
//! The lower of two nodes begins, once in [`ShardConfig::verify_every_ms`] for each partition and
//! peer, one at a time, a slice of rows at a time ([`ShardConfig::verify_rows`]): foreground work goes
//! on between slices.
//!
//! Source: Dynamo (SOSP 2007) 4.7; scrubbing as in Ganesan et al., FAST 2017.
//!
//! [`ShardConfig::verify_every_ms`]: crate::shard::config::ShardConfig::verify_every_ms
//! [`ShardConfig::verify_rows`]: crate::shard::config::ShardConfig::verify_rows

mod demand;
mod found;
mod mend;
mod scan;
mod schedule;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use holm_protocol::ids::{BucketId, NodeId, Partition};

use crate::merkle::{Hash, MIDDLE, Tree};
use crate::peer::verify::{Answer, KeyState, OBJECTS_MAX, Place, Question};
use crate::peer::{OpId, PeerMessage, Refusal, Standing};
use crate::shard::event::{Effect, Verified, VerifyEnd};
use crate::shard::{Op, Shard, Turn};
use crate::store::Store;
use crate::time::Mono;

pub(super) use found::Found;
use scan::{Digesting, KeyPage};
pub(super) use schedule::Schedule;

/// Others' sessions at a time. A session holds one tree, 64 KiB. One that has told its digests gives
/// way to a new one: most end there, and nobody says so.
const SESSIONS_MAX: usize = 4;

/// How long the other side may take for one answer, and a session may wait for the next question,
/// milliseconds. Beyond it the verification is given up, and begun again when it is due.
const PATIENCE_MS: u64 = 30_000;

/// Objects are gathered into one message up to so many bytes: little beside what a link carries in
/// a round trip, much beside a frame's head.
const OBJECT_BYTES: usize = 256 << 10;

/// A verification that this node began.
#[derive(Debug)]
pub(super) struct VerifyOp {
    partition: Partition,
    peer: NodeId,
    stage: Stage,
    /// What the end is told with.
    differing_keys: u64,
    wake: Mono,
}

#[derive(Debug)]
enum Stage {
    /// Scanning, and waiting for the other's level in the middle, which may come first.
    Digesting(Box<Digesting>, Option<Vec<Hash>>),
    /// Waiting for leaves under these nodes.
    Leaves(Box<Tree>, Vec<u16>),
    /// Waiting for a page of keys.
    Keys(Vec<u16>, Option<Place>),
    /// Waiting for objects; then further keys of the page, and the next page.
    Objects { segments: Vec<u16>, rest: Vec<Place>, until: Option<Place> },
}

/// Another node's verification, at the node that is asked.
#[derive(Debug)]
pub(super) struct SessionOp {
    peer: NodeId,
    /// Their number for it.
    upstream: OpId,
    partition: Partition,
    stage: SessionStage,
    wake: Mono,
}

#[derive(Debug)]
enum SessionStage {
    Digesting(Box<Digesting>),
    /// Answered; the tree is kept for the question about leaves.
    Digested(Box<Tree>),
}

impl VerifyOp {
    /// Whether it is this node whose answer is awaited.
    pub(super) fn waits_for(&self, node: NodeId) -> bool {
        self.peer == node
    }
}

impl Shard {
    /// Begins what is due, one verification at a time.
    pub(super) fn begin_verifying<S: Store>(&mut self, turn: &mut Turn<'_, S>) {
        let Shard { schedule, peers, doubts, .. } = self;
        let is_time = schedule.next().is_some_and(|at| at <= turn.now.mono);
        let is_able =
            |(partition, peer)| doubts.standing(partition) == Standing::Serves && peers.is_up(peer);
        let next = if is_time { schedule.next_due(turn.now.mono, is_able) } else { None };
        let Some((partition, peer)) = next.filter(|_| self.stopped.is_none()) else { return };
        let id = self.new_op();
        let op = PeerMessage::Verify { op: id, partition, question: Question::Middle };
        turn.out.push(Effect::Send { to: vec![peer], message: op });
        let stage = Stage::Digesting(Box::new(Digesting::new(partition)), None);
        let wake = turn.now.mono;
        self.schedule.began(id);
        self.counters.verifications_begun += 1;
        let op = VerifyOp { partition, peer, stage, differing_keys: 0, wake };
        self.timers.set(wake, id);
        self.ops.insert(id.0, Op::Verify(Box::new(op)));
    }

    /// The other replica cannot be reached any more.
    pub(super) fn verify_lost<S: Store>(&mut self, id: OpId, turn: &mut Turn<'_, S>) {
        match self.ops.remove(&id.0) {
            Some(Op::Verify(op)) => {
                self.timers.clear(op.wake, id);
                self.end_verify(*op, VerifyEnd::NoAnswer, turn);
            }
            Some(other) => {
                self.ops.insert(id.0, other);
            }
            None => {}
        }
    }

    /// The next slice of a scan, or the end of patience.
    pub(super) fn wake_verify<S: Store>(
        &mut self,
        id: OpId,
        mut op: Box<VerifyOp>,
        turn: &mut Turn<'_, S>,
    ) {
        let Stage::Digesting(digesting, _) = &mut op.stage else {
            return self.end_verify(*op, VerifyEnd::NoAnswer, turn);
        };
        if digesting.is_done() {
            return self.end_verify(*op, VerifyEnd::NoAnswer, turn);
        }
        self.scan_slice(digesting, turn.store);
        if digesting.is_done() {
            return self.compare_middle(id, op, turn);
        }
        op.wake = turn.now.mono.plus_ms(1);
        self.timers.set(op.wake, id);
        self.ops.insert(id.0, Op::Verify(op));
    }

    /// An answer to a question of this node's verification.
    pub(super) fn on_verify_answer<S: Store>(
        &mut self,
        id: OpId,
        from: NodeId,
        answer: Answer,
        turn: &mut Turn<'_, S>,
    ) {
        let mut op = match self.ops.remove(&id.0) {
            Some(Op::Verify(op)) if op.peer == from => op,
            Some(other) => {
                self.counters.peer_rejections += 1;
                self.ops.insert(id.0, other);
                return;
            }
            None => return,
        };
        // Found out meanwhile: what is here is no evidence.
        let answer = self.check_standing(op.partition).map_or_else(Answer::Refused, |()| answer);
        match (&mut op.stage, answer) {
            (_, Answer::Refused(refusal)) => {
                self.timers.clear(op.wake, id);
                self.end_verify(*op, VerifyEnd::Refused(refusal), turn);
            }
            (Stage::Digesting(digesting, theirs), Answer::Middle(nodes)) => {
                *theirs = Some(nodes);
                if digesting.is_done() {
                    self.timers.clear(op.wake, id);
                    return self.compare_middle(id, op, turn);
                }
                self.ops.insert(id.0, Op::Verify(op));
            }
            (Stage::Leaves(tree, nodes), Answer::Leaves(leaves))
                if leaves.len() == nodes.len() << MIDDLE =>
            {
                let differing = differing_segments(tree, nodes, &leaves);
                self.timers.clear(op.wake, id);
                self.next_page(id, op, differing, None, turn);
            }
            (Stage::Keys(segments, after), Answer::Keys { keys, until }) => {
                let page = KeyPage {
                    segments: std::mem::take(segments),
                    after: after.take(),
                    keys,
                    until,
                };
                self.timers.clear(op.wake, id);
                self.compare_keys(id, op, page, turn);
            }
            (Stage::Objects { segments, rest, until }, Answer::Objects(clock, states)) => {
                let (segments, rest, until) =
                    (std::mem::take(segments), std::mem::take(rest), until.take());
                self.timers.clear(op.wake, id);
                self.mend(op.partition, from, (&clock, states), turn);
                if rest.is_empty() {
                    self.after_page(id, op, segments, until, turn);
                } else {
                    self.send_objects(id, op, (segments, rest, until), turn);
                }
            }
            _ => {
                self.counters.peer_rejections += 1;
                self.ops.insert(id.0, Op::Verify(op));
            }
        }
    }

    /// Own scan done: compares, as soon as the other's answer is there.
    fn compare_middle<S: Store>(
        &mut self,
        id: OpId,
        mut op: Box<VerifyOp>,
        turn: &mut Turn<'_, S>,
    ) {
        let Stage::Digesting(digesting, theirs) = &mut op.stage else { return };
        let Some(theirs) = theirs.take() else {
            return self.wait(id, op, turn);
        };
        let tree = digesting.tree();
        let differs =
            |node: &u16| theirs.get(usize::from(*node)) != tree.middle().get(usize::from(*node));
        let nodes: Vec<u16> = (0..tree.middle().len() as u16).filter(differs).collect();
        if nodes.is_empty() {
            return self.end_verify(*op, VerifyEnd::Equal, turn);
        }
        let question = Question::Leaves(nodes.clone());
        op.stage = Stage::Leaves(Box::new(tree), nodes);
        self.ask_verify(id, op, question, turn);
    }

    /// Asks for the keys of segments, from a place on.
    fn next_page<S: Store>(
        &mut self,
        id: OpId,
        mut op: Box<VerifyOp>,
        segments: Vec<u16>,
        after: Option<Place>,
        turn: &mut Turn<'_, S>,
    ) {
        let question = Question::Keys { segments: segments.clone(), after: after.clone() };
        op.stage = Stage::Keys(segments, after);
        self.ask_verify(id, op, question, turn);
    }

    fn after_page<S: Store>(
        &mut self,
        id: OpId,
        op: Box<VerifyOp>,
        segments: Vec<u16>,
        until: Option<Place>,
        turn: &mut Turn<'_, S>,
    ) {
        match until {
            Some(until) => self.next_page(id, op, segments, Some(until), turn),
            None => self.end_verify(*op, VerifyEnd::Mended, turn),
        }
    }

    /// Compares a page of their keys with the same stretch here.
    fn compare_keys<S: Store>(
        &mut self,
        id: OpId,
        mut op: Box<VerifyOp>,
        page: KeyPage,
        turn: &mut Turn<'_, S>,
    ) {
        let own = self.own_keys(op.partition, &page, turn.store);
        let Some((own, until)) = own else {
            // What cannot be read in one stretch is compared key by key with what they have.
            let rest = page.keys.into_iter().map(|(place, _)| place).collect();
            return self.send_objects(id, op, (page.segments, rest, page.until), turn);
        };
        // The shorter of both stretches is what both know of.
        let until = match (until, page.until) {
            (None, theirs) => theirs,
            (own, None) => own,
            (Some(own), Some(theirs)) => Some(own.min(theirs)),
        };
        let reached = |place: &Place| until.as_ref().is_none_or(|until| place <= until);
        let theirs: BTreeMap<Place, u128> =
            page.keys.into_iter().filter(|(place, _)| reached(place)).collect();
        let own: BTreeMap<Place, u128> =
            own.into_iter().filter(|(place, _)| reached(place)).collect();
        let all: BTreeSet<&Place> = theirs.keys().chain(own.keys()).collect();
        let differs = |place: &&Place| theirs.get(*place) != own.get(*place);
        let rest: Vec<Place> = all.into_iter().filter(differs).cloned().collect();
        op.differing_keys += rest.len() as u64;
        self.counters.verified_keys_differing += rest.len() as u64;
        if rest.is_empty() {
            return self.after_page(id, op, page.segments, until, turn);
        }
        self.send_objects(id, op, (page.segments, rest, until), turn);
    }

    /// Sends what is here under the next keys that differ.
    fn send_objects<S: Store>(
        &mut self,
        id: OpId,
        mut op: Box<VerifyOp>,
        (segments, mut rest, until): (Vec<u16>, Vec<Place>, Option<Place>),
        turn: &mut Turn<'_, S>,
    ) {
        let Some(clock) = self.partitions.get(&op.partition).map(|state| state.clock().clone())
        else {
            return self.end_verify(*op, VerifyEnd::Refused(Refusal::NotReplica), turn);
        };
        let mut states = Vec::new();
        let (mut bytes, mut taken) = (0, 0);
        for place in &rest {
            if states.len() == OBJECTS_MAX || bytes >= OBJECT_BYTES {
                break;
            }
            taken += 1;
            let state = self.state_of(op.partition, place.clone(), turn.store);
            bytes += state.object.as_ref().map_or(0, Bytes::len);
            states.push(state);
        }
        rest.drain(..taken);
        op.stage = Stage::Objects { segments, rest, until };
        // What is sent may be of the open batch: it leaves after the commit, with the clock.
        let message = PeerMessage::Verify {
            op: id,
            partition: op.partition,
            question: Question::Objects(clock, states),
        };
        self.held.push(Effect::Send { to: vec![op.peer], message });
        self.wait(id, op, turn);
    }

    fn ask_verify<S: Store>(
        &mut self,
        id: OpId,
        op: Box<VerifyOp>,
        question: Question,
        turn: &mut Turn<'_, S>,
    ) {
        let message = PeerMessage::Verify { op: id, partition: op.partition, question };
        turn.out.push(Effect::Send { to: vec![op.peer], message });
        self.wait(id, op, turn);
    }

    fn wait<S: Store>(&mut self, id: OpId, mut op: Box<VerifyOp>, turn: &mut Turn<'_, S>) {
        op.wake = turn.now.mono.plus_ms(PATIENCE_MS);
        self.timers.set(op.wake, id);
        self.ops.insert(id.0, Op::Verify(op));
    }

    pub(super) fn end_verify<S: Store>(
        &mut self,
        op: VerifyOp,
        end: VerifyEnd,
        turn: &mut Turn<'_, S>,
    ) {
        let is_verified = matches!(end, VerifyEnd::Equal | VerifyEnd::Mended);
        self.counters.verifications_done += u64::from(is_verified);
        let VerifyOp { partition, peer, differing_keys, .. } = op;
        self.schedule.ended(turn.now.mono, &Verified { partition, peer, differing_keys, end });
        turn.out.push(Effect::Verified(Verified { partition, peer, differing_keys, end }));
    }

    /// Another node's question.
    pub(super) fn on_verify<S: Store>(
        &mut self,
        (from, upstream): (NodeId, OpId),
        partition: Partition,
        question: Question,
        turn: &mut Turn<'_, S>,
    ) {
        let answer = match self.check_session(partition, from) {
            Err(refusal) => Answer::Refused(refusal),
            Ok(()) => match question {
                Question::Middle => match self.begin_session((from, upstream), partition, turn) {
                    Ok(()) => return,
                    Err(refusal) => Answer::Refused(refusal),
                },
                Question::Leaves(nodes) => self.session_leaves(from, upstream, &nodes),
                Question::Keys { segments, after } => {
                    let page = KeyPage { segments, after, keys: vec![], until: None };
                    match self.own_keys(partition, &page, turn.store) {
                        Some((keys, until)) => Answer::Keys { keys, until },
                        None => Answer::Refused(Refusal::Corrupt),
                    }
                }
                Question::Objects(clock, states) => {
                    self.exchange(partition, from, (&clock, states), turn)
                }
            },
        };
        let message = PeerMessage::VerifyReply { op: upstream, partition, answer };
        self.held.push(Effect::Send { to: vec![from], message });
    }

    /// Answers with what is here, then takes in what came.
    fn exchange<S: Store>(
        &mut self,
        partition: Partition,
        from: NodeId,
        (clock, states): (&crate::clock::PartitionClock, Vec<KeyState>),
        turn: &mut Turn<'_, S>,
    ) -> Answer {
        let own_clock =
            self.partitions.get(&partition).map(|it| it.clock().clone()).unwrap_or_default();
        let mut own = Vec::with_capacity(states.len());
        let mut bytes = 0;
        for state in &states {
            // The asker goes on with what it did not get when it is due again.
            if bytes >= 2 * OBJECT_BYTES {
                break;
            }
            let state = self.state_of(partition, state.at.clone(), turn.store);
            bytes += state.object.as_ref().map_or(0, Bytes::len);
            own.push(state);
        }
        self.mend(partition, from, (clock, states), turn);
        Answer::Objects(own_clock, own)
    }

    fn check_session(&self, partition: Partition, from: NodeId) -> Result<(), Refusal> {
        let layout = self.cluster.layout.as_ref().ok_or(Refusal::NotReplica)?;
        if !self.partitions.contains_key(&partition) || !layout.is_replica(partition, from) {
            return Err(Refusal::NotReplica);
        }
        self.check_standing(partition)
    }

    fn begin_session<S: Store>(
        &mut self,
        (peer, upstream): (NodeId, OpId),
        partition: Partition,
        turn: &mut Turn<'_, S>,
    ) -> Result<(), Refusal> {
        if self.schedule.sessions.len() >= SESSIONS_MAX && !self.end_idle_session() {
            return Err(Refusal::Overloaded);
        }
        let id = self.new_op();
        let stage = SessionStage::Digesting(Box::new(Digesting::new(partition)));
        let wake = turn.now.mono;
        let op = SessionOp { peer, upstream, partition, stage, wake };
        self.schedule.sessions.insert((peer, upstream), id);
        self.timers.set(wake, id);
        self.ops.insert(id.0, Op::Session(Box::new(op)));
        Ok(())
    }

    /// The next slice of another's session, or its end.
    pub(super) fn wake_session<S: Store>(
        &mut self,
        id: OpId,
        mut op: Box<SessionOp>,
        turn: &mut Turn<'_, S>,
    ) {
        let SessionStage::Digesting(digesting) = &mut op.stage else {
            self.schedule.sessions.remove(&(op.peer, op.upstream));
            return;
        };
        self.scan_slice(digesting, turn.store);
        if digesting.is_done() {
            let tree = digesting.tree();
            let (upstream, partition) = (op.upstream, op.partition);
            let answer = Answer::Middle(tree.middle().to_vec());
            let message = PeerMessage::VerifyReply { op: upstream, partition, answer };
            turn.out.push(Effect::Send { to: vec![op.peer], message });
            op.stage = SessionStage::Digested(Box::new(tree));
            op.wake = turn.now.mono.plus_ms(PATIENCE_MS);
        } else {
            op.wake = turn.now.mono.plus_ms(1);
        }
        self.timers.set(op.wake, id);
        self.ops.insert(id.0, Op::Session(op));
    }

    fn session_leaves(&mut self, from: NodeId, upstream: OpId, nodes: &[u16]) -> Answer {
        let id = self.schedule.sessions.get(&(from, upstream));
        let op = id.and_then(|id| self.ops.get(&id.0));
        let Some(Op::Session(op)) = op else { return Answer::Refused(Refusal::Malformed) };
        match &op.stage {
            SessionStage::Digested(tree) => Answer::Leaves(
                nodes.iter().flat_map(|node| tree.leaves_under(*node)).copied().collect(),
            ),
            SessionStage::Digesting(_) => Answer::Refused(Refusal::Malformed),
        }
    }
}

/// Which segments' leaves differ from the other's, given those under some nodes of the middle.
fn differing_segments(tree: &Tree, nodes: &[u16], leaves: &[Hash]) -> Vec<u16> {
    let mut differing = Vec::new();
    for (node, theirs) in nodes.iter().zip(leaves.chunks(1 << MIDDLE)) {
        for (at, (own, their)) in tree.leaves_under(*node).iter().zip(theirs).enumerate() {
            if own != their {
                differing.push((node << MIDDLE) + at as u16);
            }
        }
    }
    differing
}

/// What stands before the keys of a partition, and where it ends, in the table of objects.
pub(super) fn bounds(partition: Partition) -> (Vec<u8>, Vec<u8>) {
    let first = partition.to_u32().to_be_bytes().to_vec();
    // The last partition ends where four bytes end.
    let end = match partition.to_u32().checked_add(1) {
        Some(next) => next.to_be_bytes().to_vec(),
        None => {
            vec![0xff; 5 + crate::keys::OBJECT_KEY_HEAD_LEN + holm_protocol::limits::KEY_LEN_MAX]
        }
    };
    (first, end)
}

/// Bucket and key of a row of the table of objects; `None` if it is none.
pub(super) fn place_of(row_key: &[u8]) -> Option<Place> {
    let (bucket, key) = row_key.get(4..)?.split_first_chunk()?;
    Some((BucketId(u32::from_be_bytes(*bucket)), Bytes::copy_from_slice(key)))
}
