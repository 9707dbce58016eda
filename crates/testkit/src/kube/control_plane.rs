//! etcd, the API server, the controllers, the scheduler and `kube-proxy`: their arguments, and when they are ready.
//!
//! Times that decide how soon a lost node is noticed are shorter than elsewhere ([`NODE_GRACE_SECONDS`],
//! [`EVICTION_SECONDS`]): a test should not wait five minutes. Everything else has the programs' defaults, or smaller
//! values where the default costs an idle machine something.

use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use super::layout::{DOMAIN, HOST, Layout, PODS, SERVICES};
use super::tools::run;
use super::unit::{Unit, tail, wait_until};
use super::version::Version;
use crate::error::{KitError, Result};

/// A node that has sent nothing for this many seconds is `NotReady`; the default elsewhere is 40.
const NODE_GRACE_SECONDS: u32 = 16;
/// Pods of such a node are deleted after this many seconds; the default elsewhere is 300.
const EVICTION_SECONDS: u32 = 30;
/// Where etcd listens, for the API server alone.
const ETCD: &str = "127.0.0.1:23790";

/// The daemons in the order of their start.
pub(crate) const DAEMONS: [&str; 5] = ["etcd", "apiserver", "controller-manager", "scheduler", "proxy"];

/// Starts one of [`DAEMONS`].
pub(crate) fn start(layout: &Layout, daemon: &str) -> Result<()> {
    let (program, arguments) = match daemon {
        "etcd" => (layout.tool("etcd"), etcd(layout)),
        "apiserver" => (layout.kube("kube-apiserver"), api_server(layout)),
        "controller-manager" => {
            let program = layout.kube("kube-controller-manager");
            let version = Version::of(&program)?;
            (program, controller_manager(layout, version))
        }
        "scheduler" => {
            let program = layout.kube("kube-scheduler");
            let version = Version::of(&program)?;
            (program, scheduler(layout, version))
        }
        _ => (layout.kube("kube-proxy"), proxy(layout)),
    };
    let mut command = Command::new(program);
    // By default three of the five use both processors for garbage collection all the time.
    command.args(arguments).env("GOGC", "200");
    Unit::new(daemon).start(&command, &log(layout, daemon))
}

/// The log of a daemon.
pub(crate) fn log(layout: &Layout, daemon: &str) -> std::path::PathBuf {
    layout.path("log").join(format!("{daemon}.log"))
}

/// Waits until etcd takes connections: the API server gives up if etcd is not there.
pub(crate) fn wait_for_etcd(layout: &Layout) -> Result<()> {
    let limit = Duration::from_mins(2);
    if wait_until(limit, || TcpStream::connect(ETCD).is_ok()) {
        return Ok(());
    }
    Err(KitError::Timeout { what: "the start of etcd".to_owned(), limit, log: tail(&log(layout, "etcd")) })
}

/// Waits until the API server reports that it is ready and its first objects exist.
pub(crate) fn wait_for_api(layout: &Layout) -> Result<()> {
    let limit = Duration::from_mins(4);
    let kubectl = || {
        let mut command = Command::new(layout.kube("kubectl"));
        command.arg("--kubeconfig").arg(layout.kubeconfig("admin")).arg("--request-timeout=5s");
        command
    };
    if wait_until(limit, || run(kubectl().args(["get", "--raw", "/readyz"])).is_ok()) {
        return Ok(());
    }
    let what = "the start of the API server".to_owned();
    Err(KitError::Timeout { what, limit, log: tail(&log(layout, "apiserver")) })
}

fn etcd(layout: &Layout) -> Vec<String> {
    vec![
        format!("--data-dir={}", layout.path("etcd").display()),
        format!("--listen-client-urls=http://{ETCD}"),
        format!("--advertise-client-urls=http://{ETCD}"),
        "--listen-peer-urls=http://127.0.0.1:23791".to_owned(),
        "--initial-advertise-peer-urls=http://127.0.0.1:23791".to_owned(),
        "--initial-cluster=default=http://127.0.0.1:23791".to_owned(),
        "--log-level=warn".to_owned(),
        // Fewer snapshots of etcd's own: a test writes much, and the folder is removed with the bed.
        "--snapshot-count=50000".to_owned(),
    ]
}

