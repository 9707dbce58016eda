//! Results on stdout, in the requested format.
//!
//! A reader that closes the pipe early (`holdfast list | head`) is not a failure.

use crate::exit_code::ExitCode;
use crate::failure::Failure;
use serde::Serialize;
use std::io::{ErrorKind, Write};

/// Writes text unchanged.
pub fn text(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            let code =
                if error.kind() == ErrorKind::StorageFull { ExitCode::NoSpace } else { ExitCode::UnwritableFile };
            Err(Failure::new(code, "cannot write the result to stdout")
                .caused_by(Some(&error))
                .hint("check where the output is sent"))
        }
        _ => Ok(()),
    }
}

/// Writes a value as JSON: indented, and a newline at the end.
pub fn json(value: &impl Serialize) -> Result<(), Failure> {
    let mut rendered = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::internal("a result cannot be written as JSON").caused_by(Some(&error)))?;
    rendered.push('\n');
    text(&rendered)
}
