//! One match (G8), as the players see it, and the time that it takes to find it.
//!
//! Every bot reports its searches, its match events, and its leaving of a match. A bot is in a
//! match from the first event of any of the match's players until the bot has left the match's
//! room. So two live matches of one player are noticed even if the player has an event of only one
//! of them. A match that a bot has left, or given up, is over for the bot: another event of it is a
//! breach.

use std::collections::{BTreeMap, BTreeSet};

use hdrhistogram::Histogram;
use skirmish_core::time::Instant;
use skirmish_proto::v1::{Matched, Team, TicketState};

use super::super::stats::{histogram, record};
use super::super::verdict::Breaches;

/// All searches and matches so far.
#[derive(Debug)]
pub(super) struct MatchLedger {
    rules: Rules,
    searchers: Vec<SearchingBot>,
    matches: BTreeMap<String, ReportedMatch>,
    breaches: Breaches,
    pub tally: MatchTally,
}

/// Rules that every match must satisfy.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub mode: String,
    /// Number of teams, and of players in each.
    pub shape: (u8, u8),
    /// Prefix of the bots' names, before a dash and the bot's number.
    pub prefix: String,
    /// Bots with a number below this are in parties: 0 and 1, 2 and 3, and so on.
    pub in_parties: u32,
}

/// State of a bot.
#[derive(Clone, Debug, Default)]
struct SearchingBot {
    /// Number and beginning of the bot's search.
    search: Option<(u64, Instant)>,
    /// True if the bot has taken the ticket back.
    cancelling: bool,
    /// The bot's match.
    match_id: Option<String>,
    /// Matches that the bot has left or given up.
    left: BTreeSet<String>,
}

/// A match of which at least one bot was notified.
#[derive(Debug)]
struct ReportedMatch {
    room: String,
    teams: Vec<Team>,
    bots: Vec<u32>,
    told: BTreeSet<u32>,
    left: BTreeSet<u32>,
    /// Queue time of the match's youngest ticket.
    youngest: Instant,
}

/// Counters and histograms of the window.
#[derive(Debug)]
pub(super) struct MatchTally {
    /// Begin and end of the measured time; `None` before it is set.
    pub window: Option<(Instant, Instant)>,
    /// Matches of which all players were notified.
    pub formed: u64,
    /// Players that were notified of a match.
    pub players: u64,
    /// Time from the youngest ticket to the notification of the last player.
    pub all_told: Histogram<u64>,
    /// Time from a player's own ticket to the player's notification.
    pub own: Histogram<u64>,
    pub cancelled: u64,
    pub timed_out: u64,
    pub party_lost: u64,
    pub refused: u64,
}

impl MatchTally {
    fn new() -> Self {
        Self {
            window: None,
            formed: 0,
            players: 0,
            all_told: histogram(),
            own: histogram(),
            cancelled: 0,
            timed_out: 0,
            party_lost: 0,
            refused: 0,
        }
    }

    fn measures(&self, at: Instant) -> bool {
        self.window.is_some_and(|(from, to)| from <= at && at < to)
    }
}

impl MatchLedger {
    pub(super) fn new(rules: Rules, players: u32) -> Self {
        Self {
            rules,
            searchers: vec![SearchingBot::default(); players as usize],
            matches: BTreeMap::new(),
            breaches: Breaches::default(),
            tally: MatchTally::new(),
        }
    }

    /// Returns the number of bots that search.
    pub(super) fn searching(&self) -> u32 {
        count(self.searchers.iter().filter(|searcher| searcher.search.is_some()))
    }

    /// Returns the number of matches that at least one player has not left.
    pub(super) fn live(&self) -> usize {
        self.matches.len()
    }

    /// Notes the beginning of a search with this number.
    pub(super) fn queued(&mut self, bot: u32, search: u64, now: Instant) {
        let searcher = &mut self.searchers[bot as usize];
        (searcher.search, searcher.cancelling) = (Some((search, now)), false);
    }

    /// Notes that the bot takes its ticket back.
    pub(super) fn cancels(&mut self, bot: u32) {
        self.searchers[bot as usize].cancelling = true;
    }

