//! Decisions of the registrar, and requests to the registry.

use skirmish_proto::v1;

use super::handshake::key_of;
use super::{Event, Node, Output};
use crate::base::time::Now;
use crate::hosting::RoomInput;
use crate::registrar::{Anew, Decision};

/// Goodbye to a client whose session was in a registry that was restored or wiped.
const REPLACED: &str = "the registry of sessions was restored, wiped or replaced";

impl Node {
    /// Executes a decision of the registrar.
    fn decide(&mut self, now: Now, decision: Decision) {
        match decision {
            Decision::Serving => {
                self.event(Event::Serving);
                self.serve_again(now);
            }
            Decision::NotServing => {
                self.stats.suspensions += 1;
                self.event(Event::NotServing);
            }
            Decision::Session { token, player, outcome } => {
                self.session_claimed(now, key_of(token), &player, &outcome);
            }
            Decision::SessionKept { player, epoch } => self.session_kept(now, &player, epoch),
            Decision::SessionLost { player, epoch } => self.session_lost(now, &player, epoch),
            Decision::Room { room, outcome } => self.room_claimed(now, &room, &outcome),
            Decision::RoomPaired { room, backup, revision } => {
                self.room_news(now, &room, RoomInput::Paired { backup, revision });
            }
            Decision::RoomDeposed { room, reign } => {
                self.room_news(now, &room, RoomInput::Deposed(reign));
            }
            Decision::RoomLost { room, .. } => self.room_news(now, &room, RoomInput::Lost),
            Decision::Anew { why } => self.begin_anew(now, why),
            Decision::NodeUp { id, record } => self.node_up(now, id, &record),
            Decision::NodeDown { id } => self.node_down(now, id),
        }
    }

    /// Closes every room and ends every session: the registry is not the one that it was, and may
    /// give the same rooms and sessions to other nodes. Clients come back for new ones.
    fn begin_anew(&mut self, now: Now, why: Anew) {
        self.event(Event::Anew { why });
        if self.makes_matches() {
            self.player_tickets.begin_anew(now);
        }
        for room in self.rooms.keys() {
            self.late_room_input(now, room, RoomInput::Close(v1::LeftReason::Gone));
        }
        for key in self.sessions.keys() {
            let conn = self.sessions.conn(key);
            self.end_local_session(now, key, v1::Reason::RegistryReplaced, false);
            if let Some(conn) = conn {
                self.close(now, conn.key(), v1::Reason::RegistryReplaced, REPLACED);
            }
        }
    }

    /// Executes the decisions of the registrar and outputs its requests, until both are used up.
    pub(super) fn consult_registrar(&mut self, now: Now) {
        while let Some(decision) = self.registrar.poll_decision() {
            self.decide(now, decision);
        }
        while let Some(call) = self.registrar.poll_call() {
            self.outputs.push_back(Output::Registry(call));
        }
        self.reconsider_clock(now);
        self.consult_matchmaking(now);
    }
}
