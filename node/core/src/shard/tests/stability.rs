//! Goal: what every replica durably knows to be stable is forgotten, nothing else, and does not come
//! back (I3, I4). The other replicas are played.

use crate::clock::DotSet;
use crate::peer::Claimed;

use super::*;

/// Long enough for a claim, and for what is concluded from it.
const TURN_MS: u64 = 300;

/// Another actor of another node.
const THIRD: Actor = Actor(0xc3);

fn upto(entries: &[(Actor, u64)]) -> VersionVector {
    entries.iter().map(|&(actor, counter)| Dot { actor, counter }).collect()
}

fn prefix(entries: &[(Actor, u64)]) -> DotSet {
    let mut seen = DotSet::new();
    entries.iter().for_each(|&(actor, last)| seen.insert_range(actor, 1, last));
    seen
}

/// Claims of replicas that have seen, and know to be stable, up to these.
fn claimed(seen: &[(Actor, u64)], know: &[(Actor, u64)]) -> Claimed {
    Claimed { seen: prefix(seen), know: upto(know) }
}

impl Bench {
    /// Others claim something, and time passes.
    fn others_claim(&mut self, others: &[u64], claimed: &Claimed) {
        for &other in others {
            self.hear(other, claims(other, 1, claimed.clone()));
        }
        self.turns(4);
    }

    fn turns(&mut self, count: usize) {
        for _ in 0..count {
            self.pass_ms(TURN_MS);
            self.commit();
        }
    }

    fn removed(&self) -> u64 {
        self.shard.counters().tombstones_removed
    }

    /// Writes a key and deletes it: this run's next two dots.
    fn write_and_delete(&mut self, key: &str) {
        self.write(key, "v");
        let context = self.read(key).context;
        let delete = self.delete(key, context, Level::One);
        self.ask(Request::Delete(delete));
        self.commit();
    }

    fn know(&self) -> VersionVector {
        self.shard.partition(PARTITION).unwrap().account().know.clone()
    }
}

/// Goal: a tombstone goes after both rounds, with the log's entries, and not before; what is known
/// outlives a restart.
#[test]
fn tombstones_go_after_two_rounds() {
    let mut bench = Bench::new(&[(2, 2)]);
    bench.write_and_delete("k");
    bench.turns(4);
    assert_eq!((bench.know(), bench.removed()), (upto(&[]), 0));
    bench.others_claim(&[2], &claimed(&[(ACTOR, 2)], &[]));
    assert_eq!((bench.know(), bench.removed()), (upto(&[(ACTOR, 2)]), 0));
    assert!(bench.stored("k").is_some());
    bench.others_claim(&[2], &claimed(&[(ACTOR, 2)], &[(ACTOR, 1)]));
    assert_eq!(bench.removed(), 0, "the delete is not forgettable");
    bench.others_claim(&[2], &claimed(&[], &[(ACTOR, 2)]));
    assert_eq!((bench.stored("k"), bench.removed()), (None, 1));
    assert_eq!(bench.shard.counters().log_entries_forgotten, 2);
    assert_eq!(bench.shard.counters().log_bytes, 0);
    assert_eq!(bench.restart().know(), upto(&[(ACTOR, 2)]));
}

/// Goal: stability is of prefixes: a hole holds it back (`Stability-set-not-prefix`).
#[test]
fn holes_hold_stability_back() {
    let mut bench = Bench::new(&[(2, 2)]);
    bench.write_and_delete("k");
    let mut seen = DotSet::new();
    seen.insert_range(ACTOR, 2, 2);
    bench.others_claim(&[2], &Claimed { seen, know: upto(&[(ACTOR, 2)]) });
    assert_eq!((bench.know(), bench.removed()), (upto(&[]), 0));
}

/// Goal: a replica that has claimed nothing, up or down, has seen nothing (`Stability-down-replica-forgotten`).
#[test]
fn who_is_down_holds_stability_back() {
    let mut bench = Bench::new(&[(3, 3)]);
    bench.write_and_delete("k");
    bench.input(Input::PeerDown(NodeId(3)));
    bench.others_claim(&[2], &claimed(&[(ACTOR, 2)], &[(ACTOR, 2)]));
    assert_eq!((bench.know(), bench.removed()), (upto(&[]), 0));
    bench.input(up(NodeId(3)));
    bench.others_claim(&[3], &claimed(&[(ACTOR, 2)], &[(ACTOR, 2)]));
    assert_eq!(bench.removed(), 1);
}

