//! The reconciler of `Cluster`: one PostgreSQL primary and its standbys.
//!
//! [`controller`] is woken by the cluster and its objects. [`read`] gathers an [`observed::Observed`], [`decide`] makes
//! a [`decision`] from it, and [`apply`] carries out its actions after the status is written. What is remembered
//! between two reconciles, such as when a Lease was last seen to change, is in [`memory`], kept by [`context`]. If it
//! is lost, as by a restart, the operator only waits longer.

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
