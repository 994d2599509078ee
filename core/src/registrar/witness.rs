//! Checks that a store still has all writes of this node, by the newest write that the registry has
//! acknowledged (the witness).
//!
//! A restored store has lost all writes after a revision, so it has lost the newest write first. Once the
//! store has new writes beyond that revision, its revision shows nothing any more. Its history still does:
//! the witness's key, read at the revision of the witness, does not have that write. The node reads the
//! witness after every connection. If the revision is compacted, the witness proves nothing.

use bytes::Bytes;

use super::pending::Purpose;
use super::{Anew, Registrar, RegistrarConfig};
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::registry::{Answer, Error, Failure, Range, RegistryOp, Request, Response, Span};

/// The newest acknowledged write, and the state of its check.
#[derive(Debug, Default)]
pub(super) struct Witness {
    newest: Option<Write>,
    /// Time of the next read of the write; set while the store is in doubt.
    ask_at: Option<Instant>,
    /// True if a read is in flight.
    asked: bool,
    failures: u32,
}

/// A key, and the revision of a write of that key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Write {
    key: Bytes,
    revision: u64,
}

impl Witness {
    /// Handles the acknowledgement of a write of this key.
    pub(super) fn acknowledged(&mut self, key: Bytes, revision: u64) {
        if self.newest.as_ref().is_none_or(|newest| newest.revision < revision) {
            self.newest = Some(Write { key, revision });
        }
    }

    /// Plans a read of the witness: the store may have lost writes.
    pub(super) fn doubt(&mut self, now: Instant) {
        (self.ask_at, self.failures) = (Some(now), 0);
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.ask_at.filter(|_| !self.asked)
    }

    /// Returns the write to read, if the read is due. Without a write, none can be lost.
    fn poll(&mut self, now: Instant) -> Option<Write> {
        if self.deadline()? > now {
            return None;
        }
        self.ask_at = None;
        self.asked = self.newest.is_some();
        self.newest.clone()
    }

    /// Handles the outcome of the read of a write. Returns true if the store has lost the write.
    fn is_lost(
        &mut self,
        config: &RegistrarConfig,
        now: Instant,
        write: &Write,
        outcome: &Result<Response, Failure>,
        rng: &mut Rng,
    ) -> bool {
        self.asked = false;
        match outcome {
            Ok(Response { answer: Answer::Range { kvs, .. }, .. }) => {
                !kvs.iter().any(|kv| kv.key == write.key && kv.modified == write.revision)
            }
            Err(Failure::Refused(Error::Compacted)) => false,
            Ok(_) | Err(_) => {
                self.failures = self.failures.saturating_add(1);
                let again = now + config.backoff().after(self.failures, rng);
                self.ask_at = Some(self.ask_at.map_or(again, |at| at.min(again)));
                false
            }
        }
    }
}

/// Returns the first key that a request writes if its comparisons hold.
pub(super) fn written_key(request: &Request) -> Option<Bytes> {
    match request {
        Request::Put(put) => Some(put.key.clone()),
        Request::Txn(txn) => txn
            .success
            .iter()
            .find_map(|op| if let RegistryOp::Put(put) = op { Some(put.key.clone()) } else { None }),
        _ => None,
    }
}

impl Registrar {
    /// Reads the witness again if the store is in doubt.
    pub(super) fn poll_witness(&mut self, now: Instant) {
        if self.running
            && let Some(write) = self.witness.poll(now)
        {
            let mut read = Range { keys_only: true, ..Range::of(Span::one(write.key.clone())) };
            read.revision = write.revision;
            self.send(now, Purpose::Witness(write), Request::Range(read));
        }
    }

    pub(super) fn handle_witness(
        &mut self,
        now: Instant,
        write: &Write,
        outcome: &Result<Response, Failure>,
    ) {
        let Self { witness, config, rng, .. } = self;
        if witness.is_lost(config, now, write, outcome, rng) {
            self.begin_anew(now, Anew::Lost);
        }
    }
}
