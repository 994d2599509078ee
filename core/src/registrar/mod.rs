//! What a node says to the registry about itself, its sessions and its rooms (rows S1,
//! S2, M1).
//!
//! # Claims
//!
//! A session or a room is claimed by a transaction that writes its record with a lease if
//! the record still is what was seen last, and reads it otherwise. It can be sent again,
//! so an answer that never came is not guessed: the record says what came of it. A session
//! is taken over from whoever has it, the newest connection wins; a room only from a node
//! that does not live, which the transaction itself makes sure of. The epoch of a claim is
//! the revision that wrote it and the base of the store's generation (`registry.proto`), so
//! no two have the same, and a later one has a higher, whatever becomes of the store.
//!
//! One thing comparing cannot exclude: a request that was given up may be done long after.
//! A session that it registers is told by the watch, and deleted if nobody here holds it. A
//! room that it registers stays until the room is claimed here again, which finds it, with
//! an epoch that nobody was told of; others are told [`RoomClaim::Elsewhere`], and ask here.
//!
//! # Leases
//!
//! The node's record and its sessions live with one lease, its rooms with another that
//! lasts longer. `holder.rs` has the machine and `transitions.txt` its graph. A lease
//! surely lives from when the request that made or prolonged it was *sent*, for its time to
//! live less a margin; when that is over the node stops ([`Decision::NotServing`]),
//! whatever is in flight, and goes on asking: the lease may live yet, and then nothing is
//! lost.
//!
//! When the node's lease is over, all is registered afresh with a new one: first the node;
//! then every room that is held is checked, since it could be taken over while the node's
//! record was gone, and only then [`Decision::Serving`] is said; sessions follow in the
//! background, in batches. A session keeps its epoch if its record is unchanged, gets a new
//! one if it was gone, and is lost ([`Decision::SessionLost`]) if it is another node's. When
//! the rooms' lease is over, all rooms are lost: another node may have had them since, and a
//! room that is opened again under the old members' feet is a new life of the room, which
//! the node has to begin as one.
//!
//! # Writes
//!
//! `write_check.rs` finds out, also while nothing is claimed, whether the registry takes
//! writes ([`Registrar::write_failure`]).
//!
//! # News
//!
//! `/nodes/` and `/sessions/` are read and then watched from the revision after that of the
//! read. If that is compacted they are read again, and compared.

mod claim;
mod config;
mod deployment;
mod directory;
mod event;
mod follow;
mod generation;
mod holder;
mod keys;
mod news;
mod pending;
mod presence;
mod serve;
mod table;
#[cfg(test)]
mod tests;
mod witness;
mod write_check;

use alloc::collections::VecDeque;

use skirmish_proto::v1;

pub use self::config::RegistrarConfig;
pub use self::deployment::key_fingerprint;
pub use self::event::{Anew, Decision, Full, RegistrarStats, RoomClaim, SessionClaim};
pub use self::holder::LeaseState;
pub use self::keys::{node_key, record_owner};

use self::claim::{Attempt, Goal};
use self::directory::Directory;
use self::follow::Follow;
use self::generation::Generation;
use self::holder::Holder;
use self::keys::{RoomState, Subject};
use self::pending::{Pending, Purpose};
use self::presence::Presence;
use self::table::{Claim, Table, Task};
use self::witness::Witness;
use self::write_check::WriteCheck;
use crate::base::id::{Name, NodeId, SessionId};
use crate::base::plant::{Plant, Planted};
use crate::base::rng::{Rng, Seed};
use crate::base::time::{Deadline, Instant, Now, Wall};
use crate::registry::{Calls, Failure, LeaseId, RegistryCommand, RegistryEvent, Response};

/// The machine. Driven as the crate's documentation says; [`Self::poll_call`] and
/// [`Self::poll_decision`] are its outputs.
#[derive(Debug)]
pub struct Registrar {
    config: RegistrarConfig,
    me: NodeId,
    rng: Rng,
    /// The latest time heard of.
    now: Instant,
    wall: Wall,
    running: bool,
    serving: bool,
    calls: Calls<Pending>,
    decisions: VecDeque<Decision>,
    generation: Generation,
    witness: Witness,
    node_lease: Holder,
    room_lease: Holder,
    presence: Presence,
    write_check: WriteCheck,
    directory: Directory,
    /// A node of another deployment, which was there before this one.
    stranger: Option<NodeId>,
    nodes: Follow,
    sessions: Follow,
    table: Table,
    /// Sessions are not registered again before.
    again_at: Instant,
    next_claim: u64,
    stats: RegistrarStats,
    planted: Planted,
}

