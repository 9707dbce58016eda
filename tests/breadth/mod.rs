//! Everything that a data directory can contain, and everything that can happen to it while a backup runs: tablespaces,
//! foreign files, files with odd names and modes, holes, storms of DDL, several repositories, all features of S3, and
//! restores over existing files.

mod changes;
mod data_directory;
mod kit;
mod repositories;
mod restores;
