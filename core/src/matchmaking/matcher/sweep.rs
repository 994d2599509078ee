//! The sweep: finds matches that are over, late players, and free places.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use skirmish_proto::v1;

use super::Fence;
use super::attendance::AttendanceUpdate;
use super::consuming::{MatchedPlayer, notify, read};
use crate::base::id::Name;
use crate::base::time::{Duration, Instant, Wall};
use crate::matchmaking::config::QueueConfig;
use crate::matchmaking::keys;
use crate::matchmaking::record::{decode, encode};
use crate::registry::{Answer, Compare, Delete, KeyValue, Put, Range, RegistryOp, Request, Span, Txn};

/// Maximum number of matches in one read.
const PAGE: u64 = 32;

/// A sweep over all matches of a mode, one request at a time.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// Start of the next sweep; `None` during one.
    pub(super) next: Option<Instant>,
    /// Start of the next page.
    from: Option<Bytes>,
    /// Remaining matches of this page.
    todo: VecDeque<SweptMatch>,
}

/// A match, as the sweep has read it.
#[derive(Clone, Debug)]
pub(super) struct SweptMatch {
    pub(super) id: String,
    pub(super) modified: u64,
    /// The record without `match`.
    pub(super) record: v1::MatchRecord,
    pub(super) matched: v1::Matched,
    pub(super) room: Name,
    pub(super) players: Vec<Name>,
}

/// A running match, as the sweep has read it.
#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) swept: SweptMatch,
    /// Revision that created the room's record, if a node leads the room.
    pub(super) room: Option<u64>,
    /// Players that are in the match, with their notices.
    pub(super) there: Vec<MatchedPlayer>,
}

/// Finding about a match, with the action to take.
#[derive(Debug)]
pub(super) enum Finding {
    /// The match goes on.
    Lives(Box<Running>),
    /// The match is over: the transaction that ends it, and true if the match was abandoned.
    Over(Txn, bool),
    /// Some players are late or have left before the match began, or the match begins.
    Attendance(Box<AttendanceUpdate>),
    /// The match is over, and its players are still to be notified.
    Told,
    /// By this node's clock, a waiting time of the match starts in the future: the transaction sets
    /// the start to now. Clocks differ and jump; without the correction the match would not end in
    /// time.
    Ahead(Txn),
}

impl Sweep {
    /// Starts a sweep.
    pub(super) fn begin(&mut self) -> Request {
        *self = Self::default();
        self.page()
    }

    fn page(&self) -> Request {
        let mut span = keys::matches();
        if let Some(from) = &self.from {
            span.key = from.clone();
        }
        Request::Range(Range { limit: PAGE, ..Range::of(span) })
    }

    /// Takes the matches of a page.
    pub(super) fn take(&mut self, mode: &Name, kvs: &[KeyValue], more: bool) {
        self.from = kvs.last().filter(|_| more).map(|last| {
            let mut after = last.key.to_vec();
            after.push(0);
            after.into()
        });
        self.todo.extend(kvs.iter().filter_map(|kv| SweptMatch::of(mode, kv)));
    }

    /// Returns the next match.
    pub(super) fn next_match(&mut self) -> Option<SweptMatch> {
        self.todo.pop_front()
    }

    /// Returns the request for the next page; `None` after the last page.
    pub(super) fn next_page(&self) -> Option<Request> {
        self.from.as_ref().map(|_| self.page())
    }
}

impl SweptMatch {
    /// Returns the match of a record; `None` for a match of another mode, and for a record that is
    /// no match.
    fn of(mode: &Name, kv: &KeyValue) -> Option<Self> {
        let mut record: v1::MatchRecord = decode(&kv.value);
        let matched = record.r#match.take().filter(|matched| matched.mode == mode.as_str())?;
        let players = matched.teams.iter().flat_map(|team| &team.players);
        Some(Self {
            id: matched.r#match.clone(),
            modified: kv.modified,
            room: Name::new(&matched.room).ok()?,
            players: players.filter_map(|player| Name::new(player).ok()).collect(),
            matched,
            record,
        })
    }

    /// Returns the transaction that reads the match's room and notices.
    pub(super) fn look(&self) -> Txn {
        let notices = self.players.iter().map(|player| read(keys::notice(player)));
        let room = core::iter::once(read(keys::room(self.room.as_str())));
        Txn { success: room.chain(notices).collect(), ..Txn::default() }
    }

