//! Which node is asked, and what happens when it does not answer.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use holm_client::{AdminError, BucketError, Cause, ConnectError, GetError, Level, NodeId};
use holm_protocol::admin::AdminReply;
use holm_protocol::error::RequestError;
use holm_protocol::message::{Reply, Request};

use crate::fake::{Act, Fake, Path, not_ready, success};

const WORLD: [&str; 6] = ["eu", "eu", "eu", "us", "us", "us"];

fn asked(fake: &Fake) -> BTreeSet<u64> {
    fake.log().iter().map(|(node, _)| node.0).collect()
}

/// Goal: requests go to the own region's replicas, spread over them, and a key always to the same
/// one. Method: many keys, each read twice; connect through a node of the other region.
#[tokio::test]
async fn own_region_replicas_are_asked() {
    let fake = Fake::start(&WORLD, 2);
    let builder = fake.builder(&[1]).region("us").hedging(false);
    let client = builder.connect().await.unwrap();
    assert_eq!(client.region().as_deref(), Some("us"));
    let bucket = client.bucket("b").await.unwrap();
    // The first read may find only the node of the other region connected.
    bucket.get("warm").await.unwrap();
    while fake.log().len() < 2 || asked(&fake) != BTreeSet::from([4, 5]) {
        fake.clear_log();
        for key in 0..40 {
            bucket.get(format!("k{key}")).await.unwrap();
        }
    }
    fake.clear_log();
    for _ in 0..2 {
        for key in 0..40 {
            bucket.get(format!("k{key}")).await.unwrap();
        }
    }
    assert_eq!(asked(&fake), BTreeSet::from([4, 5]), "replicas of the region, both of them");
    let key = |(node, request): (NodeId, Request)| match request {
        Request::Get(get) => (node, get.key),
        other => panic!("{other:?}"),
    };
    let log: Vec<_> = fake.log().into_iter().map(key).collect();
    assert_eq!(log[..40], log[40..], "each key has one favourite");
}

/// Goal: a favourite that is slow all the time is passed over, though not forgotten. Method: one of
/// two replicas answers 30 ms late; without hedges, so that only routing can help.
#[tokio::test]
async fn slow_favourites_are_passed_over() {
    let fake = Fake::start(&["eu", "eu"], 2);
    let client = fake.builder(&[1, 2]).hedging(false).connect().await.unwrap();
    let bucket = client.bucket("b").await.unwrap();
    fake.script(|node, n, request| match node {
        NodeId(1) => Act::Late(Duration::from_millis(30), success(node, n, request)),
        _ => Act::Reply(success(node, n, request)),
    });
    let mut passes = Vec::new();
    for _ in 0..6 {
        fake.clear_log();
        for key in 0..16 {
            bucket.get(format!("k{key}")).await.unwrap();
        }
        passes.push(fake.log().iter().filter(|(node, _)| *node == NodeId(1)).count());
    }
    assert!(passes[0] > 4 && passes[5] <= 2, "reads of 16 at the slow node, by pass: {passes:?}");
}

/// Goal: without a named region, home is where the first answer came from.
#[tokio::test]
async fn home_is_nearest() {
    let fake = Fake::start(&WORLD, 2);
    let client = fake.builder(&[2]).connect().await.unwrap();
    assert_eq!(client.region().as_deref(), Some("eu"));
    assert_eq!(client.nodes().len(), 6, "the others are learnt");
}

/// Goal: when nodes go, requests go on: replica, other node of the region, other region. Method:
/// stop one after the other; every read must succeed.
#[tokio::test]
async fn failover_goes_outwards() {
    let fake = Fake::start(&["eu", "eu", "eu", "us"], 2);
    let client = fake.builder(&[1, 2, 3, 4]).region("eu").connect().await.unwrap();
    let bucket = client.bucket("b").await.unwrap();
    for (stopped, expected) in [(2, [1].as_slice()), (1, &[3]), (3, &[4])] {
        fake.stop(NodeId(stopped)).await;
        fake.clear_log();
        for key in 0..8 {
            bucket.get(format!("k{key}")).await.unwrap();
        }
        assert_eq!(asked(&fake), expected.iter().copied().collect(), "without {stopped}");
    }
    fake.stop(NodeId(4)).await;
    let error = bucket.get("k").timeout(Duration::from_millis(200)).await.unwrap_err();
    let GetError::Unavailable { last, .. } = &error else { panic!("{error:?}") };
    assert!(matches!(last, Cause::Unreachable { .. } | Cause::ConnectionLost { .. }), "{error:?}");
}

