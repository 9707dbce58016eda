//! Whether replay reached the end of the archive, from the server's log. Pure.
//!
//! Without a target, PostgreSQL treats everything that it cannot read as the end of WAL, and starts. The place where it
//! stopped does not show the reason. The archive may end in the middle of a record, which may be larger than a segment:
//! then nothing is lost. Or a record is not what was written.

/// `XLogFileRead`: a segment that `restore_command` gave.
const RESTORED: &str = "restored log file \"";

/// Logged at the end of `PerformWalRecovery`. Later reads are not replay.
const DONE: &str = "redo done at ";

/// How `xlogreader.c` reports something that is not a record. In a segment that was archived as a whole, records follow
/// each other to its end.
const NO_RECORD: [&str; 24] = [
    "invalid record offset at ",
    "invalid record length at ",
    "contrecord is requested by ",
    "there is no contrecord flag at ",
    "invalid contrecord length ",
    "invalid resource manager ID ",
    "record with incorrect prev-link ",
    "record with invalid length at ",
    "incorrect resource manager data checksum in record at ",
    "invalid magic number ",
    "invalid info bits ",
    "WAL file is from different database system",
    "unexpected pageaddr ",
    "out-of-sequence timeline ID ",
    "record length ",
    "out-of-order block_id ",
    "invalid block_id ",
    "BKPBLOCK_",
    "BKPIMAGE_",
    "neither BKPIMAGE_",
    "could not decompress image at ",
    "could not restore image at ",
    "missing contrecord at ",
    "could not read from log segment ",
];

/// What the log says about the last segment.
#[derive(Debug)]
pub(super) struct Replay {
    last: String,
    is_given: bool,
    is_done: bool,
    bad: Option<String>,
}

impl Replay {
    /// For an archive that ends with this segment.
    pub(super) fn through(last: String) -> Self {
        Self { last, is_given: false, is_done: false, bad: None }
    }

    /// Reads the next line of the log.
    pub(super) fn see(&mut self, line: &str) {
        let Some((_, message)) = line.split_once("LOG:  ").filter(|_| !self.is_done) else { return };
        if message.starts_with(DONE) {
            self.is_done = true;
        } else if let Some(name) = message.strip_prefix(RESTORED) {
            self.is_given |= name.starts_with(&format!("{}\"", self.last));
            self.bad = None;
        } else if NO_RECORD.iter().any(|words| message.starts_with(words)) {
            self.bad = Some(message.to_owned());
        }
    }

    /// What is missing, if replay did not reach the end of the archive.
    pub(super) fn missing(self) -> Option<String> {
        let Self { last, is_given, bad, .. } = self;
        match (is_given, bad) {
            (true, None) => None,
            (true, Some(bad)) => Some(format!("replay ended in the middle of {last}, the last segment: {bad}")),
            (false, bad) => {
                let bad = bad.map(|bad| format!(": {bad}")).unwrap_or_default();
                Some(format!("replay did not get to {last}, the last segment in the archive{bad}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAST: &str = "000000010000000000000007";

    fn missing(log: &[&str]) -> Option<String> {
        let mut replay = Replay::through(LAST.to_owned());
        for line in log {
            replay.see(&format!("2026-11-30 07:31:10.123 UTC [17] {line}"));
        }
        replay.missing()
    }

    #[test]
    fn the_log_says_how_far_replay_got() {
        let given = "LOG:  restored log file \"000000010000000000000007\" from archive";
        let earlier = "LOG:  restored log file \"000000010000000000000006\" from archive";
        let done = "LOG:  redo done at 0/6FFFFB8 system usage: CPU: user: 0.00 s";
        let bad = "LOG:  incorrect resource manager data checksum in record at 0/7000028";
        assert_eq!(missing(&[earlier, given, done]), None);
        // Such lines say nothing before the last segment is read as WAL, and after the end of replay.
        assert_eq!(
            missing(&["LOG:  invalid record length at 0/5000028: wanted 24, got 0", earlier, given, done]),
            None
        );
        assert_eq!(missing(&[given, done, bad]), None);
        assert_eq!(missing(&[given, done, earlier]), None);
        assert_eq!(
            missing(&[earlier, given, bad, done]).as_deref(),
            Some(
                "replay ended in the middle of 000000010000000000000007, the last segment: incorrect resource manager data \
                 checksum in record at 0/7000028"
            )
        );
        let pageaddr = "LOG:  unexpected pageaddr 0/1000000 in log segment 000000010000000000000006, offset 8192";
        let words = missing(&[earlier, pageaddr, done]).unwrap_or_default();
        assert!(
            words.starts_with("replay did not get to 000000010000000000000007") && words.ends_with("8192"),
            "{words}"
        );
        assert!(missing(&[done]).is_some());
        // Text from a user's statement is not a message of the server.
        assert!(missing(&["STATEMENT:  SELECT 'restored log file \"000000010000000000000007\"'", done]).is_some());
    }
}
