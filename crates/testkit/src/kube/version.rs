//! Which Kubernetes the programs are, and what differs in how they are started.
//!
//! The bed is made for the version that `scripts/provision --kube` builds. With `HOLDFAST_KUBE_BIN` it runs programs of
//! another one, which may even differ among each other: a kubelet may be up to three minor versions older than its API
//! server. So each program is asked for its own version before its arguments are put together, and whatever a version
//! does not take any more, or not yet, is asked of [`Version`] and of nothing else.

use std::path::Path;
use std::process::Command;

use super::tools::run;
use crate::error::{KitError, Result};

/// The minor version of a program of Kubernetes 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version(u32);

impl Version {
    /// The version that a program says it is.
    ///
    /// # Errors
    /// [`KitError::Missing`] when there is no such program, [`KitError::Unsupported`] when its answer names no version.
    pub(crate) fn of(program: &Path) -> Result<Self> {
        if !program.is_file() {
            return Err(KitError::Missing {
                what: format!("{} of the Kubernetes of the tests (HOLDFAST_KUBE_BIN)", program.display()),
                looked_at: program.parent().map(Path::to_path_buf).into_iter().collect(),
            });
        }
        let answer = run(Command::new(program).arg("--version"))?;
        Self::parse(&answer).ok_or_else(|| {
            KitError::Unsupported(format!("{} names no version of Kubernetes 1: {}", program.display(), answer.trim()))
        })
    }

    /// `Kubernetes v1.36.3`, also with what distributors add behind it.
    fn parse(answer: &str) -> Option<Self> {
        let minor = answer.trim().strip_prefix("Kubernetes v1.")?.split(|c: char| !c.is_ascii_digit()).next()?;
        minor.parse().ok().map(Self)
    }

    /// Controllers and scheduler still have a port without encryption, which has to be closed by name.
    pub(crate) fn has_insecure_port(self) -> bool {
        self.0 < 24
    }

    /// When pods of a lost node go is still said to the controllers; from then on only their tolerations say it.
    pub(crate) fn has_pod_eviction_timeout(self) -> bool {
        self.0 < 27
    }

    /// The kubelet still has to be told that its containers are run by another program.
    pub(crate) fn names_container_runtime(self) -> bool {
        self.0 < 27
    }

    /// The kubelet can be kept from opening its socket for devices.
    pub(crate) fn can_leave_out_devices(self) -> bool {
        self.0 < 26
    }

    /// The kubelet refuses control groups of version 1 unless it is told that they are meant.
    pub(crate) fn asks_about_old_groups(self) -> bool {
        self.0 >= 31
    }
}

#[cfg(test)]
mod tests {
    use super::Version;

    #[test]
    fn versions_are_read_as_the_programs_print_them() {
        for (answer, expected) in [
            ("Kubernetes v1.20.2\n", Some(20)),
            ("Kubernetes v1.36.3\n", Some(36)),
            ("Kubernetes v1.34.1+k3s1", Some(34)),
            ("Kubernetes v1.37.0-rc.1", Some(37)),
            ("Kubernetes v2.0.0", None),
            ("Kubernetes v0.0.0-master+$Format:%H$", None),
            ("Kubernetes v1.x", None),
            ("etcd Version: 3.4.23", None),
        ] {
            assert_eq!(Version::parse(answer).map(|version| version.0), expected, "{answer}");
        }
    }

    #[test]
    fn each_version_gets_the_arguments_it_takes() {
        let old = Version(20);
        assert!(old.has_insecure_port() && old.has_pod_eviction_timeout() && old.names_container_runtime());
        assert!(old.can_leave_out_devices() && !old.asks_about_old_groups());
        let new = Version(36);
        assert!(!new.has_insecure_port() && !new.has_pod_eviction_timeout() && !new.names_container_runtime());
        assert!(!new.can_leave_out_devices() && new.asks_about_old_groups());
    }
}
