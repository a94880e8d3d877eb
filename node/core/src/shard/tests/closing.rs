//! Goal: of a run that ended, just what nobody has is void, decided once and the same everywhere;
//! until then nobody takes what it lacks, and nothing is decided while anybody is missing.
//!
//! Method: several real shards, connected by hand: what they send is delivered at once, except what
//! the test loses.

use std::collections::VecDeque;

use crate::clock::{DotSet, IntervalSet};
use crate::peer::{CloseMessage, Finding, Step};
use crate::shard::ends::End;

use super::hinted::{keep, kept};
use super::*;
use holm_protocol::error::NotReady;

/// How often the mesh's shards look for actors that ended, milliseconds.
const EVERY_MS: u64 = 100;

/// Passes after which an actor that nobody writes for any more is closed.
const LONG_MS: u64 = 8 * EVERY_MS;

type Lost = fn(u64, u64, &PeerMessage) -> bool;

/// See the [module](self).
struct Mesh {
    benches: BTreeMap<u64, Bench>,
    lost: Lost,
}

fn nothing(_: u64, _: u64, _: &PeerMessage) -> bool {
    false
}

fn run(node: u64) -> Actor {
    Actor(0xb000 + node)
}

impl Mesh {
    fn new(regions: &[(u64, u8)]) -> Mesh {
        let cluster = Arc::new(cluster(layout(regions, 0), &policy()));
        let ids = cluster.layout.as_ref().unwrap().nodes().iter().map(|node| node.id);
        let bench = |node: NodeId| {
            let boot =
                Boot { node, actor: run(node.0), standing: Standing::Serves, shard: 0, shards: 1 };
            let config = ShardConfig { retire_ms: EVERY_MS, ..ShardConfig::test_min() };
            (node.0, Bench::start(boot, cluster.clone(), config, Disk::default()))
        };
        Mesh { benches: ids.map(bench).collect(), lost: nothing }
    }

    fn node(&mut self, node: u64) -> &mut Bench {
        self.benches.get_mut(&node).unwrap()
    }

    /// Replicas of the one partition, and others.
    fn sides(&self) -> (Vec<u64>, Vec<u64>) {
        let layout = self.benches[&1].shard.cluster.layout.clone().unwrap();
        let all = self.benches.keys().copied();
        all.partition(|&node| layout.is_replica(PARTITION, NodeId(node)))
    }

    /// Lets time pass at all nodes, and everything arrive.
    fn pass_ms(&mut self, ms: u64) {
        for _ in 0..ms / 20 {
            let mut sent = VecDeque::new();
            for (&node, bench) in &mut self.benches {
                let mut effects = bench.pass_ms(20);
                effects.extend(bench.commit_and_tell());
                sent.extend(sends(&effects).into_iter().map(|sent| (node, sent)));
            }
            self.deliver(sent);
        }
    }

    fn deliver(&mut self, mut sent: VecDeque<(u64, (Vec<NodeId>, PeerMessage))>) {
        while let Some((from, (to, message))) = sent.pop_front() {
            for to in to.into_iter().map(|node| node.0) {
                if (self.lost)(from, to, &message) {
                    continue;
                }
                let bench = self.benches.get_mut(&to).unwrap();
                let mut effects = bench.hear(from, message.clone());
                effects.extend(bench.commit_and_tell());
                sent.extend(sends(&effects).into_iter().map(|sent| (to, sent)));
            }
        }
    }

    /// Another node's write reaches just these nodes.
    fn give(&mut self, to: &[u64], key: &str, counter: u64) {
        for &node in to {
            let write = write_message(7, key, foreign(ObjectKind::Siblings, counter, key), &[]);
            let from = if node == 1 { 2 } else { 1 };
            self.node(node).hear(from, write);
            self.node(node).commit();
        }
    }

    fn end(&self, node: u64) -> Option<End> {
        self.benches[&node].shard.ends.get(PARTITION, OTHER).cloned()
    }

