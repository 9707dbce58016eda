//! [`Verifier`]: decides which server certificates are accepted, for stores and for PostgreSQL, with rustls and webpki.
//!
//! A server is trusted in one of two cases:
//!
//! - its certificate is signed by a trusted authority, directly or through other certificates, as usual;
//! - its certificate is *itself* listed in the file of trusted certificates, byte for byte, and is valid at this time.
//!   webpki alone refuses such a certificate if it is marked as a CA's. But `openssl req -x509` makes such
//!   certificates, and PostgreSQL's manual shows that command. OpenSSL, and so libpq and pgBackRest, accept them.
//!
//! A listed certificate that is not an authority's proves only itself: certificates that its key signed are not
//! trusted, and the error says so ([`IssuerIsNoAuthority`]). An authority's certificate is one of version 3 that is
//! marked as a CA's (basicConstraints) or whose key may sign certificates (keyUsage), or any one of an earlier version,
//! which had no such marks. Certificates of servers must be X.509 version 3.

use std::fmt;
use std::sync::{Arc, LazyLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};
use x509_parser::prelude::{FromDer as _, X509Certificate, X509Version};

/// The system's certificates are read once, because that takes milliseconds.
static SYSTEM: LazyLock<Result<Vec<CertificateDer<'static>>, String>> = LazyLock::new(|| {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        return Err(found.errors.first().map_or_else(|| "there are none".to_owned(), ToString::to_string));
    }
    Ok(found.certs)
});

/// The certificates of the system's authorities.
///
/// # Errors
/// The reason, if no certificate was found.
pub fn system_certificates() -> Result<&'static [CertificateDer<'static>], &'static str> {
    SYSTEM.as_deref().map_err(String::as_str)
}

/// The name that the server's certificate must contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// No name is required: any trusted certificate is accepted.
    Unchecked,
    /// An alternative name.
    Alternative,
    /// An alternative name, or the common name if there is no alternative name, as in libpq.
    AlternativeOrCommon,
}

/// The certificates that a [`Verifier`] trusts, and the names that it requires.
#[derive(Debug)]
pub struct Trusted {
    roots: RootCertStore,
    listed: Vec<CertificateDer<'static>>,
    names: Names,
}

impl Trusted {
    /// Trusts no certificate yet.
    pub fn new(names: Names) -> Self {
        Self { roots: RootCertStore::empty(), listed: Vec::new(), names }
    }

    /// Adds authorities, for example the system's. Those that cannot be read are left out.
    pub fn add_authorities(&mut self, certificates: &[CertificateDer<'static>]) {
        self.roots.add_parsable_certificates(certificates.iter().cloned());
    }

    /// Adds the certificates of a configured file. Each may be an authority's or a server's own.
    pub fn add_listed(&mut self, certificates: Vec<CertificateDer<'static>>) {
        let authorities = certificates.iter().filter(|certificate| may_sign(certificate)).cloned();
        self.roots.add_parsable_certificates(authorities);
        self.listed.extend(certificates);
    }

    /// Replaces the error if the unknown issuer is listed after all. The usual advice, to list it, would not help then.
    fn explained(
        &self,
        error: rustls::Error,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> rustls::Error {
        if error != rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) {
            return error;
        }
        let shown: Vec<_> = std::iter::once(end_entity).chain(intermediates).filter_map(parsed).collect();
        let mut no_authorities = self.listed.iter().filter(|listed| !may_sign(listed)).filter_map(parsed);
        let issuer = no_authorities
            .find(|listed| shown.iter().any(|certificate| certificate.issuer().as_raw() == listed.subject().as_raw()));
        match issuer {
            Some(issuer) => {
                let subject = issuer.subject().to_string();
                let same_name =
                    shown.first().is_some_and(|shown| shown.subject().as_raw() == issuer.subject().as_raw());
                rustls::Error::Other(OtherError(Arc::new(IssuerIsNoAuthority { subject, same_name })))
            }
            None => error,
        }
    }
}

/// A certificate is signed by one that is listed but is not marked as an authority's.
#[derive(Debug)]
pub struct IssuerIsNoAuthority {
    subject: String,
    /// Whether the server's certificate has that name as well. Then it is usually the same certificate, renewed.
    same_name: bool,
}

impl IssuerIsNoAuthority {
    /// The "hint" line: what to do about it.
    pub fn advice(&self) -> &'static str {
        if self.same_name {
            "if it was renewed, list the new one in `ca_file`"
        } else {
            "make that certificate again as a CA's (basicConstraints CA:TRUE), or list the server's own certificate in `ca_file`, \
             which needs no CA"
        }
    }
}

