//! What is in a certificate.
//!
//! | of | names (SAN) | use |
//! | --- | --- | --- |
//! | the CA | none; CN is the cluster's | signs certificates, no further CA |
//! | a node | DNS `node-<id>.holm.internal`, URI `holm://node/<id>` | server and client |
//! | a client | URI `holm://client/<name>?roles=read,write,admin` | client |
//!
//! A node is checked by its name and not by its address, so it can move; the name says which node
//! it is, so one node cannot pose as another. Keys are ECDSA P-256.

use holm_protocol::error::Role;
use holm_protocol::ids::NodeId;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

use crate::failure::Failure;

/// How long before now a certificate starts: machines' clocks differ.
const BACKDATED: Duration = Duration::hours(1);

/// How much later than its CA a certificate may have to end by the days that were asked for.
const ROUNDED: Duration = Duration::hours(1);

/// A certificate and its key, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The certificate.
    pub(crate) cert_pem: String,
    /// The key. Secret.
    pub(crate) key_pem: String,
}

/// The cluster's CA, ready to sign.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    cert_pem: String,
    key_pem: String,
    not_after: OffsetDateTime,
}

impl Authority {
    /// Makes a new CA for a cluster, valid for some days.
    ///
    /// # Errors
    /// The name is no fit text, or the system has no randomness.
    pub(crate) fn create(cluster: &str, days: u32) -> Result<Authority, Failure> {
        let key = KeyPair::generate().map_err(|error| not_made(&error))?;
        let key_pem = key.serialize_pem();
        let mut params = params(&format!("holm CA of {cluster}"), valid_until(days));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let cert = params.self_signed(&key).map_err(|error| not_made(&error))?;
        let not_after = params.not_after;
        let issuer = Issuer::new(params, key);
        Ok(Authority { issuer, cert_pem: cert.pem(), key_pem, not_after })
    }

