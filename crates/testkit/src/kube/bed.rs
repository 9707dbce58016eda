//! The test bed, a Kubernetes cluster for tests and people: start it, stop it, and everything a test may ask of a
//! cluster.
//!
//! [`Bed::up`] makes a fresh cluster, [`Bed::shared`] takes a running one, or the one that `KUBECONFIG` names. Dropping
//! the value does not stop a bed: several test programs use the machine's bed one after the other, and [`Bed::down`]
//! (`make kube-down`) ends it. A start that fails removes everything again. A start that was killed is cleared by the
//! next start or by [`Bed::down`], which need no record of what was done (see `unit.rs` and `host.rs`).
//!
//! All functions block, and use `kubectl`, so that any test can call them. [`Bed::client`] is for tests that want a
//! client of their own.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use super::control_plane::{self, DAEMONS};
use super::disk::{self, Disk};
use super::layout::{self, HOST, KUBERNETES_SERVICE, Layout, NODES, S3_PORT};
use super::lock::Lock;
use super::namespace::Namespace;
use super::node::Machine;
use super::resident::Resident;
use super::tools::{run, run_with_input};
use super::unit::{Unit, tail, wait_until};
use super::{certificates, client, host, images, manifests};
use crate::error::{KitError, Result};
use crate::s3::Credentials;
use crate::{scratch, settings, user};

/// This file exists once a start is complete.
const COMPLETE: &str = "complete";

/// A running cluster.
#[derive(Clone, Debug)]
pub struct Bed {
    kubeconfig: PathBuf,
    kubectl: PathBuf,
    own: Option<Layout>,
}

/// Where the bed's object store is, for pods and for the host alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectStore {
    /// The URL of the store; buckets are addressed by path.
    pub endpoint: String,
    /// The bucket that exists from the start.
    pub bucket: String,
    /// The region for which clients sign requests.
    pub region: String,
    /// The key and its secret.
    pub credentials: Credentials,
}

impl Bed {
    /// Starts the bed of this machine, or finds it running.
    ///
    /// # Errors
    /// [`KitError::Missing`] without `scripts/provision --kube`, [`KitError::Unsupported`] without root, and any reason
    /// why a daemon does not start, with the end of its log.
    pub fn up() -> Result<Self> {
        if !user::is_root() {
            return Err(KitError::Unsupported(
                "the Kubernetes of the tests needs root; set KUBECONFIG to use a cluster of yours".to_owned(),
            ));
        }
        let layout = Layout::find()?;
        let _lock = Lock::take(layout.root())?;
        let bed = Self::own(layout);
        if bed.is_complete() {
            // Others may be using it. If it is slow or does not answer for a while, wait for it, and never start a new
            // one.
            control_plane::wait_for_api(bed.layout()?)?;
            return Ok(bed);
        }
        clear(&Layout::state_folder())?;
        match bed.start() {
            Ok(()) => {
                let mark = bed.layout()?.path(COMPLETE);
                fs::write(&mark, "").map_err(KitError::io(format!("write {}", mark.display())))?;
                Ok(bed)
            }
            Err(error) => {
                clear(&Layout::state_folder())?;
                Err(error)
            }
        }
    }

    /// Ends everything that a bed of this machine started, also after a start that failed or was killed.
    ///
    /// Images stay in the state folder for the next start, and so do the logs.
    pub fn down() -> Result<()> {
        let state = Layout::state_folder();
        if !state.exists() {
            return Ok(());
        }
        let _lock = Lock::take(&state)?;
        clear(&state)
    }

