//! Before the first byte is read: checks who owns the archive and whether the server can be backed up, and reserves the
//! id.

use std::collections::BTreeSet;

use chrono::SubsecRound;
use holdfast_pgtypes::ControlFile;
use holdfast_pgtypes::checksum::PAGE_SIZE;
use holdfast_repo::name::{self, BackupId};
use holdfast_repo::record::{ClaimRecord, RunIdentity, StartRecord};

use super::runner::Runner;
use super::{BackupOptions, FailedBackup, remains};
use crate::error::{Cause, Error, ResultExt as _, ServerSetting};
use crate::progress::Progress;
use crate::repository::claim::{Claimant, Identity};
use crate::repository::{Repository, RepositoryTarget};
use crate::server::ServerFacts;

/// The repositories that could be opened, and those that could not.
pub(super) struct Opened {
    pub(super) repositories: Vec<Repository>,
    /// The claim in each of them.
    pub(super) claims: Vec<ClaimRecord>,
    /// The repositories that are left out.
    pub(super) failed: Vec<FailedBackup>,
}

/// Opens the repositories, and takes or checks the claim on every archive, before anything else is written. A
/// repository that cannot be opened or read is left out if another one is left. An archive of another cluster is always
/// an error: this is the wrong server.
pub(super) async fn open_and_claim(
    targets: &[RepositoryTarget],
    options: &BackupOptions,
    control: &ControlFile,
    progress: &dyn Progress,
) -> Result<Opened, Error> {
    let mut opened = Opened { repositories: Vec::new(), claims: Vec::new(), failed: Vec::new() };
    let mut asked = Vec::new();
    for target in targets {
        match Repository::open_to_write(target).await {
            Ok(repository) => asked.push(repository),
            Err(error) => {
                opened.failed.push(FailedBackup { repository: target.store.describe(), error, may_exist: false });
            }
        }
    }
    let claimant = Claimant {
        identity: Identity::of_control_file(control),
        here: format!("the data directory {}", options.pgdata.display()),
        owner: options.owner.clone(),
        wal_codec: options.wal_compression.codec(),
        host: options.host.clone(),
        now: options.now.trunc_subsecs(0),
    };
    // First the archives that have an owner: if one of them refuses this server, no other archive is begun for it.
    let mut found = Vec::new();
    for repository in asked {
        match existing_claim(&repository, options, &claimant).await {
            Err(error) if ends_the_run(&error) => return Err(error),
            Err(error) if !matches!(&*error.what, Cause::NoClaim { .. }) => {
                opened.failed.push(FailedBackup { repository: repository.describe(), error, may_exist: false });
            }
            claim => found.push((repository, claim)),
        }
    }
    for (repository, claim) in found {
        let claim = match claim {
            Err(_) if options.begins_archives && opened.failed.is_empty() => {
                repository.take_claim(&options.cluster, &claimant).await
            }
            claim => {
                claim.doing(|| "not beginning a new archive, because another repository cannot be reached".to_owned())
            }
        };
        match claim {
            Ok(claim) => {
                opened.repositories.push(repository);
                opened.claims.push(claim);
            }
            Err(error) if ends_the_run(&error) => return Err(error),
            Err(error) => {
                opened.failed.push(FailedBackup { repository: repository.describe(), error, may_exist: false });
            }
        }
    }
    if opened.repositories.is_empty() && !opened.failed.is_empty() {
        let first = opened.failed.remove(0);
        for FailedBackup { repository, error, .. } in &opened.failed {
            progress.note(&format!("the backup also fails in {repository}: {error}"));
        }
        return Err(first.error);
    }
    // Reported only now: if no repository is left, the command fails with the error instead.
    for FailedBackup { repository, error, .. } in &opened.failed {
        progress.note(&format!("the backup continues without {repository}: {error}"));
    }
    Ok(opened)
}

/// The claim of the archive; [`Cause::NoClaim`] if it has none. No new archive is begun while another repository cannot
/// be reached: that one might refuse this server, and nothing else would notice a wrong data directory.
async fn existing_claim(
    repository: &Repository,
    options: &BackupOptions,
    claimant: &Claimant,
) -> Result<ClaimRecord, Error> {
    let found = async {
        let claim = repository.current_claim(&options.cluster).await?;
        repository.check_claim(&claim, claimant)?;
        Ok::<_, Error>(claim)
    };
    found.await.doing(|| format!("checking who owns the archive {} in {}", options.cluster, repository.describe()))
}

/// Whether the error ends the whole run. Every other error is about one repository only.
fn ends_the_run(error: &Error) -> bool {
    matches!(
        &*error.what,
        Cause::WrongCluster { .. }
            | Cause::WrongOwner { .. }
            | Cause::WrongVersion { .. }
            | Cause::Internal(_)
            | Cause::Cancelled
    )
}

/// The errors of repositories before the copy. An error of one repository leaves it out; the backup continues in the
/// others.
pub(super) struct Early<'a> {
    repositories: &'a [Repository],
    progress: &'a dyn Progress,
    errors: Vec<Option<Error>>,
}

