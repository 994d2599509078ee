//! What a node's matchmaking is told at its start.

use alloc::vec::Vec;

use super::config::{MAX_RATING, QueueConfig};
use crate::config::ConfigError;
use crate::id::Name;
use crate::time::Duration;

/// Most players of a match that is formed in the registry. For each of them the transaction
/// has two comparisons and two writes, and there are two of each for the match as a whole;
/// etcd takes 128 of either. If a registry takes less, it refuses a match for its size; then
/// its tickets end as `REFUSED`, as the match would be found and refused again.
pub const MAX_FORMED_PLAYERS: u32 = 63;

/// Configuration of a node's matchmaking: of its [`Desk`](super::Desk) and its
/// [`Matcher`](super::Matcher). All nodes of a cluster must have the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatchmakingConfig {
    /// The queues, one for each mode. None: nothing can be queued for.
    pub queues: Vec<QueueConfig>,
    /// The rating of players of whom nothing better is known; at most [`MAX_RATING`].
    pub default_rating: u32,
    /// Whether what a client says of its rating counts.
    pub trust_rating: bool,
    /// How long a match waits for each of its players to join its room: who has not by then is
    /// out of the match, and a match whose room nobody has by then is ended.
    pub join_window: Duration,
    /// How long a party waits for a player whose ticket is gone to queue again.
    pub party_grace: Duration,
    /// How long a lost connection may be made up for before the player's ticket is marked
    /// absent: a player that is back within it costs the registry no write.
    pub absence_delay: Duration,
    /// How long the ticket of an absent player is kept, from the loss of the connection; then
    /// it ends as timed out. At least `absence_delay`, at most the life of a session.
    pub absence_grace: Duration,
    /// From the end of one look at all matches, for those that are over, to the next.
    pub sweep_interval: Duration,
    /// Players whose sessions are on the node; at least as many as it has sessions.
    pub players: usize,
    /// Players of one mode that its matcher knows, at least twice those of a match. Of more,
    /// those are known who came first; the others wait in the registry until these are gone.
    /// See [`matcher`](super::matcher).
    pub tickets: usize,
    /// Requests that a desk, or a matcher for each mode, has under way at once; from 3.
    pub calls: usize,
    /// Keys read at once.
    pub page: u32,
    /// Shortest wait before a request that came to nothing is made again.
    pub backoff_min: Duration,
    /// Longest.
    pub backoff_max: Duration,
}

impl MatchmakingConfig {
    /// Matchmaking for these queues, with the usual times and caps.
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
    /// Says which do not, and what they must be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let check = |holds: bool, error: &'static str| if holds { Ok(()) } else { Err(ConfigError(error)) };
        for (index, queue) in self.queues.iter().enumerate() {
            queue.validate()?;
            check(
                queue.players() <= MAX_FORMED_PLAYERS,
                "a match must have at most 63 players: more do not fit into a transaction",
            )?;
            check(
                self.tickets / 2 >= queue.players() as usize,
                "tickets must be at least twice the players of a match",
            )?;
            let twice = self.queues.iter().take(index).any(|earlier| earlier.mode == queue.mode);
            check(!twice, "two queues have the same mode")?;
        }
        check(self.default_rating <= MAX_RATING.unsigned_abs(), "default_rating must be at most 1000000")?;
        check(!self.join_window.is_zero(), "join_window must not be zero: no match would last")?;
        check(
            !self.absence_grace.is_zero() && self.absence_delay <= self.absence_grace,
            "absence_grace must be above zero and at least absence_delay",
        )?;
        check(!self.sweep_interval.is_zero(), "sweep_interval must not be zero: nothing would ever rest")?;
        check(self.players > 0, "players must be at least 1")?;
        check(self.calls >= 3, "calls must be at least 3")?;
        check(self.page > 0, "page must be at least 1")?;
        check(
            !self.backoff_min.is_zero() && self.backoff_min <= self.backoff_max,
            "backoff_min must be above zero and at most backoff_max",
        )
    }

    /// The queue of a mode.
    #[must_use]
    pub fn queue(&self, mode: &str) -> Option<&QueueConfig> {
        self.queues.iter().find(|queue| queue.mode.as_str() == mode)
    }

    /// The modes there are.
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
        let breaks: [fn(&mut MatchmakingConfig); 13] = [
            |c| (c.queues[1].teams, c.queues[1].team_size) = (4, 16),
            |c| c.queues[1].mode = c.queues[0].mode.clone(),
            |c| c.queues[0].regions.clear(),
            |c| c.default_rating = 1_000_001,
            |c| c.join_window = Duration::ZERO,
            |c| c.sweep_interval = Duration::ZERO,
            |c| c.absence_delay = c.absence_grace * 2,
            |c| (c.absence_delay, c.absence_grace) = (Duration::ZERO, Duration::ZERO),
            |c| c.players = 0,
            |c| c.tickets = 125,
            |c| c.calls = 2,
            |c| c.page = 0,
            |c| c.backoff_min = c.backoff_max * 2,
        ];
        for (index, spoil) in breaks.iter().enumerate() {
            let mut bad = good.clone();
            spoil(&mut bad);
            assert!(bad.validate().is_err(), "case {index}");
        }
    }
}
