//! Report of the match mode.

use serde::Serialize;

use super::super::options::Options;
use super::super::report::{GuaranteeReport, Latencies, Report, Usage, per_second};
use super::world::SharedMatchMode;

/// Matches, as the players saw them. All counters are of the measured time.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct MatchReport {
    /// Mode of the matches.
    pub mode: String,
    /// Teams of a match.
    pub teams: u8,
    /// Players of a team.
    pub team_size: u8,
    /// Matches of which every player was notified.
    pub formed: u64,
    /// Formed matches per second.
    pub formed_per_second: f64,
    /// Players that were notified of a match.
    pub players: u64,
    /// Time from the queueing of a match's last ticket to the notification of its last player.
    pub last_ticket_to_all_told: Latencies,
    /// Time from a player's queueing to its notification.
    pub own_ticket_to_told: Latencies,
    /// Tickets taken back by their players.
    pub cancelled: u64,
    /// Tickets for which no match was found in time.
    pub timed_out: u64,
    /// Tickets of parties that a player has left.
    pub party_lost: u64,
    /// Tickets that the server has refused.
    pub refused: u64,
    /// Players that still waited at the end, and took their tickets back.
    pub waiting: u32,
}

impl MatchReport {
    /// Returns the rows of the table for people: names and values.
    pub(in super::super) fn rows(&self) -> Vec<(&'static str, String)> {
        let (formed, players) = (self.formed, self.players);
        vec![
            ("matches", format!("{formed} of {} teams of {}, {players} players", self.teams, self.team_size)),
            ("matches/s", format!("{:.2}", self.formed_per_second)),
            ("last ticket to all told", self.last_ticket_to_all_told.to_string()),
            ("own ticket to told", self.own_ticket_to_told.to_string()),
            (
                "other tickets",
                format!(
                    "{} cancelled, {} timed out, {} lost their party, {} refused, {} waited at the end",
                    self.cancelled, self.timed_out, self.party_lost, self.refused, self.waiting
                ),
            ),
        ]
    }
}

/// Creates the report of the match mode; `waiting` players searched at its end.
pub(super) fn report(options: &Options, shared: &mut SharedMatchMode, usage: &Usage, waiting: u32) -> Report {
    let (broken, unheard) = shared.ledger.finish();
    let tally = &shared.ledger.tally;
    let (teams, team_size) = options.matches.shape();
    let matches = MatchReport {
        mode: options.matches.queue.clone().unwrap_or_default(),
        teams,
        team_size,
        formed: tally.formed,
        formed_per_second: per_second(tally.formed, usage),
        players: tally.players,
        last_ticket_to_all_told: Latencies::of(&tally.all_told),
        own_ticket_to_told: Latencies::of(&tally.own),
        cancelled: tally.cancelled,
        timed_out: tally.timed_out,
        party_lost: tally.party_lost,
        refused: tally.refused,
        waiting,
    };
    let mut report = Report::empty(options, usage, shared.stats.delivered);
    report.mode = "match";
    report.rooms = shared.rooms;
    report.matches = Some(matches);
    report.unsettled = shared.unsettled + shared.busy();
    report.trouble = shared.trouble.clone();
    report.add_messages(&shared.stats, shared.found.counts);
    report.add_guarantees(shared.found.clone());
    report.guarantees.push(GuaranteeReport::new("G8 one match", broken, unheard));
    report
}