    /// The bed for tests: the cluster that `KUBECONFIG` names, or else the machine's own bed, which is started if
    /// necessary.
    pub fn shared() -> Result<Self> {
        match std::env::var_os("KUBECONFIG").filter(|path| !path.is_empty()) {
            // The bed's own kubeconfig, which people export, does not name a foreign cluster.
            Some(path) if Path::new(&path) != Layout::state_folder().join("kubeconfig") => {
                let kubectl = settings::get("HOLDFAST_KUBE_BIN").map(|folder| PathBuf::from(folder).join("kubectl"));
                let kubectl = kubectl.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from("kubectl"));
                Ok(Self { kubeconfig: path.into(), kubectl, own: None })
            }
            _ => Self::up(),
        }
    }

    /// The shared bed. If it is missing, it prints why and returns nothing: a visible skip.
    ///
    /// # Panics
    /// In CI, where a missing cluster is a failure.
    pub fn or_skip() -> Option<Self> {
        Self::shared().map_err(|error| settings::skip(&error.to_string())).ok()
    }

    /// The machine's own bed if it runs, even if it does not answer.
    pub fn running() -> Option<Self> {
        let bed = Self::own(Layout::find().ok()?);
        bed.is_complete().then_some(bed)
    }

    fn own(layout: Layout) -> Self {
        Self { kubeconfig: layout.kubeconfig("admin"), kubectl: layout.kube("kubectl"), own: Some(layout) }
    }

    /// Whether this is the machine's own bed, whose nodes and daemons can be stopped.
    pub fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// The program `kubectl`.
    pub fn kubectl_path(&self) -> &Path {
        &self.kubectl
    }

    /// The kubeconfig of the cluster's administrator.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A `kubectl` for this cluster, to add arguments to.
    pub fn kubectl_command(&self) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        command
    }

    /// Runs `kubectl` with these arguments and returns what it printed.
    ///
    /// # Errors
    /// [`KitError::Command`] with both outputs if its exit status is not zero.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        run(self.kubectl_command().args(arguments))
    }

    /// Applies objects as YAML or JSON.
    pub fn apply(&self, objects: &str) -> Result<String> {
        run_with_input(self.kubectl_command().args(["apply", "-f", "-"]), Some(objects))
    }

    /// Waits until `kubectl get <what> -o jsonpath=<path>` gives the wanted answer, and returns the answer.
    ///
    /// # Errors
    /// [`KitError::Timeout`] with the last answer.
    pub fn wait_for(
        &self,
        what: &[&str],
        jsonpath: &str,
        limit: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<String> {
        let path = format!("jsonpath={jsonpath}");
        let mut last = String::new();
        let done = wait_until(limit, || {
            let mut command = self.kubectl_command();
            command.arg("get").args(what).args(["-o", &path]);
            match run(&mut command) {
                Ok(answer) => {
                    last = answer;
                    wanted(&last)
                }
                Err(error) => {
                    last = error.to_string();
                    false
                }
            }
        });
        if done {
            return Ok(last);
        }
        Err(KitError::Timeout { what: format!("the wanted {jsonpath} of {}", what.join(" ")), limit, log: last })
    }

    /// A client of the `kube` crate for this cluster, with the administrator's permissions.
    pub async fn client(&self) -> Result<kube::Client> {
        client::of_kubeconfig(&self.kubeconfig).await
    }

    /// Makes a namespace whose name is this prefix and a unique number; it is deleted on drop.
    pub fn namespace(&self, prefix: &str) -> Result<Namespace> {
        Namespace::create(self, prefix)
    }

    /// A node of the bed, counted from one.
    ///
    /// # Errors
    /// [`KitError::Unsupported`] if the cluster is not the machine's own bed.
    pub fn node(&self, number: u8) -> Result<Node> {
        if !(1..=NODES).contains(&number) {
            return Err(KitError::Unsupported(format!("the bed has {NODES} nodes, there is no node {number}")));
        }
        Ok(Node { bed: self.clone(), machine: Machine::new(self.layout()?, number) })
    }

    /// How to reach the object store.
    ///
    /// # Errors
    /// [`KitError::Unsupported`] if the cluster is not the machine's own bed.
    pub fn s3(&self) -> Result<ObjectStore> {
        self.layout()?;
        Ok(ObjectStore {
            endpoint: format!("http://{HOST}:{S3_PORT}"),
            bucket: "holdfast".to_owned(),
            region: "us-east-1".to_owned(),
            credentials: Credentials::default(),
        })
    }

    /// The folder with the store's objects, which contains one folder for each bucket.
    pub fn s3_root(&self) -> Result<PathBuf> {
        Ok(self.layout()?.path("s3"))
    }

    /// The folder with the files of a PersistentVolume.
    pub fn volume_folder(&self, volume: &str) -> Result<PathBuf> {
        Ok(Disk::at(self.layout()?.disk()).volume(volume))
    }

    /// Stops a part of the bed until [`Bed::start_resident`]: the object store refuses connections, the storage vendor
    /// does nothing, or names are not found. Objects and volumes stay.
    pub fn stop_resident(&self, resident: Resident) -> Result<()> {
        self.layout()?;
        Unit::new(resident.name()).kill()
    }

    /// Starts a part of the bed again; it does nothing if the part runs.
    pub fn start_resident(&self, resident: Resident) -> Result<()> {
        let layout = self.layout()?;
        let unit = Unit::new(resident.name());
        if unit.is_running() {
            return Ok(());
        }
        start_resident(layout, resident)?;
        let port = match resident {
            Resident::Names => 53,
            Resident::S3 => S3_PORT,
            Resident::Storage => return Ok(()),
        };
        let limit = Duration::from_mins(1);
        if wait_until(limit, || std::net::TcpStream::connect((HOST, port)).is_ok()) {
            return Ok(());
        }
        let log = tail(&control_plane::log(layout, resident.name()));
        Err(KitError::Timeout { what: format!("the start of {}", resident.name()), limit, log })
    }

    /// Ends the API server at once and starts it again; clients see broken and refused connections for some seconds.
    pub fn restart_apiserver(&self) -> Result<()> {
        let layout = self.layout()?;
        // The lock keeps other programs from starting the bed meanwhile.
        let _lock = Lock::take(layout.root())?;
        Unit::new("apiserver").kill()?;
        control_plane::start(layout, "apiserver")?;
        control_plane::wait_for_api(layout)
    }

    /// Kills the API server; it stays down until [`Bed::bring_apiserver`].
    pub fn kill_apiserver(&self) -> Result<()> {
        let _lock = Lock::take(self.layout()?.root())?;
        Unit::new("apiserver").kill()
    }

    /// Brings the API server back: resumes a paused one, starts a killed one.
    pub fn bring_apiserver(&self) -> Result<()> {
        let layout = self.layout()?;
        let _lock = Lock::take(layout.root())?;
        let unit = Unit::new("apiserver");
        if unit.is_running() {
            unit.signal(Signal::CONT);
        } else {
            control_plane::start(layout, "apiserver")?;
        }
        control_plane::wait_for_api(layout)
    }

    /// Pauses the API server: it keeps its connections and answers nothing until [`Bed::resume_apiserver`].
    pub fn pause_apiserver(&self) -> Result<()> {
        self.layout()?;
        Unit::new("apiserver").signal(Signal::STOP);
        Ok(())
    }

    /// Resumes the API server.
    pub fn resume_apiserver(&self) -> Result<()> {
        Unit::new("apiserver").signal(Signal::CONT);
        control_plane::wait_for_api(self.layout()?)
    }

    /// Loads an archive of images, as `docker save` writes them, into every node.
    ///
    /// # Errors
    /// [`KitError::Unsupported`] if a node is stopped: it would return with the images that it had.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        let layout = self.layout()?;
        let machines: Vec<Machine> = (1..=NODES).map(|number| Machine::new(layout, number)).collect();
        if let Some(stopped) = machines.iter().find(|machine| !machine.is_running()) {
            let name = layout::node_name(stopped.number());
            return Err(KitError::Unsupported(format!("{name} is stopped, so no image can be loaded into it")));
        }
        machines.iter().try_for_each(|machine| machine.import(archive))
    }

    /// Gives an image on all nodes another name, such as the name that a public manifest uses.
    pub fn tag_image(&self, image: &str, name: &str) -> Result<()> {
        let layout = self.layout()?;
        (1..=NODES).try_for_each(|number| Machine::new(layout, number).tag(image, name))
    }

    /// Makes the image [`images::HOLDFAST`] from this program and loads it; it does nothing if the image exists.
    pub fn load_holdfast(&self, program: &Path) -> Result<()> {
        let layout = self.layout()?;
        // Two tests that start together would write the same files.
        let _lock = Lock::take(layout.root())?;
        let folder = layout.path("images");
        fs::create_dir_all(&folder).map_err(KitError::io(format!("make {}", folder.display())))?;
        let failed = || KitError::io(format!("look at {}", program.display()));
        let found = fs::metadata(program).map_err(failed())?;
        let build = format!("{} {} {:?}", program.display(), found.len(), found.modified().map_err(failed())?);
        let mark = folder.join("holdfast.loaded");
        if fs::read_to_string(&mark).is_ok_and(|loaded| loaded == build) {
            return Ok(());
        }
        let layer = folder.join("holdfast-layer.tar");
        let archive = folder.join("holdfast.tar");
        images::program_layer(program, "holdfast", &layer)?;
        images::write_archive(&[images::holdfast(layout, layer)], &archive)?;
        self.load_image(&archive)?;
        fs::write(&mark, build).map_err(KitError::io(format!("write {}", mark.display())))
    }

    /// Which parts of the bed run, and where its files are; for people.
    pub fn status(&self) -> Result<String> {
        let layout = self.layout()?;
        let mut names: Vec<String> = DAEMONS.iter().map(|name| (*name).to_owned()).collect();
        names.extend(Resident::ALL.map(|resident| resident.name().to_owned()));
        for number in 1..=NODES {
            let node = layout::node_name(number);
            names.extend([format!("containerd-{node}"), format!("kubelet-{node}"), node]);
        }
        let mut text = String::new();
        for name in names {
            let processes = Unit::new(name.clone()).processes().len();
            let state = if processes == 0 { "stopped".to_owned() } else { format!("{processes} processes") };
            let _ = writeln!(text, "{name:<20} {state}");
        }
        let _ = writeln!(text, "\nkubeconfig           {}", layout.kubeconfig("admin").display());
        let _ = writeln!(text, "logs                 {}", layout.path("log").display());
        Ok(text)
    }

    pub(crate) fn layout(&self) -> Result<&Layout> {
        self.own.as_ref().ok_or_else(|| {
            KitError::Unsupported("this can be asked of the bed of this machine only, not of KUBECONFIG".to_owned())
        })
    }

    /// Whether a start is complete and the API server has not ended since.
    fn is_complete(&self) -> bool {
        self.own.as_ref().is_some_and(|layout| layout.path(COMPLETE).exists()) && Unit::new("apiserver").is_running()
    }

    /// Starts everything, on a machine where nothing of an earlier bed is left.
    fn start(&self) -> Result<()> {
        let layout = self.layout()?;
        prepare_folders(layout)?;
        certificates::write(layout)?;
        host::connect(layout.root())?;
        let disk = Disk::mount(layout.disk())?;

        control_plane::start(layout, "etcd")?;
        control_plane::wait_for_etcd(layout)?;
        control_plane::start(layout, "apiserver")?;
        let machines = start_containers(layout, &disk)?;
        control_plane::wait_for_api(layout)?;
        for daemon in ["controller-manager", "scheduler", "proxy"] {
            control_plane::start(layout, daemon)?;
        }
        for machine in &machines {
            machine.start_kubelet()?;
        }
        self.apply(&manifests::base())?;
        let limit = Duration::from_mins(1);
        let class = manifests::snapshot_class().to_string();
        if !wait_until(limit, || self.apply(&class).is_ok()) {
            let what = "the API server to know volume snapshots".to_owned();
            return Err(KitError::Timeout { what, limit, log: String::new() });
        }
        for resident in Resident::ALL {
            self.start_resident(resident)?;
        }

        for number in 1..=NODES {
            self.wait_for_node(number, true)?;
        }
        // Without it the first pod would be refused.
        self.wait_for(&["serviceaccount", "default"], "{.metadata.name}", limit, |name| name == "default")?;
        self.wait_for(&["endpoints", "kubernetes"], "{.subsets[0].addresses[0].ip}", limit, |ip| !ip.is_empty())?;
        if !wait_until(limit, || std::net::TcpStream::connect((KUBERNETES_SERVICE, 443)).is_ok()) {
            let log = tail(&control_plane::log(layout, "proxy"));
            return Err(KitError::Timeout { what: format!("an answer of {KUBERNETES_SERVICE}"), limit, log });
        }
        Ok(())
    }

    fn wait_for_node(&self, number: u8, ready: bool) -> Result<()> {
        let path = r#"{.status.conditions[?(@.type=="Ready")].status}"#;
        let name = layout::node_name(number);
        self.wait_for(&["node", &name], path, Duration::from_mins(4), |status| (status == "True") == ready).map(drop)
    }
}

