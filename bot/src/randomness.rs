//! Randomness, injected so that a run can be repeated from its seed.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

/// A generator fit for cryptography. Clones share it.
#[derive(Clone)]
pub struct Randomness(Arc<Mutex<StdRng>>);

impl fmt::Debug for Randomness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Randomness")
    }
}

impl Randomness {
    /// Seeded by the operating system.
    #[must_use]
    pub fn system() -> Self {
        Self::of(StdRng::from_rng(&mut rand::rng()))
    }

    /// The same seed gives the same numbers.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self::of(StdRng::seed_from_u64(seed))
    }

    fn of(generator: StdRng) -> Self {
        Self(Arc::new(Mutex::new(generator)))
    }

    /// Random bytes.
    #[must_use]
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.with(|generator| generator.fill_bytes(&mut bytes));
        bytes
    }

    /// Between half of the duration and all of it, so that many bots do not come back at once.
    #[must_use]
    pub fn jittered(&self, duration: Duration) -> Duration {
        duration.mul_f64(self.with(|generator| generator.random_range(0.5..=1.0)))
    }

    fn with<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let draw = |randomness: Randomness| (randomness.bytes::<8>(), randomness.jittered(Duration::from_secs(10)));
        assert_eq!(draw(Randomness::seeded(7)), draw(Randomness::seeded(7)));
        assert_ne!(draw(Randomness::seeded(7)), draw(Randomness::seeded(8)));
        assert_ne!(draw(Randomness::system()), draw(Randomness::system()));
    }

    #[test]
    fn a_jittered_pause_is_at_least_half_as_long() {
        let randomness = Randomness::seeded(1);
        for _ in 0..100 {
            let pause = randomness.jittered(Duration::from_secs(10));
            assert!((Duration::from_secs(5)..=Duration::from_secs(10)).contains(&pause), "{pause:?}");
        }
    }
}
