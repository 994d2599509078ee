//! G8: one match. The oracle gets every revision of the registry, every request of a client and every
//! message to a client, and checks that
//!
//! * a match forms wholly: one revision consumes all its tickets, which waited, and writes the match, its
//!   room and a notice for each of its players; the teams are those that the queue wants, every party is
//!   whole in one team, and the node that forms the match is the elected matcher;
//! * no match consumes a ticket that marks its player as absent;
//! * free places of a match are filled wholly, too: no player of the match is moved or put out, and each
//!   new player is added as to a new match;
//! * a player that is put out of a match has not joined its room, and no player stays long without joining;
//! * a player is in one match at most, and has no ticket while in a match;
//! * an end is final: an ended ticket never waits again, and a match that is over leaves no notice;
//! * messages to clients agree with the registry: a match that was formed with the client's player, an
//!   end that a ticket has;
//! * a search, which has a number, ends once: after a client was notified of the end, no ticket of the
//!   search waits or is consumed, and no other end of the search is reported to that client; a client
//!   that searches is notified of the end of this search and of no other search; and a match names, as
//!   the search that it answers, one that a client of the player has begun;
//! * a match is over for a client that has left it: after the message that the client has left the room
//!   of a match, or has given the match up, the client is not notified of that match again. Reports of
//!   the client's own machine count, too.
//!
//! A search without a reported end may end in a match at any time, after a crash of its client or
//! after another client of the player has replaced that client. The player is still notified of the match.

mod arrivals;
mod left;
mod searches;

use std::collections::{BTreeMap, BTreeSet};

use skirmish_core::id::{Name, NodeId};
use skirmish_core::matchmaking::keys::{self, Kind};
use skirmish_core::matchmaking::{MatchmakingConfig, decode};
use skirmish_core::registry::{Change, KeyValue};
use skirmish_proto::v1::{self, TicketState};

use self::searches::{SearchEnd, Searches};
use super::{Guarantee, Verdict, broken};

const MATCHES: &str = "/match/pairs/";
const MATCHER: &str = "/match/matcher/";

/// Matches as the registry has them, and the messages to clients.
#[derive(Debug, Default)]
pub struct Matches {
    modes: BTreeMap<String, ModeRules>,
    /// The newest revision, and the time of its arrival.
    revision: u64,
    at: u64,
    /// Node that requested the newest revision, if known.
    author: Option<NodeId>,
    /// Elected matchers by mode: the revision of the election, and the node.
    elected: BTreeMap<String, (u64, NodeId)>,
    tickets: BTreeMap<Name, ObservedTicket>,
    /// The match of each player in a match.
    notices: BTreeMap<Name, v1::NoticeRecord>,
    /// Matches that are not over.
    live: BTreeSet<String>,
    /// All matches that were ever formed, in each version that a fill made.
    formed: BTreeMap<String, Vec<v1::Matched>>,
    /// Ends of tickets, by player, number of the search and state.
    ended: BTreeSet<(Name, u64, i32)>,
    searches: Searches,
    /// Matches that clients have left or given up, as they were notified.
    left: BTreeSet<(usize, String)>,
    /// Times since which players have been in their matches, in microseconds of the world's time.
    since: BTreeMap<Name, (String, u64)>,
    /// Times at which players were notified that they joined the rooms of matches.
    arrived: BTreeMap<(Name, String), u64>,
    /// True once faults have stopped, with the time in `calm_at`.
    is_calm: bool,
    calm_at: u64,
    counts: MatchCounts,
}

/// Rules of a mode's matches.
#[derive(Clone, Copy, Debug)]
struct ModeRules {
    teams: usize,
    team_size: usize,
    /// Time, in microseconds, that a ticket waits.
    time_out: u64,
    backfill: bool,
}

/// A ticket in the registry.
#[derive(Debug)]
struct ObservedTicket {
    /// Time of the ticket's first appearance, in microseconds of the world's time.
    since: u64,
    created: u64,
    record: v1::TicketRecord,
}

