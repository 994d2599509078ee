//! Merging of entries from other replicas: first the judgement of each entry, then the merge of the
//! batch.

use alloc::collections::BTreeSet;

use bytes::Bytes;
use skirmish_proto::v1;

use super::index::Slot;
use super::key::{check_form, counter_of};
use super::{KeyBuf, Replica, Share, Stamp, StateError, StateKey};
use crate::base::plant::Plant;
use crate::base::time::Now;

/// Maximum number of entries of an owner for each name that the owner may have. A name needs more
/// than one entry only for a counter, which has a share for every session that has written it. At
/// the bound, a batch is refused with [`StateError::TooMany`].
const SHARES: usize = 2;

/// Judgement of an entry from another replica.
#[derive(Clone, Copy, Debug)]
struct JudgedEntry {
    /// Place of our form of the entry; `None` if the entry is unknown here.
    known: Option<Slot>,
    verdict: MergeVerdict,
}

/// Source of entries, which decides how far they are believed.
#[derive(Clone, Copy, Debug)]
enum EntrySource<'a> {
    /// A server that knows better, such as the primary. All entries are believed.
    Server,
    /// A server that follows this one. The follower knows only the writes of its clients and the
    /// entries that it received from here, perhaps long ago. All entries are believed, except those
    /// that may have been removed since then.
    Follower,
    /// The client of this player. Only entries of this player are believed.
    Client(&'a str),
}

impl<'a> EntrySource<'a> {
    const fn client(self) -> Option<&'a str> {
        match self {
            Self::Client(player) => Some(player),
            Self::Server | Self::Follower => None,
        }
    }
}

/// Effect of an entry on the replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MergeVerdict {
    /// No effect.
    Skip,
    /// The entry is merged.
    Take,
    /// The entry is old and unknown here. A new tombstone removes the entry from all replicas that
    /// still have it.
    Bury,
    /// Our form is newer and is sent again.
    Remind,
}

/// Space that a batch needs before it can be merged.
#[derive(Debug, Default)]
struct Demand {
    /// Keys of new entries.
    entries: BTreeSet<StateKey>,
    /// New names of the owner.
    names: BTreeSet<StateKey>,
}

impl Replica {
    /// Merges entries from another replica, all or none. Returns true if anything changed.
    ///
    /// With a `writer`, the entries are from the client of that player. Such entries may change
    /// only properties and counters of the player. Without a `writer`, the entries are from a
    /// server; they are believed, stamps included.
    ///
    /// # Errors
    /// See [`StateError`]; no entry was merged then.
    pub fn merge(
        &mut self,
        now: Now,
        writer: Option<&str>,
        entries: &[v1::StateEntry],
    ) -> Result<bool, StateError> {
        self.merge_from(now, writer.map_or(EntrySource::Server, EntrySource::Client), entries)
    }

    /// Merges entries from a server that follows this one, all or none; see [`Self::merge`].
    ///
    /// The follower may have entries that were removed here while the follower was cut off, so long
    /// ago that the tombstones are dropped. Such entries are removed at the follower too. If the
    /// follower has an older form of an entry, our form counts as changed, so that the follower
    /// receives our form: the follower may have received a removal too late to keep the tombstone.
    ///
    /// # Errors
    /// See [`StateError`]; no entry was merged then.
    pub fn merge_from_follower(&mut self, now: Now, entries: &[v1::StateEntry]) -> Result<bool, StateError> {
        self.merge_from(now, EntrySource::Follower, entries)
    }

    fn merge_from(
        &mut self,
        now: Now,
        source: EntrySource<'_>,
        entries: &[v1::StateEntry],
    ) -> Result<bool, StateError> {
        self.now = now;
        let before = self.change();
        let mut demand = Demand::default();
        let mut judged = None;
        for entry in entries {
            let key = KeyBuf::of(entry)?;
            let admitted = self.admit(now, &key, source, entry)?;
            self.count(&mut demand, &key, admitted, source);
            judged = Some(admitted);
        }
        let names = source.client().map(|owner| (owner, demand.names.len()));
        let collected = self.make_room(now, names, demand.entries.len())?;
        match (entries, judged) {
            ([entry], Some(judged)) if !collected => self.take(now, judged, entry)?,
            // Tombstones that were dropped to make room, and earlier entries of the batch, may
            // change the verdict on later entries.
            _ => {
                for entry in entries {
                    let judged = self.judge(&KeyBuf::of(entry)?, source, entry);
                    self.take(now, judged, entry)?;
                }
            }
        }
        Ok(self.change() != before)
    }

