//! The result of each backup: from the findings, for the report and for the ledger.

use chrono::{DateTime, TimeDelta, Utc};
use futures::FutureExt as _;
use holdfast_contract::report::verify::{BackupResult, DamageKind, Level};
use holdfast_repo::name::{self, BackupId};
use holdfast_store::StoreErrorKind;

use super::Run;
use crate::error::Error;
use crate::repository::object_name;
use crate::repository::verified::{ToRemember, remember};

impl Run<'_> {
    /// Writes the result of a fully checked backup to the ledger.
    pub(super) async fn conclude(&mut self, backup: BackupId) -> Result<(), Error> {
        if self.findings.is_damaged(backup) && self.was_removed(backup).await? {
            self.findings.forget(backup);
            self.findings.notes.push(format!("backup {backup} was removed during the verification"));
            self.asked.remove(&backup);
            return Ok(());
        }
        let (damaged, newer) = (self.findings.is_damaged(backup), self.findings.is_newer(backup));
        let passed_over = self.is_passed_over(backup);
        let deep = self.options.level == Level::Deep && self.options.sample.is_none() && !passed_over;
        let level = if deep { Level::Deep } else { Level::Shallow };
        let Some(asked) = self.asked.get_mut(&backup) else { return Ok(()) };
        asked.is_finished = true;
        asked.report.level = level;
        asked.report.result = match (damaged, newer, passed_over) {
            (true, ..) => BackupResult::Damaged,
            (_, true, _) => BackupResult::Newer,
            (.., true) => BackupResult::PassedOver,
            _ => BackupResult::Sound,
        };
        let is_known = matches!(asked.report.result, BackupResult::Sound | BackupResult::Damaged);
        if !self.options.remember || !is_known {
            return Ok(());
        }
        let elapsed = TimeDelta::from_std(self.began.elapsed()).unwrap_or_default();
        let result = ToRemember {
            backup,
            deep,
            sample_percent: self.options.sample.map(|sample| sample.percent).filter(|_| !passed_over),
            object_count: asked.object_count,
            size_bytes: asked.read_bytes,
            passed_over_count: if deep { asked.passed_over_count } else { 0 },
            damage: self.findings.damage_of(backup).collect(),
            host: &self.options.host,
            time: self.options.now + elapsed,
        };
        let remembered = remember(self.repository, &self.options.cluster, &result).await;
        drop(result);
        if remembered.is_ok()
            && let Some(asked) = self.asked.get_mut(&backup)
        {
            asked.report.recorded = true;
        }
        self.note_unremembered(remembered);
        Ok(())
    }

    /// Whether the backup was removed, by `expire` for example, while it was checked.
    async fn was_removed(&self, backup: BackupId) -> Result<bool, Error> {
        let is_missing = self.findings.damage_of(backup).any(|damage| damage.kind == DamageKind::Missing);
        let has_record = self.asked.get(&backup).is_some_and(|asked| asked.record.is_some());
        if !is_missing || !has_record {
            return Ok(false);
        }
        let name = object_name(&name::backup_summary(&self.options.cluster, &backup))?;
        match self.repository.store().head(&name).await {
            Ok(_) => Ok(false),
            Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Concludes backups again that name a pack which was found damaged only when a later backup was read.
    pub(super) async fn conclude_again(&mut self) -> Result<(), Error> {
        if !self.findings.has_damaged_packs() {
            return Ok(());
        }
        for backup in self.ids() {
            let Some(record) = self.asked.get(&backup).and_then(|asked| asked.record.clone()) else { continue };
            if self.findings.is_damaged(backup) {
                continue;
            }
            let end = match self.repository.manifest_end(&record.manifest.name).await {
                Ok(end) => end,
                Err(error) if error.is_of_one_object() || error.is_newer() => continue,
                Err(error) => return Err(error),
            };
            let mut is_harmed = false;
            for pack in &end.packs {
                is_harmed |= self.findings.harms(&pack.name, backup);
            }
            if is_harmed {
                self.conclude(backup).boxed().await?;
            }
        }
        Ok(())
    }

    fn is_passed_over(&self, backup: BackupId) -> bool {
        let Some(age) = self.options.max_age else { return false };
        if self.asked.get(&backup).is_some_and(|asked| asked.is_due) {
            return false;
        }
        let age = TimeDelta::from_std(age).unwrap_or(TimeDelta::MAX);
        let since = self.options.now.checked_sub_signed(age).unwrap_or(DateTime::<Utc>::MIN_UTC);
        // The findings of this run take precedence.
        self.scrub.damage.verified.is_sound_since(backup, self.options.level, since)
            && !self.findings.is_damaged(backup)
            && !self.findings.is_newer(backup)
    }
}
