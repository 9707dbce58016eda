//! `initdb`: a new, empty cluster.
//!
//! Order: the archive is checked, the directory is created, the server is started for the manager only, the roles, the
//! database and the user's SQL are created, the server is stopped, the archive is claimed. Until the server has
//! stopped, the record on the volume says that the directory is begun, so after a kill it is made again. After a kill
//! during the claim, the claim is repeated, since the archive may already know the new system identifier.

use super::Bootstrap;
use crate::error::{Error, Kind, Result};
use crate::volume::{Filling, Progress, empty};
use holdfast_kube_api::cluster::InitDb;
use std::ffi::OsString;

const METHOD: &str = "initdb";

/// Creates the data directory; `found` is the progress of an earlier try.
///
/// # Errors
/// When any step fails; the next try finds what exists.
pub async fn run(work: &Bootstrap<'_>, found: Option<Progress>) -> Result<()> {
    if found == Some(Progress::Claiming) {
        return claim(work).await;
    }
    work.step(METHOD, "checking the archive");
    work.check_archive().await.map_err(|error| error.doing("checking that the archive is empty, before initdb"))?;
    work.record(Filling::Initdb, Progress::Begun)?;
    empty(work.paths)?;
    let options =
        work.cluster.spec.bootstrap.as_ref().and_then(|bootstrap| bootstrap.initdb.clone()).unwrap_or_default();
    work.step(METHOD, "initdb");
    initdb(work, &options).await?;
    work.write_isolated_files()?;
    work.step(METHOD, "creating roles and databases");
    let served = work.start_isolated(&[("fsync", "off".to_owned())]).await?;
    let prepared = match work.isolated_ready(&served).await {
        Ok(()) => work.prepare_new(&options).await,
        Err(error) => Err(error),
    };
    work.stop_isolated(&served).await;
    prepared?;
    // Syncs everything at once, which is cheaper than each file by itself.
    work.sync()?;
    work.record(Filling::Initdb, Progress::Claiming)?;
    claim(work).await
}

async fn claim(work: &Bootstrap<'_>) -> Result<()> {
    work.step(METHOD, "claiming the archive");
    work.claim_archive().await.map_err(|error| error.doing("claiming the archive, before the first start"))?;
    work.record_complete(Filling::Initdb)
}

async fn initdb(work: &Bootstrap<'_>, options: &InitDb) -> Result<()> {
    let mut command = work.programs.command("initdb");
    command.arg("-D").arg(&work.paths.pgdata).args(arguments(options, work.programs.major()));
    if let Some(wal) = &work.paths.wal_directory {
        command.arg("--waldir").arg(wal);
    }
    let output = tokio::select! {
        output = command.output() => output.map_err(|error| Error::retry(format!("cannot run initdb: {error}")))?,
        () = work.stop.cancelled() => return Err(Error::cancelled()),
    };
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(Error {
        kind: Kind::Stuck,
        what: format!("initdb ended with {}: {}", output.status, last_words(&text)),
        doing: Some("creating the data directory".to_owned()),
        hint: Some("correct bootstrap.initdb and create the Cluster again: nothing of this one was kept".to_owned()),
    })
}

/// The lines of a program's output that explain its failure.
pub(crate) fn last_words(text: &str) -> String {
    let telling: Vec<&str> = text
        .lines()
        .filter(|line| {
            ["error:", "ERROR:", "FATAL:", "PANIC:", "could not", "unrecognized", "invalid"]
                .iter()
                .any(|word| line.contains(word))
        })
        .collect();
    match telling.as_slice() {
        [] => {
            let said = |line: &&str| !line.trim().is_empty() && !line.contains("hint:");
            text.lines().rev().find(said).unwrap_or("it printed no message").to_owned()
        }
        lines => lines.join("; "),
    }
}

/// The options of `initdb`. Pure.
pub(crate) fn arguments(options: &InitDb, major: u16) -> Vec<OsString> {
    let mut words: Vec<String> = vec![
        "--username=postgres".to_owned(),
        "--auth-local=peer".to_owned(),
        "--auth-host=scram-sha-256".to_owned(),
        // Everything is synced once at the end.
        "--no-sync".to_owned(),
        format!("--encoding={}", options.encoding.as_deref().unwrap_or("UTF8")),
    ];
    let mut add = |name: &str, value: Option<&String>| {
        if let Some(value) = value {
            words.push(format!("--{name}={value}"));
        }
    };
    let c = "C".to_owned();
    add("locale", options.locale.as_ref());
    let default = options.locale.is_none().then_some(&c);
    add("lc-collate", options.locale_collate.as_ref().or(default));
    add("lc-ctype", options.locale_ctype.as_ref().or(default));
    add("locale-provider", options.locale_provider.as_ref());
    add("icu-locale", options.icu_locale.as_ref());
    add("wal-segsize", options.wal_segment_size.map(|size| size.to_string()).as_ref());
    match (options.data_checksums, major) {
        (Some(true), _) => words.push("--data-checksums".to_owned()),
        (Some(false), 18..) => words.push("--no-data-checksums".to_owned()),
        _ => {}
    }
    // As users of CloudNativePG write them: each entry may contain an option and its value.
    words.extend(options.options.iter().flat_map(|option| option.split_whitespace().map(str::to_owned)));
    words.into_iter().map(OsString::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_words() {
        let words = |options: &InitDb, major| {
            arguments(options, major)
                .into_iter()
                .map(|word| word.to_string_lossy().into_owned())
                .collect::<Vec<_>>()
                .join(" ")
        };
        let fixed = "--username=postgres --auth-local=peer --auth-host=scram-sha-256 --no-sync";
        assert_eq!(words(&InitDb::default(), 18), format!("{fixed} --encoding=UTF8 --lc-collate=C --lc-ctype=C"));
        let all = InitDb {
            encoding: Some("LATIN1".to_owned()),
            locale: Some("de_DE".to_owned()),
            locale_ctype: Some("C".to_owned()),
            data_checksums: Some(false),
            wal_segment_size: Some(64),
            options: vec!["--set a=b".to_owned(), "-k".to_owned()],
            ..InitDb::default()
        };
        let rest = "--encoding=LATIN1 --locale=de_DE --lc-ctype=C --wal-segsize=64";
        assert_eq!(words(&all, 18), format!("{fixed} {rest} --no-data-checksums --set a=b -k"));
        assert_eq!(words(&all, 15), format!("{fixed} {rest} --set a=b -k"));
    }

    #[test]
    fn a_failure_is_reported_by_its_important_lines() {
        assert_eq!(last_words("a\ninitdb: error: no\nhint\n"), "initdb: error: no");
        assert_eq!(last_words("a\nb\n\n"), "b");
        assert_eq!(
            last_words("initdb: unrecognized option '--x'\ninitdb: hint: Try"),
            "initdb: unrecognized option '--x'"
        );
        assert_eq!(last_words(""), "it printed no message");
    }
}
