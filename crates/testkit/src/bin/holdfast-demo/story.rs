//! The demo itself, step by step: set up, archive, back up, break, restore, compare.
//!
//! The servers are the test kit's. Each `holdfast` command is run exactly as it is shown, as PostgreSQL's user. The
//! demo fails if a command fails, or if the restored rows differ from the rows before.

use std::time::{Duration, Instant};

use holdfast_testkit::postgres::Cluster;

use crate::Result;
use crate::arguments::Options;
use crate::screen::{Screen, duration, rate, size};
use crate::shop::{Proof, Till, load_events, load_orders, make_tables, more_events};
use crate::stage::Stage;

/// Runs all steps, and returns the servers that are still running.
pub(crate) async fn tell(options: &Options, screen: &Screen) -> Result<Stage> {
    screen.line("Holdfast demo: back up a PostgreSQL server, lose a table, and restore to the moment before.");

    let mut stage = set_the_stage(options.major, screen).await?;
    screen.step(
        2,
        "make an encrypted repository",
        "One key encrypts everything that is stored, and the passphrase locks that key. The archive is claimed for \
         this cluster, so no other cluster can ever write into it.",
    );
    stage.holdfast(&["repo", "init"], screen).await?;

    load(&stage, options, screen).await?;

    screen.step(
        4,
        "back up, while the shop continues to sell",
        "An online backup: read, checked against page checksums, compressed, encrypted and uploaded in one pass. It is \
         complete only when the WAL it needs is in the archive, too.",
    );
    let till = Till::open(&stage.cluster).await?;
    let began = Instant::now();
    stage.holdfast(&["backup", "--start-fast"], screen).await?;
    let backup_took = began.elapsed();
    let (objects, bytes) = stage.stored()?;
    screen.line("");
    screen.fact("the bucket holds", &format!("{} in {objects} objects, backup and WAL", size(bytes)));
    let full_bytes = stage.packs()?;
    let (incremental_bytes, incremental_took) = back_up_again(&stage, full_bytes, screen).await?;

    let (before, moment) = sell_and_lose(&stage, till, options, screen).await?;

    let began = Instant::now();
    screen.step(
        7,
        "restore to the moment before",
        "First ask what the archive can do: the window is computed from the WAL that is really there. Then restore into an \
         empty directory. The backup is chosen for the target, and nothing is written if the target cannot be reached.",
    );
    stage.holdfast(&["info"], screen).await?;
    screen.line("");
    let data = stage.restored_data();
    let directory = data.display().to_string();
    let words = ["restore", "--pgdata", &directory, "--target-time", &moment, "--target-action", "promote"];
    let restore_began = Instant::now();
    stage.holdfast(&words, screen).await?;
    let restore_took = restore_began.elapsed();

    let recovery_took = start_restored(&mut stage, screen).await?;
    let restored = stage.restored.as_ref().ok_or("the restored server is missing")?;

    screen.step(
        9,
        "are the rows back?",
        "The same query as before the accident. The events, too, must be those of that moment: not one fewer, not one more.",
    );
    screen.command(&format!("psql -c \"{}\"", Proof::QUERY));
    let after = Proof::of(restored).await?;
    let outage = began.elapsed();
    compare(&before, &after, screen)?;

    let (objects, bytes) = stage.stored()?;
    let database: u64 = restored.value("SELECT sum(pg_database_size(oid))::bigint FROM pg_database").await?.parse()?;
    screen.line("");
    screen.fact("databases", &size(database));
    screen.fact("bucket", &format!("{} in {objects} objects, backup and WAL, encrypted", size(bytes)));
    screen.fact("backup", &format!("{}, {}", duration(backup_took), rate(database, backup_took)));
    let cost = format!("{}, {} instead of {}", duration(incremental_took), size(incremental_bytes), size(full_bytes));
    screen.fact("incremental", &cost);
    screen.fact("restore", &format!("{}, {}", duration(restore_took), rate(database, restore_took)));
    screen.fact("recovery", &duration(recovery_took));
    screen.fact("lost table to rows back", &duration(outage));
    screen.fact("whole demo", &duration(screen.elapsed()));
    Ok(stage)
}

