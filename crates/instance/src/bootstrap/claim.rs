//! Claiming the archive, before anything can be written into it.

use super::Bootstrap;
use crate::error::Result;
use crate::verb::Verb;

impl Bootstrap<'_> {
    /// Whether the cluster has an archive.
    pub fn has_archive(&self) -> bool {
        self.paths.archive_config().exists()
    }

    /// Before any volume is filled: the archive must be empty, or claimed by this cluster.
    ///
    /// # Errors
    /// When it belongs to another cluster, or does not answer.
    pub async fn check_archive(&self) -> Result<()> {
        if !self.has_archive() {
            return Ok(());
        }
        let config = self.paths.archive_config();
        let owner = self.owner();
        let verb = Verb::new(&self.paths.program, &config, ["repo", "claim", "--check", "--owner", &owner]);
        verb.run(self.stop, |_| {}).await?;
        Ok(())
    }

    /// Before the first start that archives.
    ///
    /// # Errors
    /// When another cluster claimed it in the meantime, or it does not answer.
    pub async fn claim_archive(&self) -> Result<()> {
        if !self.has_archive() {
            return Ok(());
        }
        let config = self.paths.archive_config();
        let (owner, pgdata) = (self.owner(), self.paths.pgdata.display().to_string());
        let words = ["repo", "claim", "--pgdata", &pgdata, "--owner", &owner];
        Verb::new(&self.paths.program, &config, words).run(self.stop, |_| {}).await?;
        Ok(())
    }
}
