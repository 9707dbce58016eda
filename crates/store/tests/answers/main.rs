//! How the S3 store handles answers that good servers rarely give: prepared answers over real HTTP, and real TLS.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod canned;
mod conditions;
mod own_certificates;
mod pages;
mod proxies;
mod slow;
mod tls;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use canned::{Answer, Server};
use holdfast_secret::Secret;
use holdfast_store::{Credentials, ObjectName, PutMode, RetryPolicy, StoreConfig, StoreErrorKind, open};

pub(crate) fn name(text: &str) -> ObjectName {
    text.parse().unwrap()
}

pub(crate) fn config(endpoint: &str) -> StoreConfig {
    let mut config = StoreConfig::new("s3://bucket/prefix".parse().unwrap());
    config.s3.endpoint = Some(endpoint.to_owned());
    config.s3.region = Some("us-east-1".to_owned());
    config.s3.path_style = true;
    config.s3.credentials = Credentials::Static {
        access_key: Secret::new("testkit"),
        secret_key: Secret::new("testkit-secret"),
        session_token: None,
    };
    config.retry = RetryPolicy { initial_backoff: Duration::from_millis(1), max_attempts: 3, ..RetryPolicy::default() };
    config
}

#[tokio::test]
async fn errors_become_kinds_with_the_stores_own_words() {
    for (status, code, kind, text) in [
        (
            404,
            "NoSuchKey",
            StoreErrorKind::NotFound,
            "object a does not exist in s3://bucket/prefix: HTTP 404 NoSuchKey: words",
        ),
        (404, "NoSuchBucket", StoreErrorKind::NoSuchBucket, "s3://bucket does not exist: HTTP 404 NoSuchBucket: words"),
        (
            403,
            "AccessDenied",
            StoreErrorKind::PermissionDenied,
            "permission denied by s3://bucket/prefix: HTTP 403 AccessDenied: words",
        ),
        (
            403,
            "InvalidObjectState",
            StoreErrorKind::Archived,
            "object a in s3://bucket/prefix is in an archive storage class: HTTP 403 InvalidObjectState: words",
        ),
        (
            400,
            "KMS.DisabledException",
            StoreErrorKind::KeyRefused,
            "s3://bucket/prefix cannot decrypt object a: HTTP 400 KMS.DisabledException: words",
        ),
        (
            403,
            "RequestTimeTooSkewed",
            StoreErrorKind::ClockSkew,
            "the clocks of this machine and of s3://bucket/prefix differ too much: HTTP 403 RequestTimeTooSkewed: words",
        ),
        (
            503,
            "SlowDown",
            StoreErrorKind::Throttled,
            "s3://bucket/prefix is overloaded or limits the rate of requests: HTTP 503 SlowDown: words",
        ),
        (
            507,
            "XMinioStorageFull",
            StoreErrorKind::NoSpace,
            "no space left in s3://bucket/prefix: HTTP 507 XMinioStorageFull: words",
        ),
    ] {
        let server = Server::start(move |_| Answer::error(status, code)).await;
        let store = open(&config(&server.endpoint)).await.unwrap();
        let error = store.get(&name("a")).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(error.to_string(), text);
    }
}

#[tokio::test]
async fn a_404_that_does_not_name_the_key_is_a_doubt() {
    let server = Server::start(|_| Answer::new(404, "<html>not here</html>")).await;
    let store = open(&config(&server.endpoint)).await.unwrap();
    for error in [store.get(&name("a")).await.unwrap_err(), store.head(&name("a")).await.unwrap_err()] {
        assert_ne!(error.kind(), StoreErrorKind::NotFound, "{error}");
    }
}

#[tokio::test]
async fn head_tells_a_missing_bucket_from_a_missing_object() {
    for (code, kind) in [("NoSuchBucket", StoreErrorKind::NoSuchBucket), ("NoSuchKey", StoreErrorKind::NotFound)] {
        let server =
            Server::start(
                move |request| {
                    if request.method == "HEAD" { Answer::new(404, "") } else { Answer::error(404, code) }
                },
            )
            .await;
        let store = open(&config(&server.endpoint)).await.unwrap();
        assert_eq!(store.head(&name("a")).await.unwrap_err().kind(), kind);
    }
}

#[tokio::test]
async fn a_wrong_region_names_the_right_one() {
    let server =
        Server::start(|_| Answer::error(301, "PermanentRedirect").header("x-amz-bucket-region", "eu-central-1")).await;
    let error = open(&config(&server.endpoint)).await.unwrap().get(&name("a")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::InvalidConfig);
    assert!(error.to_string().ends_with("the bucket is in region \"eu-central-1\": set `region`"), "{error}");
}

