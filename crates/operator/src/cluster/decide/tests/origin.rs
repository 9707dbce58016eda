//! Recovery from a `Backup`: a complete one, and one change.

use super::*;
use crate::backups::snapshot::ObservedSnapshot;
use holdfast_kube_api::Backup;

/// A cluster with a WAL volume that is recovered from the Backup `b`.
fn recovering() -> Desired {
    let mut desired = desired();
    desired.spec.wal_storage = desired.spec.storage.clone();
    desired.spec.bootstrap = Some(serde_json::from_value(json!({"recovery": {"backup": {"name": "b"}}})).unwrap());
    desired
}

/// Snapshots of both volumes, taken while the server ran; the cluster has no objects yet.
fn before() -> Observed {
    let mut observed = healthy(&desired());
    observed.status = ClusterStatus::default();
    observed.pods.clear();
    observed.claims.clear();
    observed.answers.clear();
    observed.recovery.backup = Some(backup(&json!({})));
    for name in ["b-1", "b-1-wal"] {
        let ready = ObservedSnapshot { name: name.to_owned(), cut: true, ready: true, ..ObservedSnapshot::default() };
        observed.recovery.snapshots.insert(name.to_owned(), ready);
    }
    observed
}

fn backup(change: &Value) -> Backup {
    let mut status = json!({
        "phase": "completed", "method": "volumeSnapshot", "online": true, "backupId": "20261122T101500Z",
        "barmanObjectStore": {"destinationPath": "s3://b/p"},
        "snapshotBackupStatus": {"elements": [{"name": "b-1", "type": "PG_DATA"}, {"name": "b-1-wal", "type": "PG_WAL"}]},
    });
    status.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    serde_json::from_value(json!({
        "apiVersion": "holdfast.dev/v1", "kind": "Backup", "metadata": {"name": "b"},
        "spec": {"cluster": {"name": "main"}}, "status": status,
    }))
    .unwrap()
}

/// What each volume is created from, or what the cluster waits for.
fn made(desired: &Desired, observed: &Observed) -> Vec<String> {
    let decision = decide(desired, observed, now());
    let mut all = Vec::new();
    for action in &decision.actions {
        match action {
            Action::CreateClaim(claim) => {
                let source = claim.spec.as_ref().unwrap().data_source.as_ref();
                let source = source
                    .map(|source| format!("{}/{} {}", source.api_group.as_deref().unwrap(), source.kind, source.name));
                all.push(format!("{} from {}", claim.metadata.name.as_deref().unwrap(), source.unwrap_or_default()));
            }
            Action::CreatePod(pod) => all.push(format!("pod {}", pod.metadata.name.as_deref().unwrap())),
            _ => {}
        }
    }
    if let Some(blocked) = &decision.status.blocked_by {
        assert_eq!(decision.status.phase.as_deref(), Some("Bootstrapping the first instance"));
        assert_eq!(decision.status.phase_reason.as_ref(), Some(&blocked.what));
        assert!(!blocked.hint.is_empty());
        assert_eq!(decision.next, SOON, "nothing wakes it when a Backup changes");
        all.push(blocked.what.clone());
    }
    all
}

type Change = fn(&mut Desired, &mut Observed);

fn status(observed: &mut Observed) -> &mut holdfast_kube_api::BackupStatus {
    observed.recovery.backup.as_mut().unwrap().status.as_mut().unwrap()
}

