//! The bars on the terminal, and how others write to stderr while bars are shown.

use indicatif::{MultiProgress, ProgressDrawTarget};
use std::io::Write as _;
use std::sync::LazyLock;

/// All bars of the program.
pub(super) static BARS: LazyLock<MultiProgress> =
    LazyLock::new(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10)));

/// Writes to stderr above the bars.
pub fn above_bar(bytes: &[u8]) -> std::io::Result<()> {
    BARS.suspend(|| std::io::stderr().lock().write_all(bytes))
}
