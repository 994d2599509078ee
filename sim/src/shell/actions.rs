//! Actions of a run of the shell world. Actions that the machine world has too have the same names
//! as there.

use crate::matches::MatcherFailure;

/// Cut directions of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    Both,
    /// From the first end to the second: from a client to a server, from a server to the registry,
    /// or from the server that is named first.
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

/// Command of a client's application. Without a connection most of the commands are kept for later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientCommand {
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
    /// Searches for a match, unless the client is searching. The numbers are those of the machine
    /// world.
    Queue {
        mode: i64,
        party: i64,
        rating: i64,
    },
    /// Gives the search up.
    Cancel,
    /// Leaves the rooms of all its matches.
    LeaveMatches,
    /// Gives the player's match up.
    GiveUp,
    /// Ends the session and the process.
    Quit,
}

/// Action on a client or its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientAction {
    /// The process starts, unless it runs.
    Start,
    Do(ClientCommand),
    Kill,
    Pause,
    Resume,
    /// The application spends this many milliseconds on each event; 0 ends this.
    Dawdle(u64),
    /// The client is cut off from every server, or from one.
    Cut(Cut, Option<usize>),
    Mend,
    /// The client's connection is reset.
    Reset,
    /// The client gives its connection up and connects to another server.
    Move(usize),
    /// The client's wall clock is wrong by this many milliseconds from now on.
    Skew(i64),
}

/// Action on a server or its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServerAction {
    Start,
    Kill,
    /// The server is ordered to drain.
    Drain,
    Pause,
    Resume,
    /// The server is cut off from every other host.
    Cut(Cut),
    Mend,
    Skew(i64),
    /// The server is cut off from the registry; `Up` is the direction to the registry.
    CutRegistry(Cut),
    HealRegistry,
    /// Events of the server's watches are this many milliseconds late; 0 ends this.
    LagWatches(u64),
    /// This many of the server's next requests are executed now, later or never, and their
    /// outcome is not reported.
    BlurRegistry(u32),
}

/// Action on the registry, if it has a host of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RegistryAction {
    /// The process starts with all its data, unless it runs.
    Start,
    Kill,
    Pause,
    Resume,
    /// The registry is cut off from every other host.
    Cut,
    Mend,
    /// The registry has no leader: requests are executed now, later or never, and their outcome is
    /// not reported.
    Depose,
    /// The registry has a leader again.
    Elect,
    /// The registry compacts its history, up to this many of its last revisions.
    Compact(u64),
}

/// One step of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ShellAction {
    Client(usize, ClientAction),
    Server(usize, ServerAction),
    Registry(RegistryAction),
    /// The link between two servers is cut.
    CutNodes(usize, usize, Cut),
    HealNodes(usize, usize),
    /// The primary of a room dies.
    KillPrimary(u32),
    /// The matcher of a mode fails for this many milliseconds.
    FailMatcher {
        mode: i64,
        how: MatcherFailure,
        millis: u64,
    },
    /// Every server starts, unless it runs.
    StartAll,
    /// An operator kicks a player.
    Kick {
        player: usize,
    },
    /// Packets take a time between `low` and `high`, in microseconds, and `loss` of a thousand are
    /// lost.
    Weather {
        low: u64,
        high: u64,
        loss: u32,
    },
}
