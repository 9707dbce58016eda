//! `wal find`: the query from the flags, and what was found as text.
//!
//! The text says only what the WAL shows. A name that is known by its hash is called that, and a change that can be one
//! of several statements is called by all of them.

use super::{Context, command_line, targets};
use crate::args::WalFindArgs;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::output::progress::Progress;
use crate::output::table::{Align, Table};
use chrono::{DateTime, Utc};
use holdfast_contract::report::wal_find::{
    FoundChange, FoundPlace, FoundWhat, KnownRelation, Recognised, RecognisedBy, RestoreFlags, StopSide, WalFindReport,
};
use holdfast_engine::find::{FindOptions, Query, find};
use holdfast_pgtypes::recovery_target::moment;
use holdfast_pgtypes::wal::ddl::Listed;
use holdfast_pgtypes::wal::relation_file::RelationFile;
use std::fmt::{Display, Write};

/// Entries of a list in a text for people.
const SHOWN: usize = 8;

pub(super) async fn run(context: &Context, args: &WalFindArgs) -> Result<ExitCode, Failure> {
    let repository = targets::open(targets::by_number(&context.config, args.repo)?).await?;
    let options = FindOptions {
        cluster: context.config.cluster.name.clone(),
        timeline: args.timeline,
        query: args.query(),
        jobs: context.config.restore.jobs.get(),
    };
    let show = Progress::new(context.show);
    let mut report = find(&repository, &options, &show, &context.cancellation).await?;
    show.finish();
    if args.repo != 1 {
        for way in report.places.iter_mut().flat_map(|place| &mut place.ways) {
            way.flags.extend(["--repo".to_owned(), args.repo.to_string()]);
        }
    }
    let about = match &options.query {
        Query::Changes { about: Some(_), .. } => true,
        Query::Changes { about: None, .. } => {
            context.print(|| table(&report), &report)?;
            return Ok(ExitCode::Ok);
        }
        Query::Target(_) => false,
    };
    if about && report.places.is_empty() {
        return Err(nothing(&report));
    }
    context.print(|| places(&report), &report)?;
    Ok(ExitCode::Ok)
}

fn nothing(report: &WalFindReport) -> Failure {
    let segments = report.searched.map_or(0, |searched| searched.segments);
    let mut hint = "`holdfast wal find --ddl` shows all changes; the WAL knows a relation also by its OID and by the \
                    number of its file, such as base/16384/24576; WAL that is not yet archived was not searched"
        .to_owned();
    for note in &report.notes {
        hint.push('\n');
        hint.push_str(note);
    }
    Failure::new(
        ExitCode::TargetUnreachable,
        format!(
            "no drop, truncation or rewrite of this was found in {segments} segments of timeline {}",
            report.timeline
        ),
    )
    .doing(format!("searching the archived WAL of {} in {}", report.cluster, report.store))
    .hint(hint)
}

fn table(report: &WalFindReport) -> String {
    let mut text = format!("{} in {}, timeline {}\n", report.cluster, report.store, report.timeline);
    let mut table = Table::new([
        ("TIME", Align::Left),
        ("STOP BEFORE", Align::Left),
        ("SEGMENT", Align::Left),
        ("XID", Align::Right),
        ("WHAT", Align::Left),
        ("DATABASE", Align::Left),
        ("FILES", Align::Right),
        ("RELATIONS", Align::Left),
    ]);
    for place in &report.places {
        let Some(change) = &place.change else { continue };
        table.row([
            place.time.map(shown_time).unwrap_or_default(),
            place.ways.iter().find_map(|way| way.flags.get(1).cloned()).unwrap_or_else(|| "-".to_owned()),
            place.segment.to_string(),
            place.xid.map(|xid| xid.to_string()).unwrap_or_default(),
            brief(place.what).to_owned(),
            database(change).unwrap_or_default(),
            change.lost_files.count().to_string(),
            relations(change),
        ]);
    }
    if table.is_empty() {
        text.push_str("no drops, truncations or rewrites\n");
    } else {
        text.push_str(&table.render());
        text.push_str(
            "to restore to just before a change: holdfast restore --pgdata DIR --target-lsn LSN --target-exclusive\n",
        );
    }
    end(&mut text, report);
    text
}