/// Goal: it is told how old the oldest unstable write is, and which replicas hold it back: those
/// that have not claimed it, silent ones too; nobody when all have. Memory is told for each partition.
#[test]
fn who_holds_stability_back_is_told() {
    let mut bench = Bench::new(&[(3, 3)]);
    let backlog = |bench: &mut Bench| bench.shard.backlogs(bench.now).remove(0);
    assert_eq!((backlog(&mut bench).unstable_ms, backlog(&mut bench).held_by), (0, vec![]));
    bench.write_and_delete("k");
    bench.input(Input::PeerDown(NodeId(3)));
    bench.pass_ms(5_000);
    bench.commit();
    let held = backlog(&mut bench);
    assert_eq!(held.held_by, [NodeId(2), NodeId(3)]);
    assert!((5_000..5_100).contains(&held.unstable_ms), "{held:?}");
    assert!(held.clock_bytes > 0 && held.log_bytes > 0, "{held:?}");
    bench.others_claim(&[2], &claimed(&[(ACTOR, 2)], &[]));
    assert_eq!(backlog(&mut bench).held_by, [NodeId(3)]);
    // The put of the two is stable, and the delete is the oldest.
    bench.input(up(NodeId(3)));
    bench.others_claim(&[3], &claimed(&[(ACTOR, 1)], &[]));
    let held = backlog(&mut bench);
    assert_eq!((held.held_by.as_slice(), held.partition), (&[NodeId(3)][..], PARTITION));
    bench.others_claim(&[3], &claimed(&[(ACTOR, 2)], &[]));
    assert_eq!((backlog(&mut bench).unstable_ms, backlog(&mut bench).held_by), (0, vec![]));
}

/// Goal: only what is synced counts, also of this node itself. Method: a disk that is behind by two
/// commits, for ever.
#[test]
fn own_claims_wait_for_the_disk() {
    let mut bench = Bench::new(&[(2, 2)]);
    bench.write_and_delete("k");
    bench.disk.unsynced = 2;
    bench.others_claim(&[2], &claimed(&[(ACTOR, 2)], &[(ACTOR, 2)]));
    assert_eq!(
        (bench.know(), bench.removed()),
        (upto(&[(ACTOR, 1)]), 0),
        "the put was told before"
    );
    bench.disk.unsynced = 0;
    bench.turns(4);
    assert_eq!((bench.know(), bench.removed()), (upto(&[(ACTOR, 2)]), 1));
}

/// Goal: claims count for their run and their layout, and are not noted else, so that they are
/// repeated; another run of the node has claimed nothing (`Stability-old-claims`, `Stability-old-layout`).
#[test]
fn claims_of_others_do_not_count() {
    let mut bench = Bench::new(&[(2, 2)]);
    bench.write_and_delete("k");
    let all = claimed(&[(ACTOR, 2)], &[(ACTOR, 2)]);
    let (op, clocks) = (OpId(1), vec![(PARTITION, all.clone())]);
    for (run, layout) in [(Actor(1), 1), (first_run(2), 2)] {
        let claim = PeerMessage::Seen { op, run, layout, clocks: clocks.clone() };
        assert_eq!(bench.hear(2, claim), []);
    }
    bench.turns(4);
    assert_eq!(bench.know(), upto(&[]));
    // Heard, and then it is another run before anything was concluded.
    bench.hear(2, claims(2, 1, all.clone()));
    bench.input(Input::PeerUp(NodeId(2), Actor(1)));
    bench.turns(4);
    assert_eq!((bench.know(), bench.removed()), (upto(&[]), 0));
    let claim = PeerMessage::Seen { op, run: Actor(1), layout: 1, clocks };
    assert_eq!(bench.hear(2, claim).len(), 1);
    bench.turns(4);
    assert_eq!(bench.removed(), 1);
}

