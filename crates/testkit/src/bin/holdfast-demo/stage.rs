//! The servers of the demo, and `holdfast` with its configuration, run visibly.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use holdfast_testkit::postgres::{Cluster, Installation};
use holdfast_testkit::s3::{Credentials, S3Server};
use holdfast_testkit::scratch::{Scratch, built_program, publish_binary};

use crate::Result;
use crate::screen::Screen;

const BUCKET: &str = "backups";

/// All servers and folders. In whichever order its fields are dropped, the servers end before the folder that they
/// write to is removed.
#[derive(Debug)]
pub(crate) struct Stage {
    /// The restored server, once there is one.
    pub(crate) restored: Option<Cluster>,
    /// The server that is backed up.
    pub(crate) cluster: Cluster,
    /// The object store.
    pub(crate) s3: S3Server,
    /// A copy of the program, where PostgreSQL's user can run it.
    pub(crate) holdfast: PathBuf,
    /// The programs of the chosen PostgreSQL.
    pub(crate) installation: Installation,
    /// The demo's folder: configuration, passphrase, spool, objects, and the restored data directory.
    pub(crate) folder: Scratch,
}

impl Stage {
    /// Makes the cluster and the store, and starts both.
    pub(crate) async fn set(major: u16) -> Result<Self> {
        let installation = Installation::find(major)?;
        let holdfast = publish_binary(&built_program("holdfast")?)?;
        let folder = Scratch::new()?;
        let config = folder.path().join("holdfast.toml");
        let mut cluster = Cluster::builder(&installation)
            .setting("fsync", "on")
            .setting("shared_buffers", "128MB")
            .archive_command(&format!("{} --config {} wal push \"%p\"", holdfast.display(), config.display()))
            .create()
            .await?;
        let s3 = S3Server::builder()
            .bucket(BUCKET)
            .credentials(Credentials { access_key: "demo".to_owned(), secret_key: "demo-secret".to_owned() })
            .root(&folder.folder("s3")?)
            .start()?;
        folder.write_secret("passphrase", "a passphrase that is kept somewhere else, too\n")?;
        folder.folder("spool")?;
        cluster.start().await?;
        let stage = Self { restored: None, cluster, s3, holdfast, installation, folder };
        stage.folder.write_secret("holdfast.toml", stage.config_text())?;
        Ok(stage)
    }

    /// The path of the configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("holdfast.toml")
    }

    /// The path of the data directory that the demo is going to restore.
    pub(crate) fn restored_data(&self) -> PathBuf {
        self.folder.path().join("restored")
    }

    /// The content of the configuration file.
    pub(crate) fn config_text(&self) -> String {
        let folder = self.folder.path().display();
        format!(
            "[cluster]\n\
             name = \"shop\"\n\
             pgdata = \"{}\"\n\
             connection = \"{}\"\n\
             \n\
             [[repo]]\n\
             url = \"s3://{}/postgres\"\n\
             endpoint = \"{}\"\n\
             region = \"{}\"\n\
             access_key_id = \"{}\"\n\
             secret_access_key = \"{}\"\n\
             encryption = {{ passphrase_file = \"{folder}/passphrase\" }}\n\
             \n\
             [wal]\n\
             spool = \"{folder}/spool\"\n",
            self.cluster.data().display(),
            self.cluster.connection_string("postgres"),
            self.s3.bucket(),
            self.s3.endpoint(),
            self.s3.region(),
            self.s3.credentials().access_key,
            self.s3.credentials().secret_key,
        )
    }

    /// Prints the `holdfast` command and runs it as PostgreSQL's user, with its own output and progress on this
    /// terminal.
    ///
    /// # Errors
    /// If the command does not end with success. It has printed the reason.
    pub(crate) async fn holdfast(&self, arguments: &[&str], screen: &Screen) -> Result<()> {
        screen
            .command(&format!("holdfast {}", arguments.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")));
        let mut command = Command::new(&self.holdfast);
        command.arg("--config").arg(self.config()).args(arguments).stdin(Stdio::null());
        self.folder.user().drop_to(&mut command);
        let status = tokio::process::Command::from(command).kill_on_drop(true).status().await?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("`holdfast {}` ended with {status}", arguments.join(" ")).into())
        }
    }

    /// Finishes the current WAL segment and waits until it is in the archive, as `archive_timeout` does sooner or
    /// later.
    pub(crate) async fn archive_now(&self) -> Result<()> {
        let name = self.cluster.value("SELECT pg_walfile_name(pg_switch_wal())").await?;
        let query = format!("SELECT coalesce(last_archived_wal >= '{name}', false) FROM pg_stat_archiver");
        self.cluster.wait_for(&query, Duration::from_mins(2)).await?;
        Ok(())
    }

    /// The number of objects in the store, and their size in bytes.
    pub(crate) fn stored(&self) -> Result<(u64, u64)> {
        totals(&self.s3.root().join(self.s3.bucket()))
    }
}

impl Stage {
    /// The size of the packs in the store, in bytes: the data of all backups.
    pub(crate) fn packs(&self) -> Result<u64> {
        let folder = self.s3.root().join(self.s3.bucket()).join("postgres/shop/packs");
        totals(&folder).map(|(_, bytes)| bytes)
    }
}

fn totals(folder: &Path) -> Result<(u64, u64)> {
    let (mut count, mut bytes) = (0, 0);
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            let below = totals(&entry.path())?;
            count += below.0;
            bytes += below.1;
        } else {
            count += 1;
            bytes += metadata.len();
        }
    }
    Ok((count, bytes))
}

/// The word, quoted for a shell if necessary.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}
