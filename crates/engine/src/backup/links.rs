//! Links in the data directory that are not PostgreSQL's own, and what of them is in a backup. Blocking.
//!
//! PostgreSQL reads its settings, keys and certificates through links, and a backup without them may not start on another
//! host. The link alone would lead nowhere there; beside the original it would let two servers share their settings. So a
//! link to a file is in the backup as that file, and a link to a directory as a directory with the files that `include_dir`
//! reads. What else lies in such a directory may be of any kind and size (the server's log, somebody's home): it is not in the
//! backup, of which the user is told. A link by a relative name to a place inside the data directory stays as it is.
//!
//! The user of PostgreSQL makes links as he likes. Root must not read for him what he may not read himself; nor does
//! PostgreSQL read it, so that the link is kept. Another user who may not read it fails the backup.

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
use crate::places::Identity;

/// What is in the backup in the place of a link.
#[derive(Debug)]
pub(super) enum Behind {
    /// The link: it leads to a place inside the data directory, by a relative name.
    Inside,
    /// The file.
    File(SourceFile),
    /// A directory, with the settings in it.
    Settings(Directory, Vec<SourceFile>),
    /// The link: there is nothing that could be taken.
    Elsewhere,
}

/// Whether content may be read through a link at this path of the data directory.
pub(super) fn may_follow(path: &[u8]) -> bool {
    !holds_data(path) && !path.starts_with(b"pg_tblspc/")
}

/// Adds to the list what a backup has in the place of a link.
pub(super) fn list(pgdata: &Path, link: Link, scan: &mut Scan) -> Result<(), Error> {
    let behind = look_behind(pgdata, &link)?;
    scan.link_warnings.extend(warning(&link, &behind));
    match behind {
        Behind::Inside | Behind::Elsewhere => scan.links.push(link),
        Behind::File(file) => {
            scan.total_bytes += file.size_bytes;
            scan.files.push(file);
        }
        Behind::Settings(directory, files) => {
            scan.directories.push(directory);
            scan.total_bytes += files.iter().map(|file| file.size_bytes).sum::<u64>();
            scan.files.extend(files);
        }
    }
    Ok(())
}

/// Looks at what a link leads to.
pub(super) fn look_behind(pgdata: &Path, link: &Link) -> Result<Behind, Error> {
    let path = full(pgdata, &link.path);
    if !may_follow(&link.path) {
        return Ok(Behind::Elsewhere);
    }
    if !link.target.starts_with(b"/") && leads_into(&path, pgdata)? {
        return Ok(Behind::Inside);
    }
    match open(pgdata, &path)? {
        Some((_, found)) if found.is_file() => Ok(Behind::File(file(pgdata, &link.path, &found)?)),
        Some((_, found)) if found.is_dir() => settings(pgdata, link, &found),
        _ => Ok(Behind::Elsewhere),
    }
}

/// What the user is informed of about a link, now and before a restore.
pub(super) fn warning(link: &Link, behind: &Behind) -> Option<String> {
    let (path, target) = (String::from_utf8_lossy(&link.path), String::from_utf8_lossy(&link.target));
    match behind {
        Behind::Inside => None,
        Behind::File(_) => {
            Some(format!("{path} is a link to {target}: the backup has the content, and a restore makes a file of it"))
        }
        Behind::Settings(..) => Some(format!(
            "{path} is a link to the directory {target}: the backup has the settings in it (*.conf) and nothing else, and a \
             restore makes a directory of it"
        )),
        Behind::Elsewhere => {
            Some(format!("{path} is a link to {target} and is kept as a link: what it leads to is not in the backup"))
        }
    }
}

/// Opens what a link leads to; `None` where there is nothing to read, or nothing that may be read for PostgreSQL's user.
pub(super) fn open(pgdata: &Path, path: &Path) -> Result<Option<(File, Metadata)>, Error> {
    // A pipe must not be waited for.
    let opened = File::options().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path);
    let opened = match opened {
        Ok(opened) => opened,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(e) if e.kind() == ErrorKind::PermissionDenied && rustix::process::geteuid().as_raw() == owner(pgdata)? => {
            return Ok(None);
        }
        // Links that lead to each other, a socket, a device without its driver.
        Err(e)
            if [Errno::LOOP, Errno::NXIO, Errno::NODEV]
                .iter()
                .any(|errno| e.raw_os_error() == Some(errno.raw_os_error())) =>
        {
            return Ok(None);
        }
        Err(e) => return Err(Error::file("open what the link leads to,", path, e)),
    };
    let found = opened.metadata().map_err(|e| Error::file("look at", path, e))?;
    Ok(may_read(pgdata, &opened, &found)?.then_some((opened, found)))
}

