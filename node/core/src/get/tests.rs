//! Goal: a read is answered when enough replicas' states are in the answer, and asks no more than
//! it must. Method: quorums of two among three, the answers in every order that matters.

use bytes::Bytes;
use holm_protocol::dot::Dot;
use holm_protocol::ids::{Actor, Hlc, Partition, PlacementId, RegionId};
use holm_protocol::level::Level;
use holm_protocol::version_vector::VersionVector;

use super::*;
use crate::layout::{Layout, LayoutNode, LayoutSpec, PlacementSpec};
use crate::object::{KindMismatch, ObjectKind, Sibling};

/// A read at quorum of nodes 1 to 3.
fn read() -> GetCoordinator {
    let node = |id: u64| LayoutNode {
        id: NodeId(id),
        addr: ([127, 0, 0, 1], 7000 + id as u16).into(),
        region: "eu".to_owned(),
        zone: "z".to_owned(),
        capacity: 1,
    };
    let (id, name, replication) = (PlacementId(0), "d".to_owned(), [("eu".to_owned(), 3)].into());
    let placements = vec![PlacementSpec { id, name, bits: 0, replication }];
    let spec = LayoutSpec { version: 1, nodes: (1..=3).map(node).collect(), placements };
    let layout = Layout::compute(spec, None).unwrap();
    let partition = Partition { placement: PlacementId(0), index: 0 };
    let quorum = Quorum::new(Level::Quorum, &layout, partition, RegionId(0)).unwrap();
    GetCoordinator::new(Arc::new(quorum), Object::new(ObjectKind::Siblings))
}

/// The state after one blind put by an actor.
fn state(actor: u64) -> Object {
    let mut object = Object::new(ObjectKind::Siblings);
    let dot = Dot::new(Actor(actor), 1);
    object.put(&VersionVector::new(), Sibling::new(dot, Hlc(1), Bytes::from_static(b"v")));
    object
}

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);
const THREE: NodeId = NodeId(3);

/// Goal: an equal digest puts its replica into the answer; nobody is asked twice for that.
#[test]
fn equal_digests_are_equal_states() {
    let mut read = read();
    read.ask_whole(ONE);
    read.whole(ONE, state(1)).unwrap();
    assert_eq!(read.step(), Next::Wait);
    read.digest(TWO, state(1).digest());
    assert_eq!(read.step(), Next::Answer);
    assert_eq!(read.included(), [ONE, TWO].into());
    assert_eq!((read.merged(), read.stale()), (&state(1), vec![]));
}

/// Goal: another digest is followed by a question for the object, one time; the answer has both
/// states, and names those who lack one.
#[test]
fn other_digests_are_asked_for_their_object() {
    let mut read = read();
    read.ask_whole(ONE);
    read.whole(ONE, state(1)).unwrap();
    read.digest(TWO, state(2).digest());
    assert_eq!(read.step(), Next::AskWhole(vec![TWO]));
    assert_eq!(read.step(), Next::Wait);
    assert_eq!(read.included(), [ONE].into());
    // Who is asked again is waited for, like who has said nothing; who has said all is not.
    assert!(read.waits_for(TWO) && read.waits_for(THREE) && !read.waits_for(ONE));
    read.whole(TWO, state(2)).unwrap();
    assert_eq!(read.step(), Next::Answer);
    assert!(!read.waits_for(TWO));
    assert_eq!(read.merged().siblings().len(), 2);
    assert_eq!(read.stale(), [ONE, TWO]);
    read.whole(THREE, read.merged().clone()).unwrap();
    assert_eq!(read.stale(), [ONE, TWO]);
}

/// Goal: digests that come before any object say nothing yet; once no object is to be expected,
/// those who sent them are asked.
#[test]
fn digests_wait_for_the_first_object() {
    let mut read = read();
    read.ask_whole(ONE);
    read.digest(TWO, state(1).digest());
    assert_eq!(read.step(), Next::Wait);
    assert!(!read.waits_for(TWO), "its digest is what it was asked for");
    read.refused(ONE);
    assert_eq!(read.step(), Next::AskWhole(vec![TWO]));
    read.digest(THREE, state(2).digest());
    assert_eq!(read.step(), Next::AskWhole(vec![THREE]), "it need not hope for node 2");
    read.whole(TWO, state(1)).unwrap();
    assert_eq!(read.step(), Next::Wait);
}

/// Goal: an object in hand tells digests apart, whoever else's object is on its way.
#[test]
fn one_object_is_enough_to_compare_with() {
    let mut read = read();
    read.ask_whole(ONE);
    read.ask_whole(TWO);
    read.whole(ONE, state(1)).unwrap();
    read.digest(THREE, state(2).digest());
    assert_eq!(read.step(), Next::AskWhole(vec![THREE]));
}

/// Goal: a whole object stands, whatever its replica says later; a digest or a refusal can change.
#[test]
fn objects_outweigh_what_comes_later() {
    let mut read = read();
    read.whole(ONE, state(1)).unwrap();
    read.digest(ONE, 77);
    read.refused(ONE);
    assert_eq!(read.included(), [ONE].into());
    read.digest(TWO, state(1).digest());
    read.refused(TWO);
    assert_eq!((read.included(), read.step()), ([ONE].into(), Next::Wait));
    assert!(!read.waits_for(TWO));
    read.digest(TWO, state(1).digest());
    assert_eq!(read.step(), Next::Answer);
}

/// Goal: a refusal taken back by an object counts no more.
#[test]
fn an_object_takes_a_refusal_back() {
    let mut read = read();
    read.refused(TWO);
    read.refused(THREE);
    assert_eq!(read.step(), Next::Impossible);
    read.whole(TWO, state(1)).unwrap();
    assert_eq!(read.step(), Next::Wait);
    read.whole(ONE, state(1)).unwrap();
    assert_eq!(read.step(), Next::Answer);
}

/// Goal: an object of another kind is a refusal; a state that is nobody's answer counts for nobody.
#[test]
fn kinds_and_strangers_do_not_count() {
    let mut read = read();
    let (own, theirs) = (ObjectKind::Siblings, ObjectKind::Lww);
    let lww = || Object::new(ObjectKind::Lww);
    let refusal = || Err(MergeError::Kind(KindMismatch { own, theirs }));
    assert_eq!(read.whole(TWO, lww()), refusal());
    assert_eq!(read.merge(lww()), refusal());
    assert!(!read.waits_for(TWO) && read.waits_for(THREE));
    read.refused(THREE);
    assert_eq!(read.step(), Next::Impossible);
    read.merge(state(2)).unwrap();
    assert_eq!((read.merged(), read.included()), (&state(2), BTreeSet::new()));
}
