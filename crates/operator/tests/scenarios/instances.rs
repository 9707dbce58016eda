//! The simulated instance managers: what the operator sees of them, and the rules that it relies on.
//!
//! The Lease is kept by the real keeper of each instance ([`crate::keeping`]). An instance decides from the `Cluster`
//! that it has seen itself.
//!
//! An instance bootstraps when it is named and nobody has data yet, and joins when another instance has data. It
//! promotes only while it is named and holds the Lease. It releases the Lease when it is no longer named, or when its
//! pod ends in order. After a new primary it comes back by a rewind. Its data is a system identifier, a timeline and a
//! position on the claim; writing moves the position. [`Fleet::two_writers`] is the promise that is checked all the
//! time.

use crate::fragile::Fragile;
use crate::keeping::Keeping;
use crate::world::World;
use holdfast_kube_api::cluster::BootstrapProgress;
use holdfast_kube_api::status_port::{
    ArchiveStatus, BackupResult, BackupRun, BackupState, InstancePhase, InstanceStatus, Role,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The duration of a bootstrap, a copy or a rewind.
const WORK: Duration = Duration::from_secs(1);
/// The duration of a promotion or an orderly stop.
const TURN: Duration = Duration::from_millis(500);
/// How long the end of a pod waits for its Lease to be released.
const RELEASE: Duration = Duration::from_secs(5);

/// All instances and their disks.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    /// The instances, by uid of the pod.
    pub(crate) instances: BTreeMap<String, Instance>,
    /// The disks, by uid of the claim.
    disks: BTreeMap<String, Disk>,
    /// Moments at which two instances took writes.
    pub(crate) two_writers: Vec<String>,
    /// How often each run began, by its name and number.
    pub(crate) runs_begun: BTreeMap<String, u32>,
    /// The error with which a recovery is refused.
    pub(crate) refuse_recovery: Option<String>,
    /// The factor by which backups take longer.
    pub(crate) slow_backups: u32,
    /// Runs that were active at the same time as another run of the cluster.
    pub(crate) runs_at_once: Vec<String>,
    /// Instances that do not reach the API server, by name.
    pub(crate) without_api: BTreeSet<String>,
    /// Instances that the operator does not reach, by name.
    pub(crate) out_of_reach: BTreeSet<String>,
    /// Whether PostgreSQL of a standby crashes when it is named as primary.
    pub(crate) crash_when_named: bool,
}

/// The content of a claim.
#[derive(Debug, Clone, Default)]
struct Disk {
    system_id: Option<String>,
    timeline: u32,
    position: u64,
    standby: bool,
}

/// One instance.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) name: String,
    pub(crate) cluster: String,
    pod_uid: String,
    claim_uid: String,
    phase: InstancePhase,
    since: Instant,
    message: String,
    error: Option<String>,
    bootstrap: Option<BootstrapProgress>,
    pub(crate) role: Option<Role>,
    keeping: Keeping,
    receiving: bool,
    run: Option<BackupRun>,
    /// Neither works nor answers, but is not dead.
    pub(crate) frozen: bool,
    dying: Option<Instant>,
}

impl Instance {
    pub(crate) fn new(world: &Arc<Fragile<World>>, name: &str, cluster: &str, pod_uid: &str, claim_uid: &str) -> Self {
        Self {
            name: name.to_owned(),
            cluster: cluster.to_owned(),
            pod_uid: pod_uid.to_owned(),
            claim_uid: claim_uid.to_owned(),
            phase: InstancePhase::Starting,
            since: Instant::now(),
            message: String::new(),
            error: None,
            bootstrap: None,
            role: None,
            keeping: Keeping::start(world, name, cluster, pod_uid),
            receiving: false,
            run: None,
            frozen: false,
            dying: None,
        }
    }

    fn enter(&mut self, phase: InstancePhase, message: &str) {
        if self.phase != phase {
            (self.phase, self.since) = (phase, Instant::now());
        }
        message.clone_into(&mut self.message);
    }

    fn has_been_for(&self, phase: InstancePhase, time: Duration) -> bool {
        self.phase == phase && self.since.elapsed() >= time
    }
}

