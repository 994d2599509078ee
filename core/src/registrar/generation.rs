//! Generation of the store: detects that the registry is not the store that this node knows.
//!
//! A registry can go back: an operator restores a snapshot, wipes the store, or replaces it by another one.
//! Then revisions are given a second time, records and leases come back with their former owners, and watches
//! wait for revisions of the distant future. One key distinguishes such a store from the one before. The key
//! holds the *life*, a number drawn when the life began, and the *base*, which is added to a revision to make
//! an epoch.
//!
//! # Epochs
//!
//! The base only rises: to the wall clock, in microseconds, whenever a node starts or connects again. A store
//! writes less than once in a microsecond, so an epoch is above all epochs of earlier stores, even if no node
//! knows of them any more. A claim compares the key, so that no claim is made with an outdated base.
//!
//! # Detection
//!
//! * An answer has a lower revision than the store had when the request was sent. Answers of a single member
//!   (keep-alives) and news of watches prove nothing, since the member may lag; then the node reads the key.
//! * The key is gone, or has another life: another node has noticed.
//! * A write gets a revision that the store had before.
//! * The node's own record is older than its last acknowledged write, or the newest write of all is not in
//!   the store's history ([`super::witness`]).
//! * The connection leads to a cluster with another identifier.
//!
//! The node reads the key three times in the time to live of its lease. The node serves only while the last
//! read that found the life unchanged is younger than this time to live, less a margin.
//!
//! # A new life
//!
//! The first node that notices deletes the deployment's keys in the store and writes a new life, in one
//! transaction. The life is closed for the time to live of the rooms' lease, because until then nodes that
//! have not noticed may still lead rooms that have backups. All else ends sooner, with the node's lease. After
//! that time any node opens the life.

use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;
use prost::Message as _;
use skirmish_proto::v1;

use super::event::Anew;
use super::keys;
use super::witness::Witness;
use super::{Decision, Registrar, RegistrarConfig};
use crate::base::id::NodeId;
use crate::base::plant::{Plant, Planted};
use crate::base::rng::Rng;
use crate::base::time::{Duration, Instant, Wall};
use crate::registrar::pending::{Pending, Purpose};
use crate::registry::{
    Answer, Change, Compare, Delete, Error, Failure, KeyValue, News, Put, Range, RegistryOp, Request,
    Response, Span, Txn, Watch, WatchId,
};

/// Start of the time that bases count, as Unix time in milliseconds: 2020. Epochs of rooms fit into 53 bits
/// for 285 years from then.
const ORIGIN_MS: u64 = 1_577_836_800_000;

/// The generation's key as of the last read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KnownKey {
    pub(super) life: u64,
    pub(super) base: u64,
    pub(super) closed: bool,
    /// Revision of the last write of the key.
    pub(super) modified: u64,
}

impl KnownKey {
    fn of(kv: &KeyValue) -> Self {
        // An unreadable record decodes to life 0, which no node draws.
        let record = v1::GenerationRecord::decode(kv.value.clone()).unwrap_or_default();
        let v1::GenerationRecord { life, base, closed } = record;
        Self { life, base, closed, modified: kv.modified }
    }
}

/// Knowledge of this node about the store's generation.
#[derive(Debug, Default)]
pub(super) struct Generation {
    /// Life that this node takes part in.
    mine: Option<u64>,
    known: Option<KnownKey>,
    /// True if the key has to be read before the next write to it.
    unread: bool,
    /// True if the last read did not find the key.
    absent: bool,
    /// True if the store is not the known one: this node writes a new life, unless another node has already
    /// written one.
    returned: bool,
    /// True if the base has to be raised before the next claim.
    raise: bool,
    asked: bool,
    ask_at: Instant,
    failures: u32,
    /// End of the time in which nodes that have not noticed may serve; set while the life is closed.
    closed_until: Option<Instant>,
    /// End of the time that the last confirmation of the life covers.
    confirmed: Instant,
    /// Sending time of the last read that found the life of this node.
    read_at: Instant,
    /// Changes of the key so far. Requests sent before the last change are outdated.
    key_changes: u64,
    /// Highest revision of the store in this life.
    seen: u64,
    /// Upper bound of the epochs given so far, as far as is known.
    highest: u64,
    cluster: Option<u64>,
    /// Revision of the last write of the node's own record, as far as was known when the request about the
    /// key was sent.
    written: u64,
    watch: Option<WatchId>,
    planted: Planted,
}

