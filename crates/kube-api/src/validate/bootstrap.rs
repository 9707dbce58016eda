//! `spec.bootstrap`: exactly one method, and its fields.

use super::finding::{Findings, Reason};
use crate::cluster::{Bootstrap, ClusterSpec, InitDb, Recovery, RecoveryTarget};
use crate::names::REPLICATION_USER;
use chrono::SecondsFormat;
use holdfast_pgtypes::Lsn;
use holdfast_pgtypes::recovery_target::TargetTimeline;
use holdfast_pgtypes::recovery_target::moment::{self, MissingZone};

/// Databases that exist in every cluster.
const OWN_DATABASES: &[&str] = &["postgres", "template0", "template1"];
/// Options of `initdb` that the instance manager passes itself.
const OWN_OPTIONS: &[&str] = &[
    "-D",
    "--pgdata",
    "-U",
    "--username",
    "-X",
    "--waldir",
    "-A",
    "--auth",
    "--auth-local",
    "--auth-host",
    "-W",
    "--pwprompt",
    "--pwfile",
    "-S",
    "--sync-only",
];

/// Whether a field is used only until the cluster has its data. The application's database, its owner and its Secret
/// are used afterwards too: passwords follow their Secrets.
pub(super) fn is_used_once(path: &str) -> bool {
    let of_method = ["spec.bootstrap.initdb.", "spec.bootstrap.recovery."];
    let field = of_method.iter().find_map(|method| path.strip_prefix(method));
    field.is_some_and(|field| !matches!(field.split(['.', '[']).next(), Some("database" | "owner" | "secret")))
}

/// Checks the bootstrap and adds the default method.
pub(super) fn check(cluster_name: &str, spec: &mut ClusterSpec, major: Option<u16>, findings: &mut Findings) {
    let base = "spec.bootstrap";
    let mut bootstrap = spec.bootstrap.take().unwrap_or_default();
    if bootstrap.initdb.is_some() && bootstrap.recovery.is_some() {
        findings.error(
            base,
            Reason::Conflict,
            "both `initdb` and `recovery` are set",
            "a cluster starts empty or from a backup: keep one of them",
        );
    }
    if bootstrap == Bootstrap::default() {
        bootstrap.initdb = Some(InitDb::default());
    }
    if let Some(initdb) = &mut bootstrap.initdb {
        check_initdb(initdb, major, findings);
    }
    if let Some(recovery) = &mut bootstrap.recovery {
        check_recovery(recovery, spec, findings);
        other_archive(recovery, cluster_name, spec, findings);
    }
    spec.bootstrap = Some(bootstrap);
}

fn check_initdb(initdb: &mut InitDb, major: Option<u16>, findings: &mut Findings) {
    let base = "spec.bootstrap.initdb";
    names(initdb.database.as_deref(), initdb.owner.as_deref(), base, findings);
    let database = initdb.database.get_or_insert_with(|| "app".to_owned()).clone();
    initdb.owner.get_or_insert(database);
    for option in &initdb.options {
        let name = option.split(['=', ' ']).next().unwrap_or_default();
        if OWN_OPTIONS.contains(&name) {
            findings.error(
                format!("{base}.options"),
                Reason::ManagedSetting,
                format!("`{name}` is passed to initdb by the instance manager"),
                "leave it out",
            );
        }
    }
    if let Some(size) = initdb.wal_segment_size
        && !(1..=1024).contains(&size) | !u32::try_from(size).is_ok_and(u32::is_power_of_two)
    {
        findings.error(
            format!("{base}.walSegmentSize"),
            Reason::InvalidValue,
            format!("a WAL segment cannot have {size} MiB"),
            "write a power of two from 1 to 1024",
        );
    }
    if let Some(provider) = initdb.locale_provider.as_deref() {
        let since = match provider {
            "libc" => Some(13),
            "icu" => Some(15),
            "builtin" => Some(17),
            _ => None,
        };
        let path = format!("{base}.localeProvider");
        match (since, major) {
            (None, _) => findings.error(
                path,
                Reason::InvalidValue,
                format!("`{provider}` is not a locale provider"),
                "write `libc`, `icu` or `builtin`",
            ),
            (Some(since), Some(major)) if major < since => findings.error(
                path,
                Reason::InvalidValue,
                format!("PostgreSQL {major} has no locale provider `{provider}`"),
                format!("it is available in PostgreSQL {since} and later"),
            ),
            _ => {}
        }
    }
    if initdb.icu_locale.is_some() && initdb.locale_provider.as_deref() != Some("icu") {
        findings.error(
            format!("{base}.icuLocale"),
            Reason::Conflict,
            "`icuLocale` is for the provider `icu` only",
            "write `localeProvider: icu` beside it",
        );
    }
}

