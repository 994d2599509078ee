//! Quality of a match, and the division of a set into teams.

use alloc::vec::Vec;

use super::config::{PERFECT, Quality, QueueConfig};

/// Maximum number of exchanges that even out the teams.
const MAX_EXCHANGES: usize = 16;

/// A ticket in the division into teams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part<T> {
    pub(super) what: T,
    pub(super) size: u8,
    pub(super) rating: i32,
}

impl Quality {
    /// Returns the quality, per mille, for a spread of ratings and a difference of teams. The
    /// difference is that of the sums of ratings over a team of `team_size`, in points.
    #[must_use]
    pub fn of(&self, spread: u32, difference: u64, team_size: u8) -> u16 {
        let closeness = falling(spread.into(), self.worst_spread.into());
        let worst = u64::from(self.worst_difference) * u64::from(team_size);
        closeness.min(falling(difference, worst))
    }

    /// Returns the largest spread that reaches the floor.
    #[must_use]
    pub fn most_spread(&self) -> u32 {
        let room = u64::from(PERFECT.saturating_sub(self.floor)) * u64::from(self.worst_spread);
        u32::try_from(room / u64::from(PERFECT)).unwrap_or(u32::MAX)
    }
}

/// Returns [`PERFECT`] for 0, 0 for `worst` and above, linear in between, rounded down.
fn falling(value: u64, worst: u64) -> u16 {
    let lost = value.saturating_mul(PERFECT.into()).div_ceil(worst.max(1));
    PERFECT.saturating_sub(u16::try_from(lost).unwrap_or(PERFECT))
}

/// Returns the quality of a division.
pub(super) fn quality<T>(config: &QueueConfig, teams: &[Vec<Part<T>>]) -> u16 {
    let ratings = || teams.iter().flatten().map(|part| part.rating);
    let spread = match (ratings().min(), ratings().max()) {
        (Some(min), Some(max)) => max.abs_diff(min),
        _ => 0,
    };
    let strengths = || teams.iter().map(|team| strength(team));
    let difference = match (strengths().min(), strengths().max()) {
        (Some(min), Some(max)) => max.abs_diff(min),
        _ => 0,
    };
    config.quality.of(spread, difference, config.team_size)
}

fn strength<T>(team: &[Part<T>]) -> i64 {
    team.iter().map(|part| i64::from(part.rating) * i64::from(part.size)).sum()
}

/// Evens the teams out. As long as it helps, two tickets of one size change places between the
/// strongest and the weakest team.
pub(super) fn even_out<T>(teams: &mut [Vec<Part<T>>]) {
    for _ in 0..MAX_EXCHANGES {
        let strengths = || teams.iter().map(|team| strength(team)).enumerate();
        let strong = strengths().max_by_key(|(index, sum)| (*sum, core::cmp::Reverse(*index)));
        let weak = strengths().min_by_key(|(index, sum)| (*sum, *index));
        let (Some((strong, most)), Some((weak, least))) = (strong, weak) else { return };
        // Of equally strong teams, the first is both.
        let Ok([stronger, weaker]) = teams.get_disjoint_mut([strong, weak]) else { return };
        let difference = most - least;
        let mut best = (difference, None);
        for (i, x) in stronger.iter().enumerate() {
            for (j, y) in weaker.iter().enumerate().filter(|(_, y)| y.size == x.size) {
                let moved = i64::from(x.size) * (i64::from(x.rating) - i64::from(y.rating));
                let left = (difference - 2 * moved).abs();
                if left < best.0 {
                    best = (left, Some((i, j)));
                }
            }
        }
        let exchanged = best.1.and_then(|(i, j)| Some((stronger.get_mut(i)?, weaker.get_mut(j)?)));
        let Some((x, y)) = exchanged else { return };
        core::mem::swap(x, y);
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;
    use crate::base::id::Name;

    const QUALITY: Quality = Quality { floor: 300, worst_spread: 800, worst_difference: 200 };

    #[test]
    fn is_the_lower_of_closeness_and_balance() {
        assert_eq!(QUALITY.of(0, 0, 5), 1000);
        assert_eq!(QUALITY.of(400, 0, 5), 500);
        assert_eq!(QUALITY.of(0, 500, 5), 500, "500 points in a team of 5 are 100 each");
        assert_eq!(QUALITY.of(200, 900, 5), 100);
        assert_eq!(QUALITY.of(1, 0, 5), 998, "rounded down");
        assert_eq!(QUALITY.of(u32::MAX, u64::MAX, 5), 0);
    }

    #[test]
    fn the_floor_is_a_spread() {
        for floor in 0..=PERFECT {
            for worst_spread in [1, 7, 999, 1000, 12_345] {
                let quality = Quality { floor, worst_spread, ..QUALITY };
                let most = quality.most_spread();
                assert!(quality.of(most, 0, 1) >= floor);
                assert!(floor == 0 || quality.of(most + 1, 0, 1) < floor);
            }
        }
    }

    proptest! {
        #[test]
        fn evening_out_keeps_the_sizes_and_never_makes_it_worse(
            parts in proptest::collection::vec((1..4_u8, 1000..2000_i32), 2..12),
        ) {
            let config = QueueConfig::new(Name::new("m").unwrap(), 3, 5, vec![Name::new("eu").unwrap()]);
            let mut teams = vec![Vec::new(), Vec::new(), Vec::new()];
            for (what, (size, rating)) in parts.into_iter().enumerate() {
                teams[what % 3].push(Part { what, size, rating });
            }
            let sizes = |teams: &[Vec<Part<usize>>]| -> Vec<Vec<u8>> {
                teams.iter().map(|team| team.iter().map(|part| part.size).collect()).collect()
            };
            let (shape, before) = (sizes(&teams), quality(&config, &teams));
            even_out(&mut teams);
            prop_assert_eq!(sizes(&teams), shape);
            prop_assert!(quality(&config, &teams) >= before);
            let mut all: Vec<usize> = teams.iter().flatten().map(|part| part.what).collect();
            all.sort_unstable();
            prop_assert!(all.iter().enumerate().all(|(index, what)| index == *what));
        }
    }

    #[test]
    fn finds_the_exchange_that_evens_out() {
        let part = |size, rating| Part { what: (), size, rating };
        let mut teams = vec![vec![part(2, 1600), part(1, 1500)], vec![part(2, 1500), part(1, 1300)]];
        even_out(&mut teams);
        assert_eq!(teams, [vec![part(2, 1500), part(1, 1500)], vec![part(2, 1600), part(1, 1300)]]);
    }
}
