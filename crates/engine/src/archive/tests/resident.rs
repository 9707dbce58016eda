//! The archiver and the fetcher of a process that stays: what they keep between files, and for how long.

use std::path::Path;
use std::time::Duration;

use holdfast_pgtypes::{SegmentName, SystemIdentifier};
use holdfast_secret::Secret;
use holdfast_store::Store as _;
use tokio_util::sync::CancellationToken;

use super::{Bench, SYSTEM, is_absent, kind, name, now, segment};
use crate::archive::{
    Archiver, Durable, Fetched, Fetcher, FetcherOptions, Purpose, PushOutcome, Reopen, marked_durable,
};
use crate::error::Error;
use crate::pipeline::budget::{ByteBudget, MINIMUM_BYTES};
use crate::repository::{RepositoryTarget, Unlock, init};

impl Bench {
    fn archiver(&self) -> Archiver {
        Archiver::new(self.targets.clone(), no_others(), self.push_options("".as_ref()))
    }

    fn fetcher(&self) -> Fetcher {
        Fetcher::new(self.targets.clone(), no_others(), self.fetcher_options())
    }

    fn fetcher_options(&self) -> FetcherOptions {
        FetcherOptions {
            cluster: self.cluster.clone(),
            spool: self.opened_spool(),
            repository_set: self.set(),
            crew: self.crew.clone(),
            budget: ByteBudget::new(MINIMUM_BYTES),
        }
    }

    /// Somebody removes the whole repository and makes a new one at its place.
    async fn make_again(&self, repository: usize) {
        let store = &self.targets[repository].store;
        let names: Vec<_> =
            self.stores[repository].list("", None).await.unwrap().into_iter().map(|object| object.name).collect();
        store.delete(&names).await.unwrap();
        init::init(&self.targets[repository], now()).await.unwrap();
    }
}

fn no_others() -> Reopen {
    Box::new(|| Box::pin(async { None }))
}

async fn archive(archiver: &Archiver, path: &Path) -> Result<Durable, Error> {
    archiver.archive(path, Purpose::Asked, now(), &CancellationToken::new()).await
}

async fn fetch(fetcher: &Fetcher, number: u64, why: Purpose) -> Result<Fetched, Error> {
    let file = name(number).parse().unwrap();
    fetcher.fetch(file, SystemIdentifier::new(SYSTEM), why, &CancellationToken::new()).await
}

#[tokio::test]
async fn each_file_is_durable_and_marked_for_the_command_that_works_alone() {
    let bench = Bench::new(2).await;
    let paths = bench.segments(1, 3);
    let archiver = bench.archiver();
    for path in &paths {
        let durable = archive(&archiver, path).await.unwrap();
        assert!(matches!(&durable.outcome, PushOutcome::Archived(file) if file.repositories.len() == 2));
        assert!(archiver.still_holds(&durable, path, now()).await.unwrap());
    }
    for store in 0..2 {
        assert_eq!(bench.objects(store, "main/wal/").await.len(), 3);
    }
    assert!(paths.iter().all(|path| marked_durable(&bench.opened_spool(), &bench.set(), path)));

    let durable = archive(&archiver, &paths[0]).await.unwrap();
    archiver.forget_mark(&durable);
    assert!(!marked_durable(&bench.opened_spool(), &bench.set(), &paths[0]));
    // Another file has the name now.
    std::fs::write(&paths[0], segment(1, 9)).unwrap();
    assert!(!archiver.still_holds(&durable, &paths[0], now()).await.unwrap());
    let error = archive(&archiver, &paths[0]).await.unwrap_err();
    assert_eq!(kind(&error), "Divergence");
}

#[tokio::test(start_paused = true)]
async fn a_repository_that_was_made_again_does_not_hold_what_the_first_one_held() {
    let bench = Bench::new(1).await;
    let paths = bench.segments(1, 2);
    let archiver = bench.archiver();
    let durable = archive(&archiver, &paths[0]).await.unwrap();
    bench.make_again(0).await;
    tokio::time::advance(Duration::from_mins(1)).await;
    assert!(!archiver.still_holds(&durable, &paths[0], now()).await.unwrap());
    let durable = archive(&archiver, &paths[0]).await.unwrap();
    assert!(archiver.still_holds(&durable, &paths[0], now()).await.unwrap());
    assert_eq!(bench.objects(0, "main/wal/").await.len(), 1);
}

