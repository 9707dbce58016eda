//! Repositories that cannot be opened: wrong secret, wrong kind of secret, wrong place, damaged records.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use holdfast_testkit::disk::SmallDisk;
use holdfast_testkit::s3::S3Server;
use holdfast_testkit::user::is_root;

use super::kit::{Bench, Damage, files_below};
use crate::stage::PASSPHRASE;

const URL: &str = "url = \"file://$DIR/repository\"\n";

fn with(encryption: &str) -> String {
    format!("{URL}encryption = {encryption}")
}

/// Changes a text in the body of a plain record, and its digest to match, as a newer release or somebody with write
/// access would.
fn rewritten(record: &Path, from: &str, to: &str) -> Damage {
    Damage::change(record, |bytes| {
        let text = std::str::from_utf8(bytes).expect("a text");
        let (head, body) = text.split_once("\"body\": ").expect("a body");
        let body = body.strip_suffix("\n}\n").expect("an envelope").replacen(from, to, 1);
        let digest = holdfast_repo::record::sha256_hex(body.as_bytes());
        let (kind, _) = head.split_once("\"sha256\"").expect("a digest");
        *bytes = format!("{kind}\"sha256\": \"{digest}\",\n\"body\": {body}\n}}\n").into_bytes();
    })
}

/// A bench with one repository that has this encryption.
fn repository(encryption: &str) -> Bench {
    let mut bench = Bench::new();
    bench.texts.name("REPO", "file://$DIR/repository");
    bench.scratch.write("passphrase", format!("{PASSPHRASE}\n")).expect("write the passphrase");
    bench.scratch.write("other", "another passphrase altogether\n").expect("write the other passphrase");
    bench.scratch.write("key", "07".repeat(32)).expect("write the key file");
    bench.scratch.write("other-key", "08".repeat(32)).expect("write the other key file");
    bench.scratch.write("empty", "\n").expect("write an empty file");
    bench.scratch.write("short", "0707").expect("write a short key");
    bench.configure(&with(encryption));
    bench.ok(&["repo", "init"]);
    bench
}

