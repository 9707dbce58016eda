//! [`Window`]: how many files are sent ahead of PostgreSQL at the same time.
//!
//! On a line that is just fast enough for one segment within the time limit of a request, sending many at once would
//! fail again and again. So after a failure nothing is sent ahead until a file that PostgreSQL asked for is stored;
//! then one is, and the number doubles with each success.

/// How many files may be sent ahead now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    most: usize,
    now: usize,
}

impl Window {
    /// At the start: half of the most.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, now: most.div_ceil(2) }
    }

    /// The number of files.
    pub(crate) fn now(self) -> usize {
        self.now
    }

    /// A file is stored. Only one that PostgreSQL asked for ends the pause after a failure.
    pub(crate) fn succeeded(&mut self, asked: bool) {
        if self.now > 0 || asked {
            self.now = (self.now * 2).max(1).min(self.most);
        }
    }

    /// A file could not be stored.
    pub(crate) fn failed(&mut self) {
        self.now = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_pauses_after_a_failure_and_doubles_after_success() {
        let mut window = Window::new(16);
        let mut seen = vec![window.now()];
        for step in ["ahead", "ahead", "failed", "ahead", "asked", "ahead", "ahead", "asked", "asked", "asked"] {
            match step {
                "failed" => window.failed(),
                step => window.succeeded(step == "asked"),
            }
            seen.push(window.now());
        }
        assert_eq!(seen, [8, 16, 16, 0, 0, 1, 2, 4, 8, 16, 16]);
    }

    #[test]
    fn nothing_is_sent_ahead_if_nothing_may_be() {
        let mut window = Window::new(0);
        window.succeeded(true);
        assert_eq!(window.now(), 0);
    }
}
