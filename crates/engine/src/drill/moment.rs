//! Which moment is restored: the one that was asked for, or one by a seed, anywhere in what can be restored.

use chrono::{DateTime, TimeDelta, Utc};
use holdfast_contract::report::drill::DrillTarget;
use holdfast_pgtypes::TimelineId;
use holdfast_pgtypes::recovery_target::{RecoveryTarget, TargetTimeline, moment};
use holdfast_repo::name::ClusterName;
use holdfast_repo::recovery::{Beginning, RecoveryRequest};
use tokio_util::sync::CancellationToken;

use crate::archive::{KnownLogs, Wanted, list_settled};
use crate::error::{Cause, Error};
use crate::pipeline::crew::Crew;
use crate::repository::Repository;
use crate::restore::reach;

/// The moment of a drill.
#[derive(Debug, Clone)]
pub enum Moment {
    /// As `restore` takes it.
    Asked {
        /// The request.
        request: RecoveryRequest,
        /// The same in the words of the command line.
        flags: String,
    },
    /// By this number, anywhere in the windows of the newest claim.
    Random {
        /// The same number chooses the same moment, as long as the windows are the same.
        seed: u64,
    },
}

/// A number for [`Moment::Random`].
///
/// # Errors
/// [`Cause::Internal`] if the system gives no random bytes.
pub fn random_seed() -> Result<u64, Error> {
    let mut bytes = [0; 4];
    // As many digits as somebody types without a mistake.
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Cause::Internal("no random bytes".to_owned()))?;
    Ok(u64::from(u32::from_le_bytes(bytes)))
}

/// A stretch of time that can be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stretch {
    timeline: TimelineId,
    from: DateTime<Utc>,
    /// The last transaction: a moment before it can be restored.
    to: DateTime<Utc>,
}

/// The request of a moment, how the report calls it, and what one should know.
pub(super) async fn choose(
    repository: &Repository,
    cluster: &ClusterName,
    moment: &Moment,
    jobs: usize,
    now: DateTime<Utc>,
    cancel: &CancellationToken,
) -> Result<(RecoveryRequest, DrillTarget, Vec<String>), Error> {
    let seed = match moment {
        Moment::Asked { request, flags } => {
            let time = match request.target {
                RecoveryTarget::Time(time) => Some(time),
                _ => None,
            };
            return Ok((request.clone(), DrillTarget { flags: flags.clone(), time, seed: None }, Vec::new()));
        }
        Moment::Random { seed } => *seed,
    };
    let stretches = stretches(repository, cluster, jobs, now, cancel).await?;
    let Some((timeline, time)) = pick(seed, &stretches) else {
        let note = "no stretch of time can be restored, so the newest moment was chosen: after the last backup there is no \
                    transaction in the archive";
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
) -> Result<Vec<Stretch>, Error> {
    let (claims, backups) = tokio::try_join!(repository.claims(cluster), repository.backups(cluster))?;
    let claim = claims.chosen(|_| true)?;
    let claim = claim.ok_or_else(|| Cause::NoClaim { store: repository.describe(), cluster: cluster.to_string() })?;
    let beginnings: Vec<Beginning> = backups.records.iter().map(Beginning::from).collect();
    let of_claim = beginnings.iter().filter(|beginning| beginning.claim == claim.number);
    let Some(oldest) = of_claim.map(|beginning| beginning.start_lsn).min() else { return Ok(Vec::new()) };
    let listed = list_settled(repository, &claim, Wanted::From(oldest), &KnownLogs::default(), now).await?;
    let reached = reach(repository, &claim, &listed, &beginnings, &Crew::new(jobs), cancel).await?;
    let windows = reached.timelines.into_iter().flat_map(|reach| reach.windows).map(|window| window.window);
    Ok(windows
        .filter_map(|window| Some(Stretch { timeline: window.timeline, from: window.from_time, to: window.to_time? }))
        .filter(|stretch| stretch.from < stretch.to)
        .collect())
}

/// A moment, every microsecond as likely as any other.
fn pick(seed: u64, stretches: &[Stretch]) -> Option<(TimelineId, DateTime<Utc>)> {
    let length =
        |stretch: &Stretch| (stretch.to - stretch.from).num_microseconds().and_then(|us| u64::try_from(us).ok());
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

    fn stretch(timeline: u32, from: &str, to: &str) -> Stretch {
        let time = |text: &str| format!("2026-11-22T{text}Z").parse().unwrap();
        Stretch { timeline: TimelineId::new(timeline).unwrap(), from: time(from), to: time(to) }
    }

    #[test]
    fn a_seed_repeats_the_moment_and_all_of_them_come_up() {
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
