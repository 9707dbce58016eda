//! From a parsed command to the engine's verb, and from its report to text or JSON: a file for each verb.
//!
//! A verb's file builds the engine's options from configuration and flags, calls the engine, and prints. Nothing is
//! decided here that the engine could decide. [`targets`] opens the configured repositories.

mod agent;
mod answers;
pub(crate) mod asking;
mod backup;
mod check;
mod command_line;
mod context;
mod copy;
mod drill;
mod drilled;
mod expire;
mod hold;
mod info;
pub(crate) mod inherited;
mod instance;
mod key;
mod key_pair;
mod list;
mod manifest;
pub(crate) mod operator;
mod places;
mod repo;
mod requested;
mod restore;
mod root;
mod snapshot;
mod targets;
mod time;
mod unreadable;
mod verify;
mod wal;
mod wal_find;
mod wal_receive;
mod wal_verify;

use crate::args::{Args, BackupArgs, Command, KeyCommand, Output, RepoCommand, SnapshotCommand, WalCommand};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::output::stdout;
use clap::CommandFactory;
use std::path::Path;

pub use context::Context;
pub(crate) use wal::{already_durable, already_fetched, ends_at_switch, last_ahead, only, refuse_after};

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
        Command::Key(KeyCommand::Generate { file }) => Some(key_pair::generate(file, output)),
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
        Command::Repo(RepoCommand::Copy(args)) => copy::run(&context, args).await,
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
        Command::Agent(args) => agent::run(&context, args).await,
        Command::Wal(WalCommand::Push { path, standby: true, wait }) => wal::push_standby(&context, path, *wait).await,
        Command::Wal(WalCommand::Push { path, .. }) => wal::push(&context, path).await,
        Command::Wal(WalCommand::Get { name, dest, tail, until, ahead_until, .. }) => {
            wal::get(&context, name, dest, tail, wal::last_ahead(name, *until, *ahead_until)).await
        }
        Command::Wal(WalCommand::Receive(args)) => wal_receive::run(&context, args).await,
        Command::Wal(WalCommand::List) => wal::list(&context).await,
        Command::Wal(WalCommand::Verify(args)) => wal_verify::run(&context, args).await,
        Command::Wal(WalCommand::Find(args)) => wal_find::run(&context, args).await,
        Command::Snapshot(SnapshotCommand::Record { .. }) => snapshot::record(&context).await,
        Command::Snapshot(SnapshotCommand::List) => snapshot::list(&context).await,
        Command::Completions { .. }
        | Command::Man { .. }
        | Command::Manifest(_)
        | Command::Operator(_)
        | Command::Instance(_) => Err(Failure::internal("a command without configuration came to the engine")),
    }
}