#[test]
fn volumes_are_made_from_what_a_backup_names() {
    let snapshot = "from snapshot.storage.k8s.io/VolumeSnapshot";
    let whole = [format!("c-1 {snapshot} b-1"), format!("c-1-wal {snapshot} b-1-wal"), "pod c-1".to_owned()];
    let empty = ["c-1 from ".to_owned(), "c-1-wal from ".to_owned(), "pod c-1".to_owned()];
    let waits = |what: &str| vec![what.to_owned()];
    let table: Vec<(&str, Change, Vec<String>)> = vec![
        ("hot snapshots of both", |_, _| {}, whole.to_vec()),
        (
            "cold ones without an archive",
            |_, observed| {
                status(observed).online = Some(false);
                status(observed).barman_object_store = None;
            },
            whole.to_vec(),
        ),
        (
            "hot ones with the archive of a source",
            |desired, observed| {
                status(observed).barman_object_store = None;
                desired.spec.bootstrap.as_mut().unwrap().recovery.as_mut().unwrap().source = Some("main".to_owned());
            },
            whole.to_vec(),
        ),
        (
            "hot ones without any",
            |_, observed| status(observed).barman_object_store = None,
            waits("Backup b was taken while the server ran, and its cluster had no archive for the WAL that it needs"),
        ),
        (
            "a backup in the object store",
            |_, observed| {
                status(observed).method = None;
                status(observed).snapshot_backup_status = None;
            },
            empty.to_vec(),
        ),
        (
            "no such Backup",
            |_, observed| observed.recovery.backup = None,
            waits("Backup b does not exist in namespace ns"),
        ),
        (
            "one that is running",
            |_, observed| status(observed).phase = serde_json::from_value(json!("running")).unwrap(),
            waits("Backup b is not completed yet: it is running"),
        ),
        (
            "one without a status",
            |_, observed| observed.recovery.backup.as_mut().unwrap().status = None,
            waits("Backup b is not completed yet: it is pending"),
        ),
        (
            "one that failed",
            |_, observed| {
                status(observed).phase = serde_json::from_value(json!("failed")).unwrap();
                status(observed).error = Some("error: no space\nwhile: backing up\nhint:  make room".to_owned());
            },
            waits("Backup b has failed: no space, while backing up"),
        ),
        (
            "a snapshot that is gone",
            |_, observed| drop(observed.recovery.snapshots.remove("b-1-wal")),
            waits("Backup b: VolumeSnapshot b-1-wal is gone: this backup cannot be restored"),
        ),
        (
            "a snapshot that is being deleted",
            |_, observed| observed.recovery.snapshots.get_mut("b-1").unwrap().deleting = true,
            waits("Backup b: VolumeSnapshot b-1 is gone: this backup cannot be restored"),
        ),
        (
            "a snapshot that is not ready",
            |_, observed| {
                let seen = observed.recovery.snapshots.get_mut("b-1").unwrap();
                (seen.ready, seen.error) = (false, Some("array busy".to_owned()));
            },
            waits("Backup b: VolumeSnapshot b-1 is not ready to use: array busy"),
        ),
        (
            "no volume for WAL",
            |desired, _| desired.spec.wal_storage = None,
            waits(
                "Backup b: its cluster had a volume for WAL (VolumeSnapshot b-1-wal), but spec.walStorage is not set",
            ),
        ),
        (
            "one volume for WAL too many",
            |_, observed| {
                status(observed).snapshot_backup_status.as_mut().unwrap().elements.pop();
            },
            waits("Backup b: its cluster had no volume for WAL, but spec.walStorage is set"),
        ),
        (
            "neither has one",
            |desired, observed| {
                desired.spec.wal_storage = None;
                status(observed).snapshot_backup_status.as_mut().unwrap().elements.pop();
            },
            vec![whole[0].clone(), whole[2].clone()],
        ),
        (
            "no snapshot at all",
            |_, observed| status(observed).snapshot_backup_status = None,
            waits("Backup b: it names no snapshot of a data volume"),
        ),
        (
            "existing claims are left as they are",
            |_, observed| {
                for name in ["c-1", "c-1-wal"] {
                    observed.claims.insert(name.to_owned(), claim(name));
                }
                observed.recovery.backup = None;
            },
            vec!["pod c-1".to_owned()],
        ),
        (
            "one claim was made before the operator was killed",
            |_, observed| {
                drop(observed.claims.insert("c-1".to_owned(), claim("c-1")));
            },
            vec![whole[1].clone(), whole[2].clone()],
        ),
    ];
    for (name, change, expected) in table {
        let (mut desired, mut observed) = (recovering(), before());
        change(&mut desired, &mut observed);
        assert_eq!(made(&desired, &observed), expected, "{name}");
    }
}

#[test]
fn a_cluster_that_has_its_data_does_not_ask_for_its_backup_again() {
    let desired = Desired { spec: desired().spec, ..recovering() };
    let mut observed = healthy(&desired);
    let mut from_backup = desired.clone();
    from_backup.spec.bootstrap = recovering().spec.bootstrap;
    observed.pods.remove("c-2");
    observed.answers.remove("c-2");
    observed.claims.remove("c-2");
    assert_eq!(made(&from_backup, &observed), ["c-2 from ", "pod c-2"]);
}
