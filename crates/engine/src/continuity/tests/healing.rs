//! What comes back from a folder, and what must not. A refused gap stores nothing at all.

use std::collections::BTreeMap;
use std::path::Path;

use holdfast_pgtypes::SystemIdentifier;

use super::*;
use crate::server::sample_control::{SYSTEM_IDENTIFIER_AT, control_with};

impl Bench {
    async fn heal(&self, folder: PathBuf) -> WalVerification {
        let repository = Repository::open_to_write(&self.target).await.unwrap();
        let options = WalVerifyOptions { heal_from: vec![folder], ..self.options() };
        let progress: Arc<dyn Progress> = Arc::new(Silent);
        wal_verify(&repository, &options, &progress, &CancellationToken::new()).await.unwrap()
    }

    /// Every object of the archive but the ledger.
    async fn content(&self) -> BTreeMap<String, Bytes> {
        let mut found = BTreeMap::new();
        for object in self.store.list("main/wal/", None).await.unwrap() {
            found.insert(object.name.to_string(), self.store.get(&object.name).await.unwrap());
        }
        found
    }

    /// Heals, and checks that nothing is stored. Returns the only reason.
    async fn refused(&self, folder: &Path) -> String {
        let before = self.content().await;
        let found = self.heal(folder.to_owned()).await;
        assert_eq!(self.content().await, before, "something was stored: {:?}", reported(&found));
        let healing = found.healing.unwrap();
        assert_eq!(healing.healed, []);
        let [left] = healing.left.as_slice() else { panic!("{:?}", healing.left) };
        left.reason.clone()
    }

    /// `pg_wal` in a data directory of this cluster.
    fn pg_wal(&self) -> PathBuf {
        let pgdata = self.folder.path().join("data");
        std::fs::create_dir_all(pgdata.join("global")).unwrap();
        std::fs::create_dir_all(pgdata.join("pg_wal")).unwrap();
        let control = control(self.claim.system_identifier);
        std::fs::write(pgdata.join("global/pg_control"), control).unwrap();
        pgdata.join("pg_wal")
    }
}

/// A control file of this cluster.
fn control(system: SystemIdentifier) -> Vec<u8> {
    control_with(&[(SYSTEM_IDENTIFIER_AT, &system.as_u64().to_le_bytes())])
}

/// What was healed and what was not, in one line each.
fn reported(found: &WalVerification) -> Vec<String> {
    let healing = found.healing.as_ref().unwrap();
    let healed = healing.healed.iter().map(|healed| format!("healed {}", healed.file));
    let left = healing.left.iter().map(|left| {
        let (_, reason) = left.reason.split_once("/archive").unwrap_or(("", &left.reason));
        format!("left {} ({}): {reason}", left.file, left.count)
    });
    healed.chain(left).collect()
}

fn healed(number: u64) -> String {
    format!("healed {}", named(1, number))
}

/// A server with the same segments as the one of the bench up to the middle of this one, and others after that.
fn diverged(bench: &Bench, number: u64) -> Writer {
    let mut server = Writer::new(1, size(), bench.claim.system_identifier);
    server.write_half_of(number);
    server.diverge(5);
    server.write_into(13);
    server
}

#[tokio::test]
async fn missing_segments_come_back_and_nothing_is_replaced() {
    for unlock in [Unlock::NotEncrypted, Unlock::KeyFile(Secret::new(vec![7; 32]))] {
        let bench = Bench::with(unlock).await;
        bench.lose([6, 7, 10]).await;
        bench.verify(Level::Shallow).await;
        let before = bench.content().await;
        let folder = bench.folder_of(&bench.server, 5..=9);
        let found = bench.heal(folder.clone()).await;
        assert_eq!(reported(&found), [healed(6), healed(7), format!("left {} (1): no folder has it", named(1, 10))]);
        assert_eq!(lines(&found), [format!("loss gap: {} (1): there is WAL after it", named(1, 10))]);
        let after = bench.content().await;
        assert!(before.iter().all(|(name, bytes)| after.get(name) == Some(bytes)), "something was replaced");
        let closed = format!("closed {} {} 2 CameBack", named(1, 6), named(1, 7));
        assert!(bench.ledger().await.contains(&closed), "{:?}", bench.ledger().await);

        bench.folder_of(&bench.server, [10]);
        let found = bench.heal(folder).await;
        assert_eq!((reported(&found), lines(&found)), (vec![healed(10)], Vec::new()));
        assert_eq!(lines(&bench.verify(Level::Deep).await), [""; 0]);
    }
}

