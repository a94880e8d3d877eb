//! What a shard keeps of one partition besides its objects: the clock, its own counter, and its
//! [account](super::account).

use holm_protocol::dot::Dot;
use holm_protocol::ids::{Actor, Partition};
use holm_protocol::version_vector::{Relation, VersionVector};

use crate::clock::PartitionClock;
use crate::shard::account::Account;
use crate::shard::ends::Ends;

/// One partition in a shard's memory.
#[derive(Debug, Default)]
pub struct PartitionState {
    clock: PartitionClock,
    /// The last counter this run has assigned here.
    own_counter: u64,
    account: Account,
    is_new: bool,
}

impl PartitionState {
    /// A partition at the start of a run; without an account if the node never held it.
    #[must_use]
    pub fn new(clock: PartitionClock, account: Option<Account>) -> Self {
        let is_new = account.is_none();
        PartitionState { clock, own_counter: 0, account: account.unwrap_or_default(), is_new }
    }

    /// Whether the node had never held it when it was loaded.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// What this replica has seen, what the open batch adds included.
    #[must_use]
    pub fn clock(&self) -> &PartitionClock {
        &self.clock
    }

    /// The last counter that this run has assigned.
    #[must_use]
    pub fn own_counter(&self) -> u64 {
        self.own_counter
    }

    /// What this replica knows durably besides, what the open batch adds included.
    #[must_use]
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Learns that this is stable. Says whether any of it is new: then the account belongs into the
    /// open batch.
    pub fn learn_stable(&mut self, stable: &VersionVector) -> bool {
        let is_open = |dot: &Dot| self.clock.end_of(dot.actor) == 0;
        let stable: &VersionVector = &stable.iter().filter(is_open).collect();
        let know = &mut self.account.know;
        let is_new = matches!(know.relation(stable), Relation::Before | Relation::Concurrent);
        know.merge(stable);
        is_new
    }

    /// Whether every dot up to these has been seen.
    #[must_use]
    pub fn has_seen_all(&self, stable: &VersionVector) -> bool {
        // Another replica may not have folded away yet what is folded here.
        let prefix = |actor| self.clock.seen_of(actor).prefix();
        stable.iter().all(|top| prefix(top.actor) >= top.counter)
    }

    /// Up to where dots are known here to be stable, of actors that are folded away too: who has an
    /// older disk may lack just theirs.
    #[must_use]
    pub fn all_known(&self) -> VersionVector {
        let mut known = self.account.know.clone();
        let folded = self.clock.retired().map(|(actor, counter)| Dot { actor, counter });
        folded.for_each(|dot| known.insert(dot));
        known
    }

    /// Notes whether this replica is behind. The account belongs into the open batch.
    pub fn set_behind(&mut self, is_behind: bool) {
        self.account.is_behind = is_behind;
    }

    /// Takes in whether segments of the log were cut. Says whether that is new.
    pub fn set_cut(&mut self, is_cut: bool) -> bool {
        std::mem::replace(&mut self.account.is_cut, is_cut) != is_cut
    }

    /// Draws the next dot of this run. Counters are contiguous from 1.
    pub fn next_dot(&mut self, actor: Actor) -> Dot {
        self.own_counter += 1;
        Dot { actor, counter: self.own_counter }
    }

    /// Goes on counting after a lost batch: other nodes may hold the dots that it had drawn (I1).
    pub fn count_on_from(&mut self, made: u64) {
        self.own_counter = self.own_counter.max(made);
    }

    /// Starts counting for a new run.
    pub fn start_run(&mut self) {
        self.own_counter = 0;
    }

    /// Marks as seen what another replica has seen, whose objects are all joined here. They belong
    /// into the next checkpoint.
    pub fn adopt(&mut self, clock: &PartitionClock) {
        self.clock.merge(clock);
    }

    /// Marks what is known of actors that ended. What is folded away is known to be stable, and needs
    /// no entry for that either.
    pub fn mark_ends(&mut self, partition: Partition, ends: &Ends) {
        ends.mark(partition, &mut self.clock);
        let is_folded = |dot: &Dot| self.clock.end_of(dot.actor) > 0;
        if self.account.know.iter().any(|dot| is_folded(&dot)) {
            let left = self.account.know.iter().filter(|dot| !is_folded(dot));
            self.account.know = left.collect();
        }
    }

    /// Up to where an actor's dots are known here to be stable.
    #[must_use]
    pub fn knows(&self, actor: Actor) -> u64 {
        self.account.know.get(actor).max(self.clock.end_of(actor))
    }

    /// Marks a dot as seen. Says whether it was new: then it belongs into the log.
    pub fn see(&mut self, dot: Dot) -> bool {
        self.clock.insert(dot)
    }
}