impl fmt::Display for IssuerIsNoAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, same_name } = self;
        if *same_name {
            return write!(f, "it is not the certificate of {subject} that is listed, but another one of that name");
        }
        write!(f, "it is signed by {subject}, whose certificate is listed and is not marked as a CA's")
    }
}

impl std::error::Error for IssuerIsNoAuthority {}

/// Verifies the certificates of servers by the rules of this module.
#[derive(Debug)]
pub struct Verifier {
    trusted: Option<Trusted>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    /// Accepts what `trusted` says; `None` accepts any certificate.
    pub fn new(trusted: Option<Trusted>, provider: &CryptoProvider) -> Self {
        Self { trusted, algorithms: provider.signature_verification_algorithms }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(trusted) = &self.trusted else { return Ok(ServerCertVerified::assertion()) };
        let parsed = ParsedCertificate::try_from(end_entity)?;
        if trusted.listed.iter().any(|listed| listed == end_entity) {
            in_its_time(end_entity, now)?;
        } else {
            let algorithms = self.algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&parsed, &trusted.roots, intermediates, now, algorithms)
                .map_err(|error| trusted.explained(error, end_entity, intermediates))?;
        }
        match trusted.names {
            Names::Unchecked => {}
            Names::AlternativeOrCommon if has_common_name(end_entity, server_name) => {}
            Names::Alternative | Names::AlternativeOrCommon => verify_server_name(&parsed, server_name)?,
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn parsed<'c>(certificate: &'c CertificateDer<'_>) -> Option<X509Certificate<'c>> {
    X509Certificate::from_der(certificate).ok().map(|(_, parsed)| parsed)
}

/// Whether a certificate is an authority's. Certificates before version 3 cannot say so; without this exception all
/// roots of that age would be refused.
fn may_sign(certificate: &CertificateDer<'_>) -> bool {
    let Some(parsed) = parsed(certificate) else { return false };
    match parsed.basic_constraints() {
        Ok(Some(constraints)) => constraints.value.ca,
        Ok(None) if parsed.version() == X509Version::V3 => {
            matches!(parsed.key_usage(), Ok(Some(usage)) if usage.value.key_cert_sign())
        }
        Ok(None) => true,
        Err(_) => false,
    }
}

fn in_its_time(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), rustls::Error> {
    let parsed = parsed(certificate).ok_or(CertificateError::BadEncoding)?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < parsed.validity().not_before.timestamp() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > parsed.validity().not_after.timestamp() {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

/// Whether a certificate without alternative names has the server's name as its common name, perhaps with `*` as the
/// first label (`pq_verify_peer_name_matches_certificate_name`).
fn has_common_name(certificate: &CertificateDer<'_>, server_name: &ServerName<'_>) -> bool {
    let (ServerName::DnsName(wanted), Some(parsed)) = (server_name, parsed(certificate)) else { return false };
    if !matches!(parsed.subject_alternative_name(), Ok(None)) {
        return false;
    }
    let wanted = wanted.as_ref();
    let names = parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    names.last().is_some_and(|name| match name.strip_prefix("*.") {
        Some(rest) => wanted.split_once('.').is_some_and(|(_, after)| after.eq_ignore_ascii_case(rest)),
        None => name.eq_ignore_ascii_case(wanted),
    })
}
