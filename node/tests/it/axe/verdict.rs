//! The end of a round: every key is read at all its replicas until they agree, and the referee
//! judges what they hold and everything that was said.
//!
//! Replicas are looked at one by one, as another node would, so that they are compared object by
//! object as the simulator compares them.

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::BytesMut;
use holm_core::object::{Object, ObjectKind, State};
use holm_core::peer::{Found, OpId, PeerMessage, Want};
use holm_protocol::ids::{Hlc, NodeId};
use holm_protocol::level::Level;
use holm_protocol::message::{Get, Reply, Request};
use holm_sim::check::converged::is_same;
use holm_sim::cluster::{CallId, CallResult};
use holm_sim::history::Outcome;
use holm_sim::referee::Referee;
use holm_sim::world::World;
use tokio::time::{Duration, Instant, sleep, timeout};

use super::load::lock;
use super::rig::{Replicas, Rig};
use super::world::{Place, places};

/// Replicas must agree by then. Read repair is all there is, and runs after each answer.
const CONVERGED_WITHIN: Duration = Duration::from_secs(20);
/// For repairs to arrive before replicas are compared again.
const PAUSE: Duration = Duration::from_millis(20);
/// Keys read at a time.
const READS_MAX: usize = 256;
/// Deadline of a read, milliseconds.
const TIMEOUT_MS: u32 = 2_000;
/// Longer than a node may take to answer a read.
const PATIENCE: Duration = Duration::from_secs(5);

/// Judges the round that was just played. How many acknowledged writes nobody has any more: the
/// referee says whether that may be.
pub(crate) async fn judge(rig: &mut Rig) -> u64 {
    let places = lock(&rig.world).places();
    let deadline = Instant::now() + CONVERGED_WITHIN;
    let mut from = 0;
    let replicas = loop {
        for (place, level, asked_us, result) in read_all(rig, &places, from).await {
            let mut world = lock(&rig.world);
            if matches!(result, CallResult::Reply(Reply::Values(_))) {
                world.referee_mut().read_told(places[place].id, level, asked_us, &result);
            }
            world.settle();
        }
        let mut replicas = look(rig, &places).await;
        if rig.clocks_ran_ahead {
            replicas.retain(|_, held| !is_of_the_future(held));
        }
        if is_converged(&replicas) || Instant::now() > deadline {
            break replicas;
        }
        sleep(PAUSE).await;
        from += 1;
    };
    let mut world = lock(&rig.world);
    finish(world.referee_mut(), &places, &replicas);
    let history = world.referee().history();
    let gone = |at: &usize, held: &[(NodeId, Object)]| {
        let events = history.events_of(places[*at].id);
        let acknowledged = events.filter(|(_, event)| event.outcome == Outcome::Acknowledged);
        let dots = acknowledged.filter_map(|(_, event)| event.dot);
        let forgotten = history.forgotten(places[*at].id);
        let is_there = |dot| held.iter().any(|(_, object)| object.context.covers(dot));
        dots.filter(|&dot| !forgotten.covers(dot) && !is_there(dot)).count()
    };
    replicas.iter().map(|(at, held)| gone(at, held) as u64).sum()
}

/// Judges again what earlier rounds left: nobody has written to their keys since.
pub(crate) async fn judge_earlier(rig: &mut Rig) {
    for at in 0..rig.earlier.len() {
        let places = places(&rig.earlier[at]);
        for (place, level, asked_us, result) in read_all(rig, &places, at).await {
            if matches!(result, CallResult::Reply(Reply::Values(_))) {
                let key = places[place].id;
                rig.earlier[at].read_told(key, level, asked_us, &result);
            }
        }
        let mut replicas = look(rig, &places).await;
        if rig.clocks_ran_ahead {
            replicas.retain(|_, held| !is_of_the_future(held));
        }
        finish(&mut rig.earlier[at], &places, &replicas);
    }
}

fn finish(referee: &mut Referee, places: &[Place], replicas: &Replicas) {
    for (at, held) in replicas {
        referee.check_final(places[*at].id, held);
    }
    referee.check_history();
}

