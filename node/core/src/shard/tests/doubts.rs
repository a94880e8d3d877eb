//! Goal: a replica answers for a partition only when another one has told it that its disk lacks
//! nothing that all once had, or after it took the partition whole (I4, I11); and it always gets there
//! by itself.

use super::gaps::page_ask;
use super::*;
use crate::clock::DotSet;
use crate::peer::{CompareMessage, PageObject, Position};
use crate::shard::ends::End;

fn dots(ranges: &[(Actor, u64, u64)]) -> DotSet {
    let mut dots = DotSet::new();
    ranges.iter().for_each(|&(actor, first, last)| dots.insert_range(actor, first, last));
    dots
}

fn known(tops: &[(Actor, u64)]) -> VersionVector {
    tops.iter().map(|&(actor, counter)| Dot { actor, counter }).collect()
}

fn position(standing: Standing, know: &[(Actor, u64)]) -> Vec<(Partition, Position)> {
    vec![(PARTITION, Position { standing, know: known(know) })]
}

fn compare(standing: Standing, know: &[(Actor, u64)]) -> PeerMessage {
    compare_by(2, standing, know)
}

fn compare_by(node: u64, standing: Standing, know: &[(Actor, u64)]) -> PeerMessage {
    let positions = position(standing, know);
    let (op, run) = (OpId(77), first_run(node));
    PeerMessage::Compare(CompareMessage::Compare { op, run, positions })
}

fn compared(op: OpId, standing: Standing, know: &[(Actor, u64)]) -> PeerMessage {
    let positions = position(standing, know);
    PeerMessage::Compare(CompareMessage::Compared { op, positions })
}

/// Whom a shard asks where they stand, and with which standing.
fn compares(effects: &[Effect]) -> Vec<(u64, OpId, Standing)> {
    let question = |(to, message): (Vec<NodeId>, PeerMessage)| match message {
        PeerMessage::Compare(CompareMessage::Compare { op, positions, .. }) => {
            Some((to[0].0, op, positions[0].1.standing))
        }
        _ => None,
    };
    sends(effects).into_iter().filter_map(question).collect()
}

/// Whom it asks for pages: of whom, what it knows, and whether it gathers.
fn page_asks(effects: &[Effect]) -> Vec<(u64, OpId, VersionVector, bool)> {
    let ask = |(to, message): (Vec<NodeId>, PeerMessage)| match message {
        PeerMessage::PageAsk { op, know, gathers, .. } => Some((to[0].0, op, know, gathers)),
        _ => None,
    };
    sends(effects).into_iter().filter_map(ask).collect()
}

fn page(
    op: OpId,
    (clock, know): (&DotSet, &[(Actor, u64)]),
    objects: &[(&str, Bytes)],
    is_last: bool,
) -> PeerMessage {
    let object = |(key, object): &(&str, Bytes)| {
        let key = Bytes::from((*key).to_owned());
        PageObject { bucket: SIBLINGS, key, object: object.clone() }
    };
    let objects = objects.iter().map(object).collect();
    let (partition, clock, know) = (PARTITION, clock.clone(), known(know));
    PeerMessage::PageAnswer { op, partition, clock, know, ends: vec![], objects, is_last }
}

impl Bench {
    fn standing(&self) -> Standing {
        self.shard.standing(PARTITION)
    }

    /// A batch that is due now.
    fn turn(&mut self, after_ms: u64) -> Effects {
        let mut effects = self.pass_ms(after_ms);
        effects.extend(self.commit_and_tell());
        effects
    }

    /// Node 2's answer to its question where node 1 stands.
    fn answers_where(&mut self, from: u64, message: PeerMessage) -> Option<Position> {
        let answer = |(_, message): (Vec<NodeId>, PeerMessage)| match message {
            PeerMessage::Compare(CompareMessage::Compared { positions, .. }) => {
                Some(positions[0].1.clone())
            }
            _ => None,
        };
        sends(&self.hear(from, message)).into_iter().find_map(answer)
    }

    /// Hears that node 2 serves, and asks it for the first page.
    fn fallen_behind(mut self, know: &[(Actor, u64)]) -> (Bench, OpId) {
        self.hear(2, compare(Standing::Serves, know));
        assert_eq!(self.standing(), Standing::Behind);
        let asked = page_asks(&self.turn(0));
        let [(2, op, _, false)] = asked[..] else { panic!("{asked:?}") };
        (self, op)
    }

