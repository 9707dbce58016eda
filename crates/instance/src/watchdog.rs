//! The watchdog: PID 1 ends the container when the manager falls silent while its PostgreSQL could take writes.
//!
//! The manager stops PostgreSQL itself when it loses the Lease (see [`crate::lease`]). It cannot do this when it hangs
//! or is stopped, and PostgreSQL would then be a second writer. So with each renewal the keeper tells PID 1 until when
//! PostgreSQL may run. PID 1 does nothing else; it ends at that time unless it has received a later one. With PID 1 the
//! kernel ends every process of the container, stopped ones included (pid_namespaces(7)). PID 1 does not wait for a
//! manager that hangs while it shuts down either: the pod has half an hour for its end.
//!
//! A message is eight bytes on a socket: milliseconds of `CLOCK_BOOTTIME`, which both ends share and which also counts
//! while the machine sleeps; or 0 for "nothing to watch"; or all ones for "I am here". It is a time and not a duration,
//! so a message that is read late extends nothing.

use rustix::time::{ClockId, clock_gettime};
use std::fmt;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;

const REST: u64 = 0;
const HERE: u64 = u64::MAX;

/// The time since the machine started.
fn now() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(now.tv_sec.try_into().unwrap_or(0), now.tv_nsec.try_into().unwrap_or(0))
}

/// A message from the manager to PID 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// PostgreSQL may take writes for this long from now, and no longer without another message.
    MayContinueFor(Duration),
    /// PostgreSQL takes no writes here.
    Rest,
    /// The manager is alive; nothing else changes.
    Here,
}

impl Word {
    /// The form on the socket.
    fn to_wire(self) -> u64 {
        match self {
            // Never equal to one of the two special values.
            Self::MayContinueFor(time) => {
                u64::try_from((now() + time).as_millis()).unwrap_or(u64::MAX).clamp(REST + 1, HERE - 1)
            }
            Self::Rest => REST,
            Self::Here => HERE,
        }
    }
}

/// The manager's end of the socket.
#[derive(Default)]
pub struct Feed(Listener);

#[derive(Default)]
enum Listener {
    /// There is no watchdog.
    #[default]
    Nobody,
    /// PID 1.
    Init(UnixStream),
    /// A test, which receives the messages.
    Heard(Box<dyn Fn(Word) + Send + Sync>),
}

impl fmt::Debug for Feed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match &self.0 {
            Listener::Nobody => "Feed(nobody)",
            Listener::Init(_) => "Feed(PID 1)",
            Listener::Heard(_) => "Feed(a test)",
        })
    }
}

impl Feed {
    /// The end of the socket that PID 1 gave to this process as its stdin. After that stdin is `/dev/null`: programs
    /// that are run later must not hold the socket.
    ///
    /// # Errors
    /// When the file descriptors cannot be created.
    pub fn of_stdin() -> io::Result<Self> {
        let socket = UnixStream::from(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?);
        rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
        // A reader that does not read must not block the keeper.
        socket.set_nonblocking(true)?;
        Ok(Self(Listener::Init(socket)))
    }

    /// A feed whose messages a test receives, in the place of PID 1.
    pub fn heard_by(listener: impl Fn(Word) + Send + Sync + 'static) -> Self {
        Self(Listener::Heard(Box::new(listener)))
    }

    /// PostgreSQL may take writes for this long from now, and no longer without another message.
    pub fn may_continue_for(&self, time: Duration) {
        self.say(Word::MayContinueFor(time));
    }

    /// PostgreSQL takes no writes here.
    pub fn rest(&self) {
        self.say(Word::Rest);
    }

    /// The manager is alive; nothing else changes.
    pub fn here(&self) {
        self.say(Word::Here);
    }

    fn say(&self, word: Word) {
        let mut socket = match &self.0 {
            Listener::Nobody => return,
            Listener::Init(socket) => socket,
            Listener::Heard(listener) => return listener(word),
        };
        if let Err(error) = socket.write_all(&word.to_wire().to_be_bytes()) {
            tracing::warn!(%error, "could not tell PID 1 how long PostgreSQL may keep running");
        }
    }
}

/// PID 1's end of the socket.
#[derive(Debug)]
pub struct Watchdog {
    socket: tokio::net::UnixStream,
    /// The part of a message that was read so far.
    word: Vec<u8>,
    until: Option<Duration>,
    /// When the last message came.
    heard: Duration,
    /// The maximum time without any message; `None` for no limit.
    silent_for: Option<Duration>,
    /// Whether the manager's end is closed. The last message about PostgreSQL stays in force.
    closed: bool,
}

