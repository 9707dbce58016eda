//! The log: tracing to stderr, as text or JSON, above any progress bar.
//!
//! Our own crates log at the configured level. Libraries log only errors; at `debug` also warnings; and one step more
//! at `trace`: the S3 client prints headers at `debug`.

use crate::config::validated::{Log, LogFormat, LogLevel};
use crate::output::bars::above_bar;
use crate::style::Style;
use std::io;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

/// The names of all our crates begin with this.
const OURS: &str = "holdfast";

/// Starts the log. A second call, as in tests, has no effect.
pub fn start(log: Log, style: Style) {
    let filter = Targets::new().with_default(libraries(log.level)).with_target(OURS, ours(log.level));
    let layer = match log.format {
        LogFormat::Text => fmt::layer()
            .with_ansi(style == Style::Coloured)
            .with_target(log.level >= LogLevel::Debug)
            .with_writer(AboveBar)
            .boxed(),
        LogFormat::Json => fmt::layer().json().flatten_event(true).with_writer(AboveBar).boxed(),
    };
    let _ = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init();
}

fn ours(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

fn libraries(level: LogLevel) -> LevelFilter {
    match level {
        // What they warn about also comes back as an error, which we report in our own words.
        LogLevel::Error | LogLevel::Warn | LogLevel::Info => LevelFilter::ERROR,
        LogLevel::Debug => LevelFilter::WARN,
        LogLevel::Trace => LevelFilter::INFO,
    }
}

#[derive(Clone, Copy, Debug)]
struct AboveBar;

impl io::Write for AboveBar {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        above_bar(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for AboveBar {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}
