//! Bounds that hold for any size: memory stays within `backup.memory` plus 64 MiB, a small budget never stops a command
//! for ever, and one large file keeps all threads busy.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::stage::proof::same_trees;
use crate::stage::{Plan, Seal, Stage, StoreKind, succeeded};
use holdfast_testkit::proxy::TcpProxy;
use holdfast_testkit::random::Random;

const MIB: u64 = 1 << 20;

/// Measurements of a process while it ran.
#[derive(Debug, Default)]
struct Seen {
    /// The most memory that it ever had, in bytes, without the program's own pages (`VmHWM` less `RssFile`).
    peak_bytes: u64,
    /// Clock ticks that each of its worker threads used, by thread id.
    crew: BTreeMap<u32, u64>,
    took: Duration,
}

/// Runs a command to its end and watches it. The command must succeed.
fn watch(mut command: Command, limit: Duration) -> Seen {
    let start = Instant::now();
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start holdfast");
    let pid = child.id();
    let mut guard = Guard(Some(child));
    let mut seen = Seen::default();
    loop {
        look(pid, &mut seen);
        let child = guard.0.as_mut().expect("a child");
        if child.try_wait().expect("wait").is_some() {
            break;
        }
        assert!(start.elapsed() < limit, "{command:?} does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
    seen.took = start.elapsed();
    let output = guard.0.take().expect("a child").wait_with_output().expect("wait");
    succeeded(&output, &["watched"]);
    seen
}

/// Ends the child when the test fails.
struct Guard(Option<Child>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn look(pid: u32, seen: &mut Seen) {
    // The process may end between two readings. That is not a fault: the earlier numbers count.
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let bytes = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).map_or(0, |kib| kib * 1024)
    };
    // The program itself, mapped from its file, grows with each release and not with the work.
    let peak = bytes("VmHWM:").saturating_sub(bytes("RssFile:"));
    seen.peak_bytes = seen.peak_bytes.max(peak);
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return };
    for task in tasks.flatten() {
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        let thread = task.file_name().to_string_lossy().parse().unwrap_or(0);
        // Fields 14 and 15, user and system time. The name in field 2 may contain spaces.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        if name.starts_with("crew-")
            && let (Some(Ok(user)), Some(Ok(system))) =
                (fields.get(11).map(|text| text.parse::<u64>()), fields.get(12).map(|text| text.parse::<u64>()))
        {
            seen.crew.insert(thread, user + system);
        }
    }
}

/// A file of this many MiB. Even MiBs compress badly, odd ones are text.
fn fill(stage: &Stage, name: &str, mib: u64) {
    let path = stage.cluster.data().join(name);
    let mut file = std::io::BufWriter::new(fs::File::create(&path).expect("make a file"));
    let mut random = Random::of_seed(mib ^ name.len() as u64);
    let mut block = vec![0_u8; MIB as usize];
    for n in 0..mib {
        for word in block.as_chunks_mut::<8>().0 {
            *word = if n % 2 == 0 {
                random.word().to_le_bytes()
            } else {
                format!("{:08}", random.below(5000)).as_bytes()[..8].try_into().expect("8")
            };
        }
        file.write_all(&block).expect("write");
    }
    file.flush().expect("write");
    drop(file);
    stage.cluster.scratch().user().own(&path).expect("give it away");
}

fn with_memory(config: &str, memory: &str, jobs: u32) -> String {
    let limits = format!("start_fast = true\nmemory = \"{memory}\"\njobs = {jobs}");
    let changed = config.replace("start_fast = true", &limits);
    assert_ne!(changed, config);
    format!("{changed}\n[restore]\njobs = {jobs}\n")
}

fn assert_bounded(what: &str, seen: &Seen, memory: u64) {
    let (peak, bound) = (seen.peak_bytes >> 20, memory + 64);
    eprintln!("{what}: at most {peak} MiB in {:.1} s, bound {bound} MiB", seen.took.as_secs_f64());
    assert!(peak > 0, "{what}: never seen");
    assert!(peak <= bound, "{what} had {peak} MiB, with a budget of {memory} MiB");
}