    /// Checks the notification that the bot's search with this number has ended without a match.
    pub(super) fn ended(&mut self, bot: u32, search: u64, state: TicketState, now: Instant) {
        let measured = self.tally.measures(now);
        let searcher = &mut self.searchers[bot as usize];
        let open = searcher.search.map(|(number, _)| number);
        if open != Some(search) {
            self.breaches.add(|| {
                format!("player {bot} heard that search {search} is {state:?}, and searches by {open:?}")
            });
            return;
        }
        let is_asked = matches!(state, TicketState::Cancelled | TicketState::GivenUp | TicketState::None);
        if is_asked && !searcher.cancelling {
            let what =
                || format!("player {bot} heard that its ticket is {state:?}, which it did not ask for");
            self.breaches.add(what);
        }
        (searcher.search, searcher.cancelling) = (None, false);
        if measured {
            let counter = match state {
                TicketState::TimedOut => &mut self.tally.timed_out,
                TicketState::PartyLost => &mut self.tally.party_lost,
                TicketState::Refused => &mut self.tally.refused,
                _ => &mut self.tally.cancelled,
            };
            *counter += 1;
        }
    }

    /// Checks the notification of a match. Returns the match's bots if this bot is the first to be
    /// notified.
    pub(super) fn told(&mut self, bot: u32, matched: &Matched, now: Instant) -> Option<Vec<u32>> {
        let id = &matched.r#match;
        if self.has_left(bot, matched) {
            self.breaches.add(|| format!("player {bot} was told of match {id}, which it had left"));
            self.searchers[bot as usize].search = None;
            return None;
        }
        let shrunk = self.matches.get(id).is_some_and(|reported| is_within(&matched.teams, &reported.teams));
        if matched.fills > 0 && !shrunk {
            self.breaches.add(|| {
                format!("match {id} was filled: the queue has `backfill`, of which bots cannot judge")
            });
            return None;
        }
        if matched.fills > 0 && self.searchers[bot as usize].match_id.as_ref() == Some(id) {
            // Players that did not join are left out of the match.
            return None;
        }
        let first = !self.matches.contains_key(id);
        if first {
            self.meet(matched, now);
        }
        let Self { rules, searchers, matches, breaches, tally } = self;
        let reported = matches.get_mut(id)?;
        let is_same = reported.teams == matched.teams || matched.fills > 0;
        if !is_same || reported.room != matched.room || matched.mode != rules.mode {
            breaches.add(|| format!("player {bot} was told of another match {id} than others"));
        }
        let team = usize::try_from(matched.team).ok().and_then(|team| matched.teams.get(team));
        if !team.is_some_and(|team| team.players.iter().any(|name| rules.bot(name) == Some(bot))) {
            breaches.add(|| format!("player {bot} is not in its team {} of match {id}", matched.team));
        }
        let searcher = &mut searchers[bot as usize];
        if searcher.match_id.as_ref() != Some(id) {
            let other = &searcher.match_id;
            breaches.add(|| format!("player {bot} was told of match {id} and is in {other:?}"));
            searcher.match_id = Some(id.clone());
        }
        searcher.cancelling = false;
        match searcher.search.take() {
            Some((search, since)) if search == matched.search => {
                if tally.measures(now) {
                    tally.players += 1;
                    record(&mut tally.own, now.since(since));
                }
            }
            other => breaches.add(|| {
                let (search, open) = (matched.search, other.map(|(number, _)| number));
                format!("match {id} is told player {bot} of search {search}, and it searches by {open:?}")
            }),
        }
        if reported.told.insert(bot) && reported.told.len() == reported.bots.len() && tally.measures(now) {
            tally.formed += 1;
            record(&mut tally.all_told, now.since(reported.youngest));
        }
        first.then(|| reported.bots.clone())
    }

