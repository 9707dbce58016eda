//! Progress on stderr: a bar with rate and remaining time on a terminal, a line every five seconds elsewhere, JSON for
//! programs that ask for it ([`super::progress_json`]).
//!
//! The engine reports from many threads, and often; a report only adds to a counter. indicatif's own clock draws a bar,
//! and a separate thread writes lines, so that a transfer that hangs is visible too. Log lines go through
//! [`above_bar`], so that they do not break a bar.

use super::bars::{BARS, above_bar};
use super::progress_json::JsonLines;
use holdfast_contract::amount;
use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::{Condvar, Mutex};
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The time between two lines without a terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Often enough for people, rare enough to cost nothing.
const REDRAW_EVERY: Duration = Duration::from_millis(100);

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// Not at all.
    Nothing,
    Bars,
    Lines,
    /// As JSON, one object a line.
    Json,
}

impl Show {
    /// Bars on a terminal, lines elsewhere, nothing if it is not wanted.
    pub fn choose(wanted: bool) -> Self {
        match wanted {
            false => Self::Nothing,
            true if std::io::stderr().is_terminal() => Self::Bars,
            true => Self::Lines,
        }
    }
}

/// The progress of one command.
#[derive(Debug)]
pub struct Progress {
    show: Show,
    bar: Mutex<Option<ProgressBar>>,
    lines: Option<Lines>,
    json: Option<JsonLines>,
}

impl Progress {
    /// Shows nothing before the first phase.
    pub fn new(show: Show) -> Self {
        Self {
            show,
            bar: Mutex::new(None),
            lines: (show == Show::Lines).then(|| Lines::start(LINE_EVERY, write_line)),
            json: (show == Show::Json).then(JsonLines::start),
        }
    }

    /// Ends the output of progress, before results or an error are printed.
    pub fn finish(&self) {
        if let Some(bar) = self.current_bar().take() {
            bar.finish_and_clear();
        }
        if let Some(lines) = &self.lines {
            lines.end_phase();
        }
        if let Some(json) = &self.json {
            json.end();
        }
    }

    /// A phase with this name begins; `total_bytes` is known for phases that move data.
    pub fn phase(&self, name: &str, total_bytes: Option<u64>) {
        if let Some(json) = &self.json {
            json.phase(name, total_bytes);
        }
        match (self.show, &self.lines) {
            (Show::Bars, _) => {
                let bar = match total_bytes {
                    Some(total) => ProgressBar::new(total).with_style(style(
                        "{msg:24} [{bar:30}] {percent}% {hold_done} of {hold_total}  {hold_rate}  {hold_eta}",
                    )),
                    None => ProgressBar::new_spinner().with_style(style("{msg:24} {spinner}  {elapsed}")),
                };
                let bar = BARS.add(bar.with_message(name.to_owned()));
                bar.enable_steady_tick(REDRAW_EVERY);
                if let Some(before) = self.current_bar().replace(bar) {
                    before.finish_and_clear();
                }
            }
            (_, Some(lines)) => lines.begin_phase(name, total_bytes),
            _ => {}
        }
    }

    /// This many more bytes of the phase are done.
    pub fn advance(&self, bytes: u64) {
        if let Some(json) = &self.json {
            json.advance(bytes);
        } else if let Some(lines) = &self.lines {
            lines.shared.done.fetch_add(bytes, Ordering::Relaxed);
        } else if self.show == Show::Bars
            && let Some(bar) = self.current_bar().as_ref()
        {
            bar.inc(bytes);
        }
    }

    /// A fact on a line of its own.
    pub fn note(&self, text: &str) {
        if matches!(self.show, Show::Bars | Show::Lines) {
            // A failure to write progress must not fail a backup.
            let _ = above_bar(format!("{text}\n").as_bytes());
        }
    }

    /// The id of the backup that is taken or restored.
    pub fn backup(&self, id: &str) {
        if let Some(json) = &self.json {
            json.backup(id);
        }
    }

    fn current_bar(&self) -> parking_lot::MutexGuard<'_, Option<ProgressBar>> {
        self.bar.lock()
    }
}

impl holdfast_engine::progress::Progress for Progress {
    fn phase(&self, name: &str, total_bytes: Option<u64>) {
        Self::phase(self, name, total_bytes);
    }

    fn advance(&self, bytes: u64) {
        Self::advance(self, bytes);
    }

    fn note(&self, text: &str) {
        Self::note(self, text);
    }

    fn backup(&self, id: &str) {
        Self::backup(self, id);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style
        .progress_chars("=> ")
        .with_key("hold_done", |state: &indicatif::ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = out.write_str(&amount::size(state.pos()));
        })
        .with_key("hold_total", |state: &indicatif::ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = out.write_str(&amount::size(state.len().unwrap_or_default()));
        })
        .with_key("hold_rate", |state: &indicatif::ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = out.write_str(&amount::rate(state.pos(), state.elapsed()).unwrap_or_default());
        })
        .with_key("hold_eta", |state: &indicatif::ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = write!(out, "{} left", amount::duration(state.eta()));
        })
}

fn write_line(line: &str) {
    let _ = above_bar(format!("{line}\n").as_bytes());
}

