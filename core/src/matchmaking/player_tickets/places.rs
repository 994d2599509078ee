//! Rosters: the players of matches whose rooms have this node as primary. The rooms keep places for
//! these players.
//!
//! As the new primary of a match's room, the node first reads the match, and admits no player
//! before. Then the node reads the notices of the players that the match names, since some of them
//! may have left the match. From then on the watch of notices reports every player that is added to
//! the match or removed from it.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use skirmish_proto::v1;

use super::{Asked, PlayerTickets, PlayerTicketsDecision};
use crate::base::id::Name;
use crate::base::time::{Deadline, Instant, Now};
use crate::matchmaking::keys;
use crate::matchmaking::record::decode;
use crate::matchmaking::settings::MatchmakingConfig;
use crate::registry::{Answer, Change, KeyValue, Range, RegistryOp, Request, Response, Span, Txn};

/// Rosters of the rooms that have this node as primary.
#[derive(Debug, Default)]
pub(super) struct Rosters {
    by_room: BTreeMap<Name, Roster>,
    /// Room of each player that is in one of the matches.
    rooms: BTreeMap<Name, Name>,
    /// Players of these matches whose memberships of the rooms have expired, and whose quits wait
    /// for a place in the table of players.
    expired: BTreeMap<Name, Name>,
    /// Rooms whose matches are to be read.
    line: BTreeSet<Name>,
    retries: BTreeSet<(Instant, Name)>,
}

/// Players of the match of a room.
#[derive(Debug)]
struct Roster {
    /// Name of the match.
    id: String,
    stage: ReadStage,
    /// Number of the open request for this roster.
    asked: Option<u64>,
    failures: u32,
    /// True if the match was read once.
    is_known: bool,
    /// Number of all places of the match if its queue fills free places, else 0.
    capacity: usize,
    players: BTreeSet<Name>,
    /// Newest reported changes of notices, which an answer to the open request may not include.
    reported: BTreeMap<Name, u64>,
    /// Revision at which the notices were read; earlier changes are included.
    read: u64,
}

/// Next read of a roster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadStage {
    Match,
    /// Reads the notices of the match's players.
    Notices,
    Done,
}

impl Roster {
    fn new(id: &str) -> Self {
        Self {
            id: id.into(),
            stage: ReadStage::Match,
            asked: None,
            failures: 0,
            is_known: false,
            capacity: 0,
            players: BTreeSet::new(),
            reported: BTreeMap::new(),
            read: 0,
        }
    }

    fn request(&self) -> Txn {
        let read = |key| RegistryOp::Range(Range::of(Span::one(key)));
        let success = match self.stage {
            ReadStage::Match => Vec::from([read(keys::match_key(&self.id))]),
            _ => self.players.iter().map(|name| read(keys::notice(name))).collect(),
        };
        Txn { success, ..Txn::default() }
    }

