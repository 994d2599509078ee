//! Bugs that can be planted, to show that the oracles of the simulator find them.
//!
//! Without the feature `plant` there are no bugs, and every check for one compiles to nothing.

/// Bug to plant; one variant for each bug, named after the wrong behaviour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plant {
    /// The node applies a message that it has already applied (G3).
    DuplicateApplied,
    /// The node reports one more message to a resuming session as logged than the log has (G2).
    AcknowledgedUnlogged,
    /// A connection that was taken over can still write (G7).
    OldConnectionWrites,
    /// A member whose cursor fell out of the window continues without a snapshot (G5).
    GapUnannounced,
    /// A room that is opened again uses the epoch of its last life (G1).
    EpochReused,
    /// Latest messages are queued for a slow member instead of replaced by newer ones (G11).
    Unconflated,
    /// A write to the state wins by arrival, not by stamp (G10).
    ArrivalWins,
    /// A resume starts one entry late (G5).
    ResumeOffByOne,
    /// Missed heartbeats close no connection (L1).
    HeartbeatBlind,
    /// The client does not dial again after its first back-off (L1).
    BackoffForever,
    /// The client sends unacknowledged messages again in reverse order (G4).
    ResentBackwards,
    /// Tombstones are collected at once (G10).
    TombstoneForgotten,
    /// A slow reader prevents the room from waking the members after it (G11).
    SlowReaderStalls,
    /// A node that may have lost its leases continues to serve (G6).
    LeaseAssumed,
    /// A room is claimed even if its record names another node (G6).
    ClaimUncompared,
    /// A claim, or the write of a ticket, that has no answer counts as not executed (G8).
    UnknownIsFailure,
    /// Changes between a read of a directory and the start of its watch are lost (L1).
    WatchFromNow,
    /// Nodes accept each other's messages about a room in any epoch (G6).
    EpochUncompared,
    /// A room accepts messages from a node that had the session before (G7).
    SessionEpochUncompared,
    /// Messages that a link has lost are not requested again (L1).
    RelayForgotten,
    /// Messages that the room's primary has not accepted are not requested again (L1).
    HoldIgnored,
    /// A follower follows a dead primary for ever (L1).
    DeadFollowed,
    /// A matcher writes without comparing the key of its election (G8).
    MatcherUnfenced,
    /// A match forms although one of its tickets has changed or is gone (G8).
    TicketUncompared,
    /// A node whose watch of notices and tickets has ended does not start another one (L1).
    NoticeUnwatched,
    /// The ticket of an ended session stays (G8).
    TicketForgotten,
    /// A client does not request its search again on the next connection (L1).
    SearchForgotten,
    /// A client takes the end of any search for the end of its present search (G8).
    SearchUnnumbered,
    /// A request for a search whose end was already sent starts the search anew (G8).
    SearchReopened,
    /// A ticket that was lost with its node's lease is queued again without a confirmation that the
    /// player still searches (G8).
    LapseIgnored,
    /// A matcher puts players into matches although their connections are known to be lost (G8).
    AbsentMatched,
    /// A node answers a join with the error that a race between nodes has caused (L2).
    JoinRaceTold,
    /// After a pause, a node judges deadlines before the frames that arrived meanwhile (L1).
    TimeoutsFirst,
    /// A connection with a backlog is closed instead of read slowly (L1).
    BacklogPunished,
    /// A registry that was restored or wiped counts as the same registry (G6).
    GenerationIgnored,
    /// The client does not notice a silent connection (L1).
    ClientBlind,
    /// A room keeps latest messages beyond its cap (G11).
    LatestUnbounded,
    /// Frames wait for a link beyond its cap (G11).
    LinkQueueUncapped,
    /// A match goes on after the player leaves its room, if the node has no membership of the
    /// player there (G8).
    LeaveUnheard,
    /// A client whose session is lost forgets that it is leaving the room of a match (G8).
    LeaveForgotten,
    /// A player that does not join the room of its match stays in the match (L1).
    NoShowKept,
    /// The registry does not record that a player has joined the room of its match (G8).
    JoinUnmarked,
    /// A node does not notice that the registry refuses every write (L1).
    RefusalIgnored,
    /// A node does not compare its wall clock with the clocks of other nodes (G12).
    ClockUncompared,
    /// A late `Hello` takes the session from a newer connection of the same client (G7).
    DialUncompared,
    /// A node gives a session up although it has a newer connection of the client than the node that
    /// has claimed the session (G7).
    KeepOverridden,
    /// A node whose parent in the broadcast tree has died continues after the newest entry of its
    /// spare (G5).
    GapUnpulled,
    /// The children of a dead node of the broadcast tree get no other parent (L1).
    OrphanKept,
    /// A node is moved below a node of the broadcast tree that it may feed itself (L1).
    CycleAllowed,
    /// The primary of a pair commits ops that its backup has not stored (G2).
    AckedUnstored,
    /// A primary commits alone while the registry may have named a backup (G2).
    NamingAlone,
    /// A primary commits alone while the registry may still name the backup (G2).
    DropAssumed,
    /// A backup is named before it has everything that is committed (G2).
    NamedBehind,
}