fn is_converged(replicas: &Replicas) -> bool {
    replicas.values().all(|held| held.windows(2).all(|pair| is_same(&pair[0].1, &pair[1].1)))
}

/// Whether a replica holds a last-writer-wins value of a clock that was ahead. The others do not take
/// it before its time has come, so replicas agree on that key only then.
fn is_of_the_future(held: &[(NodeId, Object)]) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let latest = |object: &Object| match &object.state {
        State::Latest(latest) => latest.hlc(),
        State::Siblings(_) => None,
    };
    let readings = held.iter().filter_map(|(_, object)| latest(object));
    readings.map(Hlc::wall_ms).any(|wall_ms| u128::from(wall_ms) > now.as_millis())
}

/// One read of one key: which, at what level, when, and how it ended.
type Read = (usize, Level, u64, CallResult);

/// Reads every key once at all replicas that remember, each through one of them.
async fn read_all(rig: &mut Rig, places: &[Place], from: usize) -> Vec<Read> {
    let mut ended = Vec::new();
    let numbers: Vec<usize> = (0..places.len()).collect();
    for some in numbers.chunks(READS_MAX) {
        let mut asked: BTreeMap<CallId, (usize, Level, u64)> = BTreeMap::new();
        for &at in some {
            let place = &places[at];
            let mut world = lock(&rig.world);
            let replicas = world.layout().replicas(place.partition).to_vec();
            let whole: Vec<NodeId> =
                replicas.iter().copied().filter(|&node| world.is_whole(node)).collect();
            if whole.is_empty() {
                continue;
            }
            let level = match whole.len() == replicas.len() {
                true => Level::All,
                false => Level::Count(whole.len() as u8),
            };
            let (bucket, key) = (place.bucket, place.name.clone());
            let get = Get { bucket, key, level: Some(level), timeout_ms: TIMEOUT_MS };
            let asked_us = world.now_us();
            let node = whole[(at + from) % whole.len()];
            let call = world.call((0, 0), node, Request::Get(get), 0);
            asked.insert(call, (at, level, asked_us));
        }
        let answers = rig.answers.as_mut().expect("no round is being played");
        while !asked.is_empty() {
            let Ok(answer) = timeout(PATIENCE, answers.recv()).await else { break };
            let (call, result) = answer.expect("the links live");
            if let Some((at, level, asked_us)) = asked.remove(&call) {
                ended.push((at, level, asked_us, result));
            }
        }
    }
    ended
}

/// What every replica that remembers holds of every key.
async fn look(rig: &Rig, places: &[Place]) -> Replicas {
    let mut replicas: Replicas = (0..places.len()).map(|at| (at, Vec::new())).collect();
    let forgetful = rig.forgetful();
    for node in rig.nodes.iter().map(|node| node.id).filter(|node| !forgetful.contains(node)) {
        let layout = |place: &Place| {
            let world = lock(&rig.world);
            world.layout().is_replica(place.partition, node)
        };
        let mine: Vec<usize> = (0..places.len()).filter(|&at| layout(&places[at])).collect();
        let mut observer = rig.observe(node).await;
        for some in mine.chunks(READS_MAX) {
            let mut frames = BytesMut::new();
            for &at in some {
                let Place { partition, bucket, name, .. } = places[at].clone();
                let op = OpId(at as u64 + 1);
                PeerMessage::Read { op, partition, bucket, key: name, want: Want::Full }
                    .encode(&mut frames);
            }
            observer.requests.write(&frames).await;
            let mut heard = 0;
            while heard < some.len() {
                let PeerMessage::ReadReply { op, found, .. } = observer.hear().await else {
                    continue;
                };
                let at = op.0 as usize - 1;
                replicas.entry(at).or_default().push((node, object(&places[at], found)));
                heard += 1;
            }
        }
    }
    replicas
}

fn object(place: &Place, found: Found) -> Object {
    let kind = if place.is_lww { ObjectKind::Lww } else { ObjectKind::Siblings };
    match found {
        Found::Object(bytes) => Object::decode(&bytes).expect("a sound object"),
        Found::Absent => Object::new(kind),
        other => panic!("a replica does not say what it holds: {other:?}"),
    }
}
