//! Which instance takes writes.

use super::*;
use std::time::Duration;

/// One case: a change of the healthy cluster, then the target primary and the actions.
struct Case {
    name: &'static str,
    change: fn(&mut Observed),
    target: &'static str,
    actions: &'static [&'static str],
}

fn gone(observed: &mut Observed, name: &str) {
    observed.pods.remove(name);
    observed.answers.remove(name);
}

fn silent(observed: &mut Observed, name: &str) {
    observed.answers.insert(name.to_owned(), Err("no answer within 2 s".to_owned()));
}

fn free(observed: &mut Observed, seconds: u64) {
    let lease = observed.lease.as_mut().unwrap();
    lease.holder = None;
    lease.free_for = Some(Duration::from_secs(seconds));
}

fn said<'a>(observed: &'a mut Observed, name: &str) -> &'a mut InstanceStatus {
    observed.answers.get_mut(name).unwrap().as_mut().unwrap()
}

fn ending(observed: &mut Observed, name: &str) {
    let time = serde_json::from_value(json!("2026-11-22T11:59:59Z")).unwrap();
    observed.pods.get_mut(name).unwrap().metadata.deletion_timestamp = Some(time);
}

fn terminated(observed: &mut Observed, name: &str) {
    let state = json!({"terminated": {"exitCode": 137}});
    let status = observed.pods.get_mut(name).unwrap().status.as_mut().unwrap();
    status.container_statuses.as_mut().unwrap()[0].state = Some(serde_json::from_value(state).unwrap());
}

