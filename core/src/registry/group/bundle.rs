//! Bundles: members of a group that are executed as one transaction, so that a group holds many members at a
//! low cost for each.
//!
//! A group is a transaction with bundles as steps. etcd counts the steps along a path of nested transactions,
//! not in total, so a group is two levels deep. Most of the fixed cost of a request is paid once for several
//! hundred members.
//!
//! Members without comparisons are unconditional: their steps form one list. Members with comparisons are
//! shared: the bundle has the comparisons of all. Members are independent of each other, so if all
//! comparisons hold, each member alone would have succeeded. If one comparison does not hold, nothing of the
//! bundle is executed. Then its members are sent again, each as a nested transaction with an outcome of its
//! own. Nested transactions for single members cost etcd a fifth to a third more than sharing, but a failed
//! bundle is paid for twice. If many bundles fail, [fewer members share one](super::share_limit).

use alloc::vec::Vec;

use crate::registry::{RegistryOp, Request, Txn};

/// Maximum number of steps of a transaction (etcd's `--max-txn-ops`), counted along each path of nested
/// transactions.
pub(super) const MAX_STEPS: usize = 128;

/// Maximum number of bundles in a group.
pub(super) const BUNDLES: usize = 64;

/// Maximum number of steps of a bundle along each path. A request with as many steps of its own is sent
/// alone.
pub(super) const WIDTH: usize = MAX_STEPS - BUNDLES;

/// Kind of a bundle, or of a member: the kind of bundle that the member fits into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum BundleKind {
    /// Members without comparisons: their steps are always executed.
    Unconditional,
    /// Members with comparisons, all of which must hold.
    Shared,
    /// Each member is a nested transaction of its own.
    Nested,
}

/// Space that a member takes in a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Need {
    pub(super) kind: BundleKind,
    compares: usize,
    /// Steps of the success branch.
    ops: usize,
    /// Steps along the longest path, as a nested transaction.
    pub(super) depth: usize,
}

impl Need {
    pub(super) fn of(request: &Request) -> Self {
        let Request::Txn(txn) = request else {
            return Self { kind: BundleKind::Unconditional, compares: 0, ops: 1, depth: 0 };
        };
        let kind = match txn.compares.len() {
            _ if !may_leave_out_failure(txn) => BundleKind::Nested,
            0 => BundleKind::Unconditional,
            _ => BundleKind::Shared,
        };
        Self { kind, compares: txn.compares.len(), ops: txn.success.len(), depth: steps(txn) }
    }
}

/// Returns true if a transaction whose comparisons hold has the same effect without its failure branch. etcd
/// may refuse a transaction for steps of the branch that is not taken. A plain read of a compared span adds
/// no reason for a refusal that the comparison does not have.
fn may_leave_out_failure(txn: &Txn) -> bool {
    let is_flat = txn.success.iter().all(|op| !matches!(op, RegistryOp::Txn(_)));
    is_flat
        && txn.failure.iter().all(|op| match op {
            RegistryOp::Range(range) => {
                range.revision == 0 && txn.compares.iter().any(|compare| compare.span == range.span)
            }
            _ => false,
        })
}

/// Counts the steps along the longest path of a transaction.
pub(super) fn steps(txn: &Txn) -> usize {
    let own = txn.compares.len().max(txn.success.len()).max(txn.failure.len());
    let nested = txn.success.iter().chain(&txn.failure).map(|op| match op {
        RegistryOp::Txn(txn) => steps(txn),
        _ => 0,
    });
    own + nested.max().unwrap_or(0)
}

/// Members that are executed as one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bundle {
    pub(super) kind: BundleKind,
    /// Indices among the members of the group.
    pub(super) members: Vec<usize>,
    compares: usize,
    ops: usize,
    depth: usize,
}

impl Bundle {
    const fn new(kind: BundleKind) -> Self {
        Self { kind, members: Vec::new(), compares: 0, ops: 0, depth: 0 }
    }

    fn add(&mut self, member: usize, need: Need) {
        self.members.push(member);
        self.compares += need.compares;
        self.ops += need.ops;
        self.depth = self.depth.max(need.depth);
    }

    fn has_room(&self, need: Need, shared: usize) -> bool {
        let size = self.members.len() + 1;
        let fits = self.compares + need.compares <= WIDTH && self.ops + need.ops <= WIDTH;
        match self.kind {
            BundleKind::Unconditional => fits,
            BundleKind::Shared => fits && size <= shared,
            BundleKind::Nested => size + self.depth.max(need.depth) <= WIDTH,
        }
    }
}

/// Packs the members of a group into bundles.
#[derive(Debug)]
pub(super) struct Packer {
    bundles: Vec<Bundle>,
    members: usize,
    /// Maximum number of members of a shared bundle.
    shared: usize,
}

impl Packer {
    pub(super) const fn new(shared: usize) -> Self {
        Self { bundles: Vec::new(), members: 0, shared }
    }

    /// Adds the next member. Returns false if there is no room; the first member always has room.
    pub(super) fn add(&mut self, need: Need) -> bool {
        let is_lone = need.kind == BundleKind::Shared && self.shared < 2;
        let kind = if is_lone { BundleKind::Nested } else { need.kind };
        // Only the newest bundle of a kind may have room.
        let newest = self.bundles.iter_mut().rev().find(|bundle| bundle.kind == kind);
        if let Some(bundle) = newest.filter(|bundle| bundle.has_room(need, self.shared)) {
            bundle.add(self.members, need);
        } else if self.bundles.len() < BUNDLES {
            let mut bundle = Bundle::new(kind);
            bundle.add(self.members, need);
            self.bundles.push(bundle);
        } else {
            return false;
        }
        self.members += 1;
        true
    }

    pub(super) fn finish(mut self) -> Vec<Bundle> {
        for bundle in &mut self.bundles {
            // A single member gains nothing from sharing, and as a nested transaction it gets its outcome at
            // once.
            if bundle.kind == BundleKind::Shared && bundle.members.len() == 1 {
                bundle.kind = BundleKind::Nested;
            }
        }
        self.bundles
    }
}
