//! The webhook's authority and certificate, in a Secret of the operator's namespace that all replicas share.
//!
//! The authority outlives its certificates. A certificate is signed again a month before its end, as long as the
//! authority has a year left. Then the authority is renewed with the same key, so that the old and the new one verify
//! each other's certificates. A new authority is created only if the Secret was deleted or cannot be read; `announce`
//! says how this works without a gap. The first replica that writes wins, and the others use what it wrote.

use crate::certificates::{self, Pair, Purpose};
use crate::error::{Error, is_conflict};
use chrono::{DateTime, Duration, Utc};
use holdfast_secret::Secret as Hidden;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::json;

/// The name of the Secret with authority, certificate and keys.
pub const SECRET: &str = "holdfast-webhook";

/// A certificate is signed again this many days before its end.
const RENEW_DAYS: i64 = 30;
/// An authority is renewed this many days before its end. So it never ends before the last of its certificates.
const RENEW_AUTHORITY_DAYS: i64 = 365;
/// Annotation: when the certificate ends.
const ENDS: &str = "holdfast.dev/certificateEnds";
/// Annotation: when the authority ends.
const AUTHORITY_ENDS: &str = "holdfast.dev/authorityEnds";
/// Annotation: the names in the certificate.
const NAMES: &str = "holdfast.dev/certificateNames";

/// What the webhook uses for TLS.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Identity {
    /// The authority's certificate, PEM.
    pub(super) authority: String,
    /// The server's certificate, PEM.
    pub(super) certificate: String,
    /// The key of the server's certificate, PEM.
    pub(super) key: Hidden,
}

/// The content of the Secret.
struct Stored {
    authority: Pair,
    identity: Identity,
    ends: DateTime<Utc>,
    names: Vec<String>,
}

/// The current identity; it is created or renewed first if that is needed.
pub(super) async fn find(
    client: &Client,
    namespace: &str,
    names: &[String],
    now: DateTime<Utc>,
) -> Result<Identity, Error> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let read =
        || async { api.get_opt(SECRET).await.map_err(|error| Error::api(format!("read secret {SECRET}"), error)) };
    let found = read().await?;
    let known = found.as_ref().and_then(stored);
    if let Some(known) = known.as_ref().filter(|known| still_serves(known, names, now)) {
        return Ok(known.identity.clone());
    }
    let (identity, mut secret) = made(known, names, now)
        .map_err(|error| Error::Certificate { secret: SECRET.to_owned(), why: error.to_string() })?;
    if let Some(version) = found.as_ref().and_then(|secret| secret.metadata.resource_version.as_ref()) {
        secret["metadata"]["resourceVersion"] = json!(version);
    }
    let secret: Secret = serde_json::from_value(secret)
        .map_err(|source| Error::Malformed { what: format!("secret {SECRET}"), source })?;
    let written = if found.is_some() {
        api.replace(SECRET, &PostParams::default(), &secret).await
    } else {
        api.create(&PostParams::default(), &secret).await
    };
    match written {
        Ok(_) => Ok(identity),
        // Another replica was first: its certificate is used.
        Err(error) if is_conflict(&error) => read()
            .await?
            .as_ref()
            .and_then(stored)
            .filter(|known| still_serves(known, names, now))
            .map(|known| known.identity)
            .ok_or_else(|| Error::Changed { what: format!("secret {SECRET}") }),
        Err(error) => Err(Error::api(format!("write secret {SECRET}"), error)),
    }
}

fn still_serves(known: &Stored, names: &[String], now: DateTime<Utc>) -> bool {
    known.ends - Duration::days(RENEW_DAYS) >= now && names.iter().all(|name| known.names.contains(name))
}

