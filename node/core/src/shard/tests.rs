//! One shard on a bench: every event by hand, every effect looked at.
//!
//! The simulator plays whole clusters and judges them by what clients and disks see. Here are the
//! promises of a single shard, each with the least exchange of messages that shows it. Node 1 is
//! the shard's own unless a test says otherwise; regions are `a`, `b`, ... and nodes are numbered
//! through them; there is one partition unless a test asks for two.

mod accounts;
mod batches;
mod breakers;
mod closing;
mod doubts;
mod explaining;
mod fallbacks;
mod fingerprints;
mod gaps;
mod hinted;
mod lags;
mod parts;
mod proxies;
mod reads;
mod relays;
mod repeats;
mod replicas;
mod stability;
mod stand_ins;
mod verifying;
mod votes;
mod writes;

use std::collections::BTreeMap;

use bytes::Bytes;
use holm_protocol::bucket::{BucketInfo, BucketKind, BucketPolicy};
use holm_protocol::dot::Dot;
use holm_protocol::error::NotReady;
use holm_protocol::ids::{Hlc, PlacementId, RequestId};
use holm_protocol::level::Level;
use holm_protocol::message::{Delete, Get, Put, Values, Written};
use holm_protocol::version_vector::VersionVector;

use super::*;
use crate::context::ContextSecrets;
use crate::layout::{Layout, LayoutNode, LayoutSpec, PlacementSpec};
use crate::object::{Object, ObjectKind, Sibling};
use crate::peer::{Claimed, CompareMessage, HintMessage, Want};
use crate::store::{Row, Table};
use crate::time::WallMs;

pub(super) const ACTOR: Actor = Actor(0xa1);

/// There is a connection to the first run of a node.
pub(super) fn up(node: NodeId) -> Input {
    Input::PeerUp(node, first_run(node.0))
}

pub(super) fn first_run(node: u64) -> Actor {
    Actor(0xb000 + node)
}

/// What the first run of a node claims, under the first layout.
pub(super) fn claims(node: u64, op: u64, claimed: Claimed) -> PeerMessage {
    let (run, clocks) = (first_run(node), vec![(PARTITION, claimed)]);
    PeerMessage::Seen { op: OpId(op), run, layout: 1, clocks }
}

/// The actor of whatever a test lets another node write.
pub(super) const OTHER: Actor = Actor(0xb2);
pub(super) const SIBLINGS: BucketId = BucketId(1);
pub(super) const LWW: BucketId = BucketId(2);
/// The wall clock when a test starts, milliseconds.
pub(super) const WALL_MS: u64 = 1_000_000;

/// A disk in memory, with the troubles that a test gives it.
#[derive(Debug, Default)]
pub(super) struct Disk {
    pub(super) rows: BTreeMap<(Table, Vec<u8>), Vec<u8>>,
    staged: Vec<(Table, Vec<u8>, Option<Vec<u8>>)>,
    /// What the next commits say, once as many as `sound` have succeeded.
    pub(super) commit: Option<StoreError>,
    /// Whether what such a commit held can be read all the same.
    pub(super) failed_shows: bool,
    pub(super) sound: usize,
    /// What reads say.
    pub(super) read: Option<StoreError>,
    /// What scans say, also where reads of single rows succeed.
    pub(super) scan: Option<StoreError>,
    /// What the question whether there is room is answered with.
    pub(super) room: Option<StoreError>,
    pub(super) commits: usize,
    /// How many of the commits are not fsynced.
    pub(super) unsynced: usize,
}