async fn set_the_stage(major: u16, screen: &Screen) -> Result<Stage> {
    screen.step(
        1,
        &format!("start a PostgreSQL {major} and an S3-compatible store"),
        "Both are real and only for this demo. PostgreSQL hands every finished WAL segment to `holdfast wal push` and keeps \
         it until that succeeds; that is all there is to configure on its side.",
    );
    let began = Instant::now();
    let stage = Stage::set(major).await?;
    let user = stage.folder.user().name();
    screen.fact(&format!("PostgreSQL {major}"), &format!("{}, as the user {user}", stage.cluster.data().display()));
    screen.fact("object store", &format!("{}, bucket {}", stage.s3.endpoint(), stage.s3.bucket()));
    screen.fact("started in", &duration(began.elapsed()));
    for setting in ["archive_mode", "archive_command"] {
        let value = stage.cluster.value(&format!("SHOW {setting}")).await?;
        screen.fact("postgresql.conf", &format!("{setting} = '{value}'"));
    }
    screen.fact("holdfast.toml", "");
    for line in stage.config_text().lines() {
        screen.line(&format!("    {line}"));
    }
    screen.line(&format!(
        "\n`holdfast` below is `{} --config {}`.",
        stage.holdfast.display(),
        stage.config().display()
    ));
    Ok(stage)
}

async fn load(stage: &Stage, options: &Options, screen: &Screen) -> Result<()> {
    screen.step(
        3,
        "load data, and archive its WAL at the same time",
        "A shop: a table of orders, and a larger one of events around it. PostgreSQL runs archive_command for each segment.",
    );
    let began = Instant::now();
    make_tables(&stage.cluster).await?;
    load_orders(&stage.cluster, options.rows).await?;
    load_events(&stage.cluster, options.size_mib << 20, screen).await?;
    // Without it, the first read of the rows would write nearly all of them into the WAL again, as hint bits.
    stage.cluster.sql("VACUUM").await?;
    let took = began.elapsed();
    let loaded: u64 = stage.cluster.value("SELECT pg_database_size('postgres')").await?.parse()?;
    screen.fact("loaded", &format!("{} in {}, {}", size(loaded), duration(took), rate(loaded, took)));
    stage.archive_now().await?;
    let segments: u64 = stage.cluster.value("SELECT archived_count FROM pg_stat_archiver").await?.parse()?;
    let took = began.elapsed();
    let archived = segments << 24;
    screen.fact("archived", &format!("{segments} segments of 16 MiB in {}, {}", duration(took), rate(archived, took)));
    screen.line("");
    stage.holdfast(&["check"], screen).await
}

/// A second backup, which stores what changed since the first. Returns the size of its packs in bytes, and how long it
/// took.
async fn back_up_again(stage: &Stage, before: u64, screen: &Screen) -> Result<(u64, Duration)> {
    screen.line("");
    screen.line("The next backup is incremental: it stores what changed, and restores like a full one.");
    let change = "UPDATE orders SET customer = customer WHERE id % 1000 = 0";
    screen.command(&format!("psql -c '{change}'"));
    stage.cluster.sql(change).await?;
    let began = Instant::now();
    stage.holdfast(&["backup", "--start-fast", "--type", "incremental"], screen).await?;
    let took = began.elapsed();
    let stored = stage.packs()?.saturating_sub(before);
    screen.fact("it cost", &format!("{} in the bucket; the first backup {}", size(stored), size(before)));
    if stored * 2 > before {
        return Err("the incremental backup stored more than half of what the full one did".into());
    }
    Ok((stored, took))
}

