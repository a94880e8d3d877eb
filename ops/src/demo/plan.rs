//! What a demo consists of: nodes, regions, addresses, distances. Made once from the command line,
//! kept in the state file, never changed while the demo lives.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::ops::Range;

use holm_protocol::ids::NodeId;
use holm_protocol::limits::is_name;
use serde::{Deserialize, Serialize};

use super::StartArgs;
use super::rtt::{self, PairRtt};
use crate::failure::Failure;

/// The demo's cluster is called this.
pub(super) const CLUSTER: &str = "demo";
/// Replicas in each region, if it has as many nodes.
const REPLICATION_MAX: u16 = 3;
/// Most nodes: each is a process with a few dozen MiB.
const NODES_MAX: usize = 90;
/// Where ports are looked for: below the kernel's ephemeral range, so that no outgoing connection
/// takes one before its node does, and above those that services are known by.
const PORTS: Range<u16> = 10_000..32_000;

/// What a demo consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Plan {
    /// Region names, in the order they were given.
    pub(super) regions: Vec<String>,
    /// Nodes, by id from 1, region by region.
    pub(super) nodes: Vec<PlanNode>,
    /// The round-trip time of every pair of regions.
    pub(super) rtts: Vec<PairRtt>,
    /// Replicas in each region.
    pub(super) replication: u8,
}

/// A node of a demo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PlanNode {
    /// Its id.
    pub(super) id: NodeId,
    /// Its region.
    pub(super) region: String,
    /// Its zone: each node of a region has its own.
    pub(super) zone: String,
    /// Where it listens for clients and nodes.
    pub(super) quic: SocketAddr,
    /// Where it listens for health checks.
    pub(super) http: SocketAddr,
}

impl Plan {
    /// A plan for what was asked for, on ports that are free now.
    ///
    /// # Errors
    /// Region names or round-trip times are wrong, there are too many nodes, or too few ports.
    pub(super) fn new(args: &StartArgs) -> Result<Plan, Failure> {
        check_regions(&args.regions)?;
        let count = args.regions.len() * usize::from(args.nodes_per_region);
        if count > NODES_MAX {
            return Err(Failure::usage(
                format!("{count} nodes are too many for one machine"),
                format!("ask for {NODES_MAX} at most"),
            ));
        }
        let rtts = rtt::all_pairs(&args.regions, &args.rtt_ms)?;
        let quic = free_ports(count, UdpSocket::bind)?;
        let http = free_ports(count, TcpListener::bind)?;
        let places = args.regions.iter().flat_map(|region| {
            (1..=args.nodes_per_region).map(move |zone| (region.clone(), format!("zone-{zone}")))
        });
        let nodes = (1..).zip(places).zip(quic.into_iter().zip(http));
        let nodes = nodes.map(|((id, (region, zone)), (quic, http))| PlanNode {
            id: NodeId(id),
            region,
            zone,
            quic,
            http,
        });
        // At most REPLICATION_MAX, which fits.
        let replication = args.nodes_per_region.min(REPLICATION_MAX) as u8;
        Ok(Plan { regions: args.regions.clone(), nodes: nodes.collect(), rtts, replication })
    }

    /// Whether a plan kept from an earlier demo is what is asked for now. Distances may differ.
    pub(super) fn fits(&self, args: &StartArgs) -> bool {
        let per_region = usize::from(args.nodes_per_region);
        self.regions == args.regions && self.nodes.len() == args.regions.len() * per_region
    }

    /// A node by its id.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn node(&self, id: NodeId) -> Result<&PlanNode, Failure> {
        self.nodes.iter().find(|node| node.id == id).ok_or_else(|| {
            Failure::usage(
                format!("the demo has no node {}", id.0),
                format!("its nodes are 1 to {}", self.nodes.len()),
            )
        })
    }

    /// The nodes of a region.
    pub(super) fn nodes_in(&self, region: &str) -> impl Iterator<Item = &PlanNode> {
        self.nodes.iter().filter(move |node| node.region == region)
    }

    /// The delay from one region to another, microseconds; 0 within a region.
    pub(super) fn one_way_us(&self, from: &str, to: &str) -> u64 {
        let pair = self.rtts.iter().find(|pair| pair.joins(from, to));
        pair.map_or(0, |pair| pair.rtt_us / 2)
    }
}

