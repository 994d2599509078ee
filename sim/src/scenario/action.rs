//! What can be done in a scenario.

use std::fmt;
use std::str::FromStr;

use super::field;

/// One thing that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// When, in microseconds of the world's time.
    pub at: u64,
    /// What.
    pub action: Action,
}

macro_rules! actions {
    ($($(#[$doc:meta])* $variant:ident = $name:literal { $($(#[$field_doc:meta])* $field:ident),* })*) => {
        /// What can be done.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Action {
            $($(#[$doc])* $variant { $($(#[$field_doc])* $field: i64),* },)*
        }

        impl Action {
            /// The names of all actions.
            pub const NAMES: &[&str] = &[$($name),*];

            /// The action of this name with these numbers (zero where there are too few);
            /// `None` if there is no such name.
            #[must_use]
            pub fn from_numbers(name: &str, numbers: &[i64]) -> Option<Self> {
                let mut _numbers = numbers.iter().copied();
                match name {
                    $($name => Some(Self::$variant { $($field: _numbers.next().unwrap_or(0)),* }),)*
                    _ => None,
                }
            }

            /// The action's name.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self { $(Self::$variant { .. } => $name,)* }
            }
        }

        impl fmt::Display for Action {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$variant { $($field),* } => {
                        f.write_str($name)?;
                        $(write!(f, concat!(" ", stringify!($field), "={}"), $field)?;)*
                        Ok(())
                    })*
                }
            }
        }

        impl FromStr for Action {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let mut words = text.split_ascii_whitespace();
                let action = match words.next().unwrap_or_default() {
                    $($name => Self::$variant { $($field: field(words.next(), stringify!($field))?),* },)*
                    other => return Err(format!("there is no action \"{other}\"")),
                };
                match words.next() {
                    None => Ok(action),
                    Some(word) => Err(format!("\"{word}\" is one word too many")),
                }
            }
        }
    };
}

impl Action {
    /// The longest way between two nodes, or to the registry, that counts as whole.
    const LONGEST_WAY_US: i64 = 250_000;

    /// Whether it is a fault of a node, of the registry or of what lies between them, or an
    /// operator's doing.
    #[must_use]
    pub const fn hurts_servers(&self) -> bool {
        match *self {
            Self::DelayNodes { latency, .. } | Self::DelayRegistry { latency, .. } => {
                latency > Self::LONGEST_WAY_US
            }
            Self::Kick { .. }
            | Self::PauseNode { .. }
            | Self::Crash { .. }
            | Self::Drain { .. }
            | Self::Jump { .. }
            | Self::SetWrong { .. }
            | Self::CutNodes { .. }
            | Self::HealNodes { .. }
            | Self::ResetNodes { .. }
            | Self::VanishNodes { .. }
            | Self::CutRegistry { .. }
            | Self::HealRegistry { .. }
            | Self::LagWatches { .. }
            | Self::BlurRegistry { .. }
            | Self::PauseRegistry { .. }
            | Self::RestartRegistry { .. }
            | Self::ReturnRegistry { .. }
            | Self::ElectRegistry { .. }
            | Self::CompactRegistry { .. }
            | Self::FillRegistry { .. }
            | Self::FailMatcher { .. } => true,
            _ => false,
        }
    }
}

