//! A room's replicated state at the client: the replica, and what of it the server has
//! yet to be told.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use prost::Message as _;
use skirmish_proto::v1;

use super::event::CommandError;
use crate::base::id::MAX_NAME;
use crate::base::plant::Planted;
use crate::base::rng::Seed;
use crate::base::time::{Deadline, Duration, Now};
use crate::crdt::{Forgotten, Heard, MAX_VALUE, Replica, ReplicaLimits, StateError, StateKey};

/// Answers of the walk that wait to be sent. The walk is a dialogue, so there is one, or
/// the server does not keep to it; then the walk starts again from the root.
const MAX_STEPS: usize = 8;
/// Longest time that a stamp of others may be ahead of the server's clock for this client's to
/// follow it.
/// Entries further ahead, of a server whose clock was wrong, are merged as any.
const CLOCK_BOUND: Duration = Duration::from_secs(2);

/// How a replica of a client is made.
#[derive(Clone, Debug)]
pub(super) struct ReplicaIdentity {
    /// `Welcome.replica`.
    pub(super) replica: u64,
    pub(super) limits: ReplicaLimits,
    /// Keeps names from being chosen to collide.
    pub(super) seed: Seed,
}

impl ReplicaIdentity {
    /// `names`: how many the server allows each player.
    pub(super) fn new(
        replica: u64,
        names: usize,
        entries: usize,
        horizon: Duration,
        seed: Seed,
        planted: Planted,
    ) -> Self {
        let limits = ReplicaLimits {
            entries_per_owner: names,
            entries,
            clock_bound: CLOCK_BOUND,
            tombstone_horizon: horizon,
            planted,
        };
        Self { replica, limits, seed }
    }
}

/// What a room's copy of the state keeps when the client is a member again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// The same life of the room, not long ago.
    Everything,
    /// Another life of the room, which may know nothing yet.
    Own,
    /// Away for longer than tombstones are remembered: only what the client wrote
    /// meanwhile.
    Unsent,
}

/// The replica and its place in the exchange with the server.
#[derive(Debug, Default)]
pub(super) struct Replicated {
    replica: Option<(ReplicaIdentity, Replica)>,
    /// The life of the room that it is a replica of, once one is known.
    epoch: Option<u64>,
    /// Writes from before the first `Welcome`, which names the replica.
    early_properties: BTreeMap<String, Option<Bytes>>,
    early_counters: BTreeMap<String, i64>,
    /// Number of the last change that was sent.
    sent: u64,
    /// Entries that the walk found missing at the server.
    owed: VecDeque<v1::StateEntry>,
    /// Steps of the walk to be sent.
    steps: VecDeque<v1::Reconcile>,
    /// The walk is to be started.
    walk: bool,
    /// Entries that the server sent since the last step of the walk went out.
    heard: BTreeMap<StateKey, Heard>,
}

impl Replicated {
    /// Whether the replica is of another life of the room than this.
    pub(super) fn is_of_another_life(&self, epoch: u64) -> bool {
        self.epoch.is_some_and(|known| known != epoch)
    }

    pub(super) fn replica(&self) -> Option<&Replica> {
        self.replica.as_ref().map(|(_, replica)| replica)
    }

    pub(super) fn replica_mut(&mut self) -> Option<&mut Replica> {
        self.replica.as_mut().map(|(_, replica)| replica)
    }

    /// When [`Self::collect`] has something to do. Nothing is dropped while the server has not
    /// been sent all: on a connection that takes nothing a removal may be older than tombstones
    /// become, and the server would never hear of it.
    pub(super) fn poll_timeout(&self) -> Option<Deadline> {
        let is_sent = |replica: &&Replica| self.owed.is_empty() && self.sent >= replica.change();
        self.replica().filter(is_sent)?.poll_timeout()
    }

    /// Drops the tombstones that are past the horizon.
    pub(super) fn collect(&mut self, now: Now) {
        if let Some(replica) = self.replica_mut() {
            replica.collect(now);
        }
    }

