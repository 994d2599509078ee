//! A room's replicated state at the client: the replica, and the entries of it that the server has
//! not received yet.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use prost::Message as _;
use skirmish_proto::v1;

use super::event::CommandError;
use crate::base::plant::Planted;
use crate::base::rng::Seed;
use crate::base::time::{Deadline, Duration, Now};
use crate::crdt::{
    Forgotten, MAX_STATE_NAME, MAX_VALUE, Replica, ReplicaLimits, ServerForm, StateError, StateKey,
};

/// Maximum number of steps of a reconciliation that wait to be sent. A reconciliation is a
/// dialogue, so there is one step, unless the server breaks the rules. At the bound, the
/// reconciliation starts again from the root.
const MAX_STEPS: usize = 8;
/// Longest time that a stamp of another writer may be ahead of the server's clock so that this
/// client's clock follows the stamp. Entries further ahead are from a server with a wrong clock;
/// they are merged like others.
const CLOCK_BOUND: Duration = Duration::from_secs(2);

/// Parameters of a client's replica.
#[derive(Clone, Debug)]
pub(super) struct ReplicaIdentity {
    /// `Welcome.replica`.
    pub(super) replica: u64,
    pub(super) limits: ReplicaLimits,
    /// Seed of the hashes of names, so that strangers cannot choose names that collide.
    pub(super) seed: Seed,
}

impl ReplicaIdentity {
    /// Creates the parameters. `names` is the number of names that the server allows each player.
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

    fn replica(&self) -> Replica {
        Replica::new(self.replica, self.limits.clone(), self.seed)
    }
}

/// Part of a replica that the client keeps when it is a member again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// The whole replica: the room has the same epoch, and the absence was short.
    Everything,
    /// Own entries only: the room has another epoch, and may know nothing yet.
    Own,
    /// Own entries that were not sent: the absence was longer than tombstones are kept.
    Unsent,
}

/// The replica, and the progress of its exchange with the server.
#[derive(Debug, Default)]
pub(super) struct Replicated {
    /// Exists from the first `Welcome` on, so while the server sends messages about the room.
    replica: Option<(ReplicaIdentity, Replica)>,
    /// Epoch of the room that the replica belongs to, once it is known.
    epoch: Option<u64>,
    /// Writes from before the first `Welcome`, which names the number of the replica.
    early_properties: BTreeMap<String, Option<Bytes>>,
    early_counters: BTreeMap<String, i64>,
    /// Number of the last change that was sent.
    sent: u64,
    /// Own entries to be sent beside the newest changes: the reconciliation found them missing at
    /// the server, or they were stamped anew.
    owed: VecDeque<v1::StateEntry>,
    /// Steps of the reconciliation that wait to be sent.
    steps: VecDeque<v1::Reconcile>,
    /// True if a reconciliation has to start.
    must_reconcile: bool,
    /// Entries that the server has sent since the last received step of a reconciliation, or since
    /// the join.
    server_forms: BTreeMap<StateKey, ServerForm>,
}

impl Replicated {
    /// Returns true if the replica belongs to another epoch of the room.
    pub(super) fn is_of_another_life(&self, epoch: u64) -> bool {
        self.epoch.is_some_and(|known| known != epoch)
    }

    pub(super) fn replica(&self) -> Option<&Replica> {
        self.replica.as_ref().map(|(_, replica)| replica)
    }

    pub(super) fn replica_mut(&mut self) -> Option<&mut Replica> {
        self.replica.as_mut().map(|(_, replica)| replica)
    }

    /// Returns the time for the next call of [`Self::collect`]. No tombstone is dropped before the
    /// server was sent all changes: while a connection accepts no frames, a removal can become
    /// older than tombstones are kept, and the server would never receive this removal.
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

