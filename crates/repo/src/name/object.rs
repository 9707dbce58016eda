//! The typed form of every object name, and the folders to list.

use super::{
    BackupId, ClaimNumber, ClusterName, FeatureName, LedgerKind, LedgerTime, NameError, RunId, SlotName, TailRange,
};
use crate::codec::Codec;
use holdfast_pgtypes::{SegmentName, TimelineId, WalFileName};
use std::fmt;
use std::str::FromStr;

/// Name of the record that makes a prefix a repository.
pub const REPOSITORY_OBJECT: &str = "holdfast.json";

/// The highest pack number, because the name has six digits. At the default pack size this is far above any backup.
pub const MAX_PACK_NUMBER: u32 = 999_999;

/// The end of the name of a removal mark: the slot is being removed.
const REMOVING: &str = ".removing";

/// Every object of a repository, by name. `Display` gives the name relative to the repository's prefix, `FromStr` reads
/// it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ObjectPath {
    /// `holdfast.json`
    Repository,
    /// `keys/<slot>.json`
    KeySlot(SlotName),
    /// `keys/<slot>.removing`: the removal of the slot has begun
    KeySlotRemoval(SlotName),
    /// `features/<read or write>-<name>`: what a program must know to use the repository
    Feature(FeatureName),
    /// `<cluster>/claims/<n>.json`
    Claim {
        /// The cluster that the claim belongs to.
        cluster: ClusterName,
        /// The claim's number.
        claim: ClaimNumber,
    },
    /// `<cluster>/wal/<claim>/<timeline>/<16 hex>/<file>.<codec>[.enc]`, history files without the 16-hex folder
    WalFile {
        /// The cluster that archived it.
        cluster: ClusterName,
        /// The claim under which it was archived.
        claim: ClaimNumber,
        /// PostgreSQL's file name.
        file: WalFileName,
        /// The compression.
        codec: Codec,
        /// Whether it is encrypted.
        encrypted: bool,
    },
    /// `<cluster>/wal-tail/<claim>/<timeline>/<segment>/<start>-<end>.<codec>[.enc]`
    WalTail {
        /// The cluster that streamed it.
        cluster: ClusterName,
        /// The claim under which it was stored.
        claim: ClaimNumber,
        /// The segment that the piece is of.
        segment: SegmentName,
        /// Which bytes of the segment it has.
        range: TailRange,
        /// The compression.
        codec: Codec,
        /// Whether it is encrypted.
        encrypted: bool,
    },
    /// `<cluster>/packs/<backup id>/<6 digits>.pack`
    Pack {
        /// The first part of the name, for all objects of an archive.
        cluster: ClusterName,
        /// The backup that wrote it.
        backup: BackupId,
        /// Number of the pack within the backup, up to [`MAX_PACK_NUMBER`].
        number: u32,
    },
    /// `<cluster>/backups/<backup id>/start.json`
    BackupStart {
        /// The cluster of the backup.
        cluster: ClusterName,
        /// The folder. It names the moment at which the backup began.
        backup: BackupId,
    },
    /// `<cluster>/backups/<backup id>/ended.json`
    BackupEnd {
        /// The cluster of the backup.
        cluster: ClusterName,
        /// The id of the backup.
        backup: BackupId,
    },
    /// `<cluster>/backups/<backup id>/manifest`
    Manifest {
        /// The cluster of the backup.
        cluster: ClusterName,
        /// The id of the backup.
        backup: BackupId,
    },
    /// `<cluster>/backups/<backup id>/backup.json`: its presence makes the backup exist
    BackupSummary {
        /// The cluster of the backup.
        cluster: ClusterName,
        /// The id of the backup.
        backup: BackupId,
    },
    /// `<cluster>/snapshots/<id>.json`: volume snapshots that a recovery can begin with
    Snapshot {
        /// The first part of the name.
        cluster: ClusterName,
        /// The id of the snapshots' record.
        snapshot: BackupId,
    },
    /// `<cluster>/ledger/<time>-<kind>.json`
    Ledger {
        /// The first part of the name.
        cluster: ClusterName,
        /// When it was written.
        time: LedgerTime,
        /// The kind of event that it records.
        kind: LedgerKind,
    },
    /// `<cluster>/ledger/<time>-verification-<backup id>-<shallow or deep>.json`
    Verification {
        /// The cluster of the ledger.
        cluster: ClusterName,
        /// When it was written.
        time: LedgerTime,
        /// The backup that was verified.
        backup: BackupId,
        /// Whether every byte of it was read.
        deep: bool,
    },
    /// `<cluster>/ledger/<time>-drill-<backup id>-<proven or failed>.json`
    Drill {
        /// The cluster of the ledger.
        cluster: ClusterName,
        /// When it was written.
        time: LedgerTime,
        /// The backup that was restored.
        backup: BackupId,
        /// Whether the drill proved a restore.
        proven: bool,
    },
    /// `<cluster>/leases/<time>-<run>.json`
    Lease {
        /// The cluster whose objects are used.
        cluster: ClusterName,
        /// When the lease ends.
        expires: LedgerTime,
        /// The run that holds the lease.
        run: RunId,
    },
}

