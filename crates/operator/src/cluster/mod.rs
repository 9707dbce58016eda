//! The reconciler of `Cluster`: one PostgreSQL primary and its standbys.
//!
//! [`controller`] is woken by the cluster and its objects. [`read`] gathers an [`observed::Observed`], [`decide`] makes
//! a [`decision`] from it, and [`apply`] carries out its actions after the status is written. What is remembered
//! between two reconciles, such as when a Lease was last seen to change, is in [`memory`], kept by [`context`]. If it
//! is lost, as by a restart, the operator only waits longer. [`order`] and [`refusals`] keep one refused request from
//! stopping the others.

pub mod apply;
mod context;
pub mod controller;
pub mod decide;
pub mod decision;
pub mod desired;
mod in_charge;
pub mod memory;
mod objects;
pub mod observed;
pub mod order;
mod ownership;
pub mod read;
pub mod refusals;
pub mod snapshots;
