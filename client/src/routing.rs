//! Which node to ask.
//!
//! A key is asked for at a replica in the client's own region. Of those, each partition has its
//! favourite: one coordinator for a key's writes keeps its context short, and a read after a write
//! at level `one` finds it. Favourites are spread over the replicas by partition. One that is not
//! ready, or answers much slower than the best, is passed over.
//!
//! Then, in this order: the region's other nodes (they pass requests on), replicas in other
//! regions, other nodes; the nearest first. A node to which nothing gets through comes after all
//! that.
//!
//! Where the own region has no replica of the key, replicas elsewhere come first, the nearest by
//! round trip time, and the region's nodes after them: what a node passes on is coordinated by
//! another one, so a write whose outcome is unknown could not be repeated there. The first request
//! waits until such a replica is connected.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use holm_protocol::admin::{ClusterView, PlacementView};
use holm_protocol::bucket::BucketInfo;
use holm_protocol::ids::{BucketId, NodeId, Partition, PlacementId};
use holm_protocol::level::Level;

use crate::connection::Connection;
use crate::latency::Reach;
use crate::node::{Node, Readiness};

/// One in so many requests goes to a slow favourite all the same, to see whether it still is.
const RETRY_SLOW_EVERY: usize = 16;

/// Differences in round trip time below this, milliseconds, are no reason to prefer a replica: they
/// are zones of one region, and noise.
const NEAR_MS: u128 = 20;

/// What a request is about, as far as routing goes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Scope<'a> {
    /// Any node will do.
    Any,
    /// Only this node will do.
    Node(NodeId),
    /// A replica of this key will do best.
    Key { placement: PlacementId, bucket: BucketId, key: &'a [u8], level: Level },
}

impl Scope<'_> {
    pub(crate) fn reach(&self) -> Reach {
        match self {
            Scope::Key { level, .. } => Reach::of(*level),
            _ => Reach::Local,
        }
    }
}

/// A node to ask.
#[derive(Debug)]
pub(crate) enum Choice {
    /// Now.
    Ready(Arc<Node>, Arc<Connection>),
    /// Once it is connected.
    Dial(Arc<Node>),
    /// There is none that was not tried and may be.
    None,
}

/// The layout, as far as this client needs it. Immutable: a new view makes a new one.
#[derive(Debug)]
pub(crate) struct Routing {
    view: Arc<ClusterView>,
    /// Those of the view, in its order, then those the client was given beyond.
    nodes: Vec<Arc<Node>>,
    home: Option<u16>,
    /// Nodes of the own region.
    home_nodes: Vec<u16>,
    /// Per placement of the view and partition: the own region's replicas, the favourite first.
    home_replicas: Vec<Vec<Vec<u16>>>,
    turn: AtomicUsize,
}

/// A key's place in [`Routing`].
#[derive(Clone, Copy)]
struct Place {
    placement: usize,
    partition: usize,
}

impl Routing {
    /// `known` holds every node of the view, and those beyond it.
    pub(crate) fn new(
        view: ClusterView,
        known: &BTreeMap<NodeId, Arc<Node>>,
        region: Option<&str>,
    ) -> Routing {
        let mut nodes: Vec<Arc<Node>> = Vec::with_capacity(known.len());
        nodes.extend(view.nodes.iter().filter_map(|info| known.get(&info.id)).cloned());
        let beyond = known.values().filter(|node| view.nodes.iter().all(|i| i.id != node.id()));
        nodes.extend(beyond.cloned());
        let home = region.and_then(|region| view.regions.iter().position(|name| name == region));
        let at_home = |index: u16| {
            let info = view.nodes.get(usize::from(index));
            home.is_some() && info.is_some_and(|info| Some(info.region.as_str()) == region)
        };
        let in_layout = u16::try_from(view.nodes.len()).unwrap_or(u16::MAX);
        let home_nodes = (0..in_layout).filter(|index| at_home(*index)).collect();
        let of_partition = |(partition, replicas): (usize, &Vec<u16>)| {
            let mut own: Vec<u16> = replicas.iter().copied().filter(|i| at_home(*i)).collect();
            let favourite = partition.checked_rem(own.len()).unwrap_or(0);
            own.rotate_left(favourite);
            own
        };
        let of_placement = |placement: &PlacementView| {
            placement.replicas.iter().enumerate().map(of_partition).collect()
        };
        let home_replicas = view.placements.iter().map(of_placement).collect();
        let home = home.and_then(|home| u16::try_from(home).ok());
        let turn = AtomicUsize::new(0);
        Routing { view: Arc::new(view), nodes, home, home_nodes, home_replicas, turn }
    }

