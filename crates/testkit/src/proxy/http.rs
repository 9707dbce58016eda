//! An HTTP proxy that fails requests on purpose.
//!
//! Requests go to the server unchanged, `Host` included, so that S3 signatures stay valid. For each request the first
//! fault that matches and is due decides. If there is none, the request passes. Counts and chances follow the order in
//! which the requests of a fault arrive, and chances come from a seed. So a run with one request at a time can be
//! repeated exactly.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Sleep;

use crate::background::Background;
use crate::error::{KitError, Result};
use crate::random::Random;

/// How long a truncated body waits before it breaks off. An error at once would also drop the bytes that are not yet
/// sent.
const FLUSH: Duration = Duration::from_millis(20);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The server executes it, and its answer is dropped with the connection.
    LostAnswer,
    /// The connection is dropped before the server sees it.
    LostRequest,
    /// The client gets an S3 error, such as 503 `SlowDown` or 500 `InternalError`. The server does not see the request.
    Status(u16, &'static str),
    /// The answer's body and the connection end after this many bytes, as if the server had died.
    TruncatedBody(u64),
    /// The byte at this position of the answer's body has its lowest bit flipped.
    FlippedBit(u64),
    /// The byte at this position of the request's body has its lowest bit flipped, on its way to the server.
    FlippedRequestBit(u64),
    /// The request reaches the server without this header, as if the server did not know its feature.
    WithoutHeader(&'static str),
    /// The answer arrives this much later.
    Delay(Duration),
}

/// Which of the matching requests have the effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// All of them.
    Always,
    /// This many requests, from the first.
    First(u64),
    /// A single one, counted from 1.
    Nth(u64),
    /// Every nth one.
    EveryNth(u64),
    /// Each one with this chance in a thousand, from a seed.
    Chance {
        /// The chance in a thousand.
        per_mille: u64,
        /// The seed, which a failing test prints.
        seed: u64,
    },
}

/// A rule: which requests, how often, which effect.
#[derive(Clone, Debug)]
pub struct Fault {
    effect: Effect,
    when: When,
    method: Option<String>,
    path_contains: String,
    matched: u64,
}

impl Fault {
    /// A fault with this effect, on requests of every kind.
    pub fn new(effect: Effect, when: When) -> Self {
        Self { effect, when, method: None, path_contains: String::new(), matched: 0 }
    }

    /// Limits the fault to requests with this method.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        self.method = Some(method.to_owned());
        self
    }

    /// Limits the fault to requests whose path and query contain this text, for instance `/wal/` or `uploadId=`.
    #[must_use]
    pub fn path_contains(mut self, part: &str) -> Self {
        part.clone_into(&mut self.path_contains);
        self
    }

    fn matches(&self, method: &str, path: &str) -> bool {
        self.method.as_deref().is_none_or(|wanted| wanted == method) && path.contains(&self.path_contains)
    }

    /// Counts a matching request, and returns whether it has the effect.
    fn is_due(&mut self) -> bool {
        self.matched += 1;
        match self.when {
            When::Always => true,
            When::First(count) => self.matched <= count,
            When::Nth(number) => self.matched == number,
            When::EveryNth(number) => number > 0 && self.matched.is_multiple_of(number),
            When::Chance { per_mille, seed } => {
                Random::of_seed(seed.wrapping_add(self.matched)).below(1000) < per_mille
            }
        }
    }
}

/// A request that passed through the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenRequest {
    /// The method, such as `PUT`.
    pub method: String,
    /// The path and the query.
    pub path: String,
    /// The fault that it met, if any.
    pub effect: Option<Effect>,
    /// Whether the server has executed it: before this, a client that disconnects takes the request with it.
    pub executed: bool,
}

#[derive(Debug, Default)]
struct Shared {
    faults: Vec<Fault>,
    seen: Vec<SeenRequest>,
    turn: Option<Arc<tokio::sync::Mutex<()>>>,
}

/// A running proxy; it and its connections end with the value.
#[derive(Debug)]
pub struct HttpFaults {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    _background: Background,
}

impl HttpFaults {
    /// Starts a proxy to an HTTP server on a free port of 127.0.0.1, without faults.
    pub fn start(target: SocketAddr) -> Result<Self> {
        let background = Background::start("http-faults")?;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(KitError::io("start a proxy"))?;
        listener.set_nonblocking(true).map_err(KitError::io("start a proxy"))?;
        let address = listener.local_addr().map_err(KitError::io("start a proxy"))?;
        let shared = Arc::new(Mutex::new(Shared::default()));
        let state = Arc::clone(&shared);
        background.spawn(async move {
            if let Ok(listener) = TcpListener::from_std(listener) {
                accept(listener, target, state).await;
            }
        });
        Ok(Self { address, shared, _background: background })
    }

    /// The address for the client.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address as a URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds a fault after the existing ones.
    pub fn inject(&self, fault: Fault) {
        self.shared.lock().faults.push(fault);
    }

    /// Lets only one request at a time be at the server, until the head of its answer arrives. `s3s-fs` looks for an
    /// object and then writes it. With this option its conditional writes are atomic, as those of a real store are.
    pub fn one_at_a_time(&self) {
        self.shared.lock().turn = Some(Arc::default());
    }

    /// Removes all faults.
    pub fn clear(&self) {
        self.shared.lock().faults.clear();
    }

    /// The requests so far, in the order of arrival.
    pub fn seen(&self) -> Vec<SeenRequest> {
        self.shared.lock().seen.clone()
    }

