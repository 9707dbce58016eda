//! The version of the Kubernetes programs, and how their arguments differ by version.
//!
//! The bed is made for the version that `scripts/provision --kube` builds. With `HOLDFAST_KUBE_BIN` it runs programs of
//! another version, and these may even differ among each other: a kubelet may be up to three minor versions older than
//! its API server. So the kit asks each program for its own version before it assembles the arguments. [`Version`] is
//! the only place that knows which arguments a version does not accept, or not yet.

use std::path::Path;
use std::process::Command;

use super::tools::run;
use crate::error::{KitError, Result};

/// The minor version of a program of Kubernetes 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version(u32);

impl Version {
    /// Asks a program for its version.
    ///
    /// # Errors
    /// [`KitError::Missing`] if there is no such program, [`KitError::Unsupported`] if its answer names no version.
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

    /// `Kubernetes v1.36.3`, also with a distributor's text after it.
    fn parse(answer: &str) -> Option<Self> {
        let minor = answer.trim().strip_prefix("Kubernetes v1.")?.split(|c: char| !c.is_ascii_digit()).next()?;
        minor.parse().ok().map(Self)
    }

    /// Controllers and scheduler still have a port without encryption, which an argument must close.
    pub(crate) fn has_insecure_port(self) -> bool {
        self.0 < 24
    }

    /// The controllers still have an argument for when pods of a lost node are deleted. Later only their tolerations
    /// decide it.
    pub(crate) fn has_pod_eviction_timeout(self) -> bool {
        self.0 < 27
    }

    /// The kubelet still needs an argument that another program runs its containers.
    pub(crate) fn names_container_runtime(self) -> bool {
        self.0 < 27
    }

    /// The kubelet can be kept from opening its socket for devices.
    pub(crate) fn can_leave_out_devices(self) -> bool {
        self.0 < 26
    }

    /// The kubelet refuses control groups of version 1 unless an argument allows them.
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
    fn each_version_gets_the_arguments_it_accepts() {
        let old = Version(20);
        assert!(old.has_insecure_port() && old.has_pod_eviction_timeout() && old.names_container_runtime());
        assert!(old.can_leave_out_devices() && !old.asks_about_old_groups());
        let new = Version(36);
        assert!(!new.has_insecure_port() && !new.has_pod_eviction_timeout() && !new.names_container_runtime());
        assert!(!new.can_leave_out_devices() && new.asks_about_old_groups());
    }
}
