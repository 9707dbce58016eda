//! The manager on real servers: what happens when PostgreSQL refuses a password, when a store hangs during a stop, when
//! sessions stay, and when the volume is full. The API server is a small one that only has Secrets.
#![expect(clippy::unwrap_used, reason = "a test that fails here has found what it looks for")]

use super::run::Memory;
use super::*;
use crate::identity::{Identity, Paths};
use crate::lease;
use crate::plan::{Observed, Server, Step, Volume};
use crate::postgres::{Postmaster, Sql, StopMode, read_facts};
use crate::space;
use crate::state::{StartedServer, State};
use crate::watchdog::Feed;
use holdfast_http::answer::text;
use holdfast_http::{accept_each, serve_connection};
use holdfast_kube_api::Cluster;
use holdfast_kube_api::status_port::{InstancePhase, Role};
use holdfast_testkit::disk::SmallDisk;
use holdfast_testkit::postgres::{Cluster as TestServer, Installation};
use holdfast_testkit::scratch::Scratch;
use hyper::StatusCode;
use kube::{Client, Config};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// An API server that answers every request with a Secret that has this password.
async fn secrets(password: &'static str) -> Client {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let serve = |socket| async move {
            serve_connection(socket, None, |_| async move {
                let secret = format!(
                    r#"{{"apiVersion":"v1","kind":"Secret","metadata":{{"name":"x","resourceVersion":"1"}},"data":{{"password":"{password}"}}}}"#
                );
                text(StatusCode::OK, "application/json", secret)
            })
            .await;
        };
        accept_each(&listener, "api", serve).await;
    });
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    Client::try_from(Config::new(format!("http://{address}").parse().unwrap())).unwrap()
}

fn identity() -> Identity {
    Identity {
        instance: "main-1".to_owned(),
        pod_uid: "uid".to_owned(),
        namespace: "db".to_owned(),
        cluster: "main".to_owned(),
    }
}

/// PostgreSQL's programs, run as the user of the test kit: as root they do not run.
fn programs_of(installation: &Installation, scratch: &Scratch) -> PathBuf {
    if !holdfast_testkit::user::is_root() {
        return installation.bin().to_owned();
    }
    let folder = scratch.folder("programs").unwrap();
    let script = format!(
        "#!/bin/sh\ncd /\nexec setpriv --reuid={user} --regid=\"$(id -g {user})\" --clear-groups {bin}/postgres \"$@\"\n",
        user = scratch.user().name(),
        bin = installation.bin().display()
    );
    executable(&folder.join("postgres"), &script);
    folder
}

