//! `barmanObjectStore`, in the cluster's own backup and in external clusters.

use super::finding::{Findings, Reason};
use crate::cluster::{BarmanObjectStore, S3Credentials};
use k8s_openapi::api::core::v1::SecretKeySelector;

/// Codecs of Barman that Holdfast does not have.
const OTHER_CODECS: &[&str] = &["bzip2", "snappy", "xz"];
/// The codec that replaces them.
const DEFAULT_CODEC: &str = "zstd";

/// Checks an object store, and corrects what is clear.
pub(super) fn check(store: &mut BarmanObjectStore, base: &str, findings: &mut Findings) {
    destination(store, base, findings);
    if let Some(url) = &store.endpoint_url {
        endpoint(url, &format!("{base}.endpointURL"), findings);
    }
    match &store.s3_credentials {
        Some(credentials) => check_credentials(credentials, &format!("{base}.s3Credentials"), findings),
        None => findings.error(
            format!("{base}.s3Credentials"),
            Reason::MissingField,
            "no credentials for the object store are named",
            "write `accessKeyId` and `secretAccessKey`, or `inheritFromIAMRole: true`",
        ),
    }
    if let Some(ca) = &store.endpoint_ca {
        selector(ca, &format!("{base}.endpointCA"), findings);
        if store.endpoint_url.as_deref().is_some_and(|url| url.starts_with("http://")) {
            findings.warn(
                format!("{base}.endpointCA"),
                Reason::NoEffect,
                "certificates are not used if the address begins with http://",
                "write an https:// address, or leave `endpointCA` out",
            );
        }
    }
    if let Some(name) = &store.server_name
        && (name.is_empty() || name.contains('/') || name.starts_with('.'))
    {
        findings.error(
            format!("{base}.serverName"),
            Reason::InvalidValue,
            format!("`{name}` cannot be the name of an archive"),
            "it is one part of a path: letters, digits, - and _",
        );
    }
    if let Some(wal) = &mut store.wal {
        codec(&mut wal.compression, &format!("{base}.wal.compression"), findings);
        encryption(wal.encryption.as_deref(), &format!("{base}.wal.encryption"), findings);
    }
    if let Some(data) = &mut store.data {
        codec(&mut data.compression, &format!("{base}.data.compression"), findings);
        encryption(data.encryption.as_deref(), &format!("{base}.data.encryption"), findings);
    }
    let encryptions = (
        store.wal.as_ref().and_then(|wal| wal.encryption.clone()),
        store.data.as_ref().and_then(|data| data.encryption.clone()),
    );
    if let (Some(wal), Some(data)) = encryptions
        && wal != data
    {
        findings.warn(
            format!("{base}.wal.encryption"),
            Reason::Conflict,
            format!("the store encrypts all objects in the same way: `{data}`, which is set for `data`"),
            "set both to the same value",
        );
    }
    if !store.history_tags.is_empty() {
        findings.warn(
            format!("{base}.historyTags"),
            Reason::NoEffect,
            "history files get the same tags as all objects",
            "write them into `tags`",
        );
    }
    if let Some(encryption) = &store.encryption {
        let path = format!("{base}.encryption");
        match (&encryption.passphrase, &encryption.key) {
            (Some(selected), None) => selector(selected, &format!("{path}.passphrase"), findings),
            (None, Some(selected)) => selector(selected, &format!("{path}.key"), findings),
            (None, None) => findings.error(
                path,
                Reason::MissingField,
                "no key for the encryption is named",
                "write `passphrase` or `key`, each the key of a Secret",
            ),
            (Some(_), Some(_)) => findings.error(
                path,
                Reason::Conflict,
                "both a passphrase and a key are set",
                "objects are encrypted with one of them: keep one",
            ),
        }
    }
}

fn destination(store: &mut BarmanObjectStore, base: &str, findings: &mut Findings) {
    let path = format!("{base}.destinationPath");
    let written = store.destination_path.trim().to_owned();
    let Some(rest) = written.strip_prefix("s3://") else {
        let hint = match written.split_once("://") {
            Some(("gs" | "https" | "http" | "azure" | "wasb" | "wasbs", _)) => {
                "S3-compatible object stores only: `s3://bucket/prefix`, and the server's address in `endpointURL`"
            }
            _ => "write it like `s3://bucket/prefix`",
        };
        findings.error(path, Reason::InvalidValue, format!("`{written}` is not a path in an S3 object store"), hint);
        return;
    };
    let bucket = rest.split('/').next().unwrap_or_default();
    let valid = (3..=63).contains(&bucket.len())
        && bucket
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.' | b'_'));
    if !valid {
        findings.error(
            path,
            Reason::InvalidValue,
            format!("`{bucket}` cannot be the name of a bucket"),
            "3 to 63 lower case letters, digits, dots and -",
        );
    }
    store.destination_path = written;
}

