//! Everything a data directory can hold, and everything that can happen to it while a backup runs: tablespaces, files
//! that do not belong, files of odd names and modes, holes, storms of DDL, several repositories, all features of S3, and
//! restores over what is there already.

mod changes;
mod data_directory;
mod kit;
mod repositories;
mod restores;