    fn decided(&self, node: u64) -> Option<IntervalSet> {
        self.end(node).as_ref().and_then(End::dots).cloned()
    }

    fn seen(&self, node: u64) -> IntervalSet {
        let state = self.benches[&node].shard.partition(PARTITION).unwrap();
        state.clock().seen_of(OTHER).into_owned()
    }

    /// What a node answers a write of a foreign object that names this dot.
    fn offered(&mut self, node: u64, counter: u64) -> Option<Refusal> {
        let key = format!("offered {counter}");
        let write = write_message(7, &key, foreign(ObjectKind::Siblings, counter, &key), &[]);
        let from = if node == 1 { 2 } else { 1 };
        let mut effects = self.node(node).hear(from, write);
        effects.extend(self.node(node).commit());
        let refused = sends(&effects).into_iter().find_map(|(_, message)| match message {
            PeerMessage::WriteReply { refused, .. } => Some(refused),
            _ => None,
        });
        refused.expect("an answer").first().map(|&(_, refusal)| refusal)
    }
}

fn set(counters: &[u64]) -> IntervalSet {
    counters.iter().copied().collect()
}

/// Goal: what nobody has is void: the holes, and all beyond the last. What somebody has comes to
/// all. Who names a void dot is refused whole, after restarts too.
#[test]
fn what_nobody_has_is_void() {
    let mut mesh = Mesh::new(&[(3, 3)]);
    mesh.give(&[1], "one", 1);
    mesh.give(&[2, 3], "three", 3);
    mesh.pass_ms(3 * LONG_MS);
    for node in 1..=3 {
        assert_eq!(mesh.decided(node), Some(set(&[1, 3])), "{node}");
        assert_eq!(mesh.seen(node), set(&[1, 2, 3]), "{node}");
        let alive = mesh.benches[&node].stored("one").unwrap().live_dots().count();
        assert_eq!(alive, 1, "{node} has got the other's write");
        assert_eq!(mesh.offered(node, 2), Some(Refusal::Void));
        assert_eq!(mesh.offered(node, 4), Some(Refusal::Void));
        assert_eq!(mesh.offered(node, 3), None);
    }
    let bench = mesh.benches.remove(&2).unwrap().restart();
    mesh.benches.insert(2, bench);
    assert_eq!((mesh.seen(2), mesh.decided(2)), (set(&[1, 2, 3]), Some(set(&[1, 3]))));
    assert_eq!(mesh.offered(2, 2), Some(Refusal::Void));
    assert_eq!(mesh.benches[&1].shard.counters().runs_undecided, 0);
}

/// Goal: while one replica does not answer, others that have take nothing that they lack, and
/// nothing is void (`Retirement-down-unasked`, `Retirement-no-freeze`). What it has when it answers
/// exists.
#[test]
fn nothing_is_decided_without_everybody() {
    let mut mesh = Mesh::new(&[(3, 3)]);
    mesh.give(&[1, 2], "one", 1);
    mesh.lost = |from, to, message| {
        let about =
            matches!(message, PeerMessage::Close(CloseMessage::Ask { step: Step::Dots, .. }));
        (about && to == 3) || (from == 3 && !matches!(message, PeerMessage::Close(_)))
    };
    mesh.give(&[3], "five", 5);
    mesh.pass_ms(LONG_MS);
    assert_eq!(
        (mesh.end(1), mesh.end(2), mesh.end(3)),
        (Some(End::Frozen), Some(End::Frozen), None)
    );
    assert_eq!(mesh.offered(1, 3), Some(Refusal::Frozen));
    assert_eq!(mesh.offered(2, 1), None, "this one it has");
    let read = mesh.node(1).shard.counters();
    assert_eq!((read.runs_undecided, read.runs_closed), (1, 0));
    mesh.lost = nothing;
    // The next round, when the first has taken too long.
    mesh.pass_ms(12_000);
    for node in 1..=3 {
        assert_eq!(mesh.decided(node), Some(set(&[1, 5])), "{node}");
        assert_eq!(mesh.seen(node), set(&[1, 2, 3, 4, 5]), "{node}");
    }
}

