//! Claims, leases and watches of a node in the registry (rows S1, S2, M1).
//!
//! # Claims
//!
//! A node claims a session or a room with one transaction. The transaction writes the record under a lease if
//! the record is unchanged since the node last saw it; otherwise the transaction reads the record. The node
//! can send the transaction again after a lost answer and need not guess: the record shows the outcome. A
//! session is claimed from any owner, since the newest connection wins. A room is claimed only from a node
//! that does not live, and the transaction itself checks this. The epoch of a claim is the revision of its
//! write plus the base of the store's generation (`registry.proto`). So no two claims have the same epoch,
//! and a later claim has a higher one, even after the store was restored, wiped or replaced.
//!
//! A room's record can name a backup (`rooms.rs`). Then only the backup can take the room over, in the next
//! term of the same epoch.
//!
//! Comparisons cannot exclude one case: the registry may execute a request long after the node has given the
//! request up. If such a request registers a session, the watch reports the record, and the node deletes the
//! record unless it holds the session. If such a request registers a room, the record stays until this node
//! claims the room again and finds the record, with an epoch that was announced to nobody. Other nodes get
//! [`RoomClaim::Elsewhere`] and ask this node.
//!
//! # Leases
//!
//! The node's record is attached to one lease, its sessions and rooms to another one that lasts longer. So the
//! session of a player that was away when its node died can still be resumed at another node. A claim of a
//! session never waits for the end of a lease.
//! `lease_machine.rs` has the machine and `transitions.txt` its graph. A lease surely lives from the time at
//! which its last acknowledged request (grant or keep-alive) was *sent*, for its time to live less a margin.
//! After that time the node stops ([`Decision::NotServing`]), even with requests in flight, and keeps asking:
//! if the lease still lives, nothing is lost.
//!
//! After the end of its lease, the node registers everything again under a new lease, in this order. First
//! the node writes its own record. Then it checks every held room, because another node could claim the room
//! while this node's record was gone. Only then does the registrar report [`Decision::Serving`]. Sessions
//! follow in the background, in batches. A session keeps its epoch if its record is unchanged. It gets a
//! new epoch if the record was gone. It is claimed again ([`Decision::SessionKept`]) if another node has claimed
//! the session for an older connection of the same client. It is lost ([`Decision::SessionLost`]) if another
//! node owns the record otherwise. At the end of the longer lease, all rooms are lost, because another node may
//! have been their primary in the meantime, and sessions are registered again. A room that opens again with the
//! old members is a new life of the room, and the node has to start it as one.
//!
//! # Writes
//!
//! `write_check.rs` finds out if the registry takes writes ([`Registrar::write_failure`]), even while the
//! node claims nothing.
//!
//! # Watches
//!
//! The registrar reads `/nodes/` and `/sessions/`, and then watches them from the revision after that of the
//! read. If that revision is compacted, the registrar reads them again and compares.

mod claim;
mod config;
mod deployment;
mod directory;
mod directory_events;
mod directory_watch;
mod event;
mod generation;
mod keys;
mod lease_machine;
mod pending;
mod presence;
mod rooms;
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
pub use self::event::{Anew, Decision, Full, RegistrarStats, Reign, RoomClaim, SessionClaim};
pub use self::keys::{node_key, record_owner};
pub use self::lease_machine::LeaseState;

use self::claim::Goal;
use self::directory::Directory;
use self::directory_watch::DirectoryWatch;
use self::generation::Generation;
use self::keys::Subject;
use self::lease_machine::LeaseMachine;
use self::pending::Pending;
use self::presence::Presence;
use self::serve::ClaimOutcome;
use self::table::{Claim, Table, Task};
use self::witness::Witness;
use self::write_check::WriteCheck;
use crate::base::bug::{Bug, Bugs};
use crate::base::id::{DialNumber, Name, NodeId, SessionId};
use crate::base::plant::{Plant, Planted};
use crate::base::rng::{Rng, Seed};
use crate::base::time::{Deadline, Instant, Now, Wall};
use crate::registry::{CallNumbers, Calls, Failure, LeaseId, RegistryCommand, RegistryEvent};

