//! Watches. A watch is a cursor into the history, not a queue.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::ops::Bound;

use bytes::Bytes;

use super::store::{At, KeyChange, Store};
use super::{Change, Error, News, RegistryConfig, Watch, WatchId, Watched};
use crate::base::time::Instant;

/// All watches, and the set of those with news.
#[derive(Debug)]
pub(super) struct Watches {
    watches: BTreeMap<WatchId, Watcher>,
    ready: BTreeSet<WatchId>,
    /// Watch that reported last; the next one in the order of identifiers follows.
    last: WatchId,
    /// Number of watches that report progress.
    progressing: usize,
    progress_due: Instant,
}

#[derive(Debug)]
struct Watcher {
    watch: Watch,
    /// Every change before this revision was reported, or does not concern the watch.
    next: u64,
    state: WatchState,
    /// True if there may be changes from `next` on.
    behind: bool,
    /// True if the watch reported nothing since the last check of progress.
    silent: bool,
    owed_progress: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WatchState {
    /// Not reported as started yet.
    New,
    Runs,
    /// Cancelled before the start.
    Refused,
}

impl Watches {
    pub(super) fn new(config: &RegistryConfig, now: Instant) -> Self {
        Self {
            watches: BTreeMap::new(),
            ready: BTreeSet::new(),
            last: WatchId(0),
            progressing: 0,
            progress_due: now + config.progress_interval,
        }
    }

    /// Starts a watch, and replaces an earlier watch with the same identifier.
    pub(super) fn insert(
        &mut self,
        config: &RegistryConfig,
        store: &Store,
        id: WatchId,
        mut watch: Watch,
    ) -> Result<(), Error> {
        self.remove(id);
        if self.watches.len() >= config.watches {
            return Err(Error::NoSpace);
        }
        if watch.span.key.is_empty() {
            // The smallest possible key, as in etcd.
            watch.span.key = Bytes::from_static(&[0]);
        }
        let is_empty = match watch.span.end.as_ref() {
            [] | [0] => false,
            end => end <= watch.span.key.as_ref(),
        };
        let state = if is_empty { WatchState::Refused } else { WatchState::New };
        let next = if watch.start == 0 { store.revision() + 1 } else { watch.start };
        let behind = next <= store.revision();
        self.progressing += usize::from(watch.progress);
        self.watches.insert(id, Watcher { watch, next, state, behind, silent: true, owed_progress: false });
        self.ready.insert(id);
        Ok(())
    }

