//! Push and get over HTTP, as one process a call does them: every call opens its own store and repository.
//!
//! The figures are printed, not judged: a busy machine is not a fault. What is judged is that every byte comes back and
//! that most calls need no network.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::time::{Duration, Instant};

use chrono::Utc;
use holdfast_engine::archive::{
    self, GetOptions, GetSource, PushOptions, PushOutcome, RepositorySetId, Spool, marked_durable,
};
use holdfast_engine::pipeline::budget::ByteBudget;
use holdfast_engine::pipeline::crew::Crew;
use holdfast_engine::progress::Silent;
use holdfast_engine::repository::{RepositoryTarget, Unlock, init};
use holdfast_pgtypes::{PgVersion, SegmentName, SystemIdentifier, TimelineId, WalSegmentSize};
use holdfast_repo::name::ClusterName;
use holdfast_secret::Secret;
use holdfast_store::{Credentials, StoreConfig};
use holdfast_testkit::proxy::TcpProxy;
use holdfast_testkit::random::Random;
use holdfast_testkit::s3::S3Server;
use tokio_util::sync::CancellationToken;

const SEGMENTS: u64 = 34;
const SYSTEM: u64 = 7_710_912_426_042_727_162;

fn name(number: u64) -> String {
    SegmentName::from_number(number, TimelineId::FIRST, WalSegmentSize::DEFAULT).unwrap().to_string()
}

/// A segment with a valid header and a body that zstd makes about four times smaller, as ordinary WAL.
fn segment(number: u64) -> Vec<u8> {
    let size = WalSegmentSize::DEFAULT.bytes();
    let mut bytes = Vec::with_capacity(size as usize);
    bytes.extend(PgVersion::V18.wal_page_magic().to_le_bytes());
    bytes.extend(2_u16.to_le_bytes());
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend((number * u64::from(size)).to_le_bytes());
    bytes.extend([0; 8]);
    bytes.extend(SYSTEM.to_le_bytes());
    bytes.extend(size.to_le_bytes());
    bytes.extend(8192_u32.to_le_bytes());
    let mut random = Random::of_seed(number);
    while bytes.len() < size as usize {
        bytes.extend_from_slice(&(random.word() as u32).to_le_bytes());
        bytes.extend_from_slice(b"a row of the table");
        bytes.extend_from_slice(&[0, 1]);
    }
    bytes.truncate(size as usize);
    bytes
}

struct Bench {
    folder: tempfile::TempDir,
    config: StoreConfig,
    unlock: Unlock,
    cluster: ClusterName,
}

impl Bench {
    async fn new(endpoint: String, server: &S3Server) -> Self {
        let mut config = StoreConfig::new("s3://holdfast/archive".parse().unwrap());
        config.s3.endpoint = Some(endpoint);
        config.s3.region = Some("us-east-1".to_owned());
        config.s3.path_style = true;
        config.s3.credentials = Credentials::Static {
            access_key: Secret::new(&server.credentials().access_key),
            secret_key: Secret::new(&server.credentials().secret_key),
            session_token: None,
        };
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("pg_wal/archive_status")).unwrap();
        let unlock = Unlock::KeyFile(Secret::new(*b"0123456789abcdef0123456789abcdef"));
        let bench = Self { folder, config, unlock, cluster: "main".parse().unwrap() };
        init::init(&bench.target().await, Utc::now()).await.unwrap();
        for number in 1..=SEGMENTS {
            let wal = bench.folder.path().join("pg_wal");
            std::fs::write(wal.join(name(number)), segment(number)).unwrap();
            std::fs::write(wal.join("archive_status").join(format!("{}.ready", name(number))), b"").unwrap();
        }
        bench
    }

    async fn target(&self) -> RepositoryTarget {
        RepositoryTarget { store: holdfast_store::open(&self.config).await.unwrap(), unlock: self.unlock.clone() }
    }

    fn spool(&self) -> Spool {
        Spool::open(&self.folder.path().join("spool"), &self.cluster).unwrap()
    }

    fn set(&self) -> RepositorySetId {
        RepositorySetId::new(&self.cluster, ["s3://holdfast/archive"])
    }

    /// Calls for every segment, as PostgreSQL does; how many needed the network.
    async fn push_all(&self) -> u32 {
        let mut runs = 0;
        for number in 1..=SEGMENTS {
            let path = self.folder.path().join("pg_wal").join(name(number));
            if marked_durable(&self.spool(), &self.set(), &path) {
                continue;
            }
            runs += 1;
            let options = PushOptions {
                owner: None,
                cluster: self.cluster.clone(),
                path,
                compression: "zstd:1".parse().unwrap(),
                push_ahead: 15,
                spool: Some(self.spool()),
                repository_set: self.set(),
                crew: Crew::new(0),
                budget: ByteBudget::new(256 << 20),
                host: "db1".to_owned(),
                now: Utc::now(),
            };
            let never = CancellationToken::new();
            let report = archive::push(&[self.target().await], &options, &Silent, &never).await.unwrap();
            assert!(matches!(report.outcome, PushOutcome::Archived(_)));
            assert!(report.failed_neighbours.is_empty(), "{:?}", report.failed_neighbours);
        }
        runs
    }

    /// Fetches every segment; how many needed the network.
    async fn get_all(&self) -> u32 {
        let (mut runs, mut without_network) = (0, Duration::ZERO);
        let destination = self.folder.path().join("RECOVERYXLOG");
        for number in 1..=SEGMENTS {
            let options = GetOptions {
                cluster: self.cluster.clone(),
                name: name(number).parse().unwrap(),
                destination: destination.clone(),
                last_ahead: None,
                prefetch: 8,
                spool: Some(self.spool()),
                repository_set: self.set(),
                system_identifier: Some(SystemIdentifier::new(SYSTEM)),
                tails: Vec::new(),
                crew: Crew::new(0),
                budget: ByteBudget::new(256 << 20),
                now: Utc::now(),
            };
            let never = CancellationToken::new();
            let begun = Instant::now();
            let report = archive::get(&[self.target().await], &options, &never).await.unwrap();
            if report.source == GetSource::Spool {
                without_network += begun.elapsed();
            } else {
                runs += 1;
            }
        }
        eprintln!("{} ms for {} segments from the spool", without_network.as_millis(), SEGMENTS - u64::from(runs));
        assert!(same(&destination, &segment(SEGMENTS)));
        runs
    }
}

fn same(path: &Path, content: &[u8]) -> bool {
    std::fs::read(path).unwrap() == content
}

async fn all_segments_there_and_back(latency: Duration) {
    let server = S3Server::start().unwrap();
    let proxy = TcpProxy::start(server.endpoint().trim_start_matches("http://").parse().unwrap()).unwrap();
    let bench = Bench::new(proxy.endpoint(), &server).await;
    proxy.set_latency(latency / 2);

    let begun = Instant::now();
    assert_eq!(bench.push_all().await, 3);
    let pushed = begun.elapsed();
    let begun = Instant::now();
    assert_eq!(bench.get_all().await, 4);
    let fetched = begun.elapsed();
    eprintln!(
        "{SEGMENTS} segments with {} ms of latency: pushed in {} ms each, fetched in {} ms each",
        latency.as_millis(),
        pushed.as_millis() / u128::from(SEGMENTS),
        fetched.as_millis() / u128::from(SEGMENTS)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn over_loopback() {
    all_segments_there_and_back(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_way_of_20_ms() {
    all_segments_there_and_back(Duration::from_millis(20)).await;
}