impl ObjectPath {
    /// The cluster to which an object belongs; `None` for the repository's own record and its keys.
    pub fn cluster(&self) -> Option<&ClusterName> {
        match self {
            Self::Repository | Self::KeySlot(_) | Self::KeySlotRemoval(_) | Self::Feature(_) => None,
            Self::Claim { cluster, .. }
            | Self::WalFile { cluster, .. }
            | Self::WalTail { cluster, .. }
            | Self::Pack { cluster, .. }
            | Self::BackupStart { cluster, .. }
            | Self::BackupEnd { cluster, .. }
            | Self::Manifest { cluster, .. }
            | Self::BackupSummary { cluster, .. }
            | Self::Snapshot { cluster, .. }
            | Self::Ledger { cluster, .. }
            | Self::Verification { cluster, .. }
            | Self::Drill { cluster, .. }
            | Self::Lease { cluster, .. } => Some(cluster),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        if text == REPOSITORY_OBJECT {
            return Some(Self::Repository);
        }
        let (top, rest) = text.split_once('/')?;
        if top == "keys" {
            return match rest.strip_suffix(REMOVING) {
                Some(slot) => Some(Self::KeySlotRemoval(slot.parse().ok()?)),
                None => Some(Self::KeySlot(rest.strip_suffix(".json")?.parse().ok()?)),
            };
        }
        if top == "features" {
            return Some(Self::Feature(rest.parse().ok()?));
        }
        let cluster: ClusterName = top.parse().ok()?;
        let (folder, rest) = rest.split_once('/')?;
        match folder {
            "claims" => Some(Self::Claim { cluster, claim: rest.strip_suffix(".json")?.parse().ok()? }),
            "wal" => {
                let (claim, rest) = rest.split_once('/')?;
                let (_, stored) = rest.rsplit_once('/')?;
                let (file, codec, encrypted) = split_wal_extension(stored)?;
                Some(Self::WalFile { cluster, claim: claim.parse().ok()?, file: file.parse().ok()?, codec, encrypted })
            }
            "wal-tail" => {
                let (claim, rest) = rest.split_once('/')?;
                let (_, rest) = rest.split_once('/')?;
                let (segment, stored) = rest.split_once('/')?;
                let (range, codec, encrypted) = split_wal_extension(stored)?;
                let (claim, segment, range) = (claim.parse().ok()?, segment.parse().ok()?, range.parse().ok()?);
                Some(Self::WalTail { cluster, claim, segment, range, codec, encrypted })
            }
            "packs" => {
                let (backup, pack) = rest.split_once('/')?;
                let number = pack.strip_suffix(".pack").filter(|digits| digits.len() == 6)?.parse().ok()?;
                Some(Self::Pack { cluster, backup: backup.parse().ok()?, number })
            }
            "backups" => {
                let (backup, object) = rest.split_once('/')?;
                let backup = backup.parse().ok()?;
                match object {
                    "start.json" => Some(Self::BackupStart { cluster, backup }),
                    "ended.json" => Some(Self::BackupEnd { cluster, backup }),
                    "manifest" => Some(Self::Manifest { cluster, backup }),
                    "backup.json" => Some(Self::BackupSummary { cluster, backup }),
                    _ => None,
                }
            }
            "snapshots" => Some(Self::Snapshot { cluster, snapshot: rest.strip_suffix(".json")?.parse().ok()? }),
            "ledger" => {
                let (time, kind) = rest.strip_suffix(".json")?.split_once('-')?;
                if let Some((LedgerKind::VERIFICATION, of)) = kind.split_once('-') {
                    let (backup, level) = of.split_once('-')?;
                    let deep = match level {
                        "deep" => true,
                        "shallow" => false,
                        _ => return None,
                    };
                    return Some(Self::Verification {
                        cluster,
                        time: time.parse().ok()?,
                        backup: backup.parse().ok()?,
                        deep,
                    });
                }
                if let Some((LedgerKind::DRILL, of)) = kind.split_once('-') {
                    let (backup, result) = of.split_once('-')?;
                    let proven = match result {
                        "proven" => true,
                        "failed" => false,
                        _ => return None,
                    };
                    return Some(Self::Drill {
                        cluster,
                        time: time.parse().ok()?,
                        backup: backup.parse().ok()?,
                        proven,
                    });
                }
                Some(Self::Ledger { cluster, time: time.parse().ok()?, kind: kind.parse().ok()? })
            }
            "leases" => {
                let (expires, run) = rest.strip_suffix(".json")?.split_once('-')?;
                Some(Self::Lease { cluster, expires: expires.parse().ok()?, run: run.parse().ok()? })
            }
            _ => None,
        }
    }
}

impl fmt::Display for ObjectPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repository => formatter.write_str(REPOSITORY_OBJECT),
            Self::KeySlot(slot) => write!(formatter, "keys/{slot}.json"),
            Self::KeySlotRemoval(slot) => write!(formatter, "keys/{slot}{REMOVING}"),
            Self::Feature(feature) => write!(formatter, "features/{feature}"),
            Self::Claim { cluster, claim } => write!(formatter, "{cluster}/claims/{claim}.json"),
            Self::WalFile { cluster, claim, file, codec, encrypted } => {
                let name = file.to_string();
                let extension = codec.extension();
                let seal = if *encrypted { ".enc" } else { "" };
                // Every WAL file name begins with the timeline. In all but history files the log number follows.
                let timeline = name.get(..8).unwrap_or_default();
                write!(formatter, "{cluster}/wal/{claim}/{timeline}/")?;
                if !matches!(file, WalFileName::History(_)) {
                    write!(formatter, "{}/", name.get(..16).unwrap_or_default())?;
                }
                write!(formatter, "{name}.{extension}{seal}")
            }
            Self::WalTail { cluster, claim, segment, range, codec, encrypted } => {
                let (extension, seal) = (codec.extension(), if *encrypted { ".enc" } else { "" });
                write!(formatter, "{}{range}.{extension}{seal}", wal_tail_folder(cluster, *claim, *segment))
            }
            Self::Pack { cluster, backup, number } => write!(formatter, "{cluster}/packs/{backup}/{number:06}.pack"),
            Self::BackupStart { cluster, backup } => write!(formatter, "{cluster}/backups/{backup}/start.json"),
            Self::BackupEnd { cluster, backup } => write!(formatter, "{cluster}/backups/{backup}/ended.json"),
            Self::Manifest { cluster, backup } => write!(formatter, "{cluster}/backups/{backup}/manifest"),
            Self::BackupSummary { cluster, backup } => write!(formatter, "{cluster}/backups/{backup}/backup.json"),
            Self::Snapshot { cluster, snapshot } => write!(formatter, "{cluster}/snapshots/{snapshot}.json"),
            Self::Ledger { cluster, time, kind } => write!(formatter, "{cluster}/ledger/{time}-{kind}.json"),
            Self::Verification { cluster, time, backup, deep } => {
                let level = if *deep { "deep" } else { "shallow" };
                write!(formatter, "{cluster}/ledger/{time}-{}-{backup}-{level}.json", LedgerKind::VERIFICATION)
            }
            Self::Drill { cluster, time, backup, proven } => {
                let result = if *proven { "proven" } else { "failed" };
                write!(formatter, "{cluster}/ledger/{time}-{}-{backup}-{result}.json", LedgerKind::DRILL)
            }
            Self::Lease { cluster, expires, run } => write!(formatter, "{cluster}/leases/{expires}-{run}.json"),
        }
    }
}

