//! Entries from elsewhere: whether a replica takes them, and that it does.

use alloc::collections::BTreeSet;

use bytes::Bytes;
use skirmish_proto::v1;

use super::index::Slot;
use super::key::{check_form, counter_of};
use super::{KeyBuf, Replica, Share, Stamp, StateError, StateKey};
use crate::base::plant::Plant;
use crate::base::time::Now;

/// Entries that an owner may have for each of its names. A counter has a share for every
/// session that has written it.
const SHARES: usize = 2;

/// What an entry from elsewhere is to a replica.
#[derive(Clone, Copy, Debug)]
struct JudgedEntry {
    /// Where we have it.
    known: Option<Slot>,
    verdict: MergeVerdict,
}

/// Where entries come from, and so what may be believed.
#[derive(Clone, Copy, Debug)]
enum EntrySource<'a> {
    /// From a server that knows better: everything.
    Server,
    /// From a server that follows this one and knows only what its clients wrote and what it
    /// heard here, perhaps long ago: everything but what may have been removed since.
    Follower,
    /// From the client of this player: what the player owns.
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

/// What an entry does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MergeVerdict {
    /// Nothing.
    Skip,
    /// It is merged.
    Take,
    /// It is old and unknown, and is removed wherever it still is.
    Bury,
    /// What we have is newer, and is told again.
    Remind,
}

/// What has to fit for a batch to be merged.
#[derive(Debug, Default)]
struct Demand {
    /// Keys of new entries.
    entries: BTreeSet<StateKey>,
    /// New names of the owner.
    names: BTreeSet<StateKey>,
}

impl Replica {
    /// Merges entries from elsewhere, all or none. Returns whether anything changed.
    ///
    /// With a `writer`, they come from the client of that player, and may change only the
    /// properties and counters that the player owns. Without, they come from a server, and
    /// are believed, clock included.
    ///
    /// # Errors
    /// See [`StateError`]; nothing was merged then.
    pub fn merge(
        &mut self,
        now: Now,
        writer: Option<&str>,
        entries: &[v1::StateEntry],
    ) -> Result<bool, StateError> {
        self.merge_from(now, writer.map_or(EntrySource::Server, EntrySource::Client), entries)
    }

    /// Merges entries from a server that follows this one, all or none; see [`Self::merge`].
    /// What it has may have been removed here while it was cut off, so long ago that the
    /// tombstones are gone: that is removed there too. What it has in an older form than we
    /// do counts as changed, so that it hears of it: it may have been told of a removal too
    /// late to keep it.
    ///
    /// # Errors
    /// See [`StateError`]; nothing was merged then.
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
            // What was dropped to make room, and what comes first in a batch, may change
            // what the rest does.
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

    /// Returns true if an entry that does nothing is older than ours only since ours is stamped
    /// further ahead of our clock than is believed.
    fn is_behind_the_future(&mut self, now: Now, judged: JudgedEntry, entry: &v1::StateEntry) -> bool {
        let ours = judged.known.and_then(|slot| self.stamp_of(slot, entry.domain()));
        let (Some(ours), Some(stamp)) = (ours, entry.stamp.map(Stamp::from)) else { return false };
        stamp < ours && self.clock.check(now, ours).is_err()
    }

    /// Counts an entry that is new. A server's counts whatever it does; a client's, whose
    /// names are counted too, if it does something.
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

    /// The stamp of our form of an entry.
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
                // What is kept must not keep the whole frame that it came in.
                let value = (!entry.removed).then(|| Bytes::copy_from_slice(&entry.value));
                self.write_property(slot, stamp, value, replace);
            }
        }
        Ok(())
    }

    /// Makes sure that `new` more entries fit, and so many more names of an owner. Returns
    /// whether tombstones had to be collected for it.
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

    /// Entries of an owner, presence aside.
    fn owned(&self, owner: &str) -> usize {
        [v1::Domain::Property, v1::Domain::Counter]
            .map(|domain| self.entries_of(domain, owner).count())
            .into_iter()
            .sum()
    }

    /// Names of an owner, presence aside.
    fn names(&self, owner: &str) -> usize {
        let properties = self.entries_of(v1::Domain::Property, owner).count();
        let mut last: &[u8] = &[];
        let shares = self.entries_of(v1::Domain::Counter, owner).map(|(key, _)| counter_of(key.as_bytes()));
        // Shares of one counter stand together.
        let counters = shares.filter(|counter| core::mem::replace(&mut last, *counter) != *counter).count();
        properties + counters
    }
}
