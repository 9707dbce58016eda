//! Watches: from a version on, live, with bookmarks; closed or answered with 410 when a test wants it.

use super::{Key, Refusal, Selector, World, resource_of};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// A past change.
pub(crate) struct Change {
    version: u64,
    key: Key,
    before: Option<Value>,
    after: Option<Value>,
}

/// A client that watches.
pub(crate) struct Watcher {
    group: &'static str,
    plural: &'static str,
    selector: Selector,
    lines: mpsc::Sender<Bytes>,
}

impl Watcher {
    fn line(&self, change: &Change) -> Option<Bytes> {
        if (change.key.0, change.key.1) != (self.group, self.plural) {
            return None;
        }
        let fits = |object: &Option<Value>| object.as_ref().is_some_and(|object| self.selector.fits(object));
        let (kind, object) = match (fits(&change.before), fits(&change.after)) {
            (false, true) => ("ADDED", change.after.clone()),
            (true, true) => ("MODIFIED", change.after.clone()),
            (true, false) => ("DELETED", change.before.clone()),
            (false, false) => return None,
        };
        let mut object = object?;
        object["metadata"]["resourceVersion"] = json!(change.version.to_string());
        Some(line(&json!({"type": kind, "object": object})))
    }
}

fn line(event: &Value) -> Bytes {
    let mut text = event.to_string();
    text.push('\n');
    Bytes::from(text)
}

impl World {
    pub(super) fn tell(&mut self, key: &Key, before: Option<Value>, after: Option<Value>) {
        let change = Change { version: self.version, key: key.clone(), before, after };
        self.watchers.retain(|watcher| match watcher.line(&change) {
            // A watcher that does not read is dropped, as by the real one.
            Some(line) => watcher.lines.try_send(line).is_ok(),
            None => !watcher.lines.is_closed(),
        });
        self.history.push(change);
    }

    /// Begins a watch after a version.
    pub(super) fn watch(
        &mut self,
        (group, plural): (&'static str, &'static str),
        selector: Selector,
        version: &str,
    ) -> mpsc::Receiver<Bytes> {
        let (lines, receiver) = mpsc::channel(8192);
        let from: u64 = version.parse().unwrap_or(self.version);
        let watcher = Watcher { group, plural, selector, lines };
        if from < self.compacted {
            let gone = Refusal::new(410, "Expired", format!("too old resource version: {from}"));
            let _ = watcher.lines.try_send(line(&json!({"type": "ERROR", "object": gone.status()})));
            return receiver;
        }
        for change in self.history.iter().filter(|change| change.version > from) {
            if let Some(line) = watcher.line(change) {
                let _ = watcher.lines.try_send(line);
            }
        }
        self.watchers.push(watcher);
        receiver
    }

    /// Sends a bookmark to all watches.
    pub(crate) fn bookmark(&mut self) {
        let version = self.version.to_string();
        for watcher in &self.watchers {
            let key = (watcher.group, watcher.plural, String::new(), String::new());
            let kind = resource_of(&key).kind;
            let group = if watcher.group.is_empty() { "v1".to_owned() } else { format!("{}/v1", watcher.group) };
            let object = json!({"apiVersion": group, "kind": kind, "metadata": {"resourceVersion": version}});
            let _ = watcher.lines.try_send(line(&json!({"type": "BOOKMARK", "object": object})));
        }
    }

    /// Ends all watches; with `forget`, their versions become too old to continue.
    pub(crate) fn close_watches(&mut self, forget: bool) {
        self.watchers.clear();
        if forget {
            // Another version, since the newest version would never be too old.
            self.version += 1;
            self.compacted = self.version;
            self.history.clear();
        }
    }
}
