//! What can go wrong, one enum per operation.
//!
//! Each error says what it means for the data: [`Outcome::NothingHappened`] or
//! [`Outcome::MayHaveHappened`] (`outcome()`), and which refusal of a node is behind it, if one is
//! (`refusal()`, whose [`RequestError::code`] is stable).

mod certificate;
mod outcome;

use std::io;
use std::time::Duration;

use holm_protocol::bucket::BucketPolicyError;
use holm_protocol::error::{Outcome, RequestError};
use holm_protocol::ids::{NodeId, RequestId};

use crate::cluster_file::ClusterFileError;

pub use certificate::CertificateFault;

/// Why one attempt at one node failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// The node refused.
    #[error("{node} refused: {error}")]
    Refused {
        /// The node.
        node: NodeId,
        /// Why.
        error: RequestError,
    },
    /// There is no connection to the node.
    #[error("{node} cannot be reached: {error}")]
    Unreachable {
        /// The node.
        node: NodeId,
        /// Why.
        error: DialError,
    },
    /// The connection was lost before the request was sent (`sent` false), or before the answer
    /// came.
    #[error("connection to {node} lost ({why})")]
    ConnectionLost {
        /// The node.
        node: NodeId,
        /// Whether the request may have reached the node.
        sent: bool,
        /// Why, in words.
        why: String,
    },
    /// The node did not answer in time.
    #[error("{node} did not answer within {waited_ms} ms")]
    NoAnswer {
        /// The node.
        node: NodeId,
        /// How long it was waited for, milliseconds.
        waited_ms: u64,
    },
    /// The node's answer is none.
    #[error("{node} answered with something that is no answer: {what}")]
    Garbage {
        /// The node.
        node: NodeId,
        /// What is wrong with it.
        what: String,
    },
    /// This client's queue to the node is full. Nothing was sent.
    #[error("{in_flight} requests in flight to {node}, limit {limit}")]
    QueueFull {
        /// The node.
        node: NodeId,
        /// Requests waiting for an answer on this connection.
        in_flight: usize,
        /// The most allowed.
        limit: usize,
    },
    /// The node was restarted since a write was sent to it, and remembers no request ids.
    #[error("{node} was restarted and cannot say what became of the write")]
    NodeRestarted {
        /// The node.
        node: NodeId,
    },
    /// There was no time to ask any node.
    #[error("no node was asked")]
    NothingTried,
}

impl Cause {
    /// The node's refusal, if it was one.
    #[must_use]
    pub fn refusal(&self) -> Option<&RequestError> {
        match self {
            Cause::Refused { error, .. }
            | Cause::Unreachable { error: DialError::Refused { error }, .. } => Some(error),
            _ => None,
        }
    }
}

/// Which of this client's queues to a node is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FullQueue {
    /// Too many requests wait for an answer.
    #[error("{in_flight} requests in flight to a node, limit {limit}")]
    Requests {
        /// Requests waiting for an answer on one lane.
        in_flight: usize,
        /// The most allowed.
        limit: usize,
    },
    /// Too many bytes wait to be written: the node, or the way to it, takes them too slowly.
    #[error("{unsent} bytes wait to be sent to a node, limit {limit}")]
    Bytes {
        /// Bytes not yet written on one lane.
        unsent: usize,
        /// From how many on nothing more is taken, bytes.
        limit: usize,
    },
}

