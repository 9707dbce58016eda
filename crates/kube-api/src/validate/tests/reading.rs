//! Everything that the schema accepts can be read without a panic.

use super::*;

#[test]
fn everything_that_the_api_server_accepts_can_be_read() {
    // The schema enforces types and closed sets; every other value is read, whatever it is.
    for patch in [
        json!({"spec": {"postgresql": {"parameters": {"a": {"b": []}, "c": null}}}}),
        json!({"spec": {"storage": {"size": 5}}}),
        json!({"spec": {"resources": {"limits": {"cpu": 1, "memory": 1.5}}}}),
        json!({"spec": {"unknown": {"deep": [1, {"x": null}]}}}),
    ] {
        let spec = changed(&patch)["spec"].clone();
        assert!(serde_json::from_value::<ClusterSpec>(spec).is_ok(), "{patch}");
    }
}

#[test]
fn reading_never_panics() {
    let values = [
        json!(null),
        json!(true),
        json!(-1),
        json!(1.5),
        json!("x"),
        json!([]),
        json!([1]),
        json!({}),
        json!({"x": null}),
    ];
    let mut pointers = Vec::new();
    paths(
        &changed(
            &json!({"spec": {"externalClusters": [source()], "bootstrap": {"recovery": {"source": "old", "recoveryTarget": {"targetTime": "x"}}}}}),
        ),
        "",
        &mut pointers,
    );
    assert!(pointers.len() > 30);
    for pointer in pointers {
        for value in &values {
            let mut resource = valid();
            if let Some(place) = resource.pointer_mut(&pointer) {
                *place = value.clone();
            }
            let _ = (
                cluster(&resource),
                backup(&resource),
                scheduled_backup(&resource),
                cluster_update(&valid(), &resource),
            );
        }
    }
    for value in &values {
        let _ = (cluster(value), backup(value), scheduled_backup(value));
    }
}

fn paths(value: &Value, path: &str, into: &mut Vec<String>) {
    into.push(path.to_owned());
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| paths(value, &format!("{path}/{key}"), into)),
        Value::Array(values) => {
            values.iter().enumerate().for_each(|(index, value)| paths(value, &format!("{path}/{index}"), into));
        }
        _ => {}
    }
}
