//! X25519 key pairs: the public half makes a key slot, and only the private half opens it.
//!
//! The text forms are those of age (age-encryption.org): Bech32 with the prefixes `age` for a [`Recipient`], the public
//! half, and `AGE-SECRET-KEY-` for a [`PrivateKey`]. So a key pair that somebody has can be used, and a new one can be
//! used elsewhere. What is encrypted is not in age's format: see `docs/format/keys.md`.
//!
//! Each slot has an ephemeral key pair of its own, whose private half is forgotten. The wrapping key is derived from
//! the shared secret and both public halves, as in age and in RFC 9180.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::agreement::{self, UnparsedPublicKey, X25519};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use holdfast_secret::Secret;
use zeroize::Zeroizing;

use super::bech32;
use super::error::KeyError;
use super::kdf::WrappingKey;
use super::wrap::random;

const RECIPIENT_PREFIX: &str = "age";
const PRIVATE_PREFIX: &str = "age-secret-key-";

/// Separates this use of a key pair from others, such as age's.
const INFO: &[u8] = b"holdfast/1/x25519";

const KEY_BYTES: usize = 32;

/// A text that is not a key of the expected kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeyTextError(&'static str);

/// The public half of a key pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Recipient([u8; KEY_BYTES]);

impl Recipient {
    pub(super) fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    pub(super) fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// A wrapping key that only the private half derives again, and the public half of the ephemeral pair.
    pub(super) fn new_wrapping_key(&self) -> Result<(WrappingKey, Self), KeyError> {
        let ephemeral = PrivateKey::random()?;
        let public = ephemeral.recipient()?;
        Ok((ephemeral.agree(self, &public, self)?, public))
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&bech32::encode(RECIPIENT_PREFIX, &self.0))
    }
}

impl FromStr for Recipient {
    type Err = KeyTextError;

    /// Reads a recipient of age (`age1...`).
    fn from_str(text: &str) -> Result<Self, KeyTextError> {
        let text = text.trim();
        if text.to_ascii_lowercase().starts_with(PRIVATE_PREFIX) {
            return Err(KeyTextError("it is a private key: give its public half, which begins with age1"));
        }
        let wrong = KeyTextError("it is not a public key of the form age1... with 62 characters");
        bech32::decode(RECIPIENT_PREFIX, text).and_then(|bytes| bytes.as_slice().try_into().ok()).map(Self).ok_or(wrong)
    }
}

/// The private half of a key pair. Does not print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrivateKey(Secret<[u8; KEY_BYTES]>);

impl PrivateKey {
    /// A new random key pair.
    ///
    /// # Errors
    /// [`KeyError::Crypto`] if the system gives no random bytes.
    pub fn random() -> Result<Self, KeyError> {
        Ok(Self(Secret::new(random::<KEY_BYTES>()?)))
    }

    /// The public half.
    ///
    /// # Errors
    /// [`KeyError::Crypto`] if the library fails.
    pub fn recipient(&self) -> Result<Recipient, KeyError> {
        let public = self.of_library()?.compute_public_key().map_err(|_| KeyError::Crypto)?;
        public.as_ref().try_into().map(Recipient).map_err(|_| KeyError::Crypto)
    }

    /// The text form (`AGE-SECRET-KEY-1...`).
    pub fn to_text(&self) -> Secret {
        Secret::new(bech32::encode(PRIVATE_PREFIX, self.0.expose()).to_ascii_uppercase())
    }

    /// Reads the content of a key file: a line with a private key; lines that are empty or begin with `#` do not count.
    ///
    /// # Errors
    /// If there is no private key, or more than one, because nobody could tell which one counts.
    pub fn from_file(content: &str) -> Result<Self, KeyTextError> {
        let mut lines = content.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        match (lines.next(), lines.next()) {
            (Some(line), None) => Self::from_text(line),
            (None, _) => Err(KeyTextError("it has no private key")),
            (Some(_), Some(_)) => Err(KeyTextError("it has more than one line with a key: write one key in it")),
        }
    }

    /// Whether a file with this content is meant to hold a private key.
    pub fn is_meant(content: &[u8]) -> bool {
        let prefix = PRIVATE_PREFIX.as_bytes();
        content.len() > KEY_BYTES && content.windows(prefix.len()).any(|part| part.eq_ignore_ascii_case(prefix))
    }

    fn from_text(text: &str) -> Result<Self, KeyTextError> {
        let wrong = KeyTextError("it is not a private key of the form AGE-SECRET-KEY-1... with 74 characters");
        let bytes = bech32::decode(PRIVATE_PREFIX, text).map(Zeroizing::new);
        let bytes = bytes.and_then(|bytes| <[u8; KEY_BYTES]>::try_from(bytes.as_slice()).ok());
        bytes.map(|bytes| Self(Secret::new(bytes))).ok_or(wrong)
    }

