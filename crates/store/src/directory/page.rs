//! One page of a listing, in the byte order of the names.
//!
//! Folders are read one at a time, from the first that can hold names after the end of the previous page. A folder
//! counts as its name with `/`, so `a-b` comes before `a/b`, as in the order of the names. Of each folder, only the
//! first entries that remain are kept, at most as many as a page has. So the memory is bounded by the page, whatever
//! the number of objects and folders.
//!
//! Objects that are written or deleted between two pages may or may not be in the listing, as with S3.

use std::collections::BTreeSet;
use std::fs::DirEntry;
use std::io;

use super::files::{Files, TEMPORARY, is_absence, may_be_listed};
use super::local_error::LocalError;
use super::watch::Watch;
use crate::{ListPage, ObjectInfo, ObjectName};

/// Objects of a page: few enough to hold, many enough that reading the folders above them again costs little.
pub(super) const OBJECTS: usize = 4096;

/// Sorts after every name in the same folder.
const END_OF_FOLDER: char = char::MAX;

/// Reads the page of at most `most` objects after `after`.
pub(super) fn read(
    files: &Files,
    prefix: &str,
    after: Option<&str>,
    most: usize,
    watch: &Watch,
) -> Result<ListPage, LocalError> {
    let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
    if !may_be_listed(folder) {
        return Ok(ListPage::default());
    }
    let after = after.unwrap_or_default();
    let mut page = Page { files, prefix, after, most, watch, objects: Vec::new(), next: None };
    page.folder(folder)?;
    Ok(ListPage { objects: page.objects, next: page.next })
}

struct Page<'a> {
    files: &'a Files,
    prefix: &'a str,
    after: &'a str,
    most: usize,
    watch: &'a Watch,
    objects: Vec<ObjectInfo>,
    /// Where the next page continues; set when this page is full and there is more.
    next: Option<String>,
}

impl Page<'_> {
    fn folder(&mut self, folder: &str) -> io::Result<()> {
        let (keys, all) = self.keys(folder)?;
        for key in &keys {
            match key.strip_suffix('/') {
                Some(below) => self.folder(below)?,
                None => self.object(key)?,
            }
            if self.next.is_some() {
                return Ok(());
            }
        }
        if let (false, Some(last)) = (all, keys.last()) {
            let end = if last.ends_with('/') { String::from(END_OF_FOLDER) } else { String::new() };
            self.next = Some(format!("{last}{end}"));
        }
        Ok(())
    }

    /// The first entries of a folder that may belong to this page, and whether these are all.
    fn keys(&self, folder: &str) -> io::Result<(BTreeSet<String>, bool)> {
        let mut keys = BTreeSet::new();
        let mut all = true;
        let entries = match std::fs::read_dir(self.files.root().join(folder)) {
            Err(error) if is_absence(&error) => return Ok((keys, all)),
            entries => entries?,
        };
        for entry in entries {
            self.watch.moved();
            let Some(key) = key(folder, &entry?)? else { continue };
            if !self.wants(&key) {
                continue;
            }
            keys.insert(key);
            if keys.len() > self.most {
                keys.pop_last();
                all = false;
            }
        }
        Ok((keys, all))
    }

    fn wants(&self, key: &str) -> bool {
        let is_folder = key.ends_with('/');
        let in_prefix = key.starts_with(self.prefix) || (is_folder && self.prefix.starts_with(key));
        let left = self.after.strip_prefix(key).filter(|_| is_folder);
        // The previous page may have ended after a whole folder.
        let later = key > self.after || left.is_some_and(|left| left.chars().ne([END_OF_FOLDER]));
        in_prefix && later
    }

    fn object(&mut self, key: &str) -> io::Result<()> {
        self.watch.moved();
        let name = match ObjectName::new(key) {
            Ok(name) => name,
            Err(error) => {
                tracing::debug!(%error, "skipping a foreign file");
                return Ok(());
            }
        };
        let metadata = match std::fs::symlink_metadata(self.files.root().join(key)) {
            // It was deleted while we read.
            Err(error) if is_absence(&error) => return Ok(()),
            metadata => metadata?,
        };
        if !metadata.is_file() {
            return Ok(());
        }
        if self.objects.len() == self.most {
            // Only now do we know that there is another page.
            self.next = self.objects.last().map(|last| last.name.to_string());
            return Ok(());
        }
        let modified = metadata.modified().ok();
        self.objects.push(ObjectInfo { name, size_bytes: metadata.len(), crc32c: None, modified });
        Ok(())
    }
}

