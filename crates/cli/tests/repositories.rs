//! Verbs over repositories in directories, without a server: whole texts and exit statuses.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

const WAL: &str = "000000010000000000000001";

/// A configuration, two places for repositories, and a data directory with only the control file.
struct Place(tempfile::TempDir);

/// The result of a run: status, stdout, stderr. The paths of this run are replaced by `DIR` and `HOLDFAST`.
type Ended = (i32, String, String);

impl Place {
    fn new(encryption: &str) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.configure("repo", encryption);
        std::fs::write(place.path("pass"), "correct horse battery\n").unwrap();
        std::fs::write(place.path("wrong"), "battery staple\n").unwrap();
        for secret in ["pass", "wrong"] {
            std::fs::set_permissions(place.path(secret), Permissions::from_mode(0o600)).unwrap();
        }
        place.use_control_file("15");
        place
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn dir(&self) -> &str {
        self.0.path().to_str().unwrap()
    }

    fn configure(&self, repository: &str, encryption: &str) {
        let dir = self.dir();
        let text = format!(
            "[cluster]\nname = \"main\"\npgdata = \"{dir}/pg\"\n\
             [[repo]]\nurl = \"file://{dir}/{repository}\"\nencryption = {}\n[wal]\nspool = \"{dir}/spool\"\n",
            encryption.replace("DIR", dir)
        );
        std::fs::write(self.path("holdfast.toml"), text).unwrap();
    }

    fn use_control_file(&self, major: &str) {
        let fixture =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../pgtypes/tests/fixtures").join(format!("pg_control.{major}"));
        std::fs::create_dir_all(self.path("pg/global")).unwrap();
        std::fs::copy(fixture, self.path("pg/global/pg_control")).unwrap();
    }

    fn run(&self, words: &[&str]) -> Ended {
        let output = Command::new(env!("CARGO_BIN_EXE_holdfast"))
            .env_clear()
            .env("HOLDFAST_CONFIG", self.path("holdfast.toml"))
            .current_dir(self.path("pg"))
            .args(words)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| {
            String::from_utf8(bytes.to_vec())
                .unwrap()
                .replace(env!("CARGO_BIN_EXE_holdfast"), "HOLDFAST")
                .replace(self.dir(), "DIR")
        };
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    }

    fn json(&self, words: &[&str]) -> serde_json::Value {
        let (status, stdout, stderr) = self.run(&[words, &["--output", "json"]].concat());
        assert_eq!((status, stderr.as_str()), (0, ""), "{words:?}");
        serde_json::from_str(&stdout).unwrap()
    }
}

const PASSPHRASE: &str = "{ passphrase_file = \"DIR/pass\" }";

fn failed(status: i32, error: &str, doing: &str, hint: &str) -> Ended {
    (status, String::new(), format!("error: {error}\nwhile: {doing}\nhint:  {hint}\n"))
}

#[test]
fn init_creates_claims_and_prints_the_next_step() {
    let place = Place::new(PASSPHRASE);
    let (status, stdout, stderr) = place.run(&["repo", "init"]);
    assert_eq!((status, stderr.as_str()), (0, ""));
    let id = stdout.lines().nth(1).unwrap().rsplit(' ').next().unwrap();
    let claim = stdout.lines().nth(4).unwrap();
    assert_eq!(id.len(), 32);
    assert!(claim.starts_with("  archive main: claim 1 of PostgreSQL 15, system identifier "), "{claim}");
    assert_eq!(
        stdout,
        format!(
            "file://DIR/repo: created\n  repository id       {id}\n  encryption          aes-256-gcm\n  \
             conditional writes  native\n{claim}\n\nnext, in postgresql.conf (archive_mode needs a restart):\n  \
             wal_level = replica\n  archive_mode = on\n  \
             archive_command = 'HOLDFAST --config DIR/holdfast.toml wal push \"%p\"'\n\
             then `holdfast check`, and `holdfast backup`\n"
        )
    );
    // The same again: nothing changes.
    let (status, again, stderr) = place.run(&["repo", "init"]);
    assert_eq!((status, stderr.as_str()), (0, ""));
    assert_eq!(again, stdout.replace(": created", ": exists already, and matches the configuration"));
    let info = place.json(&["repo", "info"]);
    assert_eq!(info["repositories"][0]["id"], id);
    assert_eq!(info["repositories"][0]["encryption"], "aes-256-gcm");
    assert_eq!(info["repositories"][0]["clusters"][0]["name"], "main");
    assert_eq!(info["repositories"][0]["clusters"][0]["claims"].as_array().unwrap().len(), 1);
}