/// The application's database and its owner.
fn names(database: Option<&str>, owner: Option<&str>, base: &str, findings: &mut Findings) {
    // NAMEDATALEN of PostgreSQL is 64, and its last byte ends the name.
    for (field, name) in [("database", database), ("owner", owner)] {
        if let Some(name) = name
            && (name.is_empty() || name.len() > 63)
        {
            findings.error(
                format!("{base}.{field}"),
                Reason::InvalidValue,
                format!("`{name}` cannot be a name in PostgreSQL"),
                "1 to 63 bytes",
            );
        }
    }
    if let Some(database) = database.filter(|database| OWN_DATABASES.contains(database)) {
        findings.error(
            format!("{base}.database"),
            Reason::InvalidValue,
            format!("`{database}` cannot be the application's database"),
            "choose another name, such as `app`",
        );
    }
    if let Some(owner) =
        owner.filter(|owner| *owner == "postgres" || *owner == REPLICATION_USER || owner.starts_with("pg_"))
    {
        findings.error(
            format!("{base}.owner"),
            Reason::InvalidValue,
            format!("`{owner}` cannot own the application's database"),
            "choose another name, such as `app`",
        );
    }
}

fn check_recovery(recovery: &mut Recovery, spec: &ClusterSpec, findings: &mut Findings) {
    let base = "spec.bootstrap.recovery";
    names(recovery.database.as_deref(), recovery.owner.as_deref(), base, findings);
    match (&recovery.backup, &recovery.source, &recovery.volume_snapshots) {
        (None, None, None) => findings.error(
            base,
            Reason::MissingField,
            "no source of the recovery is named",
            "write `backup`, `source` or `volumeSnapshots`",
        ),
        (Some(_), _, Some(_)) => findings.error(
            format!("{base}.backup"),
            Reason::Conflict,
            "both `backup` and `volumeSnapshots` are set",
            "a Backup of volume snapshots already names them: keep `backup` or `volumeSnapshots`",
        ),
        (Some(backup), Some(source), None) => findings.warn(
            format!("{base}.backup"),
            Reason::ReadAsMeant,
            format!(
                "both `source` and `backup` are set; backup `{}` is looked for in the archive of `{source}`",
                backup.name
            ),
            "remove `source` to read the archive that the Backup itself names",
        ),
        (None, None, Some(_)) => findings.warn(
            format!("{base}.volumeSnapshots"),
            Reason::DefaultUsed,
            "without `source` there is no WAL to replay: only snapshots of a stopped server can be used",
            "write the archive into `externalClusters` and its name into `source`",
        ),
        _ => {}
    }
    if let Some(backup) = &recovery.backup
        && backup.name.is_empty()
    {
        findings.error(
            format!("{base}.backup.name"),
            Reason::MissingField,
            "the backup is not named",
            "write the name of a Backup",
        );
    } else if let Some(backup) = &recovery.backup
        && !is_object_name(&backup.name)
    {
        findings.error(
            format!("{base}.backup.name"),
            Reason::InvalidValue,
            format!("`{}` cannot be the name of a Backup", backup.name),
            "write the name without a namespace: the Backup must be in the cluster's namespace; from another one use \
             `source`",
        );
    }
    if let Some(source) = &recovery.source {
        let path = format!("{base}.source");
        match spec.external_clusters.iter().find(|external| external.name == *source) {
            None => {
                let known: Vec<&str> = spec.external_clusters.iter().map(|external| external.name.as_str()).collect();
                let hint = match (super::similar::nearest(source, known.iter().copied()), known.as_slice()) {
                    (Some(near), _) => format!("did you mean `{near}`?"),
                    (None, []) => "write an entry of that name into `spec.externalClusters`".to_owned(),
                    (None, known) => format!("there are `{}`", known.join("`, `")),
                };
                findings.error(path, Reason::InvalidValue, format!("`externalClusters` has no entry `{source}`"), hint);
            }
            Some(external) if external.barman_object_store.is_none() => findings.error(
                path,
                Reason::MissingField,
                format!("the entry `{source}` of `externalClusters` has no archive"),
                "write its `barmanObjectStore`: recovery reads an archive, never a running server",
            ),
            Some(_) => {}
        }
    }
    if let Some(snapshots) = &recovery.volume_snapshots {
        for (field, source) in [("storage", Some(&snapshots.storage)), ("walStorage", snapshots.wal_storage.as_ref())] {
            let Some(source) = source else { continue };
            let path = format!("{base}.volumeSnapshots.{field}");
            if !matches!(source.kind.as_str(), "VolumeSnapshot" | "PersistentVolumeClaim") {
                findings.error(
                    format!("{path}.kind"),
                    Reason::InvalidValue,
                    format!("a volume cannot be created from a `{}`", source.kind),
                    "write `VolumeSnapshot` with apiGroup `snapshot.storage.k8s.io`, or `PersistentVolumeClaim`",
                );
            } else if source.kind == "VolumeSnapshot" && source.api_group.as_deref() != Some("snapshot.storage.k8s.io")
            {
                findings.error(
                    format!("{path}.apiGroup"),
                    Reason::InvalidValue,
                    "the API group of the VolumeSnapshot is missing",
                    "write `apiGroup: snapshot.storage.k8s.io`",
                );
            }
        }
        if snapshots.wal_storage.is_some() != spec.wal_storage.is_some() {
            findings.error(
                format!("{base}.volumeSnapshots.walStorage"),
                Reason::Conflict,
                "a snapshot of the WAL volume and `spec.walStorage` need each other",
                "set both or neither, as in the cluster that was backed up",
            );
        }
    }
    if let Some(target) = &mut recovery.recovery_target {
        let only_snapshots = recovery.volume_snapshots.is_some() && recovery.source.is_none();
        check_target(target, only_snapshots, findings);
    }
}

