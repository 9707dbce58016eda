//! What a command says: results to stdout, everything else (progress, log, errors) to stderr.
//!
//! [`stdout`] is the one place that writes results. [`size`] and [`table`] shape them for people, serde for programs.
//! [`progress`] draws what the engine reports; [`bars`] keeps what others say out of its way. All of it can be read without colour.

pub mod bars;
pub mod progress;
mod progress_json;
pub mod size;
pub mod stdout;
pub mod table;
