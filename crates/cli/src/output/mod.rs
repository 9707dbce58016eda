//! The output of a command: results to stdout, everything else (progress, log, errors) to stderr.
//!
//! Only [`stdout`] writes results. [`holdfast_contract::amount`] and [`table`] format them for people, serde for
//! programs. [`progress`] shows what the engine reports; [`bars`] keeps other output away from the bars. All output can
//! be read without colour.

pub mod bars;
pub mod progress;
mod progress_json;
pub mod stdout;
pub mod table;
