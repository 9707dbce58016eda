//! The status port: mutual TLS, for the operator and the other instances; and the socket for probes.
//!
//! The contract is [`holdfast_kube_api::status_port`]. Certificates are read again when their files change. The
//! operator, by its certificate's common name, may do everything; another instance may read `/status`.

mod probes;
mod routes;
mod serve;

pub use probes::{Probe, ask as ask_probe};
pub use serve::{serve_metrics, serve_probes, serve_status};
