//! The stage of the end-to-end tests: a PostgreSQL, a store, a configuration file and the `holdfast` binary, as a user
//! would have them.
//!
//! Everything runs as PostgreSQL's user, only through the command line: what these tests see is what a user sees.

pub(crate) mod attack;
pub(crate) mod held;
pub(crate) mod proof;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use holdfast_testkit::postgres::{Cluster, Installation};
use holdfast_testkit::s3::{Credentials, ForeignS3, Moto, Program, S3Server};
use holdfast_testkit::scratch::{Scratch, built_program, publish_binary};
use holdfast_testkit::user::run_as_postgres;

/// Where the repository is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreKind {
    /// `s3s-fs` over HTTP.
    S3,
    /// `s3s-fs`, which ignores the condition of a multipart upload.
    S3Parts,
    /// `rclone serve s3`.
    Rclone,
    /// The S3 gateway of JuiceFS.
    JuiceFs,
    /// The moto server, which is made for tests.
    Moto,
    /// A bucket of moto that locks objects, with `lock` in the configuration.
    Locking,
    /// A local directory.
    Directory,
}

/// How the repository is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seal {
    /// Without encryption.
    None,
    /// With a passphrase.
    Passphrase,
    /// With a key file.
    KeyFile,
}

/// The parts of a stage.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) store: StoreKind,
    pub(crate) seal: Seal,
    pub(crate) compression: &'static str,
    pub(crate) wal_compression: &'static str,
    pub(crate) checksums: bool,
    pub(crate) wal_segment_mib: u32,
    /// Further lines of `postgresql.conf`.
    pub(crate) settings: Vec<(&'static str, String)>,
    /// Whether the server archives its WAL through `holdfast wal push`.
    pub(crate) archive: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            store: StoreKind::S3,
            seal: Seal::Passphrase,
            compression: "zstd:3",
            wal_compression: "zstd:1",
            checksums: true,
            wal_segment_mib: 16,
            settings: Vec::new(),
            archive: true,
        }
    }
}

/// The stage, with its server running and its repository created.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) installation: Installation,
    pub(crate) cluster: Cluster,
    pub(crate) scratch: Scratch,
    pub(crate) s3: Option<S3Server>,
    pub(crate) foreign: Option<ForeignS3>,
    pub(crate) moto: Option<Moto>,
    pub(crate) config: PathBuf,
    pub(crate) holdfast: PathBuf,
}

/// The passphrase of encrypted stages.
pub(crate) const PASSPHRASE: &str = "correct horse battery staple";

/// The bucket of [`StoreKind::Locking`].
pub(crate) const LOCKING_BUCKET: &str = "holdfast-locking";

impl Stage {
    /// Builds a stage for one major, or prints why it is skipped.
    pub(crate) async fn start(major: u16, plan: Plan) -> Option<Self> {
        let installation = Installation::or_skip(major)?;
        let scratch = Scratch::new().expect("make a folder");
        let holdfast = publish_binary(&built_program("holdfast").expect("find holdfast")).expect("publish holdfast");
        let config = scratch.path().join("holdfast.toml");
        let mut builder = Cluster::builder(&installation)
            .checksums(plan.checksums)
            .wal_segment_mib(plan.wal_segment_mib)
            .setting("archive_timeout", "0");
        for (name, value) in &plan.settings {
            builder = builder.setting(name, value);
        }
        if plan.archive {
            let command = format!("{} --config {} wal push %p", holdfast.display(), config.display());
            builder = builder.archive_command(&command);
        }
        let mut cluster = builder.create().await.expect("make the cluster");
        let s3 = match plan.store {
            StoreKind::S3 => Some(S3Server::start()),
            StoreKind::S3Parts => Some(S3Server::builder().ignoring_conditions_of_uploads().start()),
            _ => None,
        };
        let s3 = s3.map(|started| started.expect("start the S3 server"));
        let foreign = match plan.store {
            StoreKind::Rclone => Some(ForeignS3::or_skip(Program::Rclone)?),
            StoreKind::JuiceFs => Some(ForeignS3::or_skip(Program::JuiceFs)?),
            _ => None,
        };
        let on_moto = matches!(plan.store, StoreKind::Moto | StoreKind::Locking);
        let moto = if on_moto { Some(Moto::or_skip()?) } else { None };
        scratch.write_secret("passphrase", format!("{PASSPHRASE}\n")).expect("write the passphrase");
        scratch.write("key", "07".repeat(32)).expect("write the key file");
        scratch.folder("spool").expect("make the spool");
        let elsewhere = match (&foreign, &moto) {
            (Some(server), _) => Some((server.endpoint(), server.credentials().clone())),
            (_, Some(server)) => Some((server.endpoint(), server.credentials())),
            _ => None,
        };
        let repository = match elsewhere {
            Some((endpoint, credentials)) => {
                let bucket = if plan.store == StoreKind::Locking { LOCKING_BUCKET } else { "holdfast" };
                let mut place = s3_lines(bucket, &endpoint, "us-east-1", &credentials, "repository");
                if let (StoreKind::Locking, Some(moto)) = (plan.store, &moto) {
                    moto.create_locking_bucket(LOCKING_BUCKET).expect("make a bucket");
                    place.push_str("lock = { mode = \"governance\", days = 30 }\n");
                }
                sealed_lines(&plan, &scratch, &place)
            }
            None => repository_lines(&plan, s3.as_ref(), &scratch, "repository"),
        };
        let text = config_text(&plan, &scratch, cluster.data(), &[repository]);
        scratch.write_secret("holdfast.toml", text).expect("write the configuration");
        cluster.start().await.expect("start the server");
        let stage = Self { installation, cluster, scratch, s3, foreign, moto, config, holdfast };
        stage.ok(&["repo", "init"]);
        Some(stage)
    }

