//! Writes values as YAML.

use serde_json::Value;

/// A value that cannot be written as YAML.
#[derive(Debug, thiserror::Error)]
#[error("cannot be written as YAML")]
pub struct WriteError(#[from] serde_saphyr::ser::Error);

/// The writer would fold longer lines.
const LONGEST_LINE: usize = 1 << 20;

/// Writes a value as one YAML document, which ends with a line break.
///
/// Words that YAML 1.1 reads as another type (`on`, `no`, `1_000`) are quoted, because `kubectl` reads YAML 1.1.
pub fn write(value: &Value) -> Result<String, WriteError> {
    // Folded texts are hard to search and to compare. Therefore long lines stay whole, and texts of several lines keep
    // their lines.
    let options = serde_saphyr::ser_options! { folded_wrap_chars: LONGEST_LINE };
    let mut text = serde_saphyr::to_string_with_options(value, options)?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_written_value_is_read_back_unchanged() {
        let value = json!({
            "texts": ["on", "no", "null", "~", "1_000", "0x10", "1e3", "2025-01-01", "", " ", "a: b", "# c", "'", "\"", "two\nlines\n", "two\n lines", " two\nlines", "\n", "a\n\n", "# a\nb", "tab\tb\nc ", "a\r\nb"],
            "numbers": [1, -1, 1.5, 0],
            "flags": [true, false, null],
            "empty": {"list": [], "object": {}},
            "long": "word ".repeat(60),
        });
        let text = write(&value).unwrap();
        let documents = crate::manifest::read(&text).unwrap();
        assert_eq!(documents.len(), 1);
        assert_eq!(documents[0].value, value, "{text}");
    }

    #[test]
    fn it_reads_like_a_manifest() {
        let value = json!({"apiVersion": "v1", "spec": {"list": [{"name": "a", "value": "on"}], "text": "x"}});
        assert_eq!(
            write(&value).unwrap(),
            "apiVersion: v1\nspec:\n  list:\n  - name: a\n    value: \"on\"\n  text: x\n"
        );
    }
}
