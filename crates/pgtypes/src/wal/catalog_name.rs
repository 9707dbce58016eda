//! The name of a relation, as the hash by which the catalog cache knows it.
//!
//! WAL does not have the name of a relation that is dropped. But the commit tells other backends which rows of
//! `pg_class` changed, by the hash of their key in the cache `RELNAMENSP`: name and schema (`SharedInvalCatcacheMsg`).
//! So a name can be looked for, and it cannot be read back.
//!
//! The hash is `CatalogCacheComputeHashValue` (`catcache.c`): the hash of the name, combined with that of the schema's
//! OID. For a given name each hash belongs to exactly one OID, because `murmurhash32` maps no two numbers to one. So
//! [`RelationNameHash::schema`] computes the schema. A name that is not meant gives a random number, hardly ever the
//! OID of a schema that exists.
//!
//! A table or view also has a row type of the same name, in the cache `TYPENAMENSP` with the same hash. It changes when
//! the relation is made, dropped or renamed, and not when it is truncated or rewritten.

use crate::version::PgVersion;

/// The OID of the schema `public`, `PG_PUBLIC_NAMESPACE`.
pub const PUBLIC_SCHEMA: u32 = 2200;

/// The longest name in bytes, `NAMEDATALEN - 1`.
const MAX_NAME_BYTES: usize = 63;

/// The numbers of the caches `RELNAMENSP` and `TYPENAMENSP` (`syscache.h`; `syscache_ids.h` since 17). Caches are
/// numbered in the order of their names, so a new one moves those after it.
pub(crate) const fn name_caches(version: PgVersion) -> (u8, u8) {
    match version.major() {
        ..=13 => (49, 74),
        14 => (50, 75),
        15..=17 => (54, 79),
        _ => (56, 81),
    }
}

/// A name to look for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelationNameHash(u32);

impl RelationNameHash {
    /// The hash of a name, as PostgreSQL stores it: in lower case unless it was quoted. A longer name is cut to 63
    /// bytes, as PostgreSQL does.
    pub fn of(name: &str) -> Self {
        let mut end = name.len().min(MAX_NAME_BYTES);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        Self(hash_bytes(name.get(..end).unwrap_or(name).as_bytes()))
    }

    /// The hash of this name in a schema.
    pub const fn in_schema(self, schema: u32) -> u32 {
        self.0 ^ murmur(schema).rotate_left(8)
    }

    /// The OID of the schema in which this name has this hash.
    pub const fn schema(self, hash: u32) -> u32 {
        unmurmur((self.0 ^ hash).rotate_right(8))
    }
}

/// `murmurhash32` (`hashfn.h`), the hash of an OID.
const fn murmur(number: u32) -> u32 {
    let mut h = number;
    h ^= h >> 16;
    h = h.wrapping_mul(0x85EB_CA6B);
    h ^= h >> 13;
    h = h.wrapping_mul(0xC2B2_AE35);
    h ^ h >> 16
}

/// The number with this `murmurhash32`: its steps in the other direction.
const fn unmurmur(hash: u32) -> u32 {
    /// The inverses of the two factors, modulo 2^32.
    const FIRST: u32 = inverse(0x85EB_CA6B);
    const SECOND: u32 = inverse(0xC2B2_AE35);
    let mut h = hash;
    h ^= h >> 16;
    h = h.wrapping_mul(SECOND);
    h ^= h >> 13 ^ h >> 26;
    h = h.wrapping_mul(FIRST);
    h ^ h >> 16
}

/// The number that gives 1 with an odd factor, modulo 2^32. Each of Newton's steps doubles the bits that are right, and
/// the factor itself is right in three.
const fn inverse(factor: u32) -> u32 {
    let mut found = factor;
    let mut step = 0;
    while step < 4 {
        found = found.wrapping_mul(2_u32.wrapping_sub(factor.wrapping_mul(found)));
        step += 1;
    }
    found
}

/// `hash_bytes` (`hashfn.c`): the hash of Bob Jenkins, on words of four bytes.
fn hash_bytes(key: &[u8]) -> u32 {
    let initial = 0x9E37_79B9_u32.wrapping_add(key.len() as u32).wrapping_add(3_923_095);
    let (mut a, mut b, mut c) = (initial, initial, initial);
    let mut blocks = key.chunks_exact(12);
    for block in blocks.by_ref() {
        a = a.wrapping_add(word(block, 0));
        b = b.wrapping_add(word(block, 4));
        c = c.wrapping_add(word(block, 8));
        (a, b, c) = mix(a, b, c);
    }
    let rest = blocks.remainder();
    a = a.wrapping_add(word(rest, 0));
    b = b.wrapping_add(word(rest, 4));
    // The lowest byte of c is for the length, which it has from the beginning.
    c = c.wrapping_add(word(rest, 8) << 8);
    last_mix(a, b, c)
}

/// Up to four bytes, little-endian; missing ones are 0.
fn word(bytes: &[u8], offset: usize) -> u32 {
    let bytes = bytes.get(offset..).unwrap_or_default();
    bytes.iter().take(4).enumerate().fold(0, |word, (n, byte)| word | u32::from(*byte) << (8 * n))
}

/// `mix` (`hashfn.c`)
const fn mix(mut a: u32, mut b: u32, mut c: u32) -> (u32, u32, u32) {
    a = a.wrapping_sub(c) ^ c.rotate_left(4);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(6);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(8);
    b = b.wrapping_add(a);
    a = a.wrapping_sub(c) ^ c.rotate_left(16);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(19);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(4);
    b = b.wrapping_add(a);
    (a, b, c)
}

/// `final` (`hashfn.c`)
const fn last_mix(mut a: u32, mut b: u32, mut c: u32) -> u32 {
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_schema_is_found_again(name in "\\PC{0,80}", schema: u32) {
            let hash = RelationNameHash::of(&name);
            prop_assert_eq!(hash.schema(hash.in_schema(schema)), schema);
        }
    }
}
