//! Frames of files by reference: entries that have not changed since an earlier backup are in that backup's manifest.
//!
//! A manifest lists the manifests that it refers to ([`Origin`]), each with a table from the numbers of its packs to
//! the numbers in the list of this one. A reference then takes the place of the frame. It names the object that holds
//! the bytes, so there is never more than one step: a reference to a frame of references is refused.

use super::names::{LONGEST_NAME, MOST_ORIGINS, read_name};
use crate::chunk::ChunkHash;
use crate::codec::MAX_FRAME_STORED;
use crate::format_error::Fault;
use crate::frame::{FrameLocation, HEADER_BYTES};
use crate::name::ObjectPath;
use crate::varint::{Reader, put_bytes, put_varint};

/// A referenced frame counts as at least this many raw bytes, because each one costs a reader of the manifest a
/// request.
pub(super) const LEAST_OF_REFERENCE: u64 = 4096;

/// The most numbers in all tables of one manifest: as many as eight lists of packs of the largest size.
const MOST_NUMBERS: usize = 8 << 20;

/// The size of the shortest reference, in bytes: three varints of one byte and the hash.
const SHORTEST_REFERENCE: usize = 3 + 32;

/// A manifest to whose frames of files another one refers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The full name of the object.
    pub name: String,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// The salt in its head, with the key epoch; zeros in a repository without encryption.
    pub salt: [u8; 32],
    /// For each of its packs, the number in the list of the referring manifest; `None` for a pack that is not needed.
    pub packs: Vec<Option<u32>>,
}

/// A frame of files in another manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameReference {
    /// The position of the manifest among the origins.
    pub origin: u32,
    /// The place of the frame.
    pub location: FrameLocation,
    /// The hash of its raw bytes, with the section's number.
    pub hash: ChunkHash,
}

pub(super) fn put_origins(out: &mut Vec<u8>, origins: &[Origin]) {
    put_varint(out, origins.len() as u64);
    for Origin { name, size_bytes, salt, packs } in origins {
        put_bytes(out, name.as_bytes());
        put_varint(out, *size_bytes);
        out.extend_from_slice(salt);
        put_varint(out, packs.len() as u64);
        for number in packs {
            put_varint(out, number.map_or(0, |number| u64::from(number) + 1));
        }
    }
}

pub(super) fn read_origins(content: &[u8]) -> Result<Vec<Origin>, Fault> {
    let reader = &mut Reader::new("list of referenced manifests", content);
    let count = reader.count(3 + 32)?;
    if count > MOST_ORIGINS {
        return Err(reader.malformed(format!("{count} referenced manifests")));
    }
    let mut origins = Vec::with_capacity(count);
    let mut numbers = 0_usize;
    for _ in 0..count {
        let name = read_name(reader)?;
        check_name(&name)?;
        let (size_bytes, salt) = (reader.varint()?, reader.array()?);
        let packs = reader.count(1)?;
        numbers += packs;
        if numbers > MOST_NUMBERS {
            return Err(reader.malformed("tables of packs that are too long"));
        }
        let read = |reader: &mut Reader<'_>| Ok(reader.varint_u32("pack number")?.checked_sub(1));
        let packs = (0..packs).map(|_| read(reader)).collect::<Result<_, Fault>>()?;
        origins.push(Origin { name, size_bytes, salt, packs });
    }
    if reader.is_empty() {
        Ok(origins)
    } else {
        Err(reader.malformed(format!("{} bytes too many", reader.remaining())))
    }
}

/// Refuses a name that is not that of a manifest.
pub(super) fn check_name(name: &str) -> Result<(), Fault> {
    match name.parse() {
        Ok(ObjectPath::Manifest { .. }) if name.len() <= LONGEST_NAME => Ok(()),
        _ => Err(Fault::malformed("list of referenced manifests", format!("`{name}` is not the name of a manifest"))),
    }
}

pub(super) fn put_references(out: &mut Vec<u8>, references: &[FrameReference]) {
    for FrameReference { origin, location, hash } in references {
        put_varint(out, u64::from(*origin));
        put_varint(out, u64::from(location.offset));
        put_varint(out, u64::from(location.length));
        out.extend_from_slice(hash.as_bytes());
    }
}

/// Reads the references of one frame. The places must be in the objects that they name.
pub(super) fn read_references(content: &[u8], origins: &[Origin]) -> Result<Vec<FrameReference>, Fault> {
    let reader = &mut Reader::new("reference to files", content);
    let mut references = Vec::with_capacity(content.len() / SHORTEST_REFERENCE);
    while !reader.is_empty() {
        let origin = reader.varint_u32("manifest number")?;
        let location =
            FrameLocation { offset: reader.varint_u32("frame offset")?, length: reader.varint_u32("frame length")? };
        let named = origins.get(origin as usize).ok_or_else(|| reader.malformed("a manifest that is not listed"))?;
        if (location.length as usize) <= HEADER_BYTES
            || location.length as usize > HEADER_BYTES + MAX_FRAME_STORED as usize
            || location.range().end > named.size_bytes
        {
            return Err(reader.malformed("a frame that is not in its manifest"));
        }
        references.push(FrameReference { origin, location, hash: ChunkHash::from_bytes(reader.array()?) });
    }
    Ok(references)
}