#[tokio::test]
async fn repo_init_on_this_machine_is_noticed_at_once() {
    let bench = Bench::encrypted().await;
    let paths = bench.segments(1, 2);
    let archiver = bench.archiver();
    let durable = archive(&archiver, &paths[0]).await.unwrap();
    bench.make_again(0).await;
    bench.opened_spool().forget_marks().unwrap();
    assert!(!archiver.still_holds(&durable, &paths[0], now()).await.unwrap());
    for path in &paths {
        archive(&archiver, path).await.unwrap();
    }
    // With the new key and under the new claim.
    assert_eq!(bench.get(&name(2)).await.unwrap().size_bytes, u64::from(super::SIZE));
}

#[tokio::test]
async fn a_file_takes_a_write_and_a_look_and_a_failure_opens_again() {
    let mut bench = Bench::new(1).await;
    let paths = bench.segments(1, 3);
    let faulty = bench.faulty(0, Vec::new());
    let archiver = bench.archiver();
    archive(&archiver, &paths[0]).await.unwrap();
    // Two requests are answered; the third one fails.
    faulty.crash_after(3);
    archive(&archiver, &paths[1]).await.unwrap();
    archive(&archiver, &paths[2]).await.unwrap_err();
    // Opening takes more than two requests.
    faulty.crash_after(2);
    archive(&archiver, &paths[2]).await.unwrap_err();
    faulty.crash_after(u64::MAX);
    archive(&archiver, &paths[2]).await.unwrap();
}

#[tokio::test]
async fn only_an_answer_that_was_asked_twice_is_absent() {
    let bench = Bench::new(2).await;
    for path in bench.segments(1, 4) {
        bench.push(&path).await.unwrap();
    }
    let fetcher = bench.fetcher();
    let Fetched::Segment { path, .. } = fetch(&fetcher, 1, Purpose::Asked).await.unwrap() else { panic!("not kept") };
    assert!(std::fs::read(path).unwrap() == segment(1, 1));
    assert!(is_absent(&fetch(&fetcher, 9, Purpose::Asked).await.unwrap_err()));
    assert!(is_absent(&fetch(&fetcher, 9, Purpose::Ahead).await.unwrap_err()));

    // The first repository is lost: what was opened before still answers "not there" for everything.
    let names: Vec<_> = bench.stores[0].list("", None).await.unwrap().into_iter().map(|object| object.name).collect();
    bench.targets[0].store.delete(&names).await.unwrap();
    let error = fetch(&fetcher, 9, Purpose::Asked).await.unwrap_err();
    assert!(!is_absent(&error), "recovery would end: {error}");
    // The other one still serves.
    assert!(matches!(fetch(&fetcher, 2, Purpose::Asked).await.unwrap(), Fetched::Segment { .. }));
    assert_eq!(bench.spooled().len(), 2);
    let reached: SegmentName = name(2).parse().unwrap();
    fetcher.sweep(SystemIdentifier::new(SYSTEM), reached, 8);
    assert_eq!(bench.spooled().len(), 0, "recovery has passed them");
}

/// A key file was replaced, or a certificate: the process has the old one, and the targets made again have the new one.
#[tokio::test]
async fn after_a_failure_the_targets_are_made_again() {
    let bench = Bench::new(1).await;
    let paths = bench.segments(1, 2);
    bench.push(&paths[0]).await.unwrap();
    let wrong = RepositoryTarget { unlock: Unlock::KeyFile(Secret::new(vec![7; 32])), ..bench.targets[0].clone() };
    let right = bench.targets.clone();
    let reopen = || -> Reopen {
        let right = right.clone();
        Box::new(move || {
            let right = right.clone();
            Box::pin(async move { Some(right) })
        })
    };
    let archiver = Archiver::new(vec![wrong.clone()], reopen(), bench.push_options("".as_ref()));
    assert_eq!(kind(&archive(&archiver, &paths[1]).await.unwrap_err()), "EncryptionMismatch");
    archive(&archiver, &paths[1]).await.unwrap();
    let fetcher = Fetcher::new(vec![wrong], reopen(), bench.fetcher_options());
    assert_eq!(kind(&fetch(&fetcher, 1, Purpose::Asked).await.unwrap_err()), "EncryptionMismatch");
    fetch(&fetcher, 1, Purpose::Asked).await.unwrap();
}
