//! What the facts of two neighbours show, and what only their bytes do.

use crate::continuity::ends::{Ends, Joint, Proof, joint};

use super::*;

const SYSTEM: u64 = 7_412_345_678_901_234_567;

fn segment(bytes: &[u8], number: u64) -> WalSegment<'_> {
    WalSegment { bytes, name: named(1, number), size: size(), version: PgVersion::V18 }
}

fn facts(bytes: &[u8], number: u64) -> Ends {
    Ends::of_facts(named(1, number), &SegmentFacts::scan(segment(bytes, number))).unwrap()
}

fn scanned(bytes: &[u8], number: u64) -> Ends {
    Ends::scan(segment(bytes, number))
}

/// A server whose records differ by its number.
fn server(salt: u64) -> Writer {
    let mut server = Writer::new(1, size(), holdfast_pgtypes::SystemIdentifier::new(SYSTEM));
    server.diverge(salt);
    server.write_into(3);
    server
}

#[test]
fn neighbours_of_one_server_join() {
    for salt in 0..40 {
        let server = server(salt);
        let (first, second) = (server.segment(1), server.segment(2));
        let by_facts = joint(&facts(&first, 1), &facts(&second, 2), size());
        assert!(matches!(by_facts, Joint::Joined(Proof::Nothing | Proof::Checksum)), "{salt}: {by_facts:?}");
        let expected = Joint::Joined(Proof::Checksum);
        assert_eq!(joint(&scanned(&first, 1), &scanned(&second, 2), size()), expected, "{salt}");
        let mixed = joint(&facts(&first, 1), &scanned(&second, 2), size());
        assert!(matches!(mixed, Joint::Joined(Proof::Nothing | Proof::Checksum)), "{salt}: {mixed:?}");
    }
}

#[test]
fn neighbours_of_two_servers_do_not_join() {
    let mut by_facts = 0;
    for salt in 0..40 {
        let (one, two) = (server(salt), server(salt + 1));
        let (first, second) = (one.segment(1), two.segment(2));
        let found = joint(&scanned(&first, 1), &scanned(&second, 2), size());
        assert!(matches!(found, Joint::Other(_)), "{salt}: {found:?}");
        match joint(&facts(&first, 1), &facts(&second, 2), size()) {
            Joint::Other(_) => by_facts += 1,
            // The lengths of most records are not among the facts.
            Joint::Joined(Proof::Nothing) | Joint::NeedsBytes => {}
            other => panic!("{salt}: {other:?}"),
        }
    }
    assert!(by_facts < 40);
}

/// A commit that crosses is kept with its length and its bytes.
#[test]
fn a_commit_that_crosses_is_compared_by_facts() {
    let mut own = Writer::new(1, size(), holdfast_pgtypes::SystemIdentifier::new(SYSTEM));
    own.commit_into(2);
    own.write_into(3);
    let first = facts(&own.segment(1), 1);
    assert_eq!(joint(&first, &facts(&own.segment(2), 2), size()), Joint::Joined(Proof::Checksum));
    // A bit in the part of the record that is in the next segment.
    let mut changed = own.segment(2);
    changed[40] ^= 1;
    let reason = "the record that crosses into it fails its checksum".to_owned();
    assert_eq!(joint(&first, &facts(&changed, 2), size()), Joint::Other(reason));
    let Joint::Other(reason) = joint(&first, &facts(&server(1).segment(2), 2), size()) else { panic!("it joins") };
    assert!(reason.starts_with("it continues a record with "), "{reason}");
}

