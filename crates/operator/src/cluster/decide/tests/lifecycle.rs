//! Bootstrap, scaling up and down, restarts.

use super::*;

#[test]
fn the_first_reconcile_makes_everything_for_one_instance() {
    let desired = desired();
    let observed = Observed {
        apis: Apis { disruption_budget: Some(BudgetApi::V1), pod_monitor: false },
        kinds_read: all_kinds(),
        ..Observed::default()
    };
    let decision = decide(&desired, &observed, now());
    assert_eq!(
        words(&decision),
        [
            "secret c-ca",
            "secret c-server",
            "secret c-replication",
            "secret c-operator",
            "secret c-app",
            "apply Service c-rw",
            "apply Service c-ro",
            "apply Service c-r",
            "apply Service c-pods",
            "apply PodDisruptionBudget c",
            "create lease",
            "apply ServiceAccount c-instance",
            "apply Role c-instance",
            "apply RoleBinding c-instance",
            "create claim c-1",
            "create pod c-1",
        ]
    );
    assert_eq!(decision.status.instance_names, ["c-1"]);
    assert_eq!(decision.status.target_primary.as_deref(), Some("c-1"));
    assert_eq!(decision.status.system_id, None);
}

#[test]
fn others_join_once_the_first_has_its_data() {
    let desired = desired();
    let mut observed = healthy(&desired);
    for name in ["c-2", "c-3"] {
        observed.pods.remove(name);
        observed.claims.remove(name);
        observed.answers.remove(name);
    }
    observed.status.instance_names = vec!["c-1".to_owned()];
    observed.status.latest_generated_node = 1;
    observed.status.system_id = None;
    observed.status.current_primary = None;
    let first = decide(&desired, &observed, now());
    assert_eq!(first.status.system_id.as_deref(), Some("7000"));
    assert_eq!(first.status.current_primary.as_deref(), Some("c-1"));
    assert_eq!(words(&first), Vec::<String>::new(), "the status comes first");
    observed.status = first.status;
    let second = decide(&desired, &observed, now());
    assert_eq!(second.status.instance_names, ["c-1", "c-2", "c-3"]);
    assert_eq!(words(&second), ["create claim c-2", "create claim c-3", "create pod c-2", "create pod c-3"]);
}

#[test]
fn an_instance_whose_bootstrap_fails_is_shown_and_not_repeated() {
    let desired = desired();
    let mut observed = healthy(&desired);
    observed.status.system_id = None;
    observed.status.instance_names = vec!["c-1".to_owned()];
    observed.pods.retain(|name, _| name == "c-1");
    let failed = observed.answers.get_mut("c-1").unwrap().as_mut().unwrap();
    (failed.role, failed.ready, failed.phase) = (None, false, InstancePhase::Failed);
    failed.error = Some(
        "error: the archive of main belongs to another cluster\nwhile: claiming the archive\nhint:  choose another serverName"
            .to_owned(),
    );
    let decision = decide(&desired, &observed, now());
    let blocked = decision.status.blocked_by.unwrap();
    assert_eq!(blocked.what, "c-1: the archive of main belongs to another cluster, while claiming the archive");
    assert_eq!(blocked.hint, "choose another serverName");
    assert_eq!(blocked.since, now());
}

#[test]
fn scaling_up_uses_no_number_twice() {
    let mut desired = desired();
    desired.spec.instances = 4;
    let mut observed = healthy(&desired);
    observed.status.instance_names.retain(|name| name != "c-4");
    observed.status.latest_generated_node = 7;
    let decision = decide(&desired, &observed, now());
    assert_eq!(decision.status.instance_names, ["c-1", "c-2", "c-3", "c-8"]);
    assert_eq!(words(&decision), ["create claim c-8", "create pod c-8"]);
}

#[test]
fn nothing_is_removed_while_the_primary_is_not_healthy() {
    let mut desired = desired();
    let mut observed = healthy(&desired);
    desired.spec.instances = 1;
    observed.answers.insert("c-1".to_owned(), Err("no answer".to_owned()));
    let decision = decide(&desired, &observed, now());
    assert_eq!(decision.status.instance_names, ["c-1", "c-2", "c-3"]);
    assert_eq!(words(&decision), Vec::<String>::new());
}

#[test]
fn a_standby_that_lost_its_volume_is_created_again() {
    let desired = desired();
    let mut observed = healthy(&desired);
    observed.pods.remove("c-2");
    observed.answers.remove("c-2");
    observed.claims.remove("c-2");
    assert_eq!(words(&decide(&desired, &observed, now())), ["create claim c-2", "create pod c-2"]);
}

#[test]
fn volumes_grow_and_never_shrink() {
    for (size, actions) in [
        ("2Gi", vec!["grow c-1 to 2Gi", "grow c-2 to 2Gi", "grow c-3 to 2Gi"]),
        ("2e9", vec!["grow c-1 to 2e9", "grow c-2 to 2e9", "grow c-3 to 2e9"]),
        ("1024Mi", vec![]),
        ("1M", vec![]),
    ] {
        let mut desired = desired();
        let observed = healthy(&desired);
        desired.spec.storage.as_mut().unwrap().size = Some(size.to_owned());
        assert_eq!(words(&decide(&desired, &observed, now())), actions, "{size}");
    }
}

#[test]
fn settings_that_need_a_restart_reach_standbys_first() {
    let desired = desired();
    let mut observed = healthy(&desired);
    for name in ["c-1", "c-3"] {
        observed.answers.get_mut(name).unwrap().as_mut().unwrap().pending_restart = true;
    }
    assert_eq!(words(&decide(&desired, &observed, now())), ["restart c-3"]);
    observed.answers.get_mut("c-3").unwrap().as_mut().unwrap().pending_restart = false;
    assert_eq!(words(&decide(&desired, &observed, now())), ["restart c-1"]);
    observed.answers.get_mut("c-2").unwrap().as_mut().unwrap().ready = false;
    assert_eq!(words(&decide(&desired, &observed, now())), Vec::<String>::new(), "one at a time");
}

