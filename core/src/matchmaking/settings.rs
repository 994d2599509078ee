//! Configuration of a node's matchmaking.

use alloc::vec::Vec;

use super::config::{MAX_RATING, QueueConfig};
use crate::base::config_error::{ConfigError, Problem, check};
use crate::base::id::Name;
use crate::base::time::Duration;

/// Maximum number of players of a match that is formed in the registry. The transaction has two
/// comparisons and two writes for each player, and two of each for the match as a whole; etcd
/// accepts 128 of either. A registry with a lower limit refuses the match for its size. Then the
/// tickets of the match end as `REFUSED`, since the same match would be found and refused again.
pub const MAX_FORMED_PLAYERS: u32 = 63;

/// Configuration of a node's matchmaking: of its [`PlayerTickets`](super::PlayerTickets) and its
/// [`Matcher`](super::Matcher). All nodes of a cluster must have the same configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatchmakingConfig {
    /// Queues, one for each mode. If the list is empty, players can queue for nothing.
    pub queues: Vec<QueueConfig>,
    /// Rating of players without a known rating; at most [`MAX_RATING`], default 1500.
    pub default_rating: u32,
    /// True if the rating that a client claims is used; default false.
    pub trust_rating: bool,
    /// Time in which each player of a match must join the match's room; default 120 s. A player
    /// that is late is out of the match. If no player has joined by then, the match is ended.
    pub join_window: Duration,
    /// Time for which a party waits for a player whose ticket is gone to queue again; default 5 s.
    pub party_grace: Duration,
    /// Time from the loss of a connection until the player's ticket is marked absent; default 500
    /// ms. A player that reconnects in this time costs the registry no write.
    pub absence_delay: Duration,
    /// Time for which the ticket of an absent player is kept, from the loss of the connection;
    /// default 30 s. Then the ticket ends as timed out. At least `absence_delay`, at most the life
    /// of a session.
    pub absence_grace: Duration,
    /// Time from the end of one sweep over all matches, which ends those that are over, to the
    /// start of the next sweep; default 30 s.
    pub sweep_interval: Duration,
    /// Maximum number of players whose sessions are on the node; at least the node's number of
    /// sessions. Default 100,000.
    pub players: usize,
    /// Maximum number of players of one mode that the mode's matcher knows; at least two matches,
    /// default 50,000. If more players wait, the matcher knows those who came first. The others
    /// wait in the registry until these are gone. See [`matcher`](super::matcher).
    pub tickets: usize,
    /// Maximum number of open requests of the player tickets, or of a matcher for each mode; at least
    /// 3, default 64.
    pub calls: usize,
    /// Maximum number of keys in one read; default 500.
    pub page: u32,
    /// Shortest wait before a failed request is repeated; default 50 ms.
    pub backoff_min: Duration,
    /// Longest wait before a failed request is repeated; default 5 s.
    pub backoff_max: Duration,
}

impl MatchmakingConfig {
    /// Returns a configuration for these queues, with the default times and caps.
    #[must_use]
    pub const fn new(queues: Vec<QueueConfig>) -> Self {
        Self {
            queues,
            default_rating: 1500,
            trust_rating: false,
            join_window: Duration::from_secs(120),
            party_grace: Duration::from_secs(5),
            absence_delay: Duration::from_millis(500),
            absence_grace: Duration::from_secs(30),
            sweep_interval: Duration::from_secs(30),
            players: 100_000,
            tickets: 50_000,
            calls: 64,
            page: 500,
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(5),
        }
    }

