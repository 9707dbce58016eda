//! Servers with a certificate of their own, as `openssl req -x509` makes it, and what such a certificate proves.

use holdfast_store::{PutMode, StoreConfig, StoreErrorKind, open};
use holdfast_testkit::proxy::TlsFront;
use holdfast_testkit::s3::S3Server;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use tempfile::NamedTempFile;

use super::name;
use super::proxies::{through_proxy, works};

/// As `openssl req -x509 -subj /CN=store -addext subjectAltName=...` writes it: marked as a CA's, without a key usage.
fn openssl_like(host: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "store");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.use_authority_key_identifier_extension = true;
    params
}

fn server_like(host: &str) -> CertificateParams {
    let mut params = openssl_like(host);
    params.distinguished_name.push(DnType::CommonName, "a server");
    params.is_ca = IsCa::ExplicitNoCa;
    params
}

/// A certificate with its key, in PEM.
struct Made {
    pem: String,
    key: KeyPair,
}

fn own(params: &CertificateParams) -> Made {
    let key = KeyPair::generate().unwrap();
    Made { pem: params.self_signed(&key).unwrap().pem(), key }
}

fn signed(params: &CertificateParams, issuer: &CertificateParams, issuer_key: &KeyPair) -> Made {
    let key = KeyPair::generate().unwrap();
    Made { pem: params.signed_by(&key, &Issuer::from_params(issuer, issuer_key)).unwrap().pem(), key }
}

fn file(certificates: &[&str]) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), certificates.concat()).unwrap();
    file
}

fn config(front: &TlsFront, server: &S3Server, ca_file: Option<&NamedTempFile>) -> StoreConfig {
    let mut config = through_proxy(&[], &format!("https://{}", front.address()), server);
    config.s3.ca_file = ca_file.map(|file| file.path().to_owned());
    config
}

