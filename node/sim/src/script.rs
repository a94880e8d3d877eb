//! Single stories, told step by step: a cluster without chance, and calls that wait for their
//! answers. Everything takes a fixed time, so a story's trace is the same for ever.

use std::collections::BTreeMap;

use bytes::Bytes;
use holm_core::peer::PeerMessage;
use holm_core::shard::config::ShardConfig;
use holm_protocol::error::RequestError;
use holm_protocol::ids::{BucketId, NodeId, RequestId};
use holm_protocol::level::Level;
use holm_protocol::message::{Delete, Get, Put, Reply, Request, Values, Written};

use crate::cluster::{CallId, CallResult, Cluster, Happened, LWW, SIBLINGS, Setup};
use crate::history::{EventId, KeyId};
use crate::net::Delay;
use crate::plan::{Shape, Timing};
use crate::referee::is_undone;
use crate::store::SyncMode;
use crate::trace::{What, whole_frame};

/// One way within a region, one way between regions, and a commit, microseconds.
const NEAR_US: u64 = 500;
const FAR_US: u64 = 40_000;
const DISK_US: u64 = 100;
/// Until a lost connection is noticed, microseconds.
const DETECT_US: u64 = 50_000;
/// A call that has not ended after this long never will, microseconds.
const PATIENCE_US: u64 = 10_000_000;

/// A write on its way.
#[derive(Debug, Clone)]
pub struct Started {
    node: NodeId,
    request: Request,
    event: EventId,
    call: CallId,
    repeated: u32,
    is_undone: bool,
}

/// A read on its way.
#[derive(Debug, Clone)]
pub struct Reading {
    key: KeyId,
    level: Level,
    asked_us: u64,
    call: CallId,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Script {
    cluster: Cluster,
    /// Calls that have ended and that nobody has waited for yet.
    ended: BTreeMap<CallId, CallResult>,
    sequence: u64,
    /// Steps of the trace that have been told already.
    told: usize,
    /// Whether keys are of the last-writer-wins bucket.
    latest: bool,
}

impl Script {
    /// A connected cluster: per region, how many nodes and how many replicas; one partition.
    #[must_use]
    pub fn new(regions: &[(usize, u8)]) -> Script {
        Script::with_config(regions, ShardConfig::test_min())
    }

    /// A connected cluster with other limits.
    #[must_use]
    pub fn with_config(regions: &[(usize, u8)], shard: ShardConfig) -> Script {
        let delay = |from: usize, to: usize| {
            let base_us = if from == to { NEAR_US } else { FAR_US };
            Delay { base_us, jitter_us: 0 }
        };
        let count = regions.len();
        let delays = (0..count).map(|a| (0..count).map(|b| delay(a, b)).collect()).collect();
        let disk = Delay { base_us: DISK_US, jitter_us: 0 };
        let setup = Setup {
            shape: Shape { regions: regions.to_vec(), zones: 0, bits: 0, shards: 1 },
            shard,
            strict: false,
            sync: SyncMode::Always,
            timing: Timing { delays, link_spread: 0, disk, detect_us: DETECT_US },
            seed: 1,
            tamper: None,
            steps_max: usize::MAX,
        };
        let mut script = Script {
            cluster: Cluster::new(setup),
            ended: BTreeMap::new(),
            sequence: 0,
            told: 0,
            latest: false,
        };
        script.run_ms(200);
        script
    }

    /// From now on keys are of the last-writer-wins bucket.
    pub fn use_latest(&mut self) {
        self.latest = true;
    }

    fn bucket(&self) -> BucketId {
        if self.latest { LWW } else { SIBLINGS }
    }

    /// The cluster, to do things to it.
    pub fn cluster(&mut self) -> &mut Cluster {
        &mut self.cluster
    }

    /// Lets time pass.
    pub fn run_ms(&mut self, ms: u64) {
        let until_us = self.cluster.now_us() + ms * 1000;
        self.cluster.alarm(until_us, 0);
        while self.step() {}
    }

    /// Starts a put, with the context of an earlier answer or an empty one.
    pub fn start_put(
        &mut self,
        node: u64,
        (key, value): (&str, &str),
        context: &Bytes,
        level: Level,
    ) -> Started {
        self.start(node, key, Some(value), (context, level))
    }

