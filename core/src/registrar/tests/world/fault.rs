//! Faults, drawn from the seed.

use crate::base::rng::Rng;

/// Fate of a request. Times are microseconds from its sending.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    /// The registry executes the request, and answers once or twice.
    Done { twice: bool },
    /// The registry executes the request, and the answer is lost.
    Unheard { told: u64 },
    /// The registry executes the request long after the caller gave it up.
    Late { by: u64, told: u64 },
    /// The request is lost, and the driver reports an unknown outcome.
    Lost { told: u64 },
    /// The driver reports that the request was not executed.
    Unavailable,
    /// The request is lost, and the driver reports nothing.
    Silent,
}

/// Frequency of faults. Chances are in percent; those of nodes and of the registry are drawn each second.
#[derive(Clone, Debug)]
pub(super) struct Faults {
    /// Requests that meet a fault.
    requests: u64,
    /// Longest delay of a request or an answer, in microseconds.
    way: u64,
    pub(super) pauses: u64,
    pub(super) crashes: u64,
    pub(super) outages: u64,
    pub(super) leaders: u64,
    pub(super) compactions: u64,
    /// Copies of the registry's state, and restores of the last copy, or of an empty state.
    pub(super) copies: u64,
    pub(super) restores: u64,
    /// News that are late.
    news: u64,
    pub(super) drift: bool,
    /// Longest time between commands, in microseconds.
    pub(super) pace: u64,
    /// End of the registry's outage.
    pub(super) out_until: u64,
}

impl Faults {
    /// Draws faults. Some kinds are off in each world.
    pub(super) fn new(rng: &mut Rng, more: &mut Rng) -> Self {
        let mut some = |most: u64| if rng.range(0..=2) == 0 { 0 } else { rng.range(0..=most) };
        let goes_back = more.range(0..=1);
        Self {
            copies: 20,
            restores: 3 * goes_back,
            requests: some(30),
            way: 1_000 + some(400_000),
            pauses: some(8),
            crashes: some(3),
            outages: some(6),
            leaders: some(5),
            compactions: some(10),
            news: some(10),
            drift: some(1) == 1,
            pace: 20_000 + some(1_000_000),
            out_until: 0,
        }
    }

    pub(super) const fn none() -> Self {
        Self {
            copies: 0,
            restores: 0,
            requests: 0,
            way: 1_000,
            pauses: 0,
            crashes: 0,
            outages: 0,
            leaders: 0,
            compactions: 0,
            news: 0,
            drift: false,
            pace: 1_000_000,
            out_until: 0,
        }
    }

    pub(super) fn delay(&self, rng: &mut Rng) -> u64 {
        rng.range(100..=self.way)
    }

    /// Draws the delay of news.
    pub(super) fn stream_delay(&self, rng: &mut Rng, at: u64) -> u64 {
        let late = rng.range(1..=100) <= self.news;
        let out = self.out_until.saturating_sub(at);
        out + if late { rng.range(100_000..=15_000_000) } else { self.delay(rng) }
    }

    pub(super) fn fate(&self, rng: &mut Rng, at: u64) -> Fate {
        let told = rng.range(1_000..=3_000_000);
        if at < self.out_until {
            return match rng.range(0..=2) {
                0 => Fate::Lost { told },
                1 => Fate::Unavailable,
                _ => Fate::Silent,
            };
        }
        if rng.range(1..=100) > self.requests {
            return Fate::Done { twice: self.requests > 0 && rng.range(0..=9) == 0 };
        }
        match rng.range(0..=5) {
            0 => Fate::Lost { told },
            1 => Fate::Unavailable,
            2 => Fate::Silent,
            3 => Fate::Late { by: rng.range(1_000..=20_000_000), told },
            _ => Fate::Unheard { told },
        }
    }
}
