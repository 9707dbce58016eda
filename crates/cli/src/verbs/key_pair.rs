//! `key generate`, and public keys on the command line.
//!
//! The private key is written into a new file of mode 0600, in the form of age, and is shown nowhere.

use super::time;
use crate::args::Output;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::output::stdout;
use holdfast_contract::report::key::KeyGenerateReport;
use holdfast_repo::key::{PrivateKey, Recipient};
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// A larger file holds no public key.
const LARGEST_FILE_BYTES: usize = 64 << 10;

/// Makes a key pair. An existing file is not replaced: it may be the only copy of a key.
pub(super) fn generate(file: &Path, output: Output) -> Result<ExitCode, Failure> {
    let broken = |error: holdfast_repo::key::KeyError| Failure::internal(error.to_string());
    let key = PrivateKey::random().map_err(broken)?;
    let recipient = key.recipient().map_err(broken)?.to_string();
    let created = time::shown(time::now());
    let content = format!("# created: {created}\n# public key: {recipient}\n{}\n", key.to_text().expose());
    write_new(file, content.as_bytes()).map_err(|error| {
        let code = match error.kind() {
            ErrorKind::StorageFull => ExitCode::NoSpace,
            _ => ExitCode::UnwritableFile,
        };
        Failure::new(code, format!("cannot write the private key into {}", file.display()))
            .caused_by(Some(&error))
            .hint("name a file that does not exist, in a folder that you may write")
    })?;
    match output {
        Output::Json => stdout::json(&KeyGenerateReport { file: file.display().to_string(), recipient })?,
        Output::Text => stdout::text(&format!("{recipient}\n"))?,
    }
    Ok(ExitCode::Ok)
}

fn write_new(file: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    written.write_all(content)?;
    written.sync_all()?;
    // Without its entry in the folder, the key could be lost with the power.
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    OpenOptions::new().read(true).open(folder)?.sync_all()
}

/// The public key that an argument gives: itself, or the name of a file that holds it.
pub(super) fn recipient(argument: &str) -> Result<Recipient, Failure> {
    if argument.starts_with("age1") {
        return argument.parse().map_err(|error| {
            Failure::new(ExitCode::Usage, format!("cannot use the public key {argument:?}: {error}"))
                .hint("`holdfast key generate` prints the public key, and it is in the file of the private key")
        });
    }
    let wrong = |reason: String| {
        Failure::new(ExitCode::Usage, format!("cannot use the public key in {argument:?}: {reason}"))
            .hint("give a public key (age1...), or a file that holds one on a line of its own")
    };
    let bytes = std::fs::read(argument).map_err(|error| wrong(error.to_string()))?;
    let text = String::from_utf8(bytes).ok().filter(|text| text.len() <= LARGEST_FILE_BYTES);
    let text = text.ok_or_else(|| wrong("it is not a short text".to_owned()))?;
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    match (lines.next(), lines.next()) {
        (Some(line), None) => line.parse().map_err(|error: holdfast_repo::key::KeyTextError| wrong(error.to_string())),
        _ => Err(wrong("it does not hold exactly one line with a key".to_owned())),
    }
}
