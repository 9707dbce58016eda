//! A node: a containerd and a kubelet of its own, on the one machine that all nodes share.
//!
//! Both live in a mount namespace of the node, where `/run`, `/var/log` and `/var/lib/kubelet` are folders of the node.
//! This separates paths that cannot be configured: `/var/log/pods`, which a kubelet clears of what it does not know,
//! the sockets of containerd's shims, and the socket for devices of a kubelet that opens it in any case. The mounts of
//! pods vanish together with the node's processes.
//!
//! Control groups: daemons are in `holdfast-kube/containerd-<node>` and `.../kubelet-<node>`, with the shims of
//! containers, and containers are below `holdfast-kube/<node>`. The kubelet takes an unknown group for the remains of a
//! pod and kills its processes, so each kubelet has its own root group.
//!
//! To lose a node, the kit kills all of that at once. The disk stays: started again, it is the same machine after a
//! reboot.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use super::disk::Disk;
use super::layout::{self, DOMAIN, HOST, Layout};
use super::tools::run;
use super::unit::{Unit, hierarchies, tail, wait_until};
use super::version::Version;
use super::{host, images};
use crate::error::{KitError, Result};

/// The files and processes of one node.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    layout: Layout,
    number: u8,
    name: String,
}

impl Machine {
    /// The node with this number, counted from one.
    pub(crate) fn new(layout: &Layout, number: u8) -> Self {
        Self { layout: layout.clone(), number, name: layout::node_name(number) }
    }

    /// The number of the node, counted from one.
    pub(crate) fn number(&self) -> u8 {
        self.number
    }

    fn containerd(&self) -> Unit {
        Unit::new(format!("containerd-{}", self.name))
    }

    fn kubelet(&self) -> Unit {
        Unit::new(format!("kubelet-{}", self.name))
    }

    fn containers(&self) -> Unit {
        Unit::new(self.name.clone())
    }

    fn folder(&self) -> PathBuf {
        self.layout.path(&self.name)
    }

    fn log(&self, daemon: &str) -> PathBuf {
        self.layout.path("log").join(format!("{daemon}-{}.log", self.name))
    }

    fn socket(&self) -> PathBuf {
        self.folder().join("run/containerd/containerd.sock")
    }

    /// Whether the node's daemons run.
    pub(crate) fn is_running(&self) -> bool {
        self.kubelet().is_running() && self.containerd().is_running()
    }

