//! The table of damage: the object, its damage, how that shows, and the message.

/// An object of the newer backup, or of the WAL after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Object {
    Pack,
    Manifest,
    /// `backup.json`.
    Summary,
    Claim,
    Segment,
}

/// What was done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// One bit is flipped.
    Flipped,
    /// The second half is missing.
    Halved,
    Emptied,
    Removed,
    /// It has the content of the same object of the other backup, or of another segment.
    Replaced,
    /// The same, but with the same size, so that only the content shows it.
    ReplacedAsLarge,
    /// It has content that Holdfast did not write.
    Foreign,
}

/// How the damage shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// A restore ends without `global/pg_control`.
    RestoreFails,
    /// A restore ends before it has written anything.
    RestoreIsRefused,
    /// `wal get` delivers nothing.
    GetFails,
}

/// A row of the table.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) object: Object,
    pub(super) damage: How,
    pub(super) shown: Shown,
    pub(super) status: i32,
    /// What happened.
    pub(super) error: &'static str,
    /// What was being done; empty if there is no such line.
    pub(super) doing: &'static str,
    /// What to do; empty if there is nothing to do.
    pub(super) hint: &'static str,
}

impl Case {
    /// The whole message.
    pub(super) fn text(&self) -> String {
        let lines = [("error: ", self.error), ("while: ", self.doing), ("hint:  ", self.hint)];
        let lines = lines.iter().filter(|(_, text)| !text.is_empty());
        lines.fold(String::new(), |all, (head, text)| all + head + text + "\n")
    }
}

/// Hint of an object that fails its checks.
pub(super) const CORRUPT: &str = "no part of it was used: look for another copy (a second repository, a version of the \
                                  object in the bucket), and check the store";
/// Hint of an object that is gone.
const MISSING: &str =
    "look for another copy (a second repository, a deleted version in the bucket), and check who may delete there";
/// Hint of an object that fails its authentication.
const CHANGED: &str = "somebody changed the repository, or two repositories were mixed by copying: look for another \
                       copy, and check who may write there";

