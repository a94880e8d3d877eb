//! Trees of the same objects are equal, and whatever differs is found under its segment.

use std::collections::BTreeMap;

use bytes::Bytes;
use holm_protocol::dot::Dot;
use holm_protocol::ids::{Actor, Hlc};
use holm_protocol::version_vector::VersionVector;
use proptest::prelude::*;

use super::*;
use crate::object::{ObjectKind, Sibling};

const BUCKET: BucketId = BucketId(3);

fn dot(counter: u64) -> Dot {
    Dot { actor: Actor(7), counter }
}

fn object(counter: u64, value: &'static str) -> Object {
    let mut object = Object::new(ObjectKind::Siblings);
    let sibling = Sibling::new(dot(counter), Hlc(1), Bytes::from_static(value.as_bytes()));
    object.put(&VersionVector::new(), sibling);
    object
}

fn segments(objects: &[(u16, Object)]) -> Segments {
    let mut segments = Segments::default();
    for (key, object) in objects {
        segments.add(BUCKET, &key.to_be_bytes(), object);
    }
    segments
}

/// Which segments differ, found level by level as two replicas do.
fn differing(a: &Tree, b: &Tree) -> Vec<u16> {
    if a.root() == b.root() {
        return vec![];
    }
    let mut found = Vec::new();
    for node in 0..MIDDLE_NODES as u16 {
        if a.middle()[usize::from(node)] != b.middle()[usize::from(node)] {
            for (at, (one, other)) in
                a.leaves_under(node).iter().zip(b.leaves_under(node)).enumerate()
            {
                if one != other {
                    found.push((node << MIDDLE) + at as u16);
                }
            }
        }
    }
    found
}

/// Goal: the tree has the shape that replicas talk about. Method: its levels, and nodes past them.
#[test]
fn the_tree_has_its_shape() {
    let tree = Segments::default().tree();
    assert_eq!(tree.levels.len(), 11);
    assert_eq!((tree.levels[0].len(), tree.middle().len(), MIDDLE_NODES), (SEGMENTS, 32, 32));
    assert_eq!(tree.leaves_under(31).len(), 32);
    assert_eq!((tree.leaves_under(32), tree.leaves_under(u16::MAX)), (&[][..], &[][..]));
    assert_ne!(tree.root(), Hash::default());
}

/// Goal: a leaf is never taken for an inner node. Method: an inner node over two hashes against a
/// leaf of the same 64 bytes.
#[test]
fn leaves_are_no_inner_nodes() {
    let (left, right) = (leaf(b"left"), leaf(b"right"));
    assert_ne!(Blake3::concat_and_hash(&left, Some(&right)), leaf(&[left, right].concat()));
    assert_ne!(
        Blake3::concat_and_hash(&left, Some(&right)),
        Blake3::concat_and_hash(&right, Some(&left))
    );
}

/// Goal: the root is that of the library's own tree, which is the oracle.
#[test]
fn the_root_is_the_librarys() {
    let segments = segments(&[(1, object(1, "a")), (2, object(2, "b"))]);
    let leaves: Vec<Hash> = segments.sums.iter().map(|sum| leaf(&sum.to_be_bytes())).collect();
    let oracle = rs_merkle::MerkleTree::<Blake3>::from_leaves(&leaves);
    assert_eq!(Some(segments.tree().root()), oracle.root());
}

/// Goal: when a replica forgets a tombstone is its own affair. Method: a tombstone of either kind
/// against nothing.
#[test]
fn tombstones_look_like_nothing() {
    let mut deleted = object(1, "a");
    let seen = deleted.context.clone();
    deleted.delete(&seen, dot(2), Hlc(2));
    let mut latest = Object::new(ObjectKind::Lww);
    latest.delete(&VersionVector::new(), dot(3), Hlc(3));
    let with = segments(&[(1, deleted), (2, latest)]);
    assert_eq!(with.tree(), Segments::default().tree());
    assert_eq!(with.keys(), 2);
}

/// Goal: another value under the same dot, which only damage or a bug makes, is found.
#[test]
fn values_count() {
    let a = segments(&[(1, object(1, "a"))]);
    let b = segments(&[(1, object(1, "b"))]);
    assert_eq!(differing(&a.tree(), &b.tree()), [segment_of(BUCKET, &1u16.to_be_bytes())]);
}

/// Goal: what one replica cannot read differs from what another has, also if that cannot read it
/// either.
#[test]
fn spoiled_segments_differ() {
    let whole = segments(&[(1, object(1, "a"))]);
    let (mut one, mut other) = (whole.clone(), whole.clone());
    one.spoil(9, 1);
    assert_eq!(differing(&one.tree(), &whole.tree()), [9]);
    other.spoil(9, 2);
    assert_eq!(differing(&one.tree(), &other.tree()), [9]);
    other.spoil_all(2);
    assert_eq!(differing(&whole.tree(), &other.tree()).len(), SEGMENTS);
}

proptest! {
    /// Goal: replicas find just the segments in which their keys differ, in whatever order they
    /// were scanned. Method: two random sets of keys; the truth is a comparison key by key.
    #[test]
    fn just_what_differs_is_found(
        one in prop::collection::btree_map(0u16..300, 1u64..4, 0..200),
        other in prop::collection::btree_map(0u16..300, 1u64..4, 0..200),
    ) {
        let objects = |keys: &BTreeMap<u16, u64>| -> Vec<(u16, Object)> {
            keys.iter().map(|(key, counter)| (*key, object(*counter, "v"))).collect()
        };
        let backwards: Vec<(u16, Object)> = objects(&other).into_iter().rev().collect();
        let found = differing(&segments(&objects(&one)).tree(), &segments(&backwards).tree());
        let mut truth: Vec<u16> = (0u16..300)
            .filter(|key| one.get(key) != other.get(key))
            .map(|key| segment_of(BUCKET, &key.to_be_bytes()))
            .collect();
        truth.sort_unstable();
        truth.dedup();
        prop_assert_eq!(found, truth);
    }
}
