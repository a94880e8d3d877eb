//! Queues and caches stay within their limits.

use holm_core::shard::config::ShardConfig;
use holm_core::shard::event::Counters;

use crate::check::{Property, Verdict, Violation};

/// I10.
pub const BOUNDED: Property = Property {
    name: "queues and caches are bounded",
    invariant: "I10",
    statement: "requests in flight, lingering writes, the bytes that both hold, relayed writes, cached bytes and bytes of hints never exceed their limits",
    source: "TigerBeetle: every queue has a limit; DESIGN 5",
    tla: None,
    file: file!(),
};

/// An object may be this large before the cache is turned, bytes: one batch's objects are kept
/// whatever the limit.
const BATCH_BYTES_MAX: u64 = 1 << 20;

/// An object of the simulated workloads is smaller, bytes: 64 siblings of 600 bytes and a context.
const OBJECT_BYTES_MAX: u64 = 64 << 10;

/// Checks one shard's counters.
///
/// # Errors
/// The limit that is exceeded.
pub fn check(config: &ShardConfig, counters: &Counters, place: &str) -> Verdict {
    let limits = [
        ("requests in flight", counters.in_flight, config.in_flight_max as u64),
        ("lingering writes", counters.lingering, config.lingering_max as u64),
        // The last request that was admitted may bring a whole object.
        ("held bytes", counters.held_bytes, config.held_bytes_max as u64 + OBJECT_BYTES_MAX),
        ("relayed writes", counters.relays, config.relays_max as u64),
        ("bytes of hints", counters.hint_bytes, config.hint_bytes_max as u64),
        ("cached bytes", counters.cache_bytes, config.cache_bytes_max as u64 + BATCH_BYTES_MAX),
    ];
    match limits.iter().find(|(_, is, limit)| is > limit) {
        None => Ok(()),
        Some((what, is, limit)) => {
            Err(Violation::new(&BOUNDED, format!("{place}: {is} {what}, limit {limit}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: each limit is told when it is exceeded, and not before.
    #[test]
    fn good_and_bad() {
        let config = ShardConfig::test_min();
        let at = Counters {
            in_flight: config.in_flight_max as u64,
            lingering: config.lingering_max as u64,
            relays: config.relays_max as u64,
            ..Counters::default()
        };
        assert_eq!(check(&config, &at, "n1"), Ok(()));
        let more = Counters { in_flight: at.in_flight + 1, ..at };
        assert!(check(&config, &more, "n1").is_err());
        let more = Counters { lingering: at.lingering + 1, ..at };
        assert!(check(&config, &more, "n1").is_err());
        let more = Counters { relays: at.relays + 1, ..at };
        assert!(check(&config, &more, "n1").is_err());
        let hint_bytes = config.hint_bytes_max as u64;
        assert_eq!(check(&config, &Counters { hint_bytes, ..at }, "n1"), Ok(()));
        assert!(check(&config, &Counters { hint_bytes: hint_bytes + 1, ..at }, "n1").is_err());
        let held_bytes = config.held_bytes_max as u64 + OBJECT_BYTES_MAX;
        assert_eq!(check(&config, &Counters { held_bytes, ..at }, "n1"), Ok(()));
        assert!(check(&config, &Counters { held_bytes: held_bytes + 1, ..at }, "n1").is_err());
        let more = Counters { cache_bytes: 1 << 30, ..at };
        assert!(check(&config, &more, "n1").is_err());
    }
}