    /// The wrapping key of a slot for this key pair.
    pub(super) fn wrapping_key(&self, ephemeral: &Recipient) -> Result<WrappingKey, KeyError> {
        self.agree(ephemeral, ephemeral, &self.recipient()?)
    }

    /// Derives the key from the secret that this private key shares with `peer`.
    fn agree(&self, peer: &Recipient, ephemeral: &Recipient, recipient: &Recipient) -> Result<WrappingKey, KeyError> {
        // Points of small order, with which everybody shares the same secret, are refused by the library.
        let refused = KeyError::Malformed { problem: "its ephemeral key is not a usable X25519 key" };
        let salt = [ephemeral.0, recipient.0].concat();
        agreement::agree(&self.of_library()?, UnparsedPublicKey::new(&X25519, peer.0), refused, |shared| {
            let mut key = WrappingKey::default();
            Salt::new(HKDF_SHA256, &salt)
                .extract(shared)
                .expand(&[INFO], HKDF_SHA256)
                .and_then(|output| output.fill(key.as_mut_slice()))
                .map_err(|_| KeyError::Crypto)?;
            Ok(key)
        })
    }

    fn of_library(&self) -> Result<agreement::PrivateKey, KeyError> {
        agreement::PrivateKey::from_private_key(&X25519, self.0.expose()).map_err(|_| KeyError::Crypto)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    /// Bob's pair of RFC 7748, section 6.1, in the forms of age.
    #[test]
    fn a_known_pair_has_its_public_half() {
        let private = "AGE-SECRET-KEY-1TK4SSLNZF29YK70P079C8QQWUEHNHVFFYCVTDLGU979J0LUGUR4SMHZYQ2";
        let public = "age1m60dkltm0hqmf56mv8pweep4xulcxs7gtduxwnddl3lpgmug9d8s0dmj33";
        let key = PrivateKey::from_file(private).unwrap();
        assert_eq!(key.recipient().unwrap().to_string(), public);
        assert_eq!(key.to_text().expose(), private);
        let bytes = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f";
        assert_eq!(hex::encode(public.parse::<Recipient>().unwrap().as_bytes()), bytes);
    }

    #[test]
    fn texts_round_trip_and_bad_ones_are_refused() {
        let key = PrivateKey::random().unwrap();
        let (secret, public) = (key.to_text(), key.recipient().unwrap().to_string());
        assert!(secret.expose().starts_with("AGE-SECRET-KEY-1") && secret.expose().len() == 74);
        assert!(public.starts_with("age1") && public.len() == 62, "{public}");
        let file = format!("# created: today\n# public key: {public}\n\n{}\n", secret.expose());
        assert_eq!(PrivateKey::from_file(&file).unwrap(), key);
        assert_eq!(format!(" {public}\n").parse::<Recipient>().unwrap(), key.recipient().unwrap());
        assert!(PrivateKey::is_meant(file.as_bytes()) && !PrivateKey::is_meant(&[7; 32]));

        let changed = public.replace(&public[10..11], if &public[10..11] == "q" { "p" } else { "q" });
        for (text, reason) in [
            (changed.as_str(), "it is not a public key of the form age1... with 62 characters"),
            ("age1", "it is not a public key of the form age1... with 62 characters"),
            (secret.expose(), "it is a private key: give its public half, which begins with age1"),
        ] {
            assert_eq!(text.parse::<Recipient>().unwrap_err().to_string(), reason, "{text}");
        }
        for (text, reason) in [
            ("# nothing", "it has no private key"),
            (public.as_str(), "it is not a private key of the form AGE-SECRET-KEY-1... with 74 characters"),
            (&format!("{0}\n{0}", secret.expose()), "it has more than one line with a key: write one key in it"),
        ] {
            assert_eq!(PrivateKey::from_file(text).unwrap_err().to_string(), reason, "{text}");
        }
        assert!(!format!("{key:?}").contains(&secret.expose()[20..30]));
    }

    #[test]
    fn only_the_private_half_derives_the_wrapping_key() {
        let (key, other) = (PrivateKey::random().unwrap(), PrivateKey::random().unwrap());
        let (wrapping, ephemeral) = key.recipient().unwrap().new_wrapping_key().unwrap();
        assert_eq!(key.wrapping_key(&ephemeral).unwrap(), wrapping);
        assert_ne!(other.wrapping_key(&ephemeral).unwrap(), wrapping);
        let (another, _) = key.recipient().unwrap().new_wrapping_key().unwrap();
        assert_ne!(another, wrapping, "each slot has an ephemeral key of its own");
    }

    /// With such a point everybody shares the same secret.
    #[test]
    fn a_point_of_small_order_is_refused() {
        let key = PrivateKey::random().unwrap();
        for point in [[0; 32], {
            let mut one = [0; 32];
            one[0] = 1;
            one
        }] {
            assert!(matches!(key.wrapping_key(&Recipient(point)), Err(KeyError::Malformed { .. })));
            assert!(matches!(Recipient(point).new_wrapping_key(), Err(KeyError::Malformed { .. })));
        }
    }
}
