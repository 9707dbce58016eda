//! Bad networks, stores that go away, full disks and two writers at the same time, between `holdfast` and a real store.
//! What was acknowledged is there, nothing is written twice, no wrong byte is delivered, and "unknown" is never
//! reported as "absent".

mod answers;
mod away;
mod disks;
pub(crate) mod kit;
mod network;
mod receiving;
mod several;
mod writers;
