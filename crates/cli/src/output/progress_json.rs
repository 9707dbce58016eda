//! Progress for programs: one JSON object a line on stderr, at each change of step and at most once a second in
//! between.
//!
//! `{"progress":{"step":"copying","done_bytes":1048576,"total_bytes":4194304,"backup_id":"20260822T101500Z"}}`
//!
//! The steps are part of the interface ([`step_of`]); the engine may rename its phases. A line is written only if it
//! differs from the last one, so a waiting command is silent.

use super::bars::above_bar;
use holdfast_contract::progress::{Progress, ProgressLine, WAITING_FOR_WAL};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// The shortest time between two lines within a step.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// The step that a phase of the engine belongs to.
fn step_of(phase: &str) -> &str {
    match phase {
        "waiting for WAL" => WAITING_FOR_WAL,
        "waiting for a checkpoint" => "waiting-for-checkpoint",
        "listing files" => "listing-files",
        "looking for the parent backup" => "looking-for-parent",
        "waiting for WAL summaries" => "waiting-for-summaries",
        "copying what changed" => "copying",
        "looking at what killed backups stored" => "looking-at-remains",
        "removing what killed backups left" => "removing-remains",
        "choosing the backup"
        | "reading the manifest"
        | "looking for the target time in the archived WAL"
        | "looking for the target in the archived WAL" => "preflight",
        "removing what is not in the backup" | "comparing what is there" => "comparing files",
        "making it durable" => "finishing",
        "looking at the backups"
        | "looking at the WAL"
        | "looking at the copy"
        | "looking for changes in the archived WAL" => "looking",
        "copying packs" => "copying-packs",
        "copying WAL" => "copying-wal",
        "repairing" => "repairing",
        "healing WAL" => "healing",
        "reading packs" => "reading-packs",
        "reading WAL" => "reading-wal",
        "choosing the moment" => "choosing",
        "running pg_amcheck" => "amcheck",
        "asking the probes" => "probes",
        "stopping the server" => "stopping",
        "checking the pages" => "checking-pages",
        "removing the directory" => "removing",
        other => other,
    }
}

/// Writes the lines of one command.
#[derive(Debug)]
pub(super) struct JsonLines {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    done: AtomicU64,
    state: Mutex<State>,
    wake: Condvar,
    write: fn(&str),
}

#[derive(Debug, Default)]
struct State {
    step: Option<String>,
    total: Option<u64>,
    backup: Option<String>,
    last: String,
    ended: bool,
}

impl JsonLines {
    pub(super) fn start() -> Self {
        Self::start_with(LINE_EVERY, |line| {
            // A failure to write progress must not fail a backup.
            let _ = above_bar(format!("{line}\n").as_bytes());
        })
    }

    fn start_with(every: Duration, write: fn(&str)) -> Self {
        let (done, state, wake) = (AtomicU64::new(0), Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { done, state, wake, write });
        let seen = Arc::clone(&shared);
        let body = move || {
            let mut state = seen.state();
            loop {
                let waited = seen.wake.wait_for(&mut state, every);
                if state.ended {
                    return;
                }
                if waited.timed_out() {
                    seen.say(&mut state);
                }
            }
        };
        // Without a thread, a line is still written at each change of step.
        let thread = std::thread::Builder::new().name("progress".to_owned()).spawn(body).ok();
        Self { shared, thread }
    }

    pub(super) fn phase(&self, name: &str, total_bytes: Option<u64>) {
        let mut state = self.shared.state();
        self.shared.say(&mut state);
        self.shared.done.store(0, Ordering::Relaxed);
        state.step = Some(step_of(name).to_owned());
        state.total = total_bytes;
        self.shared.say(&mut state);
    }

