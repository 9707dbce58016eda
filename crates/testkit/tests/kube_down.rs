//! The end of the Kubernetes of the tests: it restores the machine. Runs after all other tests that need the bed.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use holdfast_testkit::kube::{Bed, POSTGRESQL_18};
use holdfast_testkit::scratch::built_program;
use holdfast_testkit::{KitError, Result, settings};

/// The visible traces of a bed on the machine: mounts, links, groups, rules and processes.
fn traces() -> BTreeSet<String> {
    let state = std::env::var("HOLDFAST_KUBE_DIR").unwrap_or_else(|_| "/var/lib/holdfast-kube".to_owned());
    let mut found = BTreeSet::new();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    found.extend(mounts.lines().filter(|line| line.contains(&state)).map(|line| format!("mount {line}")));
    let links = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    for link in links.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim()) {
        if link.starts_with("hfkube") || link.starts_with("veth") {
            found.insert(format!("link {link}"));
        }
    }
    for hierarchy in names("/sys/fs/cgroup") {
        let group = PathBuf::from("/sys/fs/cgroup").join(&hierarchy).join("holdfast-kube");
        if group.exists() {
            found.insert(format!("group {}", group.display()));
        }
    }
    for program in ["iptables-save", "ip6tables-save"] {
        let output = Command::new(program).stderr(Stdio::null()).output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        let ours = text.lines().filter(|line| line.contains("KUBE"));
        found.extend(ours.map(|line| format!("{program} {line}")));
    }
    let cache = settings::cache();
    for process in names("/proc") {
        // A zombie has no program any more.
        let Ok(program) = fs::read_link(format!("/proc/{process}/exe")) else { continue };
        let of_cache = program.starts_with(&cache) && program.to_string_lossy().contains("/kube-");
        if program.starts_with(&state) || (of_cache && belongs(&process, &state)) {
            found.insert(format!("process {process} {}", program.display()));
        }
    }
    for setting in ["ip_forward", "conf/all/route_localnet"] {
        let value = fs::read_to_string(format!("/proc/sys/net/ipv4/{setting}")).unwrap_or_default();
        found.insert(format!("{setting} {}", value.trim()));
    }
    found
}

/// Whether a process works for the bed of this state folder, by its arguments or by the mounts of its node. Another
/// user may run the same programs beside it.
fn belongs(process: &str, state: &str) -> bool {
    let folder = format!("{state}/");
    ["cmdline", "mountinfo"].iter().any(|name| {
        let bytes = fs::read(format!("/proc/{process}/{name}")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).contains(&folder)
    })
}

fn names(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn nothing_is_left_after_an_end_or_a_killed_start() -> Result<()> {
    if Bed::or_skip().is_none_or(|bed| !bed.is_own()) {
        return Ok(());
    }
    Bed::down()?;
    let before = traces();
    let may_stay = ["ip_", "route_"];
    let unexpected: Vec<&String> =
        before.iter().filter(|trace| !may_stay.iter().any(|name| trace.contains(name))).collect();
    assert!(unexpected.is_empty(), "{unexpected:#?}");

    // Killed at different moments of its start, on slow and on quick machines.
    let program = built_program("holdfast-kube")?;
    for milliseconds in [300, 1500, 6000] {
        let said = tempfile::NamedTempFile::new().map_err(KitError::io("make a file"))?;
        // A start that failed by itself and left nothing does not count. If this repeats, the test reports it.
        for _ in 0..3 {
            let stderr = said.reopen().map_err(KitError::io("open a file again"))?;
            let mut start = Command::new(&program)
                .arg("up")
                .stdout(Stdio::null())
                .stderr(stderr)
                .spawn()
                .map_err(KitError::io("start the bed"))?;
            std::thread::sleep(Duration::from_millis(milliseconds));
            // A busy machine, for example one that still removes a large disk, may have started nothing by then.
            let patience = Instant::now();
            while traces() == before
                && patience.elapsed() < Duration::from_mins(2)
                && start.try_wait().is_ok_and(|ended| ended.is_none())
            {
                std::thread::sleep(Duration::from_millis(50));
            }
            // It may have ended already.
            let _ = start.kill();
            start.wait().map_err(KitError::io("wait for the start"))?;
            if traces() != before {
                break;
            }
        }
        let said = fs::read_to_string(said.path()).unwrap_or_default();
        assert_ne!(traces(), before, "after {milliseconds} ms there is nothing to take away: {said}");
        Bed::down()?;
        assert_eq!(traces(), before, "after {milliseconds} ms");
    }

    // Also with working pods and volumes.
    let bed = Bed::up()?;
    let mut namespace = bed.namespace("left")?;
    namespace.keep();
    let objects = format!(
        r#"{{"apiVersion": "v1", "kind": "List", "items": [
            {{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {{"name": "data"}}, "spec": {{
                "accessModes": ["ReadWriteOnce"], "resources": {{"requests": {{"storage": "1Gi"}}}}}}}},
            {{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "busy"}}, "spec": {{
                "containers": [{{"name": "main", "image": "{POSTGRESQL_18}",
                    "command": ["bash", "-c", "trap '' TERM; while true; do sleep 1; done"],
                    "volumeMounts": [{{"name": "data", "mountPath": "/data"}}]}}],
                "volumes": [{{"name": "data", "persistentVolumeClaim": {{"claimName": "data"}}}}]}}}}
        ]}}"#
    );
    namespace.apply(&objects)?;
    namespace.wait_for(&["pod", "busy"], "{.status.phase}", Duration::from_mins(3), |phase| phase == "Running")?;
    Bed::down()?;
    assert_eq!(traces(), before);
    // A second stop is not an error.
    Bed::down()
}
