use super::*;
use crate::backups::fixture::{cluster, instance, status};

fn name_of(choice: &Choice) -> &str {
    match choice {
        Choice::Instance { name, .. } => name,
        Choice::Wait(_) => "wait",
    }
}

#[test]
fn the_most_advanced_ready_standby_is_preferred() {
    type Change = fn(&mut ClusterView);
    type Row = (&'static str, BackupTarget, bool, Option<&'static str>, Change, &'static str);
    const STANDBY: BackupTarget = BackupTarget::PreferStandby;
    let table: &[Row] = &[
        ("healthy", STANDBY, false, None, |_| {}, "main-2"),
        ("primary wanted", BackupTarget::Primary, false, None, |_| {}, "main-1"),
        (
            "larger by value, not by text",
            STANDBY,
            false,
            None,
            |c| status(c, 3).lsn = Some("0/10000000".into()),
            "main-3",
        ),
        ("unknown position goes last", STANDBY, false, None, |c| status(c, 2).lsn = None, "main-3"),
        (
            "equal positions: the one streamed to",
            STANDBY,
            false,
            None,
            |c| {
                status(c, 3).lsn = Some("0/5000060".into());
                status(c, 2).receiving = false;
            },
            "main-3",
        ),
        (
            "equal in all: the lowest number",
            STANDBY,
            false,
            None,
            |c| status(c, 3).lsn = Some("0/5000060".into()),
            "main-2",
        ),
        ("not ready", STANDBY, false, None, |c| status(c, 2).ready = false, "main-3"),
        ("diverged", STANDBY, false, None, |c| status(c, 2).diverged = true, "main-3"),
        ("on another timeline", STANDBY, false, None, |c| status(c, 2).timeline_id = Some(2), "main-3"),
        ("pod terminating", STANDBY, false, None, |c| c.instances[1].terminating = true, "main-3"),
        ("does not answer", STANDBY, false, None, |c| c.instances[1].status = None, "main-3"),
        ("failed there just now", STANDBY, false, Some("main-2"), |_| {}, "main-3"),
        ("failed on the only standby", STANDBY, false, Some("main-2"), |c| status(c, 3).ready = false, "main-2"),
        ("no standby", STANDBY, false, None, |c| c.instances.truncate(1), "main-1"),
        ("no primary", STANDBY, false, None, |c| status(c, 1).ready = false, "wait"),
        ("primary terminating", STANDBY, false, None, |c| c.instances[0].terminating = true, "wait"),
        ("cold", STANDBY, true, None, |_| {}, "main-2"),
        ("cold of the primary", BackupTarget::Primary, true, None, |_| {}, "main-2"),
        ("cold without a standby", STANDBY, true, None, |c| c.instances.truncate(1), "wait"),
        (
            "cold of a single instance",
            STANDBY,
            true,
            None,
            |c| {
                c.instances.truncate(1);
                c.desired_instances = 1;
            },
            "main-1",
        ),
    ];
    for (name, target, cold, failed, change, expected) in table {
        let mut cluster = cluster();
        change(&mut cluster);
        let choice = choose(&cluster, TargetRequest { target: *target, cold: *cold, failed: *failed });
        assert_eq!(name_of(&choice), *expected, "{name}: {choice:?}");
    }
}

#[test]
fn a_wait_says_what_the_instances_do_instead() {
    let mut cluster = cluster();
    cluster.instances = vec![instance(1, Role::Primary, "0/1"), instance(2, Role::Replica, "0/1")];
    status(&mut cluster, 1).ready = false;
    status(&mut cluster, 1).message = "replaying WAL".to_owned();
    cluster.instances[1].status = None;
    let request = TargetRequest { target: BackupTarget::PreferStandby, cold: false, failed: None };
    assert_eq!(
        choose(&cluster, request),
        Choice::Wait(
            "cluster main has no primary that is ready (main-1: replaying WAL; main-2 does not answer)".to_owned()
        )
    );
}

#[test]
fn cold_choices_warn() {
    let request = TargetRequest { target: BackupTarget::Primary, cold: true, failed: None };
    let mut cluster = cluster();
    let warned = |cluster: &ClusterView| matches!(choose(cluster, request), Choice::Instance { warning: Some(_), .. });
    assert!(warned(&cluster));
    cluster.instances.truncate(1);
    cluster.desired_instances = 1;
    assert!(warned(&cluster));
}
