//! The binary; everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(holdfast_cli::run(std::env::args_os()))
}
