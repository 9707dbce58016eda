//! The validating webhook's server: HTTPS, with a certificate of its own authority.
//!
//! Key and certificate are kept in the Secret [`SECRET`] in the operator's namespace, so that all replicas show the same
//! one; every replica serves, whoever is in charge. The authority is written into each `ValidatingWebhookConfiguration`
//! named [`CONFIGURATION`], where there is one: without it the operator validates all the same, only later. Renewal is a new
//! authority and certificate at once, long before the old one ends; for a moment the API server may trust the other one, and
//! its `failurePolicy` decides what then happens.

use crate::certificates::{self, Purpose};
use crate::error::{Error, is_conflict, is_not_found};
use bytes::Bytes;
use chrono::{DateTime, Duration as Days, Utc};
use holdfast_kube_api::admission;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use kube::{Api, Client};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// The Secret with authority, certificate and key.
pub const SECRET: &str = "holdfast-webhook";
/// The Service that the API server calls, unless the configuration has a URL.
pub const SERVICE: &str = "holdfast-webhook";
/// The configuration that gets the authority.
pub const CONFIGURATION: &str = "holdfast";
/// A certificate that ends within these days is renewed.
const RENEW_DAYS: i64 = 30;
/// How often that is looked at.
const LOOK: Duration = Duration::from_hours(6);
/// A review holds two versions of an object; etcd keeps none larger than 1.5 MiB.
const MAX_REVIEW: usize = 8 << 20;
/// Handshake and review together.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the webhook shows to the API server.
struct Identity {
    authority: String,
    certificate: String,
    key: String,
}

/// Serves reviews until it is cancelled.
pub async fn serve(
    client: Client,
    namespace: String,
    address: SocketAddr,
    more_names: Vec<String>,
    cancellation: CancellationToken,
) -> Result<(), std::io::Error> {
    let listener = TcpListener::bind(address).await?;
    let mut acceptor = None;
    let mut look = tokio::time::interval(LOOK);
    let mut retry = false;
    loop {
        tokio::select! {
            () = cancellation.cancelled() => return Ok(()),
            () = tokio::time::sleep(PATIENCE), if retry => look.reset_immediately(),
            _ = look.tick() => match renew(&client, &namespace, &more_names).await {
                Ok(fresh) => {
                    acceptor = Some(fresh);
                    retry = false;
                }
                Err(error) => {
                    tracing::warn!(error = error.in_full(), "the webhook has no certificate yet");
                    retry = true;
                }
            },
            accepted = listener.accept() => {
                let (Ok((stream, _)), Some(acceptor)) = (accepted, acceptor.clone()) else { continue };
                let cancellation = cancellation.clone();
                tokio::spawn(async move {
                    let connection = async {
                        let Ok(tls) = acceptor.accept(stream).await else { return };
                        let http = hyper::server::conn::http1::Builder::new();
                        // A client that goes away in the middle is its own affair.
                        let _ = http.serve_connection(TokioIo::new(tls), service_fn(answer)).await;
                    };
                    tokio::select! {
                        () = connection => {}
                        () = cancellation.cancelled() => {}
                    }
                });
            }
        }
    }
}

/// Makes sure of a certificate that holds, and that the API server knows its authority.
async fn renew(client: &Client, namespace: &str, more_names: &[String]) -> Result<TlsAcceptor, Error> {
    let mut names = vec![
        format!("{SERVICE}.{namespace}.svc"),
        format!("{SERVICE}.{namespace}"),
        format!("{SERVICE}.{namespace}.svc.cluster.local"),
    ];
    names.extend(more_names.iter().cloned());
    let identity = identity(client, namespace, &names, Utc::now()).await?;
    announce(client, &identity.authority).await?;
    acceptor(&identity).map_err(|why| Error::Certificate { secret: SECRET.to_owned(), why })
}

