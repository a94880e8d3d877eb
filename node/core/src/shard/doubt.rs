//! Quarantine: partitions for which this replica does not answer yet (I4, I11).
//!
//! The problem: a disk may be an older one than its node had, restored from a backup, or a copy of
//! another node's, or empty, and nothing on it says so. What such a replica holds may have been
//! overwritten since, and the deletes may be forgotten everywhere: whatever it told would return for
//! good. So a node that starts is **in doubt** about each partition: it answers nothing, coordinates
//! nothing, claims nothing and takes in nothing, until it has **compared** with one other replica.
//! Each tells the other what it durably knows to be stable, which every replica once had. Who has not
//! seen all of it has lost something and is **behind**, even if it was serving. Who has may serve.
//! That one replica can tell is what the two rounds of stability are for (`Stability-one-round`).
//!
//! - Who is behind takes the partition whole from a replica that serves ([`resync`](super::resync)).
//!   It stays behind over restarts, until that is done.
//! - If all other replicas can be reached and are behind too, nobody has more than they have together:
//!   the one with the lowest number takes all of all of them, and serves; the others then take it
//!   from that one. To serve because all others are behind is wrong (`Stability-all-behind`).
//! - Only a run that has been met is answered: claims of an earlier run of that node, which may have had
//!   another disk, do not count from then on, and who is answered may serve. A question that comes
//!   before the news of its run is asked again.
//! - A replica in doubt is good enough to compare with: so a cluster that starts as a whole comes up.
//!   One that is behind is not.
//! - A partition that a later layout gives to the node is behind, whatever the disk has of it.
//! - A replica alone in its layout has nobody to ask, and serves.
//!
//! States of a partition: doubt -> serves, if it compared and lacked nothing; doubt, serves ->
//! behind, if a comparison shows that it lacks something; behind -> serves, when the commit is done
//! that has the end of what it took. Nobody is asked about partitions that serve.
//!
//! One peer tells of one older disk at a time (`Stability-two-older-disks`): whoever restores several
//! disks says so, by the mark of a store that lost state.
//!
//! Specification: `tla/Disks.tla`, `tla/Stability.tla`.

use std::collections::BTreeMap;

use holm_protocol::dot::Dot;
use holm_protocol::error::NotReady;
use holm_protocol::ids::{Actor, NodeId, Partition};
use holm_protocol::version_vector::VersionVector;

use crate::layout::Layout;
use crate::peer::{CompareMessage, OpId, PeerMessage, Position, Refusal, Standing};
use crate::shard::event::Effect;
use crate::shard::{Shard, Turn};
use crate::store::Store;
use crate::time::Mono;

/// Bytes of one question, about.
const COMPARE_BYTES: usize = 32 << 10;

/// A replica is asked again after this long at least, milliseconds, and twice what it usually takes:
/// the answer was lost, or things have changed there.
const AGAIN_MS: u64 = 250;

/// Answers that come later than this are nobody's, milliseconds.
const PATIENCE_MS: u64 = 10_000;

/// A partition that does not serve.
#[derive(Debug)]
struct Quarantine {
    is_behind: bool,
    /// Where other replicas stood when they were last heard of, of those that can be reached.
    others: BTreeMap<NodeId, Standing>,
}

/// A question on its way.
#[derive(Debug)]
struct Asked {
    peer: NodeId,
    sent: Mono,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Doubts {
    quarantined: BTreeMap<Partition, Quarantine>,
    asked: BTreeMap<OpId, Asked>,
    /// When each node that can be reached is asked next.
    ask_at: BTreeMap<NodeId, Mono>,
    /// Partitions that serve when the open batch is durable.
    healed: Vec<Partition>,
}

impl Doubts {
    /// Where the replica stands with a partition that it holds.
    pub(super) fn standing(&self, partition: Partition) -> Standing {
        match self.quarantined.get(&partition) {
            None => Standing::Serves,
            Some(Quarantine { is_behind: false, .. }) => Standing::Doubt,
            Some(Quarantine { is_behind: true, .. }) => Standing::Behind,
        }
    }