/// Anyone who can read the bucket can guess, and nothing is lost yet when the repository was just created.
#[test]
fn a_short_passphrase_gets_a_warning() {
    let place = Place::new(PASSPHRASE);
    std::fs::write(place.path("pass"), "correct horse\n").unwrap();
    let (status, _, stderr) = place.run(&["repo", "init"]);
    let warning = "warning: the passphrase of file://DIR/repo has 13 characters: anyone who can read the bucket can \
                   try passphrases without limit; create the repository again with a key file (`openssl rand -hex \
                   32`, `encryption = { key_file = \"...\" }`), or with a random passphrase of 16 characters or more\n";
    assert_eq!((status, stderr.as_str()), (0, warning));
    // The repository exists now: a repeated warning would not be read.
    assert_eq!(place.run(&["repo", "init"]).2, "");
}

#[test]
fn a_wrong_passphrase_is_refused() {
    let place = Place::new(PASSPHRASE);
    assert_eq!(place.run(&["repo", "init"]).0, 0);
    place.configure("repo", "{ passphrase_file = \"DIR/wrong\" }");
    let expected = |status, doing| {
        failed(
            status,
            "the passphrase does not open key slot default",
            doing,
            "check the passphrase in `encryption` of this [[repo]], and that `url` names the right repository; if the keys \
             were rotated, this passphrase may no longer open it",
        )
    };
    let opening = "opening the repository file://DIR/repo";
    assert_eq!(place.run(&["wal", "list"]), expected(11, opening));
    assert_eq!(place.run(&["backup", "--no-progress"]), expected(11, opening));
    let fetching = format!("{opening}, fetching {WAL} from the archive");
    assert_eq!(place.run(&["wal", "get", WAL, "RECOVERYXLOG"]), expected(128 + 11, &fetching));
    assert_eq!(place.run(&["wal", "get", "--standby", WAL, "RECOVERYXLOG"]), expected(11, &fetching));
    let making = format!("{opening}, making a repository at file://DIR/repo");
    assert_eq!(place.run(&["repo", "init"]), expected(11, &making));
    // What can be read is shown, and the status reports the rest.
    let (status, stdout, _) = place.run(&["list"]);
    let shown = "file://DIR/repo: cannot be read: the passphrase does not open key slot default\n";
    assert_eq!((status, stdout.as_str()), (11, shown));
}

#[test]
fn encryption_must_be_what_the_repository_has() {
    let place = Place::new("\"none\"");
    assert_eq!(place.run(&["repo", "init"]).0, 0);
    place.configure("repo", PASSPHRASE);
    assert_eq!(
        place.run(&["wal", "list"]),
        failed(
            10,
            "file://DIR/repo is not encrypted, but the configuration says a passphrase",
            "opening the repository file://DIR/repo",
            "correct `encryption` of this [[repo]], or `url` if it names the wrong repository",
        )
    );
}

