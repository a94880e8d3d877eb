//! Membership: who of the cluster can be reached, as the nodes find out together (SWIM).
//!
//! | file | what |
//! | --- | --- |
//! | [`driver`], [`event`] | the state machine around foca, and what goes in and comes out |
//! | [`identity`], [`wire`] | who a member is; datagrams |
//! | [`clock`] | how far other nodes' clocks are off |
//!
//! The network's task (`net/members.rs`) carries datagrams and time between connections and the
//! driver. Others look at it through [`Members`].
//!
//! Two things tell whether a node can be reached. Whether there is a connection is fast and one-sided:
//! requests go by that, and by whether answers come (the breaker in `holm_core::shard`). What members
//! agree on is slow and robust: a node that others reach through others is alive. It is for
//! operators, and it makes nodes that are doubted the last to be asked.
//!
//! One pool for all regions: an answer round the world comes within the probe's timeout, and faster
//! detection inside a region would buy nothing that connections do not tell sooner. Packets go over
//! the authenticated connections that are there anyway.

pub mod clock;
pub mod driver;
pub mod event;
pub mod identity;
#[cfg(test)]
mod tests;
pub mod wire;
mod wishes;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use holm_core::time::Mono;
use holm_protocol::ids::NodeId;
use tokio::time::Instant;

use crate::config::MembershipConfig;
use driver::{Driver, Now, Settings};

/// What gives the wall clock: the machine's, or a simulated one that follows tokio's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wall {
    /// The machine's.
    System,
    /// This many microseconds since 1970 when the driver was made.
    Simulated(u64),
}

/// The driver, and the clocks it goes by. Shared by the network's task and whoever asks.
#[derive(Debug)]
pub struct Members {
    driver: Mutex<Driver>,
    origin: Instant,
    wall: Wall,
}

impl Members {
    /// The membership of a node at its start number `boot`.
    #[must_use]
    pub fn new(node: NodeId, boot: u64, config: &MembershipConfig, seed: u64) -> Members {
        Members::with_wall(node, boot, config, (seed, Wall::System))
    }

    /// The same by a wall clock of one's own.
    #[must_use]
    pub fn with_wall(
        node: NodeId,
        boot: u64,
        config: &MembershipConfig,
        (seed, wall): (u64, Wall),
    ) -> Members {
        let settings = Settings {
            probe_interval: config.probe_interval,
            probe_timeout: config.probe_timeout,
            suspicion: config.suspicion,
            forget: config.forget,
        };
        let driver = Mutex::new(Driver::new(node, boot, settings, seed));
        Members { driver, origin: Instant::now(), wall }
    }

    /// The driver. Held for microseconds.
    pub fn lock(&self) -> MutexGuard<'_, Driver> {
        // The driver is whole between any two of its calls.
        self.driver.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Both clocks.
    #[must_use]
    pub fn now(&self) -> Now {
        let running = self.origin.elapsed();
        let wall_us = match self.wall {
            Wall::Simulated(base_us) => base_us + running.as_micros() as u64,
            Wall::System => {
                let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                // A clock before 1970 reads as 1970.
                wall.unwrap_or_default().as_micros() as u64
            }
        };
        Now { mono: Mono(running.as_micros() as u64), wall_us }
    }

    /// When the driver wants to be ticked, at most `longest` from now.
    #[must_use]
    pub fn next_wakeup(&self, longest: Duration) -> Instant {
        let due = Duration::from_micros(self.lock().next_wakeup().0);
        self.origin + due.min(self.origin.elapsed() + longest)
    }
}
