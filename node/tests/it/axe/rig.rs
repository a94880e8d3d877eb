//! Processes, their disks, and the rounds that are played on them.
//!
//! A *round* is one history with keys of its own: clients work, faults strike, everything is
//! mended, every key is read at all its replicas until they agree, and the referee judges. The
//! cluster goes on to the next round, and what earlier rounds left is read once more at its end.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use holm_client::{BucketKind, BucketPolicy};
use holm_core::metadata::Metadata;
use holm_core::object::Object;
use holm_protocol::admin::{
    AdminReply, AdminRequest, BucketChange, LayoutProposal, NodeInfo, PlacementInfo,
};
use holm_protocol::frame::ALPN_CLIENT;
use holm_protocol::ids::{BucketId, NodeId, PlacementId};
use holm_sim::referee::Referee;
use holm_sim::world::World;
use quinn::{Endpoint, TransportConfig};
use rustix::process::Signal;
use tokio::sync::mpsc;

use super::held::{self, Held};
use super::image::{Image, Yard};
use super::link::{Answer, CALLS_MAX, Link};
use super::load::{Load, Shared, lock};
use super::tally::Tally;
use super::verdict;
use super::world::{Agreed, RealWorld};
use crate::harness::cluster::ALL_ROLES;
use crate::harness::holmd::Holmd;
use crate::harness::peer::FakePeer;
use crate::harness::pki::{Pki, VALID};
use crate::harness::raw::{Conn, Lane, kept_alive};
use crate::harness::{Dice, until, within};

/// The node that looks at the others' replicas. It is in no layout, so nobody counts on it.
pub(crate) const OBSERVER: u64 = 900;
/// The name of its store, the same at every meeting.
pub(crate) const OBSERVERS_STORE: u128 = 900;
/// Frame kind of a node's metadata on a bulk lane.
const METADATA: u8 = 128;
/// Acknowledged writes before the first fault of a round, and after the last.
const WARM_UP: u64 = 60;
/// Client ids of a round start at its number times this.
const CLIENT_IDS: u64 = 1 << 16;
/// Silence after which a client believes that a node is gone. Shorter than the longest pause of a
/// node in these tests, so that both ways of finding out are met.
const CLIENT_IDLE: Duration = Duration::from_secs(2);
const CLIENT_KEEPALIVE: Duration = Duration::from_millis(400);
/// Partitions: 2 to this power.
const BITS: u8 = 4;

/// What a rig is made of.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// Per region, how many nodes, and how many replicas of each partition.
    pub(crate) regions: Vec<(usize, u8)>,
    /// Whether the nodes' disks can lose power.
    pub(crate) images: bool,
    /// Flags of every node.
    pub(crate) flags: Vec<&'static str>,
    /// The command that plays a round of this kind again, without its seed.
    pub(crate) repeat: String,
}

/// See the module's head.
pub(crate) struct Rig {
    // In this order: processes end before their disks go, and those before the directory.
    pub(crate) nodes: Vec<Holmd>,
    images: Vec<Image>,
    yard: Yard,
    pub(crate) pki: Arc<Pki>,
    pub(crate) world: Shared,
    pub(crate) answers: Option<mpsc::Receiver<Answer>>,
    setup: Setup,
    rounds: u64,
    seed: u64,
    pub(crate) earlier: Vec<Referee>,
    pub(crate) tally: Tally,
    /// Whether a node's clock was set ahead: its last-writer-wins values then win before their time
    /// has come, and the others do not take them until then.
    pub(crate) clocks_ran_ahead: bool,
}

impl Rig {
    /// A cluster that serves, or why this machine cannot have one.
    pub(crate) async fn start(setup: Setup) -> Result<Rig, String> {
        let flags = setup.flags.clone();
        Rig::start_with(setup, |place, id| Holmd::new(place.0, place.1, id, &flags)).await
    }

