#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::exit_code::ExitCode;
use crate::failure;
use clap::CommandFactory;
use holdfast_pgtypes::recovery_target::{RecoveryTarget, TargetAction, TargetTimeline};

fn parse(line: &str) -> Result<Args, clap::Error> {
    Args::try_parse_from(std::iter::once("holdfast").chain(line.split(' ')))
}

fn refusal(line: &str) -> String {
    let error = parse(line).err().unwrap();
    let failure = failure::of_command_line(&error);
    assert_eq!(failure.code, ExitCode::Usage, "{line}");
    failure::present::text(&failure, crate::style::Style::Plain)
}

fn restore(line: &str) -> RestoreArgs {
    match parse(line).map(|args| args.command) {
        Ok(Command::Restore(restore)) => restore,
        other => unreachable!("{line}: {other:?}"),
    }
}

#[test]
fn the_definition_of_the_command_line_is_consistent() {
    Args::command().debug_assert();
}

#[test]
fn targets() {
    let target = |flags: &str| restore(&format!("restore --pgdata /data{flags}")).to.target();
    assert_eq!(target(""), RecoveryTarget::Latest);
    assert_eq!(target(" --target-immediate"), RecoveryTarget::Immediate);
    assert_eq!(target(" --target-lsn 16/B374D848"), RecoveryTarget::Lsn("16/B374D848".parse().unwrap()));
    assert_eq!(target(" --target-xid 748 --target-exclusive"), RecoveryTarget::Xid(748));
    assert_eq!(
        target(" --target-name before-release --target-action promote"),
        RecoveryTarget::Name("before-release".to_owned())
    );
    assert_eq!(
        target(" --target-time 2026-11-22T10:15:00Z"),
        RecoveryTarget::Time("2026-11-22T10:15:00Z".parse().unwrap())
    );
    assert_eq!(restore("restore --pgdata /data").to.timeline, TargetTimeline::Latest);
    assert_eq!(
        restore("restore --pgdata /data --target-timeline 7").to.timeline,
        TargetTimeline::Number("7".parse().unwrap())
    );
    assert_eq!(
        restore("restore --pgdata /data --target-timeline 0x1F").to.timeline,
        TargetTimeline::Number("31".parse().unwrap())
    );
    for action in TargetAction::ALL {
        let line = format!("restore --pgdata /data --target-immediate --target-action {action}");
        assert_eq!(restore(&line).target_action, Some(action));
    }
    assert_eq!(
        restore("restore --pgdata /data --tablespace fast=/ssd/pg --tablespace 16400=/hdd").tablespaces,
        [("fast".to_owned(), PathBuf::from("/ssd/pg")), ("16400".to_owned(), PathBuf::from("/hdd"))]
    );
}

#[test]
fn wrong_command_lines_are_refused_in_three_parts() {
    for (line, expected) in [
        (
            "restore --pgdata /data --target-time 2026-11-22T10:15:00",
            "error: invalid value '2026-11-22T10:15:00' for '--target-time <TIME>': the time zone is missing: write it as an offset from UTC, such as +00, +02:00 or Z\n\
             while: reading the command line\n\
             hint:  add --help to see the options and their values\n",
        ),
        (
            "restore --pgdata data",
            "error: invalid value 'data' for '--pgdata <DIR>': must be an absolute path\n\
             while: reading the command line\n\
             hint:  add --help to see the options and their values\n",
        ),
        (
            "restore --pgdata /data --target-xid 748 --target-lsn 0/3000000",
            "error: the argument '--target-xid <XID>' cannot be used with '--target-lsn <LSN>'\n\
             while: reading the command line\n\
             hint:  usage: holdfast restore --pgdata <DIR> --target-xid <XID>\n",
        ),
        (
            "restore --pgdata /data --target-timeline newest",
            "error: invalid value 'newest' for '--target-timeline <TIMELINE>': expected latest, current or the number of a timeline\n\
             while: reading the command line\n\
             hint:  add --help to see the options and their values\n",
        ),
        (
            "restore --pgdata /data --target-immediate --target-action stop",
            "error: invalid value 'stop' for '--target-action <ACTION>' [possible values: pause, promote, shutdown]\n\
             while: reading the command line\n\
             hint:  a similar value exists: 'shutdown'\n",
        ),
        (
            "backup --typ full",
            "error: unexpected argument '--typ' found\n\
             while: reading the command line\n\
             hint:  a similar argument exists: '--type'\n",
        ),
        (
            "wal get 000000010000000000000001",
            "error: the following required arguments were not provided: <DEST>\n\
             while: reading the command line\n\
             hint:  usage: holdfast wal get <NAME> <DEST>\n",
        ),
    ] {
        assert_eq!(refusal(line), expected, "{line}");
    }
}

