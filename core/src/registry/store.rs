//! Keys, their versions, and the history of changes.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::ops::Bound;

use bytes::Bytes;

use super::{KeyValue, LeaseId, Span};

/// Bytes of a version beside its key and value: its slots among the key's versions and in the history, and
/// those of the deletion that may follow.
const VERSION_BYTES: usize = 256;

/// All readable versions of all keys.
///
/// Changes are made one after the other and become one revision together, at the next [`Store::commit`].
/// Until then only reads of the newest version see them.
#[derive(Clone, Debug)]
pub(super) struct Store {
    /// Versions by key, in the order of their writes. Every key has a version.
    keys: BTreeMap<Bytes, Vec<KeyVersion>>,
    history: VecDeque<KeyChange>,
    /// The newest revision.
    revision: u64,
    compacted: Option<u64>,
    bytes: usize,
    live: usize,
    /// Changes since the last commit.
    open: usize,
}

/// State of a key after a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyVersion {
    pub(super) modified: u64,
    pub(super) created: u64,
    pub(super) version: u64,
    pub(super) lease: Option<LeaseId>,
    /// `None` if the change was a deletion.
    pub(super) value: Option<Bytes>,
}

/// Entry of the history.
#[derive(Clone, Debug)]
pub(super) struct KeyChange {
    pub(super) key: Bytes,
    pub(super) to: KeyVersion,
}

/// Point of the history that a read sees.
#[derive(Clone, Copy, Debug)]
pub(super) enum At {
    Newest,
    Revision(u64),
}

impl At {
    /// Converts the revision of a request; 0 is the newest.
    pub(super) const fn requested(revision: u64) -> Self {
        if revision == 0 { Self::Newest } else { Self::Revision(revision) }
    }
}

impl KeyVersion {
    pub(super) fn to_kv(&self, key: &Bytes, keys_only: bool) -> KeyValue {
        let value = self.value.as_ref().filter(|_| !keys_only).cloned().unwrap_or_default();
        let Self { modified, created, version, lease, .. } = *self;
        KeyValue { key: key.clone(), value, created, modified, version, lease }
    }

    fn bytes(&self, key: &[u8]) -> usize {
        self.value.as_ref().map_or(0, |value| cost(key, value.len()))
    }
}

/// Returns the bytes that a write takes in the store.
pub(super) const fn cost(key: &[u8], value: usize) -> usize {
    key.len() + value + VERSION_BYTES
}

impl Store {
    pub(super) const fn new(base_revision: u64) -> Self {
        Self {
            keys: BTreeMap::new(),
            history: VecDeque::new(),
            revision: if base_revision == 0 { 1 } else { base_revision },
            compacted: if base_revision > 1 { Some(base_revision) } else { None },
            bytes: 0,
            live: 0,
            open: 0,
        }
    }

    pub(super) const fn revision(&self) -> u64 {
        self.revision
    }

    /// Returns the revision of the last compaction, the oldest that can be read.
    pub(super) const fn compacted(&self) -> Option<u64> {
        self.compacted
    }

    pub(super) fn is_compacted(&self, revision: u64) -> bool {
        self.compacted.is_some_and(|compacted| revision < compacted)
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) const fn live(&self) -> usize {
        self.live
    }

    pub(super) fn history(&self) -> usize {
        self.history.len()
    }

    /// Returns a key and its version, if the key exists.
    pub(super) fn get(&self, key: &[u8], at: At) -> Option<(&Bytes, &KeyVersion)> {
        let (key, versions) = self.keys.get_key_value(key)?;
        Some((key, visible(versions, at)?))
    }

    /// Returns the existing keys of a span, in order.
    pub(super) fn range(&self, span: &Span, at: At) -> impl Iterator<Item = (&Bytes, &KeyVersion)> {
        let keys = bounds(span).map(|bounds| self.keys.range::<[u8], _>(bounds));
        keys.into_iter().flatten().filter_map(move |(key, versions)| Some((key, visible(versions, at)?)))
    }

    /// Writes a key. Returns the former lease of the key.
    pub(super) fn put(
        &mut self,
        key: &[u8],
        value: Bytes,
        lease: Option<LeaseId>,
    ) -> (Bytes, Option<LeaseId>) {
        let modified = self.begin();
        let mut entries = self.keys.range_mut::<[u8], _>((Bound::Included(key), Bound::Included(key)));
        let (key, versions) = match entries.next() {
            Some((key, versions)) => (key.clone(), versions),
            None => {
                // Copies the key, so that the stored key does not keep a larger buffer alive.
                let key = Bytes::copy_from_slice(key);
                (key.clone(), self.keys.entry(key).or_insert_with(|| Vec::with_capacity(1)))
            }
        };
        let before = visible(versions, At::Newest);
        let (created, version) = before.map_or((modified, 1), |old| (old.created, old.version + 1));
        let leased = before.and_then(|old| old.lease);
        self.live += usize::from(before.is_none());
        let to = KeyVersion { modified, created, version, lease, value: Some(value) };
        self.bytes += to.bytes(&key);
        versions.push(to.clone());
        self.history.push_back(KeyChange { key: key.clone(), to });
        (key, leased)
    }

