//! A control file for tests, with other values in some places.

/// A control file of PostgreSQL 18.
pub(crate) const CONTROL: &[u8] = include_bytes!("../../../pgtypes/tests/fixtures/pg_control.18");

/// The place of `system_identifier` in it, as in `ControlFileData`; then those of `checkPointCopy.ThisTimeLineID` and
/// `data_checksum_version`.
pub(crate) const SYSTEM_IDENTIFIER_AT: usize = 0;
pub(crate) const TIMELINE_AT: usize = 48;
pub(crate) const CHECKSUMS_AT: usize = 252;

/// The place of the CRC, which ends it.
const CRC_AT: usize = 292;

/// The control file with other bytes at these places, and the right CRC.
pub(crate) fn control_with(changes: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = CONTROL.to_vec();
    for (at, change) in changes {
        bytes[*at..*at + change.len()].copy_from_slice(change);
    }
    let checksum = crc32c::crc32c(&bytes[..CRC_AT]);
    bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&checksum.to_le_bytes());
    bytes
}
