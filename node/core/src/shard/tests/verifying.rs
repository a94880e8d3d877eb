//! Two replicas that verify what they hold: what is equal costs one exchange, what one disk lost
//! comes back, what was deleted does not.

use super::*;
use crate::peer::verify::{Answer, KeyState, Question};
use crate::shard::event::{Demanded, Verified, VerifyDemand, VerifyEnd, Violation};
use holm_protocol::admin::ViolationState;

/// Two replicas of one partition, with every message between them delivered.
struct Two {
    nodes: [Bench; 2],
    ended: Vec<Verified>,
    violations: Vec<Violation>,
    /// Kinds of messages in the order in which they were sent: the number of exchanges.
    questions: Vec<&'static str>,
}

const EVERY_MS: u64 = 10_000;

impl Two {
    fn new() -> Two {
        let config = ShardConfig { verify_every_ms: EVERY_MS, ..ShardConfig::test_min() };
        let node = |id: u64| {
            let cluster = Arc::new(cluster(layout(&[(2, 2)], 0), &policy()));
            let actor = Actor(0xa0 + id);
            let boot =
                Boot { node: NodeId(id), actor, standing: Standing::Serves, shard: 0, shards: 1 };
            Bench::start(boot, cluster, config.clone(), Disk::default())
        };
        let nodes = [node(1), node(2)];
        Two { nodes, ended: vec![], violations: vec![], questions: vec![] }
    }

    /// Delivers messages, commits, and wakes both until nothing happens for a while.
    fn settle(&mut self, mut waiting: Vec<(u64, Effects)>) {
        for _ in 0..10_000 {
            let mut next = Vec::new();
            for (from, effects) in waiting {
                for effect in effects {
                    match effect {
                        Effect::Send { to, message } => {
                            self.note(&message);
                            for node in to {
                                let effects = self.node(node.0).hear(from, message.clone());
                                next.push((node.0, effects));
                            }
                        }
                        Effect::Verified(verified) => self.ended.push(verified),
                        Effect::Violation(violation) => self.violations.push(*violation),
                        _ => {}
                    }
                }
            }
            for id in [1, 2] {
                let effects = self.node(id).commit();
                next.push((id, effects));
            }
            next.retain(|(_, effects)| !effects.is_empty());
            if next.is_empty() {
                return;
            }
            waiting = next;
        }
        panic!("it never ends");
    }

    fn note(&mut self, message: &PeerMessage) {
        if let PeerMessage::Verify { question, .. } = message {
            self.questions.push(match question {
                Question::Middle => "middle",
                Question::Leaves(_) => "leaves",
                Question::Keys { .. } => "keys",
                Question::Objects(..) => "objects",
            });
        }
    }

    fn node(&mut self, id: u64) -> &mut Bench {
        &mut self.nodes[id as usize - 1]
    }

    fn pass_ms(&mut self, ms: u64) {
        for _ in 0..ms / 10 {
            let waiting = [1, 2].map(|id| (id, self.node(id).pass_ms(10)));
            self.settle(waiting.into());
        }
    }

    /// A put at node 1 that reaches both.
    fn put(&mut self, key: &str, value: &str) -> Written {
        let put = self.node(1).put(key, value, Level::One);
        let (caller, effects) = self.node(1).ask(Request::Put(put));
        let mut all = effects;
        all.extend(self.node(1).commit());
        let answer = written(&reply_to(&all, caller).unwrap());
        self.settle(vec![(1, all)]);
        answer
    }

    fn delete(&mut self, key: &str) {
        let context = self.node(1).read(key).context;
        let delete = self.node(1).delete(key, context, Level::One);
        let (_, effects) = self.node(1).ask(Request::Delete(delete));
        self.settle(vec![(1, effects)]);
    }

    /// A node's disk loses a row, and its memory what it had cached of it.
    fn lose(&mut self, id: u64, key: &str) {
        let name = row_key(key);
        assert!(self.node(id).disk.rows.remove(&(Table::Objects, name)).is_some());
        self.forget_cache(id);
    }

