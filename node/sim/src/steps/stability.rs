//! The steps by which a delete comes to be forgotten, recorded while a run is played: what the
//! specification `Stability` is held against.
//!
//! One key is watched, whose partition has no other. Of each node is recorded what it holds of the
//! partition after every input and every commit, if that has changed: the object, what it has seen,
//! what it knows to be stable, what its log has. And what nodes tell each other: claims as they
//! leave and as they are noted, which run of a node another one has met, and where replicas say they
//! stand. [`tla`] writes the steps as TLA+ records; [`alter`] changes one of them.

pub mod alter;
pub mod tla;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use holm_core::clock::DotSet;
use holm_core::context::ContextSecrets;
use holm_core::object::Object;
use holm_core::peer::{Claimed, CompareMessage, OpId, PeerMessage, Position, Standing};
use holm_protocol::dot::Dot;
use holm_protocol::ids::{Actor, BucketId, NodeId, Partition};
use holm_protocol::message::Request;
use holm_protocol::version_vector::VersionVector;

use super::{Shown, Watched};

/// What a node holds of the partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its object.
    pub object: Shown,
    /// Its clock.
    pub seen: Vec<Dot>,
    /// Up to where it knows every replica to have seen everything.
    pub know: VersionVector,
    /// Whether it vouches for it.
    pub standing: Standing,
}

/// What a replica claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The run that claims.
    pub run: Actor,
    /// What it has seen.
    pub seen: Vec<Dot>,
    /// What it knows to be stable.
    pub know: VersionVector,
}

/// A partition with one key, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The object.
    pub object: Shown,
    /// What the sender has seen.
    pub seen: Vec<Dot>,
    /// What it knows to be stable.
    pub know: VersionVector,
}

/// One step. Each is of a node, and some of another one too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A coordinator takes a put or a delete: the actor, whether it deletes, under which context, and
    /// what it holds after it.
    Write(NodeId, Actor, bool, VersionVector, Held),
    /// A replica joins this object.
    Join(NodeId, Shown, Held),
    /// A replica cuts the object's context down.
    Forget(NodeId, Shown),
    /// A batch is committed: what the store has then, what the log has, and whether it is synced.
    Commit(NodeId, Held, Vec<Dot>, bool),
    /// All that is committed is synced.
    Sync(NodeId),
    /// A claim leaves for the other node, or a pulse, which is one of what its run has written.
    Tell(NodeId, NodeId, Claim),
    /// It is noted by the first node; the other one has claimed it.
    Hear(NodeId, NodeId, Claim),
    /// A node meets a run of another one.
    Meet(NodeId, NodeId, Actor),
    /// A node asks another one where it stands, and says where it does.
    Ask(NodeId, NodeId, OpId, Position),
    /// The answer.
    Answer(NodeId, NodeId, OpId, Position),
    /// A node leaves doubt on the other's answer.
    Serve(NodeId, NodeId, OpId, Position),
    /// A node wants the partition whole from another one, and says what it knows.
    Want(NodeId, NodeId, OpId, Position),
    /// A node sends another one all that it has of it.
    Page(NodeId, NodeId, Page),
    /// A replica takes what came on such a page from the other one.
    Whole(NodeId, NodeId, Page, Held),
    /// Where a node stands is another place now, of its own accord.
    Stand(NodeId, Standing),
    /// Somebody copies a node's disk.
    Copy(NodeId),
    /// The disk of a node that is down becomes a copy, of the other's, or an empty one.
    Replace(NodeId, Option<NodeId>),
    /// A node starts a run: what it finds on its disk.
    Start(NodeId, Actor, Held, Vec<Dot>),
}

/// What an input brings.
#[derive(Debug, Clone)]
pub enum Brought {
    /// A client's write.
    Request(Request),
    /// An object of another replica.
    Object(Bytes),
    /// A claim.
    Claim(NodeId, Claim),
    /// A run of another node.
    Run(NodeId, Actor),
    /// An answer of where another replica stands.
    Position(NodeId, OpId, Position),
    /// All that another replica has.
    Page(NodeId, Page),
    /// None of these.
    Other,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Recorder {
    bucket: BucketId,
    key: Bytes,
    /// Where the key is.
    pub partition: Partition,
    /// The key of its object in the store.
    pub row: Vec<u8>,
    secrets: ContextSecrets,
    /// What each node held last.
    held: BTreeMap<NodeId, Held>,
    /// And its log.
    logs: BTreeMap<NodeId, Vec<Dot>>,
    /// Who has committed something that is not synced.
    unsynced: BTreeSet<NodeId>,
    /// What came whole and is not taken in.
    pages: BTreeMap<NodeId, (NodeId, Page)>,
    trace: Trace,
}

impl Recorder {
    /// Watches a key, from before its first write on.
    #[must_use]
    pub fn new(of: Watched) -> Recorder {
        let Watched { bucket, key, partition, row, secrets, runs } = of;
        let trace = Trace { runs, steps: Vec::new() };
        Recorder {
            bucket,
            key,
            partition,
            row,
            secrets,
            held: BTreeMap::new(),
            logs: BTreeMap::new(),
            unsynced: BTreeSet::new(),
            pages: BTreeMap::new(),
            trace,
        }
    }

