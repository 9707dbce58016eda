//! PostgreSQL's own backup manifest, as `backup_manifest.c` writes it, for `pg_verifybackup` and `pg_combinebackup`.
//!
//! The text is JSON in a fixed form: version (1 up to 16; 2 with the system identifier since 17), one line for each
//! file, the WAL that recovery needs, and finally a SHA-256 of everything before it. The writer passes the text piece
//! by piece to a sink and keeps none of it. The sink writes and hashes, and the caller adds the last line with the
//! digest.
//!
//! ```
//! use chrono::DateTime;
//! use holdfast_pgtypes::backup_manifest::{ManifestFile, ManifestWriter, WalRange, checksum_line};
//! use holdfast_pgtypes::{PgVersion, SystemIdentifier, TimelineId};
//!
//! let mut text = Vec::new();
//! let mut sink = |piece: &[u8]| text.extend_from_slice(piece); // and feed a SHA-256
//! let mut manifest = ManifestWriter::begin(PgVersion::V17, SystemIdentifier::new(7), &mut sink);
//! manifest.file(&ManifestFile {
//!     path: b"PG_VERSION",
//!     size_bytes: 3,
//!     modified: DateTime::from_timestamp(1_795_334_400, 0).unwrap_or_default(),
//!     crc32c: Some(0x64F8_45B8),
//! });
//! let range = WalRange { timeline: TimelineId::FIRST, start: 0x200_0028.into(), end: 0x200_0100.into() };
//! manifest.finish(&[range]);
//! let digest = [0; 32]; // of `text`
//! text.extend_from_slice(checksum_line(&digest).as_bytes());
//! ```

use chrono::{DateTime, Utc};

use crate::lsn::Lsn;
use crate::system_identifier::SystemIdentifier;
use crate::timeline::TimelineId;
use crate::version::PgVersion;

/// A file of the backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ManifestFile<'a> {
    /// The path relative to the data directory; files of a tablespace are at `pg_tblspc/<oid>/...`.
    pub path: &'a [u8],
    /// The size of the file in the backup.
    pub size_bytes: u64,
    /// When it was last changed, to the second.
    pub modified: DateTime<Utc>,
    /// CRC-32C of the contents; without it the file has no checksum in the manifest.
    pub crc32c: Option<u32>,
}

/// WAL that recovery of the backup needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalRange {
    /// The timeline of the range.
    pub timeline: TimelineId,
    /// The first LSN of the range.
    pub start: Lsn,
    /// The first LSN after the range.
    pub end: Lsn,
}

/// Writes a manifest into a sink.
pub struct ManifestWriter<'s> {
    sink: &'s mut dyn FnMut(&[u8]),
    any_file: bool,
}

impl<'s> ManifestWriter<'s> {
    /// The file's name in a backup.
    pub const FILE_NAME: &'static str = "backup_manifest";

    /// Begins a manifest in the form of this major.
    pub fn begin(version: PgVersion, system_identifier: SystemIdentifier, sink: &'s mut dyn FnMut(&[u8])) -> Self {
        let number = version.backup_manifest_version();
        let cluster =
            if number >= 2 { format!("\"System-Identifier\": {system_identifier},\n") } else { String::new() };
        let head = format!("{{ \"PostgreSQL-Backup-Manifest-Version\": {number},\n{cluster}\"Files\": [");
        sink(head.as_bytes());
        Self { sink, any_file: false }
    }

    /// Adds a file.
    pub fn file(&mut self, file: &ManifestFile<'_>) {
        let before = if self.any_file { ",\n" } else { "\n" };
        self.any_file = true;
        let path = match std::str::from_utf8(file.path) {
            Ok(path) => format!("\"Path\": {}", json_string(path)),
            Err(_) => format!("\"Encoded-Path\": \"{}\"", hex::encode(file.path)),
        };
        let checksum = file.crc32c.map(|crc32c| {
            // The bytes of the number as they are in the memory of a little-endian machine.
            let digits = hex::encode(crc32c.to_le_bytes());
            format!(", \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"{digits}\"")
        });
        let line = format!(
            "{before}{{ {path}, \"Size\": {}, \"Last-Modified\": \"{}\"{} }}",
            file.size_bytes,
            file.modified.format("%Y-%m-%d %H:%M:%S GMT"),
            checksum.unwrap_or_default(),
        );
        (self.sink)(line.as_bytes());
    }

