//! What the API server refuses, and objects of others under the cluster's names: the condition `Reconciled`, what the
//! cluster waits for, and Events.
//!
//! Neither stops anything else. What was refused is from the reconciles before this one. An operator that was just
//! started has not acted yet: it leaves the condition as it is.

use super::condition::condition;
use super::plan::{Blocked, Plan};
use crate::cluster::decision::Reason;
use crate::cluster::observed::{Foreign, RefusedAction};

pub(super) fn decide(plan: &mut Plan<'_>) {
    let foreign = plan.observed.foreign.clone();
    let known = plan.observed.refused.is_some();
    let refused = plan.observed.refused.clone().unwrap_or_default();
    for one in &foreign {
        plan.warn(Reason::ForeignObject, in_the_way(one));
    }
    for one in &refused {
        plan.warn(Reason::RequestRefused, words(one));
    }
    let texts: Vec<String> = foreign.iter().map(in_the_way).chain(refused.iter().map(words)).collect();
    let reason = if foreign.is_empty() { "RequestRefused" } else { "ForeignObject" };
    if let Some(what) = texts.first() {
        let hint = foreign.first().map_or_else(
            || refused.first().map(|one| one.hint.clone()).unwrap_or_default(),
            |one| {
                format!(
                    "Holdfast neither changes nor deletes objects of others: delete or rename this {}, or give the \
                     cluster another name",
                    one.kind
                )
            },
        );
        // This alone is no reason to look again sooner: refused actions have their own time.
        plan.blocked.get_or_insert_with(|| Blocked { what: what.clone(), hint, limit: None });
        condition(plan, "Reconciled", "False", reason, &texts.join("; "));
    } else if known {
        condition(plan, "Reconciled", "True", "Reconciled", "the API server has refused nothing");
    }
}

/// What is refused, or in the way, in one line; `None` if nothing is.
pub(super) fn in_one_line(plan: &Plan<'_>) -> Option<String> {
    let foreign = plan.observed.foreign.first().map(in_the_way);
    foreign.or_else(|| plan.observed.refused.as_ref()?.first().map(words))
}

fn in_the_way(foreign: &Foreign) -> String {
    let Foreign { kind, name, owner } = foreign;
    format!("{kind} {name} is not of this cluster: it belongs to {owner}")
}

fn words(refused: &RefusedAction) -> String {
    format!("{}: {}", refused.action, refused.why)
}
