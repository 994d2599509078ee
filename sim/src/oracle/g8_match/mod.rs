//! G8: one match. Told of every revision of the registry, and of what clients ask and are
//! told, it sees that
//!
//! * a match forms wholly: one revision consumes all its tickets, which waited, and writes
//!   the match, its room and a notice for each of its players; the teams are as its queue
//!   wants them, with every party whole in one of them; and whoever formed it was elected to;
//! * no match takes the ticket of a player that is absent, as the ticket says;
//! * free places of a match are filled wholly, too: nobody who is in it is moved or put out,
//!   and who comes does so as into a new one;
//! * who is put out of a match has not come to it, and nobody stays in one for long without
//!   coming;
//! * a player is in one match at most, and has no ticket while it is in one;
//! * what ends, ends once: a ticket that has ended never waits again, a match that is over
//!   leaves no notice behind;
//! * clients are told what the registry has: a match that was formed with them, an end of
//!   which there is a ticket;
//! * a search, which has a number, ends once: whoever was told how its search ended is not
//!   queued or matched by it any more, and is not told another end of it; a client that
//!   searches is told the end of that search and of no other one; and a match is said to be
//!   the answer to a search that one of the player's clients has begun;
//! * a match is over for whoever has left it: a client that was told that it has left the room of
//!   a match, or that the match is given up, is not told of that match again. What it was told
//!   by itself counts, too.
//!
//! A search of which its client was never told an end may end in a match at any time: the
//! client has crashed since, or another one of the player has taken its place. The player
//! hears of the match all the same.

mod coming;
mod parted;
mod searches;

use std::collections::{BTreeMap, BTreeSet};

use skirmish_core::id::{Name, NodeId};
use skirmish_core::matchmaking::keys::{self, Kind};
use skirmish_core::matchmaking::{MatchmakingConfig, decode};
use skirmish_core::registry::{Change, KeyValue};
use skirmish_proto::v1::{self, TicketState};

use self::searches::{SearchEnd, Searches};
use super::{Guarantee, Verdict, broken};

const PAIRS: &str = "/match/pairs/";
const MATCHER: &str = "/match/matcher/";

/// What the registry has of matches, and what was said.
#[derive(Debug, Default)]
pub struct Matches {
    modes: BTreeMap<String, ModeRules>,
    /// The newest revision, and when it came.
    revision: u64,
    at: u64,
    /// Whose request that was, if it was one of a node's.
    author: Option<NodeId>,
    /// Who is elected, by mode: the revision, and the node.
    elected: BTreeMap<String, (u64, NodeId)>,
    tickets: BTreeMap<Name, ObservedTicket>,
    /// The match of each player that is in one.
    notices: BTreeMap<Name, v1::NoticeRecord>,
    /// Matches that are not over.
    live: BTreeSet<String>,
    /// Matches that were ever formed, as they were with each fill.
    formed: BTreeMap<String, Vec<v1::Matched>>,
    /// How tickets have ended, by the number of the search.
    ended: BTreeSet<(Name, u64, i32)>,
    searches: Searches,
    /// Matches that clients were told they have left, or given up.
    parted: BTreeSet<(usize, String)>,
    /// Since when players are in their matches, in microseconds of the world's time.
    since: BTreeMap<Name, (String, u64)>,
    /// Who was told of having joined which match's room, and when.
    came: BTreeMap<(Name, String), u64>,
    /// No fault happens any more, since when.
    is_calm: bool,
    calm_at: u64,
    counts: MatchCounts,
}

/// What a queue makes matches of.
#[derive(Clone, Copy, Debug)]
struct ModeRules {
    teams: usize,
    team_size: usize,
    /// Microseconds that a ticket waits.
    time_out: u64,
    backfill: bool,
}

/// A ticket in the registry.
#[derive(Debug)]
struct ObservedTicket {
    /// Since when it is there, in microseconds of the world's time.
    since: u64,
    created: u64,
    record: v1::TicketRecord,
}

