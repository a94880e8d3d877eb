//! Real processes as the workload generator's world, with the simulator's own referee.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use holm_core::context::ContextSecrets;
use holm_core::layout::Layout;
use holm_protocol::ids::{BucketId, NodeId, Partition};
use holm_protocol::message::Request;
use holm_protocol::version_vector::VersionVector;
use holm_sim::check::Violation;
use holm_sim::check::kept::ACKNOWLEDGED_KEPT;
use holm_sim::cluster::CallId;
use holm_sim::history::{EventId, KeyId, Outcome};
use holm_sim::referee::Referee;
use holm_sim::world::World;

use super::held::Held;
use super::link::Link;

/// What a client's message takes at most on loopback when the machine is busy, microseconds.
const DELAY_US: u64 = 50_000;

/// What all nodes have agreed on.
#[derive(Debug, Clone)]
pub(crate) struct Agreed {
    pub(crate) layout: Arc<Layout>,
    pub(crate) secrets: ContextSecrets,
    /// The bucket that keeps siblings.
    pub(crate) siblings: BucketId,
    /// The bucket in which the last writer wins.
    pub(crate) latest: BucketId,
}

/// A key to be looked up on nodes and disks.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) id: KeyId,
    pub(crate) partition: Partition,
    pub(crate) bucket: BucketId,
    pub(crate) name: Bytes,
    pub(crate) is_lww: bool,
}

/// A write under way when a disk may have lost it. What became of it there shows when its dot is
/// known.
#[derive(Debug)]
struct Unsettled {
    write: EventId,
    node: NodeId,
    /// What the disk held of its key.
    covers: VersionVector,
}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct RealWorld {
    began: Instant,
    agreed: Agreed,
    /// Starts the names of this round's keys.
    prefix: String,
    referee: Referee,
    runs: BTreeMap<NodeId, u32>,
    forgetful: BTreeSet<NodeId>,
    links: BTreeMap<NodeId, Link>,
    last_call: u64,
    unsettled: Vec<Unsettled>,
}

impl RealWorld {
    /// Nodes that have been started once, and the ways to reach them.
    pub(crate) fn new(agreed: Agreed, links: BTreeMap<NodeId, Link>) -> RealWorld {
        RealWorld {
            began: Instant::now(),
            referee: Referee::of_processes(agreed.layout.clone(), agreed.secrets.clone()),
            prefix: String::new(),
            runs: links.keys().map(|&node| (node, 1)).collect(),
            forgetful: BTreeSet::new(),
            links,
            last_call: 0,
            unsettled: Vec::new(),
            agreed,
        }
    }

    /// The bucket that keeps siblings.
    pub(crate) fn siblings(&self) -> BucketId {
        self.agreed.siblings
    }

    /// Begins a history of its own with keys of its own. What was heard so far is the answer.
    pub(crate) fn begin_round(&mut self, prefix: String) -> Referee {
        self.prefix = prefix;
        self.unsettled.clear();
        let fresh = Referee::of_processes(self.agreed.layout.clone(), self.agreed.secrets.clone());
        std::mem::replace(&mut self.referee, fresh)
    }

    /// When something is to happen, as an instant.
    pub(crate) fn instant(&self, at_us: u64) -> Instant {
        self.began + std::time::Duration::from_micros(at_us)
    }

    /// A node was killed: its clients learn it.
    pub(crate) fn killed(&mut self, node: NodeId) {
        self.links[&node].reset();
    }

    /// A node is started again.
    pub(crate) fn started(&mut self, node: NodeId) {
        *self.runs.entry(node).or_default() += 1;
    }

    /// A node has declared amnesia.
    pub(crate) fn forgot(&mut self, node: NodeId) {
        self.forgetful.insert(node);
    }

    /// All keys of the round.
    pub(crate) fn places(&self) -> Vec<Place> {
        places(&self.referee)
    }