/// The state machine. Its driver follows the contract in the crate's documentation; [`Self::poll_call`] and
/// [`Self::poll_decision`] are the outputs.
#[derive(Debug)]
pub struct Registrar {
    config: RegistrarConfig,
    me: NodeId,
    rng: Rng,
    /// Latest time passed to an input or a command.
    now: Instant,
    wall: Wall,
    running: bool,
    serving: bool,
    calls: Calls<Pending>,
    decisions: VecDeque<Decision>,
    generation: Generation,
    witness: Witness,
    node_lease: LeaseMachine,
    room_lease: LeaseMachine,
    presence: Presence,
    write_check: WriteCheck,
    directory: Directory,
    /// Node of another deployment that registered before this node.
    foreign_node: Option<NodeId>,
    nodes: DirectoryWatch,
    sessions: DirectoryWatch,
    table: Table,
    /// Sessions are not registered again before this time.
    again_at: Instant,
    next_claim: u64,
    stats: RegistrarStats,
    bugs: Bugs,
    planted: Planted,
}

impl Registrar {
    /// Creates a registrar that has not started. Requests and watches get these numbers; the identifiers of
    /// leases are drawn from the seed.
    #[must_use]
    pub fn new(
        config: RegistrarConfig,
        node: NodeId,
        record: v1::NodeRecord,
        seed: Seed,
        numbers: CallNumbers,
    ) -> Self {
        Self {
            node_lease: LeaseMachine::new(config.node_ttl),
            room_lease: LeaseMachine::new(config.room_ttl),
            config,
            me: node,
            rng: Rng::new(seed),
            now: Instant::ZERO,
            wall: Wall(0),
            running: false,
            serving: false,
            calls: Calls::new(numbers),
            decisions: VecDeque::new(),
            generation: Generation::default(),
            witness: Witness::default(),
            presence: Presence::new(record),
            write_check: WriteCheck::default(),
            directory: Directory::default(),
            foreign_node: None,
            nodes: DirectoryWatch::new(keys::NODES),
            sessions: DirectoryWatch::new(keys::SESSIONS),
            table: Table::default(),
            again_at: Instant::ZERO,
            next_claim: 0,
            stats: RegistrarStats::default(),
            bugs: Bugs::new(),
            planted: Planted::default(),
        }
    }

    /// Plants a bug.
    #[cfg(feature = "plant")]
    pub(crate) fn plant(&mut self, planted: Planted) {
        self.planted = planted;
        self.bugs.plant(planted);
        self.generation.plant(planted);
    }

    // Getters.

    /// Returns true if both leases surely live, by the registry's clock too, the store is confirmed to be the
    /// known one, and every held room was seen to be owned by this node under these leases.
    #[must_use]
    pub fn may_serve(&self, now: Instant) -> bool {
        let lives = self.node_lease.surely_lives(now)
            && self.room_lease.surely_lives(now)
            && self.generation.surely_goes_on(now);
        self.serving && (lives || self.planted.is(Plant::LeaseAssumed))
    }

    /// Returns the epoch of a player's session, if this node owns the session as far as is known.
    #[must_use]
    pub fn holds_session(&self, player: &Name) -> Option<u64> {
        self.holds(&Subject::Session(player.clone()))
    }

    /// Returns true if a claim of the player's session waits and no release is queued after that claim.
    #[must_use]
    pub fn claims_session(&self, player: &Name) -> bool {
        let entry = self.table.entries.get(&Subject::Session(player.clone()));
        entry.is_some_and(|entry| entry.is_claimed())
    }

    fn holds(&self, subject: &Subject) -> Option<u64> {
        Some(self.table.entries.get(subject)?.held?.epoch)
    }

