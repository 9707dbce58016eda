//! Bad networks, stores that go away, full disks and two writers at once, between `holdfast` and a real store: what was
//! acknowledged is there, nothing is written twice, no wrong byte is handed over, and doubt is never reported as absence.

#![expect(clippy::expect_used, clippy::panic, reason = "a failed set-up fails the test")]

mod stage;

#[path = "faults/answers.rs"]
mod answers;
#[path = "faults/away.rs"]
mod away;
#[path = "faults/disks.rs"]
mod disks;
#[path = "faults/kit.rs"]
mod kit;
#[path = "faults/network.rs"]
mod network;
#[path = "faults/writers.rs"]
mod writers;
