//! `repo init`, `repo claim` and `repo info`.

use super::answers::{Answer, Answers};
use super::unreadable::Remarks;
use super::{Context, command_line, places, root, targets, time};
use crate::config::repository::{KeySource, Repository as Configured};
use crate::exit_code::ExitCode;
use crate::failure::{Explain, Failure};
use crate::output::table::{Align, Table};
use holdfast_contract::report::RepositoryDescription;
use holdfast_contract::report::repo::{
    ClaimReport, ClaimedRepository, ClusterClaims, InitReport, InitialisedRepository, RepoInfoReport,
    RepositoryClusters,
};
use holdfast_engine::Cause;
use holdfast_engine::archive::Spool;
use holdfast_engine::repository::claim::{Claimant, Identity};
use holdfast_engine::repository::{Repository, RepositoryTarget, begin, init as engine};
use holdfast_engine::server::read_control_file;
use holdfast_repo::name::ClusterName;
use holdfast_repo::record::{
    Checksums, ClaimRecord, ConditionalCreate, LockProof, LockedUploads, ObjectLock, RepositoryRecord, Uploads,
};
use holdfast_secret::Secret;
use std::fmt::Write;

const EMULATED: &str = "ignores conditional writes: Holdfast checks each name before it writes instead, which does not \
                        protect against two writers at the same instant; let only one server archive into it";

const WHOLE: &str = "does not support multipart uploads: packs are kept small, and each object is held in memory and \
                     sent in one request";

/// Creates every repository and claims the cluster's archive, if the data directory can be read.
pub(super) async fn init(context: &Context, new_claim: bool) -> Result<ExitCode, Failure> {
    let cluster = &context.config.cluster.name;
    if let Some(pgdata) = &context.config.cluster.pgdata {
        places::refuse_repositories_in(context, pgdata)?;
    }
    let claimant = claimant(context, new_claim)?;
    let (mut text, mut repositories) = (String::new(), Vec::new());
    for configured in &context.config.repositories {
        let target = made_target(context, configured).await?;
        let made = engine::init(&target, time::now()).await?;
        let repository = &made.repository;
        if made.created {
            forget_marks(context)?;
            warn_of_passphrase(context, configured)?;
        }
        let claim = match &claimant {
            None => repository.newest_claim(cluster).await?,
            Some(claimant) if new_claim => Some(repository.take_next_claim(cluster, claimant).await?),
            Some(claimant) => Some(repository.take_claim(cluster, claimant).await?),
        };
        warn_of_store(context, repository);
        text.push_str(&init_text(repository, made.created, cluster, claim.as_ref()));
        let (description, created_now) = (description(repository), made.created);
        repositories.push(InitialisedRepository { description, created_now, claim });
    }
    context.warn_of_open_secrets();
    let archive_command = command_line::of_self(context, "wal push \"%p\"")?;
    context.print(
        || {
            let _ = write!(
                text,
                "\nnext, in postgresql.conf (archive_mode needs a restart):\n  wal_level = replica\n  archive_mode = on\n  {}\n\
                 then `holdfast check`, and `holdfast backup`\n",
                command_line::setting("archive_command", &archive_command)
            );
            if !context.variables.is_empty() {
                let _ = writeln!(text, "the server's environment needs {} as well", context.variables.join(", "));
            }
            text
        },
        &InitReport { cluster: cluster.clone(), repositories, archive_command: archive_command.clone() },
    )?;
    Ok(ExitCode::Ok)
}

/// Opens a repository and creates its directory if it is missing.
async fn made_target(context: &Context, configured: &Configured) -> Result<RepositoryTarget, Failure> {
    let made = root::before_making(context, configured)?;
    let target = targets::one(configured, targets::Directory::Make, None).await?;
    made.hand_over()?;
    Ok(target)
}

/// A repository was created. If there was another one in its place, the marks may be about that one.
fn forget_marks(context: &Context) -> Result<(), Failure> {
    if let Some(spool) = Spool::existing(&context.config.wal.spool, &context.config.cluster.name) {
        spool.forget_marks()?;
    }
    Ok(())
}