impl Store for Disk {
    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match &self.read {
            Some(error) => Err(error.clone()),
            None => Ok(self.rows.get(&(table, key.to_vec())).cloned()),
        }
    }

    fn scan(
        &mut self,
        table: Table,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        if let Some(error) = self.read.as_ref().or(self.scan.as_ref()) {
            return Err(error.clone());
        }
        let range = self.rows.range((table, from.to_vec())..(table, to.to_vec()));
        Ok(range.take(limit).map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    fn writable(&mut self) -> Result<(), StoreError> {
        self.room.clone().map_or(Ok(()), Err)
    }

    fn stage_put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        self.staged.push((table, key.to_vec(), Some(value.to_vec())));
    }

    fn stage_delete(&mut self, table: Table, key: &[u8]) {
        self.staged.push((table, key.to_vec(), None));
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        let staged = std::mem::take(&mut self.staged);
        let failure = self.commit.clone().filter(|_| self.commits >= self.sound);
        if let Some(error) = &failure
            && !self.failed_shows
        {
            return Err(error.clone());
        }
        self.commits += usize::from(failure.is_none());
        for (table, key, value) in staged {
            match value {
                Some(value) => self.rows.insert((table, key), value),
                None => self.rows.remove(&(table, key)),
            };
        }
        failure.map_or(Ok(()), Err)
    }

    fn committed(&self) -> u64 {
        self.commits as u64
    }

    fn durable(&self) -> u64 {
        (self.commits - self.unsynced) as u64
    }
}

/// A layout of regions with so many nodes and replicas, with `1 << bits` partitions.
pub(super) fn layout(regions: &[(u64, u8)], bits: u8) -> Layout {
    let name = |at: usize| char::from(b'a' + at as u8).to_string();
    let mut nodes = Vec::new();
    for (at, &(count, _)) in regions.iter().enumerate() {
        for _ in 0..count {
            let id = nodes.len() as u64 + 1;
            let addr = ([127, 0, 0, 1], 7000 + id as u16).into();
            let (region, zone) = (name(at), format!("z{id}"));
            nodes.push(LayoutNode { id: NodeId(id), addr, region, zone, capacity: 1 });
        }
    }
    let replication = regions.iter().enumerate().map(|(at, &(_, r))| (name(at), r)).collect();
    let placement =
        PlacementSpec { id: PlacementId(0), name: "default".to_owned(), bits, replication };
    Layout::compute(LayoutSpec { version: 1, nodes, placements: vec![placement] }, None).unwrap()
}

/// What a test's cluster knows: both kinds of buckets, with levels `quorum`.
pub(super) fn cluster(layout: Layout, policy: &BucketPolicy) -> ClusterState {
    let bucket = |id: BucketId, kind| {
        let policy = BucketPolicy { kind, ..policy.clone() };
        (id, BucketInfo { id, name: format!("bucket{}", id.0), policy })
    };
    ClusterState {
        layout: Some(Arc::new(layout)),
        buckets: [bucket(SIBLINGS, BucketKind::Siblings), bucket(LWW, BucketKind::Lww)].into(),
        secrets: Some(ContextSecrets::new([7; 32])),
    }
}

pub(super) fn policy() -> BucketPolicy {
    BucketPolicy { read_level: Level::Quorum, write_level: Level::Quorum, ..Default::default() }
}

fn is_about_clocks(effect: &Effect) -> bool {
    let Effect::Send { message, .. } = effect else { return false };
    matches!(message, PeerMessage::Pulse { .. } | PeerMessage::Seen { .. })
}

/// The bench. See the [module](self).
#[derive(Debug)]
pub(super) struct Bench {
    pub(super) shard: Shard,
    pub(super) disk: Disk,
    pub(super) now: Now,
    pub(super) me: NodeId,
    requests: u64,
}

impl Bench {
    /// Node 1 of a cluster that is all connected.
    pub(super) fn new(regions: &[(u64, u8)]) -> Bench {
        Bench::with(regions, ShardConfig::test_min())
    }

    pub(super) fn with(regions: &[(u64, u8)], config: ShardConfig) -> Bench {
        Bench::at(NodeId(1), cluster(layout(regions, 0), &policy()), config)
    }

    /// A node of the first region that is no replica.
    pub(super) fn stranger(regions: &[(u64, u8)]) -> Bench {
        let cluster = cluster(layout(regions, 0), &policy());
        let layout = cluster.layout.clone().unwrap();
        let is_stranger = |node: &NodeId| !layout.replicas(PARTITION).contains(node);
        let me = (1..=regions[0].0).map(NodeId).find(is_stranger).unwrap();
        Bench::at(me, cluster, ShardConfig::test_min())
    }

