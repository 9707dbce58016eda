//! The sweeps: each scenario is repeated many times, each time with the fault one request later.

use crate::normal::differences;
use crate::stage::{Scenario, play};
use crate::stories;
use crate::transport::{At, Fault};
use std::time::Duration;

/// Runs a scenario with a fault at each point, until there are no more points. Returns the number of points.
fn sweep(scenario: &Scenario, fault: Fault, at: fn(u64) -> At) -> u64 {
    let expected = play(scenario, Fault::None, At::All).unwrap_or_else(|error| panic!("{error}"));
    let began = std::time::Instant::now();
    let mut failures = Vec::new();
    let mut points = 0;
    for n in 1.. {
        let outcome = match play(scenario, fault, at(n)) {
            Ok(outcome) => outcome,
            Err(error) => {
                failures.push(error);
                points += 1;
                if failures.len() > 3 {
                    break;
                }
                continue;
            }
        };
        if outcome.hits == 0 {
            break;
        }
        points += 1;
        let differences = differences(&expected.objects, &outcome.objects);
        if !differences.is_empty() || !outcome.made_twice.is_empty() {
            failures.push(format!(
                "{} with {fault:?} at {:?} ({}): {differences:#?} {:?}",
                scenario.name,
                at(n),
                outcome.hit.unwrap_or_default(),
                outcome.made_twice,
            ));
        }
        if failures.len() > 3 {
            break;
        }
    }
    eprintln!("{} with {fault:?}: {points} points in {:?}", scenario.name, began.elapsed());
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    points
}

/// A scenario with a fault at every point.
fn everywhere(scenario: &Scenario, fault: Fault, at: At) {
    let expected = play(scenario, Fault::None, At::All).unwrap_or_else(|error| panic!("{error}"));
    let outcome = play(scenario, fault, at).unwrap_or_else(|error| panic!("{error}"));
    assert!(outcome.hits > 0, "{}: nothing went wrong", scenario.name);
    assert_eq!(differences(&expected.objects, &outcome.objects), Vec::<String>::new(), "{}", scenario.name);
    assert_eq!(outcome.made_twice, Vec::<String>::new(), "{}", scenario.name);
}

/// A kill after a read is the same as a kill before the next write. So the writes are all the points there are.
#[test]
fn killed_after_any_write() {
    assert!(sweep(&stories::BIRTH, Fault::Kill, At::Write) > 20);
    let more = [&stories::CUT_OFF, &stories::CUT_OFF_AND_CRASHED];
    for scenario in
        [&stories::SCALING, &stories::HANDOVER, &stories::FAILOVER, &stories::FROZEN].into_iter().chain(more)
    {
        assert!(sweep(scenario, Fault::Kill, At::Write) > 2);
    }
}

#[test]
fn killed_after_any_write_about_backups() {
    for scenario in [&stories::BACKUPS, &stories::SCHEDULE, &stories::DELETION, &stories::REFUSED] {
        assert!(sweep(scenario, Fault::Kill, At::Write) > 2);
    }
}

#[test]
fn an_answer_is_lost_after_any_write() {
    for scenario in stories::ALL {
        sweep(scenario, Fault::Lose, At::Write);
    }
}

#[test]
fn any_request_is_refused_once() {
    sweep(&stories::HANDOVER, Fault::Refuse(500), At::Request);
    sweep(&stories::BACKUPS, Fault::Refuse(500), every_third);
}

/// Following a backup repeats the same few requests. Every third request covers all of them.
fn every_third(n: u64) -> At {
    At::Request(3 * n - 2)
}

#[test]
fn any_connection_breaks_once() {
    sweep(&stories::FAILOVER, Fault::Reset, every_third);
}

#[test]
fn any_write_meets_a_conflict_once() {
    for scenario in stories::ALL {
        sweep(scenario, Fault::Conflict, At::Write);
    }
}

#[test]
fn any_answer_never_comes() {
    for scenario in [&stories::BIRTH, &stories::HANDOVER, &stories::BACKUPS] {
        sweep(scenario, Fault::Hang, At::Write);
    }
}

#[test]
fn watches_end_at_any_write() {
    for fault in [Fault::CloseWatches, Fault::ExpireWatches] {
        for scenario in [&stories::FAILOVER, &stories::BACKUPS, &stories::SCHEDULE] {
            sweep(scenario, fault, At::Write);
        }
    }
}

#[test]
fn each_write_has_to_be_tried_again() {
    for scenario in stories::ALL {
        for fault in [Fault::Refuse(500), Fault::Refuse(429), Fault::Reset, Fault::Lose, Fault::Conflict] {
            everywhere(scenario, fault, At::EachWriteOnce);
        }
    }
}

#[test]
fn an_api_server_that_takes_its_time() {
    for scenario in stories::ALL {
        for time in [Duration::from_millis(300), Duration::from_millis(1500)] {
            everywhere(scenario, Fault::Slow(time), At::All);
        }
    }
}

/// The same pod is the same holder: after a restart of its container, it takes its own Lease without waiting for the
/// Lease to end.
#[test]
fn a_container_that_is_started_again_does_not_wait_for_itself() {
    let whole = play(&stories::BIRTH, Fault::None, At::All).unwrap_or_else(|error| panic!("{error}"));
    let killed = play(&stories::BIRTH, Fault::Kill, At::Write(5)).unwrap_or_else(|error| panic!("{error}"));
    assert!(killed.took < whole.took + Duration::from_secs(4), "{:?} and {:?}", whole.took, killed.took);
}