/// Goal: a node that is down holds it back, before anything is frozen; so does one that another node
/// has met as another run: an answer dies with its disk (`Retirement-old-answers`).
#[test]
fn views_must_agree() {
    let mut mesh = Mesh::new(&[(3, 3)]);
    mesh.give(&[1, 2, 3], "one", 1);
    mesh.node(1).input(Input::PeerDown(NodeId(3)));
    mesh.pass_ms(LONG_MS);
    assert_eq!((mesh.end(1), mesh.end(2), mesh.end(3)), (None, None, None));
    mesh.node(1).input(Input::PeerUp(NodeId(3), run(3)));
    mesh.node(2).input(Input::PeerUp(NodeId(3), Actor(99)));
    mesh.pass_ms(LONG_MS);
    assert_eq!((mesh.end(1), mesh.end(2), mesh.end(3)), (None, None, None));
    mesh.node(2).input(Input::PeerUp(NodeId(3), run(3)));
    mesh.pass_ms(12_000);
    assert_eq!(mesh.decided(3), Some(set(&[1])));
}

/// Goal: an actor that its node still writes with is left alone and frozen nowhere: a run that
/// nobody meets any more but its own node, and one that a failed commit brought.
#[test]
fn who_is_alive_is_left_alone() {
    let mut mesh = Mesh::new(&[(3, 3)]);
    mesh.node(2).shard.resume(OTHER);
    let put = mesh.node(2).put("k", "v", Level::One);
    let mut effects = mesh.node(2).ask(Request::Put(put)).1;
    effects.extend(mesh.node(2).commit());
    mesh.deliver(sends(&effects).into_iter().map(|sent| (2, sent)).collect());
    mesh.pass_ms(LONG_MS);
    for node in 1..=3 {
        assert_eq!((mesh.end(node), mesh.seen(node)), (None, set(&[1])), "{node}");
    }
    // Nor does its own node close it when others want that (seed 97: it froze itself everywhere).
    mesh.node(1).shard.resume(Actor(0xbeef));
    let put = mesh.node(1).put("l", "v", Level::One);
    let mut effects = mesh.node(1).ask(Request::Put(put)).1;
    effects.extend(mesh.node(1).commit());
    mesh.deliver(sends(&effects).into_iter().map(|sent| (1, sent)).collect());
    mesh.pass_ms(LONG_MS);
    let is_known = |bench: &Bench| bench.shard.ends.get(PARTITION, Actor(0xbeef)).is_some();
    assert!(!mesh.benches.values().any(is_known));
    mesh.node(2).shard.resume(Actor(0xdead));
    mesh.pass_ms(12_000);
    for node in 1..=3 {
        assert_eq!(mesh.decided(node), Some(set(&[1])), "{node}");
    }
}

/// Goal: a node with hints of the partition holds it back before any replica is frozen, and
/// its hints go home then (`Retirement-hint-unasked`). Afterwards it keeps no hint that names what
/// is void, and any other.
#[test]
fn hints_are_waited_for() {
    let mut mesh = Mesh::new(&[(5, 3)]);
    let (replicas, others) = mesh.sides();
    let (home, fallback) = (replicas[1], others[0]);
    mesh.give(&[replicas[0]], "one", 1);
    mesh.lost = |_, _, message| matches!(message, PeerMessage::Hint(HintMessage::HandOff { .. }));
    let object = foreign(ObjectKind::Siblings, 4, "four");
    mesh.node(fallback).hear(replicas[0], keep(7, home, "four", object));
    assert_eq!(kept(&mesh.node(fallback).commit()), [None]);
    mesh.pass_ms(LONG_MS);
    assert!(replicas.iter().chain(&others).all(|&node| mesh.end(node).is_none()));
    mesh.lost = nothing;
    mesh.pass_ms(12_000);
    for &node in replicas.iter().chain(&others) {
        assert_eq!(mesh.decided(node), Some(set(&[1, 4])), "{node}");
    }
    for (counter, expected) in [(2, Some(Refusal::Void)), (4, None)] {
        let object = foreign(ObjectKind::Siblings, counter, "again");
        let bench = mesh.node(fallback);
        let mut effects = bench.hear(replicas[0], keep(7, home, "again", object));
        effects.extend(bench.commit());
        assert_eq!(kept(&effects), [expected]);
    }
}

