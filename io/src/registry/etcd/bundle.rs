//! Bundles: which members of a group are done as one transaction, so that a group holds
//! many and etcd has little to do for each.
//!
//! A group is a transaction whose steps are bundles. etcd counts steps on the way down and
//! not in all, so groups are two levels deep: by far the most of what a request costs on
//! its own is paid once for several hundred members.
//!
//! Members without comparisons are done whatever else is: the steps of all are simply one
//! list. Members with comparisons are tied: all comparisons are those of the bundle. Members
//! are independent of each other, so if they hold, each would have found its own to hold,
//! and if one does not, nothing of the bundle is done, and its members are sent again, each
//! as a nested transaction with its own outcome. A nested transaction for each costs etcd a
//! fifth to a third more than tying does, but a bundle that fails is paid for twice: where
//! many fail, fewer are tied.

use skirmish_core::registry::{Op, Request, Txn};

/// Steps that a transaction may have, etcd's `--max-txn-ops`; for nested ones, all on the
/// way down.
const MAX_STEPS: usize = 128;

/// Bundles of a group, at most.
const BUNDLES: usize = 64;

/// Steps of a bundle on the way down, at most. What has as many by itself goes alone.
pub(super) const WIDTH: usize = MAX_STEPS - BUNDLES;

/// Groups answered until tying is tried again after it did not pay at all.
const RETRY: u32 = 32;

/// How a member may go with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// It has no comparisons: its steps are done in any case.
    Sure,
    /// It has, and may share the fate of others.
    Tied,
    /// As a nested transaction of its own.
    Apart,
}

/// What a member needs of a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Need {
    pub(super) way: Way,
    compares: usize,
    /// Steps if it succeeds.
    ops: usize,
    /// Steps on the deepest way down, if it is a nested transaction.
    pub(super) depth: usize,
}

impl Need {
    pub(super) fn of(request: &Request) -> Self {
        let Request::Txn(txn) = request else {
            return Self { way: Way::Sure, compares: 0, ops: 1, depth: 0 };
        };
        let way = match txn.compares.len() {
            _ if !may_leave_out_failure(txn) => Way::Apart,
            0 => Way::Sure,
            _ => Way::Tied,
        };
        Self { way, compares: txn.compares.len(), ops: txn.success.len(), depth: steps(txn) }
    }
}

/// Whether a transaction is the same without its other branch where its comparisons hold.
/// etcd refuses transactions also for what is in the branch that is not taken; for a plain
/// read of what is compared it has no reason that the comparison does not give it already.
fn may_leave_out_failure(txn: &Txn) -> bool {
    let is_flat = txn.success.iter().all(|op| !matches!(op, Op::Txn(_)));
    is_flat
        && txn.failure.iter().all(|op| match op {
            Op::Range(range) => {
                range.revision == 0 && txn.compares.iter().any(|compare| compare.span == range.span)
            }
            _ => false,
        })
}

/// How much deeper a transaction makes the one that it is nested in.
pub(super) fn steps(txn: &Txn) -> usize {
    let own = txn.compares.len().max(txn.success.len()).max(txn.failure.len());
    let nested = txn.success.iter().chain(&txn.failure).map(|op| match op {
        Op::Txn(txn) => steps(txn),
        _ => 0,
    });
    own + nested.max().unwrap_or(0)
}

/// Members that are done as one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bundle {
    pub(super) way: Way,
    /// Where they are among those of the group.
    pub(super) members: Vec<usize>,
    compares: usize,
    ops: usize,
    depth: usize,
}

impl Bundle {
    const fn new(way: Way) -> Self {
        Self { way, members: Vec::new(), compares: 0, ops: 0, depth: 0 }
    }

    fn add(&mut self, member: usize, need: Need) {
        self.members.push(member);
        self.compares += need.compares;
        self.ops += need.ops;
        self.depth = self.depth.max(need.depth);
    }

    fn has_room(&self, need: Need, tied: usize) -> bool {
        let size = self.members.len() + 1;
        let fits = self.compares + need.compares <= WIDTH && self.ops + need.ops <= WIDTH;
        match self.way {
            Way::Sure => fits,
            Way::Tied => fits && size <= tied,
            Way::Apart => size + self.depth.max(need.depth) <= WIDTH,
        }
    }
}

/// Packs the members of a group into bundles.
#[derive(Debug)]
pub(super) struct Packer {
    bundles: Vec<Bundle>,
    members: usize,
    /// How many may be tied together.
    tied: usize,
}

impl Packer {
    pub(super) const fn new(tied: usize) -> Self {
        Self { bundles: Vec::new(), members: 0, tied }
    }

    /// Adds the next member; `false` if there is no room. The first always has some.
    pub(super) fn add(&mut self, need: Need) -> bool {
        let way = if need.way == Way::Tied && self.tied < 2 { Way::Apart } else { need.way };
        // Only the newest of a way may have room.
        let newest = self.bundles.iter_mut().rev().find(|bundle| bundle.way == way);
        if let Some(bundle) = newest.filter(|bundle| bundle.has_room(need, self.tied)) {
            bundle.add(self.members, need);
        } else if self.bundles.len() < BUNDLES {
            let mut bundle = Bundle::new(way);
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
            // There is nothing to gain, and so it has its outcome at once.
            if bundle.way == Way::Tied && bundle.members.len() == 1 {
                bundle.way = Way::Apart;
            }
        }
        self.bundles
    }
}

/// How many are tied together, by how often that failed.
#[derive(Debug)]
pub(super) struct Trust {
    size: usize,
    /// Groups since none are tied.
    apart: u32,
}

impl Default for Trust {
    fn default() -> Self {
        Self { size: WIDTH, apart: 0 }
    }
}

impl Trust {
    /// Members of a tied bundle, at most.
    pub(super) const fn size(&self) -> usize {
        self.size
    }

    /// A group was answered: of so many tied bundles so many failed.
    pub(super) fn handle_answered(&mut self, tied: usize, failed: usize) {
        if self.size < 2 {
            self.apart += 1;
            if self.apart >= RETRY {
                *self = Self { size: 2, apart: 0 };
            }
        } else if failed * 4 > tied {
            *self = Self { size: self.size / 2, apart: 0 };
        } else if tied > 0 && failed == 0 {
            self.size = (self.size * 2).min(WIDTH);
        }
    }
}

#[cfg(test)]
#[path = "bundle_tests.rs"]
mod tests;
