//! The steps that the protocol takes on one key, recorded while a run is played: what the
//! specifications `Causality` and `Replication` are held against.
//!
//! The cluster tells this recorder of everything that changes or shows the key's object: a write
//! that a coordinator takes, an object that a replica joins, a commit, a start, an answer. Each
//! step has the object as the core made it, read from the shard after each single input. [`tla`]
//! writes the steps as sequences of TLA+ records; [`alter`] changes one step of a trace, which must
//! then be refused.
//!
//! One key is watched, whose partition has no other: counters of the partition are then those of
//! the key. How such a key is forgotten is recorded apart, in [`stability`].

pub mod alter;
pub mod stability;
pub mod tla;

use bytes::Bytes;
use holm_core::context::ContextSecrets;
use holm_core::object::Object;
use holm_protocol::dot::Dot;
use holm_protocol::ids::{Actor, BucketId, NodeId, Partition};
use holm_protocol::message::{Reply, Request};
use holm_protocol::version_vector::VersionVector;

/// What the specifications know of an object: values are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shown {
    /// The dots that are alive.
    pub live: Vec<Dot>,
    /// What it covers.
    pub context: VersionVector,
}

impl Shown {
    /// Of an object; nothing of none.
    #[must_use]
    pub fn of(object: Option<&Object>) -> Shown {
        object.map_or_else(Shown::default, |object| Shown {
            live: object.live_dots().collect(),
            context: object.context.clone(),
        })
    }
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A coordinator takes a put or a delete.
    Write {
        /// The coordinator's run.
        at: Actor,
        /// A delete.
        delete: bool,
        /// The context that the client gave.
        under: VersionVector,
        /// The object after it.
        after: Shown,
    },
    /// A replica joins an object.
    Join {
        /// The replica's run.
        at: Actor,
        /// What came.
        got: Shown,
        /// The object after it.
        after: Shown,
    },
    /// A replica's batch is durable.
    Commit {
        /// The replica's run.
        at: Actor,
        /// What the disk has.
        object: Shown,
    },
    /// A node starts.
    Start {
        /// The node.
        node: NodeId,
        /// Its run before.
        was: Actor,
        /// Its run from now on.
        at: Actor,
        /// What it finds on its disk.
        object: Shown,
    },
    /// A writer is told that its write is acknowledged.
    Told {
        /// The coordinator's run.
        at: Actor,
        /// The write.
        dot: Dot,
        /// The context that it may go on with.
        context: VersionVector,
        /// The replicas that the receipt names.
        by: Vec<NodeId>,
    },
    /// A reader is told what the key holds.
    Read {
        /// The values and the context.
        answer: Shown,
    },
}

/// What an input brings that is no write: an object to join.
#[derive(Debug, Clone)]
pub enum Brought {
    /// A client's write, also one that another node passes on.
    Request(Request),
    /// An object of another replica.
    Object(Bytes),
    /// Neither: what comes of it is an answer to a read that was joined.
    Other,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Recorder {
    bucket: BucketId,
    key: Bytes,
    /// The key of its object in the store.
    pub row: Vec<u8>,
    secrets: ContextSecrets,
    /// The runs of nodes, in the order in which they began.
    runs: Vec<(NodeId, Actor)>,
    steps: Vec<Step>,
}

/// What a recorder must know of the key that it watches.
#[derive(Debug)]
pub struct Watched {
    /// Its bucket.
    pub bucket: BucketId,
    /// The key.
    pub key: Bytes,
    /// Where it is.
    pub partition: Partition,
    /// The key of its object in the store.
    pub row: Vec<u8>,
    /// What reads contexts.
    pub secrets: ContextSecrets,
    /// The first runs of nodes.
    pub runs: Vec<(NodeId, Actor)>,
}

impl Recorder {
    /// Watches a key, from before its first write on.
    #[must_use]
    pub fn new(of: Watched) -> Recorder {
        let Watched { bucket, key, row, secrets, runs, .. } = of;
        Recorder { bucket, key, row, secrets, runs, steps: Vec::new() }
    }

    /// Whether this is the key that is watched.
    #[must_use]
    pub fn watches(&self, bucket: BucketId, key: &[u8]) -> bool {
        self.bucket == bucket && self.key == key
    }

    /// What was recorded: the runs and the steps.
    #[must_use]
    pub fn into_trace(self) -> Trace {
        Trace { runs: self.runs, steps: self.steps }
    }

    /// A shard has handled one input; says what the key's object was before and after.
    pub fn handled(&mut self, at: Actor, brought: &Brought, before: &Shown, after: Shown) {
        if *before == after {
            return;
        }
        let wrote = after.context.get(at) > before.context.get(at);
        let step = match brought {
            Brought::Request(request) if wrote => {
                let (context, delete) = match request {
                    Request::Put(put) => (&put.context, false),
                    Request::Delete(delete) => (&delete.context, true),
                    Request::Get(_) | Request::Admin(_) => return,
                };
                let under = self.open(context);
                Step::Write { at, delete, under, after }
            }
            Brought::Object(object) => {
                let object = Object::decode(object).ok();
                Step::Join { at, got: Shown::of(object.as_ref()), after }
            }
            _ => Step::Join { at, got: after.clone(), after },
        };
        self.steps.push(step);
    }

    /// A shard has committed; says what its disk holds now.
    pub fn committed(&mut self, at: Actor, object: Shown) {
        self.steps.push(Step::Commit { at, object });
    }

    /// A node has started.
    pub fn started(&mut self, node: NodeId, at: Actor, object: Shown) {
        let was = self.runs.iter().rev().find(|(it, _)| *it == node).map_or(at, |(_, was)| *was);
        if !self.runs.contains(&(node, at)) {
            self.runs.push((node, at));
        }
        self.steps.push(Step::Start { node, was, at, object });
    }

    /// A node answers a client.
    pub fn answered(&mut self, reply: &Reply) {
        match reply {
            Reply::Written(written) => self.steps.push(Step::Told {
                at: written.dot.actor,
                dot: written.dot,
                context: self.open(&written.context),
                by: written.receipt.replicas.iter().map(|entry| entry.node).collect(),
            }),
            Reply::Values(values) => {
                let live = values.siblings.iter().map(|sibling| sibling.dot).collect();
                let answer = Shown { live, context: self.open(&values.context) };
                self.steps.push(Step::Read { answer });
            }
            _ => {}
        }
    }

    /// What a context covers; nothing if it is not one of this key.
    fn open(&self, context: &Bytes) -> VersionVector {
        self.secrets.open(self.bucket, &self.key, context).unwrap_or_default()
    }
}

/// A recorded run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// The runs of nodes, in the order in which they began.
    pub runs: Vec<(NodeId, Actor)>,
    /// What happened.
    pub steps: Vec<Step>,
}
