//! [`Dial`]: opens the connections of an [`super::http::Http`]: directly, through a proxy's tunnel for `https://`, or
//! to a proxy for `http://`, with TLS as [`crate::tls`] verifies it, all within one time limit.
//!
//! The system's certificates are read at the first TLS connection. Reading them takes milliseconds at the start of
//! every `wal push`, and a store without TLS does not need them. Nagle's algorithm is off.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::header::{HeaderValue, PROXY_AUTHORIZATION};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::{Request, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::proxy::matcher::Matcher;
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use tower_service::Service;

use super::tunnel::Tunnel;
use crate::proxies::Host;
use crate::tls::{Names, Trusted, Verifier, system_certificates};
use crate::{ConfigError, Hurry, Proxies};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A time limit that ran out.
#[derive(Debug)]
pub(super) struct TimedOut {
    pub(super) what: &'static str,
    pub(super) limit: Duration,
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP {} timeout occurred after {:?}", self.what, self.limit)
    }
}

impl std::error::Error for TimedOut {}

/// Opens connections to stores, proxies and credentials services.
#[derive(Clone)]
pub(super) struct Dial {
    tcp: HttpConnector,
    tls: Arc<Tls>,
    route: Arc<Route>,
    limit: Option<Duration>,
    hurry: Hurry,
}

impl Dial {
    /// Opens connections without a time limit.
    pub(super) fn new(tls: Arc<Tls>, route: Route) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        Self { tcp, tls, route: Arc::new(route), limit: None, hurry: Hurry::default() }
    }

    /// As before; the connections count in `hurry` the bytes that they move.
    pub(super) fn counting(self, hurry: Hurry) -> Self {
        Self { hurry, ..self }
    }

    /// As before, with a time limit until TCP and TLS are established.
    pub(super) fn within(self, limit: Option<Duration>) -> Self {
        Self { limit, ..self }
    }

    /// Adds the authorization that a proxy of plain requests needs. A tunnel sends its own when it is made.
    pub(super) fn authorize<B>(&self, request: &mut Request<B>) {
        if is_tls(request.uri()) {
            return;
        }
        // Without a usable proxy, the connection fails later.
        if let Ok(Some(Hop { authorization: Some(value), .. })) = self.route.of(request.uri()) {
            request.headers_mut().entry(PROXY_AUTHORIZATION).or_insert(value);
        }
    }

    async fn connect(mut self, to: Uri) -> Result<Stream, BoxError> {
        let Some(hop) = self.route.of(&to)? else {
            if !is_tls(&to) {
                return Ok(Stream::new(self.tcp.call(to).await?));
            }
            let mut https = HttpsConnector::from((self.tcp, self.tls.configs()?.store));
            return Ok(Stream::new(https.call(to).await?));
        };
        if is_tls(&to) {
            let configs = self.tls.configs()?;
            let to_proxy = HttpsConnector::from((self.tcp, configs.proxy));
            let tunnel = Tunnel::new(to_proxy, hop.uri, hop.authorization);
            return Ok(Stream::new(HttpsConnector::from((tunnel, configs.store)).call(to).await?));
        }
        let stream = if is_tls(&hop.uri) {
            Stream::new(HttpsConnector::from((self.tcp, self.tls.configs()?.proxy)).call(hop.uri).await?)
        } else {
            Stream::new(self.tcp.call(hop.uri).await?)
        };
        Ok(Stream { proxied: true, ..stream })
    }
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dial").field("route", &self.route).field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl Service<Uri> for Dial {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let limit = self.limit;
        let connecting = self.clone().connect(to);
        let hurry = self.hurry.clone();
        Box::pin(async move {
            let stream = match limit {
                None => connecting.await?,
                Some(limit) => tokio::time::timeout(limit, connecting)
                    .await
                    .map_err(|_| BoxError::from(TimedOut { what: "connect", limit }))??,
            };
            Ok(Stream { hurry, ..stream })
        })
    }
}

fn is_tls(uri: &Uri) -> bool {
    uri.scheme_str() == Some("https")
}

/// The TLS settings, made at first use.
pub(super) struct Tls {
    listed: Vec<CertificateDer<'static>>,
    configs: OnceLock<Result<Configs, rustls::Error>>,
}