impl World {
    /// Advances all instances.
    pub(crate) fn move_instances(&mut self) {
        let all: Vec<String> = self.fleet.instances.keys().cloned().collect();
        for uid in all {
            if let Some(mut instance) = self.fleet.instances.remove(&uid) {
                if instance.frozen {
                    instance.keeping.freeze();
                } else {
                    self.step(&mut instance);
                    self.move_run(&mut instance);
                }
                let stopped = instance.dying.map(|since| since.elapsed()).filter(|time| *time >= TURN);
                if stopped.is_some() {
                    instance.keeping.give_back();
                }
                let released = !instance.keeping.holds();
                if stopped.is_none_or(|time| !released && time < TURN + RELEASE) {
                    self.fleet.instances.insert(uid, instance);
                }
            }
        }
        let mut writers: Vec<&str> = self
            .fleet
            .instances
            .values()
            .filter(|one| one.role == Some(Role::Primary) && !one.frozen)
            .map(|one| one.cluster.as_str())
            .collect();
        writers.sort_unstable();
        if writers.windows(2).any(|two| two.first() == two.last()) {
            self.fleet.two_writers.push(self.time());
        }
    }

    /// Begins the orderly end of the pod; returns whether it has ended.
    pub(crate) fn end_instance(&mut self, pod_uid: &str) -> bool {
        match self.fleet.instances.get_mut(pod_uid) {
            None => true,
            Some(instance) => {
                instance.dying.get_or_insert_with(Instant::now);
                false
            }
        }
    }

    /// The pod dies as when its node is lost and deleted: nothing is released.
    pub(crate) fn lose(&mut self, name: &str) {
        self.fleet.instances.retain(|_, instance| instance.name != name);
        self.drop_object(&crate::world::key("pods", name));
    }

    fn primary(&self, cluster: &str) -> Option<(String, Disk)> {
        let primary = self.fleet.instances.values().find(|one| {
            one.cluster == cluster && one.role == Some(Role::Primary) && !one.frozen && one.dying.is_none()
        })?;
        Some((primary.name.clone(), self.fleet.disks.get(&primary.claim_uid)?.clone()))
    }

