//! The output of a program that the drill runs. The drill reads it through the handle that it opened first.
//!
//! The file belongs to the drill. The directory belongs to the server's owner, who may put a link to any file in its
//! place. So the drill never opens the file by its name again.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::error::Error;

/// The number of bytes at the end that are read.
const END: usize = 64 << 10;

/// The number of bytes of a line that are used.
const LONGEST_LINE: usize = 4 << 10;

/// The log of one program.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
}

impl Log {
    /// Creates the file, which must not exist.
    pub(super) fn create(path: &Path) -> Result<Self, Error> {
        let mut options = OpenOptions::new();
        let file = options.create_new(true).read(true).append(true).open(path);
        Ok(Self { file: file.map_err(|e| Error::file("create", path, e))? })
    }

    /// A handle for the program to write to.
    pub(super) fn output(&self, path: &Path) -> Result<File, Error> {
        self.file.try_clone().map_err(|e| Error::file("create", path, e))
    }

    pub(super) fn last_lines(&self, count: usize) -> String {
        let end = self.end();
        let lines: Vec<&str> = end.lines().collect();
        lines.get(lines.len().saturating_sub(count)..).unwrap_or_default().join("\n")
    }

    /// The last bytes. Their first line may be cut.
    pub(super) fn end(&self) -> String {
        let length = self.file.metadata().map_or(0, |metadata| metadata.len());
        let mut bytes = vec![0; END];
        let read = read_at(&self.file, &mut bytes, length.saturating_sub(END as u64));
        String::from_utf8_lossy(bytes.get(..read).unwrap_or_default()).into_owned()
    }

    /// Passes each line to `see`, from the first to the last.
    pub(super) fn each_line(&self, mut see: impl FnMut(&str)) {
        let (mut at, mut bytes, mut line) = (0, vec![0; END], Vec::new());
        loop {
            let read = read_at(&self.file, &mut bytes, at);
            if read == 0 {
                break;
            }
            at += read as u64;
            for byte in bytes.get(..read).unwrap_or_default() {
                if *byte == b'\n' {
                    see(&String::from_utf8_lossy(&line));
                    line.clear();
                } else if line.len() < LONGEST_LINE {
                    line.push(*byte);
                }
            }
        }
        if !line.is_empty() {
            see(&String::from_utf8_lossy(&line));
        }
    }
}

/// Reads from this offset until the buffer is full, the file ends, or a read fails. Returns the number of bytes.
fn read_at(file: &File, buffer: &mut [u8], at: u64) -> usize {
    let mut length = 0;
    while let Some(rest) = buffer.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at + length as u64) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    length
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_link_in_its_place_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let (path, secret) = (folder.path().join("server.log"), folder.path().join("secret"));
        std::fs::write(&secret, "a secret\n").unwrap();
        let log = Log::create(&path).unwrap();
        log.output(&path).unwrap().write_all(b"one\ntwo\nthree\n").unwrap();
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&secret, &path).unwrap();
        assert_eq!(log.last_lines(2), "two\nthree");
        Log::create(&path).unwrap_err();
    }

    #[test]
    fn only_its_end_is_held_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server.log");
        let log = Log::create(&path).unwrap();
        let mut output = log.output(&path).unwrap();
        output.write_all(&vec![b'x'; 3 * END]).unwrap();
        output.write_all(b"\nlast").unwrap();
        assert_eq!((log.end().len(), log.last_lines(1)), (END, "last".to_owned()));
        let mut lengths = Vec::new();
        log.each_line(|line| lengths.push(line.len()));
        assert_eq!(lengths, [LONGEST_LINE, 4]);
    }
}
