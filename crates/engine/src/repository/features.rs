//! Features that a later release uses in a repository, and that an older release must respect.
//!
//! `holdfast.json` is never rewritten, so it cannot say this. A release that uses such a feature first creates an
//! object below `features/`. The prefix of its name tells older releases what to refuse: `read-` every use of the
//! repository, `write-` the verbs that write, and `remove-` the removal of the remains of dead backups. Names of
//! another form are ignored, as everywhere.

use std::sync::Arc;

use holdfast_repo::name::{self, FeatureName, FeatureUse, ObjectPath};
use holdfast_store::Store;

use crate::error::{Cause, Error};

/// The features of a repository that this release does not know.
#[derive(Debug, Clone, Default)]
pub(super) struct Features {
    unknown: Vec<FeatureName>,
}

impl Features {
    /// Lists the objects below `features/`.
    pub(super) async fn read(store: &Arc<dyn Store>) -> Result<Self, Error> {
        let listed = store.list(&name::features_folder(), None).await?;
        let unknown = listed.into_iter().filter_map(|object| match object.name.as_ref().parse() {
            Ok(ObjectPath::Feature(feature)) if !feature.is_known() => Some(feature),
            _ => None,
        });
        Ok(Self { unknown: unknown.collect() })
    }

    /// Refuses if a reader must know one of them.
    pub(super) fn check_read(&self, store: &str) -> Result<(), Error> {
        self.check(|feature| feature.needed_to() == FeatureUse::Read, store)
    }

    /// Refuses if a writer must know one of them.
    pub(super) fn check_write(&self, store: &str) -> Result<(), Error> {
        self.check(|feature| feature.needed_to() != FeatureUse::Remove, store)
    }

    /// Refuses if a command that removes the remains of another run must know one of them.
    pub(super) fn check_remove(&self, store: &str) -> Result<(), Error> {
        self.check(|_| true, store)
    }

    fn check(&self, matters: impl Fn(&FeatureName) -> bool, store: &str) -> Result<(), Error> {
        match self.unknown.iter().find(|feature| matters(feature)) {
            None => Ok(()),
            Some(feature) => Err(Cause::NewerFeature { store: store.to_owned(), feature: feature.to_string() }.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use bytes::Bytes;
    use holdfast_store::{MemoryStore, PutMode};

    use super::*;
    use crate::repository::{Repository, RepositoryTarget, Unlock, init, object_name};

    async fn with(objects: &[&str]) -> RepositoryTarget {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let target = RepositoryTarget { store: Arc::clone(&store), unlock: Unlock::NotEncrypted };
        init::init(&target, "2026-11-22T11:00:00Z".parse().unwrap()).await.unwrap();
        for name in objects {
            store.put(&object_name(name).unwrap(), Bytes::new(), PutMode::Create).await.unwrap();
        }
        target
    }

    #[tokio::test]
    async fn an_unknown_feature_refuses_what_needs_it() {
        for (objects, read, write, remove) in [
            (&[][..], true, true, true),
            (&["features/notes.txt", "features/sometimes-x", "features/read-", "feature/read-x"], true, true, true),
            (&["features/remove-by-expire"], true, true, false),
            (&["features/write-packs-2"], true, false, false),
            (&["features/write-packs-2", "features/read-chains"], false, false, false),
        ] {
            let target = with(objects).await;
            let opened = Repository::open(&target).await;
            assert_eq!(opened.is_ok(), read, "{objects:?}");
            assert_eq!(Repository::open_to_write(&target).await.is_ok(), write, "{objects:?}");
            let removable = opened.is_ok_and(|repository| repository.check_removable().is_ok());
            assert_eq!(removable, remove, "{objects:?}");
        }
    }

    #[tokio::test]
    async fn a_refusal_names_the_feature_as_newer() {
        let target = with(&["features/write-packs-2"]).await;
        let error = Repository::open_to_write(&target).await.unwrap_err();
        assert!(error.is_newer() && !error.is_of_one_object(), "{error}");
        let said = error.what.to_string();
        assert!(
            said.ends_with("the feature write-packs-2, which this release does not know: written by a newer holdfast"),
            "{said}"
        );
        // A repository that was opened to read does not write a record either.
        let repository = Repository::open(&target).await.unwrap();
        let start = holdfast_repo::record::StartRecord {
            backup_id: "20261122T100000Z".parse().unwrap(),
            cluster: "main".parse().unwrap(),
            claim: "1".parse().unwrap(),
            system_identifier: "7412345678901234567".parse().unwrap(),
            host: "db1".to_owned(),
            pid: 1,
            pgdata: "/data".to_owned(),
            started: "2026-11-22T10:00:00Z".parse().unwrap(),
            software_version: "0.1.0".to_owned(),
            parent: None,
            run: None,
        };
        let refused = repository.create_record("main/backups/20261122T100000Z/start.json", &start).await.unwrap_err();
        assert!(matches!(*refused.what, Cause::NewerFeature { .. }), "{refused}");
    }
}