impl Watchdog {
    /// A watchdog, and the manager's stdin.
    ///
    /// # Errors
    /// When no socket can be created.
    pub fn new() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let socket = tokio::net::UnixStream::from_std(ours)?;
        let word = Vec::with_capacity(size_of::<u64>());
        Ok((Self { socket, word, until: None, heard: now(), silent_for: None, closed: false }, theirs.into()))
    }

    /// From now on, a message must come at least this often.
    pub fn expect_words(&mut self, within: Duration) {
        if self.silent_for.replace(within).is_none() {
            self.heard = now();
        }
    }

    /// When the wait ends.
    fn deadline(&self) -> Option<Duration> {
        let heard_by = self.silent_for.filter(|_| !self.closed).map(|time| self.heard + time);
        [self.until, heard_by].into_iter().flatten().min()
    }

    /// Returns when the manager has been silent for too long. Cancel-safe: it can be dropped and called again.
    pub async fn silence(&mut self) {
        loop {
            let left = self.deadline().map_or(Duration::MAX, |deadline| deadline.saturating_sub(now()));
            tokio::select! {
                // Messages that have arrived count before time that has run out.
                biased;
                heard = read_word(&mut self.socket, &mut self.word), if !self.closed => {
                    match heard {
                        Ok(REST) => self.until = None,
                        Ok(HERE) => {}
                        Ok(word) => self.until = Some(Duration::from_millis(word)),
                        // A manager that ended is reaped at once. If only its keeper ended, nobody renews the Lease any
                        // more: PostgreSQL may run until the time of the last message.
                        Err(_) => self.closed = true,
                    }
                    self.heard = now();
                }
                // Timers count in milliseconds of another clock.
                () = tokio::time::sleep(left) => if self.deadline().is_some_and(|deadline| deadline <= now()) { return },
            }
        }
    }
}

/// The next message; the part that was read is kept in `part`, so nothing is lost if this is dropped.
async fn read_word(socket: &mut tokio::net::UnixStream, part: &mut Vec<u8>) -> io::Result<u64> {
    while part.len() < size_of::<u64>() {
        let rest = u64::try_from(size_of::<u64>() - part.len()).unwrap_or(0);
        let mut limited = tokio::io::AsyncReadExt::take(&mut *socket, rest);
        if limited.read_buf(part).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let word = part.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    part.clear();
    Ok(word)
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "a failed set-up fails the test")]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(100);
    const LATER: Duration = Duration::from_mins(1);

    fn both() -> (Watchdog, Feed) {
        let (watchdog, theirs) = Watchdog::new().expect("a socket");
        (watchdog, Feed(Listener::Init(theirs.into())))
    }

    async fn is_silent(watchdog: &mut Watchdog) -> bool {
        tokio::time::timeout(SOON * 5, watchdog.silence()).await.is_ok()
    }

    #[tokio::test]
    async fn it_barks_when_the_time_is_over_and_not_before() {
        let (mut watchdog, feed) = both();
        assert!(!is_silent(&mut watchdog).await, "no message has come yet");
        feed.may_continue_for(LATER);
        assert!(!is_silent(&mut watchdog).await);
        feed.may_continue_for(SOON);
        let since = now();
        watchdog.silence().await;
        // Messages have milliseconds.
        assert!(now().saturating_sub(since) + Duration::from_millis(2) >= SOON);
    }

    #[tokio::test]
    async fn the_last_message_counts() {
        let (mut watchdog, feed) = both();
        feed.may_continue_for(SOON);
        feed.may_continue_for(LATER);
        assert!(!is_silent(&mut watchdog).await);
        feed.may_continue_for(SOON);
        feed.rest();
        assert!(!is_silent(&mut watchdog).await);
        feed.may_continue_for(Duration::ZERO);
        assert!(is_silent(&mut watchdog).await);
    }

    #[tokio::test]
    async fn a_message_that_is_read_late_extends_nothing() {
        let (mut watchdog, feed) = both();
        let second = Duration::from_secs(1);
        feed.may_continue_for(second);
        std::thread::sleep(second);
        let since = now();
        watchdog.silence().await;
        assert!(now().saturating_sub(since) < second);
    }

    #[tokio::test]
    async fn a_keeper_that_has_ended_leaves_its_last_message_in_force() {
        let (mut watchdog, feed) = both();
        feed.may_continue_for(SOON * 10);
        drop(feed);
        watchdog.expect_words(Duration::ZERO);
        assert!(!is_silent(&mut watchdog).await, "nobody is left who could send a message");
        assert!(tokio::time::timeout(LATER, watchdog.silence()).await.is_ok(), "nobody renews any more");
    }

    #[tokio::test]
    async fn a_manager_that_ended_at_rest_is_not_silent() {
        let (mut watchdog, feed) = both();
        feed.may_continue_for(SOON);
        feed.rest();
        drop(feed);
        assert!(!is_silent(&mut watchdog).await);
    }

    #[tokio::test]
    async fn a_stopping_manager_must_send_messages() {
        let (mut watchdog, feed) = both();
        feed.here();
        assert!(!is_silent(&mut watchdog).await, "no message is required yet");
        let within = Duration::from_secs(3);
        watchdog.expect_words(within);
        for _ in 0..3 {
            assert!(!is_silent(&mut watchdog).await, "a message came");
            feed.here();
        }
        // Called again: the wait does not start again.
        watchdog.expect_words(within);
        watchdog.silence().await;
        feed.may_continue_for(SOON);
        watchdog.silence().await;
        assert!(watchdog.until.is_some_and(|until| until <= now()), "`here` does not extend the time");
    }

    #[test]
    fn without_a_watchdog_nothing_happens() {
        Feed::default().may_continue_for(LATER);
        Feed::default().rest();
    }
}