/// Goal: a node promises, and tells what it decided, when that is durable and not before; what was
/// lost with its batch is not promised.
#[test]
fn promises_are_durable() {
    let mut mesh = Mesh::new(&[(3, 3)]);
    mesh.give(&[2], "one", 1);
    let bench = mesh.node(2);
    let view = bench.shard.view().unwrap();
    let actors = vec![(PARTITION, OTHER)];
    let ask = |step| PeerMessage::Close(CloseMessage::Ask { view, step, actors: actors.clone() });
    let promised = |effects: &[Effect]| {
        sends(effects).into_iter().any(|(_, m)| matches!(m, PeerMessage::Close(_)))
    };
    bench.disk.unsynced = 1;
    assert!(!promised(&bench.hear(1, ask(Step::Dots))));
    assert!(!promised(&bench.commit_and_tell()));
    bench.disk.unsynced = 0;
    let mut effects = bench.pass_ms(100);
    effects.extend(bench.commit_and_tell());
    let answer = sends(&effects).into_iter().find_map(|(_, message)| match message {
        PeerMessage::Close(CloseMessage::Answer { found, .. }) => Some(found),
        _ => None,
    });
    let here = Finding::Promised(set(&[1]));
    assert_eq!(answer, Some(vec![(PARTITION, (OTHER, here))]));

    let mut mesh = Mesh::new(&[(3, 3)]);
    mesh.give(&[2], "one", 1);
    let bench = mesh.node(2);
    bench.hear(1, ask(Step::Dots));
    bench.fail_commit(StoreError::Full);
    bench.shard.resume(Actor(0xa9));
    assert!(!promised(&bench.commit_and_tell()));
    assert_eq!(mesh.end(2), None);
}

/// Goal: there is one decision: who decides again adopts it, and another is refused; so is one that
/// calls void what is here, or what this run may still write.
#[test]
fn a_decision_is_adopted() {
    let mut mesh = Mesh::new(&[(3, 3)]);
    mesh.give(&[1, 2], "one", 1);
    let tell = |actor, dots: &[u64]| {
        PeerMessage::Close(CloseMessage::Ends(vec![(PARTITION, (actor, set(dots)))]))
    };
    mesh.node(2).hear(3, tell(OTHER, &[2]));
    assert_eq!((mesh.end(2), mesh.node(2).shard.counters().ends_refused), (None, 1));
    mesh.node(2).hear(3, tell(run(2), &[2]));
    mesh.node(3).hear(2, tell(OTHER, &[1, 4]));
    mesh.node(3).hear(2, tell(OTHER, &[1, 5]));
    mesh.pass_ms(LONG_MS);
    for node in 1..=3 {
        assert_eq!(mesh.decided(node), Some(set(&[1, 4])), "{node}");
        assert!(mesh.benches[&node].shard.ends.get(PARTITION, run(2)).is_none());
    }
}

