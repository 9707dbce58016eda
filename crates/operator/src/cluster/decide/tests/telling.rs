//! What people read.

use super::*;

fn condition<'a>(decision: &'a Decision, kind: &str) -> &'a k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition {
    decision.status.conditions.iter().find(|condition| condition.type_ == kind).unwrap()
}

#[test]
fn a_refused_manifest_waits_and_says_why() {
    let mut desired = desired();
    desired.errors.push(Complaint {
        path: "spec.instances".to_owned(),
        reason: "InvalidValue".to_owned(),
        message: "0 is not between 1 and 99".to_owned(),
    });
    let decision = decide(&desired, &Observed::default(), now());
    assert_eq!(words(&decision), Vec::<String>::new());
    assert_eq!(decision.next, LATER);
    assert_eq!(decision.status.phase.as_deref(), Some("Manifest refused"));
    let accepted = condition(&decision, "SpecAccepted");
    assert_eq!((accepted.status.as_str(), accepted.reason.as_str()), ("False", "InvalidValue"));
    assert_eq!(accepted.message, "spec.instances: 0 is not between 1 and 99");
    assert_eq!(decision.events[0].reason, Reason::SpecRefused);
}

#[test]
fn a_refused_change_leaves_the_cluster_alive() {
    let mut desired = desired();
    let mut observed = healthy(&desired);
    desired.errors.push(Complaint { path: "spec.instances".to_owned(), ..Complaint::default() });
    desired.spec.instances = 0;
    observed.pods.remove("c-3");
    observed.answers.remove("c-3");
    assert_eq!(words(&decide(&desired, &observed, now())), ["create pod c-3"]);
    // When not even its fields can be read, nothing is created from it. A failover needs none of them.
    desired.unreadable = true;
    desired.spec = holdfast_kube_api::ClusterSpec::default();
    observed.kinds_read = all_kinds();
    assert_eq!(words(&decide(&desired, &observed, now())), Vec::<String>::new());
    observed.pods.remove("c-1");
    observed.answers.remove("c-1");
    observed.lease.as_mut().unwrap().free_for = Some(Duration::ZERO);
    let decision = decide(&desired, &observed, now());
    assert_eq!((words(&decision), decision.status.target_primary.as_deref()), (Vec::new(), Some("c-2")));
}

#[test]
fn what_blocks_is_named_since_when_and_with_a_hint() {
    let desired = desired();
    let mut observed = healthy(&desired);
    observed.answers.remove("c-3");
    let pod = observed.pods.get_mut("c-3").unwrap();
    pod.status = serde_json::from_value(json!({
        "phase": "Pending",
        "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/2 nodes are available: 2 Insufficient memory."}],
    }))
    .unwrap();
    let decision = decide(&desired, &observed, now());
    let blocked = decision.status.blocked_by.clone().unwrap();
    assert_eq!(blocked.what, "pod c-3: 0/2 nodes are available: 2 Insufficient memory.");
    assert!(blocked.hint.starts_with("free resources"), "{blocked:?}");
    assert_eq!(decision.status.phase_reason.as_deref(), Some("2 of 3 instances are ready"));

    observed.status = decision.status;
    let later = decide(&desired, &observed, now() + chrono::Duration::minutes(3));
    assert_eq!(later.status.blocked_by.unwrap().since, now(), "since it began");

    let pod = observed.pods.get_mut("c-3").unwrap();
    pod.status = serde_json::from_value(json!({
        "phase": "Pending",
        "containerStatuses": [{"name": "postgres", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}],
    }))
    .unwrap();
    let blocked = decide(&desired, &observed, now()).status.blocked_by.unwrap();
    assert_eq!(blocked.what, "pod c-3: ImagePullBackOff: no such image");
    assert_eq!(blocked.hint, "check spec.imageName and spec.imagePullSecrets");

    observed.pods.get_mut("c-3").unwrap().status = None;
    observed.claims.get_mut("c-3").unwrap().status = Some(serde_json::from_value(json!({"phase": "Pending"})).unwrap());
    observed.troubles.insert("c-3".to_owned(), "storageclass fast not found".to_owned());
    let blocked = decide(&desired, &observed, now()).status.blocked_by.unwrap();
    assert_eq!(blocked.what, "PersistentVolumeClaim c-3: storageclass fast not found");
}

#[test]
fn a_held_lease_is_waited_for_with_its_limit() {
    let desired = desired();
    let mut observed = healthy(&desired);
    observed.pods.remove("c-1");
    observed.answers.remove("c-1");
    observed.lease.as_mut().unwrap().unchanged_for = Duration::from_secs(4);
    let blocked = decide(&desired, &observed, now()).status.blocked_by.unwrap();
    assert_eq!(blocked.what, "Lease c-primary: held by c-1");
    assert_eq!(blocked.until, Some(now() + chrono::Duration::seconds(6)));
}

#[test]
fn archiving_has_its_condition_and_its_events() {
    let mut desired = desired();
    desired.spec.backup =
        Some(serde_json::from_value(json!({"barmanObjectStore": {"destinationPath": "s3://bucket/"}})).unwrap());
    let mut observed = healthy(&desired);
    let state = |working, error: Option<&str>| {
        Some(holdfast_kube_api::status_port::ArchiveStatus {
            working,
            error: error.map(str::to_owned),
            ..Default::default()
        })
    };
    observed.answers.get_mut("c-1").unwrap().as_mut().unwrap().archive = state(true, None);
    let good = decide(&desired, &observed, now());
    assert_eq!(condition(&good, "ContinuousArchiving").status, "True");
    observed.status = good.status;
    observed.answers.get_mut("c-1").unwrap().as_mut().unwrap().archive =
        state(false, Some("error: the store refused\nwhile: archiving WAL\nhint:  check the key"));
    let bad = decide(&desired, &observed, now());
    let archiving = condition(&bad, "ContinuousArchiving");
    assert_eq!(archiving.status, "False");
    assert_eq!(archiving.message, "the store refused, while archiving WAL. check the key");
    assert!(bad.events.iter().any(|note| note.reason == Reason::ArchivingFails));
}

#[test]
fn missing_apis_are_reported() {
    let mut desired = desired();
    let mut observed = healthy(&desired);
    observed.apis.disruption_budget = None;
    desired.spec.monitoring = Some(holdfast_kube_api::cluster::Monitoring { enable_pod_monitor: true });
    let decision = decide(&desired, &observed, now());
    let missing = decision.events.iter().filter(|note| note.reason == Reason::ApiMissing).count();
    assert_eq!(missing, 2, "{:?}", decision.events);
}
