//! What a node says of itself, and what it never says.

use holm_core::metadata::Metadata;
use holm_protocol::message::{Put, Request};

use crate::harness::cluster::Cluster;
use crate::harness::holmd::metric;
use crate::harness::peer::FakePeer;
use crate::harness::raw::{delete, get, put};

/// Goal: the pages exist, and their numbers are those of what happened. Method: a known number of
/// requests of each kind and outcome.
#[tokio::test]
async fn pages_tell_what_happened() {
    let cluster = Cluster::start(1, &[]).await;
    let bucket = cluster.bucket("b", Default::default()).await.id();
    let (_conn, mut lane) = cluster.lane(0).await;
    for value in [b"a", b"b", b"c"] {
        lane.put(put(bucket, b"k", value)).await;
    }
    let read = lane.get(get(bucket, b"k")).await;
    lane.call(&Request::Delete(delete(bucket, b"k", &read.context))).await;
    let forged = Put { context: vec![1; 40].into(), ..put(bucket, b"k", b"v") };
    lane.refusal(&Request::Put(forged)).await;

    let node = &cluster.nodes[0];
    assert_eq!(node.get("/livez").await, (200, r#"{"live":true}"#.to_owned()));
    let (code, ready) = node.get("/readyz").await;
    assert!(code == 200 && ready.contains(r#""ready":true"#), "{ready}");
    let (code, status) = node.get("/v1/status").await;
    assert!(code == 200 && status.contains(r#""partitions":16"#), "{status}");
    assert_eq!(node.get("/secrets").await.0, 404);

    let (_, page) = node.get("/metrics").await;
    assert!(page.ends_with("# EOF\n"));
    let one = |kind: &str, outcome: &str| {
        let labels = format!(r#"{{kind="{kind}",level="default",outcome="{outcome}"}} "#);
        let name = format!("holm_requests_total{labels}");
        let line = page.lines().find_map(|line| line.strip_prefix(&name));
        line.unwrap_or_else(|| panic!("no {name} in:\n{page}")).parse::<f64>().unwrap()
    };
    assert_eq!(one("put", "ok"), 3.0);
    assert_eq!(one("get", "ok"), 1.0);
    assert_eq!(one("delete", "ok"), 1.0);
    assert_eq!(one("put", "context"), 1.0);
    assert_eq!(metric(&page, "holm_answer_siblings_sum"), Some(3.0));
    assert_eq!(metric(&page, "holm_answer_siblings_count"), Some(1.0));
    assert_eq!(metric(&page, "holm_request_latency_seconds_count"), Some(6.0));
    assert_eq!(metric(&page, "holm_shard_writes_coordinated_total"), Some(4.0));
    assert!(metric(&page, "holm_store_commits_total") >= Some(4.0));
    assert!(metric(&page, "process_resident_memory_bytes") > Some(1e6));
    assert_eq!(metric(&page, "holm_node_ready"), Some(1.0));
    assert_eq!(metric(&page, "holm_node_amnesia"), Some(0.0));
}

/// How bytes could show up in a text.
fn spellings(secret: &[u8]) -> Vec<String> {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let list: Vec<String> = secret.iter().map(u8::to_string).collect();
    vec![hex.to_uppercase(), hex, list.join(", "), list.join(",")]
}

/// Goal: secrets and values are in no log line and no page, however talkative the log. Method: a
/// node that logs everything; requests good and bad with planted markers; then everything that can
/// be read is searched for the markers, the private key and the contexts' secret, in all spellings.
#[tokio::test]
async fn secrets_are_never_told() {
    let filter = "--log-filter=holm_node=trace,holm_core=trace,holmd=trace,info";
    let cluster = Cluster::start(1, &[filter]).await;
    let bucket = cluster.bucket("b", Default::default()).await.id();
    let (_conn, mut lane) = cluster.lane(0).await;
    let marker = b"PLANTED-VALUE-9f3a";
    lane.put(put(bucket, b"k", marker)).await;
    let context = lane.get(get(bucket, b"k")).await.context;
    let reused = Put { context: context.clone(), ..put(bucket, b"other key", marker) };
    lane.refusal(&Request::Put(reused)).await;
    lane.call_raw(10, marker).await;
    lane.call_raw(13, marker).await;

    // The secret, as a node that joins is told it.
    let node = &cluster.nodes[0];
    let mut peer = FakePeer::meet(&cluster.pki, node, 7, 1).await;
    let pushed = peer.bulk.frame().await.expect("the node tells its metadata");
    let secrets = Metadata::decode(&pushed.body).unwrap().state().secrets.unwrap();
    peer.requests.write(&crate::harness::raw::frame(64, 1, marker)).await;
    node.until_metric("holm_net_peer_frames_malformed_total", 1.0).await;

    let mut texts = vec![node.log()];
    for path in ["/livez", "/readyz", "/metrics", "/v1/status"] {
        texts.push(node.get(path).await.1);
    }
    let key = std::fs::read_to_string(node.file("node.key")).unwrap();
    let mut hidden: Vec<String> = spellings(&secrets.current.key);
    hidden.extend(spellings(&context));
    hidden.extend(spellings(marker));
    hidden.push(String::from_utf8(marker.to_vec()).unwrap());
    hidden.extend(key.lines().filter(|line| !line.starts_with('-')).map(str::to_owned));
    for text in &texts {
        assert!(text.len() > 10, "nothing to search");
        for secret in &hidden {
            assert!(!text.contains(secret.as_str()), "`{secret}` is told in:\n{text}");
        }
    }
}