/// A node of the machine's own bed.
#[derive(Clone, Debug)]
pub struct Node {
    bed: Bed,
    machine: Machine,
}

impl Node {
    /// Whether its daemons run.
    pub fn is_running(&self) -> bool {
        self.machine.is_running()
    }

    /// Kills the kubelet and all containers at once, as a loss of power does; returns before Kubernetes has noticed.
    pub fn stop(&self) -> Result<()> {
        self.machine.kill()
    }

    /// Starts the node again and waits until it is ready.
    pub fn start(&self) -> Result<()> {
        if !self.machine.is_running() {
            self.machine.kill()?;
            self.machine.start_containerd()?;
            self.machine.start_kubelet()?;
        }
        self.wait_ready(true)
    }

    /// Waits until Kubernetes considers the node ready, or lost.
    pub fn wait_ready(&self, ready: bool) -> Result<()> {
        self.bed.wait_for_node(self.machine.number(), ready)
    }
}

/// Starts containerd on both nodes with all images. Images are imported once, and copied on later starts.
fn start_containers(layout: &Layout, disk: &Disk) -> Result<Vec<Machine>> {
    let images = images::standard(layout);
    let key = images::key(&images)?;
    let store = disk.images(&key);
    let machines: Vec<Machine> = (1..=NODES).map(|number| Machine::new(layout, number)).collect();
    for machine in &machines {
        machine.configure(disk)?;
    }
    if !store.exists() {
        disk.remove_other_images(&key)?;
        let first = &machines[0];
        let root = disk.node(&layout::node_name(1));
        Disk::create(&root)?;
        first.start_containerd()?;
        let archive = layout.path("images").join("standard.tar");
        images::write_archive(&images, &archive)?;
        first.import(&archive)?;
        let _ = fs::remove_file(&archive);
        first.kill()?;
        Disk::copy(&root, &store)?;
        Disk::remove(&root)?;
    }
    for (number, machine) in (1..).zip(&machines) {
        Disk::copy(&store, &disk.node(&layout::node_name(number)))?;
        machine.start_containerd()?;
    }
    Ok(machines)
}

