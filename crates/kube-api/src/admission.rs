//! The validating webhook without its server: it turns a review into an answer.
//!
//! A refused resource gets all its errors, and an accepted one its warnings, which `kubectl` prints. A change that
//! leaves the spec unchanged always passes: it must be possible to remove the finalizers of a wrong resource and to
//! delete it.

use crate::validate::{self, Finding, Outcome};
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview, Operation};
use kube::core::response::{StatusCause, StatusDetails};
use serde_json::Value;

/// The path to which the API server sends its reviews.
pub const PATH: &str = "/validate";
/// The API server cuts longer warnings (`MaximumWarningLength` of apiserver).
const WARNING_CHARACTERS: usize = 256;

/// Answers a review.
pub fn review(review: AdmissionReview<DynamicObject>) -> AdmissionReview<DynamicObject> {
    let request: AdmissionRequest<DynamicObject> = match review.try_into() {
        Ok(request) => request,
        Err(error) => return AdmissionResponse::invalid(error).into_review(),
    };
    respond(&request).into_review()
}

fn respond(request: &AdmissionRequest<DynamicObject>) -> AdmissionResponse {
    let response = AdmissionResponse::from(request);
    let Some(object) = request.object.as_ref().filter(|_| {
        matches!(request.operation, Operation::Create | Operation::Update) && request.sub_resource.is_none()
    }) else {
        return response;
    };
    let new = as_value(object);
    let old = request.old_object.as_ref().map(as_value);
    if new["metadata"]["deletionTimestamp"].is_string() || old.as_ref().is_some_and(|old| old["spec"] == new["spec"]) {
        return response;
    }
    let (errors, warnings) = match (request.kind.kind.as_str(), &old) {
        ("Cluster", Some(old)) => findings(validate::cluster_update(old, &new)),
        ("Cluster", None) => findings(validate::cluster(&new)),
        ("Backup", _) => findings(validate::backup(&new)),
        ("ScheduledBackup", _) => findings(validate::scheduled_backup(&new)),
        _ => return response,
    };
    let mut response = response;
    let warnings: Vec<String> = warnings.iter().map(|finding| short(&finding.to_string())).collect();
    response.warnings = (!warnings.is_empty()).then_some(warnings);
    if errors.is_empty() {
        return response;
    }
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let mut response = response.deny(lines.join("; "));
    // 422 with causes, as for resources that the schema refuses. Without causes, `kubectl` before 1.24 shows nothing.
    response.result.code = 422;
    "Invalid".clone_into(&mut response.result.reason);
    response.result.details = Some(StatusDetails {
        name: object.metadata.name.clone().or_else(|| object.metadata.generate_name.clone()).unwrap_or_default(),
        group: request.kind.group.clone(),
        kind: request.kind.kind.clone(),
        uid: String::new(),
        causes: errors.iter().map(cause).collect(),
        retry_after_seconds: 0,
    });
    response
}

fn cause(finding: &Finding) -> StatusCause {
    let message = Finding { path: String::new(), ..finding.clone() }.to_string();
    StatusCause { reason: finding.reason.name().to_owned(), message, field: finding.path.clone() }
}

fn findings<T>(outcome: Outcome<T>) -> (Vec<Finding>, Vec<Finding>) {
    (outcome.errors, outcome.warnings)
}

fn as_value(object: &DynamicObject) -> Value {
    // Cannot fail: the object came from JSON, so its keys are text.
    serde_json::to_value(object).unwrap_or_default()
}

