//! Watch of a directory of the registry: reads all pages as of one revision, and watches from the revision
//! after that one.

use bytes::Bytes;

use super::RegistrarConfig;
use crate::base::bug::Bugs;
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::registry::{
    Answer, Error, Failure, KeyValue, News, Range, Request, Response, Span, Watch, WatchId,
};

/// Watch of a directory. At most one read is in flight.
#[derive(Debug)]
pub(super) struct DirectoryWatch {
    span: Span,
    state: DirectoryWatchState,
    failures: u32,
    /// True if the directory was read to its end since the last stop.
    read: bool,
}

#[derive(Debug)]
enum DirectoryWatchState {
    Idle,
    /// Reads from the key `from` on, as of `revision` (0: not known yet), at the time `at`.
    Reading {
        from: Bytes,
        revision: u64,
        at: Instant,
        asked: bool,
    },
    Watching(WatchId),
}

/// Part of a directory as of a revision. A key of this part that is not in `kvs` did not exist.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) from: Bytes,
    /// First key after the page; as in [`Span::end`].
    pub(super) end: Bytes,
    pub(super) revision: u64,
    pub(super) kvs: alloc::vec::Vec<KeyValue>,
}

impl Page {
    /// Returns true if the page shows that a key did not exist.
    pub(super) fn lacks(&self, key: &[u8]) -> bool {
        let is_covered = Span { key: self.from.clone(), end: self.end.clone() }.contains(key);
        is_covered && self.kvs.binary_search_by(|kv| kv.key.as_ref().cmp(key)).is_err()
    }
}

impl DirectoryWatch {
    pub(super) fn new(prefix: &'static str) -> Self {
        let span = Span::prefix(Bytes::from_static(prefix.as_bytes()));
        Self { span, state: DirectoryWatchState::Idle, failures: 0, read: false }
    }

    /// Reads the directory from its beginning.
    pub(super) fn start(&mut self, at: Instant) {
        self.state =
            DirectoryWatchState::Reading { from: self.span.key.clone(), revision: 0, at, asked: false };
    }

    /// Stops. Returns the watch that the caller has to end, if any.
    pub(super) fn stop(&mut self) -> Option<WatchId> {
        self.read = false;
        let before = core::mem::replace(&mut self.state, DirectoryWatchState::Idle);
        if let DirectoryWatchState::Watching(id) = before { Some(id) } else { None }
    }

    pub(super) const fn deadline(&self) -> Option<Instant> {
        if let DirectoryWatchState::Reading { at, asked: false, .. } = self.state { Some(at) } else { None }
    }

    /// Returns the read of the next page, if the read is due.
    pub(super) fn poll(&mut self, config: &RegistrarConfig, now: Instant) -> Option<Request> {
        let DirectoryWatchState::Reading { from, revision, at, asked: asked @ false } = &mut self.state
        else {
            return None;
        };
        if now < *at {
            return None;
        }
        *asked = true;
        let span = Span { key: from.clone(), end: self.span.end.clone() };
        Some(Request::Range(Range { revision: *revision, limit: config.page.into(), ..Range::of(span) }))
    }

    /// Handles the answer to a read. Returns the page, and after the last page the watch to start. The caller
    /// reports the started watch to [`Self::handle_watching`]. Returns `None` if the read has to be repeated.
    pub(super) fn handle_outcome(
        &mut self,
        config: &RegistrarConfig,
        now: Instant,
        outcome: Result<Response, Failure>,
        rng: &mut Rng,
        bugs: &mut Bugs,
    ) -> Option<(Page, Option<Watch>)> {
        let DirectoryWatchState::Reading { from, revision, at, asked: asked @ true } = &mut self.state else {
            bugs.found("a page of a directory was read that is not being read");
            return None;
        };
        *asked = false;
        match outcome {
            Ok(Response { revision: newest, answer: Answer::Range { kvs, more, .. } }) => {
                self.failures = 0;
                if *revision == 0 {
                    *revision = newest;
                }
                let next = kvs.last().filter(|_| more).map(|kv| [kv.key.as_ref(), &[0]].concat());
                let end = next.map_or_else(|| self.span.end.clone(), Bytes::from);
                let watch = (!more).then(|| Watch::of(self.span.clone(), *revision + 1));
                let from = core::mem::replace(from, end.clone());
                Some((Page { from, end, revision: *revision, kvs }, watch))
            }
            Ok(_) | Err(_) => {
                self.failures = self.failures.saturating_add(1);
                *at = now + config.backoff().after(self.failures, rng);
                if outcome == Err(Failure::Refused(Error::Compacted)) {
                    *from = self.span.key.clone();
                    *revision = 0;
                }
                None
            }
        }
    }

    /// Handles the start of the watch.
    pub(super) fn handle_watching(&mut self, id: WatchId) {
        self.state = DirectoryWatchState::Watching(id);
        self.read = true;
    }

    /// Returns true if the whole directory was read.
    pub(super) const fn was_read(&self) -> bool {
        self.read
    }

    /// Returns true if the news belong to the watch of this directory. If they end the watch, the directory
    /// is read from its beginning.
    pub(super) fn takes(
        &mut self,
        config: &RegistrarConfig,
        now: Instant,
        id: WatchId,
        news: &News,
        rng: &mut Rng,
    ) -> bool {
        if !matches!(self.state, DirectoryWatchState::Watching(mine) if mine == id) {
            return false;
        }
        if matches!(news, News::Compacted { .. } | News::Canceled) {
            self.failures = self.failures.saturating_add(1);
            let at = now + config.backoff().after(self.failures, rng);
            self.start(at);
        }
        true
    }
}
