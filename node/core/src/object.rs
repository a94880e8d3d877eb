//! One key's replicated state: a dot store and the causal context it lives in.
//!
//! The context covers every dot of the key that the state accounts for. A dot that is covered and
//! not in the store was overwritten or deleted; one that is not covered has not been seen. That is
//! all a [`join`](Object::join) needs: what one side has and the other side covers without having
//! it, is dead; everything else lives. A deleted object is an empty store with a context; a put
//! and a delete differ only in whether they add to the store.
//!
//! Rules:
//! - A **put** at its coordinator, with what the client had read (`ctx`): drop the siblings that
//!   `ctx` covers, add the new one; the context becomes local ⊔ ctx ⊔ new dot (I4: what the writer
//!   saw is gone for good; I5: what it did not see stays).
//! - A **delete** does the same without adding. It has a dot too, so that clocks can tell who has
//!   seen it.
//! - In a **last-writer-wins** object the greatest `(hlc, dot)` wins, whatever the context says.
//!   The client's `ctx` therefore does *not* enter its context: a context entry says that the
//!   state includes that write's effect, and a write that the client saw elsewhere may carry a
//!   greater reading than the new one. Were it marked as seen here, it would be dropped when it
//!   arrives, and this replica would differ from the others under an equal clock (I3).
//!
//! Invariants (checked by [`Object::check`]): live dots are unique and ascending; the context
//! covers each of them.
//!
//! **Forgetting**: a context all of whose entries are stable everywhere is cut down to the live dots, and
//! an empty object goes ([`Object::forget`]). What is stable is a matter of partition clocks. Then a join
//! alone does not tell what is dead: whoever joins also asks a clock.
//!
//! Source: dotted version vectors, Preguiça et al., PODC 2012; dot stores under one context:
//! Almeida, Shoker, Baquero, "Delta state replicated data types", JPDC 2018, section 7.

mod codec;
mod join;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use holm_protocol::dot::Dot;
use holm_protocol::ids::Hlc;
use holm_protocol::version_vector::VersionVector;
use xxhash_rust::xxh3::xxh3_64;

pub use self::codec::ObjectError;
pub use self::join::{DotStore, Latest, Siblings};

/// Which dot store an object is; a bucket's objects are all of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectKind {
    /// Concurrent values are all kept until a writer that saw them overwrites them.
    Siblings,
    /// The value with the greatest `(hlc, dot)` wins.
    Lww,
}

impl ObjectKind {
    /// The number that stands for the kind in encodings.
    #[must_use]
    pub fn tag(self) -> u8 {
        match self {
            ObjectKind::Siblings => 1,
            ObjectKind::Lww => 2,
        }
    }

    /// The reverse of [`ObjectKind::tag`].
    #[must_use]
    pub fn from_tag(tag: u8) -> Option<ObjectKind> {
        match tag {
            1 => Some(ObjectKind::Siblings),
            2 => Some(ObjectKind::Lww),
            _ => None,
        }
    }
}

/// Two objects of different kinds cannot be joined. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot join an object of kind {theirs:?} to one of kind {own:?}")]
pub struct KindMismatch {
    /// The kind of the object here.
    pub own: ObjectKind,
    /// The kind of the object that arrived.
    pub theirs: ObjectKind,
}

/// One written value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sibling {
    /// The write's name. Equal dots mean equal writes (I1).
    pub dot: Dot,
    /// When it was coordinated.
    pub hlc: Hlc,
    /// What was written.
    pub value: Bytes,
    /// CRC-32C over dot, reading and value, computed once by the coordinator and carried from then
    /// on, so that damage anywhere on the way is found wherever the value is next looked at.
    pub checksum: u32,
}

impl Sibling {
    /// A value as its coordinator makes it.
    #[must_use]
    pub fn new(dot: Dot, hlc: Hlc, value: Bytes) -> Sibling {
        let checksum = checksum(dot, hlc, &value);
        Sibling { dot, hlc, value, checksum }
    }

    /// Whether dot, reading and value are still what the coordinator made.
    #[must_use]
    pub fn verify(&self) -> bool {
        self.checksum == checksum(self.dot, self.hlc, &self.value)
    }
}

/// CRC-32C over actor, counter and reading (8 bytes each, big-endian) and the value.
fn checksum(dot: Dot, hlc: Hlc, value: &[u8]) -> u32 {
    let mut head = [0; 24];
    head[..8].copy_from_slice(&dot.actor.0.to_be_bytes());
    head[8..16].copy_from_slice(&dot.counter.to_be_bytes());
    head[16..].copy_from_slice(&hlc.0.to_be_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&head), value)
}

/// An object's dot store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// A multi-value register.
    Siblings(Siblings),
    /// A last-writer-wins register.
    Latest(Latest),
}

/// One key's state. See the module's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// What is alive.
    pub state: State,
    /// What is accounted for, alive or not.
    pub context: VersionVector,
}

impl Object {
    /// A key that was never written.
    #[must_use]
    pub fn new(kind: ObjectKind) -> Object {
        let state = match kind {
            ObjectKind::Siblings => State::Siblings(Siblings::default()),
            ObjectKind::Lww => State::Latest(Latest::default()),
        };
        Object { state, context: VersionVector::new() }
    }

    /// Which dot store this is.
    #[must_use]
    pub fn kind(&self) -> ObjectKind {
        match self.state {
            State::Siblings(_) => ObjectKind::Siblings,
            State::Latest(_) => ObjectKind::Lww,
        }
    }

