//! The binary; everything is in the library beside it.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(holdfast_cli::run(std::env::args_os()))
}
