//! Commands of the application.

use alloc::string::String;

use bytes::Bytes;
use skirmish_proto::v1;

use super::event::Outcome;
use super::outbox::OutboxMessage;
use super::room::{ClientRoom, RoomPhase};
use super::{Client, ClientState, CommandError, MessageId};
use crate::base::id::Name;
use crate::base::time::Now;
use crate::matchmaking::keys;
use crate::wire;

/// Application messages that may wait to be sent. At the bound, [`Client::send`] returns
/// [`CommandError::OutboxFull`].
const MAX_APPLICATION: usize = 64;

impl Client {
    /// Joins a room, now or once there is a connection. `history` is the number of entries from
    /// before the first join to deliver. Idempotent.
    ///
    /// # Errors
    /// [`CommandError::BadName`], [`CommandError::TooManyRooms`], [`CommandError::Undrained`].
    pub fn join(&mut self, now: Now, room: &str, history: u32) -> Result<(), CommandError> {
        self.ready(now)?;
        Name::new(room).map_err(|_| CommandError::BadName)?;
        let wanted = self.rooms().count();
        if let Some(room) = self.rooms.get_mut(room) {
            if let RoomPhase::Leaving { again: again @ false, .. } = &mut room.phase {
                if wanted >= self.limits.rooms {
                    return Err(CommandError::TooManyRooms);
                }
                *again = true;
                room.history = history;
            }
            return Ok(());
        }
        // Rooms that are being left have a cap of their own, since the server receives the `Leave`
        // before the `Join`.
        if wanted >= self.limits.rooms || self.rooms.len() >= 2 * self.limits.rooms {
            return Err(CommandError::TooManyRooms);
        }
        let mut new = ClientRoom::new(history);
        if self.pending_leaves.take_room(room) {
            new.phase = RoomPhase::Leaving { sent: false, live: false, again: true };
        }
        // Without a session, the first `Welcome` opens the replica.
        if let Some(identity) = self.identity() {
            let clock = self.server_clock(now);
            let (_, refused) = new.replicated.open(clock, &self.config.player, &identity);
            self.outputs.no_place(room, refused);
        }
        self.rooms.insert(String::from(room), new);
        Ok(())
    }

    /// Leaves a room. Messages to the room that were never sent are refused at once. Entries may
    /// still arrive until [`Event::Left`](super::Event::Left). Leaving the room of a match also
    /// leaves the match: the client sends `Leave` on every connection until the server has
    /// answered, and only then [`Event::Left`](super::Event::Left) follows.
    ///
    /// # Errors
    /// [`CommandError::NotInRoom`], [`CommandError::Undrained`].
    pub fn leave(&mut self, now: Now, room: &str) -> Result<(), CommandError> {
        self.ready(now)?;
        let Self { rooms, outputs, .. } = self;
        let name = room;
        let room = rooms.get_mut(name).filter(|room| room.is_wanted()).ok_or(CommandError::NotInRoom)?;
        outputs.outcomes(name, room.outbox.settle_unsent(), Outcome::Refused);
        room.latest.clear();
        let (sent, live) = match room.phase {
            RoomPhase::Leaving { sent, live, .. } => (sent, live),
            RoomPhase::Member { live } => (false, live),
            RoomPhase::Wanted { .. } | RoomPhase::Joining => (false, false),
        };
        room.phase = RoomPhase::Leaving { sent, live, again: false };
        // The room of a match is left at the server even if no `Join` was sent: the player may be
        // in the match.
        if !room.asked && keys::match_of(name).is_none() {
            room.close(name, v1::LeftReason::Asked, outputs);
            rooms.remove(name);
        }
        Ok(())
    }

    /// Sends a reliable message to all members of the room, this client included. The message is
    /// kept until it is acknowledged, also while there is no connection. `outbox_messages` and
    /// `outbox_bytes` bound the messages that are kept. [`Event::Outcome`](super::Event::Outcome)
    /// reports the fate of the message.
    ///
    /// # Errors
    /// [`CommandError::NotInRoom`], [`CommandError::OutboxFull`], [`CommandError::TooLarge`],
    /// [`CommandError::Undrained`].
    pub fn say(
        &mut self,
        now: Now,
        room: &str,
        body: Bytes,
        type_url: &str,
    ) -> Result<MessageId, CommandError> {
        self.put_out(now, room, body, type_url, None)
    }

    /// Sends a message like [`Self::say`]. If `turn` is the room's turn when the message is
    /// appended, the message ends that turn, and the next turn begins. Otherwise it is an ordinary
    /// message. Turn 0 is the time before the first turn.
    ///
    /// # Errors
    /// As [`Self::say`].
    pub fn end_turn(
        &mut self,
        now: Now,
        room: &str,
        turn: u32,
        body: Bytes,
        type_url: &str,
    ) -> Result<MessageId, CommandError> {
        self.put_out(now, room, body, type_url, Some(turn))
    }

