//! Digests of whole regions: equal exactly if the values are, cheap to ask for again, and honest
//! about who did not answer.

use super::*;
use crate::shard::fingerprint::Fingerprint;

const CALLER: Caller = Caller { lane: 77, request: 1 };

/// Nodes of a cluster, with the messages between them delivered, but for those to who is silent.
struct Few {
    nodes: Vec<Bench>,
    silent: Option<u64>,
    told: Vec<Fingerprint>,
    asked: usize,
}

impl Few {
    fn new(regions: &[(u64, u8)], bits: u8) -> Few {
        let count: u64 = regions.iter().map(|(count, _)| count).sum();
        let node = |id: u64| {
            let cluster = Arc::new(cluster(layout(regions, bits), &policy()));
            let actor = Actor(0xa0 + id);
            let boot =
                Boot { node: NodeId(id), actor, standing: Standing::Serves, shard: 0, shards: 1 };
            Bench::start(boot, cluster, ShardConfig::test_min(), Disk::default())
        };
        Few { nodes: (1..=count).map(node).collect(), silent: None, told: vec![], asked: 0 }
    }

    fn node(&mut self, id: u64) -> &mut Bench {
        &mut self.nodes[id as usize - 1]
    }

    fn settle(&mut self, mut waiting: Vec<(u64, Effects)>) {
        let silent = self.silent;
        for _ in 0..10_000 {
            let mut next = Vec::new();
            for (from, effects) in waiting {
                for effect in effects {
                    match effect {
                        Effect::Send { to, message } => {
                            self.asked += usize::from(is_ask(&message));
                            for node in to.into_iter().filter(|node| Some(node.0) != silent) {
                                let effects = self.node(node.0).hear(from, message.clone());
                                next.push((node.0, effects));
                            }
                        }
                        Effect::Fingerprinted { caller, result } => {
                            assert_eq!(caller, CALLER);
                            self.told.push(result.unwrap());
                        }
                        _ => {}
                    }
                }
            }
            for id in 1..=self.nodes.len() as u64 {
                next.push((id, self.node(id).commit()));
            }
            next.retain(|(_, effects)| !effects.is_empty());
            if next.is_empty() {
                return;
            }
            waiting = next;
        }
        panic!("it never ends");
    }

    fn pass_ms(&mut self, ms: u64) {
        for _ in 0..ms {
            let ids = 1..=self.nodes.len() as u64;
            let waiting = ids.map(|id| (id, self.node(id).pass_ms(1))).collect();
            self.settle(waiting);
        }
    }

    /// A put at a node that reaches all but who is silent.
    fn put(&mut self, at: u64, key: &str, value: &str) {
        let put = self.node(at).put(key, value, Level::One);
        let (_, effects) = self.node(at).ask(Request::Put(put));
        self.settle(vec![(at, effects)]);
    }

    fn delete(&mut self, at: u64, key: &str) {
        let context = self.node(at).read(key).context;
        let delete = self.node(at).delete(key, context, Level::One);
        let (_, effects) = self.node(at).ask(Request::Delete(delete));
        self.settle(vec![(at, effects)]);
    }

    fn begin(&mut self, at: u64, all: bool) {
        let wanted = Input::Fingerprint { caller: CALLER, timeout_ms: 400, all };
        let effects = self.node(at).input(wanted);
        self.settle(vec![(at, effects)]);
    }

    /// A fingerprint gathered by a node.
    #[track_caller]
    fn fingerprint(&mut self, at: u64, all: bool) -> Fingerprint {
        self.begin(at, all);
        self.pass_ms(100);
        assert_eq!(self.told.len(), 1, "no answer in time");
        self.told.pop().unwrap()
    }
}

fn is_ask(message: &PeerMessage) -> bool {
    use crate::peer::fingerprint::FingerprintMessage;
    matches!(message, PeerMessage::Fingerprint(FingerprintMessage::Ask { .. }))
}

/// The sums of one region.
fn sums(fingerprint: &Fingerprint, region: u16) -> Vec<(BucketId, u128, u64)> {
    let of = fingerprint.sums.iter().filter(|((_, it), _)| it.0 == region);
    of.map(|((bucket, _), (digest, keys))| (*bucket, *digest, *keys)).collect()
}

/// Goal: every node tells the same of equal replicas, whatever was deleted, and of how many keys.
/// Method: three regions of one node, four partitions, more keys than a slice, one deleted.
#[test]
fn equal_regions_have_equal_digests() {
    let mut few = Few::new(&[(1, 1), (1, 1), (1, 1)], 2);
    let empty = few.fingerprint(1, false);
    assert!(empty.is_equal() && empty.sums.is_empty() && empty.partitions == 4);
    for key in 0..20 {
        few.put(1 + key % 3, &format!("key{key}"), "v");
    }
    few.delete(2, "key3");
    let one = few.fingerprint(1, false);
    assert!(one.is_equal(), "{one:?}");
    assert_eq!((sums(&one, 0), sums(&one, 1)), (sums(&one, 1), sums(&one, 2)));
    assert_eq!(one.tombstones, [(SIBLINGS, 3)].into(), "one on each replica");
    let [(SIBLINGS, digest, 19)] = sums(&one, 0)[..] else { panic!("{one:?}") };
    assert_eq!(few.fingerprint(3, true), one);
    few.put(2, "key4", "other");
    let [(SIBLINGS, other, 19)] = sums(&few.fingerprint(2, false), 0)[..] else { panic!() };
    assert_ne!(digest, other);
}