/// The server is refused with this advice.
async fn refused(config: &StoreConfig, advice: &str) {
    let error = open(config).await.unwrap().get(&name("a")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::BadCertificate, "{error}");
    assert!(error.to_string().contains("is not trusted") && error.to_string().contains(advice), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_openssl_makes_is_taken_when_it_is_listed_and_only_then() {
    let server = S3Server::start().unwrap();
    let made = own(&openssl_like("127.0.0.1"));
    let front = TlsFront::start(server.address(), &made.pem, &made.key.serialize_pem()).unwrap();
    // Another certificate of the same name is not enough.
    let other = own(&openssl_like("127.0.0.1"));
    works(&config(&front, &server, Some(&file(&[&made.pem])))).await;
    works(&config(&front, &server, Some(&file(&[&other.pem, &made.pem])))).await;
    let advice = "it is the certificate of a CA and is not in `ca_file`: add it there";
    refused(&config(&front, &server, Some(&file(&[&other.pem]))), advice).await;
    refused(&config(&front, &server, None), advice).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn name_and_time_of_a_listed_certificate_count() {
    let server = S3Server::start().unwrap();
    let mut past = openssl_like("127.0.0.1");
    (past.not_before, past.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    let mut future = openssl_like("127.0.0.1");
    (future.not_before, future.not_after) = (date_time_ymd(2120, 1, 1), date_time_ymd(2121, 1, 1));
    let mut common_name = openssl_like("127.0.0.1");
    common_name.subject_alt_names.clear();
    common_name.distinguished_name.push(DnType::CommonName, "127.0.0.1");
    for (params, advice) in [
        (openssl_like("store.example"), "it is not for the host in `endpoint`"),
        (common_name, "it is not for the host in `endpoint`"),
        (past, "it has expired: renew it on the server"),
        (future, "it is not valid yet"),
    ] {
        let made = own(&params);
        let front = TlsFront::start(server.address(), &made.pem, &made.key.serialize_pem()).unwrap();
        refused(&config(&front, &server, Some(&file(&[&made.pem]))), advice).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_listed_certificate_signed_has_to_be_a_servers() {
    let server = S3Server::start().unwrap();
    let (authority, plain) = (openssl_like("127.0.0.1"), server_like("127.0.0.1"));
    let (authority_made, plain_made) = (own(&authority), own(&plain));
    let good = signed(&plain, &authority, &authority_made.key);
    let mut renewed = authority.clone();
    renewed.not_after = date_time_ymd(2100, 1, 1);
    let renewed_pem = renewed.self_signed(&authority_made.key).unwrap().pem();
    let usurper = signed(&plain, &plain, &plain_made.key);
    let renewed = own(&plain);
    for (listed, shown, key, advice) in [
        // A CA's certificate proves what it signed, as usual.
        (&authority_made, &good.pem, &good.key, None),
        // But not a server with another CA's certificate, even with the same key.
        (
            &authority_made,
            &renewed_pem,
            &authority_made.key,
            Some("it is the certificate of a CA and is not in `ca_file`"),
        ),
        // A server's own certificate proves itself,
        (&plain_made, &plain_made.pem, &plain_made.key, None),
        // and no other, not even one of the same name.
        (&plain_made, &usurper.pem, &usurper.key, Some("but another one of that name")),
        // A renewed certificate is reported as renewed.
        (&plain_made, &renewed.pem, &renewed.key, Some("if it was renewed, list the new one in `ca_file`")),
    ] {
        let front = TlsFront::start(server.address(), shown, &key.serialize_pem()).unwrap();
        let file = file(&[&listed.pem]);
        let config = config(&front, &server, Some(&file));
        match advice {
            None => works(&config).await,
            Some(advice) => refused(&config, advice).await,
        }
    }
}

/// An authority from the time before such marks, or one made without them: the advice is not to list it, since it is
/// listed.
#[tokio::test(flavor = "multi_thread")]
async fn an_authority_without_its_mark_is_explained() {
    let server = S3Server::start().unwrap();
    let mut unmarked = openssl_like("127.0.0.1");
    unmarked.is_ca = IsCa::NoCa;
    let unmarked_made = own(&unmarked);
    let leaf = signed(&server_like("127.0.0.1"), &unmarked, &unmarked_made.key);
    let front = TlsFront::start(server.address(), &leaf.pem, &leaf.key.serialize_pem()).unwrap();
    let listed = file(&[&unmarked_made.pem]);
    refused(&config(&front, &server, Some(&listed)), "whose certificate is listed and is not marked as a CA's").await;
    refused(&config(&front, &server, Some(&listed)), "or list the server's own certificate in `ca_file`").await;
    // Both pieces of advice work.
    works(&config(&front, &server, Some(&file(&[&unmarked_made.pem, &leaf.pem])))).await;
    let mut marked = unmarked.clone();
    marked.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let renewed = marked.self_signed(&unmarked_made.key).unwrap().pem();
    works(&config(&front, &server, Some(&file(&[&renewed])))).await;
    // A key that may sign certificates is an authority's.
    let mut by_usage = unmarked.clone();
    by_usage.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let by_usage = by_usage.self_signed(&unmarked_made.key).unwrap().pem();
    works(&config(&front, &server, Some(&file(&[&by_usage])))).await;
    // An authority of the same name, with another key.
    let other = own(&marked);
    refused(&config(&front, &server, Some(&file(&[&other.pem]))), "has another key").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_is_followed_to_the_listed_authority_by_http_2_as_well() {
    let server = S3Server::start().unwrap();
    let (mut root, mut between) = (openssl_like("127.0.0.1"), openssl_like("127.0.0.1"));
    root.distinguished_name.push(DnType::CommonName, "the root");
    between.distinguished_name.push(DnType::CommonName, "one between");
    let root_made = own(&root);
    let between_made = signed(&between, &root, &root_made.key);
    let leaf = signed(&server_like("127.0.0.1"), &between, &between_made.key);
    let (chain, key) = (format!("{}{}", leaf.pem, between_made.pem), leaf.key.serialize_pem());
    let listed = file(&[&root_made.pem]);
    for protocols in [&[][..], &["http/1.1"]] {
        let front = TlsFront::with_protocols(server.address(), &chain, &key, protocols).unwrap();
        works(&config(&front, &server, Some(&listed))).await;
    }
    // The server declares wrong lengths for some answers, which HTTP/2 does not accept. So one object is enough here.
    let front = TlsFront::with_protocols(server.address(), &chain, &key, &["h2"]).unwrap();
    let store = open(&config(&front, &server, Some(&listed))).await.unwrap();
    store.put(&name("by/http2"), "body".into(), PutMode::Create).await.unwrap();
    assert_eq!(store.get(&name("by/http2")).await.unwrap(), "body");
    let front = TlsFront::start(server.address(), &leaf.pem, &key).unwrap();
    refused(&config(&front, &server, Some(&listed)), "set `ca_file` to the certificate of its CA").await;
}