/// 600 MiB in large and small files, into a slow store and back.
#[tokio::test(flavor = "multi_thread")]
async fn memory_stays_within_the_budget() {
    let plan = Plan { wal_segment_mib: 1, compression: "lz4", ..Plan::default() };
    let Some(stage) = Stage::start(18, plan).await else { return };
    fill(&stage, "one", 400);
    fill(&stage, "two", 150);
    let small = stage.cluster.data().join("small");
    fs::create_dir(&small).expect("make a folder");
    for n in 0..3000_u32 {
        fs::write(small.join(n.to_string()), n.to_le_bytes().repeat(4096)).expect("write a file");
    }
    stage.cluster.scratch().user().own_tree(&small).expect("give it away");
    let s3 = stage.s3.as_ref().expect("an S3 server");
    let proxy = TcpProxy::start(s3.address()).expect("start a proxy");
    proxy.set_latency(Duration::from_millis(25));
    let far = with_memory(&stage.config_text(), "64MiB", 2).replace(&s3.endpoint(), &proxy.endpoint());
    let far = stage.write_config("far.toml", &far);
    let limit = Duration::from_mins(4);
    let backup = watch(stage.command_with(&far, &["backup", "--type", "full"]), limit);
    assert_bounded("the backup", &backup, 64);
    stage.archive_now().await;

    let target = stage.target("restored");
    let place = target.display().to_string();
    let restore = watch(stage.command_with(&far, &["restore", "--pgdata", &place]), limit);
    assert_bounded("the restore", &restore, 64);
    same_trees(&stage.cluster.data().join("small"), &target.join("small"), &[]);
    // Existing files are compared by hash, and only a little has to be fetched.
    fs::remove_file(target.join("two")).expect("remove a file");
    let delta = watch(stage.command_with(&far, &["restore", "--delta", "--pgdata", &place]), limit);
    assert_bounded("the restore over it", &delta, 64);
    for name in ["one", "two"] {
        assert!(same_file(&stage.cluster.data().join(name), &target.join(name)), "{name} differs");
    }
}

fn same_file(left: &Path, right: &Path) -> bool {
    fs::read(left).expect("read") == fs::read(right).expect("read")
}

/// Far more threads than the budget has room for, two repositories, incompressible data: the backup still ends, and
/// stays within the bound. So does the restore. If the parts of uploads could use up the whole budget, it is refused at
/// once.
#[tokio::test(flavor = "multi_thread")]
async fn a_small_budget_never_blocks_a_command() {
    let plan = Plan {
        store: StoreKind::Directory,
        seal: Seal::Passphrase,
        compression: "none",
        wal_segment_mib: 1,
        ..Plan::default()
    };
    let Some(stage) = Stage::start(18, plan).await else { return };
    let second = stage.scratch.path().join("second");
    let block = format!("[[repo]]\nurl = \"file://{}\"\nencryption = \"none\"\n\n[backup]", second.display());
    let config = stage.config_text().replacen("[backup]", &block, 1);
    stage.write_config("holdfast.toml", &config);
    stage.ok(&["repo", "init"]);
    fill(&stage, "large", 120);
    let crowded = stage.write_config("crowded.toml", &with_memory(&config, "64MiB", 64));
    let limit = Duration::from_mins(3);
    let backup = watch(stage.command_with(&crowded, &["backup", "--type", "full"]), limit);
    // The allocator keeps some memory for each thread.
    assert_bounded("the backup with 64 threads", &backup, 64 + 64);
    stage.archive_now().await;
    let target = stage.target("restored");
    let restore = watch(stage.command_with(&crowded, &["restore", "--pgdata", &target.display().to_string()]), limit);
    assert_bounded("the restore with 64 threads", &restore, 64 + 64);
    assert!(same_file(&stage.cluster.data().join("large"), &target.join("large")));

    let wide = config.replacen("encryption = \"none\"", "encryption = \"none\"\npart_size = \"64MiB\"", 1);
    let wide = stage.write_config("wide.toml", &with_memory(&wide, "64MiB", 2));
    let output = stage.command_with(&wide, &["backup"]).output().expect("run holdfast");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{message}");
    assert!(
        message.contains("backup.memory of 64 MiB is too little for 2 repositories with parts of 64 MiB"),
        "{message}"
    );
    let list = stage.ok(&["list"]);
    assert!(!list.contains("unfinished"), "{list}");
}

/// One file of 160 MiB: several threads compress it, and no thread does nearly all of the work.
#[tokio::test(flavor = "multi_thread")]
async fn one_large_file_keeps_all_threads_busy() {
    let plan = Plan { store: StoreKind::Directory, wal_segment_mib: 1, compression: "zstd:6", ..Plan::default() };
    let Some(stage) = Stage::start(18, plan).await else { return };
    fill(&stage, "large", 160);
    let limit = Duration::from_mins(2);
    for jobs in ["2", "4"] {
        let seen = watch(stage.command(&["backup", "--type", "full", "--jobs", jobs]), limit);
        let wanted: usize = jobs.parse().expect("a number");
        let mut worked: Vec<u64> = seen.crew.values().copied().collect();
        worked.sort_unstable_by(|a, b| b.cmp(a));
        eprintln!("--jobs {jobs}: clock ticks of the crew {worked:?} in {:.1} s", seen.took.as_secs_f64());
        let all: u64 = worked.iter().sum();
        assert!(worked.len() >= wanted && all > 50, "{worked:?}");
        let least = worked[wanted - 1] * wanted as u64;
        assert!(least * 3 >= all, "one of {jobs} threads did less than a third of its share: {worked:?}");
    }
}
