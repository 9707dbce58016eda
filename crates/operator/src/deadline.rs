//! A time limit for work: an API server that accepts requests and never answers would block it for ever.

use crate::error::Error;
use std::time::Duration;

/// An API server that takes longer counts as not reachable.
pub(crate) const API_TIMEOUT: Duration = Duration::from_secs(8);

/// The result of the work, within this time. The error says what was being done. The next reconcile finds what was done
/// by then.
pub(crate) async fn within<T>(
    limit: Duration,
    doing: &str,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let late = |_| Err(Error::Slow { doing: doing.to_owned(), seconds: limit.as_secs() });
    tokio::time::timeout(limit, work).await.unwrap_or_else(late)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_that_never_ends_is_named() {
        let never =
            within(Duration::from_secs(8), "reading the pods", std::future::pending::<Result<(), Error>>()).await;
        let said = never.map_err(|error| error.to_string());
        assert_eq!(said, Err("the API server did not answer within 8 s while reading the pods".to_owned()));
    }
}
