//! Limits on the log lines that strangers can cause, by address and in all.
//!
//! A pure machine, which decides for each line if it is written, and counts the others. Each
//! address has a token bucket in a bounded table, and one more bucket is common to all addresses.
//! IPv6 addresses count by their /64, since one host can own a whole /64.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use skirmish_core::config::Rate;
use skirmish_core::rate::Bucket;
use skirmish_core::time::{Duration, Instant};

/// Largest number of addresses with a bucket of their own. Above this number the address that was
/// quiet for the longest is forgotten; its suppressed lines count as [`Audit::take_forgotten`].
const ADDRESSES: usize = 1024;
/// Time that an address must have been quiet before the number of its suppressed lines is logged
/// without another line of its own.
const QUIET: Duration = Duration::from_secs(10);

/// Decides which log lines are written.
#[derive(Debug)]
pub(super) struct Audit {
    per_address: Rate,
    total: Bucket,
    addresses: BTreeMap<IpAddr, AddressBudget>,
    /// The same addresses, ordered by the time of their last line.
    by_time: BTreeSet<(Instant, IpAddr)>,
    /// Suppressed lines of addresses that are forgotten.
    forgotten: u64,
    /// Suppressed lines in all.
    suppressed: u64,
}

#[derive(Debug)]
struct AddressBudget {
    bucket: Bucket,
    /// Time of the address's last line, written or not.
    last: Instant,
    /// Lines suppressed since the last written one.
    suppressed: u64,
}

/// Permission to write a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AuditPermit {
    /// Number of suppressed lines of the same address since its last written line, if there are
    /// any.
    pub(super) suppressed: Option<u64>,
}

impl Audit {
    /// Creates a table without addresses.
    pub(super) const fn new(per_address: Rate, total: Rate, now: Instant) -> Self {
        Self {
            per_address,
            total: Bucket::new(total, now),
            addresses: BTreeMap::new(),
            by_time: BTreeSet::new(),
            forgotten: 0,
            suppressed: 0,
        }
    }

    /// Returns a permit if a line that this address has caused may be written. Otherwise counts the
    /// line.
    pub(super) fn admit(&mut self, now: Instant, address: IpAddr) -> Option<AuditPermit> {
        let key = network(address);
        if !self.addresses.contains_key(&key) && self.addresses.len() >= ADDRESSES {
            self.forget_one();
        }
        let fresh = || AddressBudget { bucket: Bucket::new(self.per_address, now), last: now, suppressed: 0 };
        let entry = self.addresses.entry(key).or_insert_with(fresh);
        self.by_time.remove(&(entry.last, key));
        self.by_time.insert((now, key));
        entry.last = now;
        // An address without a token does not use up the common tokens.
        if entry.bucket.take(now, 1).is_err() || self.total.take(now, 1).is_err() {
            entry.suppressed += 1;
            self.suppressed += 1;
            return None;
        }
        let suppressed = std::mem::take(&mut entry.suppressed);
        Some(AuditPermit { suppressed: (suppressed > 0).then_some(suppressed) })
    }

    /// Returns an address that was quiet for long, and the number of its suppressed lines that are
    /// not logged yet. Each call that returns one takes a common token.
    pub(super) fn poll_quiet(&mut self, now: Instant) -> Option<(IpAddr, u64)> {
        loop {
            let &(last, key) = self.by_time.first()?;
            if now.since(last) < QUIET {
                return None;
            }
            let untold = self.addresses.get(&key).map_or(0, |entry| entry.suppressed);
            if untold > 0 && self.total.take(now, 1).is_err() {
                return None;
            }
            // Forgotten only with a full bucket. Otherwise a peer could get a full bucket by being
            // forgotten.
            self.by_time.remove(&(last, key));
            if let Some(entry) = self.addresses.get_mut(&key) {
                entry.suppressed = 0;
                let mut bucket = entry.bucket;
                if bucket.take(now, self.per_address.burst).is_ok() {
                    self.addresses.remove(&key);
                } else {
                    entry.last = now;
                    self.by_time.insert((now, key));
                }
            }
            if untold > 0 {
                return Some((key, untold));
            }
        }
    }

    /// Returns the number of suppressed lines of forgotten addresses, and resets that number.
    pub(super) fn take_forgotten(&mut self, now: Instant) -> Option<u64> {
        (self.forgotten > 0 && self.total.take(now, 1).is_ok()).then(|| std::mem::take(&mut self.forgotten))
    }

    /// Returns the number of suppressed lines in all.
    #[cfg_attr(madsim, allow(dead_code, reason = "the admin listener is not simulated"))]
    pub(super) const fn suppressed(&self) -> u64 {
        self.suppressed
    }