    /// Judges an entry, and checks that the writer may write it.
    fn admit(
        &mut self,
        now: Now,
        key: &KeyBuf,
        source: EntrySource<'_>,
        entry: &v1::StateEntry,
    ) -> Result<JudgedEntry, StateError> {
        check_form(entry)?;
        let judged = self.judge(key, source, entry);
        let Some(writer) = source.client() else { return Ok(judged) };
        if judged.verdict == MergeVerdict::Skip {
            return if self.is_behind_the_future(now, judged, entry) {
                Err(StateError::BehindTheFuture)
            } else {
                Ok(judged)
            };
        }
        if entry.owner != writer || entry.domain() == v1::Domain::Presence {
            return Err(StateError::NotOwner);
        }
        if let Some(stamp) = &entry.stamp {
            self.clock.check(now, (*stamp).into()).map_err(|_| StateError::ClockTooFarAhead)?;
        }
        Ok(judged)
    }

    /// Returns true if our form of a skipped entry is newer, but is stamped further ahead of our
    /// clock than the bound of [`Hlc::check`](super::Hlc::check) allows.
    fn is_behind_the_future(&mut self, now: Now, judged: JudgedEntry, entry: &v1::StateEntry) -> bool {
        let ours = judged.known.and_then(|slot| self.stamp_of(slot, entry.domain()));
        let (Some(ours), Some(stamp)) = (ours, entry.stamp.map(Stamp::from)) else { return false };
        stamp < ours && self.clock.check(now, ours).is_err()
    }

    /// Counts an entry that is unknown here. An entry from a server counts with any verdict. An
    /// entry from a client counts, with its name, only if the verdict is not
    /// [`MergeVerdict::Skip`].
    fn count(&self, demand: &mut Demand, key: &KeyBuf, judged: JudgedEntry, source: EntrySource<'_>) {
        let is_client = source.client().is_some();
        if judged.known.is_some() || is_client && judged.verdict == MergeVerdict::Skip {
            return;
        }
        let share = key.is_share();
        let key = key.as_bytes();
        demand.entries.insert(StateKey::from(key));
        if is_client {
            let name = if share { counter_of(key) } else { key };
            if !share || !self.counters.contains(name) {
                demand.names.insert(StateKey::from(name));
            }
        }
    }

    fn judge(&self, key: &KeyBuf, source: EntrySource<'_>, entry: &v1::StateEntry) -> JudgedEntry {
        let known = self.index.find(key);
        JudgedEntry { known, verdict: self.verdict(key, known, source, entry) }
    }

    fn verdict(
        &self,
        key: &KeyBuf,
        known: Option<Slot>,
        source: EntrySource<'_>,
        entry: &v1::StateEntry,
    ) -> MergeVerdict {
        let take_if = |news| if news { MergeVerdict::Take } else { MergeVerdict::Skip };
        let Some(stamp) = entry.stamp.map(Stamp::from) else {
            let share = Share { plus: entry.plus, minus: entry.minus };
            let ours = self.share(key.as_bytes(), entry.replica);
            return take_if(ours.is_none_or(|ours| ours.would_grow(share)));
        };
        let Some(slot) = known else {
            let is_past = || self.graveyard.is_past(stamp, self.clock.wall_ms(self.now));
            return if entry.removed && is_past() {
                MergeVerdict::Skip
            } else if !matches!(source, EntrySource::Server) && self.graveyard.may_have_removed(stamp) {
                MergeVerdict::Bury
            } else {
                MergeVerdict::Take
            };
        };
        if self.limits.planted.is(Plant::ArrivalWins) {
            return MergeVerdict::Take;
        }
        if matches!(source, EntrySource::Follower) && self.stamp_of(slot, entry.domain()) > Some(stamp) {
            return MergeVerdict::Remind;
        }
        take_if(match entry.domain() {
            v1::Domain::Presence => {
                let value = (!entry.removed).then_some(&());
                self.presence.as_map().would_change(&slot, stamp, value)
            }
            _ => self.properties.would_change(&slot, stamp, (!entry.removed).then_some(&entry.value)),
        })
    }

