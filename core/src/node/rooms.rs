//! The rooms of a node: their table, and the effects of rooms on the rest of the node.
//!
//! A room changes only itself ([`Hosted`]). This module passes each input to its room and executes
//! the effects: frames to links, requests to the registry, events to sessions.

use alloc::vec::Vec;

use hashbrown::HashMap;
use skirmish_proto::v1;

use super::candidates::LinkedNodes;
use super::connection_inputs::Answered;
use super::{Event, LinkClosure, Node, Timer};
use crate::base::agenda::Booking;
use crate::base::bug::Bugs;
use crate::base::id::{Cursor, Name, NodeId, SessionId};
use crate::base::keyed_hasher::KeyedHasher;
use crate::base::plant::{Plant, Planted};
use crate::base::rng::{Rng, Seed};
use crate::base::slab::{Key, Slab};
use crate::base::time::{Instant, Now};
use crate::config::Config;
use crate::hosting::{
    Arrival, Departure, Hosted, KeptPlaces, LiveLeases, RoomContext, RoomCounts, RoomEffect, RoomEffects,
    RoomInput, join_deadline,
};
use crate::matchmaking::{PlayerTickets, keys};
use crate::node::sessions::Membership;
use crate::registrar::{Reign, RoomClaim};
use crate::wire::{self, RoomMessage, Zstd};

/// The rooms of a node, by key and by name, and the effects that are still to be executed.
#[derive(Debug)]
pub(super) struct RoomTable {
    slab: Slab<Placed>,
    by_name: HashMap<Name, Key, KeyedHasher>,
    effects: RoomEffects,
    attempts: u64,
}

/// A room, and the place of its deadline in the agenda.
#[derive(Debug)]
struct Placed {
    hosted: Hosted,
    booking: Booking,
}

/// Parts of a node that its rooms use.
pub(super) struct Surroundings<'a> {
    pub(super) node: NodeId,
    pub(super) leases: LiveLeases,
    pub(super) candidates: &'a LinkedNodes<'a>,
    pub(super) config: &'a Config,
    pub(super) places: &'a PlayerTickets,
    pub(super) rng: &'a mut Rng,
    pub(super) zstd: &'a mut Zstd,
    pub(super) bugs: &'a mut Bugs,
    pub(super) planted: Planted,
}

impl<'a> Surroundings<'a> {
    fn context(self, now: Now, attempts: &'a mut u64, effects: &'a mut RoomEffects) -> RoomContext<'a> {
        let Self { node, leases, candidates, config, places, rng, zstd, bugs, planted } = self;
        RoomContext {
            now,
            node,
            leases,
            candidates,
            config,
            places,
            attempts,
            rng,
            zstd,
            bugs,
            effects,
            planted,
        }
    }
}

/// The way in which a session comes into a room.
#[derive(Clone, Copy, Debug)]
pub(super) struct WayIn {
    /// Last entry delivered, if the session was a member.
    pub(super) resume: Option<Cursor>,
    /// Number of entries from before the join to deliver.
    pub(super) history: u32,
    /// Number of the client's request.
    pub(super) request: u64,
}