impl Plant {
    /// All bugs.
    pub const ALL: [Self; 53] = [
        Self::DuplicateApplied,
        Self::AcknowledgedUnlogged,
        Self::OldConnectionWrites,
        Self::GapUnannounced,
        Self::EpochReused,
        Self::Unconflated,
        Self::ArrivalWins,
        Self::ResumeOffByOne,
        Self::HeartbeatBlind,
        Self::BackoffForever,
        Self::ResentBackwards,
        Self::TombstoneForgotten,
        Self::SlowReaderStalls,
        Self::LeaseAssumed,
        Self::ClaimUncompared,
        Self::UnknownIsFailure,
        Self::WatchFromNow,
        Self::EpochUncompared,
        Self::SessionEpochUncompared,
        Self::RelayForgotten,
        Self::HoldIgnored,
        Self::DeadFollowed,
        Self::MatcherUnfenced,
        Self::TicketUncompared,
        Self::NoticeUnwatched,
        Self::TicketForgotten,
        Self::SearchForgotten,
        Self::SearchUnnumbered,
        Self::SearchReopened,
        Self::LapseIgnored,
        Self::AbsentMatched,
        Self::JoinRaceTold,
        Self::TimeoutsFirst,
        Self::BacklogPunished,
        Self::GenerationIgnored,
        Self::ClientBlind,
        Self::LatestUnbounded,
        Self::LinkQueueUncapped,
        Self::LeaveUnheard,
        Self::LeaveForgotten,
        Self::NoShowKept,
        Self::JoinUnmarked,
        Self::RefusalIgnored,
        Self::ClockUncompared,
        Self::DialUncompared,
        Self::KeepOverridden,
        Self::GapUnpulled,
        Self::OrphanKept,
        Self::CycleAllowed,
        Self::AckedUnstored,
        Self::NamingAlone,
        Self::DropAssumed,
        Self::NamedBehind,
    ];
}

/// Bug planted in a machine, if any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Planted(#[cfg(feature = "plant")] Option<Plant>);

impl Planted {
    /// Creates the value for a machine with this bug.
    #[cfg(feature = "plant")]
    #[must_use]
    pub const fn with(plant: Plant) -> Self {
        Self(Some(plant))
    }

    /// Returns true if this is the planted bug.
    #[cfg(feature = "plant")]
    #[must_use]
    pub fn is(self, plant: Plant) -> bool {
        self.0 == Some(plant)
    }

    /// Returns false: this build has no planted bugs.
    #[cfg(not(feature = "plant"))]
    #[must_use]
    pub const fn is(self, _plant: Plant) -> bool {
        false
    }
}