/// Goal: a client's context that names what is frozen and not here is refused with nothing done, to be
/// tried elsewhere; when it is decided, the write covers what is alive below it, and names nothing
/// else: the dots below may be of other keys. The writer's own context keeps what it had.
#[test]
fn contexts_wait_and_are_lowered() {
    let mut mesh = Mesh::new(&[(3, 3)]);
    mesh.give(&[1, 2, 3], "k", 1);
    mesh.give(&[1, 2, 3], "other", 2);
    let ask = |mesh: &mut Mesh, counter| {
        let context = mesh.benches[&1].sealed("k", &[Dot::new(OTHER, counter)]);
        let put = Put { context, ..mesh.node(1).put("k", "v", Level::One) };
        let (caller, mut effects) = mesh.node(1).ask(Request::Put(put));
        effects.extend(mesh.node(1).commit());
        reply_to(&effects, caller).unwrap()
    };
    mesh.node(1).shard.ends.set(PARTITION, OTHER, End::Frozen);
    let undecided = RequestError::NotReady { reason: NotReady::Undecided };
    assert_eq!(error(Some(ask(&mut mesh, 5))), undecided);
    assert_eq!(mesh.node(1).stored("k").unwrap().live_dots().count(), 1, "nothing happened");
    mesh.pass_ms(LONG_MS);
    assert_eq!(mesh.decided(1), Some(set(&[1, 2])));
    written(&ask(&mut mesh, 5));
    let stored = mesh.node(1).stored("k").unwrap();
    assert_eq!((stored.context.get(OTHER), stored.live_dots().count()), (1, 1));
}

/// Goal: who misses a decision asks for it, and who asks for a void dot is told so.
#[test]
fn missed_decisions_are_asked_for() {
    let mut mesh = Mesh::new(&[(3, 3)]);
    mesh.give(&[1, 2, 3], "one", 1);
    mesh.give(&[1, 2, 3], "three", 3);
    mesh.lost =
        |_, to, message| to == 3 && matches!(message, PeerMessage::Close(CloseMessage::Ends(_)));
    mesh.pass_ms(LONG_MS);
    assert_eq!((mesh.end(2).is_some(), mesh.end(3)), (true, Some(End::Frozen)));
    mesh.lost = nothing;
    let mut missing = DotSet::new();
    missing.insert_range(OTHER, 2, 2);
    let op = OpId(3);
    let ask =
        PeerMessage::GapAsk { op, partition: PARTITION, missing: missing.clone(), bytes_max: 9 };
    let mut effects = mesh.node(2).hear(3, ask);
    effects.extend(mesh.node(2).commit_and_tell());
    let told = sends(&effects);
    assert!(told.iter().any(|(_, message)| matches!(
        message,
        PeerMessage::GapAnswer { unknown, cut, .. } if *unknown == missing && cut.is_empty()
    )));
    assert!(told.iter().any(|(_, m)| matches!(m, PeerMessage::Close(CloseMessage::Ends(_)))));
    mesh.pass_ms(LONG_MS);
    assert_eq!(mesh.decided(3), mesh.decided(2));
}

/// Goal: the same of an actor that a failed commit ended, though the run whose first it was goes on.
#[test]
fn missed_ends_of_runs_that_go_on_are_asked_for() {
    let mut mesh = Mesh::new(&[(3, 3)]);
    let put = mesh.node(2).put("k", "v", Level::One);
    let mut effects = mesh.node(2).ask(Request::Put(put)).1;
    effects.extend(mesh.node(2).commit());
    mesh.deliver(sends(&effects).into_iter().map(|sent| (2, sent)).collect());
    mesh.node(2).shard.resume(Actor(0xbeef));
    mesh.lost =
        |_, to, message| to == 3 && matches!(message, PeerMessage::Close(CloseMessage::Ends(_)));
    mesh.pass_ms(2 * LONG_MS);
    let end = |mesh: &Mesh, node| mesh.benches[&node].shard.ends.get(PARTITION, run(2)).cloned();
    assert!(end(&mesh, 2).is_some_and(|end| end.dots() == Some(&set(&[1]))));
    assert_eq!(end(&mesh, 3), Some(End::Frozen));
    mesh.lost = nothing;
    mesh.pass_ms(2 * LONG_MS);
    assert!(end(&mesh, 3).is_some_and(|end| end.dots() == Some(&set(&[1]))));
}

