//! Outputs of a client, and reasons for refusing a command.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;
use skirmish_proto::v1;

use super::fault::Fault;
use super::state::ClientState;
use crate::base::id::Cursor;
use crate::base::time::Duration;
use crate::room::Turn;

/// Identifier of a reliable message until the outcome is known; unique in the client's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u64);

/// Fate of a reliable message. Every message that the client has accepted gets exactly one outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server has sequenced the message (G2 holds for the message from now on).
    Acknowledged,
    /// The message was certainly not applied, since it was never sent.
    Refused,
    /// The message was sent, but the session or the room is gone, so nobody can tell if the message
    /// was applied.
    Unknown,
}

/// Reason for refusing a command. A refused command has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// The client has not joined the room, or is leaving it.
    NotInRoom,
    /// The number or the size of the waiting messages is at its cap: `outbox_messages`,
    /// `outbox_bytes`, or 64 messages to the server's application.
    OutboxFull,
    /// The body, the value or the type name is longer than the server accepts.
    TooLarge,
    /// The name of the room, property or counter, or of the configured player, is not valid, or the
    /// type of an application message is empty.
    BadName,
    /// The client is in as many rooms as the server allows.
    TooManyRooms,
    /// The key of a latest message is not below the server's `latest_keys`.
    BadKey,
    /// The player has as many names in the room's state as the server allows.
    StateFull,
    /// The client already searches for a match.
    Searching,
    /// The client does not search for a match.
    NotSearching,
    /// The player has no match to give up.
    NotMatched,
    /// There is no connection, which messages to the server's application need.
    NotConnected,
    /// As many outputs wait as [`ClientConfig::events`](super::ClientConfig::events) allows: the
    /// driver does not poll them.
    Undrained,
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotInRoom => "not in the room",
            Self::OutboxFull => "too many messages wait to be sent or acknowledged",
            Self::TooLarge => "larger than the server takes",
            Self::BadName => "not a valid name",
            Self::TooManyRooms => "in as many rooms as the server allows",
            Self::BadKey => "not a key for latest messages",
            Self::StateFull => "as many names in the room's state as the server allows",
            Self::Searching => "a search for a match goes on already",
            Self::NotSearching => "no search for a match goes on",
            Self::NotMatched => "in no match",
            Self::NotConnected => "not connected",
            Self::Undrained => "too many events wait to be polled",
        })
    }
}

impl core::error::Error for CommandError {}

/// Reason for undoing writes to a room's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateRefusal {
    /// The room's state has no place for the entries.
    Full,
    /// The state has writes of the same entries that another server, with a wrong clock, has
    /// stamped in the future. Until that time no write of this client wins over them. Counters and
    /// other names are still accepted.
    Superseded,
}

/// Action or event for the driver.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Open a connection, upgrade included, and answer with `handle_connected` or
    /// `handle_disconnected`.
    Dial,
    /// Close the connection (or give up the dial) after sending the frames that `poll_transmit`
    /// still returns. The client has forgotten the connection, so the driver must not report
    /// anything more about it.
    Hangup,
    /// An event for the application.
    Event(Event),
}

