//! `drill`: the flags as options of the engine, the report as text, and the exit code for monitoring.

use super::{Context, command_line, places, requested, root, targets, time};
use crate::args::DrillArgs;
use crate::config::environment::variable_name;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::output::progress::Progress;
use holdfast_contract::amount::{duration, size};
use holdfast_contract::report::drill::{CheckOutcome, DrillReport, DrillResult, LeftBehind};
use holdfast_engine::drill::{DrillOptions, RequestedMoment, drill, random_seed};
use holdfast_engine::path_overlap::{Place, of_data_directory, refuse_overlap};
use holdfast_engine::restore::{Archiving, RestoreOptions};
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub(super) async fn run(context: &Context, args: &DrillArgs) -> Result<ExitCode, Failure> {
    let options = options(context, args)?;
    let repository = targets::open(targets::by_number(&context.config, args.repo)?).await?;
    let show = Arc::new(Progress::new(context.show));
    let progress: Arc<dyn holdfast_engine::progress::Progress> = Arc::clone(&show) as _;
    let report = drill(&repository, &options, &progress, &context.cancellation).await?;
    show.finish();
    for left in report.left_behind.iter().filter(|left| !left.kept) {
        context.warn(&left_text(left));
    }
    context.print(|| text(&report), &report)?;
    match report.result {
        DrillResult::Proven => Ok(ExitCode::Ok),
        DrillResult::Failed => Err(failure(&report)),
    }
}

fn options(context: &Context, args: &DrillArgs) -> Result<DrillOptions, Failure> {
    let config = &context.config;
    let directory = config.drill.require_directory()?.to_owned();
    if let Some(pgdata) = &config.cluster.pgdata {
        let place = Place::new("the directory of drills", &directory);
        for used in of_data_directory(pgdata) {
            refuse_overlap(&place, &used)?;
        }
    }
    let request = requested::recovery(&args.to, args.backup.as_deref())?;
    let moment = match (args.random, args.seed) {
        (false, _) => RequestedMoment::Asked { request: request.clone(), flags: args.target_flags() },
        (true, Some(seed)) => RequestedMoment::Random { seed },
        (true, None) => RequestedMoment::Random { seed: random_seed()? },
    };
    let mut probes = args.probes.clone();
    if probes.is_empty() {
        probes.extend(config.drill.probes.clone());
    }
    let mut settings = config.drill.settings.clone();
    settings.extend(args.settings.iter().cloned());
    let owner = owner(context, &directory)?;
    Ok(DrillOptions {
        restore: RestoreOptions {
            cluster: config.cluster.name.clone(),
            pgdata: directory.clone(),
            request,
            target_action: None,
            delta: false,
            tablespaces: Vec::new(),
            tablespace_root: None,
            reuse_tablespaces: Vec::new(),
            discard_wal: false,
            places: places::needed(context),
            originals: Vec::new(),
            archiving: Archiving::Off,
            standby: false,
            jobs: config.restore.jobs.get(),
            memory_bytes: config.backup.restore_memory_bytes,
            restore_command: command_line::of_self(context, &format!("wal get --repo {} %f \"%p\"", args.repo))?,
            tail_command: None,
            retention: None,
            host: time::host(),
            now: time::now(),
        },
        moment,
        number: args.repo,
        directory,
        bin_dir: config.drill.bin_dir.clone(),
        path: std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default(),
        owner,
        role: config.drill.role.clone(),
        living: config.cluster.pgdata.clone(),
        database: config.drill.database.clone(),
        probes,
        settings,
        spool_variable: variable_name("wal", 0, "spool"),
        amcheck: !args.no_amcheck,
        time_limit: config.drill.time_limit,
        keep: args.keep,
        remember: !args.no_record,
    })
}

/// If root runs the command: the user and group that run the server, because PostgreSQL refuses to run as root.
fn owner(context: &Context, directory: &Path) -> Result<Option<(u32, u32)>, Failure> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let places = [Some(directory), context.config.cluster.pgdata.as_deref()];
    let owner = root::acting_for(places.into_iter().flatten()).or_else(|| root::user_named("postgres"));
    owner.map(Some).ok_or_else(|| {
        Failure::new(
            ExitCode::Configuration,
            format!("PostgreSQL refuses to run as root, and {} belongs to root", directory.display()),
        )
        .hint("give the directory to the user that runs PostgreSQL (chown), or run the drill as that user")
    })
}

