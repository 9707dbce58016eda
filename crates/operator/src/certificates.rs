//! Each cluster's own certificate authority (CA), and the certificates that it signs.
//!
//! Keys are ECDSA on P-256, which every supported PostgreSQL accepts. The authority is valid for ten years and renewed
//! with the same key and name in its last year, so that certificates signed before stay valid; the others are valid for
//! 90 days. This file does not use Kubernetes.

use chrono::{DateTime, Datelike, Duration, NaiveTime, Utc};
use holdfast_secret::Secret;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

const AUTHORITY_DAYS: i64 = 3650;
const LEAF_DAYS: i64 = 90;

/// A certificate and its key, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The certificate, PEM.
    pub certificate: String,
    /// Its private key, PKCS #8 in PEM.
    pub key: Secret,
    /// The end of its validity.
    pub ends: DateTime<Utc>,
}

/// What a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// A server under these names.
    Server(Vec<String>),
    /// A client: this PostgreSQL role, or the operator.
    Client(String),
}

/// A new authority. With `key`, the old authority renewed with the same key.
pub fn authority(name: &str, key: Option<&Secret>, now: DateTime<Utc>) -> Result<Pair, rcgen::Error> {
    let key = match key {
        Some(pem) => KeyPair::from_pem(pem.expose())?,
        None => KeyPair::generate()?,
    };
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = common_name(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ends = validity(&mut params, AUTHORITY_DAYS, now);
    let certificate = params.self_signed(&key)?;
    Ok(Pair { certificate: certificate.pem(), key: Secret::new(key.serialize_pem()), ends })
}

/// A certificate signed by an authority. A server certificate is also valid for a client: instances send requests to
/// each other.
pub fn signed(authority: &Pair, purpose: &Purpose, now: DateTime<Utc>) -> Result<Pair, rcgen::Error> {
    let issuer = Issuer::from_ca_cert_pem(&authority.certificate, KeyPair::from_pem(authority.key.expose())?)?;
    let key = KeyPair::generate()?;
    let mut params = match purpose {
        Purpose::Server(names) => {
            let mut params = CertificateParams::new(names.clone())?;
            params.distinguished_name = common_name(names.first().map_or("server", String::as_str));
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            params
        }
        Purpose::Client(name) => {
            let mut params = CertificateParams::new(Vec::new())?;
            params.distinguished_name = common_name(name);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            params
        }
    };
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyAgreement];
    params.use_authority_key_identifier_extension = true;
    let ends = validity(&mut params, LEAF_DAYS, now);
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(Pair { certificate: certificate.pem(), key: Secret::new(key.serialize_pem()), ends })
}

fn common_name(name: &str) -> DistinguishedName {
    let mut all = DistinguishedName::new();
    // X.509 limits a common name to 64 characters.
    all.push(DnType::CommonName, name.chars().take(64).collect::<String>());
    all
}

/// Sets the validity in whole days, from yesterday, so that nodes with a late clock accept it too. Returns its end.
fn validity(params: &mut CertificateParams, days: i64, now: DateTime<Utc>) -> DateTime<Utc> {
    let date = |at: DateTime<Utc>| {
        rcgen::date_time_ymd(at.year(), u8::try_from(at.month()).unwrap_or(1), u8::try_from(at.day()).unwrap_or(1))
    };
    let ends = (now + Duration::days(days)).date_naive().and_time(NaiveTime::MIN).and_utc();
    params.not_before = date(now - Duration::days(1));
    params.not_after = date(ends);
    ends
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

    use super::*;
    use rustls::RootCertStore;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use std::sync::Arc;

    /// Whether a client that trusts the authority accepts the certificate for this name.
    fn is_taken(authority: &Pair, leaf: &Pair, name: &str) -> bool {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.certificate.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let certificate = CertificateDer::from_pem_slice(leaf.certificate.as_bytes()).unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        verifier.verify_server_cert(&certificate, &[], &name, &[], UnixTime::now()).is_ok()
    }

    #[test]
    fn a_server_is_accepted_under_its_names_only() {
        let now = Utc::now();
        let authority = authority("c", None, now).unwrap();
        let names = vec!["c-rw.ns.svc".to_owned(), "*.c-pods.ns.svc".to_owned()];
        let leaf = signed(&authority, &Purpose::Server(names), now).unwrap();
        assert!(is_taken(&authority, &leaf, "c-rw.ns.svc"));
        assert!(is_taken(&authority, &leaf, "c-1.c-pods.ns.svc"));
        assert!(!is_taken(&authority, &leaf, "d-rw.ns.svc"));
        assert_eq!((leaf.ends - now).num_days(), 89);
    }

    #[test]
    fn a_renewed_authority_accepts_what_it_signed_before() {
        let now = Utc::now();
        let first = authority("c", None, now).unwrap();
        let leaf = signed(&first, &Purpose::Server(vec!["c-rw".to_owned()]), now).unwrap();
        let renewed = authority("c", Some(&first.key), now + Duration::days(3)).unwrap();
        assert_ne!(first.certificate, renewed.certificate);
        assert!(is_taken(&renewed, &leaf, "c-rw"));
        let another = authority("c", None, now).unwrap();
        assert!(!is_taken(&another, &leaf, "c-rw"));
    }
}