fn endpoint(url: &str, path: &str, findings: &mut Findings) {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let host = rest.map(|rest| rest.split('/').next().unwrap_or_default());
    match host {
        None => findings.error(
            path,
            Reason::InvalidValue,
            format!("`{}` is not the address of a server", without_password(url)),
            "write it like `https://minio.example:9000`",
        ),
        Some("") => findings.error(
            path,
            Reason::InvalidValue,
            "the address names no server",
            "write it like `https://minio.example:9000`",
        ),
        Some(host) if host.contains('@') => findings.error(
            path,
            Reason::InvalidValue,
            "the address contains credentials, and everybody who can read the resource sees them",
            "write them into a Secret: `s3Credentials`",
        ),
        Some(_) => {}
    }
}

/// The text before an @ may be a password.
fn without_password(url: &str) -> String {
    url.rsplit_once('@').map_or_else(|| url.to_owned(), |(_, rest)| format!("***@{rest}"))
}

fn check_credentials(credentials: &S3Credentials, base: &str, findings: &mut Findings) {
    for (field, written) in [
        ("accessKeyId", &credentials.access_key_id),
        ("secretAccessKey", &credentials.secret_access_key),
        ("sessionToken", &credentials.session_token),
        ("region", &credentials.region),
    ] {
        if let Some(written) = written {
            selector(written, &format!("{base}.{field}"), findings);
        }
    }
    let inherit = credentials.inherit_from_iam_role == Some(true);
    match (&credentials.access_key_id, &credentials.secret_access_key) {
        (Some(_), None) => missing("secretAccessKey", base, findings),
        (None, Some(_)) => missing("accessKeyId", base, findings),
        (None, None) if !inherit => findings.error(
            base,
            Reason::MissingField,
            "no credentials for the object store are named",
            "write `accessKeyId` and `secretAccessKey`, or `inheritFromIAMRole: true`",
        ),
        (Some(_), Some(_)) if inherit => findings.warn(
            format!("{base}.inheritFromIAMRole"),
            Reason::Conflict,
            "keys are set too; the role is used, the keys are not",
            "keep one of them",
        ),
        _ => {}
    }
}

fn missing(field: &str, base: &str, findings: &mut Findings) {
    findings.error(
        format!("{base}.{field}"),
        Reason::MissingField,
        format!("`{field}` is missing: a key and its secret belong together"),
        "name the Secret and the key in it",
    );
}

/// Checks that a key of a Secret has both its names.
pub(super) fn selector(selector: &SecretKeySelector, path: &str, findings: &mut Findings) {
    if selector.name.is_empty() {
        findings.error(format!("{path}.name"), Reason::MissingField, "the Secret is not named", "write its name");
    }
    if selector.key.is_empty() {
        findings.error(
            format!("{path}.key"),
            Reason::MissingField,
            "the key in the Secret is not named",
            "write its name",
        );
    }
}

fn codec(written: &mut Option<String>, path: &str, findings: &mut Findings) {
    match written.as_deref() {
        None | Some("zstd" | "lz4" | "gzip" | "none") => {}
        Some(other) if OTHER_CODECS.contains(&other) => {
            findings.warn(
                path,
                Reason::ReadAsMeant,
                format!("`{other}` is not available; {DEFAULT_CODEC} is used"),
                "write one of `zstd`, `lz4`, `gzip`, `none`",
            );
            *written = None;
        }
        Some(other) => {
            findings.error(
                path,
                Reason::InvalidValue,
                format!("`{other}` is not a compression"),
                "write one of `zstd`, `lz4`, `gzip`, `none`",
            );
        }
    }
}

fn encryption(written: Option<&str>, path: &str, findings: &mut Findings) {
    if let Some(other) = written
        && !matches!(other, "AES256" | "aws:kms")
    {
        findings.error(
            path,
            Reason::InvalidValue,
            format!("`{other}` is not an encryption of an object store"),
            "write `AES256` or `aws:kms`; for encryption before anything leaves the pod set `encryption` next to \
             `wal` and `data`",
        );
    }
}