fn api_server(layout: &Layout) -> Vec<String> {
    let pki = |name: &str| layout.path("pki").join(name).display().to_string();
    vec![
        format!("--etcd-servers=http://{ETCD}"),
        format!("--bind-address={HOST}"),
        format!("--advertise-address={HOST}"),
        format!("--service-cluster-ip-range={SERVICES}"),
        format!("--client-ca-file={}", pki("ca.crt")),
        format!("--tls-cert-file={}", pki("apiserver.crt")),
        format!("--tls-private-key-file={}", pki("apiserver.key")),
        format!("--kubelet-certificate-authority={}", pki("ca.crt")),
        format!("--kubelet-client-certificate={}", pki("kubelet-client.crt")),
        format!("--kubelet-client-key={}", pki("kubelet-client.key")),
        // No server resolves the names of the nodes, so `exec` and `logs` use their addresses.
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        format!("--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}"),
        format!("--service-account-key-file={}", pki("service-accounts.pub")),
        format!("--service-account-signing-key-file={}", pki("service-accounts.key")),
        format!("--requestheader-client-ca-file={}", pki("ca.crt")),
        "--requestheader-allowed-names=front-proxy-client".to_owned(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
        "--requestheader-group-headers=X-Remote-Group".to_owned(),
        "--requestheader-username-headers=X-Remote-User".to_owned(),
        format!("--proxy-client-cert-file={}", pki("front-proxy.crt")),
        format!("--proxy-client-key-file={}", pki("front-proxy.key")),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--allow-privileged=true".to_owned(),
        format!("--default-not-ready-toleration-seconds={EVICTION_SECONDS}"),
        format!("--default-unreachable-toleration-seconds={EVICTION_SECONDS}"),
        "--profiling=false".to_owned(),
    ]
}

fn controller_manager(layout: &Layout, version: Version) -> Vec<String> {
    let pki = |name: &str| layout.path("pki").join(name).display().to_string();
    let mut arguments = vec![
        format!("--kubeconfig={}", layout.kubeconfig("controller-manager").display()),
        format!("--root-ca-file={}", pki("ca.crt")),
        format!("--service-account-private-key-file={}", pki("service-accounts.key")),
        "--use-service-account-credentials=true".to_owned(),
        "--leader-elect=false".to_owned(),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--cert-dir={}", layout.path("pki").display()),
        // Pods get their addresses from the nodes' own configuration, and there is no cloud.
        "--controllers=*,-nodeipam,-route,-service,-cloud-node-lifecycle,-ttl".to_owned(),
        format!("--node-monitor-grace-period={NODE_GRACE_SECONDS}s"),
        "--node-monitor-period=2s".to_owned(),
        "--profiling=false".to_owned(),
    ];
    if version.has_insecure_port() {
        arguments.push("--port=0".to_owned());
    }
    if version.has_pod_eviction_timeout() {
        arguments.push(format!("--pod-eviction-timeout={EVICTION_SECONDS}s"));
    }
    arguments
}

fn scheduler(layout: &Layout, version: Version) -> Vec<String> {
    let mut arguments = vec![
        format!("--kubeconfig={}", layout.kubeconfig("scheduler").display()),
        "--leader-elect=false".to_owned(),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--cert-dir={}", layout.path("pki").display()),
        "--profiling=false".to_owned(),
    ];
    if version.has_insecure_port() {
        arguments.push("--port=0".to_owned());
    }
    arguments
}

fn proxy(layout: &Layout) -> Vec<String> {
    vec![
        format!("--kubeconfig={}", layout.kubeconfig("proxy").display()),
        "--proxy-mode=iptables".to_owned(),
        format!("--cluster-cidr={PODS}"),
        // The events and addresses of this name do not matter, but the name must exist.
        "--hostname-override=node-1".to_owned(),
        "--healthz-bind-address=127.0.0.1:10256".to_owned(),
        "--metrics-bind-address=127.0.0.1:10249".to_owned(),
        "--iptables-min-sync-period=500ms".to_owned(),
        // The machine's own limits of connection tracking stay as they are.
        "--conntrack-max-per-core=0".to_owned(),
        "--conntrack-tcp-timeout-established=0s".to_owned(),
        "--conntrack-tcp-timeout-close-wait=0s".to_owned(),
    ]
}