/// Goal: a refusal after which nothing happened is taken elsewhere at once, for reads and writes,
/// with the same request id. Method: one node is never ready.
#[tokio::test]
async fn refusals_go_elsewhere() {
    let fake = Fake::start(&["eu", "eu"], 2);
    let client = fake.builder(&[1, 2]).connect().await.unwrap();
    let bucket = client.bucket("b").await.unwrap();
    fake.script(|node, n, request| match node {
        NodeId(1) => not_ready(),
        _ => Act::Reply(success(node, n, request)),
    });
    for key in 0..8 {
        assert_eq!(bucket.get(format!("k{key}")).await.unwrap().receipt().coordinator, NodeId(2));
        bucket.put(format!("k{key}"), "v").await.unwrap();
    }
    let log = fake.log();
    let puts: Vec<_> = log.iter().filter(|(_, r)| matches!(r, Request::Put(_))).collect();
    let ids: BTreeSet<_> = puts
        .iter()
        .filter_map(|(_, r)| if let Request::Put(put) = r { Some(put.request) } else { None })
        .collect();
    assert_eq!(ids.len(), 8, "one id for each put, however often it was sent");
}

/// Goal: every call ends by its deadline plus 100 ms. Method: nodes that say nothing.
#[tokio::test]
async fn calls_end_by_their_deadline() {
    let fake = Fake::start(&["eu", "eu"], 2);
    let client = fake.builder(&[1, 2]).connect().await.unwrap();
    let bucket = client.bucket("b").await.unwrap();
    fake.script(|_, _, _| Act::Silence);
    let timeout = Duration::from_millis(150);
    let started = Instant::now();
    let (get, put) = tokio::join!(
        bucket.get("k").timeout(timeout).send(),
        bucket.put("k", "v").timeout(timeout).send()
    );
    let took = started.elapsed();
    assert!(took >= timeout && took < timeout + Duration::from_millis(100), "{took:?}");
    let (get, put) = (get.unwrap_err(), put.unwrap_err());
    assert!(matches!(get, GetError::Unavailable { last: Cause::NoAnswer { .. }, .. }), "{get:?}");
    assert_eq!(put.outcome(), holm_client::Outcome::MayHaveHappened, "{put:?}");
    let told = fake.log().iter().all(|(_, request)| match request {
        Request::Get(get) => (1..=150).contains(&get.timeout_ms),
        Request::Put(put) => (1..=150).contains(&put.timeout_ms),
        _ => false,
    });
    assert!(told, "nodes hear how long the client waits");
}

/// Goal: a late read is answered by a second replica long before its deadline, and the budget
/// keeps hedges rare. Method: the favourite answers some reads, then never again.
#[tokio::test]
async fn late_reads_are_hedged() {
    let fake = Fake::start(&["eu", "eu"], 2);
    let client = fake.builder(&[1, 2]).connect().await.unwrap();
    let bucket = client.bucket("b").await.unwrap();
    while fake.log().is_empty() || asked(&fake).len() < 2 {
        for key in 0..16 {
            bucket.get(format!("k{key}")).await.unwrap();
        }
    }
    let got = bucket.get("k").await.unwrap();
    let favourite = got.receipt().coordinator;
    fake.script(move |node, n, request| {
        if node == favourite { Act::Silence } else { Act::Reply(success(node, n, request)) }
    });
    fake.clear_log();
    let started = Instant::now();
    let got = bucket.get("k").await.unwrap();
    assert_ne!(got.receipt().coordinator, favourite);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!(fake.log().len(), 2, "one hedge");
}

