//! Arrivals of players at their matches, and the changes of matches that follow from them.

use std::collections::BTreeSet;

use skirmish_core::id::Name;
use skirmish_core::matchmaking::keys;
use skirmish_core::registry::Change;
use skirmish_proto::v1;

use super::super::Verdict;
use super::{Matches, is_put, unlike};

impl Matches {
    /// Observes that a client was notified that its player has joined the room of a match.
    pub fn joined(&mut self, at: u64, player: &Name, room: &str) {
        if let Some(id) = keys::match_of(room) {
            self.arrived.entry((player.clone(), id.to_owned())).or_insert(at);
        }
    }

    /// Observes the end of faults: from now on, each node's writes succeed soon.
    pub fn calm(&mut self, at: u64) {
        if !self.is_calm {
            // Records of earlier arrivals may have been lost.
            self.arrived.clear();
            (self.is_calm, self.calm_at) = (true, at);
        }
    }

    /// Returns a description of a player that has been in a match for `bound` microseconds without
    /// coming to it.
    #[must_use]
    pub fn overdue(&self, at: u64, bound: u64) -> Option<String> {
        if !self.is_calm {
            return None;
        }
        let (player, notice) = self.notices.iter().find(|(player, notice)| {
            let since = self.since.get(*player).map_or(at, |(_, since)| (*since).max(self.calm_at));
            !notice.joined && at.saturating_sub(since) > bound
        })?;
        let waited = bound / 1_000;
        Some(format!("match {} has {player} for {waited} ms, who never came", notice.r#match))
    }

    /// Checks a new version of a match that goes on. Only the teams may change. No team is too
    /// large, and every player that was in the match and has not left it stays, unless the player
    /// never joined.
    pub(super) fn check_fill(
        &mut self,
        id: &str,
        before: &v1::Matched,
        matched: &v1::Matched,
        changes: &[Change],
    ) -> Verdict {
        let (teams, fills, over) = (before.teams.clone(), before.fills, before.over);
        let is_same = !over && *before == v1::Matched { teams, fills, over, ..matched.clone() };
        if !self.live.contains(id) || !is_same || matched.fills != before.fills + 1 {
            return unlike(format_args!("match {id} is formed twice"));
        }
        let players = |matched: &v1::Matched| {
            let players = matched.teams.iter().flat_map(|team| team.players.clone());
            players.collect::<BTreeSet<String>>()
        };
        let is_filled = !players(matched).is_subset(&players(before));
        let mode = self.modes.get(&matched.mode);
        let mode = mode.filter(|mode| mode.teams == matched.teams.len() && (mode.backfill || !is_filled));
        if !mode.is_some_and(|mode| matched.teams.iter().all(|team| team.players.len() <= mode.team_size)) {
            return unlike(format_args!("free places of match {id} are filled, which it does not have"));
        }
        for (before, team) in before.teams.iter().zip(&matched.teams) {
            for player in before.players.iter().filter(|name| !team.players.contains(name)) {
                let Ok(name) = Name::new(player) else { continue };
                let Some(notice) = self.notices.get(&name).filter(|of| of.r#match == id) else { continue };
                let key = keys::notice(&name);
                let is_out = changes.iter().any(|change| *change.key() == key && !is_put(change));
                if is_filled || !is_out || notice.joined {
                    return unlike(format_args!("{player} is put out of its team of match {id}"));
                }
                if let Some(arrived) =
                    self.is_calm.then(|| self.arrived.get(&(name.clone(), id.to_owned()))).flatten()
                {
                    return unlike(format_args!(
                        "{player} is put out of match {id} as who did not come, and has joined its \
                         room at {arrived} us"
                    ));
                }
                self.counts.missed += 1;
            }
        }
        self.counts.over += u64::from(matched.over);
        Ok(())
    }
}
