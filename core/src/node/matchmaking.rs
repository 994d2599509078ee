//! Matchmaking for the players of this node and, if this node is elected, for all players.

use skirmish_proto::v1;

use super::connection_inputs::Answered;
use super::{Event, Node};
use crate::base::id::Name;
use crate::base::plant::Plant;
use crate::base::slab::Key;
use crate::base::time::Now;
use crate::hosting::RoomInput;
use crate::matchmaking::{keys, matcher, player_tickets};
use crate::registry::{CallOrigin, RegistryEvent};
use crate::wire;

impl Node {
    /// Passes an event of the registry to the machine that asked.
    pub(super) fn pass_on(&mut self, now: Now, event: RegistryEvent) {
        match CallOrigin::of(&event) {
            CallOrigin::Registrar => self.registrar.handle_event(now, event),
            CallOrigin::PlayerTickets => self.player_tickets.handle_event(now, event),
            CallOrigin::Matcher => self.matcher.handle_event(now, event),
        }
    }

    /// Returns true if there are queues.
    pub(super) fn makes_matches(&self) -> bool {
        !self.config.matchmaking.queues.is_empty()
    }

    pub(super) fn queue(&mut self, now: Now, session: Key, queue: v1::Queue) {
        let Some(session) = self.sessions.get(session) else {
            return self.bugs.found("a session vanished while it was read");
        };
        let (player, epoch) = (session.player().clone(), session.registered());
        if self.makes_matches() {
            return self.player_tickets.queue(now, &player, epoch, queue);
        }
        let reason = "this server makes no matches".into();
        let state = v1::TicketState::Refused.into();
        let v1::Queue { mode, search, .. } = queue;
        let queued = v1::Queued { state, mode, reason, search, ..v1::Queued::default() };
        self.tell_ticket(now, &player, &queued);
    }

