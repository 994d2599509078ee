//! Oracles of the guarantees: each watches the observable acts of clients and nodes, and reports a
//! breach of one guarantee. One file per guarantee. No oracle looks into a machine, except where a
//! machine offers a check of its own caps.

pub mod g10_convergence;
mod g11_bounded;
pub mod g12_clocks;
mod g1_order;
mod g2_kept;
mod g3_once;
mod g4_fifo;
mod g5_gaps;
mod g6_primary;
mod g7_fence;
pub mod g8_match;
pub mod l1_liveness;
mod l2_joins;

use std::fmt;

use skirmish_core::client::{Fault, Outcome};
use skirmish_core::crdt::Replica;
use skirmish_core::id::Cursor;
use skirmish_core::matchmaking::MatchmakingConfig;

/// Guarantees; the numbers are those of the table in `docs/architecture.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guarantee {
    /// Same entries, same order.
    Order,
    /// Nothing acknowledged is lost.
    Kept,
    /// Nothing twice.
    Once,
    /// Each sender's messages in the order of sending.
    Fifo,
    /// No gap unannounced.
    Gaps,
    /// One primary.
    Primary,
    /// One session per player.
    Fence,
    /// One match.
    Match,
    /// Replicas converge.
    Convergence,
    /// Everything is bounded.
    Bounded,
    /// Nobody is served by a clock that is off.
    Clocks,
    /// Every promise is kept once faults have stopped.
    Liveness,
    /// No race between nodes shows in the answer to a join.
    Joins,
}

impl Guarantee {
    /// All guarantees that have an oracle.
    pub const ALL: [Self; 13] = [
        Self::Order,
        Self::Kept,
        Self::Once,
        Self::Fifo,
        Self::Gaps,
        Self::Primary,
        Self::Fence,
        Self::Match,
        Self::Convergence,
        Self::Bounded,
        Self::Clocks,
        Self::Liveness,
        Self::Joins,
    ];

    /// Number of the guarantee in `docs/architecture.md`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Order => "G1",
            Self::Kept => "G2",
            Self::Once => "G3",
            Self::Fifo => "G4",
            Self::Gaps => "G5",
            Self::Primary => "G6",
            Self::Fence => "G7",
            Self::Match => "G8",
            Self::Convergence => "G10",
            Self::Bounded => "G11",
            Self::Clocks => "G12",
            Self::Liveness => "L1",
            Self::Joins => "L2",
        }
    }

    /// Returns the guarantee that a client found broken, from the client's fault. Without a fault
    /// the server accuses the client, and the guarantee is liveness.
    pub(crate) fn accused(fault: Option<Fault>) -> Self {
        let Some(fault) = fault else { return Self::Liveness };
        match fault {
            Fault::Gap => Self::Gaps,
            Fault::NeverSent | Fault::AcknowledgedLost => Self::Kept,
            Fault::LogWentBack => Self::Order,
            Fault::EntryOfAnotherEpoch | Fault::SnapshotOfAnotherEpoch => Self::Primary,
            Fault::Wire(_)
            | Fault::UnknownVersion
            | Fault::NoSeal
            | Fault::ResumedUnasked
            | Fault::SecondWelcome
            | Fault::BeforeWelcome
            | Fault::SnapshotWentBack
            | Fault::State(_)
            | Fault::NotPolled => Self::Liveness,
        }
    }

    /// Promise of the guarantee, in a few words.
    #[must_use]
    pub const fn promise(self) -> &'static str {
        match self {
            Self::Order => "all members deliver the same entries in the same order",
            Self::Kept => "nothing acknowledged is lost, nothing refused is applied",
            Self::Once => "nothing is delivered twice",
            Self::Fifo => "each sender's messages keep their order",
            Self::Gaps => "no gap goes unannounced",
            Self::Primary => "one primary: no two nodes write a life of a room, nor serve it at once",
            Self::Fence => "one session per player: a connection taken over writes nothing",
            Self::Match => "one match: a player is in one at most, and a match forms wholly or not at all",
            Self::Convergence => "replicas converge once links heal",
            Self::Bounded => "every cap holds, and a slow reader delays nobody",
            Self::Clocks => "a node whose wall clock is off among the nodes that it reaches serves nobody",
            Self::Liveness => "once faults stop, everything promised happens within the bound",
            Self::Joins => "no join is told of a race between nodes while nothing is wrong",
        }
    }
}

impl fmt::Display for Guarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.code(), self.promise())
    }
}

/// Breach of a guarantee.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The broken guarantee.
    pub guarantee: Guarantee,
    /// Description of the breach, in one sentence.
    pub description: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.guarantee, self.description)
    }
}

/// Answer of an oracle.
pub type Verdict = Result<(), Violation>;

/// Returns a verdict against a guarantee.
pub(crate) fn broken<T>(guarantee: Guarantee, description: fmt::Arguments<'_>) -> Result<T, Violation> {
    Err(Violation { guarantee, description: description.to_string() })
}