    fn clock(&self) -> &DotSet {
        self.shard.partition(PARTITION).unwrap().clock()
    }
}

/// Goal: who starts answers, claims and takes nothing until one replica has answered; then it serves
/// at once. Method: each kind of message and request before and after.
#[test]
fn a_started_replica_asks_first() {
    let mut bench = Bench::new(&[(3, 3)]);
    bench.write("k", "v");
    let mut bench = bench.restart_as(Standing::Doubt);
    let asked = bench.turn(0);
    let questions = compares(&asked);
    assert_eq!(
        questions.iter().map(|it| (it.0, it.2)).collect::<Vec<_>>(),
        [(2, Standing::Doubt), (3, Standing::Doubt)]
    );
    assert!(!asked.iter().any(is_about_clocks), "{asked:?}");
    let (_, effects) = bench.ask(Request::Get(get("k", Level::One)));
    assert!(matches!(sends(&effects)[..], [(_, PeerMessage::Proxy { .. })]), "somebody else can");
    let write = write_message(5, "k", foreign(ObjectKind::Siblings, 1, "v"), &[]);
    let refused = reports(&bench.hear(2, write.clone()), 2);
    assert_eq!(refused, [(vec![], vec![(NodeId(1), Refusal::InDoubt)])]);
    let (partition, key) = (PARTITION, Bytes::from_static(b"k"));
    let read =
        PeerMessage::Read { op: OpId(6), partition, bucket: SIBLINGS, key, want: Want::Full };
    let refused = found(OpId(6), Found::Refused(Refusal::InDoubt));
    assert_eq!(sends(&bench.hear(2, read.clone())), [(nodes(&[2]), refused)]);
    // An answer to another question, or of somebody else, is none.
    bench.hear(2, compared(OpId(1), Standing::Serves, &[]));
    bench.hear(3, compared(questions[0].1, Standing::Serves, &[]));
    assert_eq!(bench.standing(), Standing::Doubt);
    bench.hear(2, compared(questions[0].1, Standing::Serves, &[]));
    assert_eq!(bench.standing(), Standing::Serves);
    assert_eq!(texts(&bench.read("k")), ["v"]);
    assert!(bench.commit_and_tell().iter().any(is_about_clocks), "it claims what it has");
    assert_eq!(bench.hear(2, write), []);
    assert_eq!(reports(&bench.commit(), 2), [(nodes(&[1]), vec![])]);
}

/// Goal: a cluster that starts as a whole comes up: one in doubt is as good to compare with as one that
/// serves; one that is behind is not. Questions are asked again.
#[test]
fn who_is_in_doubt_can_tell() {
    let mut bench = Bench::new(&[(2, 2)]).restart_as(Standing::Doubt);
    let asked = compares(&bench.turn(0));
    // Of two replicas of which one is behind nobody can tell the other: they gather.
    bench.hear(2, compared(asked[0].1, Standing::Doubt, &[]));
    assert_eq!(bench.standing(), Standing::Serves);

    let mut bench = Bench::new(&[(3, 3)]).restart_as(Standing::Doubt);
    let asked = compares(&bench.turn(0));
    bench.hear(2, compared(asked[0].1, Standing::Behind, &[]));
    assert_eq!(bench.standing(), Standing::Doubt);
    assert_eq!(compares(&bench.turn(100)), []);
    let again = compares(&bench.turn(200));
    assert_eq!(again.len(), 2);
    bench.hear(3, compared(again[1].1, Standing::Doubt, &[]));
    assert_eq!(bench.standing(), Standing::Serves);
}

/// Goal: nobody is left to say so, and the client is told why nothing is done.
#[test]
fn clients_are_told() {
    let mut bench = Bench::new(&[(2, 2)]).restart_as(Standing::Doubt);
    bench.input(Input::PeerDown(NodeId(2)));
    for (standing, reason) in
        [(Standing::Doubt, NotReady::InDoubt), (Standing::Behind, NotReady::Behind)]
    {
        if standing == Standing::Behind {
            bench.input(Input::Amnesia);
        }
        let put = bench.put("k", "v", Level::One);
        for request in [Request::Get(get("k", Level::One)), Request::Put(put)] {
            let (caller, effects) = bench.ask(request);
            assert_eq!(error(reply_to(&effects, caller)), RequestError::NotReady { reason });
        }
    }
    bench.assert_quiet();
}