    pub(super) fn cancel(&mut self, now: Now, session: Key, cancel: v1::Cancel) {
        let Some(player) = self.sessions.get(session).map(|session| session.player().clone()) else {
            return self.bugs.found("a session vanished while it was read");
        };
        let v1::Cancel { search, r#match } = cancel;
        let named = if r#match.is_empty() { None } else { Some(Name::new(&r#match)) };
        let state = match named {
            None if self.makes_matches() => return self.player_tickets.cancel(now, &player, search),
            // There is no such match.
            None | Some(Err(_)) => v1::TicketState::None,
            Some(Ok(id)) if self.makes_matches() => {
                if self.player_tickets.give_up(now, &player, &id, search) {
                    return;
                }
                v1::TicketState::Unavailable
            }
            Some(Ok(id)) => {
                let (state, id) = (v1::TicketState::GivenUp.into(), id.into());
                let queued = v1::Queued { state, search, r#match: id, ..v1::Queued::default() };
                return self.tell_ticket(now, &player, &queued);
            }
        };
        let queued = v1::Queued { state: state.into(), search, ..v1::Queued::default() };
        self.tell_ticket(now, &player, &queued);
    }

    /// Starts matchmaking for a player with a new session here, or with a new connection of a
    /// session: the player is told the current state. For a resumed session `resumed` has the rooms
    /// of matches that the client names.
    pub(super) fn arrive(
        &mut self,
        now: Now,
        player: &Name,
        session_epoch: u64,
        resumed: Option<alloc::vec::Vec<Name>>,
    ) {
        match resumed {
            _ if !self.makes_matches() => {}
            Some(rooms) => self.player_tickets.resume(now, player, session_epoch, rooms),
            None => self.player_tickets.arrive(now, player, session_epoch),
        }
    }

    /// Handles a player's join of a match's room.
    pub(super) fn join_match(&mut self, now: Now, player: &Name, room: &Name) {
        if self.makes_matches() {
            self.player_tickets.join_match(now, player, room);
        }
    }

    /// Handles the loss of a player's connection. The session waits to be resumed.
    pub(super) fn lose(&mut self, now: Now, player: &Name) {
        if self.makes_matches() {
            self.player_tickets.lose(now, player);
        }
    }

    /// Handles a player's request to leave a match's room. Returns true if the matchmaking has to
    /// record the leave first; then the answer follows later, as a decision.
    pub(super) fn leave_match(&mut self, now: Now, player: &Name, leave: &v1::Leave, member: bool) -> bool {
        let is_of_match = self.makes_matches() && keys::match_of(&leave.room).is_some();
        let name = Name::new(&leave.room).ok().filter(|_| is_of_match);
        let request = leave.request;
        let heard = member || !self.planted.is(Plant::LeaveUnheard);
        name.is_some_and(|name| heard && self.player_tickets.leave(now, player, &name, request, member))
    }

    /// Handles the end of a player's session on this node.
    pub(super) fn depart(&mut self, now: Now, player: &Name, moved: bool) {
        if self.makes_matches() {
            self.player_tickets.depart(now, player, moved);
        }
    }

    /// Handles a new primary role in a room, which may keep places for the players of a match.
    pub(super) fn host(&mut self, now: Now, room: &Name) {
        if self.makes_matches() {
            self.player_tickets.host(now, room);
        }
    }

    /// Executes the decisions of the matchmaking machines that follow from the last input.
    pub(super) fn consult_matchmaking(&mut self, now: Now) {
        if !self.makes_matches() {
            return;
        }
        let lease = self.registrar.lease();
        if lease != self.matchmaking_lease {
            self.matchmaking_lease = lease;
            self.player_tickets.set_lease(now, lease);
            self.matcher.set_lease(now, lease);
        }
        while let Some(decision) = self.player_tickets.poll_decision() {
            match decision {
                player_tickets::PlayerTicketsDecision::Ticket { player, queued } => {
                    self.tell_ticket(now, &player, &queued);
                }
                player_tickets::PlayerTicketsDecision::Matched { player, matched } => {
                    let frame = wire::encode(v1::Kind::Matched, &v1::Metadata::default(), &matched);
                    self.tell_player(now, &player, frame);
                }
                player_tickets::PlayerTicketsDecision::Left { player, room, request, was_in } => {
                    let reason = if was_in { v1::LeftReason::Asked } else { v1::LeftReason::NotAMember };
                    if let Some(conn) = self.sessions.conn_of(&player) {
                        self.left(now, conn.key(), room.as_str(), reason, Answered::Leave(request));
                    }
                }
                player_tickets::PlayerTicketsDecision::PlacesKnown { room } => {
                    if let Some(room) = self.rooms.named(room.as_str()) {
                        self.room_input(now, room, RoomInput::PlacesKnown);
                    }
                }
            }
        }
        while let Some(decision) = self.matcher.poll_decision() {
            let event = match decision {
                matcher::MatcherDecision::Elected { mode, epoch } => Event::Elected { mode, epoch },
                matcher::MatcherDecision::Deposed { mode } => Event::Deposed { mode },
                matcher::MatcherDecision::Formed { id, mode, teams, quality, explanation } => {
                    self.stats.matches += 1;
                    let players = teams.iter().map(alloc::vec::Vec::len).sum();
                    Event::MatchFormed { id, mode, players, quality, explanation }
                }
                matcher::MatcherDecision::Filled { id, mode, team, players, explanation } => {
                    Event::MatchFilled { id, mode, team, players: players.len(), explanation }
                }
                matcher::MatcherDecision::Missed { id, mode, players, over } => {
                    Event::PlayersMissed { id, mode, players: players.len(), over }
                }
                matcher::MatcherDecision::TicketEnded { player, mode, state } => {
                    Event::TicketEnded { player, mode, state }
                }
                matcher::MatcherDecision::MatchEnded { id, abandoned } => Event::MatchEnded { id, abandoned },
            };
            self.event(event);
        }
        while let Some(call) = self.player_tickets.poll_call() {
            self.outputs.push_back(super::Output::Registry(call));
        }
        while let Some(call) = self.matcher.poll_call() {
            self.outputs.push_back(super::Output::Registry(call));
        }
    }

    fn tell_ticket(&mut self, now: Now, player: &Name, queued: &v1::Queued) {
        self.tell_player(now, player, wire::encode(v1::Kind::Queued, &v1::Metadata::default(), queued));
    }

    /// Sends a frame to a player that is connected here. Other players learn of it when they
    /// connect.
    fn tell_player(&mut self, now: Now, player: &Name, frame: bytes::Bytes) {
        if let Some(conn) = self.sessions.conn_of(player) {
            self.answer(now, conn.key(), frame);
        }
    }
}
