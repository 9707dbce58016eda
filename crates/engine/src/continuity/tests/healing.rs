//! What comes back from a folder, and what must not.

use super::*;

impl Bench {
    async fn heal(&self, folder: PathBuf) -> WalVerification {
        let repository = Repository::open_to_write(&self.target).await.unwrap();
        let options = WalVerifyOptions { heal_from: vec![folder], ..self.options() };
        let progress: Arc<dyn Progress> = Arc::new(Silent);
        wal_verify(&repository, &options, &progress, &CancellationToken::new()).await.unwrap()
    }
}

/// What was healed and what was not, in one line each.
fn told(found: &WalVerification) -> Vec<String> {
    let healing = found.healing.as_ref().unwrap();
    let healed = healing.healed.iter().map(|healed| format!("healed {}", healed.file));
    let left = healing.left.iter().map(|left| {
        let (_, reason) = left.reason.split_once("/archive/").unwrap_or(("", &left.reason));
        format!("left {} ({}): {reason}", left.file, left.count)
    });
    healed.chain(left).collect()
}

#[tokio::test]
async fn missing_segments_come_back_and_nothing_is_replaced() {
    for unlock in [Unlock::NotEncrypted, Unlock::KeyFile(Secret::new(vec![7; 32]))] {
        let bench = Bench::with(unlock).await;
        bench.lose([6, 7, 10]).await;
        bench.verify(Level::Shallow).await;
        let before = bench.store.get(&object_name(&bench.segment_object(8)).unwrap()).await.unwrap();
        let folder = bench.folder_of(&bench.server, 5..=9);
        let found = bench.heal(folder.clone()).await;
        let healed = |number| format!("healed {}", named(1, number));
        assert_eq!(told(&found), [healed(6), healed(7), format!("left {} (1): no folder has it", named(1, 10))]);
        assert_eq!(lines(&found), [format!("loss gap: {} (1): there is WAL after it", named(1, 10))]);
        assert_eq!(bench.store.get(&object_name(&bench.segment_object(8)).unwrap()).await.unwrap(), before);
        let closed = format!("closed {} {} 2 CameBack", named(1, 6), named(1, 7));
        assert!(bench.ledger().await.contains(&closed), "{:?}", bench.ledger().await);

        bench.folder_of(&bench.server, [10]);
        let found = bench.heal(folder).await;
        assert_eq!((told(&found), lines(&found)), (vec![healed(10)], Vec::new()));
        assert_eq!(lines(&bench.verify(Level::Deep).await), [""; 0]);
    }
}

/// A segment is proven by a neighbour, from either side.
#[tokio::test]
async fn a_segment_without_a_neighbour_is_not_taken() {
    let bench = Bench::new().await;
    bench.lose(6..=10).await;
    let folder = bench.folder_of(&bench.server, [8]);
    let reason = "neither the segment before it nor the one after it is in the archive, so nothing shows that it is of \
                  the same history";
    let name = named(1, 8);
    let left = |first: u64, count: u64, reason: &str| format!("left {} ({count}): {reason}", named(1, first));
    assert_eq!(
        told(&bench.heal(folder.clone()).await),
        [left(6, 2, "no folder has it"), left(8, 1, &format!("{name}: {reason}")), left(9, 2, "no folder has it"),]
    );
    bench.folder_of(&bench.server, [9, 10]);
    let healed = |number| format!("healed {}", named(1, number));
    assert_eq!(
        told(&bench.heal(folder.clone()).await),
        [healed(8), healed(9), healed(10), left(6, 2, "no folder has it")]
    );
    bench.folder_of(&bench.server, [6, 7]);
    assert_eq!(told(&bench.heal(folder).await), [healed(6), healed(7)]);
    assert_eq!(lines(&bench.verify(Level::Deep).await), [""; 0]);
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
    let mut diverged = Writer::new(1, size(), bench.claim.system_identifier);
    diverged.write_into(6);
    diverged.diverge(5);
    diverged.write_into(8);
    let whole = bench.server.segment(7);
    for (what, bytes, reason) in [
        (
            "half received",
            half,
            format!(
                "{name} is not whole: PostgreSQL cannot read it to its end: it was received or written in part only"
            ),
        ),
        ("recycled", recycled, format!("{name}: WAL segment {name} begins at 0/400000, but should begin at 0/700000")),
        (
            "of another cluster",
            stranger.segment(7),
            format!(
                "{name}: WAL segment {name} is of the cluster with system identifier 7000000000000000001, not {}",
                bench.claim.system_identifier
            ),
        ),
        ("cut off", whole[..1000].to_vec(), format!("{name}: ")),
        ("of another history", diverged.segment(7), format!("{name} is of another history: ")),
    ] {
        std::fs::write(folder.join(&name), bytes).unwrap();
        let found = bench.heal(folder.clone()).await;
        let [left] = told(&found).try_into().unwrap();
        let left: String = left;
        assert!(left.starts_with(&format!("left {name} (1): ")) && left.contains(&reason), "{what}: {left}\n{reason}");
        assert_eq!(found.findings.len(), 1, "{what}");
    }
    std::fs::write(folder.join(&name), whole).unwrap();
    assert_eq!(told(&bench.heal(folder).await), [format!("healed {name}")]);
}

#[tokio::test]
async fn a_history_comes_back_only_from_a_data_directory_of_this_cluster() {
    let mut bench = Bench::new().await;
    let second = bench.promote().await;
    let file = WalFileName::History("2".parse().unwrap());
    bench.remove(&bench.object(file)).await;
    let folder = bench.folder_of(&second, [9]);
    std::fs::write(folder.join(file.to_string()), "1\t0/900100\twhy\n").unwrap();
    let found = bench.heal(folder).await;
    assert_eq!(told(&found), ["left 00000002.history (1): no folder of a server of this cluster has it"]);
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
}