    /// The same with nodes that are made elsewhere: from the CA, the directory and their number.
    pub(crate) async fn start_with(
        setup: Setup,
        mut make: impl FnMut((&Pki, &Path), u64) -> Holmd,
    ) -> Result<Rig, String> {
        let yard = if setup.images { Yard::with_mounts()? } else { Yard::plain() };
        let pki = Arc::new(Pki::new());
        let count: usize = setup.regions.iter().map(|&(nodes, _)| nodes).sum();
        let mut nodes = Vec::new();
        let mut images = Vec::new();
        for id in 1..=count as u64 {
            let mut node = make((&pki, yard.path()), id);
            if setup.images {
                let image = Image::new(&yard, id, &node.file("data"))?;
                node.launcher = image.launcher();
                images.push(image);
            }
            nodes.push(node);
        }
        for node in &mut nodes {
            node.start().await;
        }
        let agreed = agree(&pki, &nodes, &setup.regions).await;
        let (send, answers) = mpsc::channel(CALLS_MAX);
        let endpoint = client_endpoint(&pki);
        let link = |node: &Holmd| {
            let link = Link::open(endpoint.clone(), (node.id, node.quic), send.clone());
            (node.id, link)
        };
        let links = nodes.iter().map(link).collect();
        let world = Arc::new(Mutex::new(RealWorld::new(agreed, links)));
        let answers = Some(answers);
        let (earlier, tally) = (Vec::new(), Tally::default());
        let rig = Rig {
            nodes,
            images,
            yard,
            pki,
            world,
            answers,
            setup,
            rounds: 0,
            seed: 0,
            earlier,
            tally,
            clocks_ran_ahead: false,
        };
        rig.until_whole().await;
        Ok(rig)
    }

    /// Plays one round. `strike` does the damage while clients work, and has every node started
    /// again when it ends. A broken rule is a panic that says how to repeat the round.
    pub(crate) async fn round(
        &mut self,
        seed: u64,
        strike: impl AsyncFnOnce(&mut Rig, &Load, &mut Dice),
    ) {
        self.rounds += 1;
        self.seed = seed;
        let earlier = lock(&self.world).begin_round(format!("{}-", self.rounds));
        if !earlier.history().is_empty() {
            self.earlier.push(earlier);
        }
        let answers = self.answers.take().expect("no other round is played");
        let who = (seed, self.rounds * CLIENT_IDS, self.setup.regions.len());
        let load = Load::start(&self.world, who, answers);
        load.more(WARM_UP).await;
        strike(self, &load, &mut Dice(seed)).await;
        load.more(WARM_UP).await;
        self.answers = Some(load.finish().await);
        self.until_whole().await;
        self.until_equal().await;
        let lost = verdict::judge(self).await;
        self.refuse_violation();
        let world = lock(&self.world);
        self.tally.round(world.referee().tally(), world.excused(), lost);
    }

    /// Reads once more what earlier rounds left, and judges it again.
    pub(crate) async fn look_back(&mut self) {
        verdict::judge_earlier(self).await;
        let earlier = self.earlier.iter().find_map(Referee::violation);
        if let Some(violation) = earlier.cloned() {
            self.fail(&format!("what an earlier round left: violation of {violation}"));
        }
    }

    fn refuse_violation(&mut self) {
        let violation = lock(&self.world).referee().violation().cloned();
        if let Some(violation) = violation {
            self.fail(&format!("violation of {violation}"));
        }
    }

    fn fail(&mut self, how: &str) -> ! {
        let repeat = format!("{} --seed {} --rounds 1", self.setup.repeat, self.seed);
        let what = format!("round {}, seed {}: {how}\n  repeat: {repeat}", self.rounds, self.seed);
        panic!("{what}");
    }

    /// Ends a process as a crash would, and tells its clients.
    pub(crate) fn kill(&mut self, at: usize) {
        self.nodes[at].kill();
        lock(&self.world).killed(self.nodes[at].id);
        self.tally.kills += 1;
    }

    /// Ends all these processes at the same moment.
    pub(crate) fn kill_all(&mut self, victims: &[usize]) {
        for &at in victims {
            self.nodes[at].signal(Signal::KILL);
        }
        for &at in victims {
            self.kill(at);
        }
    }

