//! `info`: what the archive of the cluster can restore now, for the person who has to restore it at three in the
//! morning.
//!
//! For each repository and each claim: its cluster, the backups, the WAL with its gaps, and the windows that can be
//! restored, as the recovery planner sees them. Everything is read from the repository at the time of the call.

use super::answers::{Answer, Answers};
use super::unreadable::Remarks;
use super::{Context, drilled, list, repo, targets, time};
use crate::exit_code::ExitCode;
use crate::failure::{Explain as _, Failure};
use chrono::{DateTime, Utc};
use holdfast_contract::amount::{duration, size};
use holdfast_contract::report::info::{
    Backups, BriefBackup, BriefSnapshot, ClaimInfo, InfoReport, NotLookedAt, RepositoryInfo, Snapshots, WalEnd,
};
use holdfast_engine::archive::{ArchivePlace, ClaimWal, WalCache, WalScope, list_settled};
use holdfast_engine::continuity::{RecordedGap, recorded_gaps};
use holdfast_engine::drill::drills;
use holdfast_engine::pipeline::crew::Crew;
use holdfast_engine::repository::Repository;
use holdfast_engine::restore::{Reached, reach};
use holdfast_engine::verify::{Verifications, verifications};
use holdfast_pgtypes::recovery_target::moment;
use holdfast_pgtypes::{Lsn, TimelineId};
use holdfast_repo::catalog::SegmentRange;
use holdfast_repo::record::{BackupRecord, ClaimRecord, SnapshotRecord};
use holdfast_repo::recovery::{Beginning, Newer, ReachableWindow};
use std::fmt::Write;
use std::path::Path;

/// How much WAL is listed and checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// All WAL that any recovery could need.
    AtAll,
    /// Only the newest WAL, so that it takes seconds.
    Short,
}

pub(super) async fn run(context: &Context, wal_cache: Option<&Path>, look: Look) -> Result<ExitCode, Failure> {
    let now = time::now();
    let cluster = &context.config.cluster.name;
    let mut cache = wal_cache.map(WalCache::load).unwrap_or_default();
    let mut answers = Answers::new();
    for (index, (url, opened)) in targets::opened(context).await.into_iter().enumerate() {
        let answer = async { of_repository(context, &opened?, index + 1, now, &mut cache, look).await };
        answers.add(&format!("{cluster} in "), url, answer.await);
    }
    if let Some(path) = wal_cache
        && let Err(error) = cache.save(path)
    {
        tracing::warn!(
            path = %path.display(),
            %error,
            "the file of --wal-cache cannot be written: the next run lists all WAL again"
        );
    }
    answers.print(context, |repositories| InfoReport { cluster: cluster.clone(), now, repositories })
}

