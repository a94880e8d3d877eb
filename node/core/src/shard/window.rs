//! The idempotence window: which writes were asked for already, and what became of them.
//!
//! A client that repeats a put with the same request id gets the first one's outcome. The window
//! is bounded in entries and time, and lives in this run's memory: it ends with a restart, which is
//! why a client repeats a write only at the same run of the same node.

use std::collections::VecDeque;

use bytes::Bytes;

use holm_protocol::dot::Dot;
use holm_protocol::ids::{Hlc, NodeId, RequestId};

use crate::map::FixedMap;
use crate::peer::OpId;
use crate::time::Mono;

/// Entries looked at to make room for one: more than one, so that the window shrinks to its limits
/// again after it had to keep some.
const SWEEP_MAX: usize = 4;

/// What became of a remembered write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is being coordinated.
    InFlight(OpId),
    /// It was acknowledged, with this encoded [`Written`](holm_protocol::message::Written): one
    /// piece of memory, because thousands of these are remembered and hardly any is asked for.
    Done(Bytes),
    /// It was passed on to a coordinator, during this many-th connection to it. Only that
    /// coordinator, in the same run, can apply it once.
    PassedOn {
        /// The coordinator.
        to: NodeId,
        /// Counts the connections to it that were lost before.
        losses: u64,
    },
    /// Its deadline passed before its level was met. The dot is taken.
    Unknown {
        /// The write's dot.
        dot: Dot,
        /// Its clock reading.
        hlc: Hlc,
    },
}

/// A remembered write.
#[derive(Debug, Clone)]
pub struct Remembered {
    /// A hash of what was asked: another write under the same id is an error.
    pub fingerprint: u64,
    /// What became of it.
    pub fate: Fate,
}

/// The window of one shard.
#[derive(Debug)]
pub struct RequestWindow {
    entries: FixedMap<RequestId, Remembered>,
    order: VecDeque<(Mono, RequestId)>,
    entries_max: usize,
    window_ms: u64,
}

impl RequestWindow {
    /// An empty window.
    #[must_use]
    pub fn new(entries_max: usize, window_ms: u64) -> Self {
        let (entries, order) = (FixedMap::default(), VecDeque::new());
        RequestWindow { entries, order, entries_max, window_ms }
    }

    /// What is known of a request.
    #[must_use]
    pub fn get(&self, request: RequestId) -> Option<&Remembered> {
        self.entries.get(&request)
    }

    /// Remembers a write that has just been given a dot, or been passed on.
    pub fn begin(&mut self, now: Mono, request: RequestId, fingerprint: u64, fate: Fate) {
        for _ in 0..SWEEP_MAX {
            let Some(&(since, oldest)) = self.order.front() else { break };
            let expired = since.plus_ms(self.window_ms) <= now;
            if !expired && self.order.len() < self.entries_max {
                break;
            }
            self.order.pop_front();
            let in_flight = |known: &Remembered| matches!(known.fate, Fate::InFlight(_));
            if !expired && self.entries.get(&oldest).is_some_and(in_flight) {
                // Its client may well ask again. Those in flight are few and bounded.
                self.order.push_back((since, oldest));
            } else {
                self.entries.remove(&oldest);
            }
        }
        if self.entries.insert(request, Remembered { fingerprint, fate }).is_none() {
            self.order.push_back((now, request));
        }
    }

    /// Changes what became of a remembered write. One that has left the window stays forgotten.
    pub fn settle(&mut self, request: RequestId, fate: Fate) {
        if let Some(remembered) = self.entries.get_mut(&request) {
            remembered.fate = fate;
        }
    }
}