    /// Kills a process, loses its disk and starts it again with an empty one.
    pub(crate) fn wipe(&mut self, at: usize) {
        self.kill(at);
        fs::remove_dir_all(self.nodes[at].file("data")).unwrap();
        lock(&self.world).examine(self.nodes[at].id, &Held::default(), true);
        self.tally.wipes += 1;
        self.spawn(at);
    }

    /// Starts a process without waiting for it.
    pub(crate) fn spawn(&mut self, at: usize) {
        lock(&self.world).started(self.nodes[at].id);
        self.nodes[at].spawn();
    }

    /// Cuts the power of these machines at the same moment, and starts them again. With `frozen`
    /// the processes stop first, as on a real machine; otherwise the disks do, and the processes
    /// see them fail for a moment. `may_lose`: the nodes need not have fsynced what they
    /// acknowledged.
    pub(crate) fn cut_power(&mut self, victims: &[usize], frozen: bool, may_lose: bool) {
        if frozen {
            victims.iter().for_each(|&at| self.nodes[at].signal(Signal::STOP));
        }
        let cuts: Vec<_> = victims.iter().map(|&at| self.images[at].cut()).collect();
        for mut cut in cuts {
            assert!(cut.wait().unwrap().success(), "the power could not be cut");
        }
        victims.iter().for_each(|&at| self.nodes[at].signal(Signal::KILL));
        for &at in victims {
            self.kill(at);
            self.tally.kills -= 1;
            self.tally.power_cuts += 1;
            self.images[at].restore().unwrap();
            self.examine(at, may_lose);
        }
        victims.iter().for_each(|&at| self.spawn(at));
    }

    /// Compares a stopped node's disk with what the node has acknowledged.
    pub(crate) fn examine(&mut self, at: usize, may_lose: bool) {
        let places = lock(&self.world).places();
        let held = held::read(&self.nodes[at].file("data"), &places);
        let lost = lock(&self.world).examine(self.nodes[at].id, &held, may_lose);
        self.tally.lost_on_disks += lost as u64;
    }

    /// Waits until all nodes are up and see each other; notes which have declared amnesia. A node
    /// without amnesia serves then.
    pub(crate) async fn until_whole(&self) {
        let others = self.nodes.len() as f64 - 1.0;
        for node in &self.nodes {
            until("the node is live", async || node.get("/livez").await.0 == 200).await;
            node.until_metric("holm_peer_connected", others).await;
            if node.metric("holm_node_amnesia").await > 0.0 {
                lock(&self.world).forgot(node.id);
            } else {
                node.until_ready().await;
            }
        }
    }

    /// Waits until all replicas hold the same. Nobody has read a key since the round ended, so it is the
    /// replicas that found out what they lacked. Where clocks ran ahead, last-writer-wins values are
    /// taken only when their time has come; a node without its memory does not say what it holds.
    async fn until_equal(&mut self) {
        if self.clocks_ran_ahead || !self.forgetful().is_empty() {
            return;
        }
        let mut last = String::new();
        until("all replicas hold the same", async || {
            let (code, body) = self.nodes[0].get("/v1/fingerprint?replicas=all").await;
            let is_equal = code == 200 && body.contains("\"equal\":true");
            if !is_equal && body != last {
                eprintln!("not equal yet: {body}");
                last = body;
            }
            is_equal
        })
        .await;
        let mut found = 0.0;
        for node in &self.nodes {
            found += node.metric("holm_consistency_violations_total").await;
        }
        if found > 0.0 {
            self.fail(&format!("{found} consistency violations were found"));
        }
    }

    /// The nodes that have declared amnesia.
    pub(crate) fn forgetful(&self) -> BTreeSet<NodeId> {
        let world = lock(&self.world);
        self.nodes.iter().map(|node| node.id).filter(|&id| !world.is_whole(id)).collect()
    }

