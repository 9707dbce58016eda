//! The storage vendor: what a CSI driver with its sidecars does on other clusters.
//!
//! - `volumes.rs`: a claim gets a PersistentVolume, which is a btrfs subvolume, empty or with the content of a
//!   VolumeSnapshot or of another claim. If a claim grows, its volume's stated size grows. A released volume is
//!   removed.
//! - `snapshots.rs`: a VolumeSnapshot gets a VolumeSnapshotContent and an atomic snapshot of the subvolume.
//! - `objects.rs`: reading and writing of objects as JSON.
//!
//! An operator under test cannot see the difference: names of finalizers, fields of the status, messages about what is
//! missing and the order of steps are those of the usual sidecars. Sizes are stated but not enforced.
//!
//! The controller is level-triggered: any change leads to one pass over all objects, whose steps are idempotent and
//! skip what is done. A step that fails is logged and repeated in the next pass, a second later.
//!
//! Faults on demand, as annotations. `holdfast.test/fail: <message>` on a snapshot or on its class makes the driver
//! refuse it with this message until the annotation is removed. `holdfast.test/delay: <seconds>s` there makes it ready
//! only that long after it was taken. `holdfast.test/fail` on a claim keeps the claim from being provisioned.

mod objects;
mod snapshots;
mod volumes;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use self::objects::{Kind, Kinds};
use super::disk::Disk;
use crate::error::Result;

/// The driver refuses an object that has this annotation, with the annotation's text.
const FAIL: &str = "holdfast.test/fail";
/// A snapshot with this annotation becomes ready only after this many seconds.
const DELAY: &str = "holdfast.test/delay";

/// The running vendor.
pub(crate) struct Vendor {
    kinds: Kinds,
    disk: Disk,
    /// The last event of each object, so that it is published once.
    reported: Mutex<HashMap<String, String>>,
}

/// The result of a step that has nothing more to do for now.
enum Step {
    /// The object has its wanted state.
    Done,
    /// Something should change soon.
    Waiting,
}

/// Serves until the task is cancelled.
#[expect(clippy::print_stderr, reason = "the log of the resident process")]
pub(crate) async fn serve(client: &kube::Client, disk: Disk) {
    let mut tasks = JoinSet::new();
    let bell = Arc::new(Notify::new());
    let kinds = Kinds::watch(client, &bell, &mut tasks);
    let vendor = Vendor { kinds, disk, reported: Mutex::default() };
    loop {
        let mut is_waiting = false;
        for kind in [Kind::Claim, Kind::Volume, Kind::Snapshot, Kind::Content] {
            for object in vendor.kinds.all(kind) {
                let step = match kind {
                    Kind::Claim => vendor.claim(&object).await,
                    Kind::Volume => vendor.volume(&object).await,
                    Kind::Snapshot => vendor.snapshot(&object).await,
                    _ => vendor.content(&object).await,
                };
                match step {
                    Ok(Step::Done) => {}
                    Ok(Step::Waiting) => is_waiting = true,
                    Err(error) => {
                        let name = object.metadata.name.as_deref().unwrap_or_default();
                        eprintln!("{kind:?} {name}: {error}");
                        is_waiting = true;
                    }
                }
            }
        }
        let pause = if is_waiting { Duration::from_secs(1) } else { Duration::from_mins(1) };
        // Waits for the pause or the bell, whichever comes first. A change during the pass has rung the bell already.
        let _ = tokio::time::timeout(pause, bell.notified()).await;
    }
}

impl Vendor {
    /// Reports an error to an object's owner, as an Event, once for each message.
    async fn tell(&self, object: &kube::api::DynamicObject, kind: &str, reason: &str, message: &str) -> Result<()> {
        let uid = object.metadata.uid.clone().unwrap_or_default();
        if self.reported.lock().insert(uid, message.to_owned()).as_deref() == Some(message) {
            return Ok(());
        }
        self.kinds.event(object, kind, reason, message).await
    }
}
