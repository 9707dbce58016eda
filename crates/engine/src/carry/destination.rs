//! What the second repository has: its packs, and what its manifests vouch for.

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::{self, StreamExt};
use holdfast_repo::manifest::PackEntry;
use holdfast_repo::name::{self, ClusterName, ObjectPath};
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
    /// The manifests whose file frames other manifests refer to.
    origins: BTreeSet<String>,
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
        let manifests = listed.into_iter().map(|object| object.name.to_string());
        let manifests = manifests.filter(|name| matches!(name.parse(), Ok(ObjectPath::Manifest { .. })));
        let ends = manifests.map(|manifest| {
            let repository = repository.clone();
            async move { repository.manifest_end(&manifest).await }
        });
        let mut ends = stream::iter(ends.collect::<Vec<_>>()).buffer_unordered(ENDS_AT_ONCE);
        let mut state = State { sizes, ..State::default() };
        while let Some(end) = ends.next().await {
            // A manifest that cannot be read vouches for nothing.
            let Some(end) = of_object(end)? else { continue };
            state.origins.extend(end.origins);
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

    /// Whether other manifests refer to frames of this one.
    pub(super) fn is_origin(&self, manifest: &str) -> bool {
        self.state().origins.contains(manifest)
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
