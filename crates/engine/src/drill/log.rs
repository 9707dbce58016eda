//! The output of a program of the drill: written by it, read through the handle that was opened first.
//!
//! The file belongs to the drill, its directory to the server's owner, who may put a link to any file in its place. So
//! it is never opened again by its name.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::error::Error;

/// Bytes of its end that are looked at.
const END: usize = 64 << 10;

/// Bytes of a line that are looked at.
const LONGEST_LINE: usize = 4 << 10;

/// The log of one program.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
}

impl Log {
    /// Makes it; it must not exist.
    pub(super) fn create(path: &Path) -> Result<Self, Error> {
        let mut options = OpenOptions::new();
        let file = options.create_new(true).read(true).append(true).open(path);
        Ok(Self { file: file.map_err(|e| Error::file("create", path, e))? })
    }

    /// A handle for the program.
    pub(super) fn output(&self, path: &Path) -> Result<File, Error> {
        self.file.try_clone().map_err(|e| Error::file("create", path, e))
    }

    /// The last lines.
    pub(super) fn last_lines(&self, count: usize) -> String {
        let end = self.end();
        let lines: Vec<&str> = end.lines().collect();
        lines.get(lines.len().saturating_sub(count)..).unwrap_or_default().join("\n")
    }

    /// Its last bytes. The first line of them may be cut.
    pub(super) fn end(&self) -> String {
        let length = self.file.metadata().map_or(0, |metadata| metadata.len());
        let mut bytes = vec![0; END];
        let read = read_at(&self.file, &mut bytes, length.saturating_sub(END as u64));
        String::from_utf8_lossy(bytes.get(..read).unwrap_or_default()).into_owned()
    }

    /// Shows each line from the beginning on.
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

/// Fills the buffer from this place on, as far as the file goes and can be read.
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