    /// The first `Welcome` was received: the replica is made, with what was written
    /// before.
    pub(super) fn open(&mut self, now: Now, player: &str, identity: &ReplicaIdentity) {
        if self.replica.is_some() {
            return;
        }
        let mut replica = Replica::new(identity.replica, identity.limits.clone(), identity.seed);
        replica.observe_wall(now, now.wall.0);
        // The names were checked and counted when they were written; a server that allows
        // fewer than it is usual gets as many as it allows.
        for (name, value) in core::mem::take(&mut self.early_properties) {
            let _ = replica.set_property(now, player, &name, value);
        }
        for (name, delta) in core::mem::take(&mut self.early_counters) {
            let _ = replica.add(now, player, &name, delta);
        }
        self.replica = Some((identity.clone(), replica));
    }

    pub(super) fn set_property(
        &mut self,
        now: Now,
        player: &str,
        name: &str,
        value: Option<Bytes>,
        names: usize,
    ) -> Result<(), CommandError> {
        check_names(player, name)?;
        if value.as_ref().is_some_and(|v| v.len() > MAX_VALUE) {
            return Err(CommandError::TooLarge);
        }
        match &mut self.replica {
            Some((_, replica)) => replica.set_property(now, player, name, value).map_err(|e| refusal(&e)),
            None => {
                let room = self.early_len() < names || self.early_properties.contains_key(name);
                room.then(|| self.early_properties.insert(String::from(name), value))
                    .map(|_| ())
                    .ok_or(CommandError::StateFull)
            }
        }
    }

    pub(super) fn add(
        &mut self,
        now: Now,
        player: &str,
        counter: &str,
        delta: i64,
        names: usize,
    ) -> Result<(), CommandError> {
        check_names(player, counter)?;
        if let Some((_, replica)) = &mut self.replica {
            return replica.add(now, player, counter, delta).map_err(|e| refusal(&e));
        }
        if self.early_len() >= names && !self.early_counters.contains_key(counter) {
            return Err(CommandError::StateFull);
        }
        let sum = self.early_counters.entry(String::from(counter)).or_default();
        *sum = sum.saturating_add(delta);
        Ok(())
    }

    fn early_len(&self) -> usize {
        self.early_properties.len() + self.early_counters.len()
    }

    /// The client is a member (again): what the copy keeps, and a walk to find what
    /// differs from the server's.
    pub(super) fn joined(
        &mut self,
        now: Now,
        player: &str,
        identity: &ReplicaIdentity,
        epoch: u64,
        keep: Keep,
    ) {
        self.disconnected();
        self.epoch = Some(epoch);
        self.walk = true;
        if keep == Keep::Everything
            && self.replica.as_ref().is_some_and(|(id, _)| id.replica == identity.replica)
        {
            return;
        }
        let after = if keep == Keep::Unsent { self.sent } else { 0 };
        let old = self.replica.take();
        self.sent = 0;
        self.open(now, player, identity);
        let (Some((_, old)), Some((_, new))) = (old, &mut self.replica) else { return };
        let (mut entries, _) = old.changes_since(after, usize::MAX);
        if keep != Keep::Everything {
            entries.retain(|entry| is_own(entry, player));
        }
        // They fitted into a replica with the same caps; if the caps have become smaller,
        // the server would not take them either.
        let _ = new.merge(now, None, &entries);
    }

    /// What was about to be sent on a connection that is lost; the walk finds it again.
    pub(super) fn disconnected(&mut self) {
        self.owed.clear();
        self.steps.clear();
        self.walk = false;
        self.heard.clear();
    }

    /// Merges what the server sent; true if something changed.
    pub(super) fn merge(&mut self, now: Now, entries: &[v1::StateEntry]) -> Result<bool, StateError> {
        let Some((identity, replica)) = &mut self.replica else { return Ok(false) };
        let changed = replica.merge(now, None, entries)?;
        // A server that sends more than it may have is not believed about what it has not.
        if self.heard.len() <= identity.limits.entries {
            let heard = |entry: &v1::StateEntry| Some((StateKey::of(entry)?, Heard::of(entry)));
            self.heard.extend(entries.iter().filter_map(heard));
        }
        Ok(changed)
    }