/// Request about the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyAction {
    Read,
    /// Writes the first life of an empty store, or the next life.
    Begin,
    /// Raises the base, or opens the life, which has this number.
    Raise(u64),
}

impl Generation {
    #[cfg(feature = "plant")]
    pub(super) const fn plant(&mut self, planted: Planted) {
        self.planted = planted;
    }

    pub(super) fn start(&mut self, now: Instant) {
        (self.unread, self.raise, self.ask_at) = (true, true, now);
    }

    /// Stops. Returns the watch that the caller has to end, if any.
    pub(super) const fn stop(&mut self) -> Option<WatchId> {
        self.asked = false;
        self.watch.take()
    }

    /// Returns the key that claims compare; `None` while claims are not allowed.
    pub(super) fn open(&self) -> Option<KnownKey> {
        let ready = !self.raise && !self.returned;
        self.known.filter(|known| ready && !known.closed && self.mine == Some(known.life))
    }

    /// Returns the key if the node takes part in the store's life and may register.
    pub(super) fn joined(&self) -> Option<KnownKey> {
        self.known.filter(|known| !self.returned && self.mine == Some(known.life))
    }

    /// Returns true if the store is the known one with an open life, as far as is known.
    pub(super) fn goes_on(&self) -> bool {
        self.joined().is_some_and(|known| !known.closed)
    }

    /// Returns true if the store surely is the known one, with an open life.
    pub(super) fn surely_goes_on(&self, now: Instant) -> bool {
        self.goes_on() && (now < self.confirmed || self.is_blind())
    }

    /// Returns true if the store is the known one as of a read that was sent at this time or later.
    pub(super) fn is_confirmed_since(&self, at: Instant) -> bool {
        self.joined().is_some() && self.read_at >= at
    }

    /// Returns the time at which the node has to stop serving without another confirmation; `None` if the
    /// last confirmation has lapsed already.
    pub(super) fn lapse(&self, now: Instant) -> Option<Instant> {
        (now < self.confirmed).then_some(self.confirmed)
    }

    /// Returns true if this is the watch of the key.
    pub(super) fn watches(&self, id: WatchId) -> bool {
        self.watch == Some(id)
    }

    pub(super) const fn key_changes(&self) -> u64 {
        self.key_changes
    }

    pub(super) const fn seen(&self) -> u64 {
        self.seen
    }

