//! The instance manager: PID 1 of a PostgreSQL pod.
