//! Who a certificate speaks for.
//!
//! A certificate names exactly one holder by a subject alternative name of type URI:
//! `holm://node/<id>` or `holm://client/<name>?roles=read,write,admin`. Anything else names nobody.
//! The certificate has been verified against the CA before; still, its bytes are only parsed, never
//! trusted to be well formed.

use std::fmt;

use holm_protocol::error::Role;
use holm_protocol::ids::NodeId;
use holm_protocol::limits::NAME_LEN_MAX;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

/// The holder of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerIdentity {
    /// A node of the cluster.
    Node(NodeId),
    /// A client.
    Client {
        /// Its name, for logs.
        name: String,
        /// What it may do.
        roles: Roles,
    },
}

/// A set of [`Role`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Roles(u8);

/// Why a certificate names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// Not a certificate.
    #[error("not an X.509 certificate")]
    Unparsable,
    /// No URI of holm's, or more than one.
    #[error("{found} subject alternative names of the form holm://..., must be 1")]
    Names {
        /// How many there are.
        found: usize,
    },
    /// A URI that is not understood.
    #[error(
        "subject alternative name `{uri}` is neither holm://node/ID nor holm://client/NAME?roles=..."
    )]
    Uri {
        /// It, cut to a sane length.
        uri: String,
    },
}

impl Roles {
    /// Every role.
    pub const ALL: Roles = Roles(0b111);

    /// With this role too.
    #[must_use]
    pub fn with(self, role: Role) -> Roles {
        Roles(self.0 | Self::bit(role))
    }

    /// Whether this role is in it.
    #[must_use]
    pub fn has(self, role: Role) -> bool {
        self.0 & Self::bit(role) != 0
    }

    fn bit(role: Role) -> u8 {
        match role {
            Role::Read => 1,
            Role::Write => 2,
            Role::Admin => 4,
        }
    }
}

impl PeerIdentity {
    /// Reads the holder from a certificate's DER bytes.
    ///
    /// # Errors
    /// [`IdentityError`] if it names nobody, several, or in a way not understood.
    pub fn from_certificate(der: &[u8]) -> Result<PeerIdentity, IdentityError> {
        let (_, certificate) =
            parse_x509_certificate(der).map_err(|_| IdentityError::Unparsable)?;
        let names =
            certificate.subject_alternative_name().map_err(|_| IdentityError::Unparsable)?;
        let names = names.map(|extension| extension.value.general_names.as_slice());
        let mut uris = names.unwrap_or_default().iter().filter_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix("holm://"),
            _ => None,
        });
        match (uris.next(), uris.count()) {
            (Some(rest), 0) => Self::from_uri(rest).ok_or_else(|| IdentityError::Uri {
                uri: format!("holm://{}", rest.chars().take(2 * NAME_LEN_MAX).collect::<String>()),
            }),
            (None, _) => Err(IdentityError::Names { found: 0 }),
            (Some(_), more) => Err(IdentityError::Names { found: 1 + more }),
        }
    }

    fn from_uri(rest: &str) -> Option<PeerIdentity> {
        if let Some(id) = rest.strip_prefix("node/") {
            // One spelling for one node: no sign, no leading zeros.
            let node = id.parse().ok().filter(|node: &u64| node.to_string() == id)?;
            return Some(PeerIdentity::Node(NodeId(node)));
        }
        let (name, roles) = rest.strip_prefix("client/")?.split_once("?roles=")?;
        let fit = |b: u8| b.is_ascii_alphanumeric() || b"-_.@".contains(&b);
        if name.is_empty() || name.len() > NAME_LEN_MAX || !name.bytes().all(fit) {
            return None;
        }
        let mut roles = roles.split(',').filter(|role| !role.is_empty());
        let roles = roles.try_fold(Roles::default(), |roles, role| {
            Some(roles.with(match role {
                "read" => Role::Read,
                "write" => Role::Write,
                "admin" => Role::Admin,
                _ => return None,
            }))
        })?;
        Some(PeerIdentity::Client { name: name.to_owned(), roles })
    }
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerIdentity::Node(node) => write!(f, "node {}", node.0),
            PeerIdentity::Client { name, .. } => write!(f, "client {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: only the two forms name somebody. Method: spellings, right and nearly right.
    #[test]
    fn uris_are_read_strictly() {
        let client =
            |name: &str, roles| Some(PeerIdentity::Client { name: name.to_owned(), roles });
        let read = Roles::default().with(Role::Read);
        assert_eq!(PeerIdentity::from_uri("node/7"), Some(PeerIdentity::Node(NodeId(7))));
        assert_eq!(PeerIdentity::from_uri("client/app?roles=read"), client("app", read));
        assert_eq!(PeerIdentity::from_uri("client/app?roles="), client("app", Roles::default()));
        let all = "client/a@b?roles=read,write,admin";
        assert_eq!(PeerIdentity::from_uri(all), client("a@b", Roles::ALL));
        for wrong in [
            "node/",
            "node/07",
            "node/+7",
            "node/7/x",
            "client/app",
            "client/?roles=read",
            "client/a b?roles=read",
            "client/app?roles=root",
            "nodes/7",
            "",
        ] {
            assert_eq!(PeerIdentity::from_uri(wrong), None, "{wrong}");
        }
        assert_eq!(PeerIdentity::from_certificate(b"junk"), Err(IdentityError::Unparsable));
    }
}
