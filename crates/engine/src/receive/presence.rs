//! [`Presence`]: what a second connection learns about the server, when the stream does not say it.
//!
//! A server that shuts down keeps its streams open until everything is reported as flushed, so the stream looks as
//! before. And when a stream is lost, only another connection shows whether the server still has what was received.

use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::Instant;

use super::ReceiveOptions;
use crate::error::{Cause, Error};
use crate::server::replication::Replication;

/// How long an answer counts.
const ASKED_EVERY: Duration = Duration::from_secs(20);

/// How long the server may take to accept or refuse a connection.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// Whether the server is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// It answers.
    There,
    /// It accepts no connections for now: it shuts down, or starts.
    NotNow,
    /// It does not answer.
    Away,
}

/// Asks the server beside the stream, at most once in [`ASKED_EVERY`].
pub(super) struct Asking<'a> {
    options: &'a ReceiveOptions<'a>,
    running: Option<BoxFuture<'a, Presence>>,
    last: Option<(Instant, Presence)>,
}

impl<'a> Asking<'a> {
    pub(super) fn new(options: &'a ReceiveOptions<'a>) -> Self {
        Self { options, running: None, last: None }
    }

    /// Begins to ask, if that is wanted and the last answer does not count any more.
    pub(super) fn ask_if(&mut self, is_wanted: bool) {
        if is_wanted && self.running.is_none() && self.known().is_none() {
            self.running = Some(Box::pin(ask(self.options)));
        }
    }

    /// The answer, once it is there. Cancel-safe.
    pub(super) async fn answer(&mut self) -> Presence {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let presence = running.await;
        (self.running, self.last) = (None, Some((Instant::now(), presence)));
        presence
    }

    /// Whether the last answer counts and the server was there, so that it has what it has sent.
    pub(super) fn is_there(&self) -> bool {
        self.known().is_some_and(|presence| presence != Presence::Away)
    }

    fn known(&self) -> Option<Presence> {
        self.last.filter(|(at, _)| at.elapsed() < ASKED_EVERY).map(|(_, presence)| presence)
    }
}

async fn ask(options: &ReceiveOptions<'_>) -> Presence {
    let settings = options.replication();
    match tokio::time::timeout(ANSWERED_WITHIN, Replication::open(&settings)).await {
        Ok(Ok(connection)) => {
            connection.close().await;
            Presence::There
        }
        Ok(Err(error)) => of_refusal(&error),
        Err(_) => Presence::Away,
    }
}

fn of_refusal(error: &Error) -> Presence {
    const CANNOT_CONNECT_NOW: &str = "57P03";
    match &*error.what {
        Cause::ServerAnswer { sqlstate, .. } if sqlstate == CANNOT_CONNECT_NOW => Presence::NotNow,
        Cause::Connection(_) | Cause::StreamLost { .. } => Presence::Away,
        _ => Presence::There,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_whether_the_server_is_there() {
        let answer = |sqlstate: &str| Cause::ServerAnswer {
            severity: "FATAL".to_owned(),
            message: "m".to_owned(),
            sqlstate: sqlstate.to_owned(),
        };
        for (cause, expected) in [
            (answer("57P03"), Presence::NotNow),
            (answer("53300"), Presence::There),
            (Cause::Connection("refused".to_owned()), Presence::Away),
            (Cause::StreamLost { reason: "gone".to_owned() }, Presence::Away),
        ] {
            let error = Error::from(cause);
            assert_eq!(of_refusal(&error), expected, "{error}");
        }
    }
}
