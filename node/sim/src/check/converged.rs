//! After faults stop, all replicas of a key hold the same object.

use holm_core::object::Object;
use holm_protocol::ids::NodeId;

use crate::check::{Property, Verdict, Violation};

/// I6, as far as read repair reaches.
pub const SAME_EVERYWHERE: Property = Property {
    name: "replicas converge",
    invariant: "I6",
    statement: "after faults stop and every key was read at all its replicas, these hold equal objects",
    source: "Dynamo (SOSP 2007) 5: read repair; until gap repair, client reads are the only repair",
    tla: Some("tla/Replication.tla!Converges"),
    file: file!(),
};

/// Compares the replicas' objects of one key.
///
/// # Errors
/// Two that differ.
pub fn check(key: &str, replicas: &[(NodeId, Object)]) -> Verdict {
    for pair in replicas.windows(2) {
        let [(one, ours), (other, theirs)] = pair else { continue };
        if ours != theirs {
            let how = format!("{one} and {other} differ at {key}: {ours:?} and {theirs:?}");
            return Err(Violation::new(&SAME_EVERYWHERE, how));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use holm_core::object::ObjectKind;
    use holm_protocol::ids::Hlc;
    use holm_protocol::version_vector::VersionVector;

    use super::*;
    use crate::check::tests::dot;

    /// Goal: a replica that lacks only a tombstone is told.
    #[test]
    fn good_and_bad() {
        let empty = Object::new(ObjectKind::Siblings);
        let mut deleted = empty.clone();
        deleted.delete(&VersionVector::new(), dot(1, 1), Hlc(1));
        let (one, other) = (NodeId(1), NodeId(2));
        assert_eq!(check("k", &[(one, deleted.clone()), (other, deleted.clone())]), Ok(()));
        assert!(check("k", &[(one, deleted), (other, empty)]).is_err());
    }
}
