//! What became of the dots of runs that ended, per partition and actor, durably.
//!
//! Some dots of a run died with it. The holes that they leave would hold stability back for ever, and
//! the actors of thousands of starts would stay in every clock. So an actor is closed
//! (`retire`), in three steps that a node remembers for good:
//! - **frozen**: the node has said which of the actor's dots it has, and takes no other from anybody;
//! - **closed**: which dots the actor has is decided. All others, holes and what lies beyond the last,
//!   are *void*: nobody has one, and who names one is refused whole;
//! - **folded**: every replica has all of them. The clock's entry is gone, and this is what is left of
//!   it: exact, because neither an age nor an epoch can tell an old actor from a new one
//!   (`Retirement-fold-by-epoch`, `Retirement-fold-forgets`).
//!
//! Nodes that hold no replica keep the same, of the partitions of which they could keep hints.
//!
//! Invariants: of an actor there is one decision, the same everywhere (its dots are never changed);
//! steps are taken forward only; a frozen actor's dots in the clock do not change before it is closed,
//! but by taking the partition whole from a replica, which answers for them itself.
//!
//! A row for each: step (1 byte), dots (as [`IntervalSet::encode`]; none of a frozen actor), at the end
//! a crc32c.
//! Some dozens of bytes for each run that wrote to a partition, in memory too: with a hundred runs
//! of each of its writers, some hundred kilobytes for a node of 256 partitions.
//!
//! Source: rules 20 to 28 of `tla/RULES.md`, `tla/Retirement.tla`.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use bytes::BufMut;

use holm_protocol::dot::Dot;
use holm_protocol::ids::{Actor, Partition};
use holm_protocol::version_vector::VersionVector;
use holm_protocol::wire::{Reader, WireError};

use crate::clock::{IntervalSet, PartitionClock};
use crate::keys::{ENDS_BEGIN, ENDS_END, end_key, end_key_parts};
use crate::object::Object;
use crate::shard::log::{checked, seal};
use crate::store::{Store, StoreError, Table};

/// Rows read at a time at a start. Arbitrary: some dozens of kilobytes.
const ROWS: usize = 1024;

/// How far the end of an actor has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// No further dot of it is taken.
    Frozen,
    /// It has these dots.
    Closed(IntervalSet),
    /// The same, and every replica has all of them.
    Folded(IntervalSet),
}

impl End {
    /// The actor's dots, if that is decided.
    #[must_use]
    pub fn dots(&self) -> Option<&IntervalSet> {
        match self {
            End::Frozen => None,
            End::Closed(dots) | End::Folded(dots) => Some(dots),
        }
    }

    /// Appends the encoding: step (1 byte), and the dots if they are decided.
    pub fn put(&self, out: &mut impl BufMut) {
        match self {
            End::Frozen => out.put_u8(1),
            End::Closed(dots) => {
                out.put_u8(2);
                dots.encode(out);
            }
            End::Folded(dots) => {
                out.put_u8(3);
                dots.encode(out);
            }
        }
    }

    /// Reads what [`End::put`] wrote.
    ///
    /// # Errors
    /// [`WireError`] if it is none.
    pub fn read(reader: &mut Reader<'_>) -> Result<End, WireError> {
        Ok(match reader.u8()? {
            1 => End::Frozen,
            2 => End::Closed(IntervalSet::decode(reader)?),
            3 => End::Folded(IntervalSet::decode(reader)?),
            got => return Err(WireError::Invalid { field: "end of a run", got: got.into() }),
        })
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put(&mut out);
        seal(out)
    }

    /// Reads a row.
    ///
    /// # Errors
    /// [`WireError`] if it is damaged.
    pub fn decode(row: &[u8]) -> Result<End, WireError> {
        let mut reader = Reader::new(checked(row, "end of a run")?);
        let end = End::read(&mut reader)?;
        reader.finish()?;
        Ok(end)
    }
}

/// Why a state that names a dot is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bar {
    /// Its actor is frozen: it may be void, or come later.
    Frozen,
    /// It is void.
    Void,
}

/// All that a shard remembers of actors that ended.
#[derive(Debug, Default)]
pub struct Ends {
    is_loaded: bool,
    partitions: BTreeMap<Partition, BTreeMap<Actor, End>>,
    /// What the open batch changes, as it was before.
    open: BTreeMap<(Partition, Actor), Option<End>>,
    frozen: BTreeSet<(Partition, Actor)>,
}

impl Ends {
    /// Reads what the disk has of the partitions that are `owned`, once.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if a row is damaged, or what the store reports.
    pub fn load<S: Store>(
        &mut self,
        owned: impl Fn(Partition) -> bool,
        store: &mut S,
    ) -> Result<(), StoreError> {
        if std::mem::replace(&mut self.is_loaded, true) {
            return Ok(());
        }
        let mut from = ENDS_BEGIN.to_vec();
        loop {
            let rows = store.scan(Table::Meta, &from, &ENDS_END, ROWS)?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            from.clone_from(last);
            from.push(0);
            for (key, row) in &rows {
                let damage = |what: String| StoreError::Corrupt(format!("ends of runs: {what}"));
                let parts = end_key_parts(key);
                let (partition, actor) =
                    parts.ok_or_else(|| damage(format!("a key of {} bytes", key.len())))?;
                let end = End::decode(row).map_err(|error| damage(error.to_string()))?;
                if owned(partition) {
                    self.put(partition, actor, Some(end));
                }
            }
        }
    }

