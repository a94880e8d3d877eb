//! Dot stores: what can live under a causal context, and how two replicas' stores become one.
//!
//! A store is anything whose parts are named by dots and that can be joined when each side knows
//! what both contexts cover. The multi-value register is one; a set (element -> dots), a counter
//! (actor -> amounts) and a map (key -> store) have the same shape: a map joins key by key, hands
//! both contexts down, and drops the keys whose store came out empty.

use std::cmp::Ordering;

use holm_protocol::dot::Dot;
use holm_protocol::ids::Hlc;
use holm_protocol::version_vector::VersionVector;

use super::Sibling;

/// A set of named parts that can be joined under causal contexts.
pub trait DotStore: Default {
    /// Becomes the join of two stores, `own` and `theirs` being the contexts they live in. Together
    /// with the merge of the contexts it is commutative, associative and idempotent.
    fn join(&mut self, own: &VersionVector, other: Self, theirs: &VersionVector);
}

/// A multi-value register: every value that no writer who saw it has overwritten.
///
/// Nothing is ever pruned here, by time or by number. Suppose a join kept only the newest value:
/// with an old `x`, a newer concurrent `y`, and a deletion `d` of `y` whose writer never saw `x`,
/// (x ⊔ y) ⊔ d drops `x` for `y` and then `y` for `d`, and is empty, while x ⊔ (y ⊔ d) is `x`.
/// Replicas would differ by the order of messages, and a write that nobody saw would be gone (I5,
/// I6). A bound on siblings is kept at the door, by refusing blind puts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Siblings {
    /// Ascending by dot, each once.
    pub(super) values: Vec<Sibling>,
}

impl Siblings {
    /// The values, ascending by dot.
    #[must_use]
    pub fn as_slice(&self) -> &[Sibling] {
        &self.values
    }

    /// Drops what `ctx` covers: its writer saw it.
    pub(super) fn drop_covered(&mut self, ctx: &VersionVector) {
        self.values.retain(|sibling| !ctx.covers(sibling.dot));
    }

    /// Adds a value, unless its dot is there.
    pub(super) fn add(&mut self, sibling: Sibling) {
        if let Err(at) = self.position(sibling.dot) {
            self.values.insert(at, sibling);
        }
    }

    pub(super) fn retain_dots(&mut self, mut keep: impl FnMut(Dot) -> bool) {
        self.values.retain(|sibling| keep(sibling.dot));
    }

    fn position(&self, dot: Dot) -> Result<usize, usize> {
        self.values.binary_search_by_key(&dot, |sibling| sibling.dot)
    }
}

impl DotStore for Siblings {
    /// A value lives if both sides have it, or if one has it and the other's context does not
    /// cover it.
    fn join(&mut self, own: &VersionVector, other: Siblings, theirs: &VersionVector) {
        self.values.retain(|s| !theirs.covers(s.dot) || other.position(s.dot).is_ok());
        // What both have is covered by `own`, since a context covers its live dots: no doubles.
        self.values.extend(other.values.into_iter().filter(|s| !own.covers(s.dot)));
        // Two ascending runs: the sort finds them and merges in linear time.
        self.values.sort_by_key(|sibling| sibling.dot);
    }
}

/// A last-writer-wins register: the write with the greatest `(hlc, dot)`, be it a value or a
/// deletion.
///
/// The join is the maximum of a total order, so it is commutative, associative and idempotent
/// without looking at the contexts. A deletion must stay as an entry: were it only a hole in the
/// context, an older value, arriving later, would have nothing to lose against.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Latest {
    pub(super) entry: Option<Entry>,
}

/// The write that won.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    /// A put.
    Value(Sibling),
    /// A delete.
    Deletion {
        /// Its name.
        dot: Dot,
        /// Its place in the order.
        hlc: Hlc,
    },
}

impl Entry {
    fn rank(&self) -> (Hlc, Dot) {
        match self {
            Entry::Value(sibling) => (sibling.hlc, sibling.dot),
            Entry::Deletion { dot, hlc } => (*hlc, *dot),
        }
    }
}

impl Latest {
    /// The value, if a put won; one or none.
    #[must_use]
    pub fn as_slice(&self) -> &[Sibling] {
        match &self.entry {
            Some(Entry::Value(sibling)) => std::slice::from_ref(sibling),
            Some(Entry::Deletion { .. }) | None => &[],
        }
    }

    /// The deletion's dot, if a delete won.
    #[must_use]
    pub fn tombstone(&self) -> Option<Dot> {
        match &self.entry {
            Some(Entry::Deletion { dot, .. }) => Some(*dot),
            Some(Entry::Value(_)) | None => None,
        }
    }

    /// The reading of the write that won.
    #[must_use]
    pub fn hlc(&self) -> Option<Hlc> {
        self.entry.as_ref().map(|entry| entry.rank().0)
    }

    pub(super) fn offer_value(&mut self, sibling: Sibling) {
        self.offer(Entry::Value(sibling));
    }

    pub(super) fn offer_deletion(&mut self, dot: Dot, hlc: Hlc) {
        self.offer(Entry::Deletion { dot, hlc });
    }

    pub(super) fn retain_dots(&mut self, mut keep: impl FnMut(Dot) -> bool) {
        self.entry.take_if(|entry| !keep(entry.rank().1));
    }

    fn offer(&mut self, new: Entry) {
        let wins = match &self.entry {
            None => true,
            Some(own) => new.rank().cmp(&own.rank()) == Ordering::Greater,
        };
        if wins {
            self.entry = Some(new);
        }
    }
}

impl DotStore for Latest {
    /// The greater of the two entries.
    fn join(&mut self, _own: &VersionVector, other: Latest, _theirs: &VersionVector) {
        if let Some(entry) = other.entry {
            self.offer(entry);
        }
    }
}
