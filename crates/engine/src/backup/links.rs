//! Links in the data directory that PostgreSQL did not make, and how a backup stores them. Blocking.
//!
//! PostgreSQL reads settings, keys and certificates through links, and a backup without these files may not start on
//! another host. There the link alone would lead nowhere; on the same host, two servers would share their settings. So
//! a link to a file is stored as that file. A link to a directory is stored as a directory with the files that
//! `include_dir` reads. Other files in such a directory can be of any kind and size (the server's log, a home
//! directory). They are not in the backup, and the backup warns the user. A relative link to a place inside the data
//! directory stays a link.
//!
//! The user of PostgreSQL can make any link. If root runs the backup, it must not read for that user what the user may
//! not read. PostgreSQL does not read it either, so the link is kept. If another user runs the backup and may not read
//! the target, the backup fails.

use std::fs::{File, Metadata};
use std::io::ErrorKind;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::listing::{Directory, Link, Scan};
use super::listing::{PageCheck, SourceFile};
use super::scan::{holds_data, join};
use crate::error::Error;
use crate::path_overlap::Identity;

/// What the backup stores for a link.
#[derive(Debug)]
pub(super) enum LinkContent {
    /// The link: it is relative and leads to a place inside the data directory.
    Inside,
    /// The file that it leads to.
    File(SourceFile),
    /// The directory that it leads to, with the settings in it.
    Settings(Directory, Vec<SourceFile>),
    /// The link: its target cannot be in the backup.
    Elsewhere,
}

/// Whether content may be read through a link at this path of the data directory.
pub(super) fn may_follow(path: &[u8]) -> bool {
    !holds_data(path) && !path.starts_with(b"pg_tblspc/")
}

/// Adds a link to the list, with its content and its warning.
pub(super) fn list(pgdata: &Path, link: Link, scan: &mut Scan) -> Result<(), Error> {
    let content = link_content(pgdata, &link)?;
    scan.link_warnings.extend(warning(&link, &content));
    match content {
        LinkContent::Inside | LinkContent::Elsewhere => scan.links.push(link),
        LinkContent::File(file) => {
            scan.total_bytes += file.size_bytes;
            scan.files.push(file);
        }
        LinkContent::Settings(directory, files) => {
            scan.directories.push(directory);
            scan.total_bytes += files.iter().map(|file| file.size_bytes).sum::<u64>();
            scan.files.extend(files);
        }
    }
    Ok(())
}

/// Finds out what the backup stores for a link.
pub(super) fn link_content(pgdata: &Path, link: &Link) -> Result<LinkContent, Error> {
    let path = full(pgdata, &link.path);
    if !may_follow(&link.path) {
        return Ok(LinkContent::Elsewhere);
    }
    if !link.target.starts_with(b"/") && leads_into(&path, pgdata)? {
        return Ok(LinkContent::Inside);
    }
    match open(pgdata, &path)? {
        Some((_, found)) if found.is_file() => Ok(LinkContent::File(file(pgdata, &link.path, &found)?)),
        Some((_, found)) if found.is_dir() => settings(pgdata, link, &found),
        _ => Ok(LinkContent::Elsewhere),
    }
}

/// The warning about a link, for the report of the backup and before a restore.
pub(super) fn warning(link: &Link, content: &LinkContent) -> Option<String> {
    let (path, target) = (String::from_utf8_lossy(&link.path), String::from_utf8_lossy(&link.target));
    match content {
        LinkContent::Inside => None,
        LinkContent::File(_) => {
            Some(format!("{path} is a link to {target}: the backup has the content, and a restore makes a file of it"))
        }
        LinkContent::Settings(..) => Some(format!(
            "{path} is a link to the directory {target}: the backup has the settings in it (*.conf) and nothing else, \
             and a restore makes a directory of it"
        )),
        LinkContent::Elsewhere => {
            Some(format!("{path} is a link to {target} and is kept as a link: what it leads to is not in the backup"))
        }
    }
}