#[test]
fn secrets_that_do_not_fit_an_encrypted_repository() {
    let mut bench = repository("{ passphrase_file = \"$DIR/passphrase\" }");
    let before = files_below(&bench.path("repository"));
    for (case, encryption, status, expected) in [
        (
            "wrong passphrase",
            "{ passphrase_file = \"$DIR/other\" }",
            11,
            "error: the passphrase does not open key slot default\n\
                 while: opening the repository $REPO\n\
                 hint:  check the passphrase in `encryption` of this [[repo]], and that `url` names the right \
                 repository; if the keys were rotated, this passphrase may no longer open it\n",
        ),
        (
            "passphrase file missing",
            "{ passphrase_file = \"$DIR/nowhere\" }",
            10,
            "error: cannot use the passphrase file $DIR/nowhere: No such file or directory (os error 2)\n\
                 while: reading the configuration\n\
                 hint:  name the right file in the configuration; the user that runs holdfast must be able to \
                 read it, and nobody else\n",
        ),
        (
            "passphrase file empty",
            "{ passphrase_file = \"$DIR/empty\" }",
            10,
            "error: cannot use the passphrase file $DIR/empty: it is empty\n\
                 while: reading the configuration\n\
                 hint:  name the right file in the configuration; the user that runs holdfast must be able to \
                 read it, and nobody else\n",
        ),
        (
            "variable not set",
            "{ passphrase_env = \"BACKUP_SECRET\" }",
            10,
            "error: `$BACKUP_SECRET` is not set\n\
                 while: reading the configuration\n\
                 hint:  the configuration takes the passphrase from the environment variable BACKUP_SECRET: set \
                 it\n",
        ),
        (
            "key file for a passphrase",
            "{ key_file = \"$DIR/key\" }",
            11,
            "error: $REPO has no key-file key slot\n\
                 while: opening the repository $REPO\n\
                 hint:  another kind of secret opens this repository: correct `encryption` of this \
                 [[repo]]\n",
        ),
        (
            "key file too short",
            "{ key_file = \"$DIR/short\" }",
            10,
            "error: cannot use the key file $DIR/short: expected exactly $SIZE bytes, or 64 hexadecimal \
                 digits\n\
                 while: reading the configuration\n\
                 hint:  name the right file in the configuration; the user that runs holdfast must be able to \
                 read it, and nobody else\n",
        ),
        (
            "none for an encrypted repository",
            "\"none\"",
            10,
            "error: $REPO is encrypted with aes-256-gcm, but the configuration says encryption = \"none\"\n\
                 while: opening the repository $REPO\n\
                 hint:  correct `encryption` of this [[repo]], or `url` if it names the wrong repository\n",
        ),
    ] {
        bench.configure(&with(encryption));
        bench.fails(case, &["list"], status, expected);
    }
    // A repository that exists is opened, and never created again.
    for (case, encryption, status, expected) in [
        (
            "init with another passphrase",
            "{ passphrase_file = \"$DIR/other\" }",
            11,
            "error: the passphrase does not open key slot default\n\
                 while: opening the repository $REPO, making a repository at $REPO\n\
                 hint:  check the passphrase in `encryption` of this [[repo]], and that `url` names the right \
                 repository; if the keys were rotated, this passphrase may no longer open it\n",
        ),
        (
            "init without encryption",
            "\"none\"",
            10,
            "error: $REPO is encrypted with aes-256-gcm, but the configuration says encryption = \"none\"\n\
                 while: opening the repository $REPO, making a repository at $REPO\n\
                 hint:  correct `encryption` of this [[repo]], or `url` if it names the wrong repository\n",
        ),
    ] {
        bench.configure(&with(encryption));
        bench.fails(case, &["repo", "init"], status, expected);
    }
    assert_eq!(files_below(&bench.path("repository")), before, "nothing may be written");
    bench.configure(&with("{ passphrase_file = \"$DIR/other\" }"));
    bench.fails(
        "wrong passphrase, as JSON",
        &["--output", "json", "list"],
        11,
        "{\"error\":{\"code\":11,\"hint\":\"check the passphrase in `encryption` of this [[repo]], and that `url` \
         names the right repository; if the keys were rotated, this passphrase may no longer open it\",\"message\":\"the \
         passphrase does not open key slot default\",\"name\":\"wrong-key\",\"while\":\"opening the repository $REPO\"}}\n",
    );
    bench.fails(
        "wrong passphrase at recovery",
        &["wal", "get", "000000010000000000000001", "$DIR/x"],
        139,
        "error: the passphrase does not open key slot default\n\
             while: opening the repository $REPO, fetching $SEGMENT from the archive\n\
             hint:  check the passphrase in `encryption` of this [[repo]], and that `url` names the right repository; \
             if the keys were rotated, this passphrase may no longer open it\n",
    );
    bench.finish();
}

#[test]
fn secrets_where_others_are_needed() {
    let mut bench = repository("{ key_file = \"$DIR/key\" }");
    bench.configure(&with("{ key_file = \"$DIR/other-key\" }"));
    bench.fails(
        "wrong key file",
        &["list"],
        11,
        "error: the key file does not open key slot default\n\
             while: opening the repository $REPO\n\
             hint:  check the key file in `encryption` of this [[repo]], and that `url` names the right repository; \
             if the keys were rotated, this file may no longer open it\n",
    );
    bench.configure(&with("{ passphrase_file = \"$DIR/passphrase\" }"));
    bench.fails(
        "passphrase for a key file",
        &["list"],
        11,
        "error: $REPO has no passphrase key slot\n\
             while: opening the repository $REPO\n\
             hint:  another kind of secret opens this repository: correct `encryption` of this [[repo]]\n",
    );
    bench.finish();

    let mut bench = repository("\"none\"");
    bench.configure(&with("{ passphrase_file = \"$DIR/passphrase\" }"));
    bench.fails(
        "passphrase for no encryption",
        &["list"],
        10,
        "error: $REPO is not encrypted, but the configuration says a passphrase\n\
             while: opening the repository $REPO\n\
             hint:  correct `encryption` of this [[repo]], or `url` if it names the wrong repository\n",
    );
    bench.finish();
}