/// Goal: what is not asked for again costs no scan, and what changed is scanned anew.
#[test]
fn digests_are_kept_until_something_changes() {
    let mut few = Few::new(&[(1, 1), (1, 1)], 2);
    for key in 0..20 {
        few.put(1, &format!("key{key}"), "v");
    }
    let scanned = |few: &mut Few| few.node(2).shard.counters().verified_rows;
    let first = few.fingerprint(1, false);
    assert_eq!(scanned(&mut few), 20);
    assert_eq!(few.fingerprint(1, false), first);
    assert_eq!(scanned(&mut few), 20, "scanned again");
    few.put(1, "key0", "more");
    let second = few.fingerprint(1, false);
    let again = scanned(&mut few) - 20;
    assert!(again > 0 && again < 20, "{again} rows");
    assert_ne!(second, first);
}

/// Goal: a difference is seen, between regions and within one, and named by its partition. Method:
/// node 2 is in node 1's region, node 3 is not; each in turn hears nothing of a write.
#[test]
fn differences_are_named() {
    for (silent, all, sees) in [(3, false, true), (2, true, true), (2, false, false)] {
        let mut few = Few::new(&[(2, 2), (1, 1)], 0);
        few.put(1, "key", "v");
        few.silent = Some(silent);
        few.put(1, "key", "w");
        few.silent = None;
        let found = few.fingerprint(1, all);
        assert_eq!(found.is_equal(), !sees, "{silent} {all} {found:?}");
        assert_eq!(found.differing.contains(&PARTITION), sees);
        assert_eq!(found.unanswered.len(), 0);
    }
}

/// Goal: a region of which nobody answers is named in time, and its digests are not taken for those of
/// nothing; another replica of the region answers in the place of one that is lost or refuses.
#[test]
fn silence_is_told() {
    let mut few = Few::new(&[(1, 1), (2, 2)], 0);
    few.put(1, "key", "v");
    let before = few.fingerprint(1, false);
    // Both know their digests by now but one of them; whoever is asked first is lost.
    few.silent = Some(2);
    few.begin(1, false);
    let lost = few.node(1).input(Input::PeerDown(NodeId(2)));
    few.settle(vec![(1, lost)]);
    few.pass_ms(50);
    assert_eq!(few.told.pop(), Some(before.clone()));
    few.node(3).input(Input::Amnesia);
    few.begin(1, false);
    few.pass_ms(50);
    let found = few.told.pop().expect("nobody is left to ask");
    assert_eq!(found.unanswered, [(PARTITION, RegionId(1))].into());
    assert!(!found.is_equal());
    assert_eq!((found.partitions, sums(&found, 0)), (0, sums(&before, 0)));
    few.node(1).input(Input::PeerUp(NodeId(2), Actor(0xa2)));
    few.begin(1, false);
    few.pass_ms(399);
    assert_eq!(few.told, [], "given up too early");
    few.pass_ms(2);
    assert_eq!(few.told.pop().map(|it| it.unanswered.len()), Some(1));
    few.node(1).assert_quiet();
}

/// Goal: a failed commit leaves no digest of what the disk may not hold. Method: a commit that
/// says it failed and shows all the same; the disk is asked again.
#[test]
fn digests_are_of_the_disk() {
    let mut few = Few::new(&[(1, 1)], 0);
    few.put(1, "key", "v");
    let before = few.fingerprint(1, false);
    let node = few.node(1);
    let put = node.put("key", "w", Level::One);
    node.ask(Request::Put(put));
    node.disk.failed_shows = true;
    node.fail_commit(StoreError::Io("pulled out".to_owned()));
    assert_ne!(few.fingerprint(1, false), before);
}

/// Goal: a partition that is written to all the time is told all the same. Method: a write before
/// every slice of a scan of ten.
#[test]
fn a_busy_partition_is_told_at_last() {
    let mut few = Few::new(&[(1, 1)], 0);
    for key in 0..30 {
        few.put(1, &format!("key{key:02}"), "v");
    }
    few.begin(1, false);
    for round in 0..100 {
        few.put(1, "key00", &format!("{round}"));
        few.pass_ms(1);
        if let Some(found) = few.told.pop() {
            assert_eq!(sums(&found, 0)[0].2, 30);
            assert!(round >= 20, "it was scanned {round} times a slice");
            return;
        }
    }
    panic!("never told");
}
