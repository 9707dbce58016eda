//! Removes all but the last of a thousand backups and a million segments, in a store that takes 20 ms for each request.
//! The clock of the test is virtual, so the test measures how many requests wait for each other.

use super::bench::Bench;
use crate::expire::{ExpireOptions, Keep, Policy, plan};
use crate::progress::Silent;
use crate::repository::{Repository, RepositoryTarget};
use async_trait::async_trait;
use bytes::Bytes;
use chrono::TimeDelta;
use holdfast_pgtypes::{Lsn, SegmentName, TimelineId, WalSegmentSize};
use holdfast_repo::name::{self, BackupId};
use holdfast_repo::record::BackupRecord;
use holdfast_store::{
    FolderPage, ListPage, MOST_DELETED, MemoryStore, ObjectInfo, ObjectName, PutMode, Store, StoreError, Upload,
};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

const BACKUPS: u64 = 1000;
const SEGMENTS: u64 = 1_000_000;
const BETWEEN: u64 = SEGMENTS / BACKUPS;
const PACKS_EACH: u32 = 4;

/// The limit for the memory of this process.
const MOST_KIB: u64 = 256 << 10;

fn segment(number: u64) -> SegmentName {
    SegmentName::from_number(number, TimelineId::FIRST, WalSegmentSize::DEFAULT).unwrap()
}

/// A store that keeps no segments: it makes their names from their numbers.
#[derive(Debug)]
struct Long {
    inner: MemoryStore,
    /// What is before and after the name of a segment.
    folder: String,
    suffix: String,
    /// Whether a segment is removed, by its number.
    gone: Mutex<Vec<bool>>,
    requests: AtomicU64,
}

impl Long {
    async fn wait(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    fn name(&self, number: u64) -> String {
        let segment = segment(number);
        format!("{}{}/{segment}{}", self.folder, segment.group(), self.suffix)
    }

    /// The number of the first segment whose name is not less.
    fn lower_bound(&self, name: &str) -> u64 {
        let (mut low, mut high) = (1, SEGMENTS + 1);
        while low < high {
            let middle = low.midpoint(high);
            if self.name(middle).as_str() < name { low = middle + 1 } else { high = middle }
        }
        low
    }
}

#[async_trait]
impl Store for Long {
    async fn put(&self, name: &ObjectName, body: Bytes, mode: PutMode) -> Result<(), StoreError> {
        self.wait().await;
        self.inner.put(name, body, mode).await
    }

    async fn get(&self, name: &ObjectName) -> Result<Bytes, StoreError> {
        self.wait().await;
        self.inner.get(name).await
    }

    async fn get_at_most(&self, name: &ObjectName, most: u64) -> Result<Bytes, StoreError> {
        self.wait().await;
        self.inner.get_at_most(name, most).await
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.wait().await;
        self.inner.get_range(name, range).await
    }

    async fn get_tail(&self, name: &ObjectName, bytes: u64) -> Result<(Bytes, u64), StoreError> {
        self.wait().await;
        self.inner.get_tail(name, bytes).await
    }

    async fn head(&self, name: &ObjectName) -> Result<ObjectInfo, StoreError> {
        self.wait().await;
        self.inner.head(name).await
    }

    async fn list_page(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        next: Option<&str>,
    ) -> Result<ListPage, StoreError> {
        self.wait().await;
        if !prefix.starts_with(&self.folder) {
            return self.inner.list_page(prefix, start_after, next).await;
        }
        let after = start_after.into_iter().chain(next).max().unwrap_or_default();
        let mut number = self.lower_bound(prefix.max(after));
        let gone = self.gone.lock();
        let mut page = ListPage::default();
        while number <= SEGMENTS {
            let name = self.name(number);
            if !name.starts_with(prefix) {
                break;
            }
            if page.objects.len() == 1000 {
                page.next = page.objects.last().map(|last: &ObjectInfo| last.name.to_string());
                break;
            }
            if !gone[usize::try_from(number).unwrap()] && name.as_str() > after {
                let modified = Some(SystemTime::now());
                page.objects.push(ObjectInfo { name: name.parse().unwrap(), size_bytes: 1, crc32c: None, modified });
            }
            number += 1;
        }
        Ok(page)
    }

