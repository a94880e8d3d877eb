//! The end of a batch: one atomic write, then what waited for it; or everything it did is taken back.
//!
//! What keeps [the promises](super) about failed commits is here: nothing of the batch is vouched for,
//! and the run that drew its dots draws no more.

use std::collections::BTreeMap;

use holm_protocol::error::{RequestError, StoreFault};
use holm_protocol::ids::{Actor, NodeId, Partition};
use holm_protocol::message::Reply;

use super::event::{Effect, Effects};
use super::log::LogLimits;
use super::partition::PartitionState;
use super::relay::Votes;
use super::{OwnVote, Shard, Turn};
use crate::clock::DotSet;
use crate::peer::{Found, PeerMessage, Refusal};
use crate::store::{Store, StoreError};
use crate::time::Now;

impl Shard {
    /// Ends a batch: makes everything it changed durable at once, then releases what was held.
    ///
    /// # Errors
    /// What the store reports. Nothing of the batch that failed is vouched for, everyone who waited for
    /// it is told, the shard refuses writes until [`Shard::resume`], and goes on serving reads. If that was
    /// a repair from within this commit, the batch before it is durable and its answers are in `out`.
    pub fn commit<S: Store>(
        &mut self,
        now: Now,
        store: &mut S,
        out: &mut Effects,
    ) -> Result<(), StoreError> {
        let turn = &mut Turn { now, store, out };
        self.turn_stable(turn);
        self.commit_batch(turn)?;
        // The own votes may have ended reads that found this replica stale: their repairs are a batch
        // of its own, and further reads may wait for it. Left open, it would be in the clock and not on
        // the disk when the clocks are written for a stop (I3).
        self.commit_rest(turn)?;
        // Between two batches, and a batch of its own, as above.
        self.take_page(turn);
        self.commit_rest(turn)?;
        self.ask_others(turn);
        self.tell(turn);
        self.keep_promises(turn);
        self.ask_for_gaps(turn);
        self.turn_pages(turn);
        self.resync_behind(turn);
        // Who is asked may find that it is behind, which is to outlive a crash.
        self.commit_rest(turn)?;
        self.check_invariants();
        Ok(())
    }

    /// Commits what commits have brought about.
    fn commit_rest<S: Store>(&mut self, turn: &mut Turn<'_, S>) -> Result<(), StoreError> {
        while self.has_changes() || !self.own_votes.is_empty() {
            self.commit_batch(turn)?;
        }
        Ok(())
    }

    fn has_changes(&self) -> bool {
        self.cache.has_changes()
            || self.log.has_pending()
            || self.hints.has_changes()
            || self.ends.has_changes()
    }

    /// Commits what is open, if anything is, and releases what waited for that.
    fn commit_batch<S: Store>(&mut self, turn: &mut Turn<'_, S>) -> Result<(), StoreError> {
        if self.has_changes() {
            self.cache.stage(turn.store);
            self.hints.stage(turn.store);
            self.ends.stage(turn.store);
            let limits = LogLimits {
                records: self.config.checkpoint_every,
                bytes: self.config.log_memory_bytes_max,
                segments: self.config.log_segment_bytes_max,
            };
            self.log.stage(limits, &self.partitions, turn.store);
            if let Err(error) = turn.store.commit() {
                self.roll_back(&error, turn);
                return Err(error);
            }
            self.digests.changed(self.cache.changed_keys());
            self.lag.committed();
        }
        self.claims.committed(self.log.pending(), self.boot.actor);
        for partition in self.log.adopted() {
            let Some(state) = self.partitions.get(partition) else { continue };
            self.claims.loaded(*partition, state.clock().known_actors());
        }
        let learned = self.stable.committed();
        self.claims.learned(learned);
        let cut = self.log.cut();
        self.log.committed();
        cut.into_iter().for_each(|partition| self.owe_sweep(partition));
        self.cache.committed();
        self.hints.committed();
        for (partition, actor) in self.ends.decided() {
            self.claims.loaded(partition, std::iter::once(actor));
        }
        self.ends.committed();
        self.retiring.committed(turn.store.committed());
        self.end_quarantines(turn.now.mono);
        turn.out.append(&mut self.held);
        for vote in std::mem::take(&mut self.own_votes) {
            match vote {
                OwnVote::Durable(op) => {
                    let me = self.boot.node;
                    self.on_write_votes(op, me, Votes { durable: &[me], refused: &[] }, turn);
                }
                OwnVote::Kept(op) => self.on_kept(op, (self.boot.node, None), None, turn),
                OwnVote::Found(op, found) => self.on_found(op, self.boot.node, found, turn),
                OwnVote::Answer(op) => self.answer_again(op, turn),
            }
        }
        Ok(())
    }

