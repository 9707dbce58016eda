//! [`Http`]: the HTTP client below the SDK, built on hyper, with connections from [`Dial`].
//!
//! The SDK's own client accepts no custom verifier of certificates, so this one is ours. It does what the SDK's client
//! does: a pool of connections for each pair of time limits, HTTP/2 if the server offers it, closing of connections
//! that the SDK gives up (after an answer such as 503), and errors sorted into the kinds that [`super::errors`] and the
//! retries for credentials know.

use std::collections::HashMap;
use std::error::Error;
use std::time::Duration;

use aws_sdk_s3::config::http::{HttpRequest, HttpResponse};
use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::client::connection::{CaptureSmithyConnection, ConnectionMetadata};
use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use hyper::http::Extensions;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{CaptureConnection, HttpInfo, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;

use super::dial::{Dial, TimedOut};
use super::tunnel::Refused;
use crate::ConfigError;

/// Clients by their time limits: the SDK asks for one with each request.
#[derive(Debug)]
pub(super) struct Http {
    dial: Dial,
    connectors: Mutex<HashMap<Limits, SharedHttpConnector>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Limits {
    connect: Option<Duration>,
    read: Option<Duration>,
}

impl Http {
    /// A client whose connections come from `dial`.
    pub(super) fn new(dial: Dial) -> Self {
        Self { dial, connectors: Mutex::default() }
    }
}

impl HttpClient for Http {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        let limits = Limits { connect: settings.connect_timeout(), read: settings.read_timeout() };
        let mut connectors = self.connectors.lock();
        let made = connectors.entry(limits).or_insert_with(|| {
            let dial = self.dial.clone().within(limits.connect);
            let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(dial.clone());
            SharedHttpConnector::new(Connector { client, dial, read: limits.read })
        });
        made.clone()
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        Some(ConnectorMetadata::new("hyper", Some("1.x".into())))
    }
}

#[derive(Debug)]
struct Connector {
    client: Client<Dial, SdkBody>,
    dial: Dial,
    /// The time limit until the head of the answer has arrived.
    read: Option<Duration>,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let mut request = match request.try_into_http1x() {
            Ok(request) => request,
            Err(error) => return HttpConnectorFuture::ready(Err(ConnectorError::user(error.into()))),
        };
        self.dial.authorize(&mut request);
        let connection = capture_connection(&mut request);
        if let Some(wanted) = request.extensions().get::<CaptureSmithyConnection>() {
            wanted.set_connection_retriever(move || described(&connection));
        }
        let answer = self.client.request(request);
        let limit = self.read;
        HttpConnectorFuture::new(async move {
            let answer = match limit {
                None => answer.await,
                Some(limit) => tokio::time::timeout(limit, answer)
                    .await
                    .map_err(|_| ConnectorError::timeout(TimedOut { what: "read", limit }.into()))?,
            };
            let answer = answer.map_err(judged)?;
            HttpResponse::try_from(answer.map(SdkBody::from_body_1_x))
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

/// The properties of a connection for the SDK, and the way to close it.
fn described(connection: &CaptureConnection) -> Option<ConnectionMetadata> {
    let connection = connection.clone();
    let mut known = Extensions::new();
    let proxied = {
        let connected = connection.connection_metadata();
        let connected = connected.as_ref()?;
        connected.get_extras(&mut known);
        connected.is_proxied()
    };
    let mut described = ConnectionMetadata::builder().proxied(proxied).poison_fn(move || {
        if let Some(connected) = connection.connection_metadata().as_ref() {
            connected.poison();
        }
    });
    let addresses = known.get::<HttpInfo>();
    described.set_local_addr(addresses.map(HttpInfo::local_addr));
    described.set_remote_addr(addresses.map(HttpInfo::remote_addr));
    Some(described.build())
}

/// Sorts an error of hyper. A permanent refusal by a proxy needs a change by a person. An error that is neither a
/// timeout nor a mistake of configuration is a network error, and may pass.
fn judged(error: hyper_util::client::legacy::Error) -> ConnectorError {
    let timed_out =
        found::<TimedOut>(&error).is_some() || found::<hyper::Error>(&error).is_some_and(hyper::Error::is_timeout);
    let mistaken = found::<ConfigError>(&error).is_some()
        || found::<Refused>(&error).is_some_and(Refused::is_permanent)
        || found::<hyper::Error>(&error).is_some_and(hyper::Error::is_user);
    if timed_out {
        ConnectorError::timeout(error.into())
    } else if mistaken {
        ConnectorError::user(error.into())
    } else {
        ConnectorError::io(error.into())
    }
}

fn found<'e, E: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e E> {
    std::iter::successors(Some(error), |&error| error.source()).find_map(|error| error.downcast_ref())
}