    /// Compares a dead node's disk with what the node has acknowledged. A write that is not there
    /// breaks the rule, unless the fault may cost it: then the node is no longer counted upon to
    /// have it; nor is one that kept it for another, also if that one has it meanwhile. How many writes the
    /// disk has lost is the answer.
    pub(crate) fn examine(&mut self, node: NodeId, held: &Held, may_lose: bool) -> usize {
        let mut lost = Vec::new();
        for (id, event) in self.referee.history().events() {
            let mut covers = held.objects.get(&event.key).cloned().unwrap_or_default();
            let had_hint = may_lose && event.hinted.contains(&node);
            if may_lose && let Some(hints) = held.hints.get(&event.key) {
                covers.merge(hints);
            }
            // What is dead may be forgotten: nothing then tells it from what the fault has cost. It is
            // counted as lost, because what it died of may be lost with it.
            let covers = match may_lose {
                true => covers,
                false => self.referee.history().with_forgotten(event.key, &covers),
            };
            match (event.outcome, event.dot) {
                (Outcome::Acknowledged, Some(dot))
                    if (event.durable.contains(&node) || had_hint) && !covers.covers(dot) =>
                {
                    lost.push(id);
                }
                (Outcome::Pending | Outcome::Unknown, _) if may_lose => {
                    self.unsettled.push(Unsettled { write: id, node, covers });
                }
                _ => {}
            }
        }
        for &id in &lost {
            if may_lose {
                self.referee.set_aside(id, &[node]);
            } else {
                let write = self.referee.history().describe(id);
                let how = format!("not on the disk of {node}, which acknowledged it: {write}");
                self.referee.judge(Err(Violation::new(&ACKNOWLEDGED_KEPT, how)));
            }
        }
        lost.len()
    }

    /// Settles writes whose dots have become known. To be called after every answer.
    pub(crate) fn settle(&mut self) {
        let referee = &mut self.referee;
        self.unsettled.retain(|open| {
            let Some(dot) = referee.history().event(open.write).dot else { return true };
            if !open.covers.covers(dot) {
                referee.set_aside(open.write, &[open.node]);
            }
            false
        });
    }

    /// Acknowledged writes that every disk has lost which had acknowledged them.
    pub(crate) fn excused(&self) -> u64 {
        let events = self.referee.history().events();
        let acknowledged = events.filter(|(_, event)| event.outcome == Outcome::Acknowledged);
        acknowledged.filter(|(_, event)| !event.is_owed()).count() as u64
    }
}

/// All keys that a referee knows.
pub(crate) fn places(referee: &Referee) -> Vec<Place> {
    let place = |(id, key): (KeyId, &holm_sim::history::Key)| Place {
        id,
        partition: key.partition,
        bucket: key.bucket,
        name: key.name.clone(),
        is_lww: key.is_lww,
    };
    referee.history().keys().map(place).collect()
}

impl World for RealWorld {
    fn now_us(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    fn layout(&self) -> &Layout {
        &self.agreed.layout
    }

    fn referee(&self) -> &Referee {
        &self.referee
    }

    fn referee_mut(&mut self) -> &mut Referee {
        &mut self.referee
    }

    fn add_key(&mut self, name: String, is_lww: bool) -> KeyId {
        let bucket = if is_lww { self.agreed.latest } else { self.agreed.siblings };
        self.referee.add_key(bucket, format!("{}{name}", self.prefix).into(), is_lww)
    }

    fn run_of(&self, node: NodeId) -> u32 {
        self.runs.get(&node).copied().unwrap_or_default()
    }

    fn is_whole(&self, node: NodeId) -> bool {
        !self.forgetful.contains(&node)
    }

    fn longest_client_delay(&self) -> u64 {
        DELAY_US
    }

    fn call(
        &mut self,
        _who: (u64, usize),
        node: NodeId,
        request: Request,
        repeated: u32,
    ) -> CallId {
        if repeated > 0 {
            self.referee.repeats();
        }
        self.last_call += 1;
        let call = CallId(self.last_call);
        self.links[&node].ask(call, request);
        call
    }

    // Its answer, if it comes after all, finds nobody waiting.
    fn give_up(&mut self, _call: CallId) {}
}
