//! The node's own record and its two leases (row S2).

use alloc::vec;

use prost::Message as _;
use skirmish_proto::v1;

use super::keys::{self, Subject};
use super::lease_machine::RequestTag;
use super::pending::{Pending, Purpose, Which};
use super::witness::written_key;
use super::{Decision, Registrar, generation};
use crate::base::time::{Duration, Instant};
use crate::registry::{
    Answer, Compare, Error, Failure, LeaseId, Put, Range, RegistryOp, Request, Response, Span, Txn,
};

/// The node's record in the registry.
#[derive(Debug)]
pub(super) struct Presence {
    record: v1::NodeRecord,
    /// True if the record differs from the one that was written last.
    dirty: bool,
    /// Registrations so far.
    registration: u64,
    /// Revision that created the record, while the record exists as far as is known.
    life: Option<u64>,
    /// Revision of the last write of the record, as read before this registration; 0: no record.
    seen: u64,
    /// Revision of the last acknowledged write of the record.
    written: u64,
    refreshed: Instant,
    refreshing: bool,
    /// Losses of the rooms' lease after which the rooms were given up.
    room_losses: u64,
}

impl Presence {
    pub(super) const fn new(record: v1::NodeRecord) -> Self {
        Self {
            record,
            dirty: false,
            registration: 0,
            life: None,
            seen: 0,
            written: 0,
            refreshed: Instant::ZERO,
            refreshing: false,
            room_losses: 0,
        }
    }

    pub(super) const fn record(&self) -> &v1::NodeRecord {
        &self.record
    }

    pub(super) const fn registration(&self) -> u64 {
        self.registration
    }

    /// Returns the revision that created the record.
    pub(super) const fn life(&self) -> Option<u64> {
        self.life
    }

    /// Returns the revision of the last acknowledged write of the record.
    pub(super) const fn written(&self) -> u64 {
        self.written
    }

    /// Handles a new store, which has no record of this node.
    pub(super) const fn begin_anew(&mut self) {
        self.forget();
        (self.seen, self.written, self.dirty) = (0, 0, false);
    }

    /// Records that the rooms were given up for this number of losses of their lease.
    pub(super) const fn lose_rooms(&mut self, losses: u64) {
        self.room_losses = losses;
    }

    /// Forgets the record and the refresh in flight.
    pub(super) const fn forget(&mut self) {
        self.life = None;
        self.refreshing = false;
    }

    /// Sets the load of the node. Returns true if other nodes need the change at once.
    pub(super) const fn set_metadata(&mut self, connections: u32, rooms: u32, draining: bool) -> bool {
        let record = &mut self.record;
        let urgent = record.draining != draining;
        self.dirty |= urgent || record.connections != connections || record.rooms != rooms;
        (record.connections, record.rooms, record.draining) = (connections, rooms, draining);
        urgent
    }
}

impl Registrar {
    /// Returns the lease that the records of sessions and rooms are attached to.
    pub(super) const fn held_lease(&self) -> LeaseId {
        self.room_lease.id()
    }

    /// Returns true if requests about sessions and rooms may be sent.
    pub(super) const fn can_ask(&self) -> bool {
        self.node_lease.is_registered() && self.room_lease.is_registered()
    }

    /// Returns true if the node may read the store or register in it: the node takes part in the store's
    /// life, or the registrar does not run.
    pub(super) fn may_rely_on_store(&self) -> bool {
        !self.running || self.generation.joined().is_some()
    }

    /// Sends the requests of the leases that are due.
    pub(super) fn poll_leases(&mut self, now: Instant) {
        if !self.may_register() {
            return;
        }
        let Self { node_lease, config, rng, .. } = self;
        if let Some((ask, tag)) = node_lease.poll(config, now, rng) {
            match node_lease.request(ask) {
                Some(request) => self.send(now, Purpose::Lease(Which::Node, tag), request),
                None => self.register(now, tag),
            }
        }
        let Self { room_lease, config, rng, .. } = self;
        if let Some((ask, tag)) = room_lease.poll(config, now, rng) {
            match room_lease.request(ask) {
                Some(request) => self.send(now, Purpose::Lease(Which::Room, tag), request),
                None => {
                    room_lease.handle_registered(rng);
                    self.unpark(now);
                }
            }
        }
        self.lose_rooms(now);
    }