/// What happened how often; for coverage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MatchCounts {
    /// Elections that another node had won before.
    pub failed_over: u64,
    /// Tickets that another node took over with the player's session.
    pub moved: u64,
    /// Tickets whose players became absent.
    pub absent: u64,
    /// Tickets whose players were absent and are back.
    pub back: u64,
    /// Players who came to their matches.
    pub came: u64,
    /// Players put out of matches that they did not come to.
    pub missed: u64,
    /// Matches that were over before they had begun.
    pub over: u64,
    /// Parties in matches.
    pub parties: u64,
    /// Tickets that timed out beside another one, for one against one; of which each may be too
    /// good or too bad for the other.
    pub passed_over: u64,
}

impl Matches {
    /// Of a world with these queues.
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

    /// What happened how often.
    #[must_use]
    pub const fn counts(&self) -> MatchCounts {
        self.counts
    }

    /// Who is elected to form the matches of a mode.
    #[must_use]
    pub fn elected(&self, mode: &str) -> Option<NodeId> {
        self.elected.get(mode).map(|(_, node)| *node)
    }

    // What clients ask and are told.

    /// A client begins a search of this number.
    ///
    /// # Errors
    /// If the player has had a search of this number, or the client has one that goes on.
    pub fn asked(&mut self, client: usize, player: &Name, search: u64) -> Verdict {
        self.searches.begin(client, player, search)
    }

    /// A client's process is gone, and with it what it knew of its search: another one takes
    /// its place.
    pub fn restarted(&mut self, client: usize) {
        self.searches.restarted(client);
        self.parted.retain(|(other, _)| *other != client);
    }

    /// A client was told that a search of its player has ended without a match.
    ///
    /// # Errors
    /// If no ticket of it has ended so, it has ended in another way, or it is not the one that
    /// goes on.
    pub fn ended(&mut self, client: usize, player: &Name, search: u64, state: TicketState) -> Verdict {
        self.ended_before(client, player, search, state)?;
        self.searches.end(client, player, search, SearchEnd::Ticket(state))
    }

    /// A client's application hears, while it searches, of the end of another search of its
    /// player, which the client was told of before.
    ///
    /// # Errors
    /// If no ticket of it has ended so.
    pub fn ended_before(&self, client: usize, player: &Name, search: u64, state: TicketState) -> Verdict {
        let decided = matches!(state, TicketState::TimedOut | TicketState::PartyLost);
        if decided && !self.ended.contains(&(player.clone(), search, state.into())) {
            return unlike(format_args!(
                "client {client} was told that search {search} is {state:?}, which no ticket of it ever was"
            ));
        }
        Ok(())
    }

