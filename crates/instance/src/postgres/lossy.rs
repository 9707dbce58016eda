//! Names in another encoding, as text for metrics.

use std::error::Error;

use tokio_postgres::types::{FromSql, Type};

/// A value of a text type; invalid UTF-8 in it is replaced by U+FFFD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lossy(pub String);

impl<'a> FromSql<'a> for Lossy {
    fn from_sql(_: &Type, raw: &'a [u8]) -> std::result::Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(String::from_utf8_lossy(raw).into_owned()))
    }

    fn accepts(of: &Type) -> bool {
        matches!(*of, Type::TEXT | Type::VARCHAR | Type::NAME | Type::BPCHAR | Type::UNKNOWN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_another_encoding_is_still_shown() {
        let read = Lossy::from_sql(&Type::TEXT, b"caf\xe9").expect("never fails");
        assert_eq!(read, Lossy("caf\u{fffd}".to_owned()));
    }
}
