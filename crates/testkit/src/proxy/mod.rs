//! Faults of a network, between a client and a real server.
//!
//! [`TcpProxy`] knows bytes only: latency, and connections that are refused, cut or stalled. [`HttpFaults`] knows
//! requests: an answer lost after the server acted, a throttled request, a body that ends too early or has a wrong bit.
//! [`ForwardProxy`] is a proxy that clients are configured to use.

mod forward;
mod http;
mod tcp;

pub use forward::ForwardProxy;
pub use http::{Effect, Fault, HttpFaults, Seen, When};
pub use tcp::TcpProxy;