    /// The CA that [`Authority::create`] made, from its PEM texts.
    ///
    /// # Errors
    /// They are no CA certificate and key, or not of each other.
    pub(crate) fn load(cert_pem: String, key_pem: &str) -> Result<Authority, Failure> {
        let bad = |what: String| {
            Failure::failed(what, "`--ca DIR` must hold the ca.pem and ca.key of `holm cert ca`")
        };
        let key = KeyPair::from_pem(key_pem)
            .map_err(|error| bad(format!("ca.key is no private key: {error}")))?;
        let (_, pem) = x509_parser::pem::parse_x509_pem(cert_pem.as_bytes())
            .map_err(|error| bad(format!("ca.pem is no PEM file: {error}")))?;
        let cert =
            pem.parse_x509().map_err(|error| bad(format!("ca.pem is no certificate: {error}")))?;
        if !cert.is_ca() {
            return Err(bad("ca.pem is not the certificate of a CA".to_owned()));
        }
        if cert.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(bad("ca.key is not the key of ca.pem".to_owned()));
        }
        let not_after = cert.validity().not_after.to_datetime();
        let issuer = Issuer::from_ca_cert_pem(&cert_pem, key)
            .map_err(|error| bad(format!("ca.pem cannot sign: {error}")))?;
        Ok(Authority { issuer, cert_pem, key_pem: key_pem.to_owned(), not_after })
    }

    /// The CA's certificate.
    pub(crate) fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The CA's key. Secret.
    pub(crate) fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// Issues a node's certificate.
    ///
    /// # Errors
    /// It would outlive the CA, or the system has no randomness.
    pub(crate) fn node(&self, id: NodeId, days: u32) -> Result<Identity, Failure> {
        let mut params = params(&format!("holm node {}", id.0), self.checked(days)?);
        params.subject_alt_names = vec![
            SanType::DnsName(ascii(format!("node-{}.holm.internal", id.0))?),
            SanType::URI(ascii(format!("holm://node/{}", id.0))?),
        ];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    /// Issues a client's certificate. Roles are written in a fixed order, each once.
    ///
    /// # Errors
    /// It would outlive the CA, or the system has no randomness.
    pub(crate) fn client(
        &self,
        name: &str,
        roles: &[Role],
        days: u32,
    ) -> Result<Identity, Failure> {
        let held = [(Role::Read, "read"), (Role::Write, "write"), (Role::Admin, "admin")];
        let held: Vec<&str> =
            held.iter().filter(|(role, _)| roles.contains(role)).map(|(_, name)| *name).collect();
        let mut params = params(&format!("holm client {name}"), self.checked(days)?);
        let uri = format!("holm://client/{name}?roles={}", held.join(","));
        params.subject_alt_names = vec![SanType::URI(ascii(uri)?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    fn checked(&self, days: u32) -> Result<OffsetDateTime, Failure> {
        let until = valid_until(days);
        // Who asks for as many days as the CA has, a moment later, has all of them but the moment.
        if until <= self.not_after + ROUNDED {
            return Ok(until.min(self.not_after));
        }
        Err(Failure::usage(
            format!("{days} days from now the CA has expired ({})", self.not_after.date()),
            "ask for fewer with `--days`, or make a new CA",
        ))
    }

    fn sign(&self, mut params: CertificateParams) -> Result<Identity, Failure> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(|error| not_made(&error))?;
        let cert = params.signed_by(&key, &self.issuer).map_err(|error| not_made(&error))?;
        Ok(Identity { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
    }
}

fn params(common_name: &str, not_after: OffsetDateTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = OffsetDateTime::now_utc() - BACKDATED;
    params.not_after = not_after;
    params
}

/// The moment some days from now. Certificates count whole seconds.
fn valid_until(days: u32) -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    (now + Duration::days(days.into())).replace_nanosecond(0).unwrap_or(now)
}

fn ascii(text: String) -> Result<Ia5String, Failure> {
    Ia5String::try_from(text).map_err(|error| not_made(&error))
}

fn not_made(error: &rcgen::Error) -> Failure {
    Failure::failed(format!("cannot make the certificate: {error}"), "names must be plain ASCII")
}

#[cfg(test)]
mod tests {
    use x509_parser::prelude::*;

    use super::*;

    fn with_cert<T>(pem: &str, look: impl FnOnce(&X509Certificate<'_>) -> T) -> T {
        let (_, pem) = parse_x509_pem(pem.as_bytes()).unwrap();
        look(&pem.parse_x509().unwrap())
    }

    fn names(cert: &X509Certificate<'_>) -> Vec<String> {
        let Some(names) = cert.subject_alternative_name().unwrap() else { return Vec::new() };
        let names = names.value.general_names.iter().map(|name| match name {
            GeneralName::DNSName(name) => format!("dns:{name}"),
            GeneralName::URI(uri) => format!("uri:{uri}"),
            other => panic!("unexpected name {other:?}"),
        });
        names.collect()
    }

    /// Goal: nodes are told apart by name and can serve and dial. Method: read the certificate back.
    #[test]
    fn node_certificate_names_the_node() {
        let ca = Authority::create("demo", 30).unwrap();
        let node = ca.node(NodeId(12), 10).unwrap();
        with_cert(&node.cert_pem, |cert| {
            assert_eq!(names(cert), ["dns:node-12.holm.internal", "uri:holm://node/12"]);
            let usage = cert.extended_key_usage().unwrap().unwrap().value.clone();
            assert!(usage.server_auth && usage.client_auth);
            assert!(!cert.is_ca());
            with_cert(ca.cert_pem(), |ca| cert.verify_signature(Some(ca.public_key())).unwrap());
        });
    }

    /// Goal: a client's roles are what was asked for, in one form, and it cannot serve. Method:
    /// roles out of order and twice.
    #[test]
    fn client_certificate_carries_roles() {
        let ca = Authority::create("demo", 30).unwrap();
        let roles = [Role::Admin, Role::Read, Role::Read];
        let client = ca.client("alice", &roles, 10).unwrap();
        with_cert(&client.cert_pem, |cert| {
            assert_eq!(names(cert), ["uri:holm://client/alice?roles=read,admin"]);
            let usage = cert.extended_key_usage().unwrap().unwrap().value.clone();
            assert!(!usage.server_auth && usage.client_auth);
        });
    }

    /// Goal: validity is what was asked for, from before now. Method: a CA of 30 days.
    #[test]
    fn validity_is_in_days() {
        let ca = Authority::create("demo", 30).unwrap();
        with_cert(ca.cert_pem(), |cert| {
            assert!(cert.is_ca() && cert.validity().is_valid());
            let left = cert.validity().time_to_expiration().unwrap().whole_hours();
            assert!((30 * 24 - 1..=30 * 24).contains(&left), "{left} h");
        });
        assert!(ca.node(NodeId(1), 31).is_err(), "a certificate must not outlive its CA");
        assert!(ca.node(NodeId(1), 30).is_ok());
        let older = Authority { not_after: ca.not_after - Duration::minutes(5), ..ca };
        let node = older.node(NodeId(1), 30).expect("a script may take minutes between the two");
        with_cert(&node.cert_pem, |cert| {
            assert_eq!(cert.validity().not_after.to_datetime(), older.not_after);
        });
    }

    /// Goal: a CA read back signs like the one that was made; foreign files are refused. Method:
    /// load it, sign, verify with the original; mix files up.
    #[test]
    fn ca_reads_back() {
        let ca = Authority::create("demo", 30).unwrap();
        let other = Authority::create("demo", 30).unwrap();
        let again = Authority::load(ca.cert_pem().to_owned(), ca.key_pem()).unwrap();
        let client = again.client("bob", &[Role::Read], 30).unwrap();
        with_cert(&client.cert_pem, |cert| {
            with_cert(ca.cert_pem(), |ca| cert.verify_signature(Some(ca.public_key())).unwrap());
            with_cert(other.cert_pem(), |other| {
                assert!(cert.verify_signature(Some(other.public_key())).is_err());
            });
        });
        assert!(Authority::load(ca.cert_pem().to_owned(), other.key_pem()).is_err());
        assert!(Authority::load(client.cert_pem.clone(), &client.key_pem).is_err());
        assert!(Authority::load("nonsense".to_owned(), ca.key_pem()).is_err());
    }
}
