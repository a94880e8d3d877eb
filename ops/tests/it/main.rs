//! End-to-end tests of `holm`: the real programs, on this machine.
//!
//! They need `holmd` beside `holm`, where `cargo build --release --workspace --bins` and `cargo
//! xtask test` put it. Without it they fail; nothing is skipped.

#![expect(clippy::expect_used, reason = "helpers of tests fail the test that called them")]

mod demo;
mod usage;
