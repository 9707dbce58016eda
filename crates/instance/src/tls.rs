//! Certificates: the status port's, and those that PostgreSQL and libpq read.
//!
//! Secrets are mounted, and their files change in place when they are renewed. PostgreSQL and libpq require keys that
//! nobody else can read, so copies with mode 0600 are kept ([`copy`]). After a change the server reloads.
//!
//! On the status port both sides use a certificate of the cluster's own authority. The chain is checked, but the host
//! name is not: peers are reached by address, and within one authority a certificate's common name identifies its
//! owner.

use crate::error::{Error, Result};
use crate::identity::Paths;
use crate::volume::write_if_changed;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use std::path::Path;
use std::sync::Arc;

/// Copies keys and certificates to where PostgreSQL reads them; returns whether any changed.
///
/// # Errors
/// When one is missing or cannot be written.
pub fn copy(paths: &Paths) -> Result<bool> {
    let folder = paths.tls();
    make_private(&folder)?;
    let files = [
        (paths.ca_certificates.join("ca.crt"), "ca.crt"),
        (paths.server_certificates.join("tls.crt"), "server.crt"),
        (paths.server_certificates.join("tls.key"), "server.key"),
        (paths.replication_certificates.join("tls.crt"), "replication.crt"),
        (paths.replication_certificates.join("tls.key"), "replication.key"),
    ];
    let mut changed = false;
    for (from, name) in files {
        let content = std::fs::read(&from).map_err(|error| Error::file("read", &from, &error))?;
        changed |= write_if_changed(&folder.join(name), &content, 0o600)?;
    }
    Ok(changed)
}

/// Creates a folder that only this user can access.
///
/// # Errors
/// When it cannot be created.
pub fn make_private(folder: &Path) -> Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    let failed = |error: std::io::Error| Error::file("create", folder, &error);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).map_err(failed)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let unusable = |error: &dyn std::fmt::Display| Error::retry(format!("{} cannot be used: {error}", path.display()));
    CertificateDer::pem_file_iter(path)
        .map_err(|error| unusable(&error))?
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(&error))
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path)
        .map_err(|error| Error::retry(format!("{} cannot be used: {error}", path.display())))
}

fn roots(paths: &Paths) -> Result<Arc<RootCertStore>> {
    let path = paths.ca_certificates.join("ca.crt");
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&path)? {
        roots.add(certificate).map_err(|error| Error::retry(format!("{} cannot be used: {error}", path.display())))?;
    }
    Ok(Arc::new(roots))
}

fn unusable(error: &dyn std::fmt::Display) -> Error {
    Error::retry(format!("the certificates of the status port cannot be used: {error}"))
}

/// The configuration of the status port: it requires a client certificate of the cluster's authority.
///
/// # Errors
/// When the certificates cannot be read or used.
pub fn server(paths: &Paths) -> Result<ServerConfig> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(paths)?, provider())
        .build()
        .map_err(|error| unusable(&error))?;
    ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            certificates(&paths.server_certificates.join("tls.crt"))?,
            key(&paths.server_certificates.join("tls.key"))?,
        )
        .map_err(|error| unusable(&error))
}

/// The configuration of a peer that sends requests: it uses the replication certificate.
///
/// # Errors
/// When the certificates cannot be read or used.
pub fn peer(paths: &Paths) -> Result<ClientConfig> {
    let inner = WebPkiServerVerifier::builder_with_provider(roots(paths)?, provider())
        .build()
        .map_err(|error| unusable(&error))?;
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ByAuthority { inner }))
        .with_client_auth_cert(
            certificates(&paths.replication_certificates.join("tls.crt"))?,
            key(&paths.replication_certificates.join("tls.key"))?,
        )
        .map_err(|error| unusable(&error))
}

pub fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate.as_ref()).ok()?;
    let name = parsed.subject().iter_common_name().next()?.as_str().ok()?.to_owned();
    Some(name)
}

/// Accepts any name in a certificate of the authority.
#[derive(Debug)]
struct ByAuthority {
    inner: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for ByAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is checked last, after the chain was valid.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
