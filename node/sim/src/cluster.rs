//! The world: nodes with real shards, simulated disks, clocks and links, in one thread.
//!
//! Everything that will happen is in one queue. A node's shell is played here as the
//! real one works: a shard's inbox is drained in a batch, what it sends leaves at once, the batch is
//! committed some time later, and then its acknowledgements leave. Between the two the node can
//! die. Messages travel as encoded frames and are decoded on arrival, so the codecs are under test.
//!
//! Connections follow the links: when a node dies or a link is cut in either direction, both ends
//! notice after a while; what is sent until then is lost, as is what is sent without a connection.
//! A node that starts is connected after a round trip. What was on its way arrives all the same,
//! also at the receiver's next run: more than QUIC would do, and allowed (I8).

mod audit;
mod bugs;
mod faults;
mod hints;
mod node;
mod queue;
mod removal;
mod shell;
mod standing;
mod tally;
mod watch;
mod watch_stable;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use holm_core::context::ContextSecrets;
use holm_core::layout::Layout;
use holm_core::object::Object;
use holm_core::peer::{OpId, Position};
use holm_core::shard::config::{ClusterState, ShardConfig};
use holm_core::shard::event::Counters;
use holm_core::store::Table;
use holm_protocol::bucket::{BucketInfo, BucketKind, BucketPolicy};
use holm_protocol::ids::{Actor, BucketId, NodeId, Partition};
use holm_protocol::message::{Reply, Request};
use rand::rngs::ChaCha8Rng;

use crate::check::deadline;
use crate::net::{Delay, Net};
use crate::plan::{Shape, Timing};
use crate::referee::Referee;
use crate::rng::stream;
use crate::steps::{Recorder, stability};
use crate::store::{SimStore, SyncMode};
use crate::tamper::Tamper;
use crate::trace::{Trace, What};

use node::Node;
use queue::{Event, Queue};

pub(crate) use hints::covered;
pub use tally::FaultTally;

/// The bucket that keeps siblings.
pub const SIBLINGS: BucketId = BucketId(1);
/// The bucket in which the last writer wins.
pub const LWW: BucketId = BucketId(2);

/// A client's call of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// How a call ended.
#[derive(Debug, Clone, PartialEq)]
pub enum CallResult {
    /// The node answered.
    Reply(Reply),
    /// There was no node to send it to: nothing happened.
    NotSent,
    /// The node died, or its answer did not come: nobody knows.
    Disconnected,
}

/// What a step brought to the driver.
#[derive(Debug)]
pub enum Happened {
    /// Nothing that concerns it.
    Nothing,
    /// An alarm that it has set.
    Alarm(u64),
    /// The end of a call.
    Answer(CallId, CallResult),
}

#[derive(Debug)]
struct Call {
    client: u64,
    region: usize,
    node: NodeId,
    run: u32,
    asked_us: u64,
    timeout_us: u64,
    repeated: u32,
    /// A repeated request goes over the connection that the client has: to this run.
    only_run: Option<u32>,
    frame: Bytes,
    /// Its answer was lost on the way: the node is not to blame.
    answer_lost: bool,
}

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Regions, nodes, replicas, partitions, shards.
    pub shape: Shape,
    /// Every shard's limits.
    pub shard: ShardConfig,
    /// Whether buckets have no fallbacks.
    pub strict: bool,
    /// When commits are safe.
    pub sync: SyncMode,
    /// How long things take.
    pub timing: Timing,
    /// Decides everything that the plan does not.
    pub seed: u64,
    /// A bug put back.
    pub tamper: Option<Tamper>,
    /// Steps of the trace that are kept.
    pub steps_max: usize,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Cluster {
    setup: Setup,
    now_us: u64,
    queue: Queue,
    nodes: BTreeMap<NodeId, Node>,
    net: Net,
    layout: Arc<Layout>,
    /// Nodes that never start again.
    buried: BTreeSet<NodeId>,
    state: Arc<ClusterState>,
    /// What each client draws from: delays of its messages, losses of its answers.
    client_rngs: BTreeMap<u64, ChaCha8Rng>,
    calls: BTreeMap<CallId, Call>,
    next_call: u64,
    /// Thousandths of answers to clients that are lost.
    replies_lost: u32,
    trace: Trace,
    referee: Referee,
    /// The partition whose replicas are compared next.
    next_checked: usize,
    tally: FaultTally,
    counters_of_the_dead: Counters,
    /// Where nodes told each other that they stand, if a bug may have changed that.
    positions: BTreeMap<OpId, Vec<(Partition, Position)>>,
    /// Every actor that a node's shard was given.
    actors: BTreeSet<Actor>,
    /// What a bug that was put back remembers.
    bugs: bugs::Bugs,
    /// Records the protocol's steps, if somebody wants them.
    recorder: Option<Recorder>,
    /// And how a key is forgotten.
    forgetting: Option<stability::Recorder>,
}

