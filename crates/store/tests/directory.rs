//! Behaviour of directories only: missing roots, leftover files, permissions, a full disk.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use holdfast_store::{
    DirectoryStore, Location, ObjectName, PutMode, Store, StoreConfig, StoreErrorKind, open, open_or_create,
};
use holdfast_testkit::disk::SmallDisk;

fn name(text: &str) -> ObjectName {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_missing_root_is_never_an_absence() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("not/mounted");
    let error = DirectoryStore::open(&root).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::NoSuchBucket);
    assert_eq!(error.to_string(), format!("file://{} does not exist", root.display()));
    assert!(open(&StoreConfig::new(Location::Directory(root.clone()))).await.is_err());
    assert!(!root.exists(), "opening must not create");

    let store = open_or_create(&StoreConfig::new(Location::Directory(root.clone()))).await.unwrap();
    store.put(&name("a/b"), "x".into(), PutMode::Create).await.unwrap();
    fs::remove_dir_all(&root).unwrap();
    for error in [
        store.get(&name("a/b")).await.unwrap_err(),
        store.head(&name("a/b")).await.unwrap_err(),
        store.get_tail(&name("a/b"), 1).await.unwrap_err(),
        store.list("", None).await.unwrap_err(),
        store.list_folders("").await.unwrap_err(),
        store.put(&name("c"), "x".into(), PutMode::Create).await.unwrap_err(),
        store.begin_upload(&name("c"), PutMode::Create).await.map(drop).unwrap_err(),
        store.delete(&[name("a/b")]).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), StoreErrorKind::NoSuchBucket, "{error}");
    }
    assert!(!root.exists(), "writing must not create the root");
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    assert_eq!(DirectoryStore::open(&file).await.unwrap_err().kind(), StoreErrorKind::InvalidConfig);
}

/// A disk is unmounted, or another one is mounted, while a process uses the store.
#[tokio::test]
async fn another_directory_in_the_place_of_the_root_is_not_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("disk");
    fs::create_dir(&root).unwrap();
    let store = DirectoryStore::open(&root).await.unwrap();
    store.put(&name("wal/a"), "x".into(), PutMode::Create).await.unwrap();
    fs::rename(&root, folder.path().join("away")).unwrap();
    fs::create_dir(&root).unwrap();
    for error in [
        store.put(&name("wal/b"), "x".into(), PutMode::Create).await.unwrap_err(),
        store.begin_upload(&name("wal/c"), PutMode::Create).await.map(drop).unwrap_err(),
        store.get(&name("wal/a")).await.unwrap_err(),
        store.get_range(&name("wal/a"), 0..1).await.unwrap_err(),
        store.get_tail(&name("wal/a"), 1).await.unwrap_err(),
        store.head(&name("wal/a")).await.unwrap_err(),
        store.list("", None).await.unwrap_err(),
        store.delete(&[name("wal/a")]).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), StoreErrorKind::NoSuchBucket, "{error}");
        assert!(error.to_string().contains("in its place"), "{error}");
    }
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0, "something was written to the wrong disk");
    fs::remove_dir(&root).unwrap();
    fs::rename(folder.path().join("away"), &root).unwrap();
    store.put(&name("wal/b"), "x".into(), PutMode::Create).await.unwrap();
    assert_eq!(store.get(&name("wal/a")).await.unwrap(), "x");
}

