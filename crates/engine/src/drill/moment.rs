//! Chooses the moment to restore: the one that the user gave, or a random one from a seed, anywhere in the restorable
//! time.

use chrono::{DateTime, TimeDelta, Utc};
use holdfast_contract::report::drill::DrillTarget;
use holdfast_pgtypes::TimelineId;
use holdfast_pgtypes::recovery_target::{RecoveryTarget, TargetTimeline, moment};
use holdfast_repo::name::ClusterName;
use holdfast_repo::recovery::{Beginning, RecoveryRequest};
use tokio_util::sync::CancellationToken;

use crate::archive::{KnownLogs, WalScope, list_settled};
use crate::error::{Cause, Error};
use crate::pipeline::crew::Crew;
use crate::repository::Repository;
use crate::restore::reach;

/// The moment of a drill.
#[derive(Debug, Clone)]
pub enum RequestedMoment {
    /// The moment that the user gave.
    Asked {
        /// The request, as for a restore.
        request: RecoveryRequest,
        /// The same request as flags of the command line, for the report.
        flags: String,
    },
    /// A random moment anywhere in the restorable windows of the newest claim.
    Random {
        /// The seed. It chooses the same moment while the restorable windows are unchanged.
        seed: u64,
    },
}

/// A random seed for [`RequestedMoment::Random`]. It is below 2^32, so that a person can type it.
///
/// # Errors
/// [`Cause::Internal`] if the system gives no random bytes.
pub fn random_seed() -> Result<u64, Error> {
    let mut bytes = [0; 4];
    // Four bytes give at most ten digits, which a person can type without a mistake.
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Cause::Internal("no random bytes".to_owned()))?;
    Ok(u64::from(u32::from_le_bytes(bytes)))
}

/// A span of time that can be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RestorableSpan {
    timeline: TimelineId,
    from: DateTime<Utc>,
    /// The time of the last transaction. Any moment before it can be restored.
    to: DateTime<Utc>,
}

/// The request for a moment, its description for the report, and notes for the user.
pub(super) async fn choose(
    repository: &Repository,
    cluster: &ClusterName,
    moment: &RequestedMoment,
    jobs: usize,
    now: DateTime<Utc>,
    cancel: &CancellationToken,
) -> Result<(RecoveryRequest, DrillTarget, Vec<String>), Error> {
    let seed = match moment {
        RequestedMoment::Asked { request, flags } => {
            let time = match request.target {
                RecoveryTarget::Time(time) => Some(time),
                _ => None,
            };
            return Ok((request.clone(), DrillTarget { flags: flags.clone(), time, seed: None }, Vec::new()));
        }
        RequestedMoment::Random { seed } => *seed,
    };
    let stretches = stretches(repository, cluster, jobs, now, cancel).await?;
    let Some((timeline, time)) = pick(seed, &stretches) else {
        let note = "there is no span of time to choose from, so the newest moment was chosen: the archive has no \
                    transaction after the last backup";
        let target = DrillTarget { flags: String::new(), time: None, seed: Some(seed) };
        return Ok((RecoveryRequest::default(), target, vec![note.to_owned()]));
    };
    let request = RecoveryRequest {
        target: RecoveryTarget::Time(time),
        timeline: TargetTimeline::Number(timeline),
        ..RecoveryRequest::default()
    };
    let flags = format!("--target-time \"{}\" --target-timeline {timeline}", moment::text(time));
    Ok((request, DrillTarget { flags, time: Some(time), seed: Some(seed) }, Vec::new()))
}

async fn stretches(
    repository: &Repository,
    cluster: &ClusterName,
    jobs: usize,
    now: DateTime<Utc>,
    cancel: &CancellationToken,
) -> Result<Vec<RestorableSpan>, Error> {
    let (claims, backups) = tokio::try_join!(repository.claims(cluster), repository.backups(cluster))?;
    let claim = claims.chosen(|_| true)?;
    let claim = claim.ok_or_else(|| Cause::NoClaim { store: repository.describe(), cluster: cluster.to_string() })?;
    let beginnings: Vec<Beginning> = backups.records.iter().map(Beginning::from).collect();
    let of_claim = beginnings.iter().filter(|beginning| beginning.claim == claim.number);
    let Some(oldest) = of_claim.map(|beginning| beginning.start_lsn).min() else { return Ok(Vec::new()) };
    let listed = list_settled(repository, &claim, WalScope::From(oldest), &KnownLogs::default(), now).await?;
    let reached = reach(repository, &claim, &listed, &beginnings, &Crew::new(jobs), cancel).await?;
    let windows = reached.timelines.into_iter().flat_map(|reach| reach.windows).map(|window| window.window);
    Ok(windows
        .filter_map(|window| {
            Some(RestorableSpan { timeline: window.timeline, from: window.from_time, to: window.to_time? })
        })
        .filter(|stretch| stretch.from < stretch.to)
        .collect())
}

/// A random moment. Every microsecond has the same probability.
fn pick(seed: u64, stretches: &[RestorableSpan]) -> Option<(TimelineId, DateTime<Utc>)> {
    let length =
        |stretch: &RestorableSpan| (stretch.to - stretch.from).num_microseconds().and_then(|us| u64::try_from(us).ok());
    let total: u64 = stretches.iter().filter_map(length).sum();
    let mut bytes = [0; 8];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    let mut drawn = u64::from_le_bytes(bytes).checked_rem(total)?;
    for stretch in stretches {
        let length = length(stretch).unwrap_or_default();
        if drawn < length {
            let passed = TimeDelta::microseconds(i64::try_from(drawn).ok()?);
            return Some((stretch.timeline, stretch.from + passed));
        }
        drawn -= length;
    }
    None
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn stretch(timeline: u32, from: &str, to: &str) -> RestorableSpan {
        let time = |text: &str| format!("2026-11-22T{text}Z").parse().unwrap();
        RestorableSpan { timeline: TimelineId::new(timeline).unwrap(), from: time(from), to: time(to) }
    }

    #[test]
    fn a_seed_repeats_its_moment_and_every_span_is_chosen() {
        let stretches = [stretch(1, "10:00:00", "10:00:10"), stretch(2, "11:00:00", "11:01:00")];
        let mut counts = [0, 0];
        for seed in 0..700 {
            let (timeline, time) = pick(seed, &stretches).unwrap();
            assert_eq!(pick(seed, &stretches), Some((timeline, time)));
            let number = timeline.get() as usize - 1;
            counts[number] += 1;
            let within = stretches[number];
            assert!(within.from <= time && time < within.to, "{time} of seed {seed}");
        }
        assert!(counts[0] > 50 && counts[1] > 450, "{counts:?}");
        assert_eq!(pick(1, &[]), None);
    }
}
