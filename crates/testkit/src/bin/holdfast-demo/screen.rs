//! What the demo prints: headlines, the commands it runs, facts. It is readable without colour and in a log.
//!
//! The demo and the `holdfast` it starts share the terminal, so everything is written at once, and nothing is left
//! half-written on a line while a command runs.

#![expect(clippy::unused_self, reason = "all output goes through the screen")]

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

const WIDTH: usize = 100;

/// Standard output, or standard error for errors.
#[derive(Debug)]
pub(crate) struct Screen {
    terminal: bool,
    colour: bool,
    began: Instant,
}

impl Screen {
    pub(crate) fn new() -> Self {
        let terminal = std::io::stdout().is_terminal();
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { terminal, colour: terminal && !unwanted, began: Instant::now() }
    }

    /// The time since the demo began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Prints the headline of a step: what it does, and why.
    pub(crate) fn step(&self, number: u32, what: &str, why: &str) {
        let clock = format!("{:>5}", duration(self.elapsed()));
        let head = format!("== {number}. {what} ");
        let rule = "=".repeat(WIDTH.saturating_sub(head.chars().count() + clock.chars().count() + 1).max(2));
        self.line(&format!("\n{}", self.styled("1", &format!("{head}{rule} {clock}"))));
        for line in wrapped(why) {
            self.line(&format!("   {line}"));
        }
        self.line("");
    }

    /// Prints a command as a person would type it.
    pub(crate) fn command(&self, text: &str) {
        self.line(&self.styled("36", &format!("$ {text}")));
    }

    /// Prints a fact, with its name in front.
    pub(crate) fn fact(&self, name: &str, value: &str) {
        self.line(&format!("  {name:<24} {value}"));
    }

    /// Prints a success, in a colour that catches the eye.
    pub(crate) fn good(&self, text: &str) {
        self.line(&self.styled("1;32", text));
    }

    /// Prints a damage that the demo does on purpose.
    pub(crate) fn bad(&self, text: &str) {
        self.line(&self.styled("31", text));
    }

    /// Prints one or more lines.
    pub(crate) fn line(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        // If nobody reads the output, the demo still continues, so that it stops its servers at the end.
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }

    /// Shows the progress of a step, on a terminal only. The next call writes over it.
    pub(crate) fn bar(&self, what: &str, done: u64, total: u64, elapsed: Duration) {
        if !self.terminal {
            return;
        }
        let filled = usize::try_from(done.min(total) * 30 / total.max(1)).unwrap_or(30);
        let bar = format!("{}{}", "=".repeat(filled), " ".repeat(30 - filled));
        let text = format!("{what:24} [{bar}] {} of {}  {}", size(done), size(total), rate(done, elapsed));
        let mut out = std::io::stdout().lock();
        let _ = write!(out, "\r{text:<90}").and_then(|()| out.flush());
    }

    /// Removes the progress bar.
    pub(crate) fn end_bar(&self) {
        if self.terminal {
            let mut out = std::io::stdout().lock();
            let _ = write!(out, "\r{:90}\r", "").and_then(|()| out.flush());
        }
    }

    /// Prints the error that ended the demo.
    pub(crate) fn error(&self, text: &str) {
        let _ = writeln!(std::io::stderr().lock(), "\nerror: {text}");
    }

    /// Prints a further line about the error.
    pub(crate) fn error_line(&self, text: &str) {
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }

    fn styled(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Splits the text into lines of a readable width.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.len() - 1;
        let line = &mut lines[last];
        if !line.is_empty() && line.chars().count() + word.chars().count() + 4 > WIDTH {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

/// `512 MiB`, `1.5 GiB`
pub(crate) fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut shift = 0;
    while bytes >> shift >= 1024 && unit + 1 < units.len() {
        unit += 1;
        shift += 10;
    }
    let whole = bytes >> shift;
    if unit > 0 && whole < 10 {
        // One more digit where it adds information.
        let tenth = ((bytes & ((1 << shift) - 1)) * 10) >> shift;
        return format!("{whole}.{tenth} {}", units[unit]);
    }
    format!("{whole} {}", units[unit])
}

/// `85 MiB/s`
pub(crate) fn rate(bytes: u64, elapsed: Duration) -> String {
    let milliseconds = elapsed.as_millis().max(1);
    let each_second = u128::from(bytes) * 1000 / milliseconds;
    format!("{}/s", size(u64::try_from(each_second).unwrap_or(u64::MAX)))
}

/// `1.2 s`, `1 min 5 s`
pub(crate) fn duration(length: Duration) -> String {
    let seconds = length.as_secs();
    if seconds < 60 {
        return format!("{seconds}.{} s", length.subsec_millis() / 100);
    }
    format!("{} min {} s", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(500 << 20), "500 MiB");
        assert_eq!(size(u64::MAX), "16777215 TiB");
        assert_eq!(rate(100 << 20, Duration::from_secs(2)), "50 MiB/s");
        assert_eq!(duration(Duration::from_millis(1250)), "1.2 s");
        assert_eq!(duration(Duration::from_millis(65_900)), "1 min 5 s");
    }

    #[test]
    fn lines_are_wrapped_between_words() {
        assert_eq!(wrapped(""), [""]);
        let lines = wrapped(&"word ".repeat(50));
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| line.len() <= WIDTH));
    }
}
