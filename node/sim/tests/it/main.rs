//! The protocol as stories, and the simulator on trial.
//!
//! Read [`stories`] first: each is one situation that the design promises something about, with
//! the messages it takes; [`hinted`] goes on with nodes that stand in for others, [`quarantined`] with nodes that start. [`regressions`] are stories of what once went wrong, [`knobs`] show that
//! faults are felt. [`recorded`] and [`forgotten`] are about traces for the specifications. [`runs`] plays seeds, and tests the tester; [`program`] runs `holm-sim`.

#![expect(clippy::expect_used, reason = "helpers of tests, which fail by panicking")]

mod forgotten;
mod hinted;
mod knobs;
mod program;
mod quarantined;
mod recorded;
mod regressions;
mod removed;
mod runs;
mod stories;
