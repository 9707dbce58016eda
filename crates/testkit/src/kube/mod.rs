//! A real Kubernetes on this machine, for the tests of the operator and for people who want to try it.
//!
//! [`Bed`] is the cluster: an API server with etcd, controllers and scheduler, and two nodes that run containers, all
//! built or unpacked by `scripts/provision --kube`. The kit imitates only what a bare machine does not have:
//!
//! - the *storage vendor* (`storage/`): a controller that answers claims with btrfs subvolumes and VolumeSnapshots with
//!   snapshots of them, as a CSI driver would, with faults on demand;
//! - the *names* (`names/`): a small DNS server for services and pods, in place of CoreDNS;
//! - the *object store*: the S3 server of this crate, at an address that pods can reach.
//!
//! These three run in processes of the program `holdfast-kube`, which is also what people use: `holdfast-kube up`,
//! `down`, `status`. `docs/testing-on-kubernetes.md` says how it is built and how to work with it.
//!
//! After [`Bed::down`] the state folder with logs and imported images stays. If the bed is killed, all of it stays,
//! until the next [`Bed::up`] or [`Bed::down`] removes it.

mod bed;
mod certificates;
mod client;
mod control_plane;
mod disk;
mod host;
mod images;
mod layout;
mod lock;
mod manifests;
mod names;
mod namespace;
mod node;
mod resident;
mod storage;
mod tools;
mod unit;
mod version;

pub use bed::{Bed, Node, ObjectStore};
pub use images::{HOLDFAST, PAUSE, POSTGRESQL_15, POSTGRESQL_18};
pub use manifests::{LOCAL_STORAGE_CLASS, SNAPSHOT_CLASS, STORAGE_CLASS};
pub use namespace::Namespace;
pub use resident::Resident;