    pub(super) fn advance(&self, bytes: u64) {
        self.shared.done.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn backup(&self, id: &str) {
        let mut state = self.shared.state();
        state.backup = Some(id.to_owned());
        self.shared.say(&mut state);
    }

    /// Writes the last line, before the result.
    pub(super) fn end(&self) {
        self.shared.say(&mut self.shared.state());
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Writes a line if it differs from the last one.
    fn say(&self, state: &mut State) {
        let Some(step) = &state.step else { return };
        let line = ProgressLine {
            progress: Progress {
                backup_id: state.backup.clone(),
                done_bytes: self.done.load(Ordering::Relaxed),
                step: step.clone(),
                total_bytes: state.total,
            },
        };
        let line = line.to_string();
        if line != state.last {
            (self.write)(&line);
            state.last = line;
        }
    }
}

impl Drop for JsonLines {
    fn drop(&mut self) {
        self.shared.state().ended = true;
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    static WRITTEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

    /// The steps that docs/json-output.md promises, in its order.
    const STEPS: &[&str] = &[
        "opening",
        "looking-for-parent",
        "looking-at-remains",
        "waiting-for-checkpoint",
        "waiting-for-summaries",
        "listing-files",
        "copying",
        "copying-packs",
        "copying-wal",
        "repairing",
        "healing",
        "finishing",
        WAITING_FOR_WAL,
        "removing-remains",
        "looking",
        "reading-packs",
        "reading-wal",
        "choosing",
        "recovering",
        "amcheck",
        "probes",
        "stopping",
        "checking-pages",
        "removing",
        "preflight",
        "comparing files",
        "restoring files",
    ];

    /// Phases of commands without `--progress json`: no step is promised for them.
    const WITHOUT_STEP: &[&str] = &[
        "archiving WAL",
        "asking for locks",
        "checking",
        "extending locks",
        "reading the archive",
        "removing backups",
        "removing WAL",
    ];

    fn phases_in(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).expect("a folder of the engine") {
            let path = entry.expect("an entry of the folder").path();
            if path.is_dir() {
                phases_in(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source file");
                let calls = text.split(".phase(\"").skip(1);
                found.extend(calls.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
            }
        }
    }

    /// A phase without a step would print its own name, which the engine may change.
    #[test]
    fn every_phase_of_the_engine_has_a_documented_step() {
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut phases = BTreeSet::new();
        phases_in(&crates.join("engine/src"), &mut phases);
        assert!(phases.len() > 20, "the phases of the engine are found: {phases:?}");
        let documents = std::fs::read_to_string(crates.join("../docs/json-output.md")).expect("the page about JSON");
        for phase in phases.iter().filter(|phase| !WITHOUT_STEP.contains(&phase.as_str())) {
            assert!(STEPS.contains(&step_of(phase)), "the phase {phase:?} has no step: add it to `step_of`");
        }
        for step in STEPS {
            assert!(documents.contains(&format!("`{step}`")), "docs/json-output.md does not list the step {step:?}");
        }
    }

    #[test]
    fn a_line_at_each_change_and_some_in_between() {
        let lines = JsonLines::start_with(Duration::from_millis(5), |line| {
            WRITTEN.lock().push(line.to_owned());
        });
        let written = || WRITTEN.lock().clone();
        lines.end();
        assert!(written().is_empty(), "before the first step nothing is written");
        lines.phase("listing files", None);
        lines.backup("20260822T101500Z");
        lines.phase("copying", Some(100));
        lines.advance(40);
        while written().len() < 4 {
            std::thread::yield_now();
        }
        lines.advance(60);
        lines.phase("waiting for WAL", None);
        lines.end();
        drop(lines);
        let line = |step: &str, done: u64, total: &str, backup: &str| {
            format!(
                "{{\"progress\":{{\"backup_id\":{backup},\"done_bytes\":{done},\"step\":\"{step}\",\"total_bytes\":{total}}}}}"
            )
        };
        let id = "\"20260822T101500Z\"";
        let expected = [
            line("listing-files", 0, "null", "null"),
            line("listing-files", 0, "null", id),
            line("copying", 0, "100", id),
            line("copying", 40, "100", id),
            line("copying", 100, "100", id),
            line("waiting-for-wal", 0, "null", id),
        ];
        assert_eq!(written(), expected);
    }
}