    /// Gives up an uncommitted batch. Its dots may be known elsewhere: this run draws no more.
    fn roll_back<S: Store>(&mut self, error: &StoreError, turn: &mut Turn<'_, S>) {
        let (fault, refusal) = match error {
            StoreError::Full => (StoreFault::Full, Refusal::StoreFull),
            _ => (StoreFault::Io, Refusal::StoreIo),
        };
        self.stopped = Some(fault);
        self.counters.commits_failed += 1;
        self.cache.roll_back();
        self.digests.doubt_all();
        self.lag.roll_back();
        self.hints.roll_back();
        self.retiring.roll_back();
        self.expect_handoffs(turn.now.mono);
        let mut concerned = self.log.roll_back();
        let changed = self.ends.roll_back();
        concerned.extend(changed.into_iter().filter(|it| self.partitions.contains_key(it)));
        concerned.append(&mut self.stable.roll_back());
        concerned.iter().for_each(|partition| self.stable.walk_again(*partition));
        let mut given_up: BTreeMap<Partition, DotSet> = BTreeMap::new();
        // What earlier pages brought may be gone with the batch.
        self.resyncs.give_up();
        self.doubts.roll_back();
        match self.log.load(&concerned, &self.partitions, turn.store) {
            Ok(loaded) => {
                for (id, mut state) in loaded {
                    state.mark_ends(id, &self.ends);
                    if let Some(before) = self.partitions.get(&id) {
                        state.count_on_from(before.own_counter());
                        given_up.insert(id, before.clock().without(state.clock()));
                    }
                    self.partitions.insert(id, state);
                }
            }
            // The clocks in memory claim dots that are not on disk, and cannot be set right: stop
            // answering reads and coordinating until a restart, which room on a full disk does not
            // replace.
            Err(_) => {
                self.stopped = Some(StoreFault::Io);
                self.lose_all(turn.now.mono);
            }
        }
        for (partition, dots) in given_up {
            self.notice_given_up(partition, &dots, turn.now.mono);
        }
        for effect in std::mem::take(&mut self.held) {
            if matches!(effect, Effect::Send { message: PeerMessage::GapAnswer { .. }, .. }) {
                continue;
            }
            turn.out.extend(refused(effect, self.boot.node, refusal, fault));
        }
        for vote in std::mem::take(&mut self.own_votes) {
            match vote {
                OwnVote::Durable(op) => {
                    let refused = [(self.boot.node, refusal)];
                    let votes = Votes { durable: &[], refused: &refused };
                    self.on_write_votes(op, self.boot.node, votes, turn);
                }
                OwnVote::Kept(op) => {
                    self.on_kept(op, (self.boot.node, None), Some(refusal), turn);
                }
                OwnVote::Found(op, _) => {
                    self.on_found(op, self.boot.node, Found::Refused(refusal), turn);
                }
                OwnVote::Answer(op) => self.answer_again(op, turn),
            }
        }
    }

    /// Writes a checkpoint of every clock, so that the next start reads no log. For a clean stop.
    ///
    /// # Errors
    /// What the store reports.
    pub fn checkpoint<S: Store>(&mut self, store: &mut S) -> Result<(), StoreError> {
        loop {
            let is_all = self.log.stage_rest(&self.partitions, store);
            store.commit()?;
            self.log.committed();
            if is_all {
                return Ok(());
            }
        }
    }

    /// Takes up writing again after a failed commit, as a new run: `actor` must be fresh.
    pub fn resume(&mut self, actor: Actor) {
        self.boot.actor = actor;
        self.partitions.values_mut().for_each(PartitionState::start_run);
        self.guests.clear();
        self.claims.start_run();
        self.stopped = None;
        self.note_behind();
    }

    /// The same short block after every batch.
    fn check_invariants(&self) {
        debug_assert!(self.held.is_empty() && self.own_votes.is_empty());
        debug_assert!(!self.has_changes());
        debug_assert!(self.in_flight <= self.config.in_flight_max);
        debug_assert!(self.lingering.len() <= self.config.lingering_max);
        debug_assert!(self.relays <= self.config.relays_max);
    }
}

/// What becomes of a held effect when its batch is lost; nothing of a question that spoke of it.
pub(super) fn refused(
    effect: Effect,
    node: NodeId,
    refusal: Refusal,
    fault: StoreFault,
) -> Option<Effect> {
    Some(match effect {
        Effect::Send { message: PeerMessage::Verify { .. }, .. } => return None,
        Effect::Send { to, message: PeerMessage::VerifyReply { op, partition, .. } } => {
            let answer = crate::peer::verify::Answer::Refused(refusal);
            Effect::Send { to, message: PeerMessage::VerifyReply { op, partition, answer } }
        }
        Effect::Send { to, message: PeerMessage::WriteReply { op, partition, .. } } => {
            let refused = vec![(node, refusal)];
            let message = PeerMessage::WriteReply { op, partition, durable: vec![], refused };
            Effect::Send { to, message }
        }
        Effect::Send { to, message: PeerMessage::ReadReply { op, partition, .. } } => {
            let found = Found::Refused(refusal);
            Effect::Send { to, message: PeerMessage::ReadReply { op, partition, found } }
        }
        Effect::Send { to, message: PeerMessage::ProxyReply { op, partition, .. } } => {
            let reply = Reply::Error(RequestError::Store { fault });
            Effect::Send { to, message: PeerMessage::ProxyReply { op, partition, reply } }
        }
        Effect::Send { to, message: PeerMessage::Hint(message) } => {
            Effect::Send { to, message: PeerMessage::Hint(message.refused(refusal)) }
        }
        Effect::Reply { caller, since, .. } => {
            Effect::Reply { caller, since, reply: Reply::Error(RequestError::Store { fault }) }
        }
        other => other,
    })
}
