//! Compares a restored copy with what was in the data directory during the backup.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use holdfast_pgtypes::checksum::PAGE_SIZE;
use holdfast_pgtypes::page::verify_page;

use super::world::{Plain, Relation, World, restored, word};

impl World {
    /// Checks the restored copy. `sound` says that the backup found no page with a wrong checksum.
    pub(super) fn judge(&self, copy: &Path, sound: bool) -> Result<(), String> {
        for path in self.directories.iter().filter(|path| !self.gone.contains(*path)) {
            if !restored(copy, path).is_dir() {
                return Err(format!("the directory {path} is missing"));
            }
        }
        for (path, relation) in &self.relations {
            self.judge_relation(copy, path, relation, sound).map_err(|e| format!("{path}: {e}"))?;
        }
        for (path, plain) in &self.plain {
            self.judge_plain(copy, path, plain).map_err(|e| format!("{path}: {e}"))?;
        }
        Ok(())
    }

    fn judge_relation(&self, copy: &Path, path: &str, relation: &Relation, sound: bool) -> Result<(), String> {
        let place = restored(copy, path);
        let Ok(found) = fs::read(&place) else {
            return if self.gone.contains(path) { Ok(()) } else { Err("it is missing".to_owned()) };
        };
        if !self.touched.contains(path) {
            let same = fs::read(self.pgdata.join(path)).is_ok_and(|is| is == found);
            return if same || self.gone.contains(path) { Ok(()) } else { Err("it changed by itself".to_owned()) };
        }
        let (least, most) = (relation.least * PAGE_SIZE, relation.most * PAGE_SIZE);
        if found.len() < least || found.len() > most {
            return Err(format!("{} bytes, there were {least} to {most}", found.len()));
        }
        for (index, bytes) in found.chunks(PAGE_SIZE).enumerate() {
            let block = relation.first_block + index as u32;
            let versions = &relation.pages[index];
            // A page is zero before it is written, and after its file was shortened and extended. But one that was
            // there all the time is never zero.
            let may_be_zero = index >= relation.least;
            let mut words = bytes.as_chunks::<8>().0.iter().skip(3).map(|bytes| u64::from_le_bytes(*bytes));
            let strange = words.find(|found| {
                let version = (found >> 40) as u32;
                let known = *found == word(relation.number, version, block) && versions.contains(&version);
                !(known || *found == 0 && may_be_zero)
            });
            if let Some(strange) = strange {
                return Err(format!("block {block} has {strange:016x} and should be of {versions:?}"));
            }
            if let (true, Ok(page)) = (sound, bytes.try_into())
                && !verify_page(page, block).is_good()
            {
                return Err(format!("block {block} has a wrong checksum that nobody noticed"));
            }
        }
        Ok(())
    }

    fn judge_plain(&self, copy: &Path, path: &str, plain: &Plain) -> Result<(), String> {
        let place = restored(copy, path);
        if let Ok(target) = fs::read_link(&place) {
            let known = self.links.get(path).is_some_and(|targets| targets.contains(&target));
            return if known { Ok(()) } else { Err(format!("a link to {}", target.display())) };
        }
        let Ok(found) = fs::read(&place) else {
            return if self.gone.contains(path) { Ok(()) } else { Err("it is missing".to_owned()) };
        };
        match plain {
            Plain::Appended(length) => {
                let is = fs::read(self.pgdata.join(path)).map_err(|e| e.to_string())?;
                let prefix = found.len() >= *length && is.starts_with(&found);
                let changed = self.touched.contains(path) || found == is;
                if prefix && changed { Ok(()) } else { Err(format!("it never had these {} bytes", found.len())) }
            }
            Plain::Replaced(versions) => {
                let known = |(length, filling): &(usize, u8)| {
                    found.len() == *length && found.iter().all(|byte| byte == filling)
                };
                let fillings: BTreeSet<u8> = found.iter().copied().collect();
                if versions.iter().any(known) {
                    return Ok(());
                }
                Err(format!("{} bytes filled with {fillings:?} are none of {versions:?}", found.len()))
            }
        }
    }
}