/// Why a node could not be connected to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// No answer in time.
    #[error("no answer within {waited_ms} ms; check address, firewall (UDP) and that holmd runs")]
    TimedOut {
        /// How long, milliseconds.
        waited_ms: u64,
    },
    /// The address or the local socket is not usable.
    #[error("cannot connect: {0}")]
    Local(quinn::ConnectError),
    /// The handshake failed, or the connection was lost during it.
    #[error("handshake failed: {0}; see the node's log")]
    Handshake(quinn::ConnectionError),
    /// The node's certificate was not accepted by this client.
    #[error("the node's certificate {fault}; it was checked against the {ca}")]
    NodeCertificate {
        /// What is wrong with it.
        fault: CertificateFault,
        /// Which CA certificate, and where it came from.
        ca: String,
    },
    /// This client's certificate was not accepted by the node.
    #[error("the node refused the {certificate}: it {fault}")]
    ClientCertificate {
        /// What is wrong with it.
        fault: CertificateFault,
        /// Which certificate, and where it came from.
        certificate: String,
    },
    /// The node refused the connection.
    #[error("refused: {error}")]
    Refused {
        /// Why.
        error: RequestError,
    },
    /// The node does not speak this protocol.
    #[error("not a holm node's answer: {what}")]
    Protocol {
        /// What is wrong with it.
        what: String,
    },
    /// Another node answered at this address.
    #[error("{got} answers at this address; check ids and addresses in the cluster file")]
    WrongNode {
        /// Who answered.
        got: NodeId,
    },
}

/// Why certificates cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// No CA certificate was given.
    #[error("no CA certificate: give one with `ca_pem` or a cluster file")]
    CaMissing,
    /// No client certificate was given.
    #[error("no client certificate and key: give them with `identity_pem` or a cluster file")]
    IdentityMissing,
    /// A PEM text cannot be read.
    #[error("cannot read the {what}: {why}")]
    Pem {
        /// Which one, and where it came from.
        what: String,
        /// Why.
        why: String,
    },
    /// A PEM text holds nothing of its kind.
    #[error("nothing of the kind in the {what}")]
    Empty {
        /// Which one, and where it came from.
        what: String,
    },
    /// The TLS library refuses certificate or key.
    #[error("certificate or key refused: {0}")]
    Refused(rustls::Error),
}

/// Why a client could not be made. Nothing happened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The cluster file.
    #[error(transparent)]
    ClusterFile(#[from] ClusterFileError),
    /// A certificate or key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A setting is out of range.
    #[error("setting `{key}` is {got}, must be {range}")]
    Setting {
        /// Which one.
        key: &'static str,
        /// What it is.
        got: String,
        /// What it may be.
        range: &'static str,
    },
    /// No node was given.
    #[error("no nodes: give at least one with `nodes` or a cluster file")]
    NoNodes,
    /// The UDP socket cannot be made.
    #[error("cannot open a UDP socket: {0}")]
    Socket(#[source] io::Error),
    /// No node answered.
    #[error("no node of {} could be connected to; {}", .tried.len(), telling(.tried))]
    Unreachable {
        /// Each node tried, and why it failed.
        tried: Vec<(NodeId, DialError)>,
    },
    /// A node answered, but the cluster's layout and buckets could not be had from any.
    #[error("connected, but no node says what the cluster looks like: {0}")]
    View(#[source] AdminError),
    /// The region that was asked for is not in the layout.
    #[error("region `{region}` is not in the layout, which has: {}", .known.join(", "))]
    UnknownRegion {
        /// What was asked for.
        region: String,
        /// What there is.
        known: Vec<String>,
    },
}

/// The failure that says most: a refused certificate rather than a node that is down.
fn telling(tried: &[(NodeId, DialError)]) -> String {
    let certificate = tried.iter().find(|(_, error)| error.certificate_fault().is_some());
    let told = certificate.or(tried.first());
    told.map_or_else(String::new, |(node, error)| format!("{node}: {error}"))
}

impl ConnectError {
    /// Always [`Outcome::NothingHappened`].
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        Outcome::NothingHappened
    }

    /// What is wrong with a certificate, if that is why no node could be connected to.
    #[must_use]
    pub fn certificate_fault(&self) -> Option<&CertificateFault> {
        match self {
            ConnectError::Unreachable { tried } => {
                tried.iter().find_map(|(_, error)| error.certificate_fault())
            }
            _ => None,
        }
    }

    /// The refusal of a node behind it, if one is.
    #[must_use]
    pub fn refusal(&self) -> Option<&RequestError> {
        match self {
            ConnectError::Unreachable { tried } => {
                tried.iter().find_map(|(_, error)| match error {
                    DialError::Refused { error } => Some(error),
                    _ => None,
                })
            }
            ConnectError::View(error) => error.refusal(),
            _ => None,
        }
    }
}

/// How a call through the cluster fails, before it is told apart by operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CallError {
    Refused { node: NodeId, error: RequestError },
    Overloaded { queue: FullQueue },
    Unavailable { timeout: Duration, attempts: u32, last: Cause },
    Unknown { last: Cause },
}

