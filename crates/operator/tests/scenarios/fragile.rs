//! The lock on what is played. A panic in it ends the run, whichever task it happened in.

/// What several tasks play with. Tokio catches the panic of a task, and the operator's is started again: without the
/// poison, a world that broke an assertion in the middle of a request would play on, half changed.
#[expect(clippy::disallowed_types, reason = "the poison is what tells the other tasks of a panic")]
pub(crate) type Fragile<T> = std::sync::Mutex<T>;