    /// Looks at a replica through the observer's eyes: its objects as they are stored.
    pub(crate) async fn observe(&self, node: NodeId) -> FakePeer {
        let node = self.nodes.iter().find(|one| one.id == node).unwrap();
        FakePeer::meet(&self.pki, node, OBSERVER, OBSERVERS_STORE).await
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let repeat = &self.setup.repeat;
            self.yard.keep(&format!("{repeat} --seed {} --rounds 1\n", self.seed));
        }
    }
}

/// Objects of all keys on all replicas that remember.
pub(crate) type Replicas = BTreeMap<usize, Vec<(NodeId, Object)>>;

fn client_endpoint(pki: &Pki) -> Endpoint {
    let mut config = pki.quic(Some(&pki.client(ALL_ROLES, VALID)), ALPN_CLIENT);
    let mut transport = TransportConfig::default();
    transport.max_idle_timeout(Some(CLIENT_IDLE.try_into().unwrap()));
    transport.keep_alive_interval(Some(CLIENT_KEEPALIVE));
    config.transport_config(Arc::new(transport));
    let mut endpoint = Endpoint::client(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))).unwrap();
    endpoint.set_default_client_config(config);
    endpoint
}

/// Gives the nodes a layout and the buckets, and learns from one of them what all have agreed on,
/// the secret of the contexts included.
async fn agree(pki: &Pki, nodes: &[Holmd], regions: &[(usize, u8)]) -> Agreed {
    let me = pki.client(ALL_ROLES, VALID);
    let mut lanes: Vec<(Conn, Lane)> = Vec::new();
    for node in nodes {
        let quic = kept_alive(pki.quic(Some(&me), ALPN_CLIENT));
        let conn = Conn::open(node.quic, node.id, quic).await.unwrap();
        let lane = conn.client_lane().await;
        lanes.push((conn, lane));
    }
    let layout = AdminRequest::ApplyLayout(layout(nodes, regions));
    lanes[0].1.admin(layout).await;
    let siblings = bucket(&mut lanes[0].1, "carts", BucketKind::Siblings).await;
    let latest = bucket(&mut lanes[0].1, "flags", BucketKind::Lww).await;
    for (_, lane) in &mut lanes {
        until("the buckets are known", async || {
            let AdminReply::View(view) = lane.admin(AdminRequest::View).await else { panic!() };
            view.buckets.len() == 2
        })
        .await;
    }
    let mut observer = FakePeer::meet(pki, &nodes[0], OBSERVER, OBSERVERS_STORE).await;
    let metadata = async {
        loop {
            let frame = observer.bulk.frame().await.expect("the connection lives");
            if frame.kind == METADATA {
                return Metadata::decode(&frame.body).expect("sound metadata").state();
            }
        }
    };
    let state = within("the node's metadata", metadata).await;
    let (layout, secrets) = state.layout.zip(state.secrets).expect("a layout is in force");
    Agreed { layout, secrets, siblings, latest }
}

async fn bucket(lane: &mut Lane, name: &str, kind: BucketKind) -> BucketId {
    let policy = BucketPolicy { kind, ..BucketPolicy::default() };
    let change = BucketChange { name: name.to_owned(), policy, create: true };
    match lane.admin(AdminRequest::Bucket(change)).await {
        AdminReply::Bucket(info) => info.id,
        other => panic!("{other:?}"),
    }
}

fn layout(nodes: &[Holmd], regions: &[(usize, u8)]) -> LayoutProposal {
    let name = |region: usize| format!("region-{region}");
    let of_nodes = regions.iter().enumerate();
    let of_nodes = of_nodes.flat_map(|(region, &(count, _))| std::iter::repeat_n(region, count));
    let nodes = nodes.iter().zip(of_nodes).map(|(node, region)| NodeInfo {
        id: node.id,
        addr: node.quic,
        region: name(region),
        zone: format!("zone-{}", node.id.0),
        capacity: 100,
    });
    let replication = regions.iter().enumerate();
    let replication = replication.map(|(region, &(_, factor))| (name(region), factor)).collect();
    let placement =
        PlacementInfo { id: PlacementId(0), name: "default".to_owned(), bits: BITS, replication };
    LayoutProposal { version: 1, nodes: nodes.collect(), placements: vec![placement] }
}
