#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::origin::Origin;
use super::repository::{Encryption, KeySource};
use super::written::{INNER_TABLES, SECTIONS};
use super::*;
use crate::args::Args;
use crate::exit_code::ExitCode;
use crate::failure::{Explain, present};
use crate::style::Style;
use clap::Parser;
use holdfast_secret::Secret;
use holdfast_store::{Credentials, Location, LockMode, LockTerm};
use std::time::Duration;

const FILE: &str = "/etc/holdfast/holdfast.toml";

const SAMPLE: &str = r#"
[cluster]
name = "main"
pgdata = "/var/lib/postgresql/18/main"
connection = "host=/var/run/postgresql user=postgres"
[[repo]]
url = "s3://bucket/prefix"
endpoint = "http://127.0.0.1:9000"
region = "us-east-1"
path_style = true
encryption = { passphrase_file = "/etc/holdfast/passphrase" }
[backup]
compression = "zstd:3"
jobs = 2
[retention]
window = "30d"
keep = { last = 3, hourly = 24, daily = 7, weekly = 4, monthly = 12, verified = 2 }
grace = "36h"
"#;

const LEAST: &str = "[cluster]\nname = \"main\"\n[[repo]]\nurl = \"file:///srv/backups\"\nencryption = \"none\"\n";

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn validated(text: &str, environment: &[(&str, &str)]) -> Config {
    from_text(Path::new(FILE), text, &variables(environment), Vec::new()).unwrap()
}

fn refusal(text: &str, environment: &[(&str, &str)]) -> String {
    let error = from_text(Path::new(FILE), text, &variables(environment), Vec::new()).err().unwrap();
    let failure = error.explain();
    assert_eq!(failure.code, ExitCode::Configuration);
    present::text(&failure, Style::Plain)
}

/// The three parts, with the usual `while` line.
fn parts(error: &str, hint: &str) -> String {
    format!("error: {error}\nwhile: reading the configuration\nhint:  {hint}\n")
}

#[test]
fn locks_are_read_and_checked() {
    let with = |lock: &str| SAMPLE.replace("path_style = true", &format!("path_style = true\nlock = {lock}"));
    let config = validated(&with("{ mode = \"compliance\", days = 30 }"), &[]);
    let lock = config.repositories.first().unwrap().store_config(|_| None).unwrap().s3.lock.unwrap();
    assert_eq!(lock.term, LockTerm { mode: LockMode::Compliance, days: 30 });
    assert!((lock.covers)("holdfast.json") && !(lock.covers)("main/leases/x.json"));
    assert_eq!(config.repositories.first().unwrap().lock(), Some(lock.term));
    for (lock, message) in [
        ("{ days = 30 }", "invalid repo.lock: needs mode and days, such as { mode = \"governance\", days = 30 }"),
        (
            "{ mode = \"legal-hold\", days = 30 }",
            "invalid repo.lock.mode \"legal-hold\": expected governance or compliance",
        ),
        ("{ mode = \"governance\", days = 0 }", "invalid repo.lock.days \"0\": expected 1 to 36500"),
    ] {
        let said = refusal(&with(lock), &[]);
        assert!(said.contains(message), "{said}");
    }
}

#[test]
fn the_sample_configuration_is_accepted() {
    let config = validated(SAMPLE, &[]);
    assert_eq!(config.cluster.name.as_str(), "main");
    assert_eq!(config.cluster.require_pgdata().unwrap(), Path::new("/var/lib/postgresql/18/main"));
    assert_eq!(config.cluster.connection.as_ref().unwrap().expose(), "host=/var/run/postgresql user=postgres");
    let repository = config.repositories.first().unwrap();
    assert_eq!(repository.location().to_string(), "s3://bucket/prefix");
    assert_eq!(repository.encryption, Encryption::PassphraseFile(PathBuf::from("/etc/holdfast/passphrase")));
    let store = repository.store_config(|_| None).unwrap();
    assert_eq!(store.s3.endpoint.as_deref(), Some("http://127.0.0.1:9000"));
    assert!(store.s3.path_style);
    assert_eq!(config.backup.compression.to_string(), "zstd:3");
    assert_eq!(config.backup.jobs.get(), 2);
    assert_eq!(config.retention.window, Some(Duration::from_hours(720)));
    let keep = validated::Keep { last: 3, hourly: 24, daily: 7, weekly: 4, monthly: 12, yearly: 0, verified: 2 };
    assert_eq!(config.retention.keep, keep);
    assert_eq!(config.retention.grace, Duration::from_hours(36));
}