fn places(report: &WalFindReport) -> String {
    let mut text = format!("{} in {}, timeline {}\n", report.cluster, report.store, report.timeline);
    for place in &report.places {
        let _ = writeln!(text, "{}", headline(place));
        let _ = writeln!(text, "  where       {} in segment {}", place.lsn, place.segment);
        if let Some(change) = &place.change {
            change_text(&mut text, place, change);
        }
        for way in &place.ways {
            way_text(&mut text, place, way);
        }
    }
    if report.places.iter().any(|place| place.change.is_some()) {
        text.push_str(
            "if the server pauses there, the lock of the change is still held: what it took away can be read once \
             recovery has ended\n",
        );
    }
    end(&mut text, report);
    text
}

fn end(text: &mut String, report: &WalFindReport) {
    if let Some(searched) = report.searched {
        let _ = write!(text, "searched {} segments", searched.segments);
        let _ = match searched.segments_read {
            0 => writeln!(text, " by the facts that the archiver stored"),
            read => writeln!(text, ", {read} of them byte by byte"),
        };
    }
    for note in &report.notes {
        let _ = writeln!(text, "note: {note}");
    }
}

fn headline(place: &FoundPlace) -> String {
    let mut line = brief(place.what).to_owned();
    if let Some(name) = &place.name {
        let _ = write!(line, " {name}");
    }
    if let Some(xid) = place.xid {
        let _ = write!(line, " of transaction {xid}");
    }
    if let Some(time) = place.time {
        // The position itself has no time; the transaction before it has.
        let before = if place.what == FoundWhat::Position { ", after" } else { " at" };
        let _ = write!(line, "{before} {}", shown_time(time));
    }
    line
}

fn change_text(text: &mut String, place: &FoundPlace, change: &FoundChange) {
    if let Some(meaning) = meaning(place.what) {
        let _ = writeln!(text, "  what        {meaning}");
    }
    if let Some(database) = database(change) {
        let _ = writeln!(text, "  database    {database}");
    }
    if let Some(recognised) = &change.recognised {
        let _ = writeln!(text, "  known by    {}", recognition(recognised));
    }
    let relations = relations(change);
    if !relations.is_empty() {
        let _ = writeln!(text, "  relations   {relations}");
    }
    for (name, files) in [("files gone", &change.lost_files), ("files new ", &change.new_files)] {
        if !files.is_empty() {
            let paths = Listed { first: files.first.iter().map(RelationFile::path).collect(), more: files.more };
            let _ = writeln!(text, "  {name}  {}", listed(&paths));
        }
    }
}

fn way_text(text: &mut String, place: &FoundPlace, way: &RestoreFlags) {
    let side = match (way.stops, place.what) {
        (_, FoundWhat::RestorePoint) => "to it     ",
        (StopSide::Before, _) => "before it ",
        (StopSide::After, _) => "after it  ",
    };
    let flags: Vec<String> = way.flags.iter().map(|flag| command_line::shell_word(flag)).collect();
    let _ = writeln!(text, "  {side}  holdfast restore --pgdata DIR {}", flags.join(" "));
    match (&way.backup, &way.refused) {
        (Some(backup), _) => {
            let _ = writeln!(text, "              begins with backup {backup}");
        }
        (None, Some(refused)) => {
            let _ = writeln!(text, "              not possible: {refused}");
        }
        (None, None) => {}
    }
}