/// After a crash the server marks the page on which it continues without the rest of a lost record.
#[test]
fn the_mark_of_a_crash_is_no_other_history() {
    let server = server(3);
    let (first, mut second) = (server.segment(1), server.segment(2));
    assert!(facts(&first, 1).leaves_a_record(size()) == Some(true), "the record crosses");
    // Without its continuation, and with the mark.
    let begins = SegmentFacts::scan(segment(&second, 2)).head_continuation.unwrap().end_lsn.unwrap();
    let offset = usize::try_from(begins.as_u64() - named(1, 2).start_lsn(size()).as_u64()).unwrap();
    let rest = second[offset..8192].to_vec();
    second[40..40 + rest.len()].copy_from_slice(&rest);
    second[2..4].copy_from_slice(&(2_u16 | 8).to_le_bytes());
    second[16..20].fill(0);
    // The server continues after the last record that was whole.
    let whole = segment(&first, 1).records().last().unwrap().lsn;
    second[48..56].copy_from_slice(&whole.as_u64().to_le_bytes());
    let length = u32::from_le_bytes(second[40..44].try_into().unwrap()) as usize;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&second[64..40 + length]), &second[40..60]);
    second[60..64].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(joint(&facts(&first, 1), &facts(&second, 2), size()), Joint::NeedsBytes);
    assert_eq!(joint(&facts(&first, 1), &scanned(&second, 2), size()), Joint::Joined(Proof::Nothing));
    assert_eq!(joint(&scanned(&first, 1), &scanned(&second, 2), size()), Joint::Joined(Proof::Link));
    // Another server with the same mark.
    let Joint::Other(reason) = joint(&scanned(&self::server(4).segment(1), 1), &scanned(&second, 2), size()) else {
        panic!("it joins")
    };
    assert!(reason.starts_with("its first record follows a record at "), "{reason}");
    // The same without the mark is another history.
    second[2..4].copy_from_slice(&2_u16.to_le_bytes());
    let reason = "it begins with a record, and the segment before it ends inside of one".to_owned();
    assert_eq!(joint(&facts(&first, 1), &scanned(&second, 2), size()), Joint::Other(reason));
}

/// A segment that was ended early leaves no record: only the link shows what comes after it.
#[test]
fn after_a_switch_only_the_link_is_compared() {
    let mut server = Writer::new(1, size(), holdfast_pgtypes::SystemIdentifier::new(SYSTEM));
    server.write_half_of(1);
    server.switch();
    server.write_into(3);
    let (first, second) = (server.segment(1), server.segment(2));
    assert_eq!(joint(&facts(&first, 1), &facts(&second, 2), size()), Joint::Joined(Proof::Nothing));
    assert_eq!(joint(&scanned(&first, 1), &scanned(&second, 2), size()), Joint::Joined(Proof::Link));
}

/// A bit in a record that no scan for facts reads.
#[test]
fn a_bit_in_any_record_is_found_by_its_crc() {
    let whole = server(3).segment(1);
    let records: Vec<_> = segment(&whole, 1).records().collect();
    let quiet = records.iter().skip(20).find(|record| record.event.is_none() && record.ddl.is_none()).unwrap();
    let at = usize::try_from(quiet.lsn.as_u64() - named(1, 1).start_lsn(size()).as_u64()).unwrap() + 30;
    let mut changed = whole.clone();
    changed[at] ^= 4;
    assert!(!SegmentFacts::scan(segment(&changed, 1)).is_incomplete, "facts do not show it");
    assert!(!scanned(&whole, 1).is_unfinished());
    assert!(scanned(&changed, 1).is_unfinished());
}

/// A record of three segments: its CRC is compared where it ends, with the parts from all of them.
#[test]
fn a_record_that_is_longer_than_a_segment_is_compared_where_it_ends() {
    let mut server = Writer::new(1, size(), holdfast_pgtypes::SystemIdentifier::new(SYSTEM));
    server.write_half_of(1);
    server.long_record(2 << 20);
    server.write_into(5);
    let mut before = scanned(&server.segment(1), 1);
    let mut found = Vec::new();
    for number in 2..=4 {
        let mut next = scanned(&server.segment(number), number);
        next.carry_from(&before);
        found.push(joint(&before, &next, size()));
        before = next;
    }
    assert_eq!(found, [Proof::Nothing, Proof::Checksum, Proof::Checksum].map(Joint::Joined));
    // A bit in the segment in the middle.
    let mut middle = server.segment(2);
    middle[500_000] ^= 1;
    let mut middle = scanned(&middle, 2);
    middle.carry_from(&scanned(&server.segment(1), 1));
    let reason = "the record that crosses into it fails its checksum".to_owned();
    assert_eq!(joint(&middle, &scanned(&server.segment(3), 3), size()), Joint::Other(reason));
}