#[test]
fn defaults() {
    let config = validated(LEAST, &[]);
    assert_eq!(config.repositories.first().unwrap().location(), &Location::Directory(PathBuf::from("/srv/backups")));
    assert_eq!(config.repositories.first().unwrap().encryption, Encryption::None);
    assert!(config.cluster.connection.is_none());
    assert_eq!(config.backup.memory_bytes, 256 << 20);
    assert_eq!(config.backup.archive_timeout, Duration::from_mins(1));
    assert!(config.backup.page_checks && !config.backup.start_fast);
    assert_eq!(config.wal.push_ahead.get(), 16);
    assert_eq!(config.wal.prefetch, 8);
    assert_eq!(config.wal.spool, Path::new("/var/spool/holdfast"));
    assert_eq!(config.wal.timeout, Duration::from_mins(1));
    assert_eq!(config.retention, validated::Retention::default());
    assert_eq!(config.retention.grace, Duration::from_hours(24));
    let missing = config.cluster.require_pgdata().unwrap_err().explain();
    assert_eq!(missing.message, "`cluster.pgdata` is not set");
}

#[test]
fn a_repository_may_have_a_retention_of_its_own() {
    let own = "retention = { window = \"7d\", keep = { daily = 2 } }\n";
    let second = "[[repo]]\nurl = \"file:///srv/more\"\nencryption = \"none\"\n";
    let all = "[retention]\nkeep = { last = 3 }\ngrace = \"0\"\n";
    let config = validated(&format!("{LEAST}{own}{second}{all}"), &[("HOLDFAST_REPO_2_RETENTION", "{}")]);
    let own: Vec<_> = config.repositories.iter().map(|repository| repository.retention.clone()).collect();
    let keep = validated::Keep { daily: 2, ..validated::Keep::default() };
    // A repository's own table replaces `[retention]` completely.
    let first = validated::Retention { window: Some(Duration::from_hours(168)), keep, grace: Duration::from_hours(24) };
    assert_eq!(own, [Some(first), Some(validated::Retention::default())]);
    assert_eq!(config.retention.keep.last, 3);
    assert_eq!(validated(LEAST, &[]).repositories[0].retention, None);
    for (wrong, named) in [
        ("retention = { window = \"7\" }", "invalid repo.retention.window \"7\""),
        ("retention = { keep = { lasst = 7 } }", "repo.retention.keep"),
    ] {
        let refused = refusal(&format!("{LEAST}{wrong}\n"), &[]);
        assert!(refused.contains(named), "{refused}");
    }
}

#[test]
fn a_grace_of_zero_must_be_written() {
    for (grace, expected) in [("0", 0), ("0s", 0), ("90min", 5400)] {
        let config = validated(&format!("{LEAST}[retention]\ngrace = \"{grace}\"\n"), &[]);
        assert_eq!(config.retention.grace, Duration::from_secs(expected), "{grace}");
    }
    let refused = refusal(&format!("{LEAST}[retention]\ngrace = \"10\"\n"), &[]);
    assert!(
        refused.starts_with("error: invalid retention.grace \"10\": expected a whole number and a unit"),
        "{refused}"
    );
}

