//! A layout without some of its nodes, where everything else stays where it is.
//!
//! [`Layout::compute`] weighs the whole anew, and may move what need not move. Here only what the
//! removed nodes held finds new places: where fewest of the partition's replicas share a zone, then
//! where the load is least for the capacity. Rows keep their order, so that the next in line comes
//! first; who is new comes last. The next computed layout evens out what this one leaves uneven.

use core::cmp::Reverse;

use holm_protocol::ids::Partition;

use super::{Layout, LayoutError, LayoutNode, LayoutSpec, check_succession};

impl Layout {
    /// The layout that `spec` describes, where every node of it keeps all partitions that it holds, unless
    /// a factor is lower than what is left of a row: then those in front keep it.
    ///
    /// # Errors
    /// [`LayoutError`], as for [`Layout::compute`].
    pub fn without(&self, spec: LayoutSpec) -> Result<Layout, LayoutError> {
        let spec = spec.canonical();
        spec.validate()?;
        check_succession(&spec, self)?;
        let mut loads: Vec<u64> =
            spec.nodes.iter().map(|node| self.partitions_of(node.id).count() as u64).collect();
        let mut assignment = Vec::new();
        for placement in &spec.placements {
            for index in 0..placement.partitions() {
                // At most 2^16 partitions: the cast loses nothing.
                let partition = Partition { placement: placement.id, index: index as u16 };
                for (region, &factor) in &placement.replication {
                    let id = self.region_id(region);
                    let before = id.map_or(&[][..], |id| self.replicas_in(partition, id));
                    let stays = |id| spec.nodes.binary_search_by_key(&id, |node| node.id).ok();
                    let mut row: Vec<usize> = before.iter().filter_map(|&id| stays(id)).collect();
                    row.truncate(factor.into());
                    while row.len() < usize::from(factor) {
                        let Some(next) = next_of(&spec.nodes, (region, &row), &loads) else {
                            break;
                        };
                        loads[next] += 1;
                        row.push(next);
                    }
                    // At most `NODES_MAX` nodes: 2^16.
                    assignment.extend(row.into_iter().map(|at| at as u16));
                }
            }
        }
        Ok(Layout::assemble(spec, &assignment))
    }
}

/// The node of a region that takes a place in a row. There is one: the spec is valid.
fn next_of(nodes: &[LayoutNode], (region, row): (&str, &[usize]), loads: &[u64]) -> Option<usize> {
    let free = (0..nodes.len()).filter(|at| nodes[*at].region == region && !row.contains(at));
    free.min_by_key(|&at| {
        let neighbours = row.iter().filter(|&&other| nodes[other].zone == nodes[at].zone).count();
        // Loads are compared as fractions of the capacity, in whole numbers.
        let share = u128::from(loads[at] + 1) * (1 << 64) / u128::from(nodes[at].capacity.max(1));
        (neighbours, share, Reverse(nodes[at].capacity), nodes[at].id)
    })
}
