//! The arguments of the demo.

use holdfast_testkit::postgres::MAJORS;

/// Shown for `--help` and after a wrong argument.
pub(crate) const USAGE: &str = "usage: holdfast-demo [--keep] [--pg N] [--rows N] [--size-mb N]
  --keep       leave everything running until Ctrl-C, with the commands to look around
  --pg N       the major version of PostgreSQL [default: 18]
  --rows N     orders in the table that is going to be dropped [default: 200000]
  --size-mb N  MiB of other data around it [default: 500]";

/// The parsed arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// Whether the servers stay until a signal comes.
    pub(crate) keep: bool,
    /// The major version of PostgreSQL.
    pub(crate) major: u16,
    /// The number of orders to load before the backup.
    pub(crate) rows: u64,
    /// The size of the table of events before the backup, in MiB.
    pub(crate) size_mib: u64,
}

/// Reads the arguments, as two words or one: `--pg 19` or `--pg=19`. `None` if the user asked for help.
pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let mut options = Options { keep: false, major: 18, rows: 200_000, size_mib: 500 };
    let mut arguments = arguments;
    while let Some(word) = arguments.next() {
        let (name, mut value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word.as_str(), None),
        };
        let mut text = || value.take().or_else(|| arguments.next()).ok_or_else(|| format!("{name} needs a number"));
        let mut number = |least: u64| {
            let text = text()?;
            text.parse()
                .ok()
                .filter(|number| (least..=100_000_000).contains(number))
                .ok_or_else(|| format!("{name} needs a number from {least} on, not {text:?}"))
        };
        match name {
            "--keep" => options.keep = true,
            "--pg" => options.major = major(&text()?)?,
            "--rows" => options.rows = number(1)?,
            "--size-mb" => options.size_mib = number(1)?,
            "--help" | "-h" => return Ok(None),
            _ => return Err(format!("unknown argument {name:?}")),
        }
        if let Some(value) = value {
            return Err(format!("{name} takes no value, but {value:?} is given"));
        }
    }
    Ok(Some(options))
}

fn major(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|major| MAJORS.contains(major)).ok_or_else(|| {
        let known: Vec<String> = MAJORS.iter().map(ToString::to_string).collect();
        format!("--pg needs one of {}, not {text:?}", known.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Option<Options>, String> {
        parse(words.iter().map(|word| (*word).to_owned()))
    }

    #[test]
    fn arguments_are_read_or_refused() {
        assert_eq!(parsed(&[]), Ok(Some(Options { keep: false, major: 18, rows: 200_000, size_mib: 500 })));
        for all in [
            &["--keep", "--pg", "19", "--rows", "10", "--size-mb", "2"][..],
            &["--keep", "--pg=19", "--rows=10", "--size-mb=2"],
        ] {
            assert_eq!(parsed(all), Ok(Some(Options { keep: true, major: 19, rows: 10, size_mib: 2 })));
        }
        for wrong in ["--pg=20", "--pg=x"] {
            let expected = format!("--pg needs one of 13, 14, 15, 16, 17, 18, 19, not {:?}", &wrong[5..]);
            assert_eq!(parsed(&[wrong]), Err(expected));
        }
        assert_eq!(parsed(&["--keep=yes"]), Err("--keep takes no value, but \"yes\" is given".to_owned()));
        assert_eq!(parsed(&["--keep", "--help"]), Ok(None));
        assert_eq!(parsed(&["--rows"]), Err("--rows needs a number".to_owned()));
        assert_eq!(parsed(&["--rows", "0"]), Err("--rows needs a number from 1 on, not \"0\"".to_owned()));
        assert_eq!(parsed(&["--quick"]), Err("unknown argument \"--quick\"".to_owned()));
    }
}
