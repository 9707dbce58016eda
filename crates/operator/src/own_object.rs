//! The spec and the status of our own objects, read by their types.
//!
//! The operator gets its objects as [`DynamicObject`]: one object that cannot be parsed must not hide the others.

use kube::api::DynamicObject;
use serde::de::{DeserializeOwned, Error as _};

pub(crate) fn spec<T: DeserializeOwned>(object: &DynamicObject) -> Result<T, serde_json::Error> {
    part(object, "spec")?.ok_or_else(|| serde_json::Error::missing_field("spec"))
}

/// The status of an object; empty if nobody has written one.
pub(crate) fn status<T: DeserializeOwned + Default>(object: &DynamicObject) -> Result<T, serde_json::Error> {
    part(object, "status").map(Option::unwrap_or_default)
}

/// `None` if the object does not have this part. A null is an error: an API server leaves it out, and what cannot be
/// read must not look as if it were empty.
fn part<T: DeserializeOwned>(object: &DynamicObject, name: &str) -> Result<Option<T>, serde_json::Error> {
    object.data.get(name).map(T::deserialize).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_kube_api::{Backup, BackupSpec, BackupStatus};
    use kube::api::ApiResource;
    use serde_json::{Value, json};

    #[test]
    fn only_an_absent_status_is_empty() {
        let object = |data: Value| DynamicObject::new("a", &ApiResource::erase::<Backup>(&())).data(data);
        for (data, expected) in [
            (json!({}), Some(BackupStatus::default())),
            (json!({"status": {}}), Some(BackupStatus::default())),
            (json!({"status": null}), None),
            (json!({"status": {"phase": 1}}), None),
        ] {
            assert_eq!(status::<BackupStatus>(&object(data.clone())).ok(), expected, "{data}");
        }
        let missing = spec::<BackupSpec>(&object(json!({}))).err().map(|error| error.to_string());
        assert_eq!(missing.as_deref(), Some("missing field `spec`"));
    }
}
