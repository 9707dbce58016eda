//! Carries a WAL file. It is read as by `wal get`, compressed as the other repository's claim says, and sealed there.
//!
//! It is created as by `wal push`. If its name is taken, equal content is success. Different content is a divergence,
//! and is recorded in the ledger.

use chrono::{DateTime, Utc};
use holdfast_pgtypes::WalFileName;
use holdfast_repo::codec::Compression;
use holdfast_repo::name;
use holdfast_repo::record::{ClaimRecord, LedgerEntry, sha256_hex};
use holdfast_repo::wal_object::{self, WalObjectFacts};

use super::{Carrier, Placing};
use crate::archive::{look_at, memory_needed, read_whole, stored_facts, wal_object_name};
use crate::error::{Cause, Error, ResultExt};
use crate::repository::confirm::{Sent, confirm, confirm_created};
use crate::repository::object_name;

/// A WAL file, with the claims of its cluster in both repositories.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WalFile<'a> {
    pub(crate) file: WalFileName,
    /// The claim in the first repository.
    pub(crate) from: &'a ClaimRecord,
    /// The claim in the second repository.
    pub(crate) to: &'a ClaimRecord,
}

/// The result for a WAL file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CarriedWal {
    /// It was stored. The size of the object in bytes.
    Stored(u64),
    /// It was already there, with the same content.
    AlreadyThere,
    /// The first repository does not have it.
    Absent,
}

impl Carrier {
    /// Creates a WAL file in the second repository. The host and the time are for the ledger.
    ///
    /// # Errors
    /// [`Cause::Divergence`] if the second repository has different content under its name; what is wrong with the
    /// object in the first one; errors of the stores.
    pub(crate) async fn carry_wal(
        &self,
        wal: WalFile<'_>,
        host: &str,
        now: DateTime<Utc>,
    ) -> Result<CarriedWal, Error> {
        let carried = self.carry_wal_inner(wal, Placing::Create, Some((host, now))).await;
        carried.doing(|| format!("carrying {} from {} to {}", wal.file, self.from.describe(), self.to.describe()))
    }

    /// Puts a WAL file in the place of a missing or damaged one. If that one is sound by now, it is not replaced.
    ///
    /// # Errors
    /// Those of [`Carrier::carry_wal`].
    pub(crate) async fn bring_wal_back(&self, wal: WalFile<'_>, placing: Placing) -> Result<CarriedWal, Error> {
        if placing == Placing::Replace {
            let _permit = self.budget.acquire(memory_needed(wal.to, wal.file)).await;
            if let Ok(Some(_)) = look_at(&self.to, wal.to, &wal.file, &self.means.crew).await {
                return Ok(CarriedWal::AlreadyThere);
            }
        }
        let carried = self.carry_wal_inner(wal, placing, None).await;
        carried.doing(|| format!("bringing {} back from {}", wal.file, self.from.describe()))
    }

    async fn carry_wal_inner(
        &self,
        wal: WalFile<'_>,
        placing: Placing,
        ledger: Option<(&str, DateTime<Utc>)>,
    ) -> Result<CarriedWal, Error> {
        self.check_cancelled()?;
        let WalFile { file, from, to } = wal;
        // The memory for the object and its file, in the form of each repository.
        let _permit = self.budget.acquire(2 * memory_needed(from, file)).await;
        let source = wal_object_name(&self.from, self.cluster(), from, &file);
        let Some((raw, facts)) = read_whole(&self.from, from, &source, &file, &self.means.crew).await? else {
            return Ok(CarriedWal::Absent);
        };
        let object = wal_object_name(&self.to, self.cluster(), to, &file);
        let compression = Compression::of(name::wal_codec(&file, to.wal_codec));
        let (name, repository, known) = (object.clone(), self.to.clone(), facts.facts.clone());
        let sealed = self.means.crew.run(move || {
            let (id, key) = (repository.id(), repository.key());
            let sealed = wal_object::encode(&name, &file.to_string(), &raw, compression, id, key, known)?;
            Ok::<_, Error>((sealed, raw))
        });
        let (body, raw) = sealed.await??;
        self.to.check_writable()?;
        let sent = Sent { size_bytes: body.len() as u64, crc32c: crc32c::crc32c(&body) };
        match self.to.store().put(&object_name(&object)?, body, placing.into()).await.map_err(Error::from) {
            Ok(()) => {
                match placing {
                    Placing::Create => confirm_created(&self.to, &object, sent, facts.raw_len).await?,
                    Placing::Replace => confirm(&self.to, &object, sent).await?,
                }
                Ok(CarriedWal::Stored(sent.size_bytes))
            }
            Err(error) if error.is_already_exists() => {
                self.compare_here(wal, &object, &raw, &facts, ledger).await.map(|()| CarriedWal::AlreadyThere)
            }
            Err(error) => Err(error),
        }
    }

    /// Compares the file with the object that has its name in the second repository.
    async fn compare_here(
        &self,
        wal: WalFile<'_>,
        object: &str,
        raw: &[u8],
        facts: &WalObjectFacts,
        ledger: Option<(&str, DateTime<Utc>)>,
    ) -> Result<(), Error> {
        let there = read_whole(&self.to, wal.to, object, &wal.file, &self.means.crew).await?;
        let there = there.ok_or_else(|| Cause::Absent { file: wal.file.to_string() })?;
        if (there.1.blake3, there.1.raw_len) == (facts.blake3, facts.raw_len) {
            return Ok(());
        }
        if let Some((host, now)) = ledger {
            let (stored_sha256, offered_sha256) = (sha256_hex(&there.0), sha256_hex(raw));
            let entry = LedgerEntry::Divergence { claim: wal.to.number, file: wal.file, stored_sha256, offered_sha256 };
            // The caller must get the divergence itself as the error.
            if let Err(error) = self.to.write_ledger(self.cluster(), host, now, entry).await {
                tracing::warn!(file = %wal.file, %error, "the divergence could not be written to the ledger");
            }
        }
        Err(self.divergence(object, there.1.blake3.to_string(), facts))
    }

    /// Compares a WAL file that both repositories have, by the facts in their objects. The files are not read. Returns
    /// `false` if one of them does not have it.
    ///
    /// # Errors
    /// [`Cause::Divergence`] if they differ; what is wrong with either object; those of the stores.
    pub(crate) async fn compare_wal(&self, wal: WalFile<'_>) -> Result<bool, Error> {
        let (source, object) = (
            wal_object_name(&self.from, self.cluster(), wal.from, &wal.file),
            wal_object_name(&self.to, self.cluster(), wal.to, &wal.file),
        );
        let facts = tokio::try_join!(stored_facts(&self.from, &source), stored_facts(&self.to, &object))?;
        match facts {
            (Some(from), Some(to)) if (from.blake3, from.raw_len) != (to.blake3, to.raw_len) => {
                Err(self.divergence(&object, to.blake3.to_string(), &from))
                    .doing(|| format!("comparing {} with that of {}", wal.file, self.from.describe()))
            }
            (Some(_), Some(_)) => Ok(true),
            _ => Ok(false),
        }
    }

    fn divergence(&self, object: &str, stored: String, here: &WalObjectFacts) -> Error {
        let (store, name) = (self.to.describe(), object.to_owned());
        Cause::Divergence { store, name, stored, here: here.blake3.to_string() }.into()
    }
}
