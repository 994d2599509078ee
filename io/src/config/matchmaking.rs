//! Matchmaking: the queues, and the rules for putting matches together.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use skirmish_core::config as core;
use skirmish_core::id::Name;
use skirmish_core::matchmaking::{self as rules, QueueConfig};

use super::validate::check;

/// Matchmaking (rows K1, K2). All nodes of a cluster must have the same settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Matchmaking {
    /// Rating of players without a better known one; 1500 by default, at most 1000000.
    pub default_rating: u32,
    /// True if a client's own statement of its player's rating counts. False by default.
    pub trust_rating: bool,
    /// Time in which the players of a match must join its room; 2 min by default. A player that has
    /// not joined by then is out of the match at the next sweep, and a match without players ends.
    #[serde(with = "humantime_serde")]
    pub join_window: Duration,
    /// Time for which a party waits for a player whose ticket is gone to queue again; 5 s by
    /// default. Then the tickets of the party end.
    #[serde(with = "humantime_serde")]
    pub party_grace: Duration,
    /// Time without a connection after which a player counts as absent; 500 ms by default. Absent
    /// players keep waiting in the queue, and get no match until they have returned.
    #[serde(with = "humantime_serde")]
    pub absence_delay: Duration,
    /// Time without a connection after which the ticket of an absent player ends. At most
    /// `sessions.ttl`. By default 30 seconds, or `sessions.ttl` if that is less.
    #[serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub absence_grace: Option<Duration>,
    /// Time between two sweeps that find matches that are over; 30 s by default.
    #[serde(with = "humantime_serde")]
    pub sweep_interval: Duration,
    /// Tickets of one mode that its matcher knows; 50000 by default. Later tickets wait for a
    /// place.
    pub tickets: usize,
    /// Queues, one for each mode. Without queues the server makes no matches.
    pub queues: Vec<QueueSection>,
}

impl Default for Matchmaking {
    fn default() -> Self {
        let core::MatchmakingConfig {
            default_rating,
            trust_rating,
            join_window,
            party_grace,
            absence_delay,
            sweep_interval,
            tickets,
            ..
        } = core::MatchmakingConfig::new(Vec::new());
        Self {
            default_rating,
            trust_rating,
            join_window,
            party_grace,
            absence_delay,
            absence_grace: None,
            sweep_interval,
            tickets,
            queues: Vec::new(),
        }
    }
}

/// A queue: the shape of its matches, and the rules for putting players together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueSection {
    /// Name by which clients ask for the queue.
    pub mode: String,
    /// Teams of a match.
    pub teams: u8,
    /// Players of each team. A match has at most 63 players.
    pub team_size: u8,
    /// Regions where matches can be played: 1 to 64 names.
    pub regions: Vec<String>,
    /// Longest wait of a ticket, 5 min by default. Then the ticket ends.
    #[serde(default = "default_time_out", with = "humantime_serde")]
    pub time_out: Duration,
    /// Shortest time between two rounds of searches through the waiting tickets; 250 ms by default.
    #[serde(default = "default_interval", with = "humantime_serde")]
    pub interval: Duration,
    /// Window of ratings around a ticket's own. The narrower window of two tickets counts.
    #[serde(default)]
    pub rating: RatingWindow,
    /// Longest latency of a player to the region of the match.
    #[serde(default)]
    pub latency: LatencyWindow,
    /// Required quality of a match.
    #[serde(default)]
    pub quality: QualityRules,
    /// True if the free places of running matches are filled from the queue, at every
    /// `matchmaking.sweep_interval`. False by default.
    #[serde(default)]
    pub backfill: bool,
}

/// Defines a bound that widens while a ticket waits.
macro_rules! window {
    ($(#[$doc:meta])* $name:ident at $place:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            /// The bound at the beginning of the wait.
            pub start: u32,
            /// Growth for each second of waiting, linear.
            pub per_second: u32,
            /// Largest bound; at most 1000000.
            pub most: u32,
        }

        impl Default for $name {
            fn default() -> Self {
                let rules::Widening { start, per_second, most } = usual().$place;
                Self { start, per_second, most }
            }
        }

        impl From<&$name> for rules::Widening {
            fn from(window: &$name) -> Self {
                let $name { start, per_second, most } = *window;
                Self { start, per_second, most }
            }
        }
    };
}

window! {
    /// Largest distance of two ratings, in points. By default 100, growing by 10 per second up to
    /// 600.
    RatingWindow at rating
}

window! {
    /// Largest latency between a player and a region, in milliseconds. By default 80, growing by 4
    /// per second up to 250.
    LatencyWindow at latency
}

/// Required quality of a match. The quality, from 0 to 1000, is the lower of two figures. The first
/// is 1000 if all tickets have one rating, and 0 if their ratings are `worst_spread` apart. The
/// second is 1000 if all teams have one mean rating, and 0 if the means are `worst_difference`
/// apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QualityRules {
    /// Lowest quality of a match, at most 1000; 300 by default. Waiting does not lower it.
    pub floor: u16,
    /// Spread of ratings at which the first figure is 0, in points, at least 1; 800 by default.
    pub worst_spread: u32,
    /// Difference of mean ratings at which the second figure is 0, in points, at least 1; 200 by
    /// default.
    pub worst_difference: u32,
}

