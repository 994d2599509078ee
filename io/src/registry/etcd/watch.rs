//! The watches: the wanted ones, the running ones on the stream, and for each the revision from
//! which to resume after the stream has broken.

use std::collections::{BTreeMap, VecDeque};

use skirmish_core::registry::{Change, News, Watch, WatchId, Watched};

use super::response::WatchMessage;

/// A request on the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WatchRequest {
    /// Starts a watch with the number `number`, from revision `start` on.
    Create { number: i64, start: u64, watch: Watch },
    /// Ends the watch with this number.
    Cancel { number: i64 },
}

/// All watches of a connection, as data. The driver sends their requests on the stream.
#[derive(Debug, Default)]
pub(super) struct EtcdWatches {
    watches: BTreeMap<WatchId, Wanted>,
    /// Watches by number. Numbers are never used twice, so late messages for an ended watch belong
    /// to no watch.
    numbers: BTreeMap<i64, WatchId>,
    last_number: i64,
    requests: VecDeque<WatchRequest>,
    /// Numbers of watches that the stream has not confirmed, in the order of the requests.
    creating: VecDeque<i64>,
    /// True if the node logs in at the registry with a token, which may expire.
    with_token: bool,
    /// True if the stream has to be opened anew, with a fresh token.
    stale: bool,
}

#[derive(Debug)]
struct Wanted {
    watch: Watch,
    number: i64,
    /// First revision that the node has not received; 0 for the first one after now.
    next: u64,
    /// True if the node knows that the watch runs.
    confirmed: bool,
    /// True if the watch was refused once, perhaps only for the token of the stream, and is
    /// requested again.
    refused: bool,
    /// Changes of one revision of which more may follow.
    held: Vec<Change>,
}

impl EtcdWatches {
    /// Creates an empty set of watches.
    pub(super) fn new(with_token: bool) -> Self {
        Self { with_token, ..Self::default() }
    }

    /// Returns the number of watches.
    pub(super) fn len(&self) -> usize {
        self.watches.len()
    }

    /// Starts a watch, and ends an earlier one with the same identifier.
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
        let before = self.requests.len();
        self.requests.retain(
            |request| !matches!(request, WatchRequest::Create { number: unsent, .. } if *unsent == number),
        );
        if self.requests.len() == before {
            self.requests.push_back(WatchRequest::Cancel { number });
        }
    }

    /// Requests every watch again, for a new stream.
    pub(super) fn restart(&mut self) {
        self.numbers.clear();
        self.creating.clear();
        self.requests.clear();
        for (&id, wanted) in &mut self.watches {
            wanted.held.clear();
            self.last_number += 1;
            wanted.number = self.last_number;
            self.numbers.insert(wanted.number, id);
            let (number, start) = (wanted.number, wanted.next);
            self.requests.push_back(WatchRequest::Create { number, start, watch: wanted.watch.clone() });
        }
    }

    /// Returns true, once, if the stream has to be opened anew with a fresh token.
    pub(super) fn take_stale(&mut self) -> bool {
        std::mem::take(&mut self.stale)
    }

    /// Returns the next request to send.
    pub(super) fn to_send(&self) -> Option<&WatchRequest> {
        self.requests.front()
    }

    /// Notes that the next request was sent.
    pub(super) fn handle_sent(&mut self) {
        if let Some(WatchRequest::Create { number, .. }) = self.requests.pop_front() {
            self.creating.push_back(number);
        }
    }

    /// Handles a message of the stream. Returns at most one event for the node.
    pub(super) fn handle_heard(&mut self, mut heard: WatchMessage) -> Option<Watched> {
        if heard.created {
            // A watch that is refused at once may have no number in the answer.
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
        self.requests.push_back(WatchRequest::Create { number, start, watch });
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
            // The node gets progress only when it has received every earlier change. After a broken
            // stream, etcd may be behind the node.
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
        // etcd sends nothing from before the start; such a change would be a repetition.
        changes.retain(|change| change.revision() >= self.next);
        self.next = changes.last()?.revision() + 1;
        Some(News::Changes(changes))
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
