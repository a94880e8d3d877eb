//! Hinted handoff: what is kept for a replica goes to it when it can be reached again.
//!
//! For each such replica there is a *lane*: it passes through the replica's hints in the order of
//! their keys and sends them, as much at a time as the replica has granted. The replica joins them
//! as it joins any object and answers each once it is durable. **A hint goes only when its own
//! message was answered, by the run to which it went, and only if it has not changed since**: a lane
//! ends with its connection, and whatever it was waiting for is nobody's answer any more (an
//! acknowledgement dies with its disk). What was refused, what changed, what got lost, is met again
//! on the next pass.
//!
//! **Lowest priority**: a shard with much else to do sends nothing for a while; a replica with much
//! else to do grants nothing, and then gets a single message after a pause, to be asked again.
//! What a disk that was another node's keeps for this one is joined at the start.
//! A replica that refuses for a reason of its own is left alone for longer and longer.
//!
//! Source: Dynamo (SOSP 2007) 4.6. Credit granted by the receiver: QUIC, RFC 9000, section 4.

use std::collections::BTreeMap;

use bytes::Bytes;
use holm_protocol::ids::{BucketId, NodeId, Partition};
use xxhash_rust::xxh3::xxh3_64;

use crate::keys::{hint_key, hint_key_parts};
use crate::peer::{HintMessage, OpId, PeerMessage, Refusal};
use crate::shard::event::Effect;
use crate::shard::hints::{end_key, first_key, object_of};
use crate::shard::orphans::Search;
use crate::shard::replica::Incoming;
use crate::shard::{Shard, Turn};
use crate::store::{Store, Table};
use crate::time::Mono;

/// Hints read at a time. Arbitrary: few, because each can be as long as an object.
const ROWS: usize = 8;

/// Messages to one replica on their way, however short. Arbitrary.
const IN_FLIGHT_MAX: usize = 256;

/// The longest pause after a refusal, in intervals at which writes are sent again. Arbitrary: some
/// seconds.
const BACKOFF_MAX: u64 = 8;

/// How often it doubles how long answers are awaited, at most: to a minute, with four times a second.
const PATIENCE_MAX: u32 = 6;

/// A hint on its way home.
#[derive(Debug)]
struct Sent {
    key: Vec<u8>,
    /// The hash of the row that was sent.
    digest: u64,
    bytes: usize,
}

/// One replica's hints on their way.
#[derive(Debug)]
struct Lane {
    in_flight: BTreeMap<OpId, Sent>,
    in_flight_bytes: usize,
    /// The key at which the pass goes on; `None` at its end.
    next: Option<Vec<u8>>,
    /// What the replica has granted.
    window_bytes: usize,
    /// When something is to be done: to begin, to go on, or to give up waiting for answers.
    wake: Mono,
    /// Nothing is sent before.
    paused_until: Mono,
    backoff: u64,
    /// How often answers did not come in time. Each time they are awaited for twice as long: where a
    /// round trip and a sync take longer than that, every answer would be too late for ever.
    patience: u32,
}

impl Lane {
    fn new(replica: NodeId, at: Mono) -> Lane {
        Lane {
            in_flight: BTreeMap::new(),
            in_flight_bytes: 0,
            next: Some(first_key(replica)),
            window_bytes: 0,
            wake: at,
            paused_until: at,
            backoff: 1,
            patience: 0,
        }
    }

    /// Whether so many bytes more may be on their way.
    fn has_room(&self, bytes: usize) -> bool {
        let granted = self.in_flight_bytes + bytes <= self.window_bytes;
        self.in_flight.is_empty() || (granted && self.in_flight.len() < IN_FLIGHT_MAX)
    }

    /// Whether a pass is over.
    fn is_through(&self) -> bool {
        self.next.is_none() && self.in_flight.is_empty()
    }

    /// Starts over: what is still on its way will be sent again.
    fn restart(&mut self, replica: NodeId) {
        self.in_flight.clear();
        self.in_flight_bytes = 0;
        self.next = Some(first_key(replica));
    }
}

/// The lanes of one shard: of replicas that can be reached and have hints here.
#[derive(Debug, Default)]
pub(super) struct Handoff {
    lanes: BTreeMap<NodeId, Lane>,
    /// For hints whose replica a layout has taken out.
    pub(super) search: Option<Search>,
}

impl Handoff {
    /// When something is to be done.
    pub(super) fn next_wakeup(&self) -> Option<Mono> {
        let lanes = self.lanes.values().map(|lane| lane.wake);
        lanes.chain(self.search.iter().map(|search| search.at)).min()
    }

    /// A connection is lost: answers that still come are not of the run that is there next.
    pub(super) fn lost(&mut self, replica: NodeId) {
        self.lanes.remove(&replica);
    }
}