/// Claims the archive for a cluster and its owner, or only checks that it could.
pub(super) async fn claim(context: &Context, check: bool) -> Result<ExitCode, Failure> {
    let config = &context.config.cluster;
    let (cluster, owner) = (&config.name, config.require_owner()?);
    if let Some(pgdata) = &config.pgdata {
        places::refuse_repositories_in(context, pgdata)?;
    }
    let claimant = if check { None } else { claimant(context, true)? };
    let here = claimant
        .as_ref()
        .map_or_else(|| "the cluster that will be created".to_owned(), |claimant| claimant.here.clone());
    let (mut text, mut repositories) = (String::new(), Vec::new());
    let mut prepared = Vec::new();
    // All are checked before the first is claimed.
    for configured in &context.config.repositories {
        let target = made_target(context, configured).await?;
        prepared.push((configured, begin::prepare(&target, cluster, &here, owner, time::now()).await?));
    }
    for (configured, begin::Prepared { repository, made, claim }) in prepared {
        if made {
            forget_marks(context)?;
            warn_of_passphrase(context, configured)?;
        }
        warn_of_store(context, &repository);
        let (claim, claimed_now) = match &claimant {
            None => (claim, false),
            Some(claimant) => {
                let (claim, new) = repository.claim_for_owner(cluster, claimant, owner).await?;
                (Some(claim), new)
            }
        };
        text.push_str(&init_text(&repository, made, cluster, claim.as_ref()));
        if claim.is_none() {
            let _ = writeln!(text, "  archive {cluster}: empty, free for {owner}");
        }
        let (description, created_now) = (description(&repository), made);
        repositories.push(ClaimedRepository { description, created_now, claimed_now, claim });
    }
    context.print(
        || text,
        &ClaimReport { cluster: cluster.clone(), owner: owner.to_owned(), checked_only: check, repositories },
    )?;
    Ok(ExitCode::Ok)
}

/// A shorter passphrase gets a warning. One that a person invents has about two bits of entropy in each character, and
/// with less than about 40 bits in all it can be guessed (docs/format/keys.md).
const SHORT_PASSPHRASE: usize = 16;

/// Warns about a short passphrase of a repository that was just created, while it is still empty.
fn warn_of_passphrase(context: &Context, configured: &Configured) -> Result<(), Failure> {
    let KeySource::Passphrase(passphrase) = configured.encryption.key_source(targets::variable)? else { return Ok(()) };
    let instead =
        "create the repository again with a key file (`openssl rand -hex 32`, `encryption = { key_file = \"...\" }`)";
    warn_of_short(context, &format!("the passphrase of {}", configured.location()), &passphrase, instead);
    Ok(())
}

/// Warns that a passphrase is short, and says what to do instead.
pub(super) fn warn_of_short(context: &Context, what: &str, passphrase: &Secret<Vec<u8>>, instead: &str) {
    let length = passphrase.to_text().expose().chars().count();
    if length < SHORT_PASSPHRASE {
        context.warn(&format!(
            "{what} has {length} characters: anyone who can read the bucket can try passphrases without limit; {instead}, or \
             with a random passphrase of {SHORT_PASSPHRASE} characters or more"
        ));
    }
}

/// Warns about what the store cannot do, and says what follows from that.
fn warn_of_store(context: &Context, repository: &Repository) {
    let (record, url) = (repository.record(), repository.describe());
    if record.conditional_create == ConditionalCreate::Emulated {
        context.warn(&format!("{url} {EMULATED}"));
    }
    if record.store.is_some_and(|store| store.uploads == Uploads::Whole) {
        context.warn(&format!("{url} {WHOLE}"));
    }
}

/// The claimant of the archive; `None` if there is no data directory (yet).
fn claimant(context: &Context, required: bool) -> Result<Option<Claimant>, Failure> {
    let pgdata = match &context.config.cluster.pgdata {
        None if required => {
            return Err(context
                .config
                .cluster
                .require_pgdata()
                .map_or_else(Into::into, |_| Failure::internal("the data directory is set and is not")));
        }
        None => return Ok(None),
        Some(pgdata) => pgdata,
    };
    match read_control_file(pgdata) {
        Ok(control) => Ok(Some(Claimant {
            identity: Identity::of_control_file(&control),
            here: format!("the data directory {}", pgdata.display()),
            owner: context.config.cluster.owner.clone(),
            wal_codec: context.config.wal.compression.codec(),
            host: time::host(),
            now: time::now(),
        })),
        // An archive that this cluster could never use is not prepared for it.
        Err(error) if required || matches!(*error.what, Cause::UnsupportedVersion(_)) => Err(error.into()),
        Err(error) => {
            context.warn(&format!(
                "the archive is not claimed for a cluster yet: {}; the first `wal push` or `backup` will claim it",
                error.explain()
            ));
            Ok(None)
        }
    }
}

