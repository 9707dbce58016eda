//! What the error tests share: texts with placeholders, damage that is undone, and a bench without a server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use holdfast_testkit::postgres::Cluster;
use holdfast_testkit::scratch::{Scratch, built_program, publish_binary};
use holdfast_testkit::user::run_as_postgres;
use regex_lite::Regex;

use crate::stage::Stage;

/// Compares what commands print with what they should print. It collects the differences, so that one run shows all of
/// them.
#[derive(Debug)]
pub(crate) struct Texts {
    known: Vec<(String, String)>,
    patterns: Vec<(Regex, &'static str)>,
    wrong: Vec<String>,
}

impl Texts {
    /// Starts without named values. Times, LSNs, backup ids, WAL segments, system identifiers, digests and process
    /// numbers always become placeholders.
    pub(crate) fn new() -> Self {
        let pattern = |text: &str, name| (Regex::new(text).expect("a sound pattern"), name);
        let patterns = vec![
            pattern(r"\b\d{8}T\d{6}Z\b", "$BACKUP"),
            pattern(r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?(Z|\+00(:00)?| UTC)", "$TIME"),
            pattern(r"\b[0-9a-f]{64}\b", "$DIGEST"),
            pattern(r"\b[0-9A-F]{24}\b", "$SEGMENT"),
            pattern(r"\b[67]\d{18}\b", "$SYSTEM"),
            pattern(r"/wal/1/[0-9A-F]{8}/", "/wal/1/$TIMELINE/"),
            pattern(r"/[0-9A-F]{16}/\$", "/$FOLDER/$"),
            pattern(r"\b[0-9A-F]{1,8}/[0-9A-F]{6,8}\b", "$LSN"),
            pattern(r"\bframe \d+\b", "frame $N"),
            pattern(r"\b\d+ bytes\b", "$SIZE bytes"),
            pattern(r"\bsays \d+\b", "says $SIZE"),
            pattern(r", \d+ there\b", ", $SIZE there"),
            pattern(r"\bmagic number 0x[0-9a-f]{8} ", "magic number $MAGIC "),
            pattern(r"CRC-32C [0-9a-f]{8} instead of [0-9a-f]{8}", "CRC-32C $CRC instead of $CRC"),
            pattern(r"\btmp-holdfast-[\w-]+", "$TEMPORARY"),
            pattern(r"\bprocess \d+\b", "process $PID"),
            pattern(r"\b(base/\d+|global)/\d\w*", "$FILE"),
            pattern(r"\b[0-9a-f]{32}\b", "$ID"),
        ];
        Self { known: Vec::new(), patterns, wrong: Vec::new() }
    }

    /// Shows `value` as `$name`. Earlier names are replaced first.
    #[expect(clippy::needless_pass_by_value, reason = "displays of paths are made where they are passed")]
    pub(crate) fn name(&mut self, name: &str, value: impl ToString) {
        self.known.push((value.to_string(), format!("${name}")));
    }

    /// The text with placeholders, without log lines: their number depends on the number of retries.
    pub(crate) fn plain(&self, text: &str) -> String {
        let log = |line: &&str| line.contains("Z  WARN ") || line.contains("Z  INFO ");
        let mut text: String = text.split_inclusive('\n').filter(|line| !log(line)).collect();
        for (value, name) in &self.known {
            text = text.replace(value, name);
        }
        for (pattern, name) in &self.patterns {
            text = pattern.replace_all(&text, regex_lite::NoExpand(name)).into_owned();
        }
        text
    }

    /// Compares exit status and the whole of standard error.
    pub(crate) fn expect(&mut self, case: &str, output: &Output, status: i32, expected: &str) {
        let said = self.plain(&String::from_utf8_lossy(&output.stderr));
        let ended = output.status.code().unwrap_or(-1);
        if ended != status || said != expected {
            self.wrong.push(format!("### {case}: status {ended}, expected {status}\n{said}--- expected\n{expected}"));
        }
    }

    /// Fails with everything that was different.
    pub(crate) fn finish(self) {
        assert!(self.wrong.is_empty(), "{} texts differ\n{}", self.wrong.len(), self.wrong.join("\n"));
    }
}

/// Runs the command without progress, so that standard error contains only the message.
pub(crate) fn quietly(stage: &Stage, arguments: &[&str]) -> Output {
    let mut all = vec!["--no-progress"];
    all.extend_from_slice(arguments);
    stage.run(&all)
}

/// Placeholders for the values of a stage: its folders, its endpoint, its repository.
pub(crate) fn texts_of(stage: &Stage) -> Texts {
    let mut texts = Texts::new();
    if let Some(s3) = &stage.s3 {
        texts.name("REPO", format!("s3://{}/repository", s3.bucket()));
        texts.name("ENDPOINT", s3.endpoint());
    } else {
        texts.name("REPO", format!("file://{}", stage.scratch.path().join("repository").display()));
    }
    texts.name("DATA", stage.cluster.data().display());
    texts.name("SOCKETS", stage.cluster.socket_folder().display());
    texts.name("PORT", stage.cluster.port());
    texts.name("DIR", stage.scratch.path().display());
    texts
}

/// The system identifier of a running server.
pub(crate) async fn identity(cluster: &Cluster) -> String {
    cluster.value("SELECT system_identifier FROM pg_control_system()").await.expect("ask for the system identifier")
}

/// A file that was changed without Holdfast. Dropping the value restores it.
#[derive(Debug)]
pub(crate) struct Damage {
    path: PathBuf,
    before: Vec<u8>,
}

impl Damage {
    /// Changes the content.
    pub(crate) fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let before = fs::read(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
        let mut after = before.clone();
        change(&mut after);
        assert_ne!(before, after, "the damage to {} changes nothing", path.display());
        fs::write(path, after).expect("damage a file");
        Self { path: path.to_owned(), before }
    }

