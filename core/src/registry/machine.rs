//! The registry as a whole.

use super::lease::Leases;
use super::limits;
use super::store::Store;
use super::watch::Watches;
use super::{
    Answer, Delete, Error, LeaseId, RegistryConfig, Request, Response, Span, Watch, WatchId, Watched,
};
use crate::base::time::{Deadline, Instant};

/// A registry with the semantics of etcd's v3 API.
///
/// A lease that is over when anything is asked is over for whoever asks; each is ended in
/// a revision of its own. etcd takes up to a second more.
#[derive(Debug)]
pub struct Registry {
    pub(super) config: RegistryConfig,
    pub(super) now: Instant,
    pub(super) store: Store,
    pub(super) leases: Leases,
    pub(super) watches: Watches,
    /// True while it refuses all that takes space.
    full: bool,
}

/// What a registry knows at a moment, as a copy of etcd's data is.
#[derive(Clone, Debug)]
pub struct Snapshot {
    store: Store,
    leases: Leases,
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new(config: RegistryConfig, now: Instant) -> Self {
        let store = Store::new(config.base_revision);
        let watches = Watches::new(&config, now);
        Self { config, now, store, leases: Leases::new(), watches, full: false }
    }

    /// The newest revision.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.store.revision()
    }

    /// The revision of the last compaction, the oldest that can be read and watched from.
    #[must_use]
    pub const fn compacted(&self) -> Option<u64> {
        self.store.compacted()
    }

    /// How many keys there are.
    #[must_use]
    pub const fn keys(&self) -> usize {
        self.store.live()
    }

    /// How many changes are remembered.
    #[must_use]
    pub fn history(&self) -> usize {
        self.store.history()
    }

    /// Bytes stored, as [`RegistryConfig::bytes`] counts them.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.store.bytes()
    }

    /// How many leases there are.
    #[must_use]
    pub fn leases(&self) -> usize {
        self.leases.len()
    }

    /// How many watches there are.
    #[must_use]
    pub fn watches(&self) -> usize {
        self.watches.len()
    }

    /// Does what is asked, or nothing of it.
    ///
    /// # Errors
    /// Why nothing was done.
    pub fn handle(&mut self, now: Instant, request: &Request) -> Result<Response, Error> {
        self.observe(now);
        self.expire_between();
        limits::check(&self.config, request)?;
        if self.full && limits::takes_space(request) {
            return Err(Error::NoSpace);
        }
        let answer = self.answer(request)?;
        self.commit();
        Ok(Response { revision: self.store.revision(), answer })
    }

    /// Refuses what takes space from now on, or not any more: etcd does from when its quota is
    /// used up until its alarm is disarmed.
    pub const fn set_full(&mut self, full: bool) {
        self.full = full;
    }

    /// Starts a watch, in place of any with its identifier. What it has to tell comes by
    /// [`Self::poll_output`]. One of no key at all is cancelled there.
    ///
    /// # Errors
    /// [`Error::NoSpace`] if there are too many watches.
    pub fn watch(&mut self, now: Instant, id: WatchId, watch: Watch) -> Result<(), Error> {
        self.observe(now);
        self.expire_between();
        self.watches.insert(&self.config, &self.store, id, watch)
    }

    /// Ends a watch, silently.
    pub fn unwatch(&mut self, id: WatchId) {
        self.watches.remove(id);
    }

    /// A deadline has come, or may have.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.observe(now);
        self.expire();
        self.watches.handle_timeout(&self.config, self.now);
    }

    /// Another member leads: it knows how long leases last, but not since when, so each
    /// has its whole time to live again, and [`RegistryConfig::election_timeout`] on top. A
    /// lease that ended meanwhile, while nobody could say so, lives on.
    pub fn handle_leader_change(&mut self, now: Instant) {
        self.observe(now);
        self.leases.extend_all(self.now, self.config.election_timeout);
    }

    /// What it knows now, to be [restored](Self::restore).
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { store: self.store.clone(), leases: self.leases.clone() }
    }

    /// Goes back to what it knew, or to nothing, as an etcd does that is started on a copy of
    /// its data, or on none. Leases have their whole time to live again, and watches end in
    /// silence.
    pub fn restore(&mut self, now: Instant, snapshot: Option<Snapshot>) {
        self.observe(now);
        let nothing = || Snapshot { store: Store::new(0), leases: Leases::new() };
        let Snapshot { store, leases } = snapshot.unwrap_or_else(nothing);
        (self.store, self.leases) = (store, leases);
        self.leases.extend_all(self.now, self.config.election_timeout);
        self.watches = Watches::new(&self.config, self.now);
    }

    /// What a watch has to tell; they take turns. A watch whose news nobody fetches costs
    /// nothing, and is told of a compaction when it has overtaken it.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<Watched> {
        self.watches.poll(&self.config, &self.store)
    }

    /// When [`Self::handle_timeout`] wants to be called, and why.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        if self.watches.is_ready() {
            return Some(Deadline::new(self.now, "output is queued"));
        }
        let lease = self.leases.next().map(|at| Deadline::new(at, "a lease may be over"));
        let progress = self.watches.next_progress().map(|at| Deadline::new(at, "watches hear of progress"));
        Deadline::earliest(lease, progress)
    }

    /// Checks what must hold after every call; for tests and the simulator.
    ///
    /// # Errors
    /// What does not hold.
    pub fn audit(&self) -> Result<(), &'static str> {
        let mut leased = 0;
        self.store.audit(|key, id| {
            leased += 1;
            self.leases.holds(id, key)
        })?;
        self.leases.audit(leased)?;
        self.watches.audit(&self.config, &self.store)?;
        if self.leases.len() > self.config.leases {
            return Err("too many leases");
        }
        if self.store.bytes() > self.config.bytes {
            return Err("too many bytes");
        }
        Ok(())
    }

    fn answer(&mut self, request: &Request) -> Result<Answer, Error> {
        match request {
            Request::Range(range) => {
                self.check_range(range)?;
                Ok(self.range(range))
            }
            Request::Put(put) => {
                self.check_lease(put)?;
                self.check_kept(put)?;
                self.make_place(self.cost(put))?;
                Ok(self.put(put))
            }
            Request::Delete(delete) => Ok(self.delete(delete)),
            Request::Txn(txn) => self.txn(txn),
            Request::Compact { revision } => self.compact(*revision),
            Request::Grant { id, ttl_s } => {
                let ttl_s = self.leases.grant(&self.config, self.now, *id, *ttl_s)?;
                Ok(Answer::Granted { ttl_s })
            }
            Request::Revoke(id) => {
                self.revoke(*id)?;
                Ok(Answer::Revoked)
            }
            Request::KeepAlive(id) => {
                let ttl_s = self.leases.keep_alive(self.now, *id)?;
                Ok(Answer::KeptAlive { ttl_s })
            }
            Request::TimeToLive { id, keys } => {
                let (left_s, granted_s, held) = self.leases.time_to_live(self.now, *id)?;
                let keys = if *keys { held.iter().cloned().collect() } else { Default::default() };
                Ok(Answer::TimeToLive { left_s, granted_s, keys })
            }
        }
    }

    fn compact(&mut self, revision: u64) -> Result<Answer, Error> {
        if self.store.compacted().is_some_and(|compacted| revision <= compacted) {
            return Err(Error::Compacted);
        }
        if revision > self.store.revision() {
            return Err(Error::FutureRevision);
        }
        self.store.compact(revision, self.config.forgets_deletions);
        Ok(Answer::Compact)
    }

    /// Ends a lease and deletes its keys, without making a revision of it yet.
    fn revoke(&mut self, id: LeaseId) -> Result<(), Error> {
        for key in self.leases.remove(id)? {
            self.delete(&Delete::of(Span::one(key)));
        }
        Ok(())
    }

    fn expire_between(&mut self) {
        if !self.config.patient {
            self.expire();
        }
    }

    fn expire(&mut self) {
        while let Some(id) = self.leases.expired(self.now) {
            if self.revoke(id).is_err() {
                return;
            }
            self.commit();
        }
    }

    /// Makes sure that so many bytes can be stored, if need be by forgetting history.
    pub(super) fn make_place(&mut self, bytes: usize) -> Result<(), Error> {
        let fits = |store: &Store| store.bytes().saturating_add(bytes) <= self.config.bytes;
        if !fits(&self.store) && self.config.history.is_some() {
            self.store.compact_to(1);
        }
        if fits(&self.store) { Ok(()) } else { Err(Error::NoSpace) }
    }

    fn commit(&mut self) {
        let changes = self.store.commit();
        if changes == 0 {
            return;
        }
        self.watches.handle_commit(&self.store, changes);
        if let Some(cap) = self.config.history
            && self.store.history() > cap
        {
            self.store.compact_to(cap / 2);
        }
    }

    fn observe(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }
}
