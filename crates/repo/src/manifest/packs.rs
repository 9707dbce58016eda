//! The list of packs at the end of a manifest, with the manifests whose frames it refers to.
//!
//! It is the frame before the tail, so that the end of the manifest is enough to know which objects a backup needs
//! ([`ManifestEnd`]).

use super::SECTION_PACKS;
use super::names::{LONGEST_NAME, MOST_ORIGINS, read_name};
use super::reach::Reach;
use crate::codec::MAX_FRAME_RAW;
use crate::format_error::{Fault, FormatError};
use crate::frame::{FrameKind, ObjectOpener, TailPart, locate_last_part};
use crate::varint::{Reader, put_bytes, put_varint};

/// The most packs that a manifest may name: a little more than one backup can number
/// ([`crate::name::MAX_PACK_NUMBER`]).
const MOST_PACKS: usize = 1 << 20;

/// The size of the shortest entry, in bytes: five varints of one byte.
const SHORTEST_PACK: usize = 5;

/// Flag of a pack: salt and CRC-32C follow.
const HAS_IDENTITY: u64 = 1;

/// A pack that extents refer to by its position in the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackEntry {
    /// The pack's full object name.
    pub name: String,
    /// The pack's size in bytes.
    pub size_bytes: u64,
    /// About how many bytes of its frames this backup needs.
    pub live_bytes: u64,
    /// Distinguishes this object from any other with the same name; `None` if it is not recorded.
    pub identity: Option<PackIdentity>,
}

/// Distinguishes an object from any other with the same name and size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackIdentity {
    /// The salt in its head, with the key epoch; zeros in a repository without encryption.
    pub salt: [u8; 32],
    /// CRC-32C of all of its bytes.
    pub crc32c: u32,
}

impl PackEntry {
    /// A pack with only name and size known.
    pub fn new(name: String, size_bytes: u64) -> Self {
        Self { name, size_bytes, live_bytes: 0, identity: None }
    }
}

/// The end of a manifest: all other objects that its backup needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestEnd {
    /// The packs that hold its data, also those of other backups.
    pub packs: Vec<PackEntry>,
    /// The names of the manifests to whose frames of files it refers.
    pub origins: Vec<String>,
}

impl ManifestEnd {
    /// Reads this from the last bytes of a manifest of the given size, or returns the range of bytes to fetch.
    ///
    /// # Errors
    /// [`Fault::Malformed`] if there is no list of packs before the tail, or it is damaged; the errors of opening its
    /// frame.
    pub fn from_end(opener: &ObjectOpener, end: &[u8], object_size: u64) -> Result<TailPart<Self>, FormatError> {
        match locate_last_part(opener, end, object_size, FrameKind::Data, MAX_FRAME_RAW)? {
            TailPart::Fetch(range) => Ok(TailPart::Fetch(range)),
            TailPart::Complete((_, frame)) => {
                let read = || match frame.raw.split_first() {
                    Some((&SECTION_PACKS, content)) => Self::read(content),
                    _ => Err(Fault::malformed("manifest", "no list of packs before the tail")),
                };
                Ok(TailPart::Complete(read().map_err(|fault| fault.of(opener.name()))?))
            }
        }
    }

    pub(super) fn read(content: &[u8]) -> Result<Self, Fault> {
        let reader = &mut Reader::new("list of packs", content);
        let packs = read_packs(reader)?;
        let count = reader.count(2)?;
        if count > MOST_ORIGINS {
            return Err(reader.malformed(format!("{count} referenced manifests")));
        }
        let mut origins = Vec::with_capacity(count);
        for _ in 0..count {
            origins.push(read_name(reader)?);
        }
        if reader.is_empty() {
            Ok(Self { packs, origins })
        } else {
            Err(reader.malformed(format!("{} bytes too many", reader.remaining())))
        }
    }

    /// Appends the raw bytes of the section. `reach` has the needed bytes of each pack.
    pub(super) fn put(out: &mut Vec<u8>, packs: &[PackEntry], origins: &[&str], reach: &Reach) {
        out.push(SECTION_PACKS);
        put_varint(out, packs.len() as u64);
        let mut before: &str = "";
        for (pack, number) in packs.iter().zip(0..) {
            let PackEntry { name, size_bytes, identity, .. } = pack;
            let shared = before.bytes().zip(name.bytes()).take_while(|(a, b)| a == b).count();
            put_varint(out, shared as u64);
            put_bytes(out, name.as_bytes().get(shared..).unwrap_or_default());
            before = name;
            put_varint(out, *size_bytes);
            put_varint(out, reach.live_bytes(number).unwrap_or(0).min(*size_bytes));
            put_varint(out, if identity.is_some() { HAS_IDENTITY } else { 0 });
            if let Some(PackIdentity { salt, crc32c }) = identity {
                out.extend_from_slice(salt);
                out.extend_from_slice(&crc32c.to_le_bytes());
            }
        }
        put_varint(out, origins.len() as u64);
        for origin in origins {
            put_bytes(out, origin.as_bytes());
        }
    }
}

fn read_packs(reader: &mut Reader<'_>) -> Result<Vec<PackEntry>, Fault> {
    let count = reader.count(SHORTEST_PACK)?;
    if count > MOST_PACKS {
        return Err(Fault::TooLong { what: "list of packs", bytes: count as u64, limit: MOST_PACKS as u64 });
    }
    let mut packs: Vec<PackEntry> = Vec::with_capacity(count);
    for _ in 0..count {
        let before = packs.last().map_or(&b""[..], |pack| pack.name.as_bytes());
        let shared = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
        let shared = before.get(..shared).ok_or_else(|| reader.malformed("a name shares more than there is"))?;
        let own = reader.bytes()?;
        if shared.len() + own.len() > LONGEST_NAME {
            return Err(reader.malformed("a name that is too long"));
        }
        let name = String::from_utf8([shared, own].concat())
            .map_err(|_| reader.malformed("the name of a pack is not UTF-8"))?;
        let (size_bytes, live_bytes, flags) = (reader.varint()?, reader.varint()?, reader.varint()?);
        if flags & !HAS_IDENTITY != 0 {
            return Err(Fault::UnknownPackFlags(flags & !HAS_IDENTITY));
        }
        let identity = if flags & HAS_IDENTITY == 0 {
            None
        } else {
            Some(PackIdentity { salt: reader.array()?, crc32c: u32::from_le_bytes(reader.array()?) })
        };
        // The number is approximate; a wrong one must not make a sum overflow.
        packs.push(PackEntry { name, size_bytes, live_bytes: live_bytes.min(size_bytes), identity });
    }
    Ok(packs)
}
