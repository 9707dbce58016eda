//! HTTP for the operator, the instance manager and the agent: a small HTTP/1.1 server and client for a few ports.
//!
//! - the accept loop of every port ([`listen`])
//! - answers to the requests of one connection ([`serve`])
//! - answers ([`answer`])
//! - one request over mutual TLS, for example to a status port ([`mod@exchange`])
//! - Prometheus' text format ([`metrics`])
//!
//! `holdfast_kube_api::status_port` defines the requests and answers of the status port. This crate knows nothing about
//! them, about Kubernetes or about PostgreSQL.
//!
//! ```
//! use holdfast_http::answer;
//! use holdfast_http::metrics::{Kind, Metric, Samples};
//!
//! const TABLE: &[Metric] = &[("app_up", Kind::Gauge, "Whether it runs")];
//! let mut samples = Samples::default();
//! samples.set("app_up", &[("cluster", "main")], 1.0);
//! let text = samples.text(TABLE);
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
pub use listen::{Listener, accept_each, bind};
pub use serve::serve_connection;
