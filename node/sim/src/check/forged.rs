//! A context that was not given out for a key changes nothing.

use holm_protocol::error::RequestError;
use holm_protocol::message::Reply;

use crate::check::{Property, Verdict, Violation};
use crate::cluster::CallResult;
use crate::history::{EventId, History};

/// I8.
pub const REFUSED: Property = Property {
    name: "forged contexts are refused",
    invariant: "I8",
    statement: "a write with an altered context, or with one of another key, is never acknowledged, by any replica",
    source: "DESIGN 3: contexts are authenticated and bound to their key",
    tla: None,
    file: file!(),
};

/// Checks the answer to such a write. A node that passed it on and lost whom it asked may say that it
/// does not know; whether it was taken after all shows when its value is seen, which
/// [`crate::check::values`] forbids.
///
/// # Errors
/// Somebody made it durable.
pub fn check(history: &History, id: EventId, result: &CallResult) -> Verdict {
    let is_taken = match result {
        CallResult::Reply(Reply::Error(
            RequestError::WriteUnknown { durable, .. } | RequestError::HintsFull { durable, .. },
        )) => *durable > 0,
        CallResult::Reply(Reply::Error(_)) | CallResult::NotSent | CallResult::Disconnected => {
            false
        }
        CallResult::Reply(_) => true,
    };
    if !is_taken {
        return Ok(());
    }
    let how = format!("answered with {result:?}: {}", history.describe(id));
    Err(Violation::new(&REFUSED, how))
}

#[cfg(test)]
mod tests {
    use holm_protocol::error::ContextFault;

    use super::*;
    use crate::check::tests::Told;

    /// Goal: refusals and no answer at all pass; an answer by which a replica has it does not.
    #[test]
    fn good_and_bad() {
        let mut told = Told::default();
        let a = told.put("a", &[]);
        let answered = |error| CallResult::Reply(Reply::Error(error));
        let refused = answered(RequestError::Context { fault: ContextFault::Forged });
        assert_eq!(check(&told.history, a, &refused), Ok(()));
        assert_eq!(check(&told.history, a, &CallResult::Disconnected), Ok(()));
        let lost = answered(RequestError::CoordinatorLost);
        assert_eq!(check(&told.history, a, &lost), Ok(()));
        let unknown = answered(RequestError::WriteUnknown { needed: 2, durable: 1 });
        assert!(check(&told.history, a, &unknown).is_err());
    }
}
