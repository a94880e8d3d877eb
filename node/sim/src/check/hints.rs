//! What is kept for a replica stays until the replica has it, and goes to it.

use holm_protocol::dot::Dot;
use holm_protocol::ids::NodeId;
use holm_protocol::version_vector::VersionVector;

use crate::check::durable::Copy;
use crate::check::{Property, Verdict, Violation};

/// I2.
pub const HOME_FIRST: Property = Property {
    name: "a hint goes when it is home",
    invariant: "I2",
    statement: "what a hint loses, or a deleted hint had, its replica's disk has, synced under `sync = always`, or has lost by a fault that may do that",
    source: "Dynamo (SOSP 2007) 4.6; DESIGN 6: a hint is deleted after the replica acknowledged it durably",
    tla: Some("tla/Replication.tla!AcknowledgedIsDurable"),
    file: file!(),
};

/// I6.
pub const GO_HOME: Property = Property {
    name: "hints go home",
    invariant: "I6",
    statement: "after faults stop every hint goes to its replica within bounded time, without any client",
    source: "Dynamo (SOSP 2007) 4.6",
    tla: Some("tla/Replication.tla!Converges"),
    file: file!(),
};

/// Checks a commit that changed a hint. `home` says what is on the replica's disk of a dot.
///
/// # Errors
/// Something that was kept, is gone, and is not at home.
pub fn check_change(
    (node, replica): (NodeId, NodeId),
    (before, after): (&VersionVector, &VersionVector),
    home: impl Fn(Dot) -> Copy,
) -> Verdict {
    for dot in before.iter().filter(|&dot| !after.covers(dot)) {
        let copy = home(dot);
        if !matches!(copy, Copy::Kept | Copy::LostSince) {
            let how = format!("{node} forgets {dot}, {copy:?} at {replica}, for which it kept it");
            return Err(Violation::new(&HOME_FIRST, how));
        }
    }
    Ok(())
}

/// Checks what is left when hints should long be home: who keeps it, for whom.
///
/// # Errors
/// There is any.
pub fn check_left(left: &[(NodeId, NodeId)]) -> Verdict {
    match left.first() {
        None => Ok(()),
        Some((node, replica)) => {
            let how = format!("{node} still keeps something for {replica}, {} in all", left.len());
            Err(Violation::new(&GO_HOME, how))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::tests::{covers, dot};

    /// Goal: what is at home, or was, may go; what is missing or not synced there may not, neither
    /// with the hint nor out of it.
    #[test]
    fn good_and_bad() {
        let nodes = (NodeId(4), NodeId(1));
        let all = covers(&[(1, 1), (2, 3)]);
        for (copy, is_good) in [
            (Copy::Kept, true),
            (Copy::LostSince, true),
            (Copy::Unsynced, false),
            (Copy::Missing, false),
        ] {
            let home = |it| if it == dot(2, 3) { copy } else { Copy::Kept };
            for after in [covers(&[]), covers(&[(1, 1)]), covers(&[(1, 1), (2, 2)])] {
                assert_eq!(check_change(nodes, (&all, &after), home).is_ok(), is_good);
            }
            assert_eq!(check_change(nodes, (&all, &all), home), Ok(()));
        }
        assert_eq!(check_left(&[]), Ok(()));
        assert!(check_left(&[nodes]).is_err());
    }
}
