//! What is in the repository that objects come to: which packs there are, and what its manifests vouch for.

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::{self, StreamExt};
use holdfast_repo::manifest::PackEntry;
use holdfast_repo::name::{self, ClusterName, ObjectPath};
use parking_lot::{Mutex, MutexGuard};

use super::of_object;
use crate::error::{Error, ResultExt};
use crate::repository::Repository;

/// Ends of manifests that are read at once.
const ENDS_AT_ONCE: usize = 16;

/// The packs of a cluster.
#[derive(Debug, Default)]
pub(super) struct Destination {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    sizes: BTreeMap<String, u64>,
    /// What manifests say of packs, with salt and checksum.
    vouched: BTreeMap<String, PackEntry>,
    /// Names that somebody is about to give.
    reserved: BTreeSet<String>,
    /// Manifests whose frames of files others refer to.
    origins: BTreeSet<String>,
}

impl Destination {
    pub(super) async fn look(
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
            // One that cannot be read vouches for nothing.
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

    /// The size of a pack that is there.
    pub(super) fn size_of(&self, name: &str) -> Option<u64> {
        self.state().sizes.get(name).copied()
    }

    /// What a manifest says of a pack that has the size which it says.
    pub(super) fn vouched(&self, name: &str) -> Option<PackEntry> {
        let state = self.state();
        let size = state.sizes.get(name)?;
        state.vouched.get(name).filter(|entry| entry.size_bytes == *size).cloned()
    }

    /// Whether others refer to the frames of this manifest.
    pub(super) fn is_origin(&self, manifest: &str) -> bool {
        self.state().origins.contains(manifest)
    }

    /// Keeps a free name from being given twice; `false` if it is not free.
    pub(super) fn reserve(&self, name: &str) -> bool {
        let mut state = self.state();
        !state.sizes.contains_key(name) && state.reserved.insert(name.to_owned())
    }

    /// A pack was stored.
    pub(super) fn stored(&self, entry: &PackEntry) {
        let mut state = self.state();
        state.reserved.remove(&entry.name);
        state.sizes.insert(entry.name.clone(), entry.size_bytes);
        state.vouched.insert(entry.name.clone(), entry.clone());
    }

    /// A pack that was to get this name was not stored.
    pub(super) fn give_up(&self, name: &str) {
        self.state().reserved.remove(name);
    }

    /// A pack that is there was read and found to be this one.
    pub(super) fn proved(&self, entry: &PackEntry) {
        self.state().vouched.insert(entry.name.clone(), entry.clone());
    }
}