    /// A client was told of a match.
    ///
    /// # Errors
    /// If there never was such a match, or not with it, or it is not the answer to the search
    /// that goes on.
    pub fn told(&mut self, client: usize, player: &Name, told: &v1::Matched) -> Verdict {
        self.told_before(client, player, told)?;
        self.searches.end(client, player, told.search, SearchEnd::Match(told.r#match.clone()))
    }

    /// A client's application hears, while it searches, of a match which the client was told
    /// of before, as the end of another search or of none.
    ///
    /// # Errors
    /// If there never was such a match, or not with it.
    pub fn told_before(&self, client: usize, player: &Name, told: &v1::Matched) -> Verdict {
        let id = &told.r#match;
        if self.parted.contains(&(client, id.clone())) {
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

    /// Whether the client that has begun this search was told how it ended.
    #[must_use]
    pub fn has_ended(&self, player: &Name, search: u64) -> bool {
        self.searches.has_ended(player, search)
    }

    // What the registry has.

    /// The registry is gone, with all that it knew, and another one is there.
    pub fn forgotten(&mut self) {
        self.elected.clear();
        self.tickets.clear();
        self.notices.clear();
        self.since.clear();
        self.live.clear();
    }

    /// The registry's next revisions, at a moment of the world, and who has asked for that, if
    /// it is known: every change under `/match/`, and of matches' rooms.
    ///
    /// # Errors
    /// If one of them breaks the guarantee.
    pub fn changed(&mut self, at: u64, author: Option<NodeId>, changes: &[Change]) -> Verdict {
        (self.at, self.author) = (at, author);
        changes.chunk_by(|a, b| a.revision() == b.revision()).try_for_each(|changes| self.commit(changes))
    }

    /// One revision.
    fn commit(&mut self, changes: &[Change]) -> Verdict {
        self.revision = changes.first().map_or(self.revision, Change::revision);
        // First what a match is made of, as it was until now.
        for change in changes {
            if let (Some(id), Change::Put { kv, .. }) = (named(change, PAIRS), change) {
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
            if let (Some(id), Change::Delete { .. }) = (named(change, PAIRS), change) {
                self.over(id)?;
            }
        }
        Ok(())
    }

    fn election(&mut self, mode: &str, change: &Change) -> Verdict {
        let Change::Put { kv, .. } = change else {
            // Who it was is remembered until another one is.
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

    /// Whether a ticket times out that has waited for half of the time beside another one,
    /// both of players who are alone and want to play one against one.
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
        // The player has come, or since when it is to come is corrected.
        let is_marked = self.notices.get(&player).is_some_and(|before| {
            let v1::NoticeRecord { joined, since_ms, .. } = *before;
            let (comes, stays) = (notice.joined && !joined, notice.joined == joined);
            let is_news = comes && notice.since_ms == since_ms || stays && notice.since_ms < since_ms;
            is_news && *before == v1::NoticeRecord { joined, since_ms, ..notice.clone() }
        });
        if is_marked {
            self.counts.came += u64::from(notice.joined);
            self.notices.insert(player, notice);
            return Ok(());
        }
        if !changes.iter().any(|change| *change.key() == keys::pair(&id)) {
            return unlike(format_args!("{player} has a notice of match {id}, but the match does not form"));
        }
        let (fills, search, joined) = (notice.fills, notice.search, notice.joined);
        match self.notices.insert(player.clone(), notice) {
            // It stays when the match is filled.
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

    /// What only who forms the matches of a mode may do was done by it.
    fn by_elected(&self, mode: &str, what: std::fmt::Arguments<'_>) -> Verdict {
        let elected = self.elected.get(mode).filter(|(epoch, _)| *epoch > 0).map(|(_, node)| *node);
        match self.author {
            Some(author) if elected != Some(author) => {
                unlike(format_args!("{what} by {author}, which is not elected for {mode}: {elected:?} is"))
            }
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

    // How a match forms.

    fn form(&mut self, id: &str, kv: &KeyValue, changes: &[Change]) -> Verdict {
        let v1::MatchRecord { r#match, matcher_epoch, .. } = decode(&kv.value);
        let matched = r#match.unwrap_or_default();
        let before = self.formed.get(id).and_then(|formed| formed.last()).cloned();
        match before {
            // Only when it was formed is corrected.
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
                let wish = self.seat(id, &player, &matched.mode, changes)?;
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

    /// A match that nobody has heard of has full teams, and a room that is nobody's.
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

    /// A player of a match has a notice of it as it is.
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

    /// A player is put into a match: its ticket is consumed. Returns what it had asked for.
    fn seat(
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

    /// Something that the registry still has although all matches have been played and all
    /// searches have ended.
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
        let pair = || self.live.iter().next().map(|id| format!("match {id} is not over"));
        ticket.or_else(notice).or_else(pair)
    }
}

/// What follows a prefix in the key of a change.
fn named<'a>(change: &'a Change, prefix: &str) -> Option<&'a str> {
    std::str::from_utf8(change.key()).ok()?.strip_prefix(prefix)
}

const fn is_put(change: &Change) -> bool {
    matches!(change, Change::Put { .. })
}

/// The number of a ticket's search.
fn number(record: &v1::TicketRecord) -> u64 {
    record.queue.as_ref().map_or(0, |queue| queue.search)
}

/// Whether a ticket in this state has ended.
const fn is_decided(state: TicketState) -> bool {
    matches!(state, TicketState::TimedOut | TicketState::PartyLost | TicketState::Refused)
}

fn unlike(what: std::fmt::Arguments<'_>) -> Verdict {
    broken(Guarantee::Match, what)
}

#[cfg(test)]
mod tests;