fn init_text(repository: &Repository, created: bool, cluster: &ClusterName, claim: Option<&ClaimRecord>) -> String {
    let record = repository.record();
    let mut text = format!(
        "{}: {}\n  repository id       {}\n  encryption          {}\n{}",
        repository.describe(),
        if created { "created" } else { "exists already, and matches the configuration" },
        record.repository_id,
        record.encryption,
        store_lines(record),
    );
    if let Some(claim) = claim {
        let _ = writeln!(text, "  archive {cluster}: {}", claim_text(claim));
    }
    text
}

fn claim_text(claim: &ClaimRecord) -> String {
    format!(
        "claim {} of PostgreSQL {}, system identifier {}, since {}",
        claim.number,
        claim.pg_major,
        claim.system_identifier,
        time::shown(claim.since)
    ) + &claim.owner.as_ref().map(|owner| format!(", for {owner}")).unwrap_or_default()
}

/// What is known of the store; what works normally is one line.
fn store_lines(record: &RepositoryRecord) -> String {
    let mut text = format!("  conditional writes  {}\n", conditional(record.conditional_create));
    let Some(store) = record.store else {
        text.push_str("  store's checksums   never tried, not trusted\n");
        return text;
    };
    if store.uploads == Uploads::Whole {
        text.push_str("  multipart uploads   do not work, objects are sent whole\n");
    } else if store.conditional_complete != record.conditional_create {
        let _ = writeln!(text, "  multipart uploads   conditional writes {}", conditional(store.conditional_complete));
    }
    if store.checksums == Checksums::NotCompared {
        text.push_str("  store's checksums   not trusted, objects are fetched to compare\n");
    }
    if let Some(ObjectLock { mode, days, proof, uploads }) = store.object_lock {
        let proof = match proof {
            LockProof::Enforced => "the store refused to delete a locked object",
            LockProof::Dates => "the store keeps the dates; whether it refuses to delete was not tried",
        };
        let later = match uploads {
            LockedUploads::AtCreation => "",
            LockedUploads::Afterwards => "; objects uploaded in parts are locked after their upload",
        };
        let _ = writeln!(text, "  object lock         {}, {days} days: {proof}{later}", mode.as_str());
    }
    text
}

pub(super) fn conditional(how: ConditionalCreate) -> &'static str {
    match how {
        ConditionalCreate::Native => "native",
        ConditionalCreate::Emulated => "emulated",
    }
}

/// The description of a repository, for reports.
pub(super) fn description(repository: &Repository) -> RepositoryDescription {
    RepositoryDescription::of(repository.describe(), repository.record())
}

/// Shows the configured repositories. If one cannot be opened, the command fails after the others were shown.
pub(super) async fn info(context: &Context) -> Result<ExitCode, Failure> {
    let mut answers = Answers::new();
    for (url, opened) in targets::opened(context).await {
        let answer = async { info_of(&opened?).await };
        answers.add("", url, answer.await);
    }
    answers.print(context, |repositories| RepoInfoReport { repositories })
}

async fn info_of(repository: &Repository) -> Answer<RepositoryClusters> {
    let record = repository.record();
    let mut table = Table::new([
        ("CLUSTER", Align::Left),
        ("CLAIM", Align::Right),
        ("POSTGRESQL", Align::Right),
        ("SYSTEM IDENTIFIER", Align::Left),
        ("SINCE", Align::Left),
    ]);
    let mut clusters = Vec::new();
    let mut remarks = Remarks::default();
    remarks.note("key slot", repository.slots_left_out());
    remarks.note("key slot", &repository.further_slots_left_out().await?);
    for cluster in repository.clusters().await? {
        let claims = remarks.sound(&format!("claim on {cluster}:"), repository.claims(&cluster).await?);
        if claims.is_empty() {
            continue;
        }
        for claim in &claims {
            table.row([
                cluster.to_string(),
                claim.number.to_string(),
                claim.pg_major.to_string(),
                claim.system_identifier.to_string(),
                time::shown(claim.since),
            ]);
        }
        clusters.push(ClusterClaims { name: cluster, claims });
    }
    let mut text = format!(
        "{}\n  repository id       {}\n  created             {}\n  encryption          {}\n{}",
        repository.describe(),
        record.repository_id,
        time::shown(record.created),
        record.encryption,
        store_lines(record),
    );
    if table.is_empty() {
        text.push_str("no cluster archives here yet\n");
    } else {
        text.push_str(&table.render());
    }
    text.push_str(&remarks.text(""));
    let described =
        RepositoryClusters { description: description(repository), clusters, unreadable: remarks.records() };
    Ok((text, described, remarks.fatal()))
}
