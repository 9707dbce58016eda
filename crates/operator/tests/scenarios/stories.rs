//! The scenarios, and a run of each without faults.

use crate::normal::differences;
use crate::stage::Step::{Begin, Given, Then};
use crate::stage::{Scenario, day, play};
use crate::transport::{At, Fault};
use crate::world::World;
use holdfast_kube_api::names;
use serde_json::{Value, json};
use std::time::Duration;

pub(crate) fn cluster(instances: u32) -> Value {
    json!({"spec": {
        "instances": instances,
        "storage": {"size": "1Gi"},
        "backup": {"barmanObjectStore": {
            "destinationPath": "s3://bucket/archive",
            "s3Credentials": {
                "accessKeyId": {"name": "s3", "key": "ID"},
                "secretAccessKey": {"name": "s3", "key": "KEY"},
            },
        }},
    }})
}

fn backup() -> Value {
    json!({"spec": {"cluster": {"name": "main"}}})
}

pub(crate) fn status<'a>(world: &'a World, plural: &str, name: &str) -> Option<&'a Value> {
    world.get(plural, name)?.get("status")
}

pub(crate) fn main_is_ready(world: &World, instances: i64) -> bool {
    let Some(status) = status(world, "clusters", "main") else { return false };
    status["phase"] == "Healthy" && status["readyInstances"] == instances && status["instances"] == instances
}

/// Exactly one pod is labelled as primary, and it is this one.
pub(crate) fn writes_go_to(world: &World, instance: &str) -> bool {
    let labelled: Vec<String> = world
        .all("pods")
        .iter()
        .filter(|pod| pod["metadata"]["labels"][names::ROLE_LABEL] == names::PRIMARY)
        .filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned))
        .collect();
    let status = status(world, "clusters", "main");
    labelled == [instance] && status.is_some_and(|status| status["currentPrimary"] == *instance)
}

fn phase_of(world: &World, backup: &str) -> String {
    let phase = status(world, "backups", backup).and_then(|status| status["phase"].as_str());
    phase.unwrap_or("pending").to_owned()
}

/// The name of the schedule's backup for this time.
fn nightly(time: &str) -> String {
    format!("nightly-{}{time}", day().format("%Y%m%d"))
}

pub(crate) const BIRTH: Scenario = Scenario {
    name: "three instances from nothing",
    steps: &[
        Given("a cluster", |world| world.put("clusters", "main", cluster(3))),
        Then("it is healthy", |world| main_is_ready(world, 3) && writes_go_to(world, "main-1")),
    ],
};

pub(crate) const SCALING: Scenario = Scenario {
    name: "up and down",
    steps: &[
        Given("a cluster", |world| world.put("clusters", "main", cluster(1))),
        Then("it is healthy", |world| main_is_ready(world, 1)),
        Begin,
        Given("three instances are requested", |world| {
            world.edit("clusters", "main", |cluster| cluster["spec"]["instances"] = json!(3));
        }),
        Then("it is three", |world| main_is_ready(world, 3)),
        Given("two instances are requested, and no volume is kept", |world| {
            world.edit("clusters", "main", |cluster| {
                cluster["spec"]["instances"] = json!(2);
                cluster["spec"]["removalDelay"] = json!(0);
            });
        }),
        Then("it is two, and the third has left nothing", |world| {
            main_is_ready(world, 2)
                && world.get("pods", "main-3").is_none()
                && world.get("persistentvolumeclaims", "main-3").is_none()
        }),
    ],
};

pub(crate) const FAILOVER: Scenario = Scenario {
    name: "the primary's pod is lost",
    steps: &[
        Given("a cluster", |world| world.put("clusters", "main", cluster(3))),
        Then("it is healthy", |world| main_is_ready(world, 3) && writes_go_to(world, "main-1")),
        Begin,
        Given("the pod of the primary is lost, without a word", |world| world.lose("main-1")),
        Then("another one takes writes", |world| writes_go_to(world, "main-2")),
        Then("the old primary follows it again", |world| main_is_ready(world, 3)),
    ],
};

pub(crate) const HANDOVER: Scenario = Scenario {
    name: "the primary's pod is deleted",
    steps: &[
        Given("a cluster", |world| world.put("clusters", "main", cluster(2))),
        Then("it is healthy", |world| main_is_ready(world, 2) && writes_go_to(world, "main-1")),
        Begin,
        Given("the pod of the primary is deleted", |world| world.delete("pods", "main-1")),
        Then("the other one takes writes", |world| writes_go_to(world, "main-2")),
        Then("the old primary follows it again", |world| main_is_ready(world, 2)),
    ],
};

