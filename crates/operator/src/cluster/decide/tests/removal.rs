//! Scaling down: which instance goes, and what becomes of its volumes.

use super::*;

fn streaming(desired: &Desired) -> Observed {
    let mut observed = healthy(desired);
    for name in ["c-2", "c-3"] {
        said(&mut observed, name).receiving = true;
    }
    observed
}

fn said<'a>(observed: &'a mut Observed, name: &str) -> &'a mut InstanceStatus {
    observed.answers.get_mut(name).unwrap().as_mut().unwrap()
}

/// Each row: a change of a cluster of three whose standbys stream, and the instances that are left of two.
#[test]
fn the_worst_instance_goes() {
    type Row = (&'static str, fn(&mut Observed), &'static [&'static str]);
    let rows: [Row; 11] = [
        ("all are equal: the highest number", |_| {}, &["c-1", "c-2"]),
        ("one has failed", |it| said(it, "c-2").phase = InstancePhase::Failed, &["c-1", "c-3"]),
        ("one is not ready", |it| said(it, "c-2").ready = false, &["c-1", "c-3"]),
        ("one has diverged", |it| said(it, "c-2").diverged = true, &["c-1", "c-3"]),
        ("one does not stream", |it| said(it, "c-2").receiving = false, &["c-1", "c-3"]),
        ("one does not answer", |it| drop(it.answers.insert("c-2".into(), Err("silent".into()))), &["c-1", "c-3"]),
        ("one has less WAL", |it| said(it, "c-2").lsn = Some("0/2000000".to_owned()), &["c-1", "c-3"]),
        (
            "one is on a node that is drained",
            |it| {
                it.cordoned.insert("node-2".to_owned());
                it.pods.get_mut("c-2").unwrap().spec.as_mut().unwrap().node_name = Some("node-2".to_owned());
            },
            &["c-1", "c-3"],
        ),
        (
            "the primary has the highest number",
            |it| {
                it.status.target_primary = Some("c-3".to_owned());
                it.status.current_primary = Some("c-3".to_owned());
                said(it, "c-3").role = Some(Role::Primary);
                (said(it, "c-1").role, said(it, "c-1").receiving) = (Some(Role::Replica), true);
            },
            &["c-1", "c-3"],
        ),
        (
            "no standby streams: none goes",
            |it| (said(it, "c-2").receiving, said(it, "c-3").receiving) = (false, false),
            &["c-1", "c-2", "c-3"],
        ),
        (
            "the primary is not well: none goes",
            |it| drop(it.answers.insert("c-1".to_owned(), Err("no answer".to_owned()))),
            &["c-1", "c-2", "c-3"],
        ),
    ];
    for (name, change, left) in rows {
        let mut desired = desired();
        let mut observed = streaming(&desired);
        change(&mut observed);
        desired.spec.instances = 2;
        let decision = decide(&desired, &observed, now());
        assert_eq!(decision.status.instance_names, left, "{name}");
    }
}

#[test]
fn what_keeps_an_instance_from_being_removed_is_said() {
    let mut desired = desired();
    let observed = healthy(&desired);
    desired.spec.instances = 2;
    let decision = decide(&desired, &observed, now());
    assert_eq!(words(&decision), Vec::<String>::new());
    assert_eq!(
        decision.status.blocked_by.unwrap().what,
        "standbys that stream: 1 are needed, and without c-3 there would be 0"
    );
    // One instance is asked for: no standby is needed.
    desired.spec.instances = 1;
    assert_eq!(decide(&desired, &observed, now()).status.instance_names, ["c-1", "c-2"]);
}

#[test]
fn volumes_of_a_removed_instance_are_kept_for_a_while() {
    let mut desired = desired();
    let mut observed = streaming(&desired);
    desired.spec.instances = 2;
    let decision = decide(&desired, &observed, now());
    assert_eq!(words(&decision), ["delete pod c-3"]);
    assert_eq!(decision.events[0].text, "removing instance c-3; its volumes are kept for 86400 s");
    observed.status = decision.status;
    observed.pods.remove("c-3");
    observed.answers.remove("c-3");
    let decision = decide(&desired, &observed, now());
    assert_eq!(words(&decision), ["retire claim c-3"]);
    let annotations = BTreeMap::from([(names::REMOVED_AT.to_owned(), "2026-11-22T12:00:00Z".to_owned())]);
    observed.claims.get_mut("c-3").unwrap().metadata.annotations = Some(annotations);
    observed.status = decision.status;
    let later = now() + chrono::Duration::days(1);
    let decision = decide(&desired, &observed, later - chrono::Duration::seconds(1));
    assert_eq!(words(&decision), Vec::<String>::new());
    assert_eq!(decision.status.volumes["c-3"].deleted_after, Some(later));
    assert_eq!(words(&decide(&desired, &observed, later)), ["delete claim c-3"]);
    // Kept volumes are not in the way of the next removal, and no lost status finds them again.
    desired.spec.instances = 1;
    assert_eq!(decide(&desired, &observed, now()).status.instance_names, ["c-1"]);
    observed.status = ClusterStatus::default();
    assert_eq!(decide(&desired, &observed, now()).status.instance_names, ["c-1", "c-2"]);

    desired.spec.removal_delay = Some(0);
    let mut observed = streaming(&super::desired());
    observed.status.instance_names.pop();
    observed.pods.remove("c-3");
    observed.answers.remove("c-3");
    desired.spec.instances = 2;
    assert_eq!(words(&decide(&desired, &observed, now())), ["delete claim c-3"]);
}

#[test]
fn a_lost_volume_of_wal_is_not_replaced_by_an_empty_one() {
    let mut desired = desired();
    desired.spec.wal_storage = Some(serde_json::from_value(json!({"size": "1Gi"})).unwrap());
    let mut observed = healthy(&desired);
    for name in ["c-1-wal", "c-2-wal", "c-3-wal"] {
        observed.claims.insert(name.to_owned(), claim(name));
    }
    observed.status = decide(&desired, &observed, now()).status;
    observed.claims.remove("c-2-wal");
    observed.pods.remove("c-2");
    observed.answers.remove("c-2");
    for _ in 0..2 {
        let decision = decide(&desired, &observed, now());
        assert_eq!(words(&decision), Vec::<String>::new());
        let what = "PersistentVolumeClaim c-2-wal is gone, and with it WAL that c-2 needs";
        assert_eq!(decision.status.blocked_by.as_ref().unwrap().what, what);
        assert!(decision.status.volumes["c-2-wal"].missing);
        observed.status = decision.status;
    }
    // Without its data directory as well, the standby is created again.
    observed.claims.remove("c-2");
    let expected = ["create claim c-2", "create claim c-2-wal", "create pod c-2"];
    assert_eq!(words(&decide(&desired, &observed, now())), expected);
}
