//! The error of all parsers of short texts: LSNs, names of segments, numbers.
//!
//! It repeats the input, cut to a length that fits a message. The text usually comes from somewhere else (a bucket
//! listing, a command line, a server's answer), and the person who reads the message must find it there.

/// A text that does not have the expected form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not {what}: {input:?}")]
pub struct ParseError {
    what: &'static str,
    input: String,
}

impl ParseError {
    /// The longest part of the input that is repeated, in characters: more than any valid text has.
    const SHOWN: usize = 64;

    pub(crate) fn new(what: &'static str, input: &str) -> Self {
        let mut shown: String = input.chars().take(Self::SHOWN).collect();
        if input.chars().nth(Self::SHOWN).is_some() {
            shown.push('…');
        }
        Self { what, input: shown }
    }

    /// What was expected, with its article: "an LSN".
    pub fn what(&self) -> &'static str {
        self.what
    }

    /// The given text, possibly cut.
    pub fn input(&self) -> &str {
        &self.input
    }
}

/// Serialises a type as its `Display` text and reads it back with `FromStr`.
macro_rules! serde_as_text {
    ($type:ty, $what:literal) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl serde::de::Visitor<'_> for Text {
                    type Value = $type;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($what)
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    };
}
pub(crate) use serde_as_text;

/// A number in upper-case hexadecimal digits only, as in PostgreSQL's file names (`from_str_radix` alone would accept a
/// sign and lower case).
pub(crate) fn upper_hex_u32(text: &str) -> Option<u32> {
    let valid = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
    if valid { u32::from_str_radix(text, 16).ok() } else { None }
}

/// A decimal number without a sign.
pub(crate) fn decimal<T: std::str::FromStr>(text: &str) -> Option<T> {
    let valid = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if valid { text.parse().ok() } else { None }
}