impl FromStr for ObjectPath {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
            .filter(|path| path.to_string() == text)
            .ok_or_else(|| NameError::new("repository object name", text, "see the list of names in docs/format"))
    }
}

fn split_wal_extension(stored: &str) -> Option<(&str, Codec, bool)> {
    let (stored, encrypted) = stored.strip_suffix(".enc").map_or((stored, false), |inner| (inner, true));
    let (file, extension) = stored.rsplit_once('.')?;
    let codec = Codec::ALL.into_iter().find(|codec| codec.extension() == extension)?;
    Some((file, codec, encrypted))
}

/// `<cluster>/wal/<claim>/...`: the object of a WAL file.
///
/// The codec is the claim's, so that a file has exactly one possible name and conditional create protects it. For
/// history files it is always [`Codec::Zstd`] (see [`wal_codec`]).
pub fn wal_file(
    cluster: &ClusterName,
    claim: ClaimNumber,
    file: &WalFileName,
    claim_codec: Codec,
    encrypted: bool,
) -> String {
    let codec = wal_codec(file, claim_codec);
    ObjectPath::WalFile { cluster: cluster.clone(), claim, file: *file, codec, encrypted }.to_string()
}

/// The codec of a WAL file under a claim: the claim's, except for history files, which are always zstd.
pub fn wal_codec(file: &WalFileName, claim_codec: Codec) -> Codec {
    match file {
        WalFileName::History(_) => Codec::Zstd,
        WalFileName::Segment(_) | WalFileName::Partial(_) | WalFileName::BackupHistory { .. } => claim_codec,
    }
}