    /// What is known of an actor's end.
    #[must_use]
    pub fn get(&self, partition: Partition, actor: Actor) -> Option<&End> {
        self.partitions.get(&partition)?.get(&actor)
    }

    /// What is known of a partition.
    pub fn of(&self, partition: Partition) -> impl Iterator<Item = (Actor, &End)> {
        let ends = self.partitions.get(&partition).into_iter().flatten();
        ends.map(|(actor, end)| (*actor, end))
    }

    /// Actors that are frozen and not decided.
    #[must_use]
    pub fn frozen(&self) -> &BTreeSet<(Partition, Actor)> {
        &self.frozen
    }

    /// Marks in a clock that was read from the disk what is void, and folds away what is folded. So
    /// none of it need be in checkpoints; and who keeps an end as no replica, and becomes one, marks it
    /// then.
    pub fn mark(&self, partition: Partition, clock: &mut PartitionClock) {
        for (actor, end) in self.of(partition) {
            match end {
                End::Frozen => {}
                End::Closed(dots) => {
                    for (first, last) in IntervalSet::from_prefix(dots.max()).difference(dots) {
                        clock.insert_range(actor, first, last);
                    }
                }
                End::Folded(dots) => clock.retire(actor, dots.max()),
            }
        }
    }

    /// Takes a step, in the open batch.
    pub fn set(&mut self, partition: Partition, actor: Actor, end: End) {
        let before = self.put(partition, actor, Some(end));
        if let Entry::Vacant(open) = self.open.entry((partition, actor)) {
            open.insert(before);
        }
    }

    fn put(&mut self, partition: Partition, actor: Actor, end: Option<End>) -> Option<End> {
        match end {
            Some(End::Frozen) => self.frozen.insert((partition, actor)),
            _ => self.frozen.remove(&(partition, actor)),
        };
        let ends = self.partitions.entry(partition).or_default();
        let before = match end {
            Some(end) => ends.insert(actor, end),
            None => ends.remove(&actor),
        };
        if ends.is_empty() {
            self.partitions.remove(&partition);
        }
        before
    }

    /// Whether the open batch changes anything.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        !self.open.is_empty()
    }

    /// Stages what the open batch changes.
    pub fn stage<S: Store>(&self, store: &mut S) {
        for &(partition, actor) in self.open.keys() {
            if let Some(end) = self.get(partition, actor) {
                store.stage_put(Table::Meta, &end_key(partition, actor), &end.encode());
            }
        }
    }

    /// After a commit.
    pub fn committed(&mut self) {
        self.open.clear();
    }

    /// Of which actors the open batch has said what they have.
    pub fn decided(&self) -> impl Iterator<Item = (Partition, Actor)> + '_ {
        let is_decided = |end: &End| end.dots().is_some();
        let open = self.open.keys().copied();
        open.filter(move |&(at, actor)| self.get(at, actor).is_some_and(is_decided))
    }

    /// After a failed commit. Gives the partitions whose clocks it may have changed.
    pub fn roll_back(&mut self) -> BTreeSet<Partition> {
        let open = std::mem::take(&mut self.open);
        let concerned = open.keys().map(|(partition, _)| *partition).collect();
        for ((partition, actor), before) in open {
            self.put(partition, actor, before);
        }
        concerned
    }

    /// Whether a state that names this dot may be taken, by who has seen what `clock` says.
    ///
    /// # Errors
    /// Why not.
    pub fn check(
        &self,
        partition: Partition,
        dot: Dot,
        clock: Option<&PartitionClock>,
    ) -> Result<(), Bar> {
        match self.get(partition, dot.actor) {
            None => Ok(()),
            Some(End::Frozen) if clock.is_some_and(|clock| clock.contains(dot)) => Ok(()),
            Some(End::Frozen) => Err(Bar::Frozen),
            Some(End::Closed(dots) | End::Folded(dots)) if dots.contains(dot.counter) => Ok(()),
            Some(_) => Err(Bar::Void),
        }
    }

    /// A client's context as it may become part of `object`, here: the client may have read from a run
    /// that lost it since. A void entry is lowered to the greatest dot below it that is alive in the
    /// object: others that it covers are dead here already, and the dots in between may be of
    /// other keys.
    ///
    /// # Errors
    /// An entry's actor is frozen and `clock` lacks the dot, or is closed and `clock` lacks something that
    /// the entry covers: another node may have it.
    pub fn lower(
        &self,
        partition: Partition,
        context: &VersionVector,
        (object, clock): (&Object, Option<&PartitionClock>),
    ) -> Result<VersionVector, Bar> {
        let mut lowered = VersionVector::new();
        for dot in context.iter() {
            match self.check(partition, dot, clock) {
                Ok(()) => lowered.insert(dot),
                Err(Bar::Frozen) => return Err(Bar::Frozen),
                Err(Bar::Void) => {
                    let end = self.get(partition, dot.actor).and_then(End::dots);
                    let covered = dot.counter.min(end.map_or(0, IntervalSet::max));
                    let is_whole =
                        |clock: &PartitionClock| clock.seen_of(dot.actor).prefix() >= covered;
                    if !clock.is_some_and(is_whole) {
                        return Err(Bar::Frozen);
                    }
                    let below = |it: &Dot| it.actor == dot.actor && it.counter < dot.counter;
                    object.live_dots().filter(below).for_each(|dot| lowered.insert(dot));
                }
            }
        }
        Ok(lowered)
    }
}

#[cfg(test)]
mod tests;
