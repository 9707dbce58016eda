//! What comes before the first byte: whose archive it is, whether the server can be backed up, and the backup's id.

use std::collections::BTreeSet;

use chrono::SubsecRound;
use holdfast_pgtypes::ControlFile;
use holdfast_pgtypes::checksum::PAGE_SIZE;
use holdfast_repo::name::{self, BackupId};
use holdfast_repo::record::{ClaimRecord, StartRecord};

use super::runner::Runner;
use super::{BackupOptions, remains};
use crate::error::{Error, ServerSetting, What};
use crate::repository::Repository;
use crate::repository::claim::{Claimant, Identity};
use crate::server::ServerFacts;

/// Takes or checks the claim on every archive, before anything else is written.
pub(super) async fn claim_archives(
    repositories: &[Repository],
    options: &BackupOptions,
    control: &ControlFile,
) -> Result<Vec<ClaimRecord>, Error> {
    let claimant = Claimant {
        identity: Identity::of_control_file(control),
        here: format!("the data directory {}", options.pgdata.display()),
        owner: options.owner.clone(),
        wal_codec: options.wal_compression.codec(),
        host: options.host.clone(),
        now: options.now.trunc_subsecs(0),
    };
    let mut claims = Vec::new();
    for repository in repositories {
        claims.push(repository.take_claim(&options.cluster, &claimant).await?);
    }
    Ok(claims)
}

/// Refuses a server that cannot be backed up, and warns of what limits the backup.
pub(super) fn check_server(
    facts: &ServerFacts,
    options: &BackupOptions,
    control: &ControlFile,
    warnings: &mut Vec<String>,
) -> Result<(), Error> {
    facts.check_is_of(&options.pgdata, control.system_identifier)?;
    if facts.wal_level == "minimal" {
        return Err(What::ServerSetting(ServerSetting::WalLevelMinimal).into());
    }
    if !facts.archives() && !facts.in_recovery {
        warnings.push(
            "the server does not archive its WAL (archive_mode, archive_command): this backup can be restored to its \
             own end, and to no later moment"
                .to_owned(),
        );
    }
    if options.page_checks && !control.has_data_checksums() {
        warnings.push("the cluster has no data checksums, so its pages were not checked".to_owned());
    } else if options.page_checks && control.block_size != PAGE_SIZE as u32 {
        let size = control.block_size;
        warnings.push(format!("the cluster has pages of {size} bytes, whose checksums this release cannot check"));
    }
    Ok(())
}

/// Finds an id that no other backup has, by creating its start record in every repository. It is later than those of the
/// dead runs whose remains are removed then, `dead` of each repository: a name never comes back with other content.
pub(super) async fn reserve(
    repositories: &[Repository],
    claims: &[ClaimRecord],
    options: &BackupOptions,
    control: &ControlFile,
    runner: &Runner,
    dead: &[BTreeSet<BackupId>],
) -> Result<BackupId, Error> {
    let after = dead.iter().flatten().max().map(|dead| dead.time() + chrono::TimeDelta::seconds(1));
    let mut time = after.map_or(options.now, |after| after.max(options.now)).trunc_subsecs(0);
    'ids: for _ in 0..60 {
        let backup_id = BackupId::new(time).map_err(|e| What::Internal(e.to_string()))?;
        time += chrono::TimeDelta::seconds(1);
        for (index, (repository, claim)) in repositories.iter().zip(claims).enumerate() {
            let record = StartRecord {
                backup_id,
                cluster: options.cluster.clone(),
                claim: claim.number,
                system_identifier: control.system_identifier,
                host: options.host.clone(),
                pid: std::process::id(),
                pgdata: options.pgdata.display().to_string(),
                started: options.now,
                software_version: env!("CARGO_PKG_VERSION").to_owned(),
                run: Some(runner.identity(dead.get(index).into_iter().flatten().copied().collect())),
            };
            match repository.create_record(&name::backup_start(&options.cluster, &backup_id), &record).await {
                Ok(()) => {}
                Err(error) if error.is_already_exists() => {
                    for earlier in repositories.iter().take(index) {
                        remains::remove(earlier, &options.cluster, backup_id).await?;
                    }
                    continue 'ids;
                }
                Err(error) => return Err(error),
            }
        }
        return Ok(backup_id);
    }
    Err(What::AnotherRun { verb: "backup", subject: options.cluster.to_string(), pid: None }.into())
}
