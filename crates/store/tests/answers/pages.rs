//! Calls of several requests: each request is repeated alone.

use std::collections::BTreeSet;

use holdfast_store::{ObjectName, open};
use parking_lot::Mutex;

use super::canned::{Answer, Request, Server};
use super::{config, name};

/// A server on which each different request fails once.
async fn failing_once(key: fn(&Request) -> String, answer: fn(&str) -> Answer) -> Server {
    let seen: Mutex<BTreeSet<String>> = Mutex::default();
    Server::start(move |request| {
        let key = key(request);
        let answer = answer(&key);
        if seen.lock().insert(key) { Answer::error(503, "SlowDown") } else { answer }
    })
    .await
}

/// The value of a parameter of the query, or an empty text.
fn parameter(request: &Request, wanted: &str) -> String {
    let query = request.target.split_once('?').map_or("", |(_, query)| query);
    let found = query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == wanted);
    found.map(|(_, value)| value.to_owned()).unwrap_or_default()
}

/// The number of requests, and of different ones.
fn counted(server: &Server, key: fn(&Request) -> String) -> (usize, usize) {
    let keys: Vec<String> = server.requests().iter().map(key).collect();
    (keys.len(), keys.iter().collect::<BTreeSet<_>>().len())
}

#[tokio::test]
async fn a_page_of_folders_that_fails_does_not_begin_again_at_the_first() {
    let token = |request: &Request| parameter(request, "continuation-token");
    let server = failing_once(token, |token| {
        let page: u32 = token.parse().unwrap_or(0);
        let next = page + 1;
        Answer::new(
            200,
            &format!(
                "<ListBucketResult><IsTruncated>{}</IsTruncated><NextContinuationToken>{next}</NextContinuationToken>\
                 <CommonPrefixes><Prefix>prefix/f{page}/</Prefix></CommonPrefixes></ListBucketResult>",
                page < 4
            ),
        )
    })
    .await;
    let store = open(&config(&server.endpoint)).await.unwrap();
    assert_eq!(store.list_folders("").await.unwrap(), ["f0", "f1", "f2", "f3", "f4"]);
    assert_eq!(counted(&server, token), (10, 5));
}

#[tokio::test]
async fn a_page_of_uploads_that_fails_does_not_begin_again_at_the_first() {
    let marker = |request: &Request| parameter(request, "upload-id-marker");
    let server = failing_once(marker, |marker| {
        let page: u32 = marker.parse().unwrap_or(0);
        let next = page + 1;
        Answer::new(
            200,
            &format!(
                "<ListMultipartUploadsResult><IsTruncated>{}</IsTruncated><NextKeyMarker>prefix/a</NextKeyMarker>\
                 <NextUploadIdMarker>{next}</NextUploadIdMarker>\
                 <Upload><Key>prefix/a</Key><UploadId>{next}</UploadId></Upload></ListMultipartUploadsResult>",
                page < 4
            ),
        )
    })
    .await;
    let store = open(&config(&server.endpoint)).await.unwrap();
    let found = store.unfinished_uploads("").await.unwrap().unwrap();
    assert_eq!(found.iter().map(|upload| upload.id.as_str()).collect::<Vec<_>>(), ["1", "2", "3", "4", "5"]);
    assert_eq!(counted(&server, marker), (10, 5));
}

#[tokio::test]
async fn a_batch_of_deletes_that_fails_does_not_delete_the_others_again() {
    let first_key = |request: &Request| {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        body.split_once("<Key>").and_then(|(_, rest)| rest.split_once('<')).map(|(key, _)| key.to_owned()).unwrap()
    };
    let server = failing_once(first_key, |_| Answer::new(200, "<DeleteResult></DeleteResult>")).await;
    let store = open(&config(&server.endpoint)).await.unwrap();
    let names: Vec<ObjectName> = (0..4500).map(|index| name(&format!("{index:04}"))).collect();
    store.delete(&names).await.unwrap();
    assert_eq!(counted(&server, first_key), (10, 5));
}

/// Without DeleteObjects, a delete that fails repeats those that ran beside it at most.
#[tokio::test]
async fn single_deletes_that_fail_do_not_delete_all_others_again() {
    let target = |request: &Request| request.target.clone();
    let server = Server::start(|request| match request.method.as_str() {
        "POST" => Answer::error(501, "NotImplemented"),
        _ if request.target.contains("/0090") && request.number < 100 => Answer::error(503, "SlowDown"),
        _ => Answer::new(204, ""),
    })
    .await;
    let store = open(&config(&server.endpoint)).await.unwrap();
    let names: Vec<ObjectName> = (0..200).map(|index| name(&format!("{index:04}"))).collect();
    store.delete(&names).await.unwrap();
    let (requests, different) = counted(&server, target);
    assert_eq!(different, 201);
    assert!(requests <= 201 + 16, "{requests}");
}
