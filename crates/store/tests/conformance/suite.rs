//! What every store must do. Each check works in a folder of its own and leaves nothing behind.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_store::{Capabilities, ObjectName, PutMode, Store, StoreErrorKind, probe};

/// The smallest part that S3 accepts.
const PART: usize = 5 << 20;

/// What the suite expects of a back-end.
pub(crate) struct Expect {
    /// The number of objects in the long listing.
    pub(crate) many: usize,
    /// Whether only one of several writers at the same instant can create; s3s-fs checks before it writes.
    pub(crate) exclusive: bool,
    /// What the probe finds; `None` if the store is opened with what was found.
    pub(crate) found: Option<Capabilities>,
    /// Whether the name of a folder is simply absent (the server on a local folder answers 500).
    pub(crate) folders_are_absent: bool,
}

impl Expect {
    pub(crate) fn all(many: usize) -> Self {
        Self { many, exclusive: true, found: Some(Capabilities::default()), folders_are_absent: true }
    }
}

pub(crate) async fn run(store: Arc<dyn Store>, expect: &Expect) {
    let store = &store;
    create_and_overwrite(store).await;
    absence(store).await;
    if expect.folders_are_absent {
        folders_are_no_objects(store).await;
    }
    reads(store).await;
    empty_object(store).await;
    odd_names(store).await;
    listing(store, expect.many).await;
    folders(store).await;
    uploads(store).await;
    upload_modes(store).await;
    if expect.exclusive {
        one_of_many_creators(store).await;
    }
    if let Some(capabilities) = expect.found {
        let found = probe(&**store, &name("probe/scratch")).await.unwrap();
        assert_eq!(found.capabilities, capabilities, "{:?}", found.faults);
    }
    assert_eq!(store.list("", None).await.unwrap(), [], "something was left behind");
}

fn name(text: &str) -> ObjectName {
    text.parse().unwrap()
}

fn pattern(length: usize, seed: u8) -> Bytes {
    (0..length).map(|index| (index % 251) as u8 ^ seed).collect()
}

async fn create_and_overwrite(store: &Arc<dyn Store>) {
    let object = name("put/object");
    store.put(&object, "first".into(), PutMode::Create).await.unwrap();
    let second = store.put(&object, "second".into(), PutMode::Create).await.unwrap_err();
    assert_eq!(second.kind(), StoreErrorKind::AlreadyExists, "{second}");
    let same = store.put(&object, "first".into(), PutMode::Create).await.unwrap_err();
    assert_eq!(same.kind(), StoreErrorKind::AlreadyExists, "{same}");
    assert_eq!(store.get(&object).await.unwrap(), "first");
    store.put(&object, "third".into(), PutMode::Overwrite).await.unwrap();
    assert_eq!(store.get(&object).await.unwrap(), "third");
    let info = store.head(&object).await.unwrap();
    assert_eq!((info.name, info.size_bytes), (object.clone(), 5));
    assert!(info.crc32c.is_none_or(|crc| crc == crc32c::crc32c(b"third")));
    assert!(info.modified.is_some());
    store.delete(std::slice::from_ref(&object)).await.unwrap();
    store.put(&object, "again".into(), PutMode::Create).await.unwrap();
    store.delete(&[object]).await.unwrap();
}

async fn absence(store: &Arc<dyn Store>) {
    let absent = name("absent/object");
    for error in [
        store.get(&absent).await.unwrap_err(),
        store.get_range(&absent, 0..1).await.unwrap_err(),
        store.get_at_most(&absent, 1).await.unwrap_err(),
        store.get_tail(&absent, 1).await.unwrap_err(),
        store.get_tail(&absent, 0).await.unwrap_err(),
        store.head(&absent).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), StoreErrorKind::NotFound, "{error}");
        assert_eq!(error.failure().name, "absent/object");
    }
    store.delete(std::slice::from_ref(&absent)).await.unwrap();
    store.delete(&[absent.clone(), name("absent/other")]).await.unwrap();
    store.delete(&[]).await.unwrap();
    assert_eq!(store.list("absent/", None).await.unwrap(), []);
    assert_eq!(store.list_folders("absent/").await.unwrap(), [""; 0]);
}

/// A folder is not an object, and there is no object below an object.
async fn folders_are_no_objects(store: &Arc<dyn Store>) {
    store.put(&name("absent/a/b"), "x".into(), PutMode::Create).await.unwrap();
    for text in ["absent/a", "absent/a/b/c"] {
        let error = store.get(&name(text)).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::NotFound, "{text}: {error}");
        let error = store.head(&name(text)).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::NotFound, "{text}: {error}");
    }
    store.delete(&[name("absent/a/b")]).await.unwrap();
}

