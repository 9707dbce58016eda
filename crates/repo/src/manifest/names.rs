//! Names of objects in the lists of a manifest: of packs, and of the manifests that it refers to.

use crate::format_error::Fault;
use crate::varint::Reader;

/// The longest name of an object in these lists: the longest that the format has is shorter.
pub(super) const LONGEST_NAME: usize = 128;

/// The most manifests that one may refer to.
pub(super) const MOST_ORIGINS: usize = 4096;

/// The name of an object, of a length that one can have.
pub(super) fn read_name(reader: &mut Reader<'_>) -> Result<String, Fault> {
    let name = reader.bytes()?;
    if name.len() > LONGEST_NAME {
        return Err(reader.malformed("a name that is too long"));
    }
    String::from_utf8(name.to_vec()).map_err(|_| reader.malformed("the name of an object is not UTF-8"))
}
