//! TLS: mutual, 1.3 only, one explicit provider, no early data.
//!
//! Both ends prove themselves under the cluster's CA. The client asks for a node by the name
//! `node-<id>.holm.internal`, so an address that now belongs to another node is found out during
//! the handshake. Early data can be replayed, so it is never sent; sessions are not resumed, so
//! every connection proves its certificate anew.

use std::sync::Arc;

use holm_protocol::frame::ALPN_CLIENT;
use holm_protocol::ids::NodeId;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::cluster_file::Pem;
use crate::error::TlsError;

/// The name that a node's certificate carries.
pub(crate) fn server_name(node: NodeId) -> String {
    format!("node-{}.holm.internal", node.0)
}

/// The client's side of the handshake.
///
/// # Errors
/// [`TlsError`], naming the PEM text at fault.
pub(crate) fn client_config(
    ca: &Pem,
    cert: &Pem,
    key: &Pem,
) -> Result<Arc<QuicClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots.add(certificate).map_err(TlsError::Refused)?;
    }
    let chain = certificates(cert)?;
    let key = PrivateKeyDer::from_pem_slice(&key.text).map_err(|error| pem_error(key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Refused)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(TlsError::Refused)?;
    config.alpn_protocols = vec![ALPN_CLIENT.to_vec()];
    config.enable_early_data = false;
    config.resumption = rustls::client::Resumption::disabled();
    let config = QuicClientConfig::try_from(config)
        .map_err(|error| TlsError::Refused(rustls::Error::General(error.to_string())))?;
    Ok(Arc::new(config))
}

fn certificates(pem: &Pem) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem.text).collect();
    match read {
        Ok(certificates) if certificates.is_empty() => {
            Err(TlsError::Empty { what: pem.origin.clone() })
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(pem_error(pem, &error)),
    }
}

fn pem_error(pem: &Pem, error: &rustls_pki_types::pem::Error) -> TlsError {
    match error {
        rustls_pki_types::pem::Error::NoItemsFound => TlsError::Empty { what: pem.origin.clone() },
        other => TlsError::Pem { what: pem.origin.clone(), why: other.to_string() },
    }
}