    #[cfg_attr(
        not(feature = "plant"),
        allow(clippy::missing_const_for_fn, reason = "it is not, with the feature")
    )]
    fn is_blind(&self) -> bool {
        self.planted.is(Plant::GenerationIgnored)
    }

    /// Records that the store has had this revision.
    pub(super) fn see(&mut self, revision: u64) {
        self.seen = self.seen.max(revision);
        if let Some(known) = self.known {
            self.highest = self.highest.max(known.base.saturating_add(self.seen));
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        (!self.asked).then_some(self.ask_at)
    }

    /// Plans a read of the key as soon as possible.
    pub(super) fn plan_read(&mut self, now: Instant) {
        (self.unread, self.ask_at) = (true, now);
    }

    fn step(&self, now: Instant) -> KeyAction {
        match self.known {
            _ if self.unread => KeyAction::Read,
            None => KeyAction::Begin,
            Some(_) if self.absent || self.returned => KeyAction::Begin,
            Some(known) if known.closed && self.closed_until.is_some_and(|until| until <= now) => {
                KeyAction::Raise(known.life)
            }
            Some(known) if self.raise && !known.closed => KeyAction::Raise(known.life),
            Some(_) => KeyAction::Read,
        }
    }

    fn poll(&mut self, now: Instant, wall: Wall, me: NodeId, rng: &mut Rng) -> Option<Request> {
        if self.asked || now < self.ask_at {
            return None;
        }
        self.asked = true;
        let read = || RegistryOp::Range(Range::of(Span::one(keys::GENERATION)));
        let own = || RegistryOp::Range(Range::of(Span::one(keys::node_key(me))));
        let compare = match self.known {
            Some(known) if !self.absent => Compare::unchanged(keys::GENERATION, known.modified),
            _ => Compare::absent(keys::GENERATION),
        };
        let raised = self.raised(wall);
        let put = |life, closed| {
            let record = v1::GenerationRecord { life, base: raised, closed };
            RegistryOp::Put(Put::new(keys::GENERATION, record.encode_to_vec(), None))
        };
        let (compares, mut success) = match self.step(now) {
            KeyAction::Read => (vec![], vec![]),
            KeyAction::Raise(life) => (vec![compare], vec![put(life, false)]),
            KeyAction::Begin => {
                let mut ops: Vec<RegistryOp> =
                    keys::everything().map(|span| RegistryOp::Delete(Delete::of(span))).collect();
                // A node without a life of its own knows of no nodes to wait for, so the life that it writes
                // is open.
                ops.push(put(rng.range(1..=u64::MAX), self.mine.is_some()));
                (vec![compare], ops)
            }
        };
        success.extend([read(), own()]);
        Some(Request::Txn(Txn { compares, success, failure: vec![read(), own()] }))
    }

    /// Returns the base to write: no epoch that can have been given is higher.
    fn raised(&self, wall: Wall) -> u64 {
        let base = self.known.map_or(0, |known| known.base);
        if self.is_blind() {
            return base;
        }
        base.max(self.highest).max(wall.0.saturating_sub(ORIGIN_MS).saturating_mul(1000))
    }

    /// Handles the key as found by a read. Returns a reason if the node has to begin anew.
    fn find(&mut self, config: &RegistrarConfig, now: Instant, found: Option<&KeyValue>) -> Option<Anew> {
        let Some(kv) = found else {
            let had = self.known.is_some() && !self.absent;
            self.absent = true;
            return had.then_some(Anew::Emptied).filter(|_| !self.is_blind());
        };
        let found = KnownKey::of(kv);
        self.absent = false;
        if self.mine == Some(found.life) && self.known.is_some_and(|known| found.modified < known.modified) {
            // A late answer from before the last change.
            return None;
        }
        if self.known != Some(found) {
            // The action that follows from the change is due soon.
            (self.key_changes, self.ask_at) = (self.key_changes + 1, self.ask_at.min(now));
        }
        self.known = Some(found);
        if self.mine != Some(found.life) {
            self.closed_until = None;
        }
        if found.closed {
            let closed = config.node_ttl.max(config.room_ttl);
            self.closed_until.get_or_insert(now + closed);
        } else {
            self.closed_until = None;
        }
        // The writer of this base may know of fewer epochs.
        self.raise |= found.base < self.highest.saturating_sub(self.seen) && !self.is_blind();
        if self.mine == Some(found.life) {
            return None;
        }
        let had = self.mine.replace(found.life).is_some();
        let noticed = core::mem::take(&mut self.returned);
        (had && !noticed && !self.is_blind()).then_some(Anew::Life)
    }

    /// Plans the next request. Without an action that is due, three reads of the key fit into the time to
    /// live.
    fn rest(&mut self, config: &RegistrarConfig, sent: Instant, now: Instant, rng: &mut Rng) {
        let third = config.node_ttl / 3;
        let usual = sent + (third - rng.duration(Duration::ZERO..=third / 10));
        let is_due = self.step(now) != KeyAction::Read || self.unread;
        self.ask_at = if is_due { now } else { self.closed_until.map_or(usual, |until| until.min(usual)) };
    }

    fn fail(&mut self, config: &RegistrarConfig, now: Instant, rng: &mut Rng) {
        self.failures = self.failures.saturating_add(1);
        // The read shows the outcome of a lost write, and works with a store that refuses writes.
        self.unread = true;
        self.ask_at = now + config.backoff().after(self.failures, rng);
    }
}

