//! A TCP proxy with latency and interruptions.
//!
//! Every byte is delayed by the latency of its direction: each direction has a reader that stamps what it read with a
//! time, and a writer that waits for this time, with a bounded queue between them. The bandwidth of each direction of
//! a connection is not limited unless a test asks for it: then the reader waits until the last piece would have passed.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::background::Background;
use crate::error::{KitError, Result};

/// Enough pieces in flight for 64 MiB in each direction of a connection: far more than latency times any loopback rate.
const QUEUE: usize = 1024;
const PIECE_BYTES: usize = 64 * 1024;
/// What a limited connection may catch up after it waited: timers of the runtime are exact to a millisecond or two.
const MAX_BURST: Duration = Duration::from_millis(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Pass,
    Refuse,
    Stall,
}

#[derive(Clone, Copy, Debug)]
struct State {
    mode: Mode,
    latency: Duration,
    bandwidth: Option<NonZeroU64>,
    /// Connections of an earlier generation are cut.
    generation: u64,
}

/// A running proxy; it and its connections end with the value.
#[derive(Debug)]
pub struct TcpProxy {
    address: SocketAddr,
    state: watch::Sender<State>,
    _background: Background,
}

impl TcpProxy {
    /// Starts a proxy to a server on a free port of 127.0.0.1, without latency.
    pub fn start(target: SocketAddr) -> Result<Self> {
        let background = Background::start("tcp-proxy")?;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(KitError::io("start a proxy"))?;
        listener.set_nonblocking(true).map_err(KitError::io("start a proxy"))?;
        let address = listener.local_addr().map_err(KitError::io("start a proxy"))?;
        let (state, watched) =
            watch::channel(State { mode: Mode::Pass, latency: Duration::ZERO, bandwidth: None, generation: 0 });
        background.spawn(async move {
            if let Ok(listener) = TcpListener::from_std(listener) {
                accept(listener, target, watched).await;
            }
        });
        Ok(Self { address, state, _background: background })
    }

    /// The address to give to the client.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address as the URL of an HTTP server.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Holds every byte back this long on each way, so that a round trip takes twice as long.
    pub fn set_latency(&self, each_way: Duration) {
        self.state.send_modify(|state| state.latency = each_way);
    }

    /// Passes at most this many bytes a second in each direction of each connection; `None` for no limit.
    pub fn set_bandwidth(&self, bytes_per_second: Option<NonZeroU64>) {
        self.state.send_modify(|state| state.bandwidth = bytes_per_second);
    }

    /// Resets new connections at once; existing ones continue.
    pub fn refuse(&self) {
        self.state.send_modify(|state| state.mode = Mode::Refuse);
    }

    /// Resets all existing connections; new ones are served.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.generation += 1);
    }

    /// Passes no more data. Old and new connections stay open, and sent data waits.
    pub fn stall(&self) {
        self.state.send_modify(|state| state.mode = Mode::Stall);
    }

    /// Serves again after [`Self::refuse`] or [`Self::stall`].
    pub fn resume(&self) {
        self.state.send_modify(|state| state.mode = Mode::Pass);
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, state: watch::Receiver<State>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                if state.borrow().mode == Mode::Refuse {
                    reset(client);
                } else {
                    connections.spawn(connection(client, target, state.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Closes a connection so that the other side sees a reset, not an end of data.
fn reset(stream: TcpStream) {
    let _ = stream.set_zero_linger();
    drop(stream);
}

async fn connection(mut client: TcpStream, target: SocketAddr, mut state: watch::Receiver<State>) {
    let generation = state.borrow().generation;
    let Ok(mut server) = TcpStream::connect(target).await else { return reset(client) };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let orderly = {
        let (client_read, client_write) = client.split();
        let (server_read, server_write) = server.split();
        let there = one_way(client_read, server_write, state.clone());
        let back = one_way(server_read, client_write, state.clone());
        tokio::select! {
            // Each direction runs to its end, because one may be closed early. A failure of one ends both.
            result = async { tokio::try_join!(there, back) } => result.is_ok(),
            () = is_cut(&mut state, generation) => false,
        }
    };
    if !orderly {
        reset(client);
        reset(server);
    }
}

/// Returns when the connections of this generation are cut.
async fn is_cut(state: &mut watch::Receiver<State>, generation: u64) {
    let _ = state.wait_for(|state| state.generation != generation).await;
}

/// Returns when data may pass.
async fn may_pass(state: &mut watch::Receiver<State>) {
    let _ = state.wait_for(|state| state.mode != Mode::Stall).await;
}

async fn one_way(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut state: watch::Receiver<State>) -> io::Result<()> {
    let (sender, mut queue) = mpsc::channel::<(Instant, Vec<u8>)>(QUEUE);
    let state_of_reader = state.clone();
    let mut free = Instant::now();
    let read = async move {
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            let length = from.read(&mut piece).await?;
            piece.truncate(length);
            let State { latency, bandwidth, .. } = *state_of_reader.borrow();
            let due = Instant::now() + latency;
            // The end of the data is an empty piece, and it is delayed like the data.
            if sender.send((due, piece)).await.is_err() || length == 0 {
                return Ok(());
            }
            if let Some(bandwidth) = bandwidth {
                free += Duration::from_nanos((length as u64 * 1_000_000_000).div_ceil(bandwidth.get()));
                // A connection that was idle has not saved up bandwidth.
                free = free.max(Instant::now() - MAX_BURST);
                sleep_until(free).await;
            }
        }
    };
    let write = async move {
        while let Some((due, piece)) = queue.recv().await {
            sleep_until(due).await;
            may_pass(&mut state).await;
            to.write_all(&piece).await?;
        }
        to.shutdown().await
    };
    tokio::try_join!(read, write).map(drop)
}
