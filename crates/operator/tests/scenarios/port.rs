//! The status ports of the simulated instances: mutual TLS with the certificates that the operator made, over pipes in
//! memory.

use crate::fragile::Fragile;
use crate::world::World;
use base64::Engine as _;
use bytes::Bytes;
use holdfast_kube_api::names;
use holdfast_operator::status_client::{Dial, Stream};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::Value;
use std::convert::Infallible;
use std::io::{Error, ErrorKind};
use std::net::IpAddr;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// The connection to the status ports.
pub(crate) fn dial(world: &Arc<Fragile<World>>) -> Dial {
    let world = Arc::clone(world);
    let known: Arc<Fragile<Option<(String, TlsAcceptor)>>> = Arc::default();
    Dial::by(move |address| {
        let (world, known) = (Arc::clone(&world), Arc::clone(&known));
        async move {
            let found = find(&world.lock().expect("the world"), address);
            let (uid, cluster, frozen) = found.ok_or_else(|| Error::from(ErrorKind::ConnectionRefused))?;
            let (near, far) = tokio::io::duplex(1 << 16);
            if frozen {
                // The kernel accepts the connection, and nobody answers.
                tokio::spawn(async move {
                    let _held = far;
                    std::future::pending::<()>().await;
                });
                return Ok(Box::new(near) as Box<dyn Stream>);
            }
            let acceptor = acceptor(&world.lock().expect("the world"), &cluster, &known)
                .ok_or_else(|| Error::from(ErrorKind::ConnectionRefused))?;
            tokio::spawn(async move {
                let Ok(tls) = acceptor.accept(far).await else { return };
                let answer = service_fn(move |request| answer(Arc::clone(&world), uid.clone(), request));
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tls), answer).await;
            });
            Ok(Box::new(near) as Box<dyn Stream>)
        }
    })
}

fn find(world: &World, address: IpAddr) -> Option<(String, String, bool)> {
    let address = address.to_string();
    let pod = world.all("pods").into_iter().find(|pod| pod["status"]["podIP"] == *address)?;
    let uid = pod["metadata"]["uid"].as_str()?;
    let instance = world.fleet.instances.get(uid)?;
    if world.fleet.out_of_reach.contains(&instance.name) {
        return None;
    }
    Some((uid.to_owned(), instance.cluster.clone(), instance.frozen))
}

fn acceptor(world: &World, cluster: &str, known: &Fragile<Option<(String, TlsAcceptor)>>) -> Option<TlsAcceptor> {
    let server = world.get("secrets", &names::server_secret(cluster))?;
    let authority = world.get("secrets", &names::ca_secret(cluster))?;
    let version = format!("{}/{}", server["metadata"]["resourceVersion"], authority["metadata"]["resourceVersion"]);
    let mut known = known.lock().expect("the configuration");
    if let Some((of, acceptor)) = known.as_ref()
        && *of == version
    {
        return Some(acceptor.clone());
    }
    let pem = |secret: &Value, name: &str| {
        base64::engine::general_purpose::STANDARD.decode(secret["data"][name].as_str()?).ok()
    };
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&pem(authority, "ca.crt")?).ok()?).ok()?;
    let chain = vec![CertificateDer::from_pem_slice(&pem(server, "tls.crt")?).ok()?];
    let key = PrivateKeyDer::from_pem_slice(&pem(server, "tls.key")?).ok()?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().ok()?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .ok()?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)
        .ok()?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    *known = Some((version, acceptor.clone()));
    Some(acceptor)
}

async fn answer(
    world: Arc<Fragile<World>>,
    uid: String,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let (status, answer) = world.lock().expect("the world").ask(&uid, parts.method.as_str(), parts.uri.path(), &body);
    let mut response = Response::new(Full::new(Bytes::from(answer.to_string())));
    *response.status_mut() = hyper::StatusCode::from_u16(status).expect("a status");
    Ok(response)
}
