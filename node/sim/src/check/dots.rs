//! Dots name writes: one dot, one write; one write, one dot.

use holm_protocol::dot::Dot;

use crate::check::{Property, Verdict, Violation};
use crate::history::{EventId, History, Learned};

/// I1.
pub const UNIQUE: Property = Property {
    name: "dots are unique",
    invariant: "I1",
    statement: "no two writes of a partition ever have the same dot",
    source: "Preguica et al., PODC 2012: dots; DESIGN 3: actors are new in every run",
    tla: Some("tla/Replication.tla!DotsAreUnique"),
    file: file!(),
};

/// P10.
pub const RETRY_ONCE: Property = Property {
    name: "a repeated request applies once",
    invariant: "P10",
    statement: "a write repeated under its request id at the same run of the same node has one dot; repeated elsewhere too, at most one for each of these and of each run",
    source: "Dynamo has no such promise; the window is of DESIGN 6",
    tla: None,
    file: file!(),
};

/// Takes in that a write has this dot, seen wherever it was.
///
/// # Errors
/// It has another, or the dot is another write's.
pub fn learn(history: &mut History, id: EventId, dot: Dot) -> Verdict {
    match history.learn(id, dot) {
        Learned::Fits => Ok(()),
        Learned::DotTaken(other) => {
            let (this, other) = (history.describe(id), history.describe(other));
            Err(Violation::new(&UNIQUE, format!("{this} has dot {dot}, and so has {other}")))
        }
        Learned::SecondDot(first) => {
            let this = history.describe(id);
            Err(Violation::new(&RETRY_ONCE, format!("{this} has dots {first} and {dot}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::tests::{Told, dot};

    /// Goal: one dot each passes, in any order and repeated; a shared dot and a second dot do not.
    #[test]
    fn good_and_bad() {
        let mut told = Told::default();
        let (a, b) = (told.put("a", &[]), told.put("b", &[]));
        let history = &mut told.history;
        assert_eq!(learn(history, a, dot(1, 1)), Ok(()));
        assert_eq!(learn(history, b, dot(1, 2)), Ok(()));
        assert_eq!(learn(history, a, dot(1, 1)), Ok(()));
        assert_eq!(learn(history, b, dot(1, 1)).unwrap_err().property, &UNIQUE);
        assert_eq!(learn(history, b, dot(2, 1)).unwrap_err().property, &RETRY_ONCE);
    }

    /// Goal: a write that was asked for at two nodes may have two dots, of different runs, and no
    /// third; another write may have neither.
    #[test]
    fn tries_elsewhere() {
        let mut told = Told::default();
        let (a, b) = (told.put("a", &[]), told.put("b", &[]));
        let history = &mut told.history;
        assert_eq!(learn(history, a, dot(1, 1)), Ok(()));
        history.begin_again(a, 1);
        assert_eq!(learn(history, a, dot(1, 2)).unwrap_err().property, &RETRY_ONCE);
        assert_eq!(learn(history, a, dot(2, 1)), Ok(()));
        assert_eq!(learn(history, a, dot(2, 1)), Ok(()));
        assert_eq!(learn(history, a, dot(3, 1)).unwrap_err().property, &RETRY_ONCE);
        assert_eq!(learn(history, b, dot(2, 1)).unwrap_err().property, &UNIQUE);
    }
}