impl Cluster {
    /// A cluster whose nodes start at time 0.
    #[must_use]
    pub fn new(setup: Setup) -> Cluster {
        let layout = Arc::new(setup.shape.layout());
        let secrets = ContextSecrets::new([7; 32]);
        let mut referee = Referee::new(layout.clone(), secrets.clone());
        referee.set_strict(setup.strict);
        let strict = setup.strict && setup.tamper != Some(Tamper::StrictIgnored);
        let state = ClusterState {
            layout: Some(layout.clone()),
            buckets: [(SIBLINGS, "carts", BucketKind::Siblings), (LWW, "flags", BucketKind::Lww)]
                .into_iter()
                .map(|(id, name, kind)| {
                    let policy = BucketPolicy { kind, strict, ..BucketPolicy::default() };
                    (id, BucketInfo { id, name: name.to_owned(), policy })
                })
                .collect(),
            secrets: Some(secrets.clone()),
        };
        let regions = setup.shape.nodes();
        let nodes = regions
            .iter()
            .map(|(&id, &region)| {
                let rng = stream(setup.seed, &format!("disk {id}"));
                (id, Node::new((id, region), SimStore::new(setup.sync), rng))
            })
            .collect();
        let Timing { delays, link_spread, .. } = &setup.timing;
        let net = Net::new(regions, delays.clone(), *link_spread, setup.seed);
        let mut cluster = Cluster {
            now_us: 0,
            queue: Queue::default(),
            nodes,
            net,
            referee,
            layout,
            buried: BTreeSet::new(),
            state: Arc::new(state),
            client_rngs: BTreeMap::new(),
            calls: BTreeMap::new(),
            next_call: 0,
            replies_lost: 0,
            trace: Trace::new(setup.steps_max),
            next_checked: 0,
            tally: FaultTally::default(),
            counters_of_the_dead: Counters::default(),
            positions: BTreeMap::new(),
            actors: BTreeSet::new(),
            bugs: bugs::Bugs::default(),
            recorder: None,
            forgetting: None,
            setup,
        };
        for (id, region) in cluster.setup.shape.nodes() {
            cluster.trace.place(id, region);
            if let Some(node) = cluster.nodes.get_mut(&id) {
                node.store.play(cluster.setup.tamper);
            }
            if cluster.setup.tamper == Some(Tamper::AcknowledgedBeforeSync) {
                cluster.set_store_faults(id, |faults| faults.syncs_lie = true);
            }
            cluster.boot(id);
        }
        cluster
    }