#[test]
fn a_place_without_a_repository_is_not_an_empty_archive() {
    let place = Place::new("\"none\"");
    std::fs::create_dir(place.path("repo")).unwrap();
    assert_eq!(
        place.run(&["wal", "list"]),
        failed(
            14,
            "there is no Holdfast repository at file://DIR/repo",
            "opening the repository file://DIR/repo",
            "check `url`; if it is right and the repository does not exist yet, run `holdfast repo init`",
        )
    );
    // A disk that is not mounted is not an empty archive.
    std::fs::remove_dir(place.path("repo")).unwrap();
    assert_eq!(place.run(&["wal", "list"]).0, 20);
    assert_eq!(place.run(&["wal", "get", WAL, "RECOVERYXLOG"]).0, 128 + 20);
    assert!(!place.path("repo").exists());
}

#[test]
fn absent_is_reported_only_if_the_repository_answered() {
    let place = Place::new(PASSPHRASE);
    assert_eq!(place.run(&["repo", "init"]).0, 0);
    let absent = |status| {
        let text = format!("error: {WAL} is not in the archive\n");
        (status, String::new(), text)
    };
    assert_eq!(place.run(&["wal", "get", WAL, "RECOVERYXLOG"]), absent(1));
    assert_eq!(place.run(&["wal", "get", "--standby", WAL, "RECOVERYXLOG"]), absent(1));
    assert_eq!(place.run(&["wal", "get", "no-wal-file", "RECOVERYXLOG"]).0, 128 + 2);
    assert!(!place.path("pg/RECOVERYXLOG").exists());
    // If a second repository cannot be asked, the answer is in doubt.
    let text = std::fs::read_to_string(place.path("holdfast.toml")).unwrap();
    let second = format!("{text}[[repo]]\nurl = \"file://{}/gone\"\nencryption = \"none\"\n", place.dir());
    std::fs::write(place.path("holdfast.toml"), second).unwrap();
    assert_eq!(place.run(&["wal", "get", WAL, "RECOVERYXLOG"]).0, 128 + 20);
    assert_eq!(place.run(&["wal", "get", "--standby", WAL, "RECOVERYXLOG"]).0, 20);
}

#[test]
fn another_cluster_is_refused_until_a_new_claim_is_asked_for() {
    let place = Place::new("\"none\"");
    assert_eq!(place.run(&["repo", "init"]).0, 0);
    let mine =
        place.json(&["repo", "info"])["repositories"][0]["clusters"][0]["claims"][0]["system_identifier"].clone();
    place.use_control_file("18");
    let (status, stdout, stderr) = place.run(&["repo", "init"]);
    assert_eq!((status, stdout.as_str()), (12, ""));
    let theirs = stderr.lines().next().unwrap().rsplit(' ').next().unwrap();
    assert_eq!(
        stderr,
        format!(
            "error: the archive main in file://DIR/repo belongs to system identifier {}, but the data directory DIR/pg has \
             {theirs}\nwhile: checking who owns the archive main in file://DIR/repo\nhint:  nothing was written: give this \
             cluster a `cluster.name` of its own, or, if it replaces the cluster of this archive (after pg_upgrade or \
             initdb), run `holdfast repo init --new-claim`\n",
            mine.as_str().unwrap()
        )
    );
    // A recovery of that cluster gets no WAL of the other one, and does not see the end of its archive.
    assert_eq!(place.run(&["wal", "get", WAL, "RECOVERYXLOG"]).0, 128 + 12);
    assert_eq!(place.run(&["repo", "init", "--new-claim"]).0, 0);
    assert_eq!(place.run(&["repo", "init", "--new-claim"]).0, 0);
    let claims = place.json(&["repo", "info"])["repositories"][0]["clusters"][0]["claims"].clone();
    assert_eq!(claims.as_array().unwrap().len(), 2);
    assert_eq!(claims[1]["pg_major"], 18);
}

