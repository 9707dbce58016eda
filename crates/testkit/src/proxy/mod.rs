//! What a network does to a client, between it and a real server.
//!
//! [`TcpProxy`] knows bytes only: latency, connections that are refused, cut or stall. [`HttpFaults`] knows requests: an
//! answer that got lost after the server acted, a throttled request, a body that ends too early or has a wrong bit.
//! [`ForwardProxy`] is one that clients are told to go by.

mod forward;
mod http;
mod tcp;

pub use forward::ForwardProxy;
pub use http::{Effect, Fault, HttpFaults, Seen, When};
pub use tcp::TcpProxy;
