//! [`Ending`]: why a stream ends, and until when what is in hand is stored. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// How long a session that is told to end stores what is in hand. WAL that is not stored by then stays in the slot.
pub(super) const STOPS_WITHIN: Duration = Duration::from_secs(20);

/// How long what was received is kept and stored after the connection is lost. It may be the only copy, and the store
/// repeats each request for a while.
pub(super) const KEEPS_FOR: Duration = Duration::from_mins(2);

/// What ends the stream once everything in hand is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    No,
    Timeline,
    /// The caller wants it.
    Stop {
        until: Instant,
    },
    /// The connection is gone. What was received may be the only copy. `is_reported`: the caller wants it, too.
    Lost {
        until: Instant,
        is_reported: bool,
    },
}

impl Ending {
    pub(super) fn is_ending(self) -> bool {
        self != Self::No
    }

    /// Whether the caller was heard already.
    pub(super) fn is_reported(self) -> bool {
        matches!(self, Self::Stop { .. } | Self::Lost { is_reported: true, .. })
    }

    /// The caller wants the end. A deadline never moves to a later time.
    pub(super) fn stop(self, now: Instant) -> Self {
        let limit = now + STOPS_WITHIN;
        match self {
            Self::No | Self::Timeline => Self::Stop { until: limit },
            Self::Stop { until } => Self::Stop { until: until.min(limit) },
            Self::Lost { until, .. } => Self::Lost { until: until.min(limit), is_reported: true },
        }
    }

    /// The connection is lost. A deadline never moves to a later time.
    pub(super) fn lose(self, now: Instant) -> Self {
        let limit = now + KEEPS_FOR;
        match self {
            Self::No | Self::Timeline => Self::Lost { until: limit, is_reported: false },
            Self::Stop { until } => Self::Lost { until: until.min(limit), is_reported: true },
            Self::Lost { until, is_reported } => Self::Lost { until: until.min(limit), is_reported },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_never_moves_to_a_later_time() {
        let now = Instant::now();
        let later = now + Duration::from_secs(15);
        let (stop, lost) = (Ending::No.stop(now), Ending::No.lose(now));
        assert_eq!(stop, Ending::Stop { until: now + STOPS_WITHIN });
        assert_eq!(lost, Ending::Lost { until: now + KEEPS_FOR, is_reported: false });
        for (what, ending, expected) in [
            ("told twice", stop.stop(later), stop),
            ("reported, then lost", stop.lose(later), Ending::Lost { until: now + STOPS_WITHIN, is_reported: true }),
            ("lost, then reported", lost.stop(later), Ending::Lost { until: later + STOPS_WITHIN, is_reported: true }),
            ("lost twice", lost.lose(later), lost),
            (
                "told near the end of a loss",
                lost.stop(now + Duration::from_secs(110)),
                Ending::Lost { until: now + KEEPS_FOR, is_reported: true },
            ),
            ("told at the end of a timeline", Ending::Timeline.stop(now), stop),
        ] {
            assert_eq!(ending, expected, "{what}");
        }
        assert!(!lost.is_reported() && lost.stop(now).is_reported() && stop.is_reported());
        assert!(!Ending::Timeline.is_reported() && Ending::Timeline.is_ending() && !Ending::No.is_ending());
    }
}