    /// The number of requests that met a fault.
    pub fn hits(&self) -> usize {
        self.shared.lock().seen.iter().filter(|seen| seen.effect.is_some()).count()
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, shared: Arc<Mutex<Shared>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                let _ = client.set_nodelay(true);
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    let service = service_fn(move |request| answer(request, target, Arc::clone(&shared)));
                    // An error here is a connection dropped on purpose, or a client that disconnected.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(client), service)
                        .await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    target: SocketAddr,
    shared: Arc<Mutex<Shared>>,
) -> Result<Response<Answer>, BoxError> {
    let method = request.method().to_string();
    let path = request.uri().path_and_query().map_or("/", hyper::http::uri::PathAndQuery::as_str).to_owned();
    let turn = shared.lock().turn.clone();
    let _turn = match &turn {
        Some(turn) => Some(turn.lock().await),
        None => None,
    };
    let (effect, place) = {
        let mut shared = shared.lock();
        let fault = shared.faults.iter_mut().filter(|fault| fault.matches(&method, &path)).find_map(|fault| {
            let due = fault.is_due();
            due.then(|| fault.effect.clone())
        });
        shared.seen.push(SeenRequest { method, path, effect: fault.clone(), executed: false });
        (fault, shared.seen.len() - 1)
    };
    let request = match &effect {
        Some(Effect::LostRequest) => return Err("lost the request on purpose".into()),
        Some(Effect::Status(status, code)) => {
            // The body is read first: a client that is still sending would see a reset instead of the status.
            drain(request.into_body()).await?;
            return refused(*status, code);
        }
        Some(Effect::FlippedRequestBit(at)) => request.map(|body| Answer::Flipped { body, at: Some(*at) }),
        Some(Effect::WithoutHeader(name)) => {
            let mut changed = request;
            changed.headers_mut().remove(*name);
            changed.map(Answer::Whole)
        }
        _ => request.map(Answer::Whole),
    };
    let response = forward(request, target).await?;
    shared.lock().seen[place].executed = true;
    match effect {
        Some(Effect::LostAnswer) => {
            drain(response.into_body()).await?;
            Err("lost the answer on purpose".into())
        }
        Some(Effect::TruncatedBody(left)) => Ok(response.map(|body| Answer::Truncated { body, left, flushed: None })),
        Some(Effect::FlippedBit(at)) => Ok(response.map(|body| Answer::Flipped { body, at: Some(at) })),
        Some(Effect::Delay(delay)) => {
            tokio::time::sleep(delay).await;
            Ok(response.map(Answer::Whole))
        }
        _ => Ok(response.map(Answer::Whole)),
    }
}

/// The S3 error with this status and code.
fn refused(status: u16, code: &str) -> Result<Response<Answer>, BoxError> {
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>injected</Message></Error>"
    );
    let mut response = Response::new(Answer::Text(Some(Bytes::from(text))));
    *response.status_mut() = StatusCode::from_u16(status)?;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/xml"));
    Ok(response)
}

/// Sends a request to the server over a connection of its own.
pub(super) async fn forward<B>(request: Request<B>, target: SocketAddr) -> Result<Response<Incoming>, BoxError>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let server = TcpStream::connect(target).await?;
    server.set_nodelay(true)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(server)).await?;
    // Ends when the answer's body was read, or is dropped.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender.send_request(request).await?)
}

async fn drain(mut body: Incoming) -> Result<(), hyper::Error> {
    while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        frame?;
    }
    Ok(())
}

/// The body of an answer, or of a request, unchanged or with a fault applied.
enum Answer {
    Whole(Incoming),
    Text(Option<Bytes>),
    Truncated { body: Incoming, left: u64, flushed: Option<Pin<Box<Sleep>>> },
    Flipped { body: Incoming, at: Option<u64> },
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(context).map_err(Into::into),
            Self::Text(text) => Poll::Ready(text.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Truncated { left: 0, flushed, .. } => {
                ready!(flushed.get_or_insert_with(|| Box::pin(tokio::time::sleep(FLUSH))).as_mut().poll(context));
                Poll::Ready(Some(Err("truncated the answer on purpose".into())))
            }
            Self::Truncated { body, left, .. } => {
                let frame = ready!(Pin::new(body).poll_frame(context)?);
                Poll::Ready(frame.map(|frame| Ok(frame.map_data(|data| truncate(&data, left)))))
            }
            Self::Flipped { body, at } => {
                let frame = ready!(Pin::new(body).poll_frame(context)?);
                Poll::Ready(frame.map(|frame| Ok(frame.map_data(|data| flip(data, at)))))
            }
        }
    }

    /// The announced size does not change: a truncated answer is shorter than its announced length.
    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) | Self::Truncated { body, .. } | Self::Flipped { body, .. } => body.size_hint(),
            Self::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) | Self::Flipped { body, .. } => body.is_end_stream(),
            Self::Text(text) => text.is_none(),
            Self::Truncated { .. } => false,
        }
    }
}

/// The part of this piece that may still pass.
fn truncate(data: &Bytes, left: &mut u64) -> Bytes {
    let kept = data.slice(..data.len().min(usize::try_from(*left).unwrap_or(usize::MAX)));
    *left -= kept.len() as u64;
    kept
}

/// Flips the bit if it is in this piece; else subtracts the length of the piece.
fn flip(data: Bytes, at: &mut Option<u64>) -> Bytes {
    let Some(position) = *at else { return data };
    if let Some(left) = position.checked_sub(data.len() as u64) {
        *at = Some(left);
        return data;
    }
    *at = None;
    let mut changed = data.to_vec();
    if let Some(byte) = usize::try_from(position).ok().and_then(|position| changed.get_mut(position)) {
        *byte ^= 1;
    }
    changed.into()
}
