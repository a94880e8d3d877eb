//! The shell around the core: what a node is besides the protocol itself.
//!
//! Where to look: [`node`] starts and stops everything; [`net`] moves frames; [`router`] finds the
//! shard of each; [`shard_thread`] runs the core over [`store`]; [`control`] keeps what the cluster
//! has agreed on; [`membership`] finds out who can be reached; [`config`], [`http`] and [`metrics`] are for operators.
//!
//! No protocol rule lives here: those are in `holm-core`, where they can be tested without time,
//! disks and sockets.

pub mod config;
pub mod control;
pub mod http;
pub mod inbox;
pub mod membership;
pub mod metrics;
pub mod net;
pub mod node;
pub mod router;
pub mod shard_thread;
pub mod store;
