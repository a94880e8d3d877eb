//! A node that lost its memory answers for nobody until it has resynchronised.

use std::collections::BTreeMap;

use holm_protocol::ids::NodeId;
use holm_protocol::message::Receipt;

use crate::check::{Property, Verdict, Violation};

/// I11.
pub const STEPS_ASIDE: Property = Property {
    name: "a node without memory steps aside",
    invariant: "I11",
    statement: "no read asked for after a node lost its disk includes that node, and no such write is coordinated by it",
    source: "DESIGN 7, resync: a replica behind what it once claimed is quarantined",
    tla: Some("tla/Stability.tla!NoResurrection"),
    file: file!(),
};

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
