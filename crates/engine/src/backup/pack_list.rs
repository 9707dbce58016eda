//! The packs of a manifest that is being written, by their numbers: own packs, and packs of earlier backups.

use std::collections::HashMap;

use holdfast_repo::manifest::PackEntry;

#[derive(Debug, Default)]
pub(super) struct PackList {
    /// By number; `None` for the pack that is being filled.
    packs: Vec<Option<PackEntry>>,
    /// The numbers of packs of other backups, by name. The parent and a killed run can both refer to the same pack.
    numbers: HashMap<String, u32>,
}

impl PackList {
    /// The number for an own pack, which is about to be filled.
    pub(super) fn begin(&mut self) -> u32 {
        let number = self.packs.len() as u32;
        self.packs.push(None);
        number
    }

    /// Records an own pack that is full.
    pub(super) fn set(&mut self, number: u32, pack: PackEntry) {
        if let Some(place) = self.packs.get_mut(number as usize) {
            *place = Some(pack);
        }
    }

    /// The number of a pack of another backup, if it is in the list.
    pub(super) fn known(&self, name: &str) -> Option<u32> {
        self.numbers.get(name).copied()
    }

    /// The number of a pack that another backup has stored.
    pub(super) fn number(&mut self, pack: &PackEntry) -> u32 {
        if let Some(known) = self.known(&pack.name) {
            return known;
        }
        let number = self.packs.len() as u32;
        self.packs.push(Some(pack.clone()));
        self.numbers.insert(pack.name.clone(), number);
        number
    }

    /// All packs that are full, in the order of their numbers.
    pub(super) fn into_packs(self) -> Vec<PackEntry> {
        self.packs.into_iter().flatten().collect()
    }
}
