//! [`Context`]: the input of every verb.

use std::path::{Path, PathBuf};

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::args::Output;
use crate::config::repository::is_open_to_all;
use crate::config::{self, Config};
use crate::failure::{Failure, present};
use crate::output::bars::above_bar;
use crate::output::progress::Show;
use crate::output::stdout;
use crate::signals::Signals;
use crate::style::Style;

/// The input of every verb.
#[derive(Clone, Debug)]
pub struct Context {
    /// The configuration, flags included.
    pub config: Config,
    /// The file that was read, absolute; `None` if the environment set everything.
    pub config_file: Option<PathBuf>,
    /// The names of the variables that the configuration depends on.
    pub variables: Vec<String>,
    /// How results are written.
    pub output: Output,
    /// How progress is shown.
    pub show: Show,
    /// Whether text on stderr may be coloured.
    pub style: Style,
    /// Cancelled by the first signal.
    pub cancellation: CancellationToken,
    /// The signals of this run.
    pub signals: Signals,
}

impl Context {
    /// Prints a warning on stderr.
    pub(super) fn warn(&self, text: &str) {
        // If stderr cannot be written, nobody can be warned.
        let _ = above_bar(present::warning(text, self.style).as_bytes());
    }

    /// Warns about files with secrets that every user of this machine can read. An error would stop unattended runs.
    pub(super) fn warn_of_open_secrets(&self) {
        for path in self.config.repositories.iter().flat_map(|configured| configured.secrets_open_to_all()) {
            self.warn_of_open_secret(path);
        }
        if let Some(path) =
            self.config_file.as_deref().filter(|path| is_open_to_all(path) && config::holds_secret(path))
        {
            let path = path.display();
            self.warn(&format!(
                "every user of this machine may read {path}, which has a password or secret key in it: `chmod o-rwx {path}`"
            ));
        }
    }

    /// Warns about one file.
    pub(super) fn warn_of_open_secret(&self, path: &Path) {
        let path = path.display();
        self.warn(&format!(
            "every user of this machine may read {path}, which opens the repository: `chmod o-rwx {path}`"
        ));
    }

    /// Prints a result, as text or as its report type from `holdfast_contract`. Keys are sorted in all JSON but that of
    /// `wal`.
    pub(super) fn print(&self, text: impl FnOnce() -> String, report: &impl Serialize) -> Result<(), Failure> {
        match self.output {
            Output::Text => stdout::text(&text()),
            Output::Json => {
                let value = serde_json::to_value(report)
                    .map_err(|error| Failure::internal("a report cannot be written").caused_by(Some(&error)))?;
                stdout::json(&value)
            }
        }
    }
}