pub(crate) const FROZEN: Scenario = Scenario {
    name: "the primary is frozen",
    steps: &[
        Given("a cluster", |world| world.put("clusters", "main", cluster(2))),
        Then("it is healthy", |world| main_is_ready(world, 2) && writes_go_to(world, "main-1")),
        Begin,
        Given("the primary neither works nor answers", |world| {
            world.fleet.instances.values_mut().filter(|one| one.name == "main-1").for_each(|one| one.frozen = true);
        }),
        Then("the other one takes writes", |world| writes_go_to(world, "main-2")),
        Given("its pod is deleted at last", |world| world.lose("main-1")),
        Then("the old primary follows it again", |world| main_is_ready(world, 2)),
    ],
};

/// The primary still reaches the other instances, so it may continue until one of them wants the Lease.
pub(crate) const CUT_OFF: Scenario = Scenario {
    name: "the primary reaches neither the API server nor the operator",
    steps: &[
        Given("a cluster", |world| world.put("clusters", "main", cluster(3))),
        Then("it is healthy", |world| main_is_ready(world, 3) && writes_go_to(world, "main-1")),
        Begin,
        Given("the primary is cut off", cut_off_main_1),
        Then("another one takes writes", |world| writes_go_to(world, "main-2")),
        Given("the network is back", |world| {
            world.fleet.without_api.clear();
            world.fleet.out_of_reach.clear();
        }),
        Then("the old primary follows it again", |world| main_is_ready(world, 3)),
    ],
};

pub(crate) const CUT_OFF_AND_CRASHED: Scenario = Scenario {
    name: "the same, and PostgreSQL of the instance that takes over crashes",
    steps: &[
        Given("a cluster", |world| world.put("clusters", "main", cluster(3))),
        Then("it is healthy", |world| main_is_ready(world, 3) && writes_go_to(world, "main-1")),
        Begin,
        Given("the primary is cut off", |world| {
            world.fleet.crash_when_named = true;
            cut_off_main_1(world);
        }),
        Then("another one takes writes", |world| writes_go_to(world, "main-2")),
        Given("the network is back", |world| {
            world.fleet.without_api.clear();
            world.fleet.out_of_reach.clear();
        }),
        Then("the old primary follows it again", |world| main_is_ready(world, 3)),
    ],
};

fn cut_off_main_1(world: &mut World) {
    world.fleet.without_api.insert("main-1".to_owned());
    world.fleet.out_of_reach.insert("main-1".to_owned());
}

pub(crate) const BACKUPS: Scenario = Scenario {
    name: "two backups, one after the other",
    steps: &[
        Given("a cluster", |world| world.put("clusters", "main", cluster(2))),
        Then("it is healthy", |world| main_is_ready(world, 2)),
        Begin,
        Given("two backups", |world| {
            world.fleet.slow_backups = 8;
            world.put("backups", "first", backup());
            world.put("backups", "second", backup());
        }),
        Then("the first is under way, and the second waits", |world| {
            phase_of(world, "first") == "running" && phase_of(world, "second") == "pending"
        }),
        Then("both are complete", |world| {
            phase_of(world, "first") == "completed" && phase_of(world, "second") == "completed"
        }),
        Then("at the first attempt", |world| {
            ["first", "second"].iter().all(|name| status(world, "backups", name).is_some_and(|it| it["attempts"] == 1))
        }),
    ],
};

/// The clock begins at 01:58 UTC.
pub(crate) const SCHEDULE: Scenario = Scenario {
    name: "a schedule",
    steps: &[
        Given("a cluster", |world| world.put("clusters", "main", cluster(1))),
        Then("it is healthy", |world| main_is_ready(world, 1)),
        Begin,
        Given("a backup under the name that the schedule will want, and the schedule", |world| {
            let mut taken = backup();
            taken["spec"]["cluster"]["name"] = json!("another");
            world.put("backups", &nightly("020100"), taken);
            let spec = json!({"spec": {"schedule": "0 * * * * *", "cluster": {"name": "main"},
                "backupOwnerReference": "self", "successfulBackupsHistoryLimit": 10}});
            world.put("scheduledbackups", "nightly", spec);
        }),
        Then("it has made a backup at 02:00", |world| phase_of(world, &nightly("020000")) == "completed"),
        Then("the time of the name that is taken has passed", |world| world.time() > format!("{}T02:01:30Z", day())),
        Given("it is suspended", |world| {
            world.edit("scheduledbackups", "nightly", |it| it["spec"]["suspend"] = json!(true));
        }),
        Then("nothing is under way", |world| {
            world.time() > format!("{}T02:03:30Z", day())
                && world.all("backups").iter().all(|it| it["status"]["phase"] != "running")
        }),
    ],
};

