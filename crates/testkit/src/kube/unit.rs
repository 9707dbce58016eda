//! A daemon of the bed, known by its control group.
//!
//! Every daemon starts inside a control group of its own, `<bed>/<name>` ([`layout::group`]), and all its child
//! processes stay in that group. So the kernel answers which processes run and which to kill. There are no recorded
//! process ids, which could belong to another program by the time they are used. The kubelet puts containers into
//! `<bed>/node-<n>`.
//! Groups of version 1 (one hierarchy for each resource) and of version 2 (one for all) are both handled; processes are
//! followed in the hierarchy `pids` of the first.
//!
//! Daemons are started through `setsid --fork`, so that they outlive the program that starts them and never become its
//! zombies.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{layout, lock};
use crate::error::{KitError, Result};

/// The root folders of all hierarchies of control groups.
pub(crate) fn hierarchies() -> Vec<PathBuf> {
    let base = Path::new("/sys/fs/cgroup");
    if base.join("cgroup.controllers").exists() {
        return vec![base.to_path_buf()];
    }
    let Ok(entries) = fs::read_dir(base) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).filter(|path| path.join("cgroup.procs").exists()).collect()
}

/// The hierarchy in which processes are followed.
fn tracking() -> PathBuf {
    let pids = PathBuf::from("/sys/fs/cgroup/pids");
    if pids.join("cgroup.procs").exists() { pids } else { PathBuf::from("/sys/fs/cgroup") }
}

/// A daemon, or everything in the containers of a node.
#[derive(Clone, Debug)]
pub(crate) struct Unit {
    name: String,
}

impl Unit {
    /// The unit with this name, whether it runs or not.
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    /// The group above all units.
    pub(crate) fn all() -> Self {
        Self::new("")
    }

    fn group(&self) -> PathBuf {
        tracking().join(layout::group()).join(&self.name)
    }

    /// Starts a daemon and appends its output to a log.
    pub(crate) fn start(&self, command: &Command, log: &Path) -> Result<()> {
        let failed = || KitError::io(format!("start {} of the test bed", self.name));
        let group = self.group();
        fs::create_dir_all(&group).map_err(failed())?;
        let output = fs::OpenOptions::new().create(true).append(true).open(log).map_err(failed())?;
        let errors = output.try_clone().map_err(failed())?;
        let mut wrapped = Command::new("setsid");
        wrapped
            // It keeps the lock until it is in its group, where a stop finds it.
            .args(["--fork", "sh", "-c", "echo $$ >\"$0\" && exec \"$@\" </dev/null"])
            .arg(group.join("cgroup.procs"))
            .arg(command.get_program())
            .args(command.get_args())
            .current_dir("/")
            .stdin(lock::stdin()?)
            .stdout(output)
            .stderr(errors);
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                wrapped.env(name, value);
            }
        }
        // Without the caller's proxy: a proxy for the internet cannot reach 10.244.0.1.
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy", "KUBECONFIG"] {
            wrapped.env_remove(name);
        }
        let status = wrapped.status().map_err(failed())?;
        if status.success() {
            return Ok(());
        }
        Err(KitError::StartFailed { server: self.name.clone(), status: status.to_string(), log: tail(log) })
    }

    /// The processes of the unit, with all their children.
    pub(crate) fn processes(&self) -> Vec<i32> {
        processes_below(&self.group())
    }

    /// Whether a process of the unit runs.
    pub(crate) fn is_running(&self) -> bool {
        !self.processes().is_empty()
    }

    /// Sends a signal to each process of the unit.
    pub(crate) fn signal(&self, signal: Signal) {
        for process in self.processes() {
            if let Some(pid) = Pid::from_raw(process) {
                // The process may have ended since the list was read.
                let _ = kill_process(pid, signal);
            }
        }
    }

    /// Sends a request to end, and after the grace time kills what is left.
    pub(crate) fn stop(&self, grace: Duration) -> Result<()> {
        self.signal(Signal::CONT);
        self.signal(Signal::TERM);
        if wait_until(grace, || !self.is_running()) {
            return Ok(());
        }
        self.kill()
    }

    /// Kills everything in the unit, as a machine that loses its power does.
    pub(crate) fn kill(&self) -> Result<()> {
        let limit = Duration::from_mins(1);
        // Repeatedly, because a process may start another while the list is read.
        let gone = wait_until(limit, || {
            self.signal(Signal::KILL);
            !self.is_running()
        });
        if gone {
            return Ok(());
        }
        let what = format!("the end of {:?} (processes {:?})", self.name, self.processes());
        Err(KitError::Timeout { what, limit, log: String::new() })
    }

    /// Removes the empty groups in all hierarchies.
    pub(crate) fn remove_groups(&self) {
        for hierarchy in hierarchies() {
            let mut all = folders(&hierarchy.join(layout::group()).join(&self.name));
            all.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
            for folder in all {
                // A group whose last process has just ended is busy for a moment.
                wait_until(Duration::from_secs(2), || fs::remove_dir(&folder).is_ok() || !folder.exists());
            }
        }
    }
}

/// Whether processes of a bed with another state folder run on this machine.
pub(crate) fn another_bed_runs() -> bool {
    let own = layout::group();
    let entries = fs::read_dir(tracking()).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).any(|name| {
        name.starts_with(layout::FIRST_GROUP) && name != own && !processes_below(&tracking().join(name)).is_empty()
    })
}

fn processes_below(group: &Path) -> Vec<i32> {
    let mut found = Vec::new();
    for folder in folders(group) {
        let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    }
    found
}

/// A folder and all folders below it; empty if it does not exist.
fn folders(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![root.to_path_buf()];
    while let Some(folder) = waiting.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                waiting.push(entry.path());
            }
        }
        found.push(folder);
    }
    found
}

/// Asks repeatedly until the answer is yes or the time is over. Returns whether the answer was yes.
pub(crate) fn wait_until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if done() {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The end of a log, for messages.
pub(crate) fn tail(log: &Path) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