#[test]
fn the_environment_can_set_everything() {
    let config = validated(
        "",
        &[
            ("HOLDFAST_CLUSTER_NAME", "123"),
            ("HOLDFAST_REPO_URL", "s3://one"),
            ("HOLDFAST_REPO_ENCRYPTION", "{ key_file = \"/k\" }"),
            ("HOLDFAST_REPO_PATH_STYLE", "true"),
            ("HOLDFAST_REPO_TAGS", "{ team = \"db\" }"),
            ("HOLDFAST_REPO_MAX_REQUESTS", "4"),
            ("HOLDFAST_REPO_2_URL", "file:///two"),
            ("HOLDFAST_REPO_2_ENCRYPTION", "none"),
            ("HOLDFAST_RETENTION_KEEP", "{ last = 2 }"),
            ("HOLDFAST_LOG_FORMAT", "json"),
            ("HOLDFAST_SPEED", "not ours"),
            ("HOLDFAST_REPO_SERVICE_HOST", "10.0.0.1"),
            ("HOLDFAST_REPO_PORT_9000_TCP_ADDR", "10.0.0.1"),
        ],
    );
    assert_eq!(config.cluster.name.as_str(), "123");
    let places: Vec<String> = config.repositories.iter().map(|repository| repository.location().to_string()).collect();
    assert_eq!(places, ["s3://one", "file:///two"]);
    let store = config.repositories.first().unwrap().store_config(|_| None).unwrap();
    assert_eq!((store.s3.path_style, store.max_requests), (true, 4));
    assert_eq!(store.s3.tags.get("team").map(String::as_str), Some("db"));
    assert_eq!(config.retention.keep.last, 2);
    assert_eq!(config.log.format, validated::LogFormat::Json);
}

#[test]
fn flags_override_variables_and_variables_override_the_file() {
    let load = |line: &str| {
        let args = Args::try_parse_from(line.split(' ')).unwrap();
        let environment =
            variables(&[("HOLDFAST_BACKUP_JOBS", "7"), ("HOLDFAST_BACKUP_LABEL", "from the environment")]);
        from_text(Path::new(FILE), SAMPLE, &environment, args.overlay())
    };
    let config = load("holdfast backup").unwrap();
    assert_eq!((config.backup.jobs.get(), config.backup.label.as_deref()), (7, Some("from the environment")));
    let config = load("holdfast backup --jobs 9 --start-fast --no-page-checks --compression lz4 -v").unwrap();
    assert_eq!(config.backup.jobs.get(), 9);
    assert!(config.backup.start_fast && !config.backup.page_checks);
    assert_eq!(config.backup.compression.to_string(), "lz4");
    assert_eq!(config.log.level, validated::LogLevel::Debug);
    let failure = load("holdfast backup --archive-timeout 10").err().unwrap().explain();
    assert_eq!(
        failure.message,
        "invalid backup.archive_timeout \"10\": expected a whole number and a unit, such as 60s, 90min, 12h or 30d \
         (on the command line (--archive-timeout))"
    );
}

#[test]
fn unknown_keys_are_reported_with_their_place() {
    assert_eq!(
        refusal("[cluster]\nname = \"main\"\n[backup]\n  job = 2\n", &[]),
        parts(
            "unknown key `backup.job` in /etc/holdfast/holdfast.toml, line 4, column 3",
            "did you mean `jobs`? the keys of backup are compression, jobs, memory, start_fast, archive_timeout, page_checks, label, machine"
        )
    );
    assert_eq!(
        refusal("[clutser]\nname = \"main\"\n", &[]),
        parts(
            "unknown key `clutser` in /etc/holdfast/holdfast.toml, line 1, column 2",
            "did you mean `cluster`? the sections are cluster, repo, backup, wal, restore, drill, retention, log"
        )
    );
    assert_eq!(
        refusal("[[repo]]\nurl = \"s3://b\"\nencryption = { password = \"x\" }\n", &[]),
        parts(
            "unknown key `repo.encryption.password` in /etc/holdfast/holdfast.toml, line 3, column 16",
            "the keys of repo.encryption are passphrase_file, passphrase_env, key_file, slot"
        )
    );
    assert_eq!(
        refusal(LEAST, &[("HOLDFAST_BACKUP_JOB", "2")]),
        parts("unknown environment variable HOLDFAST_BACKUP_JOB", "did you mean HOLDFAST_BACKUP_JOBS?")
    );
    assert_eq!(
        refusal(LEAST, &[("HOLDFAST_REPO_2_ULR", "s3://b")]),
        parts("unknown environment variable HOLDFAST_REPO_2_ULR", "did you mean HOLDFAST_REPO_2_URL?")
    );
    assert_eq!(
        refusal(LEAST, &[("HOLDFAST_REPO_1_URL", "s3://b")]),
        parts(
            "the environment variable HOLDFAST_REPO_1_URL has a repository number that is not valid",
            "the first repository is HOLDFAST_REPO_URL, without a number; further ones have the numbers 2 to 16"
        )
    );
}

