//! Compares a stored object with the bytes that should be in it. A lost answer is judged in this way.

use crate::{ObjectName, Store, StoreError};

/// How much is read at once if the store keeps no checksum; it limits the memory.
const READ_BYTES: u64 = 8 << 20;

/// Whether `name` holds exactly `size_bytes` bytes with this CRC-32C. Trusts the store's checksum; reads the object if
/// there is none.
pub(crate) async fn same_content(
    store: &dyn Store,
    name: &ObjectName,
    size_bytes: u64,
    crc32c: u32,
) -> Result<bool, StoreError> {
    let info = store.head(name).await?;
    if info.size_bytes != size_bytes {
        return Ok(false);
    }
    if let Some(stored) = info.crc32c {
        return Ok(stored == crc32c);
    }
    let mut found = 0;
    let mut start = 0;
    while start < size_bytes {
        let end = size_bytes.min(start + READ_BYTES);
        found = crc32c::crc32c_append(found, &store.get_range(name, start..end).await?);
        start = end;
    }
    Ok(found == crc32c)
}