/// Nothing of a gap is stored before all of it is there.
#[tokio::test]
async fn a_gap_is_judged_as_a_whole() {
    let bench = Bench::new().await;
    bench.lose(6..=10).await;
    let folder = bench.folder_of(&bench.server, [6, 7, 9, 10]);
    let reason = bench.refused(&folder).await;
    let expected = format!(" has 4 of the 5 missing segments, and not {}", named(1, 8));
    assert!(reason.ends_with(&expected), "{reason}");
    bench.folder_of(&bench.server, [8]);
    assert_eq!(reported(&bench.heal(folder).await), (6..=10).map(healed).collect::<Vec<_>>());
    assert_eq!(lines(&bench.verify(Level::Deep).await), [""; 0]);
}

/// The segments of a copy continue what is before the gap, and only its end shows that they are of another history.
#[tokio::test]
async fn a_copy_that_diverged_inside_of_the_gap_heals_nothing() {
    for at in [6, 7, 8] {
        let bench = Bench::new().await;
        bench.lose(6..=8).await;
        let copy = diverged(&bench, at);
        let folder = bench.folder_of(&copy, 6..=8);
        let reason = bench.refused(&folder).await;
        let expected = format!("{} does not continue {}: ", named(1, 9), named(1, 8));
        assert!(reason.contains(&expected), "{at}: {reason}");
        // With its other segments it is clear at once.
        bench.folder_of(&copy, [5, 9]);
        bench.refused(&folder).await;
    }
    // It diverged before the gap.
    let bench = Bench::new().await;
    bench.lose(6..=8).await;
    let folder = bench.folder_of(&diverged(&bench, 4), 6..=8);
    let reason = bench.refused(&folder).await;
    assert!(reason.contains(&format!("{} does not continue {}: ", named(1, 6), named(1, 5))), "{reason}");
}

/// Two copies of a server that write as much as each other have the same positions. After a switch of the segment no
/// record crosses, so the link to the record before it says nothing about what was written.
#[tokio::test]
async fn a_position_alone_proves_nothing() {
    let bench = Bench::new().await;
    let server = |salt: u64| {
        let mut server = Writer::new(1, size(), bench.claim.system_identifier);
        server.write_into(7);
        // As many bytes, and others.
        server.diverge(salt);
        server.write_half_of(7);
        server.switch();
        server.write_into(13);
        server
    };
    let (own, copy) = (server(0), server(1000));
    for number in 7..=12 {
        bench.archive(&own, number).await;
    }
    assert_ne!(own.segment(7), copy.segment(7));
    assert_eq!(lines(&bench.verify(Level::Deep).await), [""; 0]);
    bench.lose([7]).await;
    // A folder that two servers may have filled: here they did.
    let several = bench.folder_of(&copy, [7]);
    bench.folder_of(&own, [8, 9]);
    let reason = bench.refused(&several).await;
    let expected = format!("only a position joins {} to {}, so they can be of two servers", named(1, 8), named(1, 7));
    assert!(reason.contains(&expected), "{reason}");
    // `pg_wal` is of one server.
    let folder = bench.pg_wal();
    let put = |server: &Writer, number: u64| {
        std::fs::write(folder.join(named(1, number).to_string()), server.segment(number)).unwrap();
    };
    put(&copy, 7);
    let position = "only a position joins it to the archived";
    let reason = bench.refused(&folder).await;
    assert!(reason.contains(position), "{reason}");
    let next = folder.join(named(1, 8).to_string());
    // An empty one, one without a record, one without a transaction, and a recycled one say nothing.
    let first_xact = {
        let bytes = own.segment(8);
        let segment = WalSegment { bytes: &bytes, name: named(1, 8), size: size(), version: PgVersion::V18 };
        let first = segment.records().find(|record| record.event.is_some()).unwrap();
        usize::try_from(first.lsn.as_u64()).unwrap() - 8 * SIZE as usize
    };
    let until = |end: usize| {
        let mut begun = own.segment(8);
        begun[end..].fill(0);
        begun
    };
    for bytes in [Vec::new(), until(40), until(first_xact), own.segment(5)] {
        std::fs::write(&next, bytes).unwrap();
        assert!(bench.refused(&folder).await.contains(position));
    }
    put(&copy, 8);
    let reason = bench.refused(&folder).await;
    let differs = format!("its {} differs from the archived one from 0/8000", named(1, 8));
    assert!(reason.contains(&differs), "{reason}");
    // The server itself, which is still writing the next segment.
    put(&own, 7);
    std::fs::remove_file(&next).unwrap();
    assert!(bench.refused(&folder).await.contains(position));
    std::fs::write(&next, until(first_xact + 64)).unwrap();
    assert_eq!(reported(&bench.heal(folder).await), [healed(7)]);
    assert_eq!(lines(&bench.verify(Level::Deep).await), [""; 0]);
}