    fn forget_cache(&mut self, id: u64) {
        let bytes_max = self.node(id).shard.config.cache_bytes_max;
        self.node(id).shard.cache = ObjectCache::new(bytes_max);
    }

    fn ends(&mut self) -> Vec<VerifyEnd> {
        std::mem::take(&mut self.ended).into_iter().map(|it| it.end).collect()
    }
}

fn row_key(key: &str) -> Vec<u8> {
    let mut name = Vec::new();
    crate::keys::object_key(&mut name, PARTITION, SIBLINGS, key.as_bytes());
    name
}

/// Goal: equal replicas exchange one message each way, every interval, begun by the lower one only.
/// Method: more keys than a slice reads; three intervals.
#[test]
fn equal_replicas_cost_one_exchange() {
    let mut two = Two::new();
    for key in 0..20 {
        two.put(&format!("key{key}"), "v");
    }
    two.delete("key3");
    two.pass_ms(3 * EVERY_MS + 1_000);
    assert_eq!(two.questions, ["middle"; 3]);
    assert_eq!(two.ends(), [VerifyEnd::Equal; 3]);
    assert_eq!(two.violations, []);
    let counters = two.node(1).shard.counters();
    assert_eq!((counters.verifications_begun, counters.verifications_done), (3, 3));
    assert_eq!(counters.verified_rows, 60);
    let verified = two.node(1).shard.verified().next().unwrap();
    assert_eq!((verified.0, verified.1, verified.2.is_some()), (PARTITION, NodeId(2), true));
    assert_eq!(two.node(2).shard.verified().count(), 0);
}

/// Goal: what a disk lost without a trace comes back, from whichever side it was lost, and is told as a
/// violation with both states. Method: a row vanishes at one node, while all clocks agree.
#[test]
fn a_lost_row_is_restored_and_told() {
    for loser in [1, 2] {
        let mut two = Two::new();
        for key in 0..9 {
            two.put(&format!("key{key}"), "v");
        }
        let kept = two.node(1).stored("key4");
        two.lose(loser, "key4");
        two.pass_ms(EVERY_MS + 100);
        assert_eq!(two.ends(), [VerifyEnd::Mended], "lost at {loser}");
        assert_eq!(two.node(loser).stored("key4"), kept);
        let [violation] = &two.violations[..] else { panic!("{:?}", two.violations) };
        assert_eq!(violation.at, (SIBLINGS, Bytes::from_static(b"key4")));
        assert_eq!((violation.peer, violation.is_damaged), (NodeId(3 - loser), false));
        assert_eq!(violation.own, Object::new(ObjectKind::Siblings));
        assert_eq!(Some(&violation.theirs), kept.as_ref());
        assert_eq!(two.node(loser).shard.counters().consistency_violations, 1);
        two.pass_ms(EVERY_MS);
        assert_eq!(two.ends(), [VerifyEnd::Equal]);
    }
}

/// Goal: a row that cannot be read is replaced by the other replica's, without a violation. Method:
/// a flipped byte.
#[test]
fn a_damaged_row_is_refetched() {
    for damaged in [1, 2] {
        let mut two = Two::new();
        two.put("key", "v");
        let kept = two.node(1).stored("key");
        let row = two.node(damaged).disk.rows.get_mut(&(Table::Objects, row_key("key"))).unwrap();
        row[7] ^= 1;
        two.forget_cache(damaged);
        two.pass_ms(EVERY_MS + 100);
        assert_eq!(two.ends(), [VerifyEnd::Mended]);
        assert_eq!(two.node(damaged).stored("key"), kept);
        let counters = two.node(damaged).shard.counters();
        assert_eq!((counters.objects_refetched, counters.consistency_violations), (1, 0));
        assert!(two.violations[0].is_damaged);
    }
}

