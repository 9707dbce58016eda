//! A namespace of one test.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::bed::Bed;
use crate::error::Result;

/// A namespace that is deleted, with its content, when the value is dropped.
#[derive(Debug)]
pub struct Namespace {
    bed: Bed,
    name: String,
    keep: bool,
}

impl Namespace {
    pub(crate) fn create(bed: &Bed, prefix: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let time = chrono::Utc::now().timestamp_millis() % 100_000_000;
        let name = format!("{prefix}-{time}-{}-{number}", std::process::id());
        bed.kubectl(&["create", "namespace", &name])?;
        let namespace = Self { bed: bed.clone(), name, keep: false };
        // A controller makes it a moment later. Without it a pod would be refused.
        namespace.bed.wait_for(
            &["serviceaccount", "default", "-n", &namespace.name],
            "{.metadata.name}",
            Duration::from_mins(2),
            |name| name == "default",
        )?;
        Ok(namespace)
    }

    /// The name of the namespace.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `kubectl` in this namespace.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut all = vec!["-n", self.name.as_str()];
        all.extend(arguments);
        self.bed.kubectl(&all)
    }

    /// Applies objects as YAML or JSON in this namespace.
    pub fn apply(&self, objects: &str) -> Result<String> {
        let mut command = self.bed.kubectl_command();
        super::tools::run_with_input(command.args(["-n", &self.name, "apply", "-f", "-"]), Some(objects))
    }

    /// Waits until an object of this namespace has the wanted state, see [`Bed::wait_for`].
    pub fn wait_for(
        &self,
        what: &[&str],
        jsonpath: &str,
        limit: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<String> {
        let mut all = vec!["-n", self.name.as_str()];
        all.extend(what);
        self.bed.wait_for(&all, jsonpath, limit, wanted)
    }

    /// Keeps the namespace when the value is dropped, so that a person can look at it.
    pub fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if !self.keep {
            let _ = self.bed.kubectl(&["delete", "namespace", &self.name, "--wait=false"]);
        }
    }
}
