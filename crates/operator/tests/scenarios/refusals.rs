//! One kind of request is refused for good: by a quota, a policy, missing permissions, a webhook that fails. Everything
//! else must happen nevertheless, above all a failover; the status must say what is refused, in the words of the API
//! server; and when it is allowed again, everything ends as without the refusal.

use crate::normal::differences;
use crate::stage::Step::{Begin, Given, Heal, Then};
use crate::stage::{Scenario, Step, play};
use crate::stories::{cluster, main_is_ready, status, writes_go_to};
use crate::transport::{At, Fault};
use crate::world::{Verb, World};
use serde_json::json;

/// Something of each kind is missing, the volumes should grow, and the primary is lost.
fn much_to_do(world: &mut World) {
    world.delete("services", "main-r");
    world.delete("serviceaccounts", "main-instance");
    world.delete("roles", "main-instance");
    world.delete("rolebindings", "main-instance");
    world.delete("poddisruptionbudgets", "main");
    world.delete("secrets", "main-app");
    world.edit("clusters", "main", |cluster| cluster["spec"]["storage"]["size"] = json!("2Gi"));
    world.lose("main-1");
}

fn refusal_is_reported(world: &World) -> bool {
    let Some(status) = status(world, "clusters", "main") else { return false };
    let conditions = status["conditions"].as_array();
    let reconciled = conditions.into_iter().flatten().find(|condition| condition["type"] == "Reconciled");
    reconciled.is_some_and(|condition| {
        let message = condition["message"].as_str().unwrap_or_default();
        condition["status"] == "False" && message.contains("a fault of the test")
    }) && status["blockedBy"]["what"].is_string()
}

fn all_is_there(world: &World) -> bool {
    let grown = |claim: &str| {
        world
            .get("persistentvolumeclaims", claim)
            .is_some_and(|it| it["spec"]["resources"]["requests"]["storage"] == "2Gi")
    };
    main_is_ready(world, 3)
        && writes_go_to(world, "main-2")
        && ["main-1", "main-2", "main-3"].into_iter().all(grown)
        && world.get("services", "main-r").is_some()
        && world.get("serviceaccounts", "main-instance").is_some()
        && world.get("roles", "main-instance").is_some()
        && world.get("rolebindings", "main-instance").is_some()
        && world.get("poddisruptionbudgets", "main").is_some()
        && world.get("secrets", "main-app").is_some()
}

const START: [Step; 4] = [
    Given("a cluster", |world| world.put("clusters", "main", cluster(3))),
    Then("it is healthy", |world| main_is_ready(world, 3) && writes_go_to(world, "main-1")),
    Begin,
    Given("much is to do, and the primary is lost", much_to_do),
];
const ALL_IS_THERE: Step = Then("everything is there", all_is_there);
const REPORTED: Step = Then("the refusal is reported", refusal_is_reported);
const FAILED_OVER: Step = Then("another one takes writes", |world| writes_go_to(world, "main-2"));

const CALM: Scenario =
    Scenario { name: "much to do", steps: &[START[0], START[1], START[2], START[3], FAILED_OVER, ALL_IS_THERE] };
const REFUSED: Scenario = Scenario {
    name: "much to do, and one kind of request is refused",
    steps: &[START[0], START[1], START[2], START[3], FAILED_OVER, REPORTED, Heal, ALL_IS_THERE],
};
/// The label itself is refused, so the service cannot follow.
const LABELS_REFUSED: Scenario = Scenario {
    name: "much to do, and no label can be set",
    steps: &[
        START[0],
        START[1],
        START[2],
        START[3],
        Then("another one takes writes", |world| {
            status(world, "clusters", "main").is_some_and(|status| status["currentPrimary"] == "main-2")
        }),
        Then("the lost pod is there again", |world| world.get("pods", "main-1").is_some()),
        REPORTED,
        Heal,
        ALL_IS_THERE,
    ],
};

#[test]
fn one_refused_request_stops_nothing_else() {
    let expected = play(&CALM, Fault::None, At::All).unwrap_or_else(|error| panic!("{error}"));
    let kinds = [
        (Verb::Apply, "services"),
        (Verb::Apply, "serviceaccounts"),
        (Verb::Apply, "roles"),
        (Verb::Apply, "rolebindings"),
        (Verb::Apply, "poddisruptionbudgets"),
        (Verb::Create, "secrets"),
        (Verb::Merge, "persistentvolumeclaims"),
        (Verb::Create, "pods"),
        (Verb::List, "services"),
        (Verb::Get, "services"),
        (Verb::List, "roles"),
        (Verb::List, "poddisruptionbudgets"),
        (Verb::Get, "nodes"),
    ];
    let rows = kinds.map(|kind| (&REFUSED, kind)).into_iter().chain([(&LABELS_REFUSED, (Verb::Merge, "pods"))]);
    for (scenario, (verb, plural)) in rows {
        for code in [403, 500] {
            let outcome = play(scenario, Fault::Refuse(code), At::Kind(verb, plural))
                .unwrap_or_else(|error| panic!("{verb:?} {plural}: {error}"));
            assert!(outcome.hits > 0, "{verb:?} {plural}: nothing was refused");
            let differences = differences(&expected.objects, &outcome.objects);
            assert_eq!(differences, Vec::<String>::new(), "{verb:?} {plural} with {code}");
        }
    }
}

