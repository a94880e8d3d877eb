//! A shard's inbox: events from the network thread to a shard thread, in batches.
//!
//! One short lock for a whole batch, one wake-up when the inbox turns non-empty; the shard takes
//! everything at once. Bounded: requests of clients and of other nodes are refused when
//! `requests_max` events wait, those of clients also when what waits holds `BYTES_MAX`. Answers
//! are few compared with the requests that caused them and are taken up to `ANSWERS_FACTOR` times
//! that, then dropped and counted, as if the network had lost them. What nodes send may hold so many
//! times the bytes: a client can be told to come back, a refused replica costs a write its level.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use holm_core::peer::fingerprint::FingerprintMessage;
use holm_core::peer::{Found, HintMessage, PeerMessage};
use holm_core::shard::config::ClusterState;
use holm_core::shard::event::VerifyDemand;
use holm_core::shard::fingerprint::Fingerprint;
use holm_protocol::error::RequestError;
use holm_protocol::ids::{Actor, BucketId, NodeId};
use holm_protocol::message::{Reply, Request};

use tokio::sync::oneshot;

use crate::net::lane::ReplySink;

/// Each request leads to at most one answer from each of a few replicas. Arbitrary beyond that.
const ANSWERS_FACTOR: usize = 8;

/// Keys, values and objects in all events that wait, bytes. What a shard takes in one turn is copied
/// a few times until it is committed; this many of the largest values keep any disk busy.
const BYTES_MAX: usize = 16 << 20;

/// What a shard thread is woken for.
#[derive(Debug)]
pub enum Event {
    /// A request of a client.
    Client {
        /// Where its answer goes.
        replies: ReplySink,
        /// The client's lane.
        lane: u64,
        /// The request's number there.
        frame: u64,
        /// What is asked.
        request: Request,
    },
    /// An operator asks where a key lives.
    Explain {
        /// Where the answer goes.
        replies: ReplySink,
        /// The client's lane.
        lane: u64,
        /// The request's number there.
        frame: u64,
        /// The bucket.
        bucket: BucketId,
        /// The key.
        key: Bytes,
    },
    /// Somebody wants to know whether all regions hold the same.
    Fingerprint {
        /// Where the answer goes; dropped if there will be none.
        answer: oneshot::Sender<Result<Fingerprint, RequestError>>,
        /// How long replicas have to answer, milliseconds.
        timeout_ms: u32,
        /// Whether all replicas are asked, or one in each region.
        all: bool,
    },
    /// A message of another node.
    Peer {
        /// The node.
        from: NodeId,
        /// The message.
        message: PeerMessage,
    },
    /// A node can be reached, in this run, or not any more.
    Reachable(NodeId, Option<Actor>),
    /// Membership doubts that a node can be reached, or not any more.
    Doubted(NodeId, bool),
    /// Layout, buckets or secrets have changed.
    Cluster(Arc<ClusterState>),
    /// The node lost state it once had.
    Amnesia,
    /// An operator wants what the node holds verified.
    Verify(VerifyDemand),
    /// Finish: checkpoint, and end the thread.
    Stop,
}

impl Event {
    fn is_request(&self) -> bool {
        match self {
            Event::Client { .. } | Event::Explain { .. } | Event::Fingerprint { .. } => true,
            Event::Peer { message, .. } => matches!(
                message,
                PeerMessage::Write { .. }
                    | PeerMessage::Read { .. }
                    | PeerMessage::Repair { .. }
                    | PeerMessage::Proxy { .. }
                    | PeerMessage::Inspect { .. }
                    | PeerMessage::GapAsk { .. }
                    | PeerMessage::Hint(HintMessage::Keep { .. } | HintMessage::HandOff { .. })
                    | PeerMessage::PageAsk { .. }
                    | PeerMessage::Fingerprint(FingerprintMessage::Ask { .. })
            ),
            Event::Reachable(..)
            | Event::Doubted(..)
            | Event::Cluster(_)
            | Event::Amnesia
            | Event::Verify(_)
            | Event::Stop => false,
        }
    }