    pub(super) fn handle_lease(
        &mut self,
        now: Instant,
        which: Which,
        call: (RequestTag, Instant),
        outcome: Result<Response, Failure>,
    ) {
        let Self { node_lease, room_lease, config, rng, .. } = self;
        let lease = match which {
            Which::Node => node_lease,
            Which::Room => room_lease,
        };
        lease.handle_outcome(config, now, call, outcome.as_ref().map_err(|failure| *failure), rng);
        let kept = matches!(outcome, Ok(Response { answer: Answer::KeptAlive { .. }, .. }));
        if kept && which == Which::Node && now.since(self.presence.refreshed) >= self.config.refresh {
            self.refresh(now);
        }
    }

    /// Handles a report of the registry that a lease is over, which may be an earlier lease of this node.
    pub(super) fn handle_lease_not_found(&mut self, now: Instant, id: LeaseId) {
        let Self { node_lease, room_lease, config, rng, .. } = self;
        for lease in [node_lease, room_lease] {
            if lease.id() == id {
                lease.handle_gone(config, now, rng);
            }
        }
    }

    /// Handles the absence of the node's record, or a foreign write to it.
    pub(super) fn handle_unregistered(&mut self, now: Instant) {
        if self.node_lease.is_registered() {
            self.node_lease.handle_gone(&self.config, now, &mut self.rng);
        }
    }

    /// Writes the node's record if the record is unchanged since the last read, and reads the record. A late
    /// registration under a lease that was given up therefore changes nothing.
    fn register(&mut self, now: Instant, tag: RequestTag) {
        let key = keys::node_key(self.me);
        let put = Put::new(key.clone(), self.presence.record.encode_to_vec(), Some(self.node_lease.id()));
        let read = || RegistryOp::Range(Range::of(Span::one(key.clone())));
        let compare = match self.presence.seen {
            0 => Compare::absent(key.clone()),
            seen => Compare::unchanged(key.clone(), seen),
        };
        let Some(generation) = self.generation.joined() else {
            self.bugs.found("a node registers in a life of the store that it takes no part in");
            let Self { node_lease, config, rng, .. } = self;
            return node_lease.handle_outcome(config, now, (tag, now), Err(Failure::Unavailable), rng);
        };
        let compares = vec![compare, generation::guard(generation)];
        let key = RegistryOp::Range(Range::of(Span::one(keys::GENERATION)));
        let (success, failure) = (vec![RegistryOp::Put(put), read()], vec![read(), key]);
        self.presence.dirty = false;
        self.presence.refreshed = now;
        let request = Request::Txn(Txn { compares, success, failure });
        self.send(now, Purpose::Register(tag), request);
    }

    pub(super) fn handle_registered(
        &mut self,
        now: Instant,
        call: (RequestTag, Instant),
        outcome: Result<Response, Failure>,
    ) {
        let read = match &outcome {
            Ok(Response { answer: Answer::Txn { succeeded: true, answers }, .. }) => match answers.last() {
                Some(Answer::Range { kvs, .. }) => Some((kvs.first(), None)),
                _ => None,
            },
            Ok(Response { answer: Answer::Txn { succeeded: false, answers }, .. }) => match &answers[..] {
                [Answer::Range { kvs, .. }, Answer::Range { kvs: key, .. }] => {
                    Some((kvs.first(), Some(key.first())))
                }
                _ => None,
            },
            _ => None,
        };
        if let Some((kv, Some(key))) = read
            && self.node_lease.awaits(call.0)
        {
            self.presence.seen = kv.map_or(0, |kv| kv.modified);
            if !self.handle_found_generation(now, key) {
                self.register(now, call.0);
            }
            return;
        }
        let life = read.and_then(|(kv, _)| kv).map(|kv| (kv.created, kv.modified));
        let Some((life, written)) = life.filter(|_| self.node_lease.awaits(call.0)) else {
            let outcome = outcome.as_ref().map_err(|failure| *failure);
            self.node_lease.handle_outcome(&self.config, now, call, outcome, &mut self.rng);
            return;
        };
        self.node_lease.handle_registered(&mut self.rng);
        (self.presence.life, self.presence.written) = (Some(life), written);
        self.presence.registration += 1;
        self.presence.refreshing = false;
        if self.presence.registration > 1 {
            self.again_at = now + self.rng.duration(Duration::ZERO..=self.config.jitter);
            self.doubt_everything(now);
        }
        self.review_deployment(now);
        self.unpark(now);
    }