    /// Returns the record of a live node, this one included.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&v1::NodeRecord> {
        self.directory.get(id)
    }

    /// Returns the live nodes, this one included, in the order of their identifiers.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &v1::NodeRecord)> {
        self.directory.iter()
    }

    /// Returns true while the node is registered and has read the directory of nodes.
    #[must_use]
    pub const fn knows_nodes(&self) -> bool {
        self.node_lease.is_registered() && self.nodes.was_read()
    }

    /// Returns the lease that the node's record is attached to, while the node is registered.
    #[must_use]
    pub fn lease(&self) -> Option<LeaseId> {
        self.node_lease.is_registered().then(|| self.node_lease.id())
    }

    /// Returns the states of the node's lease and of the rooms' lease.
    #[must_use]
    pub const fn leases(&self) -> [LeaseState; 2] {
        [self.node_lease.state(), self.room_lease.state()]
    }

    /// Returns the current figures.
    #[must_use]
    pub fn stats(&self) -> RegistrarStats {
        RegistrarStats {
            sessions: self.table.index.sessions,
            rooms: self.table.index.rooms,
            claims: self.table.claims.len(),
            in_flight: self.table.in_flight,
            background: self.table.background,
            doubtful: self.table.index.doubtful(),
            leases_lost: self.node_lease.lost + self.room_lease.lost,
            ..self.stats
        }
    }

    /// Returns how often an invariant was found broken.
    pub(crate) const fn bugs_found(&self) -> u64 {
        self.bugs.count()
    }

    /// Records a broken invariant, as in production.
    #[cfg(test)]
    pub(crate) fn find_bug(&mut self, what: &'static str) {
        self.bugs = Bugs::lenient();
        self.bugs.found(what);
    }

    /// Checks every bound (G11). Visits every entry, so the check is for simulation and debugging only.
    ///
    /// # Errors
    /// Returns the name of the bound that does not hold.
    pub fn audit(&self) -> Result<(), &'static str> {
        let check = |holds: bool, bound| if holds { Ok(()) } else { Err(bound) };
        check(self.table.claims.len() <= self.config.claims, "claims of the registrar")?;
        check(self.table.entries.len() <= self.config.keys, "sessions and rooms of the registrar")?;
        check(self.table.in_flight <= self.config.in_flight, "requests in flight")?;
        check(self.table.background <= self.config.batch, "requests in the background")?;
        // Two leases, two directories, the refresh, the generation, the witness and the write check; an
        // outdated request of each; and the revocations of two leases of another life.
        check(self.calls.len() <= self.table.in_flight + 18, "calls")?;
        self.table.audit()
    }

    // Commands.

    /// Registers the node and starts to watch the directories of nodes and sessions.
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

    /// Claims a player's session from any owner, for the connection `dial`. The session `named` is resumed if
    /// the registry holds that session; otherwise `fresh` replaces the player's session. A claim for an older
    /// connection of the client that has the session is [`SessionClaim::Superseded`]. Claims and releases of one player are
    /// executed in order, one at a time. Every claim gets one answer, with its `token`.
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
        dial: DialNumber,
    ) -> Result<(), Full> {
        let now = self.observe(now);
        let subject = Subject::Session(player.clone());
        self.reserve_claim(&subject)?;
        let until = now + self.config.claim_timeout;
        let claim = Claim { serial: self.next_claim, until, token, named, fresh, dial };
        self.claim(now, subject, claim);
        Ok(())
    }

    /// Notes the newest connection of a session that this node owns. The record is not written.
    pub fn renew_session(&mut self, player: &Name, dial: DialNumber) {
        let entry = self.table.entries.get_mut(&Subject::Session(player.clone()));
        let Some(entry) = entry else { return };
        if let Some(held) = &mut entry.held {
            held.dial = dial;
        }
        if let Some(Goal::KeepSession { dial: kept, .. }) =
            entry.work.as_mut().map(|work| &mut work.attempt.goal)
        {
            *kept = dial;
        }
    }

    /// Reads the record of a session that this node owns: another node is said to have claimed the session.
    /// [`Decision::SessionLost`] or [`Decision::SessionKept`] follows if this is true.
    pub fn check_session(&mut self, now: Now, player: &Name) {
        let now = self.observe(now);
        let subject = Subject::Session(player.clone());
        if self.table.entries.get(&subject).is_some_and(|entry| entry.held.is_some()) {
            self.doubt(now, &subject);
        }
        self.finish(now);
    }

    /// Releases a player's session. If this node owns the record, the registrar deletes the record and
    /// retries without a time limit.
    pub fn release_session(&mut self, now: Now, player: &Name) {
        self.release(now, &Subject::Session(player.clone()));
    }

    /// Sets the load of the node. The next keep-alive writes the load, at most once in
    /// [`RegistrarConfig::refresh`]; a change of `draining` is written at once.
    pub fn set_metadata(&mut self, now: Now, connections: u32, rooms: u32, draining: bool) {
        let now = self.observe(now);
        if self.presence.set_metadata(connections, rooms, draining) {
            self.refresh(now);
        }
        self.finish(now);
    }

    /// Stops gracefully: revokes both leases, which deletes all records of the node. Waiting claims are
    /// answered as unavailable.
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

    /// Handles an event of the registry.
    pub fn handle_event(&mut self, now: Now, event: RegistryEvent) {
        let now = self.observe(now);
        match event {
            RegistryEvent::Reply { id, outcome } => {
                // The answer to a request that was given up is ignored.
                if let Some(pending) = self.calls.take(id) {
                    self.handle_outcome(now, pending, outcome);
                }
            }
            RegistryEvent::Watched(watched) => self.handle_watched(now, watched),
            RegistryEvent::Connected { cluster } => self.handle_connected(now, cluster),
        }
        self.finish(now);
    }

    /// Handles deadlines that are due. A spurious call is harmless.
    pub fn handle_timeout(&mut self, now: Now) {
        let now = self.observe(now);
        let timeout = self.config.call_timeout;
        while let Some(pending) = self.calls.take_oldest_if(|pending| pending.sent + timeout <= now) {
            self.handle_outcome(now, pending, Err(Failure::Unknown));
        }
        while let Some((serial, subject)) = self.table.take_overdue(now) {
            self.expire_claim(now, serial, &subject);
        }
        while let Some(subject) = self.table.take_due(&mut self.bugs, now) {
            self.advance(now, &subject);
        }
        self.finish(now);
    }

    // Polls.

    /// Returns the next command for the registry.
    #[must_use]
    pub fn poll_call(&mut self) -> Option<RegistryCommand> {
        self.calls.poll()
    }

    /// Returns the next decision for the node.
    #[must_use]
    pub fn poll_decision(&mut self) -> Option<Decision> {
        self.decisions.pop_front()
    }

    /// Returns the next broken invariant that was not told yet.
    pub(crate) fn poll_bug(&mut self) -> Option<Bug> {
        self.bugs.poll()
    }

    /// Returns the time of the next [`Self::handle_timeout`], with the reason.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        if self.calls.is_queued() || !self.decisions.is_empty() || self.bugs.has_news() {
            return Some(Deadline::new(self.now, "output is queued"));
        }
        let because = |at: Option<Instant>, reason| at.map(|at| Deadline::new(at, reason));
        let lost_at = self.calls.oldest().map(|pending| pending.sent + self.config.call_timeout);
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
            because(lost_at, "the registry does not answer"),
            because(self.table.claims.first_key_value().map(|((at, _), _)| *at), "a claim is overdue"),
            because(self.table.index.next_timer(), "a session or a room is tried again"),
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

    // Steps shared by inputs and commands.

    fn observe(&mut self, now: Now) -> Instant {
        (self.now, self.wall) = (self.now.max(now.instant), now.wall);
        self.now
    }

    fn reserve_claim(&mut self, subject: &Subject) -> Result<(), Full> {
        if self.table.claims.len() >= self.config.claims {
            return Err(Full);
        }
        self.reserve_entry(subject)?;
        self.next_claim += 1;
        Ok(())
    }

    fn reserve_entry(&self, subject: &Subject) -> Result<(), Full> {
        let is_new = !self.table.entries.contains_key(subject);
        if is_new && self.table.entries.len() >= self.config.keys { Err(Full) } else { Ok(()) }
    }

    fn claim(&mut self, now: Instant, subject: Subject, claim: Claim) {
        if self.running {
            self.table.entries.entry(subject.clone()).or_default().tasks.push_back(Task::Claim(claim));
            self.table.claims.insert((claim.until, claim.serial), subject.clone());
            self.advance(now, &subject);
        } else {
            self.answer(&subject, claim, ClaimOutcome::Unavailable);
        }
        self.finish(now);
    }

    fn release(&mut self, now: Now, subject: &Subject) {
        let now = self.observe(now);
        // Without an entry, this node neither owns nor claims the session or room.
        if let Some(entry) = self.table.entries.get_mut(subject)
            && !matches!(entry.tasks.back(), Some(Task::Release))
        {
            entry.tasks.push_back(Task::Release);
            self.advance(now, subject);
        }
        self.finish(now);
    }

    /// Runs the steps that are due after every input and command.
    fn finish(&mut self, now: Instant) {
        self.poll_generation(now);
        self.poll_witness(now);
        self.poll_write_check(now);
        self.poll_leases(now);
        self.poll_directories(now);
        self.pump(now);
        self.report_serving(now);
    }

    /// Reports a change between serving and not serving.
    fn report_serving(&mut self, now: Instant) {
        let serving = self.running
            && self.node_lease.surely_lives(now)
            && self.room_lease.surely_lives(now)
            && self.generation.surely_goes_on(now)
            && self.table.index.rooms_are_checked();
        let serving = serving || self.serving && self.planted.is(Plant::LeaseAssumed);
        if serving != self.serving {
            self.serving = serving;
            self.decisions.push_back(if serving { Decision::Serving } else { Decision::NotServing });
        }
    }
}