#[test]
fn wrong_types_are_reported_with_their_key() {
    let manual = "docs/configuration.md lists the values of this key";
    for (text, environment, error) in [
        (
            "[backup]\njobs = \"two\"\n",
            &[][..],
            "wrong value for `backup.jobs` in /etc/holdfast/holdfast.toml, line 2, column 8: invalid type: string \"two\", expected a whole number",
        ),
        (
            "[repo]\nurl = \"s3://b\"\n",
            &[],
            "wrong value for `repo` in /etc/holdfast/holdfast.toml, line 1, column 2: repositories are a list: write [[repo]] with two brackets",
        ),
        (
            "[[repo]]\nencryption = true\n",
            &[],
            "wrong value for `repo.encryption` in /etc/holdfast/holdfast.toml, line 2, column 14: invalid type: boolean `true`, \
             expected a word in quotes or a table in braces",
        ),
        (
            "[[repo]]\nsecret_access_key = 4711\n",
            &[],
            "wrong value for `repo.secret_access_key` in /etc/holdfast/holdfast.toml, line 2, column 21: expected a text in \
             quotes (the value is secret and not shown)",
        ),
        (
            LEAST,
            &[("HOLDFAST_BACKUP_JOBS", "two")],
            "wrong value for `backup.jobs` in the environment variable HOLDFAST_BACKUP_JOBS: invalid value \"two\", expected a whole number",
        ),
        (
            LEAST,
            &[("HOLDFAST_REPO_PATH_STYLE", "yes")],
            "wrong value for `repo.path_style` in the environment variable HOLDFAST_REPO_PATH_STYLE: invalid value \"yes\", expected true or false",
        ),
    ] {
        assert_eq!(refusal(text, environment), parts(error, manual));
    }
    assert_eq!(
        refusal("[backup]\njobs = \n", &[]),
        parts(
            "syntax error in /etc/holdfast/holdfast.toml, line 2, column 8: string values must be quoted, expected literal string",
            "the file is TOML: [section] lines, then key = value with texts in double quotes"
        )
    );
}

