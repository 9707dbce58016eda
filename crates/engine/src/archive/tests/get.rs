//! The three results: the file, "absent", and "not known"; and fetching ahead.

use holdfast_pgtypes::{PgVersion, SystemIdentifier};
use holdfast_store::{Fault, FaultRule, Operation, StoreErrorKind};

use super::{Bench, is_absent, kind, name, segment};
use crate::archive::{GetSource, PushOptions};
use crate::repository::claim::{Claimant, Identity};

async fn with_segments(repositories: usize, first: u64, last: u64) -> Bench {
    let bench = Bench::new(repositories).await;
    for path in bench.segments(first, last) {
        bench.push(&path).await.unwrap();
    }
    bench
}

#[tokio::test]
async fn absent_is_said_only_when_every_repository_said_so() {
    let mut bench = with_segments(2, 1, 1).await;
    assert!(is_absent(&bench.get(&name(2)).await.unwrap_err()));
    assert!(is_absent(&bench.get("00000002.history").await.unwrap_err()));
    for (operation, fault) in [
        (Operation::Get, Fault::Refuse(StoreErrorKind::Unreachable)),
        (Operation::Get, Fault::Refuse(StoreErrorKind::PermissionDenied)),
        (Operation::Get, Fault::LostAnswer),
        (Operation::List, Fault::Refuse(StoreErrorKind::Timeout)),
    ] {
        for repository in 0..2 {
            let faulty = bench.faulty(repository, vec![FaultRule::new(&[operation], 1.0, fault.clone()).on("main/")]);
            assert_eq!(kind(&bench.get(&name(2)).await.unwrap_err()), "Store", "{operation} {fault:?}");
            // Now the other repository has the archived file.
            bench.get(&name(1)).await.unwrap();
            faulty.set_active(false);
        }
    }
    assert!(is_absent(&bench.get(&name(2)).await.unwrap_err()));
}

#[tokio::test]
async fn an_archive_that_nobody_claimed_is_not_an_answer() {
    let bench = Bench::new(1).await;
    assert_eq!(kind(&bench.get(&name(1)).await.unwrap_err()), "NoClaim");
    let bench = with_segments(1, 1, 1).await;
    let mut options = bench.get_options(&name(1));
    options.system_identifier = Some(SystemIdentifier::new(42));
    assert_eq!(kind(&bench.get_with(&options).await.unwrap_err()), "WrongCluster");
    options.system_identifier = None;
    bench.get_with(&options).await.unwrap();
}

/// `repo init --new-claim` for another owner or another size of segments keeps the system identifier. A recovery may
/// have begun before it.
#[tokio::test]
async fn every_claim_of_the_system_identifier_is_asked() {
    let bench = Bench::new(1).await;
    for path in bench.segments(1, 3) {
        let options = PushOptions { owner: Some("one".to_owned()), ..bench.push_options(&path) };
        bench.push_with(&options).await.unwrap();
    }
    let repository = bench.open(0).await;
    let first = repository.current_claim(&bench.cluster).await.unwrap();
    let claimant = Claimant {
        identity: Identity {
            system_identifier: first.system_identifier,
            version: PgVersion::new(first.pg_major).unwrap(),
            wal_segment_size: first.wal_segment_size,
        },
        here: "another server".to_owned(),
        owner: Some("another".to_owned()),
        wal_codec: first.wal_codec,
        host: "db2".to_owned(),
        now: super::now(),
    };
    let second = repository.take_next_claim(&bench.cluster, &claimant).await.unwrap();
    assert_eq!((second.system_identifier, second.number), (first.system_identifier, first.number.next().unwrap()));
    bench.get(&name(2)).await.unwrap();
    assert_eq!(std::fs::read(bench.destination()).unwrap(), segment(2, 1));
    assert!(is_absent(&bench.get(&name(4)).await.unwrap_err()));

    for (number, version) in [(3, 1), (2, 2), (4, 2)] {
        let path = bench.wal(&name(number), &segment(number, version));
        let options = PushOptions { owner: Some("another".to_owned()), ..bench.push_options(&path) };
        bench.push_with(&options).await.unwrap();
    }
    bench.get(&name(3)).await.unwrap();
    bench.get(&name(4)).await.unwrap();
    assert_eq!(std::fs::read(bench.destination()).unwrap(), segment(4, 2));
    let error = bench.get(&name(2)).await.unwrap_err();
    assert_eq!(kind(&error), "Refused");
    assert!(error.to_string().contains("claims 1 and 2"), "{error}");
}

