//! One suite for every back-end: memory, directory, `s3s-fs` and `moto`, the last two over real HTTP.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod locking;
mod suite;
mod unfinished;

use std::sync::Arc;

use holdfast_secret::Secret;
use holdfast_store::{
    Capabilities, Checksums, ConditionalCreate, Credentials, DirectoryStore, Encryption, Location, MemoryStore,
    Prefixed, Store, StoreConfig, StoreErrorKind, Uploads, open, probe,
};
use holdfast_testkit::proxy::{Effect, Fault, HttpFaults, When};
use holdfast_testkit::s3::{ForeignS3, Moto, Program, S3Server};
use suite::Expect;

/// More than one page of S3.
const MANY: usize = 1005;

fn s3_config(endpoint: String, credentials: &holdfast_testkit::s3::Credentials) -> StoreConfig {
    let mut config = StoreConfig::new("s3://holdfast/some/prefix".parse().unwrap());
    config.s3.endpoint = Some(endpoint);
    config.s3.region = Some("us-east-1".to_owned());
    config.s3.path_style = true;
    config.s3.credentials = Credentials::Static {
        access_key: Secret::new(&credentials.access_key),
        secret_key: Secret::new(&credentials.secret_key),
        session_token: None,
    };
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn memory() {
    suite::run(Arc::new(MemoryStore::new()), &Expect::all(MANY)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_under_a_prefix() {
    let inner: Arc<dyn Store> = Arc::new(MemoryStore::new());
    inner.put(&"a/outside".parse().unwrap(), "x".into(), holdfast_store::PutMode::Create).await.unwrap();
    let prefixed = Prefixed::new(Arc::clone(&inner), &"a/b".parse().unwrap());
    suite::run(Arc::new(prefixed), &Expect::all(MANY)).await;
    assert_eq!(inner.list("", None).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn directory() {
    let folder = tempfile::tempdir().unwrap();
    let store = DirectoryStore::create(&folder.path().join("deep/er")).await.unwrap();
    suite::run(Arc::new(store), &Expect::all(MANY)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn directory_by_the_standard_stack() {
    let folder = tempfile::tempdir().unwrap();
    let config = StoreConfig::new(Location::Directory(folder.path().to_owned()));
    suite::run(open(&config).await.unwrap(), &Expect::all(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3s_fs() {
    let server = S3Server::start().unwrap();
    let config = s3_config(server.endpoint(), server.credentials());
    let expect = Expect { folders_are_absent: false, ..Expect::all(MANY) };
    suite::run(open(&config).await.unwrap(), &expect).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3s_fs_without_conditional_writes() {
    let server = S3Server::start().unwrap();
    let mut config = s3_config(server.endpoint(), server.credentials());
    config.capabilities.create = ConditionalCreate::Emulated;
    let expect = Expect { exclusive: false, found: None, folders_are_absent: false, ..Expect::all(10) };
    suite::run(open(&config).await.unwrap(), &expect).await;
}

/// Like Swift: if two writes follow each other, the second is refused; if they overlap, neither is.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_checks_and_then_writes_is_found_out() {
    let server = S3Server::builder().looks_then_writes().start().unwrap();
    let config = s3_config(server.endpoint(), server.credentials());
    let found = probe(&*open(&config).await.unwrap(), &"probe/scratch".parse().unwrap()).await.unwrap();
    assert_eq!(found.capabilities.create, ConditionalCreate::Emulated, "{:?}", found.faults);
    assert_eq!(found.capabilities.checksums, Checksums::Kept);
}

/// Like Ceph 16: the condition of a PUT is kept, and the condition of completing an upload is ignored.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_keeps_conditions_of_puts_only_is_found_out() {
    let server = S3Server::builder().ignoring_conditions_of_uploads().start().unwrap();
    let mut config = s3_config(server.endpoint(), server.credentials());
    let found = probe(&*open(&config).await.unwrap(), &"probe/scratch".parse().unwrap()).await.unwrap();
    let expected = Capabilities { create_by_parts: ConditionalCreate::Emulated, ..Capabilities::default() };
    assert_eq!(found.capabilities, expected);
    assert_eq!(found.faults.len(), 1);
    assert!(found.faults[0].contains("ignores the condition of a multipart upload"), "{:?}", found.faults);
    config.capabilities = found.capabilities;
    let expect = Expect { found: None, folders_are_absent: false, ..Expect::all(10) };
    suite::run(open(&config).await.unwrap(), &expect).await;
}

/// Like s3rver: a listing with a delimiter leaves out folders: all, or all but the first.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_leaves_out_folders_is_refused() {
    for builder in [S3Server::builder().without_folders(), S3Server::builder().with_first_folder_only()] {
        let server = builder.start().unwrap();
        let store = open(&s3_config(server.endpoint(), server.credentials())).await.unwrap();
        let error = probe(&*store, &"probe/scratch".parse().unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("leaves out a folder that was just written"), "{error}");
        assert_eq!(store.list("", None).await.unwrap(), []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn moto() {
    let Some(server) = Moto::or_skip() else { return };
    let mut config = s3_config(server.endpoint(), &server.credentials());
    config.s3.tags = [("team".to_owned(), "data/co+x=1".to_owned())].into();
    config.s3.storage_class = Some("STANDARD_IA".to_owned());
    config.s3.encryption = Encryption::S3;
    // It accepts every checksum and repeats it.
    let found = Capabilities { checksums: Checksums::NotCompared, ..Capabilities::default() };
    suite::run(open(&config).await.unwrap(), &Expect { found: Some(found), ..Expect::all(40) }).await;
}

/// Gives a configuration a setting; returns the header that carries it.
fn with_setting(setting: &str, config: &mut StoreConfig) -> &'static str {
    match setting {
        "tags" => {
            config.s3.tags = [("team".to_owned(), "data".to_owned())].into();
            "x-amz-tagging"
        }
        "storage_class" => {
            config.s3.storage_class = Some("STANDARD_IA".to_owned());
            "x-amz-storage-class"
        }
        _ => {
            config.s3.encryption = Encryption::S3;
            "x-amz-server-side-encryption"
        }
    }
}

/// A store may accept a setting and not apply it: with every write, or only with an upload in parts, as Ceph 16 with
/// tags.
#[tokio::test(flavor = "multi_thread")]
async fn settings_that_a_store_drops_are_reported() {
    let Some(server) = Moto::or_skip() else { return };
    for setting in ["tags", "storage_class", "sse"] {
        for (method, seen) in [("PUT", "was written"), ("POST", "was uploaded in parts")] {
            let proxy = HttpFaults::start(server.address()).unwrap();
            let mut config = s3_config(proxy.endpoint(), &server.credentials());
            let header = with_setting(setting, &mut config);
            let store = open(&config).await.unwrap();
            let whole = probe(&*store, &"probe/scratch".parse().unwrap()).await.unwrap();
            assert!(!whole.faults.iter().any(|fault| fault.contains(setting)), "{:?}", whole.faults);
            proxy.inject(Fault::new(Effect::WithoutHeader(header), When::Always).method(method));
            let found = probe(&*store, &"probe/scratch".parse().unwrap()).await;
            if setting == "sse" {
                let error = found.unwrap_err();
                assert_eq!(error.kind(), StoreErrorKind::InvalidConfig, "{error}");
                assert!(error.to_string().contains("accepts `sse` but does not encrypt"), "{method}: {error}");
                continue;
            }
            let faults = found.unwrap().faults;
            let words = format!("the store accepts `{setting}` but does not apply it: an object that {seen}");
            assert!(faults.iter().any(|fault| fault.starts_with(&words)), "{method}: {faults:?}");
        }
    }
}

/// A store that refuses a setting refuses the conditional write as well: the error must be about the setting.
#[tokio::test(flavor = "multi_thread")]
async fn settings_that_a_store_refuses_are_named() {
    let Some(server) = ForeignS3::or_skip(Program::JuiceFs) else { return };
    let refused = async |change: &dyn Fn(&mut StoreConfig)| {
        let mut config = s3_config(server.endpoint(), server.credentials());
        change(&mut config);
        probe(&*open(&config).await.unwrap(), &"probe/scratch".parse().unwrap()).await.unwrap_err().to_string()
    };
    for (error, words) in [
        (refused(&|config| config.s3.storage_class = Some("COLDEST".to_owned())).await, "InvalidStorageClass"),
        (refused(&|config| config.s3.encryption = Encryption::S3).await, "NotImplemented"),
    ] {
        assert!(error.contains(words), "{error}");
        assert!(!error.to_lowercase().contains("condition"), "{error}");
    }
    let store = open(&s3_config(server.endpoint(), server.credentials())).await.unwrap();
    let whole = probe(&*store, &"probe/scratch".parse().unwrap()).await;
    assert!(whole.is_ok(), "it works without the settings");
}

/// A server that people run. The probe finds `expected`; opened with that, it passes the whole suite.
async fn foreign(program: Program, expected: Capabilities) {
    let Some(server) = ForeignS3::or_skip(program) else { return };
    let mut config = s3_config(server.endpoint(), server.credentials());
    let store = open(&config).await.unwrap();
    let found = probe(&*store, &"probe/scratch".parse().unwrap()).await.unwrap();
    assert_eq!(found.capabilities, expected, "{:?}", found.faults);
    config.capabilities = found.capabilities;
    let expect = Expect { exclusive: false, found: None, folders_are_absent: false, ..Expect::all(40) };
    suite::run(open(&config).await.unwrap(), &expect).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rclone_serve_s3() {
    let expected = Capabilities {
        create: ConditionalCreate::Emulated,
        create_by_parts: ConditionalCreate::Emulated,
        checksums: Checksums::NotCompared,
        uploads: Uploads::Whole,
        ..Capabilities::default()
    };
    foreign(Program::Rclone, expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn juicefs_gateway() {
    let expected = Capabilities {
        create: ConditionalCreate::Emulated,
        create_by_parts: ConditionalCreate::Emulated,
        checksums: Checksums::NotCompared,
        uploads: Uploads::Parts,
        ..Capabilities::default()
    };
    foreign(Program::JuiceFs, expected).await;
}

/// rclone answers `sse` with a 200 and encrypts nothing: no repository is made there.
#[tokio::test(flavor = "multi_thread")]
async fn encryption_that_a_store_drops_is_refused() {
    let Some(server) = ForeignS3::or_skip(Program::Rclone) else { return };
    for encryption in [Encryption::S3, Encryption::Customer { key: Secret::new([7; 32]) }] {
        let mut config = s3_config(server.endpoint(), server.credentials());
        config.s3.encryption = encryption;
        let error = probe(&*open(&config).await.unwrap(), &"probe/scratch".parse().unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::InvalidConfig, "{error}");
        assert!(error.to_string().contains("accepts `sse` but does not encrypt"), "{error}");
    }
}
