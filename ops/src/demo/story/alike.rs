//! Whether all replicas hold the same, asked without reading a key: `/v1/fingerprint` of a node.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long a node may take to gather one.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer that is read. Some buckets and regions, and at worst all partitions by name.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// What all replicas say that they hold.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Fingerprint {
    equal: bool,
    keys: BTreeMap<String, BTreeMap<String, u64>>,
    tombstones: BTreeMap<String, u64>,
    differing: Vec<String>,
    unanswered: Vec<serde_json::Value>,
}

impl Fingerprint {
    /// Asks a node, which asks every replica.
    ///
    /// # Errors
    /// It does not answer, or not with a fingerprint.
    pub(super) async fn ask(node: SocketAddr) -> Result<Fingerprint, String> {
        let text = tokio::time::timeout(PATIENCE, get(node, "/v1/fingerprint?replicas=all"));
        let text = text.await.map_err(|_| format!("{node} does not answer"))?;
        let text = text.map_err(|error| format!("{node}: {error}"))?;
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        if head.split(' ').nth(1) != Some("200") {
            return Err(format!("{node} answers {}", head.lines().next().unwrap_or_default()));
        }
        serde_json::from_str(body).map_err(|error| format!("{node}: {error}: {body}"))
    }

    /// Whether every replica answered, and all hold the same.
    ///
    /// # Errors
    /// How many do not.
    pub(super) fn check_equal(&self) -> Result<(), String> {
        if self.equal {
            return Ok(());
        }
        let (differing, silent) = (self.differing.len(), self.unanswered.len());
        Err(format!(
            "{differing} partitions differ, {silent} replicas of partitions did not answer"
        ))
    }

    /// Keys with values, in the region that has most.
    pub(super) fn keys(&self) -> u64 {
        self.keys.values().filter_map(|regions| regions.values().max()).sum()
    }

    /// Rows of all replicas that hold a delete and nothing else.
    pub(super) fn tombstones(&self) -> u64 {
        self.tombstones.values().sum()
    }
}

async fn get(node: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(node).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {node}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what a node says is read, and differences are told. Method: an answer of each sort.
    #[test]
    fn answers_are_read() {
        let text = r#"{"equal":true,"buckets":{},"keys":{"a":{"x":3,"y":4},"b":{"x":1}},
            "tombstones":{"a":2,"b":1},"partitions":4,"differing":[],"unanswered":[]}"#;
        let mut found: Fingerprint = serde_json::from_str(text).unwrap();
        assert_eq!((found.keys(), found.tombstones(), found.check_equal()), (5, 3, Ok(())));
        found.equal = false;
        found.differing.push("p0.3".to_owned());
        let why = found.check_equal().unwrap_err();
        assert_eq!(why, "1 partitions differ, 0 replicas of partitions did not answer");
    }
}
