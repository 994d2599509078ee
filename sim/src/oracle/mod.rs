//! The guarantees as oracles: each watches what the clients and the node observably
//! do, and says when it broke its guarantee. One file per guarantee; none of them
//! looks into a machine, except where a machine offers a check of its own caps.

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
    /// What was promised happens once faults have stopped.
    Liveness,
    /// No race between nodes shows in the answer to a join.
    Joins,
}

impl Guarantee {
    /// Every one that has an oracle.
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

    /// Its number.
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

    /// The guarantee that a client saw broken, by the fault that it found; liveness where the
    /// server accuses the client.
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

    /// What it promises, in a few words.
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

/// How a guarantee was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub guarantee: Guarantee,
    /// How, in a sentence.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.guarantee, self.what)
    }
}

/// An oracle's answer.
pub type Verdict = Result<(), Violation>;

/// A verdict against a guarantee.
pub(crate) fn broken<T>(guarantee: Guarantee, what: fmt::Arguments<'_>) -> Result<T, Violation> {
    Err(Violation { guarantee, what: what.to_string() })
}

/// One life of one client's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Who {
    /// The client's number.
    pub client: usize,
    /// Which life of its process.
    pub life: u32,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client {} (life {})", self.client, self.life)
    }
}

/// A room, by number.
pub type RoomNumber = u32;

/// What a client or the node observably did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observation {
    /// The application gave the client a reliable message, and the client took it.
    Said {
        /// Who.
        who: Who,
        /// Where.
        room: RoomNumber,
        /// What the client calls it.
        message: u64,
        /// What is in it: no two messages of a run have the same.
        serial: u64,
    },
    /// The client told its application what became of a message.
    Outcome {
        /// Who.
        who: Who,
        /// What the client calls it.
        message: u64,
        /// What became of it.
        outcome: Outcome,
    },
    /// The client began a session or went on with one.
    Session {
        /// Who.
        who: Who,
        /// Whether it is the session from before.
        resumed: bool,
        /// Whether there was one before that is lost.
        lost: bool,
    },
    /// The client became a member, or learned that it still is one.
    Joined {
        /// Who.
        who: Who,
        /// Where.
        room: RoomNumber,
        /// Life of the room.
        epoch: u64,
        /// Whether the membership is the one from before.
        resumed: bool,
    },
    /// The client has asked to leave: nobody owes it what comes from then on.
    Leaves {
        /// Who.
        who: Who,
        /// Where.
        room: RoomNumber,
    },
    /// The client is a member no more.
    Left {
        /// Who.
        who: Who,
        /// Where.
        room: RoomNumber,
    },
    /// The client delivered an entry.
    Entry(DeliveredEntry),
    /// The client delivered a snapshot.
    Snapshot {
        /// Who.
        who: Who,
        /// Where.
        room: RoomNumber,
        /// The entry that the snapshot stands after.
        cursor: Cursor,
        /// First and last entry announced as missing.
        missing: Option<(u64, u64)>,
    },
    /// The client delivered a message of which the newest counts.
    Latest {
        /// Who.
        who: Who,
        /// Where.
        room: RoomNumber,
        /// Whose message.
        member: u32,
        /// Which key.
        key: u32,
        /// Its version.
        version: u64,
    },
    /// The client named a room in the resume of a connection.
    Resumes {
        /// Which connection.
        conn: u64,
        /// Which room.
        room: RoomNumber,
    },
    /// The client was told that a room is gone.
    ToldGone {
        /// Who.
        who: Who,
        /// Over which connection.
        conn: u64,
        /// Which room.
        room: RoomNumber,
        /// Whether nothing has been wrong with nodes, links and registry so far, and no other
        /// client has the same player.
        healthy: bool,
    },
    /// The client's process died, or its application ended the session.
    Gone {
        /// Who.
        who: Who,
    },
    /// A node took a frame from a connection that another one has taken over, or one that
    /// was passed on from there.
    Fenced {
        /// Whose connection.
        client: usize,
        /// What the node had written before, and after.
        written: (u64, u64),
    },
    /// A node began to lead a room.
    Leads {
        /// Which, and in which life.
        node: (usize, u32),
        /// Which room.
        room: RoomNumber,
        /// Which life of the room.
        epoch: u64,
    },
    /// A node wrote entries of a room that it leads.
    Appended {
        /// Which, and in which life.
        node: (usize, u32),
        /// Which room.
        room: RoomNumber,
        /// Which life of the room.
        epoch: u64,
        /// Whether its lease surely lives.
        serves: bool,
    },
    /// Who serves a room at this moment: leads it, with a lease that surely lives.
    Serving {
        /// Which room.
        room: RoomNumber,
        /// A bit for each node.
        nodes: u32,
    },
    /// The node checked its own caps.
    Audit {
        /// What it found.
        result: Result<(), &'static str>,
    },
}

