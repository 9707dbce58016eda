//! The rules for the parts of an upload, the same for every back-end.

use std::collections::BTreeMap;

/// The total size of the parts in bytes, or what is wrong with them. `sizes` maps part numbers to sizes.
pub(crate) fn total_size(sizes: &BTreeMap<u32, u64>) -> Result<u64, String> {
    let Some((&last_number, &last_size)) = sizes.last_key_value() else { return Ok(0) };
    let size = sizes.first_key_value().map_or(0, |(_, size)| *size);
    let mut total = 0;
    for (expected, (&number, &bytes)) in (1_u32..).zip(sizes) {
        if number != expected {
            return Err(format!("part {expected} of the upload is missing"));
        }
        if number < last_number && bytes != size {
            return Err(format!("part {number} has {bytes} bytes, part 1 has {size}"));
        }
        total += bytes;
    }
    if last_size > size {
        return Err(format!("the last part has {last_size} bytes, more than the {size} of part 1"));
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_must_be_even_and_without_gaps() {
        for (sizes, expected) in [
            (&[][..], Ok(0)),
            (&[(1, 3)], Ok(3)),
            (&[(1, 5), (2, 5), (3, 1)], Ok(11)),
            (&[(2, 5)], Err("part 1 of the upload is missing")),
            (&[(1, 5), (3, 5)], Err("part 2 of the upload is missing")),
            (&[(1, 5), (2, 4), (3, 1)], Err("part 2 has 4 bytes, part 1 has 5")),
            (&[(1, 5), (2, 6)], Err("the last part has 6 bytes, more than the 5 of part 1")),
        ] {
            let sizes: BTreeMap<u32, u64> = sizes.iter().copied().collect();
            assert_eq!(total_size(&sizes), expected.map_err(str::to_owned), "{sizes:?}");
        }
    }
}
