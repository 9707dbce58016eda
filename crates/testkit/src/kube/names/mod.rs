//! The names of services and pods: a DNS server over the services and endpoints of the API server.
//!
//! It answers for IPv4 addresses below `cluster.local`, by the rules of the Kubernetes DNS specification:
//! `<service>.<namespace>.svc` is the service's address or, if it has none ("headless"), the addresses of its ready
//! pods; `<host>.<service>.<namespace>.svc` is one of these pods; `<a-b-c-d>.<namespace>.pod` is that address. A name
//! that exists but has no address of the wanted kind gets an empty answer. Every other name gets "no such name" at
//! once, because a closed machine has no other name server to ask.

mod message;
mod table;

use std::net::SocketAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Service};
use kube::runtime::reflector::Store;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

use self::table::Names;
use super::client::watch;
use crate::error::{KitError, Result};

/// Serves until the task is cancelled.
pub(crate) async fn serve(client: &kube::Client, address: SocketAddr) -> Result<()> {
    let failed = || KitError::io(format!("listen at {address} for names"));
    let udp = UdpSocket::bind(address).await.map_err(failed())?;
    let tcp = TcpListener::bind(address).await.map_err(failed())?;
    let mut tasks = JoinSet::new();
    let services: Store<Service> = watch(client, &mut tasks);
    let endpoints: Store<Endpoints> = watch(client, &mut tasks);
    let names = Arc::new(Names::new(services, endpoints));
    let mut buffer = [0; 4096];
    loop {
        tokio::select! {
            received = udp.recv_from(&mut buffer) => {
                let Ok((length, client)) = received else { continue };
                if let Some(answer) = message::answer(&buffer[..length], |name| names.find(name), 512) {
                    // If this fails, the client is gone or asks again.
                    let _ = udp.send_to(&answer, client).await;
                }
            }
            accepted = tcp.accept() => {
                if let Ok((socket, _)) = accepted {
                    let names = Arc::clone(&names);
                    tasks.spawn(async move { drop(converse(socket, &names).await) });
                }
            }
            Some(_) = tasks.join_next() => {}
        }
    }
}

/// Answers the questions of one connection, each with its length in front.
async fn converse(mut socket: TcpStream, names: &Names) -> std::io::Result<()> {
    loop {
        let mut question = vec![0; usize::from(socket.read_u16().await?)];
        socket.read_exact(&mut question).await?;
        let Some(answer) = message::answer(&question, |name| names.find(name), 65_000) else { return Ok(()) };
        socket.write_u16(u16::try_from(answer.len()).unwrap_or(u16::MAX)).await?;
        socket.write_all(&answer).await?;
    }
}