const CASES: &[Case] = &[
    Case {
        name: "the pod is being deleted and the lease is still held: wait",
        change: |observed| ending(observed, "c-1"),
        target: "c-1",
        actions: &[],
    },
    Case {
        name: "the pod is being deleted and the lease is released: c-2, before the pod is gone",
        change: |observed| {
            ending(observed, "c-1");
            free(observed, 0);
        },
        target: "c-2",
        actions: &[],
    },
    Case {
        name: "the pod is gone and the lease is held: no failover just because the pod is gone, and no new pod",
        change: |observed| gone(observed, "c-1"),
        target: "c-1",
        actions: &[],
    },
    Case {
        name: "the pod is gone and the lease free: the first standby takes over, and the old primary comes back as a \
            standby",
        change: |observed| {
            gone(observed, "c-1");
            free(observed, 0);
        },
        target: "c-2",
        actions: &["create pod c-1"],
    },
    Case {
        name: "the container has ended, says a ready node: the lease is taken from it",
        change: |observed| {
            ending(observed, "c-1");
            terminated(observed, "c-1");
            silent(observed, "c-1");
        },
        target: "c-1",
        actions: &["release lease of c-1"],
    },
    Case {
        name: "the container has ended, says a node that is not ready: that is not a proof",
        change: |observed| {
            ending(observed, "c-1");
            terminated(observed, "c-1");
            silent(observed, "c-1");
            observed.nodes.insert("node-1".to_owned(), false);
        },
        target: "c-1",
        actions: &[],
    },
    Case {
        name: "another instance holds the lease: it keeps it",
        change: |observed| {
            ending(observed, "c-1");
            terminated(observed, "c-1");
            silent(observed, "c-1");
            observed.lease.as_mut().unwrap().holder = Some("c-3".to_owned());
        },
        target: "c-1",
        actions: &[],
    },
    Case {
        name: "the one with more WAL",
        change: |observed| {
            gone(observed, "c-1");
            free(observed, 0);
            said(observed, "c-3").lsn = Some("0/3000001".to_owned());
        },
        target: "c-3",
        actions: &["create pod c-1"],
    },
    Case {
        name: "LSNs are compared as numbers, not as text",
        change: |observed| {
            gone(observed, "c-1");
            free(observed, 0);
            said(observed, "c-2").lsn = Some("0/9000000".to_owned());
            said(observed, "c-3").lsn = Some("0/10000000".to_owned());
        },
        target: "c-3",
        actions: &["create pod c-1"],
    },
    Case {
        name: "the higher timeline before more WAL",
        change: |observed| {
            gone(observed, "c-1");
            free(observed, 0);
            said(observed, "c-2").lsn = Some("0/9000000".to_owned());
            said(observed, "c-3").timeline_id = Some(2);
        },
        target: "c-3",
        actions: &["create pod c-1"],
    },
    Case {
        name: "a standby that still receives is waited for",
        change: |observed| {
            gone(observed, "c-1");
            free(observed, 4);
            said(observed, "c-3").receiving = true;
        },
        target: "c-1",
        actions: &[],
    },
    Case {
        name: "but not for ever: the lease is free",
        change: |observed| {
            gone(observed, "c-1");
            free(observed, 5);
            said(observed, "c-3").receiving = true;
        },
        target: "c-2",
        actions: &["create pod c-1"],
    },
    Case {
        name: "a connection to a primary that did not renew its lease brings no more WAL",
        change: |observed| {
            silent(observed, "c-1");
            observed.ill_for = Duration::from_secs(10);
            free(observed, 0);
            observed.lease.as_mut().unwrap().holder = Some("c-1".to_owned());
            said(observed, "c-3").receiving = true;
        },
        target: "c-2",
        actions: &["label c-1 replica"],
    },
    Case {
        name: "a standby that does not answer is waited for",
        change: |observed| {
            gone(observed, "c-1");
            free(observed, 1);
            silent(observed, "c-3");
        },
        target: "c-1",
        actions: &[],
    },
    Case {
        name: "a standby on a lost node is not waited for",
        change: |observed| {
            gone(observed, "c-1");
            free(observed, 0);
            silent(observed, "c-3");
            observed.nodes.insert("node-2".to_owned(), false);
            observed.pods.get_mut("c-3").unwrap().spec.as_mut().unwrap().node_name = Some("node-2".to_owned());
        },
        target: "c-2",
        actions: &["create pod c-1"],
    },
    Case {
        name: "diverged, of another system, copying: none of these is chosen; the pod is created again on its volume",
        change: |observed| {
            gone(observed, "c-1");
            free(observed, 9);
            said(observed, "c-2").diverged = true;
            said(observed, "c-3").phase = InstancePhase::Joining;
        },
        target: "c-1",
        actions: &["create pod c-1"],
    },
    Case {
        name: "a standby on an older timeline than the cluster, while the primary's volume exists",
        change: |observed| {
            observed.status.timeline_id = Some(2);
            gone(observed, "c-1");
            free(observed, 9);
        },
        target: "c-1",
        actions: &["create pod c-1"],
    },
    Case {
        name: "a standby on an older timeline than the cluster, when the primary's volume is lost",
        change: |observed| {
            observed.status.timeline_id = Some(2);
            gone(observed, "c-1");
            observed.claims.remove("c-1");
            free(observed, 9);
        },
        target: "c-2",
        actions: &["create claim c-1", "create pod c-1"],
    },
    Case {
        name: "a primary that does not answer and renews its lease stays",
        change: |observed| {
            silent(observed, "c-1");
            observed.ill_for = Duration::from_mins(10);
        },
        target: "c-1",
        actions: &[],
    },
    Case {
        name: "a primary that does not answer and lost its lease",
        change: |observed| {
            silent(observed, "c-1");
            observed.ill_for = Duration::from_secs(10);
            observed.lease.as_mut().unwrap().free_for = Some(Duration::ZERO);
        },
        target: "c-2",
        actions: &["label c-1 replica"],
    },
    Case {
        name: "crash recovery is waited for",
        change: |observed| {
            let primary = said(observed, "c-1");
            (primary.ready, primary.role, primary.phase) = (false, None, InstancePhase::StartingPostgres);
            observed.ill_for = Duration::from_secs(29);
        },
        target: "c-1",
        actions: &[],
    },
    Case {
        name: "crash recovery that does not end: it has to step down",
        change: |observed| {
            let primary = said(observed, "c-1");
            (primary.ready, primary.role, primary.phase) = (false, None, InstancePhase::StartingPostgres);
            observed.ill_for = Duration::from_secs(30);
        },
        target: "c-2",
        actions: &["label c-1 replica"],
    },
    Case {
        name: "a primary that has failed has to step down at once",
        change: |observed| {
            let primary = said(observed, "c-1");
            (primary.ready, primary.phase) = (false, InstancePhase::Failed);
            primary.error = Some("error: the disk is full\nhint:  grow it".to_owned());
        },
        target: "c-2",
        actions: &["label c-1 replica"],
    },
    Case {
        name: "a primary that takes writes and reports a failure of something else stays",
        change: |observed| {
            let primary = said(observed, "c-1");
            primary.phase = InstancePhase::Failed;
            primary.error = Some("error: a password is refused\nhint:  choose another one".to_owned());
            observed.ill_for = Duration::from_mins(10);
        },
        target: "c-1",
        actions: &[],
    },
    Case {
        name: "a primary whose volume of WAL is being deleted hands over first",
        change: |observed| {
            let time = serde_json::from_value(json!("2026-11-22T11:59:59Z")).unwrap();
            let mut claim = claim("c-1-wal");
            claim.metadata.deletion_timestamp = Some(time);
            observed.claims.insert("c-1-wal".to_owned(), claim);
        },
        target: "c-2",
        actions: &["delete pod c-1"],
    },
    Case {
        name: "a primary whose volume is being deleted hands over first",
        change: |observed| {
            let time = serde_json::from_value(json!("2026-11-22T11:59:59Z")).unwrap();
            observed.claims.get_mut("c-1").unwrap().metadata.deletion_timestamp = Some(time);
        },
        target: "c-2",
        actions: &["delete pod c-1"],
    },
];

