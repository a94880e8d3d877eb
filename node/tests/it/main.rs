//! End-to-end tests of `holmd`: real processes on loopback, real QUIC, real disks.
//!
//! One binary, because each links RocksDB. `harness` makes certificates, nodes and raw connections;
//! the other modules are what tries to break them. Every process is ended by its own id when its
//! handle is dropped; every wait is for a condition and has a deadline.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests fail the test that called them"
)]

mod amnesia;
mod axe;
mod bad_disk;
mod bad_frames;
mod bad_requests;
mod clock_jumps;
mod consistency;
mod crash;
mod disk_full;
mod flips;
mod handshakes;
mod harness;
mod hints;
mod http;
mod layouts;
mod members;
mod overload;
mod peers;
mod repeats;
mod silence;