fn check_regions(regions: &[String]) -> Result<(), Failure> {
    if let Some(bad) = regions.iter().find(|region| !is_name(region) || *region == "all") {
        return Err(Failure::usage(
            format!("`{bad}` cannot be a region's name"),
            "use 1 to 64 of a-z 0-9 - _ . starting with a letter or digit, and not `all`",
        ));
    }
    let different: BTreeSet<&String> = regions.iter().collect();
    if regions.is_empty() || different.len() < regions.len() {
        return Err(Failure::usage(
            "--regions needs at least one name, and each once",
            "for example --regions us-east,eu-west",
        ));
    }
    Ok(())
}

/// Free ports on loopback, from a random place on: several demos that start together would all find
/// the same first ones, and none has its nodes on them yet. All are held until all are found.
fn free_ports<S>(
    count: usize,
    bind: impl Fn(SocketAddr) -> std::io::Result<S>,
) -> Result<Vec<SocketAddr>, Failure> {
    let first = rand::random_range(PORTS);
    let mut held = Vec::with_capacity(count);
    let mut found = Vec::with_capacity(count);
    for port in (first..PORTS.end).chain(PORTS.start..first) {
        if found.len() == count {
            break;
        }
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if let Ok(socket) = bind(addr) {
            held.push(socket);
            found.push(addr);
        }
    }
    if found.len() < count {
        return Err(Failure::failed(
            format!("only {} of {count} ports are free on loopback", found.len()),
            "stop programs that listen there, or ask for fewer nodes",
        ));
    }
    Ok(found)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A plan of these regions, with made-up ports.
    pub(in super::super) fn plan(regions: &[&str], per_region: u16) -> Plan {
        let regions: Vec<String> = regions.iter().map(|region| (*region).to_owned()).collect();
        let rtts = rtt::all_pairs(&regions, &[]).unwrap();
        let places = regions.iter().flat_map(|region| (0..per_region).map(move |_| region.clone()));
        let nodes = (1..).zip(places).map(|(id, region)| PlanNode {
            id: NodeId(id),
            region,
            zone: "zone-1".into(),
            quic: SocketAddr::from((Ipv4Addr::LOCALHOST, 7_400 + id as u16)),
            http: SocketAddr::from((Ipv4Addr::LOCALHOST, 7_500 + id as u16)),
        });
        Plan { nodes: nodes.collect(), regions, rtts, replication: per_region.min(3) as u8 }
    }

    fn args(regions: &[&str], nodes_per_region: u16) -> StartArgs {
        StartArgs {
            regions: regions.iter().map(|region| (*region).to_owned()).collect(),
            nodes_per_region,
            rtt_ms: Vec::new(),
            for_secs: None,
            check: false,
            down_for: 10,
        }
    }

    /// Goal: ids, regions and zones are laid out as documented, on different ports. Method: two
    /// regions of two.
    #[test]
    fn plan_is_region_by_region() {
        let plan = Plan::new(&args(&["a", "b"], 2)).unwrap();
        let places: Vec<_> = plan
            .nodes
            .iter()
            .map(|node| (node.id.0, node.region.as_str(), node.zone.as_str()))
            .collect();
        let want = [(1, "a", "zone-1"), (2, "a", "zone-2"), (3, "b", "zone-1"), (4, "b", "zone-2")];
        assert_eq!(places, want);
        let ports: BTreeSet<u16> = plan.nodes.iter().map(|node| node.quic.port()).collect();
        assert_eq!(ports.len(), 4);
        assert_eq!(plan.replication, 2);
        assert!(plan.fits(&args(&["a", "b"], 2)) && !plan.fits(&args(&["a", "b"], 3)));
        assert_eq!(plan.one_way_us("b", "a"), 40_000);
        assert_eq!(plan.one_way_us("a", "a"), 0);
    }

    /// Goal: what cannot be is refused before anything is started. Method: each mistake once.
    #[test]
    fn impossible_plans_are_refused() {
        for (regions, per_region) in [
            (&["a", "a"][..], 1),
            (&[""], 1),
            (&["all"], 1),
            (&["Ä"], 1),
            (&["a", "b", "c", "d"], 30),
        ] {
            assert!(Plan::new(&args(regions, per_region)).is_err(), "{regions:?}");
        }
    }
}
