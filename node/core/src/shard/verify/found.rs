//! What verification found that no clock explains: the last of it, for operators who ask about a key.

use std::collections::VecDeque;

use holm_protocol::admin::ViolationState;
use holm_protocol::dot::Dot;
use holm_protocol::ids::{NodeId, Partition};

use crate::peer::verify::Place;

/// How many are remembered: some screens of a list that should be empty.
const FOUND_MAX: usize = 256;

/// Dots that one remembers at most; the log has all.
const DOTS_MAX: usize = 16;

/// See the [module](self).
#[derive(Debug, Default)]
pub(in crate::shard) struct Found {
    violations: VecDeque<(Partition, Place, ViolationState)>,
}

impl Found {
    /// Takes one in; the oldest goes.
    pub(super) fn note(
        &mut self,
        partition: Partition,
        at: &Place,
        found_ms: u64,
        (with, damaged, mut lost): (NodeId, bool, Vec<Dot>),
    ) {
        if self.violations.len() >= FOUND_MAX {
            self.violations.pop_back();
        }
        lost.truncate(DOTS_MAX);
        let state = ViolationState { found_ms, with, damaged, lost };
        self.violations.push_front((partition, at.clone(), state));
    }

    /// Those of one key, the last first.
    pub(in crate::shard) fn of(
        &self,
        partition: Partition,
        at: (holm_protocol::ids::BucketId, &[u8]),
    ) -> Vec<ViolationState> {
        let is_it = |(place, (bucket, key)): (&Partition, &Place)| {
            *place == partition && *bucket == at.0 && key.as_ref() == at.1
        };
        let of = self.violations.iter().filter(|(place, key, _)| is_it((place, key)));
        of.map(|(_, _, state)| state.clone()).collect()
    }
}
