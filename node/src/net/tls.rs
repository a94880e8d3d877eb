//! TLS: one cluster CA, certificates on both sides, always.
//!
//! TLS 1.3 only, ring only, no resumption and no early data: every connection shows its certificate,
//! and no byte is processed before it was verified. Nodes are verified against the name
//! `node-<id>.holm.internal`, so a node's certificate is good for that node only.

pub mod identity;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use holm_protocol::frame::{ALPN_CLIENT, ALPN_PEER};
use holm_protocol::ids::NodeId;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{CertificateError, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::config::TlsConfig;
use identity::PeerIdentity;

/// The name under which a node's certificate is verified.
#[must_use]
pub fn server_name(node: NodeId) -> String {
    format!("node-{}.holm.internal", node.0)
}

/// Why the node cannot prove who it is. Nothing was started or replaced.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A PEM file cannot be read or holds nothing of use.
    #[error("{key} = {}: {why}; {help}", file.display())]
    File {
        /// The configuration key.
        key: &'static str,
        /// The file.
        file: PathBuf,
        /// What is wrong.
        why: String,
        /// What to do.
        help: &'static str,
    },
    /// The node's own certificate would be refused by others.
    #[error("tls.cert = {}: {why}; issue one with `holm cert node`", file.display())]
    OwnCertificate {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// rustls refuses the combination.
    #[error("TLS configuration refused: {0}")]
    Rustls(String),
}

/// Certificates and key, read and checked. Has no `Debug`: the key must not reach a log.
pub struct TlsMaterial {
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl TlsMaterial {
    /// Reads the files and checks that other nodes will accept `node`'s certificate.
    ///
    /// # Errors
    /// [`TlsError`] names the key, the file and what to do; an expired certificate is one.
    pub fn load(config: &TlsConfig, node: NodeId) -> Result<TlsMaterial, TlsError> {
        let ca_help = "it must hold the cluster's CA certificates (`holm cert ca`)";
        let mut roots = RootCertStore::empty();
        for certificate in certificates("tls.ca", &config.ca, ca_help)? {
            roots.add(certificate).map_err(|error| TlsError::File {
                key: "tls.ca",
                file: config.ca.clone(),
                why: error.to_string(),
                help: ca_help,
            })?;
        }
        let chain = certificates("tls.cert", &config.cert, "issue one with `holm cert node`")?;
        let key = PrivateKeyDer::from_pem_file(&config.key).map_err(|error| TlsError::File {
            key: "tls.key",
            file: config.key.clone(),
            why: format!("no private key: {error}"),
            help: "it must hold the key of tls.cert, readable by holmd",
        })?;
        let material = TlsMaterial { roots: Arc::new(roots), chain, key };
        material.check_own(&config.cert, node)?;
        Ok(material)
    }

    /// A secret for `purpose`, the same at every start with the same key: what a node that was killed
    /// must still know when it is back. It tells nothing of the key.
    #[must_use]
    pub fn stable_secret(&self, purpose: &str) -> [u8; 32] {
        blake3::derive_key(purpose, self.key.secret_der())
    }

    /// Verifies the own certificate as a peer would.
    fn check_own(&self, file: &Path, node: NodeId) -> Result<(), TlsError> {
        let own = |why: String| TlsError::OwnCertificate { file: file.to_owned(), why };
        // `certificates` gives at least one.
        let leaf = self.chain.first().ok_or_else(|| own("no certificate".to_owned()))?;
        let identity =
            PeerIdentity::from_certificate(leaf).map_err(|error| own(error.to_string()))?;
        if identity != PeerIdentity::Node(node) {
            return Err(own(format!("it is of {identity}, but node.id is {}", node.0)));
        }
        let name =
            ServerName::try_from(server_name(node)).map_err(|error| own(error.to_string()))?;
        let verifier = WebPkiServerVerifier::builder_with_provider(self.roots.clone(), provider())
            .build()
            .map_err(|error| TlsError::Rustls(error.to_string()))?;
        verifier
            .verify_server_cert(leaf, &self.chain[1..], &name, &[], UnixTime::now())
            .map(drop)
            .map_err(|error| own(explain(&error)))
    }

    /// For accepting clients and nodes.
    ///
    /// # Errors
    /// [`TlsError::Rustls`], for example if key and certificate do not belong together.
    pub fn server(&self) -> Result<rustls::ServerConfig, TlsError> {
        let refused = |error: &dyn std::fmt::Display| TlsError::Rustls(error.to_string());
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider())
            .build()
            .map_err(|error| refused(&error))?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| refused(&error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|error| refused(&error))?;
        config.alpn_protocols = vec![ALPN_CLIENT.to_vec(), ALPN_PEER.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(config)
    }

    /// For reaching other nodes.
    ///
    /// # Errors
    /// As [`TlsMaterial::server`].
    pub fn peer_client(&self) -> Result<rustls::ClientConfig, TlsError> {
        let refused = |error: rustls::Error| TlsError::Rustls(error.to_string());
        let mut config = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(refused)?
            .with_root_certificates(self.roots.clone())
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .map_err(refused)?;
        config.alpn_protocols = vec![ALPN_PEER.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        Ok(config)
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// All certificates of a PEM file, at least one.
fn certificates(
    key: &'static str,
    file: &Path,
    help: &'static str,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |why: String| TlsError::File { key, file: file.to_owned(), why, help };
    let all: Result<Vec<_>, _> = match CertificateDer::pem_file_iter(file) {
        Ok(sections) => sections.collect(),
        Err(error) => Err(error),
    };
    match all {
        Ok(all) if all.is_empty() => Err(failed("no certificate in it".to_owned())),
        Ok(all) => Ok(all),
        Err(error) => Err(failed(error.to_string())),
    }
}

fn explain(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(fault) => match fault {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "it has expired".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "it is not valid yet; check this machine's clock".to_owned()
            }
            // The issuer's name is unknown, or known but with another key.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "it was not issued by the CA in tls.ca".to_owned()
            }
            other => format!("{other}"),
        },
        other => other.to_string(),
    }
}
