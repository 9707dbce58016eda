//! [`Retry`]: repeats requests that may succeed later, and finds out what happened after a lost answer.
//!
//! No other layer repeats requests. The SDK's own retry is off: only this layer knows what a repeated conditional write
//! means, and two layers would multiply their attempts and hide them from counters and limits.
//!
//! - Only errors with [`StoreError::is_retryable`] are repeated, with exponential backoff and jitter, until the
//!   deadline or the number of attempts is reached. The last error is returned as it is.
//! - A write in [`PutMode::Create`] that gets "already exists" after an attempt of unknown outcome is judged by the
//!   stored bytes. If they are equal, the name holds what we should store: success, no matter who wrote it. The same
//!   applies to completing an upload, where the store may also say that it no longer knows the upload.
//! - A range that is shorter than requested is an interrupted transfer and is read again.
//! - An object that does not match its checksum may have been changed on the way, and is read once more. If it is
//!   damaged in the store, the second read shows the same.
//!
//! If a future of this store is dropped, the repetition stops; the state is the same as after one dropped attempt.

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use super::hurry::{Hurry, SILENCE};
use super::pace::{Pace, SystemPace};
use crate::compare::same_content;
use crate::{
    Failure, FolderPage, ListPage, LockTerm, NextUploads, ObjectInfo, ObjectName, Operation, PutMode, Store,
    StoreError, StoreErrorKind, Trials, UnfinishedPage, UnfinishedUpload, Upload,
};

/// From this attempt on the log says so at warning level: one or two failures are normal with object stores.
const WARN_FROM_ATTEMPT: u32 = 3;

/// How often and how long failed attempts are repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The pause after the first failure; it doubles with every further one.
    pub initial_backoff: Duration,
    /// The longest pause.
    pub max_backoff: Duration,
    /// No attempt begins later than this after the start of the first.
    pub deadline: Duration,
    /// The deadline if nothing listens at the store's address, because then only a restart of the server helps; and for
    /// a caller in a [`Hurry`].
    pub refused_deadline: Duration,
    /// The maximum number of attempts, with the first.
    pub max_attempts: u32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            initial_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(5),
            deadline: Duration::from_mins(1),
            refused_deadline: Duration::from_mins(1),
            max_attempts: 12,
        }
    }
}

impl RetryPolicy {
    /// One attempt, no repetition.
    pub fn never() -> Self {
        Self { max_attempts: 1, ..Self::default() }
    }

    /// The pause after failed attempt `attempt` (from 1): half of it fixed, half by `jitter` in `0.0..1.0`.
    pub fn backoff(&self, attempt: u32, jitter: f64) -> Duration {
        let doubled = 2_u32.saturating_pow(attempt.saturating_sub(1));
        let full = self.initial_backoff.saturating_mul(doubled).min(self.max_backoff);
        full.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
    }
}

/// Repeats failed requests of the store inside. See the module's documentation.
#[derive(Clone, Debug)]
pub struct Retry {
    inner: Arc<dyn Store>,
    policy: RetryPolicy,
    pace: Arc<dyn Pace>,
    hurry: Hurry,
    /// Whether the store's connections count their bytes in `hurry`.
    by_network: bool,
}

/// A result, and whether attempts of unknown outcome came before it.
struct Outcome<T> {
    result: Result<T, StoreError>,
    after_doubt: bool,
}

impl Retry {
    /// Wraps a store, with the real clock.
    pub fn new(inner: Arc<dyn Store>, policy: RetryPolicy) -> Self {
        Self::with_pace(inner, policy, Arc::new(SystemPace::new()))
    }

    /// Wraps a store, with the given clock.
    pub fn with_pace(inner: Arc<dyn Store>, policy: RetryPolicy, pace: Arc<dyn Pace>) -> Self {
        Self { inner, policy, pace, hurry: Hurry::default(), by_network: false }
    }

    /// The same, for a caller that may have little time.
    #[must_use]
    pub fn in_hurry(self, hurry: Hurry) -> Self {
        Self { hurry, ..self }
    }

    /// The same, for a store whose connections count their bytes in the hurry. A request is given up if the server
    /// accepts it and does not answer. A directory counts steps instead of bytes, and gives up its operations itself.
    #[must_use]
    pub fn by_network(self) -> Self {
        Self { by_network: true, ..self }
    }

    /// Returns if the caller is in a hurry and no byte has moved for [`SILENCE`].
    async fn silence(&self) {
        if self.by_network {
            self.hurry.silence(self.pace.as_ref()).await;
        } else {
            std::future::pending::<()>().await;
        }
    }

