//! The watches: what is wanted, what of it runs on the stream, and from where each is to be
//! resumed when the stream breaks.

use std::collections::{BTreeMap, VecDeque};

use skirmish_core::registry::{Change, News, Watch, WatchId, Watched};

use super::response::WatchMessage;

/// What is to be said on the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WatchRequest {
    /// Start a watch that goes by `number`, from revision `start` on.
    Create { number: i64, start: u64, watch: Watch },
    /// End the watch that goes by this number.
    Cancel { number: i64 },
}

/// All watches of a connection, as data: a stream is driven by what it says.
#[derive(Debug, Default)]
pub(super) struct EtcdWatches {
    watches: BTreeMap<WatchId, Wanted>,
    /// Who goes by which number. Numbers are never used twice, so that what comes late for
    /// a watch that has ended is nobody's.
    numbers: BTreeMap<i64, WatchId>,
    last_number: i64,
    say: VecDeque<WatchRequest>,
    /// Numbers of watches that the stream has not confirmed, in the order asked for.
    creating: VecDeque<i64>,
    /// Whether the registry is asked as somebody, whose token may have expired.
    with_token: bool,
    /// The stream is to be opened anew, with a fresh token.
    stale: bool,
}

#[derive(Debug)]
struct Wanted {
    watch: Watch,
    number: i64,
    /// The first revision that was not told; 0 for whatever comes after now.
    next: u64,
    /// It was told that it runs.
    confirmed: bool,
    /// It was refused, perhaps only for the token of the stream, and is asked for once more.
    refused: bool,
    /// Changes of one revision of which there may be more to come.
    held: Vec<Change>,
}

impl EtcdWatches {
    /// No watches yet.
    pub(super) fn new(with_token: bool) -> Self {
        Self { with_token, ..Self::default() }
    }

    /// Watches there are.
    pub(super) fn len(&self) -> usize {
        self.watches.len()
    }

    /// Starts a watch, in place of any with its identifier.
    pub(super) fn add(&mut self, id: WatchId, watch: Watch) {
        self.remove(id);
        let next = watch.start;
        let number = self.enlist(id, next, watch.clone());
        self.watches
            .insert(id, Wanted { watch, number, next, confirmed: false, refused: false, held: Vec::new() });
    }

    /// Ends a watch.
    pub(super) fn remove(&mut self, id: WatchId) {
        let Some(Wanted { number, .. }) = self.watches.remove(&id) else { return };
        self.numbers.remove(&number);
        let said = self.say.len();
        self.say
            .retain(|say| !matches!(say, WatchRequest::Create { number: unsaid, .. } if *unsaid == number));
        if self.say.len() == said {
            self.say.push_back(WatchRequest::Cancel { number });
        }
    }

    /// A new stream takes over: everything is to be asked for again.
    pub(super) fn restart(&mut self) {
        self.numbers.clear();
        self.creating.clear();
        self.say.clear();
        for (&id, wanted) in &mut self.watches {
            wanted.held.clear();
            self.last_number += 1;
            wanted.number = self.last_number;
            self.numbers.insert(wanted.number, id);
            let (number, start) = (wanted.number, wanted.next);
            self.say.push_back(WatchRequest::Create { number, start, watch: wanted.watch.clone() });
        }
    }

    /// Whether the stream is to be opened anew, with a fresh token.
    pub(super) fn take_stale(&mut self) -> bool {
        std::mem::take(&mut self.stale)
    }

    /// What is to be said next.
    pub(super) fn to_say(&self) -> Option<&WatchRequest> {
        self.say.front()
    }

    /// That was said.
    pub(super) fn handle_said(&mut self) {
        if let Some(WatchRequest::Create { number, .. }) = self.say.pop_front() {
            self.creating.push_back(number);
        }
    }

    /// The stream spoke. There is never more than one thing to tell of it.
    pub(super) fn handle_heard(&mut self, mut heard: WatchMessage) -> Option<Watched> {
        if heard.created {
            // One that is refused at once may go by no number.
            let asked = self.creating.pop_front();
            if heard.number < 0
                && let Some(asked) = asked
            {
                heard.number = asked;
            }
        }
        let id = *self.numbers.get(&heard.number)?;
        let wanted = self.watches.get_mut(&id)?;
        if heard.canceled && heard.compacted == 0 && self.with_token && !wanted.refused {
            wanted.refused = true;
            self.stale = true;
            return None;
        }
        if heard.canceled {
            let told = wanted.next.saturating_sub(1);
            self.numbers.remove(&heard.number);
            self.watches.remove(&id);
            let news = match heard.compacted {
                0 => News::Canceled,
                oldest => News::Compacted { oldest },
            };
            return Some(Watched { id, revision: told, news });
        }
        let news = wanted.hear(heard)?;
        Some(Watched { id, revision: wanted.next.saturating_sub(1), news })
    }

    fn enlist(&mut self, id: WatchId, start: u64, watch: Watch) -> i64 {
        self.last_number += 1;
        let number = self.last_number;
        self.numbers.insert(number, id);
        self.say.push_back(WatchRequest::Create { number, start, watch });
        number
    }
}

impl Wanted {
    fn hear(&mut self, heard: WatchMessage) -> Option<News> {
        if heard.created {
            self.refused = false;
            if self.next == 0 {
                self.next = heard.revision + 1;
            }
            return (!std::mem::replace(&mut self.confirmed, true)).then_some(News::Created);
        }
        if heard.changes.is_empty() && self.held.is_empty() {
            // Progress is told only to those who have heard all; etcd may be behind what was
            // told before the stream broke.
            if heard.revision < self.next {
                return None;
            }
            self.next = heard.revision + 1;
            return self.watch.progress.then_some(News::Progress);
        }
        let mut changes = std::mem::take(&mut self.held);
        changes.extend(heard.changes);
        if heard.fragment
            && let Some(newest) = changes.last().map(Change::revision)
        {
            let whole = changes.partition_point(|change| change.revision() < newest);
            self.held = changes.split_off(whole);
        }
        // etcd sends nothing from before the start; if it did, it was told already.
        changes.retain(|change| change.revision() >= self.next);
        self.next = changes.last()?.revision() + 1;
        Some(News::Changes(changes))
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
