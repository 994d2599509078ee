//! The registry as one machine.

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
/// Before each request the registry ends the leases that are over, each in a revision of its own, unless
/// [`RegistryConfig::patient`] is set. etcd takes up to a second longer.
#[derive(Debug)]
pub struct Registry {
    pub(super) config: RegistryConfig,
    pub(super) now: Instant,
    pub(super) store: Store,
    pub(super) leases: Leases,
    pub(super) watches: Watches,
    /// True while the registry refuses all requests that take space.
    full: bool,
}

/// State of a registry at one time, like a copy of etcd's data.
#[derive(Clone, Debug)]
pub struct Snapshot {
    store: Store,
    leases: Leases,
}

impl Registry {
    /// Creates an empty registry.
    #[must_use]
    pub fn new(config: RegistryConfig, now: Instant) -> Self {
        let store = Store::new(config.base_revision);
        let watches = Watches::new(&config, now);
        Self { config, now, store, leases: Leases::new(), watches, full: false }
    }

    /// Returns the newest revision.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.store.revision()
    }

    /// Returns the revision of the last compaction, the oldest that can be read and watched from.
    #[must_use]
    pub const fn compacted(&self) -> Option<u64> {
        self.store.compacted()
    }

    /// Returns the number of keys.
    #[must_use]
    pub const fn keys(&self) -> usize {
        self.store.live()
    }

    /// Returns the number of changes in the history.
    #[must_use]
    pub fn history(&self) -> usize {
        self.store.history()
    }

    /// Returns the stored bytes, as [`RegistryConfig::bytes`] counts them.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.store.bytes()
    }

    /// Returns the number of leases.
    #[must_use]
    pub fn leases(&self) -> usize {
        self.leases.len()
    }

    /// Returns the number of watches.
    #[must_use]
    pub fn watches(&self) -> usize {
        self.watches.len()
    }

    /// Executes a request, wholly or not at all.
    ///
    /// # Errors
    /// Returns the reason why nothing was executed.
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

    /// Starts or ends the refusal of requests that take space. etcd refuses them from the use of its whole
    /// quota until its alarm is disarmed.
    pub const fn set_full(&mut self, full: bool) {
        self.full = full;
    }

    /// Starts a watch, and replaces an earlier watch with the same identifier. News are returned by
    /// [`Self::poll_output`]. A watch of an empty span is cancelled there.
    ///
    /// # Errors
    /// [`Error::NoSpace`] if there are too many watches.
    pub fn watch(&mut self, now: Instant, id: WatchId, watch: Watch) -> Result<(), Error> {
        self.observe(now);
        self.expire_between();
        self.watches.insert(&self.config, &self.store, id, watch)
    }

    /// Ends a watch without further news.
    pub fn unwatch(&mut self, id: WatchId) {
        self.watches.remove(id);
    }

    /// Handles deadlines that are due. A spurious call is harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.observe(now);
        self.expire();
        self.watches.handle_timeout(&self.config, self.now);
    }

    /// Handles a change of the leader. The new leader knows the duration of each lease but not its start. So
    /// each lease gets its whole time to live again, plus [`RegistryConfig::election_timeout`]. A lease that
    /// was over during the election lives on.
    pub fn handle_leader_change(&mut self, now: Instant) {
        self.observe(now);
        self.leases.extend_all(self.now, self.config.election_timeout);
    }

    /// Returns the present state, for a later [`Self::restore`].
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { store: self.store.clone(), leases: self.leases.clone() }
    }

    /// Goes back to an earlier state, or to an empty one, like an etcd that is started on a copy of its data
    /// or without data. Leases get their whole time to live again, and watches end without news.
    pub fn restore(&mut self, now: Instant, snapshot: Option<Snapshot>) {
        self.observe(now);
        let nothing = || Snapshot { store: Store::new(0), leases: Leases::new() };
        let Snapshot { store, leases } = snapshot.unwrap_or_else(nothing);
        (self.store, self.leases) = (store, leases);
        self.leases.extend_all(self.now, self.config.election_timeout);
        self.watches = Watches::new(&self.config, self.now);
    }

    /// Returns the news of the next watch; the watches take turns. Unread news cost no memory. If a
    /// compaction overtakes a watch, the watch gets [`super::News::Compacted`].
    #[must_use]
    pub fn poll_output(&mut self) -> Option<Watched> {
        self.watches.poll(&self.config, &self.store)
    }

    /// Returns the time of the next [`Self::handle_timeout`], with the reason.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        if self.watches.is_ready() {
            return Some(Deadline::new(self.now, "output is queued"));
        }
        let lease = self.leases.next().map(|at| Deadline::new(at, "a lease may be over"));
        let progress = self.watches.next_progress().map(|at| Deadline::new(at, "watches hear of progress"));
        Deadline::earliest(lease, progress)
    }

    /// Checks the invariants that hold after every call; for tests and the simulator.
    ///
    /// # Errors
    /// Returns the invariant that does not hold.
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
                self.make_space(self.cost(put))?;
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

    /// Ends a lease and deletes its keys, in the open revision.
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

    /// Makes space for this number of bytes, if necessary by compacting the history.
    pub(super) fn make_space(&mut self, bytes: usize) -> Result<(), Error> {
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
