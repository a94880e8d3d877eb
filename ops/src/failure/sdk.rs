//! The SDK's errors as failures: its sentence, our exit code and hint.

use holm_client::{
    AdminError, BucketError, Cause, ConnectError, DeleteError, DialError, GetError, Outcome,
    PutError, RequestError,
};

use super::{Failure, Status, refusal_hint, refusal_status};

/// What to do when nobody answers.
const UNREACHABLE: &str =
    "check that `holmd` runs on those nodes and that UDP gets through to them";

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Failure {
        let (status, hint) = match &error {
            _ if error.refusal().is_some() => return known(error.to_string(), error.refusal()),
            ConnectError::Unreachable { tried } => (Status::Unavailable, dial_hint(tried.first())),
            ConnectError::View(_) => (Status::Unavailable, UNREACHABLE),
            ConnectError::UnknownRegion { .. } => {
                (Status::Usage, "correct `--region`, HOLM_REGION or the cluster file's `region`")
            }
            ConnectError::Socket(_) => {
                (Status::Failed, "see `ulimit -n` for the limit on open files")
            }
            _ => (Status::Usage, "correct the cluster file; `holm demo` shows a working one"),
        };
        Failure::new(status, error.to_string(), hint)
    }
}

fn dial_hint(tried: Option<&(holm_client::NodeId, DialError)>) -> &'static str {
    match tried {
        Some((_, DialError::Handshake(_))) => {
            "client and nodes must have certificates of one CA, still valid: `holm cert`"
        }
        Some((_, DialError::WrongNode { .. })) => "correct ids and addresses in the cluster file",
        _ => UNREACHABLE,
    }
}

impl From<BucketError> for Failure {
    fn from(error: BucketError) -> Failure {
        match error {
            BucketError::View(error) => error.into(),
            BucketError::Unknown { .. } => Failure::new(
                Status::NotFound,
                error.to_string(),
                "see `holm bucket list` for those there are",
            ),
            _ => Failure::usage(error.to_string(), "see `holm bucket list` for those there are"),
        }
    }
}

impl From<AdminError> for Failure {
    fn from(error: AdminError) -> Failure {
        match &error {
            AdminError::Unknown { .. } | AdminError::UnexpectedReply { .. } => Failure::new(
                Status::Unknown,
                error.to_string(),
                "see `holm status`, `holm layout show` and `holm bucket list` before repeating it",
            ),
            AdminError::UnknownNode { .. } | AdminError::Policy { .. } => {
                Failure::usage(error.to_string(), "see `holm layout show` and `holm bucket list`")
            }
            AdminError::Unavailable { last, .. } => unavailable(error.to_string(), last),
            _ => known(error.to_string(), error.refusal()),
        }
    }
}

impl From<GetError> for Failure {
    fn from(error: GetError) -> Failure {
        match &error {
            GetError::Unavailable { last, .. } => unavailable(error.to_string(), last),
            GetError::KeyLength { .. } => Failure::usage(error.to_string(), "use a shorter key"),
            _ => known(error.to_string(), error.refusal()),
        }
    }
}

impl From<PutError> for Failure {
    fn from(error: PutError) -> Failure {
        match &error {
            _ if error.outcome() == Outcome::MayHaveHappened => unknown(error.to_string()),
            PutError::Unavailable { last, .. } => unavailable(error.to_string(), last),
            PutError::KeyLength { .. } | PutError::ValueTooLarge { .. } => {
                Failure::usage(error.to_string(), "use a key and value within the limits")
            }
            _ => known(error.to_string(), error.refusal()),
        }
    }
}

impl From<DeleteError> for Failure {
    fn from(error: DeleteError) -> Failure {
        match error {
            _ if error.outcome() == Outcome::MayHaveHappened => unknown(error.to_string()),
            DeleteError::Read(error) => error.into(),
            DeleteError::Absent => {
                Failure::new(Status::NotFound, error.to_string(), "there is nothing to do")
            }
            DeleteError::Unavailable { ref last, .. } => unavailable(error.to_string(), last),
            _ => known(error.to_string(), error.refusal()),
        }
    }
}

fn unknown(what: String) -> Failure {
    Failure::new(
        Status::Unknown,
        what,
        "read the key to see whether the write arrived, then repeat it if needed",
    )
}

fn unavailable(what: String, last: &Cause) -> Failure {
    let hint = match last.refusal() {
        Some(refusal) => refusal_hint(refusal),
        None => "see `holm status` for nodes that are down, or give it more time: `--timeout-ms`",
    };
    Failure::unavailable(what, hint)
}

/// A failure whose refusal, if there is one, decides about status and hint.
fn known(what: String, refusal: Option<&RequestError>) -> Failure {
    match refusal {
        Some(error) => Failure::new(refusal_status(error), what, refusal_hint(error)),
        None => Failure::failed(what, "see `holm status` and the nodes' logs"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use holm_client::NodeId;

    use super::*;

    /// Goal: the SDK's three outcomes become three exit codes. Method: one put error of each.
    #[test]
    fn outcomes_become_exit_codes() {
        let node = NodeId(1);
        let refused = RequestError::KeyLength { len: 0, limit: 1 };
        let last = Cause::NoAnswer { node, waited_ms: 5 };
        let request = holm_client::RequestId { client: 1, sequence: 2 };
        let cases = [
            (PutError::Refused { node, error: refused }, Status::Failed),
            (PutError::Unknown { request, last: last.clone() }, Status::Unknown),
            (
                PutError::Unavailable { timeout: Duration::from_secs(1), attempts: 2, last },
                Status::Unavailable,
            ),
        ];
        for (error, status) in cases {
            assert_eq!(Failure::from(error.clone()).status, status, "{error}");
        }
        let unknown = BucketError::Unknown { name: "x".into() };
        assert_eq!(Failure::from(unknown).status, Status::NotFound);
    }
}