    /// Creates the replica after the first `Welcome`, with the writes from before. An existing
    /// replica follows the server's clock. Returns the replica, and the names of the writes from
    /// before that have no place, since the server allows fewer names than the default.
    pub(super) fn open(
        &mut self,
        now: Now,
        player: &str,
        identity: &ReplicaIdentity,
    ) -> (&mut Replica, Vec<String>) {
        let Self { replica, early_properties, early_counters, .. } = self;
        let (_, replica) = replica.get_or_insert_with(|| (identity.clone(), identity.replica()));
        replica.observe_wall(now, now.wall.0);
        let mut refused = Vec::new();
        for (name, value) in core::mem::take(early_properties) {
            if replica.set_property(now, player, &name, value).is_err() {
                refused.push(name);
            }
        }
        for (name, delta) in core::mem::take(early_counters) {
            if replica.add(now, player, &name, delta).is_err() {
                refused.push(name);
            }
        }
        (replica, refused)
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

    /// Starts a membership: keeps a part of the replica, and schedules a reconciliation to find the
    /// differences from the server's replica. Returns the names of own entries that have no place in
    /// the new replica.
    pub(super) fn joined(
        &mut self,
        now: Now,
        player: &str,
        identity: &ReplicaIdentity,
        epoch: u64,
        keep: Keep,
    ) -> Vec<String> {
        self.disconnected();
        self.epoch = Some(epoch);
        self.must_reconcile = true;
        if keep == Keep::Everything
            && self.replica.as_ref().is_some_and(|(id, _)| id.replica == identity.replica)
        {
            return Vec::new();
        }
        let after = if keep == Keep::Unsent { self.sent } else { 0 };
        let old = self.replica.take();
        self.sent = 0;
        let (new, mut refused) = self.open(now, player, identity);
        if let Some((_, old)) = old {
            let (mut entries, _) = old.changes_since(after, usize::MAX);
            if keep != Keep::Everything {
                entries.retain(|entry| is_own(entry, player));
            }
            if new.merge(now, None, &entries).is_err() {
                let own = entries.into_iter().filter(|entry| is_own(entry, player));
                refused.extend(own.map(|entry| entry.name));
            }
        }
        refused
    }

    /// Drops the entries and steps that were to be sent on a lost connection; the next
    /// reconciliation finds them again.
    pub(super) fn disconnected(&mut self) {
        self.owed.clear();
        self.steps.clear();
        self.must_reconcile = false;
        self.server_forms.clear();
    }

    /// Merges entries that the server has sent. Returns true if anything changed.
    pub(super) fn merge(&mut self, now: Now, entries: &[v1::StateEntry]) -> Result<bool, StateError> {
        let Some((identity, replica)) = &mut self.replica else { return Ok(false) };
        let changed = replica.merge(now, None, entries)?;
        // A server that sends more entries than it may have is not believed about missing entries.
        if self.server_forms.len() <= identity.limits.entries {
            let form = |entry: &v1::StateEntry| Some((StateKey::of(entry)?, ServerForm::of(entry)));
            self.server_forms.extend(entries.iter().filter_map(form));
        }
        Ok(changed)
    }

    /// Stamps entries anew after the server has refused the client's stamps as too far in the
    /// future.
    pub(super) fn refused(&mut self, now: Now, player: &str, refusal: &v1::State) {
        if let Some((_, replica)) = &mut self.replica {
            let entries = replica.restamp(now, player, refusal.wall_ms, refusal.latest_ms);
            self.owe(entries);
            self.must_reconcile = true;
        }
    }

    /// Drops entries that the server has no place for.
    pub(super) fn give_up(&mut self, entries: &[v1::StateEntry]) {
        if let Some((_, replica)) = &mut self.replica {
            replica.give_up(entries);
            self.owed.retain(|owed| !entries.contains(owed));
            self.must_reconcile = true;
        }
    }

    /// Handles a step of the reconciliation. Returns true if entries were forgotten.
    pub(super) fn reconcile(&mut self, player: &str, step: &v1::Reconcile) -> Result<bool, StateError> {
        let Some((identity, replica)) = &mut self.replica else { return Ok(false) };
        if step.level == 0 && step.nodes.is_empty() {
            self.must_reconcile = true;
            return Ok(false);
        }
        let answer = replica.reconcile(step)?;
        let believed = self.server_forms.len() <= identity.limits.entries;
        let forgotten = match believed {
            true => replica.forget_lost(&step.leaves, &self.server_forms, player),
            false => Forgotten::default(),
        };
        self.must_reconcile |= forgotten.older;
        self.server_forms.clear();
        let own = answer.entries.into_iter().filter(|entry| is_own(entry, player)).collect();
        self.owe(own);
        if let Some(step) = answer.reconcile {
            if self.steps.len() < MAX_STEPS {
                self.steps.push_back(step);
            } else {
                self.steps.clear();
                self.must_reconcile = true;
            }
        }
        Ok(forgotten.absent || forgotten.older)
    }

    /// Queues entries to be sent beside the newest changes. If the queue has more entries than the
    /// replica may have, some are queued twice; then all entries of the player are sent anew.
    fn owe(&mut self, entries: Vec<v1::StateEntry>) {
        self.owed.extend(entries);
        let most = self.replica.as_ref().map_or(0, |(identity, _)| identity.limits.entries);
        if self.owed.len() > most {
            self.owed.clear();
            self.sent = 0;
        }
    }

    /// Returns the entries to be sent now, about `max_bytes` of them; empty if there are none.
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
            // Without progress there is no newer change that could be sent.
            self.sent = if reached > self.sent { reached } else { replica.change() };
            changes.retain(|entry| is_own(entry, player));
            if !changes.is_empty() {
                return changes;
            }
        }
        entries
    }

    /// Returns the step of the reconciliation to be sent now. Called when no entries are left to be
    /// sent, so that the reconciliation does not find entries that are in flight.
    pub(super) fn next_step(&mut self) -> Option<v1::Reconcile> {
        if let Some(step) = self.steps.pop_front() {
            return Some(step);
        }
        let must = core::mem::take(&mut self.must_reconcile);
        self.replica().filter(|_| must).map(Replica::start_reconcile)
    }
}

/// Returns true if the player's client may write the entry.
fn is_own(entry: &v1::StateEntry, player: &str) -> bool {
    entry.owner == player && entry.domain() != v1::Domain::Presence
}

fn check_names(player: &str, name: &str) -> Result<(), CommandError> {
    let fits = |name: &str| !name.is_empty() && name.len() <= MAX_STATE_NAME;
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