    /// The simulated time, microseconds.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        self.now_us
    }

    /// The layout.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The referee.
    #[must_use]
    pub fn referee(&self) -> &Referee {
        &self.referee
    }

    /// The referee, to be told what clients do.
    pub fn referee_mut(&mut self) -> &mut Referee {
        &mut self.referee
    }

    /// What happened.
    #[must_use]
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// How often each fault had an effect.
    #[must_use]
    pub fn tally(&self) -> FaultTally {
        let mut tally = self.tally;
        tally.net(self.net.tally());
        self.nodes.values().for_each(|node| tally.store(node.store.tally()));
        tally
    }

    /// What all shards have counted, those of earlier runs too.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut sum = self.counters_of_the_dead;
        for slot in self.nodes.values().flat_map(|node| &node.slots) {
            add_counters(&mut sum, slot.shard.counters());
        }
        sum
    }

    /// All nodes.
    pub fn node_ids(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes.keys().copied()
    }

    /// Whether a node runs.
    #[must_use]
    pub fn is_up(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.is_up)
    }

    /// Whether a node runs and holds what it has promised.
    #[must_use]
    pub fn is_whole(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.is_up && !node.amnesia)
    }

    /// How often a node was started, as it says itself.
    #[must_use]
    pub fn run_of(&self, node: NodeId) -> u32 {
        match self.setup.tamper {
            Some(Tamper::WindowLostButClaimed) => 1,
            _ => self.current_run(node),
        }
    }

    fn current_run(&self, node: NodeId) -> u32 {
        self.nodes.get(&node).map_or(0, |node| node.run)
    }

    /// The region of a node.
    #[must_use]
    pub fn region_of(&self, node: NodeId) -> usize {
        self.nodes.get(&node).map_or(0, |node| node.region)
    }

    /// Sets an alarm: [`Happened::Alarm`] with this number at this time.
    pub fn alarm(&mut self, at_us: u64, number: u64) {
        self.queue.plan(at_us.max(self.now_us), Event::Alarm(number));
    }

    /// Calls a node for a client in a region. `repeated` counts earlier tries of the same request.
    pub fn call(
        &mut self,
        (client, region): (u64, usize),
        node: NodeId,
        mut request: Request,
        repeated: u32,
    ) -> CallId {
        self.next_call += 1;
        let id = CallId(self.next_call);
        self.tampered_request(id, &mut request, repeated);
        let timeout_ms = match &request {
            Request::Put(put) => put.timeout_ms,
            Request::Get(get) => get.timeout_ms,
            Request::Delete(delete) => delete.timeout_ms,
            Request::Admin(_) => 0,
        };
        let mut frame = BytesMut::new();
        request.encode(id.0, &mut frame);
        let timeout_us = u64::from(timeout_ms) * 1000;
        let (asked_us, frame) = (self.now_us, frame.freeze());
        let run = 0;
        let call = Call {
            client,
            region,
            node,
            run,
            asked_us,
            timeout_us,
            repeated,
            only_run: (repeated > 0).then(|| self.run_of(node)),
            frame,
            answer_lost: false,
        };
        self.calls.insert(id, call);
        self.trace.place_client(client, region);
        let delay_us = self.client_delay((client, region), node);
        self.queue.plan(self.now_us + delay_us, Event::Request { call: id });
        id
    }

    /// A client stops waiting for a call.
    pub fn give_up(&mut self, id: CallId) {
        let Some(call) = self.calls.remove(&id) else { return };
        let Some(node) = self.nodes.get(&call.node) else { return };
        let calm = node.is_up
            && node.run == call.run
            && node.disturbed_us < call.asked_us
            && !call.answer_lost;
        if calm && call.run > 0 {
            let travel_us = 4 * self.longest_client_delay();
            let place = call.node.to_string();
            let allowed_us = call.timeout_us + travel_us;
            let verdict = deadline::check(call.asked_us, self.now_us, allowed_us, &place);
            self.referee.judge(verdict);
        }
    }

    /// The most that a client's message takes one way, microseconds.
    #[must_use]
    pub fn longest_client_delay(&self) -> u64 {
        let most = |delay: &Delay| delay.base_us + delay.jitter_us;
        self.setup.timing.delays.iter().flatten().map(most).max().unwrap_or(0)
    }

    fn client_delay(&mut self, (client, region): (u64, usize), node: NodeId) -> u64 {
        let to = self.region_of(node);
        let delay = self.net.delay(region, to);
        delay.draw(self.client_rng(client))
    }

    fn client_rng(&mut self, client: u64) -> &mut ChaCha8Rng {
        let seed = self.setup.seed;
        let fresh = || stream(seed, &format!("messages of client {client}"));
        self.client_rngs.entry(client).or_insert_with(fresh)
    }

    /// Chance for something rare: a stream of its own, named after the moment.
    fn chance(&self, what: &str, node: NodeId) -> ChaCha8Rng {
        stream(self.setup.seed, &format!("{what} {node} {}", self.now_us))
    }

    /// When something happens next.
    #[must_use]
    pub fn next_us(&self) -> Option<u64> {
        self.queue.next_us()
    }

    /// Lets the next thing happen. `None` when nothing is to happen any more.
    pub fn step(&mut self) -> Option<Happened> {
        let (at_us, event) = self.queue.next()?;
        debug_assert!(at_us >= self.now_us);
        self.now_us = at_us;
        match event {
            Event::Alarm(number) => return Some(Happened::Alarm(number)),
            Event::Answer { call, result, frame } => {
                return Some(self.answered(call, result, frame));
            }
            Event::Peer { from, to, run, frame } => self.deliver((from, to), run, frame),
            Event::Request { call } => self.on_request(call),
            Event::Run { node, run, shard } => self.run_batch(node, run, shard),
            Event::Commit { node, run, shard } => self.commit_batch(node, run, shard),
            Event::Wake { node, run, shard, at_us } => self.wake(node, run, shard, at_us),
            Event::Sync { node, run } => self.sync(node, run),
            Event::Link { node, peer } => self.look_at_link(node, peer),
            Event::Boot { node } => self.boot(node),
            Event::Layout { node, run } => self.learn_layout(node, run),
            Event::StepAside { node, run } => self.step_aside(node, run),
            Event::Recover { node, run, shard } => self.recover(node, run, shard),
        }
        Some(Happened::Nothing)
    }

    fn answered(&mut self, id: CallId, result: CallResult, frame: Bytes) -> Happened {
        let Some(call) = self.calls.remove(&id) else { return Happened::Nothing };
        let (client, node) = (call.client, call.node);
        self.audit_receipt(&call, &result);
        match &result {
            CallResult::Reply(_) => {
                self.trace.step(self.now_us, What::Reply { client, node, frame });
            }
            CallResult::NotSent => self.note(format!("c{client} cannot reach {node}")),
            CallResult::Disconnected => self.note(format!("c{client} loses {node}")),
        }
        Happened::Answer(id, result)
    }

    /// Puts a message on its last metre: it is delivered now.
    pub fn inject(&mut self, from: NodeId, to: NodeId, frame: Bytes) {
        self.queue.plan(self.now_us, Event::Peer { from, to, run: None, frame });
    }

    fn note(&mut self, text: String) {
        self.trace.note(self.now_us, text);
    }

    /// What a node's disk holds under a key, whatever is wrong with the disk.
    #[must_use]
    pub fn stored(&self, node: NodeId, bucket: BucketId, key: &[u8]) -> Option<Object> {
        let partition = self.partition(bucket, key)?;
        let mut object_key = Vec::new();
        holm_core::keys::object_key(&mut object_key, partition, bucket, key);
        let row = self.nodes.get(&node)?.store.row(Table::Objects, &object_key)?;
        Object::decode(row).ok()
    }

    /// The partition of a key.
    #[must_use]
    pub fn partition(&self, bucket: BucketId, key: &[u8]) -> Option<Partition> {
        let placement = self.state.buckets.get(&bucket)?.policy.placement;
        self.layout.partition(placement, bucket, key)
    }

    /// The replicas of a key that run and hold what they promised.
    #[must_use]
    pub fn whole_replicas(&self, bucket: BucketId, key: &[u8]) -> Vec<NodeId> {
        let Some(partition) = self.partition(bucket, key) else { return Vec::new() };
        let replicas = self.layout.replicas(partition).iter().copied();
        replicas.filter(|&node| self.is_whole(node)).collect()
    }

    /// Draws how long the next write of a batch takes on a node.
    fn disk_us(&mut self, node: NodeId) -> u64 {
        let disk = self.setup.timing.disk;
        let Some(node) = self.nodes.get_mut(&node) else { return 0 };
        self.tally.slow_commits += u64::from(node.slowness > 1);
        disk.draw(&mut node.disk_rng) * node.slowness
    }
}

