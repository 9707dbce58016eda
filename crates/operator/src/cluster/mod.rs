//! The reconciler of `Cluster`: one PostgreSQL primary and its standbys.
//!
//! [`controller`] is woken by the cluster and by what belongs to it; it lets [`read`] gather an [`observed::Observed`],
//! asks [`decide`] for a [`decision`], has the status written and the actions carried out by [`apply`]. What has to be
//! remembered between two reconciles, such as when a lease was last seen to change, is in [`memory`], kept by [`context`]; losing it, as a
//! restart does, only makes the operator wait longer.

pub mod apply;
mod context;
pub mod controller;
pub mod decide;
pub mod decision;
pub mod desired;
pub mod memory;
pub mod observed;
pub mod read;
pub mod snapshots;
