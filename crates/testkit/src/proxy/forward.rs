//! A forward proxy, as companies have between their machines and the outside: `CONNECT` for TLS, absolute addresses for
//! plain HTTP, optionally with a password.
//!
//! It connects to its one target, whatever host a client names. So a test can use a host name that exists only for it.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{HeaderValue, PROXY_AUTHORIZATION};
use hyper::http::uri::PathAndQuery;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::http::forward;
use crate::background::Background;
use crate::error::{KitError, Result};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A running proxy; it and its connections end with the value.
#[derive(Debug)]
pub struct ForwardProxy {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    _background: Background,
}

#[derive(Clone, Debug)]
struct Rules {
    target: SocketAddr,
    authorization: Option<HeaderValue>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl ForwardProxy {
    /// Starts a proxy without a password on a free port of 127.0.0.1.
    pub fn start(target: SocketAddr) -> Result<Self> {
        Self::start_with(target, None)
    }

    /// Serves only clients that send this user and password, as `user:password`.
    pub fn with_password(target: SocketAddr, user_and_password: &str) -> Result<Self> {
        use base64::Engine as _;
        let encoded = base64::engine::general_purpose::STANDARD.encode(user_and_password);
        let value = HeaderValue::from_str(&format!("Basic {encoded}"));
        Self::start_with(target, Some(value.map_err(|error| KitError::Unsupported(error.to_string()))?))
    }

    fn start_with(target: SocketAddr, authorization: Option<HeaderValue>) -> Result<Self> {
        let background = Background::start("forward-proxy")?;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(KitError::io("start a proxy"))?;
        listener.set_nonblocking(true).map_err(KitError::io("start a proxy"))?;
        let address = listener.local_addr().map_err(KitError::io("start a proxy"))?;
        let seen = Arc::default();
        let rules = Rules { target, authorization, seen: Arc::clone(&seen) };
        background.spawn(async move {
            if let Ok(listener) = TcpListener::from_std(listener) {
                accept(listener, rules).await;
            }
        });
        Ok(Self { address, seen, _background: background })
    }

    /// The address where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requests so far: `CONNECT host:port`, `PUT http://host:port/path`.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().clone()
    }
}

async fn accept(listener: TcpListener, rules: Rules) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                let rules = rules.clone();
                connections.spawn(async move {
                    let service = service_fn(move |request| answer(request, rules.clone()));
                    let connection = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(client), service)
                        .with_upgrades();
                    // A disconnected client is not an error.
                    drop(connection.await);
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer(mut request: Request<Incoming>, rules: Rules) -> Result<Response<Passed>, BoxError> {
    let line = format!("{} {}", request.method(), request.uri());
    rules.seen.lock().push(line);
    let shown = request.headers_mut().remove(PROXY_AUTHORIZATION);
    if rules.authorization.is_some() && shown != rules.authorization {
        return Ok(empty(StatusCode::PROXY_AUTHENTICATION_REQUIRED));
    }
    if request.method() == Method::CONNECT {
        let mut server = TcpStream::connect(rules.target).await?;
        tokio::spawn(async move {
            if let Ok(client) = hyper::upgrade::on(request).await {
                drop(tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut server).await);
            }
        });
        return Ok(empty(StatusCode::OK));
    }
    let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
    Ok(forward(request, rules.target).await?.map(Passed::Whole))
}

fn empty(status: StatusCode) -> Response<Passed> {
    let mut response = Response::new(Passed::Nothing);
    *response.status_mut() = status;
    response
}

/// The body of an answer.
enum Passed {
    Whole(Incoming),
    Nothing,
}

impl hyper::body::Body for Passed {
    type Data = hyper::body::Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Self::Data>, Self::Error>>> {
        match self.get_mut() {
            Self::Whole(body) => std::pin::Pin::new(body).poll_frame(context),
            Self::Nothing => std::task::Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Nothing => hyper::body::SizeHint::with_exact(0),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Nothing => true,
        }
    }
}