#[test]
fn places_without_a_repository() {
    let mut bench = Bench::new();
    bench.texts.name("REPO", "file://$DIR/repository");
    bench.configure(&with("\"none\""));
    bench.fails(
        "no directory",
        &["list"],
        20,
        "error: $REPO does not exist\n\
             while: open $REPO\n\
             hint:  mount the disk it is on, or correct `url`; `holdfast repo init` creates a new repository\n",
    );
    let folder = bench.scratch.folder("repository").expect("make the folder");
    bench.fails(
        "empty directory",
        &["list"],
        14,
        "error: there is no Holdfast repository at $REPO\n\
             while: opening the repository $REPO\n\
             hint:  check `url`; if it is right and the repository does not exist yet, run `holdfast repo init`\n",
    );
    bench.fails(
        "empty directory, as JSON",
        &["--output", "json", "list"],
        14,
        "{\"error\":{\"code\":14,\"hint\":\"check `url`; if it is right and the repository does not exist yet, run \
         `holdfast repo init`\",\"message\":\"there is no Holdfast repository at \
         $REPO\",\"name\":\"not-initialised\",\"while\":\"opening the repository $REPO\"}}\n",
    );
    bench.fails(
        "empty directory at recovery",
        &["wal", "get", "000000010000000000000001", "$DIR/x"],
        142,
        "error: there is no Holdfast repository at $REPO\n\
             while: opening the repository $REPO, fetching $SEGMENT from the archive\n\
             hint:  check `url`; if it is right and the repository does not exist yet, run `holdfast repo init`\n",
    );
    if is_root() {
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).expect("close the folder");
        std::os::unix::fs::chown(&folder, Some(0), Some(0)).expect("give the folder to root");
        bench.fails(
            "directory of somebody else",
            &["list"],
            22,
            "error: permission denied by $REPO: Permission denied (os error 13)\n\
                 while: open $REPO\n\
                 hint:  check the owner and mode of the directory; holdfast runs as the user that PostgreSQL runs \
                 as\n",
        );
        bench.fails(
            "init in a directory of somebody else",
            &["repo", "init"],
            22,
            "error: permission denied by $REPO: Permission denied (os error 13)\n\
                 while: open $REPO\n\
                 hint:  check the owner and mode of the directory; holdfast runs as the user that PostgreSQL runs \
                 as\n",
        );
        bench.scratch.user().own(&folder).expect("give the folder back");
    }
    fs::remove_dir(&folder).expect("remove the folder");
    bench.scratch.write("repository", "a file").expect("write a file");
    bench.fails(
        "a file in its place",
        &["list"],
        10,
        "error: wrong request or configuration for $REPO: it is not a directory\n\
             while: open $REPO\n\
             hint:  name a directory in `url`\n",
    );
    bench.finish();
}

#[test]
fn a_key_slot_without_its_repository_is_not_overwritten() {
    let mut bench = repository("{ passphrase_file = \"$DIR/passphrase\" }");
    let record = bench.path("repository/holdfast.json");
    let lost = Damage::remove(&record);
    bench.fails(
        "init over the remains",
        &["repo", "init"],
        16,
        "error: $REPO already holds a repository: a key slot (keys/default.json) without holdfast.json\n\
             while: making a repository at $REPO\n\
             hint:  nothing was changed: old backups may need what is there; bring holdfast.json back (from another \
             copy, or from a deleted version in the bucket), or choose another place\n",
    );
    drop(lost);
    bench.ok(&["list"]);
    bench.finish();
}