pub(super) const PACKS_AND_MANIFESTS: &[Case] = &[
    Case {
        object: Object::Pack,
        damage: How::Flipped,
        shown: Shown::RestoreFails,
        status: 40,
        error: "object main/packs/$SECOND/000001.pack: the body of frame $N fails its checksum",
        doing: "restoring $FILE, restoring the files of backup $SECOND, restoring main into $DIR/target",
        hint: CORRUPT,
    },
    Case {
        object: Object::Pack,
        damage: How::Halved,
        shown: Shown::RestoreIsRefused,
        status: 41,
        error: "object main/packs/$SECOND/000001.pack in $REPO is shorter than expected: it has $SIZE bytes, the \
             manifest says $SIZE",
        doing: "look at main/packs/$SECOND/000001.pack from $REPO, looking for the packs of backup $SECOND",
        hint: CORRUPT,
    },
    Case {
        object: Object::Pack,
        damage: How::Removed,
        shown: Shown::RestoreIsRefused,
        status: 43,
        error: "object main/packs/$SECOND/000001.pack does not exist in $REPO: the manifest names it",
        doing: "look at main/packs/$SECOND/000001.pack from $REPO, looking for the packs of backup $SECOND",
        hint: MISSING,
    },
    Case {
        object: Object::Pack,
        damage: How::Replaced,
        shown: Shown::RestoreIsRefused,
        status: 41,
        error: "object main/packs/$SECOND/000001.pack in $REPO is shorter than expected: it has $SIZE bytes, the \
             manifest says $SIZE",
        doing: "look at main/packs/$SECOND/000001.pack from $REPO, looking for the packs of backup $SECOND",
        hint: CORRUPT,
    },
    Case {
        object: Object::Pack,
        damage: How::ReplacedAsLarge,
        shown: Shown::RestoreFails,
        status: 40,
        error: "object main/packs/$SECOND/000001.pack: no frame begins at byte 0: magic number $MAGIC instead of \
             0x184d2a5b",
        doing: "reading global/pg_control of the backup, restoring main into $DIR/target",
        hint: CORRUPT,
    },
    Case {
        object: Object::Manifest,
        damage: How::Flipped,
        shown: Shown::RestoreIsRefused,
        status: 40,
        error: "object main/backups/$SECOND/manifest: the body of frame $N fails its checksum",
        doing: "reading the manifest of backup $SECOND, restoring main into $DIR/target",
        hint: CORRUPT,
    },
    Case {
        object: Object::Manifest,
        damage: How::Halved,
        shown: Shown::RestoreIsRefused,
        status: 41,
        error: "object main/backups/$SECOND/manifest in $REPO is shorter than expected: it has $SIZE bytes, \
             backup.json says $SIZE",
        doing: "look at main/backups/$SECOND/manifest from $REPO, reading the manifest of backup $SECOND",
        hint: CORRUPT,
    },
    Case {
        object: Object::Manifest,
        damage: How::Removed,
        shown: Shown::RestoreIsRefused,
        status: 43,
        error: "object main/backups/$SECOND/manifest does not exist in $REPO: backup.json names it",
        doing: "look at main/backups/$SECOND/manifest from $REPO, restoring main into $DIR/target",
        hint: MISSING,
    },
    Case {
        object: Object::Manifest,
        damage: How::ReplacedAsLarge,
        shown: Shown::RestoreIsRefused,
        status: 42,
        error: "object main/backups/$SECOND/manifest: frame $N cannot be authenticated: changed, swapped with \
             another object, or another key",
        doing: "reading the manifest of backup $SECOND, restoring main into $DIR/target",
        hint: CHANGED,
    },
    Case {
        object: Object::Summary,
        damage: How::Flipped,
        shown: Shown::RestoreIsRefused,
        status: 40,
        error: "object main/backups/$SECOND/backup.json in $REPO does not match its checksum: CRC-32C $CRC instead \
             of $CRC",
        doing: "get main/backups/$SECOND/backup.json from $REPO, restoring main into $DIR/target",
        hint: CORRUPT,
    },
    Case {
        object: Object::Summary,
        damage: How::Halved,
        shown: Shown::RestoreIsRefused,
        status: 40,
        error: "object main/backups/$SECOND/backup.json in $REPO does not match its checksum: CRC-32C $CRC instead \
             of $CRC",
        doing: "get main/backups/$SECOND/backup.json from $REPO, restoring main into $DIR/target",
        hint: CORRUPT,
    },
    Case {
        object: Object::Summary,
        damage: How::Replaced,
        shown: Shown::RestoreIsRefused,
        status: 40,
        error: "object main/backups/$SECOND/backup.json in $REPO does not match its checksum: CRC-32C $CRC instead \
             of $CRC",
        doing: "get main/backups/$SECOND/backup.json from $REPO, restoring main into $DIR/target",
        hint: CORRUPT,
    },
    Case {
        object: Object::Claim,
        damage: How::Flipped,
        shown: Shown::RestoreIsRefused,
        status: 40,
        error: "object main/claims/1.json in $REPO does not match its checksum: CRC-32C $CRC instead of $CRC",
        doing: "get main/claims/1.json from $REPO, restoring main into $DIR/target",
        hint: CORRUPT,
    },
];