/// Why a key was not read. Reads change nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GetError {
    /// The key is empty or too long. Nothing was sent.
    #[error("key is {len} bytes, must be 1 to {limit}")]
    KeyLength {
        /// Its length, bytes.
        len: usize,
        /// The most allowed, bytes.
        limit: usize,
    },
    /// A node refused, and every other would.
    #[error("{node} refused: {error}")]
    Refused {
        /// The node.
        node: NodeId,
        /// Why.
        error: RequestError,
    },
    /// This client's own queues are full. Nothing was sent.
    #[error("client overloaded: {queue}")]
    Overloaded {
        /// Which queue, and how full.
        queue: FullQueue,
    },
    /// No node answered in time.
    #[error("not answered within {timeout:?}, {attempts} attempts; last: {last}")]
    Unavailable {
        /// How long the call was allowed to take.
        timeout: Duration,
        /// How often a node was asked.
        attempts: u32,
        /// Why the last attempt failed.
        last: Cause,
    },
}

/// Why a put was not acknowledged. Each variant says whether the value may still appear.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PutError {
    /// The key is empty or too long. Nothing was sent.
    #[error("key is {len} bytes, must be 1 to {limit}")]
    KeyLength {
        /// Its length, bytes.
        len: usize,
        /// The most allowed, bytes.
        limit: usize,
    },
    /// The value is longer than any bucket allows. Nothing was sent.
    #[error("value is {len} bytes, limit {limit}")]
    ValueTooLarge {
        /// Its length, bytes.
        len: usize,
        /// The most allowed, bytes.
        limit: usize,
    },
    /// The context is longer than any. Nothing was sent.
    #[error("context is {len} bytes, limit {limit}")]
    ContextTooLong {
        /// Its length, bytes.
        len: usize,
        /// The most allowed, bytes.
        limit: usize,
    },
    /// A node refused before doing anything, and every other would. The value will not appear.
    #[error("{node} refused: {error}")]
    Refused {
        /// The node.
        node: NodeId,
        /// Why.
        error: RequestError,
    },
    /// This client's own queues are full. Nothing was sent.
    #[error("client overloaded: {queue}")]
    Overloaded {
        /// Which queue, and how full.
        queue: FullQueue,
    },
    /// No node took the write in time. The value will not appear.
    #[error("no node took the write within {timeout:?}, {attempts} attempts; last: {last}")]
    Unavailable {
        /// How long the call was allowed to take.
        timeout: Duration,
        /// How often a node was asked.
        attempts: u32,
        /// Why the last attempt failed.
        last: Cause,
    },
    /// What became of the write is not known: it may be visible now, later, or never.
    #[error("the write may or may not have happened ({last}); read the key to see")]
    Unknown {
        /// The write's name, as nodes log it.
        request: RequestId,
        /// Why it is not known.
        last: Cause,
    },
}

