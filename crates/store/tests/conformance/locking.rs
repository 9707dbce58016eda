//! Object Lock on moto, which refuses to delete the version of a locked object.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use holdfast_store::{
    LockMode, LockTerm, LockedUploads, Locks, ObjectLock, ObjectName, ProbeResult, PutMode, Store, StoreConfig,
    StoreErrorKind, open, probe,
};
use holdfast_testkit::s3::Moto;

use super::s3_config;

fn covers(name: &str) -> bool {
    name.starts_with("locked/")
}

fn term(mode: LockMode) -> LockTerm {
    LockTerm { mode, days: 30 }
}

fn config(moto: &Moto, bucket: &str, mode: LockMode) -> StoreConfig {
    let mut config = s3_config(moto.endpoint(), &moto.credentials());
    config.location = format!("s3://{bucket}/some/prefix").parse().unwrap();
    config.s3.lock = Some(ObjectLock { term: term(mode), covers });
    config
}

/// A store whose configuration is what its probe found, as a repository's record makes it.
async fn probed(mut config: StoreConfig) -> (std::sync::Arc<dyn Store>, ProbeResult) {
    let found = probe(&*open(&config).await.unwrap(), &".probe-1".parse().unwrap()).await.unwrap();
    config.capabilities = found.capabilities;
    (open(&config).await.unwrap(), found)
}

fn name(text: &str) -> ObjectName {
    text.parse().unwrap()
}

/// The ids of the versions of an object.
fn versions(moto: &Moto, bucket: &str, name: &ObjectName) -> Vec<String> {
    let listed = moto.request("GET", &format!("/{bucket}?versions&prefix=some/prefix/{name}"), &[], b"").unwrap();
    let listed = String::from_utf8(listed).unwrap();
    let text = |part: &str| part.split_once("</VersionId>").map(|(id, _)| id.to_owned());
    listed.split("<VersionId>").skip(1).filter_map(text).collect()
}

fn almost(end: Option<SystemTime>, wanted: SystemTime) -> bool {
    let minute = Duration::from_mins(1);
    end.is_some_and(|end| end + minute > wanted && end < wanted + minute)
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_are_given_kept_and_extended() {
    let Some(moto) = Moto::or_skip() else { return };
    for (bucket, mode) in [("locking-1", LockMode::Governance), ("locking-2", LockMode::Compliance)] {
        moto.create_locking_bucket(bucket).unwrap();
        let (store, found) = probed(config(&moto, bucket, mode)).await;
        assert_eq!(found.capabilities.locks, Locks::Enforced);
        // Moto ignores the headers of CreateMultipartUpload.
        assert_eq!(found.capabilities.locked_uploads, LockedUploads::Afterwards);
        assert!(found.faults.iter().any(|fault| fault.contains("uploaded in parts")), "{:?}", found.faults);
        assert_eq!(store.lock(), Some(term(mode)));
        assert_eq!(store.list("", None).await.unwrap(), [], "the probe leaves nothing that is listed");

        let (whole, parts, free) = (name("locked/whole"), name("locked/parts"), name("free/whole"));
        for name in [&whole, &free] {
            store.put(name, "x".into(), PutMode::Create).await.unwrap();
        }
        let upload = store.begin_upload(&parts, PutMode::Create).await.unwrap();
        upload.part(1, Bytes::from_static(b"y")).await.unwrap();
        upload.complete().await.unwrap();
        let end = term(mode).end(SystemTime::now());
        for name in [&whole, &parts] {
            assert!(almost(store.locked_until(name).await.unwrap(), end), "{name}");
            for version in versions(&moto, bucket, name) {
                let target = format!("/{bucket}/some/prefix/{name}?versionId={version}");
                let refused = moto.request("DELETE", &target, &[], b"").unwrap_err().to_string();
                assert!(refused.contains("AccessDenied"), "{refused}");
            }
        }
        assert_eq!(store.locked_until(&free).await.unwrap(), None);
        let later = end + Duration::from_hours(24);
        store.lock_until(&whole, later).await.unwrap();
        assert!(almost(store.locked_until(&whole).await.unwrap(), later));

        // A plain delete hides the object, and its name can be used again. The version stays.
        store.delete(std::slice::from_ref(&whole)).await.unwrap();
        // Moto answers a lock of an absent object with 500.
        let absent = store.locked_until(&whole).await.unwrap_err();
        assert_eq!(absent.kind(), StoreErrorKind::NotFound, "{absent}");
        store.put(&whole, "z".into(), PutMode::Create).await.unwrap();
        let taken = store.put(&whole, "z".into(), PutMode::Create).await.unwrap_err();
        assert_eq!(taken.kind(), StoreErrorKind::AlreadyExists);
        assert_eq!(versions(&moto, bucket, &whole).len(), 3, "two versions and a marker");
    }
}

/// A bucket that cannot lock, and one that was asked without `lock`.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_without_object_lock_is_refused() {
    let Some(moto) = Moto::or_skip() else { return };
    let config = config(&moto, "holdfast", LockMode::Governance);
    let refused = probe(&*open(&config).await.unwrap(), &".probe-1".parse().unwrap()).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::InvalidConfig);
    let text = refused.to_string();
    assert!(
        text.contains("`lock` is configured, and the store refuses a write with a lock")
            && text.contains("use a bucket that was created with Object Lock"),
        "{text}"
    );
    let plain = StoreConfig { s3: holdfast_store::S3Config { lock: None, ..config.s3.clone() }, ..config };
    let (store, found) = probed(plain).await;
    assert_eq!(found.capabilities.locks, Locks::NotTried);
    assert_eq!(store.lock(), None);
    store.put(&name("locked/whole"), "x".into(), PutMode::Create).await.unwrap();
    let error = store.lock_until(&name("locked/whole"), SystemTime::now()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::InvalidConfig, "{error}");
}

/// A server that takes every header and locks nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_drops_locks_is_refused() {
    let Some(server) = super::ForeignS3::or_skip(super::Program::Rclone) else { return };
    let mut config = s3_config(server.endpoint(), server.credentials());
    config.s3.lock = Some(ObjectLock { term: term(LockMode::Compliance), covers });
    let refused = probe(&*open(&config).await.unwrap(), &".probe-1".parse().unwrap()).await.unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("`lock` is configured, and the bucket keeps no versions of objects"), "{text}");
}