async fn of_repository(
    context: &Context,
    repository: &Repository,
    number: usize,
    now: DateTime<Utc>,
    cache: &mut WalCache,
    look: Look,
) -> Answer<RepositoryInfo> {
    let cluster = &context.config.cluster.name;
    let (claims, backups, snapshots, unfinished) = tokio::try_join!(
        repository.claims(cluster),
        repository.backups(cluster),
        repository.snapshots(cluster),
        repository.describe_unfinished(cluster),
    )?;
    let mut remarks = Remarks::default();
    remarks.note("key slot", repository.slots_left_out());
    remarks.note("key slot", &repository.further_slots_left_out().await?);
    // Without the newest claim nothing is archived any more, whatever was archived before.
    if let Some(bad) = claims.unreadable.last()
        && claims.records.last().is_some_and(|newest| newest.number < bad.id)
    {
        remarks.fail(bad.error.explain());
    }
    let claims = remarks.sound("claim", claims);
    let backups = remarks.sound("backup", backups);
    let listed = |id| backups.iter().any(|backup| backup.backup_id == id);
    let verified = verifications(repository, cluster, listed, time::now()).await?;
    remarks.note("verification", &verified.unreadable);
    let drilled = drills(repository, cluster, time::now()).await?;
    remarks.note("drill", &drilled.unreadable);
    remarks.note("snapshot", &snapshots.unreadable);
    let snapshots = snapshots.records;
    let recorded = recorded_gaps(repository, cluster, &claims).await?;
    remarks.note("gap", &recorded.unreadable);
    let crew = Crew::new(context.config.restore.jobs.get());
    let mut claimed = Vec::new();
    for claim in claims {
        // One listing for everything that is reported about a claim, from the start of the oldest recovery.
        let begin_backups = backups.iter().map(|backup| (backup.claim, backup.start_lsn));
        let begin_snapshots = snapshots.iter().map(|snapshot| (snapshot.claim, snapshot.start_lsn));
        let starts = begin_backups.chain(begin_snapshots).filter(|(of, _)| *of == claim.number);
        let starts: Vec<Lsn> = starts.map(|(_, start)| start).collect();
        let wanted = match (starts.iter().min(), starts.iter().max(), look) {
            (Some(&oldest), Some(_), Look::AtAll) => WalScope::From(oldest),
            (Some(&oldest), Some(&newest), Look::Short) => WalScope::Shown { oldest, newest },
            // Without a backup or a snapshot, no WAL can be used: the newest shows the end of the archive.
            _ => WalScope::Newest,
        };
        let archive = ArchivePlace {
            repository: repository.id(),
            place: place_of(context, number),
            cluster: cluster.clone(),
            claim: claim.number,
        };
        let known = cache.known(&archive, now);
        let listed = list_settled(repository, &claim, wanted, &known, now).await?;
        cache.remember(archive, now, listed.first_log(), listed.whole_logs());
        let wal = Some(listed.describe());
        let last_wal_stored = wal.iter().flat_map(|wal| &wal.timelines).filter_map(|timeline| timeline.newest).max();
        let reached = async |beginnings: Vec<Beginning>| {
            let found = reach(repository, &claim, &listed, &beginnings, &crew, &context.cancellation).await?;
            Ok::<_, Failure>(found)
        };
        let found = reached(backups.iter().map(Beginning::from).collect()).await?;
        let of_claim = || snapshots.iter().filter(|snapshot| snapshot.claim == claim.number);
        let of_snapshots = match of_claim().next() {
            None => Reached::default(),
            Some(_) => reached(of_claim().map(Beginning::from).collect()).await?,
        };
        let left_out = found.not_looked_at + of_snapshots.not_looked_at > 0;
        let listed_from = wal.as_ref().and_then(|wal| wal.listed_from);
        let not_looked_at = listed_from.filter(|_| left_out).map(|before| NotLookedAt {
            before,
            backups: found.not_looked_at,
            snapshots: of_snapshots.not_looked_at,
        });
        claimed.push(ClaimInfo {
            reach: found.timelines,
            followed_timeline: found.followed,
            timeline_must_be_named: found.must_be_named,
            other_lines: found.other_lines,
            snapshots: Snapshots {
                recorded: of_claim().count(),
                last: of_claim().next_back().map(brief_snapshot),
                reach: of_snapshots.timelines,
            },
            not_looked_at,
            recorded_gaps: recorded.of_claim(claim.number, &listed.whole()),
            wal_end: wal.as_ref().and_then(|wal| wal_end(wal, &claim)),
            backups: backups_of(&claim, &backups, &verified, now),
            last_wal_age_seconds: last_wal_stored.map(|stored| time::ago(stored, now).as_secs()),
            last_wal_stored,
            wal,
            claim,
        });
    }
    let mut text = format!(
        "{cluster} in {}\n  repository {}, encryption {}, conditional writes {}\n",
        repository.describe(),
        repository.id(),
        repository.record().encryption,
        repo::conditional(repository.record().conditional_create),
    );
    if claimed.is_empty() {
        text.push_str("  nothing is archived yet: no backup, no WAL\n");
    }
    for claimed in &claimed {
        claim_text(&mut text, claimed, number, now);
    }
    drilled::describe(&mut text, &drilled, now);
    text.push_str(&remarks.text("  "));
    for unfinished in &unfinished {
        let _ = writeln!(text, "  unfinished backup {}: running, or dead; see `holdfast list`", unfinished.backup_id);
    }
    let info = RepositoryInfo {
        description: repo::description(repository),
        number,
        claims: claimed,
        unfinished: unfinished.iter().map(list::describe_unfinished).collect(),
        unreadable: remarks.records(),
        last_proven: drilled.last_proven,
        last_failed_drill: drilled.last_failed,
    };
    Ok((text, info, remarks.fatal()))
}