    fn start(
        &mut self,
        node: u64,
        key: &str,
        value: Option<&str>,
        (context, level): (&Bytes, Level),
    ) -> Started {
        let now_us = self.cluster.now_us();
        let (name, value) = (Bytes::from(key.to_owned()), value.map(|v| Bytes::from(v.to_owned())));
        let (bucket, latest) = (self.bucket(), self.latest);
        let referee = self.cluster.referee_mut();
        let id = referee.add_key(bucket, name.clone(), latest);
        let (event, value) = referee.begin_write(id, |_| value, context, (level, now_us));
        self.sequence += 1;
        let request = RequestId { client: 1, sequence: self.sequence };
        let (key, context) = (name, context.clone());
        let (level, timeout_ms) = (Some(level), 0);
        let request = match value {
            Some(value) => {
                Request::Put(Put { bucket, key, value, context, level, request, timeout_ms })
            }
            None => Request::Delete(Delete { bucket, key, context, level, request, timeout_ms }),
        };
        let node = NodeId(node);
        let who = (1, self.cluster.region_of(node));
        let call = self.cluster.call(who, node, request.clone(), 0);
        Started { node, request, event, call, repeated: 0, is_undone: true }
    }

    /// Waits for a write's answer. `None` if its node died.
    pub fn finish(&mut self, started: &mut Started) -> Option<Result<Written, RequestError>> {
        let result = self.wait_for(started.call);
        let now_us = self.cluster.now_us();
        started.is_undone &= is_undone(&result);
        let referee = self.cluster.referee_mut();
        referee.write_told(started.event, now_us, &result);
        referee.end_write(started.event, started.is_undone);
        match result {
            CallResult::Reply(Reply::Written(written)) => Some(Ok(written)),
            CallResult::Reply(Reply::Error(error)) => Some(Err(error)),
            CallResult::Reply(_) | CallResult::NotSent | CallResult::Disconnected => None,
        }
    }

    /// Asks for a write again under its request id, and waits.
    pub fn repeat(&mut self, started: &mut Started) -> Option<Result<Written, RequestError>> {
        started.repeated += 1;
        let who = (1, self.cluster.region_of(started.node));
        let request = started.request.clone();
        started.call = self.cluster.call(who, started.node, request, started.repeated);
        self.finish(started)
    }

    /// Asks for a write again under its request id at another node, and waits.
    pub fn repeat_at(
        &mut self,
        started: &mut Started,
        node: u64,
    ) -> Option<Result<Written, RequestError>> {
        started.node = NodeId(node);
        let now_us = self.cluster.now_us();
        self.cluster.referee_mut().repeats_elsewhere(started.event, now_us);
        self.repeat(started)
    }

    /// Puts and waits.
    pub fn put(
        &mut self,
        node: u64,
        pair: (&str, &str),
        context: &Bytes,
        level: Level,
    ) -> Option<Result<Written, RequestError>> {
        let mut started = self.start_put(node, pair, context, level);
        self.finish(&mut started)
    }

    /// Deletes what a context covers, and waits.
    pub fn delete(
        &mut self,
        node: u64,
        key: &str,
        context: &Bytes,
        level: Level,
    ) -> Option<Result<Written, RequestError>> {
        let mut started = self.start(node, key, None, (context, level));
        self.finish(&mut started)
    }

    /// Reads and waits.
    pub fn get(
        &mut self,
        node: u64,
        key: &str,
        level: Level,
    ) -> Option<Result<Values, RequestError>> {
        let read = self.start_get(node, key, level);
        self.finish_get(&read)
    }

    /// Starts a read.
    pub fn start_get(&mut self, node: u64, key: &str, level: Level) -> Reading {
        let name = Bytes::from(key.to_owned());
        let (bucket, latest) = (self.bucket(), self.latest);
        let key = self.cluster.referee_mut().add_key(bucket, name.clone(), latest);
        let get = Get { bucket, key: name, level: Some(level), timeout_ms: 0 };
        let (node, asked_us) = (NodeId(node), self.cluster.now_us());
        let who = (1, self.cluster.region_of(node));
        let call = self.cluster.call(who, node, Request::Get(get), 0);
        Reading { key, level, asked_us, call }
    }

