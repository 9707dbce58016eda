//! The lock of the simulated objects. A panic in it ends the run, in whichever task it happened.

/// A lock that several tasks of a simulation share. Tokio catches the panic of a task, and the operator's task starts
/// again. Without the poison, a world that failed an assertion in the middle of a request would continue, half changed.
#[expect(clippy::disallowed_types, reason = "by the poison the other tasks notice a panic")]
pub(crate) type Fragile<T> = std::sync::Mutex<T>;
