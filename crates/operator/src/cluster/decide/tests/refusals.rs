//! Requests that the API server refuses, and objects of other owners.

use super::*;
use crate::cluster::order::{in_order, needs};

fn condition(decision: &Decision) -> (String, String, String) {
    let found = decision.status.conditions.iter().find(|condition| condition.type_ == "Reconciled");
    found.map(|one| (one.status.clone(), one.reason.clone(), one.message.clone())).unwrap_or_default()
}

#[test]
fn a_refusal_is_reported_in_the_words_of_the_api_server() {
    let desired = desired();
    let mut observed = healthy(&desired);
    assert_eq!(condition(&decide(&desired, &observed, now())).0, "", "an operator that has not acted knows nothing");
    observed.refused = Some(vec![RefusedAction {
        action: "expand PersistentVolumeClaim c-1 to 2Gi".to_owned(),
        why: "only dynamically provisioned pvc can be resized".to_owned(),
        hint: "write the size back".to_owned(),
    }]);
    let decision = decide(&desired, &observed, now());
    let text = "expand PersistentVolumeClaim c-1 to 2Gi: only dynamically provisioned pvc can be resized";
    assert_eq!(condition(&decision), ("False".to_owned(), "RequestRefused".to_owned(), text.to_owned()));
    let blocked = decision.status.blocked_by.clone().unwrap();
    assert_eq!((blocked.what.as_str(), blocked.hint.as_str()), (text, "write the size back"));
    assert_eq!(decision.status.phase.as_deref(), Some("A request is refused"));
    assert!(!decision.busy, "the refused action has its own time");
    assert_eq!(decision.events.iter().map(|event| event.reason).collect::<Vec<_>>(), [Reason::RequestRefused]);

    observed.status = decision.status;
    observed.refused = None;
    assert_eq!(condition(&decide(&desired, &observed, now())).0, "False", "a new operator leaves it as it is");
    observed.refused = Some(Vec::new());
    let decision = decide(&desired, &observed, now());
    assert_eq!(condition(&decision).0, "True");
    assert_eq!((decision.status.blocked_by, decision.status.phase.as_deref()), (None, Some("Healthy")));
}

#[test]
fn objects_of_others_are_left_alone_and_named() {
    let desired = desired();
    let foreign =
        |kind, name: &str| Foreign { kind, name: name.to_owned(), owner: "Cluster c (x/v1, uid 9)".to_owned() };
    let mut observed = healthy(&desired);
    observed.kinds_read = all_kinds();
    observed.foreign = vec![foreign("Service", "c-rw"), foreign("Role", "c-instance")];
    let decision = decide(&desired, &observed, now());
    let done = words(&decision);
    assert!(!done.contains(&"apply Service c-rw".to_owned()) && !done.contains(&"apply Role c-instance".to_owned()));
    assert!(done.contains(&"apply Service c-ro".to_owned()), "{done:?}");
    let text = "Service c-rw is not of this cluster: it belongs to Cluster c (x/v1, uid 9)";
    let (status, reason, message) = condition(&decision);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "ForeignObject"));
    assert!(message.starts_with(text) && message.contains("Role c-instance"), "{message}");
    assert_eq!(decision.status.blocked_by.unwrap().what, text);

    // A pod with somebody else's account or volume is not created.
    for one in [
        foreign("ServiceAccount", "c-instance"),
        foreign("PersistentVolumeClaim", "c-3"),
        foreign("PersistentVolumeClaim", "c-3-wal"),
        foreign("Pod", "c-3"),
    ] {
        let mut observed = healthy(&desired);
        observed.kinds_read = all_kinds();
        observed.pods.remove("c-3");
        observed.answers.remove("c-3");
        observed.claims.remove("c-3");
        observed.foreign = vec![one.clone()];
        let done = words(&decide(&desired, &observed, now()));
        assert!(!done.contains(&"create pod c-3".to_owned()), "{one:?}: {done:?}");
        let bound = done.iter().any(|word| word.starts_with("apply Role"));
        assert_eq!(bound, one.kind != "ServiceAccount", "{one:?}: {done:?}");
    }
}

#[test]
fn what_a_failover_waits_for_comes_first() {
    let mut desired = desired();
    desired.spec.instances = 4;
    let mut observed = healthy(&desired);
    observed.kinds_read = all_kinds();
    let account = (Kind::ServiceAccount, names::service_account("c"));
    observed.objects.insert(account, json!({"metadata": {"name": "c-instance"}}));
    observed.status.target_primary = Some("c-2".to_owned());
    observed.answers.get_mut("c-1").unwrap().as_mut().unwrap().role = Some(Role::Replica);
    let promoted = observed.answers.get_mut("c-2").unwrap().as_mut().unwrap();
    (promoted.role, promoted.timeline_id) = (Some(Role::Primary), Some(2));
    observed.pods.remove("c-3");
    observed.answers.remove("c-3");
    let decision = decide(&desired, &observed, now());
    let ordered = in_order(&decision.actions, &observed, "c");
    let first: Vec<String> = ordered.iter().take(4).map(|action| action.title("c")).collect();
    assert_eq!(first, ["label Pod c-1", "label Pod c-2", "create Pod c-3", "apply Service c-rw"]);
    assert_eq!(ordered.len(), decision.actions.len());
}

#[test]
fn only_what_is_needed_is_waited_for() {
    let desired = desired();
    let observed = Observed { kinds_read: all_kinds(), ..Observed::default() };
    let actions = decide(&desired, &observed, now()).actions;
    let by_title = |title: &str| actions.iter().find(|action| action.title("c") == title).unwrap();
    let pod = by_title("create Pod c-1");
    let needed: Vec<String> =
        actions.iter().filter(|other| needs(pod, other, &observed, "c")).map(|action| action.title("c")).collect();
    assert_eq!(
        needed,
        [
            "write Secret c-ca",
            "write Secret c-server",
            "write Secret c-replication",
            "apply ServiceAccount c-instance",
            "create PersistentVolumeClaim c-1",
        ]
    );
    let authority = by_title("write Secret c-ca");
    assert!(needs(by_title("write Secret c-server"), authority, &observed, "c"));
    assert!(!needs(by_title("write Secret c-app"), authority, &observed, "c"));
    // A certificate that exists and cannot be renewed stops no pod.
    let mut observed = observed;
    observed.secrets.insert("c-server".to_owned(), SecretFacts::default());
    assert!(!needs(pod, by_title("write Secret c-server"), &observed, "c"));
}