const BIRTH: Scenario = Scenario {
    name: "a cluster from nothing, and one kind of request is refused",
    steps: &[
        Given("a cluster", |world| world.put("clusters", "main", cluster(2))),
        REPORTED,
        Heal,
        Then("it is healthy", |world| main_is_ready(world, 2) && writes_go_to(world, "main-1")),
    ],
};

const BORN: Scenario = Scenario {
    name: "a cluster from nothing",
    steps: &[
        Given("a cluster", |world| world.put("clusters", "main", cluster(2))),
        Then("it is healthy", |world| main_is_ready(world, 2) && writes_go_to(world, "main-1")),
    ],
};

#[test]
fn a_refusal_at_birth_is_reported_and_leaves_nothing_undone() {
    let expected = play(&BORN, Fault::None, At::All).unwrap_or_else(|error| panic!("{error}"));
    for (verb, plural) in [
        (Verb::Create, "secrets"),
        (Verb::Create, "leases"),
        (Verb::Create, "persistentvolumeclaims"),
        (Verb::Create, "pods"),
        (Verb::Apply, "services"),
        (Verb::Apply, "serviceaccounts"),
        (Verb::Apply, "roles"),
        (Verb::Apply, "rolebindings"),
        (Verb::Apply, "poddisruptionbudgets"),
    ] {
        let outcome = play(&BIRTH, Fault::Refuse(403), At::Kind(verb, plural))
            .unwrap_or_else(|error| panic!("{verb:?} {plural}: {error}"));
        assert!(outcome.hits > 0, "{verb:?} {plural}: nothing was refused");
        assert_eq!(differences(&expected.objects, &outcome.objects), Vec::<String>::new(), "{verb:?} {plural}");
        assert_eq!(outcome.made_twice, Vec::<String>::new(), "{verb:?} {plural}");
    }
}

const REMOVAL: Scenario = Scenario {
    name: "an instance is removed, its objects cannot be deleted, and the primary is lost",
    steps: &[
        Given("a cluster", |world| world.put("clusters", "main", cluster(3))),
        Then("it is healthy", |world| main_is_ready(world, 3) && writes_go_to(world, "main-1")),
        Begin,
        Given("two instances are requested, and no volume is kept", |world| {
            world.edit("clusters", "main", |cluster| {
                cluster["spec"]["instances"] = json!(2);
                cluster["spec"]["removalDelay"] = json!(0);
            });
        }),
        REPORTED,
        Given("the primary is lost", |world| world.lose("main-1")),
        Then("the other one takes writes", |world| writes_go_to(world, "main-2")),
        Heal,
        Then("it is two", |world| {
            main_is_ready(world, 2)
                && world.get("pods", "main-3").is_none()
                && world.get("persistentvolumeclaims", "main-3").is_none()
        }),
    ],
};

#[test]
fn what_cannot_be_deleted_stops_no_failover() {
    for (verb, plural) in [(Verb::Delete, "pods"), (Verb::Delete, "persistentvolumeclaims")] {
        let outcome = play(&REMOVAL, Fault::Refuse(403), At::Kind(verb, plural))
            .unwrap_or_else(|error| panic!("{verb:?} {plural}: {error}"));
        assert!(outcome.hits > 0, "{verb:?} {plural}: nothing was refused");
    }
}

const TAKEN_BACK: Scenario = Scenario {
    name: "a growth that is refused is taken back",
    steps: &[
        Given("a cluster", |world| world.put("clusters", "main", cluster(2))),
        Then("it is healthy", |world| main_is_ready(world, 2)),
        Begin,
        Given("its volumes should grow", |world| {
            world.edit("clusters", "main", |cluster| cluster["spec"]["storage"]["size"] = json!("2Gi"));
        }),
        REPORTED,
        Given("the size is written back", |world| {
            let before = world.get("clusters", "main").cloned().unwrap_or_default();
            world.edit("clusters", "main", |cluster| cluster["spec"]["storage"]["size"] = json!("1Gi"));
            let after = world.get("clusters", "main").cloned().unwrap_or_default();
            let findings = holdfast_kube_api::validate::cluster_update(&before, &after).errors;
            assert!(findings.is_empty(), "the webhook would refuse it: {findings:?}");
        }),
        Then("it is healthy, though the class still cannot grow", |world| main_is_ready(world, 2)),
    ],
};

#[test]
fn a_growth_that_is_refused_can_be_taken_back() {
    let at = At::Kind(Verb::Merge, "persistentvolumeclaims");
    let outcome = play(&TAKEN_BACK, Fault::Refuse(403), at).unwrap_or_else(|error| panic!("{error}"));
    assert!(outcome.hits > 0, "nothing was refused");
}
