//! From a passphrase or a key file to the key that wraps the repository key, and the parameters of a slot.

use super::error::KeyError;
use super::x25519::Recipient;
use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::hkdf;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The least memory for a passphrase, in KiB: 8 MiB. With less, guessing is too cheap.
pub const MIN_MEMORY_KIB: u32 = 8 * 1024;
/// The most memory for a passphrase, in KiB: 1 GiB. A slot with a higher value is hostile or damaged.
pub const MAX_MEMORY_KIB: u32 = 1024 * 1024;
/// The most passes over that memory.
pub const MAX_ITERATIONS: u32 = 64;
/// The most lanes.
pub const MAX_PARALLELISM: u32 = 16;
/// `MAX_MEMORY_KIB` and `MAX_ITERATIONS` together would take minutes; this bounds their product (8 passes over 1 GiB).
const MAX_WORK_KIB: u64 = 8 * MAX_MEMORY_KIB as u64;

pub(super) const SALT_BYTES: usize = 32;
const MIN_SALT_BYTES: usize = 16;
const MAX_SALT_BYTES: usize = 64;

/// Separates the key of a key file from any other use of the same file with HKDF.
const KEY_FILE_INFO: &[u8] = b"holdfast/1/key-file";

/// The cost of trying one passphrase, as Argon2id parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Argon2Cost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub iterations: u32,
    /// The number of lanes, which may be computed in parallel.
    pub parallelism: u32,
}

impl Default for Argon2Cost {
    /// 64 MiB, 3 passes, 1 lane, about 110 ms of a core: the second recommendation of RFC 9106, with one lane instead
    /// of four, because an `archive_command` should not use four cores.
    fn default() -> Self {
        Self { memory_kib: 64 * 1024, iterations: 3, parallelism: 1 }
    }
}

/// The derivation of a slot's wrapping key, as the slot records it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kdf {
    pub(super) algorithm: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) memory_kib: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) iterations: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) parallelism: Option<u32>,
    /// In hexadecimal; an X25519 slot has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) salt: String,
    /// The public key of an X25519 slot, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) recipient: Option<String>,
    /// The public half of the pair that was made for this X25519 slot, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ephemeral: Option<String>,
}

pub(super) type WrappingKey = Zeroizing<[u8; 32]>;

const ARGON2ID: &str = "argon2id";
const HKDF_SHA256: &str = "hkdf-sha256";
const X25519: &str = "x25519-hkdf-sha256";

impl Kdf {
    pub(super) fn argon2id(cost: Argon2Cost, salt: &[u8]) -> Self {
        Self {
            algorithm: ARGON2ID.to_owned(),
            memory_kib: Some(cost.memory_kib),
            iterations: Some(cost.iterations),
            parallelism: Some(cost.parallelism),
            salt: hex::encode(salt),
            recipient: None,
            ephemeral: None,
        }
    }

    pub(super) fn hkdf_sha256(salt: &[u8]) -> Self {
        Self {
            algorithm: HKDF_SHA256.to_owned(),
            memory_kib: None,
            iterations: None,
            parallelism: None,
            salt: hex::encode(salt),
            recipient: None,
            ephemeral: None,
        }
    }

    pub(super) fn x25519(recipient: &Recipient, ephemeral: &Recipient) -> Self {
        Self {
            algorithm: X25519.to_owned(),
            memory_kib: None,
            iterations: None,
            parallelism: None,
            salt: String::new(),
            recipient: Some(hex::encode(recipient.as_bytes())),
            ephemeral: Some(hex::encode(ephemeral.as_bytes())),
        }
    }

    /// The public key for which the slot was made.
    pub(super) fn recipient(&self) -> Result<Recipient, KeyError> {
        self.public(self.recipient.as_deref())
    }

    /// The public half of the slot's own key pair.
    pub(super) fn ephemeral(&self) -> Result<Recipient, KeyError> {
        self.public(self.ephemeral.as_deref())
    }

    fn public(&self, digits: Option<&str>) -> Result<Recipient, KeyError> {
        if self.algorithm != X25519 {
            return Err(self.unsupported("this algorithm is not known for private keys"));
        }
        let bytes = digits.and_then(|digits| hex::decode(digits).ok()).and_then(|bytes| bytes.try_into().ok());
        bytes
            .map(Recipient::from_bytes)
            .ok_or(KeyError::Malformed { problem: "a public key in it is not 32 bytes of hex" })
    }

    pub(super) fn derive_from_passphrase(&self, passphrase: &[u8]) -> Result<WrappingKey, KeyError> {
        if self.algorithm != ARGON2ID {
            return Err(self.unsupported("this algorithm is not known for passphrases"));
        }
        let (Some(memory_kib), Some(iterations), Some(parallelism)) =
            (self.memory_kib, self.iterations, self.parallelism)
        else {
            return Err(KeyError::Malformed { problem: "argon2id parameters are missing" });
        };
        if !(MIN_MEMORY_KIB..=MAX_MEMORY_KIB).contains(&memory_kib) {
            return Err(self.unsupported("memory must be 8 MiB to 1 GiB"));
        }
        if !(1..=MAX_ITERATIONS).contains(&iterations) || u64::from(memory_kib) * u64::from(iterations) > MAX_WORK_KIB {
            return Err(
                self.unsupported("iterations must be 1 to 64, and may pass over at most 8 GiB of memory in total")
            );
        }
        if !(1..=MAX_PARALLELISM).contains(&parallelism) {
            return Err(self.unsupported("parallelism must be 1 to 16"));
        }
        let salt = self.salt_bytes()?;
        let params = Params::new(memory_kib, iterations, parallelism, Some(32))
            .map_err(|_| self.unsupported("the parameters do not fit together"))?;
        let mut key = WrappingKey::default();
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase, &salt, key.as_mut_slice())
            .map_err(|_| self.unsupported("the derivation failed, perhaps because there is too little memory"))?;
        Ok(key)
    }

    pub(super) fn derive_from_key_file(&self, content: &[u8]) -> Result<WrappingKey, KeyError> {
        if self.algorithm != HKDF_SHA256 {
            return Err(self.unsupported("this algorithm is not known for key files"));
        }
        let salt = self.salt_bytes()?;
        let mut key = WrappingKey::default();
        hkdf::Salt::new(hkdf::HKDF_SHA256, &salt)
            .extract(content)
            .expand(&[KEY_FILE_INFO], hkdf::HKDF_SHA256)
            .and_then(|output| output.fill(key.as_mut_slice()))
            .map_err(|_| self.unsupported("the derivation failed"))?;
        Ok(key)
    }

    fn salt_bytes(&self) -> Result<Vec<u8>, KeyError> {
        let malformed = KeyError::Malformed { problem: "the salt is not 16 to 64 bytes of hex" };
        match hex::decode(&self.salt) {
            Ok(salt) if (MIN_SALT_BYTES..=MAX_SALT_BYTES).contains(&salt.len()) => Ok(salt),
            _ => Err(malformed),
        }
    }

    fn unsupported(&self, problem: &'static str) -> KeyError {
        KeyError::UnsupportedKdf { algorithm: self.algorithm.clone(), problem }
    }
}