actions! {
    /// The client connects.
    Connect = "connect" { /// Which.
        client }
    /// The client ends its session.
    Disconnect = "disconnect" { /// Which.
        client }
    /// The client joins a room.
    Join = "join" { /// Which.
        client, /// Which room.
        room, /// Entries from before.
        history }
    /// The client leaves a room.
    Leave = "leave" { /// Which.
        client, /// Which room.
        room }
    /// The client says reliable messages.
    Say = "say" { /// Which.
        client, /// Which room.
        room, /// How many.
        count, /// Bytes in each.
        size }
    /// The client sends a message of which the newest counts.
    Latest = "latest" { /// Which.
        client, /// Which room.
        room, /// Which key.
        key, /// How many, one after the other.
        count }
    /// The client sets a property of its player.
    Set = "set" { /// Which.
        client, /// Which room.
        room, /// Which property.
        name, /// To what.
        value }
    /// The client removes a property of its player.
    Unset = "unset" { /// Which.
        client, /// Which room.
        room, /// Which property.
        name }
    /// The client adds to a counter.
    Add = "add" { /// Which.
        client, /// Which room.
        room, /// Which counter.
        name, /// How much; may be negative.
        delta }
    /// The client sends an application message, which the node's application echoes.
    Application = "application" { /// Which.
        client, /// Bytes.
        size }
    /// The operator kicks the client's player.
    Kick = "kick" { /// Whose player.
        client }
    /// Nothing passes between the client and a node.
    Partition = "partition" { /// Which.
        client, /// 0: both ways; 1: to the node; 2: to the client.
        way, /// 0: all nodes; else which, from 1.
        node }
    /// The partition ends.
    Heal = "heal" { /// Which.
        client, /// 0: all nodes; else which, from 1.
        node }
    /// The client's way to every node takes this long from now on.
    Delay = "delay" { /// Which.
        client, /// Microseconds one way.
        latency }
    /// The connection is reset: both ends learn it, what was under way is lost.
    Reset = "reset" { /// Whose.
        client }
    /// The connection dies in silence: neither end is told.
    Vanish = "vanish" { /// Whose.
        client }
    /// The client moves to another network: it gives its connection up at once, and what
    /// it had sent over it reaches the node late.
    Roam = "roam" { /// Which.
        client, /// How late, in milliseconds; 0: right behind the take-over.
        millis }
    /// The client stops reading.
    Stall = "stall" { /// Which.
        client, /// Milliseconds.
        millis }
    /// The client's next reliable messages go out twice each, as from a client that
    /// sends again at the least doubt. Not where they are sealed: a seal opens once.
    Repeat = "repeat" { /// Which.
        client, /// How many.
        count }
    /// The client reads slowly from now on.
    Slow = "slow" { /// Which.
        client, /// Microseconds between two frames; 0 is as fast as they come.
        gap }
    /// The client's process stands still, and then goes on.
    PauseClient = "pause-client" { /// Which.
        client, /// Milliseconds.
        millis }
    /// The node's process stands still, and then goes on.
    PauseNode = "pause-node" { /// Milliseconds.
        millis, /// Which.
        node }
    /// The node dies and is started again with nothing left.
    Crash = "crash" { /// Milliseconds until it is started.
        millis, /// 1: the host is gone, nobody is told; 0: connections are reset.
        silent, /// Which.
        node }
    /// The node is drained, stopped and started again.
    Drain = "drain" { /// Milliseconds until it is stopped.
        millis, /// Which.
        node }
    /// The client's process dies and is started again with nothing left.
    CrashClient = "crash-client" { /// Which.
        client }
    /// A wall clock jumps.
    Jump = "jump" { /// 0: the first node's; then the clients', then the other nodes'.
        process, /// Milliseconds; may be negative.
        millis }
    /// The client gives its connection up and connects to another node; what it had sent
    /// over it arrives late.
    Move = "move" { /// Which.
        client, /// How late, in milliseconds; 0: right behind the take-over.
        millis, /// Where it goes.
        node }
    /// Nothing passes between two nodes.
    CutNodes = "cut-nodes" { /// Which.
        one, /// And which.
        other, /// 0: both ways; 1: from the first to the second; 2: the other way.
        way }
    /// It passes again.
    HealNodes = "heal-nodes" { /// Which.
        one, /// And which.
        other }
    /// The way between two nodes takes this long from now on.
    DelayNodes = "delay-nodes" { /// Which.
        one, /// And which.
        other, /// Microseconds one way.
        latency }
    /// The links between two nodes are reset: both learn it, what was under way is lost.
    ResetNodes = "reset-nodes" { /// Which.
        one, /// And which.
        other }
    /// The links between two nodes die in silence: neither is told.
    VanishNodes = "vanish-nodes" { /// Which.
        one, /// And which.
        other }
    /// Nothing passes between a node and the registry.
    CutRegistry = "cut-registry" { /// 0: both ways; 1: to the registry; 2: to the node.
        way, /// Which.
        node }
    /// It passes again.
    HealRegistry = "heal-registry" { /// Which.
        node }
    /// The way between a node and the registry takes this long from now on.
    DelayRegistry = "delay-registry" { /// Microseconds one way.
        latency, /// Which.
        node }
    /// What the node's watches tell comes late from now on.
    LagWatches = "lag-watches" { /// Milliseconds; 0 is as soon as it can.
        millis, /// Which.
        node }
    /// The node's next requests to the registry are done or not, now or only later, and
    /// nobody says so.
    BlurRegistry = "blur-registry" { /// How many.
        count, /// Which.
        node }
    /// The registry stands still, and then goes on.
    PauseRegistry = "pause-registry" { /// Milliseconds.
        millis }
    /// The registry stops and is started again with all that it knew.
    RestartRegistry = "restart-registry" { /// Milliseconds until it is started.
        millis, /// 1: nobody is told; 0: connections are reset.
        silent }
    /// The registry's leader is gone, and another is elected.
    ElectRegistry = "elect-registry" { /// Milliseconds that this takes.
        millis }
    /// The registry forgets its history.
    CompactRegistry = "compact-registry" { /// All but so many of its last revisions.
        keep }
    /// What the registry knows is copied, to be restored.
    CopyRegistry = "copy-registry" {}
    /// The registry stops and is started again as it was when it was copied last, or with
    /// nothing.
    ReturnRegistry = "return-registry" { /// Milliseconds until it is started.
        millis, /// 1: with nothing.
        wiped }
    /// The registry has no space left, and refuses what takes some.
    FillRegistry = "fill-registry" { /// Milliseconds until there is some again.
        millis }
    /// The client searches for a match.
    Queue = "queue" { /// Which.
        client, /// 0: one against one; 1: two against two, if there is a queue for that.
        mode, /// 0: alone; else with the party of this number, in which there are two.
        party, /// The player's rating.
        rating }
    /// The client gives its search up.
    Cancel = "cancel" { /// Which.
        client }
    /// The client leaves the room of its match early.
    LeaveMatch = "leave-match" { /// Which.
        client }
    /// Something happens to the node that forms the matches of a queue.
    FailMatcher = "fail-matcher" { /// Which queue: see `queue`.
        mode, /// 0: it crashes; 1: in silence; 2: it stands still; 3: it is cut off from the
        /// registry; 4: it hears nothing of the registry; 5: of its next requests nobody knows
        /// what comes of them; 6: its watches lag; 7: what it writes next of a match, or of
        /// the end of a ticket, is written only when it is gone.
        how, /// Milliseconds until that is over.
        millis }
    /// The client gives up the match that it was told of.
    GiveUp = "give-up" { /// Which.
        client }
    /// A node's wall clock is off from now on, beyond what clocks of nodes may be.
    SetWrong = "set-wrong" { /// Which.
        node, /// Milliseconds; may be negative. 0: it is right again.
        millis }
}