fn short(warning: &str) -> String {
    if warning.chars().count() <= WARNING_CHARACTERS {
        return warning.to_owned();
    }
    let mut text: String = warning.chars().take(WARNING_CHARACTERS - 3).collect();
    text.push_str("...");
    text
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use holdfast_pgtypes::version::UnsupportedVersion;
    use serde_json::json;

    fn cluster(spec: &Value) -> Value {
        json!({"apiVersion": "holdfast.dev/v1", "kind": "Cluster", "metadata": {"name": "main", "namespace": "db"}, "spec": spec})
    }

    fn answer(kind: &str, operation: &str, object: &Value, old: &Value) -> Value {
        let asked = json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": "u-1",
                "kind": {"group": "holdfast.dev", "version": "v1", "kind": kind},
                "resource": {"group": "holdfast.dev", "version": "v1", "resource": "clusters"},
                "name": "main",
                "namespace": "db",
                "operation": operation,
                "userInfo": {},
                "object": object,
                "oldObject": old,
            }
        });
        let answered = serde_json::to_value(review(serde_json::from_value(asked).unwrap())).unwrap();
        assert_eq!(answered["kind"], "AdmissionReview");
        assert_eq!(answered["apiVersion"], "admission.k8s.io/v1");
        assert_eq!(answered["response"]["uid"], "u-1");
        answered["response"].clone()
    }

    #[test]
    fn a_valid_resource_passes_without_a_message() {
        let response = answer("Cluster", "CREATE", &cluster(&json!({"storage": {"size": "1Gi"}})), &Value::Null);
        assert_eq!(response["allowed"], true);
        assert_eq!(response.get("warnings"), None);
    }

    #[test]
    fn warnings_pass_and_are_printed() {
        let response = answer("Cluster", "CREATE", &cluster(&json!({"storge": {}})), &Value::Null);
        assert_eq!(response["allowed"], true);
        assert_eq!(
            response["warnings"][0],
            "spec.storge: `spec` has no field `storge`; it has no effect (did you mean `storage`?)"
        );
        assert_eq!(response["warnings"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn all_errors_are_reported_at_once() {
        let spec = json!({"storage": {"size": "1GB"}, "imageName": "postgres:9.6"});
        let response = answer("Cluster", "CREATE", &cluster(&spec), &Value::Null);
        assert_eq!(response["allowed"], false);
        assert_eq!(
            response["status"]["message"],
            "spec.imageName: PostgreSQL 9 is not supported: 13 to 19 are (nothing was written: use a release of Holdfast \
             that supports this PostgreSQL, as its changelog says, or a released PostgreSQL of 13 to 19); \
             spec.storage.size: `1GB` is not a volume size (did you mean `1Gi`?)"
        );
        assert_eq!(response["status"]["code"], 422);
        let details = &response["status"]["details"];
        assert_eq!((&details["kind"], &details["name"]), (&json!("Cluster"), &json!("main")));
        assert_eq!(
            details["causes"],
            json!([
                {"reason": "InvalidValue", "field": "spec.imageName", "message": format!("PostgreSQL 9 is not supported: 13 to 19 are ({})", UnsupportedVersion::ADVICE)},
                {"reason": "InvalidValue", "field": "spec.storage.size", "message": "`1GB` is not a volume size (did you mean `1Gi`?)"},
            ])
        );
        let backup = json!({"apiVersion": "holdfast.dev/v1", "kind": "Backup", "metadata": {"name": "b"}, "spec": {"cluster": {"name": ""}}});
        assert_eq!(answer("Backup", "CREATE", &backup, &Value::Null)["allowed"], false);
        let schedule = json!({"apiVersion": "holdfast.dev/v1", "kind": "ScheduledBackup", "metadata": {"name": "s"}, "spec": {"cluster": {"name": "main"}, "schedule": "never"}});
        assert_eq!(answer("ScheduledBackup", "CREATE", &schedule, &Value::Null)["allowed"], false);
    }

    #[test]
    fn a_change_is_compared_with_the_earlier_object() {
        let old = cluster(&json!({"storage": {"size": "10Gi"}}));
        let response = answer("Cluster", "UPDATE", &cluster(&json!({"storage": {"size": "5Gi"}})), &old);
        assert_eq!(response["allowed"], false);
        let larger = answer("Cluster", "UPDATE", &cluster(&json!({"storage": {"size": "20Gi"}})), &old);
        assert_eq!(larger["allowed"], true);
    }

    #[test]
    fn a_wrong_resource_can_still_be_deleted() {
        let wrong = cluster(&json!({"instances": 0}));
        let mut without_finalizer = wrong.clone();
        without_finalizer["metadata"]["finalizers"] = json!([]);
        assert_eq!(answer("Cluster", "UPDATE", &without_finalizer, &wrong)["allowed"], true);
        assert_eq!(answer("Cluster", "DELETE", &Value::Null, &wrong)["allowed"], true);
        let mut deleted = cluster(&json!({"instances": 0, "description": "x"}));
        deleted["metadata"]["deletionTimestamp"] = json!("2025-01-01T00:00:00Z");
        assert_eq!(answer("Cluster", "UPDATE", &deleted, &wrong)["allowed"], true);
    }

    #[test]
    fn long_warnings_are_cut_here() {
        assert_eq!(short(&"x".repeat(256)).len(), 256);
        let cut = short(&"x".repeat(257));
        assert!(cut.len() == 256 && cut.ends_with("..."));
    }
}
