//! Faults of a network, between a client and a real server.
//!
//! [`TcpProxy`] knows bytes only: latency, connections that are refused, cut or stall. [`HttpFaults`] knows requests:
//! an answer that got lost after the server acted, a throttled request, a body that ends too early or has a wrong bit.
//! [`ForwardProxy`] is a proxy that clients are configured to use, and [`TlsFront`] adds TLS to a server without it.

mod forward;
mod http;
mod tcp;
mod tls;

pub use forward::ForwardProxy;
pub use http::{Effect, Fault, HttpFaults, SeenRequest, When};
pub use tcp::TcpProxy;
pub use tls::TlsFront;
