//! A timeline that has only begun: its first segment is archived when it is full.

use holdfast_repo::codec::Codec;
use holdfast_repo::recovery::{Beginning, Unreachable};
use holdfast_store::PutMode;

use super::super::*;
use super::sample::Sample;
use crate::archive::{WalFolders, WalScope};
use crate::progress::Silent;

/// A copy was promoted in the very segment in which its backup ended, and has archived nothing but its history.
#[tokio::test]
async fn a_restore_names_the_timeline_before_and_info_wants_it_named() {
    use holdfast_pgtypes::{TimelineId, WalFileName};
    use holdfast_repo::{Compression, name, wal_object};
    let sample = Sample::new(false).await;
    let timeline = TimelineId::new(2).unwrap();
    let file = WalFileName::History(timeline);
    let object = name::wal_file(&sample.backup.cluster, sample.backup.claim, &file, Codec::Zstd, false);
    let text = "1\t0/900180\tno recovery target specified\n";
    let (id, compression) = (sample.repository.id(), Compression::of(Codec::Zstd));
    let bytes =
        wal_object::encode(&object, &file.to_string(), text.as_bytes(), compression, id, None, serde_json::json!({}));
    sample.store.put(&object.parse().unwrap(), bytes.unwrap(), PutMode::Create).await.unwrap();

    let progress: Arc<dyn Progress> = Arc::new(Silent);
    let error = plan(&sample.repository, &sample.options(), &progress, &CancellationToken::new()).await.unwrap_err();
    let Cause::Unreachable(unreachable) = &*error.what else { panic!("{error}") };
    assert!(matches!(unreachable, Unreachable::Hole { follows: Some(TimelineId::FIRST), .. }), "{error}");
    assert!(unreachable.only_begun().unwrap().contains("--target-timeline 1"), "{error}");

    let claim = sample.repository.current_claim(&sample.backup.cluster).await.unwrap();
    let wal = WalFolders::read_and_list(&sample.repository, &claim, WalScope::All).await.unwrap();
    let beginnings = [Beginning::from(&sample.backup)];
    let crew = Crew::new(1);
    let found = reach(&sample.repository, &claim, &wal, &beginnings, &crew, &CancellationToken::new()).await.unwrap();
    assert_eq!((found.followed, found.must_be_named), (Some(timeline), true));
}