impl Registrar {
    /// A registrar that has not started. Requests and watches are identified by
    /// `first_call`, `first_call + call_step` and so on; leases by numbers drawn from the
    /// seed.
    #[must_use]
    pub fn new(
        config: RegistrarConfig,
        node: NodeId,
        record: v1::NodeRecord,
        seed: Seed,
        first_call: u64,
        call_step: u64,
    ) -> Self {
        Self {
            node_lease: Holder::new(config.node_ttl),
            room_lease: Holder::new(config.room_ttl),
            config,
            me: node,
            rng: Rng::new(seed),
            now: Instant::ZERO,
            wall: Wall(0),
            running: false,
            serving: false,
            calls: Calls::new(first_call, call_step),
            decisions: VecDeque::new(),
            generation: Generation::default(),
            witness: Witness::default(),
            presence: Presence::new(record),
            write_check: WriteCheck::default(),
            directory: Directory::default(),
            stranger: None,
            nodes: Follow::new(keys::NODES),
            sessions: Follow::new(keys::SESSIONS),
            table: Table::default(),
            again_at: Instant::ZERO,
            next_claim: 0,
            stats: RegistrarStats::default(),
            planted: Planted::default(),
        }
    }

    /// Plants a bug.
    #[cfg(feature = "plant")]
    pub(crate) fn plant(&mut self, planted: Planted) {
        self.planted = planted;
        self.generation.plant(planted);
    }

    // Getters.

    /// Whether both leases surely live, by the registry's clock too, and every room that
    /// is held was seen to be ours under them.
    #[must_use]
    pub fn may_serve(&self, now: Instant) -> bool {
        let lives = self.node_lease.surely_lives(now)
            && self.room_lease.surely_lives(now)
            && self.generation.surely_goes_on(now);
        self.serving && (lives || self.planted.is(Plant::LeaseAssumed))
    }

    /// The epoch of a player's session, if this node has it as far as is known.
    #[must_use]
    pub fn holds_session(&self, player: &Name) -> Option<u64> {
        self.holds(&Subject::Session(player.clone()))
    }

    /// Whether a claim of the player's session waits, and nothing is to be done after it.
    #[must_use]
    pub fn claims_session(&self, player: &Name) -> bool {
        let entry = self.table.entries.get(&Subject::Session(player.clone()));
        entry.is_some_and(|entry| entry.is_claimed())
    }

    /// The epoch of a room, if this node is its primary as far as is known.
    #[must_use]
    pub fn holds_room(&self, room: &Name) -> Option<u64> {
        self.holds(&Subject::Room(room.clone()))
    }

    fn holds(&self, subject: &Subject) -> Option<u64> {
        Some(self.table.entries.get(subject)?.held?.epoch)
    }