    /// `holdfast` with the stage's configuration, as PostgreSQL's user.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.command_with(&self.config, arguments)
    }

    /// `holdfast` with another configuration file.
    pub(crate) fn command_with(&self, config: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.holdfast);
        command.arg("--config").arg(config).args(arguments).stdin(Stdio::null());
        run_as_postgres(&mut command).expect("drop to PostgreSQL's user");
        command.env("NO_COLOR", "1");
        command
    }

    /// Runs the command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("run holdfast")
    }

    /// Runs the command, which must succeed. Returns its standard output.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        succeeded(&self.run(arguments), arguments)
    }

    /// Runs the command with `--output json`. It must succeed.
    pub(crate) fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let mut all = vec!["--output", "json"];
        all.extend_from_slice(arguments);
        let text = self.ok(&all);
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e} in the output of {arguments:?}:\n{text}"))
    }

    /// Runs the command, which must fail. Returns its exit code and standard error.
    pub(crate) fn fails(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let code = output.status.code().unwrap_or(-1);
        assert_ne!(code, 0, "holdfast {arguments:?} should fail; it said:\n{text}");
        (code, text)
    }

    /// Starts the command and lets it run.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start holdfast")
    }

    /// A folder that does not exist yet, for a restore.
    pub(crate) fn target(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Restores into a new folder and starts a server there. If `promoted`, waits until recovery has ended.
    pub(crate) async fn restore_and_start(&self, name: &str, arguments: &[&str]) -> Cluster {
        let target = self.target(name);
        let path = target.display().to_string();
        let mut all = vec!["restore", "--pgdata", &path];
        all.extend_from_slice(arguments);
        self.ok(&all);
        self.start_restored(&target).await
    }

    /// Starts a server on a restored folder, with archiving into the old archive switched off.
    pub(crate) async fn start_restored(&self, target: &Path) -> Cluster {
        let mut restored = Cluster::adopt(&self.installation, target).expect("take over the restored folder");
        restored.override_setting("archive_mode", "off");
        restored.start().await.unwrap_or_else(|e| panic!("start the restored server: {e}\n{}", restored.log_text()));
        restored
    }

    /// A stage with two full backups that share nothing, three segments of WAL after each, and their ids.
    pub(crate) async fn with_two_backups(seal: Seal, store: StoreKind) -> Option<(Self, Vec<String>)> {
        let plan = Plan { store, seal, wal_segment_mib: 1, ..Plan::default() };
        let stage = Self::start(18, plan).await?;
        stage.cluster.sql("CREATE TABLE t AS SELECT g AS id FROM generate_series(1, 1000) g").await.expect("load data");
        let mut backups = Vec::new();
        for _ in 0..2 {
            let report = stage.json(&["backup", "--type", "full"]);
            let id = report["repositories"][0]["backup"]["backup_id"].as_str().expect("a backup id");
            backups.push(id.to_owned());
            for _ in 0..3 {
                stage.cluster.sql("INSERT INTO t SELECT generate_series(1, 1000)").await.expect("insert");
                stage.archive_now().await;
            }
        }
        Some((stage, backups))
    }

    /// Finishes the current segment and waits until it is archived.
    pub(crate) async fn archive_now(&self) {
        let name = self.cluster.value("SELECT pg_walfile_name(pg_current_wal_lsn())").await.expect("name the segment");
        self.cluster
            .sql("SELECT pg_create_restore_point('archive now'); SELECT pg_switch_wal()")
            .await
            .expect("switch");
        let query = format!("SELECT coalesce(last_archived_wal >= '{name}', false) FROM pg_stat_archiver");
        // After a storm there are thousands of earlier segments.
        self.cluster.wait_for(&query, Duration::from_mins(5)).await.expect("archive the segment");
    }

    /// All objects of the repository as files below this folder.
    pub(crate) fn repository_folder(&self) -> PathBuf {
        match &self.s3 {
            Some(s3) => s3.object_path(s3.bucket(), "repository"),
            None => self.scratch.path().join("repository"),
        }
    }

    /// Writes a second configuration file.
    pub(crate) fn write_config(&self, name: &str, text: &str) -> PathBuf {
        self.scratch.write_secret(name, text).expect("write a configuration")
    }

    /// The text of the stage's configuration.
    pub(crate) fn config_text(&self) -> String {
        std::fs::read_to_string(&self.config).expect("read the configuration")
    }
}

