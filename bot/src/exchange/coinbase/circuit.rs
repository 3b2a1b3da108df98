//! The circuit breaker of one connection: while an endpoint fails, calls that may wait do not load it further.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row that open the circuit.
const FAILURES: u32 = 5;
/// First and longest pause until one call may try again. Short: a kill waits for what these calls show.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(4));

/// Whether a connection works, by what its calls met.
#[derive(Debug, Default)]
pub struct Circuit(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Failures in a row.
    failures: u32,
    cause: String,
    /// Not before this; only while open.
    try_at: Option<Instant>,
}

impl Circuit {
    /// Whether a call may be made now. While the circuit is open, one call after each pause may.
    ///
    /// # Errors
    /// Why not.
    pub fn admit(&self, now: Instant) -> Result<(), String> {
        let mut state = self.state();
        match state.try_at {
            Some(at) if now < at => Err(state.cause.clone()),
            Some(_) => {
                // This call is the one that tries; the next waits for its outcome, or for the pause.
                state.try_at = Some(now + state.pause());
                Ok(())
            }
            None => Ok(()),
        }
    }

    pub fn succeeded(&self) {
        let mut state = self.state();
        if state.failures > 0 {
            *state = State::default();
        }
    }

    pub fn failed(&self, cause: String, now: Instant) {
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
        state.cause = cause;
        if state.failures >= FAILURES {
            state.try_at = Some(now + state.pause());
        }
    }

    /// Why the connection counts as failing; None while it works.
    pub fn failing(&self) -> Option<String> {
        let state = self.state();
        state.try_at.map(|_| state.cause.clone())
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn pause(&self) -> Duration {
        let (first, longest) = PAUSE;
        first.saturating_mul(1 << self.failures.saturating_sub(FAILURES).min(8)).min(longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(failures: u32, now: Instant) -> Circuit {
        let circuit = Circuit::default();
        for _ in 0..failures {
            circuit.failed("down".to_owned(), now);
        }
        circuit
    }

    #[test]
    fn five_failures_in_a_row_open_the_circuit_and_one_success_closes_it() {
        let now = Instant::now();
        let circuit = failing(4, now);
        assert_eq!((circuit.admit(now), circuit.failing()), (Ok(()), None));
        circuit.failed("down".to_owned(), now);
        assert_eq!((circuit.admit(now), circuit.failing()), (Err("down".to_owned()), Some("down".to_owned())));
        circuit.succeeded();
        assert_eq!((circuit.admit(now), circuit.failing()), (Ok(()), None));
        circuit.failed("down".to_owned(), now);
        assert_eq!(circuit.admit(now), Ok(()), "the count began anew");
    }

    #[test]
    fn an_open_circuit_lets_one_call_try_after_each_pause_and_the_pauses_grow_to_a_bound() {
        let mut now = Instant::now();
        let circuit = failing(5, now);
        for pause in [500, 1000, 2000, 4000, 4000].map(Duration::from_millis) {
            assert!(circuit.admit(now + pause - Duration::from_millis(1)).is_err(), "{pause:?}");
            now += pause;
            assert_eq!(circuit.admit(now), Ok(()));
            assert!(circuit.admit(now).is_err(), "a second call while the first is under way");
            circuit.failed("down".to_owned(), now);
        }
    }
}