/// Goal: one silent node does not use up a read's time, also without hedges. Method: the first node
/// asked never answers, the second does.
#[tokio::test]
async fn silent_nodes_leave_time_for_others() {
    let fake = Fake::start(&["eu", "eu"], 2);
    let client = fake.builder(&[1, 2]).hedging(false).connect().await.unwrap();
    let bucket = client.bucket("b").await.unwrap();
    for (level, longest) in [(Level::One, 1_300), (Level::Quorum, 1_900)] {
        fake.clear_log();
        fake.script(|node, n, request| match n {
            0 => Act::Silence,
            _ => Act::Reply(success(node, n, request)),
        });
        let started = Instant::now();
        bucket.get("k").level(level).await.unwrap();
        let took = started.elapsed();
        assert!(took < Duration::from_millis(longest), "{level}: {took:?}");
        let log: Vec<NodeId> = fake.log().iter().map(|(node, _)| *node).collect();
        assert!(log.len() == 2 && log[0] != log[1], "{log:?}");
    }
}

/// Goal: a node that was never measured is hedged too. Method: warm up at a level of the other
/// reach, which measures apart; then the first node asked is silent.
#[tokio::test]
async fn unmeasured_nodes_are_hedged() {
    let fake = Fake::start(&["eu", "eu"], 2);
    let client = fake.builder(&[1, 2]).connect().await.unwrap();
    let bucket = client.bucket("b").await.unwrap();
    while fake.log().is_empty() || asked(&fake).len() < 2 {
        for key in 0..16 {
            bucket.get(format!("k{key}")).level(Level::Quorum).await.unwrap();
        }
    }
    fake.clear_log();
    fake.script(|node, n, request| match n {
        0 => Act::Silence,
        _ => Act::Reply(success(node, n, request)),
    });
    let started = Instant::now();
    bucket.get("k").level(Level::One).await.unwrap();
    assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
    assert_eq!(fake.log().len(), 2);
}

/// Goal: where the own region holds no replica of a key, replicas elsewhere are asked and not the
/// region's nodes, which could only pass a write on; those come next. Method: `eu` loses its
/// replicas, then the others go.
#[tokio::test]
async fn remote_replicas_come_before_home_nodes_that_pass_on() {
    let fake = Fake::start(&["eu", "eu", "us", "us"], 2);
    fake.change_view(|view| {
        view.placements[0].replicas.iter_mut().for_each(|replicas| *replicas = vec![2, 3]);
    });
    let client = fake.builder(&[1, 2]).region("eu").hedging(false).connect().await.unwrap();
    let bucket = client.bucket("b").await.unwrap();
    for key in 0..16 {
        bucket.put(format!("k{key}"), "v").await.unwrap();
    }
    assert!(asked(&fake).is_subset(&BTreeSet::from([3, 4])), "{:?}", asked(&fake));
    fake.stop(NodeId(3)).await;
    fake.stop(NodeId(4)).await;
    fake.clear_log();
    bucket.put("k", "v").await.unwrap();
    assert!(asked(&fake).is_subset(&BTreeSet::from([1, 2])), "{:?}", asked(&fake));
}

/// Goal: hedging can be turned off. Method: as above; the read then waits for its deadline.
#[tokio::test]
async fn hedging_can_be_turned_off() {
    let fake = Fake::start(&["eu", "eu"], 2);
    let client = fake.builder(&[1, 2]).hedging(false).connect().await.unwrap();
    let bucket = client.bucket("b").await.unwrap();
    for _ in 0..20 {
        bucket.get("k").await.unwrap();
    }
    fake.script(|_, _, _| Act::Silence);
    fake.clear_log();
    let error = bucket.get("k").timeout(Duration::from_millis(100)).await.unwrap_err();
    assert!(matches!(error, GetError::Unavailable { attempts: 1, .. }), "{error:?}");
    assert_eq!(fake.log().len(), 1);
}

