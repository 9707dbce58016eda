//! The story of `docs/kubernetes.md`, with its files: a shop, its backups, an accident, and the minute before.

use crate::stage::Stage;
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(5);

#[test]
fn the_shop_comes_back_to_the_minute_before() {
    let stage = Stage::bare("story");
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/examples");

    // A new user applies the folder, and gets a cluster with an archive, a schedule, and a first backup. The archive of
    // an earlier run of this story has an owner, so each run has a path of its own.
    let own_path = |manifest: String| {
        assert!(!manifest.contains("destinationPath") || manifest.contains("s3://holdfast/examples"));
        manifest.replace("s3://holdfast/examples", &format!("s3://holdfast/{}", stage.namespace))
    };
    let mut files: Vec<_> =
        std::fs::read_dir(&examples).expect("list the examples").map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in files.iter().filter(|file| file.is_file()) {
        stage.apply(&own_path(std::fs::read_to_string(file).expect("read an example")));
    }
    stage.wait_ready("shop", 3, LIMIT);
    stage.wait_completed("before-migration", LIMIT);
    stage.wait("scheduledbackups.holdfast.dev", "nightly", "its next runs", LIMIT, |object| {
        (object["status"]["nextScheduleTimes"].as_array()?.len() == 3).then_some(())
    });

    // The shop continues to sell.
    stage.sql("shop", "CREATE TABLE orders (id bigint PRIMARY KEY, item text NOT NULL, price numeric NOT NULL)");
    stage.sql("shop", "INSERT INTO orders SELECT i, 'item ' || i, i * 0.25 FROM generate_series(1, 20000) i");
    let orders = "SELECT count(*), sum(price), md5(string_agg(id || item, ',' ORDER BY id)) FROM orders";
    let before = stage.sql("shop", orders);
    std::thread::sleep(Duration::from_millis(1100));
    let moment = stage.value("shop", "SELECT now()");
    std::thread::sleep(Duration::from_millis(1100));

    // The accident.
    stage.sql("shop", "DELETE FROM orders WHERE id > 100");
    stage.sql("shop", "DROP TABLE orders");

    // The status shows up to which time the shop can be restored. The WAL is on its way into the archive.
    let primary = stage.primary("shop");
    stage.psql(&primary, "SELECT pg_switch_wal()");
    let wanted = stage.value("shop", &format!("SELECT extract(epoch FROM timestamptz '{moment}')::bigint"));
    let wanted: i64 = wanted.parse().unwrap();
    stage.wait("clusters.holdfast.dev", "shop", "the moment in the recoverable window", LIMIT, |object| {
        let to = object["status"]["recoverability"]["to"].as_str()?.parse::<chrono::DateTime<chrono::Utc>>().ok()?;
        (to.timestamp() >= wanted).then_some(())
    });

    // The shop as it was, next to the running one.
    let recovery =
        own_path(std::fs::read_to_string(examples.join("recovery/shop-before.yaml")).expect("read the example"));
    assert!(recovery.contains("2026-11-22 10:15:00+00"), "the example has a moment to replace");
    stage.apply(&recovery.replace("2026-11-22 10:15:00+00", &moment));
    stage.wait_ready("shop-before", 1, LIMIT);
    assert_eq!(stage.sql("shop-before", orders), before, "the orders as they were at {moment}");

    // The old shop still runs, without its orders. The new one owns an archive of its own.
    assert_eq!(stage.value("shop", "SELECT to_regclass('orders') IS NULL"), "t");
    stage.back_up("shop-before", "first-of-the-new", "");
}