#[test]
fn an_empty_archive_is_shown_as_one() {
    let place = Place::new("\"none\"");
    assert_eq!(place.run(&["repo", "init"]).0, 0);
    let shown = |words: &[&str]| {
        let (status, stdout, stderr) = place.run(words);
        assert_eq!((status, stderr.as_str()), (0, ""), "{words:?}");
        stdout
    };
    assert_eq!(shown(&["list"]), "main in file://DIR/repo\nno complete backup\n");
    assert_eq!(shown(&["wal", "list"]), "main in file://DIR/repo\nno WAL is archived\n");
    let info = shown(&["info"]);
    let end = "    backups   none complete: nothing can be restored\n    last WAL  none archived: check archive_mode \
               and archive_command\n";
    assert!(info.ends_with(end), "{info}");
    assert_eq!(place.json(&["list"])["repositories"][0]["backups"], serde_json::json!([]));
    assert_eq!(place.json(&["info"])["repositories"][0]["claims"][0]["backups"]["complete"], 0);
    let target = place.path("new");
    let restore = place.run(&["restore", "--no-progress", "--pgdata", target.to_str().unwrap()]);
    assert_eq!((restore.0, restore.1.as_str()), (60, ""));
    assert!(
        restore.2.starts_with("error: there is no complete backup\nwhile: choosing a backup of main"),
        "{}",
        restore.2
    );
    assert!(!target.exists());
}

#[test]
fn damage_is_distinguished_from_absence() {
    let place = Place::new("\"none\"");
    assert_eq!(place.run(&["repo", "init"]).0, 0);
    let record = place.path("repo/holdfast.json");
    let whole = std::fs::read_to_string(&record).unwrap();
    for (content, status) in [(&whole[..whole.len() / 2], 41), ("", 41), ("{\"holdfast\":\"claim\",\"version\":1}", 42)]
    {
        let mut permissions = std::fs::metadata(&record).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
        std::fs::set_permissions(&record, permissions).unwrap();
        std::fs::write(&record, content).unwrap();
        assert_eq!(place.run(&["list"]).0, status, "{content:?}");
        assert_eq!(place.run(&["wal", "get", WAL, "RECOVERYXLOG"]).0, 128 + status, "{content:?}");
    }
}

#[test]
fn a_spool_that_cannot_be_used_is_only_a_warning() {
    let place = Place::new("\"none\"");
    assert_eq!(place.run(&["repo", "init"]).0, 0);
    std::fs::write(place.path("spool"), "a file").unwrap();
    let (status, _, stderr) = place.run(&["wal", "get", WAL, "RECOVERYXLOG"]);
    assert_eq!(status, 1);
    assert!(stderr.starts_with("warning: the spool DIR/spool cannot be used ("), "{stderr}");
}

#[test]
fn files_that_cannot_be_archived() {
    let place = Place::new("\"none\"");
    assert_eq!(place.run(&["repo", "init"]).0, 0);
    std::fs::create_dir(place.path("pg/pg_wal")).unwrap();
    let path = format!("pg_wal/{WAL}");
    assert_eq!(place.run(&["wal", "push", &path]).0, 31);
    // Half a segment, and a file that is not WAL: PostgreSQL keeps both.
    std::fs::write(place.path("pg").join(&path), [0_u8; 8192]).unwrap();
    assert_eq!(place.run(&["wal", "push", &path]).0, 31);
    std::fs::write(place.path("pg").join(&path), vec![0_u8; 16 << 20]).unwrap();
    assert_eq!(place.run(&["wal", "push", &path]).0, 31);
    assert_eq!(place.json(&["wal", "list"])["repositories"][0]["claims"][0]["timelines"], serde_json::json!([]));
}