#[test]
fn values_without_meaning_are_refused() {
    let manual = "docs/configuration.md lists the values of this key";
    for (name, value, error) in [
        (
            "HOLDFAST_BACKUP_MEMORY",
            "256MB",
            "invalid backup.memory \"256MB\": unknown unit \"MB\", expected B, KiB, MiB, GiB or TiB",
        ),
        ("HOLDFAST_BACKUP_MEMORY", "1MiB", "invalid backup.memory \"1MiB\": must be at least 32MiB"),
        ("HOLDFAST_BACKUP_JOBS", "0", "invalid backup.jobs \"0\": expected 1 to 1024"),
        ("HOLDFAST_BACKUP_LABEL", "two\nlines", "invalid backup.label \"two\\nlines\": must be one line of plain text"),
        (
            "HOLDFAST_BACKUP_COMPRESSION",
            "brotli",
            "invalid backup.compression \"brotli\": expected zstd:N (N from -7 to 22 without 0), lz4, gzip:N (N from 1 to 9) or none",
        ),
        ("HOLDFAST_CLUSTER_PGDATA", "data", "invalid cluster.pgdata \"data\": must be an absolute path"),
        ("HOLDFAST_CLUSTER_PGDATA", "/a/../b", "invalid cluster.pgdata \"/a/../b\": must not contain \"..\""),
        ("HOLDFAST_WAL_TIMEOUT", "0s", "invalid wal.timeout \"0s\": must be more than zero"),
        ("HOLDFAST_WAL_PUSH_AHEAD", "0", "invalid wal.push_ahead \"0\": expected 1 to 256"),
        ("HOLDFAST_LOG_LEVEL", "loud", "invalid log.level \"loud\": expected error, warn, info, debug or trace"),
        (
            "HOLDFAST_REPO_URL",
            "ftp://x:secret@y",
            "invalid repo.url \"ftp://***@y\": it must begin with s3:// or file://",
        ),
        ("HOLDFAST_REPO_PART_SIZE", "1MiB", "invalid repo.part_size \"1MiB\": must be between 5MiB and 5GiB"),
        ("HOLDFAST_REPO_REGION", "eu", "invalid repo.region: has no meaning for a repository in a directory"),
        (
            "HOLDFAST_REPO_LOCK",
            "{ mode = \"governance\", days = 30 }",
            "invalid repo.lock: a directory cannot keep its owner from deleting files; only a bucket with Object Lock can",
        ),
        (
            "HOLDFAST_REPO_ENCRYPTION",
            "aes",
            "invalid repo.encryption \"aes\": the only text allowed is \"none\"; otherwise write a table such as { \
             passphrase_file = \"/etc/holdfast/passphrase\" }",
        ),
        (
            "HOLDFAST_REPO_ENCRYPTION",
            "{ passphrase_file = \"/p\", key_file = \"/k\" }",
            "invalid repo.encryption: expected only one of passphrase_file, passphrase_env and key_file",
        ),
        (
            "HOLDFAST_REPO_ENCRYPTION",
            "{}",
            "invalid repo.encryption: expected one of passphrase_file, passphrase_env and key_file",
        ),
        (
            "HOLDFAST_REPO_ENCRYPTION",
            "{ key_file = \"k\" }",
            "invalid repo.encryption.key_file \"k\": must be an absolute path",
        ),
        (
            "HOLDFAST_REPO_ENCRYPTION",
            "{ key_file = \"/k\", slot = \".vault\" }",
            "invalid repo.encryption.slot \".vault\": expected 1 to 63 letters, digits, dots, underscores and hyphens, \
             not starting with a dot",
        ),
    ] {
        let expected = parts(&format!("{error} (in the environment variable {name})"), manual);
        assert_eq!(refusal(LEAST, &[(name, value)]), expected);
    }
}

#[test]
fn credentials_come_in_pairs() {
    let base = "[cluster]\nname = \"main\"\n[[repo]]\nurl = \"s3://b\"\nencryption = \"none\"\n";
    let config =
        validated(base, &[("HOLDFAST_REPO_ACCESS_KEY_ID", "AKIA"), ("HOLDFAST_REPO_SECRET_ACCESS_KEY", "hush")]);
    let store = config.repositories.first().unwrap().store_config(|_| None).unwrap();
    assert!(matches!(store.s3.credentials, Credentials::Static { session_token: None, .. }));
    assert!(!format!("{config:?}").contains("hush"));
    let manual = "docs/configuration.md lists the values of this key";
    assert_eq!(
        refusal(base, &[("HOLDFAST_REPO_SECRET_ACCESS_KEY", "hush")]),
        parts(
            "invalid repo.secret_access_key: needs access_key_id too (in the environment variable \
             HOLDFAST_REPO_SECRET_ACCESS_KEY)",
            manual
        )
    );
    assert_eq!(
        refusal(base, &[("HOLDFAST_REPO_SESSION_TOKEN", "hush")]),
        parts(
            "invalid repo.session_token: needs access_key_id and secret_access_key too \
             (in the environment variable HOLDFAST_REPO_SESSION_TOKEN)",
            manual
        )
    );
}