#[derive(Clone)]
struct Configs {
    /// For stores and credentials services: HTTP/2 if they offer it.
    store: Arc<ClientConfig>,
    /// For the connection to a proxy, which uses HTTP/1.1.
    proxy: Arc<ClientConfig>,
}

impl Tls {
    /// Trusts the system's authorities and the listed certificates.
    pub(super) fn new(listed: Vec<CertificateDer<'static>>) -> Self {
        Self { listed, configs: OnceLock::new() }
    }

    fn configs(&self) -> Result<Configs, rustls::Error> {
        self.configs.get_or_init(|| self.made()).clone()
    }

    fn made(&self) -> Result<Configs, rustls::Error> {
        let mut trusted = Trusted::new(Names::Alternative);
        match system_certificates() {
            Ok(authorities) => trusted.add_authorities(authorities),
            // The listed certificates may be enough. If not, the error says that the server is not trusted.
            Err(reason) => tracing::warn!("the system's CA certificates cannot be used: {reason}"),
        }
        trusted.add_listed(self.listed.clone());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = Verifier::new(Some(trusted), &provider);
        let mut proxy = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        proxy.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut store = proxy.clone();
        store.alpn_protocols.insert(0, b"h2".to_vec());
        Ok(Configs { store: Arc::new(store), proxy: Arc::new(proxy) })
    }
}

/// Decides which requests use a proxy.
#[derive(Debug)]
pub(super) struct Route {
    proxies: Proxies,
    /// Whether requests to `http://` may use a proxy.
    plain: bool,
    used: Arc<OnceLock<String>>,
}

struct Hop {
    uri: Uri,
    authorization: Option<HeaderValue>,
}

impl Route {
    /// The route for requests to a store.
    pub(super) fn to_store(proxies: &Proxies) -> Self {
        Self { proxies: proxies.clone(), plain: true, used: Arc::default() }
    }

    /// The route for requests for credentials. Only HTTPS uses a proxy: services by plain HTTP belong to this machine.
    pub(super) fn to_credentials(proxies: &Proxies) -> Self {
        Self { plain: false, ..Self::to_store(proxies) }
    }

    /// The proxy that requests used, for messages.
    pub(super) fn used(&self) -> Arc<OnceLock<String>> {
        self.used.clone()
    }

    fn of(&self, to: &Uri) -> Result<Option<Hop>, ConfigError> {
        let tls = is_tls(to);
        if !tls && !self.plain {
            return Ok(None);
        }
        let port = to.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let Some(proxy) = self.proxies.of(Host { tls, name: to.host().unwrap_or_default(), port })? else {
            return Ok(None);
        };
        self.used.get_or_init(|| format!(" (by the proxy {} of {})", proxy.shown, proxy.variable));
        // The matcher only splits the URL and makes the header; that the proxy is used is already decided.
        let Some(found) = Matcher::builder().all(proxy.url()).build().intercept(to) else {
            return Err(ConfigError::new(proxy.variable, "it is not a URL that a proxy can have"));
        };
        Ok(Some(Hop { uri: found.uri().clone(), authorization: found.basic_auth().cloned() }))
    }
}

/// The byte stream of a connection.
trait Wire: Read + Write + Connection + Send + Unpin {}

impl<T: Read + Write + Connection + Send + Unpin> Wire for T {}

/// An open connection, with or without TLS.
pub(super) struct Stream {
    wire: Box<dyn Wire>,
    /// Whether a proxy reads the requests; they then name the whole URL.
    proxied: bool,
    /// Counts every byte.
    hurry: Hurry,
}

impl Stream {
    fn new(wire: impl Wire + 'static) -> Self {
        Self { wire: Box::new(wire), proxied: false, hurry: Hurry::default() }
    }

    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &written {
            self.hurry.moved(*bytes);
        }
        written
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.wire.connected().proxy(self.proxied)
    }
}

impl Read for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut *self.wire).poll_read(cx, buffer);
        if matches!(read, Poll::Ready(Ok(()))) {
            // Only the buffer knows the number of bytes. At the end of a connection it is 0, and that happens once.
            self.hurry.moved(1);
        }
        read
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.wire).poll_write(cx, bytes);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.wire).poll_write_vectored(cx, buffers);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.wire).poll_shutdown(cx)
    }
}
