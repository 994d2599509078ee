//! Options of the match mode.

use std::time::Duration;

use skirmish_core::id::Name;
use skirmish_core::matchmaking::{MAX_FORMED_PLAYERS, MAX_TEAM_SIZE};

use super::super::Error;
use crate::config::QueueSection;

/// Behaviour of the players in match mode.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Matches")]
pub struct MatchOptions {
    /// Play matches: queue for a match of this mode, join its room, battle, leave, and
    /// queue again. Replaces --mode. Such as `duel` and `squads`, which a server for
    /// development has; the server in this process has any mode.
    #[arg(long = "match", value_name = "MODE", conflicts_with_all = ["mode", "room_size", "class", "history"])]
    pub queue: Option<String>,

    /// Duration of a battle, from the moment when the first of its players is told.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration, requires = "queue")]
    pub battle: Duration,

    /// Teams of a match, for the check and for the server in this process. The default is that of a
    /// server for development, and two for other modes.
    #[arg(long, value_name = "N", requires = "queue")]
    pub teams: Option<u8>,

    /// Players of a team, likewise; by default one for other modes.
    #[arg(long, value_name = "N", requires = "queue")]
    pub team_size: Option<u8>,

    /// Percentage of the players who queue in parties of two; for teams of two or more.
    #[arg(long, value_name = "PERCENT", default_value_t = 0, requires = "queue")]
    pub party_share: u32,

    /// Share of the searches that are given up within half a second: 0.1 gives up every
    /// tenth.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, requires = "queue")]
    pub cancel_rate: f64,
}

impl MatchOptions {
    /// Returns the number of teams of a match, and of players in each.
    pub(in super::super) fn shape(&self) -> (u8, u8) {
        let known = QueueSection::development();
        let known = known.iter().find(|queue| Some(&queue.mode) == self.queue.as_ref());
        let (teams, size) = known.map_or((2, 1), |queue| (queue.teams, queue.team_size));
        (self.teams.unwrap_or(teams), self.team_size.unwrap_or(size))
    }

    /// Returns the number of players in parties: those with the lowest numbers, two in each party.
    pub(super) fn in_parties(&self, players: u32) -> u32 {
        let parties = u64::from(players) * u64::from(self.party_share) / 200;
        u32::try_from(2 * parties).unwrap_or(players)
    }

    /// Checks the constraints that the types do not express.
    pub(in super::super) fn check(&self, players: u32) -> Result<(), Error> {
        let bad =
            |option: &'static str, problem: &str| Err(Error::Option { option, problem: problem.to_owned() });
        let Some(queue) = &self.queue else { return Ok(()) };
        if let Err(error) = Name::new(queue) {
            return bad("--match", &error.to_string());
        }
        if self.battle.is_zero() {
            return bad("--battle", "more than nothing");
        }
        let (teams, size) = self.shape();
        let each = u32::from(teams) * u32::from(size);
        if teams == 0 || !(1..=MAX_TEAM_SIZE).contains(&size) || !(2..=MAX_FORMED_PLAYERS).contains(&each) {
            return bad("--teams and --team-size", "teams of 1 to 32, and a match of 2 to 63 players");
        }
        if players < each {
            return bad("--players", "at least as many as a match has");
        }
        if self.party_share > 100 {
            return bad("--party-share", "from 0 to 100");
        }
        if self.party_share > 0 && size < 2 {
            return bad("--party-share", "a party of two needs teams of two or more: see --team-size");
        }
        if !(0.0..=1.0).contains(&self.cancel_rate) {
            return bad("--cancel-rate", "from 0 to 1");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: crate::bots::Options,
    }

    fn parse(arguments: &[&str]) -> crate::bots::Options {
        Cli::try_parse_from([&["bots"], arguments].concat()).unwrap().options
    }

    #[test]
    fn modes_of_development_servers_have_their_shape() {
        let shape = |arguments: &[&str]| parse(arguments).matches.shape();
        assert_eq!(shape(&["--match", "duel"]), (2, 1));
        assert_eq!(shape(&["--match", "squads"]), (2, 5));
        assert_eq!(shape(&["--match", "other"]), (2, 1));
        assert_eq!(shape(&["--match", "other", "--teams", "3", "--team-size", "4"]), (3, 4));
    }

    #[test]
    fn parties_are_whole() {
        let options = parse(&["--match", "squads", "--party-share", "50"]).matches;
        assert_eq!([0, 10, 11, 13].map(|players| options.in_parties(players)), [0, 4, 4, 6]);
        let all = MatchOptions { party_share: 100, ..options };
        assert_eq!([10, 11].map(|players| all.in_parties(players)), [10, 10]);
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        parse(&["--match", "squads", "--party-share", "100", "--cancel-rate", "1"]).check().unwrap();
        for (arguments, option) in [
            (&["--match", "squads", "--players", "9"][..], "--players"),
            (&["--match", "duel", "--party-share", "10"], "--party-share"),
            (&["--match", "squads", "--party-share", "101"], "--party-share"),
            (&["--match", "duel", "--cancel-rate", "nan"], "--cancel-rate"),
            (&["--match", "duel", "--battle", "0s"], "--battle"),
            (&["--match", "a", "--teams", "2", "--team-size", "32"], "--teams and --team-size"),
            (&["--match", "a b"], "--match"),
        ] {
            let Err(Error::Option { option: named, .. }) = parse(arguments).check() else {
                panic!("{arguments:?} passed");
            };
            assert_eq!(named, option, "{arguments:?}");
        }
    }
}