#[test]
fn what_is_missing_is_explained() {
    assert_eq!(
        refusal("", &[]),
        parts(
            "`cluster.name` is not set",
            "write name = \"main\" under [cluster] in /etc/holdfast/holdfast.toml, or set HOLDFAST_CLUSTER_NAME"
        )
    );
    assert_eq!(
        refusal("[cluster]\nname = \"main\"\n", &[]),
        parts(
            "`repo.url` is not set",
            "write a [[repo]] section with url = \"s3://bucket/prefix\" or \"file:///srv/backups\", or set HOLDFAST_REPO_URL"
        )
    );
    assert_eq!(
        refusal("[cluster]\nname = \"main\"\n[[repo]]\nurl = \"s3://bucket\"\n", &[]),
        parts(
            "repository s3://bucket does not say how it is encrypted",
            "write encryption = { passphrase_file = \"/etc/holdfast/passphrase\" } or { key_file = \"...\" }, \
             or encryption = \"none\" if everyone who can read the store may read the database"
        )
    );
    assert_eq!(
        refusal(LEAST, &[("HOLDFAST_REPO_2_URL", "file:///srv/backups"), ("HOLDFAST_REPO_2_ENCRYPTION", "none")]),
        parts(
            "invalid repo.2.url \"file:///srv/backups\": another [[repo]] is in the same place (in the environment \
             variable HOLDFAST_REPO_2_URL)",
            "docs/configuration.md lists the values of this key"
        )
    );
}

#[test]
fn a_named_file_must_exist() {
    let failure = load(Some(Path::new("/nonexistent/holdfast.toml")), &[], Vec::new()).err().unwrap().explain();
    assert_eq!(
        present::text(&failure, Style::Plain),
        parts(
            "cannot read the configuration file /nonexistent/holdfast.toml: No such file or directory (os error 2)",
            "name another file with --config or HOLDFAST_CONFIG, or make this one readable"
        )
    );
}

#[test]
fn a_wrong_connection_fails_only_commands_that_connect() {
    let config = validated(LEAST, &[("HOLDFAST_CLUSTER_CONNECTION", "host=db password=hush port=many")]);
    assert!(!format!("{config:?}").contains("hush"), "{config:?}");
}

#[test]
fn a_file_in_another_encoding_says_where() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("holdfast.toml");
    std::fs::write(&path, b"[cluster]\n# f\xc3\xbcr\nname = \"M\xfcnchen\"\n").unwrap();
    let failure = load(Some(&path), &[], Vec::new()).unwrap_err().explain();
    let text = failure.what().replace(&path.display().to_string(), "FILE");
    assert_eq!(text, "not UTF-8 in FILE, line 3, column 10: the byte 0xFC");
    assert!(failure.hint.unwrap().starts_with("TOML is written in UTF-8"));
}

#[test]
fn a_slot_may_be_set_beside_the_secret() {
    let config = validated(LEAST, &[("HOLDFAST_REPO_ENCRYPTION", "{ key_file = \"/k\", slot = \"vault\" }")]);
    let repository = config.repositories.first().unwrap();
    assert_eq!(repository.slot.as_ref().unwrap().as_str(), "vault");
    assert_eq!(repository.encryption, Encryption::KeyFile(PathBuf::from("/k")));
    assert_eq!(validated(SAMPLE, &[]).repositories.first().unwrap().slot, None);
}

