//! Changes of a `Cluster` that are not possible.

use super::finding::{Findings, Reason};
use super::image;
use crate::cluster::{BarmanObjectStore, ClusterSpec, ClusterStatus, StorageConfiguration};
use crate::{names, quantity};

/// What a change is compared with.
#[derive(Debug)]
pub(super) struct Before<'a> {
    /// The spec before the change, validated.
    pub(super) spec: &'a ClusterSpec,
    /// The status before the change; empty if it cannot be read.
    pub(super) status: ClusterStatus,
    /// Whether the first instance has its data.
    pub(super) bootstrapped: bool,
}

/// Compares a validated spec with what was before.
pub(super) fn check(before: &Before<'_>, new: &ClusterSpec, findings: &mut Findings) {
    let Before { spec: old, status, bootstrapped } = before;
    let (old, bootstrapped) = (*old, *bootstrapped);
    if let (Some(old), Some(new)) = (&old.storage, &new.storage) {
        volume(old, new, requested(status, str::to_owned).as_deref(), "spec.storage", findings);
    }
    match (&old.wal_storage, &new.wal_storage) {
        (Some(old), Some(new)) => {
            volume(old, new, requested(status, names::wal_claim).as_deref(), "spec.walStorage", findings);
        }
        (None, Some(_)) if bootstrapped => findings.error(
            "spec.walStorage",
            Reason::Immutable,
            "a volume for WAL cannot be added to instances that exist",
            "recover into a new cluster that has `walStorage`",
        ),
        (Some(_), None) if bootstrapped => findings.error(
            "spec.walStorage",
            Reason::Immutable,
            "the volume for WAL cannot be removed from instances that exist",
            "write it as it was",
        ),
        _ => {}
    }
    let major = |spec: &ClusterSpec| spec.image_name.as_deref().and_then(image::major);
    if let (Some(before), Some(after)) = (major(old), major(new))
        && before != after
        && bootstrapped
    {
        findings.error(
            "spec.imageName",
            Reason::Immutable,
            format!("a data directory of PostgreSQL {before} cannot be read by PostgreSQL {after}"),
            "create a new cluster and load a dump, or use logical replication",
        );
    }
    for (field, before, after) in
        [("postgresUID", old.postgres_uid, new.postgres_uid), ("postgresGID", old.postgres_gid, new.postgres_gid)]
    {
        if before.unwrap_or(26) != after.unwrap_or(26) && bootstrapped {
            findings.error(
                format!("spec.{field}"),
                Reason::Immutable,
                "the files of existing instances belong to the user that created them",
                "write it as it was",
            );
        }
    }
    if old.bootstrap != new.bootstrap && bootstrapped {
        findings.warn(
            "spec.bootstrap",
            Reason::NoEffect,
            "the cluster has its data: the bootstrap is not used any more",
            "create a new cluster if you need another bootstrap",
        );
    }
    let store = |spec: &ClusterSpec| spec.backup.as_ref().and_then(|backup| backup.barman_object_store.clone());
    if let (Some(before), Some(after)) = (store(old), store(new)) {
        archive(&before, &after, findings);
    }
}

/// The smallest size that a claim of the instances requests. A growth that the API server refused has not changed it.
/// `None` if no status says it.
fn requested(status: &ClusterStatus, claim: impl Fn(&str) -> String) -> Option<String> {
    let sizes = status.instance_names.iter().filter_map(|name| status.volumes.get(&claim(name))?.requested.clone());
    sizes.min_by_key(|size| quantity::bytes_or_number(size))
}

fn volume(
    old: &StorageConfiguration,
    new: &StorageConfiguration,
    requested: Option<&str>,
    base: &str,
    findings: &mut Findings,
) {
    let bytes = |size: Option<&str>| size.and_then(quantity::bytes_or_number);
    // A size that no volume has got can be taken back.
    let before = requested.or(old.size.as_deref());
    if let (Some(before_bytes), Some(after)) = (bytes(before), bytes(new.size.as_deref()))
        && after < before_bytes
    {
        findings.error(
            format!("{base}.size"),
            Reason::Immutable,
            format!(
                "a volume cannot become smaller: {} to {}",
                before.unwrap_or_default(),
                new.size.as_deref().unwrap_or_default()
            ),
            "recover into a new cluster with smaller volumes",
        );
    }
    if old.storage_class != new.storage_class {
        findings.warn(
            format!("{base}.storageClass"),
            Reason::NoEffect,
            "volumes that exist keep their class; new instances get the new one",
            "delete instances one by one, with their claims, to move them",
        );
    }
}

fn archive(old: &BarmanObjectStore, new: &BarmanObjectStore, findings: &mut Findings) {
    let place = |store: &BarmanObjectStore| {
        (store.endpoint_url.clone(), store.destination_path.trim_end_matches('/').to_owned(), store.server_name.clone())
    };
    if place(old) != place(new) {
        findings.warn(
            "spec.backup.barmanObjectStore",
            Reason::Conflict,
            "this starts a new archive: nothing can be restored from it before its first backup",
            "create a Backup now; what was archived before stays in the old archive",
        );
    }
}