    /// Writes the changes of the node's record, or confirms that the record exists. Without a record, the next
    /// registration writes the changes.
    pub(super) fn refresh(&mut self, now: Instant) {
        let Some(life) = self.presence.life.filter(|_| self.node_lease.is_registered()) else { return };
        if self.presence.refreshing {
            return;
        }
        let key = keys::node_key(self.me);
        let put = || Put::new(key.clone(), self.presence.record.encode_to_vec(), Some(self.node_lease.id()));
        let success = if self.presence.dirty { vec![RegistryOp::Put(put())] } else { vec![] };
        let lease = Compare::leased(key.clone(), self.node_lease.id());
        let compares = vec![Compare::same_life(key, life), lease];
        self.presence.dirty = false;
        self.presence.refreshing = true;
        self.presence.refreshed = now;
        let request = Request::Txn(Txn { compares, success, failure: vec![] });
        self.send(now, Purpose::Refresh, request);
    }

    pub(super) fn handle_refreshed(
        &mut self,
        now: Instant,
        registration: u64,
        outcome: Result<Response, Failure>,
    ) {
        if registration != self.presence.registration {
            return;
        }
        self.presence.refreshing = false;
        match outcome {
            Ok(Response { answer: Answer::Txn { succeeded: true, answers }, revision }) => {
                if !answers.is_empty() {
                    self.presence.written = revision;
                }
            }
            Ok(Response { answer: Answer::Txn { .. }, .. }) | Err(Failure::Refused(Error::LeaseNotFound)) => {
                self.handle_unregistered(now);
            }
            Ok(_) | Err(_) => self.presence.dirty = true,
        }
    }

    /// Gives up all rooms if their lease is over. The records of sessions are gone too, and are written
    /// again under the next lease.
    fn lose_rooms(&mut self, now: Instant) {
        if self.room_lease.lost == self.presence.room_losses {
            return;
        }
        self.presence.room_losses = self.room_lease.lost;
        for (room, held) in self.held(|subject, _| matches!(subject, Subject::Room(_))) {
            self.give_up(now, &room, held.epoch);
        }
        self.again_at = now + self.rng.duration(Duration::ZERO..=self.config.jitter);
        self.doubt_everything(now);
    }

    pub(super) fn say_kept(&mut self, subject: &Subject, epoch: u64) {
        if let Subject::Session(player) = subject.clone() {
            self.decisions.push_back(Decision::SessionKept { player, epoch });
        }
    }

    pub(super) fn say_lost(&mut self, subject: &Subject, epoch: u64) {
        self.decisions.push_back(match subject.clone() {
            Subject::Session(player) => Decision::SessionLost { player, epoch },
            Subject::Room(room) => Decision::RoomLost { room, epoch },
        });
    }

    pub(super) fn send(&mut self, now: Instant, purpose: Purpose, request: Request) {
        self.stats.requests += 1;
        let registration = self.presence.registration;
        let (seen, key_changes) = (self.generation.seen(), self.generation.key_changes());
        let writes = written_key(&request);
        self.calls.send(request, Pending { purpose, sent: now, registration, seen, key_changes, writes });
    }
}
