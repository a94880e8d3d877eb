//! How many partitions each node of a region is to hold.
//!
//! The ideal share ([`Quotas`]) is proportional to capacity within the limits of the
//! [module](super); it is a fixed-point number. [`targets`] rounds it down or up so that the sum is
//! right, zone by zone, up first where a node already holds more, so that rounding moves nothing.

use std::cmp::Reverse;

use super::region::Region;

/// One partition as a quota. With at most 2^24 replicas in a region a quota stays below 2^56.
pub(super) const ONE: u64 = 1 << 32;
/// Every division loses less than one unit and a zone sums up at most 2^12 of them: a fraction this
/// close to one is a whole partition.
pub(super) const NEARLY_ONE: u64 = ONE - (1 << 16);

/// The ideal shares of a region, in units of 2^-32 partitions.
#[derive(Debug)]
pub(super) struct Quotas {
    zones: Vec<u64>,
    /// Per node.
    pub(super) nodes: Vec<u64>,
}

/// Shares the region's replicas out by capacity, zones' limits first, then nodes'.
pub(super) fn quotas(region: &Region) -> Quotas {
    let whole = region.partitions as u64 * ONE;
    let replicas = region.replicas as u64;
    let mut quotas =
        Quotas { zones: vec![0; region.members.len()], nodes: vec![0; region.nodes()] };
    if region.members.len() >= region.replicas {
        // No zone holds a partition twice.
        let capacity = |members: &Vec<u16>| capacities(region, members).iter().sum();
        let weights: Vec<u64> = region.members.iter().map(capacity).collect();
        quotas.zones = share(replicas * whole, &weights, whole);
        for (zone, members) in region.members.iter().enumerate() {
            let quota = quotas.zones[zone];
            quotas.share_among(region, members, quota);
        }
        return quotas;
    }
    // Every zone holds every partition. A zone that would not by its capacity gets just that; the
    // others share the rest, whereupon more of them may fall below.
    let mut open: Vec<usize> = (0..region.members.len()).collect();
    let mut rest = replicas * whole;
    while !open.is_empty() {
        let members: Vec<u16> =
            open.iter().flat_map(|&zone| &region.members[zone]).copied().collect();
        quotas.share_among(region, &members, rest);
        for &zone in &open {
            let nodes = region.members[zone].iter();
            quotas.zones[zone] = nodes.map(|&node| quotas.nodes[usize::from(node)]).sum();
        }
        let (below, above): (Vec<usize>, Vec<usize>) =
            open.iter().partition(|&&zone| quotas.zones[zone] + (ONE - NEARLY_ONE) < whole);
        if below.is_empty() {
            break;
        }
        for zone in below {
            quotas.zones[zone] = whole;
            quotas.share_among(region, &region.members[zone], whole);
            rest -= whole; // The others' nodes can hold all replicas but one in each zone closed.
        }
        open = above;
    }
    quotas
}

impl Quotas {
    fn share_among(&mut self, region: &Region, members: &[u16], total: u64) {
        let shares = share(total, &capacities(region, members), region.partitions as u64 * ONE);
        for (&node, share) in members.iter().zip(shares) {
            self.nodes[usize::from(node)] = share;
        }
    }
}

fn capacities(region: &Region, members: &[u16]) -> Vec<u64> {
    members.iter().map(|&node| u64::from(region.capacities[usize::from(node)])).collect()
}

/// Splits `total` in proportion to `weights`, nobody getting more than `cap`; what is above is
/// split among the rest. `total` is at most `cap` for each weight.
fn share(total: u64, weights: &[u64], cap: u64) -> Vec<u64> {
    let mut shares = vec![0; weights.len()];
    let mut open: Vec<usize> = (0..weights.len()).collect();
    let mut left = u128::from(total);
    loop {
        let weight: u128 = open.iter().map(|&at| u128::from(weights[at])).sum();
        if weight == 0 {
            return shares;
        }
        let product = |at: usize| left * u128::from(weights[at]);
        let (full, rest): (Vec<usize>, Vec<usize>) =
            open.iter().partition(|&&at| product(at) >= u128::from(cap) * weight);
        if full.is_empty() {
            for at in rest {
                shares[at] = (product(at) / weight) as u64; // Below the cap, which is 64 bits.
            }
            return shares;
        }
        for at in full {
            shares[at] = cap;
            left = left.saturating_sub(u128::from(cap));
        }
        open = rest;
    }
}

/// Rounds the quotas to whole partitions. `held` is what each node holds already.
///
/// The sum is `P * r`; every node gets its quota rounded down or up; no node exceeds `P`; zones
/// keep their limits.
pub(super) fn targets(region: &Region, held: &[u32]) -> Vec<u32> {
    let quotas = quotas(region);
    let count = |node: &u16| held[usize::from(*node)];
    let held_by_zone = region.members.iter().map(|members| members.iter().map(count).sum());
    let zones: Vec<Candidate> = quotas
        .zones
        .iter()
        .zip(held_by_zone)
        .zip(&region.members)
        .map(|((&quota, held), members)| Candidate {
            quota,
            held,
            weight: region.weight(usize::MAX, members[0]), // A zone has at least one node.
        })
        .collect();
    let total = (region.partitions * region.replicas) as u64;
    let mut targets = vec![0; region.nodes()];
    for (members, total) in region.members.iter().zip(round(total, &zones)) {
        let nodes: Vec<Candidate> = members
            .iter()
            .map(|&node| Candidate {
                quota: quotas.nodes[usize::from(node)],
                held: count(&node),
                weight: region.weight(usize::MAX, node),
            })
            .collect();
        for (&node, target) in members.iter().zip(round(u64::from(total), &nodes)) {
            targets[usize::from(node)] = target;
        }
    }
    targets
}

/// One claimant of a whole partition more.
struct Candidate {
    quota: u64,
    held: u32,
    weight: u64,
}

/// Rounds quotas, which add up to `total` but for lost units, down or up so that they do.
fn round(total: u64, candidates: &[Candidate]) -> Vec<u32> {
    // A quota is at most P = 2^16 partitions for a node and 2^24 for a zone.
    let mut rounded: Vec<u32> = candidates.iter().map(|one| (one.quota / ONE) as u32).collect();
    let sum: u64 = rounded.iter().map(|&down| u64::from(down)).sum();
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by_key(|&at| {
        let Candidate { quota, held, weight } = candidates[at];
        let fraction = quota % ONE;
        let holds_more = fraction > 0 && held > rounded[at];
        (Reverse(fraction >= NEARLY_ONE), Reverse(holds_more), Reverse(fraction), weight)
    });
    // Fewer are left over than there are candidates with a fraction.
    for &at in order.iter().take(total.saturating_sub(sum) as usize) {
        rounded[at] += 1;
    }
    rounded
}