async fn identity(client: &Client, namespace: &str, names: &[String], now: DateTime<Utc>) -> Result<Identity, Error> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let read =
        || async { api.get_opt(SECRET).await.map_err(|error| Error::api(format!("read secret {SECRET}"), error)) };
    let found = read().await?;
    if let Some(identity) = found.as_ref().and_then(|secret| stored(secret, names, now)) {
        return Ok(identity);
    }
    let fault = |error: rcgen::Error| Error::Certificate { secret: SECRET.to_owned(), why: error.to_string() };
    let authority = certificates::authority("Holdfast webhook", None, now).map_err(fault)?;
    let leaf = certificates::signed(&authority, &Purpose::Server(names.to_vec()), now).map_err(fault)?;
    let mut secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": SECRET, "annotations": {
            ENDS: leaf.ends.to_rfc3339(), NAMES: names.join(","),
        }},
        "stringData": {"ca.crt": authority.certificate, "tls.crt": leaf.certificate, "tls.key": leaf.key},
    });
    if let Some(version) = found.as_ref().and_then(|secret| secret.metadata.resource_version.as_ref()) {
        secret["metadata"]["resourceVersion"] = json!(version);
    }
    let secret: Secret = serde_json::from_value(secret)
        .map_err(|source| Error::Malformed { what: format!("secret {SECRET}"), source })?;
    let written = if found.is_some() {
        api.replace(SECRET, &PostParams::default(), &secret).await
    } else {
        api.create(&PostParams::default(), &secret).await
    };
    match written {
        Ok(_) => Ok(Identity { authority: authority.certificate, certificate: leaf.certificate, key: leaf.key }),
        // Another replica was first: its certificate is as good.
        Err(error) if is_conflict(&error) => read()
            .await?
            .and_then(|secret| stored(&secret, names, now))
            .ok_or_else(|| Error::Changed { what: format!("secret {SECRET}") }),
        Err(error) => Err(Error::api(format!("write secret {SECRET}"), error)),
    }
}

/// When the certificate ends.
const ENDS: &str = "holdfast.dev/certificateEnds";
/// What it is for.
const NAMES: &str = "holdfast.dev/certificateNames";

/// What a Secret holds, if it still holds and is for all these names.
fn stored(secret: &Secret, names: &[String], now: DateTime<Utc>) -> Option<Identity> {
    let annotations = secret.metadata.annotations.as_ref()?;
    let ends: DateTime<Utc> = annotations.get(ENDS)?.parse().ok()?;
    let held: Vec<&str> = annotations.get(NAMES)?.split(',').collect();
    if ends - Days::days(RENEW_DAYS) < now || names.iter().any(|name| !held.contains(&name.as_str())) {
        return None;
    }
    let text = |key: &str| String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok();
    Some(Identity { authority: text("ca.crt")?, certificate: text("tls.crt")?, key: text("tls.key")? })
}

/// Writes the authority into the configuration.
async fn announce(client: &Client, authority: &str) -> Result<(), Error> {
    let api: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let mut configuration = match api.get(CONFIGURATION).await {
        Ok(configuration) => configuration,
        Err(error) if is_not_found(&error) => {
            tracing::info!(
                name = CONFIGURATION,
                "there is no webhook configuration: manifests are validated by the reconcilers only"
            );
            return Ok(());
        }
        Err(error) => return Err(Error::api("read the webhook configuration", error)),
    };
    let wanted = Some(ByteString(authority.as_bytes().to_vec()));
    let mut changed = false;
    for webhook in configuration.webhooks.iter_mut().flatten() {
        if webhook.client_config.ca_bundle != wanted {
            webhook.client_config.ca_bundle.clone_from(&wanted);
            changed = true;
        }
    }
    if changed {
        api.replace(CONFIGURATION, &PostParams::default(), &configuration)
            .await
            .map_err(|error| Error::api("write the authority into the webhook configuration", error))?;
    }
    Ok(())
}

fn acceptor(identity: &Identity) -> Result<TlsAcceptor, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(identity.certificate.as_bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).map_err(|error| error.to_string())?;
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain.map_err(|error| error.to_string())?, key)
        .map_err(|error| error.to_string())?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, body) = match reviewed(request).await {
        Ok(body) => (StatusCode::OK, body),
        Err((status, text)) => (status, text.into_bytes()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    if let Ok(kind) = "application/json".parse() {
        response.headers_mut().insert("content-type", kind);
    }
    Ok(response)
}

async fn reviewed(request: Request<Incoming>) -> Result<Vec<u8>, (StatusCode, String)> {
    if request.method() != Method::POST || request.uri().path() != admission::PATH {
        return Err((StatusCode::NOT_FOUND, format!("there is POST {}\n", admission::PATH)));
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
