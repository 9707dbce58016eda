//! "Did you mean": the known word that is nearest to a written one.

/// The nearest of `known`, if one is near enough.
pub(super) fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let written_small = written.to_ascii_lowercase();
    // A slip in a short word gives another word.
    let limit = match written.chars().count() {
        0..=3 => 1,
        4..=8 => 2,
        _ => 3,
    };
    known
        .into_iter()
        .filter(|word| *word != written)
        // Insertions, deletions, replacements and swaps of neighbours.
        .map(|word| (strsim::osa_distance(&written_small, &word.to_ascii_lowercase()), word))
        .filter(|(distance, word)| *distance <= limit && *distance < word.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
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
    }
}