#[tokio::test]
async fn a_body_that_does_not_fit_its_checksum_is_corrupt() {
    let server = Server::start(|_| {
        Answer::new(200, "body").header("x-amz-checksum-crc32c", "AAAAAQ==").header("etag", "\"abc\"")
    })
    .await;
    let error = open(&config(&server.endpoint)).await.unwrap().get(&name("a")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{error}");
}

#[tokio::test]
async fn an_answer_that_cannot_be_parsed_is_reported_by_its_parser() {
    // The root element as `rclone serve s3` names it.
    let server = Server::start(|_| {
        Answer::new(200, "<InitiateMultipartUpload><UploadId>u</UploadId></InitiateMultipartUpload>")
    })
    .await;
    let store = open(&config(&server.endpoint)).await.unwrap();
    let error = store.begin_upload(&name("a"), PutMode::Create).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Other);
    let text = error.to_string();
    assert!(text.contains("HTTP 200 with an answer that cannot be parsed: "), "{text}");
    assert!(text.contains("InitiateMultipartUpload"), "{text}");
}

#[tokio::test]
async fn a_body_that_was_damaged_on_its_way_is_sent_again() {
    for code in ["BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"] {
        let server = Server::start(move |request| match (request.method.as_str(), request.number) {
            ("PUT", 0) => Answer::error(400, code),
            _ => Answer::new(200, ""),
        })
        .await;
        let store = open(&config(&server.endpoint)).await.unwrap();
        store.put(&name("a"), "body".into(), PutMode::Create).await.unwrap();
        assert_eq!(server.requests().len(), 2, "{code}");
    }
}

