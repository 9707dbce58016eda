//! Objects that are not what was stored: flipped bits, missing ends, missing objects, objects in each other's place.
//!
//! Nothing of such an object is handed over: recovery gets a status above 125, and a restore is refused, before its
//! first byte where the sizes give it away, and without `pg_control` where only the content does.

use std::fs;
use std::path::{Path, PathBuf};

use super::kit::{Damage, Texts, files_below, quietly, texts_of};
use crate::stage::{Plan, Seal, Stage, StoreKind};

/// A stage with two backups and WAL behind each.
struct Archive {
    stage: Stage,
    texts: Texts,
    folder: PathBuf,
    backups: [String; 2],
    segments: Vec<String>,
}

impl Archive {
    async fn make(seal: Seal, store: StoreKind) -> Option<Self> {
        let plan = Plan { store, seal, wal_segment_mib: 1, ..Plan::default() };
        let stage = Stage::start(18, plan).await?;
        stage.cluster.sql("CREATE TABLE t AS SELECT g AS id FROM generate_series(1, 1000) g").await.expect("load data");
        let mut backups = Vec::new();
        for _ in 0..2 {
            let report = stage.json(&["backup"]);
            let id = report["repositories"][0]["backup"]["backup_id"].as_str().expect("a backup id");
            backups.push(id.to_owned());
            for _ in 0..3 {
                stage.cluster.sql("INSERT INTO t SELECT generate_series(1, 1000)").await.expect("insert");
                stage.archive_now().await;
            }
        }
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

    fn pack(&self, backup: usize) -> PathBuf {
        self.object(&format!("main/packs/{}/000001.pack", self.backups[backup]))
    }

    /// Fails to restore; what was left in the folder.
    fn restore_fails(&mut self, case: &str, backup: usize, status: i32, expected: &str) -> Vec<String> {
        let target = self.stage.target("target");
        let path = target.display().to_string();
        let output = quietly(&self.stage, &["restore", "--pgdata", &path, "--backup", &self.backups[backup]]);
        self.texts.expect(case, &output, status, expected);
        let left = files_below(&target);
        assert!(!left.contains(&"global/pg_control".to_owned()), "{case}: a server could start from the remains");
        let _ = fs::remove_dir_all(&target);
        left
    }

    /// As [`Self::restore_fails`], and nothing was written.
    fn restore_is_refused(&mut self, case: &str, backup: usize, status: i32, expected: &str) {
        let left = self.restore_fails(case, backup, status, expected);
        assert!(left.is_empty(), "{case}: {left:?} was written");
    }

    /// Fails to fetch a segment; nothing may be left at its destination.
    fn get_fails(&mut self, case: &str, from_end: usize, status: i32, expected: &str) {
        let destination = self.stage.target("RECOVERYXLOG");
        let name = self.segment_name(from_end).to_owned();
        let output = quietly(&self.stage, &["wal", "get", &name, &destination.display().to_string()]);
        self.texts.expect(case, &output, status, expected);
        assert!(!destination.exists(), "{case}: something was handed over");
    }
}

fn is_segment(name: &str) -> bool {
    let file = Path::new(name).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.contains("/wal/") && file.split('.').next().is_some_and(|stem| stem.len() == 24) && !file.contains(".backup.")
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_and_manifests() {
    let Some(mut archive) = Archive::make(Seal::Passphrase, StoreKind::S3).await else { return };
    let (first, second) = (archive.pack(0), archive.pack(1));

    let damage = Damage::flip(&second);
    let left = archive.restore_fails(
        "a bit of a pack",
        1,
        40,
        "error: object main/packs/$SECOND/000001.pack: the body of frame $N fails its checksum\n\
             while: restoring $FILE, restoring the files of backup $SECOND, restoring main into $DIR/target\n\
             hint:  nothing was used of it: look for another copy (a second repository, a version of the object \
             in the bucket), and check the store\n",
    );
    assert!(
        left.contains(&"holdfast.restore".to_owned()),
        "the same command can go on when the pack is repaired: {left:?}"
    );
    drop(damage);
    let damage = Damage::halve(&second);
    archive.restore_is_refused(
        "half a pack",
        1,
        41,
        "error: object main/packs/$SECOND/000001.pack in $REPO is shorter than expected: it has $SIZE bytes, \
             the manifest says $SIZE\n\
             while: look at main/packs/$SECOND/000001.pack from $REPO, looking for the packs of backup $SECOND\n\
             hint:  nothing was used of it: look for another copy (a second repository, a version of the object \
             in the bucket), and check the store\n",
    );
    drop(damage);
    let damage = Damage::remove(&second);
    archive.restore_is_refused(
        "no pack",
        1,
        43,
        "error: object main/packs/$SECOND/000001.pack does not exist in $REPO: the manifest names it\n\
             while: look at main/packs/$SECOND/000001.pack from $REPO, looking for the packs of backup $SECOND\n\
             hint:  look for another copy (a second repository, a deleted version in the bucket), and at who may \
             delete there\n",
    );
    drop(damage);
    let damage = Damage::put_instead(&second, &first);
    archive.restore_is_refused(
        "the other backup's pack",
        1,
        41,
        "error: object main/packs/$SECOND/000001.pack in $REPO is shorter than expected: it has $SIZE bytes, \
             the manifest says $SIZE\n\
             while: look at main/packs/$SECOND/000001.pack from $REPO, looking for the packs of backup $SECOND\n\
             hint:  nothing was used of it: look for another copy (a second repository, a version of the object \
             in the bucket), and check the store\n",
    );
    drop(damage);
    // Of the same size, so that only the content tells.
    let other = fs::read(&first).expect("read a pack");
    let damage = Damage::change(&second, |bytes| {
        let size = bytes.len().min(other.len());
        bytes[..size].copy_from_slice(&other[..size]);
    });
    archive.restore_fails(
        "the other backup's pack, as large",
        1,
        40,
        "error: object main/packs/$SECOND/000001.pack: no frame begins at byte 0: magic number $MAGIC \
             instead of 0x184d2a5b\n\
             while: reading global/pg_control of the backup, restoring main into $DIR/target\n\
             hint:  nothing was used of it: look for another copy (a second repository, a version of the object \
             in the bucket), and check the store\n",
    );
    drop(damage);

    let manifest = archive.object(&format!("main/backups/{}/manifest", archive.backups[1]));
    let other = archive.object(&format!("main/backups/{}/manifest", archive.backups[0]));
    let damage = Damage::flip(&manifest);
    archive.restore_is_refused(
        "a bit of the manifest",
        1,
        40,
        "error: object main/backups/$SECOND/manifest: the body of frame $N fails its checksum\n\
             while: reading the manifest of backup $SECOND, restoring main into $DIR/target\n\
             hint:  nothing was used of it: look for another copy (a second repository, a version of the object \
             in the bucket), and check the store\n",
    );
    drop(damage);
    let damage = Damage::halve(&manifest);
    archive.restore_is_refused(
        "half a manifest",
        1,
        41,
        "error: object main/backups/$SECOND/manifest in $REPO is shorter than expected: it has $SIZE bytes, \
             backup.json says $SIZE\n\
             while: look at main/backups/$SECOND/manifest from $REPO, reading the manifest of backup $SECOND\n\
             hint:  nothing was used of it: look for another copy (a second repository, a version of the object \
             in the bucket), and check the store\n",
    );
    drop(damage);
    let damage = Damage::remove(&manifest);
    archive.restore_is_refused(
        "no manifest",
        1,
        43,
        "error: object main/backups/$SECOND/manifest does not exist in $REPO: backup.json names it\n\
             while: look at main/backups/$SECOND/manifest from $REPO, restoring main into $DIR/target\n\
             hint:  look for another copy (a second repository, a deleted version in the bucket), and at who may \
             delete there\n",
    );
    drop(damage);
    let other = fs::read(&other).expect("read a manifest");
    let damage = Damage::change(&manifest, |bytes| {
        let size = bytes.len();
        *bytes = other.clone();
        bytes.resize(size, 0);
    });
    archive.restore_is_refused(
        "the other backup's manifest",
        1,
        42,
        "error: object main/backups/$SECOND/manifest: frame $N cannot be authenticated: changed, swapped \
             with another object, or another key\n\
             while: reading the manifest of backup $SECOND, restoring main into $DIR/target\n\
             hint:  somebody changed the repository, or two were mixed by copying: look for another copy, and at \
             who may write there\n",
    );
    drop(damage);

    let summary = archive.object(&format!("main/backups/{}/backup.json", archive.backups[1]));
    let other = archive.object(&format!("main/backups/{}/backup.json", archive.backups[0]));
    let damage = Damage::flip(&summary);
    archive.restore_is_refused(
        "a bit of backup.json",
        1,
        40,
        "error: object main/backups/$SECOND/backup.json in $REPO does not match its checksum: CRC-32C $CRC \
             instead of $CRC\n\
             while: get main/backups/$SECOND/backup.json from $REPO, restoring main into $DIR/target\n\
             hint:  nothing was used of it: look for another copy (a second repository, a version of the object \
             in the bucket), and check the store\n",
    );
    for verb in ["list", "info"] {
        let said = archive.texts.plain(&archive.stage.ok(&[verb]));
        let line = "unreadable backup $SECOND: object main/backups/$SECOND/backup.json in $REPO does not match its \
                    checksum: CRC-32C $CRC instead of $CRC (40, corrupt-object)\n";
        assert!(said.contains(line), "{said}");
    }
    let both = Damage::flip(&archive.object(&format!("main/backups/{}/backup.json", archive.backups[0])));
    archive.texts.expect(
        "list with a bit of every backup.json",
        &quietly(&archive.stage, &["list"]),
        40,
        "error: object main/backups/$SECOND/backup.json in $REPO does not match its checksum: CRC-32C $CRC \
             instead of $CRC\n\
             while: get main/backups/$SECOND/backup.json from $REPO\n\
             hint:  nothing was used of it: look for another copy (a second repository, a version of the object \
             in the bucket), and check the store\n",
    );
    drop(both);
    drop(damage);
    let damage = Damage::halve(&summary);
    archive.restore_is_refused(
        "half a backup.json",
        1,
        40,
        "error: object main/backups/$SECOND/backup.json in $REPO does not match its checksum: CRC-32C $CRC \
             instead of $CRC\n\
             while: get main/backups/$SECOND/backup.json from $REPO, restoring main into $DIR/target\n\
             hint:  nothing was used of it: look for another copy (a second repository, a version of the object \
             in the bucket), and check the store\n",
    );
    drop(damage);
    let damage = Damage::put_instead(&summary, &other);
    archive.restore_is_refused(
        "the other backup's backup.json",
        1,
        40,
        "error: object main/backups/$SECOND/backup.json in $REPO does not match its checksum: CRC-32C $CRC \
             instead of $CRC\n\
             while: get main/backups/$SECOND/backup.json from $REPO, restoring main into $DIR/target\n\
             hint:  nothing was used of it: look for another copy (a second repository, a version of the object \
             in the bucket), and check the store\n",
    );
    drop(damage);
    let claim = archive.object("main/claims/1.json");
    let damage = Damage::flip(&claim);
    archive.restore_is_refused(
        "a bit of the claim",
        1,
        40,
        "error: object main/claims/1.json in $REPO does not match its checksum: CRC-32C $CRC instead of \
             $CRC\n\
             while: get main/claims/1.json from $REPO, restoring main into $DIR/target\n\
             hint:  nothing was used of it: look for another copy (a second repository, a version of the object \
             in the bucket), and check the store\n",
    );
    drop(damage);

    // All of it is repaired: the same command works.
    let target = archive.stage.target("whole").display().to_string();
    archive.stage.ok(&["restore", "--pgdata", &target]);
    archive.texts.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn wal_objects() {
    let Some(mut archive) = Archive::make(Seal::Passphrase, StoreKind::Directory).await else { return };
    // The prefetch of a neighbour must not answer for the damaged one.
    let config = archive.stage.config_text().replace("[wal]\n", "[wal]\nprefetch = 0\n");
    archive.stage.write_config("holdfast.toml", &config);
    archive.texts.name("WANTED", archive.segment_name(1).to_owned());
    archive.texts.name("OTHER", archive.segment_name(2).to_owned());
    let (wanted, other) = (archive.segment(1), archive.segment(2));

    let damage = Damage::flip(&wanted);
    archive.get_fails(
        "a bit of a segment",
        1,
        168,
        "error: object main/wal/1/$TIMELINE/$FOLDER/$WANTED.zst.enc: the body of frame $N fails its \
             checksum\n\
             while: reading main/wal/1/$TIMELINE/$FOLDER/$WANTED.zst.enc from $REPO\n\
             hint:  nothing was used of it: look for another copy (a second repository, a version of the object \
             in the bucket), and check the store\n",
    );
    drop(damage);
    let damage = Damage::halve(&wanted);
    archive.get_fails(
        "half a segment",
        1,
        169,
        "error: object main/wal/1/$TIMELINE/$FOLDER/$WANTED.zst.enc: truncated: $SIZE bytes needed, $SIZE \
             there\n\
             while: reading main/wal/1/$TIMELINE/$FOLDER/$WANTED.zst.enc from $REPO\n\
             hint:  nothing was used of it: look for another copy (a second repository, a version of the object \
             in the bucket), and check the store\n",
    );
    drop(damage);
    let damage = Damage::change(&wanted, Vec::clear);
    archive.get_fails(
        "an empty segment",
        1,
        169,
        "error: object main/wal/1/$TIMELINE/$FOLDER/$WANTED.zst.enc: truncated: $SIZE bytes needed, $SIZE \
             there\n\
             while: reading main/wal/1/$TIMELINE/$FOLDER/$WANTED.zst.enc from $REPO\n\
             hint:  nothing was used of it: look for another copy (a second repository, a version of the object \
             in the bucket), and check the store\n",
    );
    drop(damage);
    let damage = Damage::put_instead(&wanted, &other);
    archive.get_fails(
        "another segment in its place",
        1,
        170,
        "error: object main/wal/1/$TIMELINE/$FOLDER/$WANTED.zst.enc: frame $N cannot be authenticated: \
             changed, swapped with another object, or another key\n\
             while: reading main/wal/1/$TIMELINE/$FOLDER/$WANTED.zst.enc from $REPO\n\
             hint:  somebody changed the repository, or two were mixed by copying: look for another copy, and at \
             who may write there\n",
    );
    drop(damage);
    let damage = Damage::change(&wanted, |bytes| *bytes = b"not an object of ours at all".repeat(10));
    archive.get_fails(
        "something else in its place",
        1,
        168,
        "error: object main/wal/1/$TIMELINE/$FOLDER/$WANTED.zst.enc: no frame begins at byte 0: magic number \
             $MAGIC instead of 0x184d2a5b\n\
             while: reading main/wal/1/$TIMELINE/$FOLDER/$WANTED.zst.enc from $REPO\n\
             hint:  nothing was used of it: look for another copy (a second repository, a version of the object \
             in the bucket), and check the store\n",
    );
    drop(damage);
    let damage = Damage::remove(&wanted);
    archive.get_fails("a segment that is gone", 1, 1, "error: $WANTED is not in the archive\n");
    archive.restore_is_refused(
        "a hole in the WAL",
        1,
        61,
        "error: WAL segment $WANTED is missing on the way to the end of the archived WAL\n\
             while: choosing a backup of main for the end of the archived WAL, restoring main into $DIR/target\n\
             hint:  what can be restored: $LSN ($TIME) to $LSN on timeline 1\n",
    );
    drop(damage);

    // A directory keeps no checksums of its own: what is wrong with a record is found in the record.
    let summary = archive.object(&format!("main/backups/{}/backup.json", archive.backups[1]));
    let other = archive.object(&format!("main/backups/{}/backup.json", archive.backups[0]));
    let damage = Damage::halve(&summary);
    archive.restore_is_refused(
        "half a backup.json in a directory",
        1,
        41,
        "error: the backup record cannot be opened: object main/backups/$SECOND/backup.json: truncated: \
             $SIZE bytes needed, $SIZE there\n\
             while: reading main/backups/$SECOND/backup.json in $REPO, restoring main into $DIR/target\n\
             hint:  nothing was used of it: look for another copy (a second repository, a version of the object \
             in the bucket), and check the store\n",
    );
    drop(damage);
    let damage = Damage::put_instead(&summary, &other);
    archive.restore_is_refused(
        "the other backup's backup.json in a directory",
        1,
        42,
        "error: the backup record cannot be opened: object main/backups/$SECOND/backup.json: frame $N cannot \
             be authenticated: changed, swapped with another object, or another key\n\
             while: reading main/backups/$SECOND/backup.json in $REPO, restoring main into $DIR/target\n\
             hint:  somebody changed the repository, or two were mixed by copying: look for another copy, and at \
             who may write there\n",
    );
    drop(damage);
    archive.texts.finish();
}

/// Without encryption nothing seals an object to its name: the facts inside do.
#[tokio::test(flavor = "multi_thread")]
async fn wal_objects_without_encryption() {
    let Some(mut archive) = Archive::make(Seal::None, StoreKind::Directory).await else { return };
    let config = archive.stage.config_text().replace("[wal]\n", "[wal]\nprefetch = 0\n");
    archive.stage.write_config("holdfast.toml", &config);
    archive.texts.name("WANTED", archive.segment_name(1).to_owned());
    archive.texts.name("OTHER", archive.segment_name(2).to_owned());
    let (wanted, other) = (archive.segment(1), archive.segment(2));
    let damage = Damage::flip(&wanted);
    archive.get_fails(
        "a bit of a segment",
        1,
        168,
        "error: object main/wal/1/$TIMELINE/$FOLDER/$WANTED.zst: the body of frame $N fails its checksum\n\
             while: reading main/wal/1/$TIMELINE/$FOLDER/$WANTED.zst from $REPO\n\
             hint:  nothing was used of it: look for another copy (a second repository, a version of the object \
             in the bucket), and check the store\n",
    );
    drop(damage);
    let damage = Damage::put_instead(&wanted, &other);
    archive.get_fails(
        "another segment in its place",
        1,
        170,
        "error: object main/wal/1/$TIMELINE/$FOLDER/$WANTED.zst: holds the file $OTHER, which its name does \
             not say\n\
             while: reading main/wal/1/$TIMELINE/$FOLDER/$WANTED.zst from $REPO\n\
             hint:  somebody changed the repository, or two were mixed by copying: look for another copy, and at \
             who may write there\n",
    );
    drop(damage);
    let (first, second) = (archive.pack(0), archive.pack(1));
    let other = fs::read(&first).expect("read a pack");
    let damage = Damage::change(&second, |bytes| {
        let size = bytes.len().min(other.len());
        bytes[..size].copy_from_slice(&other[..size]);
    });
    archive.restore_fails(
        "the other backup's pack, as large",
        1,
        40,
        "error: object main/packs/$SECOND/000001.pack: no frame begins at byte 0: magic number $MAGIC \
             instead of 0x184d2a5b\n\
             while: reading global/pg_control of the backup, restoring main into $DIR/target\n\
             hint:  nothing was used of it: look for another copy (a second repository, a version of the object \
             in the bucket), and check the store\n",
    );
    drop(damage);
    archive.texts.finish();
}
