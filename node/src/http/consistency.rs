//! `/health/consistency`: how far this node is from the others, judged by the thresholds of `[health]`.
//!
//! ```json
//! {
//!   "healthy": true,
//!   "concerns": [],
//!   "region": "us-east",
//!   "lags": [{
//!     "from": "eu-west", "to": "us-east", "lag_seconds": 0.042, "writes_behind": 3, "bytes_behind": 768,
//!     "partitions": 256, "partitions_lacking": 0, "partitions_unheard": 0, "oldest_gap_seconds": 0.0
//!   }],
//!   "verified": [{ "with": 2, "partitions": 256, "unverified": 0, "oldest_seconds": 1800.0 }],
//!   "violations": 0,
//!   "last_violation_seconds_ago": null,
//!   "unstable": { "partitions": 2, "oldest_seconds": 4.2, "held_back_by": [{ "node": 7, "partitions": 2 }] },
//!   "hints": { "pending": 0, "bytes": 0, "oldest_seconds": 0.0 },
//!   "quarantined_partitions": 0
//! }
//! ```
//!
//! 200 if nothing exceeds its threshold, 503 if something does. All of it is this node's own view: how
//! far others are behind, they say themselves. Who asks every node has every pair of regions.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use holm_core::shard::lag::RegionLag;
use holm_protocol::ids::NodeId;
use serde_json::{Value, json};

use super::Served;
use crate::control::{Consistency, VerifiedWith};

/// Says how it is.
pub(super) async fn answer(State(served): State<Arc<Served>>) -> (StatusCode, Json<Value>) {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let wall_ms = wall.as_millis() as u64;
    let known = served.state.consistency();
    let concerns = known.concerns(&served.state.health, wall_ms);
    let code = match concerns.is_empty() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (code, Json(for_scripts(&known, &concerns, wall_ms)))
}

fn for_scripts(known: &Consistency, concerns: &[String], wall_ms: u64) -> Value {
    let seconds = |ms: u64| ms as f64 / 1e3;
    let lag = |(region, lag): (&String, &RegionLag)| {
        json!({
            "from": region,
            "to": known.region,
            "lag_seconds": seconds(lag.ms),
            "writes_behind": lag.writes,
            "bytes_behind": lag.bytes,
            "partitions": lag.partitions,
            "partitions_lacking": lag.partitions_lacking,
            "partitions_unheard": lag.partitions_unheard,
            "oldest_gap_seconds": seconds(lag.gap_ms),
        })
    };
    let verified = |(node, with): (&NodeId, &VerifiedWith)| {
        json!({
            "with": node.0,
            "partitions": with.partitions,
            "unverified": with.unverified,
            "oldest_seconds": seconds(with.oldest_ms),
        })
    };
    let held_back =
        |(node, partitions): (&NodeId, &u64)| json!({ "node": node.0, "partitions": partitions });
    json!({
        "healthy": concerns.is_empty(),
        "concerns": concerns,
        "region": known.region,
        "lags": known.lags.iter().map(lag).collect::<Vec<_>>(),
        "verified": known.verified.iter().map(verified).collect::<Vec<_>>(),
        "violations": known.violations,
        "last_violation_seconds_ago": known.violation_age_ms(wall_ms).map(seconds),
        "unstable": {
            "partitions": known.backlogs.iter().filter(|it| it.unstable_ms > 0).count(),
            "oldest_seconds": seconds(known.oldest_unstable().map_or(0, |it| it.unstable_ms)),
            "held_back_by": known.holders_back().iter().map(held_back).collect::<Vec<_>>(),
        },
        "hints": {
            "pending": known.hints,
            "bytes": known.hint_bytes,
            "oldest_seconds": seconds(known.hint_age_ms(wall_ms)),
        },
        "quarantined_partitions": known.quarantined,
    })
}