/// A plain archive that a server and its idle copy have filled, segment by segment: the missing one is the copy's, and
/// the last one joins the archive by a CRC.
#[tokio::test]
async fn a_segment_of_a_copy_between_those_of_the_server_is_refused() {
    let bench = Bench::new().await;
    let server = |salt: u64| {
        let mut server = Writer::new(1, size(), bench.claim.system_identifier);
        server.write_into(6);
        server.diverge(salt);
        server.write_half_of(6);
        server.switch();
        server.write_into(13);
        server
    };
    let (own, copy) = (server(0), server(1000));
    for number in 6..=12 {
        bench.archive(&own, number).await;
    }
    bench.lose(6..=7).await;
    let folder = bench.folder_of(&copy, [6]);
    bench.folder_of(&own, [7]);
    let reason = bench.refused(&folder).await;
    let expected = format!("only a position joins {} to {}, so they can be of two servers", named(1, 7), named(1, 6));
    assert!(reason.contains(&expected), "{reason}");
}

/// A bit of a record that no scan for facts looks at.
#[tokio::test]
async fn a_bit_in_any_record_is_refused() {
    let bench = Bench::new().await;
    bench.lose([7]).await;
    let folder = bench.folder_of(&bench.server, [7]);
    let whole = bench.server.segment(7);
    let segment = |bytes| WalSegment { bytes, name: named(1, 7), size: size(), version: PgVersion::V18 };
    let records: Vec<_> = segment(&whole).records().collect();
    let quiet = records.iter().skip(100).find(|record| record.event.is_none() && record.ddl.is_none()).unwrap();
    let at = usize::try_from(quiet.lsn.as_u64()).unwrap() - 7 * SIZE as usize;
    let mut changed = whole.clone();
    changed[at + 40] ^= 1;
    assert!(!SegmentFacts::scan(segment(&changed)).is_incomplete);
    std::fs::write(folder.join(named(1, 7).to_string()), changed).unwrap();
    let reason = bench.refused(&folder).await;
    let not_whole = format!("{} is not whole: PostgreSQL cannot read it to its end, with every CRC", named(1, 7));
    assert!(reason.contains(&not_whole), "{reason}");
}

