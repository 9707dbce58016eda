#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use std::path::Path;

/// Visits every schema with its path, from the top.
fn walk(schema: &Value, path: &str, visit: &mut dyn FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(property, &format!("{path}.{name}"), visit);
    }
    for (below, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
        if schema[below].is_object() {
            walk(&schema[below], &format!("{path}{mark}"), visit);
        }
    }
}

fn walk_all(visit: &mut dyn FnMut(&str, &Value)) {
    for definition in all() {
        let kind = definition.value["spec"]["names"]["kind"].as_str().unwrap();
        walk(definition.schema(), kind, visit);
    }
}

#[test]
fn the_files_match_the_types() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/crds");
    for definition in all() {
        let file = folder.join(definition.file);
        let generated = yaml(definition).unwrap();
        let kept = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(kept == generated, "{} does not match the types: run `make crds`", file.display());
    }
}

#[test]
fn schemas_are_structural() {
    // The allowed keys of a structural schema, for API servers from 1.20.
    let known = [
        "additionalProperties",
        "default",
        "description",
        "enum",
        "format",
        "items",
        "maximum",
        "minimum",
        "nullable",
        "properties",
        "required",
        "type",
        "x-kubernetes-int-or-string",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-list-type",
        "x-kubernetes-preserve-unknown-fields",
    ];
    walk_all(&mut |path, schema| {
        for keyword in schema.as_object().unwrap().keys() {
            assert!(known.contains(&keyword.as_str()), "{path}: {keyword}");
        }
        let typed = schema["type"].is_string();
        let any =
            schema["x-kubernetes-int-or-string"] == true || schema["x-kubernetes-preserve-unknown-fields"] == true;
        assert!(typed || any, "{path}: {schema}");
        assert!(!(typed && schema["x-kubernetes-int-or-string"] == true), "{path}: both a type and int-or-string");
        assert!(!(schema["properties"].is_object() && schema["additionalProperties"].is_object()), "{path}");
        assert!(schema["type"] != "array" || schema["items"].is_object(), "{path}: an array without items");
        if let Some(format) = schema["format"].as_str() {
            assert!(["int32", "int64", "date-time"].contains(&format), "{path}: {format}");
        }
        // A required field without a description cannot be set.
        for required in schema["required"].as_array().into_iter().flatten() {
            assert!(schema["properties"][required.as_str().unwrap()].is_object(), "{path}: {required}");
        }
    });
}

#[test]
fn every_field_is_described() {
    walk_all(&mut |path, schema| {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let description = property["description"].as_str().unwrap_or_default();
            assert!(description.len() > 3, "{path}.{name}");
            assert!(description.len() <= DESCRIPTION_BYTES, "{path}.{name}");
            assert!(!description.contains("Auto-generated"), "{path}.{name}");
        }
    });
}

#[test]
fn unknown_fields_of_spec_and_status_survive() {
    walk_all(&mut |path, schema| {
        if schema["properties"].is_object() {
            let kept = schema["x-kubernetes-preserve-unknown-fields"] == true;
            assert_eq!(kept, path.contains(".spec") || path.contains(".status"), "{path}");
        }
    });
}

#[test]
fn quantities_may_be_numbers() {
    let cluster = schema("Cluster").unwrap();
    for pointer in [
        "/properties/spec/properties/resources/properties/requests/additionalProperties",
        "/properties/spec/properties/storage/properties/size",
        "/properties/spec/properties/storage/properties/pvcTemplate/properties/resources/properties/requests/additionalProperties",
    ] {
        assert_eq!(cluster.pointer(pointer).unwrap()["x-kubernetes-int-or-string"], true, "{pointer}");
    }
}

#[test]
fn conditions_are_merged_by_type() {
    for kind in ["Cluster", "ScheduledBackup"] {
        let conditions = schema(kind).unwrap().pointer("/properties/status/properties/conditions").unwrap();
        assert_eq!(conditions["x-kubernetes-list-map-keys"], json!(["type"]), "{kind}");
    }
}

#[test]
fn kubectl_apply_has_room_for_them() {
    for definition in all() {
        // The limit of all annotations of an object is 256 KiB (`TotalAnnotationSizeLimitB` of apimachinery).
        let bytes = serde_json::to_vec(&definition.value).unwrap().len();
        assert!(bytes < 200 * 1024, "{}: {bytes} bytes", definition.file);
    }
}

#[test]
fn a_long_description_ends_with_a_sentence() {
    let mut description = format!("One sentence.  Another\nsentence. {}", "word ".repeat(100));
    shorten(&mut description);
    assert_eq!(description, "One sentence. Another sentence.");
    let mut short = "As it is.\n\nMore.".to_owned();
    shorten(&mut short);
    assert_eq!(short, "As it is.");
}
