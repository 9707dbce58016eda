//! Control files that `initdb` and the servers of all majors wrote, compared with the output of `pg_controldata` (for
//! 17, of its SQL functions).
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use holdfast_pgtypes::control::{ControlFileError, DbState};
use holdfast_pgtypes::{ControlFile, Lsn, PgVersion};
use proptest::prelude::*;

mod controldata;

fn fixture(major: u16) -> (&'static [u8], &'static str) {
    match major {
        13 => (include_bytes!("fixtures/pg_control.13"), include_str!("fixtures/pg_controldata.13.txt")),
        14 => (include_bytes!("fixtures/pg_control.14"), include_str!("fixtures/pg_controldata.14.txt")),
        15 => (include_bytes!("fixtures/pg_control.15"), include_str!("fixtures/pg_controldata.15.txt")),
        16 => (include_bytes!("fixtures/pg_control.16"), include_str!("fixtures/pg_controldata.16.txt")),
        17 => (include_bytes!("fixtures/pg_control.17"), include_str!("fixtures/pg_controldata.17.txt")),
        18 => (include_bytes!("fixtures/pg_control.18"), include_str!("fixtures/pg_controldata.18.txt")),
        _ => (include_bytes!("fixtures/pg_control.19"), include_str!("fixtures/pg_controldata.19.txt")),
    }
}

#[test]
fn fields_are_what_pg_controldata_says() {
    for version in PgVersion::ALL {
        let (bytes, oracle) = fixture(version.major());
        let control = ControlFile::parse(bytes).unwrap();
        assert_eq!(control.version, version);
        assert_eq!(control.state, DbState::ShutDown);
        assert_eq!((control.min_recovery_point, control.min_recovery_timeline), (None, None));
        assert_eq!((control.backup_start, control.backup_end, control.end_of_backup_required), (None, None, false));
        assert!(control.has_data_checksums());
        let compared = controldata::compare(&control, oracle);
        assert_eq!(compared.differences, Vec::<String>::new(), "PostgreSQL {version}");
        assert_eq!(compared.fields, oracle.lines().count(), "PostgreSQL {version}");
    }
}

/// The fixture of 15 with some bytes replaced and a matching CRC.
fn resealed(offset: usize, replacement: &[u8]) -> Vec<u8> {
    let (bytes, _) = fixture(15);
    let mut bytes = bytes.to_vec();
    bytes.splice(offset..offset + replacement.len(), replacement.iter().copied());
    let crc = crc32c::crc32c(bytes.get(..288).unwrap());
    bytes.splice(288..292, crc.to_le_bytes());
    bytes
}

#[test]
fn recovery_fields_are_read() {
    let parse = |offset, bytes: &[u8]| ControlFile::parse(&resealed(offset, bytes)).unwrap();
    assert_eq!(parse(16, &[5]).state, DbState::InArchiveRecovery);
    assert_eq!(parse(136, &0x200_0060_u64.to_le_bytes()).min_recovery_point, Some(Lsn::new(0x200_0060)));
    assert_eq!(parse(144, &[2]).min_recovery_timeline.unwrap().get(), 2);
    assert_eq!(parse(152, &0x200_0028_u64.to_le_bytes()).backup_start, Some(Lsn::new(0x200_0028)));
    assert_eq!(parse(160, &0x200_0100_u64.to_le_bytes()).backup_end, Some(Lsn::new(0x200_0100)));
    assert!(parse(168, &[1]).end_of_backup_required);
    assert_eq!(parse(64, &[1, 0, 0, 0, 3]).next_xid, 3 << 32 | 1);
}

#[test]
fn each_kind_of_damage_has_its_error() {
    let (bytes, _) = fixture(15);
    let error = |bytes: &[u8]| ControlFile::parse(bytes).unwrap_err();
    assert_eq!(error(&[]), ControlFileError::TooShort { found: 0, needed: 292 });
    assert_eq!(error(bytes.get(..291).unwrap()), ControlFileError::TooShort { found: 291, needed: 292 });
    let (bytes_18, _) = fixture(18);
    assert_eq!(error(bytes_18.get(..295).unwrap()), ControlFileError::TooShort { found: 295, needed: 296 });
    let (bytes_19, _) = fixture(19);
    assert_eq!(error(bytes_19.get(..311).unwrap()), ControlFileError::TooShort { found: 311, needed: 312 });

    let mut other = bytes.to_vec();
    other.splice(8..16, [1201_u32.to_le_bytes(), 201_909_212_u32.to_le_bytes()].concat());
    assert_eq!(
        error(&other).to_string(),
        "pg_control has control version 1201 and catalog version 201909212, which no supported PostgreSQL (13 to 19) \
         has"
    );

    for offset in (0..8).chain(16..292) {
        let mut torn = bytes.to_vec();
        *torn.get_mut(offset).unwrap() ^= 0x10;
        assert!(matches!(error(&torn), ControlFileError::BadCrc { .. }), "offset {offset}");
    }

    assert_eq!(
        error(&resealed(16, &[7])).to_string(),
        "pg_control has 7 as cluster state, which PostgreSQL does not write"
    );
    assert!(matches!(error(&resealed(48, &[0])), ControlFileError::InvalidField { .. }));
    assert!(matches!(error(&resealed(228, &[1])), ControlFileError::InvalidSegmentSize(_)));
}

proptest! {
    #[test]
    fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = ControlFile::parse(&bytes);
    }

    #[test]
    fn sealed_nonsense_never_panics(offset in 16_usize..280, value: [u8; 8]) {
        let _ = ControlFile::parse(&resealed(offset, &value));
    }
}
