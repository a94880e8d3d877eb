//! Brings every node to its target by moving replicas along shortest paths.
//!
//! An edge from node `a` to node `b` is a partition that `a` holds, `b` does not, and whose row
//! stays legal if `b` takes `a`'s place. A path from a node above its target to a node below it
//! takes one partition from the former and adds one to the latter. The rows' and nodes' limits form
//! a flow network, so that a path exists as long as the targets are not met, and a shortest one
//! never uses a partition in two ways that exclude each other.
//!
//! Moving a replica that is new in its row costs nothing, moving a previous one costs a transfer of
//! the partition. So the cheapest path is looked for first: breadth first by the number of previous
//! replicas displaced. Such a path might use a partition twice in conflict; it is then
//! taken back, and the one with the fewest edges is used.

use std::cmp::Reverse;

use super::region::Region;

/// A complete assignment on its way to the targets.
#[derive(Debug)]
pub(super) struct Board<'a> {
    region: &'a Region,
    targets: &'a [u32],
    previous: &'a [Vec<u16>],
    rows: Vec<Vec<u16>>,
    /// Per node the partitions it holds, in an order that scatters.
    held: Vec<Vec<u32>>,
}

/// What counts as the length of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Displaced,
    Edges,
}

/// One edge of a path: a partition goes from one node to another.
#[derive(Debug, Clone, Copy)]
struct Step {
    partition: u32,
    from: u16,
    to: u16,
}

/// A search on its way.
#[derive(Debug)]
struct Search {
    /// Nodes not reached yet, those furthest below target in front.
    unseen: Vec<u16>,
    /// Per node the edge by which it was reached.
    step_to: Vec<Option<Step>>,
}

impl Search {
    /// The path that ends at a node, from its end to its start.
    fn trace(&self, end: u16) -> Vec<Step> {
        let mut path = Vec::new();
        let mut node = end;
        while let Some(step) = self.step_to[usize::from(node)] {
            path.push(step);
            node = step.from;
        }
        path
    }
}

impl<'a> Board<'a> {
    /// `rows` are complete and legal.
    pub(super) fn new(
        region: &'a Region,
        targets: &'a [u32],
        previous: &'a [Vec<u16>],
        rows: Vec<Vec<u16>>,
    ) -> Board<'a> {
        let mut held = vec![Vec::new(); region.nodes()];
        for (partition, row) in rows.iter().enumerate() {
            for &node in row {
                held[usize::from(node)].push(partition as u32);
            }
        }
        for (node, partitions) in held.iter_mut().enumerate() {
            partitions.sort_by_cached_key(|&p| region.weight(p as usize, node as u16));
        }
        Board { region, targets, previous, rows, held }
    }

    /// The rows, all targets met; nothing if no path was found, which would be a mistake here.
    pub(super) fn repair(mut self) -> Option<Vec<Vec<u16>>> {
        let nodes = || 0..self.region.nodes() as u16;
        let surplus: i64 = nodes().map(|node| self.surplus(node).max(0)).sum();
        for _ in 0..surplus {
            let cheap = self.path(Length::Displaced)?;
            if !self.follow(&cheap) {
                let short = self.path(Length::Edges)?;
                if !self.follow(&short) {
                    return None;
                }
            }
        }
        let met = (0..self.region.nodes() as u16).all(|node| self.surplus(node) == 0);
        met.then_some(self.rows)
    }

    fn surplus(&self, node: u16) -> i64 {
        let node = usize::from(node);
        self.held[node].len() as i64 - i64::from(self.targets[node])
    }

    /// A shortest path from any node above its target to any below.
    fn path(&self, length: Length) -> Option<Vec<Step>> {
        let nodes = 0..self.region.nodes() as u16;
        let (mut level, mut unseen): (Vec<u16>, Vec<u16>) =
            nodes.partition(|&node| self.surplus(node) > 0);
        level.sort_by_key(|&node| Reverse(self.surplus(node)));
        unseen.sort_by_key(|&node| self.surplus(node));
        let mut search = Search { unseen, step_to: vec![None; self.region.nodes()] };
        while !level.is_empty() {
            if length == Length::Displaced {
                // Free edges first: what they reach belongs to the same level.
                let mut at = 0;
                while at < level.len() {
                    let (reached, end) = self.expand(level[at], Some(false), &mut search);
                    if let Some(end) = end {
                        return Some(search.trace(end));
                    }
                    level.extend(reached);
                    at += 1;
                }
            }
            let displaced = (length == Length::Displaced).then_some(true);
            let mut next = Vec::new();
            for &from in &level {
                let (reached, end) = self.expand(from, displaced, &mut search);
                if let Some(end) = end {
                    return Some(search.trace(end));
                }
                next.extend(reached);
            }
            level = next;
        }
        None
    }

    /// Follows all edges out of a node, or only those that displace a previous replica, or do not:
    /// the nodes reached, and the one below its target at which the search ends, if there is one.
    fn expand(
        &self,
        from: u16,
        displaced: Option<bool>,
        search: &mut Search,
    ) -> (Vec<u16>, Option<u16>) {
        let mut reached = Vec::new();
        for &partition in &self.held[usize::from(from)] {
            if search.unseen.is_empty() {
                break;
            }
            let row = &self.rows[partition as usize];
            let was_there = self.previous[partition as usize].contains(&from);
            if displaced.is_some_and(|wanted| wanted != was_there) {
                continue;
            }
            let mut end = None;
            search.unseen.retain(|&to| {
                let usable = !row.contains(&to) && self.region.may_replace(row, from, to);
                if end.is_some() || !usable {
                    return true;
                }
                search.step_to[usize::from(to)] = Some(Step { partition, from, to });
                if self.surplus(to) < 0 {
                    end = Some(to);
                }
                reached.push(to);
                false
            });
            if end.is_some() {
                return (reached, end);
            }
        }
        (reached, None)
    }

    /// Moves replicas along a path, or leaves everything as it is and says no.
    fn follow(&mut self, path: &[Step]) -> bool {
        for (at, &step) in path.iter().enumerate() {
            let row = &self.rows[step.partition as usize];
            let possible = row.contains(&step.from)
                && !row.contains(&step.to)
                && self.region.may_replace(row, step.from, step.to);
            if !possible {
                for &Step { partition, from, to } in path[..at].iter().rev() {
                    self.move_replica(Step { partition, from: to, to: from });
                }
                return false;
            }
            self.move_replica(step);
        }
        true
    }

    fn move_replica(&mut self, Step { partition, from, to }: Step) {
        for node in &mut self.rows[partition as usize] {
            if *node == from {
                *node = to;
            }
        }
        self.held[usize::from(from)].retain(|&held| held != partition);
        self.held[usize::from(to)].push(partition);
    }
}