/// One life of one client's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientLife {
    /// The client's number.
    pub client: usize,
    /// Number of this life of the client's process.
    pub life: u32,
}

impl fmt::Display for ClientLife {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client {} (life {})", self.client, self.life)
    }
}

/// A room, by number.
pub type RoomNumber = u32;

/// Observable act of a client or a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observation {
    /// An application gave a reliable message to its client, and the client accepted the message.
    Said {
        /// The sender.
        client_life: ClientLife,
        /// The message's room.
        room: RoomNumber,
        /// The client's number of the message.
        message: u64,
        /// Content of the message, unique in a run.
        serial: u64,
    },
    /// A client notified its application of the outcome of a message.
    Outcome {
        /// The sender.
        client_life: ClientLife,
        /// The client's number of the message.
        message: u64,
        /// Outcome of the message.
        outcome: Outcome,
    },
    /// A client began a session or resumed one.
    Session {
        /// The client.
        client_life: ClientLife,
        /// True if the session is the one from before.
        resumed: bool,
        /// True if an earlier session was lost.
        lost: bool,
    },
    /// A client became a member, or learned that its membership still exists.
    Joined {
        /// The client.
        client_life: ClientLife,
        /// The room.
        room: RoomNumber,
        /// Epoch of the room.
        epoch: u64,
        /// True if the membership is the one from before.
        resumed: bool,
    },
    /// A client asked to leave. From then on, no later entry is owed to the client.
    Leaves {
        /// The client.
        client_life: ClientLife,
        /// The room.
        room: RoomNumber,
    },
    /// A client stopped being a member.
    Left {
        /// The client.
        client_life: ClientLife,
        /// The room.
        room: RoomNumber,
    },
    /// A client delivered an entry.
    Entry(DeliveredEntry),
    /// A client delivered a snapshot.
    Snapshot {
        /// The client.
        client_life: ClientLife,
        /// The room.
        room: RoomNumber,
        /// The last entry before the snapshot's place in the log.
        cursor: Cursor,
        /// First and last entry announced as missing.
        missing: Option<(u64, u64)>,
    },
    /// A client delivered a latest message.
    Latest {
        /// The client.
        client_life: ClientLife,
        /// The room.
        room: RoomNumber,
        /// Member that sent the message.
        member: u32,
        /// Key of the message.
        key: u32,
        /// Version of the message.
        version: u64,
    },
    /// A client named a room in the resume of a connection.
    Resumes {
        /// The connection.
        conn: u64,
        /// The room.
        room: RoomNumber,
    },
    /// A client was notified that a room is gone.
    ToldGone {
        /// The client.
        client_life: ClientLife,
        /// The connection that carried the message.
        conn: u64,
        /// The room.
        room: RoomNumber,
        /// True if nodes, links and registry have worked without a fault so far, and no other
        /// client has the same player.
        healthy: bool,
    },
    /// The process of a client died, or its application ended the session.
    Gone {
        /// The client.
        client_life: ClientLife,
    },
    /// A node received a frame of a connection that another connection had taken over, or a frame
    /// that was passed on from such a connection.
    Fenced {
        /// Owner of the old connection.
        client: usize,
        /// The node's count of writes, before the frame and after.
        written: (u64, u64),
    },
    /// A client was told that another connection of its player had taken over.
    TakenOver {
        /// The client.
        client_life: ClientLife,
        /// True if another client, or an earlier life of the client, has said `Hello` for the player.
        by_another: bool,
    },
    /// A node began to lead a room.
    Leads {
        /// The node's number, and the life of its process.
        node: (usize, u32),
        /// The room.
        room: RoomNumber,
        /// Epoch of the room.
        epoch: u64,
        /// Term of the node in the epoch.
        term: u32,
    },
    /// A node wrote entries of a room that the node leads.
    Appended {
        /// The node's number, and the life of its process.
        node: (usize, u32),
        /// The room.
        room: RoomNumber,
        /// Epoch of the room.
        epoch: u64,
        /// Term of the node in the epoch.
        term: u32,
        /// True if the leases that the room needs surely live.
        serves: bool,
    },
    /// Nodes that may commit changes of a room without a backup at this moment: they lead the room, and
    /// their leases surely live.
    Serving {
        /// The room.
        room: RoomNumber,
        /// One bit for each node.
        nodes: u32,
    },
    /// A node that may take over a room at any moment, as the room's primary knows it.
    BackedUp {
        /// The room.
        room: RoomNumber,
        /// Number of ops that the primary has committed.
        committed: u64,
        /// Number of ops that the other node has.
        stored: u64,
    },
    /// A node checked its own caps.
    Audit {
        /// Result of the check.
        result: Result<(), &'static str>,
    },
}