/// `<cluster>/wal/<claim>/`: every WAL file of a claim.
pub fn wal_claim_folder(cluster: &ClusterName, claim: ClaimNumber) -> String {
    format!("{cluster}/wal/{claim}/")
}

/// `<cluster>/wal/<claim>/<timeline>/`: every WAL file of one timeline.
pub fn wal_timeline_folder(cluster: &ClusterName, claim: ClaimNumber, timeline: TimelineId) -> String {
    format!("{cluster}/wal/{claim}/{}/", timeline.hex())
}

/// `<cluster>/wal/<claim>/<timeline>/<16 hex>/`: the folder that contains `file`, with up to 256 segments of 16 MiB.
/// For a history file it is the folder of its timeline.
pub fn wal_log_folder(cluster: &ClusterName, claim: ClaimNumber, file: &WalFileName) -> String {
    let mut name = wal_file(cluster, claim, file, Codec::Zstd, false);
    name.truncate(name.rfind('/').map_or(0, |at| at + 1));
    name
}

/// `<cluster>/wal-tail/<claim>/<timeline>/<segment>/<start>-<end>.<codec>[.enc]`: a piece of a segment that is not
/// whole.
pub fn wal_tail(
    cluster: &ClusterName,
    claim: ClaimNumber,
    segment: SegmentName,
    range: TailRange,
    claim_codec: Codec,
    encrypted: bool,
) -> String {
    let cluster = cluster.clone();
    ObjectPath::WalTail { cluster, claim, segment, range, codec: claim_codec, encrypted }.to_string()
}

/// `<cluster>/wal-tail/<claim>/`: the pieces of every segment of a claim.
pub fn wal_tail_claim_folder(cluster: &ClusterName, claim: ClaimNumber) -> String {
    format!("{cluster}/wal-tail/{claim}/")
}

/// `<cluster>/wal-tail/<claim>/<timeline>/`: the pieces of every segment of one timeline.
pub fn wal_tail_timeline_folder(cluster: &ClusterName, claim: ClaimNumber, timeline: TimelineId) -> String {
    format!("{cluster}/wal-tail/{claim}/{}/", timeline.hex())
}

/// `<cluster>/wal-tail/<claim>/<timeline>/<segment>/`: the pieces of one segment.
pub fn wal_tail_folder(cluster: &ClusterName, claim: ClaimNumber, segment: SegmentName) -> String {
    format!("{}{segment}/", wal_tail_timeline_folder(cluster, claim, segment.timeline()))
}

/// `keys/<slot>.json`
pub fn key_slot(slot: &SlotName) -> String {
    ObjectPath::KeySlot(slot.clone()).to_string()
}

/// `keys/<slot>.removing`
pub fn key_slot_removal(slot: &SlotName) -> String {
    ObjectPath::KeySlotRemoval(slot.clone()).to_string()
}

/// `keys/`
pub fn keys_folder() -> String {
    "keys/".to_owned()
}