impl Registrar {
    /// Sends the request about the generation that is due, if any.
    pub(super) fn poll_generation(&mut self, now: Instant) {
        if !self.running {
            return;
        }
        let Self { generation, presence, wall, me, rng, .. } = self;
        if let Some(request) = generation.poll(now, *wall, *me, rng) {
            generation.written = presence.written();
            self.send(now, Purpose::Generation, request);
        }
    }

    /// Returns true if an answer shows that the store may be another or an earlier one; the caller discards
    /// the answer. If the answer is proof, everything begins anew; otherwise the key is read.
    pub(super) fn is_from_before(
        &mut self,
        now: Instant,
        pending: &Pending,
        outcome: &Result<Response, Failure>,
    ) -> bool {
        let (revision, certain) = match outcome {
            Ok(Response { revision, answer: Answer::KeptAlive { .. } | Answer::TimeToLive { .. } }) => {
                (*revision, false)
            }
            Ok(Response { revision, .. }) => (*revision, true),
            // Nodes ask only for revisions that the store has reported, so the store has gone back.
            Err(Failure::Refused(Error::FutureRevision)) => (0, true),
            Err(_) => return false,
        };
        // A write makes a new revision, so the store had only the revision before.
        let is_write = matches!(outcome, Ok(response) if response.wrote());
        let had = revision.saturating_sub(u64::from(is_write));
        if had >= pending.seen || !self.running || self.generation.is_blind() {
            self.generation.see(revision);
            return false;
        }
        if certain {
            self.begin_anew(now, Anew::Revision { had: pending.seen, has: had });
        } else {
            self.generation.plan_read(now);
        }
        true
    }

    pub(super) fn handle_generation(
        &mut self,
        now: Instant,
        sent: Instant,
        outcome: Result<Response, Failure>,
    ) {
        self.generation.asked = false;
        let Some((found, own)) = outcome.as_ref().ok().and_then(read) else {
            self.stats.garbage += u64::from(outcome.is_ok());
            return self.generation.fail(&self.config, now, &mut self.rng);
        };
        let written = matches!(&outcome, Ok(Response { answer: Answer::Txn { succeeded: true, answers }, .. })
            if answers.len() > 2);
        self.generation.failures = 0;
        self.generation.unread = false;
        if let Some(why) = self.generation.find(&self.config, now, found) {
            return self.begin_anew(now, why);
        }
        if written {
            (self.generation.raise, self.generation.returned) = (false, false);
        }
        if let Some(known) = self.generation.joined() {
            let relied_on =
                self.config.node_ttl * (100 - u32::from(self.config.margin_percent.min(99))) / 100;
            self.generation.confirmed = self.generation.confirmed.max(sent + relied_on);
            self.generation.read_at = sent;
            let is_older = own.is_some_and(|kv| kv.modified < self.generation.written);
            if is_older && !self.generation.is_blind() {
                return self.begin_anew(now, Anew::Record);
            }
            let Self { generation, calls, .. } = self;
            let watch = || calls.watch(Watch::of(Span::one(keys::GENERATION), known.modified + 1));
            generation.watch.get_or_insert_with(watch);
        }
        self.generation.rest(&self.config, sent, now, &mut self.rng);
        self.unpark(now);
    }