/// Goal: a damaged row that cannot be replaced yet is not taken for nothing: the next write to its key would
/// drop what it held (I5). Method: the disk is full when the other replica's object comes, then not.
#[test]
fn a_damaged_row_waits_for_room() {
    let mut two = Two::new();
    two.put("key", "v");
    let kept = two.node(1).stored("key");
    let row = two.node(1).disk.rows.get_mut(&(Table::Objects, row_key("key"))).unwrap();
    row[7] ^= 1;
    two.forget_cache(1);
    two.node(1).disk.room = Some(StoreError::Full);
    two.pass_ms(EVERY_MS + 100);
    assert_eq!(two.node(1).shard.cache.peek(&row_key("key")), None);
    two.node(1).disk.room = None;
    two.pass_ms(EVERY_MS + 100);
    assert_eq!(two.node(1).stored("key"), kept);
    let counters = two.node(1).shard.counters();
    assert_eq!((counters.objects_refetched, counters.consistency_violations), (1, 0));
}

/// Goal: while the other replica has not seen all that this one has, its object does not replace a
/// damaged one: this clock would then claim writes that are gone. Method: node 2 misses a later
/// write to another key.
#[test]
fn a_damaged_row_waits_for_who_has_seen_all() {
    let mut two = Two::new();
    two.put("key", "v");
    two.node(1).write("other", "only here");
    let row = two.node(1).disk.rows.get_mut(&(Table::Objects, row_key("key"))).unwrap();
    row[7] ^= 1;
    let damaged = row.clone();
    two.forget_cache(1);
    let clock = two.nodes[1].shard.partition(PARTITION).unwrap().clock().clone();
    let object = Bytes::from(two.nodes[1].disk.rows[&(Table::Objects, row_key("key"))].clone());
    let at = (SIBLINGS, Bytes::from_static(b"key"));
    let states = vec![KeyState { at, object: Some(object) }];
    let question = Question::Objects(clock, states);
    let message = PeerMessage::Verify { op: OpId(5), partition: PARTITION, question };
    two.node(1).hear(2, message);
    two.node(1).commit();
    assert_eq!(two.nodes[0].disk.rows[&(Table::Objects, row_key("key"))], damaged);
    assert_eq!(two.nodes[0].shard.counters().objects_refetched, 0);
}

/// Goal: a write that has not arrived yet is no violation and is taken in; a delete that has not
/// arrived yet is taken in too, and the value does not come back (I4). Method: node 1 writes and
/// deletes while its messages are lost.
#[test]
fn what_is_on_its_way_is_no_violation() {
    let mut two = Two::new();
    two.put("gone", "v");
    two.put("both", "v");
    two.node(1).input(Input::PeerDown(NodeId(2)));
    two.node(1).write("new", "v");
    let context = two.node(1).read("gone").context;
    let delete = two.node(1).delete("gone", context, Level::One);
    two.node(1).ask(Request::Delete(delete));
    two.node(1).commit();
    two.node(1).input(up(NodeId(2)));
    two.pass_ms(EVERY_MS + 100);
    assert_eq!(two.ends(), [VerifyEnd::Mended]);
    assert_eq!(two.violations, []);
    assert_eq!(texts(&two.node(2).read("new")), ["v"]);
    for id in [1, 2] {
        assert_eq!(texts(&two.node(id).read("gone")), [""; 0]);
    }
    two.pass_ms(EVERY_MS);
    assert_eq!(two.ends(), [VerifyEnd::Equal]);
}

/// Goal: a value that a context here says was overwritten does not come back, whatever the other
/// holds: that is evidence, and the other side drops it. Method: node 2's disk gets an old row again.
#[test]
fn evidence_of_an_overwrite_wins() {
    let mut two = Two::new();
    two.put("key", "old");
    let old = two.node(2).disk.rows[&(Table::Objects, row_key("key"))].clone();
    two.delete("key");
    two.node(2).disk.rows.insert((Table::Objects, row_key("key")), old);
    two.forget_cache(2);
    two.pass_ms(EVERY_MS + 100);
    for id in [1, 2] {
        assert_eq!(texts(&two.node(id).read("key")), [""; 0], "node {id}");
    }
    assert_eq!(two.violations, []);
}