#[test]
fn an_archive_without_its_repository_is_not_created_again() {
    let mut bench = repository("\"none\"");
    let lost = Damage::remove(&bench.path("repository/holdfast.json"));
    let claims = bench.path("repository/main/claims");
    fs::create_dir_all(&claims).expect("make a folder");
    fs::write(claims.join("1.json"), "{}").expect("write a claim");
    bench.scratch.user().own_tree(&bench.path("repository")).expect("give it to PostgreSQL's user");
    bench.fails(
        "init over an archive",
        &["repo", "init"],
        16,
        "error: $REPO already holds a repository: an archive (main/claims/1.json) without holdfast.json\n\
             while: making a repository at $REPO\n\
             hint:  nothing was changed: old backups may need what is there; bring holdfast.json back (from another \
             copy, or from a deleted version in the bucket), or choose another place\n",
    );
    drop(lost);
    bench.finish();
}

/// Several real stores accept the condition of a write, answer with success, and overwrite.
#[test]
fn a_store_that_ignores_conditions_keeps_the_key_slot() {
    let s3 = S3Server::builder().ignoring_conditions().start().expect("start the S3 server");
    let mut bench = Bench::new();
    bench.scratch.write("passphrase", format!("{PASSPHRASE}\n")).expect("write the passphrase");
    let place = |prefix: &str| {
        format!(
            "url = \"s3://{}/{prefix}\"\nendpoint = \"{}\"\nregion = \"{}\"\npath_style = true\n\
             access_key_id = \"{}\"\nsecret_access_key = \"{}\"\n\
             encryption = {{ passphrase_file = \"$DIR/passphrase\" }}",
            s3.bucket(),
            s3.endpoint(),
            s3.region(),
            s3.credentials().access_key,
            s3.credentials().secret_key,
        )
    };
    bench.texts.name("REPO", format!("s3://{}/lost", s3.bucket()));
    bench.configure(&place("lost"));
    let made = bench.ok(&["repo", "init"]);
    assert!(made.contains("conditional writes  emulated"), "{made}");
    let folder = s3.object_path(s3.bucket(), "lost");
    let slots = || {
        let names = files_below(&folder.join("keys"));
        names.iter().map(|name| fs::read(folder.join("keys").join(name)).expect("read a slot")).collect::<Vec<_>>()
    };
    let before = slots();
    let lost = Damage::remove(&folder.join("holdfast.json"));
    let output = bench.run(&["repo", "init"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(16) && said.contains("without holdfast.json"), "{said}");
    assert_eq!(slots(), before, "the only key of the backups");
    drop(lost);
    bench.ok(&["list"]);

    // Two at the same time: the record of one of them remains, and a slot that opens it. Neither overwrites the other's
    // slot.
    bench.configure(&place("raced"));
    let running: Vec<_> = (0..2)
        .map(|_| {
            let mut command = bench.command(&["repo", "init"]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start holdfast")
        })
        .collect();
    for child in running {
        let output = child.wait_with_output().expect("wait for holdfast");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    bench.ok(&["list"]);
    bench.finish();
}

#[test]
fn a_full_disk_at_repo_init() {
    let Some(disk) = SmallDisk::or_skip(64 << 10) else { return };
    let mut bench = Bench::new();
    bench.texts.name("DISK", disk.path().display());
    let filler = disk.path().join("filler");
    fs::write(&filler, vec![0; usize::try_from(disk.free_bytes().expect("ask the disk")).expect("a small disk")])
        .expect("fill the disk");
    bench.configure(&format!("url = \"file://{}/repository\"\nencryption = \"none\"", disk.path().display()));
    bench.fails(
        "init",
        &["repo", "init"],
        30,
        "error: no space left in file://$DISK/repository: No space left on device (os error 28)\n\
             while: put .probe-$ID/object to file://$DISK/repository, trying what the store can do\n\
             hint:  free or add space; what is already stored is not lost\n",
    );
    fs::remove_file(filler).expect("make room");
    bench.ok(&["repo", "init"]);
    bench.finish();
}

/// Runs every command that reads an archive, before the archive has any content.
#[test]
fn an_archive_that_is_empty() {
    let mut bench = repository("\"none\"");
    for (arguments, said) in [
        (&["list"][..], "main in $REPO\nno complete backup\n"),
        (
            &["info"],
            "main in $REPO\n  repository $ID, encryption none, conditional writes native\n  \
             nothing is archived yet: no backup, no WAL\n",
        ),
        (&["wal", "list"], "main in $REPO\nno WAL is archived\n"),
    ] {
        assert_eq!(bench.texts.plain(&bench.ok(arguments)), said, "{arguments:?}");
    }
    let target = bench.path("target").display().to_string();
    bench.fails(
        "restore",
        &["--no-progress", "restore", "--pgdata", &target],
        60,
        "error: nothing has been archived for cluster main in $REPO\n\
             while: restoring main into $DIR/target\n\
             hint:  check `cluster.name`; `holdfast repo info` lists the clusters of a repository\n",
    );
    bench.fails(
        "wal get",
        &["wal", "get", "000000010000000000000001", &target],
        188,
        "error: nothing has been archived for cluster main in $REPO\n\
             while: fetching $SEGMENT from the archive\n\
             hint:  check `cluster.name`; `holdfast repo info` lists the clusters of a repository\n",
    );
    assert!(!Path::new(&target).exists());
    bench.finish();
}

#[test]
fn records_of_the_repository_that_are_damaged() {
    let mut bench = repository("{ passphrase_file = \"$DIR/passphrase\" }");
    let record = bench.path("repository/holdfast.json");
    let slot = bench.path("repository/keys/default.json");
    let damage = Damage::change(&record, |bytes| *bytes = b"hello".to_vec());
    bench.fails(
        "not JSON",
        &["list"],
        40,
        "error: not a repository record: expected value at line 1 column 1\n\
             while: reading holdfast.json, opening the repository $REPO\n\
             hint:  no part of it was used: look for another copy (a second repository, a version of the object \
             in the bucket), and check the store\n",
    );
    drop(damage);
    let damage = Damage::change(&record, Vec::clear);
    bench.fails(
        "empty",
        &["list"],
        41,
        "error: not a repository record: EOF while parsing a value at line 1 column 0\n\
             while: reading holdfast.json, opening the repository $REPO\n\
             hint:  no part of it was used: look for another copy (a second repository, a version of the object \
             in the bucket), and check the store\n",
    );
    drop(damage);
    let damage = Damage::halve(&record);
    bench.fails(
        "truncated",
        &["list"],
        41,
        "error: not a repository record: EOF while parsing a string at line 9 column 15\n\
             while: reading holdfast.json, opening the repository $REPO\n\
             hint:  no part of it was used: look for another copy (a second repository, a version of the object \
             in the bucket), and check the store\n",
    );
    drop(damage);
    let damage = Damage::replace(&record, "pack_size_bytes\": 1", "pack_size_bytes\": 2");
    bench.fails(
        "changed",
        &["list"],
        40,
        "error: the body of the repository record has SHA-256 $DIGEST, its envelope says $DIGEST\n\
             while: reading holdfast.json, opening the repository $REPO\n\
             hint:  no part of it was used: look for another copy (a second repository, a version of the object \
             in the bucket), and check the store\n",
    );
    drop(damage);
    let damage = Damage::replace(&record, "\"version\": 1", "\"version\": 2");
    bench.fails(
        "of a later release",
        &["list"],
        17,
        "error: repository record of version 2, this software reads up to version 1\n\
             while: reading holdfast.json, opening the repository $REPO\n\
             hint:  use the release of holdfast that wrote it, or a newer one\n",
    );
    drop(damage);
    for (case, from, to, status, expected) in [
        (
            "format of a later release",
            "\"format_version\": 1",
            "\"format_version\": 2",
            17,
            "error: format_version \"2\" of the repository record is not known here: written by a newer holdfast\n\
             while: reading holdfast.json, opening the repository $REPO\n\
             hint:  use the release of holdfast that wrote it, or a newer one\n",
        ),
        (
            "encryption of a later release",
            "aes-256-gcm",
            "aes-256-siv",
            17,
            "error: encryption \"aes-256-siv\" of the repository record is not known here: written by a newer holdfast\n\
             while: reading holdfast.json, opening the repository $REPO\n\
             hint:  use the release of holdfast that wrote it, or a newer one\n",
        ),
        (
            "extents of nothing",
            "\"extent_size_bytes\": 1048576",
            "\"extent_size_bytes\": 0",
            40,
            "error: the repository record cannot be used: extent_size_bytes 0 is not a multiple of 32768 from 32768 to \
             16777216\n\
             while: reading holdfast.json, opening the repository $REPO\n\
             hint:  no part of it was used: look for another copy (a second repository, a version of the object \
             in the bucket), and check the store\n",
        ),
    ] {
        let damage = rewritten(&record, from, to);
        bench.fails(case, &["list"], status, expected);
        drop(damage);
    }
    let damage = rewritten(&record, "\"pack_size_bytes\": 134217728", "\"pack_size_bytes\": 1048576");
    bench.fails(
        "changed by somebody without the key",
        &["list"],
        42,
        "error: the repository record has no MAC: it is not the one that was written with the repository's key\n\
             while: reading holdfast.json, opening the repository $REPO\n\
             hint:  somebody changed the repository, or two repositories were mixed by copying: look for another copy, \
             and check who may write there\n",
    );
    drop(damage);
    let features = bench.path("repository/features");
    fs::create_dir_all(&features).expect("make the folder of features");
    fs::write(features.join("read-chains"), "").expect("put a feature there");
    bench.scratch.user().own_tree(&features).expect("give it to PostgreSQL's user");
    bench.fails(
        "a feature of a later release",
        &["list"],
        17,
        "error: $REPO has the feature read-chains, which this release does not know: written by a newer holdfast\n\
             while: opening the repository $REPO\n\
             hint:  use the release of holdfast that wrote it, or a newer one\n",
    );
    fs::remove_dir_all(&features).expect("remove the features");
    let damage = Damage::put_instead(&record, &slot);
    bench.fails(
        "another record",
        &["list"],
        42,
        "error: a \"key-slot\" record is found where a repository record should be\n\
             while: reading holdfast.json, opening the repository $REPO\n\
             hint:  somebody changed the repository, or two repositories were mixed by copying: look for another copy, \
             and check who may write there\n",
    );
    drop(damage);
    let damage = Damage::halve(&slot);
    bench.fails(
        "key slot truncated",
        &["list"],
        41,
        "error: not a key-slot record: EOF while parsing a string at line 13 column 10\n\
             while: reading keys/default.json, opening the repository $REPO\n\
             hint:  no part of it was used: look for another copy (a second repository, a version of the object \
             in the bucket), and check the store\n",
    );
    drop(damage);
    let damage = rewritten(&slot, "\"passphrase\"", "\"kms\"");
    bench.fails(
        "key slot of a later release",
        &["list"],
        17,
        "error: kind \"kms\" of the key-slot record is not known here: written by a newer holdfast\n\
             while: reading keys/default.json, opening the repository $REPO\n\
             hint:  use the release of holdfast that wrote it, or a newer one\n",
    );
    drop(damage);
    // If another slot opens the repository, the damaged one is only reported.
    let second = bench.path("repository/keys/second.json");
    fs::copy(&slot, &second).expect("copy the slot");
    bench.scratch.user().own(&second).expect("give it to PostgreSQL's user");
    assert!(bench.ok(&["repo", "info"]).contains("unreadable key slot second: "));
    bench.ok(&["list"]);
    fs::remove_file(second).expect("remove the copy");
    let damage = Damage::remove(&slot);
    bench.fails(
        "key slot missing",
        &["list"],
        43,
        "error: object keys/ does not exist in $REPO: there is no key slot, and without one the repository cannot be \
             opened\n\
             while: list keys/ in $REPO, opening the repository $REPO\n\
             hint:  look for another copy (a second repository, a deleted version in the bucket), and check who may \
             delete there\n",
    );
    drop(damage);
    bench.ok(&["list"]);
    bench.finish();
}
