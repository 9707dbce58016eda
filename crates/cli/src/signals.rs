//! SIGINT, SIGTERM and SIGHUP: the first cancels, the second ends the process at once.
//!
//! Cancelling is orderly: the command stops its PostgreSQL backup session, removes what is half done, and ends with 128
//! plus the signal's number. After a second signal `main` returns without waiting; two SIGHUP in a row count once. What
//! is left is what a crash would leave, and the next run handles it.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A terminal that is closed sends it, and so does a reload of an agent, perhaps twice.
const HANGUP: u8 = 1;

/// The signals of one run.
#[derive(Clone, Debug, Default)]
pub struct Signals {
    first: Arc<AtomicU8>,
    cancel: CancellationToken,
    at_once: CancellationToken,
    hangup: Arc<Hangup>,
}

/// What is asked before SIGHUP cancels; `false` leaves everything as it is.
#[derive(Default)]
struct Hangup(OnceLock<Box<dyn Fn() -> bool + Send + Sync>>);

impl std::fmt::Debug for Hangup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Hangup").field(&self.0.get().is_some()).finish()
    }
}

impl Signals {
    /// Begins to listen; call it within the runtime. If a handler cannot be set, the signal keeps its default.
    pub fn listen() -> std::io::Result<Self> {
        let signals = Self::default();
        for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
            let mut stream = signal(kind)?;
            let mine = signals.clone();
            let number = u8::try_from(kind.as_raw_value()).unwrap_or_default();
            tokio::spawn(async move {
                while stream.recv().await.is_some() {
                    let asked = Arc::clone(&mine.hangup);
                    let may = move || number != HANGUP || asked.0.get().is_none_or(|ask| ask());
                    // It may run a program.
                    if tokio::task::spawn_blocking(may).await.unwrap_or(true) {
                        mine.received(number);
                    }
                }
            });
        }
        Ok(signals)
    }

    /// From now on this is asked before SIGHUP cancels. It may block. Only the first call counts.
    pub fn ask_before_hangup(&self, ask: impl Fn() -> bool + Send + Sync + 'static) {
        drop(self.hangup.0.set(Box::new(ask)));
    }

    fn received(&self, number: u8) {
        if self.first.compare_exchange(0, number, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            tracing::warn!(signal = number, "cancelling; a second signal ends holdfast at once");
            self.cancel.cancel();
        } else if number != HANGUP || self.first() != Some(HANGUP) {
            self.at_once.cancel();
        }
    }

    /// The number of the first signal.
    pub fn first(&self) -> Option<u8> {
        match self.first.load(Ordering::Relaxed) {
            0 => None,
            number => Some(number),
        }
    }

    /// Whether the first signal was SIGHUP.
    pub fn hung_up(&self) -> bool {
        self.first() == Some(HANGUP)
    }

    /// The token that the first signal cancels.
    pub fn cancellation(&self) -> CancellationToken {
        self.cancel.clone()
    }

    /// Returns after the second signal.
    pub async fn second(&self) {
        self.at_once.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_cancels_and_the_second_ends() {
        let signals = Signals::default();
        assert_eq!(signals.first(), None);
        signals.received(15);
        assert_eq!(signals.first(), Some(15));
        assert!(signals.cancellation().is_cancelled());
        assert!(!signals.at_once.is_cancelled());
        signals.received(2);
        assert_eq!(signals.first(), Some(15));
        assert!(signals.at_once.is_cancelled());
    }

    #[test]
    fn a_second_hangup_is_the_same_as_one() {
        let signals = Signals::default();
        signals.received(HANGUP);
        signals.received(HANGUP);
        assert!(!signals.at_once.is_cancelled());
        signals.received(15);
        assert!(signals.at_once.is_cancelled());
    }
}