impl Default for QualityRules {
    fn default() -> Self {
        let rules::Quality { floor, worst_spread, worst_difference } = usual().quality;
        Self { floor, worst_spread, worst_difference }
    }
}

/// Returns the core's defaults. They do not depend on the shape of the matches.
fn usual() -> QueueConfig {
    let nowhere = Name::new("usual").map(|name| (name, Vec::new()));
    let (mode, regions) = nowhere.expect("it is a name");
    QueueConfig::new(mode, 2, 1, regions)
}

fn default_time_out() -> Duration {
    usual().time_out
}

fn default_interval() -> Duration {
    usual().interval
}

impl Matchmaking {
    /// Returns the core's configuration, for so many sessions with this lifetime without a
    /// connection.
    pub(super) fn core(&self, sessions: usize, ttl: Duration) -> core::MatchmakingConfig {
        let queues = self.queues.iter().filter_map(QueueSection::core).collect();
        let core = core::MatchmakingConfig::new(queues);
        let usual = core.absence_grace.max(self.absence_delay).min(ttl);
        let absence_grace = self.absence_grace.unwrap_or(usual);
        core::MatchmakingConfig {
            default_rating: self.default_rating,
            trust_rating: self.trust_rating,
            join_window: self.join_window,
            party_grace: self.party_grace,
            // If a session lives for less than the delay, its ticket ends with the session.
            absence_delay: self.absence_delay.min(absence_grace),
            absence_grace,
            sweep_interval: self.sweep_interval,
            players: core.players.max(sessions),
            tickets: self.tickets,
            ..core
        }
    }

    /// Checks the values that neither a type nor the core can: the core has names, not texts, and
    /// no shortest times.
    ///
    /// # Errors
    /// The first key with a value that makes no sense, and the problem.
    pub(super) fn validate(&self) -> Result<(), (String, String)> {
        for (key, time) in [
            ("matchmaking.join_window", self.join_window),
            ("matchmaking.sweep_interval", self.sweep_interval),
        ] {
            check(time >= Duration::from_millis(1), key, "must be at least 1ms")?;
        }
        // The core gets a delay that fits.
        let grace = self.absence_grace.unwrap_or(self.absence_delay);
        let least = "must be at least `absence_delay`";
        check(grace >= self.absence_delay, "matchmaking.absence_grace", least)?;
        for (index, queue) in self.queues.iter().enumerate() {
            queue.validate(|key: &str| format!("matchmaking.queues[{index}].{key}"))?;
        }
        Ok(())
    }
}

impl QueueSection {
    /// Creates a queue with the default rules, in one region.
    #[must_use]
    pub fn new(mode: &str, teams: u8, team_size: u8, region: &str) -> Self {
        Self {
            mode: mode.to_owned(),
            teams,
            team_size,
            regions: vec![region.to_owned()],
            time_out: default_time_out(),
            interval: default_interval(),
            rating: RatingWindow::default(),
            latency: LatencyWindow::default(),
            quality: QualityRules::default(),
            backfill: false,
        }
    }

    /// Returns the queues of a server for development: `duel` for two players, `squads` for two
    /// teams of five.
    #[must_use]
    pub fn development() -> Vec<Self> {
        vec![Self::new("duel", 2, 1, "local"), Self::new("squads", 2, 5, "local")]
    }

    /// Returns the core's configuration; `None` if a name is invalid, which validation reports.
    fn core(&self) -> Option<QueueConfig> {
        let regions = self.regions.iter().map(|region| Name::new(region)).collect::<Result<_, _>>().ok()?;
        let QualityRules { floor, worst_spread, worst_difference } = self.quality;
        Some(QueueConfig {
            rating: (&self.rating).into(),
            latency: (&self.latency).into(),
            quality: rules::Quality { floor, worst_spread, worst_difference },
            backfill: self.backfill,
            time_out: self.time_out,
            interval: self.interval,
            ..QueueConfig::new(Name::new(&self.mode).ok()?, self.teams, self.team_size, regions)
        })
    }