    /// Whether this is the key that is watched.
    #[must_use]
    pub fn watches(&self, bucket: BucketId, key: &[u8]) -> bool {
        self.bucket == bucket && self.key == key
    }

    /// What was recorded.
    #[must_use]
    pub fn into_trace(self) -> Trace {
        self.trace
    }

    fn push(&mut self, step: Step) {
        self.trace.steps.push(step);
    }

    /// A shard has handled one input; `noted` says whether it has answered a claim that it has noted
    /// it.
    pub fn handled(&mut self, node: NodeId, actor: Actor, brought: &Brought, now: (Held, bool)) {
        let (after, noted) = now;
        match brought {
            Brought::Claim(from, claim) if noted => {
                self.push(Step::Hear(node, *from, claim.clone()));
            }
            Brought::Run(other, run) => self.push(Step::Meet(node, *other, *run)),
            Brought::Page(from, page) => {
                self.pages.insert(node, (*from, page.clone()));
            }
            _ => {}
        }
        let Some(before) = self.held.get(&node).cloned() else {
            self.held.insert(node, after);
            return;
        };
        self.changed(node, actor, brought, (&before, &after));
        match (before.standing, after.standing, brought) {
            (was, is, _) if was == is => {}
            (Standing::Doubt, Standing::Serves, Brought::Position(from, op, position)) => {
                self.push(Step::Serve(node, *from, *op, position.clone()));
            }
            (_, is, _) => self.push(Step::Stand(node, is)),
        }
        self.held.insert(node, after);
    }

    /// What became of the object and the clock.
    fn changed(
        &mut self,
        node: NodeId,
        actor: Actor,
        brought: &Brought,
        (before, after): (&Held, &Held),
    ) {
        if before.object == after.object && before.seen == after.seen {
            return;
        }
        // What was covered and is not was forgotten before anything else happened.
        let was_cut = !before.object.context.iter().all(|dot| after.object.context.covers(dot));
        if was_cut {
            let live = before.object.live.clone();
            let cut = Shown { context: live.iter().copied().collect(), live };
            let is_all = cut == after.object && before.seen == after.seen;
            self.push(Step::Forget(node, cut));
            if is_all {
                return;
            }
        }
        let after = after.clone();
        let wrote = after.object.context.get(actor) > before.object.context.get(actor);
        let step = match brought {
            Brought::Request(Request::Put(put)) if wrote => {
                Step::Write(node, actor, false, self.open(&put.context), after)
            }
            Brought::Request(Request::Delete(delete)) if wrote => {
                Step::Write(node, actor, true, self.open(&delete.context), after)
            }
            Brought::Object(object) => {
                let object = Object::decode(object).ok();
                Step::Join(node, Shown::of(object.as_ref()), after)
            }
            _ => Step::Join(node, after.object.clone(), after),
        };
        self.push(step);
    }

    /// A shard has committed: what its store has now.
    pub fn committed(
        &mut self,
        (node, actor): (NodeId, Actor),
        after: Held,
        log: Vec<Dot>,
        is_synced: bool,
    ) {
        if let Some(before) = self.held.get(&node).cloned() {
            let is_changed = before.object != after.object || before.seen != after.seen;
            let stands = before.standing != after.standing;
            match self.pages.remove(&node) {
                Some((from, page)) if is_changed || stands => {
                    self.push(Step::Whole(node, from, page, after.clone()));
                }
                _ => {
                    let same = Held { know: before.know.clone(), ..after.clone() };
                    self.changed(node, actor, &Brought::Other, (&before, &same));
                }
            }
            if stands {
                self.push(Step::Stand(node, after.standing));
            }
        }
        let last = self.trace.steps.iter().rev().find(|step| step.is_state_of(node));
        let is_new = match last {
            Some(Step::Commit(_, held, ..) | Step::Start(_, _, held, _)) => *held != after,
            _ => true,
        };
        if is_new || self.logs.get(&node) != Some(&log) {
            self.push(Step::Commit(node, after.clone(), log.clone(), is_synced));
            if !is_synced {
                self.unsynced.insert(node);
            }
        }
        self.held.insert(node, after);
        self.logs.insert(node, log);
    }

    /// A store has synced all that was committed.
    pub fn synced(&mut self, node: NodeId) {
        if self.unsynced.remove(&node) {
            self.push(Step::Sync(node));
        }
    }

