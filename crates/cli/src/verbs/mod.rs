//! From a parsed command to the engine's verb, and from its report to text or JSON: a file for each verb.
//!
//! A verb's file builds the engine's options from configuration and flags, calls the engine, and prints. Nothing is
//! decided here that the engine could decide. [`targets`] opens the configured repositories.

mod backup;
mod check;
mod command_line;
mod drill;
mod expire;
mod hold;
mod info;
pub(crate) mod inherited;
mod instance;
mod key;
mod list;
mod manifest;
pub(crate) mod operator;
mod places;
mod repo;
mod restore;
mod root;
mod snapshot;
mod targets;
mod time;
mod unreadable;
mod verify;
mod wal;

use crate::args::{Args, BackupArgs, Command, Output, RepoCommand, SnapshotCommand, WalCommand};
use crate::config::Config;
use crate::exit_code::ExitCode;
use crate::failure::{Failure, present};
use crate::output::bars::above_bar;
use crate::output::progress::Show;
use crate::output::{Style, stdout};
use clap::CommandFactory;
use serde::Serialize;
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;

pub(crate) use wal::{already_durable, already_fetched, only, refuse_after};

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
}

impl Context {
    /// Prints a warning on stderr.
    fn warn(&self, text: &str) {
        // If stderr cannot be written, nobody can be warned.
        let _ = above_bar(present::warning(text, self.style).as_bytes());
    }

    /// Warns about files with secrets that every user of this machine can read. An error would stop unattended runs.
    fn warn_of_open_secrets(&self) {
        for path in self.config.repositories.iter().flat_map(|configured| configured.secrets_open_to_all()) {
            self.warn_of_open_secret(path);
        }
    }

    /// Warns about one file.
    fn warn_of_open_secret(&self, path: &Path) {
        let path = path.display();
        self.warn(&format!(
            "every user of this machine may read {path}, which opens the repository: `chmod o-rwx {path}`"
        ));
    }

    /// Prints a result, as text or as its report type from `holdfast_contract`. Keys are sorted in all JSON but that of
    /// `wal`.
    fn print(&self, text: impl FnOnce() -> String, report: &impl Serialize) -> Result<(), Failure> {
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

/// Runs the commands that need neither configuration nor runtime; `None` for any other.
pub(crate) fn run_bare(command: &Command, output: Output) -> Option<Result<ExitCode, Failure>> {
    match command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Args::command(), "holdfast", &mut script);
            Some(stdout::text(&String::from_utf8_lossy(&script)).map(|()| ExitCode::Ok))
        }
        Command::Man { dir } => Some(man(dir).map(|()| ExitCode::Ok)),
        Command::Instance(command) => Some(instance::run(command)),
        Command::Manifest(command) => Some(manifest::run(command, output)),
        _ => None,
    }
}

fn man(dir: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(Args::command(), dir)).map_err(|error| {
        let code =
            if error.kind() == std::io::ErrorKind::StorageFull { ExitCode::NoSpace } else { ExitCode::UnwritableFile };
        Failure::new(code, format!("cannot write the manual pages into {}", dir.display()))
            .caused_by(Some(&error))
            .hint("name a directory that you may write")
    })
}

/// Runs the verb of a command.
pub(crate) async fn run(command: Command, context: Context) -> Result<ExitCode, Failure> {
    match &command {
        Command::Repo(RepoCommand::Init { new_claim }) => repo::init(&context, *new_claim).await,
        Command::Repo(RepoCommand::Claim { check, .. }) => repo::claim(&context, *check).await,
        Command::Repo(RepoCommand::Info) => repo::info(&context).await,
        Command::Backup(BackupArgs { action: Some(action), .. }) => hold::run(&context, action).await,
        Command::Backup(args) => backup::run(&context, args).await,
        Command::Expire(args) => expire::run(&context, args).await,
        Command::List => list::run(&context).await,
        Command::Info { wal_cache, all_wal } => {
            let look = if *all_wal { info::Look::AtAll } else { info::Look::Short };
            info::run(&context, wal_cache.as_deref(), look).await
        }
        Command::Check => check::run(&context).await,
        Command::Restore(args) => restore::run(&context, args).await,
        Command::Verify(args) => verify::run(&context, args).await,
        Command::Key(command) => key::run(&context, command).await,
        Command::Drill(args) => drill::run(&context, args).await,
        Command::Wal(WalCommand::Push { path, standby: true, wait }) => wal::push_standby(&context, path, *wait).await,
        Command::Wal(WalCommand::Push { path, .. }) => wal::push(&context, path).await,
        Command::Wal(WalCommand::Get { name, dest, .. }) => wal::get(&context, name, dest).await,
        Command::Wal(WalCommand::List) => wal::list(&context).await,
        Command::Snapshot(SnapshotCommand::Record { .. }) => snapshot::record(&context).await,
        Command::Snapshot(SnapshotCommand::List) => snapshot::list(&context).await,
        Command::Completions { .. }
        | Command::Man { .. }
        | Command::Manifest(_)
        | Command::Operator(_)
        | Command::Instance(_) => Err(Failure::internal("a command without configuration came to the engine")),
    }
}
