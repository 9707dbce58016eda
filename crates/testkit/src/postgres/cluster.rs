//! A PostgreSQL cluster with its server.
//!
//! The cluster's folder contains `data` (unless the data directory was taken over from elsewhere), `socket` and
//! `server.log`, all owned by PostgreSQL's user. Port and socket folder are on the server's command line and not in
//! `postgresql.conf`, so that a restored copy of the configuration cannot collide with its original. Everything else
//! that a builder sets is a line of `postgresql.conf`, and a backup contains it as it does for any other cluster.
//!
//! Dropping a cluster ends its server at once (`SIGQUIT`) and removes the folder.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::installation::Installation;
use super::process::{Postmaster, Status, orphans_gone, status};
use crate::error::{KitError, Result, run};
use crate::scratch::Scratch;

/// The time limit for a start or a stop. A busy machine with two cores needs a few seconds, and a stop waits for the
/// archiver.
const LIMIT: Duration = Duration::from_mins(3);

/// How many bytes from the end of the log an error contains.
const LOG_TAIL_BYTES: usize = 4096;

/// How to stop a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Wait for the clients to leave (`SIGTERM`).
    Smart,
    /// Roll back, write the shutdown checkpoint, archive the last segment (`SIGINT`).
    Fast,
    /// Like a crash, but without processes left behind (`SIGQUIT`).
    Immediate,
}

/// A data directory with its server, running or stopped.
#[derive(Debug)]
pub struct Cluster {
    installation: Installation,
    scratch: Scratch,
    data: PathBuf,
    port: u16,
    command_line: Vec<(String, String)>,
    server: Option<Postmaster>,
}

/// The options for a new cluster; see [`Cluster::builder`].
#[derive(Clone, Debug)]
pub struct ClusterBuilder {
    installation: Installation,
    checksums: bool,
    wal_segment_mib: u32,
    lines: Vec<String>,
}

impl ClusterBuilder {
    /// Whether pages have checksums; on by default.
    #[must_use]
    pub fn checksums(mut self, on: bool) -> Self {
        self.checksums = on;
        self
    }

    /// The size of a WAL segment in MiB, a power of two from 1 to 1024; 16 by default.
    #[must_use]
    pub fn wal_segment_mib(mut self, size: u32) -> Self {
        self.wal_segment_mib = size;
        self
    }

    /// Adds a line `name = 'value'` to `postgresql.conf`. If a name occurs more than once, its last line counts.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.lines.push(setting_line(name, value));
        self
    }

    /// Turns archiving on with this `archive_command`.
    #[must_use]
    pub fn archive_command(self, command: &str) -> Self {
        self.setting("archive_mode", "on").setting("archive_command", command)
    }

    /// Runs `initdb` and leaves the server stopped.
    pub async fn create(self) -> Result<Cluster> {
        let scratch = Scratch::new()?;
        let data = scratch.path().join("data");
        let mut initdb = self.installation.command("initdb");
        initdb.arg("-D").arg(&data);
        initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]);
        initdb.arg(format!("--wal-segsize={}", self.wal_segment_mib));
        // Checksums are off by default before PostgreSQL 18 and on from 18. The option to turn them off is new in 18 as
        // well.
        match (self.checksums, self.installation.major() >= 18) {
            (true, _) => drop(initdb.arg("--data-checksums")),
            (false, true) => drop(initdb.arg("--no-data-checksums")),
            (false, false) => {}
        }
        run_as(&scratch, initdb).await?;
        let cluster = Cluster {
            installation: self.installation,
            port: free_port()?,
            data,
            scratch,
            command_line: Vec::new(),
            server: None,
        };
        cluster.scratch.folder("socket")?;
        let defaults = [
            // These tests are not about durability against power loss, which would cost most of their time.
            ("fsync", "off"),
            ("wal_level", "replica"),
            ("max_wal_senders", "10"),
            ("max_connections", "40"),
            ("shared_buffers", "32MB"),
            ("min_wal_size", "80MB"),
            // The module `rows` needs exact commit times.
            ("track_commit_timestamp", "on"),
            ("timezone", "UTC"),
            ("log_timezone", "UTC"),
            ("log_line_prefix", "%m [%p] "),
        ];
        // PostgreSQL demands room for at least two segments.
        let min_wal_mib = 80.max(self.wal_segment_mib * 2);
        let mut text = String::from("\n# the test kit's settings\n");
        for (name, value) in defaults {
            text += &setting_line(name, value);
        }
        text += &setting_line("min_wal_size", &format!("{min_wal_mib}MB"));
        text += &setting_line("max_wal_size", &format!("{}MB", 1024.max(self.wal_segment_mib * 4)));
        text.extend(self.lines);
        cluster.append_configuration(&text)?;
        Ok(cluster)
    }

    /// Runs `initdb` and starts the server.
    pub async fn start(self) -> Result<Cluster> {
        let mut cluster = self.create().await?;
        cluster.start().await?;
        Ok(cluster)
    }
}