    /// Reads an object; reads it once more if the bytes do not match the checksum.
    async fn get_right<F>(&self, name: &ObjectName, once: impl Fn() -> F + Send + Sync) -> Result<Bytes, StoreError>
    where
        F: Future<Output = Result<Bytes, StoreError>> + Send,
    {
        match self.run(Operation::Get, name.as_str(), &once).await.result {
            Err(error) if error.kind() == StoreErrorKind::Corrupt => {
                tracing::warn!(%name, %error, "an object did not arrive intact and is fetched once more");
                self.run(Operation::Get, name.as_str(), &once).await.result
            }
            result => result,
        }
    }

    async fn run<T, F>(
        &self,
        operation: Operation,
        name: &str,
        attempt_once: impl Fn() -> F + Send + Sync,
    ) -> Outcome<T>
    where
        T: Send,
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        let start = self.pace.now();
        let mut attempt = 0;
        loop {
            attempt += 1;
            let attempted = tokio::select! {
                biased;
                result = attempt_once() => result,
                () = self.silence() => Err(StoreError::new(
                    StoreErrorKind::Unreachable,
                    Failure {
                        store: self.inner.describe(),
                        name: name.to_owned(),
                        operation,
                        detail: format!("no byte came or went for {SILENCE:?}, and the server is stopping"),
                        source: None,
                    },
                )),
            };
            let error = match attempted {
                Err(error) if error.is_retryable() => error,
                result => {
                    return Outcome { result, after_doubt: attempt > 1 };
                }
            };
            let pause = self.policy.backoff(attempt, self.pace.jitter());
            let elapsed = self.pace.now().saturating_sub(start);
            let deadline = if self.hurry.has_begun() || nobody_listens(&error) {
                self.policy.deadline.min(self.policy.refused_deadline)
            } else {
                self.policy.deadline
            };
            if attempt >= self.policy.max_attempts || elapsed + pause > deadline {
                tracing::debug!(%operation, name, attempt, ?elapsed, %error, "giving up");
                return Outcome { result: Err(error), after_doubt: true };
            }
            if attempt >= WARN_FROM_ATTEMPT {
                tracing::warn!(%operation, name, attempt, ?pause, %error, "request failed again, repeating it");
            } else {
                tracing::debug!(%operation, name, attempt, ?pause, %error, "request failed, repeating it");
            }
            self.pace.sleep(pause).await;
        }
    }

    /// Success if the object holds the bytes to be written, else the error that caused the doubt.
    async fn resolve(
        &self,
        doubt: StoreError,
        name: &ObjectName,
        size_bytes: u64,
        crc32c: u32,
    ) -> Result<(), StoreError> {
        match same_content(self, name, size_bytes, crc32c).await {
            Ok(true) => {
                tracing::debug!(%name, "an attempt whose answer was lost had stored the object");
                Ok(())
            }
            Ok(false) => Err(doubt),
            // It is absent: nothing of ours was stored, so the first answer is right.
            Err(error) if error.kind() == StoreErrorKind::NotFound => Err(doubt),
            Err(error) => Err(error),
        }
    }
}

/// Whether the connection was refused at once: the machine answers and no server runs there, or no route leads to it.
fn nobody_listens(error: &StoreError) -> bool {
    let mut below: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    while let Some(cause) = below {
        let io = cause.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| {
            use std::io::ErrorKind as Io;
            matches!(io.kind(), Io::ConnectionRefused | Io::HostUnreachable | Io::NetworkUnreachable)
        }) {
            return true;
        }
        // `io::Error` hides what it wraps from `source` of some layers.
        below = match io.and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => cause.source(),
        };
    }
    false
}

#[async_trait]
impl Store for Retry {
    async fn put(&self, name: &ObjectName, body: Bytes, mode: PutMode) -> Result<(), StoreError> {
        let outcome = self.run(Operation::Put, name.as_str(), || self.inner.put(name, body.clone(), mode)).await;
        match outcome.result {
            Err(error)
                if mode == PutMode::Create && outcome.after_doubt && error.kind() == StoreErrorKind::AlreadyExists =>
            {
                self.resolve(error, name, body.len() as u64, crc32c::crc32c(&body)).await
            }
            result => result,
        }
    }

    async fn get(&self, name: &ObjectName) -> Result<Bytes, StoreError> {
        self.get_right(name, || self.inner.get(name)).await
    }

    async fn get_at_most(&self, name: &ObjectName, most: u64) -> Result<Bytes, StoreError> {
        self.get_right(name, || self.inner.get_at_most(name, most)).await
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        let wanted = range.end.saturating_sub(range.start);
        self.run(Operation::GetRange, name.as_str(), || async {
            let bytes = self.inner.get_range(name, range.clone()).await?;
            if bytes.len() as u64 == wanted {
                return Ok(bytes);
            }
            Err(StoreError::new(
                StoreErrorKind::Unreachable,
                Failure {
                    store: self.inner.describe(),
                    name: name.to_string(),
                    operation: Operation::GetRange,
                    detail: format!("{} bytes came instead of {wanted}", bytes.len()),
                    source: None,
                },
            ))
        })
        .await
        .result
    }

