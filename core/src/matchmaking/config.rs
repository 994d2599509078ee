//! Configuration of one queue: the shape of a match, rules, limits.

use alloc::vec::Vec;

use crate::base::config_error::{ConfigError, Problem, check};
use crate::base::id::Name;
use crate::base::time::{Duration, Instant};

/// Maximum number of teams of a match.
pub const MAX_TEAMS: u8 = 100;
/// Maximum number of players of a team.
pub const MAX_TEAM_SIZE: u8 = 32;
/// Maximum number of players of a match.
pub const MAX_MATCH_PLAYERS: u32 = 200;
/// Maximum number of regions of a queue.
pub const MAX_REGIONS: usize = 64;
/// Largest rating; the smallest is the negative of this. Also the maximum width of a rating window.
pub const MAX_RATING: i32 = 1_000_000;
/// Quality of a perfect match, per mille.
pub const PERFECT: u16 = 1000;

/// Configuration of one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// Name of the mode. A ticket for another mode is refused.
    pub mode: Name,
    /// Number of teams of a match; 1 to [`MAX_TEAMS`].
    pub teams: u8,
    /// Number of players of each team; 1 to [`MAX_TEAM_SIZE`]. In a free-for-all of ten players
    /// there are ten teams of one.
    pub team_size: u8,
    /// Regions in which matches can be played; 1 to [`MAX_REGIONS`].
    pub regions: Vec<Name>,
    /// Maximum distance of another ticket's rating from a ticket's own, in points.
    pub rating: Widening,
    /// Maximum latency that a ticket's players accept, in milliseconds.
    pub latency: Widening,
    /// Rules of the quality of a match.
    pub quality: Quality,
    /// True if places that become free in running matches are filled; default false.
    pub backfill: bool,
    /// Maximum waiting time of a ticket; default 300 s. Then the ticket is removed as timed out.
    pub time_out: Duration,
    /// Minimum time from the start of one round of searches to the start of the next; default 250
    /// ms.
    pub interval: Duration,
    /// Bounds of the work in one step.
    pub work: WorkLimits,
    /// Caps of the queue.
    pub limits: Limits,
}

/// Bound that widens with the waiting time of the ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Widening {
    /// Width at first.
    pub start: u32,
    /// Width that is added in each second, evenly.
    pub per_second: u32,
    /// Maximum width.
    pub most: u32,
}

/// Rules of quality. The quality of a match, per mille, is the lower of
///
/// * *closeness*: [`PERFECT`] if all ratings are equal, 0 if the highest rating is `worst_spread`
///   or more above the lowest, linear in between, rounded down;
/// * *balance*: the same for the difference between the mean ratings of the strongest and the
///   weakest team, and `worst_difference`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quality {
    /// Minimum quality of a match, per mille; default 300. No waiting time lowers this floor.
    pub floor: u16,
    /// Spread of ratings, in points, at which closeness is 0; at least 1, default 800.
    pub worst_spread: u32,
    /// Difference of team means, in points, at which balance is 0; at least 1, default 200.
    pub worst_difference: u32,
}

/// Bounds of the work at one time. The unit is one look at a ticket, about 10 to 100 ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkLimits {
    /// Looks after which a step begins no other search; default 4,000. A step ends after at most
    /// this number and one `search` more.
    pub step: u32,
    /// Looks after which a search is cut, to be resumed in the next round; default 4,000.
    pub search: u32,
    /// Maximum number of candidates of each size of party in a search, the nearest by rating; at
    /// least the number of players of a match.
    pub candidates: u16,
}

/// Caps of a queue. Items over a cap are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of waiting tickets; below 2^32 - 1 together with `reserve`. Default 200,000.
    pub tickets: usize,
    /// Additional places for tickets that return from a match that was not committed; default
    /// 10,000.
    pub reserve: usize,
    /// Maximum number of rooms with free places; default 20,000.
    pub vacancies: usize,
    /// Maximum number of attributes of a ticket or a vacancy; default 16.
    pub attributes: usize,
    /// Maximum number of conditions of a ticket or a vacancy; default 8.
    pub conditions: usize,
    /// Maximum number of values that one condition lists; default 16.
    pub values: usize,
    /// Maximum length of a text, in bytes; default 64.
    pub text: usize,
}

