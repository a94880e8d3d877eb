//! Round-trip times between regions: parsing and defaults.

use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// Round-trip times in turn for the pairs of regions that are not given, milliseconds: across the
/// Atlantic, across the Pacific, and half around the world.
const DEFAULTS_MS: [u64; 3] = [80, 160, 180];
/// The longest that can be asked for, milliseconds: a minute would outlast every timeout.
const RTT_MS_MAX: u64 = 2_000;

/// The round-trip time between two regions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PairRtt {
    /// One region.
    pub(super) a: String,
    /// The other.
    pub(super) b: String,
    /// There and back, microseconds.
    pub(super) rtt_us: u64,
}

impl PairRtt {
    /// Whether this is about these two regions, in either order.
    pub(super) fn joins(&self, one: &str, other: &str) -> bool {
        (self.a == one && self.b == other) || (self.a == other && self.b == one)
    }
}

/// Parses `us-east:eu-west=80` (milliseconds; fractions are fine).
///
/// # Errors
/// It is nothing of the kind.
pub(super) fn parse_pair(text: &str) -> Result<PairRtt, String> {
    let wrong = || format!("`{text}` is no round-trip time: write us-east:eu-west=80");
    let (pair, ms) = text.split_once('=').ok_or_else(wrong)?;
    let (a, b) = pair.split_once(':').ok_or_else(wrong)?;
    if a.is_empty() || b.is_empty() || a == b {
        return Err(wrong());
    }
    let ms: f64 = ms.parse().map_err(|_| wrong())?;
    if !(0.0..=RTT_MS_MAX as f64).contains(&ms) {
        return Err(format!("a round-trip time is 0 to {RTT_MS_MAX} ms, not {ms}"));
    }
    // The range was checked, so the number fits.
    Ok(PairRtt { a: a.to_owned(), b: b.to_owned(), rtt_us: (ms * 1_000.0).round() as u64 })
}

/// The round-trip time of every pair of regions: as given, or the next default.
///
/// # Errors
/// A pair was given twice, or names a region that is not there.
pub(super) fn all_pairs(regions: &[String], given: &[PairRtt]) -> Result<Vec<PairRtt>, Failure> {
    for (at, pair) in given.iter().enumerate() {
        if let Some(stranger) = [&pair.a, &pair.b].into_iter().find(|name| !regions.contains(name))
        {
            return Err(Failure::usage(
                format!("--rtt-ms names `{stranger}`, which is not one of --regions"),
                format!("the regions are {}", regions.join(", ")),
            ));
        }
        if given[..at].iter().any(|earlier| earlier.joins(&pair.a, &pair.b)) {
            return Err(Failure::usage(
                format!("--rtt-ms gives {}:{} twice", pair.a, pair.b),
                "give each pair once; it holds for both directions",
            ));
        }
    }
    let mut defaults = DEFAULTS_MS.into_iter().cycle();
    let mut pairs = Vec::new();
    for (at, a) in regions.iter().enumerate() {
        for b in &regions[at + 1..] {
            let default_ms = defaults.next().unwrap_or(DEFAULTS_MS[0]);
            let rtt_us = given
                .iter()
                .find(|pair| pair.joins(a, b))
                .map_or(default_ms * 1_000, |pair| pair.rtt_us);
            pairs.push(PairRtt { a: a.clone(), b: b.clone(), rtt_us });
        }
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// Goal: only what is meant parses. Method: good and bad texts.
    #[test]
    fn pairs_parse() {
        let pair = parse_pair("us-east:eu-west=80").unwrap();
        assert_eq!((pair.a.as_str(), pair.b.as_str(), pair.rtt_us), ("us-east", "eu-west", 80_000));
        assert_eq!(parse_pair("a:b=0.5").unwrap().rtt_us, 500);
        for bad in ["", "a:b", "a=3", "a:a=3", ":b=3", "a:b=-1", "a:b=x", "a:b=NaN", "a:b=2001"] {
            assert!(parse_pair(bad).is_err(), "{bad}");
        }
    }

    /// Goal: every pair has a time, in whatever order it was given. Method: three regions, the
    /// documented defaults, one given backwards.
    #[test]
    fn every_pair_has_a_time() {
        let regions = names(&["us-east", "eu-west", "ap-southeast"]);
        let times = |given: &[PairRtt]| -> Vec<u64> {
            all_pairs(&regions, given).unwrap().iter().map(|pair| pair.rtt_us / 1_000).collect()
        };
        assert_eq!(times(&[]), [80, 160, 180]);
        let given = parse_pair("eu-west:us-east=10").unwrap();
        assert_eq!(times(std::slice::from_ref(&given)), [10, 160, 180]);
        assert!(all_pairs(&regions, &[given.clone(), given]).is_err());
        assert!(all_pairs(&regions, &[parse_pair("us-east:mars=9").unwrap()]).is_err());
        assert_eq!(all_pairs(&names(&["one"]), &[]).unwrap(), []);
    }
}