/// Why a delete was not acknowledged. Each variant says whether it may still take effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeleteError {
    /// The key is empty or too long. Nothing was sent.
    #[error("key is {len} bytes, must be 1 to {limit}")]
    KeyLength {
        /// Its length, bytes.
        len: usize,
        /// The most allowed, bytes.
        limit: usize,
    },
    /// The context is longer than any. Nothing was sent.
    #[error("context is {len} bytes, limit {limit}")]
    ContextTooLong {
        /// Its length, bytes.
        len: usize,
        /// The most allowed, bytes.
        limit: usize,
    },
    /// No context was given, and the read that was to give one failed. Nothing happened.
    #[error("a delete needs a context, and the read for one failed: {0}")]
    Read(#[source] GetError),
    /// No context was given, and the read for one found that the key never held anything. Nothing
    /// happened, and there is nothing to delete.
    #[error("the key holds nothing to delete")]
    Absent,
    /// A node refused before doing anything, and every other would.
    #[error("{node} refused: {error}")]
    Refused {
        /// The node.
        node: NodeId,
        /// Why.
        error: RequestError,
    },
    /// This client's own queues are full. Nothing was sent.
    #[error("client overloaded: {queue}")]
    Overloaded {
        /// Which queue, and how full.
        queue: FullQueue,
    },
    /// No node took the delete in time. It will not take effect.
    #[error("no node took the delete within {timeout:?}, {attempts} attempts; last: {last}")]
    Unavailable {
        /// How long the call was allowed to take.
        timeout: Duration,
        /// How often a node was asked.
        attempts: u32,
        /// Why the last attempt failed.
        last: Cause,
    },
    /// What became of the delete is not known: it may have taken effect, or may yet, or never.
    #[error("the delete may or may not have happened ({last}); read the key to see")]
    Unknown {
        /// The write's name, as nodes log it.
        request: RequestId,
        /// Why it is not known.
        last: Cause,
    },
}

/// Why an update did not go through.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// The read failed. Nothing happened.
    #[error("update: read failed: {0}")]
    Get(#[source] GetError),
    /// The put failed.
    #[error("update: put failed: {0}")]
    Put(#[source] PutError),
    /// The delete failed.
    #[error("update: delete failed: {0}")]
    Delete(#[source] DeleteError),
}

/// Why a key was not read as JSON. Reads change nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GetJsonError {
    /// The read failed.
    #[error(transparent)]
    Get(#[from] GetError),
    /// A sibling is not what it was asked to be.
    #[error("sibling {index} does not parse: {source}")]
    Json {
        /// Which one, counted from 0 in the order of [`Got::siblings`](crate::Got::siblings).
        index: usize,
        /// Why.
        source: serde_json::Error,
    },
}

/// Why a value was not written as JSON.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PutJsonError {
    /// The put failed.
    #[error(transparent)]
    Put(#[from] PutError),
    /// The value cannot be JSON. Nothing was sent.
    #[error("value cannot be written as JSON: {0}")]
    Json(#[source] serde_json::Error),
}

/// Why a bucket could not be had. Nothing happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BucketError {
    /// No bucket can have this name.
    #[error(
        "`{name}` is no bucket name: use 1 to 64 of a-z 0-9 - _ . starting with a letter or digit"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// There is no such bucket.
    #[error("no bucket `{name}`; create it with `holm bucket create {name}`")]
    Unknown {
        /// The name.
        name: String,
    },
    /// No node says which buckets there are.
    #[error("cannot ask for buckets: {0}")]
    View(#[source] AdminError),
}

/// Why an administration call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// The node is neither in the layout nor among those this client was given. Nothing happened.
    #[error("{node} is not known: it is neither in the layout nor in the cluster file")]
    UnknownNode {
        /// The node.
        node: NodeId,
    },
    /// The bucket's name or policy is not possible. Nothing was sent.
    #[error("bucket refused: {error}")]
    Policy {
        /// Why.
        error: BucketPolicyError,
    },
    /// A node refused before doing anything.
    #[error("{node} refused: {error}")]
    Refused {
        /// The node.
        node: NodeId,
        /// Why.
        error: RequestError,
    },
    /// This client's own queues are full. Nothing was sent.
    #[error("client overloaded: {queue}")]
    Overloaded {
        /// Which queue, and how full.
        queue: FullQueue,
    },
    /// No node took the request in time. Nothing happened.
    #[error("not answered within {timeout:?}, {attempts} attempts; last: {last}")]
    Unavailable {
        /// How long the call was allowed to take.
        timeout: Duration,
        /// How often a node was asked.
        attempts: u32,
        /// Why the last attempt failed.
        last: Cause,
    },
    /// What became of the change is not known.
    #[error("the change may or may not have happened ({last}); look at the cluster's view")]
    Unknown {
        /// Why it is not known.
        last: Cause,
    },
    /// The node answered something else than was asked. What it did is not known.
    #[error("{node} answered something else than was asked; do versions differ?")]
    UnexpectedReply {
        /// The node.
        node: NodeId,
    },
}