/// Goal: both sides of a comparison look; who lacks what another knows to be stable is behind, also
/// when it was serving, and stays so over a restart.
#[test]
fn who_lacks_something_steps_aside() {
    let mut bench = Bench::new(&[(2, 2)]);
    bench.write("k", "v");
    let had = [(ACTOR, 1)];
    let stood = bench.answers_where(2, compare(Standing::Doubt, &had)).unwrap();
    assert_eq!((stood.standing, bench.standing()), (Standing::Serves, Standing::Serves));
    let lacked = [(OTHER, 1)];
    let stood = bench.answers_where(2, compare(Standing::Doubt, &lacked)).unwrap();
    assert_eq!((stood.standing, bench.standing()), (Standing::Serves, Standing::Behind));
    let (caller, effects) = bench.ask(Request::Get(get("k", Level::One)));
    assert_eq!(reply_to(&effects, caller), None, "it is passed on");
    bench.commit();
    let mut bench = bench.restart_as(Standing::Doubt);
    assert_eq!(bench.standing(), Standing::Behind);
    let stood = bench.answers_where(2, compare(Standing::Serves, &had)).unwrap();
    assert_eq!(stood.standing, Standing::Behind);
    // In doubt, by what it is answered.
    let mut bench = Bench::new(&[(2, 2)]).restart_as(Standing::Doubt);
    let asked = compares(&bench.turn(0));
    bench.hear(2, compared(asked[0].1, Standing::Serves, &lacked));
    assert_eq!(bench.standing(), Standing::Behind);
    // However late it comes: what all once had, all still have.
    let mut bench = Bench::new(&[(2, 2)]);
    bench.hear(2, compared(OpId(77), Standing::Behind, &lacked));
    assert_eq!(bench.standing(), Standing::Behind);
    // Strangers and impossible claims are not listened to.
    let mut bench = Bench::new(&[(2, 2)]);
    bench.input(up(NodeId(9)));
    assert_eq!(bench.answers_where(9, compare_by(9, Standing::Serves, &lacked)), None);
    assert_eq!(bench.answers_where(2, compare(Standing::Serves, &[(ACTOR, 1)])), None);
    assert_eq!(bench.standing(), Standing::Serves);
}

/// Goal: a run that this replica has not met gets no answer: it might serve before this replica has
/// dropped what an earlier run of it claimed. What all once had is looked for all the same.
#[test]
fn a_run_that_was_not_met_is_not_answered() {
    let of_run = |run, know: &[(Actor, u64)]| {
        let (op, positions) = (OpId(77), position(Standing::Doubt, know));
        PeerMessage::Compare(CompareMessage::Compare { op, run, positions })
    };
    let mut bench = Bench::new(&[(2, 2)]);
    bench.write("k", "v");
    let (had, next) = ([(ACTOR, 1)], Actor(0xb102));
    assert_eq!(bench.answers_where(2, of_run(next, &had)), None);
    bench.input(Input::PeerUp(NodeId(2), next));
    assert!(bench.answers_where(2, of_run(next, &had)).is_some());
    assert_eq!(bench.answers_where(2, of_run(first_run(2), &had)), None, "nor one that has ended");
    assert_eq!(bench.standing(), Standing::Serves);
    assert_eq!(bench.answers_where(2, of_run(first_run(2), &[(OTHER, 1)])), None);
    assert_eq!(bench.standing(), Standing::Behind);
}