    /// Waits for a read's answer. `None` if its node died.
    pub fn finish_get(&mut self, read: &Reading) -> Option<Result<Values, RequestError>> {
        let result = self.wait_for(read.call);
        self.cluster.referee_mut().read_told(read.key, read.level, read.asked_us, &result);
        match result {
            CallResult::Reply(Reply::Values(values)) => Some(Ok(values)),
            CallResult::Reply(Reply::Error(error)) => Some(Err(error)),
            CallResult::Reply(_) | CallResult::NotSent | CallResult::Disconnected => None,
        }
    }

    fn wait_for(&mut self, call: CallId) -> CallResult {
        let until_us = self.cluster.now_us() + PATIENCE_US;
        while !self.ended.contains_key(&call) && self.cluster.now_us() < until_us && self.step() {}
        self.ended.remove(&call).unwrap_or(CallResult::Disconnected)
    }

    /// Lets one thing happen, and keeps the end of a call for whoever waits for it. Says whether
    /// that was not an alarm, nor the end of everything.
    fn step(&mut self) -> bool {
        match self.cluster.step() {
            Some(Happened::Answer(call, result)) => {
                self.ended.insert(call, result);
                true
            }
            Some(Happened::Nothing) => true,
            Some(Happened::Alarm(_)) | None => false,
        }
    }

    /// The replicas of a key.
    #[must_use]
    pub fn replicas_of(&self, key: &str) -> Vec<NodeId> {
        let partition = self.cluster.partition(self.bucket(), key.as_bytes());
        let replicas = partition.map(|partition| self.cluster.layout().replicas(partition));
        replicas.unwrap_or_default().to_vec()
    }

    /// The values that a node's disk holds under a key, sorted.
    #[must_use]
    pub fn held(&self, node: u64, key: &str) -> Vec<String> {
        let object = self.cluster.stored(NodeId(node), self.bucket(), key.as_bytes());
        let siblings = object.iter().flat_map(|object| object.siblings());
        let mut values: Vec<String> =
            siblings.map(|s| String::from_utf8_lossy(&s.value).into_owned()).collect();
        values.sort();
        values
    }

    /// Delivers once more the first message from one node to another whose words start like this.
    /// Says whether there was one.
    pub fn deliver_again(&mut self, from: u64, to: u64, words: &str) -> bool {
        let trace = self.cluster.trace();
        let start = format!("n{from} -> n{to} {words}");
        let frame = trace.steps().find_map(|step| match &step.what {
            What::Peer { frame, .. } if trace.words(&step.what).starts_with(&start) => {
                Some(frame.clone())
            }
            _ => None,
        });
        let Some(frame) = frame else { return false };
        self.cluster.inject(NodeId(from), NodeId(to), frame);
        true
    }

    /// What was said since this was last asked for, without times and commits, and without what nodes
    /// tell each other of their clocks.
    pub fn story(&mut self) -> Vec<String> {
        let trace = self.cluster.trace();
        let steps = trace.steps().skip(self.told);
        let steps = steps.filter(|step| match &step.what {
            What::Commit { .. } => false,
            What::Peer { frame, .. } | What::Dropped { frame, .. } => !is_about_clocks(frame),
            _ => true,
        });
        let lines = steps.map(|step| trace.words(&step.what)).collect();
        self.told = trace.steps().count();
        lines
    }

    /// The rule that was broken, if one was: ends a story that should have had none.
    #[must_use]
    pub fn violation(&mut self) -> Option<String> {
        self.cluster.check_replicas();
        self.cluster.referee_mut().check_history();
        self.cluster.referee().violation().map(ToString::to_string)
    }
}

fn is_about_clocks(frame: &Bytes) -> bool {
    let message = whole_frame(frame).and_then(|frame| PeerMessage::decode(&frame).ok());
    matches!(
        message,
        Some(PeerMessage::Pulse { .. } | PeerMessage::Seen { .. } | PeerMessage::Noted { .. })
    )
}
