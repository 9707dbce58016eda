//! The backups of a cluster, and which of their objects exist.

use crate::name::{BackupId, ClusterName, ObjectPath};
use std::collections::BTreeMap;

/// Which objects of one backup are in the repository.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BackupObjects {
    /// `start.json`: the backup has begun.
    pub start: bool,
    /// `manifest`: its data is there.
    pub manifest: bool,
    /// `backup.json`: it is complete.
    pub summary: bool,
    /// The number of packs, as far as they were listed.
    pub pack_count: u32,
}

impl BackupObjects {
    /// Whether the backup exists: its summary is written last.
    pub fn is_complete(self) -> bool {
        self.summary
    }
}

/// Every backup of a cluster that left an object, complete or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackupCatalog {
    backups: BTreeMap<BackupId, BackupObjects>,
}

impl BackupCatalog {
    /// The backups of `cluster` in a listing of its `backups/` and, if wanted, `packs/` folders. Other names are
    /// ignored.
    pub fn from_listing<'a>(cluster: &ClusterName, names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut catalog = Self::default();
        for path in names.into_iter().filter_map(|name| name.parse::<ObjectPath>().ok()) {
            if path.cluster() != Some(cluster) {
                continue;
            }
            match path {
                ObjectPath::BackupStart { backup, .. } => catalog.entry(backup).start = true,
                ObjectPath::Manifest { backup, .. } => catalog.entry(backup).manifest = true,
                ObjectPath::BackupSummary { backup, .. } => catalog.entry(backup).summary = true,
                ObjectPath::Pack { backup, .. } => catalog.entry(backup).pack_count += 1,
                _ => {}
            }
        }
        catalog
    }

    fn entry(&mut self, backup: BackupId) -> &mut BackupObjects {
        self.backups.entry(backup).or_default()
    }

    /// The complete backups, oldest first.
    pub fn complete(&self) -> impl DoubleEndedIterator<Item = BackupId> {
        self.backups.iter().filter(|(_, objects)| objects.is_complete()).map(|(id, _)| *id)
    }

    /// Backups that run or were interrupted, oldest first, with the objects they left.
    pub fn unfinished(&self) -> impl DoubleEndedIterator<Item = (BackupId, BackupObjects)> {
        self.backups.iter().filter(|(_, objects)| !objects.is_complete()).map(|(id, objects)| (*id, *objects))
    }

    /// The objects of one backup; `None` if it left none.
    pub fn objects(&self, backup: BackupId) -> Option<BackupObjects> {
        self.backups.get(&backup).copied()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn the_summary_alone_decides() {
        let names = [
            "main/backups/20260101T000000Z/backup.json",
            "main/backups/20260101T000000Z/manifest",
            "main/backups/20260101T000000Z/start.json",
            "main/backups/20260102T000000Z/manifest",
            "main/backups/20260102T000000Z/start.json",
            "main/packs/20260102T000000Z/000000.pack",
            "main/packs/20260102T000000Z/000001.pack",
            "main/packs/20260103T000000Z/000000.pack",
            "main/packs/20260103T000000Z/junk",
            "other/backups/20260104T000000Z/backup.json",
        ];
        let catalog = BackupCatalog::from_listing(&"main".parse().unwrap(), names);
        assert_eq!(catalog.complete().map(|id| id.to_string()).collect::<Vec<_>>(), ["20260101T000000Z"]);
        let unfinished: Vec<_> = catalog.unfinished().map(|(id, objects)| (id.to_string(), objects)).collect();
        assert_eq!(
            unfinished,
            [
                (
                    "20260102T000000Z".to_owned(),
                    BackupObjects { start: true, manifest: true, summary: false, pack_count: 2 }
                ),
                (
                    "20260103T000000Z".to_owned(),
                    BackupObjects { start: false, manifest: false, summary: false, pack_count: 1 }
                ),
            ]
        );
    }
}