/// What is there, in a few words.
fn brief(what: FoundWhat) -> &'static str {
    match what {
        FoundWhat::Commit => "commit",
        FoundWhat::Rollback => "rollback",
        FoundWhat::RestorePoint => "restore point",
        FoundWhat::Position => "this place",
        FoundWhat::Unknown => "no known record",
        FoundWhat::Drop => "drop",
        FoundWhat::Truncate => "truncate",
        FoundWhat::NewFiles => "truncate or reindex",
        FoundWhat::Rewrite => "rewrite, or drop and create",
        FoundWhat::DropDatabase => "drop database",
        FoundWhat::MoveDatabase => "move of a database",
        FoundWhat::DropTablespace => "drop tablespace",
    }
}

/// What the WAL shows for a change.
fn meaning(what: FoundWhat) -> Option<&'static str> {
    Some(match what {
        FoundWhat::Drop => "relations lost their files, and the transaction made no others: a drop",
        FoundWhat::Truncate => "the WAL says TRUNCATE",
        FoundWhat::NewFiles => "relations got new files: TRUNCATE, REINDEX, or ALTER ... SET TABLESPACE",
        FoundWhat::Rewrite => {
            "files went and relations were made: VACUUM FULL, CLUSTER, ALTER TABLE, REFRESH MATERIALIZED VIEW, or a \
             drop and a creation in one transaction"
        }
        FoundWhat::DropDatabase => "the database was dropped",
        FoundWhat::MoveDatabase => "the database moved to another tablespace; nothing was lost",
        FoundWhat::DropTablespace => "the tablespace was dropped; it was empty",
        FoundWhat::Commit
        | FoundWhat::Rollback
        | FoundWhat::RestorePoint
        | FoundWhat::Position
        | FoundWhat::Unknown => return None,
    })
}

fn recognition(recognised: &Recognised) -> String {
    match recognised.by {
        RecognisedBy::DatabaseName => "the name of the database".to_owned(),
        RecognisedBy::DatabaseOrTablespace => "the OID of the database or tablespace".to_owned(),
        RecognisedBy::RelationOid => "the OID of a relation that the transaction changed".to_owned(),
        RecognisedBy::File => "the number of a file that is gone".to_owned(),
        RecognisedBy::Name => {
            let schema = match (&recognised.schema_name, recognised.schema) {
                (Some(name), _) => format!("schema {name}"),
                (None, Some(oid)) => format!("the schema with OID {oid}"),
                (None, None) => "a schema".to_owned(),
            };
            let what = if recognised.row_type == Some(true) {
                "was made, dropped or renamed"
            } else {
                "changed, and no table or view of this name was dropped"
            };
            format!("the hash of the name in {schema}; the relation {what}")
        }
    }
}

fn database(change: &FoundChange) -> Option<String> {
    match (&change.database_name, change.database, change.tablespace) {
        (Some(name), Some(oid), _) => Some(format!("{name} ({oid})")),
        (None, Some(oid), _) => Some(oid.to_string()),
        (_, None, Some(tablespace)) => Some(format!("tablespace {tablespace}")),
        (_, None, None) => None,
    }
}

/// Names where a backup has them: those whose files are gone, without TOAST tables and their indexes. Else OIDs.
fn relations(change: &FoundChange) -> String {
    let gone = change.known_relations.iter().filter(|known| known.file_is_gone && known.schema != "pg_toast");
    let named: Vec<String> = gone.map(|known: &KnownRelation| format!("{}.{}", known.schema, known.name)).collect();
    if named.is_empty() { listed(&change.relations) } else { listed(&Listed { first: named, more: 0 }) }
}

fn listed<T: Display>(list: &Listed<T>) -> String {
    let shown: Vec<String> = list.first.iter().take(SHOWN).map(ToString::to_string).collect();
    let left_out = list.first.len().saturating_sub(SHOWN) as u64 + list.more;
    let mut text = shown.join(", ");
    if left_out > 0 {
        let _ = write!(text, " and {left_out} more");
    }
    text
}

/// With all digits, because a second can have many changes.
fn shown_time(time: DateTime<Utc>) -> String {
    moment::text(time)
}