    /// Handles the key as found by a transaction that compares it. Returns true if everything begins anew.
    pub(super) fn handle_found_generation(&mut self, now: Instant, found: Option<&KeyValue>) -> bool {
        let why = self.generation.find(&self.config, now, found);
        if let Some(why) = why {
            self.begin_anew(now, why);
        }
        why.is_some()
    }

    /// Handles news of the watch of the key.
    pub(super) fn handle_generation_watch(&mut self, now: Instant, news: &News) {
        match news {
            News::Compacted { .. } | News::Canceled => {
                self.generation.watch = None;
                // Not at once: a registry that refuses the watch would be asked in a tight loop.
                self.generation.unread = true;
            }
            News::Changes(changes) => {
                if let Some(change) = changes.last() {
                    let found = if let Change::Put { kv, .. } = change { Some(kv) } else { None };
                    self.handle_found_generation(now, found);
                }
            }
            News::Created | News::Progress => {}
        }
    }

    /// Handles a new connection. The connection may lead to another store, or to a store that has lost its
    /// last acknowledged writes without the knowledge of any live node.
    pub(super) fn handle_connected(&mut self, now: Instant, cluster: u64) {
        if !self.running || self.generation.is_blind() {
            return;
        }
        let before = self.generation.cluster.replace(cluster);
        if before.is_some_and(|before| before != cluster) {
            return self.begin_anew(now, Anew::Cluster);
        }
        self.generation.raise = true;
        self.generation.plan_read(now);
        self.witness.doubt(now);
    }

    /// Begins anew, since the store is not the known one. The node owns nothing any more, and the answers to
    /// open requests are ignored.
    pub(super) fn begin_anew(&mut self, now: Instant, why: Anew) {
        self.stats.generations += 1;
        self.calls.forget();
        self.write_check.forget();
        self.generation.seen = 0;
        self.witness = Witness::default();
        self.forget_entries();
        self.presence.begin_anew();
        let watches = [self.nodes.stop(), self.sessions.stop(), self.generation.watch.take()];
        for watch in watches.into_iter().flatten() {
            self.calls.unwatch(watch);
        }
        self.foreign_node = None;
        for id in self.directory.forget() {
            if id != self.me {
                self.decisions.push_back(Decision::NodeDown { id });
            }
        }
        self.nodes.start(now);
        self.sessions.start(now);
        // The leases may have come back with the store, and would live on there.
        for lease in [self.node_lease.id(), self.room_lease.id()].into_iter().filter(|lease| lease.0 > 0) {
            self.send(now, Purpose::Stray, Request::Revoke(lease));
        }
        let Self { node_lease, room_lease, config, rng, .. } = self;
        node_lease.handle_gone(config, now, rng);
        room_lease.handle_gone(config, now, rng);
        self.presence.lose_rooms(self.room_lease.lost);
        let generation = &mut self.generation;
        (generation.asked, generation.confirmed) = (false, Instant::ZERO);
        (generation.raise, generation.returned) = (true, why != Anew::Life);
        generation.key_changes += 1;
        if why != Anew::Life {
            (generation.closed_until, generation.absent, generation.known) = (None, false, None);
        }
        generation.plan_read(now);
        self.report_serving(now);
        self.decisions.push_back(Decision::Anew { why });
    }
}

/// Returns the generation's key and the node's own record, from the last two reads of a transaction.
fn read(response: &Response) -> Option<(Option<&KeyValue>, Option<&KeyValue>)> {
    let Answer::Txn { answers, .. } = &response.answer else { return None };
    let [.., Answer::Range { kvs: found, .. }, Answer::Range { kvs: own, .. }] = &answers[..] else {
        return None;
    };
    Some((found.first(), own.first()))
}

/// Returns the comparison that makes a transaction fail in another generation.
pub(super) fn guard(known: KnownKey) -> Compare {
    Compare::unchanged(Bytes::from_static(keys::GENERATION.as_bytes()), known.modified)
}
