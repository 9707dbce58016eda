//! Bad networks, stores that go away, full disks and two writers at once, between `holdfast` and a real store: what was
//! acknowledged is there, nothing is written twice, no wrong byte is handed over, and doubt is never reported as absence.

mod answers;
mod away;
mod disks;
mod kit;
mod network;
mod writers;