/// Continues to write, then drops the table. Returns the content just before the drop, and that moment.
async fn sell_and_lose(stage: &Stage, till: Till, options: &Options, screen: &Screen) -> Result<(Proof, String)> {
    screen.step(
        5,
        "continue to write",
        "Orders that are in no backup: they exist in the WAL only. Only backup and archive together bring them back.",
    );
    tokio::time::sleep(Duration::from_secs(2)).await;
    // Another tenth of the data, so that there is WAL to replay.
    load_events(&stage.cluster, (options.size_mib << 20) * 11 / 10, screen).await?;
    let taken = till.close().await?;
    screen.fact("orders taken", &format!("{taken} since the backup began, one transaction each"));
    screen.command(&format!("psql -c \"{}\"", Proof::QUERY));
    let before = Proof::of(&stage.cluster).await?;
    screen.fact("orders", &before.orders.to_string());
    screen.fact("checksum", &before.checksum);

    screen.step(
        6,
        "the accident",
        "Somebody drops the table, in the wrong terminal. Nobody notices at once, so the events continue.",
    );
    let moment = stage
        .cluster
        .value("SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00'")
        .await?;
    tokio::time::sleep(Duration::from_millis(50)).await;
    screen.fact("the moment before", &moment);
    screen.command("psql -c 'DROP TABLE orders'");
    stage.cluster.sql("DROP TABLE orders").await?;
    more_events(&stage.cluster, 20_000).await?;
    screen.command("psql -c 'SELECT count(*) FROM orders'");
    match stage.cluster.value("SELECT count(*) FROM orders").await {
        Err(error) if error.sql_state() == Some("42P01") => screen.bad("ERROR:  relation \"orders\" does not exist"),
        Err(error) => return Err(error.into()),
        Ok(rows) => return Err(format!("the table is still there, with {rows} rows").into()),
    }
    // On a quiet server archive_timeout would do this.
    stage.archive_now().await?;
    Ok((before, moment))
}

async fn start_restored(stage: &mut Stage, screen: &Screen) -> Result<Duration> {
    screen.step(
        8,
        "start the restored server",
        "PostgreSQL replays the WAL that `holdfast wal get` hands it, checked, and stops at the target. It runs beside the \
         first server here, on a port of its own, so it does not archive.",
    );
    let data = stage.restored_data();
    screen.command(&format!("pg_ctl -D {} -o '-c archive_mode=off' start", data.display()));
    let began = Instant::now();
    let mut restored = Cluster::adopt(&stage.installation, &data)?;
    restored.override_setting("archive_mode", "off");
    restored.start().await?;
    restored.wait_promoted(Duration::from_mins(2)).await?;
    let took = began.elapsed();
    let log = restored.log_text();
    let fetched = log.lines().filter(|line| line.contains("restored log file")).count();
    for line in log.lines() {
        let shown = ["starting point-in-time recovery", "recovery stopping", "last completed transaction"];
        if let Some((_, text)) = line.split_once("LOG:").filter(|_| shown.iter().any(|words| line.contains(words))) {
            screen.fact("its log", text.trim());
        }
    }
    screen.fact("recovered in", &format!("{}, {fetched} files through restore_command", duration(took)));
    stage.restored = Some(restored);
    Ok(took)
}

/// # Errors
/// If the restored rows differ from the rows before.
fn compare(before: &Proof, after: &Proof, screen: &Screen) -> Result<()> {
    let row = |what: &str, before: &str, after: &str| {
        let verdict = if before == after { "equal" } else { "DIFFERENT" };
        screen.line(&format!("  {what:<10} {before:>34}  {after:>34}  {verdict}"));
    };
    screen.line(&format!("  {:<10} {:>34}  {:>34}", "", "before the accident", "restored"));
    row("orders", &before.orders.to_string(), &after.orders.to_string());
    row("checksum", &before.checksum, &after.checksum);
    row("events", &before.events.to_string(), &after.events.to_string());
    if before != after {
        return Err("the rows are not back: the restored server does not have the rows from before the accident".into());
    }
    screen.line("");
    screen.good(&format!("All {} orders are back, with the same checksum.", after.orders));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_are_not_back_fail_the_demo() {
        let screen = Screen::new();
        let before = Proof { orders: 2, checksum: "a".to_owned(), events: 3 };
        assert!(compare(&before, &before, &screen).is_ok());
        for after in [
            Proof { orders: 1, ..before.clone() },
            Proof { checksum: "b".to_owned(), ..before.clone() },
            Proof { events: 4, ..before.clone() },
        ] {
            assert!(compare(&before, &after, &screen).is_err(), "{after:?}");
        }
    }
}
