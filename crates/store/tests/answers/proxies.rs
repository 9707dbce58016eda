//! HTTP proxies between us and a real store. No server listens at the store's address: only the proxy reaches the
//! store.

use holdfast_secret::Secret;
use holdfast_store::{Credentials, Proxies, PutMode, StoreConfig, StoreErrorKind, open};
use holdfast_testkit::proxy::ForwardProxy;
use holdfast_testkit::s3::S3Server;

use super::canned::{Answer, Server};
use super::{config, name, tls};

pub(crate) fn through_proxy(variables: &[(&str, &str)], endpoint: &str, server: &S3Server) -> StoreConfig {
    let mut config = config(endpoint);
    config.location = "s3://holdfast/some/prefix".parse().unwrap();
    config.s3.credentials = Credentials::Static {
        access_key: Secret::new(&server.credentials().access_key),
        secret_key: Secret::new(&server.credentials().secret_key),
        session_token: None,
    };
    config.proxies = Proxies::from_variables(|wanted| {
        variables.iter().find(|(name, _)| *name == wanted).map(|(_, value)| (*value).into())
    });
    config
}

/// Does put, get, list, an upload in parts, and delete.
pub(crate) async fn works(config: &StoreConfig) {
    let store = open(config).await.unwrap();
    store.put(&name("a/b"), "body".into(), PutMode::Create).await.unwrap();
    let again = store.put(&name("a/b"), "other".into(), PutMode::Create).await.unwrap_err();
    assert_eq!(again.kind(), StoreErrorKind::AlreadyExists, "{again}");
    assert_eq!(store.get(&name("a/b")).await.unwrap(), "body");
    let upload = store.begin_upload(&name("a/c"), PutMode::Create).await.unwrap();
    upload.part(1, "part".into()).await.unwrap();
    upload.complete().await.unwrap();
    assert_eq!(store.list("a/", None).await.unwrap().len(), 2);
    assert_eq!(store.list_folders("").await.unwrap(), ["a"]);
    store.delete(&[name("a/b"), name("a/c")]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_uses_the_proxy_in_absolute_form() {
    let server = S3Server::start().unwrap();
    let proxy = ForwardProxy::with_password(server.address(), "me:p@ss").unwrap();
    let url = format!("http://me:p%40ss@{}", proxy.address());
    works(&through_proxy(&[("http_proxy", &url)], "http://127.0.0.1:1", &server)).await;
    let seen = proxy.seen();
    assert!(seen.len() > 6 && seen.iter().all(|line| line.contains(" http://127.0.0.1:1/holdfast")), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn https_goes_through_a_tunnel() {
    let server = S3Server::start().unwrap();
    let front = tls::front(server.address().to_string(), "server").await;
    let proxy = ForwardProxy::start(front.parse().unwrap()).unwrap();
    let url = format!("http://{}", proxy.address());
    let mut config = through_proxy(&[("ALL_PROXY", &url)], "https://127.0.0.1:1", &server);
    config.s3.ca_file = Some(tls::data("ca.pem"));
    works(&config).await;
    let seen = proxy.seen();
    assert!(!seen.is_empty() && seen.iter().all(|line| line == "CONNECT 127.0.0.1:1"), "{seen:?}");

    // The connection to the proxy may be encrypted as well.
    let encrypted = tls::front(proxy.address().to_string(), "server").await;
    let url = format!("https://{encrypted}");
    let mut config = through_proxy(&[("HTTPS_PROXY", &url)], "https://127.0.0.1:2", &server);
    config.s3.ca_file = Some(tls::data("ca.pem"));
    works(&config).await;
    assert_eq!(proxy.seen().last().map(String::as_str), Some("CONNECT 127.0.0.1:2"));
}

/// The environment may hold the address for all programs that use AWS's libraries: it then chooses the proxy.
#[test]
fn an_address_from_the_environment_chooses_the_proxy() {
    let variables =
        [("http_proxy", "http://plain:1"), ("https_proxy", "http://tunnel:2"), ("AWS_ENDPOINT_URL", "http://minio")];
    let server = S3Server::start().unwrap();
    let mut config = through_proxy(&variables, "https://minio", &server);
    let named = |config: &StoreConfig| config.proxy().unwrap().map(|proxy| proxy.variable);
    assert_eq!(named(&config).as_deref(), Some("https_proxy"));
    config.s3.endpoint = None;
    // If credentials are given, the SDK does not read the environment.
    assert_eq!(named(&config).as_deref(), Some("https_proxy"));
    config.s3.credentials = Credentials::Chain;
    assert_eq!(named(&config).as_deref(), Some("http_proxy"));
}

/// The SDK makes AWS's own addresses. Nothing leaves this machine: the proxy leads to a server whose certificate is not
/// trusted.
#[tokio::test(flavor = "multi_thread")]
async fn aws_itself_is_reached_through_the_tunnel() {
    let server = S3Server::start().unwrap();
    let front = tls::front(server.address().to_string(), "server").await;
    let proxy = ForwardProxy::start(front.parse().unwrap()).unwrap();
    let url = format!("http://{}", proxy.address());
    let variables = [("https_proxy", url.as_str()), ("no_proxy", "example.com, s3.us-east-1.amazonaws.com:9000")];
    let mut config = through_proxy(&variables, "https://127.0.0.1:1", &server);
    config.s3.endpoint = None;
    config.s3.path_style = false;
    let error = open(&config).await.unwrap().get(&name("a")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::BadCertificate, "{error}");
    assert_eq!(proxy.seen(), ["CONNECT holdfast.s3.us-east-1.amazonaws.com:443"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_in_no_proxy_is_reached_directly() {
    let server = S3Server::start().unwrap();
    let proxy = ForwardProxy::start(server.address()).unwrap();
    let url = format!("http://{}", proxy.address());
    for variables in [&[("HTTP_PROXY", url.as_str()), ("NO_PROXY", "127.0.0.0/8")][..], &[("HTTPS_PROXY", &url)]] {
        works(&through_proxy(variables, &server.endpoint(), &server)).await;
    }
    assert_eq!(proxy.seen(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_fails_is_named_without_its_password() {
    let server = S3Server::start().unwrap();
    let proxy = ForwardProxy::with_password(server.address(), "me:right").unwrap();
    let (address, gone) = (proxy.address(), "127.0.0.1:1");
    let shown = format!("(by the proxy http://{address} of https_proxy)");
    for (variable, url, endpoint, shown) in [
        ("https_proxy", format!("http://me:hush@{address}"), "https://127.0.0.1:1", shown.as_str()),
        ("http_proxy", format!("http://me:hush@{address}"), "http://127.0.0.1:1", &shown.replace("https_", "http_")),
        (
            "https_proxy",
            format!("http://me:hush@{gone}"),
            "https://127.0.0.1:2",
            "(by the proxy http://127.0.0.1:1 of https_proxy)",
        ),
    ] {
        let config = through_proxy(&[(variable, &url)], endpoint, &server);
        let error = open(&config).await.unwrap().get(&name("a")).await.unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(error.to_string().ends_with(shown), "{error}");
        assert!(!text.contains("hush"), "{text}");
    }
    let error =
        open(&through_proxy(&[("http_proxy", "socks5://me:hush@proxy:1080")], "http://127.0.0.1:1", &server)).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::InvalidConfig);
    assert!(error.to_string().contains("invalid http_proxy: it names a SOCKS proxy"), "{error}");
    assert!(!error.to_string().contains("hush"), "{error}");
}

/// A proxy that refuses will refuse again: it is asked once, and the error names its variable.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_refuses_is_asked_once() {
    let server = S3Server::start().unwrap();
    for (status, kind, asked) in [
        (403, StoreErrorKind::ProxyRefused, 1),
        (407, StoreErrorKind::ProxyRefused, 1),
        // The proxy cannot reach the store now.
        (502, StoreErrorKind::Unreachable, 3),
        (503, StoreErrorKind::Throttled, 3),
    ] {
        let proxy = Server::start(move |_| Answer::new(status, "no")).await;
        let config = through_proxy(&[("https_proxy", &proxy.endpoint)], "https://127.0.0.1:1", &server);
        let error = open(&config).await.unwrap().get(&name("a")).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{status}: {error}");
        assert!(error.to_string().contains(&format!("HTTP {status} to CONNECT 127.0.0.1:1")), "{error}");
        let methods: Vec<String> = proxy.requests().into_iter().map(|request| request.method).collect();
        assert_eq!(methods, vec!["CONNECT"; asked], "{status}");
        if kind == StoreErrorKind::ProxyRefused {
            let proxy = format!("(by the proxy {} of https_proxy)", proxy.endpoint);
            assert!(error.to_string().ends_with(&proxy), "{error}");
            assert!(error.hint().unwrap().contains("http://USER:PASSWORD@HOST:PORT"), "{:?}", error.hint());
        }
    }
    // Without TLS the proxy answers in the store's place. A 403 can come from either, so the error names the proxy.
    let proxy = Server::start(|_| Answer::new(403, "<html>no</html>")).await;
    let config = through_proxy(&[("http_proxy", &proxy.endpoint)], "http://127.0.0.1:1", &server);
    let error = open(&config).await.unwrap().get(&name("a")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::PermissionDenied, "{error}");
    assert!(error.to_string().ends_with(&format!("(by the proxy {} of http_proxy)", proxy.endpoint)), "{error}");
}
