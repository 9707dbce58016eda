//! Between the operator and the simulated API server: this module counts the requests and makes the faults.

use crate::fragile::Fragile;
use crate::world::{Answer, Call, Refusal, Verb, World, parse};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper::{Request, Response};
use kube::client::Body;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tower_service::Service;

type AnyError = Box<dyn std::error::Error + Send + Sync>;
type AnyBody = UnsyncBoxBody<Bytes, Infallible>;

/// The kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No fault.
    None,
    /// The operator is killed after the request is executed.
    Kill,
    /// The request gets this status, and is not executed.
    Refuse(u16),
    /// The connection breaks, and the request is not executed.
    Reset,
    /// The request is executed, and the connection breaks before the answer.
    Lose,
    /// The answer takes this long.
    Slow(Duration),
    /// Somebody else changed the object: 409.
    Conflict,
    /// The answer never comes. The client does not know whether the request was executed (it was).
    Hang,
    /// The request is executed, and all watches end.
    CloseWatches,
    /// The same, and the watches are too old to continue.
    ExpireWatches,
}

/// The requests that the fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// The n-th request, counted from 1. The operator's election and Events are not counted.
    Request(u64),
    /// The n-th write.
    Write(u64),
    /// The first attempt of each write to each object.
    EachWriteOnce,
    /// All requests with this verb for this kind of object.
    Kind(Verb, &'static str),
    /// All requests.
    All,
}

/// The plan of faults, and what happened.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) fault: Fault,
    pub(crate) at: At,
    /// Number of requests so far.
    pub(crate) requests: u64,
    /// Number of writes so far.
    pub(crate) writes: u64,
    /// Number of faults so far.
    pub(crate) hits: u64,
    /// The request that the fault hit last.
    pub(crate) hit: Option<String>,
    /// Whether the operator is dead: it sends nothing any more, and receives nothing.
    pub(crate) dead: bool,
    /// Whether faults have begun.
    begun: bool,
    seen: BTreeSet<String>,
    /// The last requests, for error messages.
    pub(crate) log: Vec<String>,
}

impl Plan {
    pub(crate) fn new(fault: Fault, at: At) -> Self {
        Self {
            fault,
            at,
            requests: 0,
            writes: 0,
            hits: 0,
            hit: None,
            dead: false,
            begun: false,
            seen: BTreeSet::new(),
            log: Vec::new(),
        }
    }

    pub(crate) fn none() -> Self {
        Self::new(Fault::None, At::All)
    }

    pub(crate) fn begin(&mut self) {
        self.begun = true;
    }

    fn next(&mut self, call: &Call) -> Fault {
        if call.is_aside() {
            return match self.fault {
                Fault::Slow(_) => self.fault,
                _ => Fault::None,
            };
        }
        if !self.begun {
            return Fault::None;
        }
        self.requests += 1;
        let write = call.verb.is_write();
        self.writes += u64::from(write);
        let text = call.to_string();
        self.log.push(format!("{} {text}", self.requests));
        let hit = match self.at {
            At::Request(n) => self.requests == n,
            At::Write(n) => write && self.writes == n,
            At::EachWriteOnce => write && self.seen.insert(text.clone()),
            At::Kind(verb, plural) => call.verb == verb && call.is_of(plural),
            At::All => true,
        };
        if hit && self.fault != Fault::None {
            self.hits += 1;
            self.hit = Some(text);
            return self.fault;
        }
        Fault::None
    }
}

/// The connection of one operator to the API server.
#[derive(Clone)]
pub(crate) struct Transport {
    pub(crate) world: Arc<Fragile<World>>,
    pub(crate) plan: Arc<Fragile<Plan>>,
}

impl Service<Request<Body>> for Transport {
    type Response = Response<AnyBody>;
    type Error = AnyError;
    type Future = BoxFuture<'static, Result<Self::Response, AnyError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), AnyError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let transport = self.clone();
        Box::pin(async move { transport.carry(request).await })
    }
}

impl Transport {
    async fn carry(&self, request: Request<Body>) -> Result<Response<AnyBody>, AnyError> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let content = parts.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let call = parse(parts.method.as_str(), &parts.uri.to_string(), content);
        let fault = {
            let mut plan = self.plan.lock().expect("the plan");
            if plan.dead { Fault::Hang } else { plan.next(&call) }
        };
        if self.plan.lock().expect("the plan").dead {
            std::future::pending::<()>().await;
        }
        // The duration of a request. It also lets other tasks run between two requests.
        tokio::time::sleep(match fault {
            Fault::Slow(time) => time,
            _ => Duration::from_millis(2),
        })
        .await;
        let reset = || AnyError::from(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
        match fault {
            Fault::Reset => return Err(reset()),
            Fault::Refuse(code) => {
                let reason = if code == 429 { "TooManyRequests" } else { "InternalError" };
                return Ok(refused(&Refusal::new(code, reason, "a fault of the test")));
            }
            Fault::Conflict => {
                return Ok(refused(&Refusal::new(409, "Conflict", "the object has been modified")));
            }
            _ => {}
        }
        if self.plan.lock().expect("the plan").dead {
            std::future::pending::<()>().await;
        }
        let answer = self.world.lock().expect("the world").serve(&call, &body);
        match fault {
            Fault::CloseWatches | Fault::ExpireWatches => {
                self.world.lock().expect("the world").close_watches(fault == Fault::ExpireWatches);
            }
            Fault::Kill => {
                self.plan.lock().expect("the plan").dead = true;
                std::future::pending::<()>().await;
            }
            Fault::Hang => std::future::pending::<()>().await,
            Fault::Lose => return Err(reset()),
            _ => {}
        }
        Ok(match answer {
            Ok(Answer::Whole(object)) => {
                let code = if parts.method == "POST" { 201 } else { 200 };
                whole(code, object.to_string())
            }
            Ok(Answer::Stream(lines)) => {
                let frames = stream::unfold(lines, |mut lines| async move {
                    let line = lines.recv().await?;
                    Some((Ok(Frame::data(line)), lines))
                });
                Response::new(StreamBody::new(frames).boxed_unsync())
            }
            Err(refusal) => refused(&refusal),
        })
    }
}

fn refused(refusal: &Refusal) -> Response<AnyBody> {
    let mut response = whole(refusal.code, refusal.status().to_string());
    if refusal.code == 429 {
        response.headers_mut().insert("retry-after", "1".parse().expect("a header"));
    }
    response
}

fn whole(code: u16, text: String) -> Response<AnyBody> {
    let mut response = Response::new(Full::new(Bytes::from(text)).boxed_unsync());
    *response.status_mut() = hyper::StatusCode::from_u16(code).expect("a status");
    response.headers_mut().insert("content-type", "application/json".parse().expect("a header"));
    response
}
