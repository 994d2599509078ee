//! Bundles: the members of a group that are done as one transaction, so that a group holds
//! many members at a low cost for each.
//!
//! A group is a transaction whose steps are bundles. etcd counts steps along a path of nested
//! transactions, not in all, so a group is two levels deep: most of the fixed cost of a
//! request is paid once for several hundred members.
//!
//! Members without comparisons are unconditional: the steps of all are one list. Members with
//! comparisons are shared: the bundle has the comparisons of all. Members are independent of
//! each other, so if all comparisons hold, each member alone would have succeeded. If one
//! comparison does not hold, nothing of the bundle is done, and its members are sent again,
//! each as a nested transaction with an outcome of its own. A nested transaction for each
//! member costs etcd a fifth to a third more than sharing, but a bundle that fails is paid for
//! twice: where many fail, [fewer are shared](super::share_limit).

use alloc::vec::Vec;

use crate::registry::{RegistryOp, Request, Txn};

/// Steps that a transaction may have, etcd's `--max-txn-ops`; counted along each path of nested
/// transactions.
pub(super) const MAX_STEPS: usize = 128;

/// Most bundles in a group.
pub(super) const BUNDLES: usize = 64;

/// Most steps of a bundle along each path. A request with as many of its own goes alone.
pub(super) const WIDTH: usize = MAX_STEPS - BUNDLES;

/// Kind of a bundle, and of a member by the kind of bundle that it can be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum BundleKind {
    /// Members without comparisons: their steps are done in any case.
    Unconditional,
    /// Members with comparisons, which all must hold.
    Shared,
    /// Each member is a nested transaction of its own.
    Nested,
}

/// Place that a member takes in a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Need {
    pub(super) kind: BundleKind,
    compares: usize,
    /// Steps if the member succeeds.
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

/// Returns true if a transaction does the same without its failure branch where its comparisons
/// hold. etcd also refuses a transaction for steps of the branch that is not taken; a plain read
/// of a compared span adds no reason that the comparison does not give already.
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

/// Members that are done as one transaction.
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
    /// Most members of a shared bundle.
    shared: usize,
}

impl Packer {
    pub(super) const fn new(shared: usize) -> Self {
        Self { bundles: Vec::new(), members: 0, shared }
    }

    /// Adds the next member; returns false if there is no room. The first member always has
    /// room.
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
            // Sharing with nobody gains nothing; a nested member has its outcome at once.
            if bundle.kind == BundleKind::Shared && bundle.members.len() == 1 {
                bundle.kind = BundleKind::Nested;
            }
        }
        self.bundles
    }
}
