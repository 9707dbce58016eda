//! What the second repository has: its packs, and what its manifests vouch for.

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::{self, StreamExt};
use holdfast_repo::manifest::PackEntry;
use holdfast_repo::name::{self, BackupId, ClusterName, ObjectPath};
use parking_lot::{Mutex, MutexGuard};

use super::of_object;
use crate::error::{Error, ResultExt};
use crate::repository::Repository;

/// The number of manifest ends that are read in parallel.
const ENDS_AT_ONCE: usize = 16;

/// The packs of a cluster in the second repository.
#[derive(Debug, Default)]
pub(super) struct Destination {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    sizes: BTreeMap<String, u64>,
    /// The entries of packs in manifests, if they have a salt and a checksum.
    vouched: BTreeMap<String, PackEntry>,
    /// The names of packs that are about to be stored.
    reserved: BTreeSet<String>,
    /// The manifests to whose frames others refer, each with those others.
    origins: BTreeMap<String, BTreeSet<String>>,
    /// The manifests that cannot be read and are not known to be damaged. They may refer to any other.
    unread: BTreeSet<String>,
    /// Backups with a start record and without `backup.json`. The next backup may remove what is in their folders.
    unfinished: BTreeSet<BackupId>,
}

impl Destination {
    pub(super) async fn list(
        repository: &Repository,
        cluster: &ClusterName,
        distrusted: &BTreeSet<String>,
    ) -> Result<Self, Error> {
        let listing = || format!("listing what {} has of {cluster}", repository.describe());
        let packs = repository.store().list(&format!("{cluster}/packs/"), None).await.doing(listing)?;
        let packs =
            packs.into_iter().filter(|object| matches!(object.name.as_ref().parse(), Ok(ObjectPath::Pack { .. })));
        let sizes = packs.map(|object| (object.name.to_string(), object.size_bytes)).collect();
        let listed = repository.store().list(&name::backups_folder(cluster), None).await.doing(listing)?;
        let (mut begun, mut complete) = (BTreeSet::new(), BTreeSet::new());
        for object in &listed {
            match object.name.as_ref().parse() {
                Ok(ObjectPath::BackupStart { backup, .. }) => drop(begun.insert(backup)),
                Ok(ObjectPath::BackupSummary { backup, .. }) => drop(complete.insert(backup)),
                _ => {}
            }
        }
        let unfinished = begun.difference(&complete).copied().collect();
        let manifests = listed.into_iter().map(|object| object.name.to_string());
        let manifests = manifests.filter(|name| matches!(name.parse(), Ok(ObjectPath::Manifest { .. })));
        let ends = manifests.map(|manifest| {
            let repository = repository.clone();
            async move { (repository.manifest_end(&manifest).await, manifest) }
        });
        let mut ends = stream::iter(ends.collect::<Vec<_>>()).buffer_unordered(ENDS_AT_ONCE);
        let mut state = State { sizes, unfinished, ..State::default() };
        while let Some((end, manifest)) = ends.next().await {
            let Some(end) = of_object(end)? else {
                // It vouches for nothing.
                if !distrusted.contains(&manifest) {
                    state.unread.insert(manifest);
                }
                continue;
            };
            for origin in end.origins {
                state.origins.entry(origin).or_default().insert(manifest.clone());
            }
            let vouched =
                end.packs.into_iter().filter(|pack| pack.identity.is_some() && !distrusted.contains(&pack.name));
            state.vouched.extend(vouched.map(|pack| (pack.name.clone(), pack)));
        }
        drop(ends);
        Ok(Self { state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Whether a pack of this name stays, if `backup` names it: it is not in the folder of another backup that is not
    /// complete. A backup that takes a dead run over removes what no manifest names there, and it has read the
    /// manifests before this copy wrote one.
    pub(super) fn stays(&self, name: &str, backup: BackupId) -> bool {
        match name.parse() {
            Ok(ObjectPath::Pack { backup: of, .. }) => of == backup || !self.state().unfinished.contains(&of),
            _ => false,
        }
    }

    /// The size of a stored pack, in bytes.
    pub(super) fn size_of(&self, name: &str) -> Option<u64> {
        self.state().sizes.get(name).copied()
    }

    /// The entry of a pack in a manifest, if the stored pack has the size in this entry.
    pub(super) fn vouched(&self, name: &str) -> Option<PackEntry> {
        let state = self.state();
        let size = state.sizes.get(name)?;
        state.vouched.get(name).filter(|entry| entry.size_bytes == *size).cloned()
    }

    /// A manifest that refers to frames of this one, or may do so; `None` if there is none.
    pub(super) fn referrer(&self, manifest: &str) -> Option<String> {
        let state = self.state();
        let known = state.origins.get(manifest).into_iter().flatten();
        known.chain(&state.unread).find(|other| *other != manifest).cloned()
    }

    /// Records that a manifest was written again: it refers to no other.
    pub(super) fn rewrote(&self, manifest: &str) {
        let mut state = self.state();
        state.unread.remove(manifest);
        for referrers in state.origins.values_mut() {
            referrers.remove(manifest);
        }
    }

    /// Reserves a free name, so that it is not given twice; `false` if it is not free.
    pub(super) fn reserve(&self, name: &str) -> bool {
        let mut state = self.state();
        !state.sizes.contains_key(name) && state.reserved.insert(name.to_owned())
    }

    /// Records that a pack was stored.
    pub(super) fn stored(&self, entry: &PackEntry) {
        let mut state = self.state();
        state.reserved.remove(&entry.name);
        state.sizes.insert(entry.name.clone(), entry.size_bytes);
        state.vouched.insert(entry.name.clone(), entry.clone());
    }

    /// Frees a reserved name whose pack was not stored.
    pub(super) fn give_up(&self, name: &str) {
        self.state().reserved.remove(name);
    }

    /// Records that a stored pack was read and matches this entry.
    pub(super) fn proved(&self, entry: &PackEntry) {
        self.state().vouched.insert(entry.name.clone(), entry.clone());
    }
}
