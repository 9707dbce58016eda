//! Settings that must be at least as high on a standby as on its primary, on real servers: what waits for a restart,
//! and when.
#![expect(clippy::unwrap_used, reason = "a test that fails here has found what it looks for")]

use holdfast_instance::identity::Paths;
use holdfast_instance::postgres::{Sql, read_facts};
use holdfast_instance::settings::floor::{self, Needed};
use holdfast_instance::volume;
use holdfast_kube_api::cluster::ClusterSpec;
use holdfast_testkit::postgres::{Cluster, Installation};
use std::path::Path;
use std::time::{Duration, Instant};

fn spec(connections: u32) -> ClusterSpec {
    let mut spec = ClusterSpec::default();
    spec.postgresql.parameters.insert("max_connections".to_owned(), connections.to_string());
    spec
}

/// Whether an instance with this server would report that it waits for a restart.
async fn waits(server: &Cluster, spec: &ClusterSpec) -> bool {
    let mut paths = Paths::below(server.scratch().path(), Path::new("/holdfast"), server.port());
    paths.sockets = server.socket_folder();
    let facts = read_facts(&Sql::new(&paths)).await.unwrap();
    let needed = volume::control(server.data()).unwrap().as_ref().map(Needed::from);
    facts.pending_restart || floor::waits(facts.role, spec, needed, &facts.bounds)
}

async fn comes_to_wait(server: &Cluster, spec: &ClusterSpec) {
    let start = Instant::now();
    while !waits(server, spec).await {
        assert!(start.elapsed() < Duration::from_secs(30), "it does not report that it waits: {}", server.log_text());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// As the instance manager restarts a standby.
async fn restart_standby(standby: &mut Cluster, spec: &ClusterSpec) {
    let control = volume::control(standby.data()).unwrap().unwrap();
    // The test kit has its own settings on the command line. The last one counts, and none can be removed.
    for (name, value) in floor::settings(spec, &control) {
        standby.override_setting(name, &value);
    }
    standby.restart().await.unwrap();
}

async fn write(servers: [&Cluster; 2], connections: u32) {
    for server in servers {
        server.set("max_connections", &connections.to_string()).unwrap();
        server.reload().await.unwrap();
    }
}

const FOLLOWS: &str = "SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming'";
const LIMIT: Duration = Duration::from_secs(30);

async fn raised_before_and_lowered_after_its_primary(installation: &Installation) {
    // The other defaults of a Cluster, so that nothing else waits.
    let primary = Cluster::builder(installation)
        .setting("max_connections", "157")
        .setting("max_wal_senders", "32")
        .setting("max_worker_processes", "32")
        .start();
    let mut primary = primary.await.unwrap();
    let mut standby = Cluster::standby_of(&primary).await.unwrap();
    standby.start().await.unwrap();
    primary.wait_for(FOLLOWS, LIMIT).await.unwrap();
    assert!(!waits(&primary, &spec(157)).await && !waits(&standby, &spec(157)).await);

    // Lowered: the primary first.
    write([&primary, &standby], 120).await;
    comes_to_wait(&primary, &spec(120)).await;
    assert!(!waits(&standby, &spec(120)).await, "a restart would change nothing yet");
    primary.restart().await.unwrap();
    comes_to_wait(&standby, &spec(120)).await;
    restart_standby(&mut standby, &spec(120)).await;
    assert_eq!(standby.value("SHOW max_connections").await.unwrap(), "120");
    assert!(!waits(&standby, &spec(120)).await && !waits(&primary, &spec(120)).await);

    // Raised: the standby first, and the primary's raise does not stop it.
    write([&primary, &standby], 200).await;
    comes_to_wait(&standby, &spec(200)).await;
    comes_to_wait(&primary, &spec(200)).await;
    restart_standby(&mut standby, &spec(200)).await;
    primary.restart().await.unwrap();
    primary.wait_for(FOLLOWS, LIMIT).await.unwrap();
    primary.sql("CREATE TABLE raised ()").await.unwrap();
    standby.wait_for("SELECT to_regclass('raised') IS NOT NULL", LIMIT).await.unwrap();
    assert!(!waits(&standby, &spec(200)).await && !waits(&primary, &spec(200)).await);

    // Lowered, and the standby was restarted for another reason before the primary was. The value on its command line
    // hides the value in the file, and the standby detects the change nevertheless.
    write([&primary, &standby], 130).await;
    restart_standby(&mut standby, &spec(130)).await;
    assert_eq!(standby.value("SHOW max_connections").await.unwrap(), "200");
    assert!(!waits(&standby, &spec(130)).await);
    primary.wait_for(FOLLOWS, LIMIT).await.unwrap();
    primary.restart().await.unwrap();
    comes_to_wait(&standby, &spec(130)).await;
}

#[tokio::test]
async fn of_the_oldest_and_the_newest_major() {
    let all = Installation::all();
    let oldest = all.iter().min_by_key(|installation| installation.major());
    let newest = all.iter().max_by_key(|installation| installation.major());
    for installation in oldest.into_iter().chain(newest) {
        raised_before_and_lowered_after_its_primary(installation).await;
    }
}
