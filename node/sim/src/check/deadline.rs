//! Every call ends in time.

use crate::check::{Property, Verdict, Violation};

/// P9.
pub const IN_TIME: Property = Property {
    name: "calls end by their deadline",
    invariant: "P9",
    statement: "a node that was neither stopped nor slowed answers every request by its deadline and 100 ms",
    source: "TESTING 1, P9",
    tla: None,
    file: file!(),
};

/// How much later than its deadline a call may end, microseconds.
pub const SLACK_US: u64 = 100_000;

/// Checks one call: `asked_us` and `now_us` are the client's times, `allowed_us` its deadline
/// with the time its messages travel, `node` the words for whom was asked.
///
/// # Errors
/// It took too long.
pub fn check(asked_us: u64, now_us: u64, allowed_us: u64, node: &str) -> Verdict {
    let took_us = now_us.saturating_sub(asked_us);
    if took_us <= allowed_us + SLACK_US {
        return Ok(());
    }
    let (took, allowed) = (took_us / 1000, allowed_us / 1000);
    Err(Violation::new(&IN_TIME, format!("{node} took {took} ms for a call of {allowed} ms")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the deadline and its slack pass, a microsecond more does not.
    #[test]
    fn good_and_bad() {
        assert_eq!(check(5, 5 + 1000 + SLACK_US, 1000, "n1"), Ok(()));
        assert!(check(5, 6 + 1000 + SLACK_US, 1000, "n1").is_err());
    }
}
