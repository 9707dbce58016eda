//! What the archiver reads out of the WAL about drops, truncations and rewrites, held against the server that wrote it
//! and, where the major has it, against `pg_waldump`.
//!
//! A real server of each major runs statements. Before each of them it says which files its relations have, so the test
//! knows what must be in the WAL: the kind of the change, the files that went, the name.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use holdfast_pgtypes::wal::catalog_name::{PUBLIC_SCHEMA, RelationNameHash};
use holdfast_pgtypes::wal::ddl::{DdlChange, DdlEvent, DdlKind, DdlTracker, RelationChanges};
use holdfast_pgtypes::wal::ddl_record::DdlRecord;
use holdfast_pgtypes::wal::join::CrossingRecord;
use holdfast_pgtypes::wal::reader::WalSegment;
use holdfast_pgtypes::wal::relation_file::RelationFile;
use holdfast_pgtypes::wal::scan::SegmentFacts;
use holdfast_pgtypes::{Lsn, PgVersion, SegmentName, WalSegmentSize};
use holdfast_testkit::postgres::{Cluster, Installation, MAJORS};

/// What a statement must leave in the WAL.
struct Expected {
    statement: String,
    from: Lsn,
    to: Lsn,
    kinds: Vec<DdlKind>,
    /// The files that must be gone, as `tablespace/database/number`, if one change is expected.
    lost: BTreeSet<String>,
    /// The name of a relation, the OID of its schema, and whether its row type must have changed.
    name: Option<(&'static str, u32, bool)>,
}

struct Witness {
    cluster: Cluster,
    is_logical: bool,
    expected: Vec<Expected>,
}

impl Witness {
    async fn lsn(&self) -> Lsn {
        let text = self.cluster.value("SELECT pg_current_wal_insert_lsn()").await.expect("ask for the LSN");
        text.parse().expect("an LSN")
    }

    /// The files of a table, its indexes, its sequences and its TOAST table.
    async fn files_of(&self, table: &str) -> BTreeSet<String> {
        let query = format!(
            "WITH RECURSIVE t(o) AS (SELECT '{table}'::regclass::oid \
             UNION SELECT x FROM t, LATERAL (\
                SELECT indexrelid FROM pg_index WHERE indrelid = o \
                UNION ALL SELECT reltoastrelid FROM pg_class WHERE oid = o AND reltoastrelid <> 0 \
                UNION ALL SELECT objid FROM pg_depend WHERE refobjid = o AND classid = 'pg_class'::regclass \
                    AND deptype = 'a' AND objid IN (SELECT oid FROM pg_class WHERE relkind = 'S')) y(x)) \
             SELECT CASE reltablespace WHEN 0 THEN 1663 ELSE reltablespace END || '/' || \
                (SELECT oid FROM pg_database WHERE datname = current_database()) || '/' || \
                pg_relation_filenode(c.oid) \
             FROM t JOIN pg_class c ON c.oid = o WHERE pg_relation_filenode(c.oid) IS NOT NULL"
        );
        let rows = self.cluster.sql(&query).await.expect("ask for the files");
        rows.into_iter().flatten().collect()
    }