    /// Writes the configuration of both daemons.
    pub(crate) fn configure(&self, disk: &Disk) -> Result<()> {
        let folder = self.folder();
        for name in ["run/containerd", "log", "cni/net.d", "cni/state", "kubelet", "devices"] {
            let path = folder.join(name);
            fs::create_dir_all(&path).map_err(KitError::io(format!("make {}", path.display())))?;
        }
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            fs::write(&path, text).map_err(KitError::io(format!("write {}", path.display())))
        };
        write("containerd.toml", self.containerd_config(disk))?;
        write("kubelet.json", self.kubelet_config(Version::of(&self.layout.kube("kubelet"))?).to_string())?;
        write("cni/net.d/10-holdfast.conflist", self.network_config().to_string())?;
        // For pods that do not use the cluster's names.
        write("resolv.conf", format!("nameserver {HOST}\n"))
    }

    /// Starts containerd and waits until it answers.
    pub(crate) fn start_containerd(&self) -> Result<()> {
        let folder = self.folder();
        host::make_kubelet_folder()?;
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "slave", "sh", "-c"])
            .arg(format!(
                "mount --bind \"$0/run\" /run && mount --bind \"$0/log\" /var/log && \
                 mount --bind \"$0/devices\" {} && exec \"$@\"",
                host::KUBELET_FOLDER
            ))
            .arg(&folder)
            .arg(self.layout.tool("containerd"))
            .arg("--config")
            .arg(folder.join("containerd.toml"))
            .env("PATH", format!("{}:{path}", self.layout.tools().display()));
        // The socket of a daemon that was killed.
        let _ = fs::remove_file(self.socket());
        self.containerd().start(&command, &self.log("containerd"))?;
        let limit = Duration::from_mins(2);
        if wait_until(limit, || run(self.ctr().arg("version")).is_ok()) {
            return Ok(());
        }
        let what = format!("the start of containerd of {}", self.name);
        Err(KitError::Timeout { what, limit, log: tail(&self.log("containerd")) })
    }

    /// Starts the kubelet, in the namespace that containerd made.
    pub(crate) fn start_kubelet(&self) -> Result<()> {
        for hierarchy in hierarchies() {
            let group = hierarchy.join(layout::group()).join(&self.name);
            fs::create_dir_all(&group).map_err(KitError::io(format!("make {}", group.display())))?;
        }
        let process = self.containerd_process()?;
        let folder = self.folder();
        let program = self.layout.kube("kubelet");
        let version = Version::of(&program)?;
        let mut command = Command::new("nsenter");
        command
            .arg("--target")
            .arg(process.to_string())
            .args(["--mount", "--"])
            .arg(program)
            .arg(format!("--config={}", folder.join("kubelet.json").display()))
            .arg(format!("--kubeconfig={}", self.layout.kubeconfig(&self.name).display()))
            .arg(format!("--root-dir={}", folder.join("kubelet").display()))
            .arg(format!("--hostname-override={}", self.name))
            .arg(format!("--node-ip={}", layout::node_address(self.number)))
            .arg(format!("--node-labels=topology.kubernetes.io/zone=zone-{}", self.number))
            .args(["--runtime-request-timeout=2m", "--housekeeping-interval=30s"])
            .arg("--container-runtime-endpoint=unix:///run/containerd/containerd.sock");
        if version.names_container_runtime() {
            command.arg("--container-runtime=remote");
        }
        self.kubelet().start(&command, &self.log("kubelet"))
    }

    /// The process of containerd itself among those it started.
    fn containerd_process(&self) -> Result<i32> {
        let program = self.layout.tool("containerd");
        let found = self
            .containerd()
            .processes()
            .into_iter()
            .find(|process| fs::read_link(format!("/proc/{process}/exe")).is_ok_and(|path| path == program));
        found.ok_or_else(|| KitError::StartFailed {
            server: format!("containerd of {}", self.name),
            status: "no process".to_owned(),
            log: tail(&self.log("containerd")),
        })
    }

    /// Kills the daemons and all containers, as a loss of power does.
    pub(crate) fn kill(&self) -> Result<()> {
        // The kubelet first, or it would start again what is killed after it.
        self.kubelet().kill()?;
        self.containerd().kill()?;
        self.containers().kill()
    }

    /// Imports an image under its name; it replaces an earlier one of this name.
    pub(crate) fn import(&self, archive: &std::path::Path) -> Result<()> {
        run(self.ctr().args(["--namespace", "k8s.io", "images", "import"]).arg(archive)).map(drop)
    }

    /// Gives an image a further name.
    pub(crate) fn tag(&self, image: &str, name: &str) -> Result<()> {
        run(self.ctr().args(["--namespace", "k8s.io", "images", "tag", "--force", image, name])).map(drop)
    }

    fn ctr(&self) -> Command {
        let mut command = Command::new(self.layout.tool("ctr"));
        command.arg("--address").arg(self.socket());
        command
    }

    fn containerd_config(&self, disk: &Disk) -> String {
        let folder = self.folder();
        // `restrict_oom_score_adj`: without CAP_SYS_RESOURCE no container could start at all.
        format!(
            r#"version = 2
root = "{root}"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
address = "/run/containerd/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "{folder}/opt"
[plugins."io.containerd.grpc.v1.cri"]
disable_tcp_service = true
stream_server_address = "127.0.0.1"
sandbox_image = "{pause}"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{folder}/cni/net.d"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
BinaryName = "{runc}"
"#,
            root = disk.node(&self.name).display(),
            folder = folder.display(),
            pause = images::PAUSE,
            plugins = self.layout.cni().display(),
            runc = self.layout.tool("runc").display(),
        )
    }

    fn kubelet_config(&self, version: Version) -> serde_json::Value {
        let pki = |name: String| self.layout.path("pki").join(name);
        let mut config = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": layout::node_address(self.number).to_string(),
            "healthzPort": 10310 + u16::from(self.number),
            "authentication": {
                "anonymous": {"enabled": false},
                "webhook": {"enabled": false},
                "x509": {"clientCAFile": pki("ca.crt".to_owned())},
            },
            "authorization": {"mode": "AlwaysAllow"},
            "tlsCertFile": pki(format!("{}.crt", self.name)),
            "tlsPrivateKeyFile": pki(format!("{}.key", self.name)),
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": format!("/{}/{}", layout::group(), self.name),
            "enforceNodeAllocatable": [],
            "failSwapOn": false,
            "clusterDomain": DOMAIN,
            "clusterDNS": [HOST.to_string()],
            "resolvConf": self.folder().join("resolv.conf"),
            "maxPods": 100,
            "nodeStatusUpdateFrequency": "4s",
            "nodeLeaseDurationSeconds": 20,
            // Nobody could pull an image again, so none is ever removed to make room.
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {"memory.available": "100Mi"},
            "evictionPressureTransitionPeriod": "10s",
            "volumePluginDir": self.folder().join("volume-plugins"),
        });
        if version.can_leave_out_devices() {
            // The machine has no such devices.
            config["featureGates"] = json!({"DevicePlugins": false});
        }
        if version.asks_about_old_groups() {
            config["failCgroupV1"] = json!(false);
        }
        config
    }

    fn network_config(&self) -> serde_json::Value {
        json!({
            "cniVersion": "0.4.0",
            "name": "holdfast",
            "plugins": [{
                "type": "ptp",
                "ipMasq": false,
                "ipam": {
                    "type": "host-local",
                    "subnet": format!("10.244.{}.0/24", self.number),
                    "dataDir": self.folder().join("cni/state"),
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            }],
        })
    }
}