    /// Takes in another replica's state: the least state that accounts for both. Commutative,
    /// associative and idempotent, so order and repetition of messages do not matter.
    ///
    /// It trusts `other`'s context. A sibling that was already overwritten here, and whose
    /// overwriting has been forgotten, must be taken out by the caller, who has the partition
    /// clock, with [`Object::retain_dots`].
    ///
    /// # Errors
    /// [`KindMismatch`]; nothing is changed.
    pub fn join(&mut self, other: Object) -> Result<(), KindMismatch> {
        let mismatch = KindMismatch { own: self.kind(), theirs: other.kind() };
        match (&mut self.state, other.state) {
            (State::Siblings(own), State::Siblings(theirs)) => {
                own.join(&self.context, theirs, &other.context);
            }
            (State::Latest(own), State::Latest(theirs)) => {
                own.join(&self.context, theirs, &other.context);
            }
            _ => return Err(mismatch),
        }
        self.context.merge(&other.context);
        debug_assert_eq!(self.check(), Ok(()));
        Ok(())
    }

    /// Writes a value at its coordinator, on behalf of a client that had read `ctx` (empty for a
    /// blind write). The sibling's dot is new: not covered by this object.
    pub fn put(&mut self, ctx: &VersionVector, sibling: Sibling) {
        let dot = sibling.dot;
        debug_assert!(!self.context.covers(dot), "dot {dot} is not new");
        match &mut self.state {
            State::Siblings(siblings) => {
                siblings.drop_covered(ctx);
                siblings.add(sibling);
                self.context.merge(ctx);
            }
            State::Latest(latest) => latest.offer_value(sibling),
        }
        self.context.insert(dot);
        debug_assert_eq!(self.check(), Ok(()));
    }

    /// Deletes at the coordinator what a client had read in `ctx`. The dot is new, as in
    /// [`Object::put`]; the reading orders the delete in a last-writer-wins object, and is not used
    /// in others.
    pub fn delete(&mut self, ctx: &VersionVector, dot: Dot, hlc: Hlc) {
        debug_assert!(!self.context.covers(dot), "dot {dot} is not new");
        match &mut self.state {
            State::Siblings(siblings) => {
                siblings.drop_covered(ctx);
                self.context.merge(ctx);
            }
            State::Latest(latest) => latest.offer_deletion(dot, hlc),
        }
        self.context.insert(dot);
        debug_assert_eq!(self.check(), Ok(()));
    }

    /// Takes out the live dots for which `keep` is false. They stay covered by the context: what
    /// is taken out counts as overwritten.
    pub fn retain_dots(&mut self, keep: impl FnMut(Dot) -> bool) {
        match &mut self.state {
            State::Siblings(siblings) => siblings.retain_dots(keep),
            State::Latest(latest) => latest.retain_dots(keep),
        }
    }

    /// Cuts the context down to the live dots, if all that it names may be forgotten.
    pub fn forget(&mut self, forgettable: &VersionVector) {
        let is_live = |dot: Dot| self.live_dots().any(|live| live == dot);
        if self.context.iter().all(|dot| forgettable.covers(dot))
            && !self.context.iter().all(is_live)
        {
            self.context = self.live_dots().collect();
        }
        debug_assert_eq!(self.check(), Ok(()));
    }

    /// The values a reader sees, ordered by dot.
    #[must_use]
    pub fn siblings(&self) -> &[Sibling] {
        match &self.state {
            State::Siblings(siblings) => siblings.as_slice(),
            State::Latest(latest) => latest.as_slice(),
        }
    }

    /// Whether a reader sees no value: deleted, or never written.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.siblings().is_empty()
    }

    /// The dots in the store, ascending, among them that of a last-writer-wins tombstone.
    pub fn live_dots(&self) -> impl Iterator<Item = Dot> + Clone + '_ {
        let tombstone = match &self.state {
            State::Siblings(_) => None,
            State::Latest(latest) => latest.tombstone(),
        };
        self.siblings().iter().map(|sibling| sibling.dot).chain(tombstone)
    }

    /// Every dot the object names, each once: the live ones and the context's entries. Each is a
    /// write to this key whose effect the state includes; joining the object marks all of them as
    /// seen (I3).
    pub fn named_dots(&self) -> impl Iterator<Item = Dot> + '_ {
        let context = &self.context;
        let inner = self.live_dots().filter(|dot| context.get(dot.actor) != dot.counter);
        inner.chain(context.iter())
    }

    /// A hash of kind and live dots: replicas that show the same, and only those, give the same one.
    /// Values are left out, because a dot names one value; contexts, because each replica cuts its own
    /// when it may.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut named = Vec::with_capacity(1 + 16 * (1 + self.siblings().len()));
        named.push(self.kind().tag());
        for dot in self.live_dots() {
            named.extend_from_slice(&dot.actor.0.to_be_bytes());
            named.extend_from_slice(&dot.counter.to_be_bytes());
        }
        xxh3_64(&named)
    }

    /// About how much memory the object takes, in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let values: usize = self.siblings().iter().map(|sibling| sibling.value.len()).sum();
        size_of::<Object>()
            + size_of_val(self.siblings())
            + self.context.len() * size_of::<Dot>()
            + values
    }

    /// Checks the invariants in the module's head.
    ///
    /// # Errors
    /// Which one is broken.
    pub fn check(&self) -> Result<(), &'static str> {
        if !self.siblings().is_sorted_by(|a, b| a.dot < b.dot) {
            return Err("siblings are not unique and ascending by dot");
        }
        if self.live_dots().any(|dot| dot.counter == 0) {
            return Err("a live dot has counter 0");
        }
        if !self.live_dots().all(|dot| self.context.covers(dot)) {
            return Err("a live dot is not covered by the context");
        }
        Ok(())
    }
}
