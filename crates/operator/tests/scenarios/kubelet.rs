//! The rest of a simulated cluster: scheduler, kubelet, provisioner and garbage collector, in steps of a quarter of a
//! second.

use crate::fragile::Fragile;
use crate::instances::Instance;
use crate::world::{World, key};
use holdfast_kube_api::names;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// The time between two steps.
const STEP: Duration = Duration::from_millis(250);
/// The number of steps between two bookmarks.
const BOOKMARK: u32 = 40;

/// A container with this memory limit ends again and again.
pub(crate) const TOO_LITTLE: &str = "64Mi";

/// Runs as long as the runtime does.
pub(crate) async fn run(shared: Arc<Fragile<World>>) {
    for step in 0_u32.. {
        tokio::time::sleep(STEP).await;
        let mut world = shared.lock().expect("the world");
        world.claims();
        world.pods(&shared);
        world.move_instances();
        world.collect_garbage();
        if step % BOOKMARK == 0 {
            world.bookmark();
        }
    }
}

impl World {
    fn claims(&mut self) {
        let pods = self.all("pods");
        for claim in self.all("persistentvolumeclaims") {
            let name = claim["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let instance = name.strip_suffix("-wal").unwrap_or(&name);
            let used = pods.iter().any(|pod| pod["metadata"]["name"] == *instance);
            self.edit("persistentvolumeclaims", &name, |claim| {
                claim["status"]["phase"] = json!("Bound");
                if !claim["metadata"]["deletionTimestamp"].is_null() && !used {
                    claim["metadata"]["finalizers"] = json!([]);
                }
            });
        }
    }

    fn pods(&mut self, shared: &Arc<Fragile<Self>>) {
        for pod in self.all("pods") {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let uid = pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
            if !pod["metadata"]["deletionTimestamp"].is_null() {
                if self.end_instance(&uid) {
                    self.drop_object(&key("pods", &name));
                }
                continue;
            }
            if pod["spec"]["nodeName"].is_null() {
                self.schedule(&name);
            } else if pod["status"]["podIP"].is_null() {
                self.start(shared, &pod, &name, &uid);
            }
        }
    }

    fn schedule(&mut self, name: &str) {
        let bound = self.get("persistentvolumeclaims", name).is_some_and(|claim| claim["status"]["phase"] == "Bound");
        if bound {
            let node = if name.bytes().last().is_some_and(|last| last % 2 == 0) { "node-2" } else { "node-1" };
            self.edit("pods", name, |pod| {
                pod["spec"]["nodeName"] = json!(node);
                pod["status"]["containerStatuses"] =
                    json!([{"name": names::CONTAINER, "state": {"waiting": {"reason": "PodInitializing"}}}]);
            });
        }
    }

    fn start(&mut self, shared: &Arc<Fragile<Self>>, pod: &Value, name: &str, uid: &str) {
        let Some(claim) = self.get("persistentvolumeclaims", name) else { return };
        let claim_uid = claim["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        if pod.pointer("/spec/containers/0/resources/limits/memory").is_some_and(|limit| *limit == TOO_LITTLE) {
            self.edit("pods", name, |pod| {
                pod["status"]["phase"] = json!("Running");
                pod["status"]["containerStatuses"] = json!([
                    {"name": names::CONTAINER, "ready": false, "restartCount": 4, "image": "", "imageID": "",
                     "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
                     "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}
                ]);
            });
            return;
        }
        let cluster = pod["metadata"]["labels"][names::CLUSTER_LABEL].as_str().unwrap_or_default().to_owned();
        let number: u32 = uid.rsplit('-').next().and_then(|digits| digits.parse().ok()).unwrap_or_default();
        let address = format!("10.0.{}.{}", number / 250, number % 250 + 1);
        self.edit("pods", name, |pod| {
            pod["status"]["podIP"] = json!(address);
            pod["status"]["phase"] = json!("Running");
            pod["status"]["containerStatuses"] = json!([
                {"name": names::CONTAINER, "ready": true, "restartCount": 0, "image": "", "imageID": "",
                 "state": {"running": {}}}
            ]);
        });
        self.fleet.instances.insert(uid.to_owned(), Instance::new(shared, name, &cluster, uid, &claim_uid));
    }
}
