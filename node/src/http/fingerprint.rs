//! `/v1/fingerprint`: whether all regions hold the same.
//!
//! ```json
//! {
//!   "equal": true,
//!   "layout_version": 1,
//!   "buckets": { "carts": { "eu-west": "0f3c…", "us-east": "0f3c…" } },
//!   "keys": { "carts": { "eu-west": 1200, "us-east": 1200 } },
//!   "tombstones": { "carts": 0 },
//!   "partitions": 256,
//!   "differing": [],
//!   "unanswered": []
//! }
//! ```
//!
//! Equal digests mean equal values; deleted keys count as absent ones. `equal` is true only if every
//! partition was answered for in every region and no two answers differ. `differing` names partitions,
//! and `unanswered` partitions with the region in which nobody answered in time; such a region's digests
//! lack that partition. Query: `timeout_ms`, how long replicas have (5000, at most 60000), and
//! `replicas=all`, to ask every replica and not one in each region. `tombstones` counts the rows of all
//! replicas that were asked which hold a delete and nothing else: deletes that are not stable yet.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use holm_core::shard::config::ClusterState;
use holm_core::shard::fingerprint::Fingerprint;
use holm_protocol::ids::RegionId;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Served;
use crate::inbox::Event;

/// How long replicas have to answer, milliseconds: some scans of a million keys.
const TIMEOUT_MS: u32 = 5_000;
const TIMEOUT_MS_MAX: u32 = 60_000;

/// What a shard may take beyond that: it has other things to do too.
const SLACK: Duration = Duration::from_secs(2);

/// What can be asked for.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Asked {
    timeout_ms: Option<u32>,
    replicas: Option<String>,
}

/// Asks every shard and adds up.
pub(super) async fn answer(
    State(served): State<Arc<Served>>,
    Query(asked): Query<Asked>,
) -> (StatusCode, Json<Value>) {
    let refuse = |code, error: String| (code, Json(json!({ "error": error })));
    let timeout_ms = asked.timeout_ms.unwrap_or(TIMEOUT_MS).clamp(1, TIMEOUT_MS_MAX);
    let all = match asked.replicas.as_deref() {
        None | Some("one") => false,
        Some("all") => true,
        Some(_) => {
            let error = "replicas is `one` (in each region) or `all`".to_owned();
            return refuse(StatusCode::BAD_REQUEST, error);
        }
    };
    let mut answers = Vec::new();
    for inbox in &served.state.inboxes {
        let (answer, coming) = oneshot::channel();
        // What does not fit is dropped, which ends the wait.
        inbox.push(&mut vec![Event::Fingerprint { answer, timeout_ms, all }], &mut Vec::new());
        answers.push(coming);
    }
    let patience = Duration::from_millis(timeout_ms.into()) + SLACK;
    let mut whole = Fingerprint::default();
    for coming in answers {
        match timeout(patience, coming).await {
            Ok(Ok(Ok(part))) => whole.merge(part),
            Ok(Ok(Err(error))) => {
                return refuse(StatusCode::SERVICE_UNAVAILABLE, error.to_string());
            }
            Ok(Err(_)) | Err(_) => {
                let error = "a shard is too busy to answer; try again".to_owned();
                return refuse(StatusCode::SERVICE_UNAVAILABLE, error);
            }
        }
    }
    (StatusCode::OK, Json(for_scripts(&whole, &served.state.cluster())))
}

/// Every bucket in every region of its placement, also where it holds nothing.
fn for_scripts(fingerprint: &Fingerprint, cluster: &ClusterState) -> Value {
    let (mut buckets, mut keys, mut tombstones) = (Map::new(), Map::new(), Map::new());
    let regions = cluster.layout.as_ref().map_or(&[][..], |layout| layout.regions());
    for (id, info) in &cluster.buckets {
        let placement = cluster.layout.as_ref().and_then(|it| it.placement(info.policy.placement));
        let held = |region: &str| placement.is_some_and(|it| it.replication.contains_key(region));
        let (mut digests, mut counts) = (Map::new(), Map::new());
        for (at, region) in regions.iter().enumerate().filter(|(_, region)| held(region)) {
            let sum = fingerprint.sums.get(&(*id, RegionId(at as u16)));
            let (digest, count) = sum.copied().unwrap_or_default();
            // As text: JSON's readers round numbers beyond 2^53.
            digests.insert(region.clone(), json!(format!("{digest:032x}")));
            counts.insert(region.clone(), json!(count));
        }
        buckets.insert(info.name.clone(), Value::Object(digests));
        keys.insert(info.name.clone(), Value::Object(counts));
        let dead = fingerprint.tombstones.get(id).copied().unwrap_or_default();
        tombstones.insert(info.name.clone(), json!(dead));
    }
    let region = |id: &RegionId| regions.get(usize::from(id.0)).cloned().unwrap_or_default();
    let unanswered = fingerprint
        .unanswered
        .iter()
        .map(|(partition, id)| json!({ "partition": partition.to_string(), "region": region(id) }));
    json!({
        "equal": fingerprint.is_equal(),
        "layout_version": cluster.layout.as_ref().map_or(0, |layout| layout.version()),
        "buckets": buckets,
        "keys": keys,
        "tombstones": tombstones,
        "partitions": fingerprint.partitions,
        "differing": fingerprint.differing.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "unanswered": unanswered.collect::<Vec<_>>(),
    })
}