async fn reads(store: &Arc<dyn Store>) {
    let object = name("reads/object");
    let body = pattern(100_000, 0);
    store.put(&object, body.clone(), PutMode::Create).await.unwrap();
    assert_eq!(store.get(&object).await.unwrap(), body);
    for most in [100_000, 100_001, u64::MAX] {
        assert_eq!(store.get_at_most(&object, most).await.unwrap(), body, "{most}");
    }
    for most in [0, 1, 99_999] {
        let error = store.get_at_most(&object, most).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::TooLarge, "{most}: {error}");
    }
    for (start, end) in [(0, 1), (0, 100_000), (99_999, 100_000), (500, 70_000), (7, 7), (100_000, 100_000)] {
        let range = store.get_range(&object, start..end).await.unwrap();
        assert_eq!(range, body.slice(start as usize..end as usize), "{start}..{end}");
    }
    for (start, end) in [(0, 100_001), (99_999, 100_001), (100_000, 100_001), (200_000, 200_001), (0, u64::MAX >> 1)] {
        let error = store.get_range(&object, start..end).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Truncated, "{start}..{end}: {error}");
    }
    for bytes in [0, 1, 40, 99_999, 100_000, 100_001, 1 << 40] {
        let (tail, size) = store.get_tail(&object, bytes).await.unwrap();
        assert_eq!(size, 100_000);
        assert_eq!(tail, body.slice(100_000 - bytes.min(100_000) as usize..), "{bytes}");
    }
    store.delete(&[object]).await.unwrap();
}

async fn empty_object(store: &Arc<dyn Store>) {
    let object = name("empty/object");
    store.put(&object, Bytes::new(), PutMode::Create).await.unwrap();
    assert_eq!(store.get(&object).await.unwrap(), "");
    assert_eq!(store.get_at_most(&object, 0).await.unwrap(), "");
    assert_eq!(store.head(&object).await.unwrap().size_bytes, 0);
    assert_eq!(store.get_tail(&object, 40).await.unwrap(), (Bytes::new(), 0));
    assert_eq!(store.get_range(&object, 0..0).await.unwrap(), "");
    let error = store.get_range(&object, 0..1).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Truncated, "{error}");
    store.delete(&[object]).await.unwrap();
}

async fn odd_names(store: &Arc<dyn Store>) {
    let mut names: Vec<ObjectName> = [
        "odd/with space",
        "odd/plus+and&and=",
        "odd/ünïcödé/漢字",
        "odd/percent%20",
        "odd/quote'\"<>",
        "odd/hash#?x=1",
        "odd/.hidden",
        "odd/~tilde!*()",
        "odd/a:b,c;d@e",
        "odd/back\\slash",
    ]
    .map(name)
    .into();
    names.sort();
    for object in &names {
        store.put(object, object.to_string().into(), PutMode::Create).await.unwrap();
    }
    let listed: Vec<ObjectName> = store.list("odd/", None).await.unwrap().into_iter().map(|info| info.name).collect();
    assert_eq!(listed, names);
    for object in &names {
        assert_eq!(store.get(object).await.unwrap(), object.to_string(), "{object}");
        assert_eq!(store.head(object).await.unwrap().size_bytes, object.as_str().len() as u64);
    }
    store.delete(&names).await.unwrap();
    assert_eq!(store.list("odd/", None).await.unwrap(), []);
}

async fn listing(store: &Arc<dyn Store>, many: usize) {
    let names: Vec<ObjectName> = (0..many).map(|index| name(&format!("many/{}/{index:05}", index % 3))).collect();
    for group in names.chunks(16) {
        let puts = group.iter().map(|object| store.put(object, "x".into(), PutMode::Overwrite));
        futures::future::try_join_all(puts).await.unwrap();
    }
    let mut sorted = names.clone();
    sorted.sort();
    let listed = store.list("many/", None).await.unwrap();
    assert!(listed.iter().all(|info| info.size_bytes == 1));
    let listed: Vec<ObjectName> = listed.into_iter().map(|info| info.name).collect();
    assert_eq!(listed, sorted);
    let after = &sorted[many / 2];
    let rest: Vec<ObjectName> =
        store.list("many/", Some(after.as_str())).await.unwrap().into_iter().map(|info| info.name).collect();
    assert_eq!(rest, sorted[many / 2 + 1..]);
    // A prefix is a string, not a folder; the start may be an absent name.
    assert_eq!(store.list("many/1/0000", None).await.unwrap().len(), 3);
    assert_eq!(store.list("many/1/00001", Some("many/1/00000zzz")).await.unwrap().len(), 1);
    assert_eq!(store.list("many/", Some("zzz")).await.unwrap(), []);
    assert_eq!(store.list("../", None).await.unwrap(), []);
    store.delete(&names).await.unwrap();
    assert_eq!(store.list("many/", None).await.unwrap(), []);
}