/// Opens the target of a link; `None` if there is nothing to read, or nothing that PostgreSQL's user may read.
pub(super) fn open(pgdata: &Path, path: &Path) -> Result<Option<(File, Metadata)>, Error> {
    // Nonblocking, because opening a pipe would wait.
    let opened = File::options().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path);
    let opened = match opened {
        Ok(opened) => opened,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(e) if e.kind() == ErrorKind::PermissionDenied && rustix::process::geteuid().as_raw() == owner(pgdata)? => {
            return Ok(None);
        }
        // A circle of links, a socket, a device without its driver.
        Err(e)
            if [Errno::LOOP, Errno::NXIO, Errno::NODEV]
                .iter()
                .any(|errno| e.raw_os_error() == Some(errno.raw_os_error())) =>
        {
            return Ok(None);
        }
        Err(e) => return Err(Error::file("open the target of the link", path, e)),
    };
    let found = opened.metadata().map_err(|e| Error::file("look at", path, e))?;
    Ok(may_read(pgdata, &opened, &found)?.then_some((opened, found)))
}

/// Whether PostgreSQL's user may read what root has opened. It does not look at groups: in doubt the answer is no.
fn may_read(pgdata: &Path, opened: &File, found: &Metadata) -> Result<bool, Error> {
    let owner = owner(pgdata)?;
    if !rustix::process::geteuid().is_root() || owner == 0 || found.uid() == owner {
        return Ok(true);
    }
    let kernel_path = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
    let real = std::fs::read_link(&kernel_path).map_err(|e| Error::file("read the link", &kernel_path, e))?;
    let open_to = |found: &Metadata, bit: u32| found.uid() == owner || found.mode() & bit != 0;
    let reached =
        real.ancestors().skip(1).all(|above| std::fs::metadata(above).is_ok_and(|found| open_to(&found, 0o001)));
    Ok(reached && open_to(found, 0o004))
}

/// The files of a directory that `include_dir` reads: names as in `GetConfFilesInDir`.
fn settings(pgdata: &Path, link: &Link, found: &Metadata) -> Result<LinkContent, Error> {
    let here = full(pgdata, &link.path);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&here).map_err(|e| Error::file("list", &here, e))? {
        let name = entry.map_err(|e| Error::file("list", &here, e))?.file_name();
        let name = name.as_bytes();
        if name.starts_with(b".") || !name.ends_with(b".conf") {
            continue;
        }
        let path = join(&link.path, name);
        if let Some((_, found)) = open(pgdata, &full(pgdata, &path))?.filter(|(_, found)| found.is_file()) {
            files.push(file(pgdata, &path, &found)?);
        }
    }
    if files.is_empty() {
        return Ok(LinkContent::Elsewhere);
    }
    let mode = own_mode(pgdata, found, 0o700)?;
    Ok(LinkContent::Settings(Directory { path: link.path.clone(), mode, mtime: found.mtime() }, files))
}

fn file(pgdata: &Path, path: &[u8], found: &Metadata) -> Result<SourceFile, Error> {
    Ok(SourceFile {
        path: path.into(),
        size_bytes: found.len(),
        mtime: found.mtime(),
        mode: own_mode(pgdata, found, 0o600)?,
        check: PageCheck::None,
        identity: Some(Identity::from(found)),
    })
}

/// The mode of a restored copy. PostgreSQL accepts a key with group access if root owns it, and refuses the same mode
/// if the server's user owns it (`check_ssl_key_file_permissions`).
fn own_mode(pgdata: &Path, found: &Metadata, of_another: u32) -> Result<u32, Error> {
    Ok(if found.uid() == owner(pgdata)? { found.mode() & 0o7777 } else { of_another })
}

fn owner(pgdata: &Path) -> Result<u32, Error> {
    std::fs::metadata(pgdata).map(|found| found.uid()).map_err(|e| Error::file("look at", pgdata, e))
}

/// Whether the link leads to something inside the data directory.
fn leads_into(path: &Path, pgdata: &Path) -> Result<bool, Error> {
    let root = std::fs::canonicalize(pgdata).map_err(|e| Error::file("look at", pgdata, e))?;
    // If the link leads nowhere, the caller finds out why when it opens the target.
    Ok(std::fs::canonicalize(path).is_ok_and(|place| place.starts_with(root)))
}

