//! TLS in front of a server without it, with any certificate.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::background::Background;
use crate::error::{KitError, Result};

/// Four TLS records. With the default of 8 KiB, benchmarks would measure the system calls of this front.
const COPY_BYTES: usize = 64 * 1024;

/// A running front; it and its connections end with the value.
#[derive(Debug)]
pub struct TlsFront {
    address: SocketAddr,
    _background: Background,
}

impl TlsFront {
    /// Starts on a free port of 127.0.0.1 with a certificate, optionally with its chain, and its key, both in PEM.
    pub fn start(target: SocketAddr, chain: &str, key: &str) -> Result<Self> {
        Self::with_protocols(target, chain, key, &[])
    }

    /// Also announces the protocols of the server, as in ALPN.
    pub fn with_protocols(target: SocketAddr, chain: &str, key: &str, protocols: &[&str]) -> Result<Self> {
        let unusable = |error: &dyn std::fmt::Display| KitError::Unsupported(format!("a TLS front: {error}"));
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>().map_err(|e| unusable(&e))?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|e| unusable(&e))?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(|e| unusable(&e))?;
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();

        let background = Background::start("tls-front")?;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(KitError::io("start a TLS front"))?;
        listener.set_nonblocking(true).map_err(KitError::io("start a TLS front"))?;
        let address = listener.local_addr().map_err(KitError::io("start a TLS front"))?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        background.spawn(async move {
            if let Ok(listener) = TcpListener::from_std(listener) {
                accept(listener, acceptor, target).await;
            }
        });
        Ok(Self { address, _background: background })
    }

    /// The address where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, target: SocketAddr) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                let acceptor = acceptor.clone();
                connections.spawn(async move {
                    // Both sides wait for small requests and answers: Nagle's algorithm would add 40 ms to each.
                    let _ = client.set_nodelay(true);
                    // A client that does not trust the certificate disconnects, which is what tests want to see.
                    let Ok(mut client) = acceptor.accept(client).await else { return };
                    let Ok(mut server) = TcpStream::connect(target).await else { return };
                    let _ = server.set_nodelay(true);
                    let copied = copy_bidirectional_with_sizes(&mut client, &mut server, COPY_BYTES, COPY_BYTES);
                    drop(copied.await);
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}
