//! The validating webhook's server: HTTPS with a certificate of its own authority.
//!
//! Every replica serves, leader or not, and is ready only when it can serve. All use the same certificate, kept in a
//! Secret (`identity`). The API server knows its authority from the `ValidatingWebhookConfiguration`, which each
//! replica updates (`announce`). Without a configuration the operator validates too, but only at a reconcile.
//!
//! Every minute a replica checks, in this order: the Secret, the configuration, its own port. So it uses a certificate
//! of another authority only after the API server knows that authority and had time to notice. While another replica
//! still uses the old certificate, the old authority stays in the bundle. A step that fails changes nothing and is
//! tried again.

mod announce;
mod identity;

pub use announce::CONFIGURATION;
pub use identity::SECRET;

use crate::deadline::within;
use crate::error::Error;
use chrono::Utc;
use holdfast_http::answer::text;
use holdfast_http::{Answer, accept_each, serve_connection};
use holdfast_kube_api::admission;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use identity::Identity;
use kube::Client;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// The name of the Service that the API server calls, unless the configuration has a URL.
pub const SERVICE: &str = "holdfast-webhook";
/// The time between two checks of Secret and configuration. A configuration that was created again has no authority for
/// at most this long.
const LOOK: Duration = Duration::from_mins(1);
/// The time to the next check after an error.
const RETRY: Duration = Duration::from_secs(5);
/// The time limit of a check, which takes a few requests: a slow API server must not block it for ever.
const LOOK_WITHIN: Duration = Duration::from_secs(30);
/// An API server notices a changed configuration by a watch. The certificate that it knows is used for this long.
const NOTICED_WITHIN: Duration = Duration::from_secs(5);
/// The maximum size of a review in bytes. A review has two versions of an object; etcd stores at most 1.5 MiB of each.
const MAX_REVIEW: usize = 8 << 20;
/// The time limit of handshake and review together.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves reviews until it is cancelled; sets `ready` when it can serve. The error is about the port.
pub async fn serve(
    client: Client,
    namespace: String,
    address: SocketAddr,
    more_names: Vec<String>,
    ready: watch::Sender<bool>,
    cancellation: CancellationToken,
) -> Result<(), std::io::Error> {
    let listener = holdfast_http::bind(address).await?;
    let (shown, acceptor) = watch::channel(None::<TlsAcceptor>);
    let serving = accept_each(&listener, "webhook", |stream| {
        let acceptor = acceptor.borrow().clone();
        async move {
            let Some(acceptor) = acceptor else { return };
            let Ok(Ok(tls)) = tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await else { return };
            serve_connection(tls, None, answer).await;
        }
    });
    // In parallel to the port: a check waits for the API server, and the API server may be waiting for a review.
    let looks = keep_known(&client, &namespace, &more_names, &shown, &ready);
    tokio::select! {
        () = serving => {}
        () = looks => {}
        () = cancellation.cancelled() => {}
    }
    Ok(())
}

/// Checks certificate, configuration and port, again and again.
async fn keep_known(
    client: &Client,
    namespace: &str,
    more_names: &[String],
    shown: &watch::Sender<Option<TlsAcceptor>>,
    ready: &watch::Sender<bool>,
) {
    let mut names = vec![
        format!("{SERVICE}.{namespace}.svc"),
        format!("{SERVICE}.{namespace}"),
        format!("{SERVICE}.{namespace}.svc.cluster.local"),
    ];
    names.extend(more_names.iter().cloned());
    let mut serving: Option<Identity> = None;
    loop {
        let checking = check_certificate(client, namespace, &names, &mut serving, shown);
        let looked = within(LOOK_WITHIN, "checking the webhook's certificate", checking).await;
        if shown.borrow().is_some() {
            ready.send_replace(true);
        }
        let pause = match looked {
            Ok(()) => LOOK,
            Err(error) => {
                tracing::warn!(
                    error = error.in_full(),
                    serving = serving.is_some(),
                    "the webhook's certificate could not be checked; trying again"
                );
                RETRY
            }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn check_certificate(
    client: &Client,
    namespace: &str,
    names: &[String],
    serving: &mut Option<Identity>,
    shown: &watch::Sender<Option<TlsAcceptor>>,
) -> Result<(), Error> {
    let identity = identity::find(client, namespace, names, Utc::now()).await?;
    let announced = announce::authority(client, &identity.authority).await;
    // An unknown certificate is better than no certificate, and a known one is better than an unknown one.
    if serving.as_ref() != Some(&identity) && (announced.is_ok() || serving.is_none()) {
        let acceptor = acceptor(&identity).map_err(|why| Error::Certificate { secret: SECRET.to_owned(), why })?;
        if serving.as_ref().is_some_and(|served| served.authority != identity.authority) {
            tokio::time::sleep(NOTICED_WITHIN).await;
        }
        shown.send_replace(Some(acceptor));
        tracing::info!("the webhook is served with the certificate in secret {SECRET}");
        *serving = Some(identity);
    }
    announced
}

fn acceptor(identity: &Identity) -> Result<TlsAcceptor, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(identity.certificate.as_bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(identity.key.expose().as_bytes()).map_err(|error| error.to_string())?;
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain.map_err(|error| error.to_string())?, key)
        .map_err(|error| error.to_string())?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn answer(request: Request<Incoming>) -> Answer {
    let (status, body) = match reviewed(request).await {
        Ok(body) => (StatusCode::OK, body),
        Err((status, text)) => (status, text.into_bytes()),
    };
    text(status, "application/json", body)
}

async fn reviewed(request: Request<Incoming>) -> Result<Vec<u8>, (StatusCode, String)> {
    if request.method() != Method::POST || request.uri().path() != admission::PATH {
        return Err((StatusCode::NOT_FOUND, format!("only POST {} is served here\n", admission::PATH)));
    }
    let body = tokio::time::timeout(PATIENCE, Limited::new(request.into_body(), MAX_REVIEW).collect())
        .await
        .map_err(|_| (StatusCode::REQUEST_TIMEOUT, "the review took too long to arrive\n".to_owned()))?
        .map_err(|error| (StatusCode::BAD_REQUEST, format!("{error}\n")))?
        .to_bytes();
    let review = serde_json::from_slice(&body).map_err(|error| (StatusCode::BAD_REQUEST, format!("{error}\n")))?;
    serde_json::to_vec(&admission::review(review))
        .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")))
}