/// Starts one of the processes of the program `holdfast-kube`.
fn start_resident(layout: &Layout, resident: Resident) -> Result<()> {
    let name = resident.name();
    let program = match std::env::current_exe() {
        Ok(own) if own.file_name().is_some_and(|name| name == "holdfast-kube") => own,
        _ => scratch::built_program("holdfast-kube")?,
    };
    // A copy, because the next build replaces the original.
    let copy = layout.path(&format!("holdfast-kube-{name}"));
    let _ = fs::remove_file(&copy);
    fs::copy(&program, &copy).map_err(KitError::io(format!("copy {}", program.display())))?;
    let mut command = Command::new(copy);
    command.args(["serve", name]).env("HOLDFAST_KUBE_DIR", layout.root()).env("HOLDFAST_CACHE", settings::cache());
    Unit::new(name).start(&command, &control_plane::log(layout, name))
}

fn prepare_folders(layout: &Layout) -> Result<()> {
    let root = layout.root();
    for name in ["pki", "etcd", "log", "s3"] {
        let path = root.join(name);
        if path.exists() {
            fs::remove_dir_all(&path).map_err(KitError::io(format!("remove {}", path.display())))?;
        }
        fs::create_dir_all(&path).map_err(KitError::io(format!("make {}", path.display())))?;
    }
    for number in 1..=NODES {
        let path = root.join(layout::node_name(number));
        if path.exists() {
            fs::remove_dir_all(&path).map_err(KitError::io(format!("remove {}", path.display())))?;
        }
    }
    let images = root.join("images");
    fs::create_dir_all(&images).map_err(KitError::io(format!("make {}", images.display())))?;
    let _ = fs::remove_file(images.join("holdfast.loaded"));
    let bucket = root.join("s3/holdfast");
    fs::create_dir_all(&bucket).map_err(KitError::io(format!("make {}", bucket.display())))
}

/// Ends all processes, mounts, links, chains and groups of a bed, as far as they exist.
fn clear(state: &Path) -> Result<()> {
    let _ = fs::remove_file(state.join(COMPLETE));
    // First the agents that would start something again, then all the rest at once.
    for number in 1..=NODES {
        Unit::new(format!("kubelet-{}", layout::node_name(number))).kill()?;
    }
    // etcd and our own daemons get a request to end, so that they close their files; nothing else needs that.
    Unit::new("etcd").stop(Duration::from_secs(3))?;
    Unit::all().kill()?;
    disk::unmount_all(state);
    host::disconnect(state);
    Unit::all().remove_groups();
    let _ = fs::remove_file(state.join("kubeconfig"));
    Ok(())
}