    /// Ends the files and adds the WAL, newest timeline first. After that only `checksum_line` is missing, with the
    /// SHA-256 of everything that the sink received.
    pub fn finish(self, ranges: &[WalRange]) {
        let ranges: Vec<String> = ranges
            .iter()
            .map(|range| {
                format!(
                    "{{ \"Timeline\": {}, \"Start-LSN\": \"{}\", \"End-LSN\": \"{}\" }}",
                    range.timeline, range.start, range.end
                )
            })
            .collect();
        let text = format!("\n],\n\"WAL-Ranges\": [\n{}\n],\n", ranges.join(",\n"));
        (self.sink)(text.as_bytes());
    }
}

/// The last line of a manifest, which is not part of the digest.
pub fn checksum_line(sha256: &[u8; 32]) -> String {
    format!("\"Manifest-Checksum\": \"{}\"}}\n", hex::encode(sha256))
}

/// Quotes a text, as `escape_json`.
fn json_string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => {
                out.push_str("\\u00");
                out.push_str(&hex::encode([c as u8]));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use proptest::prelude::*;

    fn manifest(version: PgVersion, files: &[ManifestFile<'_>], ranges: &[WalRange]) -> String {
        let mut text = Vec::new();
        let mut sink = |piece: &[u8]| text.extend_from_slice(piece);
        let mut writer = ManifestWriter::begin(version, SystemIdentifier::new(7_710_912_426_042_727_162), &mut sink);
        for file in files {
            writer.file(file);
        }
        writer.finish(ranges);
        text.extend_from_slice(checksum_line(&[0xAB; 32]).as_bytes());
        String::from_utf8(text).unwrap()
    }

    fn file(path: &[u8]) -> ManifestFile<'_> {
        ManifestFile {
            path,
            size_bytes: 3,
            modified: DateTime::from_timestamp(1_795_334_400, 0).unwrap(),
            crc32c: Some(0x64F8_45B8),
        }
    }

    /// As `pg_basebackup --manifest-checksums=none` writes it.
    #[test]
    fn a_file_without_a_checksum_has_none_in_the_manifest() {
        let text = manifest(PgVersion::V17, &[ManifestFile { crc32c: None, ..file(b"PG_VERSION") }], &[]);
        let line = "{ \"Path\": \"PG_VERSION\", \"Size\": 3, \"Last-Modified\": \"2026-11-22 08:00:00 GMT\" }";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn version_1_looks_like_postgresqls() {
        let range = WalRange { timeline: TimelineId::FIRST, start: Lsn::new(0x200_0028), end: Lsn::new(0x200_0100) };
        let older = WalRange { timeline: TimelineId::new(2).unwrap(), ..range };
        let checksum = "ab".repeat(32);
        assert_eq!(
            manifest(PgVersion::V16, &[file(b"PG_VERSION"), file(b"a\xffb"), file(b"q\"\x01\n")], &[older, range]),
            format!(
                r#"{{ "PostgreSQL-Backup-Manifest-Version": 1,
"Files": [
{{ "Path": "PG_VERSION", "Size": 3, "Last-Modified": "2026-11-22 08:00:00 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "b845f864" }},
{{ "Encoded-Path": "61ff62", "Size": 3, "Last-Modified": "2026-11-22 08:00:00 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "b845f864" }},
{{ "Path": "q\"\u0001\n", "Size": 3, "Last-Modified": "2026-11-22 08:00:00 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "b845f864" }}
],
"WAL-Ranges": [
{{ "Timeline": 2, "Start-LSN": "0/2000028", "End-LSN": "0/2000100" }},
{{ "Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "0/2000100" }}
],
"Manifest-Checksum": "{checksum}"}}
"#
            )
        );
    }

    #[test]
    fn version_2_names_the_cluster() {
        let text = manifest(PgVersion::V17, &[], &[]);
        assert!(text.starts_with(
            "{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": 7710912426042727162,\n\"Files\": ["
        ));
    }

    #[test]
    fn checksums_are_printed_as_postgresql_18_printed_them() {
        // The line of PG_VERSION in a manifest of pg_basebackup.
        let file = ManifestFile { crc32c: Some(crc32c::crc32c(b"18\n")), ..file(b"PG_VERSION") };
        assert!(manifest(PgVersion::V18, &[file], &[]).contains("\"Checksum\": \"994e7be2\""));
    }

    proptest! {
        #[test]
        fn every_path_gives_valid_json(path: Vec<u8>) {
            let text = manifest(PgVersion::V18, &[file(&path)], &[]);
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            let file = value.pointer("/Files/0").unwrap();
            if let Some(text) = file.get("Path") {
                prop_assert_eq!(text.as_str().unwrap().as_bytes(), path.as_slice());
            } else {
                let text = file.get("Encoded-Path").unwrap().as_str().unwrap();
                prop_assert_eq!(text, hex::encode(&path));
            }
        }
    }
}
