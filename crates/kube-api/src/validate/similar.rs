//! "Did you mean": the known word that is nearest to a written one.

/// The nearest of `known`, where one is near enough to be meant.
pub(super) fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let written_small = written.to_ascii_lowercase();
    // A slip in a short word makes another word.
    let limit = match written.chars().count() {
        0..=3 => 1,
        4..=8 => 2,
        _ => 3,
    };
    known
        .into_iter()
        .filter(|word| *word != written)
        .map(|word| (distance(&written_small, &word.to_ascii_lowercase()), word))
        .filter(|(distance, word)| *distance <= limit && *distance < word.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// Insertions, deletions, replacements and swaps of neighbours that make one word of the other.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    let mut previous_left = None;
    for (row, left_char) in left.chars().enumerate() {
        let mut current = vec![row + 1];
        for (column, right_char) in right.iter().enumerate() {
            let replaced = last[column] + usize::from(left_char != *right_char);
            let mut best = replaced.min(last[column + 1] + 1).min(current[column] + 1);
            if column > 0 && Some(*right_char) == previous_left && Some(&left_char) == right.get(column - 1) {
                best = best.min(before_last[column - 1] + 1);
            }
            current.push(best);
        }
        before_last = std::mem::replace(&mut last, current);
        previous_left = Some(left_char);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        let known = ["storage", "walStorage", "instances", "imageName", "backup", "env"];
        for (written, expected) in [
            ("storge", Some("storage")),
            ("Storage", Some("storage")),
            ("walstorage", Some("walStorage")),
            ("wal_storage", Some("walStorage")),
            ("instnaces", Some("instances")),
            ("instance", Some("instances")),
            ("image", None),
            ("evn", Some("env")),
            ("xyz", None),
            ("monitoring", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, known), expected, "{written}");
        }
        assert_eq!(distance("abcd", "acbd"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
