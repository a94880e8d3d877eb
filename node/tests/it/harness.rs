//! What every test needs: certificates, nodes, clusters, raw connections, patience.

pub(crate) mod clock;
pub(crate) mod cluster;
pub(crate) mod holmd;
pub(crate) mod netns;
pub(crate) mod peer;
pub(crate) mod pki;
pub(crate) mod raw;
pub(crate) mod strace;

use std::future::Future;
use std::io::Write;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// Everything must have happened by then. Generous: test machines are busy.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// How often a condition that nobody announces is looked at.
const GLANCE: Duration = Duration::from_millis(10);

/// Set to 1 where every tool and privilege is there, so that nothing may be left out. `cargo xtask`
/// sets it for root and in CI.
const REQUIRE_TOOLS: &str = "HOLM_TESTS_REQUIRE_TOOLS";

/// Says that a test is left out on this machine, and why; a failure where nothing may be left out.
pub(crate) fn skip(reason: &str) {
    let is_required = std::env::var_os(REQUIRE_TOOLS).is_some_and(|value| value == "1");
    assert!(!is_required, "left out, although {REQUIRE_TOOLS} is 1: {reason}");
    // Not by the macro: what it writes is shown only for tests that fail.
    let _ = writeln!(std::io::stderr(), "skipped: {reason}");
}

/// Waits for a future, not for ever.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(DEADLINE, future).await {
        Ok(done) => done,
        Err(_) => panic!("not within {DEADLINE:?}: {what}"),
    }
}

/// Waits until a condition holds; a condition that takes long to find out counts too.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !within(what, holds()).await {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        sleep(GLANCE).await;
    }
}

/// Numbers that look random and are the same in every run (splitmix64).
#[derive(Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// The next number.
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.roll() % end as u64) as usize
    }

    /// So many bytes.
    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.roll() as u8).collect()
    }
}