impl RoomTable {
    pub(super) fn new(total: usize, seed: Seed) -> Self {
        let by_name = HashMap::with_hasher(KeyedHasher::new(seed));
        Self { slab: Slab::new(total), by_name, effects: RoomEffects::new(), attempts: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.slab.len()
    }

    pub(super) const fn counts(&self) -> &RoomCounts {
        &self.effects.counts
    }

    pub(super) fn get(&self, room: Key) -> Option<&Hosted> {
        Some(&self.slab.get(room)?.hosted)
    }

    /// Returns a room, so that a test can plant a state.
    #[cfg(test)]
    pub(super) fn get_mut(&mut self, room: Key) -> Option<&mut Hosted> {
        Some(&mut self.slab.get_mut(room)?.hosted)
    }

    /// Returns the key of the room with a name.
    pub(super) fn named(&self, name: &str) -> Option<Key> {
        self.by_name.get(&Name::new(name).ok()?).copied()
    }

    pub(super) fn keys(&self) -> Vec<Key> {
        self.slab.keys().collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Hosted> {
        self.slab.keys().filter_map(|key| self.get(key))
    }

    /// Returns a room and the context of its next input; `None` if the room is gone.
    pub(super) fn enter<'a>(
        &'a mut self,
        now: Now,
        room: Key,
        around: Surroundings<'a>,
    ) -> Option<(&'a mut Hosted, RoomContext<'a>)> {
        let Self { slab, effects, attempts, .. } = self;
        let hosted = &mut slab.get_mut(room)?.hosted;
        effects.begin(room);
        Some((hosted, around.context(now, attempts, effects)))
    }

    /// Adds a room that is not in the table. Returns `None` if the table is full.
    fn open(&mut self, now: Now, name: &Name, around: Surroundings<'_>) -> Option<Key> {
        let Self { slab, by_name, effects, attempts } = self;
        let hosted = Hosted::new(&mut around.context(now, attempts, effects), name.clone());
        let room = slab.insert(Placed { hosted, booking: Booking::default() })?;
        by_name.insert(name.clone(), room);
        Some(room)
    }

    fn remove(&mut self, room: Key) -> Option<Placed> {
        let placed = self.slab.remove(room)?;
        self.by_name.remove(placed.hosted.room().name());
        Some(placed)
    }

    /// Checks that the tables agree.
    pub(super) fn audit(&self, total: usize) -> Result<(), &'static str> {
        if self.slab.len() > total {
            return Err("rooms");
        }
        if self.by_name.len() == self.slab.len() { Ok(()) } else { Err("names of rooms") }
    }
}

impl KeptPlaces for PlayerTickets {
    fn are_awaited(&self, room: &Name) -> bool {
        self.awaits_places(room)
    }

    fn kept_from(&self, room: &Name, player: &Name, members: &mut dyn Iterator<Item = &Name>) -> usize {
        self.kept_from(room, player, members)
    }
}

impl Node {
    // Inputs of rooms.

    /// Returns the leases that surely live.
    pub(super) fn leases(&self, now: Instant) -> LiveLeases {
        LiveLeases { lone: self.registrar.may_serve(now), rooms: self.registrar.keeps_rooms(now) }
    }

