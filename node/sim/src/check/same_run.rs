//! The same seed is the same run.

use crate::check::{Property, Verdict, Violation};
use crate::sim::Report;

/// I12.
pub const SAME: Property = Property {
    name: "one seed, one run",
    invariant: "I12",
    statement: "two runs of one plan take the same steps, byte for byte",
    source: "FoundationDB (SIGMOD 2021) 4: deterministic simulation",
    tla: None,
    file: file!(),
};

/// Compares two runs of one plan.
///
/// # Errors
/// They differ.
pub fn check(one: &Report, other: &Report) -> Verdict {
    if one.digest == other.digest && one.steps == other.steps {
        return Ok(());
    }
    let (steps, others) = (one.steps, other.steps);
    let differ = one.trace.iter().zip(&other.trace).position(|(one, other)| one != other);
    let at = differ.map_or(String::new(), |line| format!(", first in line {line}"));
    let how = format!("seed {}: {steps} steps and {others} steps differ{at}", one.plan.seed);
    Err(Violation::new(&SAME, how))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Sim;

    /// Goal: a run is equal to itself repeated and differs from another seed's.
    #[test]
    fn good_and_bad() {
        let (one, again, other) = (Sim::run_seed(1), Sim::run_seed(1), Sim::run_seed(2));
        assert_eq!(check(&one, &again), Ok(()));
        assert!(check(&one, &other).is_err());
    }
}