fn executable(path: &Path, script: &str) {
    std::fs::write(path, script).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// A manager with these paths, that holds the Lease.
async fn manager(programs: &Path, paths: Paths, password: &'static str) -> Manager {
    let client = secrets(password).await;
    let programs = Programs::in_folder(programs).await.unwrap();
    let state = Arc::new(State::new(&identity(), programs.major()));
    state.set_holds_lease(true);
    let mut cluster = Cluster::new("main", holdfast_kube_api::ClusterSpec::default());
    cluster.metadata.generation = Some(1);
    let cluster = watch::channel(Some(Arc::new(cluster))).1;
    let peers = Arc::new(Peers::new(&identity(), &paths));
    let parts = lease::Parts {
        lease: ("db".to_owned(), "main-primary".to_owned()),
        me: "main-1".to_owned(),
        state: Arc::clone(&state),
        peers: Arc::<Peers>::clone(&peers),
        cluster: cluster.clone(),
        watchdog: Feed::default(),
    };
    let (_, lease) = lease::Keeper::new(client.clone(), parts);
    Manager {
        secrets: Secrets::new(&client, "db"),
        backup_api: Api::namespaced(client, "db"),
        operating_user: None,
        context: Arc::new(Context::new(identity(), paths, state, cluster, CancellationToken::new())),
        programs,
        lease,
        peers,
    }
}

fn observed() -> Observed {
    Observed {
        me: "main-1".to_owned(),
        cluster: None,
        volume: Volume::Empty,
        server: Server::Running(Role::Primary),
        holds_lease: true,
        wants_lease: true,
        paused: false,
        primary: None,
        rewind_failed: false,
    }
}

/// A manager of a running primary that has the application's role. What it writes goes aside.
async fn keeps(server: &TestServer, password: &'static str) -> (Manager, Scratch) {
    let scratch = Scratch::new().unwrap();
    let mut paths = Paths::below(scratch.path(), Path::new("/holdfast"), server.port());
    paths.sockets = server.socket_folder();
    let folders = [&paths.server_certificates, &paths.replication_certificates, &paths.ca_certificates, &paths.pgdata];
    for folder in folders {
        std::fs::create_dir_all(folder).unwrap();
        for file in ["tls.crt", "tls.key", "ca.crt"] {
            std::fs::write(folder.join(file), "x").unwrap();
        }
    }
    server.sql("CREATE ROLE app LOGIN PASSWORD 'as it was before'").await.unwrap();
    // A password for replication is not what these tests are about.
    server.sql("CREATE ROLE streaming_replica LOGIN REPLICATION").await.unwrap();
    let manager = manager(server.installation().bin(), paths, password).await;
    manager.context.state.set_facts(Some(read_facts(&manager.context.sql).await.unwrap()));
    (manager, scratch)
}

const PASSWORD: &str = "SELECT rolpassword FROM pg_authid WHERE rolname = 'app'";

#[tokio::test]
async fn a_password_that_is_refused_is_no_failure_of_the_server() {
    for installation in Installation::all() {
        let server = TestServer::builder(&installation).setting("shared_preload_libraries", "passwordcheck").start();
        let server = server.await.unwrap();
        // "short", which the library refuses.
        let (manager, _scratch) = keeps(&server, "c2hvcnQ=").await;
        let before = server.value(PASSWORD).await.unwrap();
        let mut memory = Memory::default();
        manager.execute(Step::Keep, &observed(), &mut memory).await.unwrap();
        let status = manager.context.state.status();
        assert_eq!((status.phase, status.error), (InstancePhase::Running, None));
        let said = status.housekeeping.unwrap();
        assert!(said.starts_with("error: PostgreSQL: password is too short"), "{said}");
        assert!(said.contains("while: setting the password of role app\n"), "{said}");
        assert!(said.contains("Secret main-app"), "{said}");
        assert_eq!(server.value(PASSWORD).await.unwrap(), before);
        // The next round says it in the message, which the Cluster shows.
        manager.context.state.set_facts(Some(read_facts(&manager.context.sql).await.unwrap()));
        manager.execute(Step::Keep, &observed(), &mut memory).await.unwrap();
        let message = manager.context.state.status().message;
        assert!(message.starts_with("taking writes; setting the password of role app failed: "), "{message}");
    }
}

#[tokio::test]
async fn a_server_that_is_read_only_by_default_gets_its_passwords() {
    for installation in Installation::all() {
        let server = TestServer::builder(&installation).start().await.unwrap();
        // "a long password"
        let (manager, _scratch) = keeps(&server, "YSBsb25nIHBhc3N3b3Jk").await;
        let before = server.value(PASSWORD).await.unwrap();
        server.set("default_transaction_read_only", "on").unwrap();
        server.reload().await.unwrap();
        server
            .wait_for("SELECT current_setting('default_transaction_read_only') = 'on'", Duration::from_secs(10))
            .await
            .unwrap();
        manager.execute(Step::Keep, &observed(), &mut Memory::default()).await.unwrap();
        // The disk of the machine may be nearly full.
        let said = manager.context.state.status().housekeeping;
        assert!(said.as_ref().is_none_or(|said| !said.contains("password")), "{said:?}");
        assert_ne!(server.value(PASSWORD).await.unwrap(), before);
    }
}

/// The program of the archive is a script here. It hangs like a push into a store that does not answer, and gives up as
/// `holdfast instance archive` does.
const STORE_THAT_HANGS: &str = r#"#!/bin/sh
if [ -e "$(dirname "$0")/controller/archive-gives-up" ]; then kill -KILL $$; fi
trap 'kill $!' TERM
sleep 600 &
wait
exit 143
"#;

/// A primary that is a child of the manager; `archives` into a store that hangs.
async fn own_primary(installation: &Installation, archives: bool) -> (Manager, StartedServer, TestServer) {
    let server = TestServer::builder(installation).create().await.unwrap();
    let mut paths = Paths::below(server.scratch().path(), &server.scratch().path().join("holdfast"), server.port());
    paths.sockets = server.socket_folder();
    paths.pgdata = server.data().to_owned();
    std::fs::create_dir_all(&paths.controller).unwrap();
    let programs = programs_of(installation, server.scratch());
    let manager = manager(&programs, paths.clone(), "eA==").await;
    let mut all = vec![
        ("port", server.port().to_string()),
        ("unix_socket_directories", server.socket_folder().display().to_string()),
        ("listen_addresses", String::new()),
    ];
    if archives {
        executable(&paths.program, STORE_THAT_HANGS);
        let push = format!("{} --config {} wal push %p", paths.program.display(), paths.archive_config().display());
        all.extend([("archive_mode", "always".to_owned()), ("archive_command", push)]);
    }
    let (postmaster, stderr) = Postmaster::start(&manager.programs, &paths, &all).unwrap();
    let child = StartedServer {
        postmaster,
        started_as: Role::Primary,
        isolated: false,
        last_fatal: Arc::new(parking_lot::Mutex::new(None)),
    };
    tokio::spawn(crate::logs::follow(stderr, manager.context.state.errors.clone(), Arc::clone(&child.last_fatal)));
    manager.context.state.set_server(Some(child.clone()));
    let since = Instant::now();
    while Sql::connect(&paths, "postgres").await.is_err() {
        assert!(since.elapsed() < Duration::from_secs(30), "it does not start: {:?}", child.last_fatal.lock());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    manager.context.state.set_facts(Some(read_facts(&manager.context.sql).await.unwrap()));
    (manager, child, server)
}

#[tokio::test]
async fn a_stop_waits_for_sessions_and_no_longer() {
    let installation = Installation::or_skip(15);
    let Some(installation) = installation else { return };
    // A session that ends by itself.
    let (manager, child, _server) = own_primary(&installation, false).await;
    let client = Sql::connect(&manager.context.paths, "postgres").await.unwrap();
    let since = Instant::now();
    let stopping = manager.stop_primary(Duration::from_secs(30), Duration::from_mins(1));
    let working = async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        client.batch_execute("CREATE TABLE public.worked ()").await.unwrap();
        drop(client);
    };
    tokio::join!(stopping, working);
    assert!(child.postmaster.exited().is_some_and(|exit| exit.0.success()));
    assert!(since.elapsed() > Duration::from_secs(1) && since.elapsed() < Duration::from_secs(20));
    // One that stays.
    let (manager, child, _server) = own_primary(&installation, false).await;
    let client = Sql::connect(&manager.context.paths, "postgres").await.unwrap();
    let since = Instant::now();
    manager.stop_primary(Duration::from_secs(2), Duration::from_mins(1)).await;
    assert!(client.batch_execute("SELECT 1").await.is_err());
    assert!(child.postmaster.exited().is_some_and(|exit| exit.0.success()), "it was stopped in order");
    assert!(since.elapsed() >= Duration::from_secs(2) && since.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_store_that_hangs() {
    for installation in Installation::all() {
        for without_archive in [true, false] {
            let (manager, child, server) = own_primary(&installation, true).await;
            let pg_wal = server.data().join("pg_wal");
            let client = Sql::connect(&manager.context.paths, "postgres").await.unwrap();
            client.batch_execute("CREATE TABLE public.one ()").await.unwrap();
            client.batch_execute("SELECT pg_switch_wal()").await.unwrap();
            let since = Instant::now();
            while crate::archive::Waiting::read(&pg_wal).first.is_none() {
                assert!(since.elapsed() < Duration::from_secs(20), "nothing waits for the archiver");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let limit = Duration::from_secs(if without_archive { 60 } else { 6 });
            let since = Instant::now();
            manager.stop_fast(&child.postmaster, without_archive, limit).await;
            let took = since.elapsed();
            let major = installation.major();
            let in_order = child.postmaster.exited().is_some_and(|exit| exit.0.success());
            if without_archive {
                assert!(in_order && took < Duration::from_secs(5), "{major}: {took:?}");
            } else {
                assert!(took >= limit, "{major}: the store hangs, and the stop waits for it: {took:?}");
            }
            assert!(crate::archive::Waiting::read(&pg_wal).first.is_some(), "{major}: it still waits to be archived");
            assert!(!manager.context.paths.archive_gives_up().exists());
            crate::archive::pushes::end(&manager.context.paths);
        }
    }
}

#[tokio::test]
async fn a_server_on_a_full_volume_starts_with_the_reserve() {
    let Some(installation) = Installation::or_skip(15) else { return };
    let Some(disk) = SmallDisk::or_skip(160 << 20) else { return };
    let scratch = Scratch::new().unwrap();
    let port = TestServer::builder(&installation).create().await.unwrap().port();
    let mut paths = Paths::below(scratch.path(), Path::new("/holdfast"), port);
    paths.sockets = scratch.folder("socket").unwrap();
    (paths.data_mount, paths.pgdata) = (disk.path().to_owned(), disk.path().join("pgdata"));
    let mut initdb = installation.command("initdb");
    initdb.args(["--username=postgres", "--auth=trust", "--wal-segsize=1", "--no-sync", "-D"]).arg(&paths.pgdata);
    assert!(scratch.user().drop_to(&mut initdb).output().unwrap().status.success());
    space::hold_back(&paths).unwrap();
    let held = space::measure(&paths).first().unwrap().reserve_bytes;
    assert_eq!(held, (160 << 20) / 32);
    std::fs::write(disk.path().join("other"), vec![0; usize::try_from(disk.free_bytes().unwrap()).unwrap()]).unwrap();
    assert_eq!(disk.free_bytes().unwrap(), 0);
    assert!(space::judge(&space::measure(&paths)).is_err());

    let programs = Programs::in_folder(&programs_of(&installation, &scratch)).await.unwrap();
    let settings = [
        ("port", port.to_string()),
        ("unix_socket_directories", paths.sockets.display().to_string()),
        ("listen_addresses", String::new()),
        ("shared_memory_type", "mmap".to_owned()),
    ];
    for starts in [false, true] {
        let (postmaster, stderr) = Postmaster::start(&programs, &paths, &settings).unwrap();
        let fatal = Arc::new(parking_lot::Mutex::new(None));
        tokio::spawn(crate::logs::follow(stderr, crate::logs::Errors::default(), Arc::clone(&fatal)));
        let since = Instant::now();
        let mut accepts = false;
        while !accepts && postmaster.exited().is_none() && since.elapsed() < Duration::from_secs(30) {
            accepts = Sql::connect(&paths, "postgres").await.is_ok();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        postmaster.stop(StopMode::Fast);
        postmaster.ended().await;
        assert_eq!(accepts, starts, "{:?}", fatal.lock());
        space::release(&paths);
        assert_eq!(space::measure(&paths).first().unwrap().reserve_bytes, 0);
    }
}