    fn validate(&self, at: impl Fn(&str) -> String) -> Result<(), (String, String)> {
        let named = |text: &str, key: String| {
            Name::new(text).map(drop).map_err(|error| (key, format!("must be a name: {error}")))
        };
        named(&self.mode, at("mode"))?;
        for (index, region) in self.regions.iter().enumerate() {
            named(region, at(&format!("regions[{index}]")))?;
        }
        check(self.interval >= Duration::from_millis(1), at("interval"), "must be at least 1ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn parse(text: &str) -> Config {
        toml::from_str(text).unwrap()
    }

    /// Returns the key of the error after a change of a valid configuration.
    fn wrong(change: impl FnOnce(&mut Matchmaking)) -> Option<String> {
        let mut config = Config::default();
        config.matchmaking.queues = QueueSection::development();
        change(&mut config.matchmaking);
        config.validate().err().map(|(key, _)| key)
    }

    #[test]
    fn a_queue_needs_little_and_may_set_every_rule() {
        let text = r#"
            [matchmaking]
            trust_rating = true
            [[matchmaking.queues]]
            mode = "duel"
            teams = 2
            team_size = 1
            regions = ["eu", "us"]
            time_out = "1m"
            rating = { start = 50 }
            latency = { most = 300, per_second = 1 }
            quality.floor = 0
            backfill = true
            [[matchmaking.queues]]
            mode = "all"
            teams = 10
            team_size = 1
            regions = ["eu"]
        "#;
        let config = parse(text);
        assert_eq!(config.validate(), Ok(()));
        let core = config.core().matchmaking;
        assert_eq!(core.validate(), Ok(()));
        assert!(core.trust_rating);
        let duel = core.queue("duel").unwrap();
        let usual = QueueConfig::new(duel.mode.clone(), 2, 1, duel.regions.clone());
        assert_eq!(duel.rating, rules::Widening { start: 50, ..usual.rating });
        assert_eq!(duel.latency, rules::Widening { most: 300, per_second: 1, ..usual.latency });
        assert!(duel.backfill);
        assert_eq!(duel.quality, rules::Quality { floor: 0, ..usual.quality });
        assert_eq!((duel.time_out, duel.interval), (Duration::from_secs(60), usual.interval));
        let all = core.queue("all").unwrap();
        assert_eq!(*all, QueueConfig::new(all.mode.clone(), 10, 1, all.regions.clone()));
    }

    #[test]
    fn there_is_a_place_for_every_session() {
        let mut config = Config::default();
        config.sessions.total = 1_000_000;
        assert_eq!(config.core().matchmaking.players, 1_000_000);
    }

    #[test]
    fn a_session_may_be_shorter_than_the_usual_grace() {
        let mut config = Config::default();
        config.matchmaking.queues = QueueSection::development();
        for (ttl, grace) in [(1, 1), (60, 30)] {
            config.sessions.ttl = Duration::from_secs(ttl);
            assert_eq!(config.validate(), Ok(()));
            assert_eq!(config.core().matchmaking.absence_grace, Duration::from_secs(grace));
        }
    }

    #[test]
    fn values_that_make_no_sense_are_named() {
        assert_eq!(wrong(|_| ()), None);
        let key = |key: &str| Some(format!("matchmaking.{key}"));
        assert_eq!(wrong(|m| m.default_rating = 1_000_001), key("default_rating"));
        assert_eq!(wrong(|m| m.join_window = Duration::ZERO), key("join_window"));
        assert_eq!(wrong(|m| m.sweep_interval = Duration::ZERO), key("sweep_interval"));
        assert_eq!(wrong(|m| m.tickets = 0), key("tickets"));
        assert_eq!(wrong(|m| m.absence_grace = Some(Duration::ZERO)), key("absence_grace"));
        assert_eq!(wrong(|m| m.absence_grace = Some(Duration::from_millis(499))), key("absence_grace"));
        assert_eq!(wrong(|m| m.absence_grace = Some(Duration::from_secs(61))), key("absence_grace"));
        assert_eq!(wrong(|m| m.absence_grace = Some(Duration::from_secs(60))), None);
        let queue = |name: &str| key(&format!("queues[1].{name}"));
        assert_eq!(wrong(|m| m.queues[1].mode = "duel".to_owned()), queue("mode"));
        assert_eq!(wrong(|m| m.queues[1].mode.clear()), queue("mode"));
        assert_eq!(wrong(|m| m.queues[1].teams = 0), queue("teams"));
        assert_eq!(wrong(|m| m.queues[1].team_size = 33), queue("team_size"));
        assert_eq!(wrong(|m| m.queues[1].team_size = 32), queue("team_size"), "64 players");
        assert_eq!(wrong(|m| (m.queues[1].teams, m.queues[1].team_size) = (1, 1)), queue("team_size"));
        assert_eq!(wrong(|m| m.queues[1].regions.clear()), queue("regions"));
        assert_eq!(wrong(|m| m.queues[1].regions.push("local".to_owned())), queue("regions[1]"));
        assert_eq!(wrong(|m| m.queues[1].regions.push("a b".to_owned())), queue("regions[1]"));
        assert_eq!(wrong(|m| m.queues[1].rating.start = 601), queue("rating.start"));
        assert_eq!(wrong(|m| m.queues[1].latency.most = 1_000_001), queue("latency.most"));
        assert_eq!(wrong(|m| m.queues[1].quality.floor = 1_001), queue("quality.floor"));
        assert_eq!(wrong(|m| m.queues[1].quality.worst_spread = 0), queue("quality.worst_spread"));
        assert_eq!(wrong(|m| m.queues[1].quality.worst_difference = 0), queue("quality.worst_difference"));
        assert_eq!(wrong(|m| m.queues[1].interval = Duration::ZERO), queue("interval"));
        assert_eq!(wrong(|m| m.queues[1].time_out = Duration::from_millis(249)), queue("time_out"));
    }
}