    /// Deletes keys, in order, and passes the former version of each to `each`.
    pub(super) fn delete(&mut self, span: &Span, mut each: impl FnMut(&Bytes, &KeyVersion)) {
        let modified = self.revision + 1;
        let keys = bounds(span).map(|bounds| self.keys.range_mut::<[u8], _>(bounds));
        for (key, versions) in keys.into_iter().flatten() {
            let Some(old) = visible(versions, At::Newest) else { continue };
            each(key, old);
            let to = KeyVersion { modified, created: 0, version: 0, lease: None, value: None };
            versions.push(to.clone());
            self.history.push_back(KeyChange { key: key.clone(), to });
            self.live -= 1;
            self.open += 1;
        }
    }

    /// Makes a revision of the changes since the last commit, if there are any. Returns their number.
    pub(super) const fn commit(&mut self) -> usize {
        let changes = self.open;
        self.open = 0;
        self.revision += if changes > 0 { 1 } else { 0 };
        changes
    }

    /// Returns the changes from a revision on, in order.
    pub(super) fn since(&self, revision: u64) -> impl Iterator<Item = &KeyChange> {
        let from = self.history.partition_point(|change| change.to.modified < revision);
        self.history.range(from..)
    }

    /// Returns the newest changes.
    pub(super) fn newest(&self, changes: usize) -> impl Iterator<Item = &KeyChange> {
        self.history.range(self.history.len().saturating_sub(changes)..)
    }

    /// Forgets the changes before the revision `at`, which must not be above the newest. Of several changes
    /// of a key in this revision only the last one stays, as in etcd. With `forgets_deletions`, the deletions
    /// of this revision are forgotten too.
    pub(super) fn compact(&mut self, at: u64, forgets_deletions: bool) {
        self.compacted = Some(at);
        let count = self.history.partition_point(|change| change.to.modified <= at);
        let keep: Vec<KeyChange> = (0..count)
            .filter_map(|_| {
                let change = self.history.pop_front()?;
                self.trim(&change.key, at);
                (change.to.modified == at).then_some(change)
            })
            .collect();
        let mut seen = BTreeSet::new();
        for change in keep.into_iter().rev() {
            if seen.insert(change.key.clone()) && (!forgets_deletions || self.is_still(&change)) {
                self.history.push_front(change);
            }
        }
    }

    /// Compacts the history to about `keep` changes.
    pub(super) fn compact_to(&mut self, keep: usize) {
        let excess = self.history.len().saturating_sub(keep);
        if let Some(change) = self.history.get(excess) {
            let at = change.to.modified;
            if self.compacted.is_none_or(|compacted| compacted < at) {
                self.compact(at, false);
            }
        }
    }

    /// Drops the versions of a key that can no longer be read, if an earlier trim has left any.
    fn trim(&mut self, key: &Bytes, at: u64) {
        let Some(versions) = self.keys.get_mut(key) else { return };
        let upto = versions.partition_point(|version| version.modified <= at);
        let Some(last) = upto.checked_sub(1) else { return };
        let is_deleted = versions.get(last).is_some_and(|version| version.value.is_none());
        let freed = versions.drain(..if is_deleted { upto } else { last });
        self.bytes -= freed.map(|version| version.bytes(key)).sum::<usize>();
        if versions.is_empty() {
            self.keys.remove(key);
        }
    }

    /// Returns true if a change is a write that made the oldest version of its key.
    fn is_still(&self, change: &KeyChange) -> bool {
        change.to.value.is_some() && self.keys.get(&change.key).and_then(|v| v.first()) == Some(&change.to)
    }

    /// Opens a change, and returns its revision.
    const fn begin(&mut self) -> u64 {
        self.open += 1;
        self.revision + 1
    }

    /// Checks the invariants that hold between two requests. `leased` returns true if a lease has a key.
    pub(super) fn audit(&self, mut leased: impl FnMut(&Bytes, LeaseId) -> bool) -> Result<(), &'static str> {
        let mut bytes = 0;
        let mut live = 0;
        for (key, versions) in &self.keys {
            let [.., newest] = versions.as_slice() else { return Err("a key has no version") };
            if !versions.is_sorted_by_key(|version| version.modified) || newest.modified > self.revision {
                return Err("versions are out of order");
            }
            bytes += versions.iter().map(|version| version.bytes(key)).sum::<usize>();
            live += usize::from(newest.value.is_some());
            if newest.lease.is_some_and(|lease| !leased(key, lease)) {
                return Err("a key has a lease that does not have the key");
            }
        }
        if (bytes, live, self.open) != (self.bytes, self.live, 0) {
            return Err("bytes, keys or open changes are miscounted");
        }
        if !self.history.iter().is_sorted_by_key(|change| change.to.modified) {
            return Err("the history is out of order");
        }
        if self.history.front().is_some_and(|change| self.is_compacted(change.to.modified)) {
            return Err("the history holds what is compacted");
        }
        Ok(())
    }
}

/// Returns the version of a key that a read at `at` sees, if the key exists then.
fn visible(versions: &[KeyVersion], at: At) -> Option<&KeyVersion> {
    let seen = match at {
        At::Newest => versions.last(),
        At::Revision(revision) => {
            versions.get(versions.partition_point(|version| version.modified <= revision).checked_sub(1)?)
        }
    };
    seen.filter(|version| version.value.is_some())
}

type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// Converts a span to bounds; `None` if the span ends before its first key.
fn bounds(span: &Span) -> Option<Bounds<'_>> {
    let key = span.key.as_ref();
    let end = match span.end.as_ref() {
        [] => Bound::Included(key),
        [0] => Bound::Unbounded,
        end if end <= key => return None,
        end => Bound::Excluded(end),
    };
    Some((Bound::Included(key), end))
}
