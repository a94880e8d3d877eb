//! The first frame of every lane, and its answer.
//!
//! A lane starts with a hello frame from the side that opened it; the other side answers with
//! welcome or with an error frame, and closes the lane after an error. Nothing else is read before.
//! Bodies start with the sender's protocol version (2 bytes, big-endian); the rest is postcard,
//! whose shape that version fixes.

use serde::{Deserialize, Serialize};

use crate::error::RequestError;
use crate::ids::{Actor, NodeId};
use crate::limits;

/// The protocol version spoken by this build.
pub const VERSION: u16 = 1;

/// The oldest version still understood.
pub const VERSION_MIN: u16 = 1;

/// A client's hello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientHello {
    /// The cluster the client means, if it knows.
    pub cluster: Option<String>,
    /// What the client calls itself, for logs; at most [`limits::NAME_LEN_MAX`] bytes.
    pub client: String,
}

/// A node's answer to a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientWelcome {
    /// The node's cluster.
    pub cluster: String,
    /// The node.
    pub node: NodeId,
    /// The node's run: a retried write is applied once only within one run.
    pub run: Actor,
    /// The layout the node knows, 0 if none.
    pub layout_version: u64,
}

/// A node's hello to another node. Sent on every lane, and answered with the same struct about the
/// other side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerHello {
    /// The node's cluster.
    pub cluster: String,
    /// The node, which must match its certificate.
    pub node: NodeId,
    /// Its run.
    pub run: Actor,
    /// [`settings_fingerprint`] of its settings that must be equal everywhere.
    pub fingerprint: u64,
    /// The random name of its store, made when the store was: a node that comes back with another
    /// one has lost its disk.
    pub store: u128,
    /// What the lane is for.
    pub lane: Lane,
    /// Version and digest of the cluster metadata it holds.
    pub metadata: MetadataVersion,
}

/// What a lane between nodes carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Lane {
    /// Requests and their answers: small and urgent.
    Requests,
    /// Cluster metadata, and answers that are long and can wait: never blocks requests.
    Bulk,
}

/// Which cluster metadata a node holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MetadataVersion {
    /// The layout's version, 0 if there is none.
    pub layout: u64,
    /// A digest of layout, buckets and secrets.
    pub digest: u64,
}

/// A digest of the limits that all nodes must share: those of [`limits`] and what is passed in.
#[must_use]
pub fn settings_fingerprint(max_clock_skew_ms: u64) -> u64 {
    let settings = [
        u64::from(VERSION),
        limits::KEY_LEN_MAX as u64,
        limits::VALUE_LEN_MAX as u64,
        limits::SIBLINGS_HARD_MAX as u64,
        limits::CONTEXT_ENTRIES_MAX as u64,
        limits::MAX_SIBLINGS_MAX as u64,
        limits::PUT_OBJECT_LEN_MAX as u64,
        limits::OBJECT_LEN_MAX as u64,
        limits::FRAME_LEN_MAX as u64,
        max_clock_skew_ms,
    ];
    let bytes: Vec<u8> = settings.iter().flat_map(|setting| setting.to_be_bytes()).collect();
    xxhash_rust::xxh3::xxh3_64(&bytes)
}

/// Encodes a hello or welcome body: the version, then postcard.
#[must_use]
pub fn encode<T: Serialize>(hello: &T) -> Vec<u8> {
    let bytes = VERSION.to_be_bytes().to_vec();
    // Serialising plain structs into a growing vector has no way to fail.
    postcard::to_extend(hello, bytes).unwrap_or_default()
}

/// Decodes a hello or welcome body.
///
/// # Errors
/// [`RequestError::UnsupportedVersion`] or [`RequestError::Malformed`].
pub fn decode<T: for<'a> Deserialize<'a>>(body: &[u8]) -> Result<T, RequestError> {
    let malformed = |what: &str| RequestError::Malformed { what: what.to_owned() };
    let Some((version, rest)) = body.split_first_chunk::<2>() else {
        return Err(malformed("hello shorter than its version"));
    };
    let got = u16::from_be_bytes(*version);
    if !(VERSION_MIN..=VERSION).contains(&got) {
        return Err(RequestError::UnsupportedVersion { got, min: VERSION_MIN, max: VERSION });
    }
    match postcard::take_from_bytes(rest) {
        Ok((hello, [])) => Ok(hello),
        Ok(_) => Err(malformed("hello with bytes left over")),
        Err(_) => Err(malformed("hello body")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: hellos round trip; foreign versions and noise are told apart.
    #[test]
    fn hellos_are_checked() {
        let hello = ClientHello { cluster: Some("demo".into()), client: "t".into() };
        let mut bytes = encode(&hello);
        assert_eq!(decode::<ClientHello>(&bytes), Ok(hello));
        bytes.push(0);
        assert!(matches!(decode::<ClientHello>(&bytes), Err(RequestError::Malformed { .. })));
        bytes[1] = 9;
        let got = decode::<ClientHello>(&bytes);
        assert_eq!(got, Err(RequestError::UnsupportedVersion { got: 9, min: 1, max: 1 }));
        assert!(decode::<ClientHello>(&[0]).is_err());
    }
}
