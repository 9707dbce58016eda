//! The one source of random choices in tests: the same seed gives the same choices on every machine.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Names the seed of a run that should be repeated.
const SEED_VARIABLE: &str = "HOLDFAST_TEST_SEED";

/// Random choices that follow from a seed.
#[derive(Debug, Clone)]
pub struct Random(fastrand::Rng);

impl Random {
    /// The choices of a seed.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// The choices of the seed in `HOLDFAST_TEST_SEED`, or of one taken from the clock. Prints the seed, so that a
    /// failed run can be repeated.
    ///
    /// # Panics
    /// If `HOLDFAST_TEST_SEED` is not a number: a repeated run must not use another seed in silence.
    #[must_use]
    pub fn of_this_run() -> Self {
        let seed = seed_of_environment().unwrap_or_else(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since.as_micros()).unwrap_or_default()
        });
        eprintln!("{SEED_VARIABLE}={seed}");
        Self::of_seed(seed)
    }

    /// A number from 0 up to, and without, `limit`; 0 if the limit is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0.u64(0..limit.max(1))
    }

    /// The same as an index or a length.
    pub fn index(&mut self, limit: usize) -> usize {
        self.0.usize(0..limit.max(1))
    }

    /// Any number of 64 bits.
    pub fn word(&mut self) -> u64 {
        self.0.u64(..)
    }

    /// One of the choices; `None` if there are none.
    pub fn one_of<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> Option<&'a T> {
        choices.get(self.index(choices.len())).copied()
    }

    /// A moment in the share of `round` of a run that takes `whole`. All rounds together cover the whole run.
    pub fn moment(&mut self, whole: Duration, round: u32, rounds: u32) -> Duration {
        let share = whole / rounds;
        share * round + share.mul_f64(self.0.f64())
    }
}

/// The number in `HOLDFAST_TEST_SEED`; `None` if the variable is not set.
///
/// # Panics
/// If it is set to something else than a number.
#[must_use]
pub fn seed_of_environment() -> Option<u64> {
    number_in(SEED_VARIABLE)
}

/// The number in an environment variable; `None` if the variable is not set.
///
/// # Panics
/// If it is set to something else than a number.
#[must_use]
pub fn number_in(variable: &str) -> Option<u64> {
    let text = std::env::var_os(variable)?;
    let number = text.to_str().and_then(|text| text.parse().ok());
    assert!(number.is_some(), "{variable} must be a number, not {}", text.display());
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_numbers_and_another_seed_gives_others() {
        let numbers = |seed| {
            let mut random = Random::of_seed(seed);
            [random.below(1000), random.below(1000), random.below(1000)]
        };
        assert_eq!(numbers(1), numbers(1));
        assert_ne!(numbers(1), numbers(2));
        assert_eq!(Random::of_seed(3).one_of::<str>(&[]), None);
    }

    #[test]
    fn the_moment_of_a_round_is_in_its_share() {
        let mut random = Random::of_seed(1);
        let whole = Duration::from_secs(8);
        for round in 0..4 {
            let moment = random.moment(whole, round, 4);
            assert!(moment >= whole / 4 * round && moment <= whole / 4 * (round + 1), "{round}: {moment:?}");
        }
    }
}
