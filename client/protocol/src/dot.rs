//! The name of one write.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::Actor;

/// One write to one partition: who coordinated it, and the how-manieth of its writes there it
/// was.
///
/// Counters start at 1 and are contiguous per partition and actor; only the actor's own shard
/// assigns them (I1). Puts and deletes have dots alike. The order (actor, then counter) has no
/// causal meaning: it makes encodings canonical and breaks ties.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dot {
    /// The run of the node that coordinated the write.
    pub actor: Actor,
    /// Its number among that run's writes to the partition; never 0.
    pub counter: u64,
}

impl Dot {
    /// The dot of an actor's write number `counter`.
    #[must_use]
    pub fn new(actor: Actor, counter: u64) -> Dot {
        Dot { actor, counter }
    }
}

impl fmt::Display for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.actor, self.counter)
    }
}
