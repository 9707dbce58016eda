//! The rules for every kind of target, over a journal made by hand.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::{Bound, Expected, Journal, Row, Target, time_text};

/// Three rows; the second and the third were committed in the same microsecond.
fn journal() -> Journal {
    let row = |number, commit_micros, lsn_before| Row {
        number,
        xid: 700 + number as u32,
        commit_micros,
        lsn_before,
        lsn_after: lsn_before + 10,
    };
    Journal {
        rows: vec![row(1, 1_000, 100), row(2, 2_000, 200), row(3, 2_000, 300)],
        restore_points: vec![("start".to_owned(), 0), ("middle".to_owned(), 2)],
        in_doubt: false,
    }
}

#[test]
fn every_kind_of_target() {
    use Bound::{Exclusive, Inclusive};
    let cases = [
        (Target::Time(999, Inclusive), 0, 0),
        (Target::Time(1_000, Inclusive), 1, 1),
        (Target::Time(1_000, Exclusive), 0, 0),
        (Target::Time(2_000, Inclusive), 3, 3),
        (Target::Time(2_000, Exclusive), 1, 1),
        (Target::Xid(702, Inclusive), 2, 2),
        (Target::Xid(702, Exclusive), 1, 1),
        (Target::Name("start".to_owned()), 0, 0),
        (Target::Name("middle".to_owned()), 2, 2),
        (Target::Lsn(100, Exclusive), 0, 0),
        (Target::Lsn(105, Exclusive), 0, 1),
        (Target::Lsn(110, Exclusive), 1, 1),
        (Target::Lsn(200, Exclusive), 1, 1),
        (Target::Lsn(110, Inclusive), 1, 1),
        (Target::Lsn(111, Inclusive), 1, 2),
        (Target::Lsn(200, Inclusive), 1, 2),
        (Target::Lsn(210, Inclusive), 2, 2),
        (Target::Immediate(250), 2, 2),
        (Target::Immediate(305), 2, 3),
        (Target::Latest(210), 2, 3),
        (Target::Latest(310), 3, 3),
    ];
    for (target, at_least, at_most) in cases {
        assert_eq!(journal().expected(&target).unwrap(), Expected { at_least, at_most }, "{target:?}");
    }
}

#[test]
fn a_row_in_doubt_may_follow_the_last_one_only() {
    let journal = Journal { in_doubt: true, ..journal() };
    assert_eq!(journal.expected(&Target::Latest(310)).unwrap(), Expected { at_least: 3, at_most: 4 });
    let time = Target::Time(1_000, Bound::Inclusive);
    assert_eq!(journal.expected(&time).unwrap(), Expected { at_least: 1, at_most: 1 });
}

#[test]
fn gaps_duplicates_and_wrong_counts_are_found() {
    let target = Target::Xid(702, Bound::Inclusive);
    journal().check(&target, &[1, 2]).unwrap();
    for wrong in [&[1][..], &[1, 2, 3], &[1, 3], &[1, 1], &[]] {
        journal().check(&target, wrong).unwrap_err();
    }
    journal().check(&Target::Xid(1, Bound::Inclusive), &[1]).unwrap_err();
}

#[test]
fn a_branch_has_the_rows_that_were_found() {
    let branch = journal().branch(1);
    assert_eq!(branch.rows().len(), 1);
    assert_eq!(branch.restore_points(), [("start".to_owned(), 0)]);
}

#[test]
fn times_are_written_to_the_microsecond() {
    assert_eq!(time_text(1_755_857_700_000_007), "2025-08-22 10:15:00.000007+00");
}