    /// A message leaves.
    pub fn told(&mut self, from: NodeId, to: NodeId, message: &PeerMessage) {
        let step = match message {
            PeerMessage::Seen { run, clocks, .. } => {
                self.claimed(*run, clocks).map(|claim| Step::Tell(from, to, claim))
            }
            PeerMessage::Pulse { actor, counters, .. } => {
                self.pulsed(*actor, counters).map(|claim| Step::Tell(from, to, claim))
            }
            PeerMessage::Compare(CompareMessage::Compare { op, positions, .. }) => {
                self.position(positions).map(|it| Step::Ask(from, to, *op, it))
            }
            PeerMessage::Compare(CompareMessage::Compared { op, positions }) => {
                self.position(positions).map(|it| Step::Answer(from, to, *op, it))
            }
            PeerMessage::PageAsk { op, partition, know, .. } if *partition == self.partition => {
                let standing = self.held.get(&from).map_or(Standing::Doubt, |held| held.standing);
                let position = Position { standing, know: know.clone() };
                Some(Step::Want(from, to, *op, position))
            }
            PeerMessage::PageAnswer { .. } => {
                self.page(message).map(|page| Step::Page(from, to, page))
            }
            _ => None,
        };
        self.trace.steps.extend(step);
    }

    /// What a message claims of the partition.
    #[must_use]
    pub fn claimed(&self, run: Actor, clocks: &[(Partition, Claimed)]) -> Option<Claim> {
        let (_, claimed) = clocks.iter().find(|(partition, _)| *partition == self.partition)?;
        Some(Claim { run, seen: dots_of(&claimed.seen), know: claimed.know.clone() })
    }

    /// What a pulse says of it: how far its run has written.
    fn pulsed(&self, run: Actor, counters: &[(Partition, u64)]) -> Option<Claim> {
        let (_, upto) = counters.iter().find(|(partition, _)| *partition == self.partition)?;
        let seen = (1..=*upto).map(|counter| Dot { actor: run, counter }).collect();
        Some(Claim { run, seen, know: VersionVector::new() })
    }

    /// All that a message has of it.
    #[must_use]
    pub fn page(&self, message: &PeerMessage) -> Option<Page> {
        let PeerMessage::PageAnswer { partition, clock, know, objects, .. } = message else {
            return None;
        };
        let object = objects.iter().find(|it| self.watches(it.bucket, &it.key));
        let object = object.and_then(|it| Object::decode(&it.object).ok());
        let (object, seen) = (Shown::of(object.as_ref()), dots_of(clock));
        (*partition == self.partition).then(|| Page { object, seen, know: know.clone() })
    }

    /// Where a message says that its sender stands with it.
    #[must_use]
    pub fn position(&self, positions: &[(Partition, Position)]) -> Option<Position> {
        let (_, position) = positions.iter().find(|(partition, _)| *partition == self.partition)?;
        Some(position.clone())
    }

    /// Somebody copies a node's disk.
    pub fn copied(&mut self, node: NodeId) {
        self.push(Step::Copy(node));
    }

    /// A node that is down gets another disk: a copy of a node's, or an empty one.
    pub fn replaced(&mut self, node: NodeId, from: Option<NodeId>) {
        self.push(Step::Replace(node, from));
    }

    /// A node has started.
    pub fn started(&mut self, node: NodeId, actor: Actor, found: Held, log: Vec<Dot>) {
        if !self.trace.runs.contains(&(node, actor)) {
            self.trace.runs.push((node, actor));
        }
        self.push(Step::Start(node, actor, found.clone(), log.clone()));
        self.unsynced.remove(&node);
        self.pages.remove(&node);
        self.held.insert(node, found);
        self.logs.insert(node, log);
    }

    /// What a context covers; nothing if it is not one of this key.
    fn open(&self, context: &Bytes) -> VersionVector {
        self.secrets.open(self.bucket, &self.key, context).unwrap_or_default()
    }
}

impl Step {
    /// Whether it changes what a node holds.
    fn is_state_of(&self, node: NodeId) -> bool {
        match self {
            Step::Write(it, ..)
            | Step::Join(it, ..)
            | Step::Forget(it, _)
            | Step::Whole(it, ..)
            | Step::Stand(it, _)
            | Step::Commit(it, ..)
            | Step::Start(it, ..) => *it == node,
            _ => false,
        }
    }
}

/// All dots of a clock.
#[must_use]
pub fn dots_of(clock: &DotSet) -> Vec<Dot> {
    let dots = |(actor, first, last)| (first..=last).map(move |counter| Dot { actor, counter });
    clock.spans().flat_map(dots).collect()
}

/// A recorded run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// The runs of nodes, in the order in which they began.
    pub runs: Vec<(NodeId, Actor)>,
    /// What happened.
    pub steps: Vec<Step>,
}