#[test]
fn an_archive_is_claimed_before_its_cluster_exists() {
    let place = Place::new(PASSPHRASE);
    let owner = ["--owner", "production/shop/4c1f6a52"];
    let checked = place.json(&[&["repo", "claim", "--check"], &owner[..]].concat());
    assert_eq!(checked["owner"], "production/shop/4c1f6a52");
    assert_eq!(checked["checked_only"], true);
    assert_eq!(checked["repositories"][0]["created_now"], true);
    assert_eq!(checked["repositories"][0]["claim"], serde_json::Value::Null);
    let (status, stdout, stderr) = place.run(&[&["repo", "claim", "--check"], &owner[..]].concat());
    assert_eq!((status, stderr.as_str()), (0, ""));
    assert!(stdout.ends_with("  archive main: empty, free for production/shop/4c1f6a52\n"), "{stdout}");

    let claimed = place.json(&[&["repo", "claim"], &owner[..]].concat());
    assert_eq!(claimed["repositories"][0]["created_now"], false);
    assert_eq!(claimed["repositories"][0]["claimed_now"], true);
    assert_eq!(claimed["repositories"][0]["claim"]["owner"], "production/shop/4c1f6a52");
    let again = place.json(&[&["repo", "claim"], &owner[..]].concat());
    assert_eq!(again["repositories"][0]["claimed_now"], false);
    assert_eq!(again["repositories"][0]["claim"], claimed["repositories"][0]["claim"]);

    let system_identifier = claimed["repositories"][0]["claim"]["system_identifier"].as_str().unwrap().to_owned();
    let hint = "nothing was written: give this cluster a `cluster.name` of its own, or, if it should take over the \
                archive, run `holdfast repo init --new-claim`";
    let refused = |here: &str, doing: &str| {
        let error = format!(
            "the archive main in file://DIR/repo is claimed by production/shop/4c1f6a52 (system identifier \
             {system_identifier}), but {here} is production/shop/90aa17f3"
        );
        failed(12, &error, doing, hint)
    };
    let other = ["--owner", "production/shop/90aa17f3"];
    let doing = "checking that the archive main in file://DIR/repo is free";
    assert_eq!(
        place.run(&[&["repo", "claim", "--check"], &other[..]].concat()),
        refused("the cluster that will be created", doing)
    );
    assert_eq!(place.run(&[&["repo", "claim"], &other[..]].concat()), refused("the data directory DIR/pg", doing));
    // The same through the configuration: a copy of the cluster cannot write into the archive of its original.
    let text = std::fs::read_to_string(place.path("holdfast.toml")).unwrap();
    let other = text.replace("name = \"main\"", "name = \"main\"\nowner = \"production/shop/90aa17f3\"");
    std::fs::write(place.path("holdfast.toml"), other).unwrap();
    let doing = "checking who owns the archive main in file://DIR/repo";
    assert_eq!(place.run(&["repo", "init"]), refused("the data directory DIR/pg", doing));
    assert_eq!(place.run(&["backup", "--no-progress"]), refused("the data directory DIR/pg", doing));
}

#[test]
fn an_archive_of_other_software_is_not_used() {
    let place = Place::new("\"none\"");
    std::fs::create_dir_all(place.path("repo/main/base/20260101T000000")).unwrap();
    std::fs::create_dir_all(place.path("repo/main/wals")).unwrap();
    std::fs::write(place.path("repo/main/base/20260101T000000/backup.info"), "backup_name=x\n").unwrap();
    std::fs::write(place.path("repo/main/wals/x"), "x").unwrap();
    assert_eq!(
        place.run(&["repo", "claim", "--check", "--owner", "production/shop/4c1f6a52"]),
        failed(
            18,
            "the archive main in file://DIR/repo is not empty: it holds base/, wals/, which looks like an archive of \
             Barman, and nobody has claimed it; the cluster that will be created is production/shop/4c1f6a52",
            "checking that the archive main in file://DIR/repo is free",
            "nothing was written: choose a `cluster.name` under which nothing is stored yet, or another `url`",
        )
    );
    assert!(!place.path("repo/holdfast.json").exists());
    assert_eq!(
        place.run(&["repo", "claim", "--check"]),
        failed(
            10,
            "`cluster.owner` is not set",
            "reading the configuration",
            "pass --owner, write owner = \"...\" under [cluster], or set HOLDFAST_CLUSTER_OWNER",
        )
    );
}