    async fn get_tail(&self, name: &ObjectName, bytes: u64) -> Result<(Bytes, u64), StoreError> {
        self.run(Operation::GetTail, name.as_str(), || self.inner.get_tail(name, bytes)).await.result
    }

    async fn head(&self, name: &ObjectName) -> Result<ObjectInfo, StoreError> {
        self.run(Operation::Head, name.as_str(), || self.inner.head(name)).await.result
    }

    async fn list_page(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        next: Option<&str>,
    ) -> Result<ListPage, StoreError> {
        self.run(Operation::List, prefix, || self.inner.list_page(prefix, start_after, next)).await.result
    }

    async fn list_folders_page(&self, prefix: &str, next: Option<&str>) -> Result<FolderPage, StoreError> {
        self.run(Operation::ListFolders, prefix, || self.inner.list_folders_page(prefix, next)).await.result
    }

    async fn delete_some(&self, names: &[ObjectName]) -> Result<usize, StoreError> {
        let first = names.first().map_or("", ObjectName::as_str);
        self.run(Operation::Delete, first, || self.inner.delete_some(names)).await.result
    }

    async fn begin_upload(&self, name: &ObjectName, mode: PutMode) -> Result<Box<dyn Upload>, StoreError> {
        // An upload whose answer was lost remains without parts; it costs nothing, and lifecycle rules remove it.
        let inner =
            self.run(Operation::BeginUpload, name.as_str(), || self.inner.begin_upload(name, mode)).await.result?;
        Ok(Box::new(RetryUpload { retry: self.clone(), inner, name: name.clone(), mode, parts: Mutex::default() }))
    }

    async fn trials(&self, scratch: &ObjectName) -> Result<Trials, StoreError> {
        self.run(Operation::Put, scratch.as_str(), || self.inner.trials(scratch)).await.result
    }

    async fn unfinished_page(
        &self,
        prefix: &str,
        next: Option<&NextUploads>,
    ) -> Result<Option<UnfinishedPage>, StoreError> {
        self.run(Operation::List, prefix, || self.inner.unfinished_page(prefix, next)).await.result
    }

    async fn abort_unfinished(&self, upload: &UnfinishedUpload) -> Result<(), StoreError> {
        self.run(Operation::Abort, upload.name.as_str(), || self.inner.abort_unfinished(upload)).await.result
    }

    fn lock(&self) -> Option<LockTerm> {
        self.inner.lock()
    }

    async fn locked_until(&self, name: &ObjectName) -> Result<Option<SystemTime>, StoreError> {
        self.run(Operation::Head, name.as_str(), || self.inner.locked_until(name)).await.result
    }