    /// Adds a match of which no bot was notified before: all of its players are in the match from
    /// now on.
    fn meet(&mut self, matched: &Matched, now: Instant) {
        let Self { rules, searchers, matches, breaches, .. } = self;
        let id = &matched.r#match;
        let (teams, size) = rules.shape;
        let shaped = matched.teams.len() == usize::from(teams)
            && matched.teams.iter().all(|team| team.players.len() == usize::from(size));
        if !shaped {
            breaches.add(|| format!("match {id} does not have {teams} teams of {size}"));
        }
        let names: Vec<&String> = matched.teams.iter().flat_map(|team| &team.players).collect();
        if names.iter().collect::<BTreeSet<_>>().len() != names.len() {
            breaches.add(|| format!("somebody is in match {id} twice"));
        }
        let mut bots: Vec<u32> = names.iter().filter_map(|name| rules.bot(name)).collect();
        bots.retain(|bot| (*bot as usize) < searchers.len());
        bots.sort_unstable();
        bots.dedup();
        for team in &matched.teams {
            let team: BTreeSet<u32> = team.players.iter().filter_map(|name| rules.bot(name)).collect();
            if let Some(bot) =
                team.iter().find(|bot| **bot < rules.in_parties && !team.contains(&(**bot ^ 1)))
            {
                breaches.add(|| format!("player {bot} is in match {id} without its party"));
            }
        }
        let mut youngest = None;
        let left: BTreeSet<u32> =
            bots.iter().copied().filter(|bot| searchers[*bot as usize].left.contains(id)).collect();
        for bot in bots.iter().filter(|bot| !left.contains(bot)) {
            let searcher = &mut searchers[*bot as usize];
            if let Some(other) = searcher.match_id.replace(id.clone()) {
                breaches.add(|| format!("player {bot} is in two live matches, {other} and {id}"));
            }
            if searcher.search.is_none() {
                breaches.add(|| format!("player {bot} is in match {id} and has no ticket"));
            }
            youngest = youngest.max(searcher.search.map(|(_, since)| since));
        }
        let reported = ReportedMatch {
            room: matched.room.clone(),
            teams: matched.teams.clone(),
            bots,
            told: left.clone(),
            left,
            youngest: youngest.unwrap_or(now),
        };
        matches.insert(id.clone(), reported);
    }

    /// Notes that the bot has left its match. Returns the match's identifier if it is over: every
    /// player was notified of the match and has left.
    pub(super) fn left(&mut self, bot: u32) -> Option<String> {
        let id = self.searchers[bot as usize].match_id.take()?;
        self.note_left(bot, &id).then_some(id)
    }

    /// Notes that the bot has given a match up. Returns true if the match is over.
    pub(super) fn gave_up(&mut self, bot: u32, id: &str) -> bool {
        let searcher = &mut self.searchers[bot as usize];
        if searcher.match_id.as_deref() == Some(id) {
            searcher.match_id = None;
        }
        self.note_left(bot, id)
    }

    fn note_left(&mut self, bot: u32, id: &str) -> bool {
        self.searchers[bot as usize].left.insert(id.to_owned());
        let Some(reported) = self.matches.get_mut(id) else { return false };
        reported.told.insert(bot);
        reported.left.insert(bot);
        let is_over = reported.left.len() >= reported.bots.len();
        if is_over {
            self.matches.remove(id);
        }
        is_over
    }

