//! Faults for which the client closes a connection.

use core::fmt;

use skirmish_proto::v1;

use crate::crdt::StateError;
use crate::wire::WireError;

/// Fault for which the client has closed its connection. All faults are the server's, except
/// [`Self::NotPolled`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A frame cannot be read, or cannot be sealed.
    Wire(WireError),
    /// The first frame of the server has a version that this client does not know.
    UnknownVersion,
    /// The client offered a seal, and the server has none.
    NoSeal,
    /// The server resumes a session that this client did not ask for.
    ResumedUnasked,
    /// A second `Welcome` of one connection.
    SecondWelcome,
    /// A frame before the `Welcome`.
    BeforeWelcome,
    /// An acknowledgement of a message that was never sent.
    NeverSent,
    /// The log of a room has lost messages that the server had acknowledged.
    AcknowledgedLost,
    /// The log of a room ends before the last entry that was delivered.
    LogWentBack,
    /// An entry of another epoch than the room's.
    EntryOfAnotherEpoch,
    /// An entry that does not follow the last one, without a snapshot between them.
    Gap,
    /// A snapshot of another epoch than the room's.
    SnapshotOfAnotherEpoch,
    /// A snapshot from before the last entry that was delivered.
    SnapshotWentBack,
    /// State of a room that cannot be merged.
    State(StateError),
    /// As many events wait for the driver of this client as
    /// [`ClientConfig::events`](super::ClientConfig::events) allows.
    NotPolled,
}

impl Fault {
    /// Returns the reason with which the connection is closed. After `REASON_INCOMPATIBLE` the
    /// client does not dial again, since the server would cause the same fault again.
    #[must_use]
    pub const fn reason(&self) -> v1::Reason {
        match self {
            Self::UnknownVersion | Self::NoSeal | Self::State(StateError::TooMany) => {
                v1::Reason::Incompatible
            }
            Self::Wire(_)
            | Self::ResumedUnasked
            | Self::SecondWelcome
            | Self::BeforeWelcome
            | Self::NeverSent
            | Self::AcknowledgedLost
            | Self::LogWentBack
            | Self::EntryOfAnotherEpoch
            | Self::Gap
            | Self::SnapshotOfAnotherEpoch
            | Self::SnapshotWentBack
            | Self::State(
                StateError::ClockTooFarAhead
                | StateError::BehindTheFuture
                | StateError::NotOwner
                | StateError::Malformed,
            ) => v1::Reason::ProtocolError,
            Self::NotPolled => v1::Reason::Unspecified,
        }
    }
}

impl From<WireError> for Fault {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

impl From<StateError> for Fault {
    fn from(error: StateError) -> Self {
        Self::State(error)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wire(error) => return error.fmt(f),
            Self::UnknownVersion => "the server speaks another version of the protocol",
            Self::NoSeal => "the server does not seal",
            Self::ResumedUnasked => "a session resumed that was not asked for",
            Self::SecondWelcome => "a second Welcome",
            Self::BeforeWelcome => "a frame before the Welcome",
            Self::NeverSent => "a message acknowledged that was never sent",
            Self::AcknowledgedLost => "acknowledged messages are not in the log any more",
            Self::LogWentBack => "the log went back",
            Self::EntryOfAnotherEpoch => "an entry of another epoch of the room",
            Self::Gap => "a gap between entries without a snapshot",
            Self::SnapshotOfAnotherEpoch => "a snapshot of another epoch of the room",
            Self::SnapshotWentBack => "a snapshot of before the last entry",
            Self::State(StateError::TooMany) => "the room's state is larger than this client keeps",
            Self::State(StateError::Malformed) => "malformed state",
            Self::State(StateError::NotOwner) => "state of another owner",
            Self::State(StateError::ClockTooFarAhead | StateError::BehindTheFuture) => {
                "state from far in the future"
            }
            Self::NotPolled => "events were not polled",
        })
    }
}

impl core::error::Error for Fault {}
