//! Configurations that are refused: the message names the key, the place in the file, and what was probably meant.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::kit::Bench;

const CLUSTER: &str = "[cluster]\nname = \"main\"\n";
const REPO: &str = "[[repo]]\nurl = \"file://$DIR/repository\"\nencryption = \"none\"\n";

/// The text below `while:` and `hint:` for an impossible value.
const READING: &str = "while: reading the configuration\n";

/// The hint if the message already says everything.
const MANUAL: &str = "docs/configuration.md lists the values of this key";

struct Case {
    name: &'static str,
    text: String,
    error: &'static str,
    hint: &'static str,
}

fn case(name: &'static str, text: impl Into<String>, error: &'static str, hint: &'static str) -> Case {
    Case { name, text: text.into(), error, hint }
}

#[test]
fn a_configuration_that_is_wrong_names_the_key_and_the_place() {
    let mut bench = Bench::new();
    let cases = [
        case(
            "unknown key",
            format!("{CLUSTER}pgdta = \"/srv/pg\"\n{REPO}"),
            "unknown key `cluster.pgdta` in $DIR/holdfast.toml, line 3, column 1",
            "did you mean `pgdata`? the keys of cluster are name, owner, pgdata, connection, primary_connection",
        ),
        case(
            "unknown key of a repository",
            format!("{CLUSTER}{REPO}end_point = \"http://x\"\n"),
            "unknown key `repo.end_point` in $DIR/holdfast.toml, line 6, column 1",
            "did you mean `endpoint`? the keys of repo are url, endpoint, region, path_style, ca_file, encryption, \
             access_key_id, secret_access_key, session_token, profile, storage_class, sse, tags, part_size, \
             max_requests, retention, lock",
        ),
        case(
            "unknown section",
            format!("{CLUSTER}{REPO}[backups]\n"),
            "unknown key `backups` in $DIR/holdfast.toml, line 6, column 2",
            "did you mean `backup`? the sections are cluster, repo, backup, wal, restore, drill, retention, log",
        ),
        case(
            "unknown key without likeness",
            format!("{CLUSTER}{REPO}[wal]\nfrobnicate = 1\n"),
            "unknown key `wal.frobnicate` in $DIR/holdfast.toml, line 7, column 1",
            "the keys of wal are compression, push_ahead, prefetch, spool, timeout",
        ),
        case(
            "not TOML",
            format!("{CLUSTER}{REPO}[wal\n"),
            "syntax error in $DIR/holdfast.toml, line 6, column 5: unclosed table, expected `]`",
            "the file is TOML: [section] lines, then key = value with texts in double quotes",
        ),
        case(
            "text instead of a number",
            format!("{CLUSTER}{REPO}[wal]\npush_ahead = \"many\"\n"),
            "wrong value for `wal.push_ahead` in $DIR/holdfast.toml, line 7, column 14: invalid type: string \
             \"many\", expected a whole number",
            MANUAL,
        ),
        case(
            "single brackets",
            format!("{CLUSTER}[repo]\nurl = \"file:///srv\"\n"),
            "wrong value for `repo` in $DIR/holdfast.toml, line 3, column 2: repositories are a list: write [[repo]] \
             with two brackets",
            MANUAL,
        ),
        case(
            "unknown scheme",
            format!("{CLUSTER}[[repo]]\nurl = \"ftp://h/x\"\nencryption = \"none\"\n"),
            "invalid repo.url \"ftp://h/x\": it must begin with s3:// or file:// (in $DIR/holdfast.toml, line 4, \
             column 1)",
            MANUAL,
        ),
        case(
            "credentials in the url",
            format!("{CLUSTER}[[repo]]\nurl = \"s3://key:secret@b/x\"\nencryption = \"none\"\n"),
            "invalid repo.url \"s3://***@b/x\": the URL must not contain credentials; use the credentials settings \
             (in $DIR/holdfast.toml, line 4, column 1)",
            MANUAL,
        ),
        case(
            "no encryption setting",
            format!("{CLUSTER}[[repo]]\nurl = \"file://$DIR/repository\"\n"),
            "repository file://$DIR/repository does not say how it is encrypted",
            "write encryption = { passphrase_file = \"/etc/holdfast/passphrase\" } or { key_file = \"...\" }, or \
             encryption = \"none\" if everyone who can read the store may read the database",
        ),
        case(
            "unknown word for encryption",
            format!("{CLUSTER}[[repo]]\nurl = \"file://$DIR/r\"\nencryption = \"yes\"\n"),
            "invalid repo.encryption \"yes\": the only text allowed is \"none\"; otherwise write a table such as { \
             passphrase_file = \"/etc/holdfast/passphrase\" } (in $DIR/holdfast.toml, line 5, column 1)",
            MANUAL,
        ),
        case(
            "S3's setting for a directory",
            format!("{CLUSTER}{REPO}region = \"eu-central-1\"\n"),
            "invalid repo.region: has no meaning for a repository in a directory (in $DIR/holdfast.toml, line 6, \
             column 1)",
            MANUAL,
        ),
        case(
            "half of a key pair",
            format!("{CLUSTER}[[repo]]\nurl = \"s3://b/x\"\nencryption = \"none\"\naccess_key_id = \"a\"\n"),
            "invalid repo.access_key_id: needs secret_access_key too (in $DIR/holdfast.toml, line 6, column 1)",
            MANUAL,
        ),
        case(
            "one place twice",
            format!("{CLUSTER}{REPO}{REPO}"),
            "invalid repo.2.url \"file://$DIR/repository\": another [[repo]] is in the same place (in \
             $DIR/holdfast.toml, line 7, column 1)",
            MANUAL,
        ),
        case(
            "no repository",
            CLUSTER,
            "`repo.url` is not set",
            "write a [[repo]] section with url = \"s3://bucket/prefix\" or \"file:///srv/backups\", or set \
             HOLDFAST_REPO_URL",
        ),
        case(
            "bad cluster name",
            format!("[cluster]\nname = \"a/b\"\n{REPO}"),
            "invalid cluster.name \"a/b\": \"a/b\" is not a cluster name: 1 to 63 letters, digits, dots, underscores \
             and hyphens, not starting with a dot (in $DIR/holdfast.toml, line 2, column 1)",
            MANUAL,
        ),
        case(
            "relative data directory",
            format!("{CLUSTER}pgdata = \"data\"\n{REPO}"),
            "invalid cluster.pgdata \"data\": must be an absolute path (in $DIR/holdfast.toml, line 3, column 1)",
            MANUAL,
        ),
        case(
            "unknown compression",
            format!("{CLUSTER}{REPO}[backup]\ncompression = \"zip\"\n"),
            "invalid backup.compression \"zip\": expected zstd:N (N from -7 to 22 without 0), lz4, gzip:N (N from 1 \
             to 9) or none (in $DIR/holdfast.toml, line 7, column 1)",
            MANUAL,
        ),
        case(
            "level out of range",
            format!("{CLUSTER}{REPO}[backup]\ncompression = \"zstd:99\"\n"),
            "invalid backup.compression \"zstd:99\": expected zstd:N (N from -7 to 22 without 0), lz4, gzip:N (N \
             from 1 to 9) or none (in $DIR/holdfast.toml, line 7, column 1)",
            MANUAL,
        ),
        case(
            "memory without a unit",
            format!("{CLUSTER}{REPO}[backup]\nmemory = \"lots\"\n"),
            "invalid backup.memory \"lots\": expected a whole number and a unit, such as 64MiB (in \
             $DIR/holdfast.toml, line 7, column 1)",
            MANUAL,
        ),
        case(
            "time without a unit",
            format!("{CLUSTER}{REPO}[backup]\narchive_timeout = \"5\"\n"),
            "invalid backup.archive_timeout \"5\": expected a whole number and a unit, such as 60s, 90min, 12h or \
             30d (in $DIR/holdfast.toml, line 7, column 1)",
            MANUAL,
        ),
    ];
    for Case { name, text, error, hint } in cases {
        bench.configure_whole(&text);
        bench.fails(
            name,
            &["list"],
            10,
            &format!(
                "error: {error}\n\
                 {READING}hint:  {hint}\n"
            ),
        );
    }
    bench.finish();
}

