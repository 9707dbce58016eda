//! What the volumes of the first instance are created from: nothing, or volume snapshots, which the manifest or its
//! `Backup` names.
//!
//! A claim is created once, so a `Backup` is checked completely before. Nothing is created from a `Backup` that is not
//! complete, whose snapshots are gone, or whose volumes do not match the manifest. Once the claims exist, only the
//! instance reads the `Backup`.

use super::plan::{Origin, Plan};
use crate::cluster::decision::Phase;
use holdfast_kube_api::backup::{Backup, BackupPhase};
use holdfast_kube_api::cluster::{Recovery, VolumeSnapshotSource};
use holdfast_kube_api::names;

/// What is wrong with the source in the manifest, and what a person can do.
struct Obstacle {
    what: String,
    hint: String,
}

pub(super) fn decide(plan: &mut Plan<'_>) {
    if plan.status.system_id.is_some() || plan.desired.unreadable {
        return;
    }
    let recovery = plan.desired.spec.bootstrap.as_ref().and_then(|bootstrap| bootstrap.recovery.as_ref());
    let Some(recovery) = recovery else { return };
    if let Some(snapshots) = &recovery.volume_snapshots {
        plan.origin = Origin::Snapshots { data: snapshots.storage.clone(), wal: snapshots.wal_storage.clone() };
        return;
    }
    if recovery.backup.is_none() || has_claims(plan) {
        return;
    }
    match of_backup(plan, recovery) {
        Ok(origin) => plan.origin = origin,
        Err(Obstacle { what, hint }) => {
            plan.origin = Origin::Unknown;
            plan.say(Phase::Bootstrapping, what.clone());
            plan.wait_for(what, hint, None);
        }
    }
}

/// Whether the volumes of the first instance exist.
fn has_claims(plan: &Plan<'_>) -> bool {
    let Some(first) = &plan.status.target_primary else { return false };
    plan.observed.claims.contains_key(first)
        && (plan.desired.spec.wal_storage.is_none() || plan.observed.claims.contains_key(&names::wal_claim(first)))
}

fn of_backup(plan: &Plan<'_>, recovery: &Recovery) -> Result<Origin, Obstacle> {
    let name = recovery.backup.as_ref().map(|backup| backup.name.as_str()).unwrap_or_default();
    let obstacle = |what: String, hint: &str| Err(Obstacle { what, hint: hint.to_owned() });
    let Some(backup) = &plan.observed.recovery.backup else {
        return obstacle(
            format!("Backup {name} does not exist in namespace {}", plan.desired.namespace),
            "a Backup must be in the cluster's own namespace; to recover from another one, set \
             bootstrap.recovery.source and write the backup's id into recoveryTarget.backupID",
        );
    };
    let status = backup.status.clone().unwrap_or_default();
    match status.phase.unwrap_or_default() {
        BackupPhase::Completed => {}
        BackupPhase::Failed => {
            let why = status.error.as_deref().map(super::roles::parts).map(|(what, _)| format!(": {what}"));
            return obstacle(
                format!("Backup {name} has failed{}", why.unwrap_or_default()),
                "name a Backup that is completed: kubectl get backups",
            );
        }
        phase => {
            let phase = format!("{phase:?}").to_lowercase();
            return obstacle(
                format!("Backup {name} is not completed yet: it is {phase}"),
                "the recovery continues by itself when the Backup is completed",
            );
        }
    }
    if !backup.is_of_snapshots() {
        return Ok(Origin::Empty);
    }
    let (data, wal) = snapshots(plan, backup, name)?;
    if status.online == Some(true) && recovery.source.is_none() && status.barman_object_store.is_none() {
        return obstacle(
            format!(
                "Backup {name} was taken while the server ran, and its cluster had no archive for the WAL that it needs"
            ),
            "in bootstrap.recovery.source name an archive that has this WAL, or name a Backup with online: false",
        );
    }
    Ok(Origin::Snapshots { data, wal })
}

/// The snapshots of a `Backup` for the volumes of the manifest; all of them are usable.
fn snapshots(
    plan: &Plan<'_>,
    backup: &Backup,
    name: &str,
) -> Result<(VolumeSnapshotSource, Option<VolumeSnapshotSource>), Obstacle> {
    let obstacle =
        |what: String, hint: &str| Obstacle { what: format!("Backup {name}: {what}"), hint: hint.to_owned() };
    let data = backup.snapshot_of(names::PG_DATA).ok_or_else(|| {
        obstacle("it names no snapshot of a data volume".to_owned(), "name another Backup: kubectl get backups")
    })?;
    let wal = backup.snapshot_of(names::PG_WAL);
    match (wal, plan.desired.spec.wal_storage.is_some()) {
        (Some(wal), false) => {
            return Err(obstacle(
                format!("its cluster had a volume for WAL (VolumeSnapshot {wal}), but spec.walStorage is not set"),
                "set spec.walStorage as that cluster had it",
            ));
        }
        (None, true) => {
            return Err(obstacle(
                "its cluster had no volume for WAL, but spec.walStorage is set".to_owned(),
                "remove spec.walStorage; a recovery from the object store can make a cluster with one",
            ));
        }
        _ => {}
    }
    for snapshot in std::iter::once(data).chain(wal) {
        match plan.observed.recovery.snapshots.get(snapshot) {
            Some(seen) if !seen.deleting && seen.ready => {}
            Some(seen) if !seen.deleting => {
                let why = seen.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
                return Err(obstacle(
                    format!("VolumeSnapshot {snapshot} is not ready to use{why}"),
                    "the recovery continues by itself when the snapshot is ready to use",
                ));
            }
            _ => {
                return Err(obstacle(
                    format!("VolumeSnapshot {snapshot} is gone: this backup cannot be restored"),
                    "name another Backup, or recover from a backup in the object store with bootstrap.recovery.source",
                ));
            }
        }
    }
    Ok((source(data), wal.map(source)))
}

fn source(snapshot: &str) -> VolumeSnapshotSource {
    VolumeSnapshotSource {
        api_group: Some("snapshot.storage.k8s.io".to_owned()),
        kind: "VolumeSnapshot".to_owned(),
        name: snapshot.to_owned(),
    }
}
