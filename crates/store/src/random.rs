//! Seeded random numbers for jitter, temporary names and faults. Not for anything secret.

use std::hash::{BuildHasher, RandomState};

/// The same seed gives the same numbers.
#[derive(Clone, Debug)]
pub(crate) struct Random(fastrand::Rng);

impl Random {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// Seeded by the operating system, through the keys of the standard library's hasher.
    pub(crate) fn from_system() -> Self {
        Self::seeded(RandomState::new().hash_one(std::process::id()))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0.u64(..)
    }

    /// A number in `0.0..1.0`, evenly distributed.
    pub(crate) fn unit(&mut self) -> f64 {
        self.0.f64()
    }
}
