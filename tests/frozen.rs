//! This release restores the frozen samples of format version 1, and so does the independent reader that was written
//! from `docs/format/` alone. From the first release on the samples must stay readable for ever: nobody changes a byte
//! below `tests/samples/`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use holdfast_testkit::postgres::{Cluster, Installation};
use holdfast_testkit::scratch::{Scratch, built_program, publish_binary};
use holdfast_testkit::settings;
use holdfast_testkit::user::run_as_postgres;

/// The content of the table in each sample, see `tests/samples/README.md`.
const ROWS: &str = "SELECT count(*), sum(n), md5(string_agg(text, ',' ORDER BY n)) FROM sample";
/// The result for the clusters from which the samples were made.
const EXPECTED: [&str; 3] = ["2000", "2001000", "ff88c433ac874351087b912c542fc753"];
/// The major version of these clusters.
const MAJOR: u16 = 15;

/// A full backup; and an incremental one whose manifest refers to that of a removed backup.
const SAMPLES: [&str; 2] = ["repository-1", "repository-2"];

/// A copy of the sample that PostgreSQL's user can read, so that nothing can write to the original.
fn copy_of_sample(scratch: &Scratch, sample: &str) -> PathBuf {
    let original = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/samples").join(sample);
    let copy = scratch.path().join("repository");
    let status = Command::new("cp").arg("-R").arg(&original).arg(&copy).status().expect("run cp");
    assert!(status.success(), "cannot copy {}", original.display());
    scratch.user().own_tree(&copy).expect("give the copy to PostgreSQL's user");
    scratch.write("passphrase", "a frozen sample\n").expect("write the passphrase");
    copy
}

fn run(command: &mut Command) -> Output {
    run_as_postgres(command).expect("drop to PostgreSQL's user").output().expect("run the command")
}

fn assert_success(output: &Output, what: &str) {
    assert!(output.status.success(), "{what}:\n{}", String::from_utf8_lossy(&output.stderr));
}

async fn assert_rows(installation: &Installation, data: &Path) {
    let mut restored = Cluster::adopt(installation, data).expect("take over the restored folder");
    restored.override_setting("archive_mode", "off");
    restored.start().await.unwrap_or_else(|e| panic!("{e}\n{}", restored.log_text()));
    restored.wait_promoted(std::time::Duration::from_mins(3)).await.expect("wait for the end of recovery");
    assert_eq!(restored.sql(ROWS).await.expect("read the rows"), [EXPECTED.map(str::to_owned).to_vec()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn this_release_restores_the_frozen_samples() {
    let Some(installation) = Installation::or_skip(MAJOR) else { return };
    for sample in SAMPLES {
        this_release_restores(&installation, sample).await;
    }
}

async fn this_release_restores(installation: &Installation, sample: &str) {
    let scratch = Scratch::new().expect("make a folder");
    let repository = copy_of_sample(&scratch, sample);
    let folder = scratch.path().display();
    let config = format!(
        "[cluster]\nname = \"main\"\npgdata = \"{folder}/data\"\n\n[[repo]]\nurl = \"file://{}\"\n\
         encryption = {{ passphrase_file = \"{folder}/passphrase\" }}\n\n[wal]\nspool = \"{folder}/spool\"\n",
        repository.display()
    );
    let config = scratch.write("holdfast.toml", config).expect("write the configuration");
    let holdfast = publish_binary(&built_program("holdfast").expect("find holdfast")).expect("publish holdfast");
    let target = scratch.path().join("data");
    let mut restore = Command::new(holdfast);
    restore.arg("--config").arg(config).arg("restore").arg("--pgdata").arg(&target);
    assert_success(&run(&mut restore), "holdfast restore");
    assert_rows(installation, &target).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_independent_reader_restores_the_frozen_samples() {
    let Some(installation) = Installation::or_skip(MAJOR) else { return };
    let Some(python) = settings::get("HOLDFAST_PYTHON") else {
        settings::skip("there is no HOLDFAST_PYTHON; scripts/provision makes it");
        return;
    };
    for sample in SAMPLES {
        the_reader_restores(&installation, &python, sample).await;
    }
}

async fn the_reader_restores(installation: &Installation, python: &str, sample: &str) {
    let scratch = Scratch::new().expect("make a folder");
    let repository = copy_of_sample(&scratch, sample);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/format/reader.py");
    let text = std::fs::read_to_string(source).expect("read the reader");
    let reader = scratch.write("reader.py", text).expect("copy the reader");
    let passphrase = scratch.path().join("passphrase");
    let (target, wal) = (scratch.path().join("data"), scratch.path().join("wal"));
    let read = |arguments: &[&std::ffi::OsStr]| {
        let mut command = Command::new(python);
        command.arg(&reader).arg(&repository).args(arguments).arg("--passphrase-file").arg(&passphrase);
        assert_success(&run(&mut command), "reader.py");
    };
    read(&["restore".as_ref(), "main".as_ref(), "--to".as_ref(), target.as_os_str()]);
    assert!(target.join("global/pg_control").exists(), "the reader writes the control file");
    read(&["wal-all".as_ref(), "main".as_ref(), wal.as_os_str()]);
    let command = format!("restore_command = 'cp {}/%f \"%p\"'\n", wal.display());
    let settings = target.join("postgresql.auto.conf");
    std::fs::write(&settings, command).expect("write the settings");
    std::fs::write(target.join("recovery.signal"), "").expect("ask for recovery");
    assert_rows(installation, &target).await;
}