    /// Returns the stamp of our form of an entry.
    pub(super) fn stamp_of(&self, slot: Slot, domain: v1::Domain) -> Option<Stamp> {
        match domain {
            v1::Domain::Presence => self.presence.as_map().write(&slot).map(|(stamp, _)| stamp),
            _ => self.properties.write(&slot).map(|(stamp, _)| stamp),
        }
    }

    fn take(&mut self, now: Now, judged: JudgedEntry, entry: &v1::StateEntry) -> Result<(), StateError> {
        if judged.verdict == MergeVerdict::Skip {
            return Ok(());
        }
        let slot = judged.known.map_or_else(|| self.index.insert(&KeyBuf::of(entry)?), Ok)?;
        if judged.verdict == MergeVerdict::Remind {
            self.repeat(slot);
            return Ok(());
        }
        let replace = self.limits.planted.is(Plant::ArrivalWins);
        match (entry.stamp.map(Stamp::from), entry.domain()) {
            _ if judged.verdict == MergeVerdict::Bury => {
                let stamp = self.clock.tick_over(now, entry.stamp.map(Stamp::from));
                if entry.domain() == v1::Domain::Presence {
                    self.write_presence(slot, stamp, false, false);
                } else {
                    self.write_property(slot, stamp, None, false);
                }
            }
            (None, _) => {
                self.write_share(slot, entry.replica, Share { plus: entry.plus, minus: entry.minus });
            }
            (Some(stamp), v1::Domain::Presence) => {
                self.clock.observe(now, stamp);
                self.write_presence(slot, stamp, !entry.removed, replace);
            }
            (Some(stamp), _) => {
                self.clock.observe(now, stamp);
                // A copy, since a slice would keep the whole received frame in memory.
                let value = (!entry.removed).then(|| Bytes::copy_from_slice(&entry.value));
                self.write_property(slot, stamp, value, replace);
            }
        }
        Ok(())
    }

    /// Makes room for `new` more entries and for a number of new names of an owner. Returns true if
    /// tombstones had to be collected for this.
    pub(super) fn make_room(
        &mut self,
        now: Now,
        names: Option<(&str, usize)>,
        new: usize,
    ) -> Result<bool, StateError> {
        if new == 0 || self.has_room(names, new) {
            return Ok(false);
        }
        self.collect(now);
        if self.has_room(names, new) { Ok(true) } else { Err(StateError::TooMany) }
    }

    fn has_room(&self, names: Option<(&str, usize)>, new: usize) -> bool {
        let most = self.limits.entries_per_owner;
        let fits = |(owner, names): (&str, usize)| {
            self.owned(owner).saturating_add(new) <= most.saturating_mul(SHARES)
                && (names == 0 || self.names(owner).saturating_add(names) <= most)
        };
        self.len().saturating_add(new) <= self.limits.entries && names.is_none_or(fits)
    }

    /// Returns the number of entries of an owner, without presence.
    fn owned(&self, owner: &str) -> usize {
        [v1::Domain::Property, v1::Domain::Counter]
            .map(|domain| self.entries_of(domain, owner).count())
            .into_iter()
            .sum()
    }

    /// Returns the number of names of an owner, without presence.
    fn names(&self, owner: &str) -> usize {
        let properties = self.entries_of(v1::Domain::Property, owner).count();
        let mut last: &[u8] = &[];
        let shares = self.entries_of(v1::Domain::Counter, owner).map(|(key, _)| counter_of(key.as_bytes()));
        // Shares of one counter are adjacent.
        let counters = shares.filter(|counter| core::mem::replace(&mut last, *counter) != *counter).count();
        properties + counters
    }
}