    fn step(&mut self, me: &mut Instance) {
        use InstancePhase as Phase;
        let cut_off = self.fleet.without_api.contains(&me.name);
        me.keeping.look(self.get("clusters", &me.cluster), cut_off);
        if me.dying.is_some() {
            // PostgreSQL stops; all its WAL is archived and streamed.
            (me.role, me.phase) = (None, Phase::Stopping);
            return;
        }
        let Some(cluster) = me.keeping.cluster() else { return };
        let status = cluster.status.clone().unwrap_or_default();
        let chosen = status.target_primary.as_ref() == Some(&me.name);
        let system_id = status.system_id;
        if !chosen && me.role != Some(Role::Primary) && (me.keeping.wants() || me.keeping.holds()) {
            me.keeping.give_back();
        }
        let recovers = cluster.spec.bootstrap.as_ref().is_some_and(|bootstrap| bootstrap.recovery.is_some());
        let mut disk = self.fleet.disks.get(&me.claim_uid).cloned().unwrap_or_default();
        let primary = self.primary(&me.cluster);
        match (&disk.system_id, me.role) {
            (None, _) if chosen && system_id.is_none() => {
                if !me.keeping.hold() {
                    me.enter(Phase::Waiting, "waiting for the Lease of the primary");
                } else if recovers && self.fleet.refuse_recovery.is_some() {
                    me.enter(Phase::Failed, "the recovery is refused");
                    me.error.clone_from(&self.fleet.refuse_recovery);
                    me.bootstrap = Some(BootstrapProgress {
                        method: "recovery".to_owned(),
                        step: "preflight".to_owned(),
                        error: me.error.clone(),
                        ..BootstrapProgress::default()
                    });
                } else if me.has_been_for(Phase::Bootstrapping, WORK) {
                    disk = Disk {
                        system_id: Some("7000000000000000001".to_owned()),
                        timeline: 1,
                        position: 0x0100_0000,
                        standby: false,
                    };
                    me.role = Some(Role::Primary);
                    me.enter(Phase::Running, "taking writes");
                } else {
                    me.enter(Phase::Bootstrapping, "creating the first data directory");
                }
            }
            (None, _) => match primary {
                Some((_, of_primary)) if !chosen && system_id.is_some() => {
                    if me.has_been_for(Phase::Joining, WORK) {
                        disk = Disk { standby: true, ..of_primary };
                        me.role = Some(Role::Replica);
                        me.enter(Phase::Running, "following the primary");
                    } else {
                        me.enter(Phase::Joining, "copying the primary");
                    }
                }
                _ => me.enter(Phase::Waiting, "waiting for the primary"),
            },
            (Some(_), None) => {
                if chosen {
                    if me.keeping.hold() {
                        me.role = Some(if disk.standby { Role::Replica } else { Role::Primary });
                        me.enter(Phase::Running, "started");
                    } else {
                        me.enter(Phase::Waiting, "waiting for the Lease of the primary");
                    }
                } else if disk.standby {
                    me.role = Some(Role::Replica);
                    me.enter(Phase::Running, "following the primary");
                } else if let Some((_, of_primary)) = primary {
                    if me.has_been_for(Phase::Rewinding, WORK) {
                        disk = Disk { standby: true, ..of_primary };
                    } else {
                        me.enter(Phase::Rewinding, "coming in line");
                    }
                } else {
                    me.enter(Phase::Waiting, "waiting for another primary");
                }
            }
            (Some(_), Some(Role::Replica)) => {
                me.receiving = primary.is_some();
                if chosen {
                    if std::mem::take(&mut self.fleet.crash_when_named) {
                        me.role = None;
                        me.enter(Phase::Waiting, "PostgreSQL has ended");
                    } else if !me.keeping.hold() {
                        me.enter(Phase::Waiting, "waiting for the Lease of the primary");
                    } else if me.has_been_for(Phase::Promoting, TURN) {
                        disk.timeline += 1;
                        disk.standby = false;
                        (me.role, me.receiving) = (Some(Role::Primary), false);
                        me.enter(Phase::Running, "taking writes");
                    } else {
                        me.enter(Phase::Promoting, "becoming the primary");
                    }
                } else {
                    me.enter(Phase::Running, "following the primary");
                    if let Some((_, of_primary)) = primary {
                        (disk.timeline, disk.position) = (of_primary.timeline, of_primary.position);
                    }
                }
            }
            (Some(_), Some(Role::Primary)) => {
                if !chosen {
                    me.enter(Phase::Demoting, "stopping PostgreSQL");
                    if me.has_been_for(Phase::Demoting, TURN) {
                        me.role = None;
                        me.keeping.give_back();
                    }
                } else if me.keeping.hold() {
                    disk.position += 0x100;
                    me.enter(Phase::Running, "taking writes");
                } else {
                    me.role = None;
                    me.enter(Phase::Demoting, "the Lease is lost");
                }
            }
        }
        self.fleet.disks.insert(me.claim_uid.clone(), disk);
    }

    fn move_run(&mut self, me: &mut Instance) {
        let patience = u64::from(self.fleet.slow_backups) + 4;
        let Some(run) = me.run.as_mut() else { return };
        match run.state {
            BackupState::Running => {
                run.done_bytes += 4_000_000 / patience;
                if run.done_bytes >= 4_000_000 {
                    run.state = BackupState::WaitingForWal;
                }
            }
            // A standby waits until the primary was asked to switch WAL.
            BackupState::WaitingForWal if me.role == Some(Role::Primary) => complete(run),
            _ => {}
        }
        let under_way = |run: &BackupRun| matches!(run.state, BackupState::Running | BackupState::WaitingForWal);
        if under_way(run) {
            let others = self.fleet.instances.values().filter(|other| other.cluster == me.cluster);
            if others.filter_map(|other| other.run.as_ref()).any(under_way) {
                self.fleet.runs_at_once.push(run.name.clone());
            }
        }
    }

    /// The answer of an instance on its status port.
    pub(crate) fn ask(&mut self, pod_uid: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let Some(me) = self.fleet.instances.get(pod_uid) else { return (503, json!({"error": "gone"})) };
        let (role, cluster) = (me.role, me.cluster.clone());
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match (method, parts.as_slice()) {
            ("GET", ["status"]) => (200, json!(self.status(pod_uid))),
            ("POST", ["restart"]) => (202, Value::Null),
            ("POST", ["wal", "switch"]) if role == Some(Role::Primary) => {
                for other in self.fleet.instances.values_mut().filter(|other| other.cluster == cluster) {
                    if let Some(run) = other.run.as_mut().filter(|run| run.state == BackupState::WaitingForWal) {
                        complete(run);
                    }
                }
                (200, json!({"lsn": "0/1000000", "segment": "000000010000000000000001"}))
            }
            ("POST", ["wal", "switch"]) => (409, json!({"error": "this is a standby"})),
            (_, ["backups", run]) => self.ask_for_backup(pod_uid, method, run, body),
            _ => (404, json!({"error": "unknown"})),
        }
    }

