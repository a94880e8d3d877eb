//! The pure replication protocol of holm.
//!
//! What it does not have: a clock, sockets, a disk, threads, randomness of its own. Time, random
//! numbers and storage are passed in; what should happen outside comes out as data.
#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod clock;
pub mod context;
pub mod get;
pub mod hlc;
pub mod keys;
pub mod layout;
pub mod map;
pub mod merkle;
pub mod metadata;
pub mod object;
pub mod peer;
pub mod put;
pub mod quorum;
pub mod shard;
pub mod store;
pub mod time;