/// Whether PostgreSQL's user may read what root has opened for him. Groups are not asked: a doubt is no.
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
fn settings(pgdata: &Path, link: &Link, found: &Metadata) -> Result<Behind, Error> {
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
        return Ok(Behind::Elsewhere);
    }
    let mode = own_mode(pgdata, found, 0o700)?;
    Ok(Behind::Settings(Directory { path: link.path.clone(), mode, mtime: found.mtime() }, files))
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

/// The mode that a restored copy gets. PostgreSQL takes a key that root keeps for a group, and refuses the same mode where
/// the file is its own (`check_ssl_key_file_permissions`).
fn own_mode(pgdata: &Path, found: &Metadata, of_another: u32) -> Result<u32, Error> {
    Ok(if found.uid() == owner(pgdata)? { found.mode() & 0o7777 } else { of_another })
}

fn owner(pgdata: &Path) -> Result<u32, Error> {
    std::fs::metadata(pgdata).map(|found| found.uid()).map_err(|e| Error::file("look at", pgdata, e))
}

/// Whether the link leads to something inside the data directory.
fn leads_into(path: &Path, pgdata: &Path) -> Result<bool, Error> {
    let root = std::fs::canonicalize(pgdata).map_err(|e| Error::file("look at", pgdata, e))?;
    // Where it leads nowhere, and why, is for the look at what it leads to.
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

        fn behind(&self, path: &str, target: impl AsRef<Path>) -> Behind {
            symlink(&target, self.pgdata.join(path)).unwrap();
            let target = target.as_ref().as_os_str().as_bytes().into();
            look_behind(&self.pgdata, &Link { path: path.as_bytes().into(), target, mtime: 0 }).unwrap()
        }
    }

    #[test]
    fn a_link_is_what_postgresql_reads_through_it() {
        let case = Case::new();
        fs::write(case.outside("pg.conf"), "port = 1\n").unwrap();
        let Behind::File(file) = case.behind("postgresql.conf", case.outside("pg.conf")) else { panic!("no file") };
        assert_eq!((&*file.path, file.size_bytes), (&b"postgresql.conf"[..], 9));
        assert!(matches!(case.behind("pg_hba.conf", "../pg.conf"), Behind::File(_)), "relative, and it leads out");
        assert!(matches!(case.behind("twice", "postgresql.conf"), Behind::File(_)), "a link to a link");

        let settings = case.outside("conf.d");
        fs::create_dir_all(settings.join("deeper.conf")).unwrap();
        for name in ["b.conf", ".hidden.conf", "note.txt"] {
            fs::write(settings.join(name), "x").unwrap();
        }
        symlink(case.outside("pg.conf"), settings.join("a.conf")).unwrap();
        let Behind::Settings(directory, mut files) = case.behind("conf.d", &settings) else { panic!("no settings") };
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let names: Vec<&[u8]> = files.iter().map(|file| &*file.path).collect();
        assert_eq!(&*directory.path, b"conf.d");
        assert_eq!(names, [&b"conf.d/a.conf"[..], b"conf.d/b.conf"]);
    }

    #[test]
    fn what_cannot_be_taken_stays_a_link() {
        let case = Case::new();
        fs::create_dir(case.outside("logs")).unwrap();
        fs::write(case.outside("logs/server.log"), "x").unwrap();
        assert!(matches!(case.behind("pg_log", case.outside("logs")), Behind::Elsewhere), "no settings in it");
        assert!(matches!(case.behind("gone.conf", case.outside("nothing")), Behind::Elsewhere));
        assert!(matches!(case.behind("circle", "circle"), Behind::Elsewhere));
        assert!(matches!(case.behind("null", "/dev/null"), Behind::Elsewhere));
        assert!(matches!(case.behind("pg_tblspc/x", case.outside("logs/server.log")), Behind::Elsewhere));

        fs::write(case.pgdata.join("log/today"), "x").unwrap();
        assert!(matches!(case.behind("log/now", "today"), Behind::Inside));
        assert!(matches!(case.behind("logs", "log"), Behind::Inside));
        let absolute = case.pgdata.join("log/today");
        assert!(matches!(case.behind("log/absolute", absolute), Behind::File(_)), "it would lead to the original");
    }

    /// The tests run as root; elsewhere the kernel itself refuses.
    #[test]
    fn root_reads_nothing_for_others_that_they_may_not_read() {
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
        assert!(matches!(case.behind("a", case.outside("secret")), Behind::Elsewhere));
        assert!(matches!(case.behind("b", case.outside("closed/open")), Behind::Elsewhere));
        let Behind::File(open) = case.behind("c", case.outside("open")) else { panic!("anybody may read it") };
        let Behind::File(own) = case.behind("d", case.outside("own")) else { panic!("its owner may read it") };
        assert_eq!((open.mode, own.mode), (0o600, 0o400));
    }
}
