//! Data pages that a PostgreSQL 18 with checksums wrote: blocks 1 and 2 of a copy of `pg_class`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use holdfast_pgtypes::checksum::{PAGE_SIZE, page_checksum};
use holdfast_pgtypes::page::{Checksums, PageCheck, PageHeader, check_page, is_all_zero, verify_page};
use holdfast_testkit::random::Random;
use proptest::prelude::*;

type Page = [u8; PAGE_SIZE];

fn pages() -> (Page, Page) {
    let (pages, _) = include_bytes!("fixtures/pages.18").as_chunks::<PAGE_SIZE>();
    (*pages.first().unwrap(), *pages.last().unwrap())
}

fn with(mut page: Page, offset: usize, byte: u8) -> Page {
    *page.get_mut(offset).unwrap() = byte;
    page
}

#[test]
fn real_pages_are_valid_at_their_block_only() {
    let (first, second) = pages();
    assert_eq!(verify_page(&first, 1), PageCheck::Valid);
    assert_eq!(verify_page(&second, 2), PageCheck::Valid);
    assert!(matches!(verify_page(&first, 2), PageCheck::BadChecksum { .. }));
    // The same page in the second segment file of a relation.
    assert!(matches!(verify_page(&first, 131_072 + 1), PageCheck::BadChecksum { .. }));
    let header = PageHeader::parse(&first).unwrap();
    assert_eq!((header.size, header.layout_version, header.special), (8192, 4, 8192));
    assert!(header.lsn.is_valid() && header.is_sane() && !header.is_new());
}

#[test]
fn changed_bytes_are_found_as_far_as_16_bits_go() {
    let (page, _) = pages();
    let unnoticed = (0..PAGE_SIZE)
        .filter(|offset| verify_page(&with(page, *offset, page.get(*offset).unwrap() ^ 0x01), 1) == PageCheck::Valid)
        .count();
    // One change in 65535 keeps the checksum by chance; this page has one such byte.
    assert_eq!(unnoticed, 1);
}

#[test]
fn new_pages_are_all_zero() {
    let zero = [0; PAGE_SIZE];
    assert_eq!(verify_page(&zero, 7), PageCheck::New);
    assert!(PageCheck::New.is_good());
    for offset in [0, 8, 100, PAGE_SIZE - 1] {
        let page = with(zero, offset, 1);
        assert_eq!(verify_page(&page, 7), PageCheck::NewButNotZero, "offset {offset}");
        assert!(!is_all_zero(&page));
    }
}

#[test]
fn without_checksums_the_header_alone_counts() {
    let (page, _) = pages();
    assert_eq!(check_page(&with(page, 8000, 0xAA), 99, Checksums::Off), PageCheck::Valid);
    // pd_lower past pd_upper
    assert_eq!(check_page(&with(page, 13, 0x7F), 1, Checksums::Off), PageCheck::BadHeader);
    // an unknown flag
    assert_eq!(check_page(&with(page, 11, 0x80), 1, Checksums::Off), PageCheck::BadHeader);
}

#[test]
fn a_bad_header_under_a_good_checksum_is_bad() {
    let (page, _) = pages();
    let mut page = with(page, 11, 0x80);
    page.splice_checksum(1);
    assert_eq!(verify_page(&page, 1), PageCheck::BadHeader);
}

trait SpliceChecksum {
    fn splice_checksum(&mut self, block: u32);
}

impl SpliceChecksum for Page {
    fn splice_checksum(&mut self, block: u32) {
        let checksum = page_checksum(self, block);
        self.get_mut(8..10).unwrap().copy_from_slice(&checksum.to_le_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_checksum_is_never_zero_and_ignores_its_own_field(seed: u64, block: u32, field: [u8; 2]) {
        let mut page = [0; PAGE_SIZE];
        let mut random = Random::of_seed(seed);
        page.fill_with(|| random.word() as u8);
        let checksum = page_checksum(&page, block);
        prop_assert_ne!(checksum, 0);
        page.get_mut(8..10).unwrap().copy_from_slice(&field);
        prop_assert_eq!(page_checksum(&page, block), checksum);
        let _ = verify_page(&page, block);
    }

    #[test]
    fn headers_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let _ = PageHeader::parse(&bytes);
    }
}