/// Goal: what was overwritten elsewhere goes, also where the other replica has nothing of the key any
/// more; what only this replica has stays; clock and what is stable are adopted; then it serves.
/// Method: three keys here, of which the other has seen the first, has overwritten the second, and does
/// not know the third.
#[test]
fn both_sides_are_looked_at() {
    let mut bench = Bench::new(&[(2, 2)]);
    for key in ["gone", "kept", "new"] {
        bench.write(key, "here");
    }
    let (mut bench, op) = bench.fallen_behind(&[(OTHER, 1)]);
    let mut over = Object::new(ObjectKind::Siblings);
    over.put(&known(&[(ACTOR, 2)]), sibling(1, "there"));
    let clock = dots(&[(ACTOR, 1, 2), (OTHER, 1, 1)]);
    let know = [(ACTOR, 1), (OTHER, 1)];
    bench.hear(2, page(op, (&clock, &know), &[("kept", encoded(&over))], true));
    assert_eq!(bench.standing(), Standing::Behind, "not before it is durable");
    bench.commit();
    assert_eq!(bench.standing(), Standing::Serves);
    assert_eq!((texts(&bench.read("gone")), bench.stored("gone")), (vec![], None));
    assert_eq!(
        (texts(&bench.read("kept")), texts(&bench.read("new"))),
        (vec!["there".to_owned()], vec!["here".to_owned()])
    );
    assert_eq!(bench.clock(), &dots(&[(ACTOR, 1, 3), (OTHER, 1, 1)]));
    let bench = bench.restart_as(Standing::Serves);
    assert_eq!(bench.standing(), Standing::Serves, "the disk knows too");
    assert_eq!(bench.shard.partition(PARTITION).unwrap().account().know, known(&know));
}

/// Goal: what is folded away counts as seen and as known to be stable, in clocks that come, in what
/// others are told, and in what they tell who have not folded it. Else an older disk that lacks just
/// that would go unnoticed, or one that lacks nothing would step aside. Method: a partition taken whole
/// from a replica that has folded an actor; that actor is in no clock on its way.
#[test]
fn what_is_folded_away_is_compared() {
    let had = [(OTHER, 3)];
    let (mut bench, op) = Bench::new(&[(2, 2)]).fallen_behind(&had);
    let object = foreign(ObjectKind::Siblings, 1, "v");
    let mut last = page(op, (&DotSet::new(), &[]), &[("k", object)], true);
    let PeerMessage::PageAnswer { ends, .. } = &mut last else { panic!("{last:?}") };
    ends.push((OTHER, End::Folded([1, 3].into_iter().collect())));
    bench.hear(2, last);
    assert!(bench.commit_and_tell().iter().any(is_about_clocks), "others may wait for it");
    assert_eq!((bench.standing(), texts(&bench.read("k"))), (Standing::Serves, vec!["v".into()]));
    assert_eq!(bench.clock().end_of(OTHER), 3);
    let stood = bench.answers_where(2, compare(Standing::Doubt, &had)).unwrap();
    assert_eq!((bench.standing(), stood.know), (Standing::Serves, known(&had)));
    let mut bench = bench.restart_as(Standing::Doubt);
    let asked = compares(&bench.turn(0));
    bench.hear(2, compared(asked[0].1, Standing::Serves, &had));
    assert_eq!(bench.standing(), Standing::Serves);
    assert!(bench.commit_and_tell().iter().any(is_about_clocks), "though nothing else is here");
    bench.hear(2, compare(Standing::Doubt, &[(OTHER, 4)]));
    assert_eq!(bench.standing(), Standing::Behind);
}

/// Goal: more own rows than one batch walks, between two short pages, are all looked at, and none
/// twice. Method: 150 keys, every third of which the other has seen; pages of one object.
#[test]
fn own_rows_are_walked_along() {
    let mut bench = Bench::new(&[(2, 2)]);
    (0..150).for_each(|at| drop(bench.write(&format!("{at:03}"), "here")));
    let seen: Vec<_> = (1..=150).filter(|n| n % 3 == 0).map(|n| (ACTOR, n, n)).collect();
    let (mut bench, mut op) = bench.fallen_behind(&[(OTHER, 1)]);
    let clock = dots(&[&seen[..], &[(OTHER, 1, 2)]].concat());
    for (at, key) in ["0700", "0701"].into_iter().enumerate() {
        let object = foreign(ObjectKind::Siblings, at as u64 + 1, "there");
        bench.hear(2, page(op, (&clock, &[]), &[(key, object)], at == 1));
        let mut next = Vec::new();
        for _ in 0..4 {
            next.extend(page_asks(&bench.turn(1)));
        }
        assert_eq!(next.len(), usize::from(at == 0), "{next:?}");
        op = next.first().map_or(op, |next| next.1);
    }
    assert_eq!(bench.standing(), Standing::Serves);
    for at in 0..150u64 {
        let is_there = bench.stored(&format!("{at:03}")).is_some();
        assert_eq!(is_there, (at + 1) % 3 != 0, "{at}");
    }
    assert_eq!(bench.shard.counters().dead_siblings_dropped, 50);
    assert_eq!(bench.shard.counters().resync_objects, 2);
}