/// The whole name of an entry, a folder's with `/`; `None` if it is neither file nor folder, or not ours.
fn key(folder: &str, entry: &DirEntry) -> io::Result<Option<String>> {
    let Ok(name) = entry.file_name().into_string() else { return Ok(None) };
    if folder.is_empty() && name == TEMPORARY {
        return Ok(None);
    }
    let kind = match entry.file_type() {
        Err(error) if is_absence(&error) => return Ok(None),
        kind => kind?,
    };
    let end = match (kind.is_dir(), kind.is_file()) {
        (true, _) => "/",
        (_, true) => "",
        _ => return Ok(None),
    };
    Ok(Some(if folder.is_empty() { format!("{name}{end}") } else { format!("{folder}/{name}{end}") }))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::path::Path;

    use super::*;
    use crate::Hurry;

    fn make(root: &Path, names: &[String]) {
        for name in names {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, name).unwrap();
        }
    }

    /// The names of all pages; no page holds more than `most`.
    fn all(root: &Path, prefix: &str, after: Option<&str>, most: usize) -> Vec<String> {
        let files = Files::new(root).unwrap();
        let (mut found, mut next) = (Vec::new(), None);
        loop {
            let after = next.as_deref().into_iter().chain(after).max();
            let watch = Watch::begin(root, Hurry::default()).unwrap();
            let page = read(&files, prefix, after, most, &watch).unwrap();
            assert!(page.objects.len() <= most, "{} objects in a page of {most}", page.objects.len());
            found.extend(page.objects.into_iter().map(|info| info.name.to_string()));
            match page.next {
                Some(more) => assert!(next.replace(more.clone()).is_none_or(|before| before < more), "it advances"),
                None => return found,
            }
        }
    }

    #[test]
    fn pages_are_the_names_in_their_order_whatever_their_size() {
        let folder = tempfile::tempdir().unwrap();
        let some = ["a-b/1", "a-b/2", "a.b", "b/c", "b/c-d", "b/cd/e/f", "b-", "c/d/e/1", "c/d/e/2", "c/d/e0"];
        let mut names = some.map(str::to_owned).to_vec();
        names.extend((0..30).map(|number| format!("wal/{:02}/{number:03}", number / 7)));
        make(folder.path(), &names);
        std::fs::create_dir_all(folder.path().join("b/empty/deep")).unwrap();
        std::fs::create_dir_all(folder.path().join(TEMPORARY)).unwrap();
        std::fs::write(folder.path().join(TEMPORARY).join("1"), "x").unwrap();
        names.sort();
        let prefixes =
            ["", "a", "a-b/", "b", "b/", "b/c", "b/cd/", "b/cd/e/f", "wal/02/", "wal/", "x", "wal/02/01", "c/d/e"];
        let afters = [
            None,
            Some("a-b/1"),
            Some("b/c"),
            Some("b/cd"),
            Some("b/"),
            Some("wal/02/015"),
            Some("wal/02"),
            Some("zzz"),
        ];
        for most in [1, 2, 3, 7, 1000] {
            for prefix in prefixes {
                for after in afters {
                    let wanted =
                        |name: &&String| name.starts_with(prefix) && after.is_none_or(|after| name.as_str() > after);
                    let expected: Vec<&String> = names.iter().filter(wanted).collect();
                    let found = all(folder.path(), prefix, after, most);
                    assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{prefix:?} after {after:?}, {most} a page");
                }
            }
        }
    }

    /// A page full of empty folders must not end the listing.
    #[test]
    fn empty_folders_do_not_end_a_listing() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..10 {
            std::fs::create_dir_all(folder.path().join(format!("f/{number}"))).unwrap();
        }
        make(folder.path(), &["f/9/object".to_owned(), "g".to_owned()]);
        for most in [1, 3, 10, 11] {
            assert_eq!(all(folder.path(), "", None, most), ["f/9/object", "g"], "{most}");
        }
    }
}
