//! Who holds which partition of a region: steps 2 and 3 of the [module](super).

use std::cmp::Reverse;

use super::primary;
use super::region::Region;
use super::repair::Board;
use super::targets;

/// Assigns every partition of a region: one row of `r` nodes (positions in the region) after
/// another, the one that comes first in front. `previous` has a row for each partition, with the
/// nodes that may stay.
pub(super) fn assign(region: &Region, previous: Option<&[Vec<u16>]>) -> Vec<u16> {
    let none = vec![Vec::new(); region.partitions];
    let previous = previous.unwrap_or(&none);
    let mut held = vec![0; region.nodes()];
    for &node in previous.iter().flatten() {
        held[usize::from(node)] += 1;
    }
    let targets = targets::targets(region, &held);
    let rows = if held.iter().all(|&partitions| partitions == 0) {
        draw(region, &targets)
    } else {
        keep(region, &targets, previous, held)
    };
    primary::order(region, rows, previous)
}

/// A first assignment: row by row, by systematic sampling.
///
/// With `k` rows to go, all nodes lie side by side, zone by zone, each as long as it still needs
/// partitions: `k * r` in all. Points at distance `k`, from a random start, pick `r` of them. No
/// node is longer than `k`, so none is picked twice; with at least `r` zones no zone is longer than
/// `k` either; with fewer none is shorter. All that still holds with `k - 1` rows to go, so
/// everybody ends with exactly its target.
fn draw(region: &Region, targets: &[u32]) -> Vec<Vec<u16>> {
    let mut needed: Vec<usize> = targets.iter().map(|&target| target as usize).collect();
    let mut zones = region.members.clone();
    let mut rows = Vec::with_capacity(region.partitions);
    for partition in 0..region.partitions {
        let to_go = region.partitions - partition;
        let mut draws = region.draws(partition);
        draws.shuffle(&mut zones);
        let mut point = draws.below(to_go);
        let mut end = 0;
        let mut row = Vec::with_capacity(region.replicas);
        for zone in &mut zones {
            draws.shuffle(zone);
            for &node in &*zone {
                let need = &mut needed[usize::from(node)];
                end += *need;
                if point < end {
                    row.push(node);
                    *need -= 1;
                    point += to_go;
                }
            }
        }
        rows.push(row);
    }
    rows
}

/// An assignment that keeps what it can of the previous one and meets the targets.
fn keep(
    region: &Region,
    targets: &[u32],
    previous: &[Vec<u16>],
    mut held: Vec<u32>,
) -> Vec<Vec<u16>> {
    let surplus = |held: &[u32], node: u16| {
        i64::from(held[usize::from(node)]) - i64::from(targets[usize::from(node)])
    };
    let mut rows = previous.to_vec();
    for (partition, row) in rows.iter_mut().enumerate() {
        // Too many replicas, or too many in one zone: the most loaded goes.
        while !region.is_legal(row) {
            let crowded = row.len() - region.zones_of(row) > region.replicas - region.spread;
            let may_go =
                |node: u16| !crowded || region.in_zone(row, region.zones[usize::from(node)]) > 1;
            let candidates = row.iter().enumerate().filter(|&(_, &node)| may_go(node));
            let key = |&(_, &node): &(usize, &u16)| {
                (surplus(&held, node), Reverse(region.weight(partition, node)))
            };
            let Some((at, _)) = candidates.max_by_key(key) else { break };
            held[usize::from(row.remove(at))] -= 1;
        }
    }
    for (partition, row) in rows.iter_mut().enumerate() {
        while row.len() < region.replicas {
            let all = 0..region.nodes() as u16;
            let fits = |node: &u16| !row.contains(node) && region.may_add(row, *node);
            let key = |&node: &u16| (Reverse(surplus(&held, node)), region.weight(partition, node));
            let Some(node) = all.filter(fits).max_by_key(key) else { break };
            row.push(node);
            held[usize::from(node)] += 1;
        }
    }
    // A legal row can always be completed, and targets can always be met: a first assignment is
    // drawn only if one of those were wrong, and costs moves, not correctness.
    let complete = rows.iter().all(|row| row.len() == region.replicas);
    let repaired = complete.then(|| Board::new(region, targets, previous, rows).repair()).flatten();
    debug_assert!(repaired.is_some(), "no assignment meets the targets");
    repaired.unwrap_or_else(|| draw(region, targets))
}
