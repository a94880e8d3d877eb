//! What is wrong with a certificate, from the alerts of TLS and the close codes of nodes.
//!
//! In TLS 1.3 the client is done before the node has looked at the client's certificate, so that
//! refusal arrives when the first welcome is awaited, and not from the handshake itself.

use quinn::ConnectionError;

use super::DialError;

/// The code with which a node closes a connection whose certificate does not fit its use.
const CLOSE_CERTIFICATE: u64 = 1002;

/// QUIC carries a TLS alert as this plus its number (RFC 9001, section 4.8).
const CRYPTO: u64 = 0x100;

/// What is wrong with a certificate. Its sentence starts behind "the certificate".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateFault {
    /// It is not signed by the CA that the other side trusts.
    #[error("is of another CA: client and nodes must have certificates of one CA")]
    UnknownCa,
    /// It is not valid at this time.
    #[error("has expired or is not valid yet: issue a new one, and check both clocks")]
    Expired,
    /// None was shown.
    #[error("was not shown, and is required")]
    Missing,
    /// It is valid, but for something else.
    #[error("is not one for this use: {why}")]
    Unfit {
        /// The other side's words.
        why: String,
    },
    /// It was not accepted for another reason.
    #[error("was not accepted: {why}")]
    Other {
        /// The TLS library's words.
        why: String,
    },
}

impl CertificateFault {
    /// The fault behind a TLS alert; none if the alert is not about a certificate.
    fn of_alert(alert: u64, why: &str) -> Option<CertificateFault> {
        match alert {
            45 => Some(CertificateFault::Expired),
            // 51: a signature that does not fit, which is another CA under the same name.
            48 | 51 => Some(CertificateFault::UnknownCa),
            116 => Some(CertificateFault::Missing),
            // Bad, unsupported, revoked, unknown certificate.
            42..=44 | 46 => Some(CertificateFault::Other { why: why.to_owned() }),
            _ => None,
        }
    }
}

impl DialError {
    /// Why a connection was lost while it was being made. `ca` and `certificate` say which files
    /// this client used.
    pub(crate) fn of_handshake(error: ConnectionError, ca: &str, certificate: &str) -> DialError {
        let alert = |code: u64| code.saturating_sub(CRYPTO);
        let fault = match &error {
            ConnectionError::TransportError(ours) => {
                let fault = CertificateFault::of_alert(alert(ours.code.into()), &ours.reason);
                return match fault {
                    Some(fault) => DialError::NodeCertificate { fault, ca: ca.to_owned() },
                    None => DialError::Handshake(error),
                };
            }
            ConnectionError::ConnectionClosed(theirs) => {
                let why = String::from_utf8_lossy(&theirs.reason);
                CertificateFault::of_alert(alert(theirs.error_code.into()), &why)
            }
            ConnectionError::ApplicationClosed(theirs)
                if theirs.error_code.into_inner() == CLOSE_CERTIFICATE =>
            {
                let why = String::from_utf8_lossy(&theirs.reason).into_owned();
                Some(CertificateFault::Unfit { why })
            }
            _ => None,
        };
        let certificate = certificate.to_owned();
        match fault {
            Some(fault) => DialError::ClientCertificate { fault, certificate },
            None => DialError::Handshake(error),
        }
    }

    /// What is wrong with a certificate, if that is why.
    #[must_use]
    pub fn certificate_fault(&self) -> Option<&CertificateFault> {
        match self {
            DialError::NodeCertificate { fault, .. }
            | DialError::ClientCertificate { fault, .. } => Some(fault),
            _ => None,
        }
    }
}