#[tokio::test]
async fn a_file_that_is_not_the_missing_segment_is_refused() {
    let bench = Bench::new().await;
    bench.lose([7]).await;
    let name = named(1, 7).to_string();
    let folder = bench.folder_of(&bench.server, []);
    let mut half = bench.server.segment(7);
    half[500_000..].fill(0);
    let recycled = bench.server.segment(4);
    let mut stranger = Writer::new(1, size(), "7000000000000000001".parse().unwrap());
    stranger.write_into(8);
    let whole = bench.server.segment(7);
    for (what, bytes, reason) in [
        ("half received", half, format!("{name} is not whole: PostgreSQL cannot read it to its end")),
        ("recycled", recycled, format!("{name}: WAL segment {name} begins at 0/400000, but should begin at 0/700000")),
        (
            "of another cluster",
            stranger.segment(7),
            format!(
                "{name}: WAL segment {name} is of the cluster with system identifier 7000000000000000001, not {}",
                bench.claim.system_identifier
            ),
        ),
        ("cut off", whole[..1000].to_vec(), "1000 bytes".to_owned()),
    ] {
        std::fs::write(folder.join(&name), bytes).unwrap();
        let found = bench.refused(&folder).await;
        assert!(found.contains(&reason), "{what}: {found}\n{reason}");
    }
    std::fs::write(folder.join(&name), whole).unwrap();
    assert_eq!(reported(&bench.heal(folder).await), [format!("healed {name}")]);
}

/// A gap beside an object that cannot be read stays, and every other one is healed.
#[tokio::test]
async fn a_damaged_neighbour_stops_the_healing_of_its_own_gap_only() {
    for (what, damage) in [("empty", Vec::new()), ("damaged", vec![b'x'; 3000])] {
        let bench = Bench::new().await;
        bench.lose([6, 8, 10]).await;
        bench.put(&bench.segment_object(5), damage).await;
        let folder = bench.folder_of(&bench.server, [6, 8, 10]);
        let found = bench.heal(folder).await;
        assert!(found.interrupted.is_none(), "{what}: {:?}", found.interrupted);
        let reported = reported(&found);
        assert_eq!(reported[..2], [healed(8), healed(10)], "{what}");
        assert!(
            reported.len() == 3 && reported[2].starts_with(&format!("left {} (1): ", named(1, 6))),
            "{what}: {reported:?}"
        );
    }
}

/// The archive must have both ends.
#[tokio::test]
async fn a_gap_without_an_end_in_the_archive_is_not_healed() {
    let bench = Bench::new().await;
    bench.lose(1..=3).await;
    let folder = bench.folder_of(&bench.server, [3]);
    let reason = bench.refused(&folder).await;
    assert!(reason.contains("the archive does not have the segments before and after it"), "{reason}");
}

/// A gap that two timelines need, and one that reaches over the end of a timeline.
#[tokio::test]
async fn gaps_at_the_end_of_a_timeline_come_back() {
    let mut bench = Bench::new().await;
    let second = bench.promote().await;
    bench.lose([8]).await;
    let folder = bench.folder_of(&bench.server, [8]);
    assert_eq!(reported(&bench.heal(folder.clone()).await), [healed(8)]);
    bench.lose([8, 9]).await;
    bench.remove(&bench.object(WalFileName::Segment(named(2, 9)))).await;
    std::fs::remove_file(folder.join(named(1, 8).to_string())).unwrap();
    bench.folder_of(&second, [9]);
    let reason = bench.refused_first(&folder).await;
    assert!(reason.contains(&format!(" has 1 of the 2 missing segments, and not {}", named(1, 8))), "{reason}");
    bench.folder_of(&bench.server, [8]);
    assert_eq!(reported(&bench.heal(folder).await), [healed(8), format!("healed {}", named(2, 9))]);
}

impl Bench {
    /// Heals, and checks that nothing is stored. Returns the first reason of several.
    async fn refused_first(&self, folder: &Path) -> String {
        let before = self.content().await;
        let found = self.heal(folder.to_owned()).await;
        assert_eq!(self.content().await, before, "something was stored: {:?}", reported(&found));
        found.healing.unwrap().left[0].reason.clone()
    }
}

