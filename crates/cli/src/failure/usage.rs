//! clap's errors in the three parts of all our messages.

use super::Failure;
use crate::exit_code::ExitCode;
use clap::error::ErrorKind;

/// The failure of a command line that cannot be parsed. (Help and version are not failures; the caller handles them.)
pub fn of_command_line(error: &clap::Error) -> Failure {
    let rendered = error.render().to_string();
    let mut message = Vec::new();
    let mut tip = None;
    let mut usage = None;
    let mut lines = rendered.lines().map(str::trim).filter(|line| !line.is_empty());
    for line in lines.by_ref() {
        if let Some(text) = line.strip_prefix("tip: ") {
            tip.get_or_insert_with(|| text.to_owned());
        } else if let Some(text) = line.strip_prefix("Usage: ") {
            usage = Some(text.to_owned());
            break;
        } else if line.starts_with("For more information") {
            break;
        } else {
            message.push(line.strip_prefix("error: ").unwrap_or(line).to_owned());
        }
    }
    let hint = match (tip, usage, error.kind()) {
        (Some(tip), _, _) => tip,
        (None, _, ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand) | (None, None, _) => {
            "add --help to see the options and their values".to_owned()
        }
        (None, Some(usage), _) => format!("usage: {usage}"),
    };
    let message = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => "a command is missing".to_owned(),
        _ => message.join(" "),
    };
    Failure::new(ExitCode::Usage, message).doing("reading the command line").hint(hint)
}