/// A raised `max_connections` on the primary alone would stop the replay of standbys.
#[test]
fn a_primary_is_not_restarted_before_its_standbys_have_read_the_settings() {
    let desired = desired();
    let mut observed = healthy(&desired);
    let answer = |observed: &mut Observed, name: &str, generation, pending| {
        let answer = observed.answers.get_mut(name).unwrap().as_mut().unwrap();
        (answer.applied_generation, answer.pending_restart) = (generation, pending);
    };
    answer(&mut observed, "c-1", Some(2), true);
    for (c_2, c_3, expected) in [
        ((Some(1), false), (Some(1), false), vec![]),
        ((Some(2), true), (Some(1), false), vec!["restart c-2"]),
        ((Some(2), false), (Some(1), false), vec![]),
        ((Some(2), false), (None, false), vec![]),
        ((Some(2), false), (Some(2), true), vec!["restart c-3"]),
        // Lowered: the standbys wait for the primary, and do not report that they need a restart.
        ((Some(2), false), (Some(2), false), vec!["restart c-1"]),
        ((Some(3), false), (Some(2), false), vec!["restart c-1"]),
    ] {
        answer(&mut observed, "c-2", c_2.0, c_2.1);
        answer(&mut observed, "c-3", c_3.0, c_3.1);
        let decision = decide(&desired, &observed, now());
        assert_eq!(words(&decision), expected, "{c_2:?} {c_3:?}");
        assert_eq!(decision.next, SOON, "{c_2:?} {c_3:?}");
    }
}

#[test]
fn a_changed_template_replaces_pods_standbys_first_then_hands_over() {
    let mut desired = desired();
    let mut observed = healthy(&desired);
    desired.spec.priority_class_name = Some("important".to_owned());
    assert_eq!(words(&decide(&desired, &observed, now())), ["delete pod c-2"]);
    let ending = serde_json::from_value(json!("2026-11-22T11:59:59Z")).unwrap();
    observed.pods.get_mut("c-2").unwrap().metadata.deletion_timestamp = Some(ending);
    let decision = decide(&desired, &observed, now());
    assert_eq!((words(&decision), decision.events.len()), (Vec::new(), 0), "one that is being deleted is waited for");
    for name in ["c-2", "c-3"] {
        observed.pods.insert(name.to_owned(), pod(&desired, name, Some(names::REPLICA)));
        observed.answers.get_mut(name).unwrap().as_mut().unwrap().receiving = true;
    }
    let decision = decide(&desired, &observed, now());
    assert_eq!(words(&decision), Vec::<String>::new());
    assert_eq!(decision.status.target_primary.as_deref(), Some("c-2"));
    assert_eq!(decision.status.phase.as_deref(), Some("Switching over"));
    assert_eq!(decision.events[0].reason, Reason::SwitchingOver);
}

#[test]
fn a_pod_that_never_ran_is_created_again_when_the_manifest_is_corrected() {
    let mut desired = desired();
    let mut observed = healthy(&desired);
    observed.status.system_id = None;
    observed.status.instance_names = vec!["c-1".to_owned()];
    observed.pods.retain(|name, _| name == "c-1");
    observed.answers.clear();
    observed.pods.get_mut("c-1").unwrap().status = Some(serde_json::from_value(json!({"phase": "Pending"})).unwrap());
    assert_eq!(words(&decide(&desired, &observed, now())), Vec::<String>::new());
    desired.spec.image_name = Some("postgresql:18-corrected".to_owned());
    assert_eq!(words(&decide(&desired, &observed, now())), ["delete pod c-1"]);
}

#[test]
fn another_major_version_replaces_nothing() {
    let mut desired = desired();
    let mut observed = healthy(&desired);
    desired.spec.image_name = Some("postgresql:17".to_owned());
    assert_eq!(words(&decide(&desired, &observed, now())), Vec::<String>::new());
    observed.pods.remove("c-3");
    observed.answers.remove("c-3");
    let decision = decide(&desired, &observed, now());
    assert_eq!(words(&decision), Vec::<String>::new());
    assert!(decision.status.blocked_by.unwrap().what.contains("major upgrades are not supported yet"));
}

#[test]
fn certificates_are_renewed_and_brought_ones_are_not() {
    let desired = desired();
    let mut observed = healthy(&desired);
    let soon = Some(now() + chrono::Duration::days(29));
    observed.secrets.get_mut("c-server").unwrap().ends = soon;
    observed.secrets.get_mut("c-replication").unwrap().ends = soon;
    observed.secrets.get_mut("c-replication").unwrap().owned = false;
    assert_eq!(words(&decide(&desired, &observed, now())), ["secret c-server"]);

    let mut observed = healthy(&desired);
    observed.secrets.get_mut("c-ca").unwrap().authority = Some("another".to_owned());
    let expected = ["secret c-server", "secret c-replication", "secret c-operator"];
    assert_eq!(words(&decide(&desired, &observed, now())), expected, "a new authority signs all certificates again");
}

#[test]
fn a_lost_status_is_found_again_in_the_volumes() {
    let desired = desired();
    let mut observed = healthy(&desired);
    observed.status = ClusterStatus::default();
    let decision = decide(&desired, &observed, now());
    assert_eq!(decision.status.instance_names, ["c-1", "c-2", "c-3"]);
    assert_eq!(decision.status.latest_generated_node, 3);
    assert_eq!(decision.status.system_id.as_deref(), Some("7000"));
}