    /// Runs statements, each in a message of its own on one connection, and notes what must come of it.
    async fn run(
        &mut self,
        statements: &[&str],
        kinds: &[DdlKind],
        lost: BTreeSet<String>,
        name: Option<(&'static str, u32, bool)>,
    ) {
        let from = self.lsn().await;
        let client = self.cluster.connect("postgres").await.expect("connect");
        for statement in statements {
            client.batch_execute(statement).await.unwrap_or_else(|e| panic!("{statement}: {e:?}"));
        }
        let to = self.lsn().await;
        let statement = statements.join("; ");
        self.expected.push(Expected { statement, from, to, kinds: kinds.to_vec(), lost, name });
    }

    async fn set_up(&self, statements: &str) {
        self.cluster.sql(statements).await.unwrap_or_else(|e| panic!("{statements}: {e}"));
    }

    /// `TRUNCATE` of a table is certain only if it is decoded for subscribers.
    fn truncation(&self) -> DdlKind {
        if self.is_logical { DdlKind::Truncate } else { DdlKind::NewFiles }
    }
}

/// Statements about relations.
async fn relations(witness: &mut Witness) {
    let none = BTreeSet::new;
    let public = |name, row_type| Some((name, PUBLIC_SCHEMA, row_type));
    witness
        .set_up(
            "CREATE TABLE orders (id serial PRIMARY KEY, note text); \
             INSERT INTO orders (note) SELECT repeat('x', 100) FROM generate_series(1, 1000); \
             CREATE SCHEMA shop; CREATE TABLE shop.orders (id int); \
             CREATE TABLE items (id int, note text); CREATE INDEX items_id ON items (id); \
             CREATE UNLOGGED TABLE quick (id int); \
             CREATE MATERIALIZED VIEW sums AS SELECT count(*) FROM pg_class",
        )
        .await;
    let truncation = witness.truncation();
    let files = witness.files_of("items").await;
    witness.run(&["TRUNCATE items"], &[truncation], files, public("items", false)).await;
    let files = witness.files_of("quick").await;
    witness.run(&["TRUNCATE quick"], &[DdlKind::NewFiles], files, public("quick", false)).await;
    let files = witness.files_of("orders").await.into_iter();
    let sequence = witness.files_of("orders_id_seq").await;
    let without_sequence = files.filter(|file| !sequence.contains(file)).collect();
    witness.run(&["VACUUM FULL orders"], &[DdlKind::Rewrite], without_sequence, public("orders", false)).await;
    let files = witness.files_of("items").await;
    let alter = "ALTER TABLE items ALTER COLUMN id TYPE bigint";
    witness.run(&[alter], &[DdlKind::Rewrite], files, public("items", false)).await;
    let files = witness.files_of("items_id").await;
    witness.run(&["REINDEX INDEX items_id"], &[DdlKind::NewFiles], files, public("items_id", false)).await;
    let files = witness.files_of("sums").await;
    let refresh = "REFRESH MATERIALIZED VIEW sums";
    witness.run(&[refresh], &[DdlKind::Rewrite], files, public("sums", false)).await;

    let files = witness.files_of("orders").await;
    witness.run(&["DROP TABLE orders"], &[DdlKind::Drop], files, public("orders", true)).await;
    let files = witness.files_of("shop.orders").await;
    let shop = witness.cluster.value("SELECT oid FROM pg_namespace WHERE nspname = 'shop'").await.expect("ask");
    let shop = Some(("orders", shop.parse().expect("an OID"), true));
    witness.run(&["DROP TABLE shop.orders"], &[DdlKind::Drop], files, shop).await;
    let files = witness.files_of("items_id").await;
    witness.run(&["DROP INDEX items_id"], &[DdlKind::Drop], files, public("items_id", false)).await;

    witness.run(&["BEGIN; DROP TABLE items; ROLLBACK"], &[], none(), None).await;
    witness.run(&["BEGIN; CREATE TABLE brief (id int); DROP TABLE brief; COMMIT"], &[], none(), None).await;
    let brief = "BEGIN; CREATE TABLE brief (id int); INSERT INTO brief VALUES (1); TRUNCATE brief; COMMIT";
    witness.run(&[brief], &[], none(), None).await;
    witness.run(&["CREATE TEMP TABLE mine (id int); DROP TABLE mine"], &[], none(), None).await;
    let files = witness.files_of("brief").await;
    let again = "BEGIN; DROP TABLE brief; CREATE TABLE brief (id int); COMMIT";
    witness.run(&[again], &[DdlKind::Rewrite], files, public("brief", true)).await;

    let files = witness.files_of("brief").await;
    let savepoints = "BEGIN; SAVEPOINT a; CREATE TABLE never (id int); DROP TABLE items; ROLLBACK TO a; SAVEPOINT b; \
                      DROP TABLE brief; RELEASE b; COMMIT";
    witness.run(&[savepoints], &[DdlKind::Drop], files, public("brief", true)).await;
    let files = witness.files_of("items").await;
    let prepared =
        ["BEGIN; SAVEPOINT a; TRUNCATE items; RELEASE a; PREPARE TRANSACTION 'one'", "COMMIT PREPARED 'one'"];
    witness.run(&prepared, &[truncation], files, public("items", false)).await;
    let never = ["BEGIN; DROP TABLE items; PREPARE TRANSACTION 'two'", "ROLLBACK PREPARED 'two'"];
    witness.run(&never, &[], none(), None).await;

    // The new file is made segments before the commit.
    let files = witness.files_of("items").await;
    let long = "BEGIN; TRUNCATE items; INSERT INTO items SELECT g, repeat('y', 200) FROM generate_series(1, 20000) g; \
                COMMIT";
    witness.run(&[long], &[truncation], files, public("items", false)).await;

    let many = "DO $$ BEGIN FOR n IN 1..400 LOOP EXECUTE format('CREATE TABLE many_%s (id int)', n); END LOOP; END $$";
    witness.set_up(many).await;
    let rows = witness
        .cluster
        .sql(
            "SELECT '1663/' || d.oid || '/' || pg_relation_filenode(c.oid) FROM pg_class c, pg_database d \
             WHERE relname LIKE 'many\\_%' AND datname = 'postgres'",
        )
        .await
        .expect("ask for the files");
    let files = rows.into_iter().flatten().collect();
    let drop_many = "DO $$ BEGIN FOR n IN 1..400 LOOP EXECUTE format('DROP TABLE many_%s', n); END LOOP; END $$";
    witness.run(&[drop_many], &[DdlKind::Drop], files, None).await;
}

/// Statements about databases and tablespaces.
async fn databases(witness: &mut Witness, major: u16) {
    let none = BTreeSet::new;
    let folder = witness.cluster.scratch().folder("place").expect("make a folder");
    let strategies: &[&str] = if major >= 15 { &[" STRATEGY wal_log", " STRATEGY file_copy"] } else { &[""] };
    for strategy in strategies {
        witness.run(&[&format!("CREATE DATABASE old{strategy}")], &[], none(), None).await;
        witness.run(&["DROP DATABASE old"], &[DdlKind::DropDatabase], none(), None).await;
    }
    witness.set_up(&format!("CREATE TABLESPACE place LOCATION '{}'", folder.display())).await;
    let move_out = "ALTER DATABASE moved SET TABLESPACE place";
    witness.set_up("CREATE DATABASE moved").await;
    witness.run(&[move_out], &[DdlKind::MoveDatabase], none(), None).await;
    let move_back = "ALTER DATABASE moved SET TABLESPACE pg_default";
    witness.run(&[move_back], &[DdlKind::MoveDatabase], none(), None).await;
    witness.run(&["DROP TABLESPACE place"], &[DdlKind::DropTablespace], none(), None).await;
    witness.run(&["DROP DATABASE moved"], &[DdlKind::DropDatabase], none(), None).await;
}

/// The segments of `pg_wal`, in order.
fn segments(cluster: &Cluster) -> Vec<(SegmentName, PathBuf)> {
    let files = std::fs::read_dir(cluster.data().join("pg_wal")).expect("list pg_wal");
    let names = files.filter_map(|file| {
        let path = file.ok()?.path();
        Some((path.file_name()?.to_str()?.parse().ok()?, path))
    });
    let mut names: Vec<(SegmentName, PathBuf)> = names.collect();
    names.sort();
    names
}

/// What facts of all segments say when they are put together, as a search does it.
fn from_facts(cluster: &Cluster, version: PgVersion) -> Vec<DdlEvent> {
    let (mut tracker, mut events) = (DdlTracker::default(), Vec::new());
    let mut crossing: Option<CrossingRecord> = None;
    for (name, path) in segments(cluster) {
        let bytes = std::fs::read(path).expect("read a segment");
        let size = WalSegmentSize::new(bytes.len() as u32).expect("a segment size");
        let segment = WalSegment { bytes: &bytes, name, size, version };
        let facts = SegmentFacts::scan(segment);
        // A search reads the segments if a commit is cut, and then the ends are whole.
        let ends = SegmentFacts::scan_whole(segment, Lsn::MAX);
        let json = serde_json::to_string(&facts).expect("write the facts");
        assert!(json.len() < 64 << 10, "{name}: {} bytes of facts", json.len());
        let facts: SegmentFacts = serde_json::from_str(&json).expect("read the facts");
        crossing = match (crossing, &ends.head_continuation) {
            (Some(record), Some(head)) => record.continue_with(head),
            _ => None,
        };
        if let Some((record, end)) = crossing.as_ref().and_then(|record| record.ddl(version)) {
            tracker.add(crossing.as_ref().map_or(end, CrossingRecord::lsn), end, record, &mut events);
        }
        crossing = crossing.filter(|record| !record.has_ended());
        events.extend(tracker.add_facts(facts.ddl.expect("facts about changes")));
        if let Some(tail) = &ends.tail_fragment {
            crossing = Some(CrossingRecord::begin(tail));
        }
    }
    events.sort_by_key(|event| event.lsn);
    events
}

fn changes(event: &DdlEvent) -> &RelationChanges {
    match &event.change {
        DdlChange::Relations(changes) => changes,
        other => panic!("no change of relations: {other:?}"),
    }
}

fn check(expected: &Expected, events: &[DdlEvent]) {
    let what = &expected.statement;
    let found: Vec<&DdlEvent> =
        events.iter().filter(|event| (expected.from..expected.to).contains(&event.lsn)).collect();
    let kinds: Vec<DdlKind> = found.iter().map(|event| event.kind()).collect();
    assert_eq!(kinds, expected.kinds, "{what}: {found:#?}");
    let [event] = found.as_slice() else { return };
    if !expected.lost.is_empty() {
        let lost = changes(event).lost();
        assert_eq!(lost.count(), expected.lost.len() as u64, "{what}");
        let listed: BTreeSet<String> = lost.first.iter().map(ToString::to_string).collect();
        if lost.more == 0 {
            assert_eq!(listed, expected.lost, "{what}");
        } else {
            assert!(listed.is_subset(&expected.lost), "{what}");
        }
    }
    if let Some((name, schema, row_type)) = expected.name {
        let named = changes(event).of_name(RelationNameHash::of(name), |oid| oid == schema);
        let named = named.unwrap_or_else(|| panic!("{what}: no {name} in {:?}", changes(event).names));
        assert_eq!((named.schema, named.has_row_type), (schema, row_type), "{what}");
    }
    match &event.change {
        DdlChange::DropDatabase { name, .. } => {
            assert!(matches!(name.as_deref(), Some("old" | "moved")), "{what}: {name:?}");
            // Recovery must stop before the database is marked invalid.
            assert!(event.begins_at.is_some_and(|begins| expected.from <= begins && begins < event.lsn), "{what}");
        }
        _ => assert_eq!(event.begins_at, None, "{what}"),
    }
}

/// The lines of `pg_waldump` about what is read here, and the same lines from the reader.
fn hold_against_pg_waldump(cluster: &Cluster, version: PgVersion) {
    let Some(program) = cluster.installation().program("pg_waldump") else {
        // The servers that are provisioned for the other majors are built without it.
        assert!(!matches!(version, PgVersion::V15 | PgVersion::V18), "pg_waldump of {version:?} is missing");
        eprintln!("SKIPPED: {version:?} has no pg_waldump here, so its lines are not compared");
        return;
    };
    let all = segments(cluster);
    let (Some((first, path)), Some((last, _))) = (all.first(), all.last()) else { panic!("there is no WAL") };
    let mut command = Command::new(program);
    command.arg("-p").arg(path.parent().expect("a folder")).arg(first.to_string()).arg(last.to_string());
    let output = command.output().expect("run pg_waldump");
    let text = String::from_utf8_lossy(&output.stdout);
    let theirs: Vec<String> = text.lines().filter_map(|line| line_of_pg_waldump(line, version)).collect();
    let mut ours = Vec::new();
    let mut crossing: Option<CrossingRecord> = None;
    for (name, path) in &all {
        let bytes = std::fs::read(path).expect("read a segment");
        let size = WalSegmentSize::new(bytes.len() as u32).expect("a segment size");
        let mut records = WalSegment { bytes: &bytes, name: *name, size, version }.records_with_whole_ends();
        let found: Vec<_> = records.by_ref().filter_map(|record| Some((record.lsn, record.ddl?))).collect();
        if let (Some(record), Some(head)) = (crossing.take(), records.head())
            && let Some(record) = record.continue_with(head)
        {
            match record.ddl(version) {
                Some((ddl, _)) => ours.extend(line_of_record(record.lsn(), &ddl)),
                None => crossing = Some(record),
            }
        }
        ours.extend(found.iter().filter_map(|(lsn, ddl)| line_of_record(*lsn, ddl)));
        if let Some(tail) = records.tail() {
            crossing = Some(CrossingRecord::begin(tail));
        }
    }
    assert!(theirs.len() > 100, "only {} lines of pg_waldump: {text}", theirs.len());
    for (number, line) in theirs.iter().enumerate() {
        assert_eq!(ours.get(number), Some(line), "line {number}");
    }
    assert_eq!(ours.len(), theirs.len());
}

fn line_of_record(lsn: Lsn, record: &DdlRecord) -> Option<String> {
    let list = |items: &mut dyn Iterator<Item = String>| items.collect::<Vec<_>>().join(" ");
    Some(match record {
        DdlRecord::XactEnd(effects) if !effects.dropped.is_empty() => {
            let files = list(&mut effects.dropped.iter().map(RelationFile::path));
            let relations = list(&mut effects.relations.iter().map(ToString::to_string));
            format!("{lsn} {} {files} of {relations}", if effects.is_commit { "commit" } else { "rollback" })
        }
        DdlRecord::FileCreated { xid, file } => format!("{lsn} {xid} create {}", file.path()),
        DdlRecord::Truncated { xid, relations } => format!("{lsn} {xid} truncate {}", relations.len()),
        DdlRecord::DatabaseDropped { xid, database, tablespaces } => {
            format!("{lsn} {xid} drop {}", list(&mut tablespaces.iter().map(|t| format!("{t}/{database}"))))
        }
        DdlRecord::TablespaceDropped { xid, tablespace } => format!("{lsn} {xid} drop tablespace {tablespace}"),
        DdlRecord::XactEnd(_) | DdlRecord::DatabaseMarked(_) | DdlRecord::DatabaseCreated { .. } => return None,
    })
}

/// A line such as `rmgr: Storage len (rec/tot): 42/42, tx: 755, lsn: 0/017A36C0, prev 0/017A3690, desc: CREATE
/// base/5/16385`, in the form of [`line_of_record`].
fn line_of_pg_waldump(line: &str, version: PgVersion) -> Option<String> {
    let field = |from: &str, to: &str| Some(line.split_once(from)?.1.split_once(to)?.0.trim().to_owned());
    let manager = field("rmgr: ", " ")?;
    let (xid, lsn) = (field("tx: ", ",")?, field("lsn: ", ",")?);
    let lsn: Lsn = lsn.parse().expect("an LSN of pg_waldump");
    let (_, description) = line.split_once("desc: ")?;
    // The directory of the major within a tablespace is left out here.
    let description = description.replace(&format!("/{}/", version.tablespace_directory()), "/");
    let (what, rest) = description.split_once(' ').unwrap_or((&description, ""));
    Some(match (manager.as_str(), what) {
        ("Transaction", "COMMIT" | "COMMIT_PREPARED" | "ABORT" | "ABORT_PREPARED") => {
            let part = |name: &str| Some(rest.split_once(name)?.1.split(';').next().unwrap_or_default().trim());
            let files = part("rels: ")?;
            let messages: Vec<&str> = part("inval msgs: ").unwrap_or_default().split(' ').collect();
            let relations = messages.windows(2).filter(|pair| pair.first() == Some(&"relcache"));
            let relations = relations.filter_map(|pair| pair.get(1)?.parse::<u32>().ok());
            let relations: BTreeSet<u32> = relations.filter(|oid| *oid != 0).collect();
            let relations: Vec<String> = relations.iter().map(ToString::to_string).collect();
            let end = if what.starts_with("COMMIT") { "commit" } else { "rollback" };
            format!("{lsn} {end} {files} of {}", relations.join(" "))
        }
        ("Storage", "CREATE") => {
            // The fork is left out here.
            let fork = ["_fsm", "_vm", "_init"].iter().find_map(|fork| rest.strip_suffix(fork));
            format!("{lsn} {xid} create {}", fork.unwrap_or(rest))
        }
        ("Heap", "TRUNCATE") => format!("{lsn} {xid} truncate {}", field("nrelids", "relids").map_or(0, |n| count(&n))),
        ("Database", "DROP") => format!("{lsn} {xid} drop {}", rest.trim_start_matches("dir ")),
        ("Tablespace", "DROP") => format!("{lsn} {xid} drop tablespace {rest}"),
        _ => return None,
    })
}

/// The number in `: 1, ` or ` 1 `.
fn count(text: &str) -> u32 {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

async fn changes_are_read(major: u16, wal_level: &str) {
    let Some(installation) = Installation::or_skip(major) else { return };
    let version = PgVersion::new(major).expect("a supported major");
    let mut cluster = Cluster::builder(&installation)
        .wal_segment_mib(1)
        .setting("wal_level", wal_level)
        .setting("wal_keep_size", "1GB")
        .setting("max_prepared_transactions", "5")
        .setting("autovacuum", "off")
        .create()
        .await
        .expect("make the cluster");
    cluster.start().await.expect("start the server");
    let mut witness = Witness { cluster, is_logical: wal_level == "logical", expected: Vec::new() };
    relations(&mut witness).await;
    databases(&mut witness, major).await;
    witness.set_up("SELECT pg_switch_wal()").await;
    let events = from_facts(&witness.cluster, version);
    for expected in &witness.expected {
        check(expected, &events);
    }
    hold_against_pg_waldump(&witness.cluster, version);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_read_as_the_server_made_them() {
    for major in MAJORS {
        changes_are_read(major, "replica").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_read_from_logical_wal() {
    for major in MAJORS {
        changes_are_read(major, "logical").await;
    }
}