    /// The partitions that do not serve.
    pub(super) fn all(&self) -> impl Iterator<Item = (Partition, Standing)> + '_ {
        self.quarantined.keys().map(|&partition| (partition, self.standing(partition)))
    }

    /// A node can be reached.
    pub(super) fn up(&mut self, node: NodeId, now: Mono) {
        self.forget(node);
        self.ask_at.insert(node, now);
    }

    /// A node cannot be reached: its next run may stand elsewhere.
    pub(super) fn down(&mut self, node: NodeId) {
        self.forget(node);
        self.ask_at.remove(&node);
    }

    fn forget(&mut self, node: NodeId) {
        self.asked.retain(|_, asked| asked.peer != node);
        for quarantine in self.quarantined.values_mut() {
            quarantine.others.remove(&node);
        }
    }

    /// A replica was asked for a partition, and stands elsewhere than was thought.
    fn heard(&mut self, partition: Partition, node: NodeId, standing: Standing) {
        if let Some(quarantine) = self.quarantined.get_mut(&partition) {
            quarantine.others.insert(node, standing);
        }
    }

    /// Whether a node's answer could change anything for a partition.
    fn asks(&self, partition: Partition) -> bool {
        let serves = |it: &Quarantine| it.others.values().any(|&it| it == Standing::Serves);
        self.quarantined.get(&partition).is_some_and(|it| !(it.is_behind && serves(it)))
    }

    /// Whether nothing is quarantined.
    pub(super) fn is_empty(&self) -> bool {
        self.quarantined.is_empty()
    }

    /// When somebody is to be asked.
    pub(super) fn due(&self) -> Option<Mono> {
        let is_open = !self.quarantined.is_empty();
        self.ask_at.values().min().copied().filter(|_| is_open)
    }

    /// What the open batch would have healed is not.
    pub(super) fn roll_back(&mut self) {
        self.healed.clear();
    }

    /// The partitions that are behind and the replicas, of those heard of, from which each can be
    /// taken whole.
    pub(super) fn behind(&self) -> impl Iterator<Item = (Partition, Vec<NodeId>)> + '_ {
        let serving = |(&node, standing): (&NodeId, &Standing)| {
            (*standing == Standing::Serves).then_some(node)
        };
        self.quarantined
            .iter()
            .filter(|(partition, it)| it.is_behind && !self.healed.contains(partition))
            .map(move |(&partition, it)| {
                (partition, it.others.iter().filter_map(serving).collect())
            })
    }

    /// Whether all other replicas of a partition can be reached and are behind.
    pub(super) fn all_behind(&self, partition: Partition, others: &[NodeId]) -> bool {
        self.quarantined.get(&partition).is_some_and(|it| {
            others.iter().all(|other| it.others.get(other) == Some(&Standing::Behind))
        })
    }
}

impl Shard {
    /// Where this replica stands with a partition that it holds.
    #[must_use]
    pub fn standing(&self, partition: Partition) -> Standing {
        self.doubts.standing(partition)
    }

