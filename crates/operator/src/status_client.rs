//! Mutual TLS to the status ports of instance managers.
//!
//! An instance is reached at its pod's address. It is identified by a certificate of the cluster's own authority for
//! the name of the cluster's headless service. So if another pod now has the address, the certificate is wrong. Each
//! request has its own connection and its own time limit. Nothing is tried again here: the next reconcile asks again.

use futures::future::BoxFuture;
pub use holdfast_http::Stream;
use holdfast_http::{ExchangeError, Outgoing, exchange};
use holdfast_kube_api::names;
use holdfast_kube_api::status_port::{InstanceStatus, Refused};
use hyper::Method;
use k8s_openapi::api::core::v1::Secret;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The time limit of reading the status, which happens often.
pub const STATUS_TIMEOUT: Duration = Duration::from_secs(2);
/// The same for an instance on a node that is not ready. Many clusters can have an instance on a lost node, and each
/// failover needs several looks.
pub const LOST_NODE_TIMEOUT: Duration = Duration::from_millis(500);
/// The time limit of a request for an action.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// The maximum size of an answer in bytes.
const MAX_ANSWER: usize = 4 << 20;

type Connected = std::io::Result<Box<dyn Stream>>;

/// How status ports are reached: TCP, except for simulated instances.
#[derive(Clone)]
pub struct Dial(Arc<dyn Fn(IpAddr) -> BoxFuture<'static, Connected> + Send + Sync>);

impl std::fmt::Debug for Dial {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Dial").finish()
    }
}

impl Default for Dial {
    fn default() -> Self {
        Self::by(|address| async move {
            let tcp = TcpStream::connect((address, names::STATUS_PORT)).await?;
            tcp.set_nodelay(true)?;
            Ok(Box::new(tcp) as Box<dyn Stream>)
        })
    }
}

impl Dial {
    /// Another way than TCP.
    pub fn by<F, C>(connect: F) -> Self
    where
        F: Fn(IpAddr) -> C + Send + Sync + 'static,
        C: Future<Output = std::io::Result<Box<dyn Stream>>> + Send + 'static,
    {
        Self(Arc::new(move |address| Box::pin(connect(address))))
    }
}

/// A client for the instances of one cluster.
#[derive(Clone)]
pub struct StatusClient {
    dial: Dial,
    connector: TlsConnector,
    name: ServerName<'static>,
    host: String,
}

impl std::fmt::Debug for StatusClient {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("StatusClient").field("host", &self.host).finish_non_exhaustive()
    }
}

/// Why an instance did not do what was requested.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RequestError {
    /// It could not be reached, or did not answer in time. It is not known whether it did what was requested.
    #[error("{0}")]
    Unreachable(String),
    #[error("{status}: {}", refused.error)]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The reason, from the answer.
        refused: Refused,
        /// The whole answer; some refusals name what is in the way.
        body: String,
    },
    /// The answer has an unknown form.
    #[error("the answer cannot be parsed: {0}")]
    Malformed(String),
}

impl From<ExchangeError> for RequestError {
    fn from(error: ExchangeError) -> Self {
        match error {
            ExchangeError::Connection(why) => Self::Unreachable(why),
            ExchangeError::Request(why) => Self::Malformed(why),
        }
    }
}

impl RequestError {
    /// Whether the instance does not know the run.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// Whether something else is in the way.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused { status: 409, .. })
    }
}

