//! Between the operator and the API server that is played: requests are counted, and what goes wrong goes wrong here.

use crate::world::{Answer, Call, Refusal, World, parse};
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
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tower_service::Service;

type AnyError = Box<dyn std::error::Error + Send + Sync>;
type AnyBody = UnsyncBoxBody<Bytes, Infallible>;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// The operator is killed once the request is done.
    Kill,
    /// It is answered with this status, and not done.
    Refuse(u16),
    /// The connection breaks, and it is not done.
    Reset,
    /// It is done, and the connection breaks before the answer.
    Lose,
    /// The answer takes so long.
    Slow(Duration),
    /// Somebody else changed the object: 409.
    Conflict,
    /// The answer never comes; whether it was done is not known (it was).
    Hang,
    /// It is done, and all watches end.
    CloseWatches,
    /// The same, and they are too far behind to go on.
    ExpireWatches,
}

/// Which requests it happens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// The n-th, counted from 1; the operator's election and Events are not counted.
    Request(u64),
    /// The n-th write.
    Write(u64),
    /// The first so many tries of each write to the same object, one after another.
    EachWriteOnce,
    /// All.
    All,
}

/// What goes wrong when, and what happened.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) fault: Fault,
    pub(crate) at: At,
    /// Requests so far.
    pub(crate) requests: u64,
    /// Writes so far.
    pub(crate) writes: u64,
    /// How often it went wrong.
    pub(crate) hits: u64,
    /// What it happened to.
    pub(crate) hit: Option<String>,
    /// Whether the operator is dead: nothing comes from it any more, and nothing gets to it.
    pub(crate) dead: bool,
    /// Whether faults have begun.
    begun: bool,
    seen: BTreeSet<String>,
    /// The last requests, to tell what happened.
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

/// The way to the API server of one operator.
#[derive(Clone)]
pub(crate) struct Transport {
    pub(crate) world: Arc<Mutex<World>>,
    pub(crate) plan: Arc<Mutex<Plan>>,
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
        // What a request takes; also lets others go between two of them.
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
