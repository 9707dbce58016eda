//! Changes of objects: merge patches, server-side apply, the status subresource.

use super::{Key, Refusal, World, into_data, not_found, resource_of};
use serde_json::{Value, json};

impl World {
    /// `PUT`.
    pub(super) fn replace(&mut self, key: &Key, part: Option<&str>, object: Value) -> Result<Value, Refusal> {
        let Some(before) = self.objects().get(key).cloned() else { return Err(not_found(key)) };
        precondition(key, &before, &object)?;
        Ok(self.write(key, part, &before, object))
    }

    /// `PATCH` with a merge patch.
    pub(super) fn merge(&mut self, key: &Key, part: Option<&str>, patch: &Value) -> Result<Value, Refusal> {
        let Some(before) = self.objects().get(key).cloned() else { return Err(not_found(key)) };
        precondition(key, &before, patch)?;
        let mut after = before.clone();
        merge_into(&mut after, patch);
        Ok(self.write(key, part, &before, after))
    }

    /// `PATCH` with the fields of a manager. Without force, an object of somebody else is a conflict.
    pub(super) fn apply(&mut self, key: &Key, manager: &str, force: bool, wanted: &Value) -> Result<Value, Refusal> {
        let owned = (key.clone(), manager.to_owned());
        if !force && self.objects().contains_key(key) && !self.applied.contains_key(&owned) {
            return Err(Refusal::new(409, "Conflict", "Apply failed with 1 conflict"));
        }
        let last = self.applied.insert(owned, wanted.clone());
        let Some(before) = self.objects().get(key).cloned() else { return self.create(key, wanted.clone()) };
        let mut after = before.clone();
        if let Some(last) = last {
            remove_dropped(&mut after, &last, wanted);
        }
        merge_into(&mut after, wanted);
        Ok(self.write(key, None, &before, after))
    }

    fn write(&mut self, key: &Key, part: Option<&str>, before: &Value, mut after: Value) -> Value {
        if part == Some("status") {
            // This way writes only the status.
            let status = after["status"].take();
            after = before.clone();
            after["status"] = status;
        } else {
            if resource_of(key).has_status {
                after["status"] = before["status"].clone();
            }
            for fixed in ["uid", "creationTimestamp", "generation", "deletionTimestamp", "namespace", "name"] {
                after["metadata"][fixed] = before["metadata"][fixed].clone();
            }
            into_data(&mut after);
        }
        after["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"].clone();
        for fixed in ["apiVersion", "kind"] {
            after[fixed] = before[fixed].clone();
        }
        self.store(key, Some(before.clone()), after);
        self.objects().get(key).cloned().unwrap_or_else(|| json!({"kind": "Status", "status": "Success"}))
    }
}

/// A write that names a resource version applies only to that version.
fn precondition(key: &Key, existing: &Value, written: &Value) -> Result<(), Refusal> {
    for field in ["resourceVersion", "uid"] {
        let named = &written["metadata"][field];
        if !named.is_null() && *named != "" && *named != existing["metadata"][field] {
            let text =
                format!("Operation cannot be fulfilled on {} \"{}\": the object has been modified", key.1, key.3);
            return Err(Refusal::new(409, "Conflict", text));
        }
    }
    Ok(())
}

/// RFC 7386.
fn merge_into(into: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (name, value) in patch {
        if value.is_null() {
            into.as_object_mut().expect("an object").remove(name);
        } else {
            merge_into(&mut into[name], value);
        }
    }
}

/// Removes fields that a manager applied before and no longer applies.
fn remove_dropped(existing: &mut Value, last: &Value, wanted: &Value) {
    let (Some(existing), Some(last)) = (existing.as_object_mut(), last.as_object()) else { return };
    for (name, last) in last {
        match (wanted.get(name), existing.get_mut(name)) {
            (None, Some(_)) => {
                existing.remove(name);
            }
            (Some(wanted), Some(existing)) => remove_dropped(existing, last, wanted),
            _ => {}
        }
    }
}
