//! The test of the tester: each bug put back, and how many seeds it takes to find it.
//!
//! One lucky seed says little, so seeds are counted from several places that have none in common.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use holm_sim::plan::Plan;
use holm_sim::sim::Sim;
use holm_sim::tamper::Tamper;

use crate::Verdict;
use crate::figures::expecting_panics;
use crate::many::in_parallel;

/// Where seeds are counted from. Odd, so that one is in the middle.
const STARTS: [u64; 7] = [0, 100_000, 200_000, 300_000, 400_000, 500_000, 600_000];
/// Within this many seeds half of the starts must find the bug.
const MEDIAN_MAX: u64 = 1_000;
/// Seeds after which a start gives up.
const SEEDS_MAX: u64 = 3_000;

/// One start of one bug.
struct Found {
    bug: usize,
    start: usize,
    /// Seeds it took, and the rule that was broken; `None` if it was given up.
    seeds: Option<(u64, &'static str)>,
}

pub(crate) fn run() -> Verdict {
    expecting_panics(|| {
        let next = AtomicUsize::new(0);
        let jobs = Tamper::ALL.len() * STARTS.len();
        let missed = in_parallel(
            || {
                let job = next.fetch_add(1, Ordering::Relaxed);
                (job < jobs).then(|| search(job / STARTS.len(), job % STARTS.len()))
            },
            |found| tell(found.into_iter()),
        );
        if missed == 0 { Verdict::Clean } else { Verdict::Broken }
    })
}

fn search(bug: usize, start: usize) -> Found {
    let tamper = Some(Tamper::ALL[bug]);
    let seeds = (1..=SEEDS_MAX).find_map(|count| {
        let plan = Plan { tamper, ..Plan::from_seed(STARTS[start] + count - 1) };
        let sound = Plan { tamper: None, ..plan.clone() };
        let violation = Sim::new(plan, false).run().violation?;
        // What breaks a rule without the bug too is not found by it.
        if let Some(other) = Sim::new(sound, false).run().violation {
            eprintln!("seed {} breaks a rule without any bug: {other}", STARTS[start] + count - 1);
            return None;
        }
        Some((count, violation.property.name))
    });
    Found { bug, start, seeds }
}

/// Tells bug by bug. Returns how many were missed.
fn tell(found: impl Iterator<Item = Found>) -> usize {
    let mut bugs: Vec<Vec<Found>> = Tamper::ALL.iter().map(|_| Vec::new()).collect();
    let (mut told, mut missed) = (0, 0);
    for one in found {
        let bug = one.bug;
        bugs[bug].push(one);
        while let Some(starts) = bugs.get_mut(told).filter(|starts| starts.len() == STARTS.len()) {
            let is_found = tell_bug(Tamper::ALL[told], starts);
            missed += usize::from(!is_found);
            told += 1;
        }
    }
    println!("{} of {} bugs found, median at most {MEDIAN_MAX} seeds", told - missed, told);
    missed
}

fn tell_bug(tamper: Tamper, starts: &mut [Found]) -> bool {
    starts.sort_by_key(|found| found.start);
    let first = starts[0].seeds.map_or("not found from seed 0 on".to_owned(), |(seeds, _)| {
        format!("first found by seed {}", STARTS[0] + seeds - 1)
    });
    let rules: BTreeSet<&str> = starts.iter().filter_map(|found| Some(found.seeds?.1)).collect();
    let rules: Vec<&str> = rules.into_iter().collect();
    let counts: Vec<Option<u64>> = starts.iter().map(|found| Some(found.seeds?.0)).collect();
    let (least, middle, most) = spread(&counts);
    let shown = |count: Option<u64>| {
        count.map_or(format!("more than {SEEDS_MAX}"), |count| count.to_string())
    };
    let is_found = middle.is_some_and(|middle| middle <= MEDIAN_MAX);
    println!(
        "{} {tamper:?}: {first}; median {} seeds of {} starts ({} to {}); {}",
        if is_found { "ok    " } else { "MISSED" },
        shown(middle),
        STARTS.len(),
        shown(least),
        shown(most),
        rules.join(", "),
    );
    is_found
}

/// The least, the middle and the most. A start that was given up counts as more than any.
fn spread(counts: &[Option<u64>]) -> (Option<u64>, Option<u64>, Option<u64>) {
    let mut counts = counts.to_vec();
    counts.sort_by_key(|count| count.unwrap_or(u64::MAX));
    (counts[0], counts[counts.len() / 2], counts[counts.len() - 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the median counts starts that were given up, and the verdict follows it.
    #[test]
    fn medians() {
        let (few, many) = (Some(3), Some(2_000));
        assert_eq!(spread(&[many, few, None]), (few, many, None));
        assert_eq!(spread(&[None, few, None]), (few, None, None));
        let starts = |counts: [Option<u64>; 3]| -> Vec<Found> {
            let one = |(start, count): (usize, Option<u64>)| {
                let seeds = count.map(|count| (count, "a rule"));
                Found { bug: 0, start, seeds }
            };
            counts.into_iter().enumerate().map(one).collect()
        };
        assert!(tell_bug(Tamper::ALL[0], &mut starts([few, None, few])));
        assert!(!tell_bug(Tamper::ALL[0], &mut starts([few, many, many])));
        assert!(!tell_bug(Tamper::ALL[0], &mut starts([few, None, None])));
    }

    /// Goal: seeds of two starts never meet.
    #[test]
    fn starts_are_apart() {
        assert!(STARTS.windows(2).all(|pair| pair[0] + SEEDS_MAX <= pair[1]));
    }
}
