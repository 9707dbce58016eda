//! Text from the server, byte for byte.
//!
//! For PostgreSQL, names of databases, tablespaces and files are bytes. A database in `SQL_ASCII`, or a session with
//! another `client_encoding`, can give them bytes that are not UTF-8, and a connection to any database sees the names
//! of all databases. So a session is set up not to convert ([`super::Connection`]), and names that users choose are
//! read as [`RawText`].

use std::error::Error;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use tokio_postgres::types::{FromSql, Type};

/// A value of a text type, which need not be UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RawText(pub Vec<u8>);

impl RawText {
    /// As text for people and records: bytes that are not UTF-8 are replaced by a mark.
    pub fn lossy(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }

    /// As a path, with exactly these bytes.
    pub fn into_path(self) -> PathBuf {
        OsString::from_vec(self.0).into()
    }
}

impl<'a> FromSql<'a> for RawText {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(raw.to_vec()))
    }

    fn accepts(of: &Type) -> bool {
        matches!(*of, Type::TEXT | Type::VARCHAR | Type::NAME | Type::BPCHAR | Type::UNKNOWN)
    }
}