/// A delivered entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveredEntry {
    /// The client.
    pub client_life: ClientLife,
    /// The room.
    pub room: RoomNumber,
    /// Place of the entry in the log.
    pub cursor: Cursor,
    /// Member that the entry is about.
    pub member: u32,
    /// The sender's number of the message; 0 if the entry is no message.
    pub client_seq: u64,
    /// Content, if the entry is a message.
    pub serial: Option<u64>,
    /// The client's number of the message, if the client takes the message for its own.
    pub own: Option<u64>,
    /// Number of the turn that begins with the entry; 0 if none does.
    pub turn: u32,
    /// Hash of the whole content.
    pub digest: u64,
}

/// All oracles that are fed with single observations.
#[derive(Debug, Default)]
pub struct Oracles {
    order: g1_order::Order,
    kept: g2_kept::KeptOracle,
    once: g3_once::Once,
    fifo: g4_fifo::Fifo,
    gaps: g5_gaps::Gaps,
    primary: g6_primary::Primary,
    fence: g7_fence::FenceOracle,
    newest: g10_convergence::Newest,
    bounded: g11_bounded::Bounded,
    joins: l2_joins::Joins,
    /// Oracle of clocks. The world reports the errors of clocks to it.
    pub clocks: g12_clocks::ClocksOracle,
    /// Oracle of matches. A world with queues reports the registry's history and the searches to
    /// it.
    pub matches: g8_match::Matches,
}

impl Oracles {
    /// Creates the oracles of a world with these queues.
    #[must_use]
    pub fn new(matchmaking: &MatchmakingConfig) -> Self {
        Self { matches: g8_match::Matches::new(matchmaking), ..Self::default() }
    }

    /// Passes an observation at a moment of the world to the oracles.
    ///
    /// # Errors
    /// If the observation breaks a guarantee.
    pub fn observe(&mut self, at: u64, seen: &Observation) -> Verdict {
        self.order.observe(seen)?;
        self.once.observe(seen)?;
        self.gaps.observe(seen)?;
        self.fifo.observe(seen)?;
        self.kept.observe(seen)?;
        self.primary.observe(seen)?;
        self.fence.observe(seen)?;
        self.joins.observe(seen)?;
        self.bounded.observe(at, seen)
    }

    /// Checks the clients that no fault holds back. `free` names each of them with the moment since
    /// which this has been so. Such a client must get an entry `within` this time after another
    /// client got it.
    ///
    /// # Errors
    /// If one of them has been behind for longer.
    pub fn check(&mut self, at: u64, free: &[(ClientLife, u64)], within: u64) -> Verdict {
        self.bounded.check(at, free, within)
    }

    /// Checks a node's replica of a room in one epoch, which the node, in this life, may have
    /// changed.
    ///
    /// # Errors
    /// If an older write has replaced a newer one.
    pub fn replicated(
        &mut self,
        node: (usize, u32),
        room: RoomNumber,
        epoch: u64,
        replica: &Replica,
    ) -> Verdict {
        self.newest.observe(node, room, epoch, replica)
    }

    /// Checks the world after everything has come to rest.
    ///
    /// # Errors
    /// If something promised is missing.
    pub fn rest(&self) -> Verdict {
        self.kept.rest()
    }

    /// Counts the messages of a client that have no outcome yet.
    #[must_use]
    pub fn open_messages(&self, client_life: ClientLife) -> usize {
        self.kept.open(client_life)
    }

    /// The newest entry of the room that any client delivered.
    #[must_use]
    pub fn newest(&self, room: RoomNumber) -> Option<Cursor> {
        self.order.newest(room)
    }

    /// Returns true if the client is a member, as far as the client was notified.
    #[must_use]
    pub fn is_member(&self, client_life: ClientLife, room: RoomNumber) -> bool {
        self.gaps.is_member(client_life, room)
    }
}

#[cfg(test)]
mod build {
    //! Parts of synthetic histories.
    use super::*;

    pub(crate) const ANN: ClientLife = ClientLife { client: 0, life: 0 };
    pub(crate) const BOB: ClientLife = ClientLife { client: 1, life: 0 };

    pub(crate) fn at(seq: u64) -> Cursor {
        Cursor { epoch: 1, seq }
    }

    pub(crate) fn entry(client_life: ClientLife, seq: u64, serial: u64) -> DeliveredEntry {
        DeliveredEntry {
            client_life,
            room: 0,
            cursor: at(seq),
            member: 1,
            client_seq: serial,
            serial: Some(serial),
            own: (client_life == ANN).then_some(serial),
            turn: 0,
            digest: serial,
        }
    }

    pub(crate) fn said(serial: u64) -> Observation {
        Observation::Said { client_life: ANN, room: 0, message: serial, serial }
    }

    pub(crate) fn joined(client_life: ClientLife, resumed: bool) -> Observation {
        Observation::Joined { client_life, room: 0, epoch: 1, resumed }
    }

    pub(crate) fn snapshot(client_life: ClientLife, seq: u64, missing: Option<(u64, u64)>) -> Observation {
        Observation::Snapshot { client_life, room: 0, cursor: at(seq), missing }
    }
}
