//! A CA that issues whatever a test asks for.

use std::sync::Arc;

use quinn::crypto::rustls::QuicClientConfig;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa};
use rcgen::{KeyPair, KeyUsagePurpose, SanType};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use time::{Duration, OffsetDateTime};

/// From and until when a certificate is valid, days from now.
pub(crate) type Days = (i64, i64);
/// Valid now.
pub(crate) const VALID: Days = (-1, 1);
/// No longer.
pub(crate) const EXPIRED: Days = (-9, -2);
/// Not yet.
pub(crate) const NOT_YET: Days = (2, 9);

/// A certificate and its key, PEM.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) cert: String,
    pub(crate) key: String,
}

/// See the module's head.
pub(crate) struct Pki {
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    /// A new CA.
    pub(crate) fn new() -> Pki {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Pki { ca }
    }

    /// The CA's certificate, PEM.
    pub(crate) fn ca_pem(&self) -> String {
        self.ca.pem()
    }

    /// A node's certificate.
    pub(crate) fn node(&self, id: u64, days: Days) -> Identity {
        let name = SanType::DnsName(format!("node-{id}.holm.internal").try_into().unwrap());
        let uri = SanType::URI(format!("holm://node/{id}").try_into().unwrap());
        self.issue(vec![name, uri], days)
    }

    /// A client's certificate with these roles, separated by commas.
    pub(crate) fn client(&self, roles: &str, days: Days) -> Identity {
        let uri = format!("holm://client/test?roles={roles}");
        self.issue(vec![SanType::URI(uri.try_into().unwrap())], days)
    }

    /// A certificate that speaks for whoever these names say.
    pub(crate) fn issue(&self, names: Vec<SanType>, (from, until): Days) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.not_before = OffsetDateTime::now_utc() + Duration::days(from);
        params.not_after = OffsetDateTime::now_utc() + Duration::days(until);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let cert = params.signed_by(&key, &self.ca).unwrap().pem();
        Identity { cert, key: key.serialize_pem() }
    }

    /// The QUIC settings of a program that trusts this CA and has this identity, or none.
    pub(crate) fn quic(&self, identity: Option<&Identity>, alpn: &[u8]) -> quinn::ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.ca.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots);
        let mut tls = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let cert = CertificateDer::from_pem_slice(identity.cert.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![cert], key).unwrap()
            }
        };
        tls.alpn_protocols = vec![alpn.to_vec()];
        quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()))
    }
}
