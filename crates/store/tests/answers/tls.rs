//! HTTPS with a private CA: a TLS front with the certificate in `tests/data` (good until 2126) before a canned server.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use holdfast_store::{PutMode, StoreErrorKind, open};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::canned::{Answer, Server};
use super::{config, name};

pub(crate) fn data(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(file)
}

async fn tls_front(server: &Server) -> String {
    tls_front_of(server, "server").await
}

async fn tls_front_of(server: &Server, identity: &str) -> String {
    let target = server.endpoint.trim_start_matches("http://").to_owned();
    format!("https://{}", front(target, identity).await)
}

/// Starts a TLS front before `target`; returns its address.
pub(crate) async fn front(target: String, identity: &str) -> String {
    let certificate = CertificateDer::from_pem_file(data(&format!("{identity}.pem"))).unwrap();
    let key = PrivateKeyDer::from_pem_file(data(&format!("{identity}.key"))).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.expect("accept a connection of the test");
            let (acceptor, target) = (acceptor.clone(), target.clone());
            tokio::spawn(async move {
                let Ok(mut client) = acceptor.accept(socket).await else { return };
                let mut server = TcpStream::connect(target).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn a_private_ca_is_trusted_when_given_and_only_then() {
    let server = Server::start(|_| Answer::new(200, "")).await;
    let endpoint = tls_front(&server).await;

    let mut trusting = config(&endpoint);
    trusting.s3.ca_file = Some(data("ca.pem"));
    let store = open(&trusting).await.unwrap();
    store.put(&name("a"), "body".into(), PutMode::Create).await.unwrap();
    let request = server.requests().remove(0);
    assert_eq!(request.header("x-amz-content-sha256"), Some("UNSIGNED-PAYLOAD"));
    assert_eq!(request.body, "body");

    let error = open(&config(&endpoint)).await.unwrap().get(&name("a")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::BadCertificate, "{error}");
    assert!(error.to_string().contains("is not trusted"), "{error}");
    assert!(error.to_string().ends_with("set `ca_file` to the certificate of its CA"), "{error}");
}

#[tokio::test]
async fn each_fault_of_a_certificate_has_its_own_advice() {
    let server = Server::start(|_| Answer::new(200, "")).await;
    for (identity, advice) in [
        // It is enough to list the server's own certificate in `ca_file`.
        ("own", None),
        ("own-ca", None),
        ("elsewhere", Some("it is not for the host in `endpoint`")),
    ] {
        let mut config = config(&tls_front_of(&server, identity).await);
        config.s3.ca_file = Some(data(&format!("{identity}.pem")));
        let answer = open(&config).await.unwrap().put(&name("a"), "body".into(), PutMode::Create).await;
        let Some(advice) = advice else {
            answer.unwrap();
            continue;
        };
        let error = answer.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::BadCertificate, "{error}");
        assert!(error.to_string().contains(advice), "{identity}: {error}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_the_handshake_is_given_up() {
    let server = Server::start(|_| Answer::new(200, "")).await;
    let mut config = config(&server.endpoint.replace("http://", "https://"));
    config.timeouts.connect = Duration::from_millis(200);
    let error = open(&config).await.unwrap().get(&name("a")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Timeout, "{error}");
}

#[tokio::test]
async fn a_missing_ca_file_is_reported_when_opening() {
    let mut config = config("https://127.0.0.1:1");
    config.s3.ca_file = Some("/no/such/ca.pem".into());
    let error = open(&config).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::InvalidConfig);
    assert_eq!(
        error.to_string(),
        "wrong request or configuration for s3://bucket/prefix: ca_file /no/such/ca.pem cannot be read: No such file or \
         directory (os error 2)"
    );
}
