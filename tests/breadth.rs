//! Everything a data directory can hold, and everything that can happen to it while a backup runs: tablespaces, files
//! that do not belong, files of odd names and modes, holes, storms of DDL, several repositories, all features of S3, and
//! restores over what is there already.

#![expect(clippy::expect_used, clippy::panic, reason = "a failed set-up fails the test")]

mod stage;

#[path = "breadth/changes.rs"]
mod changes;
#[path = "breadth/data_directory.rs"]
mod data_directory;
#[path = "breadth/kit.rs"]
mod kit;
#[path = "breadth/repositories.rs"]
mod repositories;
#[path = "breadth/restores.rs"]
mod restores;
