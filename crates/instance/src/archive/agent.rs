//! The agent of this instance: a child process that does the work of `archive_command` and `restore_command`.
//!
//! It lives as long as the manager: its stdin is a pipe from the manager, and it ends when the pipe does. A new
//! configuration of the archive makes it start again. If it cannot run, PostgreSQL's commands do the work themselves.

use crate::context::Context;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::{Child, Command};

/// The time between two looks at the configuration and the process.
const ROUND: Duration = Duration::from_secs(2);
/// The wait after an agent that ended by itself.
const PAUSE: Duration = Duration::from_secs(10);

/// How long an agent may take to end. It gives up what it works on after ten seconds.
const ENDS_WITHIN: Duration = Duration::from_secs(20);

/// Keeps an agent while an archive is configured. It is not stopped with the instance: PostgreSQL archives its last WAL
/// while it stops.
pub async fn keep(context: Arc<Context>) {
    let config = context.paths.archive_config();
    let mut running: Option<(Child, Vec<u8>)> = None;
    loop {
        let wanted = tokio::fs::read(&config).await.ok();
        let ended = match &mut running {
            Some((child, with)) if wanted.as_ref() == Some(with) => match child.try_wait() {
                Ok(None) => false,
                ended => {
                    tracing::warn!(?ended, "the agent ended: archive_command works alone until it runs again");
                    tokio::time::sleep(PAUSE).await;
                    true
                }
            },
            Some((child, _)) => {
                // Its stdin closes; it answers what it works on, and ends.
                drop(child.stdin.take());
                if tokio::time::timeout(ENDS_WITHIN, child.wait()).await.is_err() {
                    drop(child.kill().await);
                }
                true
            }
            None => true,
        };
        if ended {
            running = match wanted {
                None => None,
                Some(with) => match start(&context.paths.program, &config) {
                    Ok(child) => Some((child, with)),
                    Err(error) => {
                        tracing::warn!(%error, "the agent cannot be started: archive_command works alone");
                        None
                    }
                },
            };
        }
        tokio::time::sleep(ROUND).await;
    }
}

fn start(program: &Path, config: &Path) -> std::io::Result<Child> {
    Command::new(program)
        .arg("--config")
        .arg(config)
        .args(["--log-level", "warn", "agent", "--while-stdin-is-open"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        // A signal to the manager's group is not for the agent, as for PostgreSQL.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}
