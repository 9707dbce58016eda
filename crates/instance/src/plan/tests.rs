use super::*;
use holdfast_pgtypes::TimelineId;

/// The primary of a healthy cluster, as it observes itself.
fn primary() -> Observed {
    Observed {
        me: "c-1".to_owned(),
        cluster: Some(ClusterView {
            uid: "uid".to_owned(),
            system_id: Some("7".to_owned()),
            target_primary: Some("c-1".to_owned()),
            method: Method::Initdb,
        }),
        volume: Volume::Ready(Data { system_id: "7".to_owned(), standby: false }),
        server: Server::Running(Role::Primary),
        holds_lease: true,
        wants_lease: true,
        paused: false,
        primary: None,
        rewind_failed: false,
    }
}

/// A standby of it.
fn standby() -> Observed {
    Observed {
        me: "c-2".to_owned(),
        volume: Volume::Ready(Data { system_id: "7".to_owned(), standby: true }),
        server: Server::Running(Role::Replica),
        holds_lease: false,
        wants_lease: false,
        primary: Some(PrimaryView { instance: "c-1".to_owned(), diverged: false }),
        ..primary()
    }
}

/// The first instance of a cluster that does not exist yet.
fn first() -> Observed {
    let mut first = Observed {
        volume: Volume::Empty,
        server: Server::Stopped,
        holds_lease: false,
        wants_lease: false,
        ..primary()
    };
    cluster(&mut first).system_id = None;
    first
}

fn cluster(observed: &mut Observed) -> &mut ClusterView {
    observed.cluster.get_or_insert_with(|| ClusterView {
        uid: String::new(),
        system_id: None,
        target_primary: None,
        method: Method::Initdb,
    })
}

/// What a table compares of a step: its kind, without its texts.
fn kind(step: &Step) -> Step {
    match step {
        Step::Wait(_) => Step::Wait(String::new()),
        Step::Stuck(..) => Step::Stuck(String::new(), String::new()),
        other => other.clone(),
    }
}

fn wait() -> Step {
    Step::Wait(String::new())
}

fn stuck() -> Step {
    Step::Stuck(String::new(), String::new())
}

