//! Label and field selectors: only the forms that are used here, equality and existence.

use serde_json::Value;

/// The restriction of a list or a watch.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selector {
    labels: Vec<(String, Option<String>)>,
    fields: Vec<(String, String)>,
}

impl Selector {
    pub(crate) fn new(labels: Option<&str>, fields: Option<&str>) -> Self {
        let parts = |text: Option<&str>| -> Vec<String> {
            text.unwrap_or_default().split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect()
        };
        let pair = |part: &String| {
            let (name, value) = part.split_once('=').expect("an equality");
            (name.to_owned(), value.trim_start_matches('=').to_owned())
        };
        Self {
            labels: parts(labels)
                .iter()
                .map(|part| {
                    if part.contains('=') {
                        let (name, value) = pair(part);
                        (name, Some(value))
                    } else {
                        (part.clone(), None)
                    }
                })
                .collect(),
            fields: parts(fields).iter().map(pair).collect(),
        }
    }

    pub(crate) fn fits(&self, object: &Value) -> bool {
        let label = |name: &str| object["metadata"]["labels"].get(name).and_then(Value::as_str);
        let field = |path: &str| object.pointer(&format!("/{}", path.replace('.', "/"))).and_then(Value::as_str);
        self.labels.iter().all(|(name, value)| match value {
            Some(value) => label(name) == Some(value),
            None => label(name).is_some(),
        }) && self.fields.iter().all(|(path, value)| field(path).unwrap_or_default() == value)
    }
}
