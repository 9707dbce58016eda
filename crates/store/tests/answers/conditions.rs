//! The record "this store ignores conditions" is not encrypted, and anyone who writes to the bucket may have changed
//! it. So the condition is sent all the same, and a refusal is believed.

use holdfast_store::{ConditionalCreate, PutMode, Store, StoreConfig, StoreErrorKind, open};
use holdfast_testkit::s3::S3Server;

use super::canned::{Answer, Request, Server};
use super::{config, name};

fn emulated(endpoint: &str) -> StoreConfig {
    let mut config = config(endpoint);
    config.capabilities.create = ConditionalCreate::Emulated;
    config
}

fn has_condition(request: &Request) -> bool {
    request.header("if-none-match") == Some("*")
}

fn puts(server: &Server) -> Vec<bool> {
    server.requests().iter().filter(|request| request.method == "PUT").map(has_condition).collect()
}

#[tokio::test]
async fn a_412_is_believed() {
    let server = Server::start(|request| match request.method.as_str() {
        "HEAD" => Answer::new(404, ""),
        _ if has_condition(request) => Answer::error(412, "PreconditionFailed"),
        _ => Answer::new(200, ""),
    })
    .await;
    let store = open(&emulated(&server.endpoint)).await.unwrap();
    let error = store.put(&name("a"), "body".into(), PutMode::Create).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::AlreadyExists, "{error}");
    assert_eq!(puts(&server), [true]);
    store.put(&name("a"), "body".into(), PutMode::Overwrite).await.unwrap();
    assert_eq!(puts(&server), [true, false]);
}

#[tokio::test]
async fn a_store_that_refuses_the_header_is_asked_once() {
    for (status, code) in [(501, "NotImplemented"), (400, "InvalidArgument"), (400, "InvalidRequest"), (400, "Odd")] {
        let server = Server::start(move |request| match request.method.as_str() {
            "HEAD" => Answer::new(404, ""),
            _ if has_condition(request) => Answer::error(status, code),
            _ => Answer::new(200, ""),
        })
        .await;
        let store = open(&emulated(&server.endpoint)).await.unwrap();
        store.put(&name("a"), "body".into(), PutMode::Create).await.unwrap();
        store.put(&name("b"), "body".into(), PutMode::Create).await.unwrap();
        let sent = puts(&server);
        assert_eq!(sent.iter().filter(|condition| **condition).count(), if code == "Odd" { 1 } else { 2 }, "{sent:?}");
        assert_eq!(&sent[sent.len() - 2..], [false, false], "{code}: {sent:?}");
        // If the record says that the store keeps conditions, the refusal is final.
        let store = open(&config(&server.endpoint)).await.unwrap();
        assert!(store.put(&name("c"), "body".into(), PutMode::Create).await.is_err());
    }
}

/// Two writers at the same moment, on a store that keeps conditions while its record says otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn a_downgraded_record_lets_nobody_overwrite() {
    let server = S3Server::start().unwrap();
    let mut config = emulated(&server.endpoint());
    config.location = "s3://holdfast/some/prefix".parse().unwrap();
    config.s3.credentials = holdfast_store::Credentials::Static {
        access_key: holdfast_secret::Secret::new(&server.credentials().access_key),
        secret_key: holdfast_secret::Secret::new(&server.credentials().secret_key),
        session_token: None,
    };
    let (left, right) = (open(&config).await.unwrap(), open(&config).await.unwrap());
    for round in 0..20 {
        let object = name(&format!("round-{round}"));
        let put = |store: std::sync::Arc<dyn Store>, body: &'static str| {
            let object = object.clone();
            async move {
                if round % 2 == 0 {
                    return store.put(&object, body.into(), PutMode::Create).await;
                }
                let upload = store.begin_upload(&object, PutMode::Create).await?;
                upload.part(1, body.into()).await?;
                upload.complete().await
            }
        };
        let (one, other) = tokio::join!(put(left.clone(), "one"), put(right.clone(), "other"));
        let stored = left.get(&object).await.unwrap();
        let won: Vec<&str> =
            [(&one, "one"), (&other, "other")].iter().filter(|(put, _)| put.is_ok()).map(|(_, body)| *body).collect();
        assert_eq!(won, [std::str::from_utf8(&stored).unwrap()], "round {round}: {one:?} {other:?}");
    }
}
