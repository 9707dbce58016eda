//! Neighbours: the files that wait for the archiver besides the requested one.
//!
//! PostgreSQL marks a file to be archived with `archive_status/<name>.ready` beside it and asks for them in a fixed
//! order: timeline history files first, then by name (`pgarch_readyXlog` in `pgarch.c`). It will ask next for those
//! after the requested one, so they are archived ahead. Other names are ignored.

use std::collections::BTreeMap;
use std::path::Path;

use holdfast_pgtypes::WalFileName;

/// The files that wait at this moment, from the directory.
#[derive(Debug, Default)]
pub struct Ready(BTreeMap<(bool, String), WalFileName>);

impl Ready {
    /// Reads `archive_status` beside the file. If the directory cannot be read, no file counts as waiting: the
    /// requested file does not depend on it.
    pub fn beside(file: &Path) -> Self {
        let folder = file.parent().unwrap_or(Path::new("")).join("archive_status");
        let Ok(entries) = std::fs::read_dir(folder) else { return Self::default() };
        let names = entries.flatten().filter_map(|entry| {
            let name = entry.file_name();
            name.to_str()?.strip_suffix(".ready")?.parse().ok()
        });
        Self(names.map(|file| (Self::key(file), file)).collect())
    }

    /// Whether this file waits now.
    pub fn is_marked(file: &Path) -> bool {
        let (Some(folder), Some(name)) = (file.parent(), file.file_name()) else { return false };
        let mut mark = name.to_owned();
        mark.push(".ready");
        folder.join("archive_status").join(mark).exists()
    }

    /// Whether a file waits.
    pub fn contains(&self, file: &WalFileName) -> bool {
        self.0.contains_key(&Self::key(*file))
    }

    /// All files that wait.
    pub fn files(&self) -> impl Iterator<Item = WalFileName> {
        self.0.values().copied()
    }

    /// How many files wait.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The files after `requested` in the archiver's order, and all history files.
    pub fn after(&self, requested: WalFileName) -> impl Iterator<Item = WalFileName> {
        let own = Self::key(requested);
        self.0.iter().filter(move |(key, _)| **key != own && (!key.0 || **key > own)).map(|(_, file)| *file)
    }

    /// History files sort first, then names as text.
    fn key(file: WalFileName) -> (bool, String) {
        (!matches!(file, WalFileName::History(_)), file.to_string())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn takes_what_comes_after_in_the_archivers_order() {
        let folder = tempfile::tempdir().unwrap();
        let status = folder.path().join("archive_status");
        std::fs::create_dir(&status).unwrap();
        for name in [
            "000000010000000000000002.ready",
            "000000010000000000000004.ready",
            "000000010000000000000003.ready",
            "000000010000000000000005.done",
            "000000010000000000000001.ready",
            "000000010000000000000003.00000028.backup.ready",
            "00000002.history.ready",
            "000000010000000000000004.partial.ready",
            "something.ready",
        ] {
            std::fs::write(status.join(name), b"").unwrap();
        }
        let ready = Ready::beside(&folder.path().join("000000010000000000000002"));
        let after: Vec<String> =
            ready.after("000000010000000000000002".parse().unwrap()).map(|name| name.to_string()).collect();
        assert_eq!(
            after,
            [
                "00000002.history",
                "000000010000000000000003",
                "000000010000000000000003.00000028.backup",
                "000000010000000000000004",
                "000000010000000000000004.partial",
            ]
        );
        assert!(ready.contains(&"00000002.history".parse().unwrap()));
        assert!(!ready.contains(&"000000010000000000000005".parse().unwrap()));
        assert_eq!(Ready::beside(Path::new("/nonexistent/file")).after("00000002.history".parse().unwrap()).count(), 0);
    }
}
