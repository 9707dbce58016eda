//! TLS to PostgreSQL, by rustls: each `sslmode` verifies what libpq verifies.
//!
//! [`holdfast_store::tls`] decides which servers are trusted, as for stores. One rule is less strict here, as in libpq:
//! a certificate without alternative names is accepted by its common name.

use std::fmt::Display;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use aws_lc_rs::digest::{self, SHA256, SHA384, SHA512};
use holdfast_store::tls::{Names, Trusted, Verifier, system_certificates};
use rustls::ClientConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Socket;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::error::{Cause, Error};

/// The name of the protocol, which servers of version 17 and later require (`PG_ALPN_PROTOCOL`).
const ALPN: &[u8] = b"postgresql";

/// Which server certificates are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trust {
    /// Any certificate: the connection is only encrypted.
    Anyone,
    /// Certificates from the system's CAs, for the host's name.
    System,
    /// Certificates from these CAs; if `names`, only for the host's name.
    Roots { file: PathBuf, names: bool },
}

/// The parameters of encrypted connections.
#[derive(Debug, Clone)]
pub(super) struct TlsSettings {
    pub trust: Trust,
    /// The client's certificate and key.
    pub client: Option<(PathBuf, PathBuf)>,
    pub tls12: bool,
    pub tls13: bool,
    /// Whether the client sends the host name to the server (SNI).
    pub sni: bool,
}

/// Makes encrypted connections.
#[derive(Clone)]
pub(super) struct Tls(Arc<ClientConfig>);

impl Tls {
    /// Reads the certificates.
    pub(super) fn new(settings: &TlsSettings) -> Result<Self, Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let trusted = match &settings.trust {
            Trust::Anyone => None,
            Trust::System => {
                let mut trusted = Trusted::new(Names::AlternativeOrCommon);
                trusted.add_authorities(system_certificates().map_err(|reason| {
                    Cause::ConnectionParameters(format!("cannot use the system's CA certificates: {reason}"))
                })?);
                Some(trusted)
            }
            Trust::Roots { file, names } => {
                let mut trusted = Trusted::new(if *names { Names::AlternativeOrCommon } else { Names::Unchecked });
                trusted.add_listed(certificates(file)?);
                Some(trusted)
            }
        };
        let verifier = Verifier::new(trusted, &provider);
        let versions: &[_] = match (settings.tls12, settings.tls13) {
            (true, true) => &[&TLS12, &TLS13],
            (true, false) => &[&TLS12],
            (false, _) => &[&TLS13],
        };
        let builder = ClientConfig::builder_with_provider(provider as Arc<CryptoProvider>)
            .with_protocol_versions(versions)
            .map_err(|e| Cause::Internal(format!("TLS: {e}")))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &settings.client {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates(certificate)?;
                builder.with_client_auth_cert(chain, private_key(key)?).map_err(|e| unusable(certificate, e))?
            }
        };
        config.enable_sni = settings.sni;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self(Arc::new(config)))
    }

    /// Encrypts a stream that this crate opened. Returns also the data for channel binding, as [`end_point`].
    pub(super) async fn encrypt<S>(
        &self,
        domain: &str,
        stream: S,
    ) -> io::Result<(tokio_rustls::client::TlsStream<S>, Option<Vec<u8>>)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(domain.to_owned()).map_err(io::Error::other)?;
        let stream = TlsConnector::from(Arc::clone(&self.0)).connect(name, stream).await?;
        let certificates = stream.get_ref().1.peer_certificates();
        let binding = certificates.and_then(<[_]>::first).and_then(end_point);
        Ok((stream, binding))
    }
}

fn unusable(path: &Path, reason: impl Display) -> Error {
    Cause::ConnectionParameters(format!("cannot use {} for TLS to PostgreSQL: {reason}", path.display())).into()
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bytes = fs::read(path).map_err(|e| Error::file("read", path, e))?;
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(&bytes).collect::<Result<_, _>>().map_err(|e| unusable(path, e))?;
    if found.is_empty() { Err(unusable(path, "it has no certificate in PEM form")) } else { Ok(found) }
}

/// A key that others may read is refused, as libpq does: 0600, or 0640 if it belongs to root.
fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let metadata = fs::metadata(path).map_err(|e| Error::file("look at", path, e))?;
    let closed = if metadata.uid() == 0 { 0o027 } else { 0o077 };
    if metadata.mode() & closed != 0 {
        return Err(unusable(path, "other users may read it: set its mode to 0600, or to 0640 if it belongs to root"));
    }
    let bytes = fs::read(path).map_err(|e| Error::file("read", path, e))?;
    PrivateKeyDer::from_pem_slice(&bytes)
        .map_err(|_| unusable(path, "it has no private key in PEM form, or only an encrypted one"))
}

fn parsed<'c>(certificate: &'c CertificateDer<'_>) -> Option<X509Certificate<'c>> {
    X509Certificate::from_der(certificate).ok().map(|(_, parsed)| parsed)
}

/// `tls-server-end-point` of RFC 5929: the certificate's hash by the function of its own signature, SHA-256 at least.
/// `None` if the signature does not have exactly one hash function, as with Ed25519.
fn end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let algorithm = match parsed(certificate)?.signature_algorithm.algorithm.to_id_string().as_str() {
        // Signatures with MD5, SHA-1 and SHA-256: all three with RSA, the latter two also with ECDSA.
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.1"
        | "1.2.840.10045.4.3.2" => &SHA256,
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => &SHA384,
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => &SHA512,
        _ => return None,
    };
    Some(digest::digest(algorithm, certificate).as_ref().to_vec())
}

impl MakeTlsConnect<Socket> for Tls {
    type Stream = Encrypted;
    type TlsConnect = Handshake;
    type Error = io::Error;

    fn make_tls_connect(&mut self, domain: &str) -> Result<Handshake, io::Error> {
        // Without a name there is no TLS, as over a Unix socket.
        let name = if domain.is_empty() {
            None
        } else {
            Some(ServerName::try_from(domain.to_owned()).map_err(io::Error::other)?)
        };
        Ok(Handshake { config: self.0.clone(), name })
    }
}

/// A handshake with one server.
pub(super) struct Handshake {
    config: Arc<ClientConfig>,
    name: Option<ServerName<'static>>,
}

impl TlsConnect<Socket> for Handshake {
    type Stream = Encrypted;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Encrypted>> + Send>>;

    fn connect(self, stream: Socket) -> Self::Future {
        Box::pin(async move {
            let name = self.name.ok_or_else(|| io::Error::other("the server has no name to verify"))?;
            let stream = TlsConnector::from(self.config).connect(name, stream).await?;
            Ok(Encrypted(Box::new(stream)))
        })
    }
}

/// An encrypted connection.
pub(super) struct Encrypted(Box<tokio_rustls::client::TlsStream<Socket>>);

impl TlsStream for Encrypted {
    fn channel_binding(&self) -> ChannelBinding {
        let certificates = self.0.get_ref().1.peer_certificates();
        match certificates.and_then(<[_]>::first).and_then(end_point) {
            Some(hash) => ChannelBinding::tls_server_end_point(hash),
            None => ChannelBinding::none(),
        }
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_shutdown(cx)
    }
}
