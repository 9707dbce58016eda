//! PostgreSQL's major version, from the tag of an image.

use super::finding::{Findings, Reason};
use holdfast_pgtypes::PgVersion;
use holdfast_pgtypes::version::UnsupportedVersion;

/// The major version that a tag begins with, such as 18 of `postgresql:18.1-bookworm`.
pub(super) fn major(image: &str) -> Option<u16> {
    let tag = tag(image)?;
    let tag = tag.strip_prefix(['v', 'V']).unwrap_or(tag);
    let digits = tag.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = tag.split_at(digits);
    // `20250101` and `1-abc` are not versions of PostgreSQL.
    let followed =
        rest.is_empty() || rest.starts_with(['.', '-', '_']) || rest.starts_with("beta") || rest.starts_with("rc");
    (number.len() <= 2 && followed).then(|| number.parse().ok())?
}

fn tag(image: &str) -> Option<&str> {
    let image = image.split_once('@').map_or(image, |(name, _)| name);
    // A colon before the last slash belongs to the registry's port.
    let name = image.rsplit_once('/').map_or(image, |(_, name)| name);
    name.split_once(':').map(|(_, tag)| tag)
}

/// Checks an image's name and returns PostgreSQL's major version.
pub(super) fn check(image: &str, findings: &mut Findings) -> Option<u16> {
    let path = "spec.imageName";
    if image.trim().is_empty() || image.contains(char::is_whitespace) {
        findings.error(
            path,
            Reason::InvalidValue,
            format!("`{image}` is not the name of an image"),
            "write it like `postgres:18`",
        );
        return None;
    }
    match major(image).map(PgVersion::new) {
        Some(Ok(version)) => Some(version.major()),
        Some(Err(unsupported)) => {
            findings.error(path, Reason::InvalidValue, unsupported.to_string(), UnsupportedVersion::ADVICE);
            None
        }
        None => {
            findings.warn(
                path,
                Reason::DefaultUsed,
                "the tag does not say which version of PostgreSQL it is; settings are checked against all versions",
                "use a tag that begins with the version, such as `18.1`",
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_names_the_version() {
        for (image, expected) in [
            ("postgres:18", Some(18)),
            ("ghcr.io/cloudnative-pg/postgresql:18.1-5-bookworm", Some(18)),
            ("registry.example:5000/team/postgres:15.14", Some(15)),
            ("postgres:16-alpine@sha256:0123456789abcdef", Some(16)),
            ("postgres:19beta1", Some(19)),
            ("postgres:v17", Some(17)),
            ("postgres:9.6", Some(9)),
            ("registry.example:5000/team/postgres", None),
            ("postgres", None),
            ("postgres:latest", None),
            ("postgres:20250101", None),
            ("postgres@sha256:0123456789abcdef", None),
            ("timescale:pg16", None),
        ] {
            assert_eq!(major(image), expected, "{image}");
        }
    }
}