/// Goal: what a disk has lost comes back, though its clock says that it was seen (and so, where nothing
/// is alive, overwritten). Method: the object's row is lost; the node starts behind.
#[test]
fn a_clock_that_lost_its_objects_is_not_believed() {
    let mut bench = Bench::new(&[(2, 2)]);
    bench.write("k", "v");
    bench.write("own", "v");
    let lost = bench.stored("k").unwrap();
    bench.disk.rows.retain(|(table, key), _| *table != Table::Objects || !key.ends_with(b"k"));
    let mut bench = bench.restart_as(Standing::Behind);
    assert_eq!((bench.standing(), bench.clock()), (Standing::Behind, &DotSet::new()));
    let (asked, clock) = (compares(&bench.turn(0)), dots(&[(ACTOR, 1, 1)]));
    bench.hear(2, compared(asked[0].1, Standing::Serves, &[]));
    let asked = page_asks(&bench.turn(0));
    bench.hear(2, page(asked[0].1, (&clock, &[]), &[("k", encoded(&lost))], true));
    bench.commit();
    assert_eq!(
        (texts(&bench.read("k")), texts(&bench.read("own"))),
        (vec!["v".into()], vec!["v".into()])
    );
    assert_eq!(bench.clock(), &dots(&[(ACTOR, 1, 2)]));
    let bench = bench.restart_as(Standing::Doubt);
    assert_eq!(bench.clock(), &dots(&[(ACTOR, 1, 2)]), "now it is");
}

/// Goal: where all are behind, the one with the lowest number takes all of all, and serves; the others
/// wait for that. Method: at node 1 and node 2 of three; then one of them is lost on the way.
#[test]
fn the_first_of_all_gathers() {
    let behind = |at: u64| {
        let cluster = cluster(layout(&[(3, 3)], 0), &policy());
        let mut bench = Bench::at(NodeId(at), cluster, ShardConfig::test_min());
        bench.input(Input::Amnesia);
        for (peer, op, _) in compares(&bench.turn(0)) {
            bench.hear(peer, compared(op, Standing::Behind, &[]));
        }
        bench
    };
    let mut bench = behind(2);
    assert_eq!(page_asks(&bench.turn(20_000)), []);

    let mut bench = behind(1);
    let first = page_asks(&bench.turn(0));
    let [(3, op, _, true)] = first[..] else { panic!("{first:?}") };
    bench.hear(
        3,
        page(
            op,
            (&dots(&[(OTHER, 3, 3)]), &[]),
            &[("k", foreign(ObjectKind::Siblings, 3, "3"))],
            true,
        ),
    );
    let second = page_asks(&bench.turn(0));
    let [(2, op, _, true)] = second[..] else { panic!("{second:?}") };
    assert_eq!(bench.standing(), Standing::Behind, "not with half of it");
    bench.hear(
        2,
        page(
            op,
            (&dots(&[(OTHER, 2, 2)]), &[]),
            &[("j", foreign(ObjectKind::Siblings, 2, "2"))],
            true,
        ),
    );
    bench.commit();
    assert_eq!(bench.standing(), Standing::Serves);
    let (j, k) = (texts(&bench.read("j")), texts(&bench.read("k")));
    assert_eq!((j, k), (vec!["2".into()], vec!["3".into()]));

    let mut bench = behind(1);
    let first = page_asks(&bench.turn(0));
    bench.input(Input::PeerDown(NodeId(2)));
    bench.hear(3, page(first[0].1, (&DotSet::new(), &[]), &[], true));
    assert_eq!((page_asks(&bench.turn(20_000)).len(), bench.standing()), (0, Standing::Behind));
    // Somebody serves after all.
    let mut bench = behind(1);
    let first = page_asks(&bench.turn(0));
    bench.hear(3, compared(first[0].1, Standing::Serves, &[]));
    assert_eq!(page_asks(&bench.turn(0)), [], "not as fast as answers come");
    let second = page_asks(&bench.turn(200));
    assert!(matches!(second[..], [(3, _, _, false)]), "{second:?}");
}