#[tokio::test]
async fn files_are_private_and_temporary_ones_do_not_show() {
    let folder = tempfile::tempdir().unwrap();
    let store = DirectoryStore::open(folder.path()).await.unwrap();
    store.put(&name("a/b/c"), "x".into(), PutMode::Create).await.unwrap();
    let mode = |path: &str| fs::metadata(folder.path().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("a/b/c"), mode("a/b"), mode("a")), (0o600, 0o700, 0o700));

    let upload = store.begin_upload(&name("d"), PutMode::Create).await.unwrap();
    upload.part(1, "part".into()).await.unwrap();
    assert_eq!(fs::read_dir(folder.path().join(".holdfast-tmp")).unwrap().count(), 1);
    assert_eq!(store.list("", None).await.unwrap().len(), 1);
    assert_eq!(store.list(".holdfast-tmp/", None).await.unwrap().len(), 0);
    assert_eq!(store.list_folders("").await.unwrap(), ["a"]);
    let error = store.put(&name(".holdfast-tmp/x"), "x".into(), PutMode::Create).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::InvalidConfig);
    drop(upload);
    assert_eq!(fs::read_dir(folder.path().join(".holdfast-tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn what_killed_processes_leave_is_removed_after_a_day() {
    let folder = tempfile::tempdir().unwrap();
    let temporary = folder.path().join(".holdfast-tmp");
    fs::create_dir(&temporary).unwrap();
    for (file, hours) in [("old", 25), ("young", 23)] {
        let file = fs::File::create(temporary.join(file)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_hours(hours)).unwrap();
    }
    DirectoryStore::open(folder.path()).await.unwrap();
    assert!(!temporary.join("old").exists());
    assert!(temporary.join("young").exists());
}

/// A listing of any length is read in pages, and only one page is in memory.
#[tokio::test]
async fn a_long_listing_comes_in_pages() {
    let folder = tempfile::tempdir().unwrap();
    let store = DirectoryStore::open(folder.path()).await.unwrap();
    let mut expected = Vec::new();
    for log in 0..40 {
        let log = format!("main/wal/1/00000001/{log:016X}");
        fs::create_dir_all(folder.path().join(&log)).unwrap();
        for segment in 0..256 {
            let object = format!("{log}/{segment:024X}.zst");
            fs::write(folder.path().join(&object), "x").unwrap();
            expected.push(object);
        }
    }
    let (mut found, mut pages, mut most, mut next) = (Vec::new(), 0, 0, None);
    loop {
        let page = store.list_page("main/wal/", None, next.as_deref()).await.unwrap();
        pages += 1;
        most = most.max(page.objects.len());
        found.extend(page.objects.into_iter().map(|info| info.name.to_string()));
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    assert_eq!(found, expected);
    assert!(pages > 1 && most < expected.len() / 2, "{pages} pages, of {most} objects at most");
}

#[tokio::test]
async fn an_object_in_the_way_of_a_folder_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let store = DirectoryStore::open(folder.path()).await.unwrap();
    store.put(&name("a"), "x".into(), PutMode::Create).await.unwrap();
    let error = store.put(&name("a/b"), "x".into(), PutMode::Overwrite).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::InvalidConfig, "{error}");
    store.put(&name("c/d"), "x".into(), PutMode::Create).await.unwrap();
    let error = store.put(&name("c"), "x".into(), PutMode::Overwrite).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::InvalidConfig, "{error}");
    assert_eq!(fs::read_dir(folder.path().join(".holdfast-tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn empty_folders_go_with_their_last_object_while_others_write() {
    let folder = tempfile::tempdir().unwrap();
    let store = DirectoryStore::open(folder.path()).await.unwrap();
    let writers = (0..8).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for round in 0..500 {
                let object = name(&format!("deep/er/{writer}-{round}"));
                store.put(&object, "x".into(), PutMode::Create).await.unwrap();
                store.delete(&[object]).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    assert!(!folder.path().join("deep").exists());
}

#[tokio::test]
async fn a_full_disk_is_reported_and_leaves_what_is_stored() {
    let Some(disk) = SmallDisk::or_skip(8 << 20) else { return };
    let store = DirectoryStore::open(disk.path()).await.unwrap();
    store.put(&name("small"), "x".into(), PutMode::Create).await.unwrap();
    let large = Bytes::from(vec![1; 16 << 20]);
    let error = store.put(&name("large"), large.clone(), PutMode::Create).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::NoSpace, "{error}");
    let upload = store.begin_upload(&name("large"), PutMode::Create).await.unwrap();
    let error = upload.part(1, large).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::NoSpace, "{error}");
    assert!(upload.complete().await.is_err());
    assert_eq!(store.list("", None).await.unwrap().len(), 1);
    // The space is free again.
    store.put(&name("medium"), Bytes::from(vec![1; 4 << 20]), PutMode::Create).await.unwrap();
    assert_eq!(store.get(&name("small")).await.unwrap(), "x");
}
