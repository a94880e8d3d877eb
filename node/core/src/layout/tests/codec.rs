//! Encoded layouts: one encoding each, and no bytes that panic or get a wrong layout accepted.

use super::*;

/// A layout that encodes to few bytes, so that every one of them can be damaged.
fn little() -> Layout {
    first(&cluster(5, 3, 3, 3, |id| 1 + id as u32))
}

/// What any layout must satisfy, whoever made it: rows of distinct nodes of the right regions.
fn assert_sound(layout: &Layout) {
    for placement in layout.placements() {
        for index in 0..placement.partitions() {
            let partition = Partition { placement: placement.id, index: index as u16 };
            let all: BTreeSet<NodeId> = layout.replicas(partition).iter().copied().collect();
            assert_eq!(all.len(), placement.width());
            for (name, &factor) in &placement.replication {
                let region = layout.region_id(name).unwrap();
                let replicas = layout.replicas_in(partition, region);
                assert_eq!(replicas.len(), usize::from(factor));
                assert!(replicas.iter().all(|&id| layout.region_of(id) == Some(region)));
            }
        }
    }
}

/// Goal: whatever single bit is flipped, whatever is cut off or added: an error, or a different,
/// sound layout with another digest.
#[test]
fn damaged_bytes_are_refused_or_sound() {
    let layout = little();
    let bytes = layout.encode();
    let mut accepted = 0;
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        if let Ok(other) = Layout::decode(&damaged) {
            assert_sound(&other);
            assert_ne!(other.digest(), layout.digest(), "bit {bit}");
            accepted += 1;
        }
    }
    assert!(accepted > 0, "a flipped capacity bit is still a layout");
    for end in 0..bytes.len() {
        assert!(Layout::decode(&bytes[..end]).is_err());
    }
    let longer = [&bytes[..], &[0]].concat();
    assert_eq!(Layout::decode(&longer), Err(LayoutDecodeError::Malformed));
    let endless = vec![0; ENCODED_BYTES_MAX + 1];
    assert_eq!(Layout::decode(&endless), Err(LayoutDecodeError::TooLong { bytes: endless.len() }));
}

/// Goal: a layout made by hand from a valid one is refused if a row names a node twice, a stranger,
/// or a node of another region.
#[test]
fn wrong_assignments_are_refused() {
    let nodes = vec![node(1, "a", 0, 1), node(2, "a", 1, 1), node(3, "b", 0, 1)];
    let layout = first(&spec(nodes, placement(0, &[("a", 2)])));
    let bytes = layout.encode();
    let (rest, row) = bytes.split_at(bytes.len() - 2);
    assert!(matches!(row, [0, 1] | [1, 0]));
    for wrong in [[0, 0], [0, 2], [0, 9]] {
        let bytes = [rest, &wrong].concat();
        let refused = LayoutDecodeError::Replica { placement: PLACEMENT, partition: 0 };
        assert_eq!(Layout::decode(&bytes), Err(refused));
    }
    assert_eq!(Layout::decode(&[rest, &[1, 0]].concat()).unwrap().version(), 1);
    // One replica too few: the length goes down with it.
    let mut short = bytes[..bytes.len() - 1].to_vec();
    let length = short.len() - 2;
    short[length] = 1;
    let refused = LayoutDecodeError::Length { entries: 1, wanted: 2 };
    assert_eq!(Layout::decode(&short), Err(refused));
}

/// Goal: more nodes than there can be are not even read.
#[test]
fn reading_stops_at_the_limits() {
    let nodes = (0..NODES_MAX as u64 + 1).map(|id| node(id, "r", 0, 1)).collect();
    let spec = spec(nodes, placement(0, &[("r", 1)]));
    let bytes = postcard::to_stdvec(&spec).unwrap();
    assert!(postcard::from_bytes::<LayoutSpec>(&bytes).is_err());
    let fewer = LayoutSpec { nodes: spec.nodes[1..].to_vec(), ..spec };
    let bytes = postcard::to_stdvec(&fewer).unwrap();
    assert_eq!(postcard::from_bytes(&bytes), Ok(fewer));
}

/// Goal: nodes out of order have no second encoding.
#[test]
fn other_orders_are_refused() {
    let layout = little();
    let mut spec = layout.spec().clone();
    spec.nodes.reverse();
    let other = Layout { spec, ..layout };
    assert_eq!(Layout::decode(&other.encode()), Err(LayoutDecodeError::NotCanonical));
}

proptest! {
    /// Goal: what was encoded is decoded the same, and equal layouts have equal bytes.
    #[test]
    fn layouts_survive_encoding(one in clusters(20)) {
        let layout = first(&one);
        let bytes = layout.encode();
        let decoded = Layout::decode(&bytes).unwrap();
        prop_assert_eq!(&decoded, &layout);
        prop_assert_eq!(decoded.digest(), layout.digest());
        prop_assert_eq!(decoded.encode(), bytes);
        // The plain serde form, as it is embedded in other messages.
        let embedded = postcard::to_stdvec(&layout).unwrap();
        prop_assert_eq!(postcard::from_bytes::<Layout>(&embedded).unwrap(), layout);
    }

    /// Goal: noise, and layouts with a stretch overwritten by noise, never panic.
    #[test]
    fn noise_never_panics(
        noise in proptest::collection::vec(any::<u8>(), 0..200),
        at in any::<prop::sample::Index>(),
    ) {
        let _ = Layout::decode(&noise);
        let _ = Layout::decode(&[&[0], &noise[..]].concat());
        let mut bytes = little().encode();
        let start = at.index(bytes.len());
        for (old, new) in bytes[start..].iter_mut().zip(&noise) {
            *old = *new;
        }
        if let Ok(layout) = Layout::decode(&bytes) {
            assert_sound(&layout);
        }
    }
}