    /// Flips the lowest bit of the byte in the middle.
    pub(crate) fn flip(path: &Path) -> Self {
        Self::change(path, |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        })
    }

    /// Cuts the second half off.
    pub(crate) fn halve(path: &Path) -> Self {
        Self::change(path, |bytes| bytes.truncate(bytes.len() / 2))
    }

    /// Replaces a text.
    pub(crate) fn replace(path: &Path, from: &str, to: &str) -> Self {
        Self::change(path, |bytes| {
            let text = std::str::from_utf8(bytes).expect("a text");
            *bytes = text.replacen(from, to, 1).into_bytes();
        })
    }

    /// Removes the file.
    pub(crate) fn remove(path: &Path) -> Self {
        let before = fs::read(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
        fs::remove_file(path).expect("remove a file");
        Self { path: path.to_owned(), before }
    }

    /// Replaces the content by that of `other`.
    pub(crate) fn put_instead(path: &Path, other: &Path) -> Self {
        let content = fs::read(other).expect("read the other object");
        Self::change(path, |bytes| *bytes = content)
    }
}

impl Drop for Damage {
    fn drop(&mut self) {
        fs::write(&self.path, &self.before).expect("repair a file");
    }
}

/// All files below a folder, relative and sorted: the content of a repository.
pub(crate) fn files_below(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_path_buf()];
    while let Some(path) = waiting.pop() {
        let Ok(entries) = fs::read_dir(&path) else { continue };
        for entry in entries.flatten() {
            if entry.path().is_dir() {
                waiting.push(entry.path());
            } else {
                let path = entry.path();
                found.push(path.strip_prefix(folder).expect("below the folder").display().to_string());
            }
        }
    }
    found.sort();
    found
}

/// A folder and the program, without a server and without a repository.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) scratch: Scratch,
    pub(crate) texts: Texts,
    holdfast: PathBuf,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let scratch = Scratch::new().expect("make a folder");
        let holdfast = publish_binary(&built_program("holdfast").expect("find holdfast")).expect("publish holdfast");
        let mut texts = Texts::new();
        texts.name("DIR", scratch.path().display());
        Self { scratch, texts, holdfast }
    }

    /// The path of a file in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Writes a configuration of the cluster `main` with these lines for its repository. `$DIR` stands for the folder.
    pub(crate) fn configure(&self, repository: &str) {
        let wal = "[wal]\ntimeout = \"1s\"\nspool = \"$DIR/spool\"\n";
        self.configure_whole(&format!("[cluster]\nname = \"main\"\n\n[[repo]]\n{repository}\n\n{wal}"));
    }

    /// Writes a whole configuration.
    pub(crate) fn configure_whole(&self, text: &str) {
        let text = text.replace("$DIR", &self.scratch.path().display().to_string());
        self.scratch.write_secret("holdfast.toml", text).expect("write the configuration");
    }

    /// `holdfast` as PostgreSQL's user, with an environment that only keeps it from asking a cloud machine. `$DIR` in
    /// an argument stands for the folder.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.holdfast);
        command.env_clear().env("AWS_EC2_METADATA_DISABLED", "true").stdin(Stdio::null());
        let folder = self.scratch.path().display().to_string();
        command.arg("--config").arg(self.path("holdfast.toml"));
        command.args(arguments.iter().map(|argument| argument.replace("$DIR", &folder)));
        run_as_postgres(&mut command).expect("drop to PostgreSQL's user");
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("run holdfast")
    }

    /// Runs a command, which must succeed.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        crate::stage::succeeded(&self.run(arguments), arguments)
    }

    /// Runs a command, which must fail, and compares how it fails.
    pub(crate) fn fails(&mut self, case: &str, arguments: &[&str], status: i32, expected: &str) {
        let output = self.run(arguments);
        self.texts.expect(case, &output, status, expected);
    }

    pub(crate) fn finish(self) {
        self.texts.finish();
    }
}
