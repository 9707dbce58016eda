//! Programs that run to their end: the system's `ip`, `iptables` and `mount`, and the cluster's `kubectl` and `ctr`.

use std::io::Write as _;
use std::process::{Command, Stdio};

use super::lock;
use crate::error::{KitError, Result, describe};

/// Runs a program and returns its standard output.
///
/// # Errors
/// [`KitError::Command`] with both outputs if its exit status is not zero.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    run_with_input(command, None)
}

/// Runs a program that reads the text from its standard input.
pub(crate) fn run_with_input(command: &mut Command, input: Option<&str>) -> Result<String> {
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    run_with(command, stdin, input)
}

fn run_with(command: &mut Command, stdin: Stdio, input: Option<&str>) -> Result<String> {
    let text = describe(command);
    let failed = || KitError::io(format!("start `{text}`"));
    command.stdin(stdin);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed())?;
    // A thread writes the input. If the program answers before it has read all, it would wait for us, and we for it.
    let writer = input.zip(child.stdin.take()).map(|(input, mut pipe)| {
        let input = input.to_owned();
        std::thread::spawn(move || pipe.write_all(input.as_bytes()))
    });
    let output = child.wait_with_output().map_err(failed())?;
    if let Some(writer) = writer {
        // If the program ended early, its status shows why.
        drop(writer.join());
    }
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    Err(KitError::Command {
        command: text,
        status: output.status.to_string(),
        output: stdout + &String::from_utf8_lossy(&output.stderr),
    })
}

/// Runs a program given as separate words. It keeps the lock of the bed, if this process holds it, until it ends.
pub(crate) fn sh(words: &[&str]) -> Result<String> {
    let mut words = words.iter();
    let program = words.next().ok_or_else(|| KitError::Unsupported("no program to run".to_owned()))?;
    run_with(Command::new(program).args(words), lock::stdin()?, None)
}
