//! Attendance of the players of a match: late players are removed, and the match begins.

use alloc::string::ToString as _;
use alloc::vec::Vec;

use super::Fence;
use super::consuming::{MatchedPlayer, notify};
use super::sweep::{SweptMatch, delete};
use crate::base::id::Name;
use crate::base::plant::Plant;
use crate::base::time::{Duration, Wall};
use crate::matchmaking::config::QueueConfig;
use crate::matchmaking::keys;
use crate::matchmaking::record::encode;
use crate::matchmaking::settings::MAX_FORMED_PLAYERS;
use crate::registry::{Compare, Put, RegistryOp, Txn};

/// Update of a match that has late players, or that begins.
#[derive(Clone, Debug)]
pub(super) struct AttendanceUpdate {
    pub(super) id: alloc::string::String,
    /// Removed players; empty if the match only begins.
    pub(super) players: Vec<Name>,
    /// True if too few players joined.
    pub(super) over: bool,
    pub(super) txn: Txn,
}

impl SweptMatch {
    /// Returns the players that have not joined in time.
    pub(super) fn late<'a>(
        fence: &Fence,
        wall: Wall,
        window: Duration,
        there: &'a [MatchedPlayer],
    ) -> impl Iterator<Item = &'a MatchedPlayer> {
        let is_kept = fence.planted.is(Plant::NoShowKept);
        there.iter().filter(move |seat| {
            let waited = Duration::from_millis(wall.0.saturating_sub(seat.since_ms));
            !seat.joined && waited > window && !is_kept
        })
    }

    /// Returns the change that follows from the players that are `there`, if some of them are late,
    /// or if others have left before the match began; `None` if nothing follows.
    pub(super) fn attendance_update(
        &self,
        fence: &Fence,
        wall: Wall,
        window: Duration,
        rules: &QueueConfig,
        there: &[MatchedPlayer],
    ) -> Option<AttendanceUpdate> {
        let late: Vec<&MatchedPlayer> = Self::late(fence, wall, window, there).collect();
        let is_late = |player: &Name| late.iter().any(|seat| seat.player == *player);
        let stay: Vec<&MatchedPlayer> = there.iter().filter(|seat| !is_late(&seat.player)).collect();
        let stays = |player: &str| stay.iter().any(|seat| seat.player.as_str() == player);
        let is_open = !rules.backfill && !self.record.begun;
        let has_left = |player: &&Name| is_open && !there.iter().any(|seat| seat.player == **player);
        let left = self.players.iter().filter(has_left);
        let players: Vec<Name> = late.iter().map(|seat| &seat.player).chain(left).cloned().collect();
        let all_came = stay.iter().all(|seat| seat.joined);
        let (mut record, mut matched) = (self.record.clone(), self.matched.clone());
        record.begun |= is_open && all_came;
        if players.is_empty() && record.begun == self.record.begun {
            return None;
        }
        let mut txn = Txn { compares: self.unchanged(fence), ..Txn::default() };
        let key = keys::match_key(&self.id);
        for MatchedPlayer { player, modified, .. } in there {
            txn.compares.push(Compare::unchanged(keys::notice(player), *modified));
        }
        if !players.is_empty() {
            record.matcher_epoch = fence.epoch;
            record.missed.extend(players.iter().map(Name::to_string));
            let over = record.missed.len().saturating_sub(MAX_FORMED_PLAYERS as usize);
            record.missed.drain(..over);
            if rules.backfill {
                // The teams no longer name these players.
                let left =
                    self.players.iter().filter(|player| !there.iter().any(|seat| seat.player == **player));
                record.left.extend(left.chain(&players).map(Name::to_string));
            }
            matched.fills += 1;
            matched.teams.iter_mut().for_each(|team| team.players.retain(|player| stays(player)));
            let teams = matched.teams.iter().filter(|team| !team.players.is_empty()).count();
            matched.over = is_open && teams < matched.teams.len().min(2);
            if matched.over {
                (record.begun, record.over_ms) = (false, wall.0);
            }
            txn.success.extend(late.iter().map(|seat| delete(keys::notice(&seat.player))));
            notify(&mut txn, &matched, stay.into_iter());
        }
        let over = matched.over;
        record.r#match = Some(matched);
        txn.success.push(RegistryOp::Put(Put::new(key, encode(&record), None)));
        Some(AttendanceUpdate { id: self.id.clone(), players, over, txn })
    }
}