impl Cluster {
    /// A new cluster of this major: page checksums, 16 MiB segments, locale C, superuser `postgres` without a password,
    /// `wal_level = replica`, time zone UTC.
    pub fn builder(installation: &Installation) -> ClusterBuilder {
        ClusterBuilder { installation: installation.clone(), checksums: true, wal_segment_mib: 16, lines: Vec::new() }
    }

    /// Takes over a data directory that something else made, for example a restore. The server is stopped.
    ///
    /// The directory and its tablespaces below `/tmp` are given to PostgreSQL's user. The directory stays where it is,
    /// also when the cluster is dropped.
    pub fn adopt(installation: &Installation, data: &Path) -> Result<Self> {
        let scratch = Scratch::new()?;
        scratch.folder("socket")?;
        scratch.user().own_tree(data)?;
        if let Ok(entries) = fs::read_dir(data.join("pg_tblspc")) {
            for target in entries.flatten().filter_map(|entry| tablespace_of_a_test(&entry.path())) {
                scratch.user().own_tree(&target)?;
            }
        }
        Ok(Self {
            installation: installation.clone(),
            port: free_port()?,
            data: data.to_path_buf(),
            scratch,
            command_line: Vec::new(),
            server: None,
        })
    }

    /// A cluster whose folder belongs to the kit and has no `data` yet; the caller makes it.
    pub(super) fn empty(installation: &Installation) -> Result<Self> {
        let scratch = Scratch::new()?;
        scratch.folder("socket")?;
        let data = scratch.path().join("data");
        Ok(Self {
            installation: installation.clone(),
            port: free_port()?,
            data,
            scratch,
            command_line: Vec::new(),
            server: None,
        })
    }

    /// The programs the cluster runs with.
    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The cluster's folder, for files that should live as long as the cluster.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// The folder of the server's Unix socket.
    pub fn socket_folder(&self) -> PathBuf {
        self.scratch.path().join("socket")
    }

    /// The port of the Unix socket and of 127.0.0.1. [`Self::start`] changes it if another program took the port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Takes the port of another cluster, and listens on its own Unix socket only. Takes effect at the next start.
    pub fn share_port_of(&mut self, other: &Self) {
        self.port = other.port;
        self.override_setting("listen_addresses", "");
    }

    /// The connection string of a database over the Unix socket, in the form that libpq and tokio-postgres read.
    pub fn connection_string(&self, database: &str) -> String {
        format!("host={} port={} user=postgres dbname={database}", self.socket_folder().display(), self.port)
    }

    /// Overrides a setting on the server's command line from its next start. This is stronger than every file, so a
    /// restored cluster can be kept from archiving into its original's repository.
    pub fn override_setting(&mut self, name: &str, value: &str) {
        self.command_line.push((name.to_owned(), value.to_owned()));
    }

    /// Appends `name = 'value'` to `postgresql.conf`. It takes effect with [`Self::reload`] or at the next start.
    pub fn set(&self, name: &str, value: &str) -> Result<()> {
        self.append_configuration(&setting_line(name, value))
    }

    fn append_configuration(&self, text: &str) -> Result<()> {
        let path = self.data.join("postgresql.conf");
        fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(KitError::io(format!("append to {}", path.display())))
    }

    /// Starts the server and waits until it takes connections. A server in recovery does so once it is consistent.
    ///
    /// # Errors
    /// [`KitError::StartFailed`] with the log if the server ends before that, [`KitError::Timeout`] after a minute.
    pub async fn start(&mut self) -> Result<()> {
        for _ in 0..3 {
            let before = self.log_text().len();
            self.spawn()?;
            match self.wait_ready(LIMIT).await {
                Err(KitError::StartFailed { .. }) if self.port_was_taken(before) => self.port = free_port()?,
                result => return result,
            }
        }
        self.wait_ready(LIMIT).await
    }

    /// Whether the server logged, after this place in its log, that its port was taken.
    fn port_was_taken(&self, since: usize) -> bool {
        self.log_text().get(since..).is_some_and(|text| {
            text.contains("could not create any TCP/IP sockets") || text.contains("Address already in use")
        })
    }