    /// Returns true if these can be the answers to [`Self::look`].
    pub(super) fn is_answered_by(&self, answers: &[Answer]) -> bool {
        let is_range = |answer: &Answer| matches!(answer, Answer::Range { .. });
        answers.len() == 1 + self.players.len() && answers.iter().all(is_range)
    }

    /// Judges the match by the answers to [`Self::look`].
    pub(super) fn judge(
        self,
        fence: &Fence,
        wall: Wall,
        window: Duration,
        rules: &QueueConfig,
        answers: &[Answer],
    ) -> Finding {
        let mut found = answers.iter().filter_map(|answer| match answer {
            Answer::Range { kvs, .. } => Some(kvs.first()),
            _ => None,
        });
        let room = found.next().flatten();
        let notice = |(player, kv): (&Name, Option<&KeyValue>)| {
            let kv = kv?;
            let notice: v1::NoticeRecord = decode(&kv.value);
            (notice.r#match == self.id).then(|| MatchedPlayer::of(player, kv.modified, &notice))
        };
        let there: Vec<MatchedPlayer> = self.players.iter().zip(found).filter_map(notice).collect();
        let claimed = room.is_some_and(|kv| decode::<v1::RoomRecord>(&kv.value).primary != 0);
        let waited = Duration::from_millis(wall.0.saturating_sub(self.record.formed_ms));
        let told = Duration::from_millis(wall.0.saturating_sub(self.record.over_ms));
        let is_over = self.matched.over;
        if is_over && !there.is_empty() && told <= window {
            return Finding::Told;
        }
        let nobody_came = Self::late(fence, wall, window, &there).count() == there.len();
        let abandoned = !is_over && (!claimed && waited > window || !there.is_empty() && nobody_came);
        if !there.is_empty() && !abandoned && !is_over {
            let is_ahead = !claimed && self.record.formed_ms > wall.0
                || there.iter().any(|seat| !seat.joined && seat.since_ms > wall.0);
            if is_ahead {
                return Finding::Ahead(self.date(fence, wall, &there));
            }
            if let Some(update) = self.attendance_update(fence, wall, window, rules, &there) {
                return Finding::Attendance(Box::new(update));
            }
            let room = room.filter(|_| claimed).map(|kv| kv.created);
            return Finding::Lives(Box::new(Running { swept: self, room, there }));
        }
        let key = keys::match_key(&self.id);
        let mut compares = self.unchanged(fence);
        let mut success = Vec::from([delete(key)]);
        for MatchedPlayer { player, modified, .. } in there {
            let key = keys::notice(&player);
            compares.push(Compare::unchanged(key.clone(), modified));
            success.push(delete(key));
        }
        // The room is compared too, so that a player that joins now finds no half-deleted match.
        let key = keys::room(self.room.as_str());
        compares.push(Compare::unchanged(key.clone(), room.map_or(0, |kv| kv.modified)));
        if room.is_some() && !claimed {
            success.push(delete(key));
        }
        Finding::Over(Txn { compares, success, failure: Vec::new() }, abandoned)
    }
}

impl SweptMatch {
    /// Returns the transaction that sets starts of waiting times in the future to now.
    fn date(&self, fence: &Fence, wall: Wall, there: &[MatchedPlayer]) -> Txn {
        let formed_ms = self.record.formed_ms.min(wall.0);
        let r#match = Some(self.matched.clone());
        let record = v1::MatchRecord { formed_ms, r#match, ..self.record.clone() };
        let mut compares = self.unchanged(fence);
        let mut txn = Txn::default();
        let ahead = there.iter().filter(|seat| !seat.joined && seat.since_ms > wall.0);
        let ahead: Vec<MatchedPlayer> =
            ahead.map(|seat| MatchedPlayer { since_ms: wall.0, ..seat.clone() }).collect();
        for MatchedPlayer { player, modified, .. } in &ahead {
            compares.push(Compare::unchanged(keys::notice(player), *modified));
        }
        notify(&mut txn, &self.matched, ahead.iter());
        txn.success.push(RegistryOp::Put(Put::new(keys::match_key(&self.id), encode(&record), None)));
        Txn { compares, ..txn }
    }

    /// Returns the comparisons that the match is unchanged, and that this node is still the
    /// matcher.
    pub(super) fn unchanged(&self, fence: &Fence) -> Vec<Compare> {
        let mut compares = Vec::from([Compare::unchanged(keys::match_key(&self.id), self.modified)]);
        fence.guard(&mut compares);
        compares
    }
}

pub(super) fn delete(key: Bytes) -> RegistryOp {
    RegistryOp::Delete(Delete::of(Span::one(key)))
}
