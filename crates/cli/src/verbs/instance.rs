//! `instance`: the manager of a PostgreSQL pod, and the small commands of its containers.

use crate::args::{InstanceCommand, ProbeKind};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use holdfast_instance::archive::command::{self, Archive};
use holdfast_instance::identity::{Identity, Paths};
use holdfast_instance::status_port::{Probe, ask_probe};
use holdfast_instance::{Error, init, logs, manager};
use std::ffi::OsString;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Runs one of these commands. None reads a configuration, and `run` has its own runtime.
pub(super) fn run(command: &InstanceCommand) -> Result<ExitCode, Failure> {
    match command {
        InstanceCommand::Copy { dest } => copy(dest),
        InstanceCommand::Run => run_instance(),
        InstanceCommand::Archive { path } => match command::archive(&paths()?, path) {
            Archive::Nothing => Ok(ExitCode::Ok),
            Archive::GiveUp => {
                // PostgreSQL's archiver repeats a command that fails, and ends at once after one that a signal ended.
                let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
                Ok(ExitCode::Cancelled)
            }
            Archive::Run(words) => become_verb(&words, &[]),
        },
        InstanceCommand::RestoreWal { name, dest } => match command::restore(&paths()?, name, dest) {
            None => Ok(ExitCode::Absent),
            // A standby that follows asks again by itself; a promotion waits for the answer.
            Some(words) => become_verb(&words, &[("HOLDFAST_WAL_TIMEOUT", "5s")]),
        },
        InstanceCommand::Probe { probe } => {
            let probe = match probe {
                ProbeKind::Startup => Probe::Startup,
                ProbeKind::Liveness => Probe::Liveness,
                ProbeKind::Readiness => Probe::Readiness,
            };
            ask_probe(&paths()?, probe).map(|()| ExitCode::Ok).map_err(|why| Failure::new(ExitCode::ProblemsFound, why))
        }
    }
}

/// Only the cluster's name is read from the environment, where PostgreSQL and the kubelet call.
fn paths() -> Result<Paths, Failure> {
    let cluster = std::env::var("CLUSTER_NAME").map_err(|_| {
        Failure::new(ExitCode::Usage, "the environment variable CLUSTER_NAME is not set")
            .hint("this command is called by PostgreSQL and the kubelet, in a pod that the operator made")
    })?;
    Ok(Paths::of_pod(&cluster))
}

/// Executes the verb in the place of this process, with its exit status.
fn become_verb(words: &[OsString], environment: &[(&str, &str)]) -> Result<ExitCode, Failure> {
    let error = match std::env::current_exe() {
        Ok(program) => Command::new(program).args(words).envs(environment.iter().copied()).exec(),
        Err(error) => error,
    };
    Err(Failure::internal("this program cannot be run again").caused_by(Some(&error)))
}

/// Copies aside and renames: a program cannot be executed while it is written.
fn copy(dest: &Path) -> Result<ExitCode, Failure> {
    let copied = std::env::current_exe().and_then(|program| {
        let aside = dest.with_extension("new");
        drop(std::fs::remove_file(&aside));
        let mut from = std::fs::File::open(program)?;
        let mut to = std::fs::File::options().write(true).create_new(true).mode(0o755).open(&aside)?;
        std::io::copy(&mut from, &mut to)?;
        // The umask changes the mode at creation.
        to.set_permissions(std::fs::Permissions::from_mode(0o755))?;
        drop(to);
        std::fs::rename(&aside, dest)
    });
    copied.map(|()| ExitCode::Ok).map_err(|error| {
        Failure::new(ExitCode::UnwritableFile, format!("cannot copy this program to {}", dest.display()))
            .caused_by(Some(&error))
            .hint("name a file in a directory that exists and is writable")
    })
}

fn run_instance() -> Result<ExitCode, Failure> {
    logs::start_own();
    if init::is_init() {
        let words: Vec<OsString> = std::env::args_os().skip(1).collect();
        let status = init::run(&words).map_err(|error| explain(&error))?;
        return Ok(if status == 0 { ExitCode::Ok } else { ExitCode::ProblemsFound });
    }
    let identity = Identity::from_environment(|name| std::env::var(name).ok()).map_err(|error| explain(&error))?;
    let paths = Paths::of_pod(&identity.cluster);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::internal("the runtime cannot be started").caused_by(Some(&error)))?;
    let result = runtime.block_on(async {
        let stop = CancellationToken::new();
        for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
            let mut stream =
                signal(kind).map_err(|error| Failure::internal("cannot listen for signals").caused_by(Some(&error)))?;
            let stop = stop.clone();
            tokio::spawn(async move {
                // A second signal has no effect: the kubelet has its own means.
                while stream.recv().await.is_some() {
                    stop.cancel();
                }
            });
        }
        manager::run(identity, paths, stop).await.map_err(|error| explain(&error))
    });
    runtime.shutdown_background();
    result.map(|()| ExitCode::Ok)
}

fn explain(error: &Error) -> Failure {
    let mut failure = Failure::new(ExitCode::Configuration, error.what.clone());
    if let Some(doing) = &error.doing {
        failure = failure.doing(doing.clone());
    }
    if let Some(hint) = &error.hint {
        failure = failure.hint(hint.clone());
    }
    failure
}
