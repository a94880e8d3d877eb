//! The fewest moves there can be, by a slow method that knows nothing of ours: minimum-cost flow.

use super::*;

/// An edge of the flow network; the edge after it (or before, if odd) is its reverse.
struct Edge {
    to: usize,
    room: u32,
    cost: i64,
}

#[derive(Default)]
struct Network {
    edges: Vec<Edge>,
    out: Vec<Vec<usize>>,
}

impl Network {
    fn vertex(&mut self) -> usize {
        self.out.push(Vec::new());
        self.out.len() - 1
    }

    fn edge(&mut self, from: usize, to: usize, room: u32, cost: i64) {
        self.out[from].push(self.edges.len());
        self.edges.push(Edge { to, room, cost });
        self.out[to].push(self.edges.len());
        self.edges.push(Edge { to: from, room: 0, cost: -cost });
    }

    /// Sends as much as possible by cheapest paths (Bellman and Ford): amount and cost.
    fn flow(&mut self, source: usize, sink: usize) -> (usize, i64) {
        let (mut amount, mut cost) = (0, 0);
        loop {
            let mut best = vec![i64::MAX; self.out.len()];
            let mut by = vec![usize::MAX; self.out.len()];
            let mut queue = std::collections::VecDeque::from([source]);
            best[source] = 0;
            while let Some(from) = queue.pop_front() {
                for &edge in &self.out[from] {
                    let Edge { to, room, cost } = self.edges[edge];
                    if room > 0 && best[from] + cost < best[to] {
                        best[to] = best[from] + cost;
                        by[to] = edge;
                        queue.push_back(to);
                    }
                }
            }
            if best[sink] == i64::MAX {
                return (amount, cost);
            }
            let mut at = sink;
            while at != source {
                self.edges[by[at]].room -= 1;
                self.edges[by[at] ^ 1].room += 1;
                at = self.edges[by[at] ^ 1].to;
            }
            amount += 1;
            cost += best[sink];
        }
    }
}

/// The fewest copies that must travel from `before` to any layout of the same nodes as `after`
/// with its load on each node, in the only region of the only placement.
fn fewest_moves(before: &Layout, after: &Layout) -> i64 {
    let spec = &after.placements()[0];
    let region = RegionId(0);
    let factor = spec.width();
    let mut zones: Vec<&str> = after.nodes().iter().map(|node| node.zone.as_str()).collect();
    zones.sort_unstable();
    zones.dedup();
    let spread = factor.min(zones.len());
    let mut network = Network::default();
    let (source, sink) = (network.vertex(), network.vertex());
    let holders: Vec<usize> = after.nodes().iter().map(|_| network.vertex()).collect();
    for (node, &holder) in after.nodes().iter().zip(&holders) {
        network.edge(holder, sink, after.partitions_of(node.id).count() as u32, 0);
    }
    for index in 0..spec.partitions() {
        let partition = Partition { placement: spec.id, index: index as u16 };
        let old = before.replicas_in(partition, region);
        // One replica in each of `spread` zones, the others anywhere.
        let (once, again) = (network.vertex(), network.vertex());
        network.edge(source, once, spread as u32, 0);
        network.edge(source, again, (factor - spread) as u32, 0);
        for zone in &zones {
            let here = network.vertex();
            network.edge(once, here, 1, 0);
            network.edge(again, here, factor as u32, 0);
            for (node, &holder) in after.nodes().iter().zip(&holders) {
                if node.zone == *zone {
                    network.edge(here, holder, 1, i64::from(!old.contains(&node.id)));
                }
            }
        }
    }
    let (amount, cost) = network.flow(source, sink);
    assert_eq!(amount, spec.partitions() * factor, "the layout's own loads are feasible");
    cost
}

/// Small clusters of one region: zone and capacity per node, and a factor.
fn small() -> impl Strategy<Value = LayoutSpec> {
    (nodes_of_region(9), 1_u8..=4).prop_map(|(members, factor)| {
        let nodes = members.iter().enumerate();
        let nodes = nodes.map(|(at, &(zone, capacity))| node(at as u64 + 1, "r", zone, capacity));
        let factor = factor.min(members.len() as u8 - 1);
        spec(nodes.collect(), placement(5, &[("r", factor)]))
    })
}

fn moved(before: &Layout, after: &Layout) -> i64 {
    before.moves(after).iter().map(|one| one.to.len() as i64).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Goal: what one node's coming or going moves is nearly the fewest that the new loads allow,
    /// and never fewer (which would mean that the model is wrong). In 6,000 changes all moves
    /// together were 0.6 percent above the fewest, and never more than 5 in one: the bound leaves
    /// room.
    #[test]
    fn moves_are_nearly_the_fewest_possible(
        one in small(),
        zone in 0_usize..6,
        capacity in 1_u32..5,
        gone in any::<prop::sample::Index>(),
    ) {
        let before = first(&one);
        let joined = after(&before, |spec| spec.nodes.push(node(100, "r", zone, capacity)));
        let left = after(&joined, |spec| drop(spec.nodes.remove(gone.index(spec.nodes.len()))));
        for (from, to) in [(&before, &joined), (&joined, &left)] {
            let (moves, fewest) = (moved(from, to), fewest_moves(from, to));
            prop_assert!(moves >= fewest, "{moves} moves, but {fewest} are needed");
            prop_assert!(moves <= fewest + fewest / 4 + 6, "{moves} moves, {fewest} would do");
        }
    }
}