    pub(crate) fn view(&self) -> Arc<ClusterView> {
        Arc::clone(&self.view)
    }

    pub(crate) fn layout_version(&self) -> u64 {
        self.view.layout_version
    }

    pub(crate) fn bucket(&self, name: &str) -> Option<&BucketInfo> {
        self.view.buckets.iter().find(|bucket| bucket.name == name)
    }

    pub(crate) fn node_ids(&self) -> Vec<NodeId> {
        let mut ids: Vec<NodeId> = self.nodes.iter().map(|node| node.id()).collect();
        ids.sort_unstable();
        ids
    }

    pub(crate) fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.nodes.iter().find(|node| node.id() == id)
    }

    pub(crate) fn home_region(&self) -> Option<&str> {
        self.home.and_then(|home| self.view.regions.get(usize::from(home))).map(String::as_str)
    }

    /// The nodes of the own region.
    pub(crate) fn home_nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.home_nodes.iter().filter_map(|index| self.nodes.get(usize::from(*index)))
    }

    /// Whether a node is a replica of the key: then it coordinates itself, and remembers the ids
    /// of the requests it saw.
    pub(crate) fn is_replica(&self, scope: &Scope<'_>, node: NodeId) -> bool {
        self.place(scope).is_some_and(|place| {
            let replicas = self.replicas(place).iter();
            replicas.filter_map(|i| self.view.nodes.get(usize::from(*i))).any(|i| i.id == node)
        })
    }

    /// The next node to ask, other than those tried. Dials passed-over favourites on the way.
    pub(crate) fn choose(&self, scope: &Scope<'_>, tried: &[NodeId]) -> Choice {
        if let Scope::Node(id) = scope {
            return self.only(*id, tried);
        }
        let place = self.place(scope);
        if tried.is_empty()
            && let Some(favourite) = self.favourite(scope, place)
            && let Readiness::Ready(connection) = favourite.readiness()
        {
            return Choice::Ready(Arc::clone(favourite), connection);
        }
        if let Some((node, connection)) = self.ready_replica(scope, tried) {
            return Choice::Ready(node, connection);
        }
        self.best_of_all(scope, place, tried)
    }

    /// A replica of the own region that can be asked now, other than those tried.
    pub(crate) fn ready_replica(
        &self,
        scope: &Scope<'_>,
        tried: &[NodeId],
    ) -> Option<(Arc<Node>, Arc<Connection>)> {
        let replicas = self.home_of(self.place(scope)?);
        for node in replicas.iter().filter_map(|index| self.nodes.get(usize::from(*index))) {
            if tried.contains(&node.id()) {
                continue;
            }
            match node.readiness() {
                Readiness::Ready(connection) => return Some((Arc::clone(node), connection)),
                Readiness::Unconnected { .. } => node.dial_soon(),
                _ => {}
            }
        }
        None
    }

    fn only(&self, id: NodeId, tried: &[NodeId]) -> Choice {
        match self.node(id).filter(|_| !tried.contains(&id)) {
            None => Choice::None,
            Some(node) => match node.readiness() {
                Readiness::Ready(connection) | Readiness::Doubtful(connection) => {
                    Choice::Ready(Arc::clone(node), connection)
                }
                Readiness::Unconnected { .. } | Readiness::Pausing => {
                    Choice::Dial(Arc::clone(node))
                }
            },
        }
    }

    fn place(&self, scope: &Scope<'_>) -> Option<Place> {
        let Scope::Key { placement, bucket, key, .. } = scope else { return None };
        let at = self.view.placements.iter().position(|view| view.info.id == *placement)?;
        let bits = self.view.placements[at].info.bits;
        let partition = usize::from(Partition::of(*placement, bits, *bucket, key).index);
        Some(Place { placement: at, partition })
    }

    fn replicas(&self, place: Place) -> &[u16] {
        let partitions = self.view.placements.get(place.placement).map(|view| &view.replicas);
        partitions.and_then(|p| p.get(place.partition)).map_or(&[], Vec::as_slice)
    }

    fn home_of(&self, place: Place) -> &[u16] {
        let partitions = self.home_replicas.get(place.placement);
        partitions.and_then(|p| p.get(place.partition)).map_or(&[], Vec::as_slice)
    }

    /// The own region's replica to ask first, or the nearest one if that is much slower.
    fn favourite(&self, scope: &Scope<'_>, place: Option<Place>) -> Option<&Arc<Node>> {
        let Some(place) = place else {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            let index = self.home_nodes.get(turn.checked_rem(self.home_nodes.len())?)?;
            return self.nodes.get(usize::from(*index));
        };
        let mut replicas =
            self.home_of(place).iter().filter_map(|index| self.nodes.get(usize::from(*index)));
        let favourite = replicas.next()?;
        let reach = scope.reach();
        // Not measured is 0, and no reason to go there.
        let best = replicas
            .filter(|node| node.latency().mean_us(reach) > 0)
            .min_by_key(|node| node.latency().mean_us(reach));
        match best {
            Some(best) if favourite.latency().is_much_slower(best.latency(), reach) => {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                Some(if turn.is_multiple_of(RETRY_SLOW_EVERY) { favourite } else { best })
            }
            _ => Some(favourite),
        }
    }

    /// The nearest replica of a key that has none at home; none if all were tried, failed, stall
    /// or asked for a pause. Dials those not connected on the way.
    fn nearest_replica(&self, place: Place, tried: &[NodeId]) -> Option<Choice> {
        let mut nearest: Option<(u128, usize, Choice)> = None;
        let mut unconnected = None;
        let replicas = self.replicas(place);
        for (index, replica) in replicas.iter().enumerate() {
            let Some(node) = self.nodes.get(usize::from(*replica)) else { continue };
            if tried.contains(&node.id()) {
                continue;
            }
            match node.readiness() {
                Readiness::Ready(connection) => {
                    // Replicas of one region are equally near; each partition has its favourite.
                    let steps = connection.rtt().as_millis() / NEAR_MS;
                    let turn = (index + place.partition) % replicas.len();
                    if nearest.as_ref().is_none_or(|(s, t, _)| (steps, turn) < (*s, *t)) {
                        let choice = Choice::Ready(Arc::clone(node), connection);
                        nearest = Some((steps, turn, choice));
                    }
                }
                Readiness::Unconnected { failed } => {
                    node.dial_soon();
                    if !failed {
                        unconnected = unconnected.or(Some(node));
                    }
                }
                _ => {}
            }
        }
        let dial = || unconnected.map(|node| Choice::Dial(Arc::clone(node)));
        nearest.map(|(_, _, choice)| choice).or_else(dial)
    }

    fn best_of_all(&self, scope: &Scope<'_>, place: Option<Place>, tried: &[NodeId]) -> Choice {
        if let Some(place) = place
            && self.home_of(place).is_empty()
            && let Some(choice) = self.nearest_replica(place, tried)
        {
            return choice;
        }
        let replicas = place.map_or(&[][..], |place| self.replicas(place));
        let reach = scope.reach();
        let mut best: Option<(u8, u32, Choice)> = None;
        for (index, node) in self.nodes.iter().enumerate() {
            if tried.contains(&node.id()) {
                continue;
            }
            let index = u16::try_from(index).unwrap_or(u16::MAX);
            let home = self.home_nodes.binary_search(&index).is_ok();
            let replica = replicas.contains(&index);
            let away = u8::from(!replica) + 3 * u8::from(!home);
            let latency = node.latency().mean_us(reach);
            let latency = if latency == 0 { u32::MAX } else { latency };
            // At home: ready replicas, ready others, new ones; then away the same; then those
            // that stall or asked for a pause; then those that failed or were lost.
            let (rank, choice) = match node.readiness() {
                Readiness::Ready(connection) => (away, Choice::Ready(Arc::clone(node), connection)),
                Readiness::Unconnected { failed: false } => {
                    (2 + 3 * u8::from(!home), Choice::Dial(Arc::clone(node)))
                }
                Readiness::Doubtful(connection) => {
                    (6 + away, Choice::Ready(Arc::clone(node), connection))
                }
                Readiness::Unconnected { failed: true } => {
                    (12 + away, Choice::Dial(Arc::clone(node)))
                }
                Readiness::Pausing => continue,
            };
            if best.as_ref().is_none_or(|(r, l, _)| (rank, latency) < (*r, *l)) {
                best = Some((rank, latency, choice));
            }
        }
        best.map_or(Choice::None, |(_, _, choice)| choice)
    }
}