    /// Takes the match that was read at `revision`. Next, the notices of its players are read.
    fn take_match(&mut self, config: &MatchmakingConfig, revision: u64, found: Option<&KeyValue>) {
        let matched = found.and_then(|kv| decode::<v1::MatchRecord>(&kv.value).r#match);
        let queue = matched.as_ref().and_then(|matched| config.queue(&matched.mode));
        self.capacity = queue.filter(|queue| queue.backfill).map_or(0, |queue| queue.players() as usize);
        let named = matched.iter().flat_map(|matched| &matched.teams).flat_map(|team| &team.players);
        let named = named.filter_map(|player| Name::new(player).ok());
        let is_newer = |player: &Name| self.is_newer(player, revision);
        let newer = self.players.iter().filter(|player| is_newer(player)).cloned();
        self.players = named.filter(|player| !is_newer(player)).chain(newer).collect();
        if self.players.is_empty() {
            (self.stage, self.read) = (ReadStage::Done, revision);
        } else {
            self.stage = ReadStage::Notices;
        }
    }

    /// Takes the notices that were read at `revision`.
    fn take_notices<'a>(&mut self, revision: u64, found: impl Iterator<Item = &'a KeyValue>) {
        let there = found.filter(|kv| decode::<v1::NoticeRecord>(&kv.value).r#match == self.id);
        let there: BTreeSet<Name> = there.filter_map(|kv| Some(keys::owner(&kv.key)?.1)).collect();
        let reported = &self.reported;
        let is_newer = |name: &Name| reported.get(name).is_some_and(|at| *at > revision);
        self.players.retain(|name| is_newer(name) || there.contains(name));
        (self.stage, self.read) = (ReadStage::Done, revision);
        self.reported.clear();
    }

    /// Returns true if a reported change of a player is newer than a read at `revision`.
    fn is_newer(&self, player: &Name, revision: u64) -> bool {
        self.reported.get(player).is_some_and(|at| *at > revision)
    }
}

impl Rosters {
    /// Notes a change of a player's notice, which now names the match `id` or none.
    fn take_change(&mut self, player: &Name, revision: u64, id: Option<&str>) {
        let room = id.and_then(|id| Name::new(&keys::room_of(id)).ok());
        let room = room.filter(|room| self.by_room.contains_key(room));
        let before = self.rooms.get(player).cloned();
        for (room, comes) in [(before, false), (room, true)] {
            let Some((room, roster)) =
                room.and_then(|room| Some((room.clone(), self.by_room.get_mut(&room)?)))
            else {
                continue;
            };
            if revision <= roster.read {
                continue;
            }
            if roster.stage != ReadStage::Done {
                roster.reported.insert(player.clone(), revision);
            }
            if comes {
                roster.players.insert(player.clone());
                self.rooms.insert(player.clone(), room);
            } else {
                roster.players.remove(player);
                self.rooms.remove(player);
                self.expired.remove(player);
            }
        }
    }

    /// Notes that a room's match has these players, of those that it had `before`.
    fn set(&mut self, room: &Name, before: &BTreeSet<Name>, players: &BTreeSet<Name>) {
        for gone in before.difference(players) {
            if self.rooms.get(gone) == Some(room) {
                self.rooms.remove(gone);
                self.expired.remove(gone);
            }
        }
        self.rooms.extend(players.iter().map(|player| (player.clone(), room.clone())));
    }

    /// Forgets the match of a room, if the room is one of a match.
    fn forget(&mut self, room: &Name) {
        if let Some(roster) = self.by_room.remove(room) {
            self.set(room, &roster.players, &BTreeSet::new());
            self.line.remove(room);
            self.retries.retain(|(_, other)| other != room);
        }
    }

    /// Keeps a player for [`Self::take_expired`] if the player is in the match of a room that it
    /// was in. Any other player has nothing to quit there.
    pub(super) fn expire(&mut self, player: &Name, room: &Name) {
        if self.rooms.get(player) == Some(room) {
            self.expired.insert(player.clone(), room.clone());
        }
    }

    /// Takes a player whose membership has expired, with the room of its match.
    pub(super) fn take_expired(&mut self) -> Option<(Name, Name)> {
        self.expired.pop_first()
    }

    /// Checks the bounds.
    pub(super) fn audit(&self) -> Result<(), &'static str> {
        let is_in = |(player, room): (&Name, &Name)| self.rooms.get(player) == Some(room);
        let are_in = self.expired.iter().all(is_in);
        if are_in { Ok(()) } else { Err("a membership has expired of a player in no match") }
    }

    pub(super) fn next(&self) -> Option<Deadline> {
        let (at, _) = self.retries.first()?;
        Some(Deadline::new(*at, "the players of a room's match are read again"))
    }
}

impl PlayerTickets {
    /// Notes that the node is the primary of a room. If the name is that of a match's room, no
    /// player must be admitted until [`PlayerTicketsDecision::PlacesKnown`].
    pub fn host(&mut self, now: Now, room: &Name) {
        self.now = now;
        if let Some(id) = keys::match_of(room.as_str()) {
            self.rosters.by_room.insert(room.clone(), Roster::new(id));
            self.rosters.line.insert(room.clone());
            self.drive();
        }
    }

    /// Notes that the node is no longer the room's primary.
    pub fn unhost(&mut self, room: &Name) {
        self.rosters.forget(room);
    }

