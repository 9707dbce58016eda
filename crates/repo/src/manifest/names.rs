//! Names of objects in the lists of a manifest: packs, and the manifests to which it refers.

use crate::format_error::Fault;
use crate::varint::Reader;

/// The longest accepted name of an object in these lists; every name of the format is shorter.
pub(super) const LONGEST_NAME: usize = 128;

/// The most manifests that one may refer to.
pub(super) const MOST_ORIGINS: usize = 4096;

/// Reads the name of an object, of at most [`LONGEST_NAME`] bytes.
pub(super) fn read_name(reader: &mut Reader<'_>) -> Result<String, Fault> {
    let name = reader.bytes()?;
    if name.len() > LONGEST_NAME {
        return Err(reader.malformed("a name that is too long"));
    }
    String::from_utf8(name.to_vec()).map_err(|_| reader.malformed("the name of an object is not UTF-8"))
}