    /// Bytes that it keeps in memory beyond its own size.
    fn bytes(&self) -> usize {
        match self {
            Event::Client { request, .. } => request_bytes(request),
            Event::Peer { message, .. } => match message {
                PeerMessage::Write { object, .. }
                | PeerMessage::Repair { object, .. }
                | PeerMessage::Hint(
                    HintMessage::Keep { object, .. } | HintMessage::HandOff { object, .. },
                ) => object.len(),
                PeerMessage::ReadReply { found: Found::Object(object), .. } => object.len(),
                PeerMessage::PageAnswer { objects, .. } => {
                    objects.iter().map(|object| object.key.len() + object.object.len()).sum()
                }
                PeerMessage::GapAnswer { objects, .. } => {
                    objects.iter().map(|object| object.key.len() + object.object.len()).sum()
                }
                PeerMessage::Proxy { request, .. } => request_bytes(request),
                PeerMessage::ProxyReply { reply: Reply::Values(values), .. } => {
                    values.siblings.iter().map(|sibling| sibling.value.len()).sum()
                }
                _ => 0,
            },
            _ => 0,
        }
    }

    fn is_essential(&self) -> bool {
        matches!(
            self,
            Event::Reachable(..)
                | Event::Doubted(..)
                | Event::Cluster(_)
                | Event::Amnesia
                | Event::Verify(_)
                | Event::Stop
        )
    }
}

fn request_bytes(request: &Request) -> usize {
    match request {
        Request::Put(put) => put.key.len() + put.value.len() + put.context.len(),
        Request::Delete(delete) => delete.key.len() + delete.context.len(),
        Request::Get(get) => get.key.len(),
        Request::Admin(_) => 0,
    }
}

/// What waits.
#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<Event>,
    bytes: usize,
}

/// See the module's head.
#[derive(Debug)]
pub struct Inbox {
    waiting: Mutex<Waiting>,
    filled: Condvar,
    requests_max: usize,
    depth: AtomicUsize,
    dropped: AtomicU64,
}

impl Inbox {
    /// An empty inbox.
    #[must_use]
    pub fn new(requests_max: usize) -> Inbox {
        Inbox {
            waiting: Mutex::default(),
            filled: Condvar::new(),
            requests_max,
            depth: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    /// Puts events in, and empties `events`. Requests that did not fit are handed back in
    /// `refused`, to be answered.
    pub fn push(&self, events: &mut Vec<Event>, refused: &mut Vec<Event>) {
        if events.is_empty() {
            return;
        }
        let mut waiting = self.lock();
        let was_empty = waiting.events.is_empty();
        for event in events.drain(..) {
            let request = event.is_request();
            let limit =
                if request { self.requests_max } else { self.requests_max * ANSWERS_FACTOR };
            let of_client = matches!(event, Event::Client { .. } | Event::Explain { .. });
            let bytes_max = if of_client { BYTES_MAX } else { BYTES_MAX * ANSWERS_FACTOR };
            // One event fits whatever its length, if nothing waits.
            let bytes = waiting.bytes + event.bytes();
            let room = waiting.events.len() < limit && (bytes <= bytes_max || waiting.bytes == 0);
            if room || event.is_essential() {
                waiting.bytes = bytes;
                waiting.events.push_back(event);
            } else if request {
                refused.push(event);
            } else {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.depth.store(waiting.events.len(), Ordering::Relaxed);
        let wake = was_empty && !waiting.events.is_empty();
        drop(waiting);
        if wake {
            self.filled.notify_one();
        }
    }

    /// Puts one event in that is never refused.
    pub fn push_essential(&self, event: Event) {
        debug_assert!(event.is_essential());
        self.push(&mut vec![event], &mut Vec::new());
    }

    /// Takes everything that waits, or nothing if nothing comes within `patience`.
    pub fn take(&self, patience: Duration, batch: &mut VecDeque<Event>) {
        let mut waiting = self.lock();
        if waiting.events.is_empty() {
            waiting = match self.filled.wait_timeout(waiting, patience) {
                Ok((waiting, _)) => waiting,
                Err(poisoned) => poisoned.into_inner().0,
            };
            // Woken by the first of what may be many: where others want the core, let them run, and
            // find more to do in one turn. Where nobody does, this costs next to nothing.
            drop(waiting);
            std::thread::yield_now();
            waiting = self.lock();
        }
        std::mem::swap(&mut waiting.events, batch);
        waiting.bytes = 0;
        self.depth.store(0, Ordering::Relaxed);
    }

    /// How many events wait.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.depth.load(Ordering::Relaxed)
    }

    /// How many requests may wait.
    #[must_use]
    pub fn requests_max(&self) -> usize {
        self.requests_max
    }

    /// How many answers of other nodes were dropped.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing under the lock can panic half-way through a change.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