    /// Returns true if the players for which a room keeps places are not known yet.
    #[must_use]
    pub fn awaits_places(&self, room: &Name) -> bool {
        self.rosters.by_room.get(room).is_some_and(|roster| !roster.is_known)
    }

    /// Returns the number of places that a room keeps from this player, for players of the room's
    /// match that are not among `members`. Returns 0 for a player of the match, since no other
    /// player was admitted to the kept places.
    pub fn kept_from<'a>(
        &self,
        room: &Name,
        player: &Name,
        members: impl Iterator<Item = &'a Name>,
    ) -> usize {
        let Some(roster) = self.rosters.by_room.get(room) else { return 0 };
        if roster.players.contains(player) {
            return 0;
        }
        let there: BTreeSet<&Name> = members.filter(|member| roster.players.contains(*member)).collect();
        roster.capacity.max(roster.players.len()).saturating_sub(there.len())
    }

    /// Reads the rosters again, since changes before `revision` may have been missed.
    pub(super) fn reread_rosters(&mut self, revision: u64) {
        let Rosters { by_room, line, retries, .. } = &mut self.rosters;
        for (room, roster) in by_room.iter_mut().filter(|(_, roster)| roster.read < revision) {
            (roster.stage, roster.asked) = (ReadStage::Match, None);
            roster.reported.clear();
            line.insert(room.clone());
        }
        retries.retain(|(_, room)| !line.contains(room));
    }

    /// Notes a change of a notice.
    pub(super) fn take_notice_change(&mut self, player: &Name, change: &Change) {
        let notice = match change {
            Change::Put { kv, .. } => Some(decode::<v1::NoticeRecord>(&kv.value)),
            Change::Delete { .. } => None,
        };
        let id = notice.as_ref().map(|notice| notice.r#match.as_str());
        self.rosters.take_change(player, change.revision(), id);
    }

    /// Sends the due reads, as far as the number of requests permits.
    pub(super) fn ask_for_rosters(&mut self) {
        while let Some((at, _)) = self.rosters.retries.first()
            && *at <= self.now.instant
            && let Some((_, room)) = self.rosters.retries.pop_first()
        {
            self.rosters.line.insert(room);
        }
        while self.has_place()
            && let Some(room) = self.rosters.line.pop_first()
        {
            let Some(roster) = self.rosters.by_room.get_mut(&room) else {
                self.bugs.found("a room in line has no roster");
                continue;
            };
            self.asked += 1;
            roster.asked = Some(self.asked);
            let txn = roster.request();
            let asked = Asked::Roster { room, serial: self.asked, reads: txn.success.len() };
            self.stats.asked += 1;
            self.calls.send(Request::Txn(txn), asked);
        }
    }

    /// Handles the answer to a read of a roster; `None` if the read failed.
    pub(super) fn roster_answered(&mut self, room: &Name, serial: u64, answered: Option<Response>) {
        // The node may not be the room's primary any more, or reads the roster again.
        let Some(roster) = self.rosters.by_room.get_mut(room).filter(|roster| roster.asked == Some(serial))
        else {
            return;
        };
        roster.asked = None;
        let Some(Response { revision, answer: Answer::Txn { answers, .. } }) = answered else {
            roster.failures = roster.failures.saturating_add(1);
            let at = self.now.instant + self.backoff.after(roster.failures, &mut self.rng);
            self.stats.failed += 1;
            self.rosters.retries.insert((at, room.clone()));
            return;
        };
        roster.failures = 0;
        let mut found = answers.iter().filter_map(|answer| match answer {
            Answer::Range { kvs, .. } => kvs.first(),
            _ => None,
        });
        let before = roster.players.clone();
        match roster.stage {
            ReadStage::Match => {
                roster.take_match(&self.config, revision, found.next());
                if roster.stage == ReadStage::Notices {
                    self.rosters.line.insert(room.clone());
                }
                if !core::mem::replace(&mut roster.is_known, true) {
                    self.decisions.push_back(PlayerTicketsDecision::PlacesKnown { room: room.clone() });
                }
            }
            ReadStage::Notices | ReadStage::Done => roster.take_notices(revision, found),
        }
        let players = roster.players.clone();
        self.rosters.set(room, &before, &players);
    }
}