    pub(super) fn remove(&mut self, id: WatchId) {
        if let Some(watcher) = self.watches.remove(&id) {
            self.progressing -= usize::from(watcher.watch.progress);
            self.ready.remove(&id);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.watches.len()
    }

    /// Handles a new revision with this number of changes.
    pub(super) fn handle_commit(&mut self, store: &Store, changes: usize) {
        let revision = store.revision();
        for (&id, watcher) in &mut self.watches {
            let concerns = |change: &KeyChange| watcher.wants(change);
            if !watcher.behind && watcher.next <= revision && store.newest(changes).any(concerns) {
                watcher.next = revision;
                watcher.behind = true;
                self.ready.insert(id);
            }
        }
    }

    pub(super) fn handle_timeout(&mut self, config: &RegistryConfig, now: Instant) {
        if now < self.progress_due {
            return;
        }
        self.progress_due = now + config.progress_interval;
        for (&id, watcher) in &mut self.watches {
            if watcher.watch.progress && watcher.state == WatchState::Runs {
                if watcher.silent {
                    watcher.owed_progress = true;
                    self.ready.insert(id);
                }
                watcher.silent = true;
            }
        }
    }

    /// Returns the time of the next report of progress.
    pub(super) fn next_progress(&self) -> Option<Instant> {
        (self.progressing > 0).then_some(self.progress_due)
    }

    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Returns the news of the next watch in turn.
    pub(super) fn poll(&mut self, config: &RegistryConfig, store: &Store) -> Option<Watched> {
        while let Some(id) = self.next_ready() {
            self.last = id;
            let Some(watcher) = self.watches.get_mut(&id) else {
                self.ready.remove(&id);
                continue;
            };
            let news = watcher.news(config, store);
            let revision = watcher.next.saturating_sub(1);
            if !watcher.behind && !watcher.owed_progress {
                self.ready.remove(&id);
            }
            match news {
                Some(news) => {
                    if matches!(news, News::Compacted { .. } | News::Canceled) {
                        self.remove(id);
                    }
                    return Some(Watched { id, revision, news });
                }
                None => continue,
            }
        }
        None
    }

    fn next_ready(&self) -> Option<WatchId> {
        let mut after = self.ready.range((Bound::Excluded(self.last), Bound::Unbounded));
        after.next().or_else(|| self.ready.first()).copied()
    }

    pub(super) fn audit(&self, config: &RegistryConfig, store: &Store) -> Result<(), &'static str> {
        if self.watches.len() > config.watches {
            return Err("too many watches");
        }
        if self.progressing != self.watches.values().filter(|watcher| watcher.watch.progress).count() {
            return Err("watches with progress are miscounted");
        }
        for (id, watcher) in &self.watches {
            let has_news = watcher.behind || watcher.owed_progress || watcher.state != WatchState::Runs;
            if has_news != self.ready.contains(id) {
                return Err("a watch has news and does not say so, or says so and has none");
            }
            let missed = |change: &KeyChange| watcher.wants(change);
            if !watcher.behind && store.since(watcher.next).any(missed) {
                return Err("a watch has missed a change");
            }
        }
        if self.ready.iter().any(|id| !self.watches.contains_key(id)) {
            return Err("a watch that is not there has news");
        }
        Ok(())
    }
}

impl Watcher {
    fn wants(&self, change: &KeyChange) -> bool {
        let filtered = if change.to.value.is_some() { self.watch.no_put } else { self.watch.no_delete };
        !filtered && self.watch.span.contains(&change.key)
    }

    fn news(&mut self, config: &RegistryConfig, store: &Store) -> Option<News> {
        match self.state {
            WatchState::New => {
                self.state = WatchState::Runs;
                return Some(News::Created);
            }
            WatchState::Refused => return Some(News::Canceled),
            WatchState::Runs => {}
        }
        if self.behind {
            if store.is_compacted(self.next)
                && let Some(oldest) = store.compacted()
            {
                return Some(News::Compacted { oldest });
            }
            let changes = self.read(config, store);
            if !changes.is_empty() {
                self.silent = false;
                self.owed_progress = false;
                return Some(News::Changes(changes));
            }
        }
        if !self.owed_progress {
            return None;
        }
        self.owed_progress = false;
        self.next = self.next.max(store.revision() + 1);
        Some(News::Progress)
    }

    /// Moves the cursor, and returns the changes passed.
    fn read(&mut self, config: &RegistryConfig, store: &Store) -> Vec<Change> {
        let mut changes = Vec::new();
        for change in store.since(self.next) {
            let revision = change.to.modified;
            if changes.len() >= config.watch_batch && revision >= self.next {
                self.next = revision;
                return changes;
            }
            self.next = revision + 1;
            if self.wants(change) {
                changes.push(report(change, self.watch.prev, store));
            }
        }
        self.next = self.next.max(store.revision() + 1);
        self.behind = false;
        changes
    }
}

fn report(change: &KeyChange, prev: bool, store: &Store) -> Change {
    let KeyChange { key, to } = change;
    // `prev` is the version before the whole revision. A change that creates a key has none.
    let before = to.modified - 1;
    let is_made = to.value.is_some() && to.created == to.modified;
    let prev = if prev && !is_made && !store.is_compacted(before) {
        store.get(key, At::Revision(before)).map(|(key, old)| old.to_kv(key, false))
    } else {
        None
    };
    match to.value {
        Some(_) => Change::Put { kv: to.to_kv(key, false), prev },
        None => Change::Delete { key: key.clone(), revision: to.modified, prev },
    }
}