/// Goal: a read whose connection is lost is asked elsewhere. Method: the first node hangs up.
#[tokio::test]
async fn lost_reads_go_elsewhere() {
    let fake = Fake::start(&["eu", "eu"], 2);
    let client = fake.builder(&[1, 2]).hedging(false).connect().await.unwrap();
    let bucket = client.bucket("b").await.unwrap();
    fake.script(|node, n, request| match n {
        0 => Act::Hangup,
        _ => Act::Reply(success(node, n, request)),
    });
    bucket.get("k").await.unwrap();
    assert_eq!(fake.log().len(), 2);
}

/// Goal: a node to which nothing gets through is passed over long before QUIC gives it up, and is
/// used again once packets pass. Method: cut its path and heal it; without hedges, so that only
/// routing can help.
#[tokio::test]
async fn stalled_nodes_are_passed_over() {
    let fake = Fake::start(&["eu", "eu"], 2);
    let path = Path::to(fake.addr(1)).await;
    let nodes = [(NodeId(1), path.addr), (NodeId(2), fake.addr(2))];
    let builder = fake.builder(&[1, 2]).nodes(nodes).hedging(false);
    let client = builder.timeout(Duration::from_millis(100)).connect().await.unwrap();
    let bucket = client.bucket("b").await.unwrap();
    let keys: Vec<String> = (0..16).map(|key| format!("k{key}")).collect();
    // One pass over all keys; whether every read succeeded.
    let pass = async || {
        fake.clear_log();
        let mut good = true;
        for key in &keys {
            good &= bucket.get(key).await.is_ok();
        }
        good
    };
    while !pass().await || asked(&fake).len() < 2 {}
    path.cut(true);
    let started = Instant::now();
    while !pass().await || asked(&fake) != BTreeSet::from([2]) {
        assert!(started.elapsed() < Duration::from_secs(4), "still asked");
    }
    path.cut(false);
    let started = Instant::now();
    while !pass().await || asked(&fake).len() < 2 {
        assert!(started.elapsed() < Duration::from_secs(8), "never asked again");
    }
}

/// Goal: an overloaded node is given time, and is then asked again. Method: the only node refuses
/// twice.
#[tokio::test]
async fn overload_is_waited_out() {
    let fake = Fake::start(&["eu"], 1);
    let client = fake.builder(&[1]).connect().await.unwrap();
    let bucket = client.bucket("b").await.unwrap();
    fake.script(|node, n, request| match n {
        0 | 1 => Act::Reply(Reply::Error(RequestError::Overloaded {
            in_flight: 9,
            limit: 9,
            retry_after_ms: 5,
        })),
        _ => Act::Reply(success(node, n, request)),
    });
    bucket.put("k", "v").await.unwrap();
    assert_eq!(fake.log().len(), 3);
}

/// Goal: a new layout is learnt from a node that is no longer in it, and buckets made since are
/// found. Method: the only node leaves the layout and refuses; another one takes over.
#[tokio::test]
async fn new_layouts_are_learnt() {
    let fake = Fake::start(&["eu", "eu"], 2);
    let (mut second, mut bucket) = (None, None);
    fake.change_view(|view| {
        view.placements[0].replicas.iter_mut().for_each(|replicas| *replicas = vec![0]);
        second = view.nodes.pop();
        bucket = view.buckets.pop();
    });
    let client = fake.builder(&[1]).connect().await.unwrap();
    let error = client.bucket("lww").await.unwrap_err();
    assert!(matches!(error, BucketError::Unknown { .. }), "{error:?}");
    let first = client.bucket("b").await.unwrap();
    fake.change_view(|view| {
        view.layout_version = 2;
        view.nodes.extend(second);
        view.buckets.extend(bucket);
        view.placements[0].replicas.iter_mut().for_each(|replicas| *replicas = vec![1]);
    });
    fake.script(|node, n, request| match node {
        NodeId(1) => not_ready(),
        _ => Act::Reply(success(node, n, request)),
    });
    assert_eq!(first.get("k").await.unwrap().receipt().coordinator, NodeId(2));
    client.bucket("lww").await.unwrap();
    assert_eq!(client.view().layout_version, 2);
}