#[test]
fn files_and_variables_that_cannot_be_read_are_named() {
    let mut bench = Bench::new();
    bench.fails(
        "no such file",
        &["list"],
        10,
        "error: cannot read the configuration file $DIR/holdfast.toml: No such file or directory (os error \
             2)\n\
             while: reading the configuration\n\
             hint:  name another file with --config or HOLDFAST_CONFIG, or make this one readable\n",
    );
    bench.configure_whole(&format!("{CLUSTER}{REPO}"));
    let output = bench.command(&["list"]).env("HOLDFAST_WAL_SPOL", "/x").output().expect("run holdfast");
    bench.texts.expect(
        "unknown variable",
        &output,
        10,
        "error: unknown environment variable HOLDFAST_WAL_SPOL\n\
             while: reading the configuration\n\
             hint:  did you mean HOLDFAST_WAL_SPOOL?\n",
    );
    let output = bench.command(&["list"]).env("HOLDFAST_WAL_PREFETCH", "-1").output().expect("run holdfast");
    bench.texts.expect(
        "value of a variable",
        &output,
        10,
        "error: wrong value for `wal.prefetch` in the environment variable HOLDFAST_WAL_PREFETCH: invalid \
             value \"-1\", expected a whole number\n\
             while: reading the configuration\n\
             hint:  docs/configuration.md lists the values of this key\n",
    );
    bench.fails(
        "as JSON",
        &["--output", "json", "backup"],
        10,
        "{\"error\":{\"code\":10,\"hint\":\"write pgdata = \\\"/var/lib/postgresql/18/main\\\" under \
             [cluster], or set HOLDFAST_CLUSTER_PGDATA\",\"message\":\"`cluster.pgdata` is not \
             set\",\"name\":\"configuration\",\"while\":\"reading the configuration\"}}\n",
    );
    bench.fails(
        "backup without a data directory",
        &["backup"],
        10,
        "error: `cluster.pgdata` is not set\n\
             while: reading the configuration\n\
             hint:  write pgdata = \"/var/lib/postgresql/18/main\" under [cluster], or set \
             HOLDFAST_CLUSTER_PGDATA\n",
    );
    bench.fails(
        "archive_command with a wrong flag",
        &["wal", "push", "--fast", "x"],
        2,
        "error: unexpected argument '--fast' found\n\
             while: reading the command line\n\
             hint:  to pass '--fast' as a value, use '-- --fast'\n",
    );
    bench.fails(
        "restore_command with a wrong flag",
        &["wal", "get", "--fast", "x", "y"],
        130,
        "error: unexpected argument '--fast' found\n\
             while: reading the command line\n\
             hint:  to pass '--fast' as a value, use '-- --fast'\n",
    );
    bench.configure_whole("[cluster]\nname = \"main\"\npgdta = 1\n");
    bench.fails(
        "restore_command with a wrong configuration",
        &["wal", "get", "000000010000000000000001", "y"],
        138,
        "error: unknown key `cluster.pgdta` in $DIR/holdfast.toml, line 3, column 1\n\
             while: reading the configuration\n\
             hint:  did you mean `pgdata`? the keys of cluster are name, owner, pgdata, connection, primary_connection\n",
    );
    bench.finish();
}