/// Goal: whatever comes late changes nothing, and no tombstone grows back: the value, the
/// delete, and a client's delete with a context from before.
#[test]
fn what_is_forgotten_does_not_come_back() {
    let mut bench = Bench::new(&[(2, 2)]);
    let old = foreign(ObjectKind::Siblings, 1, "old");
    bench.hear(2, write_message(1, "k", old.clone(), &[]));
    bench.commit();
    let context = bench.read("k").context;
    let delete = bench.delete("k", context.clone(), Level::One);
    bench.ask(Request::Delete(delete));
    bench.commit();
    let tombstone = encoded(&bench.stored("k").unwrap());
    let all = [(ACTOR, 1), (OTHER, 1)];
    bench.others_claim(&[2], &claimed(&all, &all));
    assert_eq!(bench.stored("k"), None);
    for late in [old, tombstone] {
        bench.hear(2, write_message(2, "k", late, &[]));
        bench.commit();
        assert_eq!((bench.stored("k"), texts(&bench.read("k")).len()), (None, 0));
    }
    let delete = bench.delete("k", context, Level::One);
    bench.ask(Request::Delete(delete));
    bench.commit();
    assert_eq!(bench.stored("k").unwrap().context, upto(&[(ACTOR, 2)]), "its own dot alone");
    let all = [(ACTOR, 2), (OTHER, 1)];
    bench.others_claim(&[2], &claimed(&all, &all));
    assert_eq!((bench.stored("k"), bench.removed()), (None, 2));
}

/// Goal: a context is cut when its object is written again, by all that it names or not at all, and
/// a context that a client kept does not grow it again.
#[test]
fn contexts_are_cut_when_objects_are_written() {
    let mut bench = Bench::new(&[(2, 2)]);
    bench.hear(2, write_message(1, "k", foreign(ObjectKind::Siblings, 1, "a"), &[]));
    bench.commit();
    let overwrite = |bench: &mut Bench, context: Bytes| {
        let put = Put { context, ..bench.put("k", "b", Level::One) };
        bench.ask(Request::Put(put));
        bench.commit();
        bench.stored("k").unwrap().context
    };
    let before = bench.read("k").context;
    assert_eq!(overwrite(&mut bench, before.clone()), upto(&[(ACTOR, 1), (OTHER, 1)]));
    bench.others_claim(&[2], &claimed(&[(OTHER, 1)], &[(OTHER, 1)]));
    let context = bench.read("k").context;
    let part = overwrite(&mut bench, context);
    assert_eq!(part, upto(&[(ACTOR, 2), (OTHER, 1)]), "a part of it is not enough");
    let all = [(ACTOR, 2), (OTHER, 1)];
    bench.others_claim(&[2], &claimed(&all, &all));
    let context = bench.read("k").context;
    assert_eq!(overwrite(&mut bench, context), upto(&[(ACTOR, 3)]));
    assert_eq!(overwrite(&mut bench, before), upto(&[(ACTOR, 4)]));
}

/// Goal: a deletion that won stays, alone: an older value may still come, and must lose against it.
#[test]
fn deletions_that_won_stay() {
    let mut bench = Bench::new(&[(2, 2)]);
    let mut object = Object::new(ObjectKind::Lww);
    object.put(&VersionVector::new(), sibling(1, "v"));
    let write = |bench: &mut Bench, object: &Object| {
        let (op, key, object) = (OpId(1), Bytes::from_static(b"k"), encoded(object));
        let (partition, bucket, fan_out) = (PARTITION, LWW, vec![]);
        bench.hear(2, PeerMessage::Write { op, partition, bucket, key, object, fan_out });
        bench.commit();
    };
    let late = object.clone();
    object.delete(&VersionVector::new(), Dot { actor: THIRD, counter: 1 }, Hlc(WALL_MS << 16));
    write(&mut bench, &object);
    let all = [(OTHER, 1), (THIRD, 1)];
    bench.others_claim(&[2], &claimed(&all, &all));
    assert_eq!(bench.removed(), 0);
    write(&mut bench, &late);
    let mut row = Vec::new();
    crate::keys::object_key(&mut row, PARTITION, LWW, b"k");
    let left = Object::decode(&bench.disk.rows[&(Table::Objects, row)]).unwrap();
    assert!(left.is_deleted());
    assert_eq!(left.live_dots().count(), 1);
}