/// Goal: who takes a partition whole takes over what is frozen, closed and folded; only a run that has
/// been met is sent anything.
#[test]
fn ends_come_with_a_partition() {
    let mut mesh = Mesh::new(&[(3, 3)]);
    let bench = mesh.node(2);
    let ends = [(1, End::Frozen), (2, End::Closed(set(&[1, 3]))), (3, End::Folded(set(&[2])))];
    let ends: Vec<(Actor, End)> = ends.map(|(actor, end)| (Actor(actor), end)).to_vec();
    for (actor, end) in ends.clone() {
        bench.shard.ends.set(PARTITION, actor, end);
    }
    let ask = |run| PeerMessage::PageAsk {
        op: OpId(3),
        partition: PARTITION,
        after: None,
        know: VersionVector::new(),
        gathers: false,
        run,
        bytes_max: 1 << 10,
    };
    let page = |effects: &[Effect]| {
        sends(effects).into_iter().find_map(|(_, message)| match message {
            PeerMessage::PageAnswer { ends, .. } => Some(ends),
            _ => None,
        })
    };
    bench.hear(1, ask(Actor(98)));
    assert_eq!(page(&bench.commit_and_tell()), None, "a run that was not met");
    bench.hear(1, ask(run(1)));
    assert_eq!(page(&bench.commit_and_tell()), Some(ends.clone()));

    let bench = mesh.node(1);
    let mut clock = DotSet::new();
    clock.insert_range(Actor(2), 1, 3);
    bench.shard.adopt_ends(PARTITION, &ends);
    assert!(bench.shard.adopt(PARTITION, (&clock, &VersionVector::new())));
    bench.shard.adopt_folds(PARTITION, &ends);
    bench.commit();
    let known: Vec<(Actor, End)> =
        bench.shard.ends.of(PARTITION).map(|(actor, end)| (actor, end.clone())).collect();
    assert_eq!(known[..2], [(Actor(1), End::Frozen), (Actor(2), End::Closed(set(&[1, 3])))]);
    assert!(bench.shard.ends.get(PARTITION, Actor(3)).is_some_and(|end| end.dots().is_some()));
}

/// Goal: when every replica has all that an actor has, and everyone knows that, its entry goes from
/// every clock and account, and stays gone over a restart; what it wrote is there, what is void is
/// refused, and who learned nothing of it yet is told all of it again.
#[test]
fn what_all_have_is_folded() {
    let mut mesh = Mesh::new(&[(3, 3)]);
    mesh.give(&[1], "one", 1);
    mesh.give(&[2, 3], "three", 3);
    let is_gone = |bench: &Bench| {
        let state = bench.shard.partition(PARTITION).unwrap();
        state.clock().get(OTHER).is_none() && state.account().know.get(OTHER) == 0
    };
    mesh.lost = |from, _, message| from == 3 && matches!(message, PeerMessage::Seen { .. });
    mesh.pass_ms(5_000);
    let folded = |mesh: &Mesh| mesh.benches.values().map(is_gone).collect::<Vec<_>>();
    assert_eq!(folded(&mesh), [false, false, false], "node 3 has claimed nothing");
    mesh.lost = nothing;
    mesh.pass_ms(5_000);
    assert_eq!(folded(&mesh), [true, true, true]);
    for node in 1..=3 {
        assert_eq!(mesh.end(node), Some(End::Folded(set(&[1, 3]))));
        assert_eq!(mesh.seen(node), set(&[1, 2, 3]));
        assert_eq!(mesh.benches[&node].stored("one").unwrap().live_dots().count(), 1);
    }
    let bench = mesh.benches.remove(&2).unwrap().restart();
    mesh.benches.insert(2, bench);
    assert!(is_gone(&mesh.benches[&2]));
    assert_eq!((mesh.seen(2), mesh.offered(2, 2)), (set(&[1, 2, 3]), Some(Refusal::Void)));
    let claims = mesh.node(2).pass_ms(1_000);
    let claims = [claims, mesh.node(2).commit_and_tell()].concat();
    let told = sends(&claims).into_iter().find_map(|(_, message)| match message {
        PeerMessage::Seen { clocks, .. } => Some(clocks[0].1.seen.seen_of(OTHER).into_owned()),
        _ => None,
    });
    assert_eq!(told, Some(set(&[1, 2, 3])), "an older disk may lack something of it");
}
