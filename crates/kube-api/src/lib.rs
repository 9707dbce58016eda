//! The custom resources of Holdfast in the group `holdfast.dev/v1`: [`Cluster`], [`Backup`] and [`ScheduledBackup`].
//!
//! This crate defines what a manifest may contain and what it means; it contacts no server. The reconcilers of the
//! operator, the validating webhook and `holdfast manifest check` all read manifests through it, so that a manifest
//! means the same everywhere. Fields that CloudNativePG has too have its names.
//!
//! - [`cluster`], [`backup`], [`scheduled_backup`]: the types of the manifests, from which the CRDs are generated
//! - [`crds`]: those CRDs
//! - [`validate`]: what a manifest means, and all its errors
//! - [`schedule`]: when a `ScheduledBackup` is due
//! - [`admission`]: the same validation for the API server, as a validating webhook
//! - [`manifest`]: YAML as people write it, for `holdfast manifest check`
//! - [`names`]: names of owned objects, labels, annotations, ports and paths that operator and instance manager share
//! - [`status_port`]: the requests and answers between operator and instance manager, over mutual TLS
//!
//! ```
//! use holdfast_kube_api::{Backup, names};
//!
//! let backup: Backup = serde_json::from_str(
//!     r#"{"apiVersion": "holdfast.dev/v1", "kind": "Backup", "metadata": {"name": "nightly"},
//!         "spec": {"cluster": {"name": "main"}}}"#,
//! )?;
//! assert_eq!(names::instance(&backup.spec.cluster.name, 1), "main-1");
//! # Ok::<(), serde_json::Error>(())
//! ```

#![expect(clippy::duplicated_attributes, reason = "each printed column has its type and path")]

pub mod admission;
pub mod backup;
pub mod cluster;
pub mod crds;
pub mod lenient;
pub mod manifest;
pub mod names;
pub mod quantity;
pub mod schedule;
pub mod scheduled_backup;
pub mod status_port;
pub mod validate;
mod yaml;

pub use backup::{Backup, BackupSpec, BackupStatus};
pub use cluster::{Cluster, ClusterSpec, ClusterStatus};
pub use scheduled_backup::{ScheduledBackup, ScheduledBackupSpec, ScheduledBackupStatus};

/// The API group.
pub const GROUP: &str = "holdfast.dev";
/// The version of the API.
pub const VERSION: &str = "v1";