/// Goal: an old answer does not show again what was overwritten, where a newer one does not cover it
/// any more (`Causality-reduced-answers`). Method: the old answer comes first; then the overwriting
/// comes and is forgotten everywhere; then comes the newer answer, cut.
#[test]
fn old_answers_bring_nothing_back() {
    let mut bench = Bench::new(&[(3, 3)]);
    let mut object = Object::new(ObjectKind::Siblings);
    object.put(&VersionVector::new(), sibling(1, "old"));
    let (caller, effects) = bench.ask(Request::Get(get("k", Level::All)));
    let op = sends(&effects).into_iter().find_map(|(_, message)| match message {
        PeerMessage::Read { op, .. } => Some(op),
        _ => None,
    });
    let op = op.unwrap();
    let found = |object: &Object| PeerMessage::ReadReply {
        op,
        partition: PARTITION,
        found: Found::Object(encoded(object)),
    };
    bench.hear(2, found(&object));
    let context = object.context.clone();
    object.put(&context, Sibling::new(Dot { actor: THIRD, counter: 1 }, Hlc(1), "new".into()));
    bench.hear(2, write_message(0, "k", encoded(&object), &[]));
    bench.commit();
    let all = [(OTHER, 1), (THIRD, 1)];
    for _ in 0..2 {
        for other in [2, 3] {
            bench.hear(other, claims(other, 1, claimed(&all, &all)));
        }
        bench.now.mono.0 += 60_000;
        bench.commit();
    }
    object.forget(&upto(&all));
    assert_eq!(object.context, upto(&[(THIRD, 1)]));
    let effects = bench.hear(3, found(&object));
    let Some(Reply::Values(values)) = reply_to(&effects, caller) else { panic!("{effects:?}") };
    assert_eq!(texts(&values), ["new"]);
}

/// Goal: where the log was cut, tombstones are found by looking at all rows; so it is known after a
/// restart too. Method: segments that may take next to nothing.
#[test]
fn cut_logs_are_swept() {
    let config = ShardConfig {
        log_segment_bytes_max: 1,
        checkpoint_every: 1,
        verify_rows: 3,
        ..ShardConfig::test_min()
    };
    let mut bench = Bench::with(&[(2, 2)], config);
    for key in 0..5 {
        bench.write_and_delete(&format!("k{key}"));
    }
    for _ in 0..20 {
        bench.write("alive", "v");
    }
    assert!(bench.shard.partition(PARTITION).unwrap().account().is_cut);
    let mut bench = bench.restart();
    let all = [(ACTOR, 30)];
    bench.others_claim(&[2], &claimed(&all, &all));
    for key in 0..5 {
        assert_eq!(bench.stored(&format!("k{key}")), None, "k{key}");
    }
    assert!(bench.stored("alive").is_some());
    assert!(!bench.shard.partition(PARTITION).unwrap().account().is_cut);
}

/// Goal: a commit that fails while something is forgotten loses nothing, and it is forgotten after.
#[test]
fn a_failed_commit_forgets_again() {
    let mut bench = Bench::new(&[(2, 2)]);
    bench.write_and_delete("k");
    let all = claimed(&[(ACTOR, 2)], &[(ACTOR, 2)]);
    bench.hear(2, claims(2, 1, all));
    while bench.know() != upto(&[(ACTOR, 2)]) {
        bench.turns(1);
    }
    // Now there is nothing to commit but what is forgotten.
    let full = Err(StoreError::Full);
    bench.disk.commit = full.clone().err();
    let fails = |bench: &mut Bench| {
        bench.pass_ms(TURN_MS);
        bench.shard.commit(bench.now, &mut bench.disk, &mut Vec::new()) == full
    };
    assert!((0..9).any(|_| fails(&mut bench)));
    bench.disk.commit = None;
    assert!(bench.stored("k").is_some());
    bench.shard.resume(Actor(0xa9));
    bench.turns(4);
    assert_eq!(bench.stored("k"), None);
}
