//! Objects that differ from what was stored: flipped bits, missing ends, missing objects, swapped objects.
//!
//! Nothing of such an object is delivered: recovery gets a status above 125, and a restore fails. It fails before its
//! first byte if the sizes show the damage, and without `pg_control` if only the content does. `cases.rs` is the table
//! of them.

mod cases;

use std::fs;
use std::path::{Path, PathBuf};

use self::cases::{CORRUPT, Case, How, Object, PACKS_AND_MANIFESTS, Shown, WAL_OBJECTS, WITHOUT_ENCRYPTION};
use super::kit::{Damage, Texts, files_below, quietly, texts_of};
use crate::stage::{Seal, Stage, StoreKind};

/// A stage with two backups and WAL after each.
struct Archive {
    stage: Stage,
    texts: Texts,
    folder: PathBuf,
    backups: [String; 2],
    segments: Vec<String>,
}

impl Archive {
    async fn make(seal: Seal, store: StoreKind) -> Option<Self> {
        let (stage, backups) = Stage::with_two_backups(seal, store).await?;
        let folder = stage.repository_folder();
        let objects = files_below(&folder);
        let segments: Vec<String> = objects.into_iter().filter(|name| is_segment(name)).collect();
        let mut texts = texts_of(&stage);
        texts.name("FIRST", &backups[0]);
        texts.name("SECOND", &backups[1]);
        let backups = [backups[0].clone(), backups[1].clone()];
        Some(Self { stage, texts, folder, backups, segments })
    }

    /// The file of an object.
    fn object(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The file of a segment, counted from the last one.
    fn segment(&self, from_end: usize) -> PathBuf {
        self.object(&self.segments[self.segments.len() - 1 - from_end])
    }

    /// The name of a segment, counted from the last one.
    fn segment_name(&self, from_end: usize) -> &str {
        let name = self.segments[self.segments.len() - 1 - from_end].rsplit('/').next().expect("a name");
        &name[..24]
    }

    /// The file of an object, and the file that may replace it.
    fn files(&self, object: Object) -> [PathBuf; 2] {
        let of_backups = |name: &str| [1, 0].map(|backup| self.object(&name.replace("$ID", &self.backups[backup])));
        match object {
            Object::Pack => of_backups("main/packs/$ID/000001.pack"),
            Object::Manifest => of_backups("main/backups/$ID/manifest"),
            Object::Summary => of_backups("main/backups/$ID/backup.json"),
            Object::Claim => of_backups("main/claims/1.json"),
            Object::Segment => [self.segment(1), self.segment(2)],
        }
    }

    fn damage(&self, object: Object, how: How) -> Damage {
        let [path, other] = self.files(object);
        match how {
            How::Flipped => Damage::flip(&path),
            How::Halved => Damage::halve(&path),
            How::Emptied => Damage::change(&path, Vec::clear),
            How::Removed => Damage::remove(&path),
            How::Replaced => Damage::put_instead(&path, &other),
            How::ReplacedAsLarge => {
                let other = fs::read(other).expect("read the other object");
                Damage::change(&path, |bytes| {
                    let size = bytes.len().min(other.len());
                    bytes[..size].copy_from_slice(&other[..size]);
                })
            }
            How::Foreign => Damage::change(&path, |bytes| *bytes = b"not an object of ours at all".repeat(10)),
        }
    }

    /// Damages, checks the messages and what is left, and repairs.
    fn play(&mut self, case: &Case) {
        let name = format!("{:?} {:?}", case.object, case.damage);
        let damage = self.damage(case.object, case.damage);
        match case.shown {
            Shown::GetFails => {
                let destination = self.stage.target("RECOVERYXLOG");
                let segment = self.segment_name(1).to_owned();
                let output = quietly(&self.stage, &["wal", "get", &segment, &destination.display().to_string()]);
                self.texts.expect(&name, &output, case.status, &case.text());
                assert!(!destination.exists(), "{name}: something was delivered");
            }
            Shown::RestoreFails | Shown::RestoreIsRefused => {
                let left = self.restore_fails(&name, case.status, &case.text());
                if case.shown == Shown::RestoreIsRefused {
                    assert!(left.is_empty(), "{name}: {left:?} was written");
                }
                if (case.object, case.damage) == (Object::Pack, How::Flipped) {
                    let continues = left.contains(&"holdfast.restore".to_owned());
                    assert!(continues, "the same command can continue when the pack is repaired: {left:?}");
                }
            }
        }
        drop(damage);
    }

    /// Fails to restore the newer backup; returns what is left in the folder.
    fn restore_fails(&mut self, case: &str, status: i32, expected: &str) -> Vec<String> {
        let target = self.stage.target("target");
        let path = target.display().to_string();
        let output = quietly(&self.stage, &["restore", "--pgdata", &path, "--backup", &self.backups[1]]);
        self.texts.expect(case, &output, status, expected);
        let left = files_below(&target);
        assert!(!left.contains(&"global/pg_control".to_owned()), "{case}: a server could start from the remains");
        let _ = fs::remove_dir_all(&target);
        left
    }

    /// Plays cases in which `wal get` fetches one segment; a neighbour's prefetch must not answer for it.
    fn play_wal(mut self, cases: &[Case]) {
        let config = self.stage.config_text().replace("[wal]\n", "[wal]\nprefetch = 0\n");
        self.stage.write_config("holdfast.toml", &config);
        self.texts.name("WANTED", self.segment_name(1).to_owned());
        self.texts.name("OTHER", self.segment_name(2).to_owned());
        for case in cases {
            self.play(case);
        }
        self.texts.finish();
    }
}

fn is_segment(name: &str) -> bool {
    let file = Path::new(name).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.contains("/wal/") && file.split('.').next().is_some_and(|stem| stem.len() == 24) && !file.contains(".backup.")
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_and_manifests() {
    let Some(mut archive) = Archive::make(Seal::Passphrase, StoreKind::S3).await else { return };
    for case in PACKS_AND_MANIFESTS {
        archive.play(case);
    }

    // A backup whose summary cannot be read is reported, and the others are listed.
    let newer = archive.damage(Object::Summary, How::Flipped);
    let error =
        "object main/backups/$SECOND/backup.json in $REPO does not match its checksum: CRC-32C $CRC instead of $CRC";
    for verb in ["list", "info"] {
        let said = archive.texts.plain(&archive.stage.ok(&[verb]));
        let line = format!("unreadable backup $SECOND: {error} (40, corrupt-object)\n");
        assert!(said.contains(&line), "{said}");
    }
    let [_, older] = archive.files(Object::Summary);
    let both = Damage::flip(&older);
    archive.texts.expect(
        "list with a bit of every backup.json",
        &quietly(&archive.stage, &["list"]),
        40,
        &format!("error: {error}\nwhile: get main/backups/$SECOND/backup.json from $REPO\nhint:  {CORRUPT}\n"),
    );
    drop(both);
    drop(newer);

    // Everything is repaired: the same command works.
    let target = archive.stage.target("whole").display().to_string();
    archive.stage.ok(&["restore", "--pgdata", &target]);
    archive.texts.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn wal_objects() {
    let Some(archive) = Archive::make(Seal::Passphrase, StoreKind::Directory).await else { return };
    archive.play_wal(WAL_OBJECTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn wal_objects_without_encryption() {
    let Some(archive) = Archive::make(Seal::None, StoreKind::Directory).await else { return };
    archive.play_wal(WITHOUT_ENCRYPTION);
}
