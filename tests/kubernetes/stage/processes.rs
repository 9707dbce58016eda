//! The processes of the pods: the nodes of the test bed run on this machine.

use super::Stage;
use rustix::process::{Pid, Signal, kill_process};
use std::path::PathBuf;

/// The processes that have all of these words in their environment or command (`environ` or `cmdline`).
pub(crate) fn processes(file: &str, words: &[&str]) -> Vec<Pid> {
    let all = std::fs::read_dir("/proc").expect("read /proc");
    all.flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let text = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let parts: Vec<&str> = text.split('\0').collect();
            words.iter().all(|word| parts.contains(word))
        })
        .filter_map(Pid::from_raw)
        .collect()
}

/// The instance manager and the PID 1 above it. PostgreSQL overwrites its environment with its titles, so it is not
/// found.
fn managers(stage: &Stage, instance: &str) -> Vec<Pid> {
    processes("environ", &[&format!("NAMESPACE={}", stage.namespace), &format!("POD_NAME={instance}")])
}

fn space(pid: Pid) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{}/ns/pid", pid.as_raw_nonzero())).ok()
}

/// Sends a signal to all processes of an instance's container. Returns how many there were.
pub(crate) fn signal_instance(stage: &Stage, instance: &str, signal: Signal) -> usize {
    let Some(inside) = managers(stage, instance).first().and_then(|pid| space(*pid)) else { return 0 };
    let found: Vec<Pid> =
        processes("cmdline", &[]).into_iter().filter(|pid| space(*pid).as_ref() == Some(&inside)).collect();
    for pid in &found {
        let _ = kill_process(*pid, signal);
    }
    found.len()
}

/// Sends a signal only to an instance manager, not to PID 1 or PostgreSQL.
pub(crate) fn signal_manager(stage: &Stage, instance: &str, signal: Signal) {
    // Its environment tells it that it is not PID 1.
    let own = [format!("NAMESPACE={}", stage.namespace), format!("POD_NAME={instance}")];
    let found = processes("environ", &[&own[0], &own[1], "HOLDFAST_INSTANCE_CHILD=1"]);
    let manager = found.into_iter().find(|pid| {
        let command = std::fs::read_to_string(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
        command.split('\0').any(|word| word == "instance")
    });
    kill_process(manager.expect("the instance has a manager"), signal).expect("signal the manager");
}
