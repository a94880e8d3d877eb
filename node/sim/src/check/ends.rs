//! Runs come to an end, and what is there can be read then.

use holm_protocol::message::Reply;

use crate::check::{Property, Verdict, Violation};
use crate::cluster::CallResult;

/// Liveness of the whole.
pub const ENDS: Property = Property {
    name: "a run comes to an end",
    invariant: "P9",
    statement: "after faults stop clients get done with what they have to do, and the run within its steps",
    source: "FoundationDB (SIGMOD 2021) 4: a simulation that is stuck has failed; TESTING 1, P9",
    tla: None,
    file: file!(),
};

/// Liveness of reads.
pub const READABLE: Property = Property {
    name: "what is there can be read",
    invariant: "P9",
    statement: "after faults stop a read of a key at all its replicas that remember is answered with values, in every region, within a bounded number of tries",
    source: "Dynamo (SOSP 2007) 4.5: reads are served while enough replicas are up",
    tla: None,
    file: file!(),
};

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Steps taken.
    pub steps: u64,
    /// Steps after which a run is stuck.
    pub steps_max: u64,
    /// Clients that are not done although it is time.
    pub busy: usize,
}

/// Checks that a run goes on, and that nobody is kept waiting.
///
/// # Errors
/// It is stuck.
pub fn check(progress: Progress) -> Verdict {
    let Progress { steps, steps_max, busy } = progress;
    if steps < steps_max && busy == 0 {
        return Ok(());
    }
    let how = format!("stuck after {steps} steps of at most {steps_max}, {busy} clients are busy");
    Err(Violation::new(&ENDS, how))
}

/// Checks the last answer to a read at a node, when faults are long over. `None` if there was none.
///
/// # Errors
/// It shows no values.
pub fn check_read(key: &str, node: &str, result: Option<&CallResult>) -> Verdict {
    match result {
        Some(CallResult::Reply(Reply::Values(_))) => Ok(()),
        other => {
            let how = format!("{key} cannot be read at {node}: {other:?}");
            Err(Violation::new(&READABLE, how))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the last step that is allowed passes, one more does not, nor does a busy client.
    #[test]
    fn good_and_bad() {
        let at = Progress { steps: 9, steps_max: 10, busy: 0 };
        assert_eq!(check(at), Ok(()));
        assert!(check(Progress { steps: 10, ..at }).is_err());
        assert!(check(Progress { busy: 1, ..at }).is_err());
    }

    /// Goal: no answer, a lost connection and a node that is not there are all told.
    #[test]
    fn reads() {
        for bad in [None, Some(CallResult::NotSent), Some(CallResult::Disconnected)] {
            assert!(check_read("k", "n1", bad.as_ref()).is_err());
        }
    }
}
