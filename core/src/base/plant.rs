//! Bugs that can be planted, to show that the oracles of the simulator bite.
//!
//! Without the feature `plant` there are none, and every site compiles to nothing.

/// A bug to plant; one variant per bug, named for what is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plant {
    /// The node applies a message again that it has applied before (G3).
    DuplicateApplied,
    /// The node tells a resuming session that a message more is in the log than is (G2).
    AcknowledgedUnlogged,
    /// A connection that was taken over can still write (G7).
    OldConnectionWrites,
    /// A member that fell out of the window goes on without a snapshot (G5).
    GapUnannounced,
    /// A room that is opened again uses the epoch of its last life (G1).
    EpochReused,
    /// Latest messages of a member who lags are queued instead of conflated (G11).
    Unconflated,
    /// A write to the state counts by arrival, not by stamp (G10).
    ArrivalWins,
    /// A resume starts one entry late (G5).
    ResumeOffByOne,
    /// Missed heartbeats close nothing (L1).
    HeartbeatBlind,
    /// The client gives up after its first back-off (L1).
    BackoffForever,
    /// The client sends what is unacknowledged again in reverse order (G4).
    ResentBackwards,
    /// Tombstones are collected at once (G10).
    TombstoneForgotten,
    /// A reader that lags keeps the room from waking the members after it (G11).
    SlowReaderStalls,
    /// A node that may have lost its leases goes on serving (G6).
    LeaseAssumed,
    /// A room is claimed whoever its record says has it (G6).
    ClaimUncompared,
    /// A claim, or the write of a ticket, without an answer is taken for one that was not done
    /// (G8).
    UnknownIsFailure,
    /// What happens between a read of a directory and its watch is not told (L1).
    WatchFromNow,
    /// Nodes take each other's messages about a room in whichever epoch (G6).
    EpochUncompared,
    /// A room takes messages from a node that had the session before (G7).
    SessionEpochUncompared,
    /// Messages that a link lost are not asked for again (L1).
    RelayForgotten,
    /// Messages that the room's primary did not take are not asked for again (L1).
    HoldIgnored,
    /// A room whose primary is dead is followed for ever (L1).
    DeadFollowed,
    /// A matcher writes without comparing the key by which it was elected (G8).
    MatcherUnfenced,
    /// A match forms although one of its tickets has changed, or is gone (G8).
    TicketUncompared,
    /// A node whose watch of notices and tickets was ended does not watch again (L1).
    NoticeUnwatched,
    /// The ticket of a session that has ended stays (G8).
    TicketForgotten,
    /// A client does not ask again on its next connection (L1).
    SearchForgotten,
    /// A client takes the end of any search for that of the one that goes on (G8).
    SearchUnnumbered,
    /// A search that is asked for again when its end was told already begins anew (G8).
    SearchReopened,
    /// A ticket that was lost with its node's lease is queued again without the player's word
    /// that it searches yet (G8).
    LapseIgnored,
    /// A matcher puts players into matches whose connections are known to be lost (G8).
    AbsentMatched,
    /// A node answers a join with what a race between nodes made of it (L2).
    JoinRaceTold,
    /// After the node stood still, deadlines are judged before what arrived meanwhile (L1).
    TimeoutsFirst,
    /// A connection with a backlog is closed instead of read slowly (L1).
    BacklogPunished,
    /// A registry that was restored or wiped is taken for the one that it was (G6).
    GenerationIgnored,
    /// The client does not notice that nothing comes any more (L1).
    ClientBlind,
    /// A room keeps latest messages that it has no place for (G11).
    LatestUnbounded,
    /// The match goes on of a player who leaves its room where the node knows no membership (G8).
    LeaveUnheard,
    /// A client forgets that it leaves the room of a match when its session is lost (G8).
    LeaveForgotten,
    /// Who does not come to its match stays in it (L1).
    NoShowKept,
    /// That a player has come to its match is not written down (G8).
    JoinUnmarked,
    /// A node does not notice that the registry refuses every write (L1).
    RefusalIgnored,
    /// A node does not compare its wall clock with those of the others (G12).
    ClockUncompared,
}

impl Plant {
    /// Every bug there is.
    pub const ALL: [Self; 43] = [
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
        Self::LeaveUnheard,
        Self::LeaveForgotten,
        Self::NoShowKept,
        Self::JoinUnmarked,
        Self::RefusalIgnored,
        Self::ClockUncompared,
    ];
}

/// The bug planted in a machine, if any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Planted(#[cfg(feature = "plant")] Option<Plant>);

impl Planted {
    /// A machine with this bug.
    #[cfg(feature = "plant")]
    #[must_use]
    pub const fn with(plant: Plant) -> Self {
        Self(Some(plant))
    }

    /// Whether this is the bug.
    #[cfg(feature = "plant")]
    #[must_use]
    pub fn is(self, plant: Plant) -> bool {
        self.0 == Some(plant)
    }

    /// Whether this is the bug: there is none in this build.
    #[cfg(not(feature = "plant"))]
    #[must_use]
    pub const fn is(self, _plant: Plant) -> bool {
        false
    }
}