impl<'a> Early<'a> {
    pub(super) fn new(repositories: &'a [Repository], progress: &'a dyn Progress) -> Self {
        Self { repositories, progress, errors: repositories.iter().map(|_| None).collect() }
    }

    /// Takes the outcome of a step in one repository. Gives `None` if the repository is left out from now on. An error
    /// of the last repository is returned, and so is an error that is not about a repository.
    pub(super) fn settle<T>(&mut self, index: usize, outcome: Result<T, Error>) -> Result<Option<T>, Error> {
        let error = match outcome {
            Ok(done) => return Ok(Some(done)),
            Err(error) => error,
        };
        let others = self.errors.iter().enumerate().filter(|(at, error)| *at != index && error.is_none());
        if others.count() == 0 || !error.is_of_repository() {
            return Err(error);
        }
        if let Some(repository) = self.repositories.get(index) {
            self.progress.note(&format!("the backup continues without {}: {error}", repository.describe()));
        }
        if let Some(place) = self.errors.get_mut(index) {
            *place = Some(error);
        }
        Ok(None)
    }

    pub(super) fn is_out(&self, index: usize) -> bool {
        self.errors.get(index).is_some_and(Option::is_some)
    }

    pub(super) fn into_errors(self) -> Vec<Option<Error>> {
        self.errors
    }
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
        return Err(Cause::ServerSetting(ServerSetting::WalLevelMinimal).into());
    }
    if !facts.archives() && !facts.in_recovery {
        warnings.push(
            "the server does not archive its WAL (archive_mode, archive_command): this backup can be restored to its \
             own end, but not to a later moment"
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

/// Further content of the start record.
pub(super) struct Reserved<'a> {
    pub(super) control: &'a ControlFile,
    pub(super) runner: &'a Runner,
    pub(super) parent: Option<BackupId>,
    /// For each repository, whether the run has a lease there.
    pub(super) leased: &'a [bool],
}

/// The ids that are in use. The id of a removed backup is also in use while its manifest stays for backups that share
/// its packs: its start record is gone, so creating that record would not fail.
async fn taken(early: &mut Early<'_>, options: &BackupOptions) -> Result<BTreeSet<BackupId>, Error> {
    let mut taken = BTreeSet::new();
    for (index, repository) in early.repositories.iter().enumerate() {
        if !early.is_out(index) {
            let listed = early.settle(index, repository.listed(&options.cluster).await)?;
            let ids = listed.iter().flat_map(|listed| listed.complete().chain(listed.unfinished().map(|(id, _)| id)));
            taken.extend(ids);
        }
    }
    Ok(taken)
}

/// Finds an id that no other backup has, by creating its start record in every repository. The id is later than those
/// of the dead runs in `dead`, whose remains are removed after this: an object name never gets other content.
pub(super) async fn reserve(
    early: &mut Early<'_>,
    claims: &[ClaimRecord],
    options: &BackupOptions,
    reserved: &Reserved<'_>,
    dead: &[BTreeSet<BackupId>],
) -> Result<BackupId, Error> {
    let Reserved { control, runner, parent, leased } = *reserved;
    let after = dead.iter().flatten().max().map(|dead| dead.time() + chrono::TimeDelta::seconds(1));
    let repositories = early.repositories;
    let taken = taken(early, options).await?;
    let mut time = after.map_or(options.now, |after| after.max(options.now)).trunc_subsecs(0);
    'ids: for _ in 0..60 {
        let backup_id = BackupId::new(time).map_err(|e| Cause::Internal(e.to_string()))?;
        time += chrono::TimeDelta::seconds(1);
        if taken.contains(&backup_id) {
            continue;
        }
        for (index, repository) in repositories.iter().enumerate() {
            if !early.is_out(index) {
                // A killed run may have left only packs, because a later backup uses them.
                let folder = name::packs_folder(&options.cluster, &backup_id);
                let packs = repository.store().list_page(&folder, None, None).await.map_err(Error::from);
                let packs = packs.doing(|| format!("looking for packs of {backup_id} in {}", repository.describe()));
                if early.settle(index, packs)?.is_some_and(|packs| !packs.objects.is_empty()) {
                    continue 'ids;
                }
            }
        }
        for (index, (repository, claim)) in repositories.iter().zip(claims).enumerate() {
            if early.is_out(index) {
                continue;
            }
            let identity = runner.identity(dead.get(index).into_iter().flatten().copied().collect());
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
                parent,
                run: Some(RunIdentity { leased: leased.get(index) == Some(&true), ..identity }),
            };
            match repository.create_record(&name::backup_start(&options.cluster, &backup_id), &record).await {
                Ok(()) => {}
                Err(error) if error.is_already_exists() => {
                    for (at, earlier) in repositories.iter().take(index).enumerate() {
                        if early.is_out(at) {
                            continue;
                        }
                        let removed = remains::remove(earlier, &options.cluster, backup_id).await;
                        early.settle(at, removed)?;
                    }
                    continue 'ids;
                }
                Err(error) => {
                    early.settle::<()>(index, Err(error))?;
                }
            }
        }
        return Ok(backup_id);
    }
    Err(Cause::AnotherRun { verb: "backup", subject: options.cluster.to_string(), pid: None }.into())
}