pub(crate) const REFUSED: Scenario = Scenario {
    name: "a recovery that cannot be",
    steps: &[
        Given("a cluster that should be recovered to a target beyond the end of the archive", |world| {
            world.fleet.refuse_recovery = Some(
                "error: the archive ends at 2026-11-22 01:00:00\nwhile: checking the target\nhint: name an earlier moment"
                    .to_owned(),
            );
            let mut recovered = cluster(3);
            let store = recovered["spec"]["backup"]["barmanObjectStore"].clone();
            recovered["spec"]["bootstrap"] =
                json!({"recovery": {"source": "origin", "recoveryTarget": {"targetTime": "2026-11-22 03:00:00+00"}}});
            recovered["spec"]["externalClusters"] = json!([{"name": "origin", "barmanObjectStore": store}]);
            recovered["spec"]["backup"]["barmanObjectStore"]["serverName"] = json!("recovered");
            world.put("clusters", "main", recovered);
        }),
        Then("it says why, and what to do", |world| {
            status(world, "clusters", "main").is_some_and(|status| {
                status["blockedBy"]["what"].as_str().is_some_and(|what| what.contains("the archive ends at"))
                    && status["blockedBy"]["hint"] == "name an earlier moment"
                    && status["systemID"].is_null()
            })
        }),
        Then("nobody else has got a volume", |world| {
            world.all("persistentvolumeclaims").len() == 1 && world.all("pods").len() == 1
        }),
    ],
};

pub(crate) const DELETION: Scenario = Scenario {
    name: "a cluster is deleted",
    steps: &[
        Given("a cluster", |world| world.put("clusters", "main", cluster(2))),
        Then("it is healthy", |world| main_is_ready(world, 2)),
        Begin,
        Given("a backup", |world| {
            world.fleet.slow_backups = 400;
            world.put("backups", "first", backup());
        }),
        Then("it is under way", |world| phase_of(world, "first") == "running"),
        Given("both are deleted", |world| {
            world.delete("backups", "first");
            world.delete("clusters", "main");
        }),
        Then("nothing is left", |world| {
            world.objects().keys().all(|key| matches!(key.1, "nodes" | "events") || key.3 == "holdfast-operator")
        }),
    ],
};

/// All scenarios.
pub(crate) const ALL: [&Scenario; 11] = [
    &BIRTH,
    &SCALING,
    &FAILOVER,
    &HANDOVER,
    &FROZEN,
    &CUT_OFF,
    &CUT_OFF_AND_CRASHED,
    &BACKUPS,
    &SCHEDULE,
    &REFUSED,
    &DELETION,
];

#[test]
fn stories_end_as_they_should() {
    for scenario in ALL {
        let began = std::time::Instant::now();
        let outcome = play(scenario, Fault::None, At::All).unwrap_or_else(|error| panic!("{error}"));
        eprintln!(
            "{}: {} requests, {} writes, {:?} of its own time, {:?}",
            scenario.name,
            outcome.requests,
            outcome.writes,
            outcome.took,
            began.elapsed()
        );
        assert_eq!(outcome.made_twice, Vec::<String>::new(), "{}", scenario.name);
        // While it waits for something, the operator asks from time to time, and writes only what has changed.
        assert!(outcome.writes < 100, "{}: {} writes", scenario.name, outcome.writes);
    }
}

#[test]
fn a_story_ends_the_same_each_time() {
    let first = play(&FAILOVER, Fault::None, At::All).unwrap_or_else(|error| panic!("{error}"));
    let second = play(&FAILOVER, Fault::None, At::All).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(differences(&first.objects, &second.objects), Vec::<String>::new());
}

/// The waits of a failover add up to the duration of the Lease and little more, also if the primary exists and does not
/// answer.
#[test]
fn how_long_a_primary_is_missed() {
    for (scenario, limit) in [(&HANDOVER, 8), (&FAILOVER, 25), (&FROZEN, 25)] {
        let whole = play(scenario, Fault::None, At::All).unwrap_or_else(|error| panic!("{error}"));
        eprintln!("{}: {:?}", scenario.name, whole.took);
        assert!(whole.took < Duration::from_secs(limit + 30), "{}: {:?}", scenario.name, whole.took);
    }
}