/// Goal: a scan that the store cannot do ends in a comparison key by key, not in trust. Method: a disk whose
/// scans fail, at the node that begins; another row is lost there.
#[test]
fn a_failing_scan_is_not_taken_for_equal() {
    let mut two = Two::new();
    for key in 0..5 {
        two.put(&format!("key{key}"), "v");
    }
    let kept = two.node(2).stored("key2");
    two.lose(1, "key2");
    two.node(1).disk.scan = Some(StoreError::Corrupt("block".to_owned()));
    two.pass_ms(EVERY_MS + 100);
    assert_eq!(two.ends(), [VerifyEnd::Mended]);
    assert_eq!(two.node(1).stored("key2"), kept);
    assert_eq!(two.node(1).shard.counters().scans_failed, 1);
}

/// Goal: a peer that dies, is silent, or refuses ends the verification, which is tried again sooner
/// than it is due.
#[test]
fn a_verification_ends_without_an_answer() {
    let mut two = Two::new();
    two.put("key", "v");
    let [one, _] = &mut two.nodes;
    let effects = one.pass_ms(EVERY_MS);
    assert!(sends(&effects).iter().any(|(to, it)| {
        *to == nodes(&[2]) && matches!(it, PeerMessage::Verify { question: Question::Middle, .. })
    }));
    let ended = |effects: &Effects| {
        effects.iter().find_map(|effect| match effect {
            Effect::Verified(verified) => Some(verified.end),
            _ => None,
        })
    };
    // Scans its own side, then runs out of patience.
    assert_eq!(ended(&one.pass_ms(10)), None);
    assert_eq!(ended(&one.pass_ms(40_000)), Some(VerifyEnd::NoAnswer));
    let effects = one.pass_ms(EVERY_MS / 16 + 1);
    let (_, message) = sends(&effects).pop().expect("tried again");
    let PeerMessage::Verify { op, .. } = message else { panic!("{message:?}") };
    let answer = Answer::Refused(Refusal::Behind);
    let reply = PeerMessage::VerifyReply { op, partition: PARTITION, answer };
    assert_eq!(ended(&one.hear(2, reply.clone())), Some(VerifyEnd::Refused(Refusal::Behind)));
    assert_eq!(ended(&one.hear(2, reply)), None);
    one.pass_ms(EVERY_MS / 16 + 1);
    assert_eq!(ended(&one.input(Input::PeerDown(NodeId(2)))), Some(VerifyEnd::NoAnswer));
    // Nobody to verify with: nothing is begun, and looking costs two wake-ups a second.
    one.pass_ms(EVERY_MS);
    assert!(one.wakes_in_us().unwrap() >= 400_000);
}

/// Goal: strangers, more sessions than there is room for, and questions out of turn are refused.
#[test]
fn senseless_questions_are_refused() {
    let mut two = Two::new();
    let ask = |two: &mut Two, from: u64, op: u64, question: Question| {
        let message = PeerMessage::Verify { op: OpId(op), partition: PARTITION, question };
        let mut effects = two.node(1).hear(from, message);
        effects.extend(two.node(1).commit());
        sends(&effects).into_iter().find_map(|(_, it)| match it {
            PeerMessage::VerifyReply { answer: Answer::Refused(refusal), .. } => Some(refusal),
            _ => None,
        })
    };
    assert_eq!(ask(&mut two, 77, 1, Question::Middle), Some(Refusal::NotReplica));
    let leaves = Question::Leaves(vec![1]);
    assert_eq!(ask(&mut two, 2, 2, leaves.clone()), Some(Refusal::Malformed));
    for op in 3..7 {
        assert_eq!(ask(&mut two, 2, op, Question::Middle), None);
    }
    assert_eq!(ask(&mut two, 2, 7, Question::Middle), Some(Refusal::Overloaded));
    assert_eq!(ask(&mut two, 2, 3, leaves), Some(Refusal::Malformed), "it is not done scanning");
    // Sessions end by themselves.
    two.node(1).pass_ms(10);
    two.node(1).pass_ms(31_000);
    assert_eq!(ask(&mut two, 2, 8, Question::Middle), None);
}