    /// Any node of any cluster, connected to all others.
    pub(super) fn at(me: NodeId, cluster: ClusterState, config: ShardConfig) -> Bench {
        let boot = Boot { node: me, actor: ACTOR, standing: Standing::Serves, shard: 0, shards: 1 };
        Bench::start(boot, Arc::new(cluster), config, Disk::default())
    }

    /// The next run of the node, on the same disk.
    pub(super) fn restart(self) -> Bench {
        let Shard { boot, config, cluster, .. } = self.shard;
        let boot = Boot { actor: Actor(boot.actor.0 + 1), ..boot };
        Bench::start(boot, cluster, config, self.disk)
    }

    /// The same, which starts as the node of a release does.
    pub(super) fn restart_as(self, standing: Standing) -> Bench {
        let Shard { boot, config, cluster, .. } = self.shard;
        let boot = Boot { actor: Actor(boot.actor.0 + 1), standing, ..boot };
        Bench::start(boot, cluster, config, self.disk)
    }

    fn start(boot: Boot, cluster: Arc<ClusterState>, config: ShardConfig, disk: Disk) -> Bench {
        let now = Now { mono: Mono(5_000_000), wall: WallMs(WALL_MS) };
        let (shard, me) = (Shard::new(config, boot), boot.node);
        let mut bench = Bench { shard, disk, now, me, requests: 0 };
        let layout = cluster.layout.clone().unwrap();
        bench.input(Input::Cluster(cluster));
        for node in layout.nodes().iter().map(|node| node.id).filter(|&node| node != me) {
            bench.input(up(node));
        }
        bench
    }

    pub(super) fn input(&mut self, input: Input) -> Effects {
        let mut out = Vec::new();
        self.shard.handle(self.now, input, &mut self.disk, &mut out).unwrap();
        out
    }

    /// A client's request. Says under which number its answer will come.
    pub(super) fn ask(&mut self, request: Request) -> (Caller, Effects) {
        self.requests += 1;
        let caller = Caller { lane: 9, request: self.requests };
        (caller, self.input(Input::Client { caller, request }))
    }

    pub(super) fn hear(&mut self, from: u64, message: PeerMessage) -> Effects {
        self.input(Input::Peer { from: NodeId(from), message })
    }

    /// What a commit releases; what is told of clocks besides is left out.
    pub(super) fn commit(&mut self) -> Effects {
        let mut out = self.commit_and_tell();
        out.retain(|effect| !is_about_clocks(effect));
        out
    }

    pub(super) fn commit_and_tell(&mut self) -> Effects {
        let mut out = Vec::new();
        self.shard.commit(self.now, &mut self.disk, &mut out).unwrap();
        out
    }

    /// A commit that the disk refuses.
    pub(super) fn fail_commit(&mut self, error: StoreError) -> Effects {
        let mut out = Vec::new();
        self.disk.commit = Some(error.clone());
        assert_eq!(self.shard.commit(self.now, &mut self.disk, &mut out), Err(error));
        self.disk.commit = None;
        out.retain(|effect| !is_about_clocks(effect));
        out
    }

    /// Lets time pass, and wakes what is due at its end.
    pub(super) fn pass_us(&mut self, us: u64) -> Effects {
        self.now.mono.0 += us;
        self.now.wall.0 += us / 1000;
        let mut out = Vec::new();
        self.shard.tick(self.now, &mut self.disk, &mut out);
        out
    }

    pub(super) fn pass_ms(&mut self, ms: u64) -> Effects {
        self.pass_us(ms * 1000)
    }

    /// How long until the shard wants to be woken, microseconds, but for what it tells others of its
    /// clocks.
    pub(super) fn wakes_in_us(&self) -> Option<u64> {
        let Shard { timers, handoff, schedule, .. } = &self.shard;
        let due = [timers.next(), handoff.next_wakeup(), schedule.next()];
        due.into_iter().flatten().min().map(|at| at.0.saturating_sub(self.now.mono.0))
    }

