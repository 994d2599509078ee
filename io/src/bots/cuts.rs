//! Times at which a bot's connection is cut.

use skirmish_core::rng::Rng;
use skirmish_core::time::{Duration, Instant};

/// Draws the time of the next cut after `now`, with `rate` cuts per second on average: a Poisson
/// process. Returns `None` if the rate is zero.
pub(super) fn next_cut(rng: &mut Rng, rate: f64, now: Instant) -> Option<Instant> {
    if rate <= 0.0 {
        return None;
    }
    // At most a day, which also bounds the logarithm of zero.
    let seconds = (-(1.0 - uniform(rng)).ln() / rate).min(86_400.0);
    Some(now + Duration::from_secs_f64(seconds))
}

/// Draws a random number from 0 to below 1.
#[allow(clippy::cast_precision_loss, reason = "a random number needs no more than 53 bits")]
pub(super) fn uniform(rng: &mut Rng) -> f64 {
    (rng.u64() >> 11) as f64 / (1_u64 << 53) as f64
}
