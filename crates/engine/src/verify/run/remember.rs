//! What a deep verification remembers of its reading: it is written to the ledger every few minutes, so that a run that
//! is killed loses little, and at the end once more, without what no longer exists ([`crate::repository::readings`]).

use tokio::time::Instant;

use super::Run;
use crate::error::Error;
use crate::repository::Repository;
use crate::repository::readings::Writer;
use crate::verify::{BackupChoice, Level, VerifyOptions};

impl Run<'_> {
    /// Whether this run writes down what it reads. A sample would leave a great number of single objects.
    fn remembers_readings(&self) -> bool {
        self.options.remember && self.options.level == Level::Deep && self.options.sample.is_none()
    }

    /// Writes down what was read, if the last time was long ago.
    pub(super) async fn remember_now_and_then(&mut self) {
        let is_time = self.scrub.written.elapsed() >= self.options.remember_every;
        if is_time && self.remembers_readings() && !self.scrub.new.is_empty() {
            let new = std::mem::take(&mut self.scrub.new);
            let (to, sizes) = (writer(self.repository, self.options), self.scrub.sizes.clone());
            let written = self.scrub.known.write(to, &new, &sizes).await;
            self.scrub.written = Instant::now();
            self.note_unremembered(written);
        }
    }

    /// Writes down what was read, at the end of a run.
    pub(in crate::verify) async fn remember_at_the_end(&mut self, is_complete: bool) {
        if !self.remembers_readings() {
            return;
        }
        let new = std::mem::take(&mut self.scrub.new);
        let (to, sizes) = (writer(self.repository, self.options), self.scrub.sizes.clone());
        let written = if is_complete && self.options.which == BackupChoice::All {
            let is_new = !new.is_empty() || self.scrub.known.has_several();
            self.scrub.known.readings.add(&new);
            self.forget_removed();
            if is_new { self.scrub.known.write_all(to, &sizes).await } else { Ok(()) }
        } else if new.is_empty() {
            Ok(())
        } else {
            self.scrub.known.write(to, &new, &sizes).await
        };
        self.note_unremembered(written);
    }

    /// Forgets what no longer exists, so that the entry does not grow for ever.
    fn forget_removed(&mut self) {
        if let Some(named) = self.scrub.named.take() {
            self.scrub.known.readings.keep_packs(|pack| named.contains(&pack));
        }
        for claim in &self.claims {
            self.scrub.known.readings.keep_wal(claim.number(), |timeline| claim.listed(timeline));
        }
    }

    /// With read-only credentials the verification still works.
    pub(super) fn note_unremembered(&mut self, written: Result<(), Error>) {
        if let Err(error) = written
            && !self.cannot_remember
        {
            self.cannot_remember = true;
            let note = format!("what was verified cannot be remembered in the repository: {}", error.what);
            self.findings.notes.push(note);
        }
    }
}

fn writer<'a>(repository: &'a Repository, options: &'a VerifyOptions) -> Writer<'a> {
    Writer { repository, cluster: &options.cluster, host: &options.host, now: options.now }
}