    /// Calls a room, and executes the effects. Returns `None` if the room is gone.
    pub(super) fn with_room<R>(
        &mut self,
        now: Now,
        room: Key,
        call: impl FnOnce(&mut Hosted, &mut RoomContext<'_>) -> R,
    ) -> Option<R> {
        let (node, leases) = (self.id, self.leases(now.instant));
        let Self { rooms, config, player_tickets, peers, registrar, rng, zstd, bugs, planted, .. } = self;
        let (candidates, places, planted) = (&LinkedNodes { peers, registrar }, player_tickets, *planted);
        let around = Surroundings { node, leases, candidates, config, places, rng, zstd, bugs, planted };
        let (hosted, mut cx) = rooms.enter(now, room, around)?;
        let result = call(hosted, &mut cx);
        self.settle_room(now, room);
        Some(result)
    }

    /// Passes an input to a room that is in the table.
    pub(super) fn room_input(&mut self, now: Now, room: Key, input: RoomInput) {
        if self.with_room(now, room, |hosted, cx| hosted.handle(cx, input)).is_none() {
            self.bugs.found("an input is for a room that is not in the table");
        }
    }

    /// Passes an input to a room that may be gone.
    pub(super) fn late_room_input(&mut self, now: Now, room: Key, input: RoomInput) {
        let _gone = self.with_room(now, room, |hosted, cx| hosted.handle(cx, input));
    }

    /// Executes the effects of an input of a room, and those of the inputs that follow.
    pub(super) fn settle_room(&mut self, now: Now, room: Key) {
        let marks = self.rooms.effects.marks;
        if marks.closed {
            if let Some(mut placed) = self.rooms.remove(room) {
                self.agenda.cancel(Timer::Room(room), &mut placed.booking);
            }
        } else {
            if marks.wake {
                self.wake_members(room);
            }
            if marks.wake || marks.wake_links {
                self.wake_readers(room);
            }
            self.book_room(room);
        }
        while let Some((room, name, effect)) = self.rooms.effects.poll() {
            self.carry_out(now, room, &name, effect);
        }
    }

    fn carry_out(&mut self, now: Now, room: Key, name: &Name, effect: RoomEffect) {
        match effect {
            RoomEffect::Claim => {
                if self.registrar.claim_room(now, name).is_err() {
                    self.late_room_input(now, room, RoomInput::Unclaimed);
                }
            }
            RoomEffect::Release => self.registrar.release_room(now, name),
            RoomEffect::Record { players, turn, turn_ends_ms } => {
                self.registrar.update_room(now, name, players, turn, turn_ends_ms);
            }
            RoomEffect::Pair { backup } => self.registrar.pair_room(now, name, backup),
            RoomEffect::Swap { term, primary, record } => {
                let epoch = self.rooms.get(room).map_or(0, |hosted| hosted.room().epoch());
                if self.registrar.swap_room(now, name, epoch, term, primary, record).is_err() {
                    self.late_room_input(now, room, RoomInput::Unclaimed);
                }
            }
            RoomEffect::TookOver { epoch, term } => {
                self.host(now, name);
                self.event(Event::TookOver { room: name.clone(), epoch, term });
            }
            RoomEffect::SteppedDown { epoch, term } => {
                self.player_tickets.unhost(name);
                // The record is of another term, and stays.
                self.registrar.release_room(now, name);
                self.event(Event::SteppedDown { room: name.clone(), epoch, term });
            }
            RoomEffect::Opened { epoch } => self.event(Event::RoomOpened { room: name.clone(), epoch }),
            RoomEffect::Closed { epoch } => {
                self.player_tickets.unhost(name);
                self.event(Event::RoomClosed { room: name.clone(), epoch });
            }
            RoomEffect::Tell { link, frame } => self.tell(now, link, frame),
            RoomEffect::Read { link } => self.peers.read(&mut self.outputs, link, room),
            RoomEffect::Unread { link } => self.peers.unread(link, room),
            RoomEffect::Gap { link } => self.drop_link(now, link, LinkClosure::Gap),
            RoomEffect::Follow { node } => {
                self.follow(now, node, room);
                if let Some(link) = self.peers.link_to(node) {
                    self.late_room_input(now, room, RoomInput::Linked { link, node });
                }
            }
            RoomEffect::Unfollow { node } => self.peers.unfollow(node, room),
            RoomEffect::Seated { session, seated } => {
                let Some(membership) = self.sessions.membership(session, room) else { return };
                membership.begin(seated);
                self.wake_session(session);
                if let Some(player) = self.sessions.get(session).map(|session| session.player().clone()) {
                    self.join_match(now, &player, name);
                }
            }
            RoomEffect::Hold { session, hold } => {
                if let Some(membership) = self.sessions.membership(session, room) {
                    membership.hold(hold);
                    self.wake_session(session);
                }
            }
            RoomEffect::Resend { session, expected } => {
                if let Some(membership) = self.sessions.membership(session, room) {
                    membership.resend(expected);
                    self.wake_session(session);
                }
            }
            RoomEffect::Expel { session, reason } => {
                let ended = self.sessions.end_membership(session, room);
                let answered = ended.map_or(Answered::Message, |ended| Answered::Join(ended.request()));
                if let Some(conn) = self.sessions.conn(session) {
                    self.left(now, conn.key(), name.as_str(), reason, answered);
                }
            }
            RoomEffect::Drop { session } => self.sessions.drop_membership(session, room),
            RoomEffect::Superseded { player, epoch } => self.session_superseded(now, &player, epoch),
            RoomEffect::Unwanted { link, session, player, exit } => {
                let here = self.sessions.of_player(&player).and_then(|key| self.sessions.get(key));
                let is_here = here.is_some_and(|here| SessionId::from_wire(&session) == Some(here.id()));
                let exit = v1::Exit { away: !is_here, ..exit };
                self.tell(now, link, wire::encode(v1::Kind::Exit, &v1::Metadata::default(), &exit));
            }
            RoomEffect::Expired { player } => {
                if self.makes_matches() {
                    self.player_tickets.expire_match(now, &player, name);
                }
            }
            RoomEffect::Passed { passage, trace } => {
                self.event(Event::Passed { room: name.clone(), passage, trace });
            }
        }
    }

    // Deadlines.

    /// Arms the next deadline of a room.
    fn book_room(&mut self, room: Key) {
        let leases = self.leases(self.now);
        let Some(Placed { hosted, booking }) = self.rooms.slab.get_mut(room) else {
            return self.bugs.found("a room that is not in the table has a deadline");
        };
        if let Some(at) = hosted.deadline(leases) {
            self.agenda.book(Timer::Room(room), booking, at);
        }
    }

    pub(super) fn room_timeout(&mut self, now: Now, room: Key) {
        if let Some(placed) = self.rooms.slab.get_mut(room) {
            placed.booking.clear();
        }
        self.room_input(now, room, RoomInput::Timeout);
    }

    // Joins and leaves of sessions.

    pub(super) fn join(&mut self, now: Now, key: Key, session: Key, join: &v1::Join) {
        let Ok(name) = Name::new(&join.room) else {
            let answered = Answered::Join(join.request);
            return self.left(now, key, &join.room, v1::LeftReason::BadName, answered);
        };
        if let Some(membership) =
            self.rooms.named(&join.room).and_then(|room| self.sessions.membership(session, room))
        {
            membership.join_again(join.request);
            return self.wake(key);
        }
        let way_in = WayIn { resume: None, history: join.history, request: join.request };
        if !self.come_in(now, session, &name, way_in) {
            self.left(now, key, &join.room, v1::LeftReason::Limit, Answered::Join(join.request));
        }
    }

    /// Begins the admission of a session to a room. Returns false if there is no place.
    pub(super) fn come_in(&mut self, now: Now, session: Key, name: &Name, way_in: WayIn) -> bool {
        let WayIn { resume, history, request } = way_in;
        let Some(s) = self.sessions.get(session) else {
            self.bugs.found("a session that is gone comes into a room");
            return false;
        };
        let most = self.config.sessions.rooms;
        if s.memberships().len() >= most {
            return false;
        }
        let (id, epoch, player) = (s.id(), s.epoch(), s.player().clone());
        let until = join_deadline(now);
        let Some(room) = self.open_room(now, name) else { return false };
        if !self.sessions.begin_membership(session, room, request, most) {
            self.bugs.found("a session that may be in one more room is not let into it");
        }
        let arrival = Arrival { session, id, epoch, player, resume, history, until };
        self.room_input(now, room, RoomInput::Arrive(arrival));
        true
    }

    /// Returns the room with this name, and opens it if the table does not have it; `None` if there
    /// is no place.
    fn open_room(&mut self, now: Now, name: &Name) -> Option<Key> {
        if let Some(room) = self.rooms.by_name.get(name) {
            return Some(*room);
        }
        let (node, leases) = (self.id, LiveLeases::default());
        let Self { rooms, config, player_tickets, peers, registrar, rng, zstd, bugs, planted, .. } = self;
        let (candidates, places, planted) = (&LinkedNodes { peers, registrar }, player_tickets, *planted);
        let around = Surroundings { node, leases, candidates, config, places, rng, zstd, bugs, planted };
        rooms.open(now, name, around)
    }

    pub(super) fn leave(&mut self, now: Now, key: Key, session: Key, leave: &v1::Leave) {
        let (room, request) = (leave.room.as_str(), leave.request);
        let Some(player) = self.sessions.get(session).map(|session| session.player().clone()) else {
            return self.bugs.found("a session that is gone leaves a room");
        };
        let membership = self.rooms.named(room).and_then(|room| self.sessions.end_membership(session, room));
        let left = membership.inspect(|membership| self.vacate(now, session, membership, false));
        if self.leave_match(now, &player, leave, left.is_some()) {
            return;
        }
        let reason = if left.is_some() { v1::LeftReason::Asked } else { v1::LeftReason::NotAMember };
        // A match that no node here watches may continue elsewhere.
        let is_known = !self.makes_matches() || keys::match_of(room).is_none();
        let answers = is_known || self.planted.is(Plant::LeaveUnheard);
        self.left(now, key, room, reason, if answers { Answered::Leave(request) } else { Answered::Message });
    }

    /// Ends a membership of a session. `ends_match` is true if the player also leaves the match of
    /// the room, if there is one.
    pub(super) fn vacate(&mut self, now: Now, session: Key, membership: &Membership, ends_match: bool) {
        let (Some(s), Some(hosted)) = (self.sessions.get(session), self.rooms.get(membership.room())) else {
            return self.bugs.found("a session that is gone, or is in a room that is, leaves it");
        };
        if ends_match && self.makes_matches() {
            let (player, name) = (s.player().clone(), hosted.room().name().clone());
            self.player_tickets.leave_match(now, &player, &name);
        }
        let departure = Departure::Leaves;
        self.room_input(now, membership.room(), RoomInput::Depart { session, departure });
    }

    /// Hands a session's membership over to another node, or to the session that replaces this one.
    /// The player stays a member.
    pub(super) fn hand_over(&mut self, now: Now, session: Key, membership: &Membership) {
        let departure = Departure::Moves;
        self.room_input(now, membership.room(), RoomInput::Depart { session, departure });
    }

    /// Tells the rooms of a session that its client has connected, or has lost its connection.
    pub(super) fn set_present(&mut self, now: Now, session: Key, present: bool) {
        let Some(s) = self.sessions.get(session) else {
            return self.bugs.found("a session that is gone comes or goes");
        };
        let seated = s.memberships().iter().filter(|membership| membership.is_seated());
        let rooms: Vec<Key> = seated.map(Membership::room).collect();
        for room in rooms {
            self.room_input(now, room, RoomInput::Presence { session, present });
        }
    }

    // The registry.

    /// Handles the registry's answer to a claim of a room.
    pub(super) fn room_claimed(&mut self, now: Now, name: &Name, outcome: &RoomClaim) {
        let room = self.rooms.by_name.get(name).copied();
        let awaits = room.and_then(|room| self.rooms.get(room)).is_some_and(Hosted::awaits_registry);
        let is_new = room.and_then(|room| self.rooms.get(room)).is_some_and(Hosted::is_claiming);
        let leads = room.and_then(|room| self.rooms.get(room)).is_some_and(Hosted::is_primary);
        let Some(room) = room.filter(|_| awaits) else {
            // No session waits for the room any more. After a take-over the primary of before has it, and is
            // named as the backup.
            if matches!(outcome, RoomClaim::Primary(reign) if reign.term == 1) && !leads {
                self.registrar.release_room(now, name);
            }
            return;
        };
        let input = match *outcome {
            RoomClaim::Primary(_) if is_new && self.clock_is_off() => {
                self.registrar.release_room(now, name);
                RoomInput::Unavailable
            }
            RoomClaim::Primary(reign) => {
                // The room asks for kept places at once.
                self.host(now, name);
                RoomInput::Led(reign)
            }
            RoomClaim::Elsewhere(reign) if reign.primary == self.id => {
                // A late take-over of a room whose state is gone.
                self.registrar.sweep_room(now, name);
                RoomInput::Unavailable
            }
            RoomClaim::Elsewhere(reign) => RoomInput::LedBy(reign),
            RoomClaim::Vacant => RoomInput::Vacant,
            RoomClaim::Unavailable => RoomInput::Unavailable,
        };
        self.room_input(now, room, input);
    }

    /// Passes news of the registry to a room that may be gone.
    pub(super) fn room_news(&mut self, now: Now, name: &Name, news: RoomInput) {
        if let Some(room) = self.rooms.by_name.get(name).copied() {
            self.room_input(now, room, news);
        }
    }

    /// Tells every room that the leases are confirmed again.
    pub(super) fn serve_again(&mut self, now: Now) {
        for room in self.rooms.keys() {
            self.late_room_input(now, room, RoomInput::Leased);
        }
    }

    // Other nodes.

    /// Passes a message of another node to its room.
    pub(super) fn take_room_message(
        &mut self,
        now: Now,
        link: Key,
        node: NodeId,
        message: RoomMessage,
        metadata: v1::Metadata,
    ) {
        let Ok(name) = Name::new(message.room()) else { return };
        if let Some(room) = self.rooms.by_name.get(&name).copied() {
            return self.room_input(now, room, RoomInput::From { link, node, message, metadata });
        }
        if let RoomMessage::Recruit(recruit) = &message {
            return self.recruited(now, &name, node, recruit);
        }
        // The node waits for an answer to these messages; the others are about a room that is gone.
        if let RoomMessage::Attach(_) | RoomMessage::Enter(_) | RoomMessage::Relay(_) = message {
            self.rooms.effects.counts.refused_epochs += 1;
            let (epoch, reason) = (message.epoch(), v1::LeftReason::Gone.into());
            let exited = v1::Exited { room: name.as_str().into(), epoch, member: 0, reason };
            self.tell(now, link, wire::encode(v1::Kind::Exited, &v1::Metadata::default(), &exited));
            self.registrar.sweep_room(now, &name);
        }
    }

    /// Opens a room of another node, as its backup to be.
    fn recruited(&mut self, now: Now, name: &Name, primary: NodeId, recruit: &v1::Recruit) {
        let (epoch, term, backup, revision) = (recruit.epoch, recruit.term, None, 0);
        let reign = Reign { epoch, term, primary, backup, revision };
        if self.config.replication.replicas > 1
            && let Some(room) = self.open_room(now, name)
        {
            self.late_room_input(now, room, RoomInput::Recruited(reign));
        }
    }

    /// Offers a node that was linked as a backup.
    pub(super) fn offer_candidate(&mut self, now: Now) {
        if self.config.replication.replicas > 1 {
            for room in self.rooms.keys() {
                self.late_room_input(now, room, RoomInput::PeersChanged);
            }
        }
    }

    /// Returns the next frame of a room for the node at the other end of a link.
    pub(super) fn next_of_room(&mut self, link: Key, room: Key) -> Option<bytes::Bytes> {
        let RoomTable { slab, effects, .. } = &mut self.rooms;
        slab.get_mut(room)?.hosted.next_for(link, &mut effects.counts)
    }

    /// Wakes the links of the room's readers.
    fn wake_readers(&mut self, room: Key) {
        let Self { rooms, peers, outputs, .. } = self;
        let Some(hosted) = rooms.get(room) else {
            return self.bugs.found("a room that is not in the table is read over links");
        };
        for key in hosted.readers() {
            peers.mark(outputs, key, room);
        }
    }

    /// Wakes the connection of a session, if the session has one.
    fn wake_session(&mut self, session: Key) {
        if let Some(conn) = self.sessions.conn(session) {
            self.wake(conn.key());
        }
    }
}
