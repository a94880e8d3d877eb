//! Certificates for one run: a CA, node certificates, a client certificate.
//!
//! What is in them is what `holm cert` issues (a node is named `node-<id>.holm.internal`, a client
//! carries its roles), except that nobody keeps the CA's key.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, Error, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};

/// A CA that lives as long as the run.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key, PEM.
pub(crate) struct Identity {
    /// The certificate.
    pub(crate) cert: String,
    /// The key.
    pub(crate) key: String,
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// The system has no randomness.
    pub(crate) fn new() -> Result<Authority, Error> {
        let key = KeyPair::generate()?;
        let mut params = params("holm-bench CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key)?.pem();
        Ok(Authority { issuer: Issuer::new(params, key), pem })
    }

    /// Its certificate, PEM.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// A node's certificate.
    ///
    /// # Errors
    /// The system has no randomness.
    pub(crate) fn node(&self, id: u64) -> Result<Identity, Error> {
        let mut params = params(&format!("node {id}"));
        params.subject_alt_names = vec![
            SanType::DnsName(server_name(id).try_into()?),
            SanType::URI(format!("holm://node/{id}").try_into()?),
        ];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    /// A client's certificate, with all roles.
    ///
    /// # Errors
    /// The system has no randomness.
    pub(crate) fn client(&self) -> Result<Identity, Error> {
        let mut params = params("client bench");
        let uri = "holm://client/bench?roles=read,write,admin";
        params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    fn sign(&self, mut params: CertificateParams) -> Result<Identity, Error> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Identity { cert, key: key.serialize_pem() })
    }
}

/// The name that a node's certificate carries.
pub(crate) fn server_name(id: u64) -> String {
    format!("node-{id}.holm.internal")
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