    /// Returns true if the bot has left the match, or given it up.
    pub(super) fn has_left(&self, bot: u32, matched: &Matched) -> bool {
        self.searchers.get(bot as usize).is_some_and(|searcher| searcher.left.contains(&matched.r#match))
    }

    /// Returns all breaches, once every player has had its last notification, or the players'
    /// patience is over; and the unknown cases. A player without a notification may still get one.
    pub(super) fn finish(&mut self) -> (Breaches, Breaches) {
        let Self { searchers, matches, breaches, .. } = self;
        let mut unknown = Breaches::default();
        for (bot, searcher) in (0_u32..).zip(searchers.iter()) {
            if searcher.search.is_some() {
                unknown.add(|| format!("player {bot} has not heard what became of its ticket"));
            }
        }
        for (id, reported) in matches.iter() {
            for bot in reported.bots.iter().filter(|bot| !reported.told.contains(bot)) {
                let waits = searchers.get(*bot as usize).is_some_and(|searcher| searcher.search.is_some());
                if !waits {
                    breaches.add(|| format!("player {bot} never heard of its match {id}"));
                }
            }
        }
        (breaches.clone(), unknown)
    }
}

impl Rules {
    /// Returns the bot with this name.
    fn bot(&self, name: &str) -> Option<u32> {
        name.strip_prefix(&self.prefix)?.strip_prefix('-')?.parse().ok()
    }
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

/// Returns true if each of these teams has no players but those of the same team before.
fn is_within(teams: &[Team], before: &[Team]) -> bool {
    teams.len() == before.len()
        && teams
            .iter()
            .zip(before)
            .all(|(team, before)| team.players.iter().all(|player| before.players.contains(player)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Instant {
        Instant::from_micros(ms * 1_000)
    }

    /// Returns the number of a bot's first search. Each later search has the next number.
    fn search_of(bot: u32) -> u64 {
        100 + u64::from(bot) * 10
    }

    /// Four searching bots, the first two of them a party; teams of two.
    fn ledger() -> MatchLedger {
        let rules =
            Rules { mode: "squads".to_owned(), shape: (2, 2), prefix: "bot".to_owned(), in_parties: 2 };
        let mut ledger = MatchLedger::new(rules, 5);
        ledger.tally.window = Some((ms(0), ms(1_000)));
        for bot in 0..5 {
            ledger.queued(bot, search_of(bot), ms(u64::from(bot) * 10));
        }
        ledger
    }

    fn matched(id: &str, teams: &[&[u32]], team: u32) -> Matched {
        let team_of = |bots: &&[u32]| Team { players: bots.iter().map(|bot| format!("bot-{bot}")).collect() };
        Matched {
            r#match: id.to_owned(),
            mode: "squads".to_owned(),
            room: format!("match:{id}"),
            team,
            teams: teams.iter().map(team_of).collect(),
            ..Matched::default()
        }
    }

    const TEAMS: &[&[u32]] = &[&[0, 1], &[2, 3]];

    /// Notifies the bot of a match, as the answer to its current search.
    fn tell(ledger: &mut MatchLedger, bot: u32, matched: &Matched, at: Instant) {
        let search = ledger.searchers[bot as usize].search.map_or(0, |(search, _)| search);
        ledger.told(bot, &Matched { search, ..matched.clone() }, at);
    }

    fn tell_all(ledger: &mut MatchLedger, id: &str) {
        for bot in 0..4 {
            tell(ledger, bot, &matched(id, TEAMS, bot / 2), ms(100));
        }
    }

    /// Checks for a breach with these words, once every remaining bot has its answer.
    fn breaks(mut ledger: MatchLedger, words: &str) {
        let (breaches, _) = ledger.finish();
        assert!(breaches.first.as_ref().is_some_and(|first| first.contains(words)), "{breaches:?}");
    }

    #[test]
    fn clean_matches_pass_and_are_measured() {
        let mut ledger = ledger();
        tell_all(&mut ledger, "a");
        assert_eq!((ledger.tally.formed, ledger.tally.players), (1, 4));
        assert_eq!(ledger.tally.all_told.max() / 1_000, 70, "since the youngest ticket");
        assert_eq!(ledger.tally.own.max() / 1_000, 100, "since the oldest");
        for bot in 0..4 {
            assert_eq!(ledger.left(bot), (bot == 3).then(|| "a".to_owned()));
            ledger.queued(bot, search_of(bot) + 1, ms(200));
        }
        assert_eq!(ledger.live(), 0);
        tell_all(&mut ledger, "b");
        ledger.cancels(4);
        ledger.ended(4, search_of(4), TicketState::Cancelled, ms(300));
        assert_eq!((ledger.tally.cancelled, ledger.searching()), (1, 0));
        assert_eq!(ledger.finish(), Default::default());
    }

    #[test]
    fn a_match_that_was_left_and_is_told_again_is_seen() {
        let mut left = ledger();
        tell_all(&mut left, "a");
        left.left(0);
        left.queued(0, search_of(0) + 1, ms(200));
        tell(&mut left, 0, &matched("a", TEAMS, 0), ms(300));
        breaks(left, "player 0 was told of match a, which it had left");
        // A match that was given up, before or after the notification of others.
        for late in [true, false] {
            let mut ledger = ledger();
            if late {
                tell(&mut ledger, 2, &matched("a", TEAMS, 1), ms(100));
            }
            ledger.cancels(0);
            ledger.ended(0, search_of(0), TicketState::GivenUp, ms(150));
            assert!(!ledger.gave_up(0, "a"));
            for bot in 1..4 {
                if !(late && bot == 2) {
                    tell(&mut ledger, bot, &matched("a", TEAMS, bot / 2), ms(200));
                }
            }
            ledger.cancels(4);
            ledger.ended(4, search_of(4), TicketState::Cancelled, ms(300));
            let over: Vec<_> = (1..4).map(|bot| ledger.left(bot)).collect();
            assert_eq!(over, [None, None, Some("a".to_owned())]);
            assert_eq!(ledger.finish(), Default::default());
            tell(&mut ledger, 0, &matched("a", TEAMS, 0), ms(400));
            breaks(ledger, "player 0 was told of match a, which it had left");
        }
    }

    #[test]
    fn two_live_matches_are_seen_though_nobody_was_told_of_both() {
        let mut ledger = ledger();
        tell(&mut ledger, 0, &matched("a", TEAMS, 0), ms(100));
        tell(&mut ledger, 4, &matched("b", &[&[4, 5], &[2, 6]], 0), ms(100));
        breaks(ledger, "player 2 is in two live matches, a and b");
    }

    #[test]
    fn the_next_match_before_the_last_was_left_is_seen() {
        let mut ledger = ledger();
        tell_all(&mut ledger, "a");
        (0..3).for_each(|bot| drop(ledger.left(bot)));
        (0..4).for_each(|bot| ledger.queued(bot, search_of(bot) + 1, ms(200)));
        tell(&mut ledger, 0, &matched("b", TEAMS, 0), ms(300));
        breaks(ledger, "player 3 is in two live matches");
    }

    #[test]
    fn different_stories_are_seen() {
        let told_as = |other: Matched, words: &str| {
            let mut ledger = ledger();
            tell(&mut ledger, 0, &matched("a", TEAMS, 0), ms(100));
            tell(&mut ledger, 2, &other, ms(100));
            breaks(ledger, words);
        };
        told_as(matched("a", &[&[0, 1], &[3, 2]], 1), "player 2 was told of another match");
        told_as(Matched { room: "b".to_owned(), ..matched("a", TEAMS, 1) }, "another match");
        told_as(Matched { mode: "duel".to_owned(), ..matched("a", TEAMS, 1) }, "another match");
        told_as(matched("a", TEAMS, 0), "player 2 is not in its team 0");
        told_as(matched("a", TEAMS, 7), "player 2 is not in its team 7");
    }

    #[test]
    fn a_match_goes_on_without_players_that_did_not_come_and_with_no_others() {
        let again = |teams: &[&[u32]]| {
            let mut ledger = ledger();
            tell_all(&mut ledger, "a");
            ledger.told(0, &Matched { fills: 1, ..matched("a", teams, 0) }, ms(200));
            ledger
        };
        assert_eq!(again(&[&[0, 1], &[2]]).breaches.first, None);
        breaks(again(&[&[0, 1], &[2, 5]]), "match a was filled");
    }

    #[test]
    fn a_match_of_another_shape_is_seen() {
        let shaped = |teams: &[&[u32]], words: &str| {
            let mut ledger = ledger();
            tell(&mut ledger, 0, &matched("a", teams, 0), ms(100));
            breaks(ledger, words);
        };
        shaped(&[&[0, 1], &[2]], "does not have 2 teams of 2");
        shaped(&[&[0, 1], &[2, 0]], "twice");
        shaped(&[&[0, 2], &[1, 3]], "without its party");
    }

    #[test]
    fn who_has_no_ticket_is_in_no_match() {
        let mut ledger = ledger();
        ledger.cancels(2);
        ledger.ended(2, search_of(2), TicketState::Cancelled, ms(50));
        tell(&mut ledger, 0, &matched("a", TEAMS, 0), ms(100));
        breaks(ledger, "player 2 is in match a and has no ticket");
    }

    #[test]
    fn silence_is_seen_and_proves_nothing() {
        let unknown = |mut ledger: MatchLedger, words: &str| {
            let (breaches, unknown) = ledger.finish();
            assert_eq!(breaches, Breaches::default());
            assert!(unknown.first.as_ref().is_some_and(|first| first.contains(words)), "{unknown:?}");
        };
        let mut quiet = ledger();
        tell_all(&mut quiet, "a");
        unknown(quiet, "player 4 has not heard what became of its ticket");
        let mut ledger = ledger();
        tell(&mut ledger, 0, &matched("a", TEAMS, 0), ms(100));
        unknown(ledger, "player 1 has not heard what became of its ticket");
        let mut told = self::ledger();
        tell_all(&mut told, "a");
        told.ended(4, search_of(4), TicketState::TimedOut, ms(200));
        told.matches.get_mut("a").expect("it is there").told.remove(&1);
        breaks(told, "player 1 never heard of its match a");
    }

    #[test]
    fn ends_that_were_not_asked_for_or_of_other_searches_are_seen() {
        let mut unasked = ledger();
        unasked.ended(4, search_of(4), TicketState::None, ms(50));
        breaks(unasked, "which it did not ask for");
        let mut other = ledger();
        other.ended(4, search_of(4) - 1, TicketState::TimedOut, ms(50));
        breaks(other, "player 4 heard that search 139 is TimedOut, and searches by Some(140)");
        let mut other = ledger();
        other.told(0, &Matched { search: search_of(1), ..matched("a", TEAMS, 0) }, ms(100));
        breaks(other, "match a is told player 0 of search 110, and it searches by Some(100)");
        let mut again = ledger();
        tell_all(&mut again, "a");
        tell(&mut again, 0, &matched("a", TEAMS, 0), ms(100));
        breaks(again, "match a is told player 0 of search 0, and it searches by None");
    }
}