type Case = (&'static str, Observed, fn(&mut Observed), Step);

fn check(cases: Vec<Case>) {
    for (name, mut observed, change, expected) in cases {
        change(&mut observed);
        assert_eq!(kind(&next_step(&observed)), expected, "{name}");
    }
}

#[test]
fn the_first_data_directory() {
    check(vec![
        ("the Cluster was not read yet", first(), |o| o.cluster = None, wait()),
        ("no instance is named yet", first(), |o| cluster(o).target_primary = None, wait()),
        ("another one creates it", first(), |o| cluster(o).target_primary = Some("c-9".to_owned()), wait()),
        ("initdb", first(), |_| {}, Step::Bootstrap(Method::Initdb)),
        ("recovery", first(), |o| cluster(o).method = Method::Recovery, Step::Bootstrap(Method::Recovery)),
        (
            "a begun initdb",
            first(),
            |o| o.volume = Volume::Unfinished(Filling::Initdb, Progress::Begun),
            Step::Bootstrap(Method::Initdb),
        ),
        (
            "a recovery that was killed",
            first(),
            |o| {
                cluster(o).method = Method::Recovery;
                o.volume = Volume::Unfinished(Filling::Recovery, Progress::Recovering);
            },
            Step::Bootstrap(Method::Recovery),
        ),
        (
            "volumes from snapshots",
            first(),
            |o| {
                cluster(o).method = Method::Snapshot;
                o.volume = Volume::FromSnapshot(Data { system_id: "7".to_owned(), standby: true });
            },
            Step::Bootstrap(Method::Snapshot),
        ),
        ("a foreign volume", first(), |o| o.volume = Volume::Foreign("x".to_owned()), stuck()),
        (
            "created, and not in the status yet",
            first(),
            |o| o.volume = Volume::Ready(Data { system_id: "7".to_owned(), standby: false }),
            Step::AcquireLease,
        ),
    ]);
}

#[test]
fn initdb_never_runs_for_a_cluster_that_has_its_data() {
    for volume in [
        Volume::Empty,
        Volume::Unfinished(Filling::Initdb, Progress::Begun),
        Volume::Unfinished(Filling::Join, Progress::Begun),
        Volume::Unfinished(Filling::Rewind, Progress::Begun),
    ] {
        let observed = Observed { volume: volume.clone(), server: Server::Stopped, ..primary() };
        assert_eq!(kind(&next_step(&observed)), stuck(), "{volume:?} of the primary");
        let observed = Observed { volume: volume.clone(), server: Server::Stopped, ..standby() };
        assert_eq!(next_step(&observed), Step::Join, "{volume:?} of a standby");
    }
}

#[test]
fn the_primary() {
    check(vec![
        ("healthy", primary(), |_| {}, Step::Keep),
        ("stopped", primary(), |o| o.server = Server::Stopped, Step::Start(Role::Primary)),
        ("starting", primary(), |o| o.server = Server::Starting(Role::Primary), wait()),
        ("without the Lease", primary(), |o| o.holds_lease = false, Step::Fence),
        (
            "starting without the Lease",
            primary(),
            |o| {
                o.holds_lease = false;
                o.server = Server::Starting(Role::Primary);
            },
            Step::Fence,
        ),
        (
            "stopped without the Lease",
            primary(),
            |o| {
                o.holds_lease = false;
                o.server = Server::Stopped;
            },
            Step::AcquireLease,
        ),
        ("another is named", primary(), |o| cluster(o).target_primary = Some("c-2".to_owned()), Step::Demote),
        (
            "demoted, the Lease still held",
            primary(),
            |o| {
                cluster(o).target_primary = Some("c-2".to_owned());
                o.server = Server::Stopped;
            },
            Step::ReleaseLease,
        ),
        ("a cold snapshot", primary(), |o| o.paused = true, Step::Pause),
        (
            "down for a cold snapshot",
            primary(),
            |o| {
                o.paused = true;
                o.server = Server::Stopped;
            },
            wait(),
        ),
        (
            "its pg_wal is lost",
            primary(),
            |o| {
                o.volume = Volume::WithoutWal;
                o.server = Server::Stopped;
            },
            stuck(),
        ),
        (
            "another system identifier",
            primary(),
            |o| o.volume = Volume::Ready(Data { system_id: "8".to_owned(), standby: false }),
            stuck(),
        ),
    ]);
}

#[test]
fn a_standby() {
    check(vec![
        ("healthy", standby(), |_| {}, Step::Keep),
        ("stopped", standby(), |o| o.server = Server::Stopped, Step::Start(Role::Replica)),
        (
            "stopped, and no primary answers",
            standby(),
            |o| {
                o.server = Server::Stopped;
                o.primary = None;
            },
            Step::Start(Role::Replica),
        ),
        (
            "it has diverged",
            standby(),
            |o| o.primary = Some(PrimaryView { instance: "c-1".to_owned(), diverged: true }),
            Step::Rewind("c-1".to_owned()),
        ),
        ("named as primary", standby(), |o| cluster(o).target_primary = Some("c-2".to_owned()), Step::AcquireLease),
        (
            "named as primary, with the Lease",
            standby(),
            |o| {
                cluster(o).target_primary = Some("c-2".to_owned());
                o.holds_lease = true;
            },
            Step::Promote,
        ),
        (
            "named as primary, with the Lease, stopped",
            standby(),
            |o| {
                cluster(o).target_primary = Some("c-2".to_owned());
                o.holds_lease = true;
                o.server = Server::Stopped;
            },
            Step::Start(Role::Replica),
        ),
        ("it is no longer named", standby(), |o| o.holds_lease = true, Step::ReleaseLease),
        (
            "it was named, and is no longer before it got the Lease",
            standby(),
            |o| o.wants_lease = true,
            Step::ReleaseLease,
        ),
        (
            "the same without data",
            first(),
            |o| {
                o.wants_lease = true;
                cluster(o).target_primary = Some("c-2".to_owned());
            },
            Step::ReleaseLease,
        ),
    ]);
}

/// A primary that came back after another one took over.
fn old_primary() -> Observed {
    let mut old = Observed { server: Server::Stopped, holds_lease: false, wants_lease: false, ..primary() };
    cluster(&mut old).target_primary = Some("c-2".to_owned());
    old.primary = Some(PrimaryView { instance: "c-2".to_owned(), diverged: true });
    old
}

#[test]
fn an_old_primary_comes_back() {
    check(vec![
        ("by pg_rewind", old_primary(), |_| {}, Step::Rewind("c-2".to_owned())),
        (
            "also if it does not seem to have diverged",
            old_primary(),
            |o| o.primary = Some(PrimaryView { instance: "c-2".to_owned(), diverged: false }),
            Step::Rewind("c-2".to_owned()),
        ),
        ("not before the new one answers", old_primary(), |o| o.primary = None, wait()),
        ("by a copy if pg_rewind failed", old_primary(), |o| o.rewind_failed = true, Step::CopyAgain),
        (
            "no copy without a primary",
            old_primary(),
            |o| {
                o.rewind_failed = true;
                o.primary = None;
            },
            wait(),
        ),
    ]);
}

/// Over every combination: a server takes writes only if the instance is named and holds the Lease.
#[test]
fn no_step_makes_a_second_writer() {
    let servers = [
        Server::Stopped,
        Server::Starting(Role::Primary),
        Server::Starting(Role::Replica),
        Server::Running(Role::Primary),
        Server::Running(Role::Replica),
    ];
    for mut observed in [primary(), standby(), first(), old_primary()] {
        for target in [None, Some("c-1"), Some("c-2"), Some("c-3")] {
            for holds_lease in [false, true] {
                for server in servers {
                    cluster(&mut observed).target_primary = target.map(str::to_owned);
                    (observed.holds_lease, observed.server) = (holds_lease, server);
                    let step = next_step(&observed);
                    let chosen = target == Some(observed.me.as_str());
                    if matches!(step, Step::Promote | Step::Start(Role::Primary)) {
                        assert!(chosen && holds_lease, "{step:?} of {observed:?}");
                    }
                    let writes = matches!(server, Server::Starting(Role::Primary) | Server::Running(Role::Primary));
                    if writes && !(chosen && holds_lease) {
                        let ends = matches!(step, Step::Fence | Step::Demote | Step::Stuck(..));
                        assert!(ends || matches!(observed.volume, Volume::Empty), "{step:?} of {observed:?}");
                    }
                }
            }
        }
    }
}

fn found(record: Option<crate::volume::Record>, has_files: bool) -> VolumeContent {
    VolumeContent { record, control: None, standby_signal: false, has_files, has_wal: true }
}

#[test]
fn volumes_are_known_by_their_record() {
    use crate::volume::Record;
    let view = cluster(&mut first()).clone();
    let record = |uid: &str, instance: &str, progress| Some(Record::new(uid, instance, Filling::Initdb, progress));
    for (name, found, expected) in [
        ("new", found(None, false), Volume::Empty),
        (
            "begun",
            found(record("uid", "c-1", Progress::Begun), true),
            Volume::Unfinished(Filling::Initdb, Progress::Begun),
        ),
        (
            "unknown files",
            found(None, true),
            Volume::Foreign("files that are not a PostgreSQL data directory".to_owned()),
        ),
        (
            "another cluster's",
            found(record("other", "x-1", Progress::Complete), true),
            Volume::Foreign("the data of instance x-1 of another cluster".to_owned()),
        ),
        (
            "damaged",
            found(record("uid", "c-1", Progress::Complete), true),
            Volume::Foreign("a data directory that was complete and has lost its pg_control".to_owned()),
        ),
    ] {
        assert_eq!(classify(&found, &view, "c-1"), expected, "{name}");
    }
}

#[test]
fn ways_that_part() {
    let position = |timeline: u32, lsn: &str| Position {
        timeline: TimelineId::new(timeline).unwrap_or(TimelineId::FIRST),
        lsn: lsn.parse().unwrap_or_default(),
    };
    let third = TimelineId::new(3).unwrap_or(TimelineId::FIRST);
    let history = "1\t0/70000A0\tno recovery target specified\n\n2\t0/80000A0\tno recovery target specified\n";
    for (name, mine, timeline, history, expected) in [
        ("the same timeline", position(3, "0/9000000"), third, Some(history), false),
        ("on the way", position(2, "0/7100000"), third, Some(history), false),
        ("at the end of a timeline", position(2, "0/80000A0"), third, Some(history), false),
        ("beyond it", position(2, "0/80000A1"), third, Some(history), true),
        ("on an older timeline, beyond its end", position(1, "0/7100000"), third, Some(history), true),
        ("a timeline of its own", position(4, "0/7000000"), third, Some(history), true),
        ("nothing is known", position(2, "0/9000000"), third, None, false),
        ("the first timeline again", position(2, "0/1"), TimelineId::FIRST, None, true),
    ] {
        assert_eq!(has_diverged(mine, timeline, history), expected, "{name}");
    }
}
