//! Who comes first: the order of a partition's replicas within a region.
//!
//! The first replica coordinates by preference, so a node is to be first for `1/r` of the
//! partitions it holds, rounded down or up. Each partition choosing each of its replicas with
//! weight `1/r` meets that exactly, so a whole-numbered choice exists and augmenting paths find it.
//! Whoever was first stays first where possible.

use std::cmp::Reverse;

use super::region::Region;

/// Puts the rows, complete, one behind the other, each in its order. `previous` has a row for each
/// partition whose front, if still a replica, was its first.
pub(super) fn order(region: &Region, mut rows: Vec<Vec<u16>>, previous: &[Vec<u16>]) -> Vec<u16> {
    let firsts = Firsts::new(region, &rows, previous).balance();
    for (partition, row) in rows.iter_mut().enumerate() {
        let first = firsts[partition];
        row.sort_by_cached_key(|&node| (node != first, Reverse(region.weight(partition, node))));
    }
    rows.concat()
}

#[derive(Debug)]
struct Firsts<'a> {
    rows: &'a [Vec<u16>],
    /// Per partition who is first.
    first: Vec<u16>,
    /// Per node the partitions for which it is first.
    led: Vec<Vec<u32>>,
    /// Per node the fewest and the most it should be first for.
    bounds: Vec<(usize, usize)>,
}

impl<'a> Firsts<'a> {
    fn new(region: &Region, rows: &'a [Vec<u16>], previous: &[Vec<u16>]) -> Firsts<'a> {
        let mut held = vec![0_usize; region.nodes()];
        for &node in rows.iter().flatten() {
            held[usize::from(node)] += 1;
        }
        let mut led = vec![Vec::new(); region.nodes()];
        let stays = |partition: usize| {
            previous[partition].first().copied().filter(|node| rows[partition].contains(node))
        };
        for partition in 0..rows.len() {
            if let Some(node) = stays(partition) {
                led[usize::from(node)].push(partition as u32);
            }
        }
        let mut first = Vec::with_capacity(rows.len());
        for (partition, row) in rows.iter().enumerate() {
            first.push(stays(partition).unwrap_or_else(|| {
                // The one that is furthest behind its share: led / held is least.
                let behind = |&node: &u16| {
                    let node_at = usize::from(node);
                    let share = led[node_at].len() * region.partitions / held[node_at];
                    (share, region.weight(partition, node))
                };
                let node = row.iter().copied().min_by_key(behind).unwrap_or(0);
                led[usize::from(node)].push(partition as u32);
                node
            }));
        }
        let replicas = region.replicas;
        let bounds = held.iter().map(|held| (held / replicas, held.div_ceil(replicas))).collect();
        Firsts { rows, first, led, bounds }
    }

    /// Who is first for each partition, everybody within its bounds.
    fn balance(mut self) -> Vec<u16> {
        // First nobody above, then nobody below. A path always exists; if it did not, the order
        // would be less even and still an order.
        while self.shift(|led, (_, most)| led > most, |led, (_, most)| led < most) {}
        while self.shift(|led, (least, _)| led > least, |led, (least, _)| led < least) {}
        self.first
    }

    /// Hands one partition on along a shortest path from a node that gives to one that takes. Says
    /// whether there was such a path.
    fn shift(
        &mut self,
        gives: impl Fn(usize, (usize, usize)) -> bool,
        takes: impl Fn(usize, (usize, usize)) -> bool,
    ) -> bool {
        let nodes = || 0..self.led.len();
        let is = |test: &dyn Fn(usize, (usize, usize)) -> bool, node: usize| {
            test(self.led[node].len(), self.bounds[node])
        };
        if !nodes().any(|node| is(&takes, node)) {
            return false;
        }
        let mut queue: Vec<u16> =
            nodes().filter(|&node| is(&gives, node)).map(|node| node as u16).collect();
        let mut seen = vec![false; self.led.len()];
        for &node in &queue {
            seen[usize::from(node)] = true;
        }
        let mut step_to: Vec<Option<(u16, u32)>> = vec![None; self.led.len()];
        let mut at = 0;
        while at < queue.len() {
            let from = queue[at];
            at += 1;
            for &partition in &self.led[usize::from(from)] {
                for &to in &self.rows[partition as usize] {
                    if std::mem::replace(&mut seen[usize::from(to)], true) {
                        continue;
                    }
                    step_to[usize::from(to)] = Some((from, partition));
                    if is(&takes, usize::from(to)) {
                        self.hand_on(to, &step_to);
                        return true;
                    }
                    queue.push(to);
                }
            }
        }
        false
    }

    fn hand_on(&mut self, end: u16, step_to: &[Option<(u16, u32)>]) {
        let mut to = end;
        while let Some((from, partition)) = step_to[usize::from(to)] {
            self.first[partition as usize] = to;
            self.led[usize::from(from)].retain(|&led| led != partition);
            self.led[usize::from(to)].push(partition);
            to = from;
        }
    }
}