    pub(super) fn put(&mut self, key: &str, value: &str, level: Level) -> Put {
        self.requests += 1;
        Put {
            bucket: SIBLINGS,
            key: Bytes::from(key.to_owned()),
            value: Bytes::from(value.to_owned()),
            context: Bytes::new(),
            level: Some(level),
            request: RequestId { client: 3, sequence: self.requests },
            timeout_ms: 0,
        }
    }

    pub(super) fn delete(&mut self, key: &str, context: Bytes, level: Level) -> Delete {
        let Put { bucket, key, level, request, timeout_ms, .. } = self.put(key, "", level);
        Delete { bucket, key, context, level, request, timeout_ms }
    }

    /// Puts at level one, where the own commit is enough, and returns the answer.
    pub(super) fn write(&mut self, key: &str, value: &str) -> Written {
        let put = self.put(key, value, Level::One);
        self.write_as(put)
    }

    pub(super) fn write_as(&mut self, put: Put) -> Written {
        let (caller, _) = self.ask(Request::Put(put));
        let effects = self.commit();
        written(&reply_to(&effects, caller).expect("an answer"))
    }

    /// Reads at level one.
    pub(super) fn read(&mut self, key: &str) -> Values {
        let (caller, effects) = self.ask(Request::Get(get(key, Level::One)));
        match reply_to(&effects, caller) {
            Some(Reply::Values(values)) => values,
            other => panic!("{other:?}"),
        }
    }

    /// What the disk holds under a key of the siblings bucket.
    pub(super) fn stored(&self, key: &str) -> Option<Object> {
        let mut name = Vec::new();
        crate::keys::object_key(&mut name, PARTITION, SIBLINGS, key.as_bytes());
        let bytes = self.disk.rows.get(&(Table::Objects, name))?;
        Some(Object::decode(&Bytes::from(bytes.clone())).unwrap())
    }

    /// What a context given to a client covers.
    pub(super) fn opened(&self, key: &str, context: &[u8]) -> VersionVector {
        let secrets = self.shard.cluster.secrets.as_ref().unwrap();
        secrets.open(SIBLINGS, key.as_bytes(), context).unwrap()
    }

    pub(super) fn sealed(&self, key: &str, dots: &[Dot]) -> Bytes {
        let secrets = self.shard.cluster.secrets.as_ref().unwrap();
        secrets.seal(SIBLINGS, key.as_bytes(), &dots.iter().copied().collect())
    }

    pub(super) fn peer_rejections(&self) -> u64 {
        self.shard.counters().peer_rejections
    }

    /// Nothing is waited for any more, and every account is settled.
    #[track_caller]
    pub(super) fn assert_quiet(&self) {
        assert!(self.shard.ops.is_empty(), "{:?}", self.shard.ops);
        assert_eq!(self.shard.timers.next(), None);
        assert_eq!((self.shard.in_flight, self.shard.lingering.len()), (0, 0));
        assert_eq!(self.shard.held_bytes, 0);
    }
}

/// The only partition there is, where there is one.
pub(super) const PARTITION: Partition = Partition { placement: PlacementId(0), index: 0 };

pub(super) fn get(key: &str, level: Level) -> Get {
    let key = Bytes::from(key.to_owned());
    Get { bucket: SIBLINGS, key, level: Some(level), timeout_ms: 0 }
}

