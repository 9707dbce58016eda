//! Objects of other owners, operators of other namespaces, and instances that only the manifest can repair.

use crate::kubelet::TOO_LITTLE;
use crate::stage::Step::{AnotherOperator, Begin, FirstEnds, Given, Then};
use crate::stage::{Scenario, day, play};
use crate::stories::{cluster, main_is_ready, status, writes_go_to};
use crate::transport::{At, Fault};
use crate::world::{World, key};
use serde_json::json;

fn passes(scenario: &Scenario) {
    play(scenario, Fault::None, At::All).unwrap_or_else(|error| panic!("{error}"));
}

fn is_untouched(world: &World) -> bool {
    let role = world.get("roles", "main-instance");
    let service = world.get("services", "main-rw");
    let theirs = |object: Option<&serde_json::Value>| {
        object.is_some_and(|object| {
            object["metadata"]["labels"] == json!({"app": "theirs"}) && object["metadata"]["ownerReferences"].is_null()
        })
    };
    theirs(role) && theirs(service) && role.is_some_and(|role| role["rules"] == json!([{"verbs": ["get"]}]))
}

const OTHERS: Scenario = Scenario {
    name: "objects of others have the names of the cluster's objects",
    steps: &[
        Given("a service and a role of an application, and a cluster", |world| {
            let labels = json!({"app": "theirs"});
            world.put("services", "main-rw", json!({"metadata": {"labels": labels}, "spec": {"ports": []}}));
            world.put("roles", "main-instance", json!({"metadata": {"labels": labels}, "rules": [{"verbs": ["get"]}]}));
            world.put("clusters", "main", cluster(2));
        }),
        Then("it says so, and has its instances nevertheless", |world| {
            status(world, "clusters", "main").is_some_and(|status| {
                let what = status["blockedBy"]["what"].as_str().unwrap_or_default();
                status["readyInstances"] == 2
                    && status["phase"] == "A request is refused"
                    && what == "Service main-rw is not of this cluster: it belongs to nobody"
            }) && is_untouched(world)
        }),
        Given("the application renames its service", |world| world.drop_object(&key("services", "main-rw"))),
        Then("the cluster has its own", |world| {
            world.get("services", "main-rw").is_some_and(|service| service["metadata"]["ownerReferences"].is_array())
        }),
        Given("the cluster is deleted", |world| world.delete("clusters", "main")),
        Then("only the role of the application is left", |world| {
            world.get("services", "main-rw").is_none()
                && world.get("pods", "main-1").is_none()
                && world.get("roles", "main-instance").is_some()
        }),
    ],
};

#[test]
fn objects_of_others_are_neither_taken_over_nor_deleted() {
    passes(&OTHERS);
}

const PODS: Scenario = Scenario {
    name: "a pod and a claim of somebody else have the cluster's label",
    steps: &[
        Given("a cluster", |world| world.put("clusters", "main", cluster(2))),
        Then("it is healthy", |world| main_is_ready(world, 2)),
        Begin,
        Given("a pod and a claim with its label", |world| {
            let labels = json!({"holdfast.dev/cluster": "main"});
            world.put("pods", "main-debug", json!({"metadata": {"labels": labels}, "spec": {}}));
            world.put("persistentvolumeclaims", "main-9", json!({"metadata": {"labels": labels}, "spec": {}}));
            world.edit("clusters", "main", |cluster| cluster["spec"]["removalDelay"] = json!(0));
        }),
        Given("one instance is requested", |world| {
            world.edit("clusters", "main", |cluster| cluster["spec"]["instances"] = json!(1));
        }),
        Then("the second is removed, and nothing of somebody else", |world| {
            main_is_ready(world, 1)
                && world.get("persistentvolumeclaims", "main-2").is_none()
                && world.get("pods", "main-debug").is_some()
                && world.get("persistentvolumeclaims", "main-9").is_some()
        }),
    ],
};

#[test]
fn a_label_makes_nothing_the_clusters_own() {
    passes(&PODS);
}