    async fn list_folders_page(&self, prefix: &str, next: Option<&str>) -> Result<FolderPage, StoreError> {
        self.wait().await;
        if !prefix.starts_with(&self.folder) {
            return self.inner.list_folders_page(prefix, next).await;
        }
        let groups: BTreeSet<String> = (1..=SEGMENTS).step_by(256).map(|number| segment(number).group()).collect();
        let mut later = groups.into_iter().filter(|group| next.is_none_or(|next| group.as_str() > next));
        let folders: Vec<String> = later.by_ref().take(1000).collect();
        let next = later.next().and_then(|_| folders.last().cloned());
        Ok(FolderPage { folders, next })
    }

    async fn delete_some(&self, names: &[ObjectName]) -> Result<usize, StoreError> {
        self.wait().await;
        let some = &names[..names.len().min(MOST_DELETED)];
        let mut others = Vec::new();
        for name in some {
            if name.as_ref().starts_with(&self.folder) {
                let number = self.lower_bound(name.as_ref());
                self.gone.lock()[usize::try_from(number).unwrap()] = true;
            } else {
                others.push(name.clone());
            }
        }
        self.inner.delete(&others).await?;
        Ok(some.len())
    }

    async fn begin_upload(&self, name: &ObjectName, mode: PutMode) -> Result<Box<dyn Upload>, StoreError> {
        self.inner.begin_upload(name, mode).await
    }

    fn describe(&self) -> String {
        "long:".to_owned()
    }
}

/// The peak memory of this process.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_million_segments_are_removed_within_a_minute() {
    let bench = Bench::new(false).await;
    let id = |number: u64| {
        let hours = i64::try_from(BACKUPS + 1 - number).unwrap();
        BackupId::new(bench.now - TimeDelta::hours(hours)).unwrap()
    };
    for number in 0..BACKUPS {
        let (id, first) = (id(number), number * BETWEEN + 1);
        bench.repository.create_record(&name::backup_start(&bench.cluster, &id), &bench.start(id)).await.unwrap();
        let packs: Vec<String> = (1..=PACKS_EACH).map(|pack| name::pack(&bench.cluster, &id, pack)).collect();
        for pack in &packs {
            bench.put(pack).await;
        }
        bench.manifest(id, &packs, BTreeSet::new()).await;
        let record = BackupRecord {
            backup_id: id,
            start_lsn: Lsn::new((first << 24) + 0x28),
            stop_lsn: Lsn::new((first << 24) + 0x100),
            start_segment: segment(first),
            stop_segment: segment(first),
            start_time: id.time(),
            stop_time: id.time() + TimeDelta::minutes(5),
            ..bench.record(0)
        };
        bench.repository.create_record(&name::backup_summary(&bench.cluster, &id), &record).await.unwrap();
    }
    // One segment really exists, so that its folders do.
    bench.segment(SEGMENTS).await;
    let sample = bench.wal_of(1);
    let (folder, file) = sample.split_once(&format!("{}/", segment(1).group())).unwrap();
    let long = std::sync::Arc::new(Long {
        inner: bench.memory.clone(),
        folder: folder.to_owned(),
        suffix: file.strip_prefix(&segment(1).to_string()).unwrap().to_owned(),
        gone: Mutex::new(vec![false; usize::try_from(SEGMENTS).unwrap() + 1]),
        requests: AtomicU64::new(0),
    });
    let target = RepositoryTarget { store: long.clone(), unlock: bench.target.unlock.clone() };
    let repository = Repository::open(&target).await.unwrap();
    let options = ExpireOptions {
        policy: Policy { keep: Keep { last: 1, ..Keep::default() }, ..Policy::default() },
        ..bench.last(1)
    };
    let measured = |what: &str, began: Instant| {
        let (requests, peak) = (long.requests.swap(0, Ordering::Relaxed), peak_kib() >> 10);
        eprintln!("{what}: {requests} requests, {:.1} s of waiting, at most {peak} MiB", began.elapsed().as_secs_f64());
        began.elapsed()
    };
    let began = Instant::now();
    let planned = plan(&repository, &options, &Silent).await.unwrap();
    assert_eq!(planned.backups.iter().filter(|backup| !backup.kept).count() as u64, BACKUPS - 1);
    measured("plan", began);
    let began = Instant::now();
    let report = bench.expire_through(&repository, &options, &Silent).await.unwrap();
    assert!(measured("expire", began) < Duration::from_mins(1));
    assert_eq!(report.removed.backups.len() as u64, BACKUPS - 1);
    assert_eq!(report.removed.wal_files, (BACKUPS - 1) * BETWEEN);
    assert!(peak_kib() < MOST_KIB, "{} KiB", peak_kib());
    let left = long.gone.lock().iter().filter(|gone| !**gone).count();
    assert_eq!(left as u64, BETWEEN + 1);
}
