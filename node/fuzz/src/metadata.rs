//! Layouts and metadata: what is stored, what nodes hand each other, what operators propose.
//!
//! Promises: decoders are total; what decodes is encoded to what decodes to the same; whatever is
//! accepted places every partition on distinct nodes of the right regions; merges do not depend on
//! their order as long as they refuse nothing, and change nothing when they refuse (I8).

use std::collections::BTreeSet;

use bytes::BufMut;
use holm_core::layout::Layout;
use holm_core::metadata::Metadata;
use holm_protocol::admin::{self, BucketChange, LayoutProposal};
use holm_protocol::ids::{BucketId, Hlc, NodeId, RegionId};
use holm_protocol::wire::Reader;

use crate::input::Input;

/// A proposal is cut to this: computing large ones takes long and tries nothing else.
const BITS_MAX: u8 = 5;
const PLACEMENTS_MAX: usize = 3;
const NODES_MAX: usize = 24;

/// The first byte chooses: an encoded layout, one or two encoded metadata, or an operator's changes.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 4 {
        0 => layout(input.rest()),
        1 => drop(metadata(input.rest())),
        2 => merged(&mut input),
        _ => changed(input.rest()),
    }
}

fn layout(bytes: &[u8]) {
    match Layout::decode(bytes) {
        Ok(layout) => {
            assert_eq!(Layout::decode(&layout.encode()).as_ref(), Ok(&layout));
            placed(&layout);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn placed(layout: &Layout) {
    for placement in layout.placements() {
        for key in 0..8u8 {
            let Some(partition) = layout.partition(placement.id, BucketId(1), &[key]) else {
                panic!("a placement of the layout has no partition for a key");
            };
            let replicas = layout.replicas(partition);
            let distinct: BTreeSet<NodeId> = replicas.iter().copied().collect();
            assert_eq!(distinct.len(), replicas.len(), "a node holds a partition twice");
            assert_eq!(replicas.len(), placement.width());
            for (at, name) in layout.regions().iter().enumerate() {
                let region = RegionId(at as u16);
                let there = layout.replicas_in(partition, region);
                let wanted = placement.replication.get(name).copied().unwrap_or(0);
                assert_eq!(there.len(), usize::from(wanted));
                assert!(there.iter().all(|&node| layout.region_of(node) == Some(region)));
                assert!(layout.preference_list(partition, region).starts_with(there));
            }
            assert!(replicas.iter().all(|&node| layout.is_replica(partition, node)));
        }
    }
}

/// Metadata from a body that stands under a right digest.
fn metadata(body: &[u8]) -> Option<Metadata> {
    let mut bytes = vec![1];
    bytes.put_slice(&blake3::hash(body).as_bytes()[..16]);
    bytes.put_slice(body);
    match Metadata::decode(&bytes) {
        Ok(metadata) => {
            sound(&metadata);
            Some(metadata)
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            None
        }
    }
}

fn sound(metadata: &Metadata) {
    assert_eq!(Metadata::decode(&metadata.encode()).as_ref(), Ok(metadata));
    let _ = (metadata.version(), metadata.view(), metadata.state());
    if let Some(layout) = metadata.layout() {
        placed(layout);
    }
}

/// Two length-prefixed bodies, merged both ways.
fn merged(input: &mut Input<'_>) {
    let bytes = input.rest();
    let mut reader = Reader::new(bytes);
    let Ok(first) = reader.slice("body", bytes.len()) else { return };
    let (Some(a), Some(b)) = (metadata(first), metadata(reader.left())) else { return };
    let (mut ab, mut ba) = (a.clone(), b.clone());
    let outcomes = (ab.merge(b.clone()), ba.merge(a.clone()));
    match outcomes {
        (Ok(_), Ok(_)) => {
            assert_eq!(ab.encode(), ba.encode(), "the merge is not commutative");
            sound(&ab);
            let mut again = ab.clone();
            assert_eq!(again.merge(b), Ok(false), "the merge is not idempotent");
            assert_eq!(again.merge(a), Ok(false), "the merge is not idempotent");
        }
        (Err(_), Err(_)) => assert!(ab == a && ba == b, "a refused merge changed something"),
        (one, other) => panic!("one side refuses, the other does not: {one:?}, {other:?}"),
    }
}

/// Length-prefixed changes of an operator, in postcard.
fn changed(bytes: &[u8]) {
    let mut metadata = Metadata::new("fuzz");
    let mut reader = Reader::new(bytes);
    for step in 0..8u8 {
        let Ok(change) = reader.slice("change", bytes.len()) else { break };
        let before = metadata.clone();
        let outcome = if let Some(proposal) = admin::decode::<LayoutProposal>(change) {
            let proposal = cut(proposal);
            let planned = metadata.plan_layout(&proposal);
            assert_eq!(metadata, before, "a plan changed something");
            let applied = metadata.apply_layout(&proposal, [step; 32]);
            assert_eq!(planned, applied, "a layout is not what was planned");
            applied.map(drop)
        } else if let Some(change) = admin::decode::<BucketChange>(change) {
            let version = Hlc(u64::from(step));
            metadata.change_bucket(&change, version, NodeId(step.into())).map(drop)
        } else {
            continue;
        };
        match outcome {
            Ok(()) => sound(&metadata),
            Err(error) => {
                assert!(!error.to_string().is_empty());
                assert_eq!(metadata, before, "a refused change changed something");
            }
        }
    }
}

fn cut(mut proposal: LayoutProposal) -> LayoutProposal {
    proposal.nodes.truncate(NODES_MAX);
    proposal.placements.truncate(PLACEMENTS_MAX);
    for placement in &mut proposal.placements {
        if placement.bits <= 16 {
            placement.bits = placement.bits.min(BITS_MAX);
        }
    }
    proposal
}
