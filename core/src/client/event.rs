//! What a client tells its driver, and how it refuses a command.

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

/// Names a reliable message until its outcome is known; unique in the client's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u64);

/// Fate of a reliable message. Every message that was taken gets exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server has sequenced it (G2 holds for it from now on).
    Acknowledged,
    /// It was certainly not applied: it was never sent.
    Refused,
    /// It was sent, and whether it was applied cannot be known: the session or the room
    /// is gone.
    Unknown,
}

/// Why a command was refused. Nothing of it was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// The client has not joined the room, or is leaving it.
    NotInRoom,
    /// As many messages wait as may (`outbox_messages`, `outbox_bytes`).
    OutboxFull,
    /// The body, the value or the type name is longer than the server takes.
    TooLarge,
    /// The name of the room, property or counter, or the configured player, is not one.
    BadName,
    /// The client is in as many rooms as the server allows.
    TooManyRooms,
    /// The key of a latest message is not below the server's `latest_keys`.
    BadKey,
    /// The player has as many names in the room's state as the server allows.
    StateFull,
    /// There is a search for a match already.
    Searching,
    /// There is no search for a match.
    NotSearching,
    /// There is no match that could be given up.
    NotMatched,
    /// Application messages need a connection.
    NotConnected,
    /// More outputs wait than [`ClientConfig::events`](super::ClientConfig::events): the
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

/// Why writes to a room's state are undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateRefusal {
    /// The room's state has no place for them.
    Full,
    /// The state has writes of the same names that are stamped in the future, by a server whose
    /// clock was off. Until then none wins over them; a counter, or another name, is taken.
    Superseded,
}

/// What the driver must do or may want to know.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Open a connection, upgrade included, and answer with `handle_connected` or
    /// `handle_disconnected`.
    Dial,
    /// Close the connection (or give up the dial) after sending what `poll_transmit`
    /// still has. The client has forgotten it: whatever happens on it from now on is not
    /// to be reported.
    Hangup,
    /// Something happened.
    Event(Event),
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The client is in another state.
    StateChanged {
        /// The state before.
        from: ClientState,
        /// The state now.
        to: ClientState,
    },
    /// The server welcomed the client.
    Session {
        /// Counts the connections of the session.
        epoch: u64,
        /// The session is the one from before, with its memberships.
        resumed: bool,
        /// There was a session before and it is gone: every membership ended (each is
        /// told with [`Self::Left`]), and what was sent without acknowledgement is
        /// [`Outcome::Unknown`].
        lost: bool,
    },
    /// The client is a member of the room.
    Joined {
        /// The room.
        room: String,
        /// The life of the room.
        epoch: u64,
        /// The client's number in it.
        member: u32,
        /// It is the membership from before; entries go on where they stopped. If not,
        /// the members and the place in the log come with a [`Self::Snapshot`].
        resumed: bool,
    },
    /// The client is not a member of the room. If it was not asked for and
    /// [`ClientConfig::rejoin`](super::ClientConfig::rejoin) is set, [`Self::Joined`]
    /// follows where the reason is that the room was gone.
    Left {
        /// The room.
        room: String,
        /// Why.
        reason: v1::LeftReason,
    },
    /// An entry of the room's log: each exactly once, in order, without a gap that a
    /// [`Self::Snapshot`] does not announce (G1, G3, G5).
    Entry {
        /// The room.
        room: String,
        /// The entry's place in the log.
        cursor: Cursor,
        /// What it is.
        kind: v1::EntryKind,
        /// The member it is about.
        member: u32,
        /// Set if it is a message of this client.
        message: Option<MessageId>,
        /// The sender's count of its messages.
        client_seq: u64,
        /// The server's clock, Unix milliseconds.
        at_ms: u64,
        /// The message.
        body: Bytes,
        /// What the message is.
        type_url: String,
        /// The member's player, for joins and leaves.
        player: String,
        /// The turn that begins with it, if one does.
        turn: Option<Turn>,
    },
    /// The room as of an entry; stands in for entries that cannot be had any more.
    Snapshot {
        /// The room.
        room: String,
        /// Entries go on after this one.
        cursor: Cursor,
        /// The first and the last entry that were missed, if any were.
        missing: Option<(u64, u64)>,
        /// Who is in the room.
        members: Vec<v1::Member>,
        /// The turn of the room, 0 if there was none yet. What follows may be in it already.
        turn: Turn,
    },
    /// A latest message that is newer than every one delivered before of this member and
    /// key.
    Latest {
        /// The room.
        room: String,
        /// Whose it is.
        member: u32,
        /// The sender's key.
        key: u32,
        /// Grows with every newer message.
        version: u64,
        /// The message.
        body: Bytes,
        /// What the message is.
        type_url: String,
    },
    /// The fate of a reliable message.
    Outcome {
        /// The room.
        room: String,
        /// The message.
        message: MessageId,
        /// Its fate.
        outcome: Outcome,
    },
    /// The room's replicated state was changed by somebody else.
    State {
        /// The room.
        room: String,
    },
    /// The room's state does not take writes of this client; they are undone.
    StateRefused {
        /// The room.
        room: String,
        /// The names of the properties and counters.
        names: Vec<String>,
        /// Why.
        why: StateRefusal,
    },
    /// The server did not take messages for now. Reliable ones are sent again by
    /// themselves; of latest ones some were dropped.
    Throttled {
        /// The room.
        room: String,
        /// Which messages.
        class: v1::Class,
        /// When they are taken again.
        retry_after: Duration,
    },
    /// What has become of a search for a match: of the one that goes on, or, while none
    /// does, of one of an earlier life of this client or of another client of the player.
    Ticket {
        /// The number of the search.
        search: u64,
        /// The state; each but waiting, unavailable and lost is the end of the search. That
        /// of the search that goes on is asked for again by itself when it is lost; one of
        /// an earlier life or of another client is gone unless that client comes back.
        state: v1::TicketState,
        /// The queue.
        mode: String,
        /// For people: why it was refused.
        reason: String,
    },
    /// A match was found, or the player is still in one. It ends the search that goes on; while
    /// none does, it is told that the player is in one, and when free places are filled. The
    /// room in it is to be joined, or the match to be given up.
    Matched(v1::Matched),
    /// The match is over for the player: the server has taken in that the player has given it
    /// up, or the player has not joined its room in time. A search finds another.
    GivenUp {
        /// The name of the match.
        matched: String,
    },
    /// A message of the application.
    Application {
        /// What it is.
        type_url: String,
        /// The message.
        payload: Bytes,
    },
    /// The server did not understand a frame, and ignored it.
    Unsupported {
        /// The frame's kind; 0 for a message of the application.
        kind: u32,
        /// The type of a message of the application that has no handler there.
        type_url: String,
    },
    /// The connection is being closed: by the server's `Goodbye`, or because the server
    /// broke the protocol, or (unspecified) because the driver did not poll events. What
    /// comes next is told by [`Self::StateChanged`]: to `Disconnected`, and a dial
    /// follows; to `Idle`, and none does.
    Closed {
        /// Why.
        reason: v1::Reason,
        /// The same for people.
        message: String,
        /// The fault that this client found; `None` if the server said goodbye.
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

    /// The fate of some messages of a room.
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

    pub(super) fn pop(&mut self) -> Option<Output> {
        self.0.pop_front()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
