//! The watch of notices and tickets.

use alloc::vec::Vec;

use super::{Asked, PlayerTickets};
use crate::base::plant::Plant;
use crate::base::time::Instant;
use crate::matchmaking::keys::{self, Kind};
use crate::registry::{Change, Failure, News, Range, Request, Response, Watch, WatchId, Watched};

/// The watch, with the revision from which it is complete.
#[derive(Debug, Default)]
pub(super) struct Base {
    /// State that was read at this revision or later misses no change.
    pub(super) revision: u64,
    pub(super) watch: Option<WatchId>,
    pub(super) failures: u32,
    pub(super) retry: Option<Instant>,
}

impl PlayerTickets {
    /// Reads the revision from which to watch. After the answer, the older state of players is read
    /// again.
    pub(super) fn rebase(&mut self) {
        if let Some(watch) = self.base.watch.take() {
            self.calls.unwatch(watch);
        }
        self.base.retry = None;
        self.stats.rebased += 1;
        let range = Range { count_only: true, ..Range::of(keys::notices_and_tickets()) };
        self.calls.send(Request::Range(range), Asked::Base);
    }

    pub(super) fn based(&mut self, outcome: Result<Response, Failure>) {
        let Ok(Response { revision, .. }) = outcome else {
            self.base.failures = self.base.failures.saturating_add(1);
            self.base.retry = Some(self.now.instant + self.backoff.after(self.base.failures, &mut self.rng));
            return;
        };
        let watch = self.calls.watch(Watch::of(keys::notices_and_tickets(), revision + 1));
        self.base = Base { revision, watch: Some(watch), failures: 0, retry: None };
        let mut stale = Vec::new();
        for player in self.players.values_mut().filter(|player| player.is_older(revision)) {
            player.view = None;
            stale.push(player.name.clone());
        }
        self.reread_rosters(revision);
        stale.iter().for_each(|name| self.put_in_line(name));
    }

    pub(super) fn watched(&mut self, watched: &Watched) {
        // A report may come late from a watch that has ended.
        if self.base.watch != Some(watched.id) {
            return;
        }
        match &watched.news {
            News::Created | News::Progress => {}
            News::Changes(changes) => changes.iter().for_each(|change| self.changed(change)),
            News::Compacted { .. } | News::Canceled => {
                self.base.watch = None;
                if self.planted.is(Plant::NoticeUnwatched) {
                    return;
                }
                self.base.failures = self.base.failures.saturating_add(1);
                self.base.retry =
                    Some(self.now.instant + self.backoff.after(self.base.failures, &mut self.rng));
            }
        }
    }

    fn changed(&mut self, change: &Change) {
        // No player can have the name of another key.
        let Some((kind, name)) = keys::owner(change.key()) else { return };
        if kind == Kind::Notice {
            self.take_notice_change(&name, change);
        }
        // The sessions of most players are at other nodes.
        if self.players.get_mut(&name).is_some_and(|player| player.take_change(kind, change)) {
            self.put_in_line(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::player::Player;
    use super::*;
    use crate::base::id::Name;
    use crate::registry::Answer;

    #[test]
    fn an_answer_that_news_have_overtaken_is_read_again() {
        let name = Name::new("ann").unwrap();
        let mut player = Player::new(name.clone(), 1);
        let none = || Answer::Range { kvs: Vec::new(), more: false, count: 0 };
        let answers = [none(), none(), none(), none()];
        // The request was executed at revision 16, before the change that the watch has reported.
        let gone = Change::Delete { key: keys::notice(&name), revision: 17, prev: None };
        assert!(!player.take_change(Kind::Notice, &gone));
        assert!(!player.read(16, &answers, None));
        assert_eq!(player.view, None);
        assert!(player.read(17, &answers, None));
        assert_eq!(player.view.as_ref().map(|view| view.read), Some(17));
    }
}
