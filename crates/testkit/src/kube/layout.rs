//! The places of all files of the bed, and its addresses.
//!
//! One network namespace holds one bed, so names and addresses are fixed. The state folder is `HOLDFAST_KUBE_DIR`, by
//! default `/var/lib/holdfast-kube`; the programs come from `scripts/provision --kube`, which writes their folders into
//! the cache's settings.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use crate::error::{KitError, Result};
use crate::settings;

/// The link with the addresses of the host's side. A bridge without ports, because every kernel has bridges.
pub(crate) const LINK: &str = "hfkube0";
/// The host's address for pods and nodes: the API server, the names and the object store are here.
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
/// All addresses of nodes and pods.
pub(crate) const PODS: &str = "10.244.0.0/16";
/// The addresses of services.
pub(crate) const SERVICES: &str = "10.96.0.0/16";
/// The address of the service `kubernetes`: the first of [`SERVICES`].
pub(crate) const KUBERNETES_SERVICE: &str = "10.96.0.1";
/// The port of the API server.
pub(crate) const API_PORT: u16 = 6443;
/// The port of the object store.
pub(crate) const S3_PORT: u16 = 9000;
/// The domain of the names of services and pods.
pub(crate) const DOMAIN: &str = "cluster.local";
/// How the names of all beds' control groups begin.
pub(crate) const FIRST_GROUP: &str = "holdfast-kube";
/// The number of nodes.
pub(crate) const NODES: u8 = 2;

/// The folders of one bed.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: PathBuf,
    control_plane: PathBuf,
    node_tools: PathBuf,
    layers: PathBuf,
}

impl Layout {
    /// The state folder alone, to stop running parts: the programs may be gone from the cache by then.
    pub(crate) fn state_folder() -> PathBuf {
        std::env::var_os("HOLDFAST_KUBE_DIR")
            .filter(|path| !path.is_empty())
            .map_or_else(|| PathBuf::from("/var/lib/holdfast-kube"), PathBuf::from)
    }

    /// The folders according to the settings.
    ///
    /// # Errors
    /// [`KitError::Missing`] if `scripts/provision --kube` has not run.
    pub(crate) fn find() -> Result<Self> {
        let folder = |name: &str, what: &str| {
            settings::get(name).map(PathBuf::from).filter(|path| path.is_dir()).ok_or_else(|| KitError::Missing {
                what: format!("{what} for the Kubernetes of the tests (scripts/provision --kube)"),
                looked_at: vec![settings::cache().join("env")],
            })
        };
        Ok(Self {
            root: Self::state_folder(),
            control_plane: folder("HOLDFAST_KUBE_BIN", "the control plane")?,
            node_tools: folder("HOLDFAST_KUBE_NODE", "containerd and etcd")?,
            layers: folder("HOLDFAST_KUBE_LAYERS", "the layers of images")?,
        })
    }

    /// The state folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A file or folder of the state.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// A program of the control plane, kubelet or `kubectl`.
    pub(crate) fn kube(&self, program: &str) -> PathBuf {
        self.control_plane.join(program)
    }

    /// A program of the node: containerd, its shim, `ctr`, runc; and etcd.
    pub(crate) fn tool(&self, program: &str) -> PathBuf {
        self.node_tools.join("bin").join(program)
    }

    /// The folder of the node's programs, for the search path of containerd, which starts its shim by name.
    pub(crate) fn tools(&self) -> PathBuf {
        self.node_tools.join("bin")
    }

    /// The folder of the CNI plugins.
    pub(crate) fn cni(&self) -> PathBuf {
        self.node_tools.join("cni")
    }

    /// The archive of one layer of images.
    pub(crate) fn layer(&self, name: &str) -> PathBuf {
        self.layers.join(format!("{name}.tar"))
    }

    /// The kubeconfig of a component, or of the cluster's administrator (`admin`).
    pub(crate) fn kubeconfig(&self, name: &str) -> PathBuf {
        if name == "admin" { self.path("kubeconfig") } else { self.path("pki").join(format!("{name}.kubeconfig")) }
    }

    /// The mounted file system with volumes, snapshots and images.
    pub(crate) fn disk(&self) -> PathBuf {
        self.path("disk")
    }

    /// The URL of the API server.
    pub(crate) fn api() -> String {
        format!("https://{HOST}:{API_PORT}")
    }
}

/// The control group below which every process of the bed lives: `holdfast-kube` for the state folder of that name, and
/// another one for every other folder, so that a second bed in a network namespace of its own has its own group.
pub(crate) fn group() -> String {
    group_of(&Layout::state_folder())
}

fn group_of(state: &Path) -> String {
    let name = state.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if name.starts_with(FIRST_GROUP) { name } else { format!("{FIRST_GROUP}-{name}") }
}

/// The address of a node, counted from one.
pub(crate) fn node_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, 0, 10 + number)
}

/// The name of a node, counted from one.
pub(crate) fn node_name(number: u8) -> String {
    format!("node-{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_folder_has_a_group_of_its_own() {
        assert_eq!(group_of(Path::new("/var/lib/holdfast-kube")), "holdfast-kube");
        assert_eq!(group_of(Path::new("/var/lib/holdfast-kube-2")), "holdfast-kube-2");
        assert_eq!(group_of(Path::new("/tmp/mine")), "holdfast-kube-mine");
    }
}