/// `features/`
pub fn features_folder() -> String {
    "features/".to_owned()
}

/// `<cluster>/leases/<time>-<run>.json`
pub fn lease(cluster: &ClusterName, expires: LedgerTime, run: &RunId) -> String {
    ObjectPath::Lease { cluster: cluster.clone(), expires, run: run.clone() }.to_string()
}

/// `<cluster>/leases/`
pub fn leases_folder(cluster: &ClusterName) -> String {
    format!("{cluster}/leases/")
}

/// `<cluster>/claims/<n>.json`
pub fn claim(cluster: &ClusterName, claim: ClaimNumber) -> String {
    ObjectPath::Claim { cluster: cluster.clone(), claim }.to_string()
}

/// `<cluster>/claims/`
pub fn claims_folder(cluster: &ClusterName) -> String {
    format!("{cluster}/claims/")
}

/// `<cluster>/packs/<backup id>/<6 digits>.pack`; `number` is at most [`MAX_PACK_NUMBER`].
pub fn pack(cluster: &ClusterName, backup: &BackupId, number: u32) -> String {
    debug_assert!(number <= MAX_PACK_NUMBER, "pack number {number} has more than six digits");
    ObjectPath::Pack { cluster: cluster.clone(), backup: *backup, number }.to_string()
}

/// `<cluster>/packs/<backup id>/`
pub fn packs_folder(cluster: &ClusterName, backup: &BackupId) -> String {
    format!("{cluster}/packs/{backup}/")
}

/// `<cluster>/backups/`
pub fn backups_folder(cluster: &ClusterName) -> String {
    format!("{cluster}/backups/")
}

/// `<cluster>/backups/<backup id>/`
pub fn backup_folder(cluster: &ClusterName, backup: &BackupId) -> String {
    format!("{cluster}/backups/{backup}/")
}

/// `<cluster>/backups/<backup id>/start.json`
pub fn backup_start(cluster: &ClusterName, backup: &BackupId) -> String {
    ObjectPath::BackupStart { cluster: cluster.clone(), backup: *backup }.to_string()
}

/// `<cluster>/backups/<backup id>/ended.json`
pub fn backup_end(cluster: &ClusterName, backup: &BackupId) -> String {
    ObjectPath::BackupEnd { cluster: cluster.clone(), backup: *backup }.to_string()
}

/// `<cluster>/backups/<backup id>/manifest`
pub fn manifest(cluster: &ClusterName, backup: &BackupId) -> String {
    ObjectPath::Manifest { cluster: cluster.clone(), backup: *backup }.to_string()
}

/// `<cluster>/backups/<backup id>/backup.json`
pub fn backup_summary(cluster: &ClusterName, backup: &BackupId) -> String {
    ObjectPath::BackupSummary { cluster: cluster.clone(), backup: *backup }.to_string()
}

/// `<cluster>/snapshots/<id>.json`
pub fn snapshot(cluster: &ClusterName, snapshot: &BackupId) -> String {
    ObjectPath::Snapshot { cluster: cluster.clone(), snapshot: *snapshot }.to_string()
}

/// `<cluster>/snapshots/`
pub fn snapshots_folder(cluster: &ClusterName) -> String {
    format!("{cluster}/snapshots/")
}

/// `<cluster>/ledger/<time>-<kind>.json`
pub fn ledger(cluster: &ClusterName, time: LedgerTime, kind: LedgerKind) -> String {
    ObjectPath::Ledger { cluster: cluster.clone(), time, kind }.to_string()
}

/// `<cluster>/ledger/<time>-verification-<backup id>-<shallow or deep>.json`
pub fn verification(cluster: &ClusterName, time: LedgerTime, backup: &BackupId, deep: bool) -> String {
    ObjectPath::Verification { cluster: cluster.clone(), time, backup: *backup, deep }.to_string()
}

/// `<cluster>/ledger/<time>-drill-<backup id>-<proven or failed>.json`
pub fn drill(cluster: &ClusterName, time: LedgerTime, backup: &BackupId, proven: bool) -> String {
    ObjectPath::Drill { cluster: cluster.clone(), time, backup: *backup, proven }.to_string()
}

/// `<cluster>/ledger/`
pub fn ledger_folder(cluster: &ClusterName) -> String {
    format!("{cluster}/ledger/")
}