/// Goal: before there is a layout, administration works, on a chosen node.
#[tokio::test]
async fn administration_needs_no_layout() {
    let fake = Fake::start(&["eu", "eu"], 2);
    fake.change_view(|view| {
        view.layout_version = 0;
        view.nodes.clear();
        view.regions.clear();
        view.placements.clear();
        view.buckets.clear();
    });
    let client = fake.builder(&[1, 2]).region("anywhere").connect().await.unwrap();
    assert_eq!(client.admin().view().await.unwrap().layout_version, 0);
    client.admin().links(NodeId(2), Vec::new()).await.unwrap();
    assert_eq!(asked(&fake), BTreeSet::from([2]));
    let error = client.admin().status(NodeId(9)).await.unwrap_err();
    assert_eq!(error, AdminError::UnknownNode { node: NodeId(9) });
    let error = client.admin().status(NodeId(1)).await.unwrap_err();
    assert_eq!(error, AdminError::UnexpectedReply { node: NodeId(1) });
    fake.script(|_, _, _| not_ready());
    let error = client.admin().links(NodeId(1), Vec::new()).await.unwrap_err();
    assert!(matches!(error, AdminError::Refused { .. }), "{error:?}");
    fake.script(|_, _, _| Act::Hangup);
    let error = client.admin().links(NodeId(1), Vec::new()).await.unwrap_err();
    assert!(matches!(error, AdminError::Unknown { .. }), "{error:?}");
    fake.script(|_, _, _| Act::Reply(Reply::Admin(Box::new(AdminReply::Done))));
    client.admin().links(NodeId(1), Vec::new()).await.unwrap();
}

/// Goal: a wrong region is found when connecting, and named.
#[tokio::test]
async fn unknown_regions_are_named() {
    let fake = Fake::start(&WORLD, 2);
    let error = fake.builder(&[1]).region("mars").connect().await.unwrap_err();
    let ConnectError::UnknownRegion { region, known } = &error else { panic!("{error:?}") };
    assert_eq!((region.as_str(), known.join(" ")), ("mars", "eu us".to_owned()));
}

/// Goal: levels travel as asked for. Method: the request's own, and none.
#[tokio::test]
async fn levels_travel() {
    let fake = Fake::start(&["eu"], 1);
    let client = fake.builder(&[1]).lanes(3).connect().await.unwrap();
    let bucket = client.bucket("b").await.unwrap();
    bucket.get("k").await.unwrap();
    bucket.get("k").level(Level::Count(2)).await.unwrap();
    let levels: Vec<_> = fake
        .log()
        .into_iter()
        .map(|(_, request)| if let Request::Get(get) = request { get.level } else { None })
        .collect();
    assert_eq!(levels, [None, Some(Level::Count(2))]);
}

/// Goal: many calls at once share lanes and packets without mixing up answers. Method: each key's
/// answer is checked against a value made from the key.
#[tokio::test]
async fn pipelined_answers_find_their_calls() {
    let fake = Fake::start(&["eu", "eu"], 2);
    let client = fake.builder(&[1, 2]).lanes(2).connect().await.unwrap();
    let bucket = client.bucket("b").await.unwrap();
    fake.script(|node, n, request| {
        let mut reply = success(node, n, request);
        if let (Reply::Values(values), Request::Get(get)) = (&mut reply, request) {
            values.siblings[0].value = get.key.clone();
        }
        Act::Reply(reply)
    });
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..64 {
        let bucket = bucket.clone();
        tasks.spawn(async move {
            for call in 0..20 {
                let key = format!("{task}-{call}");
                let got = bucket.get(&key).await.unwrap();
                assert_eq!(got.value().unwrap(), key.as_bytes());
            }
        });
    }
    while let Some(joined) = tasks.join_next().await {
        joined.unwrap();
    }
}