fn full(pgdata: &Path, path: &[u8]) -> PathBuf {
    pgdata.join(std::ffi::OsStr::from_bytes(path))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "a failed set-up fails the test")]

    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use super::*;

    struct Case {
        folder: tempfile::TempDir,
        pgdata: PathBuf,
    }

    impl Case {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let pgdata = folder.path().join("data");
            fs::create_dir_all(pgdata.join("log")).unwrap();
            fs::create_dir(pgdata.join("pg_tblspc")).unwrap();
            Self { folder, pgdata }
        }

        fn outside(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn content(&self, path: &str, target: impl AsRef<Path>) -> LinkContent {
            symlink(&target, self.pgdata.join(path)).unwrap();
            let target = target.as_ref().as_os_str().as_bytes().into();
            link_content(&self.pgdata, &Link { path: path.as_bytes().into(), target, mtime: 0 }).unwrap()
        }
    }

    #[test]
    fn a_link_is_stored_as_what_postgresql_reads_through_it() {
        let case = Case::new();
        fs::write(case.outside("pg.conf"), "port = 1\n").unwrap();
        let LinkContent::File(file) = case.content("postgresql.conf", case.outside("pg.conf")) else {
            panic!("no file")
        };
        assert_eq!((&*file.path, file.size_bytes), (&b"postgresql.conf"[..], 9));
        assert!(
            matches!(case.content("pg_hba.conf", "../pg.conf"), LinkContent::File(_)),
            "relative, and it leads out"
        );
        assert!(matches!(case.content("twice", "postgresql.conf"), LinkContent::File(_)), "a link to a link");

        let settings = case.outside("conf.d");
        fs::create_dir_all(settings.join("deeper.conf")).unwrap();
        for name in ["b.conf", ".hidden.conf", "note.txt"] {
            fs::write(settings.join(name), "x").unwrap();
        }
        symlink(case.outside("pg.conf"), settings.join("a.conf")).unwrap();
        let LinkContent::Settings(directory, mut files) = case.content("conf.d", &settings) else {
            panic!("no settings")
        };
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let names: Vec<&[u8]> = files.iter().map(|file| &*file.path).collect();
        assert_eq!(&*directory.path, b"conf.d");
        assert_eq!(names, [&b"conf.d/a.conf"[..], b"conf.d/b.conf"]);
    }

    #[test]
    fn a_link_to_anything_else_stays_a_link() {
        let case = Case::new();
        fs::create_dir(case.outside("logs")).unwrap();
        fs::write(case.outside("logs/server.log"), "x").unwrap();
        assert!(matches!(case.content("pg_log", case.outside("logs")), LinkContent::Elsewhere), "no settings in it");
        assert!(matches!(case.content("gone.conf", case.outside("nothing")), LinkContent::Elsewhere));
        assert!(matches!(case.content("circle", "circle"), LinkContent::Elsewhere));
        assert!(matches!(case.content("null", "/dev/null"), LinkContent::Elsewhere));
        assert!(matches!(case.content("pg_tblspc/x", case.outside("logs/server.log")), LinkContent::Elsewhere));

        fs::write(case.pgdata.join("log/today"), "x").unwrap();
        assert!(matches!(case.content("log/now", "today"), LinkContent::Inside));
        assert!(matches!(case.content("logs", "log"), LinkContent::Inside));
        let absolute = case.pgdata.join("log/today");
        assert!(
            matches!(case.content("log/absolute", absolute), LinkContent::File(_)),
            "it would lead to the original"
        );
    }

    /// This needs root. For other users, the kernel itself refuses.
    #[test]
    fn root_does_not_read_what_postgresqls_user_may_not_read() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let case = Case::new();
        fs::set_permissions(case.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        chown(&case.pgdata, Some(12_345), Some(12_345)).unwrap();
        let closed = case.outside("closed");
        fs::create_dir(&closed).unwrap();
        for (name, mode) in [("secret", 0o600), ("open", 0o644), ("closed/open", 0o644), ("own", 0o400)] {
            fs::write(case.outside(name), "x").unwrap();
            fs::set_permissions(case.outside(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        chown(case.outside("own"), Some(12_345), None).unwrap();
        assert!(matches!(case.content("a", case.outside("secret")), LinkContent::Elsewhere));
        assert!(matches!(case.content("b", case.outside("closed/open")), LinkContent::Elsewhere));
        let LinkContent::File(open) = case.content("c", case.outside("open")) else { panic!("anybody may read it") };
        let LinkContent::File(own) = case.content("d", case.outside("own")) else { panic!("its owner may read it") };
        assert_eq!((open.mode, own.mode), (0o600, 0o400));
    }
}
