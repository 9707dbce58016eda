//! Why a key slot does not open or cannot be made.

use thiserror::Error;

use super::KeySlotKind;
use crate::name::SlotName;

/// Why a slot does not open or cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyError {
    /// The passphrase does not belong to the slot, or the slot was changed or belongs to another repository.
    #[error("the passphrase does not open key slot {slot}")]
    WrongPassphrase {
        /// The slot that was tried.
        slot: SlotName,
    },
    /// The key file does not belong to the slot, or the slot was changed or belongs to another repository.
    #[error("the key file does not open key slot {slot}")]
    WrongKeyFile {
        /// The slot that was tried.
        slot: SlotName,
    },
    /// The private key does not belong to the slot, or the slot was changed or belongs to another repository.
    #[error("the private key does not open key slot {slot}")]
    WrongPrivateKey {
        /// The slot that was tried.
        slot: SlotName,
    },
    /// The slot opens with the other kind of secret.
    #[error("key slot {slot} does not open with this kind of secret, it is a {kind:?} slot")]
    WrongKind {
        /// The slot that was tried.
        slot: SlotName,
        /// The kind of secret that opens it.
        kind: KeySlotKind,
    },
    /// The slot is damaged.
    #[error("the key slot is damaged: {problem}")]
    Malformed {
        /// What is wrong with the slot.
        problem: &'static str,
    },
    /// The key derivation is unknown, or its parameters are outside the safe limits.
    #[error("key derivation {algorithm:?} is not supported: {problem}")]
    UnsupportedKdf {
        /// The algorithm in the slot.
        algorithm: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The secret is too weak for a new slot.
    #[error("the secret is too weak: {problem}")]
    WeakSecret {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The system gave no random bytes, or the cipher failed.
    #[error("the cryptographic library failed")]
    Crypto,
}
