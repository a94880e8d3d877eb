//! What operators change, at the node they asked.

use std::collections::BTreeMap;
use std::sync::Arc;

use holm_protocol::admin::{BucketChange, LayoutProposal, LayoutSummary, NodeInfo, PlacementInfo};
use holm_protocol::bucket::{BucketInfo, BucketPolicy};
use holm_protocol::error::RequestError;
use holm_protocol::ids::{Hlc, NodeId};
use holm_protocol::level::Level;
use holm_protocol::limits::is_name;

use super::{BUCKETS_MAX, BucketEntry, Metadata, bucket_id, removal, secrets};
use crate::layout::{Layout, LayoutError, LayoutNode, LayoutSpec, PlacementSpec};

impl Metadata {
    /// Creates a bucket or changes the policy of one. `version` is a fresh reading of the clock of
    /// `node`, the one that was asked; a change always follows the policy it was made upon, also
    /// where that node's clock is behind.
    ///
    /// # Errors
    /// [`RequestError::BucketRefused`] says why; **nothing happened** then.
    pub fn change_bucket(
        &mut self,
        change: &BucketChange,
        version: Hlc,
        node: NodeId,
    ) -> Result<BucketInfo, RequestError> {
        let previous =
            self.check_bucket(change).map_err(|why| RequestError::BucketRefused { why })?;
        let version = match previous {
            Some(previous) => version.max(Hlc(previous.version.0.saturating_add(1))),
            None => version,
        };
        let (id, name, policy) = (bucket_id(&change.name), change.name.clone(), &change.policy);
        let info = BucketInfo { id, name, policy: policy.clone() };
        self.buckets.insert(id, BucketEntry { info: info.clone(), version, node });
        Ok(info)
    }

    /// Checks a change; gives the bucket as it is now, if it exists.
    fn check_bucket(&self, change: &BucketChange) -> Result<Option<&BucketEntry>, String> {
        let BucketChange { name, policy, create } = change;
        policy.check(name).map_err(|error| error.to_string())?;
        let Some(layout) = &self.layout else {
            return Err("the cluster has no layout yet; apply one with `holm layout apply`".into());
        };
        let previous = self.buckets.get(&bucket_id(name));
        if let Some(previous) = previous
            && previous.info.name != *name
        {
            let other = &previous.info.name;
            return Err(format!(
                "`{name}` has the same id as bucket `{other}` (ids are hashes of names); choose \
                 another name"
            ));
        }
        match (previous, create) {
            (Some(_), true) => {
                return Err(format!("`{name}` exists; change it with `holm bucket set`"));
            }
            (None, false) => {
                return Err(format!("`{name}` does not exist; make it with `holm bucket create`"));
            }
            (None, true) if self.buckets.len() >= BUCKETS_MAX => {
                return Err(format!("the cluster has {BUCKETS_MAX} buckets, which is the limit"));
            }
            (None, true) | (Some(_), false) => {}
        }
        if let Some(previous) = previous {
            check_fixed(name, &previous.info.policy, policy)?;
        }
        let id = policy.placement;
        let Some(placement) = layout.placement(id) else {
            let known: Vec<String> = layout
                .placements()
                .iter()
                .map(|one| format!("{} ({})", one.id.0, one.name))
                .collect();
            return Err(format!("there is no placement {}, only {}", id.0, known.join(", ")));
        };
        check_level("read_level", policy.read_level, placement)?;
        check_level("write_level", policy.write_level, placement)?;
        Ok(previous)
    }

    /// Makes a proposal the cluster's layout, and `new_secret`, fresh and random, the secret of its
    /// contexts if it is the first. The proposal that is in force already is accepted again: the caller
    /// may not have had the answer. That the nodes which a later layout leaves out are dead is for the
    /// caller to make sure ([`Metadata::left_out`]).
    ///
    /// # Errors
    /// [`RequestError::LayoutRefused`] says why; **nothing happened** then.
    pub fn apply_layout(
        &mut self,
        proposal: &LayoutProposal,
        new_secret: [u8; 32],
    ) -> Result<LayoutSummary, RequestError> {
        let planned = self.plan(proposal).map_err(|why| RequestError::LayoutRefused { why })?;
        let summary = summary(&planned);
        match planned {
            Planned::First(layout) => {
                self.layout = Some(Arc::new(layout));
                self.secrets = Some(secrets::first(new_secret));
            }
            Planned::Next { layout, .. } => self.layout = Some(Arc::new(layout)),
            Planned::InForce(_) => {}
        }
        Ok(summary)
    }

    /// Nodes of the layout in force that a proposal does not have.
    #[must_use]
    pub fn left_out(&self, proposal: &LayoutProposal) -> Vec<NodeId> {
        let nodes = self.layout.iter().flat_map(|layout| layout.nodes()).map(|node| node.id);
        nodes.filter(|&id| proposal.nodes.iter().all(|node| node.id != id)).collect()
    }

    /// What [`Metadata::apply_layout`] would answer, without doing it.
    ///
    /// # Errors
    /// As there.
    pub fn plan_layout(&self, proposal: &LayoutProposal) -> Result<LayoutSummary, RequestError> {
        let planned = self.plan(proposal).map_err(|why| RequestError::LayoutRefused { why })?;
        Ok(summary(&planned))
    }