fn failure(report: &DrillReport) -> Failure {
    let first = report.findings.first().map(ToString::to_string).unwrap_or_default();
    let more = match report.findings.len().saturating_sub(1) {
        0 => String::new(),
        1 => ", and 1 more finding".to_owned(),
        more => format!(", and {more} more findings"),
    };
    Failure::new(ExitCode::DrillFailed, format!("the restore of backup {} is not proven: {first}{more}", report.backup))
        .doing(format!("drilling a restore of {} from {}", report.cluster, report.repository))
        .hint(
            "the lines FOUND say what is wrong; for a damaged object, run `holdfast verify --deep` to see which backups \
             it affects; run the drill again with --keep to look at the directory and the log of its server, or with \
             --backup or --repo for another backup or copy",
        )
}

fn time_of(milliseconds: u64) -> String {
    duration(Duration::from_millis(milliseconds))
}

fn text(report: &DrillReport) -> String {
    let result = match report.result {
        DrillResult::Proven if report.amcheck.outcome == CheckOutcome::NotRun => {
            "proven restorable, without pg_amcheck"
        }
        DrillResult::Proven => "proven restorable",
        DrillResult::Failed => "NOT PROVEN",
    };
    let mut text = format!("{} in {}: {result}\n", report.cluster, report.repository);
    let mut line = |what: &str, value: String| {
        let _ = writeln!(text, "  {what:<10}  {value}");
    };
    line("backup", format!("{}, along timeline {}", report.backup, report.recovery.timeline));
    let target = match report.target.flags.as_str() {
        "" => "the newest moment".to_owned(),
        flags => format!("holdfast drill {flags}"),
    };
    line("target", target);
    if let Some(seed) = report.target.seed {
        line("seed", format!("{seed}; --seed chooses the same moment while the restorable windows are unchanged"));
    }
    if let Some(lsn) = report.restored_lsn {
        let last = match report.restored_time {
            Some(last) => format!("{}, the last transaction", time::shown(last)),
            None => "no transaction".to_owned(),
        };
        line("restored", format!("{last} (LSN {lsn})"));
    }
    let durations = &report.durations;
    let rate = |bytes: Option<u64>| bytes.map(|bytes| format!(", {}/s", size(bytes))).unwrap_or_default();
    line("plan", time_of(durations.plan_milliseconds));
    line(
        "restore",
        format!(
            "{}: {} fetched, {} written{}",
            time_of(durations.restore_milliseconds),
            size(report.fetched_bytes),
            size(report.written_bytes),
            rate(report.restore_bytes_per_second)
        ),
    );
    if let (Some(replay), Some(all)) = (durations.replay_milliseconds, durations.recovery_milliseconds) {
        line("replay", format!("{}{}", time_of(replay), rate(report.replay_bytes_per_second)));
        line("recovery", format!("{} from the beginning to the first answer of the server", time_of(all)));
    }
    if let Some(version) = &report.server_version {
        line("server", format!("PostgreSQL {version}"));
    }
    line("pg_amcheck", outcome(report.amcheck.outcome, report.amcheck.reason.as_deref()));
    if !report.probes.is_empty() {
        let passed = report.probes.iter().filter(|probe| probe.passed).count();
        line("probes", format!("{passed} of {} passed", report.probes.len()));
    }
    let pages = &report.pages;
    let checked = if pages.checksums { "checksums" } else { "headers (the cluster has no checksums)" };
    line(
        "pages",
        match pages.outcome {
            CheckOutcome::NotRun => outcome(pages.outcome, pages.reason.as_deref()),
            _ => format!("{} of {} pages are bad, by their {checked}", pages.bad_count, pages.page_count),
        },
    );
    if report.kept {
        line("kept", format!("{}; remove it when you have seen enough", report.directory.display()));
    }
    for finding in &report.findings {
        let _ = writeln!(text, "  FOUND {}", finding.to_string().replace('\n', "\n        "));
    }
    for note in &report.notes {
        let _ = writeln!(text, "  note: {note}");
    }
    for left in report.left_behind.iter().filter(|left| left.kept) {
        let _ = writeln!(text, "  note: {}", left_text(left));
    }
    text
}

fn outcome(outcome: CheckOutcome, reason: Option<&str>) -> String {
    match outcome {
        CheckOutcome::Passed => "passed".to_owned(),
        CheckOutcome::Failed => "FAILED".to_owned(),
        CheckOutcome::NotRun => format!("not run: {}", reason.unwrap_or_default()),
    }
}

fn left_text(left: &LeftBehind) -> String {
    let place = left.directory.display();
    let what = if left.kept { "was kept by" } else { "was left by" };
    let server = match (left.server_pid, &left.elsewhere) {
        (Some(pid), _) => format!(
            "a server still runs there (process {pid}): end it with `pg_ctl -D {place}/data stop -m immediate`, then remove \
             the directory"
        ),
        (None, Some(elsewhere)) => {
            format!("it is of {elsewhere}, whose processes cannot be seen from here: look there, then remove it")
        }
        (None, None) => "nobody uses it: remove it".to_owned(),
    };
    format!("{place} {what} the drill of {}; {server}", time::shown(left.started))
}