#[tokio::test]
async fn the_algorithm_is_named_beside_each_checksum() {
    let server = Server::start(|request| match request.method.as_str() {
        "POST" => {
            Answer::new(200, "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
        }
        _ => Answer::new(200, "").header("etag", "\"part\""),
    })
    .await;
    let store = open(&config(&server.endpoint)).await.unwrap();
    store.put(&name("a"), "body".into(), PutMode::Create).await.unwrap();
    store.begin_upload(&name("b"), PutMode::Create).await.unwrap().part(1, "body".into()).await.unwrap();
    let puts: Vec<_> = server.requests().into_iter().filter(|request| request.method == "PUT").collect();
    assert_eq!(puts.len(), 2);
    for put in puts {
        assert_eq!(put.header("x-amz-checksum-crc32c"), Some("Jj/JUA=="));
        assert_eq!(put.header("x-amz-sdk-checksum-algorithm"), Some("CRC32C"));
        let signed = put.header("authorization").unwrap_or_default();
        assert!(signed.contains("x-amz-sdk-checksum-algorithm"), "{signed}");
    }
}

#[tokio::test]
async fn a_lost_answer_of_a_create_is_resolved_by_looking() {
    // The first PUT is stored and its connection is cut. The second finds the object. A HEAD shows what is stored.
    for (stored, good) in [("body", true), ("else", false)] {
        let server = Server::start(move |request| match (request.method.as_str(), request.number) {
            ("PUT", 0) => Answer::cut(),
            ("PUT", _) => Answer::error(412, "PreconditionFailed"),
            ("HEAD", _) => Answer::new(200, "").header("content-length", "4").header("etag", "\"abc\""),
            _ => Answer::new(206, stored).header("content-range", "bytes 0-3/4"),
        })
        .await;
        let store = open(&config(&server.endpoint)).await.unwrap();
        let result = store.put(&name("a"), "body".into(), PutMode::Create).await;
        if good {
            result.unwrap();
        } else {
            assert_eq!(result.unwrap_err().kind(), StoreErrorKind::AlreadyExists);
        }
        let puts: Vec<_> = server.requests().into_iter().filter(|request| request.method == "PUT").collect();
        assert_eq!(puts.len(), 2);
        assert_eq!(puts[0].header("if-none-match"), Some("*"));
        assert_eq!(puts[0].header("x-amz-checksum-crc32c"), Some("Jj/JUA=="));
    }
}

#[tokio::test]
async fn a_lost_answer_of_a_complete_is_resolved_by_looking() {
    // The upload is completed and the answer is lost. Then the store no longer knows the upload, and has the object.
    let completed = AtomicBool::new(false);
    let server = Server::start(move |request| match (request.method.as_str(), request.number) {
        ("POST", 0) => {
            Answer::new(200, "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
        }
        ("POST", 1) => {
            completed.store(true, Ordering::SeqCst);
            Answer::cut()
        }
        ("POST", _) => Answer::error(404, "NoSuchUpload"),
        ("PUT", _) => Answer::new(200, "").header("etag", "\"part\""),
        ("DELETE", _) => Answer::new(204, ""),
        ("HEAD", _) if !completed.load(Ordering::SeqCst) => Answer::new(404, ""),
        ("HEAD", _) => Answer::new(200, "").header("content-length", "4").header("etag", "\"abc-1\""),
        _ => Answer::new(206, "body").header("content-range", "bytes 0-3/4"),
    })
    .await;
    let store = open(&config(&server.endpoint)).await.unwrap();
    let upload = store.begin_upload(&name("a"), PutMode::Overwrite).await.unwrap();
    upload.part(1, "body".into()).await.unwrap();
    upload.complete().await.unwrap();
    let methods: Vec<String> = server.requests().into_iter().map(|request| request.method).collect();
    assert_eq!(methods, ["POST", "PUT", "POST", "POST", "HEAD", "GET"]);
}

#[tokio::test]
async fn an_upload_that_lost_the_race_is_aborted() {
    let server = Server::start(move |request| match (request.method.as_str(), request.number) {
        ("POST", 0) => {
            Answer::new(200, "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
        }
        ("POST", _) => Answer::error(412, "PreconditionFailed"),
        ("HEAD", _) => Answer::new(404, ""),
        ("DELETE", _) => Answer::new(204, ""),
        _ => Answer::new(200, "").header("etag", "\"part\""),
    })
    .await;
    let store = open(&config(&server.endpoint)).await.unwrap();
    let upload = store.begin_upload(&name("a"), PutMode::Create).await.unwrap();
    upload.part(1, "body".into()).await.unwrap();
    assert_eq!(upload.complete().await.unwrap_err().kind(), StoreErrorKind::AlreadyExists);
    let requests = server.requests();
    let methods: Vec<&str> = requests.iter().map(|request| request.method.as_str()).collect();
    assert_eq!(methods, ["POST", "PUT", "HEAD", "POST", "DELETE"]);
    assert_eq!(requests[3].header("if-none-match"), Some("*"));
}

#[tokio::test]
async fn a_store_without_checksums_is_written_without() {
    let server = Server::start(|request| {
        if request.header("x-amz-checksum-crc32c").is_some() {
            Answer::error(501, "NotImplemented")
        } else {
            Answer::new(200, "")
        }
    })
    .await;
    let store = open(&config(&server.endpoint)).await.unwrap();
    store.put(&name("a"), "body".into(), PutMode::Create).await.unwrap();
    store.put(&name("b"), "body".into(), PutMode::Create).await.unwrap();
    assert_eq!(server.requests().len(), 3, "asked with checksum once only");
}

#[tokio::test]
async fn deleting_sends_content_md5_and_falls_back_to_single_deletes() {
    let server = Server::start(|request| match request.method.as_str() {
        "POST" => Answer::error(501, "NotImplemented"),
        _ => Answer::new(204, ""),
    })
    .await;
    let store = open(&config(&server.endpoint)).await.unwrap();
    let names: Vec<ObjectName> = (0..20).map(|index| name(&format!("{index}"))).collect();
    store.delete(&names).await.unwrap();
    store.delete(&names[..2]).await.unwrap();
    let requests = server.requests();
    let batches: Vec<_> = requests.iter().filter(|request| request.method == "POST").collect();
    assert_eq!(batches.len(), 1);
    assert!(batches[0].header("content-md5").is_some_and(|digest| digest.len() == 24));
    assert_eq!(requests.len(), 23);
}

#[tokio::test]
async fn a_customer_key_goes_with_every_request() {
    let server = Server::start(|request| match request.method.as_str() {
        "HEAD" => Answer::new(200, "").header("content-length", "0"),
        _ => Answer::new(200, ""),
    })
    .await;
    let mut config = config(&server.endpoint);
    config.s3.encryption = holdfast_store::Encryption::Customer { key: Secret::new([0; 32]) };
    let store = open(&config).await.unwrap();
    store.put(&name("a"), "x".into(), PutMode::Create).await.unwrap();
    store.get(&name("a")).await.unwrap();
    store.head(&name("a")).await.unwrap();
    let requests = server.requests();
    assert_eq!(requests.len(), 3);
    for request in requests {
        let digest = request.header("x-amz-server-side-encryption-customer-key-md5");
        assert_eq!(digest, Some("cLyPS3KoaSFGi/joRB3OUQ=="), "{}", request.method);
    }
}

#[tokio::test]
async fn no_server_is_unreachable_and_a_silent_server_a_timeout() {
    let error = open(&config("http://127.0.0.1:1")).await.unwrap().get(&name("a")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unreachable, "{error}");
    let error = open(&config("http://no-such-host.invalid")).await.unwrap().get(&name("a")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unreachable, "{error}");
    let server = Server::start(|_| Answer::silence()).await;
    let mut config = config(&server.endpoint);
    config.timeouts.attempt = Duration::from_millis(100);
    let error = open(&config).await.unwrap().get(&name("a")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Timeout, "{error}");
}

#[tokio::test]
async fn a_profile_without_credentials_fails_fast() {
    let mut config = config("http://127.0.0.1:1");
    config.s3.credentials = Credentials::Profile("holdfast-no-such-profile".to_owned());
    let start = Instant::now();
    let error = open(&config).await.unwrap().get(&name("a")).await.unwrap_err();
    assert!(matches!(error.kind(), StoreErrorKind::NoCredentials | StoreErrorKind::InvalidConfig), "{error}");
    assert!(start.elapsed() < Duration::from_secs(10));
}
