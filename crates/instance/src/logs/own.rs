//! The manager's own log: JSON on stdout, in the form of [`super::Record`].

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Starts the log; a second call has no effect.
pub fn start() {
    let filter = Targets::new().with_default(LevelFilter::ERROR).with_target("holdfast", LevelFilter::INFO);
    let layer = fmt::layer().json().flatten_event(true).with_writer(std::io::stdout);
    drop(tracing_subscriber::registry().with(filter).with(layer).try_init());
}
