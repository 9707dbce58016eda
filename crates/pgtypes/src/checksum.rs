//! The checksum of a data page, as `pg_checksum_page` of `storage/checksum_impl.h`.
//!
//! Thirty-two FNV-1a lanes run side by side over the page, one word at a time for each. They are folded into one word,
//! which is mixed with the block number and reduced to 1..=65535. The lanes are independent, so the compiler can use
//! vector instructions for the inner loop. For the same reason the loops below use whole arrays.
//!
//! The page's own checksum field counts as zero. The block number is that of the whole relation, not of one of its
//! segment files.

/// Size of a data page in bytes, PostgreSQL's default and the only one in packages.
pub const PAGE_SIZE: usize = 8192;

/// Number of lanes, `N_SUMS`.
const LANES: usize = 32;
/// `FNV_PRIME`
const PRIME: u32 = 16_777_619;
/// Bytes taken by one step of all lanes.
const ROW: usize = LANES * 4;

/// The lanes' first values, `checksumBaseOffsets`.
const BASE: [u32; LANES] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

/// The checksum that belongs in the page with this block number.
pub fn page_checksum(page: &[u8; PAGE_SIZE], block_number: u32) -> u16 {
    let (rows, _) = page.as_chunks::<ROW>();
    let mut sums = BASE;
    let mut rows = rows.iter();
    if let Some(first) = rows.next() {
        let mut words = words(first);
        // pd_checksum is the third of the four 16-bit words after the LSN's eight bytes, the low half of word 2.
        if let Some(word) = words.get_mut(2) {
            *word &= 0xFFFF_0000;
        }
        step(&mut sums, &words);
    }
    for row in rows {
        step(&mut sums, &words(row));
    }
    step(&mut sums, &[0; LANES]);
    step(&mut sums, &[0; LANES]);
    let folded = sums.iter().fold(0, |folded, sum| folded ^ sum) ^ block_number;
    (folded % 65_535 + 1) as u16
}

/// The little-endian words of one row.
#[inline(always)]
#[expect(clippy::inline_always, reason = "the loop around it becomes vector code only as a whole")]
fn words(row: &[u8; ROW]) -> [u32; LANES] {
    let mut words = [0; LANES];
    let (bytes, _) = row.as_chunks::<4>();
    for (word, bytes) in words.iter_mut().zip(bytes) {
        *word = u32::from_le_bytes(*bytes);
    }
    words
}

/// One FNV-1a step of every lane, `CHECKSUM_COMP`.
#[inline(always)]
#[expect(clippy::inline_always, reason = "the loop around it becomes vector code only as a whole")]
fn step(sums: &mut [u32; LANES], words: &[u32; LANES]) {
    for (sum, word) in sums.iter_mut().zip(words) {
        let mixed = *sum ^ word;
        *sum = mixed.wrapping_mul(PRIME) ^ (mixed >> 17);
    }
}
