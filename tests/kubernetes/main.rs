//! The tests on a real Kubernetes. They share one cluster, so they are one program and a tier of their own.

#![expect(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a failed set-up fails the test")]
#![expect(clippy::print_stdout, reason = "figures of a test are printed beside its result")]

mod api;
mod backup;
mod cluster;
mod hang;
mod measures;
mod operator;
mod recovery;
mod seeds;
mod snapshots;
mod stage;
mod standalone;
mod story;
mod targets;
mod webhook;
