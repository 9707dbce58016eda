//! Clock and randomness of the wrappers that wait.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::random::Random;

/// Clock and randomness of [`Retry`](super::retry::Retry), so that tests need neither.
#[async_trait]
pub trait Pace: Send + Sync + Debug {
    /// The time since a fixed moment.
    fn now(&self) -> Duration;
    /// A number in `0.0..1.0`.
    fn jitter(&self) -> f64;
    /// Waits for `duration`.
    async fn sleep(&self, duration: Duration);
}

/// The real clock and a generator seeded by the system.
#[derive(Debug)]
pub struct SystemPace {
    start: Instant,
    random: Mutex<Random>,
}

impl SystemPace {
    /// Starts the clock.
    pub fn new() -> Self {
        Self { start: Instant::now(), random: Mutex::new(Random::from_system()) }
    }
}

impl Default for SystemPace {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Pace for SystemPace {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn jitter(&self) -> f64 {
        self.random.lock().unit()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// A clock that only sleeping moves, and seeded jitter: retries in tests take no time and are the same every time.
#[derive(Debug)]
pub struct VirtualPace {
    micros: AtomicU64,
    random: Mutex<Random>,
}

impl VirtualPace {
    /// A clock at zero.
    pub fn new(seed: u64) -> Self {
        Self { micros: AtomicU64::new(0), random: Mutex::new(Random::seeded(seed)) }
    }
}

#[async_trait]
impl Pace for VirtualPace {
    fn now(&self) -> Duration {
        Duration::from_micros(self.micros.load(Ordering::Relaxed))
    }

    fn jitter(&self) -> f64 {
        self.random.lock().unit()
    }

    async fn sleep(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
        tokio::task::yield_now().await;
    }
}
