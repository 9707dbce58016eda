//! Kubernetes quantities of bytes, such as `100Gi`.

/// The number of whole bytes of a quantity, rounded up as Kubernetes does; `None` if it is not a quantity, is negative,
/// or is more than a volume can have (2^63).
pub fn bytes(text: &str) -> Option<u64> {
    let number_end =
        text.find(|character: char| !character.is_ascii_digit() && character != '.' && character != '+')?;
    let (number, suffix) = text.split_at(number_end);
    scaled(number, suffix)
}

/// The same, but a bare number is allowed too.
pub fn bytes_or_number(text: &str) -> Option<u64> {
    bytes(text).or_else(|| scaled(text, ""))
}

fn scaled(number: &str, suffix: &str) -> Option<u64> {
    let number = number.strip_prefix('+').unwrap_or(number);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) {
        return None;
    }
    let factor: u128 = match suffix {
        "" => 1,
        "m" => return scaled(number, "").map(|bytes| bytes.div_ceil(1000)),
        "k" => 1000,
        "M" => 1000_u128.pow(2),
        "G" => 1000_u128.pow(3),
        "T" => 1000_u128.pow(4),
        "P" => 1000_u128.pow(5),
        "E" => 1000_u128.pow(6),
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        "Ei" => 1 << 60,
        exponent => {
            let exponent: u32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            10_u128.checked_pow(exponent)?
        }
    };
    // Nine digits after the point are more than any quantity keeps.
    let fraction = &fraction[..fraction.len().min(9)];
    let parts = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let total = whole.checked_mul(factor)?.checked_add(fraction.checked_mul(factor)?.div_ceil(parts))?;
    u64::try_from(total).ok().filter(|total| *total <= 1 << 63)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_bytes() {
        for (text, expected) in [
            ("1Gi", Some(1 << 30)),
            ("100Gi", Some(100 << 30)),
            ("1.5Gi", Some(3 << 29)),
            (".5Ki", Some(512)),
            ("500M", Some(500_000_000)),
            ("1e3", Some(1000)),
            ("2E3", Some(2000)),
            ("2E", Some(2_000_000_000_000_000_000)),
            ("1500m", Some(2)),
            ("100GB", None),
            ("100G i", None),
            ("-1Gi", None),
            ("Gi", None),
            ("", None),
            ("9999999999Ei", None),
            ("1e99", None),
        ] {
            assert_eq!(bytes_or_number(text), expected, "{text}");
        }
        assert_eq!(bytes_or_number("1024"), Some(1024));
    }
}