#[tokio::test]
async fn a_history_comes_back_only_if_its_timeline_begins_at_its_switch_point() {
    let mut bench = Bench::new().await;
    let second = bench.promote().await;
    let file = WalFileName::History("2".parse().unwrap());
    let stored = bench.content().await;
    bench.remove(&bench.object(file)).await;
    let switch = {
        let mut own = Writer::new(1, size(), bench.claim.system_identifier);
        own.write_into(9);
        own.lsn()
    };
    let text = |lsn: Lsn| format!("1\t{lsn}\tno recovery target specified\n");
    // Not from a folder of which nobody knows the cluster.
    let folder = bench.folder_of(&second, [9]);
    std::fs::write(folder.join(file.to_string()), text(switch)).unwrap();
    assert_eq!(bench.refused(&folder).await, "no folder of a server of this cluster has it");
    let pg_wal = bench.pg_wal();
    let records: Vec<Lsn> = {
        let (bytes, name) = (second.segment(9), named(2, 9));
        let segment = WalSegment { bytes: &bytes, name, size: size(), version: PgVersion::V18 };
        segment.records().map(|record| record.lsn).collect()
    };
    let (earlier, later) = (records[0], *records.iter().find(|lsn| **lsn > switch.saturating_add(100)).unwrap());
    let begins = |lsn: Lsn| format!("the records at {lsn} in {} do not begin a timeline", named(2, 9));
    for (what, content, reason) in [
        ("another segment", text(Lsn::new(8 << 20)), format!("its first archived segment is {}", named(2, 9))),
        (
            "inside of a record",
            text(switch.saturating_add(8)),
            format!("no record begins at {} in {}", switch.saturating_add(8), named(2, 9)),
        ),
        ("an earlier record", text(earlier), begins(earlier)),
        ("a later record", text(later), begins(later)),
        ("no parent", "# nothing\n".to_owned(), "it does not say from which timeline 2 comes".to_owned()),
    ] {
        std::fs::write(pg_wal.join(file.to_string()), content).unwrap();
        let found = bench.refused(&pg_wal).await;
        assert!(found.contains(&reason), "{what}: {found}");
    }
    std::fs::write(pg_wal.join(file.to_string()), text(switch)).unwrap();
    assert_eq!(reported(&bench.heal(pg_wal.clone()).await), [format!("healed {file}")]);
    assert_eq!(bench.content().await.len(), stored.len());
    assert_eq!(lines(&bench.verify(Level::Deep).await), [""; 0]);

    // Without a segment of the timeline nothing shows where it begins. The backup needs the timeline.
    bench.remove(&bench.object(file)).await;
    for number in 9..=12 {
        bench.remove(&bench.object(WalFileName::Segment(named(2, number)))).await;
    }
    bench.backup_on(2, "20260802T000000Z".parse().unwrap(), 10, 10).await;
    let found = bench.heal(pg_wal).await;
    let healing = found.healing.unwrap();
    assert_eq!(healing.healed, []);
    let reason = "the archive has no segment of timeline 2";
    assert!(healing.left.iter().any(|left| left.reason.contains(reason)), "{:?}", healing.left);
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_is_refused() {
    let bench = Bench::new().await;
    bench.lose([7]).await;
    let gone = bench.folder.path().join("gone");
    let options = WalVerifyOptions { heal_from: vec![gone.clone()], ..bench.options() };
    let error = bench.verify_with(&options).await.unwrap_err();
    assert!(matches!(&*error.what, Cause::File { path, .. } if *path == gone), "{error}");
    let file = bench.folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let options = WalVerifyOptions { heal_from: vec![file.clone()], ..bench.options() };
    let error = bench.verify_with(&options).await.unwrap_err();
    assert_eq!(error.what.to_string(), format!("{} is not a directory", file.display()));
    // A data directory of another cluster.
    let pg_wal = bench.pg_wal();
    let other = control("7000000000000000001".parse().unwrap());
    std::fs::write(pg_wal.parent().unwrap().join("global/pg_control"), other).unwrap();
    let options = WalVerifyOptions { heal_from: vec![pg_wal], ..bench.options() };
    let error = bench.verify_with(&options).await.unwrap_err();
    assert!(matches!(&*error.what, Cause::WrongCluster { .. }), "{error}");
}
