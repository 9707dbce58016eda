//! Which Secrets are missing, or have a certificate that ends soon.
//!
//! Only facts about Secrets are read here. Keys and passwords are created when the action is carried out. A Secret that
//! the operator does not own is left alone, whatever it contains: users bring their own authority or passwords in this
//! way.

use super::plan::Plan;
use crate::cluster::decision::{Action, Reason, SecretKind};
use chrono::Duration;
use holdfast_kube_api::names;

/// Certificates are renewed this many days before their end. They are made for 90 days, and CAs for ten years.
const RENEW_DAYS: i64 = 30;

pub(super) fn decide(plan: &mut Plan<'_>) {
    let cluster = plan.desired.name.clone();
    let missing = |plan: &Plan<'_>, kind: SecretKind| !plan.observed.secrets.contains_key(&kind.name(&cluster));

    let authority = plan.observed.secrets.get(&names::ca_secret(&cluster)).cloned();
    let renew_authority = authority.as_ref().is_none_or(|facts| facts.owned && ends_soon(plan, facts.ends, 365));
    if renew_authority {
        plan.actions.push(Action::Secret(SecretKind::Authority));
    }
    let names = server_names(&cluster, &plan.desired.namespace);
    for kind in [SecretKind::Server, SecretKind::Replication, SecretKind::Operator] {
        let facts = plan.observed.secrets.get(&kind.name(&cluster));
        let renew = facts.is_none_or(|facts| {
            facts.owned
                && (ends_soon(plan, facts.ends, RENEW_DAYS)
                    || authority.as_ref().is_some_and(|authority| authority.authority != facts.authority)
                    || (kind == SecretKind::Server && facts.names.as_deref() != Some(&hash_of_names(&names))))
        });
        if renew {
            if facts.is_some() {
                plan.note(Reason::CertificateRenewed, format!("the certificate in {} is renewed", kind.name(&cluster)));
            }
            plan.actions.push(Action::Secret(kind));
        }
    }
    if wants_application(plan) && missing(plan, SecretKind::Application) {
        plan.actions.push(Action::Secret(SecretKind::Application));
    }
    let spec = &plan.desired.spec;
    if spec.enable_superuser_access && spec.superuser_secret.is_none() && missing(plan, SecretKind::Superuser) {
        plan.actions.push(Action::Secret(SecretKind::Superuser));
    }
}

/// Whether the operator creates the application's Secret: for each new cluster, and for a recovery that names the
/// application's database or owner, unless the manifest names a Secret.
fn wants_application(plan: &Plan<'_>) -> bool {
    match &plan.desired.spec.bootstrap {
        Some(bootstrap) => match (&bootstrap.initdb, &bootstrap.recovery) {
            (_, Some(recovery)) => {
                recovery.secret.is_none() && (recovery.database.is_some() || recovery.owner.is_some())
            }
            (Some(initdb), None) => initdb.secret.is_none(),
            (None, None) => true,
        },
        None => true,
    }
}

fn ends_soon(plan: &Plan<'_>, ends: Option<chrono::DateTime<chrono::Utc>>, days: i64) -> bool {
    ends.is_none_or(|ends| ends - Duration::days(days) < plan.now)
}

/// The DNS names in the server's certificate.
pub fn server_names(cluster: &str, namespace: &str) -> Vec<String> {
    let services = [
        names::read_write_service(cluster),
        names::read_only_service(cluster),
        names::read_service(cluster),
        names::headless_service(cluster),
    ];
    let mut all = Vec::new();
    for service in services {
        for suffix in suffixes(namespace) {
            all.push(format!("{service}{suffix}"));
        }
    }
    for suffix in suffixes(namespace) {
        all.push(format!("*.{}{suffix}", names::headless_service(cluster)));
    }
    all
}

/// The endings with which the name of a service may be written.
fn suffixes(namespace: &str) -> [String; 4] {
    [String::new(), format!(".{namespace}"), format!(".{namespace}.svc"), format!(".{namespace}.svc.cluster.local")]
}

/// The hash of the names, for an annotation of the server certificate's Secret.
pub(crate) fn hash_of_names(names: &[String]) -> String {
    short_hash(names.join(",").as_bytes())
}

/// Sixteen hexadecimal digits that identify some bytes.
pub(crate) fn short_hash(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    hex::encode(digest.as_ref().get(..8).unwrap_or_default())
}