async fn folders(store: &Arc<dyn Store>) {
    let names = ["f/a/1", "f/a/2", "f/a-b/1", "f/b/c/d/1", "f/object"].map(name);
    for object in &names {
        store.put(object, "x".into(), PutMode::Create).await.unwrap();
    }
    assert_eq!(store.list_folders("f/").await.unwrap(), ["a", "a-b", "b"]);
    assert_eq!(store.list_folders("f/b/").await.unwrap(), ["c"]);
    assert_eq!(store.list_folders("").await.unwrap(), ["f"]);
    assert_eq!(store.list_folders("f/a/").await.unwrap(), [""; 0]);
    let order: Vec<String> =
        store.list("f/", None).await.unwrap().into_iter().map(|info| info.name.to_string()).collect();
    assert_eq!(order, ["f/a-b/1", "f/a/1", "f/a/2", "f/b/c/d/1", "f/object"]);
    store.delete(&names[2..]).await.unwrap();
    assert_eq!(store.list_folders("f/").await.unwrap(), ["a"], "an empty folder does not count");
    store.delete(&names).await.unwrap();
}

async fn uploads(store: &Arc<dyn Store>) {
    // (sizes of the parts, the order in which they are sent)
    let cases: [(&[usize], &[u32]); 5] = [
        (&[], &[]),
        (&[10], &[1]),
        (&[PART, PART, 1], &[1, 2, 3]),
        (&[PART, PART, 12_345], &[3, 1, 2]),
        (&[PART, PART, PART, 77], &[4, 2, 3, 2, 1]),
    ];
    for (index, (sizes, order)) in cases.into_iter().enumerate() {
        let object = name(&format!("uploads/{index}"));
        let parts: Vec<Bytes> = sizes.iter().enumerate().map(|(index, size)| pattern(*size, index as u8)).collect();
        let upload = store.begin_upload(&object, PutMode::Create).await.unwrap();
        for number in order {
            upload.part(*number, parts[*number as usize - 1].clone()).await.unwrap();
        }
        let early = store.head(&object).await.unwrap_err();
        assert_eq!(early.kind(), StoreErrorKind::NotFound, "visible before it is complete: {early}");
        upload.complete().await.unwrap();
        let whole = parts.concat();
        assert_eq!(store.get(&object).await.unwrap(), whole, "case {index}");
        let info = store.head(&object).await.unwrap();
        assert_eq!(info.size_bytes, whole.len() as u64);
        assert!(info.crc32c.is_none_or(|crc| crc == crc32c::crc32c(&whole)));
        store.delete(&[object]).await.unwrap();
    }
    let object = name("uploads/parallel");
    let upload = store.begin_upload(&object, PutMode::Overwrite).await.unwrap();
    let parts: Vec<Bytes> = (0..4).map(|index| pattern(PART, index)).collect();
    let sent = parts.iter().zip(1..).map(|(part, number)| upload.part(number, part.clone()));
    futures::future::try_join_all(sent).await.unwrap();
    upload.complete().await.unwrap();
    assert_eq!(store.get(&object).await.unwrap(), parts.concat());
    store.delete(&[object]).await.unwrap();
}

async fn upload_modes(store: &Arc<dyn Store>) {
    let object = name("modes/object");
    let aborted = store.begin_upload(&object, PutMode::Create).await.unwrap();
    aborted.part(1, "aborted".into()).await.unwrap();
    aborted.abort().await.unwrap();
    assert_eq!(store.list("modes/", None).await.unwrap(), []);

    let gap = store.begin_upload(&object, PutMode::Create).await.unwrap();
    gap.part(2, "gap".into()).await.unwrap();
    assert_eq!(gap.complete().await.unwrap_err().kind(), StoreErrorKind::InvalidConfig);

    // Two uploads of one name: the first one completed stays.
    let late = store.begin_upload(&object, PutMode::Create).await.unwrap();
    late.part(1, "late".into()).await.unwrap();
    store.put(&object, "first".into(), PutMode::Create).await.unwrap();
    assert_eq!(late.complete().await.unwrap_err().kind(), StoreErrorKind::AlreadyExists);
    assert_eq!(store.get(&object).await.unwrap(), "first");

    let over = store.begin_upload(&object, PutMode::Overwrite).await.unwrap();
    over.part(1, "over".into()).await.unwrap();
    over.complete().await.unwrap();
    assert_eq!(store.get(&object).await.unwrap(), "over");
    store.delete(&[object]).await.unwrap();
}

async fn one_of_many_creators(store: &Arc<dyn Store>) {
    for round in 0..3 {
        let object = name(&format!("race/{round}"));
        let creators: Vec<_> = (0..16)
            .map(|creator: u32| {
                let (store, object) = (Arc::clone(store), object.clone());
                let body = format!("creator {creator}");
                tokio::spawn(
                    async move { store.put(&object, body.clone().into(), PutMode::Create).await.map(|()| body) },
                )
            })
            .collect();
        let mut winners = Vec::new();
        for creator in creators {
            match creator.await.unwrap() {
                Ok(body) => winners.push(body),
                Err(error) => assert_eq!(error.kind(), StoreErrorKind::AlreadyExists, "{error}"),
            }
        }
        assert_eq!(winners.len(), 1, "{winners:?}");
        assert_eq!(store.get(&object).await.unwrap(), winners[0]);
        store.delete(&[object]).await.unwrap();
    }
}