    /// The partitions for which this replica does not answer, and why.
    pub fn quarantined(&self) -> impl Iterator<Item = (Partition, Standing)> + '_ {
        self.doubts.all()
    }

    pub(super) fn in_quarantine(&self, standing: Standing) -> u64 {
        self.doubts.all().filter(|(_, it)| *it == standing).count() as u64
    }

    pub(super) fn serves(&self, partition: Partition) -> bool {
        self.doubts.standing(partition) == Standing::Serves
    }

    /// Refuses what only a replica that serves may do.
    pub(super) fn check_standing(&self, partition: Partition) -> Result<(), Refusal> {
        match self.doubts.standing(partition) {
            Standing::Serves => Ok(()),
            Standing::Doubt => Err(Refusal::InDoubt),
            Standing::Behind => Err(Refusal::Behind),
        }
    }

    /// Why this replica serves no requests about a partition, if it does not.
    pub(super) fn not_ready(&self, partition: Partition) -> Option<NotReady> {
        match self.doubts.standing(partition) {
            Standing::Serves => None,
            Standing::Doubt => Some(NotReady::InDoubt),
            Standing::Behind => Some(NotReady::Behind),
        }
    }

    /// A layout is in force: where this replica stands with the partitions that are new to it, or to
    /// this run. `before` is the layout until now.
    pub(super) fn take_stand(&mut self, before: Option<&Layout>, loaded: &[Partition], now: Mono) {
        let Some(layout) = self.cluster.layout.clone() else { return };
        let me = self.boot.node;
        for &partition in loaded {
            let Some(state) = self.partitions.get(&partition) else { continue };
            let (is_new, was_behind) = (state.is_new(), state.account().is_behind);
            // The row says that the node holds the partition: a later start can tell.
            if is_new && self.boot.standing != Standing::Serves {
                self.log.account(partition);
            }
            // The first layout gives everybody what nobody has anything of.
            let is_given = is_new && layout.version() > 1;
            if was_behind || is_given || self.boot.standing == Standing::Behind {
                self.fall_behind(partition);
            } else if self.boot.standing == Standing::Doubt {
                let quarantine = Quarantine { is_behind: false, others: BTreeMap::new() };
                self.doubts.quarantined.insert(partition, quarantine);
            }
        }
        let held: Vec<Partition> = self.partitions.keys().copied().collect();
        for partition in held {
            let is_replica = layout.is_replica(partition, me);
            let was_replica = before.is_none_or(|before| before.is_replica(partition, me));
            if is_replica && !was_replica && !loaded.contains(&partition) {
                self.fall_behind(partition);
            }
            let replicas = layout.replicas(partition);
            if let Some(quarantine) = self.doubts.quarantined.get_mut(&partition) {
                quarantine.others.retain(|node, _| replicas.contains(node));
            }
            if replicas == [me] && !self.serves(partition) {
                self.heal(partition);
                self.begin_serving(partition, now);
            }
        }
        for at in self.doubts.ask_at.values_mut() {
            *at = now;
        }
    }

    /// The disk was found to lack something, or not to be the one that others knew.
    pub(super) fn lose_all(&mut self, now: Mono) {
        let Some(layout) = self.cluster.layout.clone() else {
            self.boot.standing = Standing::Behind;
            return;
        };
        let held: Vec<Partition> = self.partitions.keys().copied().collect();
        let alone = |partition: &Partition| layout.replicas(*partition) == [self.boot.node];
        for partition in held.into_iter().filter(|partition| !alone(partition)).collect::<Vec<_>>()
        {
            self.fall_behind(partition);
        }
        self.boot.standing = Standing::Behind;
        self.doubts.ask_at.values_mut().for_each(|at| *at = now);
    }

    /// From now on this replica answers nothing, until it has taken the partition whole.
    pub(super) fn fall_behind(&mut self, partition: Partition) {
        let Some(state) = self.partitions.get_mut(&partition) else { return };
        let quarantine = Quarantine { is_behind: true, others: BTreeMap::new() };
        let before = self.doubts.quarantined.entry(partition).or_insert(quarantine);
        before.is_behind = true;
        self.doubts.healed.retain(|&healed| healed != partition);
        // After a failed commit nothing is written any more; the next start is in doubt anyway.
        if !state.account().is_behind && self.stopped.is_none() {
            state.set_behind(true);
            self.log.account(partition);
            self.counters.fell_behind += 1;
        }
    }

    /// What could not be written while the disk was full.
    pub(super) fn note_behind(&mut self) {
        for (&partition, quarantine) in &self.doubts.quarantined {
            if let Some(state) = self.partitions.get_mut(&partition)
                && quarantine.is_behind
            {
                state.set_behind(true);
                self.log.account(partition);
            }
        }
    }

    /// The partition is here whole, in the open batch.
    pub(super) fn heal(&mut self, partition: Partition) {
        let Some(state) = self.partitions.get_mut(&partition) else { return };
        state.set_behind(false);
        self.log.account(partition);
        self.doubts.healed.push(partition);
    }

    /// After a commit: what is durable now, serves.
    pub(super) fn end_quarantines(&mut self, now: Mono) {
        for partition in std::mem::take(&mut self.doubts.healed) {
            self.begin_serving(partition, now);
        }
    }

    fn begin_serving(&mut self, partition: Partition, now: Mono) {
        if self.doubts.quarantined.remove(&partition).is_none() {
            return;
        }
        self.log.trust(partition);
        // What is known here was told to nobody, and what others told was not listened to.
        if let Some(state) = self.partitions.get(&partition) {
            self.claims.loaded(partition, state.clock().known_actors());
        }
        self.stable.walk_again(partition);
        self.gaps.look_at(now);
        self.expect_handoff(self.boot.node, now);
    }

    /// Asks replicas where they stand, if it is time.
    pub(super) fn ask_others<S: Store>(&mut self, turn: &mut Turn<'_, S>) {
        let now = turn.now.mono;
        if self.doubts.due().is_none_or(|due| due > now) {
            return;
        }
        self.doubts.asked.retain(|_, asked| asked.sent.plus_ms(PATIENCE_MS) > now);
        let due: Vec<NodeId> = self
            .doubts
            .ask_at
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(node, _)| *node)
            .collect();
        for peer in due {
            let again_ms = AGAIN_MS.max(2 * self.peers.late_after_us(peer) / 1000);
            self.doubts.ask_at.insert(peer, now.plus_ms(again_ms));
            if self.peers.is_up(peer) {
                self.ask_where(peer, turn);
            }
        }
    }

    fn ask_where<S: Store>(&mut self, peer: NodeId, turn: &mut Turn<'_, S>) {
        let Some(layout) = self.cluster.layout.clone() else { return };
        let partitions: Vec<Partition> = self.doubts.quarantined.keys().copied().collect();
        let asked = |&partition: &Partition| {
            self.doubts.asks(partition) && layout.is_replica(partition, peer)
        };
        let mut positions = Vec::new();
        let mut bytes = 0;
        let mut messages = Vec::new();
        for partition in partitions.into_iter().filter(asked) {
            let Some(position) = self.position(partition) else { continue };
            bytes += 8 + 16 * position.know.len();
            positions.push((partition, position));
            if bytes >= COMPARE_BYTES {
                messages.push(std::mem::take(&mut positions));
                bytes = 0;
            }
        }
        messages.push(positions);
        for positions in messages.into_iter().filter(|positions| !positions.is_empty()) {
            let (op, run) = (self.new_op(), self.run);
            self.doubts.asked.insert(op, Asked { peer, sent: turn.now.mono });
            let message = PeerMessage::Compare(CompareMessage::Compare { op, run, positions });
            turn.out.push(Effect::Send { to: vec![peer], message });
        }
    }

    fn position(&self, partition: Partition) -> Option<Position> {
        let know = self.partitions.get(&partition)?.all_known();
        Some(Position { standing: self.standing(partition), know })
    }

    /// Another replica tells where it stands, and wants to know where this one does.
    pub(super) fn on_compare<S: Store>(
        &mut self,
        (from, op): (NodeId, OpId),
        run: Actor,
        positions: &[(Partition, Position)],
        turn: &mut Turn<'_, S>,
    ) {
        if self.peers.run(from) != Some(run) {
            // Claims of another run of that node may still count here. An answer might let it serve
            // without what they claim; it asks again. What all once had stays so.
            for (partition, theirs) in positions {
                self.look_for_loss(*partition, from, &theirs.know);
            }
            return;
        }
        let mut own = Vec::new();
        for (partition, theirs) in positions {
            if let Some(position) = self.compare(*partition, from, theirs) {
                own.push((*partition, position));
            }
        }
        if !own.is_empty() {
            let message = PeerMessage::Compare(CompareMessage::Compared { op, positions: own });
            turn.out.push(Effect::Send { to: vec![from], message });
        }
    }

    /// Looks whether this replica has seen what another one knows that all have. Gives where it stood
    /// before; nothing if the two do not share the partition.
    pub(super) fn compare(
        &mut self,
        partition: Partition,
        from: NodeId,
        theirs: &Position,
    ) -> Option<Position> {
        let position = self.look_for_loss(partition, from, &theirs.know)?;
        self.doubts.heard(partition, from, theirs.standing);
        Some(position)
    }

    /// Falls behind, if there is something that another replica knows that all have and is not here.
    fn look_for_loss(
        &mut self,
        partition: Partition,
        from: NodeId,
        know: &VersionVector,
    ) -> Option<Position> {
        let layout = self.cluster.layout.as_ref()?;
        let (me, state) = (self.boot.node, self.partitions.get(&partition)?);
        if !layout.is_replica(partition, me) || !layout.is_replica(partition, from) {
            return None;
        }
        // Only this run can have made this run's dots.
        let is_made =
            |top: Dot| self.made_by(partition, top.actor).is_none_or(|n| top.counter <= n);
        if !know.iter().all(is_made) {
            self.counters.peer_rejections += 1;
            return None;
        }
        let lacks = !state.has_seen_all(know);
        let position = self.position(partition)?;
        if lacks {
            self.fall_behind(partition);
        }
        Some(position)
    }

    /// Where another replica stood when it was asked.
    pub(super) fn on_compared<S: Store>(
        &mut self,
        (from, op): (NodeId, OpId),
        positions: &[(Partition, Position)],
        turn: &mut Turn<'_, S>,
    ) {
        let now = turn.now.mono;
        self.on_no_page((from, op), positions, now);
        // Each of its shards answers for its own partitions, so there may be several answers.
        let Some(asked) = self.doubts.asked.get(&op).filter(|asked| asked.peer == from) else {
            // Nobody's answer, of a question long past: where that replica stood says nothing any more.
            // What all once had, all have, or have lost.
            for (partition, theirs) in positions {
                self.look_for_loss(*partition, from, &theirs.know);
            }
            return;
        };
        self.peers.answered(from, asked.sent, now);
        self.counters.compared += 1;
        for (partition, theirs) in positions {
            let was_in_doubt = self.standing(*partition) == Standing::Doubt;
            if self.compare(*partition, from, theirs).is_none() {
                continue;
            }
            let is_in_doubt = self.standing(*partition) == Standing::Doubt;
            if was_in_doubt && is_in_doubt && theirs.standing != Standing::Behind {
                self.begin_serving(*partition, now);
            }
        }
        self.gaps.look_at(now);
    }

    /// Whether all other replicas are behind as this one is, and it is the one to take all they have.
    /// One that is in doubt joins them: it has nobody to compare with.
    pub(super) fn others_to_gather(&mut self, partition: Partition) -> Option<Vec<NodeId>> {
        let layout = self.cluster.layout.clone()?;
        let me = self.boot.node;
        let replicas = layout.replicas(partition);
        let others: Vec<NodeId> = replicas.iter().copied().filter(|&node| node != me).collect();
        let all_behind = !others.is_empty() && self.doubts.all_behind(partition, &others);
        if !all_behind || others.iter().any(|&node| !self.peers.is_up(node)) {
            return None;
        }
        self.fall_behind(partition);
        others.iter().all(|&other| me < other).then_some(others)
    }
}