/// Counts of events; for coverage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MatchCounts {
    /// Elections that replaced another node.
    pub failed_over: u64,
    /// Tickets that another node has taken over together with the player's session.
    pub moved: u64,
    /// Tickets that became absent.
    pub absent: u64,
    /// Absent tickets whose players returned.
    pub back: u64,
    /// Players that joined the rooms of their matches.
    pub arrived: u64,
    /// Players that were put out of matches, since they had not joined the rooms.
    pub missed: u64,
    /// Matches that were over before their start.
    pub over: u64,
    /// Parties in matches.
    pub parties: u64,
    /// Tickets of teams of one that timed out beside another waiting ticket. The ratings of the two may
    /// be too far apart.
    pub passed_over: u64,
}

impl Matches {
    /// Creates the oracle of a world with these queues.
    #[must_use]
    pub fn new(config: &MatchmakingConfig) -> Self {
        let modes = config.queues.iter().map(|queue| {
            let mode = ModeRules {
                teams: queue.teams.into(),
                team_size: queue.team_size.into(),
                time_out: u64::try_from(queue.time_out.as_micros()).unwrap_or(u64::MAX),
                backfill: queue.backfill,
            };
            (queue.mode.as_str().to_owned(), mode)
        });
        Self { modes: modes.collect(), ..Self::default() }
    }

    /// Counts of events.
    #[must_use]
    pub const fn counts(&self) -> MatchCounts {
        self.counts
    }

    /// Returns the node that is elected as the matcher of a mode.
    #[must_use]
    pub fn elected(&self, mode: &str) -> Option<NodeId> {
        self.elected.get(mode).map(|(_, node)| *node)
    }

    // Requests of clients, and messages to them.

    /// Observes that a client begins the search of this number.
    ///
    /// # Errors
    /// If a search of the player had this number before, or another search of the client goes on.
    pub fn asked(&mut self, client: usize, player: &Name, search: u64) -> Verdict {
        self.searches.begin(client, player, search)
    }

    /// Forgets a client's search and the matches that the client has left, since its process is gone. A
    /// new process takes its place.
    pub fn restarted(&mut self, client: usize) {
        self.searches.restarted(client);
        self.left.retain(|(other, _)| *other != client);
    }

    /// Observes that a client was notified of the end of one of its player's searches, without a match.
    ///
    /// # Errors
    /// If no ticket of the search has ended in this state, the search has ended in another way, or
    /// another search of the client goes on.
    pub fn ended(&mut self, client: usize, player: &Name, search: u64, state: TicketState) -> Verdict {
        self.ended_before(client, player, search, state)?;
        self.searches.end(client, player, search, SearchEnd::Ticket(state))
    }

    /// Observes that a client's application is notified, during a search, of the end of another search of
    /// its player. The client itself was notified of that end before.
    ///
    /// # Errors
    /// If no ticket of the search has ended in this state.
    pub fn ended_before(&self, client: usize, player: &Name, search: u64, state: TicketState) -> Verdict {
        let decided = matches!(state, TicketState::TimedOut | TicketState::PartyLost);
        if decided && !self.ended.contains(&(player.clone(), search, state.into())) {
            return unlike(format_args!(
                "client {client} was told that search {search} is {state:?}, which no ticket of it ever was"
            ));
        }
        Ok(())
    }

