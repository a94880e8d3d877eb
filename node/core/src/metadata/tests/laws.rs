//! Merging: a join where it is not refused, and nothing at all where it is.

use proptest::prelude::*;

use super::*;

/// A cluster's metadata after some buckets were written, each at some version and node. Layouts
/// are none, the first, or the second of one history; the first may have been applied at several
/// nodes, each of which drew a secret.
fn arb_metadata() -> impl Strategy<Value = Metadata> {
    let bucket = (0..3_u8, 1..4_u64, 1..4_u64, 1..3_u16, any::<bool>());
    let secrets = proptest::collection::vec(0..3_u8, 0..4);
    let buckets = proptest::collection::vec(bucket, 0..5);
    (0..3_u64, secrets, buckets).prop_map(|(layout, secrets, buckets)| {
        let mut metadata = Metadata::new("demo");
        if layout == 0 {
            return metadata;
        }
        metadata = cluster();
        for secret in secrets {
            let mut again = Metadata::new("demo");
            again.apply_layout(&proposal(), [secret; 32]).unwrap();
            metadata.merge(again).unwrap();
        }
        if layout == 2 {
            metadata.layout = Some(second());
        }
        for (name, version, node, max_siblings, lww) in buckets {
            let mut policy = BucketPolicy { max_siblings, ..BucketPolicy::default() };
            if lww {
                policy.kind = BucketKind::Lww;
            }
            let name = format!("b{name}");
            let info = BucketInfo { id: bucket_id(&name), name, policy };
            let entry = BucketEntry { info, version: Hlc(version), node: NodeId(node) };
            metadata.buckets.insert(entry.info.id, entry);
        }
        metadata
    })
}

/// The layout after that of [`cluster`], as a later release makes it.
fn second() -> Arc<Layout> {
    let first = cluster().layout.unwrap();
    let mut spec = first.spec().clone();
    spec.version = 2;
    spec.nodes[0].capacity = 2;
    Arc::new(Layout::compute(spec, Some(&first)).unwrap())
}

fn arb_secrets() -> impl Strategy<Value = Option<ContextSecrets>> {
    proptest::collection::vec(0..8_u8, 0..5).prop_map(|keys| {
        keys.into_iter().fold(None, |known: Option<ContextSecrets>, key| {
            secrets::merged(known.as_ref(), Some(&secrets::first([key; 32])))
        })
    })
}

fn merged(one: &Metadata, other: &Metadata) -> Metadata {
    let mut result = one.clone();
    let changed = result.merge(other.clone()).unwrap();
    assert_eq!(changed, result != *one, "`merge` says whether anything changed");
    result
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Goal: nodes that meet in any order, however often, agree. Method: the laws of a join, over
    /// metadata whose versions often tie.
    #[test]
    fn merge_is_a_join(a in arb_metadata(), b in arb_metadata(), c in arb_metadata()) {
        let ab = merged(&a, &b);
        prop_assert_eq!(&ab, &merged(&b, &a));
        prop_assert_eq!(merged(&ab, &c), merged(&a, &merged(&b, &c)));
        prop_assert_eq!(&merged(&a, &a), &a);
        prop_assert_eq!(&merged(&ab, &a), &ab);
        prop_assert_eq!(ab.version() == a.version(), ab == a, "versions tell states apart");
    }

    /// Goal: nodes agree on the secrets too, also where more were drawn than are kept.
    #[test]
    fn secrets_join(a in arb_secrets(), b in arb_secrets(), c in arb_secrets()) {
        let join = |one: &Option<_>, other: &Option<_>| secrets::merged(one.as_ref(), other.as_ref());
        let ab = join(&a, &b);
        prop_assert_eq!(&ab, &join(&b, &a));
        prop_assert_eq!(join(&ab, &c), join(&a, &join(&b, &c)));
        prop_assert_eq!(&join(&ab, &a), &ab);
        prop_assert_eq!(&join(&a, &a), &a);
    }

    /// Goal: what a merge makes can be stored and sent.
    #[test]
    fn merged_metadata_round_trip(a in arb_metadata(), b in arb_metadata()) {
        let ab = merged(&a, &b);
        prop_assert_eq!(Metadata::decode(&ab.encode()), Ok(ab));
    }
}

/// Goal: what cannot be reconciled is refused, in both directions, whole. Method: each conflict,
/// beside a bucket that would have been taken in.
#[test]
fn conflicts_change_nothing() {
    let here = cluster();
    let mut base = cluster();
    write(&mut base, &change("carts", true), 1, 1);
    let mut two_layouts = base.clone();
    let mut spec = here.layout().unwrap().spec().clone();
    spec.nodes[0].capacity = 2;
    two_layouts.layout = Some(Arc::new(Layout::compute(spec, None).unwrap()));
    let mut two_secrets = base.clone();
    two_secrets.secrets = Some(secrets::first([1; 32]));
    let mut later_of_another = two_secrets;
    later_of_another.layout = Some(second());
    let mut foreign = base;
    foreign.cluster = "other".into();
    let digests = (here.layout().unwrap().digest(), two_layouts.layout().unwrap().digest());
    let layout = MetadataConflict::Layout { version: 1, ours: digests.0, theirs: digests.1 };
    let cluster = MetadataConflict::Cluster { ours: "demo".into(), theirs: "other".into() };
    let cases =
        [(two_layouts, layout), (later_of_another, MetadataConflict::Secrets), (foreign, cluster)];
    for (theirs, conflict) in cases {
        let mut ours = here.clone();
        assert_eq!(ours.merge(theirs.clone()), Err(conflict));
        assert_eq!(ours, here);
        let mut other_way = theirs.clone();
        assert!(other_way.merge(here.clone()).is_err());
        assert_eq!(other_way, theirs);
    }
}

/// Goal: one bucket created on both sides of a cut is one bucket afterwards, with one policy.
#[test]
fn concurrent_creations_meet() {
    let (mut east, mut west) = (cluster(), cluster());
    let mut lww = change("carts", true);
    lww.policy.kind = BucketKind::Lww;
    write(&mut east, &change("carts", true), 7, 1);
    write(&mut west, &lww, 7, 4);
    let met = merged(&east, &west);
    assert_eq!(met, merged(&west, &east));
    assert_eq!(met.buckets()[&bucket_id("carts")].info.policy.kind, BucketKind::Lww);
}

/// Goal: a layout that was applied at two nodes makes one cluster, and contexts given out by either
/// before they met stay good.
#[test]
fn one_layout_applied_twice_is_one_cluster() {
    let (one, mut other) = (cluster(), Metadata::new("demo"));
    other.apply_layout(&proposal(), [1; 32]).unwrap();
    let met = merged(&one, &other);
    assert_eq!(met, merged(&other, &one));
    let both = met.state().secrets.unwrap();
    assert_eq!((both.current.key, both.previous.len()), ([1; 32], 1));
    let bucket = bucket_id("carts");
    for node in [&one, &other, &met] {
        let sealed = node.state().secrets.unwrap().seal(bucket, b"key", &Default::default());
        assert!(both.open(bucket, b"key", &sealed).is_ok());
    }
}