#[test]
fn combinations_without_meaning_are_refused() {
    for line in [
        "restore --pgdata /data --target-exclusive",
        "restore --pgdata /data --target-name x --target-exclusive",
        "restore --pgdata /data --target-immediate --target-exclusive",
        "restore --pgdata /data --target-action promote",
        "restore --pgdata /data --standby --target-immediate",
        "restore --pgdata /data --target-xid 2",
        "restore --pgdata /data --tablespace fast",
        "restore --pgdata /data --tablespace fast=ssd",
        "restore --target-immediate",
        "restore --pgdata /data --discard-wal",
        "restore --pgdata /data --snapshot 20260822T101500Z --delta",
        "restore --pgdata /data --snapshot 20260822T101500Z --backup 20260822T101500Z",
        "restore --pgdata /data --snapshot 20260822T101500Z --snapshot-record /tmp/record.json",
        "verify --seed 7",
        "verify --sample 0%",
        "verify --sample 101%",
        "verify --max-age 30d",
        "verify --repo 0",
        "wal verify --seed 7",
        "wal verify --timeline 0",
        "wal verify --heal",
        "wal push --wait 5s pg_wal/000000010000000000000001",
        "list -v -q",
        "list --log-level info -v",
        "backup --type differential",
        "backup --start-fast hold 20260822T101500Z",
        "backup hold",
        "backup hold 20260822T101500Z --until tomorrow",
        "expire --repo",
        "key",
        "key add vault",
        "key add --new-key-file /k",
        "key add .vault --new-key-file /k",
        "key add vault --new-key-file /k --new-passphrase-file /p",
        "key add vault --new-key-file /k --recipient age1x",
        "key generate",
        "key remove",
        "key rotate --drop",
        "wal receive --slot Archive",
        "wal receive --drop-slot --temporary",
        "wal get --tail 2 000000010000000000000001 x",
        "wal get --tail 0:16/B9000000 000000010000000000000001 x",
        "wal get --tail 2:16/B9000000 --standby 000000010000000000000001 x",
        "drill --seed 7",
        "drill --random --target-immediate",
        "drill --random --backup 20260822T101500Z",
        "drill --target-exclusive",
        "drill --probe probes.sql",
        "drill --set shared_buffers",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
}

#[test]
fn every_command_of_the_manual_parses() {
    for line in [
        "repo init",
        "repo init --new-claim",
        "repo info --output json",
        "repo claim --pgdata /data --owner production/shop/4c1f6a52 --output json",
        "repo claim --check --owner production/shop/4c1f6a52",
        "--config /x backup --type auto --start-fast --jobs 4 --label nightly --compression lz4 --archive-timeout 5min --no-page-checks",
        "list --no-progress --color never",
        "expire",
        "expire --plan --repo 2 --output json",
        "backup hold 20260822T101500Z --until 2027-01-31 --reason audit",
        "backup release 20260822T101500Z --output json",
        "info",
        "check",
        "restore --pgdata /data --backup 20260822T101500Z --delta --plan --standby --jobs 3",
        "wal push pg_wal/000000010000000000000001",
        "wal push --standby --wait 5s pg_wal/000000010000000000000001",
        "wal get 000000010000000000000001 pg_wal/RECOVERYXLOG",
        "wal get --repo 2 000000010000000000000001 pg_wal/RECOVERYXLOG",
        "wal get --tail 2:16/B9000000 000000010000000000000001 pg_wal/RECOVERYXLOG",
        "wal get --tail 1:0/5000000:0/5000500 --tail 2:0/6000000 000000010000000000000001 pg_wal/RECOVERYXLOG",
        "wal receive",
        "wal receive --slot archive_1 --temporary --application-name dr --interval 0s --accept-gap --output json",
        "wal receive --drop-slot",
        "wal list",
        "agent",
        "agent --metrics 127.0.0.1:9188",
        "agent status --output json",
        "wal verify",
        "wal verify --repo 2 --timeline 3 --deep --jobs 2 --no-record --output json --progress json",
        "wal verify --sample 5% --seed 7",
        "wal verify --heal /old/pg_wal --heal /mnt/archive",
        "wal find",
        "wal find --ddl --since 2026-11-22T10:15:00Z --until 2026-11-23T10:15:00Z --output json",
        "wal find --before-drop public.orders --target-timeline 2 --repo 2",
        "wal find --before-drop base/16384/24576 --since 2026-11-22T10:15:00Z",
        "wal find --time 2026-11-22T10:15:00Z",
        "wal find --xid 750",
        "wal find --lsn 16/B374D848",
        "wal find --name before-migration",
        "drill",
        "drill --directory /srv/drill --bin-dir /usr/lib/postgresql/18/bin --random --seed 7 --output json",
        "drill --target-time 2026-11-22T10:15:00Z --target-timeline 2 --backup 20260822T101500Z --repo 2 --keep",
        "drill --probe /etc/probes --probe /a.sql --set shared_buffers=1GB --role admin --database shop --no-amcheck",
        "drill --time-limit 4h --no-record --jobs 2",
        "verify",
        "verify --backup latest --repo 2 --no-record --output json",
        "verify --deep --max-age 30d --jobs 2",
        "verify --backup 20260822T101500Z --sample 5% --seed 7",
        "backup --output json --progress json",
        "snapshot record --archive-timeout 10min --output json",
        "snapshot list",
        "restore --pgdata /data --snapshot 20260822T101500Z --target-lsn 16/B374D848 --plan",
        "restore --pgdata /data --snapshot-record /tmp/record.json --standby",
        "key list --output json",
        "key add vault --new-passphrase-file /p --repo 2",
        "key add host-2 --new-passphrase-env NEW_PASSPHRASE",
        "key add host-3 --new-key-file k",
        "key add safe --recipient age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p",
        "key generate /etc/holdfast/safe.key",
        "key rotate --recipient age1x --recipient /etc/holdfast/safe.pub",
        "key rotate --passphrase-file /p --key-file /k --key-file /l --passphrase-env OTHER --drop host-2 --drop host-3",
        "key remove host-2 --repo 1 --output json",
        "completions bash",
        "man /tmp/man",
    ] {
        assert!(parse(line).is_ok(), "{line}");
    }
}
