//! Started nodes as stories: who may answer, who must take what it lacks from others, and that nothing
//! comes back with an old disk (`tla/Disks.tla`).

use holm_protocol::error::{NotReady, Outcome, RequestError};
use holm_protocol::ids::NodeId;
use holm_protocol::level::Level;
use holm_sim::script::Script;

use crate::stories::{blind, refused, values, written};

/// Goal: an ordinary restart serves again as soon as one other replica has answered: a connection and a
/// round trip. Method: one of three restarts; what it says first, and when it answers a read itself.
#[test]
fn a_restarted_node_asks_one_replica() {
    let mut script = Script::new(&[(3, 3)]);
    written(script.put(1, ("k", "red"), &blind(), Level::All));
    script.cluster().crash(NodeId(3));
    script.run_ms(200);
    script.story();
    script.cluster().restart(NodeId(3));
    let mut waited_ms = 0;
    while script.cluster().quarantined().is_empty() && waited_ms < 50 {
        script.run_ms(1);
        waited_ms += 1;
    }
    assert!(!script.cluster().quarantined().is_empty(), "it is in doubt");
    while !script.cluster().quarantined().is_empty() {
        script.run_ms(1);
        waited_ms += 1;
    }
    assert!(waited_ms < 20, "{waited_ms} ms");
    let (shown, _) = values(script.get(3, "k", Level::One));
    assert_eq!(shown, ["red"]);
    let story = script.story();
    let said = |words: &str| story.iter().position(|line| line.starts_with(words));
    let (asks, told) = (said("n3 -> n1 compares: "), said("n1 -> n3 answers: "));
    assert!(asks.is_some() && asks < told, "{story:#?}");
    assert_eq!(script.violation(), None);
}

/// Goal: a cluster of which all nodes start comes up by itself, though nobody serves whom the others
/// could ask.
#[test]
fn a_whole_cluster_starts() {
    let mut script = Script::new(&[(3, 3), (2, 2)]);
    written(script.put(1, ("k", "red"), &blind(), Level::All));
    (1..=5).for_each(|node| script.cluster().crash(NodeId(node)));
    script.run_ms(500);
    (1..=5).for_each(|node| script.cluster().restart(NodeId(node)));
    script.run_ms(1_000);
    assert_eq!(script.cluster().quarantined(), []);
    for node in 1..=5 {
        let (shown, _) = values(script.get(node, "k", Level::All));
        assert_eq!(shown, ["red"], "n{node}");
    }
    assert_eq!(script.violation(), None);
}

/// Goal: a node that starts with nobody in reach says why it does nothing, and so a client knows that
/// nothing happened.
#[test]
fn a_node_that_starts_alone_waits() {
    let mut script = Script::new(&[(2, 2)]);
    written(script.put(1, ("k", "red"), &blind(), Level::All));
    script.cluster().crash(NodeId(1));
    script.cluster().crash(NodeId(2));
    script.run_ms(200);
    script.cluster().restart(NodeId(2));
    script.run_ms(2_000);
    let in_doubt = RequestError::NotReady { reason: NotReady::InDoubt };
    assert_eq!(refused(script.get(2, "k", Level::One)), in_doubt);
    let error = refused(script.put(2, ("k", "blue"), &blind(), Level::One));
    assert_eq!((&error, error.outcome()), (&in_doubt, Outcome::NothingHappened));
    script.cluster().restart(NodeId(1));
    script.run_ms(500);
    assert_eq!(values(script.get(2, "k", Level::All)).0, ["red"]);
    assert_eq!(script.violation(), None);
}

/// Goal: nothing that was deleted, and whose delete is forgotten everywhere, comes back with an older
/// disk; what the disk lacks comes from the others. Method: a disk is copied, what it holds is deleted,
/// something else is written; when nobody has a tombstone any more, the copy is put back.
#[test]
fn a_restored_disk_brings_nothing_back() {
    let mut script = Script::new(&[(3, 3)]);
    let red = written(script.put(1, ("k", "red"), &blind(), Level::All));
    script.run_ms(5_000);
    script.cluster().copy_disk(NodeId(3));
    written(script.delete(1, "k", &red.context, Level::All));
    written(script.put(2, ("other", "blue"), &blind(), Level::All));
    script.run_ms(20_000);
    script.cluster().crash(NodeId(3));
    script.cluster().restore_disk(NodeId(3));
    assert_eq!((script.held(3, "k"), script.held(3, "other")), (vec!["red".to_owned()], vec![]));
    script.cluster().restart(NodeId(3));
    script.run_ms(3_000);
    assert_eq!(script.cluster().quarantined(), []);
    for node in 1..=3 {
        assert_eq!(values(script.get(node, "k", Level::All)).0, Vec::<String>::new(), "n{node}");
        assert_eq!(script.held(node, "k"), Vec::<String>::new(), "n{node}");
        assert_eq!(values(script.get(node, "other", Level::One)).0, ["blue"], "n{node}");
    }
    assert!(script.cluster().counters().fell_behind > 0);
    assert_eq!(script.violation(), None);
}

/// Goal: a copy of another node's disk is as good as any older one. Method: one node gets that of
/// another as it was before the last delete.
#[test]
fn a_cloned_disk_brings_nothing_back() {
    let mut script = Script::new(&[(3, 3)]);
    let red = written(script.put(1, ("k", "red"), &blind(), Level::All));
    script.run_ms(5_000);
    script.cluster().crash(NodeId(3));
    script.cluster().clone_disk(NodeId(3), NodeId(2));
    // It is not back yet, so nothing is forgotten.
    written(script.delete(1, "k", &red.context, Level::Quorum));
    script.run_ms(10_000);
    script.cluster().restart(NodeId(3));
    script.run_ms(10_000);
    assert_eq!(values(script.get(3, "k", Level::One)).0, Vec::<String>::new());
    let blue = written(script.put(3, ("k", "blue"), &blind(), Level::All));
    assert_eq!(blue.receipt.coordinator, NodeId(3));
    assert_eq!(values(script.get(1, "k", Level::One)).0, ["blue"]);
    assert_eq!(script.violation(), None);
}
