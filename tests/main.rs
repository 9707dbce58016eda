//! The end-to-end tests: `holdfast` through its command line, real PostgreSQL servers, real stores over HTTP.
//!
//! All of them are one program: each module is a story, and `stage` is what the stories share.

#![expect(clippy::expect_used, clippy::panic, reason = "a failed set-up fails the test")]

mod agent;
mod archive_commands;
mod backup_restore;
mod bounds;
mod breadth;
mod changing_files;
mod checksums;
mod connection_parameters;
mod copy;
mod demo;
mod drill;
mod errors;
mod expire;
mod failover;
mod faults;
mod frozen;
mod incremental;
mod keys;
mod kill;
mod long_archive;
mod missing_parts;
mod names;
mod object_lock;
mod other_history;
mod owners;
mod pitr;
mod random_changes;
mod readme;
mod resume;
mod server_identity;
mod sessions;
mod snapshots;
mod stage;
mod standby;
mod stores;
mod verify;
mod versions;
mod wal_after_a_crash;
mod wal_ddl;
mod wal_find;
mod wal_receive;
mod wal_receive_doubt;
mod wal_verify;