    /// Observes that a client was notified of a match.
    ///
    /// # Errors
    /// If such a match, with the player in that team, was never formed, the client has left it, or the
    /// match does not answer the search that goes on.
    pub fn told(&mut self, client: usize, player: &Name, told: &v1::Matched) -> Verdict {
        self.told_before(client, player, told)?;
        self.searches.end(client, player, told.search, SearchEnd::Match(told.r#match.clone()))
    }

    /// Observes that a client's application is notified, during a search, of a match that answers another
    /// search or none. The client itself was notified of that match before.
    ///
    /// # Errors
    /// If such a match, with the player in that team, was never formed, or the client has left it.
    pub fn told_before(&self, client: usize, player: &Name, told: &v1::Matched) -> Verdict {
        let id = &told.r#match;
        if self.left.contains(&(client, id.clone())) {
            return unlike(format_args!("client {client} was told of match {id}, which it had left"));
        }
        let Some(formed) = self.formed.get(id) else {
            return unlike(format_args!("client {client} was told of match {id}, which was never formed"));
        };
        let team = usize::try_from(told.team).ok().and_then(|team| told.teams.get(team));
        let with_it = team.is_some_and(|team| team.players.iter().any(|name| name == player.as_str()));
        if !with_it || !formed.contains(&v1::Matched { team: 0, search: 0, ..told.clone() }) {
            return unlike(format_args!("client {client} was told of match {id} as it never was: {told:?}"));
        }
        Ok(())
    }

    /// Returns true if the client that began this search was notified of its end.
    #[must_use]
    pub fn has_ended(&self, player: &Name, search: u64) -> bool {
        self.searches.has_ended(player, search)
    }

    // Contents of the registry.

    /// Forgets the contents of the registry, since another registry has replaced it.
    pub fn forgotten(&mut self) {
        self.elected.clear();
        self.tickets.clear();
        self.notices.clear();
        self.since.clear();
        self.live.clear();
    }

    /// Observes the next revisions of the registry at a moment of the world: every change under
    /// `/match/`, and every change of matches' rooms. `author` is the node that requested the changes, if
    /// known.
    ///
    /// # Errors
    /// If a change breaks the guarantee.
    pub fn changed(&mut self, at: u64, author: Option<NodeId>, changes: &[Change]) -> Verdict {
        (self.at, self.author) = (at, author);
        changes.chunk_by(|a, b| a.revision() == b.revision()).try_for_each(|changes| self.commit(changes))
    }

    /// Observes one revision.
    fn commit(&mut self, changes: &[Change]) -> Verdict {
        self.revision = changes.first().map_or(self.revision, Change::revision);
        // Matches first: they are checked against tickets and notices as of the revision before.
        for change in changes {
            if let (Some(id), Change::Put { kv, .. }) = (named(change, MATCHES), change) {
                self.form(id, kv, changes)?;
            }
        }
        for change in changes {
            match keys::owner(change.key()) {
                Some((Kind::Ticket, player)) => self.ticket(player, change)?,
                Some((Kind::Notice, player)) => self.notice(player, change, changes)?,
                None => {}
            }
            if let Some(mode) = named(change, MATCHER) {
                self.election(mode, change)?;
            }
        }
        for change in changes {
            if let (Some(id), Change::Delete { .. }) = (named(change, MATCHES), change) {
                self.over(id)?;
            }
        }
        Ok(())
    }

    fn election(&mut self, mode: &str, change: &Change) -> Verdict {
        let Change::Put { kv, .. } = change else {
            // The node is kept until another one is elected, to count the change.
            if let Some(elected) = self.elected.get_mut(mode) {
                elected.0 = 0;
            }
            return Ok(());
        };
        let node = NodeId(decode::<v1::MatcherRecord>(&kv.value).node);
        match self.elected.insert(mode.to_owned(), (kv.created, node)) {
            Some((epoch, before)) if epoch > 0 => unlike(format_args!(
                "{node} is elected for {mode} in revision {} while {before} is, since {epoch}",
                kv.modified
            )),
            Some((_, before)) if before != node => {
                self.counts.failed_over += 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn ticket(&mut self, player: Name, change: &Change) -> Verdict {
        let Change::Put { kv, .. } = change else {
            self.tickets.remove(&player);
            return Ok(());
        };
        let record: v1::TicketRecord = decode(&kv.value);
        let before = self.tickets.get(&player).map(|before| &before.record);
        if record.state() != TicketState::Waiting {
            let mode = record.queue.as_ref().map_or("", |queue| &queue.mode);
            self.by_elected(mode, format_args!("a ticket of {player} is ended"))?;
            self.counts.passed_over += u64::from(self.is_passed_over(&player, record.state()));
            self.ended.insert((player.clone(), number(&record), record.state));
        } else if let Some(notice) = self.notices.get(&player) {
            return unlike(format_args!("{player} is queued while it is in match {}", notice.r#match));
        } else if before.is_some_and(|before| is_decided(before.state())) {
            return unlike(format_args!("the ticket of {player}, which has ended, waits again"));
        } else {
            let moved = before.is_some_and(|before| before.node != record.node);
            self.counts.moved += u64::from(moved);
            let was_absent = before.map_or(0, |before| before.absent_ms);
            self.counts.absent += u64::from(was_absent == 0 && record.absent_ms > 0);
            self.counts.back += u64::from(was_absent > 0 && record.absent_ms == 0);
            self.searches.goes_on(&player, number(&record), format_args!("{player} is queued"))?;
        }
        let since = self.tickets.get(&player).map_or(self.at, |before| before.since);
        self.tickets.insert(player, ObservedTicket { since, created: kv.created, record });
        Ok(())
    }

    /// Returns true if the ticket times out after more than half of its time beside another waiting
    /// ticket of the mode. The players of both are present, and the mode has teams of one.
    fn is_passed_over(&self, player: &Name, state: TicketState) -> bool {
        let mode = |ticket: &ObservedTicket| ticket.record.queue.clone().unwrap_or_default().mode;
        let is_there = |ticket: &&ObservedTicket| ticket.record.absent_ms == 0;
        let ticket = self.tickets.get(player).filter(|_| state == TicketState::TimedOut);
        let Some(ticket) = ticket.filter(is_there) else { return false };
        let Some(ModeRules { team_size: 1, time_out, .. }) = self.modes.get(&mode(ticket)) else {
            return false;
        };
        let waits = |other: &ObservedTicket| {
            let since = other.since.max(ticket.since);
            let is_there = other.record.state() == TicketState::Waiting && other.record.absent_ms == 0;
            is_there && self.at.saturating_sub(since) > time_out / 2
        };
        self.tickets.iter().any(|(name, other)| name != player && mode(other) == mode(ticket) && waits(other))
    }

    fn notice(&mut self, player: Name, change: &Change, changes: &[Change]) -> Verdict {
        let Change::Put { kv, .. } = change else {
            self.notices.remove(&player);
            self.since.remove(&player);
            return Ok(());
        };
        let notice: v1::NoticeRecord = decode(&kv.value);
        let id = notice.r#match.clone();
        let since = self.since.get(&player).filter(|(of, _)| *of == id).map_or(self.at, |(_, since)| *since);
        self.since.insert(player.clone(), (id.clone(), since));
        // The change marks the player as arrived, or corrects the start of the wait for the player.
        let is_marked = self.notices.get(&player).is_some_and(|before| {
            let v1::NoticeRecord { joined, since_ms, .. } = *before;
            let (comes, stays) = (notice.joined && !joined, notice.joined == joined);
            let is_news = comes && notice.since_ms == since_ms || stays && notice.since_ms < since_ms;
            is_news && *before == v1::NoticeRecord { joined, since_ms, ..notice.clone() }
        });
        if is_marked {
            self.counts.arrived += u64::from(notice.joined);
            self.notices.insert(player, notice);
            return Ok(());
        }
        if !changes.iter().any(|change| *change.key() == keys::match_key(&id)) {
            return unlike(format_args!("{player} has a notice of match {id}, but the match does not form"));
        }
        let (fills, search, joined) = (notice.fills, notice.search, notice.joined);
        match self.notices.insert(player.clone(), notice) {
            // A fill of the match rewrites the notice of a player that stays.
            Some(before) if before.r#match != id || before.fills + 1 != fills => unlike(format_args!(
                "{player} is put into match {id} while it is in match {}",
                before.r#match
            )),
            Some(before) if before.joined && !joined => {
                unlike(format_args!("the notice of {player} of match {id} forgets that it has come"))
            }
            Some(before) if before.search != search => unlike(format_args!(
                "the notice of {player} of match {id} names search {search} and not {} any more",
                before.search
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// Checks that the author, if known, is the elected matcher of the mode. Nobody else may perform the
    /// act that `description` names.
    fn by_elected(&self, mode: &str, description: std::fmt::Arguments<'_>) -> Verdict {
        let elected = self.elected.get(mode).filter(|(epoch, _)| *epoch > 0).map(|(_, node)| *node);
        match self.author {
            Some(author) if elected != Some(author) => unlike(format_args!(
                "{description} by {author}, which is not elected for {mode}: {elected:?} is"
            )),
            _ => Ok(()),
        }
    }

    fn over(&mut self, id: &str) -> Verdict {
        if self.live.remove(id) {
            let mode = self.formed.get(id).and_then(|formed| formed.last());
            self.by_elected(mode.map_or("", |formed| &formed.mode), format_args!("match {id} is ended"))?;
        }
        match self.notices.iter().find(|(_, of)| of.r#match == id) {
            Some((player, _)) => {
                unlike(format_args!("match {id} is over, but {player} still has a notice of it"))
            }
            None => Ok(()),
        }
    }

    // Forming of a match.

    fn form(&mut self, id: &str, kv: &KeyValue, changes: &[Change]) -> Verdict {
        let v1::MatchRecord { r#match, matcher_epoch, .. } = decode(&kv.value);
        let matched = r#match.unwrap_or_default();
        let before = self.formed.get(id).and_then(|formed| formed.last()).cloned();
        match before {
            // The change corrects only the time at which the match was formed.
            Some(before) if before == matched && self.live.contains(id) => return Ok(()),
            Some(before) => self.check_fill(id, &before, &matched, changes)?,
            None if matched.r#match != id || matched.fills > 0 => {
                return unlike(format_args!("match {id} is formed as {}", matched.r#match));
            }
            None => self.check_new(id, &matched, changes)?,
        }
        let is_new = self.live.insert(id.to_owned());
        self.formed.entry(id.to_owned()).or_default().push(matched.clone());
        let epoch = self.elected.get(&matched.mode).map_or(0, |(epoch, _)| *epoch);
        if epoch == 0 || epoch != matcher_epoch {
            return unlike(format_args!(
                "match {id} of {} is formed by who was elected in revision {matcher_epoch}; who is, was in \
                 {epoch}",
                matched.mode
            ));
        }
        let mut parties: BTreeMap<(String, bytes::Bytes, u32), (usize, u32)> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for (index, team) in matched.teams.iter().enumerate() {
            for player in &team.players {
                let Ok(player) = Name::new(player) else {
                    return unlike(format_args!("match {id} has a player without a name"));
                };
                if !seen.insert(player.clone()) {
                    return unlike(format_args!("{player} is in match {id} twice"));
                }
                self.check_notice(&matched, index, &player, changes)?;
                if !is_new && self.notices.get(&player).is_some_and(|of| of.r#match == id) {
                    continue;
                }
                let wish = self.consume_ticket(id, &player, &matched.mode, changes)?;
                if !wish.party.is_empty() {
                    let party =
                        parties.entry((wish.party, wish.party_key, wish.party_size)).or_insert((index, 0));
                    party.1 += 1;
                    if party.0 != index {
                        return unlike(format_args!("the party of {player} is split by match {id}"));
                    }
                }
            }
        }
        self.counts.parties += parties.len() as u64;
        match parties.iter().find(|((.., size), (_, count))| size != count) {
            Some(((party, ..), _)) => unlike(format_args!("party {party} is in match {id} only in part")),
            None => Ok(()),
        }
    }

    /// Checks that a new match has full teams and writes its room.
    fn check_new(&self, id: &str, matched: &v1::Matched, changes: &[Change]) -> Verdict {
        let sizes = matched.teams.iter().map(|team| team.players.len());
        let mode = self.modes.get(&matched.mode);
        if !mode.is_some_and(|mode| sizes.eq(vec![mode.team_size; mode.teams])) {
            return unlike(format_args!("the teams of match {id} are not of the size of {}", matched.mode));
        }
        if !changes.iter().any(|c| *c.key() == keys::room(&matched.room) && is_put(c)) {
            return unlike(format_args!("match {id} is formed without its room {}", matched.room));
        }
        Ok(())
    }

    /// Checks that a player of a match gets a notice of the match in its new version.
    fn check_notice(&self, matched: &v1::Matched, team: usize, player: &Name, changes: &[Change]) -> Verdict {
        let key = keys::notice(player);
        let notice = changes.iter().find(|change| *change.key() == key).and_then(|change| match change {
            Change::Put { kv, .. } => Some(decode::<v1::NoticeRecord>(&kv.value)),
            Change::Delete { .. } => None,
        });
        let is_right = |notice: v1::NoticeRecord| {
            notice.r#match == matched.r#match
                && usize::try_from(notice.team) == Ok(team)
                && notice.fills == matched.fills
        };
        if notice.is_some_and(is_right) {
            return Ok(());
        }
        unlike(format_args!("match {} is written with {player}, but no notice for it", matched.r#match))
    }

    /// Checks that the match consumes the waiting ticket of a player that is put into it. Returns the
    /// player's request.
    fn consume_ticket(
        &mut self,
        id: &str,
        player: &Name,
        mode: &str,
        changes: &[Change],
    ) -> Result<v1::Queue, super::Violation> {
        let find = |key: bytes::Bytes| changes.iter().find(move |change| *change.key() == key);
        let consumed = find(keys::ticket(player)).is_some_and(|change| !is_put(change));
        let Some(ticket) = self.tickets.get(player).filter(|_| consumed) else {
            return broken(
                Guarantee::Match,
                format_args!("match {id} is formed with {player}, but consumes no ticket of it"),
            );
        };
        let wish = ticket.record.queue.clone().unwrap_or_default();
        if ticket.record.state() != TicketState::Waiting || wish.mode != mode {
            return broken(
                Guarantee::Match,
                format_args!(
                    "match {id} of {mode} consumes the ticket of {player}, which is {:?} for {}",
                    ticket.record.state(),
                    wish.mode
                ),
            );
        }
        if ticket.record.absent_ms > 0 {
            return broken(
                Guarantee::Match,
                format_args!(
                    "match {id} consumes the ticket of {player}, which is absent since {} ms",
                    ticket.record.absent_ms
                ),
            );
        }
        self.searches.goes_on(player, wish.search, format_args!("{player} is put into match {id}"))?;
        let notice = find(keys::notice(player)).and_then(|change| match change {
            Change::Put { kv, .. } => Some(decode::<v1::NoticeRecord>(&kv.value).search),
            Change::Delete { .. } => None,
        });
        if notice.is_some_and(|search| search != wish.search) {
            return broken(
                Guarantee::Match,
                format_args!(
                    "the notice of {player} of match {id} names search {notice:?}, not {}",
                    wish.search
                ),
            );
        }
        Ok(wish)
    }

    // At rest.

    /// Returns a description of something that the registry still has although all matches have been
    /// played and all searches have ended.
    #[must_use]
    pub fn left_behind(&self) -> Option<String> {
        let ticket = self.tickets.iter().next();
        let ticket = ticket.map(|(player, ticket)| {
            let (state, queued) = (ticket.record.state(), ticket.created);
            format!("{player} has a ticket since revision {queued}, which is {state:?}")
        });
        let notice = || {
            let notice = self.notices.iter().next();
            notice.map(|(player, of)| format!("{player} is in match {}", of.r#match))
        };
        let live = || self.live.iter().next().map(|id| format!("match {id} is not over"));
        ticket.or_else(notice).or_else(live)
    }
}

/// Returns the part of a change's key after a prefix.
fn named<'a>(change: &'a Change, prefix: &str) -> Option<&'a str> {
    std::str::from_utf8(change.key()).ok()?.strip_prefix(prefix)
}

const fn is_put(change: &Change) -> bool {
    matches!(change, Change::Put { .. })
}

/// Returns the number of a ticket's search.
fn number(record: &v1::TicketRecord) -> u64 {
    record.queue.as_ref().map_or(0, |queue| queue.search)
}

/// Returns true if a ticket in this state has ended.
const fn is_decided(state: TicketState) -> bool {
    matches!(state, TicketState::TimedOut | TicketState::PartyLost | TicketState::Refused)
}

fn unlike(description: std::fmt::Arguments<'_>) -> Verdict {
    broken(Guarantee::Match, description)
}

#[cfg(test)]
mod tests;