    fn ask_for_backup(&mut self, pod_uid: &str, method: &str, run: &str, body: &Value) -> (u16, Value) {
        let now = self.now();
        let Some(me) = self.fleet.instances.get_mut(pod_uid) else { return (503, json!({"error": "gone"})) };
        let known = me.run.clone().filter(|known| known.uid == run);
        match (method, known) {
            ("PUT" | "GET", Some(known)) => (200, json!(known)),
            ("PUT", None) => {
                if let Some(other) =
                    me.run.as_ref().filter(|run| matches!(run.state, BackupState::Running | BackupState::WaitingForWal))
                {
                    return (409, json!(other));
                }
                let name = body["name"].as_str().unwrap_or_default().to_owned();
                let begun = BackupRun {
                    uid: run.to_owned(),
                    name: name.clone(),
                    started_at: Some(now),
                    total_bytes: Some(4_000_000),
                    backup_id: Some(format!("id-of-{name}")),
                    ..BackupRun::default()
                };
                me.run = Some(begun.clone());
                let attempt = run.rsplit_once('.').map_or(run, |(_, attempt)| attempt);
                *self.fleet.runs_begun.entry(format!("{name}.{attempt}")).or_default() += 1;
                (202, json!(begun))
            }
            ("DELETE", Some(mut known)) => {
                known.state = BackupState::Failed;
                me.run = Some(known.clone());
                (200, json!(known))
            }
            _ => (404, json!({"error": "unknown"})),
        }
    }

    pub(crate) fn status(&self, pod_uid: &str) -> InstanceStatus {
        let me = &self.fleet.instances[pod_uid];
        let seen = me.keeping.cluster().and_then(|cluster| cluster.status.clone());
        let disk = self.fleet.disks.get(&me.claim_uid).cloned().unwrap_or_default();
        let cluster = self.get("clusters", &me.cluster);
        let archived = cluster.is_some_and(|cluster| cluster.pointer("/spec/backup/barmanObjectStore").is_some());
        let position =
            disk.system_id.as_ref().map(|_| format!("{:X}/{:X}", disk.position >> 32, disk.position & 0xFFFF_FFFF));
        InstanceStatus {
            instance: me.name.clone(),
            pod_uid: me.pod_uid.clone(),
            version: "0.1.0".to_owned(),
            phase: me.phase,
            message: me.message.clone(),
            error: me.error.clone().filter(|_| me.phase == InstancePhase::Failed),
            bootstrap: me.bootstrap.clone(),
            system_id: disk.system_id.clone(),
            postgres_major: Some(18),
            role: me.role,
            ready: me.role.is_some() && me.phase == InstancePhase::Running,
            holds_lease: me.keeping.holds(),
            wants_lease: me.keeping.wants(),
            target_primary: seen.as_ref().and_then(|status| status.target_primary.clone()),
            instance_names: seen.map(|status| status.instance_names).unwrap_or_default(),
            timeline_id: disk.system_id.as_ref().map(|_| disk.timeline),
            lsn: position.clone(),
            replayed_lsn: position.filter(|_| me.role == Some(Role::Replica)),
            receiving: me.receiving,
            applied_generation: cluster.and_then(|cluster| cluster["metadata"]["generation"].as_i64()),
            archive: archived.then(|| ArchiveStatus { working: true, ..ArchiveStatus::default() }),
            backup: me.run.clone(),
            ..InstanceStatus::default()
        }
    }
}

fn complete(run: &mut BackupRun) {
    run.state = BackupState::Completed;
    run.stopped_at = run.started_at;
    run.result = Some(BackupResult {
        backup_id: format!("id-of-{}", run.name),
        begin_wal: Some("000000010000000000000001".to_owned()),
        end_wal: Some("000000010000000000000001".to_owned()),
        timeline_id: Some(1),
        data_bytes: Some(4_000_000),
        stored_bytes: Some(1_000_000),
        ..BackupResult::default()
    });
}
