//! The arguments of the demo.

/// Shown for `--help` and after a wrong argument.
pub(crate) const USAGE: &str = "usage: holdfast-demo [--keep] [--rows N] [--size-mb N]
  --keep       leave everything running until Ctrl-C, with the commands to look around
  --rows N     orders in the table that is going to be dropped [default: 200000]
  --size-mb N  MiB of other data around it [default: 500]";

/// The parsed arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// Whether the servers stay until a signal comes.
    pub(crate) keep: bool,
    /// The number of orders to load before the backup.
    pub(crate) rows: u64,
    /// The size of the table of events before the backup, in MiB.
    pub(crate) size_mib: u64,
}

/// Reads the arguments. `None` if the user asked for help.
pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let mut options = Options { keep: false, rows: 200_000, size_mib: 500 };
    let mut arguments = arguments;
    while let Some(name) = arguments.next() {
        let mut number = |least: u64| {
            let text = arguments.next().ok_or_else(|| format!("{name} needs a number"))?;
            text.parse()
                .ok()
                .filter(|number| (least..=100_000_000).contains(number))
                .ok_or_else(|| format!("{name} needs a number from {least} on, not {text:?}"))
        };
        match name.as_str() {
            "--keep" => options.keep = true,
            "--rows" => options.rows = number(1)?,
            "--size-mb" => options.size_mib = number(1)?,
            "--help" | "-h" => return Ok(None),
            _ => return Err(format!("unknown argument {name:?}")),
        }
    }
    Ok(Some(options))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Option<Options>, String> {
        parse(words.iter().map(|word| (*word).to_owned()))
    }

    #[test]
    fn arguments_are_read_or_refused() {
        assert_eq!(parsed(&[]), Ok(Some(Options { keep: false, rows: 200_000, size_mib: 500 })));
        let all = ["--keep", "--rows", "10", "--size-mb", "2"];
        assert_eq!(parsed(&all), Ok(Some(Options { keep: true, rows: 10, size_mib: 2 })));
        assert_eq!(parsed(&["--keep", "--help"]), Ok(None));
        assert_eq!(parsed(&["--rows"]), Err("--rows needs a number".to_owned()));
        assert_eq!(parsed(&["--rows", "0"]), Err("--rows needs a number from 1 on, not \"0\"".to_owned()));
        assert_eq!(parsed(&["--quick"]), Err("unknown argument \"--quick\"".to_owned()));
    }
}
