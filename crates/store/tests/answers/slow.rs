//! Slow lines, on which bytes move, and silent ones.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast_store::{PutMode, StoreErrorKind, open};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::canned::{Answer, Server};
use super::{config, name};

/// The time limit of an attempt: less than a body needs here, much more than a piece of it.
const ATTEMPT: Duration = Duration::from_secs(4);

/// The pause after each piece: the 128 pieces of a body take about 8 seconds.
const PAUSE: Duration = Duration::from_millis(60);
const PIECE_BYTES: usize = 128 << 10;
const BODY_BYTES: usize = 128 * PIECE_BYTES;

/// A server that receives and sends slowly. Its kernel accepts little that it has not read.
fn slow_server() -> String {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 << 10).unwrap();
    socket.set_send_buffer_size(64 << 10).unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let listener = socket.listen(8).unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    endpoint
}

/// Answers a PUT of [`BODY_BYTES`], or any GET.
async fn serve(mut stream: TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    if head.starts_with(b"PUT") {
        let mut piece = vec![0; PIECE_BYTES];
        for _ in 0..BODY_BYTES / PIECE_BYTES {
            tokio::time::sleep(PAUSE).await;
            if stream.read_exact(&mut piece).await.is_err() {
                return;
            }
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        return;
    }
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {BODY_BYTES}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let piece = vec![7; PIECE_BYTES];
    for _ in 0..BODY_BYTES / PIECE_BYTES {
        tokio::time::sleep(PAUSE).await;
        if stream.write_all(&piece).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_large_body_passes_a_line_that_needs_longer_than_the_limit_of_an_attempt() {
    let mut config = config(&slow_server());
    config.timeouts.attempt = ATTEMPT;
    config.retry.max_attempts = 1;
    let store = open(&config).await.unwrap();
    let begun = Instant::now();
    store.put(&name("a"), Bytes::from(vec![7; BODY_BYTES]), PutMode::Overwrite).await.unwrap();
    assert!(begun.elapsed() > ATTEMPT, "the line was not slow");
    let begun = Instant::now();
    assert_eq!(store.get(&name("a")).await.unwrap(), vec![7; BODY_BYTES]);
    assert!(begun.elapsed() > ATTEMPT, "the line was not slow");
}

/// The time that a large body would have does not count if nothing moves.
#[tokio::test]
async fn a_server_that_falls_silent_is_given_up_also_with_a_large_body() {
    let server = Server::start(|request| match request.method.as_str() {
        "POST" => {
            Answer::new(200, "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
        }
        _ => Answer::silence(),
    })
    .await;
    let mut config = config(&server.endpoint);
    config.timeouts.attempt = Duration::from_millis(500);
    config.retry.max_attempts = 1;
    let store = open(&config).await.unwrap();
    let body = Bytes::from(vec![7; BODY_BYTES]);
    let begun = Instant::now();
    let error = store.put(&name("a"), body.clone(), PutMode::Overwrite).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Timeout, "{error}");
    assert!(error.to_string().ends_with("no byte came or went for 500ms"), "{error}");
    let upload = store.begin_upload(&name("a"), PutMode::Overwrite).await.unwrap();
    let error = upload.part(1, body).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Timeout, "{error}");
    assert!(begun.elapsed() < Duration::from_mins(1), "{:?}", begun.elapsed());
}