#[test]
fn failovers() {
    for case in CASES {
        let desired = desired();
        let mut observed = healthy(&desired);
        (case.change)(&mut observed);
        let decision = decide(&desired, &observed, now());
        assert_eq!(decision.status.target_primary.as_deref(), Some(case.target), "{}", case.name);
        assert_eq!(words(&decision), case.actions, "{}", case.name);
        assert_eq!(decision.next, SOON, "{}", case.name);
    }
}

#[test]
fn the_delay_is_waited_for() {
    let mut desired = desired();
    desired.spec.failover_delay = Some(20);
    let mut observed = healthy(&desired);
    gone(&mut observed, "c-1");
    free(&mut observed, 9);
    observed.ill_for = Duration::from_secs(19);
    assert_eq!(decide(&desired, &observed, now()).status.target_primary.as_deref(), Some("c-1"));
    observed.ill_for = Duration::from_secs(20);
    assert_eq!(decide(&desired, &observed, now()).status.target_primary.as_deref(), Some("c-2"));
}

#[test]
fn the_services_follow_only_what_the_new_primary_reports() {
    let desired = desired();
    let mut observed = healthy(&desired);
    observed.status.target_primary = Some("c-2".to_owned());
    observed.lease.as_mut().unwrap().holder = Some("c-2".to_owned());
    let primary = said(&mut observed, "c-1");
    primary.role = Some(Role::Replica);
    let promoting = said(&mut observed, "c-2");
    promoting.phase = InstancePhase::Promoting;
    let decision = decide(&desired, &observed, now());
    assert_eq!(decision.status.current_primary.as_deref(), Some("c-1"));
    assert_eq!(words(&decision), ["label c-1 replica"]);
    assert_eq!(decision.status.phase.as_deref(), Some("Switching over"));

    let promoted = said(&mut observed, "c-2");
    (promoted.role, promoted.phase, promoted.timeline_id) = (Some(Role::Primary), InstancePhase::Running, Some(2));
    let decision = decide(&desired, &observed, now());
    assert_eq!(decision.status.current_primary.as_deref(), Some("c-2"));
    assert_eq!(decision.status.timeline_id, Some(2));
    assert_eq!(words(&decision), ["label c-1 replica", "label c-2 primary"]);
}

#[test]
fn an_only_instance_comes_back() {
    let mut desired = desired();
    desired.spec.instances = 1;
    let mut observed = healthy(&desired);
    for name in ["c-2", "c-3"] {
        gone(&mut observed, name);
        observed.claims.remove(name);
        observed.status.instance_names.retain(|other| other != name);
    }
    gone(&mut observed, "c-1");
    let decision = decide(&desired, &observed, now());
    assert_eq!(words(&decision), ["create pod c-1"]);
    assert_eq!(decision.status.phase.as_deref(), Some("Primary is down"));
    // Without its volume it would be empty: nothing starts again with empty data on its own.
    observed.claims.remove("c-1");
    let decision = decide(&desired, &observed, now());
    assert_eq!(words(&decision), Vec::<String>::new());
    let blocked = decision.status.blocked_by.unwrap();
    assert!(blocked.what.contains("is gone, and the data of the primary with it"), "{blocked:?}");
}
