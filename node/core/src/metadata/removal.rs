//! What the layout in force can become in this release: itself without nodes that are dead
//! (`holm layout remove`).
//!
//! Nodes learn of it one after the other, and each acts on the layout it has. That is safe for dead
//! nodes, and for them only: of `n` replicas, `k` of them dead, a quorum under the old layout is more
//! than `n/2` of the `n - k` that live, and one under the new layout has, beside the `k` that take
//! their places, at least `n/2 - k` of them, or more than `(n - k)/2` where nobody does. Either way
//! the two meet in one that lives. A replica whose place is new serves nothing until it has taken the
//! partition whole. Live nodes keep all they have ([`Layout::without`]): moving that takes both layouts
//! at once.
//!
//! What a dead node had voted for has one copy less, as after a lost disk: until gap repair has brought it
//! everywhere, a quorum that consists of who lacked it may miss it.
//!
//! Left out: the last node of a region, because the ids of regions are their positions.

use std::collections::BTreeSet;

use crate::layout::{Layout, LayoutSpec, PlacementSpec};

/// The layout that `spec`, canonical, describes, if it is `current` without some of its nodes.
///
/// # Errors
/// What else would change, in words.
pub(super) fn without(current: &Layout, spec: LayoutSpec) -> Result<Layout, String> {
    for node in &spec.nodes {
        if current.node(node.id) != Some(node) {
            return Err(format!(
                "node {} is new or changed: this release changes a layout only by removing dead \
                 nodes (`holm layout remove`)",
                node.id
            ));
        }
    }
    let regions: BTreeSet<&str> = spec.nodes.iter().map(|node| node.region.as_str()).collect();
    if let Some(region) = current.regions().iter().find(|name| !regions.contains(name.as_str())) {
        return Err(format!(
            "region `{region}` would be left without a node: removing a region is not supported by \
             this release"
        ));
    }
    let ids =
        |placements: &[PlacementSpec]| placements.iter().map(|one| one.id).collect::<Vec<_>>();
    if ids(&spec.placements) != ids(current.placements()) {
        return Err("placements cannot be added or removed by this release".to_owned());
    }
    for (before, after) in current.placements().iter().zip(&spec.placements) {
        check_placement(&spec, before, after)?;
    }
    current.without(spec).map_err(|error| error.to_string())
}

/// A placement stays as it is, but for regions that have too few nodes left.
fn check_placement(
    spec: &LayoutSpec,
    before: &PlacementSpec,
    after: &PlacementSpec,
) -> Result<(), String> {
    if (&before.name, before.bits) != (&after.name, after.bits) {
        return Err(format!("placement `{}` cannot be changed by this release", before.name));
    }
    let regions: BTreeSet<&String> =
        before.replication.keys().chain(after.replication.keys()).collect();
    for region in regions {
        let factor = |one: &PlacementSpec| one.replication.get(region).copied().unwrap_or(0);
        let wanted = spec.at_most(region, factor(before));
        if factor(after) != wanted {
            return Err(format!(
                "placement `{}` must keep {wanted} replicas in {region}, not {}: only what a region \
                 has too few nodes for can be lowered",
                before.name,
                factor(after)
            ));
        }
    }
    Ok(())
}
