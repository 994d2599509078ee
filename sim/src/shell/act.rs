//! What can happen in a run of the shell world. What the machine world knows too has its
//! name there.

use crate::matches::MatcherFailure;

/// Which way a link is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    Both,
    /// From the first to the second: from a client to a server, from a server to the
    /// registry, from the server that is named first.
    Up,
    /// From the second to the first.
    Down,
}

impl Cut {
    pub(super) const fn is_up(self) -> bool {
        !matches!(self, Self::Down)
    }

    pub(super) const fn is_down(self) -> bool {
        !matches!(self, Self::Up)
    }
}

/// What a client's application does. Without a connection most of it is kept for later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    Join {
        room: u32,
        history: u32,
    },
    Leave {
        room: u32,
    },
    Say {
        room: u32,
        count: u32,
        size: usize,
    },
    Latest {
        room: u32,
        key: u32,
        count: u32,
    },
    Set {
        room: u32,
        name: u32,
        value: u32,
    },
    Unset {
        room: u32,
        name: u32,
    },
    Add {
        room: u32,
        name: u32,
        delta: i64,
    },
    Application {
        size: usize,
    },
    /// Searches for a match, unless it does: the numbers are those of the machine world.
    Queue {
        mode: i64,
        party: i64,
        rating: i64,
    },
    /// Gives the search up.
    Cancel,
    /// Leaves the rooms of all its matches.
    LeaveMatches,
    /// Gives up the match that it was told of.
    GiveUp,
    /// Ends the session and the process.
    Quit,
}

/// What happens to a client or its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientAction {
    /// The process starts, unless it runs.
    Start,
    Do(Deed),
    Kill,
    Pause,
    Resume,
    /// The application takes this many milliseconds for each event; 0 ends that.
    Dawdle(u64),
    /// Cut off from every server, or from one.
    Cut(Cut, Option<usize>),
    Mend,
    /// Its connection is reset.
    Reset,
    /// It gives its connection up and connects to another server.
    Move(usize),
    /// Its wall clock is wrong by this many milliseconds from now on.
    Skew(i64),
}

/// What happens to a server or its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServerAction {
    Start,
    Kill,
    /// It is told to stop in an orderly way.
    Drain,
    Pause,
    Resume,
    /// Cut off from everybody.
    Cut(Cut),
    Mend,
    Skew(i64),
    /// Cut off from the registry: up is to the registry.
    CutRegistry(Cut),
    HealRegistry,
    /// What its watches tell comes this many milliseconds late; 0 ends that.
    LagWatches(u64),
    /// So many of its next requests are done or not, now or later, and nobody says so.
    BlurRegistry(u32),
}

/// What happens to the registry, if it has a host of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RegistryAction {
    /// The process starts with all that it knew, unless it runs.
    Start,
    Kill,
    Pause,
    Resume,
    /// Cut off from everybody.
    Cut,
    Mend,
    /// Nobody leads: every request is done or not, now or later, and nobody says so.
    Depose,
    /// Somebody leads again.
    Elect,
    /// It forgets all but so many of its last revisions.
    Compact(u64),
}

/// One step of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ShellAction {
    Client(usize, ClientAction),
    Server(usize, ServerAction),
    Registry(RegistryAction),
    /// Nothing passes between two servers.
    CutNodes(usize, usize, Cut),
    HealNodes(usize, usize),
    /// The server that leads a room dies.
    KillPrimary(u32),
    /// Something happens to the server that forms the matches of a queue, and is over after
    /// so many milliseconds.
    FailMatcher {
        mode: i64,
        how: MatcherFailure,
        millis: u64,
    },
    /// Every server starts that does not run.
    StartAll,
    /// An operator ends a player's session.
    Kick {
        player: usize,
    },
    /// Every packet takes a time between the two, in microseconds, and of a thousand this
    /// many are lost.
    Weather {
        low: u64,
        high: u64,
        loss: u32,
    },
}
