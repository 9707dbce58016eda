//! [`Secret`]: a value that must never reach a message, a log line or a panic.
//!
//! It prints as `***`, also as a part of another value: a struct with a secret in it can derive `Debug`. Its content is
//! read only with [`Secret::expose`], where it is used, so these places are easy to search for. When it is dropped, its
//! memory is overwritten. It is read from configuration and never written: it has no `Serialize`.
//!
//! What it cannot do: wipe copies elsewhere. A text in a read buffer, or one that a library keeps for its connections,
//! does not have this type.
//!
//! ```
//! use holdfast_secret::Secret;
//!
//! let password: Secret = Secret::new("hunter2");
//! assert_eq!(format!("{password} {password:?}"), "*** ***");
//! assert_eq!(password.expose(), "hunter2");
//! ```

use serde::de::{Deserialize, Deserializer, Error as _};
use std::fmt;
use zeroize::{Zeroize, Zeroizing};

/// A secret: a text, unless another type is given (`Vec<u8>` for bytes, `[u8; 32]` for a key).
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T: Zeroize = String>(Zeroizing<T>);

impl<T: Zeroize> Secret<T> {
    /// A secret with this content. A `String` or `Vec` is moved, not copied.
    pub fn new(content: impl Into<T>) -> Self {
        Self(Zeroizing::new(content.into()))
    }

    /// The content. The caller must keep it out of messages.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl Secret<Vec<u8>> {
    /// The content of a file without the newline (`\n` or `\r\n`) at its end, because editors and `echo` add one that
    /// is not part of a passphrase. Only one is removed.
    #[must_use]
    pub fn without_newline(mut self) -> Self {
        if self.0.last() == Some(&b'\n') {
            self.0.pop();
            if self.0.last() == Some(&b'\r') {
                self.0.pop();
            }
        }
        self
    }

    /// The bytes as a text; invalid UTF-8 is replaced by U+FFFD.
    #[must_use]
    pub fn to_text(&self) -> Secret {
        Secret::new(String::from_utf8_lossy(&self.0))
    }
}

impl<'a, T: Zeroize + From<&'a str>> From<&'a str> for Secret<T> {
    fn from(text: &'a str) -> Self {
        Self::new(text)
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

impl<T: Zeroize> fmt::Display for Secret<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

/// The error does not repeat the value, as serde's own errors do.
impl<'de, T: Zeroize + Deserialize<'de>> Deserialize<'de> for Secret<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match T::deserialize(deserializer) {
            Ok(content) => Ok(Self::new(content)),
            Err(_) => Err(D::Error::custom("expected a text in quotes (the value is secret and not shown)")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;

    #[test]
    fn a_secret_prints_as_stars_inside_anything() {
        #[derive(Debug)]
        struct Login {
            password: Secret,
            key: Secret<Vec<u8>>,
        }
        let login = Login { password: Secret::new("hunter2"), key: Secret::new([7; 32]) };
        assert_eq!(format!("{login:?}"), "Login { password: ***, key: *** }");
        assert_eq!(format!("{} {:?}", login.password, Some(&login.key)), "*** Some(***)");
        assert_eq!((login.password.expose().as_str(), login.key.expose().len()), ("hunter2", 32));
    }

    #[test]
    fn a_secret_is_wiped_when_it_is_dropped() {
        #[derive(Default)]
        struct Witness(Rc<Cell<bool>>);
        impl Zeroize for Witness {
            fn zeroize(&mut self) {
                self.0.set(true);
            }
        }
        let wiped = Rc::new(Cell::new(false));
        let secret: Secret<Witness> = Secret::new(Witness(Rc::clone(&wiped)));
        assert!(!wiped.get());
        drop(secret);
        assert!(wiped.get());
    }

    #[test]
    fn a_secret_that_cannot_be_read_is_not_repeated() {
        let secret: Secret = serde_json::from_str("\"hush\"").unwrap();
        assert_eq!(secret.expose(), "hush");
        let error = serde_json::from_str::<Secret>("4711").unwrap_err().to_string();
        assert!(error.contains("expected a text in quotes") && !error.contains("4711"), "{error}");
    }

    #[test]
    fn one_newline_at_the_end_of_a_file_is_not_part_of_a_passphrase() {
        for (content, expected) in [
            ("secret", "secret"),
            ("secret\n", "secret"),
            ("secret\r\n", "secret"),
            ("secret\n\n", "secret\n"),
            ("secret\r", "secret\r"),
            (" secret \n", " secret "),
            ("\n", ""),
            ("", ""),
        ] {
            assert_eq!(Secret::<Vec<u8>>::from(content).without_newline().expose(), expected.as_bytes(), "{content:?}");
        }
    }
}