    /// Makes room for another address.
    fn forget_one(&mut self) {
        if let Some((_, key)) = self.by_time.pop_first()
            && let Some(entry) = self.addresses.remove(&key)
        {
            self.forgotten += entry.suppressed;
        }
    }
}

/// Returns the address that stands for a whole network: the /64 of an IPv6 address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let prefix = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(prefix))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_second: 1, burst: 3 };
    const PLENTY: Rate = Rate { per_second: 1_000_000, burst: 1_000_000 };
    const WRITTEN: Option<AuditPermit> = Some(AuditPermit { suppressed: None });

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1000)
    }

    fn v4(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    fn check(audit: &Audit) {
        assert!(audit.addresses.len() <= ADDRESSES && audit.by_time.len() == audit.addresses.len());
        assert!(audit.addresses.iter().all(|(key, entry)| audit.by_time.contains(&(entry.last, *key))));
    }

    #[test]
    fn beyond_its_burst_an_address_is_counted_and_told_with_the_next_line() {
        let mut audit = Audit::new(RATE, PLENTY, at(0));
        for _ in 0..3 {
            assert_eq!(audit.admit(at(0), v4(1)), WRITTEN);
        }
        for _ in 0..7 {
            assert_eq!(audit.admit(at(500), v4(1)), None);
        }
        assert_eq!(audit.admit(at(500), v4(2)), WRITTEN, "another address");
        assert_eq!(audit.admit(at(1_000), v4(1)), Some(AuditPermit { suppressed: Some(7) }));
        assert_eq!(audit.admit(at(2_000), v4(1)), WRITTEN);
        assert_eq!(audit.suppressed(), 7);
        check(&audit);
    }

    #[test]
    fn what_nothing_follows_is_told_after_a_while() {
        let mut audit = Audit::new(Rate { per_second: 1, burst: 20 }, PLENTY, at(0));
        assert_eq!((0..24).filter(|_| audit.admit(at(0), v4(1)).is_some()).count(), 20);
        assert_eq!(audit.admit(at(0), v4(2)), WRITTEN);
        assert_eq!(audit.poll_quiet(at(9_999)), None);
        assert_eq!(audit.poll_quiet(at(10_000)), Some((v4(1), 4)));
        assert_eq!(audit.poll_quiet(at(10_000)), None);
        assert_eq!(audit.addresses.len(), 1, "one has its burst again and is forgotten, the other not");
        assert_eq!((0..20).filter(|_| audit.admit(at(10_000), v4(1)).is_some()).count(), 10);
        check(&audit);
        assert_eq!(audit.poll_quiet(at(30_000)), Some((v4(1), 10)));
        assert!(audit.addresses.is_empty() && audit.by_time.is_empty());
    }

    #[test]
    fn many_addresses_share_one_bucket_and_a_bounded_table() {
        let mut audit = Audit::new(RATE, Rate { per_second: 10, burst: 100 }, at(0));
        let written = (0..5_000).filter(|number| audit.admit(at(0), v4(*number)).is_some()).count();
        assert_eq!(written, 100);
        check(&audit);
        assert_eq!(audit.suppressed(), 4_900);
        assert_eq!(audit.take_forgotten(at(0)), None, "nothing is left to tell it with");
        let forgotten = audit.take_forgotten(at(1_000)).expect("there is a token");
        let kept: u64 = audit.addresses.values().map(|entry| entry.suppressed).sum();
        assert_eq!(forgotten + kept, 4_900);
        assert_eq!(audit.take_forgotten(at(1_000)), None);
    }

    #[test]
    fn an_address_without_a_token_takes_none_of_the_others() {
        let mut audit = Audit::new(RATE, Rate { per_second: 1, burst: 5 }, at(0));
        assert_eq!((0..1_000).filter(|_| audit.admit(at(0), v4(1)).is_some()).count(), 3);
        assert_eq!(audit.admit(at(0), v4(2)), WRITTEN);
    }

    #[test]
    fn ipv6_counts_by_what_one_host_has() {
        let mut audit = Audit::new(RATE, PLENTY, at(0));
        let host = |text: &str| text.parse::<IpAddr>().unwrap();
        for last in 0..3_u16 {
            assert_eq!(audit.admit(at(0), host(&format!("2001:db8:0:1::{last:x}"))), WRITTEN);
        }
        assert_eq!(audit.admit(at(0), host("2001:db8:0:1:ffff::1")), None);
        assert_eq!(audit.admit(at(0), host("2001:db8:0:2::1")), WRITTEN);
        assert_eq!(audit.admit(at(0), host("::ffff:10.0.0.1")), WRITTEN);
        assert_eq!(network(host("::ffff:10.0.0.1")), host("10.0.0.1"));
    }
}
