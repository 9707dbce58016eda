//! Clusters with another page size than the usual 8 KiB: files are stored whole, and no page is misread.

use std::fs;
use std::path::Path;

use holdfast_pgtypes::ControlFile;
use tokio_util::sync::CancellationToken;

use super::super::listing::PageCheck;
use super::super::plan::Units;
use super::super::run::page_checks;
use super::super::scan::{PageChecks, scan};
use super::{Bench, Wanted};
use crate::server::sample_control::{CHECKSUMS_AT, control_with};

/// The control file of a cluster with this page size and with data checksums. Its CRC is correct.
fn control(block_size: u32) -> Vec<u8> {
    // As in `ControlFileData` of PostgreSQL 18: `relseg_size` follows `blcksz`, and the CRC is at the end.
    const BLOCK_SIZE: usize = 216;
    const SEGMENT_PAGES: usize = 220;
    // A segment file has 1 GiB with every page size.
    let segment_pages = (1 << 30) / block_size;
    control_with(&[
        (BLOCK_SIZE, &block_size.to_le_bytes()),
        (SEGMENT_PAGES, &segment_pages.to_le_bytes()),
        (CHECKSUMS_AT, &1_u32.to_le_bytes()),
    ])
}

/// A data directory with relations of whole pages of this size, with random content.
fn data(pgdata: &Path, block_size: u32) -> Vec<(&'static str, Vec<u8>)> {
    for folder in ["global", "base/5", "pg_wal", "pg_tblspc"] {
        fs::create_dir_all(pgdata.join(folder)).unwrap();
    }
    let pages = |seed: u64, count: usize| {
        let mut bytes = vec![0; count * block_size as usize];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    };
    let files = vec![
        ("PG_VERSION", b"18\n".to_vec()),
        ("base/5/1259", pages(1, 1)),
        ("base/5/1260", pages(2, 37)),
        ("base/5/1260.1", pages(3, 21)),
        ("base/5/1260_fsm", pages(4, 3)),
        ("base/5/1261", Vec::new()),
        // This file ends within a page, as it can while PostgreSQL extends it.
        ("base/5/1262", pages(5, 2)[..block_size as usize + 100].to_vec()),
        ("global/pg_control", control(block_size)),
    ];
    for (path, content) in &files {
        fs::write(pgdata.join(path), content).unwrap();
    }
    files
}

#[test]
fn pages_of_another_size_are_not_checked() {
    for (block_size, checked) in [(8192, true), (1024, false), (4096, false), (16384, false), (32768, false)] {
        let control = ControlFile::parse(&control(block_size)).unwrap();
        assert_eq!((control.block_size, control.has_data_checksums()), (block_size, true));
        let checks = page_checks(&control, true);
        assert_eq!(checks == PageChecks::On, checked, "{block_size}");
        assert_eq!(page_checks(&control, false), PageChecks::Off);

        let folder = tempfile::tempdir().unwrap();
        data(folder.path(), block_size);
        let found = scan(folder.path(), &control, checks, &CancellationToken::default()).unwrap();
        let check_of = |path: &str| found.files.iter().find(|file| *file.path == *path.as_bytes()).unwrap().check;
        let second = if checked { PageCheck::FromBlock(131_072) } else { PageCheck::Off };
        assert_eq!((check_of("base/5/1260.1"), check_of("PG_VERSION")), (second, PageCheck::None), "{block_size}");
        // With every page size, a relation is read to its listed size, even if it has grown since.
        assert!(check_of("base/5/1259").is_relation() && check_of("base/5/1262").is_relation());
        for file in &found.files {
            let planned: u64 = Units::cut(std::slice::from_ref(file), 1 << 20).map(|unit| u64::from(unit.room())).sum();
            assert_eq!(planned, file.size_bytes);
        }
    }
}

/// Every byte is compared, with page checks and without.
#[tokio::test]
async fn clusters_of_every_block_size_are_restored() {
    for block_size in [1024, 2048, 4096, 16384, 32768] {
        for check_pages in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let (pgdata, restored) = (folder.path().join("data"), folder.path().join("restored"));
            let files = data(&pgdata, block_size);
            let bench = Bench::new().await;
            let wanted = Wanted { pgdata: &pgdata, server: None, check_pages, segment: 8, parent: None };
            let complete = bench.backup(&wanted).await.unwrap();
            assert_eq!(complete.record.checksum_failures.count, 0, "{block_size}");
            bench.restore(&complete, &restored).await.unwrap();
            for (path, content) in files {
                assert!(fs::read(restored.join(path)).unwrap() == content, "{block_size}: {path}");
            }
        }
    }
}
