//! The identity of this instance, and its paths.
//!
//! In a pod all of this is agreed with the operator ([`holdfast_kube_api::names`]); the pod's environment says which
//! pod it is. Tests on a host put everything below one folder with [`Paths::below`].

use crate::error::{Error, Result};
use holdfast_kube_api::names;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The identity of this instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The name of the instance and of its pod.
    pub instance: String,
    pub pod_uid: String,
    /// The namespace of the pod.
    pub namespace: String,
    /// The name of the cluster.
    pub cluster: String,
}

impl Identity {
    /// From the pod's environment variables.
    ///
    /// # Errors
    /// Names the first missing variable.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let need = |name: &str| {
            variable(name).filter(|value| !value.is_empty()).ok_or_else(|| {
                Error::stuck(format!("the environment variable {name} is not set"))
                    .doing("finding out which instance this is")
                    .hint("`holdfast instance run` works only in a pod that the operator created")
            })
        };
        Ok(Self {
            instance: need("POD_NAME")?,
            pod_uid: need("POD_UID")?,
            namespace: need("NAMESPACE")?,
            cluster: need("CLUSTER_NAME")?,
        })
    }
}

/// The paths of this instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// The program `holdfast` itself.
    pub program: PathBuf,
    /// Mount point of the data volume.
    pub data_mount: PathBuf,
    /// The data directory.
    pub pgdata: PathBuf,
    /// `pg_wal` on its own volume, if there is one.
    pub wal_directory: Option<PathBuf>,
    /// The folder of generated files.
    pub controller: PathBuf,
    /// The folder of the sockets: PostgreSQL's and the manager's own.
    pub sockets: PathBuf,
    /// The folder with `tls.crt` and `tls.key` of the server and the status port.
    pub server_certificates: PathBuf,
    /// The folder with `tls.crt` and `tls.key` of the replication user.
    pub replication_certificates: PathBuf,
    /// The folder with `ca.crt`.
    pub ca_certificates: PathBuf,
    /// Host name under which standbys connect to the primary.
    pub primary_host: String,
    /// PostgreSQL's port.
    pub port: u16,
}

impl Paths {
    /// The paths in a pod. The volume of `pg_wal` is used if it is mounted.
    pub fn of_pod(cluster: &str) -> Self {
        Self {
            program: PathBuf::from(names::PROGRAM),
            data_mount: PathBuf::from(names::DATA_MOUNT),
            pgdata: PathBuf::from(names::PGDATA),
            wal_directory: Path::new(names::WAL_MOUNT).is_dir().then(|| PathBuf::from(names::WAL_DIRECTORY)),
            controller: PathBuf::from(names::CONTROLLER_MOUNT),
            sockets: PathBuf::from(names::SOCKET_DIRECTORY),
            server_certificates: PathBuf::from(names::SERVER_CERTIFICATES),
            replication_certificates: PathBuf::from(names::REPLICATION_CERTIFICATES),
            ca_certificates: PathBuf::from(names::CA_CERTIFICATES),
            primary_host: names::read_write_service(cluster),
            port: names::POSTGRES_PORT,
        }
    }

    /// Everything below one folder, for tests on a host.
    pub fn below(folder: &Path, program: &Path, port: u16) -> Self {
        Self {
            program: program.to_owned(),
            data_mount: folder.join("data"),
            pgdata: folder.join("data/pgdata"),
            wal_directory: None,
            controller: folder.join("controller"),
            sockets: folder.join("controller/run"),
            server_certificates: folder.join("certificates/server"),
            replication_certificates: folder.join("certificates/replication"),
            ca_certificates: folder.join("certificates/ca"),
            primary_host: "127.0.0.1".to_owned(),
            port,
        }
    }

    /// Holdfast's configuration for the cluster's own archive; the file exists if one is configured.
    pub fn archive_config(&self) -> PathBuf {
        self.controller.join("holdfast.toml")
    }

    /// Which logs the last look-up found complete in the archive, so that the next one lists less.
    pub fn wal_cache(&self) -> PathBuf {
        self.controller.join("wal-cache.json")
    }

    /// Holdfast's configuration for the archive that a recovery reads.
    pub fn source_config(&self) -> PathBuf {
        self.controller.join("source.toml")
    }

    /// Copies of keys and certificates that only PostgreSQL's user can read, as libpq and the server require.
    pub fn tls(&self) -> PathBuf {
        self.controller.join("tls")
    }

    /// While this file exists, `archive_command` gives up at once: PostgreSQL is stopping, and a standby has its WAL.
    pub fn archive_gives_up(&self) -> PathBuf {
        self.controller.join("archive-gives-up")
    }

    /// The socket for probes.
    pub fn control_socket(&self) -> PathBuf {
        self.sockets.join("manager.sock")
    }

    /// The folder where WAL waits on its way to and from the archive. It is on the data volume, so that it survives the
    /// pod.
    pub fn spool(&self) -> PathBuf {
        self.data_mount.join("holdfast-spool")
    }

    /// PostgreSQL's `pg_wal`, on whichever volume.
    pub fn pg_wal(&self) -> PathBuf {
        self.wal_directory.clone().unwrap_or_else(|| self.pgdata.join("pg_wal"))
    }

    /// The command line of a verb of this program.
    pub fn own_words<const N: usize>(&self, words: [&str; N]) -> Vec<OsString> {
        std::iter::once(self.program.clone().into_os_string()).chain(words.iter().map(OsString::from)).collect()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that fails here has found what it looks for")]
    use super::*;

    #[test]
    fn the_environment_names_the_instance() {
        let all = |name: &str| Some(format!("{}-1", name.to_lowercase()));
        let identity = Identity::from_environment(all).unwrap();
        assert_eq!(identity.instance, "pod_name-1");
        let some = |name: &str| (name != "POD_UID").then(|| "x".to_owned());
        assert_eq!(
            Identity::from_environment(some).unwrap_err().to_string(),
            "error: the environment variable POD_UID is not set\n\
             while: finding out which instance this is\n\
             hint:  `holdfast instance run` works only in a pod that the operator created"
        );
    }
}
