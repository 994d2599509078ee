//! Reads, writes and transactions: all checks use the state before the request, then the execution cannot
//! fail.

use alloc::vec::Vec;
use core::cmp::Ordering;
use core::slice::Iter;

use bytes::Bytes;

use super::store::{At, KeyVersion, cost};
use super::{Answer, Compare, CompareTarget, Delete, Error, Put, Range, Registry, RegistryOp, Relation, Txn};

impl Registry {
    pub(super) fn range(&self, range: &Range) -> Answer {
        let at = At::requested(range.revision);
        let limit = match range.limit {
            _ if range.count_only => 0,
            0 => usize::MAX,
            limit => usize::try_from(limit).unwrap_or(usize::MAX),
        };
        let mut kvs = Vec::new();
        let mut count = 0;
        for (key, version) in self.store.range(&range.span, at) {
            count += 1;
            if kvs.len() < limit {
                kvs.push(version.to_kv(key, range.keys_only));
            }
        }
        let more = !range.count_only && kvs.len() < count;
        Answer::Range { kvs, more, count: count as u64 }
    }

    /// Checks that the revision of a read is readable.
    pub(super) fn check_range(&self, range: &Range) -> Result<(), Error> {
        match range.revision {
            0 => Ok(()),
            revision if revision > self.store.revision() => Err(Error::FutureRevision),
            revision if self.store.is_compacted(revision) => Err(Error::Compacted),
            _ => Ok(()),
        }
    }

    /// Checks that the lease of a write exists.
    pub(super) fn check_lease(&self, put: &Put) -> Result<(), Error> {
        match put.lease {
            Some(id) if id.0 != 0 && !self.leases.contains(id) => Err(Error::LeaseNotFound),
            _ => Ok(()),
        }
    }

    /// Checks that the key exists if a write keeps its value or lease.
    pub(super) fn check_kept(&self, put: &Put) -> Result<(), Error> {
        if (put.ignore_value || put.ignore_lease) && self.store.get(&put.key, At::Newest).is_none() {
            return Err(Error::KeyNotFound);
        }
        Ok(())
    }

    /// Returns the bytes that a write takes in the store.
    pub(super) fn cost(&self, put: &Put) -> usize {
        let kept = if put.ignore_value { self.store.get(&put.key, At::Newest) } else { None };
        let value = kept.and_then(|(_, old)| old.value.as_ref()).unwrap_or(&put.value);
        cost(&put.key, value.len())
    }

    /// Executes a write that passed all checks.
    pub(super) fn put(&mut self, put: &Put) -> Answer {
        let keeps = put.ignore_value || put.ignore_lease || put.prev;
        let old = if keeps { self.store.get(&put.key, At::Newest) } else { None };
        let prev = old.filter(|_| put.prev).map(|(key, old)| old.to_kv(key, false));
        let old = old.map(|(_, old)| old);
        let value = match old.and_then(|old| old.value.as_ref()) {
            Some(value) if put.ignore_value => value.clone(),
            _ => Bytes::copy_from_slice(&put.value),
        };
        let lease =
            if put.ignore_lease { old.and_then(|old| old.lease) } else { put.lease.filter(|id| id.0 != 0) };
        let (key, leased) = self.store.put(&put.key, value, lease);
        self.leases.moved(&key, leased, lease);
        Answer::Put { prev }
    }

    pub(super) fn delete(&mut self, delete: &Delete) -> Answer {
        let mut prev = Vec::new();
        let mut deleted = 0;
        let leases = &mut self.leases;
        self.store.delete(&delete.span, |key, old| {
            deleted += 1;
            leases.moved(key, old.lease, None);
            if delete.prev {
                prev.push(old.to_kv(key, false));
            }
        });
        Answer::Delete { deleted, prev }
    }

    /// Executes a transaction. All comparisons, nested ones included, use the state before the transaction.
    /// So do all checks, and only of the branches taken.
    pub(super) fn txn(&mut self, txn: &Txn) -> Result<Answer, Error> {
        let mut path = Vec::new();
        self.compare(txn, &mut path);
        let mut bytes = 0;
        visit(txn, &mut path.iter(), &mut |op| {
            let RegistryOp::Put(put) = op else { return Ok(()) };
            bytes += self.cost(put);
            self.check_kept(put)?;
            self.check_lease(put)
        })?;
        visit(txn, &mut path.iter(), &mut |op| match op {
            RegistryOp::Range(range) => self.check_range(range),
            RegistryOp::Put(_) | RegistryOp::Delete(_) | RegistryOp::Txn(_) => Ok(()),
        })?;
        self.make_space(bytes)?;
        Ok(self.apply(txn, &mut path.iter()))
    }

    /// Records which branches are taken, in the order of their execution.
    fn compare(&self, txn: &Txn, path: &mut Vec<bool>) {
        let taken = txn.compares.iter().all(|compare| self.holds(compare));
        path.push(taken);
        for op in branch(txn, taken) {
            if let RegistryOp::Txn(txn) = op {
                self.compare(txn, path);
            }
        }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let mut keys = self.store.range(&compare.span, At::Newest).map(|(_, version)| version).peekable();
        if keys.peek().is_none() {
            return compared(None, &compare.target).is_some_and(|order| is(compare.relation, order));
        }
        keys.all(|key| compared(Some(key), &compare.target).is_some_and(|order| is(compare.relation, order)))
    }

    fn apply(&mut self, txn: &Txn, path: &mut Iter<'_, bool>) -> Answer {
        let succeeded = path.next().is_some_and(|&taken| taken);
        let answers = branch(txn, succeeded)
            .iter()
            .map(|op| match op {
                RegistryOp::Range(range) => self.range(range),
                RegistryOp::Put(put) => self.put(put),
                RegistryOp::Delete(delete) => self.delete(delete),
                RegistryOp::Txn(txn) => self.apply(txn, path),
            })
            .collect();
        Answer::Txn { succeeded, answers }
    }
}

fn branch(txn: &Txn, taken: bool) -> &[RegistryOp] {
    if taken { &txn.success } else { &txn.failure }
}

/// Passes each step of the branches taken to `check`.
fn visit(
    txn: &Txn,
    path: &mut Iter<'_, bool>,
    check: &mut impl FnMut(&RegistryOp) -> Result<(), Error>,
) -> Result<(), Error> {
    let taken = path.next().is_some_and(|&taken| taken);
    branch(txn, taken).iter().try_for_each(|op| match op {
        RegistryOp::Txn(txn) => visit(txn, path, check),
        op => check(op),
    })
}

/// Compares a property of a key with a target; `None` if no relation can hold.
fn compared(key: Option<&KeyVersion>, target: &CompareTarget) -> Option<Ordering> {
    let number = |of: fn(&KeyVersion) -> u64| key.map_or(0, of);
    Some(match target {
        CompareTarget::Version(version) => number(|key| key.version).cmp(version),
        CompareTarget::Create(revision) => number(|key| key.created).cmp(revision),
        CompareTarget::Mod(revision) => number(|key| key.modified).cmp(revision),
        CompareTarget::Lease(lease) => {
            number(|key| key.lease.map_or(0, |id| id.0)).cmp(&lease.map_or(0, |id| id.0))
        }
        CompareTarget::Value(value) => key?.value.as_ref()?.cmp(value),
    })
}

fn is(relation: Relation, order: Ordering) -> bool {
    match relation {
        Relation::Equal => order.is_eq(),
        Relation::NotEqual => order.is_ne(),
        Relation::Greater => order.is_gt(),
        Relation::Less => order.is_lt(),
    }
}