/// A new certificate, signed by the known authority if there is one, and the Secret for it.
fn made(
    known: Option<Stored>,
    names: &[String],
    now: DateTime<Utc>,
) -> Result<(Identity, serde_json::Value), rcgen::Error> {
    let mut names = names.to_vec();
    let authority = match known {
        Some(Stored { authority, names: held, .. }) => {
            // Replicas may have different additional names, and no replica removes the names of another.
            names.extend(held.into_iter().filter(|name| !names.contains(name)).collect::<Vec<_>>());
            if authority.ends - Duration::days(RENEW_AUTHORITY_DAYS) < now {
                certificates::authority(AUTHORITY, Some(&authority.key), now)?
            } else {
                authority
            }
        }
        None => certificates::authority(AUTHORITY, None, now)?,
    };
    let leaf = certificates::signed(&authority, &Purpose::Server(names.clone()), now)?;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": SECRET, "annotations": {
            ENDS: leaf.ends.to_rfc3339(), AUTHORITY_ENDS: authority.ends.to_rfc3339(), NAMES: names.join(","),
        }},
        "data": {},
        "stringData": {
            "ca.crt": authority.certificate, "ca.key": authority.key.expose(),
            "tls.crt": leaf.certificate, "tls.key": leaf.key.expose(),
        },
    });
    Ok((Identity { authority: authority.certificate, certificate: leaf.certificate, key: leaf.key }, secret))
}

/// The common name of the authority.
const AUTHORITY: &str = "Holdfast webhook";

/// The content of a Secret, if it is complete and ours.
fn stored(secret: &Secret) -> Option<Stored> {
    let annotations = secret.metadata.annotations.as_ref()?;
    let time = |name: &str| annotations.get(name)?.parse::<DateTime<Utc>>().ok();
    let text = |key: &str| String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok();
    let authority = text("ca.crt")?;
    Some(Stored {
        authority: Pair {
            certificate: authority.clone(),
            key: Hidden::new(text("ca.key")?),
            ends: time(AUTHORITY_ENDS)?,
        },
        identity: Identity { authority, certificate: text("tls.crt")?, key: Hidden::new(text("tls.key")?) },
        ends: time(ENDS)?,
        names: annotations.get(NAMES)?.split(',').map(str::to_owned).collect(),
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

    use super::*;
    use k8s_openapi::ByteString;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// The Secret, as the API server returns it.
    fn kept(secret: serde_json::Value) -> Secret {
        let mut secret: Secret = serde_json::from_value(secret).unwrap();
        let texts = secret.string_data.take().unwrap();
        secret.data = Some(texts.into_iter().map(|(key, text)| (key, ByteString(text.into_bytes()))).collect());
        secret
    }

    #[test]
    fn certificates_change_and_their_authority_stays() {
        let begin: DateTime<Utc> = "2026-11-22T12:00:00Z".parse().unwrap();
        let (first, secret) = made(None, &names(&["a.svc"]), begin).unwrap();
        let known = stored(&kept(secret)).unwrap();
        assert!(known.identity == first);
        for (after, name, serves) in
            [(0, "a.svc", true), (58, "a.svc", true), (60, "a.svc", false), (0, "b.svc", false)]
        {
            let now = begin + Duration::days(after);
            assert_eq!(still_serves(&known, &names(&[name]), now), serves, "{name} after {after} days");
        }
        let (second, secret) = made(Some(known), &names(&["b.svc"]), begin + Duration::days(60)).unwrap();
        assert_eq!(second.authority, first.authority);
        assert_ne!(second.certificate, first.certificate);
        let known = stored(&kept(secret)).unwrap();
        assert_eq!(known.names, names(&["b.svc", "a.svc"]));
        // In its last year the authority gets another certificate with the same key.
        let key = known.authority.key.clone();
        let (late, secret) = made(Some(known), &names(&["b.svc"]), begin + Duration::days(3300)).unwrap();
        assert_ne!(late.authority, first.authority);
        assert_eq!(stored(&kept(secret)).unwrap().authority.key, key);
    }

    #[test]
    fn an_incomplete_secret_does_not_count() {
        let (_, secret) = made(None, &names(&["a.svc"]), Utc::now()).unwrap();
        let whole = kept(secret);
        assert!(stored(&whole).is_some());
        for key in ["ca.crt", "ca.key", "tls.crt", "tls.key"] {
            let mut broken = whole.clone();
            broken.data.as_mut().unwrap().remove(key);
            assert!(stored(&broken).is_none(), "{key}");
        }
        for key in [ENDS, AUTHORITY_ENDS, NAMES] {
            let mut broken = whole.clone();
            broken.metadata.annotations.as_mut().unwrap().remove(key);
            assert!(stored(&broken).is_none(), "{key}");
        }
    }
}