/// A warning, since an error would stop unattended runs.
#[test]
fn a_secret_that_everybody_can_read_is_named() {
    let bench = Bench::new();
    bench.configure("url = \"file://$DIR/repository\"\nencryption = { passphrase_file = \"$DIR/passphrase\" }");
    let secret = bench.path("passphrase");
    std::fs::write(&secret, "correct horse battery staple\n").expect("write a passphrase");
    bench.scratch.user().own(&secret).expect("give it away");
    let mode = |path: &Path, mode| std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("set a mode");
    mode(bench.scratch.path(), 0o755);
    let warning = format!(
        "warning: every user of this machine may read {0}, which opens the repository: `chmod o-rwx {0}`",
        secret.display()
    );
    for (bits, reported) in [(0o644, true), (0o640, false), (0o600, false)] {
        mode(&secret, bits);
        let output = bench.run(&["repo", "init"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(said.contains(&warning), reported, "{bits:o}: {said}");
    }
    assert!(bench.path("repository/holdfast.json").exists());

    // The configuration file itself, if it has a secret in it.
    let file = bench.path("holdfast.toml");
    let without = std::fs::read_to_string(&file).expect("read the configuration");
    let connection = |text: &str| without.replace("[cluster]", &format!("[cluster]\nconnection = \"{text}\""));
    let open = format!("warning: every user of this machine may read {}, which has a password", file.display());
    for (text, bits, named) in [
        (connection("host=db user=u password=hush"), 0o644, true),
        (connection("postgresql://u:hush@db/postgres"), 0o644, true),
        (connection("host=db user=u password=hush"), 0o640, false),
        (connection("host=db user=u"), 0o644, false),
        (without.clone(), 0o644, false),
    ] {
        std::fs::write(&file, &text).expect("write the configuration");
        mode(&file, bits);
        let output = bench.run(&["repo", "init"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(said.contains(&open), named, "{bits:o} {text}: {said}");
    }
}