    fn plan(&self, proposal: &LayoutProposal) -> Result<Planned, String> {
        let spec = spec(proposal)?;
        let Some(current) = &self.layout else {
            if proposal.version != 1 {
                let (version, previous) = (proposal.version, 0);
                return Err(LayoutError::Version { version, previous }.to_string());
            }
            let layout = Layout::compute(spec, None).map_err(|error| error.to_string())?;
            return Ok(Planned::First(layout));
        };
        let version = current.version();
        let spec = spec.canonical();
        if spec == *current.spec() {
            return Ok(Planned::InForce(Arc::clone(current)));
        }
        if proposal.version <= version {
            return Err(format!("layout version {version} is in force already, and differs"));
        }
        let layout = removal::without(current, spec)?;
        self.check_levels(&layout)?;
        // At most as many as a layout has replicas: 2^22.
        let moves = current.moves(&layout).iter().map(|one| one.to.len() as u32).sum();
        Ok(Planned::Next { layout, moves })
    }

    /// Whether every bucket's default levels can still be met.
    fn check_levels(&self, layout: &Layout) -> Result<(), String> {
        for BucketEntry { info, .. } in self.buckets.values() {
            let Some(placement) = layout.placement(info.policy.placement) else { continue };
            let levels =
                [("read_level", info.policy.read_level), ("write_level", info.policy.write_level)];
            for (field, level) in levels {
                check_level(field, level, placement).map_err(|why| {
                    format!("bucket `{}`: {why}; lower it first with `holm bucket set`", info.name)
                })?;
            }
        }
        Ok(())
    }
}

/// What a proposal comes to.
enum Planned {
    /// The cluster's first layout. It moves nothing: there is nothing yet.
    First(Layout),
    /// The layout that the cluster has.
    InForce(Arc<Layout>),
    /// What follows it, and how many replicas of partitions somebody has to take.
    Next { layout: Layout, moves: u32 },
}

fn summary(planned: &Planned) -> LayoutSummary {
    let (layout, moves) = match planned {
        Planned::First(layout) => (layout, 0),
        Planned::InForce(layout) => (&**layout, 0),
        Planned::Next { layout, moves } => (layout, *moves),
    };
    let load = |(node, partitions)| (node, u32::try_from(partitions).unwrap_or(u32::MAX));
    LayoutSummary {
        version: layout.version(),
        digest: layout.digest(),
        load: layout.loads().into_iter().map(load).collect(),
        moves,
    }
}

/// A change may not touch what was fixed at creation.
fn check_fixed(name: &str, before: &BucketPolicy, after: &BucketPolicy) -> Result<(), String> {
    if before.kind != after.kind {
        let (before, after) = (before.kind, after.kind);
        return Err(format!(
            "the kind of `{name}` was fixed as {before:?} at creation and cannot become {after:?}; \
             make a new bucket and copy the data"
        ));
    }
    if before.placement != after.placement {
        let (before, after) = (before.placement.0, after.placement.0);
        return Err(format!(
            "the placement of `{name}` was fixed as {before} at creation and cannot become {after}; \
             make a new bucket and copy the data"
        ));
    }
    Ok(())
}

/// A default level that no request could meet is refused at once. Levels that speak of regions
/// depend on where the coordinator is, and are left to the request.
fn check_level(field: &str, level: Level, placement: &PlacementSpec) -> Result<(), String> {
    let replicas = placement.width();
    match level {
        Level::Count(n) if !can_be_asked(level) || usize::from(n) > replicas => {
            Err(format!("{field} is {n} replicas, placement `{}` has {replicas}", placement.name))
        }
        _ => Ok(()),
    }
}

/// Whether a request could name this level; see [`Level::to_byte`].
pub(super) fn can_be_asked(level: Level) -> bool {
    !matches!(level, Level::Count(0 | 128..))
}

/// The proposal in the terms of the layout. Names that a layout would take but the rest of holm
/// would not (in metrics, files, certificates) are refused here, where they come in.
fn spec(proposal: &LayoutProposal) -> Result<LayoutSpec, String> {
    let nodes = proposal.nodes.iter().map(layout_node).collect::<Result<_, _>>()?;
    let placements = proposal.placements.iter().map(placement_spec).collect::<Result<_, _>>()?;
    Ok(LayoutSpec { version: proposal.version, nodes, placements })
}

fn layout_node(node: &NodeInfo) -> Result<LayoutNode, String> {
    check_name("region", &node.region)?;
    check_name("zone", &node.zone)?;
    Ok(LayoutNode {
        id: node.id,
        addr: node.addr,
        region: node.region.clone(),
        zone: node.zone.clone(),
        capacity: node.capacity,
    })
}

fn placement_spec(info: &PlacementInfo) -> Result<PlacementSpec, String> {
    check_name("placement", &info.name)?;
    let mut replication = BTreeMap::new();
    for (region, factor) in &info.replication {
        check_name("region", region)?;
        if replication.insert(region.clone(), *factor).is_some() {
            return Err(format!("placement `{}` names region `{region}` twice", info.name));
        }
    }
    Ok(PlacementSpec { id: info.id, name: info.name.clone(), bits: info.bits, replication })
}

fn check_name(what: &str, name: &str) -> Result<(), String> {
    if is_name(name) {
        return Ok(());
    }
    let shown: String = name.chars().take(64).collect();
    Err(format!(
        "{shown:?} is no {what} name: use 1 to 64 of a-z 0-9 - _ . starting with a letter or digit"
    ))
}