    /// The server took this client's stamps for the future.
    pub(super) fn refused(&mut self, now: Now, player: &str, refusal: &v1::State) {
        if let Some((_, replica)) = &mut self.replica {
            let entries = replica.restamp(now, player, refusal.wall_ms, refusal.latest_ms);
            self.owe(entries);
            self.walk = true;
        }
    }

    /// The server has no place for these entries.
    pub(super) fn give_up(&mut self, entries: &[v1::StateEntry]) {
        if let Some((_, replica)) = &mut self.replica {
            replica.give_up(entries);
            self.owed.retain(|owed| !entries.contains(owed));
            self.walk = true;
        }
    }

    /// Takes a step of the walk.
    pub(super) fn reconcile(&mut self, player: &str, step: &v1::Reconcile) -> Result<bool, StateError> {
        let Some((identity, replica)) = &mut self.replica else { return Ok(false) };
        if step.level == 0 && step.nodes.is_empty() {
            self.walk = true;
            return Ok(false);
        }
        let answer = replica.reconcile(step)?;
        let believed = self.heard.len() <= identity.limits.entries;
        let forgotten = match believed {
            true => replica.forget_unheard(&step.leaves, &self.heard, player),
            false => Forgotten::default(),
        };
        self.walk |= forgotten.older;
        self.heard.clear();
        let own = answer.entries.into_iter().filter(|entry| is_own(entry, player)).collect();
        self.owe(own);
        if let Some(step) = answer.reconcile {
            if self.steps.len() < MAX_STEPS {
                self.steps.push_back(step);
            } else {
                self.steps.clear();
                self.walk = true;
            }
        }
        Ok(forgotten.unheard || forgotten.older)
    }

    /// Entries to be sent beside the newest changes. If there are more than the replica
    /// may have, some are there twice; then everything of the player's is sent anew.
    fn owe(&mut self, entries: Vec<v1::StateEntry>) {
        self.owed.extend(entries);
        let most = self.replica.as_ref().map_or(0, |(identity, _)| identity.limits.entries);
        if self.owed.len() > most {
            self.owed.clear();
            self.sent = 0;
        }
    }

    /// Entries to be sent now, of about `max_bytes`; empty if there are none.
    pub(super) fn next_entries(&mut self, player: &str, max_bytes: usize) -> Vec<v1::StateEntry> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        while let Some(entry) = self.owed.front() {
            bytes += entry.encoded_len() + 8;
            if bytes > max_bytes && !entries.is_empty() {
                break;
            }
            entries.extend(self.owed.pop_front());
        }
        if !entries.is_empty() {
            return entries;
        }
        let Some((_, replica)) = &self.replica else { return entries };
        while self.sent < replica.change() {
            let (mut changes, reached) = replica.changes_since(self.sent, max_bytes);
            // Without progress there is nothing newer that could be sent.
            self.sent = if reached > self.sent { reached } else { replica.change() };
            changes.retain(|entry| is_own(entry, player));
            if !changes.is_empty() {
                return changes;
            }
        }
        entries
    }

    /// The step of the walk to be sent now. Asked for when no entries are left to be
    /// sent, so that the walk does not find what is on its way.
    pub(super) fn next_step(&mut self) -> Option<v1::Reconcile> {
        if let Some(step) = self.steps.pop_front() {
            return Some(step);
        }
        let walk = core::mem::take(&mut self.walk);
        self.replica().filter(|_| walk).map(Replica::start_reconcile)
    }
}

/// Whether the player's client may write the entry.
fn is_own(entry: &v1::StateEntry, player: &str) -> bool {
    entry.owner == player && entry.domain() != v1::Domain::Presence
}

fn check_names(player: &str, name: &str) -> Result<(), CommandError> {
    let fits = |name: &str| !name.is_empty() && name.len() <= MAX_NAME;
    (fits(player) && fits(name)).then_some(()).ok_or(CommandError::BadName)
}

fn refusal(error: &StateError) -> CommandError {
    match error {
        StateError::TooMany => CommandError::StateFull,
        StateError::Malformed
        | StateError::NotOwner
        | StateError::ClockTooFarAhead
        | StateError::BehindTheFuture => CommandError::BadName,
    }
}