pub(super) fn nodes(ids: &[u64]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

/// A value as another node's coordinator makes it.
pub(super) fn sibling(counter: u64, value: &str) -> Sibling {
    let value = Bytes::from(value.to_owned());
    Sibling::new(Dot::new(OTHER, counter), Hlc::new(WALL_MS, 0), value)
}

/// An object that one blind put of another node left, encoded.
pub(super) fn foreign(kind: ObjectKind, counter: u64, value: &str) -> Bytes {
    let mut object = Object::new(kind);
    object.put(&VersionVector::new(), sibling(counter, value));
    encoded(&object)
}

pub(super) fn encoded(object: &Object) -> Bytes {
    let mut out = Vec::new();
    object.encode(&mut out);
    out.into()
}

/// A write to the siblings bucket as another node sends it.
pub(super) fn write_message(op: u64, key: &str, object: Bytes, fan_out: &[u64]) -> PeerMessage {
    PeerMessage::Write {
        op: OpId(op),
        partition: PARTITION,
        bucket: SIBLINGS,
        key: Bytes::from(key.to_owned()),
        object,
        fan_out: nodes(fan_out),
    }
}

pub(super) fn durable(op: OpId, ids: &[u64]) -> PeerMessage {
    PeerMessage::WriteReply { op, partition: PARTITION, durable: nodes(ids), refused: vec![] }
}

pub(super) fn refusal(op: OpId, id: u64) -> PeerMessage {
    let refused = vec![(NodeId(id), Refusal::StoreIo)];
    PeerMessage::WriteReply { op, partition: PARTITION, durable: vec![], refused }
}

pub(super) fn found(op: OpId, found: Found) -> PeerMessage {
    PeerMessage::ReadReply { op, partition: PARTITION, found }
}

/// What is sent, and to whom.
pub(super) fn sends(effects: &[Effect]) -> Vec<(Vec<NodeId>, PeerMessage)> {
    let sent = effects.iter().filter_map(|effect| match effect {
        Effect::Send { to, message } => Some((to.clone(), message.clone())),
        _ => None,
    });
    sent.collect()
}

/// Receivers and operations of the writes among the effects.
pub(super) fn writes(effects: &[Effect]) -> Vec<(Vec<NodeId>, OpId, Vec<NodeId>)> {
    let write = |(to, message)| match message {
        PeerMessage::Write { op, fan_out, .. } => Some((to, op, fan_out)),
        _ => None,
    };
    sends(effects).into_iter().filter_map(write).collect()
}

/// Receivers, operations and wants of the reads among the effects.
pub(super) fn questions(effects: &[Effect]) -> Vec<(Vec<NodeId>, OpId, Want)> {
    let read = |(to, message)| match message {
        PeerMessage::Read { op, want, .. } => Some((to, op, want)),
        _ => None,
    };
    sends(effects).into_iter().filter_map(read).collect()
}

/// Who made a write durable, and who refused it.
pub(super) type Report = (Vec<NodeId>, Vec<(NodeId, Refusal)>);

/// Who the effects say has made a write durable and who has refused it, as told to one node.
pub(super) fn reports(effects: &[Effect], told: u64) -> Vec<Report> {
    let report = |(to, message)| match message {
        PeerMessage::WriteReply { durable, refused, .. } if to == nodes(&[told]) => {
            Some((durable, refused))
        }
        _ => None,
    };
    sends(effects).into_iter().filter_map(report).collect()
}

/// The answer to a client, if it is among the effects.
pub(super) fn reply_to(effects: &[Effect], asked: Caller) -> Option<Reply> {
    effects.iter().find_map(|effect| match effect {
        Effect::Reply { caller, reply, .. } if *caller == asked => Some(reply.clone()),
        _ => None,
    })
}

#[track_caller]
pub(super) fn written(reply: &Reply) -> Written {
    match reply {
        Reply::Written(written) => written.clone(),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
pub(super) fn error(reply: Option<Reply>) -> RequestError {
    match reply {
        Some(Reply::Error(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// The values in a read's answer, sorted.
#[track_caller]
pub(super) fn shown(reply: Option<Reply>) -> Vec<String> {
    let Some(Reply::Values(values)) = reply else { panic!("{reply:?}") };
    texts(&values)
}

pub(super) fn texts(values: &Values) -> Vec<String> {
    let text = |value: &Bytes| String::from_utf8_lossy(value).into_owned();
    let mut shown: Vec<String> = values.siblings.iter().map(|s| text(&s.value)).collect();
    shown.sort();
    shown
}

/// The nodes that a receipt names.
pub(super) fn behind(receipt: &holm_protocol::message::Receipt) -> Vec<NodeId> {
    receipt.replicas.iter().map(|entry| entry.node).collect()
}