const SCALED_DOWN: Scenario = Scenario {
    name: "one of two standbys does not work, and one has to go",
    steps: &[
        Given("a cluster", |world| world.put("clusters", "main", cluster(3))),
        Then("it is healthy", |world| main_is_ready(world, 3)),
        Begin,
        Given("the second is frozen, and two instances are requested", |world| {
            world.fleet.instances.values_mut().filter(|one| one.name == "main-2").for_each(|one| one.frozen = true);
            world.edit("clusters", "main", |cluster| cluster["spec"]["instances"] = json!(2));
        }),
        Then("the one that works stays", |world| {
            main_is_ready(world, 2)
                && status(world, "clusters", "main")
                    .is_some_and(|status| status["instanceNames"] == json!(["main-1", "main-3"]))
                && world.get("pods", "main-2").is_none()
        }),
        Then("the volume of the other one is kept for now", |world| {
            let claim = world.get("persistentvolumeclaims", "main-2");
            claim.is_some_and(|claim| claim["metadata"]["annotations"]["holdfast.dev/removedAt"].is_string())
        }),
    ],
};

#[test]
fn the_standby_that_works_stays() {
    passes(&SCALED_DOWN);
}

const TOO_LITTLE_MEMORY: Scenario = Scenario {
    name: "an only instance has too little memory",
    steps: &[
        Given("a cluster with a limit that is too low", |world| {
            let mut small = cluster(1);
            small["spec"]["resources"] = json!({"limits": {"memory": TOO_LITTLE}});
            world.put("clusters", "main", small);
        }),
        Then("it says that memory is missing", |world| {
            status(world, "clusters", "main").is_some_and(|status| {
                status["blockedBy"]["what"].as_str().is_some_and(|what| what.contains("its limit of 64Mi (OOMKilled)"))
            })
        }),
        Given("the limit is raised", |world| {
            world.edit("clusters", "main", |cluster| cluster["spec"]["resources"]["limits"]["memory"] = json!("1Gi"));
        }),
        Then("it is healthy", |world| main_is_ready(world, 1)),
        Given("the limit is lowered again", |world| {
            world.edit("clusters", "main", |cluster| {
                cluster["spec"]["resources"]["limits"]["memory"] = json!(TOO_LITTLE);
            });
        }),
        Then("it does not run any more", |world| {
            status(world, "clusters", "main").is_some_and(|status| status["readyInstances"] == 0)
        }),
        Given("the limit is raised again", |world| {
            world.edit("clusters", "main", |cluster| cluster["spec"]["resources"]["limits"]["memory"] = json!("1Gi"));
        }),
        Then("it is healthy again", |world| main_is_ready(world, 1) && writes_go_to(world, "main-1")),
    ],
};

#[test]
fn the_manifest_repairs_an_only_instance() {
    passes(&TOO_LITTLE_MEMORY);
}

/// How often pods were made.
fn pods_made(world: &World) -> u32 {
    world.made.iter().filter(|(key, _)| key.1 == "pods").map(|(_, times)| times).sum()
}

const TWO_OPERATORS: Scenario = Scenario {
    name: "two operators of different versions",
    steps: &[
        Given("a cluster", |world| world.put("clusters", "main", cluster(2))),
        Then("it is healthy", |world| main_is_ready(world, 2)),
        AnotherOperator,
        Then("minutes pass", |world| world.time() > format!("{}T02:05:00Z", day())),
        Then("no pod was replaced, and the first is in charge", |world| {
            pods_made(world) == 2
                && main_is_ready(world, 2)
                && status(world, "clusters", "main")
                    .is_some_and(|status| status["operator"]["namespace"] == "holdfast-system")
        }),
        FirstEnds,
        Given("the primary is lost", |world| world.lose("main-1")),
        Then("the second operator acts", |world| writes_go_to(world, "main-2")),
        Then("it is in charge now", |world| {
            main_is_ready(world, 2)
                && status(world, "clusters", "main")
                    .is_some_and(|status| status["operator"]["namespace"] == "other-system")
        }),
    ],
};

#[test]
fn two_operators_never_fight() {
    passes(&TWO_OPERATORS);
}