/// A delivered entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveredEntry {
    /// Who delivered it.
    pub who: Who,
    /// Where.
    pub room: RoomNumber,
    /// Its place.
    pub cursor: Cursor,
    /// Whom it is about.
    pub member: u32,
    /// The sender's number for it; 0 if it is no message.
    pub client_seq: u64,
    /// What was said, if it is a message.
    pub serial: Option<u64>,
    /// If the client calls it its own: what it calls it.
    pub own: Option<u64>,
    /// The turn that begins with it; 0 if none does.
    pub turn: u32,
    /// A hash of all that it says.
    pub digest: u64,
}

/// All oracles that watch from observation to observation.
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
    /// Is told how far clocks are off by whoever knows.
    pub clocks: g12_clocks::ClocksOracle,
    /// Is told of the registry's history and of searches by whoever has queues.
    pub matches: g8_match::Matches,
}

impl Oracles {
    /// Oracles of a world with these queues.
    #[must_use]
    pub fn new(matchmaking: &MatchmakingConfig) -> Self {
        Self { matches: g8_match::Matches::new(matchmaking), ..Self::default() }
    }

    /// Something was observed at a moment of the world.
    ///
    /// # Errors
    /// If it breaks a guarantee.
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

    /// A look at the clients that nothing holds back: each is given with the moment
    /// since which it has been so, and the time within which it must get what others
    /// have got.
    ///
    /// # Errors
    /// If one of them is behind for longer.
    pub fn look(&mut self, at: u64, free: &[(Who, u64)], within: u64) -> Verdict {
        self.bounded.look(at, free, within)
    }

    /// A node, in one of its lives, may have changed the replica that it has of a room's life.
    ///
    /// # Errors
    /// If an older write has taken the place of a newer one.
    pub fn replicated(
        &mut self,
        node: (usize, u32),
        room: RoomNumber,
        epoch: u64,
        replica: &Replica,
    ) -> Verdict {
        self.newest.observe(node, room, epoch, replica)
    }

    /// Everything has come to rest.
    ///
    /// # Errors
    /// If something is missing that was promised.
    pub fn rest(&self) -> Verdict {
        self.kept.rest()
    }

    /// Messages of a client that have no outcome yet.
    #[must_use]
    pub fn open_messages(&self, who: Who) -> usize {
        self.kept.open(who)
    }

    /// The newest entry of the room that anybody delivered.
    #[must_use]
    pub fn newest(&self, room: RoomNumber) -> Option<Cursor> {
        self.order.newest(room)
    }

    /// Whether the client is a member, as far as it was told.
    #[must_use]
    pub fn is_member(&self, who: Who, room: RoomNumber) -> bool {
        self.gaps.is_member(who, room)
    }
}

#[cfg(test)]
mod build {
    //! What synthetic histories are made of.
    use super::*;

    pub(crate) const ANN: Who = Who { client: 0, life: 0 };
    pub(crate) const BOB: Who = Who { client: 1, life: 0 };

    pub(crate) fn at(seq: u64) -> Cursor {
        Cursor { epoch: 1, seq }
    }

    pub(crate) fn entry(who: Who, seq: u64, serial: u64) -> DeliveredEntry {
        DeliveredEntry {
            who,
            room: 0,
            cursor: at(seq),
            member: 1,
            client_seq: serial,
            serial: Some(serial),
            own: (who == ANN).then_some(serial),
            turn: 0,
            digest: serial,
        }
    }

    pub(crate) fn said(serial: u64) -> Observation {
        Observation::Said { who: ANN, room: 0, message: serial, serial }
    }

    pub(crate) fn joined(who: Who, resumed: bool) -> Observation {
        Observation::Joined { who, room: 0, epoch: 1, resumed }
    }

    pub(crate) fn snapshot(who: Who, seq: u64, missing: Option<(u64, u64)>) -> Observation {
        Observation::Snapshot { who, room: 0, cursor: at(seq), missing }
    }
}
