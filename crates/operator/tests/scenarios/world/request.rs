//! From a request to an answer.

use super::{Key, RESOURCES, Refusal, Resource, Selector, World, not_found};
use bytes::Bytes;
use holdfast_operator::environment::FIELD_MANAGER;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tokio::sync::mpsc;

/// A parsed request.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) verb: Verb,
    resource: Option<&'static Resource>,
    key: Option<Key>,
    part: Option<String>,
    query: BTreeMap<String, String>,
    path: String,
}

/// The verb, as audit logs name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Merge,
    Apply,
    Delete,
}

impl Verb {
    pub(crate) fn is_write(self) -> bool {
        !matches!(self, Self::Get | Self::List | Self::Watch)
    }
}

impl std::fmt::Display for Call {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:?} {}", self.verb, self.path)
    }
}

impl Call {
    pub(crate) fn is_of(&self, plural: &str) -> bool {
        self.resource.is_some_and(|resource| resource.plural == plural)
    }

    /// Whether it is about the operator's own election or an Event: neither is work on a cluster.
    pub(crate) fn is_aside(&self) -> bool {
        self.is_of("events") || self.path.contains("-system/")
    }
}

/// The answer to a request.
pub(crate) enum Answer {
    /// An object, or a list.
    Whole(Value),
    /// A watch.
    Stream(mpsc::Receiver<Bytes>),
}

/// Parses a request: method, path with query, content type.
pub(crate) fn parse(method: &str, uri: &str, content: &str) -> Call {
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let query: BTreeMap<String, String> = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), decoded(value)))
        .collect();
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    let group = match parts.next() {
        Some("apis") => parts.next().unwrap_or_default(),
        _ => "",
    };
    let _version = parts.next();
    let mut rest: Vec<&str> = parts.collect();
    let mut namespace = String::new();
    if let ["namespaces", name, _, ..] = rest.as_slice() {
        (*name).clone_into(&mut namespace);
        rest.drain(..2);
    }
    let plural = rest.first().copied().unwrap_or_default();
    let resource = RESOURCES.iter().find(|one| one.group == group && one.plural == plural);
    let name = rest.get(1).copied().unwrap_or_default();
    let key = resource.map(|one| (one.group, one.plural, namespace, name.to_owned()));
    let verb = match (method, name.is_empty()) {
        ("GET", true) if query.get("watch").is_some_and(|watch| watch == "true" || watch == "1") => Verb::Watch,
        ("GET", true) => Verb::List,
        ("GET", false) => Verb::Get,
        ("POST", _) => Verb::Create,
        ("PUT", _) => Verb::Update,
        ("PATCH", _) if content.starts_with("application/apply-patch") => Verb::Apply,
        ("PATCH", _) => Verb::Merge,
        _ => Verb::Delete,
    };
    Call { verb, resource, key, part: rest.get(2).map(|part| (*part).to_owned()), query, path: path.to_owned() }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = [rest.next().unwrap_or(b'0'), rest.next().unwrap_or(b'0')];
                let digits = String::from_utf8_lossy(&digits).into_owned();
                bytes.push(u8::from_str_radix(&digits, 16).unwrap_or(b'?'));
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).unwrap_or_default()
}

impl World {
    /// Carries out a request.
    pub(crate) fn serve(&mut self, call: &Call, body: &[u8]) -> Result<Answer, Refusal> {
        if call.path == "/apis/policy/v1" {
            let budgets = json!({"name": "poddisruptionbudgets", "singularName": "", "namespaced": true,
                "kind": "PodDisruptionBudget", "verbs": ["get"]});
            return Ok(Answer::Whole(json!({
                "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "policy/v1", "resources": [budgets],
            })));
        }
        let (Some(resource), Some(key)) = (call.resource, &call.key) else {
            return Err(Refusal::new(404, "NotFound", "the server could not find the requested resource"));
        };
        // Renewals of the instances are `PUT`s of a Lease.
        let renewal = call.verb == Verb::Update && call.is_of("leases");
        if call.verb.is_write() && !call.is_aside() && !renewal {
            self.writes += 1;
        }
        let body: Value = if body.is_empty() { json!({}) } else { serde_json::from_slice(body).unwrap_or_default() };
        let part = call.part.as_deref();
        let selector = || {
            Selector::new(
                call.query.get("labelSelector").map(String::as_str),
                call.query.get("fieldSelector").map(String::as_str),
            )
        };
        let object = match call.verb {
            Verb::Get => self.objects.get(key).cloned().ok_or_else(|| not_found(key)),
            Verb::List => {
                let selector = selector();
                let items: Vec<Value> = self
                    .objects
                    .iter()
                    .filter(|(at, _)| (at.0, at.1) == (key.0, key.1) && (key.2.is_empty() || at.2 == key.2))
                    .filter(|(_, object)| selector.fits(object))
                    .map(|(_, object)| bare(resource, object.clone()))
                    .collect();
                let group = if key.0.is_empty() { "v1".to_owned() } else { format!("{}/v1", key.0) };
                Ok(json!({
                    "kind": format!("{}List", resource.kind), "apiVersion": group,
                    "metadata": {"resourceVersion": self.version.to_string()}, "items": items,
                }))
            }
            Verb::Watch => {
                let version = call.query.get("resourceVersion").map(String::as_str).unwrap_or_default();
                return Ok(Answer::Stream(self.watch((key.0, key.1), selector(), version)));
            }
            Verb::Create => {
                let mut key = key.clone();
                body["metadata"]["name"].as_str().unwrap_or_default().clone_into(&mut key.3);
                self.create(&key, body)
            }
            Verb::Update => self.replace(key, part, body),
            Verb::Merge => self.merge(key, part, &body),
            Verb::Apply => {
                let manager = call.query.get("fieldManager").map_or(FIELD_MANAGER, String::as_str);
                let force = call.query.get("force").is_some_and(|force| force == "true");
                self.apply(key, manager, force, &body)
            }
            Verb::Delete => self.remove(key, &body),
        };
        object.map(Answer::Whole)
    }
}

/// Items in lists of built-in kinds have no `apiVersion` and `kind`.
fn bare(resource: &Resource, mut object: Value) -> Value {
    if !resource.group.starts_with("holdfast")
        && let Some(map) = object.as_object_mut()
    {
        map.remove("apiVersion");
        map.remove("kind");
    }
    object
}