/// Goal: pages are given by who serves, or, to one that gathers, by who is behind; and not before it
/// was looked whether the one that is asked has itself missed something. Others say where they stand.
#[test]
fn not_everybody_gives_pages() {
    let ask = |gathers: bool, know: &[(Actor, u64)]| {
        let (op, partition, know) = (OpId(5), PARTITION, known(know));
        PeerMessage::PageAsk {
            op,
            partition,
            after: None,
            know,
            gathers,
            run: Actor(0xb002),
            bytes_max: 1 << 20,
        }
    };
    let answer = |bench: &mut Bench, message: PeerMessage| {
        bench.hear(2, message);
        sends(&bench.commit_and_tell()).into_iter().find_map(|(_, message)| match message {
            PeerMessage::PageAnswer { .. } => Some(None),
            PeerMessage::Compare(CompareMessage::Compared { op: OpId(5), positions }) => {
                Some(Some(positions[0].1.standing))
            }
            _ => None,
        })
    };
    let mut bench = Bench::new(&[(2, 2)]);
    assert_eq!(answer(&mut bench, ask(false, &[])), Some(None));
    assert_eq!(answer(&mut bench, ask(true, &[])), Some(Some(Standing::Serves)));
    assert_eq!(answer(&mut bench, ask(false, &[(OTHER, 1)])), Some(Some(Standing::Behind)));
    assert_eq!(answer(&mut bench, ask(true, &[])), Some(None));
    bench.hear(9, page_ask(OpId(5), None, 1 << 20));
    assert_eq!(sends(&bench.commit()), [], "nothing for strangers");
    let mut bench = Bench::new(&[(2, 2)]).restart_as(Standing::Doubt);
    assert_eq!(answer(&mut bench, ask(false, &[])), Some(Some(Standing::Doubt)));
}

/// Goal: nothing serves of what is not durable. Method: the commit that has the last page fails, and
/// the node goes on after a while.
#[test]
fn what_is_not_durable_heals_nothing() {
    let bench = Bench::new(&[(2, 2)]);
    let (mut bench, op) = bench.fallen_behind(&[(OTHER, 1)]);
    let clock = dots(&[(OTHER, 1, 1)]);
    let objects = [("k", foreign(ObjectKind::Siblings, 1, "v"))];
    bench.hear(2, page(op, (&clock, &[]), &objects, true));
    bench.fail_commit(StoreError::Full);
    assert_eq!(bench.standing(), Standing::Behind);
    bench.shard.resume(Actor(0xa9));
    let again = page_asks(&bench.turn(5_000));
    assert_eq!(again.len(), 1, "{again:?}");
    bench.hear(2, page(again[0].1, (&clock, &[]), &objects, true));
    bench.commit();
    assert_eq!((bench.standing(), texts(&bench.read("k"))), (Standing::Serves, vec!["v".into()]));
}

/// Goal: who is alone has nobody to ask; a partition that a later layout gives, or gives back, is taken
/// whole first, and that of a first layout is there at once.
#[test]
fn layouts_decide_who_must_ask() {
    let alone = Bench::new(&[(1, 1)]).restart_as(Standing::Behind);
    assert_eq!(alone.standing(), Standing::Serves);

    let mut bench = Bench::new(&[(2, 2)]);
    bench.write("k", "v");
    let of = |bench: &Bench, ids: &[u64], version: u64| {
        let before = bench.shard.cluster.layout.clone().unwrap();
        let mut spec = before.spec().clone();
        spec.version = version;
        spec.nodes = layout(&[(3, 2)], 0).spec().nodes.clone();
        spec.nodes.retain(|node| ids.contains(&node.id.0));
        let layout = Layout::compute(spec, Some(&before)).unwrap();
        Input::Cluster(Arc::new(cluster(layout, &policy())))
    };
    let input = of(&bench, &[2, 3], 2);
    bench.input(input);
    assert!(!bench.shard.cluster.layout.as_ref().unwrap().is_replica(PARTITION, NodeId(1)));
    let input = of(&bench, &[1, 2], 3);
    bench.input(input);
    assert_eq!(bench.standing(), Standing::Behind, "given back");

    let mut spec = layout(&[(2, 2)], 0).spec().clone();
    spec.version = 2;
    let before = layout(&[(2, 2)], 0);
    let later = Layout::compute(spec, Some(&before)).unwrap();
    let given = Bench::at(NodeId(1), cluster(later, &policy()), ShardConfig::test_min());
    assert_eq!(given.standing(), Standing::Behind, "given by a later one");
}