/// Event for the application.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The client has changed its state.
    StateChanged {
        /// The state before.
        from: ClientState,
        /// The state now.
        to: ClientState,
    },
    /// The server welcomed the client.
    Session {
        /// Epoch of the connection; higher for every newer connection of the session.
        epoch: u64,
        /// True if the earlier session goes on, with its memberships.
        resumed: bool,
        /// True if there was an earlier session, and the session is gone. Every membership has
        /// ended (reported by [`Self::Left`]), and every message that was sent and not acknowledged
        /// is [`Outcome::Unknown`].
        lost: bool,
    },
    /// The client is a member of the room.
    Joined {
        /// The room.
        room: String,
        /// Epoch of the room.
        epoch: u64,
        /// Number of the client as a member of the room.
        member: u32,
        /// True if the earlier membership goes on; the entries continue after the last delivered
        /// one. If false, a [`Self::Snapshot`] follows with the members and the cursor.
        resumed: bool,
    },
    /// The client is not a member of the room. [`Self::Joined`] follows if the room was gone, the
    /// application has not left the room, and [`ClientConfig::rejoin`](super::ClientConfig::rejoin)
    /// is set.
    Left {
        /// The room.
        room: String,
        /// Reason.
        reason: v1::LeftReason,
    },
    /// An entry of the room's log. Every entry is delivered exactly once, in order, without a gap
    /// that a [`Self::Snapshot`] does not announce (G1, G3, G5).
    Entry {
        /// The room.
        room: String,
        /// The entry's place in the log.
        cursor: Cursor,
        /// Kind of the entry.
        kind: v1::EntryKind,
        /// Member that the entry is about.
        member: u32,
        /// Identifier of the message, if it is one of this client.
        message: Option<MessageId>,
        /// Number of the message among those of its sender.
        client_seq: u64,
        /// Time of the server's clock, Unix milliseconds.
        at_ms: u64,
        /// The message.
        body: Bytes,
        /// Type of the message.
        type_url: String,
        /// Player of the member, for joins and leaves.
        player: String,
        /// Turn that begins with this entry, if any.
        turn: Option<Turn>,
    },
    /// State of the room at an entry. Replaces entries that the server does not have any more.
    Snapshot {
        /// The room.
        room: String,
        /// Cursor after which entries continue.
        cursor: Cursor,
        /// First and last entry that were missed, if any.
        missing: Option<(u64, u64)>,
        /// Members of the room.
        members: Vec<v1::Member>,
        /// Turn of the room; 0 if there was none yet. Entries that follow may already belong to
        /// this turn.
        turn: Turn,
    },
    /// A latest message that is newer than all earlier ones of this member and key.
    Latest {
        /// The room.
        room: String,
        /// Member that sent the message.
        member: u32,
        /// Key that the sender has chosen.
        key: u32,
        /// Version of the message; newer messages have higher versions.
        version: u64,
        /// The message.
        body: Bytes,
        /// Type of the message.
        type_url: String,
    },
    /// Outcome of a reliable message.
    Outcome {
        /// The room.
        room: String,
        /// The message.
        message: MessageId,
        /// Outcome.
        outcome: Outcome,
    },
    /// Another replica has changed the room's replicated state.
    State {
        /// The room.
        room: String,
    },
    /// The server does not accept writes of this client to the room's state. The writes are undone.
    StateRefused {
        /// The room.
        room: String,
        /// Names of the properties and counters.
        names: Vec<String>,
        /// Reason.
        why: StateRefusal,
    },
    /// The server did not accept messages for now. The client sends the reliable ones again; some
    /// of the latest ones were dropped.
    Throttled {
        /// The room.
        room: String,
        /// Class of the messages.
        class: v1::Class,
        /// Time until the server accepts such messages again.
        retry_after: Duration,
    },
    /// State of a search for a match. While a search goes on, only this search is reported. While
    /// none does, the event is about a search of an earlier life of this client, or of another
    /// client of the player.
    Ticket {
        /// The number of the search.
        search: u64,
        /// State. Every state except waiting, unavailable and lost ends the search. If the ticket
        /// of the present search is lost, the client asks for the ticket again. The lost ticket of
        /// an earlier life or of another client is gone, unless that client returns.
        state: v1::TicketState,
        /// Mode of the queue.
        mode: String,
        /// Reason of a refusal, for people.
        reason: String,
    },
    /// The player is in a match; or, if `over` is set, the match is over before it has begun. The
    /// match ends the present search. While no search goes on, this event reports the match that
    /// the player is in, and later the places in the match that were filled. The application joins
    /// the room of the match, or gives the match up.
    Matched(v1::Matched),
    /// The match is over for the player: the server has recorded that the player has given the
    /// match up, or the player has not joined the room in time. A search finds another match.
    GivenUp {
        /// Name of the match.
        matched: String,
    },
    /// A message of the server's application.
    Application {
        /// Type of the message.
        type_url: String,
        /// The message.
        payload: Bytes,
    },
    /// The server did not understand a frame, and has ignored it.
    Unsupported {
        /// Kind of the frame; 0 for a message of the application.
        kind: u32,
        /// Type of a message of the application for which the server has no handler.
        type_url: String,
    },
    /// The connection is being closed: by the server's `Goodbye`, or because the server broke the
    /// protocol, or (unspecified) because the driver did not poll events. A [`Self::StateChanged`]
    /// follows. After a change to `Disconnected` the client dials again, after a change to `Idle`
    /// it does not.
    Closed {
        /// Reason.
        reason: v1::Reason,
        /// Explanation for people.
        message: String,
        /// Fault that this client has found; `None` if the server sent `Goodbye`.
        fault: Option<Fault>,
    },
}

/// Outputs that wait for the driver.
#[derive(Debug, Default)]
pub(super) struct Outputs(VecDeque<Output>);

impl Outputs {
    pub(super) fn push(&mut self, output: Output) {
        self.0.push_back(output);
    }

    pub(super) fn event(&mut self, event: Event) {
        self.0.push_back(Output::Event(event));
    }

    /// Appends the outcome of messages of a room.
    pub(super) fn outcomes(
        &mut self,
        room: &str,
        messages: impl Iterator<Item = MessageId>,
        outcome: Outcome,
    ) {
        self.0.extend(
            messages
                .map(|message| Output::Event(Event::Outcome { room: String::from(room), message, outcome })),
        );
    }

    /// Appends the refusal of writes to a room's state, if there are any that have no place.
    pub(super) fn no_place(&mut self, room: &str, names: Vec<String>) {
        if !names.is_empty() {
            let why = StateRefusal::Full;
            self.event(Event::StateRefused { room: String::from(room), names, why });
        }
    }

    pub(super) fn pop(&mut self) -> Option<Output> {
        self.0.pop_front()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