/// Goal: what an operator wants is verified at once, reported to its end, and told apart by region and
/// age; what is not wanted waits for its time. Method: a key that node 2 has lost; demands of regions
/// that there are and are not, and of what is older than it is.
#[test]
fn a_demand_is_met_and_reported() {
    let mut two = Two::new();
    two.put("key", "v");
    two.lose(2, "key");
    let demand = |number, region: u16, older_than_ms| {
        let region = Some(RegionId(region));
        Input::Verify(VerifyDemand { number, placement: None, region, older_than_ms })
    };
    two.node(1).input(demand(1, 7, 0));
    assert_eq!(two.node(1).shard.demanded(), Demanded { number: 1, ..Demanded::default() });
    two.node(1).input(demand(2, 0, 0));
    assert_eq!(two.node(1).shard.demanded().pending, 1);
    two.pass_ms(100);
    let done =
        Demanded { number: 2, verified: 1, mended: 1, differing_keys: 1, ..Default::default() };
    assert_eq!(two.node(1).shard.demanded(), done);
    assert_eq!(two.violations.len(), 1);
    two.node(1).input(demand(3, 0, EVERY_MS));
    assert_eq!(two.node(1).shard.demanded().pending, 0, "it was just verified");
    two.node(1).input(demand(4, 0, 0));
    two.pass_ms(100);
    let again = Demanded { number: 4, verified: 2, ..done };
    assert_eq!(two.node(1).shard.demanded(), again);
    // The node that found the loss remembers it, for whoever asks about the key.
    let found = two.node(2).shard.found.of(PARTITION, (SIBLINGS, b"key"));
    let [ViolationState { with: NodeId(1), damaged: false, lost, .. }] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!(lost.len(), 1);
    assert_eq!(two.node(2).shard.found.of(PARTITION, (SIBLINGS, b"other")), []);
}

/// Goal: nobody waits for what cannot be done: a replica that is gone when it is wanted, or goes while it
/// is waited for, has failed; one that refuses is tried again for a while.
#[test]
fn a_demand_that_cannot_be_met_ends() {
    let mut two = Two::new();
    let [one, _] = &mut two.nodes;
    one.input(Input::Verify(VerifyDemand::default()));
    one.input(Input::PeerDown(NodeId(2)));
    let failed = Demanded { failed: 1, ..Demanded::default() };
    assert_eq!(one.shard.demanded(), failed);
    one.input(Input::Verify(VerifyDemand::default()));
    assert_eq!(one.shard.demanded(), Demanded { failed: 2, ..failed });
    one.input(Input::PeerUp(NodeId(2), Actor(0xa2)));
    one.input(Input::Verify(VerifyDemand::default()));
    let mut tries = 0;
    while one.shard.demanded().pending > 0 {
        for (_, message) in sends(&one.pass_ms(100)) {
            if let PeerMessage::Verify { op, .. } = message {
                tries += 1;
                let answer = Answer::Refused(Refusal::Overloaded);
                one.hear(2, PeerMessage::VerifyReply { op, partition: PARTITION, answer });
            }
        }
        assert!(tries < 100);
    }
    assert_eq!((tries, one.shard.demanded().failed), (10, 3));
}

/// Goal: others' verifications that have ended do not keep new ones out. The story: a session that had
/// told its digests kept its place for half a minute, so that four partitions could be verified in that
/// time.
#[test]
fn idle_sessions_give_way() {
    let mut two = Two::new();
    for op in 1..40 {
        let question = Question::Middle;
        let message = PeerMessage::Verify { op: OpId(op), partition: PARTITION, question };
        let one = two.node(1);
        let mut effects = one.hear(2, message);
        effects.extend(one.pass_ms(10));
        effects.extend(one.commit());
        let answered = sends(&effects).into_iter().any(|(_, it)| {
            matches!(it, PeerMessage::VerifyReply { answer: Answer::Middle(_), .. })
        });
        assert!(answered, "the session {op} was refused");
        assert!(one.shard.ops.len() <= 4, "{} sessions", one.shard.ops.len());
    }
}