impl Shard {
    /// Sees to it that what is kept for a replica is sent to it, if it can be reached.
    pub(super) fn expect_handoff(&mut self, replica: NodeId, at: Mono) {
        let is_there = self.peers.is_up(replica) || replica == self.boot.node;
        if is_there && self.hints.total(replica).rows > 0 {
            self.handoff.lanes.entry(replica).or_insert_with(|| Lane::new(replica, at));
        }
    }

    /// The same, of all replicas.
    pub(super) fn expect_handoffs(&mut self, at: Mono) {
        let replicas: Vec<NodeId> = self.hints.replicas().collect();
        replicas.into_iter().for_each(|replica| self.expect_handoff(replica, at));
    }

    /// Does what is due.
    pub(super) fn tick_handoff<S: Store>(&mut self, turn: &mut Turn<'_, S>) {
        self.place_orphans(turn);
        let is_due = |(&node, lane): (&NodeId, &Lane)| (lane.wake <= turn.now.mono).then_some(node);
        let due: Vec<NodeId> = self.handoff.lanes.iter().filter_map(is_due).collect();
        for replica in due {
            if let Some(lane) = self.handoff.lanes.get_mut(&replica)
                && !lane.in_flight.is_empty()
            {
                // Nothing was heard for long: messages or answers got lost.
                self.counters.handoffs_lost += lane.in_flight.len() as u64;
                lane.restart(replica);
                lane.patience = (lane.patience + 1).min(PATIENCE_MAX);
            }
            self.hand_off(replica, turn);
        }
    }

    /// Sends what may be sent to a replica, and says when to look again.
    fn hand_off<S: Store>(&mut self, replica: NodeId, turn: &mut Turn<'_, S>) {
        let Some(mut lane) = self.handoff.lanes.remove(&replica) else { return };
        if replica == self.boot.node {
            return self.take_own_hints(turn);
        }
        let now = turn.now.mono;
        // Clients first. What cannot be deleted would be sent for nothing.
        if self.in_flight > self.config.in_flight_max / 4 || self.stopped.is_some() {
            lane.paused_until = lane.paused_until.max(now.plus_ms(self.pause_ms()));
        }
        if lane.is_through() {
            if self.hints.total(replica).rows == 0 {
                return;
            }
            // Some were refused, or have changed.
            lane.restart(replica);
            if lane.paused_until <= now {
                self.back_off(&mut lane, now);
            }
        }
        if lane.paused_until <= now {
            let sent = self.send_hints(replica, &mut lane, turn);
            if sent.is_err() || lane.is_through() {
                self.back_off(&mut lane, now);
            }
        }
        lane.wake = match lane.in_flight.is_empty() {
            true => lane.paused_until.max(Mono(now.0 + 1)),
            false => now.plus_ms((self.config.resend_ms * 4) << lane.patience),
        };
        self.handoff.lanes.insert(replica, lane);
    }

    fn back_off(&self, lane: &mut Lane, now: Mono) {
        lane.paused_until = now.plus_ms(self.config.resend_ms * lane.backoff);
        lane.backoff = (lane.backoff * 2).min(BACKOFF_MAX);
    }

    /// How long a busy side is left alone.
    fn pause_ms(&self) -> u64 {
        self.config.resend_ms / 4 + 1
    }

    /// Sends hints for as long as the replica has granted.
    fn send_hints<S: Store>(
        &mut self,
        replica: NodeId,
        lane: &mut Lane,
        turn: &mut Turn<'_, S>,
    ) -> Result<(), Refusal> {
        let end = end_key(replica);
        while let Some(from) = lane.next.take() {
            let rows = match turn.store.scan(Table::Hints, &from, &end, ROWS) {
                Ok(rows) => rows,
                Err(error) => {
                    lane.next = Some(from);
                    return Err(self.store_refusal(&error));
                }
            };
            let Some((last, _)) = rows.last() else { break };
            lane.next = Some([last, &[0][..]].concat());
            for (key, row) in rows {
                let Some((_, partition, bucket, user_key)) = hint_key_parts(&key) else { continue };
                if !self.boot.owns(partition) {
                    lane.next = self.boot.next_owned(partition).map(|p| first_of(replica, p));
                    break;
                }
                if !lane.has_room(row.len()) {
                    lane.next = Some(key);
                    return Ok(());
                }
                let (row, user_key) = (Bytes::from(row), Bytes::copy_from_slice(user_key));
                let (op, object) = (self.new_op(), object_of(&row));
                let message = HintMessage::HandOff { op, partition, bucket, key: user_key, object };
                let message = PeerMessage::Hint(message);
                turn.out.push(Effect::Send { to: vec![replica], message });
                lane.in_flight_bytes += row.len();
                let (digest, bytes) = (xxh3_64(&row), row.len());
                lane.in_flight.insert(op, Sent { key, digest, bytes });
            }
        }
        Ok(())
    }

