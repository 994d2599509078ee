//! Randomness from one seed.

use core::ops::RangeInclusive;
use core::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

/// Seed, the only source of randomness of a machine.
pub type Seed = [u8; 32];

/// Random generator. Its output is the same on every platform, and cannot be predicted from earlier
/// output, so session identifiers can be drawn from it.
#[derive(Clone, Debug)]
pub struct Rng(ChaCha8Rng);

impl Rng {
    /// Creates the generator for this seed.
    #[must_use]
    pub fn new(seed: Seed) -> Self {
        Self(ChaCha8Rng::from_seed(seed))
    }

    /// Returns a seed for a child, drawn from this generator.
    #[must_use]
    pub fn split(&mut self) -> Seed {
        self.bytes()
    }

    /// Returns `N` random bytes.
    #[must_use]
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    /// Returns a random number.
    #[must_use]
    pub fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Returns a number in the range, both ends included. The bias is at most `range length /
    /// 2^64`, which does not matter to machines.
    #[must_use]
    pub fn range(&mut self, range: RangeInclusive<u64>) -> u64 {
        let (low, high) = range.into_inner();
        let span = u128::from(high.saturating_sub(low)) + 1;
        let offset = (u128::from(self.u64()) * span) >> 64;
        low.saturating_add(u64::try_from(offset).unwrap_or(u64::MAX))
    }

    /// Returns a duration in the range, in whole microseconds, both ends included.
    #[must_use]
    pub fn duration(&mut self, range: RangeInclusive<Duration>) -> Duration {
        let micros = |d: &Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.range(micros(range.start())..=micros(range.end())))
    }
}