impl QueueConfig {
    /// Returns a queue for `teams` teams of `team_size`, with rules for ratings of the usual scale
    /// (mean 1500, deviation 300).
    #[must_use]
    pub fn new(mode: Name, teams: u8, team_size: u8, regions: Vec<Name>) -> Self {
        let players = u16::from(teams).saturating_mul(team_size.into());
        Self {
            mode,
            teams,
            team_size,
            regions,
            rating: Widening { start: 100, per_second: 10, most: 600 },
            latency: Widening { start: 80, per_second: 4, most: 250 },
            quality: Quality { floor: 300, worst_spread: 800, worst_difference: 200 },
            backfill: false,
            time_out: Duration::from_secs(300),
            interval: Duration::from_millis(250),
            work: WorkLimits { step: 4_000, search: 4_000, candidates: players.max(32) },
            limits: Limits {
                tickets: 200_000,
                reserve: 10_000,
                vacancies: 20_000,
                attributes: 16,
                conditions: 8,
                values: 16,
                text: 64,
            },
        }
    }

    /// Returns the number of players of a match.
    #[must_use]
    pub fn players(&self) -> u32 {
        u32::from(self.teams) * u32::from(self.team_size)
    }

    /// Checks that the numbers fit each other.
    ///
    /// # Errors
    /// The first key whose value is not valid, relative to the queue, and the condition that the
    /// value does not meet.
    pub fn validate(&self) -> Result<(), ConfigError> {
        use Problem::{Count, Least, LeastOf, MatchSize, Most, Range, Repeated, Zero};
        let size = |size: u8| u64::from(size);
        check((1..=MAX_TEAMS).contains(&self.teams), "teams", Range(1, size(MAX_TEAMS)))?;
        check((1..=MAX_TEAM_SIZE).contains(&self.team_size), "team_size", Range(1, size(MAX_TEAM_SIZE)))?;
        check(
            (2..=MAX_MATCH_PLAYERS).contains(&self.players()),
            "team_size",
            MatchSize(2, MAX_MATCH_PLAYERS.into()),
        )?;
        check((1..=MAX_REGIONS).contains(&self.regions.len()), "regions", Count(1, MAX_REGIONS as u64))?;
        for (index, region) in self.regions.iter().enumerate() {
            let earlier = self.regions.iter().take(index).any(|other| other == region);
            check(!earlier, alloc::format!("regions[{index}]"), Repeated)?;
        }
        self.rating.validate("rating.most").map_err(|error| error.within(format_args!("rating")))?;
        self.latency.validate("latency.most").map_err(|error| error.within(format_args!("latency")))?;
        let quality = self.quality;
        check(quality.floor <= PERFECT, "quality.floor", Most(PERFECT.into()))?;
        check(quality.worst_spread > 0, "quality.worst_spread", Least(1))?;
        check(quality.worst_difference > 0, "quality.worst_difference", Least(1))?;
        // With an interval of zero the engine would never rest.
        check(!self.interval.is_zero(), "interval", Zero)?;
        check(self.time_out >= self.interval, "time_out", LeastOf("interval"))?;
        check(self.work.step > 0, "work.step", Least(1))?;
        check(self.work.search > 1, "work.search", Least(2))?;
        let (least, most) = (self.players(), 4096);
        check(
            (least..=most).contains(&u32::from(self.work.candidates)),
            "work.candidates",
            Range(least.into(), most.into()),
        )?;
        let most = u32::MAX as usize - 1;
        let limits = self.limits;
        check((1..=most).contains(&limits.tickets), "limits.tickets", Range(1, most as u64))?;
        let rest = most - limits.tickets;
        check(limits.reserve <= rest, "limits.reserve", Most(rest as u64))?;
        check(limits.vacancies <= most, "limits.vacancies", Most(most as u64))
    }
}

impl Widening {
    /// Checks the numbers. `most` is the full key of that setting; keys of errors are relative.
    fn validate(&self, most: &'static str) -> Result<(), ConfigError> {
        let widest = MAX_RATING.unsigned_abs();
        check(self.most <= widest, "most", Problem::Most(widest.into()))?;
        check(self.start <= self.most, "start", Problem::MostOf(most))
    }

    /// Returns the width after this waiting time.
    #[must_use]
    pub fn after(&self, waited: Duration) -> u32 {
        self.after_micros(u64::try_from(waited.as_micros()).unwrap_or(u64::MAX))
    }

    /// Returns the width at `now` for a ticket that waits since `queued`.
    pub(super) fn at(&self, now: Instant, queued: Instant) -> u32 {
        self.after_micros(now.as_micros().saturating_sub(queued.as_micros()))
    }

    /// Returns true if the bound is at least `width` wide at `now` for a ticket that waits since
    /// `queued`. Most requested widths are within `start` or beyond `most`, and need no
    /// calculation.
    pub(super) fn allows(&self, width: u32, queued: Instant, now: Instant) -> bool {
        width <= self.start || (width <= self.most && width <= self.at(now, queued))
    }

