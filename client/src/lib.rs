//! The Rust client of holm, a geo-distributed multi-master key-value database.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use holm_client::Client;
//!
//! let client = Client::builder().cluster_file("cluster.toml")?.connect().await?;
//! let carts = client.bucket("carts").await?;
//!
//! let written = carts.put("alice", "1 x tea").await?;
//! println!("stored as {}, held by {:?}", written.dot(), written.receipt().replicas);
//!
//! let got = carts.get("alice").await?;
//! for sibling in got.siblings() {
//!     println!("{:?}", sibling.value);
//! }
//! // Handing the context back overwrites exactly what was read, and nothing that was not.
//! carts.put("alice", "2 x tea").context(got.context()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What a call promises
//! - It **ends**: by its deadline, plus at most 100 ms for the node's own last word.
//! - It is **routed** to a replica of the key in the client's region; if none can serve it, to
//!   another node of the region, then to the nearest other one ([`ClientBuilder::region`]). If
//!   the region has no replica of the key, the nearest replica elsewhere is asked: a write that
//!   another node passes on cannot be repeated safely.
//! - A read is repeated elsewhere when a node fails, is silent for its share of
//!   the time, and a slow one is **hedged**: another replica is asked too, and the first answer
//!   wins.
//! - A write is repeated only where that is **safe**: elsewhere if nothing happened; otherwise only
//!   with the same request id at the same run of the same replica, which then applies it once.
//!   Where that cannot be, the error says *unknown* ([`Outcome::MayHaveHappened`]).
//! - Every queue is bounded. When one is full the call fails at once, before anything was sent.
//!
//! # Where to look
//! [`ClientBuilder`] and [`ClusterFile`] to connect; [`Bucket`] to read and write; [`Got`],
//! [`Written`], [`Context`] for what comes back; [`error`] for what can go wrong; [`Admin`] for
//! buckets, layouts and explanations.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod admin;
mod answer;
mod blob;
mod bucket;
mod builder;
mod call;
mod chance;
mod client;
mod cluster;
mod cluster_file;
mod connection;
mod context;
pub mod error;
mod json;
mod lane;
mod latency;
mod node;
mod routing;
mod tls;
mod transport;
mod update;

pub use holm_protocol::admin::{
    ClusterView, ExplainedMember, Explanation, LayoutProposal, LayoutSummary, LinkRule, NodeInfo,
    NodeStatus, PeerStatus, PlacementInfo, PlacementView, ReplicaState,
};
pub use holm_protocol::bucket::{BucketInfo, BucketKind, BucketPolicy};
pub use holm_protocol::dot::Dot;
pub use holm_protocol::error::{Outcome, RequestError, Retry};
pub use holm_protocol::ids::{
    Actor, BucketId, Hlc, NodeId, Partition, PlacementId, RegionId, RequestId,
};
pub use holm_protocol::level::Level;
pub use holm_protocol::message::{Receipt, ReceiptEntry, Sibling};

pub use admin::Admin;
pub use answer::{Got, Written};
pub use blob::Blob;
pub use bucket::{Bucket, DeleteRequest, GetRequest, PutRequest};
pub use builder::ClientBuilder;
pub use client::Client;
pub use cluster_file::{ClusterFile, ClusterFileError, ClusterFileNode};
pub use context::{Context, ContextParseError};
pub use error::{
    AdminError, BucketError, Cause, CertificateFault, ConnectError, DeleteError, DialError,
    FullQueue, GetError, GetJsonError, PutError, PutJsonError, TlsError, UpdateError,
};
pub use json::GotJson;
pub use update::{Update, UpdateRequest, Updated};
