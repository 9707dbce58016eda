//! Finds the changed pages of an extent that was read, by the pages' own LSNs: for servers without WAL summaries.

use std::collections::BTreeSet;
use std::ops::Range;

use holdfast_pgtypes::changes::DataFile;
use holdfast_pgtypes::changes::page_lsn::{HintBits, PageChange, PageLsnFile, by_page_lsn, page_change};
use holdfast_pgtypes::checksum::PAGE_SIZE;
use holdfast_pgtypes::page::Checksums;
use holdfast_pgtypes::{ControlFile, Lsn, PgVersion};
use holdfast_repo::manifest::Manifest;

use super::super::listing::SourceFile;
use crate::restore::PathIndex;

/// What is needed to decide whether a page has changed.
#[derive(Debug)]
pub(in super::super) struct PageLsns {
    /// The parent's start LSN.
    since: Lsn,
    version: PgVersion,
    segment_pages: u32,
    checksums: Checksums,
    /// Directories of databases that were created since the parent: their pages may have old LSNs from a template.
    new_databases: BTreeSet<Vec<u8>>,
}

impl PageLsns {
    /// For the files of a listing.
    pub(in super::super) fn new(
        since: Lsn,
        control: &ControlFile,
        files: &[SourceFile],
        manifest: &Manifest,
        index: &PathIndex,
    ) -> Self {
        let mut new_databases = BTreeSet::new();
        for file in files {
            let Some(directory) = file.path.strip_suffix(b"/PG_VERSION") else { continue };
            // `PG_VERSION` is written once, when the database is created.
            let parent = index.find(manifest, &file.path).and_then(|position| manifest.file(position));
            let mtime = u64::try_from(file.mtime).unwrap_or(0);
            if parent.is_none_or(|parent| parent.mtime_seconds != mtime) {
                new_databases.insert(directory.to_vec());
            }
        }
        let checksums = if control.has_data_checksums() { Checksums::On } else { Checksums::Off };
        let (version, segment_pages) = (control.version, control.relation_segment_pages);
        Self { since, version, segment_pages, checksums, new_databases }
    }

    /// The changed bytes of a piece of a file, as ranges within the piece. `None` if that is not known: it is another
    /// kind of file, or a page may have changed without a new LSN. `parent_size` is the file's length in the parent, in
    /// bytes.
    pub(in super::super) fn changed(
        &self,
        file: &SourceFile,
        parent_size: u64,
        offset: u64,
        piece: &[u8],
    ) -> Option<Vec<Range<u32>>> {
        let directory = file.path.iter().rposition(|byte| *byte == b'/').map_or(&b""[..], |end| &file.path[..end]);
        let parent_size = (!self.new_databases.contains(directory)).then_some(parent_size);
        let data = DataFile { path: &file.path, size: file.size_bytes, parent_size };
        let PageLsnFile::Pages { first_block, parent_length, .. } = by_page_lsn(data, self.version, self.segment_pages)
        else {
            return None;
        };
        let (pages, rest) = piece.as_chunks::<PAGE_SIZE>();
        if !rest.is_empty() || !offset.is_multiple_of(PAGE_SIZE as u64) {
            return None;
        }
        // With page checksums, the first hint bit after a checkpoint always sets the page's LSN. `wal_log_hints` does
        // the same, but we cannot know whether it was on all the time.
        let hint_bits = if self.checksums == Checksums::On { HintBits::Logged } else { HintBits::NotLogged };
        let first = (offset / PAGE_SIZE as u64) as u32;
        let mut changed: Vec<Range<u32>> = Vec::new();
        for (page, at) in pages.iter().zip(0_u32..) {
            let block = first + at;
            let change = page_change(page, first_block + block, self.since, self.checksums, hint_bits);
            let is_new = block >= parent_length;
            match change {
                PageChange::Unknown if !is_new => return None,
                PageChange::Unchanged if !is_new => {}
                PageChange::Unknown | PageChange::Unchanged | PageChange::Changed(_) => {
                    let start = at * PAGE_SIZE as u32;
                    match changed.last_mut().filter(|last| last.end == start) {
                        Some(last) => last.end += PAGE_SIZE as u32,
                        None => changed.push(start..start + PAGE_SIZE as u32),
                    }
                }
            }
        }
        Some(changed)
    }
}
