//! Open requests of the registrar: the purpose of each, the registrar's knowledge at its sending time, and
//! the dispatch of the outcome.

use bytes::Bytes;

use super::Registrar;
use super::keys::Subject;
use super::lease_machine::RequestTag;
use super::witness::Write;
use crate::base::time::Instant;
use crate::registry::{Answer, Failure, LeaseId, Response};

/// Selects one of the two leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// Lease of the node's record.
    Node,
    /// Lease of the node's sessions and rooms.
    Room,
}

/// Selects one of the two watched directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Topic {
    Nodes,
    Sessions,
}

/// Purpose of a request.
#[derive(Clone, Debug)]
pub(super) enum Purpose {
    /// Grants, keeps alive or revokes a lease.
    Lease(Which, RequestTag),
    /// Writes the node's record.
    Register(RequestTag),
    /// Refreshes the node's record.
    Refresh,
    /// Reads or writes the generation's key.
    Generation,
    /// Reads this write again, which was the newest acknowledged one.
    Witness(Write),
    /// Checks that the registry takes writes.
    WriteCheck,
    /// Ends a lease of another life; the outcome is ignored.
    Stray,
    /// Reads a page of a directory.
    Read(Topic),
    /// Reads or writes the record of a session or a room, under this lease; `background` if no player waits.
    Key { subject: Subject, lease: LeaseId, background: bool },
}

impl Purpose {
    /// Returns true if an answer is of the type that the request of this purpose has.
    pub(super) const fn fits(&self, answer: &Answer) -> bool {
        match (self, answer) {
            (Self::Lease(..), Answer::Granted { .. } | Answer::KeptAlive { .. } | Answer::Revoked)
            | (Self::Stray, Answer::Revoked)
            | (
                Self::Register(_) | Self::Refresh | Self::Generation | Self::WriteCheck | Self::Key { .. },
                Answer::Txn { .. },
            ) => true,
            // A page that is not the last one has keys.
            (Self::Witness(_) | Self::Read(_), Answer::Range { kvs, more, .. }) => !*more || !kvs.is_empty(),
            _ => false,
        }
    }
}

/// A request without an answer so far.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) purpose: Purpose,
    pub(super) sent: Instant,
    /// Number of the node's registration at the sending time.
    pub(super) registration: u64,
    /// Highest revision of the store that was known at the sending time.
    pub(super) seen: u64,
    /// Changes of the generation's key that were known at the sending time.
    pub(super) key_changes: u64,
    /// First key that the request writes if its comparisons hold.
    pub(super) writes: Option<Bytes>,
}

impl Registrar {
    /// Handles the outcome of a request that was open until then.
    pub(super) fn handle_outcome(
        &mut self,
        now: Instant,
        pending: Pending,
        mut outcome: Result<Response, Failure>,
    ) {
        if outcome.as_ref().is_ok_and(|response| !pending.purpose.fits(&response.answer)) {
            self.stats.garbage += 1;
            outcome = Err(Failure::Unknown);
        }
        if matches!(outcome, Err(Failure::Unknown)) {
            self.stats.unknown += 1;
        }
        if matches!(pending.purpose, Purpose::WriteCheck) {
            self.handle_write_check(pending.sent, outcome.clone());
        } else {
            self.handle_refusal(now, &outcome);
        }
        let is_from_before = self.is_from_before(now, &pending, &outcome);
        let Pending { purpose, sent, registration, key_changes, writes, .. } = pending;
        if is_from_before {
            // Everything begins anew, or this is a keep-alive, whose lease may be one that came back with a
            // restored store.
            if let Purpose::Lease(which, tag) = purpose {
                self.handle_lease(now, which, (tag, sent), Err(Failure::Unknown));
            }
            return;
        }
        if let (Ok(response), Some(key)) = (&outcome, writes)
            && response.wrote()
        {
            self.witness.acknowledged(key, response.revision);
        }
        match purpose {
            Purpose::Lease(which, tag) => self.handle_lease(now, which, (tag, sent), outcome),
            Purpose::Register(tag) => self.handle_registered(now, (tag, sent), outcome),
            Purpose::Refresh => self.handle_refreshed(now, registration, outcome),
            Purpose::Stray | Purpose::WriteCheck => {}
            Purpose::Generation => self.handle_generation(now, sent, outcome),
            Purpose::Witness(write) => self.handle_witness(now, &write, &outcome),
            Purpose::Read(topic) => self.handle_page(now, topic, outcome),
            Purpose::Key { subject, lease, background } => {
                self.table.in_flight -= 1;
                self.table.background -= usize::from(background);
                let outdated = registration != self.presence.registration()
                    || key_changes != self.generation.key_changes()
                    || lease != self.held_lease();
                self.handle_answer(now, &subject, lease, outdated, outcome);
            }
        }
    }
}