#[test]
fn secrets_are_read_from_files_and_variables() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    let source = |kind: &str, content: &[u8]| {
        std::fs::write(&file, content).unwrap();
        let encryption = format!("{{ {kind} = \"{}\" }}", file.display());
        let config = validated(LEAST, &[("HOLDFAST_REPO_ENCRYPTION", &encryption)]);
        config
            .repositories
            .first()
            .unwrap()
            .encryption
            .key_source(|_| None)
            .map_err(|error| error.explain().what().replace(&file.display().to_string(), "FILE"))
    };
    let passphrase = |text: &str| Ok(KeySource::Passphrase(Secret::from(text)));
    assert_eq!(source("passphrase_file", b"correct horse\n"), passphrase("correct horse"));
    assert_eq!(source("passphrase_file", b"correct horse\r\n"), passphrase("correct horse"));
    assert_eq!(source("passphrase_file", b" two\nlines\n\n"), passphrase(" two\nlines\n"));
    assert_eq!(source("passphrase_file", b"\n"), Err("cannot use the passphrase file FILE: it is empty".to_owned()));
    assert_eq!(
        source("passphrase_file", b"\xff"),
        Err("cannot use the passphrase file FILE: it is not valid UTF-8".to_owned())
    );
    assert_eq!(source("key_file", &[7; 32]), Ok(KeySource::Key(Secret::new([7; 32]))));
    assert_eq!(
        source("key_file", &[b"0a".repeat(32), b"\n".to_vec()].concat()),
        Ok(KeySource::Key(Secret::new([10; 32])))
    );
    let refused = Err("cannot use the key file FILE: expected exactly 32 bytes, or 64 hexadecimal digits".to_owned());
    assert_eq!(source("key_file", &b"+a".repeat(32)), refused);
    assert_eq!(source("key_file", b"short"), refused);
    let private = "AGE-SECRET-KEY-1TK4SSLNZF29YK70P079C8QQWUEHNHVFFYCVTDLGU979J0LUGUR4SMHZYQ2";
    let read = source("key_file", format!("# of the vault\n{private}\n").as_bytes());
    assert!(matches!(read, Ok(KeySource::PrivateKey(key)) if key.to_text().expose() == private));
    assert_eq!(
        source("key_file", private.replace("TK4", "TK5").as_bytes()),
        Err("cannot use the key file FILE: it is not a private key of the form AGE-SECRET-KEY-1... with 74 characters"
            .to_owned())
    );

    let config = validated(LEAST, &[("HOLDFAST_REPO_ENCRYPTION", "{ passphrase_env = \"BACKUP_PASSPHRASE\" }")]);
    let repository = config.repositories.first().unwrap();
    assert_eq!(
        repository.encryption.key_source(|name| (name == "BACKUP_PASSPHRASE").then(|| "x".to_owned())).ok(),
        passphrase("x").ok()
    );
    assert_eq!(
        repository.encryption.key_source(|_| None).err().unwrap().explain().message,
        "`$BACKUP_PASSPHRASE` is not set"
    );
}

#[test]
fn the_sections_are_those_of_the_type() {
    let error = toml::from_str::<Written>("nothing = 1").unwrap_err();
    for (section, _) in SECTIONS {
        assert!(error.message().contains(&format!("`{section}`")), "{section}: {error}");
    }
    assert_eq!(error.message().matches('`').count(), 2 * (SECTIONS.len() + 1), "{error}");
}

#[test]
fn the_manual_names_every_key() {
    let manual = include_str!("../../../../docs/configuration.md");
    for (section, keys) in SECTIONS.iter().copied().chain(INNER_TABLES.iter().map(|(_, table, keys)| (*table, *keys))) {
        for key in keys {
            assert!(manual.contains(&format!("`{key}`")), "docs/configuration.md does not describe {key} of {section}");
        }
    }
}

#[test]
fn hostile_files_are_refused_without_a_panic() {
    for text in [
        "\u{0}",
        "[[",
        "a.b.c = 1",
        "[cluster]\nname = [[[[]]]]",
        "é = 1",
        "[cluster.name]\nx = 1",
        "cluster = 3",
        "repo = [1]",
        "\u{feff}[x]",
    ] {
        let mut origins = Origins::new(Path::new(FILE));
        let refused = file::parse(Path::new(FILE), text, &mut origins).is_err();
        assert!(refused, "{text:?}");
    }
    let origin = Origin::File { path: PathBuf::from("/x"), line: 1, column: 2 };
    assert_eq!(origin.to_string(), "in /x, line 1, column 2");
}