/// The thread that writes lines, and its counters.
#[derive(Debug)]
struct Lines {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    done: AtomicU64,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    phase: Option<Phase>,
    ended: bool,
}

#[derive(Debug)]
struct Phase {
    name: String,
    total: Option<u64>,
    began: Instant,
}

impl Lines {
    fn start(every: Duration, write: fn(&str)) -> Self {
        let shared = Arc::new(Shared::default());
        let seen = Arc::clone(&shared);
        let body = move || {
            let mut state = seen.state.lock();
            loop {
                let waited = seen.wake.wait_for(&mut state, every);
                if state.ended {
                    return;
                }
                if waited.timed_out()
                    && let Some(phase) = &state.phase
                {
                    write(&phase.line(seen.done.load(Ordering::Relaxed), phase.began.elapsed()));
                }
            }
        };
        // Without a thread no lines come in between, but the beginning and end of each phase are still written.
        let thread = std::thread::Builder::new().name("progress".to_owned()).spawn(body).ok();
        Self { shared, thread }
    }

    fn begin_phase(&self, name: &str, total: Option<u64>) {
        self.end_phase();
        write_line(&match total {
            Some(total) => format!("{name}: {}", amount::size(total)),
            None => name.to_owned(),
        });
        self.shared.done.store(0, Ordering::Relaxed);
        self.state().phase = Some(Phase { name: name.to_owned(), total, began: Instant::now() });
    }

    fn end_phase(&self) {
        let phase = self.state().phase.take();
        if let Some(phase) = phase.filter(|phase| phase.total.is_some()) {
            write_line(&phase.summary(self.shared.done.load(Ordering::Relaxed), phase.began.elapsed()));
        }
    }

    fn state(&self) -> parking_lot::MutexGuard<'_, State> {
        self.shared.state.lock()
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.state().ended = true;
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Phase {
    /// `copying: 1.2 GiB of 4.0 GiB (30%), 85.2 MiB/s, 33s left`
    fn line(&self, done: u64, elapsed: Duration) -> String {
        let rate = amount::rate(done, elapsed).map(|rate| format!(", {rate}")).unwrap_or_default();
        match self.total {
            None if done == 0 => format!("{}: {}", self.name, amount::duration(elapsed)),
            None => format!("{}: {}{rate}", self.name, amount::size(done)),
            Some(total) => {
                let percent = (u128::from(done) * 100).checked_div(u128::from(total)).unwrap_or(100).min(100);
                let left = (elapsed.as_millis() * u128::from(total.saturating_sub(done))).checked_div(u128::from(done));
                let left = left
                    .and_then(|milliseconds| u64::try_from(milliseconds).ok())
                    .map(|milliseconds| format!(", {} left", amount::duration(Duration::from_millis(milliseconds))))
                    .unwrap_or_default();
                format!("{}: {} of {} ({percent}%){rate}{left}", self.name, amount::size(done), amount::size(total))
            }
        }
    }

    /// `copying: 4.0 GiB in 47s, 87.1 MiB/s`
    fn summary(&self, done: u64, elapsed: Duration) -> String {
        let rate = amount::rate(done, elapsed).map(|rate| format!(", {rate}")).unwrap_or_default();
        format!("{}: {} in {}{rate}", self.name, amount::size(done), amount::duration(elapsed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    fn phase(total: Option<u64>) -> Phase {
        Phase { name: "copying".to_owned(), total, began: Instant::now() }
    }

    #[test]
    fn lines_show_rate_and_remaining_time() {
        let ten = Duration::from_secs(10);
        assert_eq!(phase(Some(4 << 30)).line(1 << 30, ten), "copying: 1.0 GiB of 4.0 GiB (25%), 102 MiB/s, 30s left");
        assert_eq!(phase(Some(4 << 30)).line(0, ten), "copying: 0 B of 4.0 GiB (0%), 0 B/s");
        assert_eq!(phase(Some(0)).line(0, ten), "copying: 0 B of 0 B (100%), 0 B/s");
        assert_eq!(phase(None).line(0, ten), "copying: 10s");
        assert_eq!(phase(None).line(1 << 20, ten), "copying: 1.0 MiB, 102 KiB/s");
        assert_eq!(phase(Some(4 << 30)).summary(4 << 30, ten), "copying: 4.0 GiB in 10s, 409 MiB/s");
    }

    #[test]
    fn lines_are_written_even_if_nothing_moves() {
        static WRITTEN: AtomicUsize = AtomicUsize::new(0);
        let lines = Lines::start(Duration::from_millis(5), |_| {
            WRITTEN.fetch_add(1, Ordering::Relaxed);
        });
        lines.begin_phase("waiting", None);
        while WRITTEN.load(Ordering::Relaxed) < 2 {
            std::thread::yield_now();
        }
        drop(lines);
    }

    #[test]
    fn nothing_is_shown_if_it_is_not_wanted() {
        assert_eq!(Show::choose(false), Show::Nothing);
        let progress = Progress::new(Show::Nothing);
        progress.phase("copying", Some(1));
        progress.advance(1);
        progress.finish();
        assert!(progress.current_bar().is_none());
    }
}
