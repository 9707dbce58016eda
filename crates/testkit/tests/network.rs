//! The S3 servers answer over real HTTP, and the proxies in front of them cause exactly their faults.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use holdfast_testkit::disk::SmallDisk;
use holdfast_testkit::proxy::{Effect, Fault, HttpFaults, TcpProxy, When};
use holdfast_testkit::s3::{Moto, S3Server};

/// The whole answer to an unsigned request. A healthy server refuses it with an XML body.
fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(Duration::from_mins(1)))?;
    write!(socket, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

#[test]
fn an_s3_server_requires_signatures_and_returns_on_its_port() {
    let mut server = S3Server::builder().bucket("one").bucket("two").start().unwrap();
    assert!(server.root().join("two").is_dir());
    let answer = get(server.address(), "/one/key").unwrap();
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    server.stop();
    assert!(get(server.address(), "/one/key").is_err());
    server.restart().unwrap();
    assert!(get(server.address(), "/one/key").unwrap().starts_with("HTTP/1.1 403"));
}

#[test]
fn moto_starts_with_its_bucket() {
    let Some(server) = Moto::or_skip() else { return };
    server.create_bucket("another").unwrap();
    let answer = get(server.address(), "/moto-api/data.json").unwrap();
    assert!(body(&answer).contains("holdfast"), "{answer}");
}

#[test]
fn latency_is_added_on_each_way() {
    let server = S3Server::start().unwrap();
    let proxy = TcpProxy::start(server.address()).unwrap();
    proxy.set_latency(Duration::from_millis(60));
    let start = Instant::now();
    assert!(get(proxy.address(), "/holdfast/key").unwrap().starts_with("HTTP/1.1 403"));
    assert!(start.elapsed() >= Duration::from_millis(120), "{:?}", start.elapsed());
}

#[test]
fn bandwidth_is_limited_on_each_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = TcpProxy::start(listener.local_addr().unwrap()).unwrap();
    proxy.set_bandwidth(NonZeroU64::new(10 << 20));
    let server = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut received = Vec::new();
        socket.read_to_end(&mut received).unwrap();
        received.len()
    });
    let start = Instant::now();
    let mut socket = TcpStream::connect(proxy.address()).unwrap();
    socket.write_all(&vec![1; 3 << 20]).unwrap();
    drop(socket);
    assert_eq!(server.join().unwrap(), 3 << 20);
    // 3 MiB at 10 MiB a second, less what may be caught up and the piece that is not waited for.
    assert!(start.elapsed() >= Duration::from_millis(280), "{:?}", start.elapsed());
}

#[test]
fn connections_are_refused_stalled_and_cut() {
    let server = S3Server::start().unwrap();
    let proxy = TcpProxy::start(server.address()).unwrap();

    proxy.refuse();
    assert!(get(proxy.address(), "/holdfast/key").is_err());

    proxy.stall();
    let mut socket = TcpStream::connect(proxy.address()).unwrap();
    socket.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let stalled = socket.read(&mut [0; 100]).unwrap_err();
    assert!(matches!(stalled.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{stalled}");

    proxy.resume();
    socket.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    assert!(socket.read(&mut [0; 100]).unwrap() > 0);

    proxy.cut();
    let cut = loop {
        match socket.read(&mut [0; 100]) {
            Ok(1..) => {}
            Ok(0) => break ErrorKind::UnexpectedEof,
            Err(error) => break error.kind(),
        }
    };
    assert_eq!(cut, ErrorKind::ConnectionReset);
    assert!(get(proxy.address(), "/holdfast/key").is_ok());
}

#[test]
fn requests_fail_as_configured() {
    let server = S3Server::start().unwrap();
    let proxy = HttpFaults::start(server.address()).unwrap();
    let whole = get(proxy.address(), "/holdfast/key").unwrap();
    assert!(whole.starts_with("HTTP/1.1 403"), "{whole}");
    let whole = body(&whole);

    proxy.inject(Fault::new(Effect::Status(503, "SlowDown"), When::EveryNth(2)).path_contains("slow"));
    let statuses: Vec<bool> =
        (0..4).map(|_| get(proxy.address(), "/holdfast/slow").unwrap().contains("<Code>SlowDown</Code>")).collect();
    assert_eq!(statuses, [false, true, false, true]);

    proxy.inject(Fault::new(Effect::TruncatedBody(10), When::Always).path_contains("truncated"));
    let truncated = get(proxy.address(), "/holdfast/truncated").unwrap();
    assert_eq!(body(&truncated).len(), 10);
    let announced = format!("content-length: {}", whole.len());
    assert!(truncated.to_lowercase().contains(&announced), "{truncated}");

    proxy.inject(Fault::new(Effect::FlippedBit(0), When::Always).path_contains("flipped"));
    assert_eq!(body(&get(proxy.address(), "/holdfast/flipped").unwrap())[..1], *"=");

    proxy.inject(Fault::new(Effect::LostAnswer, When::First(1)).method("GET").path_contains("lost"));
    assert_eq!(get(proxy.address(), "/holdfast/lost").unwrap_or_default(), "");
    assert!(get(proxy.address(), "/holdfast/lost").unwrap().starts_with("HTTP/1.1 403"));

    assert_eq!(proxy.hits(), 5);
    let seen = proxy.seen();
    assert_eq!(seen.len(), 9);
    // What the proxy refuses does not reach the server; a request whose answer is lost does.
    assert!(seen.iter().all(|seen| seen.executed != matches!(seen.effect, Some(Effect::Status(..)))), "{seen:?}");
    proxy.clear();
    assert!(get(proxy.address(), "/holdfast/flipped").unwrap().starts_with("HTTP/1.1 403"));
}

#[test]
fn chance_repeats_with_its_seed() {
    let server = S3Server::start().unwrap();
    let run = |seed| {
        let proxy = HttpFaults::start(server.address()).unwrap();
        proxy.inject(Fault::new(Effect::Status(500, "InternalError"), When::Chance { per_mille: 300, seed }));
        (0..40).map(|_| get(proxy.address(), "/holdfast/key").unwrap().starts_with("HTTP/1.1 500")).collect::<Vec<_>>()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
    assert!(run(7).iter().filter(|failed| **failed).count() > 3);
}

#[test]
fn a_small_disk_fills_up_and_is_removed() {
    let Some(disk) = SmallDisk::or_skip(1 << 20) else { return };
    assert!(disk.free_bytes().unwrap() <= 1 << 20);
    std::fs::write(disk.path().join("fits"), vec![1; 1 << 19]).unwrap();
    let full = std::fs::write(disk.path().join("does not"), vec![1; 1 << 20]).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    let path = disk.path().to_path_buf();
    drop(disk);
    assert!(!path.exists());
}