/// A directory store keeps no checksums, so damage of a record shows in the record itself.
pub(super) const WAL_OBJECTS: &[Case] = &[
    Case {
        object: Object::Segment,
        damage: How::Flipped,
        shown: Shown::GetFails,
        status: 168,
        error: "object main/wal/1/$TIMELINE/$FOLDER/$WANTED.zst.enc: the body of frame $N fails its checksum",
        doing: "reading main/wal/1/$TIMELINE/$FOLDER/$WANTED.zst.enc from $REPO",
        hint: CORRUPT,
    },
    Case {
        object: Object::Segment,
        damage: How::Halved,
        shown: Shown::GetFails,
        status: 169,
        error: "object main/wal/1/$TIMELINE/$FOLDER/$WANTED.zst.enc: truncated: $SIZE bytes needed, $SIZE there",
        doing: "reading main/wal/1/$TIMELINE/$FOLDER/$WANTED.zst.enc from $REPO",
        hint: CORRUPT,
    },
    Case {
        object: Object::Segment,
        damage: How::Emptied,
        shown: Shown::GetFails,
        status: 169,
        error: "object main/wal/1/$TIMELINE/$FOLDER/$WANTED.zst.enc: truncated: $SIZE bytes needed, $SIZE there",
        doing: "reading main/wal/1/$TIMELINE/$FOLDER/$WANTED.zst.enc from $REPO",
        hint: CORRUPT,
    },
    Case {
        object: Object::Segment,
        damage: How::Replaced,
        shown: Shown::GetFails,
        status: 170,
        error: "object main/wal/1/$TIMELINE/$FOLDER/$WANTED.zst.enc: frame $N cannot be authenticated: changed, \
             swapped with another object, or another key",
        doing: "reading main/wal/1/$TIMELINE/$FOLDER/$WANTED.zst.enc from $REPO",
        hint: CHANGED,
    },
    Case {
        object: Object::Segment,
        damage: How::Foreign,
        shown: Shown::GetFails,
        status: 168,
        error: "object main/wal/1/$TIMELINE/$FOLDER/$WANTED.zst.enc: no frame begins at byte 0: magic number $MAGIC \
             instead of 0x184d2a5b",
        doing: "reading main/wal/1/$TIMELINE/$FOLDER/$WANTED.zst.enc from $REPO",
        hint: CORRUPT,
    },
    Case {
        object: Object::Segment,
        damage: How::Removed,
        shown: Shown::GetFails,
        status: 1,
        error: "$WANTED is not in the archive",
        doing: "",
        hint: "",
    },
    Case {
        object: Object::Segment,
        damage: How::Removed,
        shown: Shown::RestoreIsRefused,
        status: 61,
        error: "WAL segment $WANTED is missing on the way to the end of the archived WAL",
        doing: "choosing a backup of main for the end of the archived WAL, restoring main into $DIR/target",
        hint: "what can be restored: $LSN ($TIME) to $LSN on timeline 1\n       if a server, a standby or an old archive still has the missing WAL, `holdfast wal verify --heal DIR` brings it back",
    },
    Case {
        object: Object::Summary,
        damage: How::Halved,
        shown: Shown::RestoreIsRefused,
        status: 41,
        error: "the backup record cannot be opened: object main/backups/$SECOND/backup.json: truncated: $SIZE bytes \
             needed, $SIZE there",
        doing: "reading main/backups/$SECOND/backup.json in $REPO, restoring main into $DIR/target",
        hint: CORRUPT,
    },
    Case {
        object: Object::Summary,
        damage: How::Replaced,
        shown: Shown::RestoreIsRefused,
        status: 42,
        error: "the backup record cannot be opened: object main/backups/$SECOND/backup.json: frame $N cannot be \
             authenticated: changed, swapped with another object, or another key",
        doing: "reading main/backups/$SECOND/backup.json in $REPO, restoring main into $DIR/target",
        hint: CHANGED,
    },
];

/// Without encryption nothing binds an object to its name except the facts inside.
pub(super) const WITHOUT_ENCRYPTION: &[Case] = &[
    Case {
        object: Object::Segment,
        damage: How::Flipped,
        shown: Shown::GetFails,
        status: 168,
        error: "object main/wal/1/$TIMELINE/$FOLDER/$WANTED.zst: the body of frame $N fails its checksum",
        doing: "reading main/wal/1/$TIMELINE/$FOLDER/$WANTED.zst from $REPO",
        hint: CORRUPT,
    },
    Case {
        object: Object::Segment,
        damage: How::Replaced,
        shown: Shown::GetFails,
        status: 170,
        error: "object main/wal/1/$TIMELINE/$FOLDER/$WANTED.zst: holds the file $OTHER, but its name says another one",
        doing: "reading main/wal/1/$TIMELINE/$FOLDER/$WANTED.zst from $REPO",
        hint: CHANGED,
    },
    Case {
        object: Object::Pack,
        damage: How::ReplacedAsLarge,
        shown: Shown::RestoreFails,
        status: 40,
        error: "object main/packs/$SECOND/000001.pack: no frame begins at byte 0: magic number $MAGIC instead of \
             0x184d2a5b",
        doing: "reading global/pg_control of the backup, restoring main into $DIR/target",
        hint: CORRUPT,
    },
];
