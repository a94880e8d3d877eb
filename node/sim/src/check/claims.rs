//! What a node tells others that it has, no power cut takes from it.
//!
//! Others forget what everybody has claimed, and go by a claim when they look for what they lack.

use holm_protocol::dot::Dot;
use holm_protocol::ids::NodeId;
use holm_protocol::version_vector::VersionVector;

use crate::check::{Property, Verdict, Violation};

/// I4's premise.
pub const DURABLE: Property = Property {
    name: "claims are durable",
    invariant: "I4",
    statement: "when a pulse or a claim leaves, the newest writes of which it speaks are synced on the sender's disk",
    source: "DESIGN 7: a pulse speaks only of what is durable; found by random search over a model",
    tla: Some("tla/Stability.tla!NoResurrection"),
    file: file!(),
};

/// I4's premise.
pub const STABLE_IS_SEEN: Property = Property {
    name: "what is known to be stable every replica has seen",
    invariant: "I4",
    statement: "a replica knows to be stable only what lies in the contiguous prefix of what every replica of the partition, up or down, has claimed to have seen",
    source: "DESIGN 7: the stable clock; DottedDB (SRDS 2017)",
    tla: Some("tla/Stability.tla!ForgottenIsSeen"),
    file: file!(),
};

/// Checks what a node knows to be stable. `claimed` is what each of the other replicas has claimed to
/// have seen: prefixes.
///
/// # Errors
/// Something that one of them has not claimed.
pub fn check_known(
    node: NodeId,
    know: &VersionVector,
    claimed: &[(NodeId, VersionVector)],
) -> Verdict {
    for (other, seen) in claimed {
        if let Some(dot) = know.iter().find(|dot| !seen.covers(*dot)) {
            let how = format!("{node} knows {dot} to be stable, and {other} has not claimed it");
            return Err(Violation::new(&STABLE_IS_SEEN, how));
        }
    }
    Ok(())
}

/// Checks one write that a node claims to have. `safe` is what the key's object would cover there after
/// a power cut.
///
/// # Errors
/// The write could be lost.
pub fn check(node: NodeId, dot: Dot, safe: &VersionVector) -> Verdict {
    if safe.covers(dot) {
        return Ok(());
    }
    let how = format!("{node} claims {dot}, which is not safe on its disk");
    Err(Violation::new(&DURABLE, how))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::tests::{covers, dot};

    /// Goal: what is safe may be claimed, and nothing else.
    #[test]
    fn good_and_bad() {
        let safe = covers(&[(1, 2)]);
        assert_eq!(check(NodeId(1), dot(1, 2), &safe), Ok(()));
        assert!(check(NodeId(1), dot(1, 3), &safe).is_err());
        assert!(check(NodeId(1), dot(2, 1), &safe).is_err());
    }
}
