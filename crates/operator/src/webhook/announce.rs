//! Tells the API server the authority of the webhook's certificate: `caBundle` of the `ValidatingWebhookConfiguration`.
//!
//! The bundle has the current authority and the one before it, since other replicas still use a certificate of the
//! older one until their next check. The manifest does not have the field, so applying it again removes nothing.

use crate::environment::FIELD_MANAGER;
use crate::error::{Error, is_not_found};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

/// The name of the configuration that gets the authority.
pub const CONFIGURATION: &str = "holdfast";

/// The first line of each certificate in a bundle.
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
/// The last line of each certificate.
const END: &str = "-----END CERTIFICATE-----";

/// Writes the authority into the configuration, if there is one.
pub(super) async fn authority(client: &Client, authority: &str) -> Result<(), Error> {
    let api: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let configuration = match api.get(CONFIGURATION).await {
        Ok(configuration) => configuration,
        Err(error) if is_not_found(&error) => {
            tracing::debug!(name = CONFIGURATION, "there is no webhook configuration");
            return Ok(());
        }
        Err(error) => return Err(Error::api("read the webhook configuration", error)),
    };
    let mut changed = Vec::new();
    for webhook in configuration.webhooks.iter().flatten() {
        let present = webhook.client_config.ca_bundle.as_ref().map(|bytes| String::from_utf8_lossy(&bytes.0));
        let wanted = bundle(present.as_deref().unwrap_or_default(), authority);
        if present.as_deref() != Some(wanted.as_str()) {
            changed.push(json!({
                "name": webhook.name,
                "clientConfig": {"caBundle": ByteString(wanted.into_bytes())},
            }));
        }
    }
    if changed.is_empty() {
        return Ok(());
    }
    // Merged by the names of the webhooks; the rest of the configuration is kept. The resource version keeps two
    // replicas that start with different bundles from dropping each other's authority.
    let patch = json!({
        "metadata": {"resourceVersion": configuration.metadata.resource_version},
        "webhooks": changed,
    });
    let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    api.patch(CONFIGURATION, &parameters, &Patch::Strategic(patch))
        .await
        .map_err(|error| Error::api("write the CA certificate into the webhook configuration", error))?;
    tracing::info!(name = CONFIGURATION, "wrote the webhook's CA certificate into the webhook configuration");
    Ok(())
}

/// The authority, and the first other one in the present bundle.
fn bundle(present: &str, authority: &str) -> String {
    let authority = authority.trim();
    let before = present.split(BEGIN).skip(1).filter_map(|rest| {
        let (body, _) = rest.split_once(END)?;
        Some(format!("{BEGIN}{body}{END}"))
    });
    let mut bundle = format!("{authority}\n");
    for other in before.filter(|certificate| certificate != authority).take(1) {
        bundle.push_str(&other);
        bundle.push('\n');
    }
    bundle
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(body: &str) -> String {
        format!("{BEGIN}\n{body}\n{END}\n")
    }

    #[test]
    fn the_one_before_stays_and_no_older_one() {
        let [first, second, third] = ["Zmlyc3Q=", "c2Vjb25k", "dGhpcmQ="].map(certificate);
        for (name, present, authority, expected) in [
            ("none yet", String::new(), &first, first.clone()),
            ("the same again", first.clone(), &first, first.clone()),
            ("another", first.clone(), &second, format!("{second}{first}")),
            ("a replica that looks later", format!("{second}{first}"), &second, format!("{second}{first}")),
            ("a third", format!("{second}{first}"), &third, format!("{third}{second}")),
            ("one that is cut off", "-----BEGIN CERTIFICATE-----\nZm".to_owned(), &first, first.clone()),
            ("other text", "Cg==".to_owned(), &first, first.clone()),
        ] {
            assert_eq!(bundle(&present, authority), expected, "{name}");
        }
    }
}