fn add_counters(sum: &mut Counters, more: Counters) {
    sum.writes_coordinated += more.writes_coordinated;
    sum.reads_coordinated += more.reads_coordinated;
    sum.objects_joined += more.objects_joined;
    sum.late_siblings_dropped += more.late_siblings_dropped;
    sum.read_repairs += more.read_repairs;
    sum.reads_hedged += more.reads_hedged;
    sum.writes_resent += more.writes_resent;
    sum.overloads += more.overloads;
    sum.proxied += more.proxied;
    sum.peer_rejections += more.peer_rejections;
    sum.repeated_requests += more.repeated_requests;
    sum.lingering_dropped += more.lingering_dropped;
    sum.commits_failed += more.commits_failed;
    sum.corrupt_objects += more.corrupt_objects;
    sum.hints_kept += more.hints_kept;
    sum.hints_moved += more.hints_moved;
    sum.hints_refused += more.hints_refused;
    sum.hints_handed_off += more.hints_handed_off;
    sum.hints_received += more.hints_received;
    sum.handoffs_refused += more.handoffs_refused;
    sum.handoffs_lost += more.handoffs_lost;
    sum.writes_unhinted += more.writes_unhinted;
    sum.writes_as_fallback += more.writes_as_fallback;
    sum.reads_from_hints += more.reads_from_hints;
    sum.pulses_sent += more.pulses_sent;
    sum.claims_sent += more.claims_sent;
    sum.gap_asks += more.gap_asks;
    sum.gap_objects_sent += more.gap_objects_sent;
    sum.gap_objects_joined += more.gap_objects_joined;
    sum.gap_bytes_joined += more.gap_bytes_joined;
    sum.gap_dots_cut += more.gap_dots_cut;
    sum.tombstones_removed += more.tombstones_removed;
    sum.contexts_reduced += more.contexts_reduced;
    sum.runs_folded += more.runs_folded;
    sum.verifications_begun += more.verifications_begun;
    sum.verifications_done += more.verifications_done;
    sum.verified_rows += more.verified_rows;
    sum.verified_keys_differing += more.verified_keys_differing;
    sum.consistency_violations += more.consistency_violations;
    sum.objects_refetched += more.objects_refetched;
    sum.scans_failed += more.scans_failed;
    sum.resyncs += more.resyncs;
    sum.fell_behind += more.fell_behind;
    sum.compared += more.compared;
    sum.dead_siblings_dropped += more.dead_siblings_dropped;
    sum.resync_objects += more.resync_objects;
    sum.siblings_max = sum.siblings_max.max(more.siblings_max);
}