    /// The record of a node that lives, this one included.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&v1::NodeRecord> {
        self.directory.get(id)
    }

    /// The nodes that live, this one included, in the order of their identifiers.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &v1::NodeRecord)> {
        self.directory.iter()
    }

    /// True while the node is registered, once it has read which others are.
    #[must_use]
    pub const fn knows_nodes(&self) -> bool {
        self.node_lease.is_registered() && self.nodes.was_read()
    }

    /// The lease that the node's record hangs on, while it does.
    #[must_use]
    pub fn lease(&self) -> Option<LeaseId> {
        self.node_lease.is_registered().then(|| self.node_lease.id())
    }

    /// How it stands with the leases of the node and of its rooms.
    #[must_use]
    pub const fn leases(&self) -> [LeaseState; 2] {
        [self.node_lease.state(), self.room_lease.state()]
    }

    /// Figures.
    #[must_use]
    pub fn stats(&self) -> RegistrarStats {
        RegistrarStats {
            sessions: self.table.sessions,
            rooms: self.table.rooms,
            claims: self.table.claims.len(),
            in_flight: self.table.in_flight,
            background: self.table.background,
            doubtful: self.table.doubtful(),
            leases_lost: self.node_lease.lost + self.room_lease.lost,
            ..self.stats
        }
    }

    /// Checks every bound (G11). Looks at everything there is: for simulation and
    /// debugging.
    ///
    /// # Errors
    /// Names the bound that does not hold.
    pub fn audit(&self) -> Result<(), &'static str> {
        let check = |holds: bool, bound| if holds { Ok(()) } else { Err(bound) };
        check(self.table.claims.len() <= self.config.claims, "claims of the registrar")?;
        check(self.table.entries.len() <= self.config.keys, "sessions and rooms of the registrar")?;
        check(self.table.in_flight <= self.config.in_flight, "requests in flight")?;
        check(self.table.background <= self.config.batch, "requests in the background")?;
        // Two leases, two directories, the refreshing, the generation, the witness, the check of
        // writes; one of each that is outdated; and two leases of another life.
        check(self.calls.len() <= self.table.in_flight + 18, "calls")?;
        self.table.audit()
    }

    // Commands.

    /// Registers the node, and follows the others.
    pub fn start(&mut self, now: Now) {
        let now = self.observe(now);
        if !self.running {
            self.running = true;
            self.generation.start(now);
            self.write_check.start(now);
            self.node_lease.start(now);
            self.room_lease.start(now);
            self.nodes.start(now);
            self.sessions.start(now);
        }
        self.finish(now);
    }

    /// Claims a player's session, wherever it is now; `named` goes on if that is the one
    /// there is, else `fresh` takes its place. Claims and releases of one player are done
    /// one after another, in order; every claim is answered with its `token`.
    ///
    /// # Errors
    /// [`Full`].
    pub fn claim_session(
        &mut self,
        now: Now,
        token: u64,
        player: &Name,
        named: Option<SessionId>,
        fresh: SessionId,
    ) -> Result<(), Full> {
        let now = self.observe(now);
        let subject = Subject::Session(player.clone());
        self.make_place(&subject)?;
        let claim =
            Claim { serial: self.next_claim, until: now + self.config.claim_timeout, token, named, fresh };
        self.claim(now, &subject, claim);
        Ok(())
    }

    /// Gives a player's session up. Its record is deleted if it is ours, however long that
    /// takes.
    pub fn release_session(&mut self, now: Now, player: &Name) {
        self.release(now, &Subject::Session(player.clone()));
    }

    /// Claims a room. All claims of a room that wait get one answer.
    ///
    /// # Errors
    /// [`Full`].
    pub fn claim_room(&mut self, now: Now, room: &Name) -> Result<(), Full> {
        let now = self.observe(now);
        let subject = Subject::Room(room.clone());
        if self.table.entries.get(&subject).is_some_and(|entry| entry.is_claimed()) {
            return Ok(());
        }
        self.make_place(&subject)?;
        let none = SessionId([0; 16]);
        let until = now + self.config.claim_timeout;
        let claim = Claim { serial: self.next_claim, until, token: 0, named: None, fresh: none };
        self.claim(now, &subject, claim);
        Ok(())
    }

    /// Gives a room up, as [`Self::release_session`].
    pub fn release_room(&mut self, now: Now, room: &Name) {
        self.release(now, &Subject::Room(room.clone()));
    }

    /// Somebody takes this node for the primary of a room that it knows nothing of: if there
    /// is a record that says so, of a claim that was done long after it was given up, it is
    /// deleted. Nothing is written if there is none, as those who look meanwhile would be
    /// sent here once more.
    pub fn sweep_room(&mut self, now: Now, room: &Name) {
        let now = self.observe(now);
        let subject = Subject::Room(room.clone());
        if self.table.entries.get(&subject).is_none_or(|entry| entry.is_unused()) {
            self.sweep(now, &subject, Attempt::new(Goal::Drop));
        }
        self.finish(now);
    }

    /// What is new in a room that is held: members, the application's turn, and when it
    /// ends in Unix milliseconds (0: never). Of what comes faster than
    /// [`RegistrarConfig::room_refresh`] the newest is written; another turn at once.
    pub fn update_room(&mut self, now: Now, room: &Name, players: u32, turn: u32, countdown_ms: u64) {
        let now = self.observe(now);
        let subject = Subject::Room(room.clone());
        if let Some(entry) = self.table.entries.get_mut(&subject)
            && entry.held.is_some()
        {
            entry.room.wanted = RoomState { players, turn, countdown_ms };
            if entry.work.is_none() {
                self.advance(now, &subject);
            }
        }
        self.finish(now);
    }

    /// How much the node has to do. Written with the next keep-alive, not more often than
    /// [`RegistrarConfig::refresh`]; that it drains is written at once.
    pub fn set_metadata(&mut self, now: Now, connections: u32, rooms: u32, draining: bool) {
        let now = self.observe(now);
        if self.presence.set_metadata(connections, rooms, draining) {
            self.refresh(now);
        }
        self.finish(now);
    }

    /// Ends gracefully: revokes the leases, with which every record goes. Claims that wait
    /// are unavailable.
    pub fn stop(&mut self, now: Now) {
        let now = self.observe(now);
        if self.running {
            self.running = false;
            self.calls.forget();
            self.presence.forget();
            self.write_check.forget();
            self.forget_entries();
            let watches = [self.nodes.stop(), self.sessions.stop(), self.generation.stop()];
            for watch in watches.into_iter().flatten() {
                self.calls.unwatch(watch);
            }
            self.node_lease.stop(now);
            self.room_lease.stop(now);
        }
        self.finish(now);
    }

    // Inputs.

    /// The registry said something.
    pub fn handle_told(&mut self, now: Now, told: RegistryEvent) {
        let now = self.observe(now);
        match told {
            RegistryEvent::Reply { id, outcome } => {
                if let Some(pending) = self.calls.take(id) {
                    self.handle_outcome(now, pending, outcome);
                }
            }
            RegistryEvent::Watched(watched) => self.handle_watched(now, watched),
            RegistryEvent::Connected { cluster } => self.handle_connected(now, cluster),
        }
        self.finish(now);
    }

    /// Time at which the oldest request counts as lost.
    fn lost_at(&self) -> Option<Instant> {
        self.calls.oldest().map(|pending| pending.sent + self.config.call_timeout)
    }

    /// A deadline has come, or may have.
    pub fn handle_timeout(&mut self, now: Now) {
        let now = self.observe(now);
        while self.lost_at().is_some_and(|at| at <= now)
            && let Some(pending) = self.calls.take_oldest()
        {
            self.handle_outcome(now, pending, Err(Failure::Unknown));
        }
        while let Some((serial, subject)) = self.table.take_overdue(now) {
            self.expire_claim(now, serial, &subject);
        }
        while let Some(subject) = self.table.take_due(now) {
            self.advance(now, &subject);
        }
        self.finish(now);
    }

    // Polls.

    /// What is asked of the registry.
    #[must_use]
    pub fn poll_call(&mut self) -> Option<RegistryCommand> {
        self.calls.poll()
    }

    /// What the node has to know.
    #[must_use]
    pub fn poll_decision(&mut self) -> Option<Decision> {
        self.decisions.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called, and why.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        if self.calls.is_queued() || !self.decisions.is_empty() {
            return Some(Deadline::new(self.now, "output is queued"));
        }
        let because = |at: Option<Instant>, reason| at.map(|at| Deadline::new(at, reason));
        [
            self.node_lease.deadline().filter(|_| self.may_register()),
            self.room_lease.deadline().filter(|_| self.may_register()),
            because(self.generation.deadline().filter(|_| self.running), "the generation is looked at"),
            because(self.witness.deadline().filter(|_| self.running), "the newest write is read again"),
            because(
                self.generation.lapse(self.now).filter(|_| self.running),
                "the generation may have changed",
            ),
            because(self.write_check.deadline().filter(|_| self.running), "writes are checked"),
            because(self.lost_at(), "the registry does not answer"),
            because(self.table.claims.first_key_value().map(|((at, _), _)| *at), "a claim is overdue"),
            because(self.table.next_timer(), "a session or a room is tried again"),
            because(self.nodes.deadline().filter(|_| self.may_rely_on_store()), "the nodes are read again"),
            because(
                self.sessions.deadline().filter(|_| self.may_rely_on_store()),
                "the sessions are read again",
            ),
            because(self.again_deadline(), "sessions are registered again"),
        ]
        .into_iter()
        .fold(None, Deadline::earliest)
    }

    // What inputs and commands have in common.

    fn observe(&mut self, now: Now) -> Instant {
        (self.now, self.wall) = (self.now.max(now.instant), now.wall);
        self.now
    }

    fn make_place(&mut self, subject: &Subject) -> Result<(), Full> {
        let is_new = !self.table.entries.contains_key(subject);
        if self.table.claims.len() >= self.config.claims
            || is_new && self.table.entries.len() >= self.config.keys
        {
            return Err(Full);
        }
        self.next_claim += 1;
        Ok(())
    }

    fn claim(&mut self, now: Instant, subject: &Subject, claim: Claim) {
        self.table.claims.insert((claim.until, claim.serial), subject.clone());
        self.table.entries.entry(subject.clone()).or_default().tasks.push_back(Task::Claim(claim));
        if self.running {
            self.advance(now, subject);
        } else {
            self.table.claims.remove(&(claim.until, claim.serial));
            self.expire_claim(now, claim.serial, subject);
        }
        self.finish(now);
    }

    fn release(&mut self, now: Now, subject: &Subject) {
        let now = self.observe(now);
        if let Some(entry) = self.table.entries.get_mut(subject)
            && !matches!(entry.tasks.back(), Some(Task::Release))
        {
            entry.tasks.push_back(Task::Release);
            self.advance(now, subject);
        }
        self.finish(now);
    }

    fn handle_outcome(&mut self, now: Instant, pending: Pending, outcome: Result<Response, Failure>) {
        if matches!(outcome, Err(Failure::Unknown)) {
            self.stats.unknown += 1;
        }
        if matches!(pending.purpose, Purpose::WriteCheck) {
            self.handle_write_check(pending.sent, outcome.clone());
        } else {
            self.handle_refusal(now, &outcome);
        }
        let is_from_before = self.is_from_before(now, &pending, &outcome);
        let Pending { purpose, sent, registration, turns, writes, .. } = pending;
        if is_from_before {
            if let Purpose::Lease(which, ticket) = purpose {
                // The lease that was kept alive may be one that came back.
                self.handle_lease(now, which, (ticket, sent), Err(Failure::Unknown));
            }
            return;
        }
        if let (Ok(response), Some(key)) = (&outcome, writes)
            && response.wrote()
        {
            self.witness.acknowledged(key, response.revision);
        }
        match purpose {
            Purpose::Lease(which, ticket) => self.handle_lease(now, which, (ticket, sent), outcome),
            Purpose::Register(ticket) => self.handle_registered(now, (ticket, sent), outcome),
            Purpose::Refresh => self.handle_refreshed(now, registration, outcome),
            Purpose::Stray | Purpose::WriteCheck => {}
            Purpose::Generation => self.handle_generation(now, sent, outcome),
            Purpose::Witness => self.handle_witness(now, &outcome),
            Purpose::Read(topic) => self.handle_page(now, topic, outcome),
            Purpose::Key { subject, lease, background } => {
                self.table.in_flight -= 1;
                self.table.background -= usize::from(background);
                let outdated = registration != self.presence.registration()
                    || turns != self.generation.turns()
                    || lease != self.lease_of(&subject);
                self.handle_answer(now, &subject, lease, outdated, outcome);
            }
        }
    }

    /// What is due after every input and command.
    fn finish(&mut self, now: Instant) {
        self.poll_generation(now);
        self.poll_witness(now);
        self.poll_write_check(now);
        self.poll_leases(now);
        self.poll_directories(now);
        self.pump(now);
        self.settle(now);
    }

    /// Says so if the node may serve that might not before, or the other way round.
    fn settle(&mut self, now: Instant) {
        let serving = self.running
            && self.node_lease.surely_lives(now)
            && self.room_lease.surely_lives(now)
            && self.generation.surely_goes_on(now)
            && self.table.rooms_are_checked();
        let serving = serving || self.serving && self.planted.is(Plant::LeaseAssumed);
        if serving != self.serving {
            self.serving = serving;
            self.decisions.push_back(if serving { Decision::Serving } else { Decision::NotServing });
        }
    }
}