    async fn lock_until(&self, name: &ObjectName, end: SystemTime) -> Result<(), StoreError> {
        self.run(Operation::Lock, name.as_str(), || self.inner.lock_until(name, end)).await.result
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

/// An upload that keeps size and CRC-32C of its parts, to recognise its object after a lost answer.
#[derive(Debug)]
struct RetryUpload {
    retry: Retry,
    inner: Box<dyn Upload>,
    name: ObjectName,
    mode: PutMode,
    parts: Mutex<BTreeMap<u32, (usize, u32)>>,
}

impl RetryUpload {
    fn whole(&self) -> (u64, u32) {
        let parts = self.parts.lock();
        parts.values().fold((0, 0), |(size, crc), (part_size, part_crc)| {
            (size + *part_size as u64, crc32c::crc32c_combine(crc, *part_crc, *part_size))
        })
    }
}

#[async_trait]
impl Upload for RetryUpload {
    async fn part(&self, number: u32, body: Bytes) -> Result<(), StoreError> {
        let summary = (body.len(), crc32c::crc32c(&body));
        let attempt = || self.inner.part(number, body.clone());
        self.retry.run(Operation::Part, self.name.as_str(), attempt).await.result?;
        self.parts.lock().insert(number, summary);
        Ok(())
    }

    async fn try_complete(&self) -> Result<(), StoreError> {
        let attempt = || self.inner.try_complete();
        let outcome = self.retry.run(Operation::Complete, self.name.as_str(), attempt).await;
        match outcome.result {
            Err(error)
                if outcome.after_doubt
                    && (error.kind() == StoreErrorKind::NotFound
                        || (error.kind() == StoreErrorKind::AlreadyExists && self.mode == PutMode::Create)) =>
            {
                let (size_bytes, crc32c) = self.whole();
                self.retry.resolve(error, &self.name, size_bytes, crc32c).await
            }
            result => result,
        }
    }

    async fn try_abort(&self) -> Result<(), StoreError> {
        let attempt = || self.inner.try_abort();
        self.retry.run(Operation::Abort, self.name.as_str(), attempt).await.result
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::super::pace::VirtualPace;
    use super::*;
    use crate::MemoryStore;

    /// The number of attempts for an error of this cause, with a clock that only pauses move.
    async fn attempts(cause: std::io::ErrorKind) -> u32 {
        attempts_in_hurry(cause, u32::MAX).await
    }

    /// The same, for a caller whose hurry begins during attempt `begins`.
    async fn attempts_in_hurry(cause: std::io::ErrorKind, begins: u32) -> u32 {
        let policy =
            RetryPolicy { refused_deadline: Duration::from_secs(5), max_attempts: 100, ..RetryPolicy::default() };
        let hurry = Hurry::default();
        let retry = Retry::with_pace(Arc::new(MemoryStore::new()), policy, Arc::new(VirtualPace::new(1)));
        let retry = retry.in_hurry(hurry.clone());
        let made = std::sync::atomic::AtomicU32::new(0);
        let outcome = retry
            .run(Operation::Get, "a", || async {
                if made.fetch_add(1, Ordering::Relaxed) + 1 == begins {
                    hurry.begin();
                }
                let source = std::io::Error::other(std::io::Error::from(cause));
                Err::<(), _>(StoreError::new(
                    StoreErrorKind::Unreachable,
                    Failure {
                        store: "s3://bucket".to_owned(),
                        name: "a".to_owned(),
                        operation: Operation::Get,
                        detail: String::new(),
                        source: Some(Box::new(source)),
                    },
                ))
            })
            .await;
        assert!(outcome.result.is_err());
        made.into_inner()
    }

    #[tokio::test]
    async fn a_refused_connection_is_given_up_sooner_than_a_broken_one() {
        use std::io::ErrorKind as Io;
        let refused = attempts(Io::ConnectionRefused).await;
        assert!((4..10).contains(&refused), "{refused}");
        assert_eq!(attempts(Io::HostUnreachable).await, refused);
        let broken = attempts(Io::ConnectionReset).await;
        assert!(broken > 2 * refused, "{broken} and {refused}");
    }

    #[tokio::test]
    async fn a_hurry_counts_from_its_first_moment_on() {
        use std::io::ErrorKind as Io;
        let refused = attempts(Io::ConnectionRefused).await;
        assert_eq!(attempts_in_hurry(Io::ConnectionReset, 1).await, refused, "from the beginning");
        let late = refused + 3;
        assert_eq!(attempts_in_hurry(Io::ConnectionReset, late).await, late, "the time is over when it begins");
    }

    /// How long a caller in a hurry waits for a store whose requests never end, by the clock of the pauses.
    async fn asked_for(retry: Retry, hurry: &Hurry, moving: impl Fn() + Sync) -> Duration {
        let retry = retry.in_hurry(hurry.clone());
        hurry.begin();
        let request = retry.run(Operation::Get, "a", || async {
            loop {
                moving();
                retry.pace.sleep(Duration::ZERO).await;
                if retry.pace.now() > Duration::from_mins(1) {
                    return Ok(());
                }
            }
        });
        let result = request.await.result;
        let elapsed = retry.pace.now();
        assert_eq!(result.is_ok(), elapsed > Duration::from_mins(1), "{result:?}");
        elapsed
    }

    #[tokio::test]
    async fn a_caller_in_a_hurry_waits_for_bytes_that_come_and_not_for_silence() {
        let policy = RetryPolicy { refused_deadline: Duration::from_secs(5), ..RetryPolicy::default() };
        let retry = || Retry::with_pace(Arc::new(MemoryStore::new()), policy, Arc::new(VirtualPace::new(1)));
        let hurry = Hurry::default();
        let silent = asked_for(retry().by_network(), &hurry, || ()).await;
        assert!((SILENCE..SILENCE + Duration::from_secs(1)).contains(&silent), "{silent:?}");
        asked_for(retry().by_network(), &hurry, || hurry.moved(1)).await;
    }

    #[test]
    fn backoff_doubles_up_to_its_limit_and_keeps_half_fixed() {
        let policy = RetryPolicy::default();
        let milliseconds = |attempt, jitter| policy.backoff(attempt, jitter).as_millis();
        assert_eq!(milliseconds(1, 0.0), 50);
        assert_eq!(milliseconds(1, 1.0), 100);
        assert_eq!(milliseconds(2, 1.0), 200);
        assert_eq!(milliseconds(4, 0.0), 400);
        assert_eq!(milliseconds(30, 1.0), 5000);
        assert_eq!(milliseconds(u32::MAX, 1.0), 5000);
    }
}