/// Waits until recovery has ended.
pub(crate) async fn wait_promoted(cluster: &Cluster) {
    cluster.wait_promoted(Duration::from_mins(3)).await.unwrap_or_else(|e| panic!("{e}\n{}", cluster.log_text()));
}

/// The standard output of a command that must have succeeded.
pub(crate) fn succeeded(output: &Output, arguments: &[&str]) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "holdfast {arguments:?} failed with {}:\n{error}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The `[[repo]]` table of a store.
pub(crate) fn repository_lines(plan: &Plan, s3: Option<&S3Server>, scratch: &Scratch, prefix: &str) -> String {
    let place = match s3 {
        Some(s3) => s3_lines(s3.bucket(), &s3.endpoint(), s3.region(), s3.credentials(), prefix),
        None => format!("url = \"file://{}\"\n", scratch.path().join(prefix).display()),
    };
    sealed_lines(plan, scratch, &place)
}

/// The lines that say where a repository in S3 is.
fn s3_lines(bucket: &str, endpoint: &str, region: &str, credentials: &Credentials, prefix: &str) -> String {
    format!(
        "url = \"s3://{bucket}/{prefix}\"\nendpoint = \"{endpoint}\"\nregion = \"{region}\"\npath_style = true\n\
         access_key_id = \"{}\"\nsecret_access_key = \"{}\"\n",
        credentials.access_key, credentials.secret_key,
    )
}

fn sealed_lines(plan: &Plan, scratch: &Scratch, place: &str) -> String {
    let folder = scratch.path().display();
    let seal = match plan.seal {
        Seal::None => "encryption = \"none\"\n".to_owned(),
        Seal::Passphrase => format!("encryption = {{ passphrase_file = \"{folder}/passphrase\" }}\n"),
        Seal::KeyFile => format!("encryption = {{ key_file = \"{folder}/key\" }}\n"),
    };
    format!("[[repo]]\n{place}{seal}")
}

/// A whole configuration file.
pub(crate) fn config_text(plan: &Plan, scratch: &Scratch, pgdata: &Path, repositories: &[String]) -> String {
    format!(
        "[cluster]\nname = \"main\"\npgdata = \"{}\"\n\n{}\n[backup]\ncompression = \"{}\"\nstart_fast = true\n\n\
         [wal]\ncompression = \"{}\"\nspool = \"{}\"\n",
        pgdata.display(),
        repositories.join("\n"),
        plan.compression,
        plan.wal_compression,
        scratch.path().join("spool").display(),
    )
}