/// The place of the repository with this number (from 1), which distinguishes it from its copies.
fn place_of(context: &Context, number: usize) -> String {
    targets::by_number(&context.config, number).map(crate::config::repository::Repository::place).unwrap_or_default()
}

fn brief_backup(backup: &BackupRecord) -> BriefBackup {
    BriefBackup {
        backup_id: backup.backup_id.to_string(),
        start_time: backup.start_time,
        stop_time: backup.stop_time,
        timeline: backup.timeline,
        size_bytes: backup.size_bytes,
        stored_bytes: backup.stored_bytes,
        marks: list::marks(backup),
    }
}

fn brief_snapshot(snapshot: &SnapshotRecord) -> BriefSnapshot {
    BriefSnapshot {
        snapshot_id: snapshot.snapshot_id.to_string(),
        label: snapshot.label.clone(),
        online: snapshot.online,
        stop_time: snapshot.stop_time,
        timeline: snapshot.timeline,
    }
}

fn wal_end(wal: &ClaimWal, claim: &ClaimRecord) -> Option<WalEnd> {
    let newest = wal.timelines.iter().rev().find(|timeline| !timeline.ranges.is_empty())?;
    let segment = newest.ranges.last()?.last;
    Some(WalEnd { timeline: newest.timeline, segment, end_lsn: segment.end_lsn(claim.wal_segment_size) })
}

fn backups_of(claim: &ClaimRecord, backups: &[BackupRecord], verified: &Verifications, now: DateTime<Utc>) -> Backups {
    let of_claim: Vec<&BackupRecord> = backups.iter().filter(|backup| backup.claim == claim.number).collect();
    let last = of_claim.iter().max_by_key(|backup| backup.stop_time);
    Backups {
        complete: of_claim.len(),
        first: of_claim.iter().min_by_key(|backup| backup.stop_time).map(|backup| brief_backup(backup)),
        last: last.map(|backup| brief_backup(backup)),
        last_age_seconds: last.map(|backup| time::ago(backup.stop_time, now).as_secs()),
        stored_bytes: of_claim.iter().map(|backup| backup.stored_bytes).sum(),
        marked: of_claim
            .iter()
            .filter(|backup| backup.checksum_failures.count > 0)
            .map(|backup| brief_backup(backup))
            .collect(),
        verified: of_claim.iter().filter_map(|backup| verified.standing(backup.backup_id).cloned()).collect(),
    }
}