    /// Joins what the disk keeps for this very node: it was another's before.
    fn take_own_hints<S: Store>(&mut self, turn: &mut Turn<'_, S>) {
        let me = self.boot.node;
        let mut from = first_key(me);
        while let Ok(rows) = turn.store.scan(Table::Hints, &from, &end_key(me), ROWS) {
            let Some((last, _)) = rows.last() else { break };
            if self.is_crowded() {
                // The rest after the commit.
                return self.expect_handoff(me, Mono(turn.now.mono.0 + 1));
            }
            from = [last, &[0][..]].concat();
            for (key, row) in rows {
                let Some((_, partition, bucket, name)) = hint_key_parts(&key) else { continue };
                let (row, name) = (Bytes::from(row), Bytes::copy_from_slice(name));
                let object = object_of(&row);
                let write = Incoming { partition, bucket, key: name, object };
                // In one commit; what cannot be joined stays.
                if self.boot.owns(partition) && self.join_incoming(&write, turn).is_ok() {
                    self.note_hint_gone(partition, &row);
                    self.hints.set(key, Some(&row), None);
                }
            }
        }
        // What a full disk did not take, for one.
        self.expect_handoff(me, turn.now.mono.plus_ms(self.config.resend_ms * BACKOFF_MAX));
    }

    /// A replica has answered whether a hint is home.
    pub(super) fn on_handed_off<S: Store>(
        &mut self,
        (replica, op): (NodeId, OpId),
        refused: Option<Refusal>,
        window_bytes: u32,
        turn: &mut Turn<'_, S>,
    ) {
        let Some(lane) = self.handoff.lanes.get_mut(&replica) else { return };
        // Of an earlier connection, or given up.
        let Some(sent) = lane.in_flight.remove(&op) else { return };
        lane.in_flight_bytes -= sent.bytes;
        lane.window_bytes = window_bytes as usize;
        let now = turn.now.mono;
        let mut pause_until = lane.paused_until;
        match refused {
            None => {
                lane.backoff = 1;
                if window_bytes == 0 {
                    pause_until = pause_until.max(now.plus_ms(self.pause_ms()));
                }
                self.is_home(&sent, turn);
            }
            Some(refusal) => {
                self.counters.handoffs_refused += 1;
                // About one hint: the others may be taken.
                let is_of_the_key = matches!(
                    refusal,
                    Refusal::Corrupt | Refusal::NotReplica | Refusal::UnknownBucket
                );
                if refusal.is_of_the_node() && !is_of_the_key && lane.paused_until <= now {
                    pause_until = now.plus_ms(self.config.resend_ms * lane.backoff);
                    lane.backoff = (lane.backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
        if let Some(lane) = self.handoff.lanes.get_mut(&replica) {
            lane.paused_until = pause_until;
        }
        self.hand_off(replica, turn);
    }

    /// Deletes a hint that is durable at home, unless it has changed since it was sent.
    fn is_home<S: Store>(&mut self, sent: &Sent, turn: &mut Turn<'_, S>) {
        // What is read after a failed commit may not be what is there.
        if self.stopped.is_some() {
            return;
        }
        if let Ok(Some(row)) = self.hints.get(&sent.key, turn.store)
            && xxh3_64(&row) == sent.digest
        {
            self.counters.hints_handed_off += 1;
            if let Some((_, partition, ..)) = hint_key_parts(&sent.key) {
                self.note_hint_gone(partition, &row);
            }
            self.hints.set(sent.key.clone(), Some(&row), None);
        }
    }

    /// Joins what another node has kept for this one, and says so once it is durable.
    pub(super) fn on_hand_off<S: Store>(
        &mut self,
        (from, op): (NodeId, OpId),
        write: &Incoming,
        turn: &mut Turn<'_, S>,
    ) {
        let partition = write.partition;
        let refused = self.join_incoming(write, turn).err();
        let window_bytes = self.handoff_window();
        let message =
            PeerMessage::Hint(HintMessage::HandedOff { op, partition, refused, window_bytes });
        let effect = Effect::Send { to: vec![from], message };
        match refused {
            Some(refusal) => {
                self.counters.peer_rejections += u64::from(!refusal.is_of_the_node());
                turn.out.push(effect);
            }
            None => {
                self.counters.hints_received += 1;
                self.held.push(effect);
            }
        }
    }

    /// What each node may have on its way to this one: its share of the window, as all nodes of the
    /// region may have hints, and nothing while clients need the room.
    fn handoff_window(&self) -> u32 {
        let is_busy = self.in_flight > self.config.in_flight_max / 2
            || self.held_bytes > self.config.held_bytes_max / 2
            || self.is_crowded();
        let nodes = match (&self.cluster.layout, self.region) {
            (Some(layout), Some(region)) => layout.nodes_in(region).len(),
            _ => 1,
        };
        if is_busy { 0 } else { (self.config.handoff_window_bytes / nodes.max(1)) as u32 }
    }
}

/// The least key of the hints for a replica in a partition.
fn first_of(replica: NodeId, partition: Partition) -> Vec<u8> {
    hint_key(replica, partition, BucketId(0), &[])
}
