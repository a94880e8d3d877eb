//! A node that lost its memory, or may have, answers for nobody until it has shown that it has what it
//! must, or has taken it from others.

use std::collections::BTreeMap;

use holm_core::shard::config::Standing;
use holm_protocol::ids::{NodeId, Partition};
use holm_protocol::message::Receipt;

use crate::check::{Property, Verdict, Violation};

/// I11.
pub const STEPS_ASIDE: Property = Property {
    name: "a node without memory steps aside",
    invariant: "I11",
    statement: "no read asked for after a replica lost its disk, and before it has taken from others what they have, includes it, and no such write is coordinated by it",
    source: "DESIGN 7, resync: a replica behind what it once claimed is quarantined",
    tla: Some("tla/Stability.tla!NoResurrection"),
    file: file!(),
};

/// I4, I11.
pub const ASKS_FIRST: Property = Property {
    name: "a started node asks before it answers",
    invariant: "I4",
    statement: "a started node answers other nodes for a partition, and tells them what it has of it, only after another replica has told it in that run where it stands",
    source: "DESIGN 7: nothing on a disk says that it is an older one; found by random search over a model",
    tla: Some("tla/Stability.tla!NoResurrection"),
    file: file!(),
};

/// I4.
pub const BEHIND_STEPS_ASIDE: Property = Property {
    name: "who lacks what is stable steps aside",
    invariant: "I4",
    statement: "a replica that was told of a write that all replicas once had, and has not seen that write, is behind from then on, and so does not serve",
    source: "DESIGN 7, resync: both sides of a comparison look",
    tla: Some("tla/Stability.tla!ForgottenIsSeen"),
    file: file!(),
};

/// I6, I11.
pub const COMES_BACK: Property = Property {
    name: "who stepped aside comes back",
    invariant: "I6",
    statement: "after faults stop every replica serves within bounded time, without any client or operator",
    source: "DESIGN 7, resync",
    tla: Some("tla/Stability.tla!AllIsForgotten"),
    file: file!(),
};

/// Checks that a node that answers for a partition may.
///
/// # Errors
/// It has not asked anybody since it started.
pub fn check_asked(node: NodeId, partition: Partition, has_asked: bool) -> Verdict {
    if has_asked {
        return Ok(());
    }
    let how = format!("{node} answers for {partition} and has not asked since it started");
    Err(Violation::new(&ASKS_FIRST, how))
}

/// Checks a replica that was told what another knows to be stable.
///
/// # Errors
/// It lacks some of it, and serves.
pub fn check_lacking(node: NodeId, partition: Partition, lacks_and_goes_on: bool) -> Verdict {
    if !lacks_and_goes_on {
        return Ok(());
    }
    let how = format!("{node} lacks what is known to be stable of {partition}, and is not behind");
    Err(Violation::new(&BEHIND_STEPS_ASIDE, how))
}

/// Checks who does not serve when all should.
///
/// # Errors
/// There is any.
pub fn check_left(left: &[(NodeId, Partition, Standing)]) -> Verdict {
    match left.first() {
        None => Ok(()),
        Some((node, partition, standing)) => {
            let how =
                format!("{node} does not serve {partition} ({standing:?}), {} in all", left.len());
            Err(Violation::new(&COMES_BACK, how))
        }
    }
}

/// Checks the receipt of an answer to a call asked for at `asked_us`. `forgot` has the nodes that
/// lost their memory, each with the time.
///
/// # Errors
/// It names a node that should have stepped aside.
pub fn check(
    forgot: &BTreeMap<NodeId, u64>,
    asked_us: u64,
    receipt: &Receipt,
    is_read: bool,
) -> Verdict {
    let mut named: Vec<NodeId> = match is_read {
        true => receipt.replicas.iter().map(|entry| entry.node).collect(),
        // Its copy is as good as any.
        false => vec![receipt.coordinator],
    };
    named.retain(|node| forgot.get(node).is_some_and(|&at_us| at_us < asked_us));
    match named.first() {
        None => Ok(()),
        Some(node) => {
            let what = if is_read { "is part of a read" } else { "coordinates a write" };
            Err(Violation::new(&STEPS_ASIDE, format!("{node} {what} after it lost its disk")))
        }
    }
}

#[cfg(test)]
mod tests {
    use holm_protocol::ids::RegionId;
    use holm_protocol::level::Level;
    use holm_protocol::message::ReceiptEntry;

    use super::*;

    /// Goal: who has asked, lacks nothing, or does not serve passes; the others do not.
    #[test]
    fn standings() {
        let (node, partition) = (NodeId(1), Partition::from_u32(0));
        assert_eq!(check_asked(node, partition, true), Ok(()));
        assert!(check_asked(node, partition, false).is_err());
        assert_eq!(check_lacking(node, partition, false), Ok(()));
        assert!(check_lacking(node, partition, true).is_err());
        assert_eq!(check_left(&[]), Ok(()));
        assert!(check_left(&[(node, partition, Standing::Doubt)]).is_err());
    }

    /// Goal: calls asked for before the loss pass, later ones do not; a node without memory may
    /// take copies and pass reads on.
    #[test]
    fn good_and_bad() {
        let forgot = BTreeMap::from([(NodeId(1), 10)]);
        let receipt = |coordinator: u64, replica: u64| {
            let entry =
                ReceiptEntry { node: NodeId(replica), region: RegionId(0), fallback: false };
            let coordinator = NodeId(coordinator);
            Receipt { coordinator, level: Level::One, replicas: vec![entry] }
        };
        assert_eq!(check(&forgot, 11, &receipt(1, 2), true), Ok(()));
        assert_eq!(check(&forgot, 11, &receipt(2, 1), false), Ok(()));
        assert_eq!(check(&forgot, 9, &receipt(1, 1), true), Ok(()));
        assert!(check(&forgot, 11, &receipt(2, 1), true).is_err());
        assert!(check(&forgot, 11, &receipt(1, 2), false).is_err());
    }
}
