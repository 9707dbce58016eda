//! Bech32 (BIP 173) for the text forms of keys: a prefix, the digit `1`, and five bits in each character, of which the
//! last six are a checksum that detects every mistyped character.

const DIGITS: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
const CHECKSUM_DIGITS: usize = 6;

/// The text of these bytes, in small letters.
pub(super) fn encode(prefix: &str, bytes: &[u8]) -> String {
    let mut digits = regroup(bytes.iter().copied(), 8, 5, true).unwrap_or_default();
    let sum = polynomial(values(prefix).chain(digits.iter().copied()).chain([0; CHECKSUM_DIGITS])) ^ 1;
    digits.extend((0..CHECKSUM_DIGITS).map(|at| (sum >> (5 * (CHECKSUM_DIGITS - 1 - at)) & 31) as u8));
    let text = digits.iter().filter_map(|digit| DIGITS.get(usize::from(*digit))).map(|digit| char::from(*digit));
    format!("{prefix}1{}", text.collect::<String>())
}

/// The bytes of a text with this prefix, in small or in capital letters; `None` if it is anything else.
pub(super) fn decode(prefix: &str, text: &str) -> Option<Vec<u8>> {
    let lower = text.to_ascii_lowercase();
    if lower != text && text.to_ascii_uppercase() != text {
        return None;
    }
    let digits = lower.strip_prefix(prefix)?.strip_prefix('1')?;
    let digits: Option<Vec<u8>> = digits.bytes().map(value).collect();
    let digits = digits?;
    if polynomial(values(prefix).chain(digits.iter().copied())) != 1 {
        return None;
    }
    regroup(digits.get(..digits.len().checked_sub(CHECKSUM_DIGITS)?)?.iter().copied(), 5, 8, false)
}

fn value(digit: u8) -> Option<u8> {
    DIGITS.iter().position(|known| *known == digit).and_then(|at| u8::try_from(at).ok())
}

/// The prefix as it counts in the checksum.
fn values(prefix: &str) -> impl Iterator<Item = u8> {
    prefix.bytes().map(|byte| byte >> 5).chain([0]).chain(prefix.bytes().map(|byte| byte & 31))
}

fn polynomial(values: impl Iterator<Item = u8>) -> u32 {
    const GENERATORS: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    values.fold(1, |sum: u32, value| {
        let next = (sum & 0x01ff_ffff) << 5 ^ u32::from(value);
        let taken = GENERATORS.iter().enumerate().filter(|(bit, _)| (sum >> 25) >> bit & 1 == 1);
        taken.fold(next, |next, (_, generator)| next ^ generator)
    })
}

/// Regroups bits. `None` if the bits that are left over cannot be padding.
fn regroup(values: impl Iterator<Item = u8>, from: u32, to: u32, pad: bool) -> Option<Vec<u8>> {
    let (mut waiting, mut bits, mut groups) = (0_u32, 0, Vec::new());
    let most = (1_u32 << to) - 1;
    for value in values {
        waiting = (waiting << from | u32::from(value)) & 0xfff;
        bits += from;
        while bits >= to {
            bits -= to;
            groups.push(u8::try_from(waiting >> bits & most).ok()?);
        }
    }
    if pad {
        if bits > 0 {
            groups.push(u8::try_from(waiting << (to - bits) & most).ok()?);
        }
    } else if bits >= from || waiting & ((1 << bits) - 1) != 0 {
        return None;
    }
    Some(groups)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use proptest::prelude::*;

    /// A text of BIP 173, and the recipient of age's own documentation.
    #[test]
    fn known_texts_are_read() {
        assert_eq!(decode("a", "A12UEL5L").unwrap(), [0_u8; 0]);
        let text = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
        let bytes = decode("age", text).unwrap();
        assert_eq!(bytes.len(), 32);
        assert_eq!(encode("age", &bytes), text);
        for wrong in ["Age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p", "a12uel5m", "a1", "a", ""] {
            assert_eq!(decode("age", wrong).or_else(|| decode("a", wrong)), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn bytes_round_trip(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let text = encode("age-secret-key-", &bytes);
            prop_assert_eq!(decode("age-secret-key-", &text).unwrap(), bytes.clone());
            prop_assert_eq!(decode("age-secret-key-", &text.to_ascii_uppercase()).unwrap(), bytes);
        }

        #[test]
        fn nothing_panics(text in ".{0,100}") {
            let _ = decode("age", &text);
        }

        #[test]
        fn a_mistyped_character_is_found(at in 4_usize..62, other in 0_usize..32) {
            let text = encode("age", &[7; 32]);
            let mut typed = text.clone().into_bytes();
            typed[at] = DIGITS[other];
            let typed = String::from_utf8(typed).unwrap();
            prop_assert_eq!(decode("age", &typed).is_some(), typed == text);
        }
    }
}
