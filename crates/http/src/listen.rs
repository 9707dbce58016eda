//! Listening, and the accept loop of every port.
//!
//! `accept` fails in two ways. If a connection was reset before it was accepted, only this connection is lost: the next
//! one is accepted at once. Any other failure, such as no free file descriptor, would repeat at once while it lasts. So
//! the loop pauses, and logs it once.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;

/// Listens on an address. `[::]` stands for every address of IPv6 and IPv4; where there is no IPv6, for those of IPv4.
///
/// # Errors
/// When the port is in use, or may not be used.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(_) if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    }
}

/// The pause between attempts while no connection can be accepted.
const PAUSE: Duration = Duration::from_millis(200);

/// A listening socket.
pub trait Listener {
    /// The type of a connection.
    type Stream;

    /// Accepts the next connection.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        let (stream, _) = self.accept().await?;
        // Answers are small, and none should wait for another.
        drop(stream.set_nodelay(true));
        Ok(stream)
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

/// Accepts connections for ever, and serves each in its own task. If this future is dropped, the connections end as
/// well. `port` names the socket in the log.
pub async fn accept_each<L, S>(listener: &L, port: &str, mut serve: impl FnMut(L::Stream) -> S)
where
    L: Listener,
    S: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // Tasks of ended connections are removed.
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok(stream) => {
                failing = false;
                connections.spawn(serve(stream));
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(port, %error, "a connection could not be accepted; trying again");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionRefused
            | ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that fails here has found what it looks for")]
    use super::*;
    use parking_lot::Mutex;
    use std::collections::VecDeque;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn one_socket_serves_both_families() {
        let listener = bind((Ipv6Addr::UNSPECIFIED, 0).into()).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        // A machine without IPv6 is served by the other family alone.
        if listener.local_addr().unwrap().is_ipv6() {
            TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await.unwrap();
        }
        let taken = bind((Ipv6Addr::UNSPECIFIED, port).into()).await.unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::AddrInUse);
    }

    /// Fails with the given errors, then waits for ever.
    struct Played {
        answers: Mutex<VecDeque<io::Result<u32>>>,
        asked: AtomicUsize,
    }

    impl Listener for Played {
        type Stream = u32;

        async fn accept(&self) -> io::Result<u32> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let next = self.answers.lock().pop_front();
            match next {
                Some(answer) => answer,
                // EMFILE: no file descriptor is free.
                None => Err(io::Error::from_raw_os_error(24)),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_free_file_descriptor_it_does_not_spin() {
        let answers = [Err(io::Error::from_raw_os_error(24)), Err(ErrorKind::ConnectionAborted.into()), Ok(7)];
        let listener = Played { answers: Mutex::new(answers.into()), asked: AtomicUsize::new(0) };
        let served = std::sync::Arc::new(Mutex::new(Vec::new()));
        let accepting = accept_each(&listener, "test", |stream| {
            let served = std::sync::Arc::clone(&served);
            async move { served.lock().push(stream) }
        });
        // A failure, a pause, an aborted connection, one that is served at once; then only failures.
        assert!(tokio::time::timeout(Duration::from_secs(10), accepting).await.is_err());
        assert_eq!(*served.lock(), [7]);
        let asked = listener.asked.load(Ordering::Relaxed);
        assert!((40..=60).contains(&asked), "asked {asked} times in 10 s");
    }

    #[tokio::test]
    async fn connections_end_with_the_loop() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = tokio::spawn(async move {
            accept_each(&listener, "test", |mut stream| async move {
                stream.write_all(b"x").await.unwrap();
                std::future::pending::<()>().await;
            })
            .await;
        });
        let mut client = TcpStream::connect(address).await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'x');
        accepting.abort();
        let ended = client.read_u8().await.map_err(|error| error.kind());
        assert!(matches!(ended, Err(ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset)), "{ended:?}");
    }
}