impl StatusClient {
    /// A client with the operator's certificate and the cluster's authority, in PEM. The error says what is wrong with
    /// them.
    pub fn new(
        dial: Dial,
        cluster: &str,
        namespace: &str,
        authority: &[u8],
        certificate: &[u8],
        key: &[u8],
    ) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for one in CertificateDer::pem_slice_iter(authority) {
            let one = one.map_err(|error| format!("the CA certificate: {error}"))?;
            roots.add(one).map_err(|error| format!("the CA certificate: {error}"))?;
        }
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
        let chain = chain.map_err(|error| format!("the operator's certificate: {error}"))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("the operator's key: {error}"))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|error| format!("the operator's certificate: {error}"))?;
        let host = format!("{}.{namespace}.svc", names::headless_service(cluster));
        let name = ServerName::try_from(host.clone()).map_err(|error| format!("{host}: {error}"))?;
        Ok(Self { dial, connector: TlsConnector::from(Arc::new(config)), name, host })
    }

    /// A client from the Secrets of the cluster's authority and the operator's certificate; `None` until both are
    /// filled.
    pub fn from_secrets(
        dial: Dial,
        cluster: &str,
        namespace: &str,
        authority: &Secret,
        own: &Secret,
    ) -> Option<Result<Self, String>> {
        let value = |secret: &'_ Secret, key: &str| secret.data.as_ref()?.get(key).map(|value| value.0.clone());
        let (authority, certificate, key) =
            (value(authority, "ca.crt")?, value(own, "tls.crt")?, value(own, "tls.key")?);
        Some(Self::new(dial, cluster, namespace, &authority, &certificate, &key))
    }

    pub async fn status(&self, address: IpAddr) -> Result<InstanceStatus, RequestError> {
        self.status_within(address, STATUS_TIMEOUT).await
    }

    /// The status, if it comes within this time.
    pub async fn status_within(&self, address: IpAddr, limit: Duration) -> Result<InstanceStatus, RequestError> {
        self.request(Method::GET, address, "/status", None::<&()>, limit).await
    }

    /// `GET` of a path such as `/backups/<uid>`.
    pub async fn get<A: DeserializeOwned>(&self, address: IpAddr, path: &str) -> Result<A, RequestError> {
        self.request(Method::GET, address, path, None::<&()>, REQUEST_TIMEOUT).await
    }

    pub async fn put<B: Serialize + Sync, A: DeserializeOwned>(
        &self,
        address: IpAddr,
        path: &str,
        body: &B,
    ) -> Result<A, RequestError> {
        self.request(Method::PUT, address, path, Some(body), REQUEST_TIMEOUT).await
    }

    /// `POST` without a body. An answer without a body is read as JSON's `null`.
    pub async fn post<A: DeserializeOwned>(&self, address: IpAddr, path: &str) -> Result<A, RequestError> {
        self.request(Method::POST, address, path, None::<&()>, REQUEST_TIMEOUT).await
    }

    pub async fn delete<A: DeserializeOwned>(&self, address: IpAddr, path: &str) -> Result<A, RequestError> {
        self.request(Method::DELETE, address, path, None::<&()>, REQUEST_TIMEOUT).await
    }

    async fn request<B: Serialize + Sync, A: DeserializeOwned>(
        &self,
        method: Method,
        address: IpAddr,
        path: &str,
        body: Option<&B>,
        limit: Duration,
    ) -> Result<A, RequestError> {
        let body = match body {
            Some(body) => serde_json::to_vec(body).map_err(|error| RequestError::Malformed(error.to_string()))?,
            None => Vec::new(),
        };
        let asked = async {
            let stream = (self.dial.0)(address).await.map_err(|error| RequestError::Unreachable(error.to_string()))?;
            let request = Outgoing { method, path, host: &self.host, body };
            Ok::<_, RequestError>(exchange(stream, &self.connector, self.name.clone(), request, MAX_ANSWER).await?)
        };
        let (status, bytes) = tokio::time::timeout(limit, asked)
            .await
            .map_err(|_| RequestError::Unreachable(format!("no answer within {} s", limit.as_secs_f64())))??;
        if status.is_success() {
            let bytes: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
            return serde_json::from_slice(bytes).map_err(|error| RequestError::Malformed(error.to_string()));
        }
        let body = String::from_utf8_lossy(&bytes).into_owned();
        let refused = serde_json::from_str(&body)
            .unwrap_or_else(|_| Refused { error: body.chars().take(300).collect(), hint: None });
        Err(RequestError::Refused { status: status.as_u16(), refused, body })
    }
}
