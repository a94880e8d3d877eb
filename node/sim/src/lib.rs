//! The world in which holm's core is tried: several nodes' real shards in one thread, over simulated
//! disks, clocks and links, with everything that can go wrong going wrong on purpose.
//!
//! One seed decides everything: the plan ([`plan`]: cluster, clients, faults), and each random
//! number on the way ([`rng`]). The same seed gives the same run, step by step (I12). The code under
//! test is the core as it is, behind its own [`Store`](holm_core::store::Store) trait and its
//! inputs and effects.
//!
//! [`sim`] plays a plan: [`client`]s act on a [`cluster`] (a [`world`]) while faults come and go; the [`referee`]
//! keeps the [`history`] of what clients were told and calls the rules in [`check`]. [`script`]
//! tells single stories instead, step by step, with traces ([`trace`]) that can be read.
//! [`tamper`] puts bugs back, to see that they are found. [`steps`] records what the protocol does to
//! a key, for the specifications.
//!
//! Left out: layouts that change, but for dead nodes that are taken out ([`sim::Sim::burying`]), and
//! everything below the core (QUIC, TLS, RocksDB), which have
//! tests of their own.

pub mod check;
pub mod client;
pub mod cluster;
pub mod history;
pub mod hostile;
pub mod net;
pub mod plan;
pub mod referee;
pub mod report;
pub mod rng;
pub mod schedule;
pub mod script;
pub mod shrink;
pub mod sim;
pub mod steps;
pub mod store;
pub mod tamper;
pub mod trace;
pub mod world;