/// Whether Kubernetes accepts the text as a name (RFC 1123, with dots).
fn is_object_name(name: &str) -> bool {
    let inner = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || matches!(letter, '-' | '.');
    name.len() <= 253 && name.chars().all(inner) && !name.starts_with(['-', '.']) && !name.ends_with(['-', '.'])
}

fn check_target(target: &mut RecoveryTarget, only_snapshots: bool, findings: &mut Findings) {
    let base = "spec.bootstrap.recovery.recoveryTarget";
    let written: Vec<&str> = [
        ("targetTime", target.target_time.is_some()),
        ("targetLSN", target.target_lsn.is_some()),
        ("targetXID", target.target_xid.is_some()),
        ("targetName", target.target_name.is_some()),
        ("targetImmediate", target.target_immediate == Some(true)),
    ]
    .into_iter()
    .filter_map(|(field, written)| written.then_some(field))
    .collect();
    if written.len() > 1 {
        findings.error(
            base,
            Reason::Conflict,
            format!("`{}` are set, but recovery stops at one target only", written.join("` and `")),
            "keep one of them",
        );
    }
    if only_snapshots && let Some(field) = written.iter().find(|field| **field != "targetImmediate") {
        findings.error(
            format!("{base}.{field}"),
            Reason::Conflict,
            "a target after the snapshots needs WAL, and no archive is named",
            "write the archive into `externalClusters` and its name into `spec.bootstrap.recovery.source`",
        );
    }
    if target.exclusive == Some(true)
        && !written.iter().any(|field| matches!(*field, "targetTime" | "targetLSN" | "targetXID"))
    {
        findings.warn(
            format!("{base}.exclusive"),
            Reason::NoEffect,
            "`exclusive` works only with a time, an LSN or a transaction",
            "leave it out",
        );
    }
    if let Some(text) = &mut target.target_time {
        let path = format!("{base}.targetTime");
        match moment::parse(text, MissingZone::MeansUtc) {
            Err(error) => findings.error(
                path,
                Reason::InvalidValue,
                format!("`{text}` is not a time: {error}"),
                "write it like `2025-01-31T14:30:00Z` or `2025-01-31 14:30:00+01`",
            ),
            Ok(read) => {
                let normal = read.time.to_rfc3339_opts(SecondsFormat::AutoSi, true);
                if !read.zone_is_written {
                    findings.warn(
                        path,
                        Reason::DefaultUsed,
                        format!("no time zone is given; {normal} (UTC) is used"),
                        "write the zone, such as `Z` or `+01:00`",
                    );
                }
                *text = normal;
            }
        }
    }
    if let Some(lsn) = &target.target_lsn
        && lsn.parse::<Lsn>().is_err()
    {
        findings.error(
            format!("{base}.targetLSN"),
            Reason::InvalidValue,
            format!("`{lsn}` is not an LSN"),
            "write it like `16/B374D848`",
        );
    }
    // 0 to 2 are not transactions (`FirstNormalTransactionId`).
    if let Some(xid) = &target.target_xid
        && !xid.parse::<u64>().is_ok_and(|xid| xid > 2)
    {
        findings.error(
            format!("{base}.targetXID"),
            Reason::InvalidValue,
            format!("`{xid}` is not a transaction id"),
            "write its number, such as `1234567`",
        );
    }
    if let Some(name) = &target.target_name
        && (name.is_empty() || name.len() > 63)
    {
        findings.error(
            format!("{base}.targetName"),
            Reason::InvalidValue,
            format!("`{name}` cannot be the name of a restore point"),
            "1 to 63 bytes, as given to pg_create_restore_point()",
        );
    }
    if let Some(timeline) = &target.target_tli
        && timeline.parse::<TargetTimeline>().is_err()
    {
        findings.error(
            format!("{base}.targetTLI"),
            Reason::InvalidValue,
            format!("`{timeline}` is not a timeline"),
            "write `latest`, `current` or its number",
        );
    }
    if let Some(id) = &target.backup_id
        && id.trim().is_empty()
    {
        findings.error(
            format!("{base}.backupID"),
            Reason::InvalidValue,
            "the id of the backup is empty",
            "leave it out to use the newest backup before the target",
        );
    }
}

/// A new cluster must never write into the archive from which it was recovered.
fn other_archive(recovery: &Recovery, cluster_name: &str, spec: &ClusterSpec, findings: &mut Findings) {
    let Some(own) = spec.backup.as_ref().and_then(|backup| backup.barman_object_store.as_ref()) else { return };
    let external = spec.external_clusters.iter().find(|external| Some(&external.name) == recovery.source.as_ref());
    let Some((external, store)) =
        external.and_then(|external| Some((external, external.barman_object_store.as_ref()?)))
    else {
        return;
    };
    let place = |store: &crate::cluster::BarmanObjectStore, name: &str| {
        let endpoint = store.endpoint_url.clone().unwrap_or_default().trim_end_matches('/').to_owned();
        let path = store.destination_path.trim_end_matches('/').to_owned();
        (endpoint, path, store.server_name.clone().unwrap_or_else(|| name.to_owned()))
    };
    if place(own, cluster_name) == place(store, &external.name) {
        findings.error(
            "spec.backup.barmanObjectStore",
            Reason::Conflict,
            format!("the cluster would write into the archive of `{}`, from which it is recovered", external.name),
            "give the new cluster another name, `serverName` or `destinationPath`",
        );
    }
}