    /// Starts the server without waiting, for servers that are expected to end by themselves.
    pub fn spawn(&mut self) -> Result<()> {
        if self.is_running() {
            return Err(KitError::Unsupported(format!("the server over {} runs already", self.data.display())));
        }
        let mut command = self.installation.command("postgres");
        command.arg("-D").arg(&self.data).arg("-p").arg(self.port.to_string());
        command.arg("-k").arg(self.socket_folder()).args(["-c", "listen_addresses=127.0.0.1"]);
        command.args(["-c", "logging_collector=off", "-c", "log_destination=stderr"]);
        for (name, value) in &self.command_line {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        self.scratch.user().drop_to(&mut command);
        self.server = Some(Postmaster::spawn(command, &self.log_path())?);
        Ok(())
    }

    /// Waits until the started server takes connections.
    pub async fn wait_ready(&mut self, limit: Duration) -> Result<()> {
        let start = Instant::now();
        loop {
            let Some(server) = self.server.as_mut() else {
                return Err(KitError::Unsupported("the server was not started".to_owned()));
            };
            if let Some(exit) = server.exited() {
                self.server = None;
                return Err(KitError::StartFailed {
                    server: format!("PostgreSQL {}", self.installation.major()),
                    status: exit.to_string(),
                    log: self.log_tail(),
                });
            }
            if status(&self.data, server.pid()) == Status::Ready {
                return Ok(());
            }
            if start.elapsed() > limit {
                return Err(self.timeout("the start of the server", limit));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until the server has ended by itself, for example after `recovery_target_action = shutdown` or a failed
    /// recovery.
    pub async fn wait_exited(&mut self, limit: Duration) -> Result<ExitStatus> {
        let Some(server) = self.server.as_mut() else {
            return Err(KitError::Unsupported("the server was not started".to_owned()));
        };
        match server.wait(limit).await {
            Some(status) => {
                self.server = None;
                Ok(status)
            }
            None => Err(self.timeout("the end of the server", limit)),
        }
    }

    /// Stops the server and waits for its end. It does nothing if the server does not run.
    pub async fn stop(&mut self, how: Shutdown) -> Result<()> {
        let Some(server) = self.server.as_mut() else { return Ok(()) };
        server.signal(match how {
            Shutdown::Smart => Signal::TERM,
            Shutdown::Fast => Signal::INT,
            Shutdown::Immediate => Signal::QUIT,
        });
        if server.wait(LIMIT).await.is_none() {
            return Err(self.timeout("the stop of the server", LIMIT));
        }
        self.server = None;
        Ok(())
    }

    /// Stops the server in fast mode and starts it again.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop(Shutdown::Fast).await?;
        self.start().await
    }

    /// Kills the postmaster with `SIGKILL`, waits for its children to notice, and leaves the data directory as it is.
    pub async fn kill9(&mut self) -> Result<()> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        server.signal(Signal::KILL);
        if server.wait(LIMIT).await.is_none() || !orphans_gone(&self.data, LIMIT).await {
            return Err(self.timeout("the end of the killed server", LIMIT));
        }
        Ok(())
    }

    /// Makes the server read its configuration again.
    pub async fn reload(&self) -> Result<()> {
        self.sql("select pg_reload_conf()").await.map(drop)
    }

    /// Ends recovery and waits until the server takes writes.
    pub async fn promote(&self) -> Result<()> {
        self.sql("select pg_promote(true, 60)").await?;
        self.wait_promoted(LIMIT).await
    }

    /// Waits until the server has left recovery, by a promotion or at its recovery target.
    pub async fn wait_promoted(&self, limit: Duration) -> Result<()> {
        self.wait_for("select not pg_is_in_recovery()", limit).await
    }

    /// Waits until a query answers `t`.
    ///
    /// # Errors
    /// [`KitError::Timeout`] with the end of the server's log. An error of the query is returned at once.
    pub async fn wait_for(&self, query: &str, limit: Duration) -> Result<()> {
        let start = Instant::now();
        loop {
            if self.value(query).await? == "t" {
                return Ok(());
            }
            if start.elapsed() > limit {
                return Err(self.timeout(query, limit));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether the postmaster that this value started still runs.
    pub fn is_running(&mut self) -> bool {
        self.server.as_mut().is_some_and(|server| server.exited().is_none())
    }

    /// The process id of the postmaster this value started.
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Postmaster::pid)
    }

    /// Connects to a database. The connection is driven by a task of the caller's runtime and ends with the client.
    pub async fn connect(&self, database: &str) -> Result<Client> {
        let (client, connection) = tokio_postgres::connect(&self.connection_string(database), NoTls)
            .await
            .map_err(KitError::sql("connect"))?;
        // The end of the connection is not handled here: the client's next statement reports it.
        tokio::spawn(async move { drop(connection.await) });
        Ok(client)
    }

    /// Runs statements in the database `postgres` on a connection of their own, and returns the rows of the last one
    /// that has any, as text; NULL is the empty string.
    pub async fn sql(&self, statements: &str) -> Result<Vec<Vec<String>>> {
        self.sql_in("postgres", statements).await
    }

    /// As [`Self::sql`], in another database.
    pub async fn sql_in(&self, database: &str, statements: &str) -> Result<Vec<Vec<String>>> {
        let client = self.connect(database).await?;
        let messages = client.simple_query(statements).await.map_err(KitError::sql(statements))?;
        let mut rows = Vec::new();
        for message in messages {
            match message {
                SimpleQueryMessage::RowDescription(_) => rows.clear(),
                SimpleQueryMessage::Row(row) => {
                    rows.push((0..row.len()).map(|column| row.get(column).unwrap_or_default().to_owned()).collect());
                }
                _ => {}
            }
        }
        Ok(rows)
    }

    /// The single value that a query in the database `postgres` returns.
    ///
    /// # Errors
    /// [`KitError::Unexpected`] if the result is not exactly one row with one column.
    pub async fn value(&self, query: &str) -> Result<String> {
        let mut rows = self.sql(query).await?;
        match rows.as_mut_slice() {
            [row] if row.len() == 1 => Ok(row.swap_remove(0)),
            _ => Err(KitError::Unexpected { what: query.to_owned(), answer: format!("{rows:?}") }),
        }
    }

    /// Runs a script with `psql` in the database `postgres`, stopping at the first error, and returns its output.
    pub async fn psql_file(&self, script: &Path) -> Result<String> {
        let mut psql = Command::new(self.installation.client("psql")?);
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d"]).arg(self.connection_string("postgres"));
        psql.arg("-f").arg(script);
        run_as(&self.scratch, psql).await
    }

    /// Runs one of PostgreSQL's programs as PostgreSQL's user, with `PGHOST`, `PGPORT` and `PGUSER` set to this server,
    /// and returns its output. A client program may come from a newer major.
    pub async fn tool(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(self.installation.client(program)?);
        command.args(arguments);
        command.env("PGHOST", self.socket_folder()).env("PGPORT", self.port.to_string()).env("PGUSER", "postgres");
        run_as(&self.scratch, command).await
    }

    /// The path of the server's log.
    pub fn log_path(&self) -> PathBuf {
        self.scratch.path().join("server.log")
    }

    /// The whole log since the cluster was made, over all starts.
    pub fn log_text(&self) -> String {
        fs::read(self.log_path()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        let text = self.log_text();
        let start = text.ceil_char_boundary(text.len().saturating_sub(LOG_TAIL_BYTES));
        text.get(start..).unwrap_or_default().to_owned()
    }

    fn timeout(&self, what: &str, limit: Duration) -> KitError {
        KitError::Timeout { what: what.to_owned(), limit, log: self.log_tail() }
    }

    /// Leaves the server running and keeps the folder after this process has ended. Returns the folder.
    pub fn keep(mut self) -> PathBuf {
        // Dropping a child process neither ends it nor waits for it.
        drop(self.server.take());
        self.scratch.keep()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.end();
        }
    }
}

/// The target of a link in `pg_tblspc`, if it is a tablespace made by a test: named by an OID, and below `/tmp`.
///
/// A link can lead anywhere, and as root the kit would change the owner of everything there. A test that backed up a
/// link to `/etc` once changed the owner of `/etc`.
fn tablespace_of_a_test(link: &Path) -> Option<PathBuf> {
    let target = fs::read_link(link).ok()?;
    let by_oid = link.file_name()?.to_str()?.bytes().all(|byte| byte.is_ascii_digit());
    (by_oid && target.canonicalize().ok()?.starts_with("/tmp")).then_some(target)
}

/// Runs a program as the owner of the folder.
pub(super) async fn run_as(scratch: &Scratch, mut command: Command) -> Result<String> {
    scratch.user().drop_to(&mut command);
    run(command).await
}

/// A port of 127.0.0.1 that was free a moment ago.
pub(crate) fn free_port() -> Result<u16> {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(KitError::io("find a free port of 127.0.0.1"))
}

/// A line of `postgresql.conf`, with quotes and backslashes as `guc-file.l` reads them.
fn setting_line(name: &str, value: &str) -> String {
    format!("{name} = '{}'\n", value.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed set-up fails the test")]

    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_tablespaces_of_tests_change_their_owner() {
        let folder = tempfile::tempdir_in("/tmp").unwrap();
        let link = |name: &str, target: &Path| {
            let link = folder.path().join(name);
            symlink(target, &link).unwrap();
            tablespace_of_a_test(&link)
        };
        assert_eq!(link("16400", folder.path()), Some(folder.path().to_path_buf()));
        assert_eq!(link("16401", Path::new("/etc")), None);
        assert_eq!(link("16402", Path::new("/tmp/../etc")), None);
        assert_eq!(link("old", folder.path()), None);
        assert_eq!(link("16403", &folder.path().join("gone")), None);
    }
}
