//! The SDK's errors as failures: its sentence, our exit code and hint.

use holm_client::{
    AdminError, BucketError, Cause, CertificateFault, ConnectError, DeleteError, DialError,
    GetError, Outcome, PutError, RequestError,
};

use super::{Failure, Status, refusal_hint, refusal_status};

/// What to do when nobody answers.
const UNREACHABLE: &str =
    "check that `holmd` runs on those nodes and that UDP gets through to them";

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Failure {
        let (status, hint) = match &error {
            _ if error.refusal().is_some() => return known(error.to_string(), error.refusal()),
            _ if error.certificate_fault().is_some() => (Status::Failed, certificate_hint(&error)),
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

/// What to do about a certificate that one side does not accept. The error names the files.
fn certificate_hint(error: &ConnectError) -> &'static str {
    let ConnectError::Unreachable { tried } = error else { return "see the node's log" };
    let is_ours = tried.iter().find_map(|(_, error)| match error {
        DialError::ClientCertificate { .. } => Some(true),
        DialError::NodeCertificate { .. } => Some(false),
        _ => None,
    });
    match (is_ours, error.certificate_fault()) {
        (Some(true), Some(CertificateFault::Unfit { .. })) => {
            "`cert` and `key` must be a client's, not a node's: make them with \
             `holm cert client NAME`"
        }
        (Some(true), Some(CertificateFault::UnknownCa)) => {
            "issue `cert` and `key` with this cluster's CA: `holm cert client NAME --ca DIR`"
        }
        (Some(true), _) => {
            "issue a new certificate with `holm cert client NAME --ca DIR`, and name it and its key \
             in the cluster file"
        }
        (_, Some(CertificateFault::Expired)) => {
            "check this machine's clock; or issue the node's certificate anew: `holm cert node ID`"
        }
        (_, Some(CertificateFault::UnknownCa)) => {
            "name the CA that issued the nodes' certificates as `ca` in the cluster file"
        }
        _ => "check ids and addresses in the cluster file, and the node's certificate",
    }
}

fn dial_hint(tried: Option<&(holm_client::NodeId, DialError)>) -> &'static str {
    match tried {
        Some((_, DialError::Handshake(_))) => "see the log of that node",
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

    /// Goal: a certificate that is refused says so whichever node is asked first, with its own hint
    /// and code, and not "unavailable". Method: a dead node before one that refuses.
    #[test]
    fn refused_certificates_are_not_unavailability() {
        let ours = |fault| DialError::ClientCertificate { fault, certificate: "c.pem".into() };
        let theirs = DialError::NodeCertificate {
            fault: CertificateFault::UnknownCa,
            ca: "CA certificate ca.pem".into(),
        };
        let unfit = CertificateFault::Unfit { why: "a certificate of node 3".into() };
        for (error, what, hint) in [
            (ours(CertificateFault::Expired), "expired", "issue a new certificate"),
            (ours(unfit), "certificate of node 3", "not a node's"),
            (theirs, "ca.pem", "as `ca` in the cluster file"),
        ] {
            let dead = (NodeId(1), DialError::TimedOut { waited_ms: 5 });
            let error = ConnectError::Unreachable { tried: vec![dead, (NodeId(2), error)] };
            let failure = Failure::from(error);
            assert_eq!(failure.status, Status::Failed, "{failure}");
            assert!(failure.what.contains(what) && failure.hint.contains(hint), "{failure}");
        }
    }

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
