//! `holdfast instance`: what runs inside the pods that the operator creates.

use clap::{Subcommand, ValueEnum};
use std::path::PathBuf;

/// `holdfast instance`
#[derive(Clone, Debug, Subcommand)]
pub enum InstanceCommand {
    /// Copy this program, so that the other containers of the pod can run it
    Copy {
        /// The path of the copy
        dest: PathBuf,
    },
    /// Run the instance: make its data directory, run PostgreSQL in its role, report
    Run,
    /// Archive a WAL file; for archive_command of an instance
    Archive {
        /// The file, as %p
        path: PathBuf,
    },
    /// Fetch a WAL file; for restore_command of an instance
    RestoreWal {
        /// The name of the WAL file, as %f
        name: String,
        /// Where to put it, as %p
        dest: PathBuf,
    },
    /// Answer a probe of the kubelet, by asking the instance manager
    Probe {
        /// The probe: startup, liveness or readiness
        probe: ProbeKind,
    },
}

/// Which probe of the kubelet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProbeKind {
    /// Whether the instance manager has come up.
    Startup,
    /// Whether it answers.
    Liveness,
    /// Whether PostgreSQL accepts connections in its role.
    Readiness,
}
