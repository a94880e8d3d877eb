//! How far places are from each other.
//!
//! Round trips are rounded medians as the large clouds publish them between their regions. One way
//! is not half of that: routes differ by direction, so each pair of regions has its own share.

use std::collections::BTreeMap;

use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use crate::net::Delay;

/// Places that a region can be at.
pub(super) const PLACES: [&str; 6] =
    ["us-east", "us-west", "eu-west", "ap-southeast", "ap-northeast", "sa-east"];

/// Round trips between them, milliseconds: row by row, to the places before it.
const ROUND_TRIPS_MS: [&[u64]; 6] =
    [&[], &[62], &[76, 138], &[216, 170, 174], &[146, 98, 204, 70], &[114, 174, 180, 320, 256]];

/// The round trip between two places, milliseconds; 0 within one.
fn round_trip_ms(one: usize, other: usize) -> u64 {
    let (near, far) = (one.min(other), one.max(other));
    ROUND_TRIPS_MS[far].get(near).copied().unwrap_or(0)
}

/// Delays between regions at different places, one way each.
pub(super) fn draw_delays(rng: &mut ChaCha8Rng, regions: usize) -> Vec<Vec<Delay>> {
    let mut places: Vec<usize> = (0..PLACES.len()).collect();
    let at: Vec<usize> =
        (0..regions).map(|_| places.swap_remove(rng.random_range(0..places.len()))).collect();
    let mut pairs = BTreeMap::new();
    for from in 0..regions {
        let base_us = rng.random_range(100..500);
        pairs.insert((from, from), Delay { base_us, jitter_us: rng.random_range(0..1_000) });
        for to in from + 1..regions {
            let round_trip_us = 1_000 * round_trip_ms(at[from], at[to]);
            // Up to three fifths of the way is in one direction.
            let there_us = round_trip_us * rng.random_range(40..=60) / 100;
            let mut delay =
                |base_us: u64| Delay { base_us, jitter_us: rng.random_range(0..=base_us / 8) };
            pairs.insert((from, to), delay(there_us));
            pairs.insert((to, from), delay(round_trip_us - there_us));
        }
    }
    let row = |from: usize| (0..regions).map(|to| pairs[&(from, to)]).collect();
    (0..regions).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::stream;

    /// Goal: every two places are a real distance apart, and the two ways of a pair of regions make
    /// up its round trip. Method: all pairs; drawn delays of three regions.
    #[test]
    fn distances_are_real() {
        for (one, place) in PLACES.iter().enumerate() {
            for (other, another) in PLACES.iter().enumerate().filter(|&(other, _)| other != one) {
                let ms = round_trip_ms(one, other);
                assert!((25..=350).contains(&ms), "{place} to {another}");
                assert_eq!(ms, round_trip_ms(other, one));
            }
        }
        let table: Vec<u64> = ROUND_TRIPS_MS.concat();
        for seed in 0..20 {
            let delays = draw_delays(&mut stream(seed, "links"), 3);
            for (one, other) in [(0, 1), (0, 2), (1, 2)] {
                let both_us = delays[one][other].base_us + delays[other][one].base_us;
                assert!(table.contains(&(both_us / 1_000)), "{both_us}");
            }
        }
    }
}