    /// Checks that the numbers fit each other.
    ///
    /// # Errors
    /// The first key whose value is not valid, and the condition that the value does not meet.
    pub fn validate(&self) -> Result<(), ConfigError> {
        use Problem::{Least, LeastOf, MatchSize, Most, Repeated, TwoMatches, Zero};
        let most = MAX_RATING.unsigned_abs();
        check(self.default_rating <= most, "matchmaking.default_rating", Most(most.into()))?;
        // With a window of zero, every match would end at once.
        check(!self.join_window.is_zero(), "matchmaking.join_window", Zero)?;
        check(!self.absence_grace.is_zero(), "matchmaking.absence_grace", Zero)?;
        check(
            self.absence_grace >= self.absence_delay,
            "matchmaking.absence_grace",
            LeastOf("matchmaking.absence_delay"),
        )?;
        // With an interval of zero, the sweeps would never rest.
        check(!self.sweep_interval.is_zero(), "matchmaking.sweep_interval", Zero)?;
        check(self.players > 0, "matchmaking.players", Least(1))?;
        check(self.tickets > 0, "matchmaking.tickets", Least(1))?;
        check(self.calls >= 3, "matchmaking.calls", Least(3))?;
        check(self.page > 0, "matchmaking.page", Least(1))?;
        check(!self.backoff_min.is_zero(), "matchmaking.backoff_min", Zero)?;
        check(
            self.backoff_max >= self.backoff_min,
            "matchmaking.backoff_max",
            LeastOf("matchmaking.backoff_min"),
        )?;
        for (index, queue) in self.queues.iter().enumerate() {
            let named = |error: ConfigError| error.within(format_args!("matchmaking.queues[{index}]"));
            queue.validate().map_err(named)?;
            let most = MAX_FORMED_PLAYERS;
            check(queue.players() <= most, "team_size", MatchSize(2, most.into())).map_err(named)?;
            let twice = u64::from(queue.players()) * 2;
            check(self.tickets as u64 >= twice, "matchmaking.tickets", TwoMatches(twice))?;
            let most = (u32::MAX as usize - 1).saturating_sub(queue.limits.reserve);
            check(self.tickets <= most, "matchmaking.tickets", Most(most as u64))?;
            let earlier = self.queues.iter().take(index).any(|earlier| earlier.mode == queue.mode);
            check(!earlier, "mode", Repeated).map_err(named)?;
        }
        Ok(())
    }

    /// Returns the queue of a mode.
    #[must_use]
    pub fn queue(&self, mode: &str) -> Option<&QueueConfig> {
        self.queues.iter().find(|queue| queue.mode.as_str() == mode)
    }

    /// Returns the modes of all queues.
    pub fn modes(&self) -> impl Iterator<Item = &Name> {
        self.queues.iter().map(|queue| &queue.mode)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    #[test]
    fn a_configuration_is_checked() {
        let name = |text| Name::new(text).unwrap();
        let queue = |mode, teams, size| QueueConfig::new(name(mode), teams, size, vec![name("eu")]);
        let good = MatchmakingConfig::new(vec![queue("duel", 2, 1), queue("war", 3, 21)]);
        assert_eq!(good.validate(), Ok(()));
        type Change = fn(&mut MatchmakingConfig);
        let breaks: [(Change, &str, Problem); 15] = [
            (
                |c| {
                    c.queues[1] =
                        QueueConfig::new(c.queues[1].mode.clone(), 4, 16, vec![Name::new("eu").unwrap()])
                },
                "queues[1].team_size",
                Problem::MatchSize(2, 63),
            ),
            (|c| c.queues[1].mode = c.queues[0].mode.clone(), "queues[1].mode", Problem::Repeated),
            (|c| c.queues[0].regions.clear(), "queues[0].regions", Problem::Count(1, 64)),
            (|c| c.default_rating = 1_000_001, "default_rating", Problem::Most(1_000_000)),
            (|c| c.join_window = Duration::ZERO, "join_window", Problem::Zero),
            (|c| c.sweep_interval = Duration::ZERO, "sweep_interval", Problem::Zero),
            (
                |c| c.absence_delay = c.absence_grace * 2,
                "absence_grace",
                Problem::LeastOf("matchmaking.absence_delay"),
            ),
            (
                |c| (c.absence_delay, c.absence_grace) = (Duration::ZERO, Duration::ZERO),
                "absence_grace",
                Problem::Zero,
            ),
            (|c| c.players = 0, "players", Problem::Least(1)),
            (|c| c.tickets = 0, "tickets", Problem::Least(1)),
            (|c| c.tickets = 125, "tickets", Problem::TwoMatches(126)),
            (|c| c.tickets = usize::MAX, "tickets", Problem::Most(u64::from(u32::MAX) - 1 - 10_000)),
            (|c| c.calls = 2, "calls", Problem::Least(3)),
            (|c| c.page = 0, "page", Problem::Least(1)),
            (
                |c| c.backoff_min = c.backoff_max * 2,
                "backoff_max",
                Problem::LeastOf("matchmaking.backoff_min"),
            ),
        ];
        for (spoil, key, problem) in breaks {
            let mut bad = good.clone();
            spoil(&mut bad);
            let key = alloc::format!("matchmaking.{key}").into();
            assert_eq!(bad.validate(), Err(ConfigError { key, problem }));
        }
    }
}