fn claim_text(text: &mut String, claimed: &ClaimInfo, number: usize, now: DateTime<Utc>) {
    let ClaimInfo {
        claim, backups, wal, last_wal_stored, last_wal_age_seconds: _, wal_end: _, reach, snapshots, ..
    } = claimed;
    let _ = writeln!(
        text,
        "  claim {}: PostgreSQL {}, system identifier {}, since {}",
        claim.number,
        claim.pg_major,
        claim.system_identifier,
        time::shown(claim.since)
    );
    let ago = |moment: DateTime<Utc>| format!("{} ({} ago)", time::shown(moment), duration(time::ago(moment, now)));
    match (&backups.first, &backups.last) {
        (Some(first), Some(last)) => {
            let _ = writeln!(
                text,
                "    backups   {} complete, {}; first {}, last {} of {}",
                backups.complete,
                size(backups.stored_bytes),
                first.backup_id,
                last.backup_id,
                ago(last.stop_time)
            );
        }
        _ => text.push_str("    backups   none complete: nothing can be restored\n"),
    }
    if let Some(last) = &snapshots.last {
        let _ = writeln!(
            text,
            "    snapshots {} recorded; last {} ({}) of {}; see `holdfast snapshot list`",
            snapshots.recorded,
            last.snapshot_id,
            last.label,
            ago(last.stop_time)
        );
    }
    for marked in &backups.marked {
        let _ = writeln!(text, "    marked    {}: {}", marked.backup_id, marked.marks);
    }
    for verified in &backups.verified {
        let _ = writeln!(text, "    verified  {}: {verified}", verified.backup_id);
    }
    let _ = match last_wal_stored {
        Some(stored) => writeln!(text, "    last WAL  stored {}", ago(*stored)),
        None => writeln!(text, "    last WAL  none archived: check archive_mode and archive_command"),
    };
    for timeline in wal.iter().flat_map(|wal| &wal.timelines) {
        for range in &timeline.ranges {
            let _ = writeln!(
                text,
                "    WAL       timeline {}: {} to {} ({})",
                timeline.timeline, range.first, range.last, range.count
            );
        }
        for gap in &timeline.gaps {
            let recorded = claimed.recorded_gaps.iter().find(|recorded| is_within(recorded, gap));
            let since = recorded.map(|recorded| format!(", recorded {}", time::shown(recorded.since)));
            let _ = writeln!(
                text,
                "    GAP       timeline {}: {} to {} ({}) are missing{}",
                timeline.timeline,
                gap.first,
                gap.last,
                gap.count,
                since.unwrap_or_default()
            );
        }
    }
    let listed = || wal.iter().flat_map(|wal| &wal.timelines).flat_map(|timeline| &timeline.gaps);
    for recorded in claimed.recorded_gaps.iter().filter(|recorded| !listed().any(|gap| is_within(recorded, gap))) {
        let _ = writeln!(
            text,
            "    GAP       timeline {}: {} to {} ({}) are missing, recorded {}",
            recorded.first.timeline(),
            recorded.first,
            recorded.last,
            recorded.count,
            time::shown(recorded.since)
        );
    }
    for timeline in reach {
        if let Some(reason) = &timeline.unreadable {
            let _ =
                writeln!(text, "    UNKNOWN   timeline {}: its history cannot be read: {reason}", timeline.timeline);
        }
        for unusable in &timeline.unusable {
            let _ = writeln!(
                text,
                "    UNUSABLE  backup {} on timeline {}: {}",
                unusable.backup, timeline.timeline, unusable.hole
            );
        }
    }
    if let Some(NotLookedAt { before, backups, snapshots }) = &claimed.not_looked_at {
        let _ = writeln!(
            text,
            "    NOT SEEN  WAL before LSN {before}, and whether it is complete for what begins there (backups: {backups}, \
             snapshots: {snapshots}); `holdfast info --all-wal` and `holdfast verify` check it"
        );
    }
    let windows: Vec<&ReachableWindow> =
        reach.iter().flat_map(|timeline| &timeline.windows).map(|window| &window.window).collect();
    for window in &windows {
        let _ =
            writeln!(text, "    can be restored: timeline {}{}", window.timeline, how_chosen(claimed, window.timeline));
        let _ = writeln!(
            text,
            "      from    {} (LSN {}), the end of backup {}",
            time::shown(window.from_time),
            window.from_lsn,
            window.first_backup
        );
        let _ = match window.to_time {
            Some(last) => writeln!(
                text,
                "      to      {} (LSN {}), the last archived transaction",
                moment::text(last),
                window.to_lsn
            ),
            None => writeln!(text, "      to      LSN {}, the end of the WAL; it holds no transaction", window.to_lsn),
        };
    }
    for line in claimed.other_lines.iter().filter(|line| line.newer != Newer::Nothing) {
        let what = if line.newer == Newer::Backup { "a newer backup" } else { "newer WAL" };
        let _ = writeln!(text, "    NEWER     another timeline has {what}: {line}");
    }
    if !windows.is_empty() {
        let repo = if number == 1 { String::new() } else { format!(" --repo {number}") };
        let _ = writeln!(
            text,
            "    to restore: holdfast restore{repo} --pgdata DIR; add --target-time \"...+00\" for an earlier moment, --plan to look first"
        );
    }
}

/// Whether a recorded gap is within one that the listing shows.
fn is_within(recorded: &RecordedGap, gap: &SegmentRange) -> bool {
    gap.timeline == recorded.first.timeline() && gap.first <= recorded.first && recorded.last <= gap.last
}

/// How a restore comes to follow a timeline; nothing to say where there is but one.
fn how_chosen(claimed: &ClaimInfo, timeline: TimelineId) -> String {
    if claimed.reach.len() == 1 && !claimed.timeline_must_be_named {
        return String::new();
    }
    if claimed.followed_timeline == Some(timeline) && !claimed.timeline_must_be_named {
        return ", which a restore follows by default".to_owned();
    }
    format!(", with --target-timeline {timeline}")
}