    fn put_out(
        &mut self,
        now: Now,
        room: &str,
        body: Bytes,
        type_url: &str,
        ends_turn: Option<u32>,
    ) -> Result<MessageId, CommandError> {
        self.ready(now)?;
        self.check_body(&body, type_url)?;
        let bytes: usize = self.rooms.values().map(|room| room.outbox.bytes()).sum();
        let id = MessageId(self.next_message);
        let message = OutboxMessage { id, body, type_url: String::from(type_url), ends_turn };
        let full = self.outstanding() >= self.config.outbox_messages
            || bytes + message.size() > self.config.outbox_bytes;
        let room = self.wanted(room)?;
        if full {
            return Err(CommandError::OutboxFull);
        }
        room.outbox.push(message);
        self.next_message += 1;
        Ok(id)
    }

    /// Sends a latest message: only the newest by key counts. While the message cannot be sent,
    /// only the newest of each key is kept.
    ///
    /// # Errors
    /// [`CommandError::NotInRoom`], [`CommandError::BadKey`], [`CommandError::TooLarge`],
    /// [`CommandError::Undrained`].
    pub fn latest(
        &mut self,
        now: Now,
        room: &str,
        key: u32,
        body: Bytes,
        type_url: &str,
    ) -> Result<(), CommandError> {
        self.ready(now)?;
        self.check_body(&body, type_url)?;
        let keys = self.limits.latest_keys;
        let room = self.wanted(room)?;
        if key >= keys {
            return Err(CommandError::BadKey);
        }
        room.latest.insert(key, (body, String::from(type_url)));
        Ok(())
    }

    /// Sets a property of the player in the room's state, or, with `None`, removes the property.
    /// The client's replica changes at once, the other replicas once the connection allows.
    ///
    /// # Errors
    /// [`CommandError::NotInRoom`], [`CommandError::BadName`], [`CommandError::TooLarge`],
    /// [`CommandError::StateFull`], [`CommandError::Undrained`].
    pub fn set_property(
        &mut self,
        now: Now,
        room: &str,
        name: &str,
        value: Option<Bytes>,
    ) -> Result<(), CommandError> {
        self.ready(now)?;
        let clock = self.server_clock(now);
        let names = self.limits.state_entries;
        let Self { rooms, config, .. } = self;
        let room = rooms.get_mut(room).filter(|room| room.is_wanted()).ok_or(CommandError::NotInRoom)?;
        room.replicated.set_property(clock, &config.player, name, value, names)
    }

    /// Adds `delta`, which may be negative, to the player's share of a counter in the room's state.
    ///
    /// # Errors
    /// As for [`Self::set_property`].
    pub fn add(&mut self, now: Now, room: &str, counter: &str, delta: i64) -> Result<(), CommandError> {
        self.ready(now)?;
        let clock = self.server_clock(now);
        let names = self.limits.state_entries;
        let Self { rooms, config, .. } = self;
        let room = rooms.get_mut(room).filter(|room| room.is_wanted()).ok_or(CommandError::NotInRoom)?;
        room.replicated.add(clock, &config.player, counter, delta, names)
    }

    /// Sends a message to the server's application. The message is sent once, or not at all if the
    /// connection is lost before. The server routes it by `type_url`, which must not be empty.
    ///
    /// # Errors
    /// [`CommandError::NotConnected`], [`CommandError::BadName`], [`CommandError::TooLarge`],
    /// [`CommandError::OutboxFull`], [`CommandError::Undrained`].
    pub fn send(&mut self, now: Now, type_url: &str, payload: Bytes) -> Result<(), CommandError> {
        self.ready(now)?;
        if type_url.is_empty() {
            return Err(CommandError::BadName);
        }
        self.check_body(&payload, type_url)?;
        let link = self.link.as_mut().filter(|_| self.state == ClientState::Connected);
        let link = link.ok_or(CommandError::NotConnected)?;
        if link.application.len() >= MAX_APPLICATION {
            return Err(CommandError::OutboxFull);
        }
        link.application.push_back((String::from(type_url), payload));
        Ok(())
    }

    pub(super) fn ready(&mut self, now: Now) -> Result<(), CommandError> {
        self.observe(now);
        if self.is_congested() { Err(CommandError::Undrained) } else { Ok(()) }
    }

    fn check_body(&self, body: &Bytes, type_url: &str) -> Result<(), CommandError> {
        let fits = body.len() <= self.limits.body_bytes && type_url.len() <= wire::MAX_TYPE_URL;
        fits.then_some(()).ok_or(CommandError::TooLarge)
    }

    fn wanted(&mut self, room: &str) -> Result<&mut ClientRoom, CommandError> {
        self.rooms.get_mut(room).filter(|room| room.is_wanted()).ok_or(CommandError::NotInRoom)
    }
}