    fn after_micros(&self, micros: u64) -> u32 {
        let added = u64::from(self.per_second).saturating_mul(micros) / 1_000_000;
        u64::from(self.start).saturating_add(added).min(self.most.into()).try_into().unwrap_or(self.most)
    }

    /// Returns the waiting time after which the bound is `width` wide; `None` if it never is.
    #[must_use]
    pub fn reaches(&self, width: u32) -> Option<Duration> {
        let missing = u64::from(width.saturating_sub(self.start));
        if missing == 0 {
            return Some(Duration::ZERO);
        }
        if width > self.most || self.per_second == 0 {
            return None;
        }
        Some(Duration::from_micros((missing * 1_000_000).div_ceil(self.per_second.into())))
    }

    /// Returns the time at which the bound reaches its maximum, for a ticket that waits since
    /// `queued`.
    pub(super) fn done(&self, queued: Instant) -> Instant {
        self.reaches(self.most).map_or(queued, |wait| queued + wait)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    #[test]
    fn widens_evenly_up_to_the_most() {
        let widening = Widening { start: 100, per_second: 10, most: 130 };
        let widths =
            [0, 99, 100, 2_999, 3_000, 1_000_000].map(|ms| widening.after(Duration::from_millis(ms)));
        assert_eq!(widths, [100, 100, 101, 129, 130, 130]);
    }

    #[test]
    fn tells_exactly_when_it_is_so_wide() {
        let widening = Widening { start: 100, per_second: 7, most: 130 };
        for width in 101..=130 {
            let wait = widening.reaches(width).unwrap();
            assert_eq!(widening.after(wait), width);
            assert_eq!(widening.after(wait - Duration::from_micros(1)), width - 1);
        }
        assert_eq!(widening.reaches(100), Some(Duration::ZERO));
        assert_eq!(widening.reaches(131), None);
        assert_eq!(Widening { per_second: 0, ..widening }.reaches(101), None);
    }

    #[test]
    fn a_configuration_is_checked() {
        let region = || Name::new("eu").unwrap();
        let good = QueueConfig::new(Name::new("duel").unwrap(), 2, 5, vec![region()]);
        assert_eq!(good.validate(), Ok(()));
        let most = u64::from(u32::MAX) - 1;
        type Change = fn(&mut QueueConfig);
        let breaks: [(Change, &str, Problem); 19] = [
            (|c| c.teams = 0, "teams", Problem::Range(1, 100)),
            (|c| c.team_size = 33, "team_size", Problem::Range(1, 32)),
            (|c| (c.teams, c.team_size) = (1, 1), "team_size", Problem::MatchSize(2, 200)),
            (|c| (c.teams, c.team_size) = (100, 3), "team_size", Problem::MatchSize(2, 200)),
            (|c| c.regions.clear(), "regions", Problem::Count(1, 64)),
            (|c| c.regions.extend(c.regions.clone()), "regions[1]", Problem::Repeated),
            (|c| c.rating.start = c.rating.most + 1, "rating.start", Problem::MostOf("rating.most")),
            (|c| c.latency.most = 1_000_001, "latency.most", Problem::Most(1_000_000)),
            (|c| c.quality.floor = 1001, "quality.floor", Problem::Most(1000)),
            (|c| c.quality.worst_spread = 0, "quality.worst_spread", Problem::Least(1)),
            (|c| c.quality.worst_difference = 0, "quality.worst_difference", Problem::Least(1)),
            (|c| c.interval = Duration::ZERO, "interval", Problem::Zero),
            (|c| c.time_out = Duration::ZERO, "time_out", Problem::LeastOf("interval")),
            (|c| c.work.step = 0, "work.step", Problem::Least(1)),
            (|c| c.work.search = 1, "work.search", Problem::Least(2)),
            (|c| c.work.candidates = 9, "work.candidates", Problem::Range(10, 4096)),
            (|c| c.limits.tickets = usize::MAX, "limits.tickets", Problem::Range(1, most)),
            (|c| c.limits.reserve = usize::MAX, "limits.reserve", Problem::Most(most - 200_000)),
            (|c| c.limits.vacancies = usize::MAX, "limits.vacancies", Problem::Most(most)),
        ];
        for (spoil, key, problem) in breaks {
            let mut bad = good.clone();
            spoil(&mut bad);
            assert_eq!(bad.validate(), Err(ConfigError { key: key.into(), problem }));
        }
    }
}
