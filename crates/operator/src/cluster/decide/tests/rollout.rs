//! When pods are created again, and where the primary goes meanwhile.

use super::*;

fn said<'a>(observed: &'a mut Observed, name: &str) -> &'a mut InstanceStatus {
    observed.answers.get_mut(name).unwrap().as_mut().unwrap()
}

/// The container ends again and again.
fn crashes(observed: &mut Observed, name: &str) {
    observed.answers.insert(name.to_owned(), Err("its container is not running".to_owned()));
    let status = observed.pods.get_mut(name).unwrap().status.as_mut().unwrap();
    let container = &mut status.container_statuses.as_mut().unwrap()[0];
    container.restart_count = 3;
    container.ready = false;
    container.state = Some(
        serde_json::from_value(json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}})).unwrap(),
    );
    container.last_state =
        Some(serde_json::from_value(json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}})).unwrap());
}

fn only_one(observed: &mut Observed) {
    for name in ["c-2", "c-3"] {
        observed.pods.remove(name);
        observed.answers.remove(name);
        observed.claims.remove(name);
        observed.status.instance_names.retain(|other| other != name);
    }
}

#[test]
fn a_new_operator_changes_no_pod() {
    let mut desired = desired();
    let observed = healthy(&desired);
    desired.images.operator = "holdfast:2".to_owned();
    let decision = decide(&desired, &observed, now());
    assert_eq!((words(&decision), decision.status), (Vec::new(), observed.status.clone()));
    // A person can ask for it, cluster by cluster.
    desired.restarted_at = Some("2026-11-22T12:00:00Z".to_owned());
    let decision = decide(&desired, &observed, now());
    assert_eq!(words(&decision), ["delete pod c-2"]);
}

#[test]
fn an_only_instance_that_cannot_run_is_repaired_by_the_manifest() {
    for bootstrapped in [true, false] {
        let mut desired = desired();
        desired.spec.instances = 1;
        let limits = |memory: &str| serde_json::from_value(json!({"limits": {"memory": memory}})).unwrap();
        desired.spec.resources = Some(limits("64Mi"));
        let mut observed = healthy(&desired);
        only_one(&mut observed);
        if !bootstrapped {
            observed.status.system_id = None;
            observed.status.current_primary = None;
        }
        crashes(&mut observed, "c-1");
        let decision = decide(&desired, &observed, now());
        assert_eq!(words(&decision), Vec::<String>::new(), "the manifest has not changed");
        let blocked = decision.status.blocked_by.unwrap();
        let what = "pod c-1: CrashLoopBackOff: it needed more memory than its limit of 64Mi (OOMKilled)";
        assert_eq!(blocked.what, what);
        desired.spec.resources = Some(limits("1Gi"));
        assert_eq!(words(&decide(&desired, &observed, now())), ["delete pod c-1"], "bootstrapped: {bootstrapped}");
    }
}

#[test]
fn pods_that_cannot_run_do_not_wait_for_each_other() {
    let mut desired = desired();
    let mut observed = healthy(&desired);
    crashes(&mut observed, "c-2");
    said(&mut observed, "c-3").phase = InstancePhase::Failed;
    said(&mut observed, "c-3").ready = false;
    desired.spec.priority_class_name = Some("important".to_owned());
    assert_eq!(words(&decide(&desired, &observed, now())), ["delete pod c-2", "delete pod c-3"]);
    // A standby that copies the primary would lose its work.
    said(&mut observed, "c-3").phase = InstancePhase::Joining;
    assert_eq!(words(&decide(&desired, &observed, now())), ["delete pod c-2"]);
}

/// Each row: a change of a cluster whose primary has to be replaced, and the instance that takes over.
#[test]
fn the_primary_hands_over_only_to_a_standby_that_streams() {
    type Row = (&'static str, fn(&mut Observed), &'static str);
    let rows: [Row; 7] = [
        ("both stream", |_| {}, "c-2"),
        ("the first does not stream", |it| said(it, "c-2").receiving = false, "c-3"),
        ("the first has less WAL", |it| said(it, "c-2").lsn = Some("0/1000000".to_owned()), "c-3"),
        (
            "the first has not replayed what it received",
            |it| {
                for name in ["c-1", "c-2", "c-3"] {
                    said(it, name).lsn = Some("1/0".to_owned());
                }
                said(it, "c-2").replayed_lsn = Some("0/1000000".to_owned());
            },
            "c-3",
        ),
        (
            "the first is on a node that is drained",
            |it| {
                it.cordoned.insert("node-2".to_owned());
                it.pods.get_mut("c-2").unwrap().spec.as_mut().unwrap().node_name = Some("node-2".to_owned());
            },
            "c-3",
        ),
        ("none streams: it stays", |it| (said(it, "c-2").receiving, said(it, "c-3").receiving) = (false, false), "c-1"),
        ("all lack much WAL: it stays", |it| said(it, "c-1").lsn = Some("0/9000000".to_owned()), "c-1"),
    ];
    for (name, change, target) in rows {
        let mut desired = desired();
        desired.spec.priority_class_name = Some("important".to_owned());
        let mut observed = healthy(&desired);
        for standby in ["c-2", "c-3"] {
            said(&mut observed, standby).receiving = true;
        }
        observed.pods.get_mut("c-1").unwrap().metadata.annotations =
            Some(BTreeMap::from([(names::TEMPLATE_HASH.to_owned(), "of another template".to_owned())]));
        change(&mut observed);
        let decision = decide(&desired, &observed, now());
        assert_eq!(decision.status.target_primary.as_deref(), Some(target), "{name}");
        assert_eq!(words(&decision), Vec::<String>::new(), "{name}");
    }
}
