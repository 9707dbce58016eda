//! HTTP as the operator and the instance manager serve and ask it: small, by HTTP/1.1, on a few ports of their own.
//!
//! - the accept loop of every port ([`listen`])
//! - answering the requests of one connection ([`serve`])
//! - answers ([`answer`])
//! - one request over mutual TLS, as to a status port ([`mod@exchange`])
//! - Prometheus' text format ([`metrics`])
//!
//! What is asked and answered on the status port is said by `holdfast_kube_api::status_port`; this crate knows nothing of
//! it, nor of Kubernetes and PostgreSQL.
//!
//! ```
//! use holdfast_http::answer;
//! use holdfast_http::metrics::{Headers, Metric, Samples};
//!
//! const TABLE: &[Metric] = &[("app_up", "gauge", "Whether it runs")];
//! let mut samples = Samples::default();
//! samples.set("app_up", &[("cluster", "main")], 1.0);
//! let text = samples.text(TABLE, Headers::OfSampled);
//! assert_eq!(text, "# HELP app_up Whether it runs\n# TYPE app_up gauge\napp_up{cluster=\"main\"} 1\n");
//! assert_eq!(answer::text(hyper::StatusCode::OK, "text/plain", text).status(), 200);
//! ```

pub mod answer;
pub mod exchange;
pub mod listen;
pub mod metrics;
pub mod serve;

pub use answer::Answer;
pub use exchange::{ExchangeError, Outgoing, Stream, exchange};
pub use listen::{Listener, accept_each};
pub use serve::serve_connection;
