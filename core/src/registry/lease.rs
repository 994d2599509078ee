//! Leases: their deadlines and their keys.

use alloc::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{Error, LeaseId, RegistryConfig};
use crate::base::agenda::{Agenda, Booking};
use crate::base::time::{Duration, Instant};

/// Longest time to live, in seconds, as in etcd. A grant above it is refused.
const MAX_TTL_S: u64 = 9_000_000_000;

/// All leases, with their deadlines.
#[derive(Clone, Debug)]
pub(super) struct Leases {
    leases: BTreeMap<LeaseId, Lease>,
    agenda: Agenda<LeaseId>,
}

#[derive(Clone, Debug)]
struct Lease {
    ttl_s: u64,
    expires: Instant,
    keys: BTreeSet<Bytes>,
    booking: Booking,
}

impl Leases {
    pub(super) const fn new() -> Self {
        Self { leases: BTreeMap::new(), agenda: Agenda::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.leases.len()
    }

    pub(super) fn contains(&self, id: LeaseId) -> bool {
        self.leases.contains_key(&id)
    }

    /// Grants a lease. Returns its time to live, in seconds.
    pub(super) fn grant(
        &mut self,
        config: &RegistryConfig,
        now: Instant,
        id: LeaseId,
        ttl_s: u64,
    ) -> Result<u64, Error> {
        if id.0 == 0 || i64::try_from(id.0).is_err() {
            return Err(Error::LeaseNotFound);
        }
        if ttl_s > MAX_TTL_S {
            return Err(Error::LeaseTtlTooLarge);
        }
        if self.contains(id) {
            return Err(Error::LeaseExists);
        }
        if self.leases.len() >= config.leases {
            return Err(Error::NoSpace);
        }
        let ttl_s = ttl_s.max(config.min_ttl_s);
        let expires = now + Duration::from_secs(ttl_s);
        let mut booking = Booking::default();
        self.agenda.book(id, &mut booking, expires);
        self.leases.insert(id, Lease { ttl_s, expires, keys: BTreeSet::new(), booking });
        Ok(ttl_s)
    }

    /// Restarts the time to live of a lease, and returns it in seconds.
    pub(super) fn keep_alive(&mut self, now: Instant, id: LeaseId) -> Result<u64, Error> {
        let lease = self.leases.get_mut(&id).ok_or(Error::LeaseNotFound)?;
        lease.extend(&mut self.agenda, id, now + Duration::from_secs(lease.ttl_s));
        Ok(lease.ttl_s)
    }

    /// Restarts the whole time to live of every lease, plus `more`.
    pub(super) fn extend_all(&mut self, now: Instant, more: Duration) {
        for (&id, lease) in &mut self.leases {
            lease.extend(&mut self.agenda, id, now + more + Duration::from_secs(lease.ttl_s));
        }
    }

    /// Returns the time left and the time granted, in seconds, and the keys of a lease.
    pub(super) fn time_to_live(
        &self,
        now: Instant,
        id: LeaseId,
    ) -> Result<(u64, u64, &BTreeSet<Bytes>), Error> {
        let lease = self.leases.get(&id).ok_or(Error::LeaseNotFound)?;
        Ok((lease.expires.since(now).as_secs(), lease.ttl_s, &lease.keys))
    }

    /// Removes a lease and returns its keys.
    pub(super) fn remove(&mut self, id: LeaseId) -> Result<BTreeSet<Bytes>, Error> {
        let mut lease = self.leases.remove(&id).ok_or(Error::LeaseNotFound)?;
        self.agenda.cancel(id, &mut lease.booking);
        Ok(lease.keys)
    }

    /// Returns the lease that has been over for the longest time, if any.
    pub(super) fn expired(&mut self, now: Instant) -> Option<LeaseId> {
        while let Some((booked, id)) = self.agenda.next() {
            if booked > now {
                return None;
            }
            let Some(lease) = self.leases.get_mut(&id).filter(|lease| lease.expires > booked) else {
                return Some(id);
            };
            // The lease was kept alive since.
            self.agenda.cancel(id, &mut lease.booking);
            self.agenda.book(id, &mut lease.booking, lease.expires);
        }
        None
    }

    /// Moves a key from one lease to another.
    pub(super) fn moved(&mut self, key: &Bytes, from: Option<LeaseId>, to: Option<LeaseId>) {
        if from == to {
            return;
        }
        if let Some(lease) = from.and_then(|id| self.leases.get_mut(&id)) {
            lease.keys.remove(key);
        }
        if let Some(lease) = to.and_then(|id| self.leases.get_mut(&id)) {
            lease.keys.insert(key.clone());
        }
    }

    /// Returns the time at which the next lease may be over.
    pub(super) fn next(&self) -> Option<Instant> {
        self.agenda.next().map(|(at, _)| at)
    }

    /// Returns true if a lease has this key.
    pub(super) fn holds(&self, id: LeaseId, key: &Bytes) -> bool {
        self.leases.get(&id).is_some_and(|lease| lease.keys.contains(key))
    }

    /// Checks that the leases have `leased` keys in total, and that each lease is booked once.
    pub(super) fn audit(&self, leased: usize) -> Result<(), &'static str> {
        if self.agenda.len() != self.leases.len() {
            return Err("a lease is booked twice or never");
        }
        if self.leases.values().map(|lease| lease.keys.len()).sum::<usize>() != leased {
            return Err("a lease has a key that does not have the lease");
        }
        Ok(())
    }
}

impl Lease {
    fn extend(&mut self, agenda: &mut Agenda<LeaseId>, id: LeaseId, expires: Instant) {
        self.expires = expires;
        agenda.book(id, &mut self.booking, expires);
    }
}