#[tokio::test]
async fn damage_is_never_handed_over_and_never_absent() {
    for fault in [Fault::FlipBit, Fault::Truncate] {
        let mut bench = with_segments(1, 1, 1).await;
        let once = FaultRule::new(&[Operation::Get], 1.0, fault.clone()).on("main/wal/").times(1);
        let faulty = bench.faulty(0, vec![once]);
        bench.get(&name(1)).await.unwrap();
        assert_eq!(faulty.injected(), 1, "damage on the way is fetched again");
        std::fs::remove_file(bench.destination()).unwrap();

        bench.faulty(0, vec![FaultRule::new(&[Operation::Get], 1.0, fault.clone()).on("main/wal/")]);
        let error = bench.get(&name(1)).await.unwrap_err();
        assert_eq!(kind(&error), "Format", "{fault:?}");
        assert!(!bench.destination().exists());
    }
}

#[tokio::test]
async fn a_good_copy_elsewhere_answers_for_a_damaged_one() {
    let mut bench = with_segments(2, 1, 1).await;
    bench.faulty(0, vec![FaultRule::new(&[Operation::Get], 1.0, Fault::FlipBit).on("main/wal/")]);
    bench.get(&name(1)).await.unwrap();
    assert_eq!(std::fs::read(bench.destination()).unwrap(), segment(1, 1));
}

#[tokio::test]
async fn segments_are_fetched_ahead_and_handed_over_without_the_network() {
    let mut bench = with_segments(1, 1, 8).await;
    let mut options = bench.get_options(&name(1));
    options.prefetch = 4;
    let report = bench.get_with(&options).await.unwrap();
    assert_eq!((report.source, report.prefetched), (GetSource::Repository("memory:".to_owned()), 4));
    assert_eq!(bench.spooled().len(), 4);

    let faulty = bench.faulty(0, vec![FaultRule::new(&[], 1.0, Fault::Refuse(StoreErrorKind::Unreachable))]);
    for number in 2..=5 {
        options.name = name(number).parse().unwrap();
        let report = bench.get_with(&options).await.unwrap();
        assert_eq!(report.source, GetSource::Spool);
        assert_eq!(std::fs::read(bench.destination()).unwrap(), segment(number, 1));
    }
    assert!(bench.spooled().is_empty());
    options.name = name(6).parse().unwrap();
    assert_eq!(kind(&bench.get_with(&options).await.unwrap_err()), "Store");
    faulty.set_active(false);
    assert_eq!(bench.get_with(&options).await.unwrap().prefetched, 2);
    // Recovery jumped, so the segments that it has passed are removed.
    options.name = name(8).parse().unwrap();
    bench.get_with(&options).await.unwrap();
    assert!(bench.spooled().is_empty());
}

#[tokio::test]
async fn a_torn_file_in_the_spool_is_fetched_again() {
    let bench = with_segments(1, 1, 3).await;
    let mut options = bench.get_options(&name(1));
    options.prefetch = 2;
    bench.get_with(&options).await.unwrap();
    let folder = std::fs::read_dir(bench.spool().join("main"))
        .unwrap()
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with("get-"))
        .unwrap()
        .path();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let mut content = std::fs::read(entry.path()).unwrap();
        content[5000] ^= 1;
        std::fs::write(entry.path(), content).unwrap();
    }
    options.name = name(2).parse().unwrap();
    let report = bench.get_with(&options).await.unwrap();
    assert_ne!(report.source, GetSource::Spool);
    assert_eq!(std::fs::read(bench.destination()).unwrap(), segment(2, 1));
}

