//! In which order actions are carried out, and which of them need another one first.
//!
//! What a failover waits for comes first: the Lease, the labels of pods, pods that go and pods that come. The rest
//! keeps the order of the decision. A pod needs its claims, the Secrets that it mounts and its service account, and a
//! certificate needs its authority; but only if these are created now. If something that exists cannot be changed,
//! nothing waits for it.

use super::decision::{Action, SecretKind};
use super::observed::{Kind, Observed};
use holdfast_kube_api::names;
use k8s_openapi::api::core::v1::Pod;

/// The actions in the order in which they are carried out. Pure.
pub fn in_order<'a>(actions: &'a [Action], observed: &Observed, cluster: &str) -> Vec<&'a Action> {
    let first = |action: &Action| match action {
        Action::ReleaseLease { .. } | Action::LabelPod { .. } | Action::DeletePod { .. } => true,
        Action::CreatePod(_) => !actions.iter().any(|other| needs(action, other, observed, cluster)),
        _ => false,
    };
    let (mut all, rest): (Vec<_>, Vec<_>) = actions.iter().partition(|action| first(action));
    all.extend(rest);
    all
}

/// Whether an action makes no sense before the other one has succeeded. Pure.
pub fn needs(action: &Action, other: &Action, observed: &Observed, cluster: &str) -> bool {
    match (action, other) {
        (Action::CreatePod(pod), Action::CreateClaim(claim)) => {
            volumes(pod).any(|(claimed, _)| claimed.is_some() && claimed == claim.metadata.name.as_deref())
        }
        (Action::CreatePod(pod), Action::Secret(kind)) => {
            let name = kind.name(cluster);
            !observed.secrets.contains_key(&name) && volumes(pod).any(|(_, secret)| secret == Some(name.as_str()))
        }
        (Action::CreatePod(pod), Action::Apply { kind: Kind::ServiceAccount, name, .. }) => {
            let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref());
            account == Some(name.as_str()) && !observed.objects.contains_key(&(Kind::ServiceAccount, name.to_owned()))
        }
        (
            Action::Secret(SecretKind::Server | SecretKind::Replication | SecretKind::Operator),
            Action::Secret(SecretKind::Authority),
        ) => !observed.secrets.contains_key(&names::ca_secret(cluster)),
        _ => false,
    }
}

/// The claim or the Secret of each volume of a pod.
fn volumes(pod: &Pod) -> impl Iterator<Item = (Option<&str>, Option<&str>)> {
    let all = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    all.into_iter().flatten().map(|volume| {
        let claim = volume.persistent_volume_claim.as_ref().map(|claim| claim.claim_name.as_str());
        (claim, volume.secret.as_ref().and_then(|secret| secret.secret_name.as_deref()))
    })
}