#[tokio::test]
async fn without_an_identifier_the_claim_names_the_spool() {
    let bench = with_segments(1, 1, 3).await;
    let mut options = bench.get_options(&name(1));
    (options.prefetch, options.system_identifier) = (2, None);
    bench.get_with(&options).await.unwrap();
    options.name = name(2).parse().unwrap();
    assert_eq!(bench.get_with(&options).await.unwrap().source, GetSource::Spool);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_recoveries_share_a_spool() {
    let bench = std::sync::Arc::new(with_segments(1, 1, 24).await);
    let mut runs = tokio::task::JoinSet::new();
    for run in 0..2 {
        let bench = std::sync::Arc::clone(&bench);
        runs.spawn(async move {
            for number in 1..=24 {
                let mut options = bench.get_options(&name(number));
                options.prefetch = 4;
                options.destination = bench.spool().with_file_name(format!("destination-{run}"));
                bench.get_with(&options).await.unwrap();
                assert_eq!(std::fs::read(&options.destination).unwrap(), segment(number, 1));
            }
        });
    }
    while let Some(run) = runs.join_next().await {
        run.unwrap();
    }
    assert!(bench.spooled().len() <= 4, "{:?}", bench.spooled());
}

#[tokio::test]
async fn prefetching_is_never_an_error() {
    let mut bench = with_segments(1, 1, 5).await;
    let refuse = Fault::Refuse(StoreErrorKind::Unreachable);
    let on_third = format!("main/wal/1/00000001/0000000100000000/{}", name(3));
    bench.faulty(0, vec![FaultRule::new(&[Operation::Get], 1.0, refuse).on(&on_third)]);
    let mut options = bench.get_options(&name(1));
    options.prefetch = 8;
    assert_eq!(bench.get_with(&options).await.unwrap().prefetched, 3);
    // A spool that cannot be written.
    std::fs::remove_dir_all(bench.spool()).unwrap();
    std::fs::write(bench.spool(), b"in the way").unwrap();
    assert_eq!(bench.get_with(&options).await.unwrap().prefetched, 0);
}

#[tokio::test]
async fn a_destination_that_cannot_be_written_is_an_error() {
    let bench = with_segments(1, 1, 1).await;
    let mut options = bench.get_options(&name(1));
    options.destination = bench.spool().join("nowhere/RECOVERYXLOG");
    assert_eq!(kind(&bench.get_with(&options).await.unwrap_err()), "File");
}

#[tokio::test]
async fn what_holds_plain_wal_is_closed_to_others() {
    use std::os::unix::fs::PermissionsExt as _;
    let bench = with_segments(1, 1, 3).await;
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let pg_wal = bench.pgdata().join("pg_wal");
    // Like folders of `initdb`, without and with --allow-group-access. In a folder that is open to all, the file is
    // not.
    for (folder, file) in [(0o700, 0o600), (0o750, 0o640), (0o755, 0o600), (0o777, 0o600)] {
        std::fs::set_permissions(&pg_wal, std::fs::Permissions::from_mode(folder)).unwrap();
        for (number, source) in [(1, "repository"), (2, "spool")] {
            let mut options = bench.get_options(&name(number));
            options.prefetch = 1;
            options.destination = pg_wal.join("RECOVERYXLOG");
            let report = bench.get_with(&options).await.unwrap();
            assert_eq!(report.source == crate::archive::GetSource::Spool, source == "spool");
            assert_eq!(mode(&options.destination), file, "{folder:o} from the {source}");
            if number == 1 {
                let own = bench.spool().join("main");
                let get = std::fs::read_dir(&own).unwrap().flatten().map(|entry| entry.path());
                let get = get.into_iter().find(|path| path.to_string_lossy().contains("/get-")).unwrap();
                assert_eq!((mode(&own), mode(&get)), (0o700, 0o700));
                for kept in std::fs::read_dir(&get).unwrap().flatten() {
                    assert_eq!(mode(&kept.path()), 0o600);
                }
            }
        }
    }
}
