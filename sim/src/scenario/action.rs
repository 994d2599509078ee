//! Actions of scenarios.

use std::fmt;
use std::str::FromStr;

use super::field;

/// One step of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Time of the step, in microseconds of the world's time.
    pub at: u64,
    /// The action.
    pub action: Action,
}

macro_rules! actions {
    ($($(#[$doc:meta])* $variant:ident = $name:literal { $($(#[$field_doc:meta])* $field:ident),* })*) => {
        /// Action of a step.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Action {
            $($(#[$doc])* $variant { $($(#[$field_doc])* $field: i64),* },)*
        }

        impl Action {
            /// The names of all actions.
            pub const NAMES: &[&str] = &[$($name),*];

            /// Returns the action of this name with these numbers; missing numbers are zero. `None`
            /// if the name is unknown.
            #[must_use]
            pub fn from_numbers(name: &str, numbers: &[i64]) -> Option<Self> {
                let mut _numbers = numbers.iter().copied();
                match name {
                    $($name => Some(Self::$variant { $($field: _numbers.next().unwrap_or(0)),* }),)*
                    _ => None,
                }
            }

            /// Returns the action's name.
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
    /// Longest one-way latency between two nodes, or to the registry, that does not count as a
    /// fault, in microseconds.
    const LONGEST_WAY_US: i64 = 250_000;

    /// Returns true if the action is a fault of a node, of the registry or of a way between them,
    /// or an operator's act, in every cluster. [`Shape::is_disturbed_by`](super::Shape) adds the
    /// latencies that are a fault in some clusters.
    #[must_use]
    pub const fn disturbs_servers(&self) -> bool {
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
    Connect = "connect" { /// The client.
        client }
    /// The client ends its session.
    Disconnect = "disconnect" { /// The client.
        client }
    /// The client joins a room.
    Join = "join" { /// The client.
        client, /// The room.
        room, /// Earlier entries to read.
        history }
    /// The client leaves a room.
    Leave = "leave" { /// The client.
        client, /// The room.
        room }
    /// The client says reliable messages.
    Say = "say" { /// The client.
        client, /// The room.
        room, /// Number of messages.
        count, /// Bytes of each message.
        size }
    /// The client sends latest messages.
    Latest = "latest" { /// The client.
        client, /// The room.
        room, /// Key of the messages.
        key, /// Number of messages, one after the other.
        count }
    /// The client sets a property of its player.
    Set = "set" { /// The client.
        client, /// The room.
        room, /// The property.
        name, /// The new value.
        value }
    /// The client removes a property of its player.
    Unset = "unset" { /// The client.
        client, /// The room.
        room, /// The property.
        name }
    /// The client adds to a counter.
    Add = "add" { /// The client.
        client, /// The room.
        room, /// The counter.
        name, /// Amount; may be negative.
        delta }
    /// The client sends an application message, which the node's application echoes.
    Application = "application" { /// The client.
        client, /// Bytes of the message.
        size }
    /// The operator kicks the client's player.
    Kick = "kick" { /// The client.
        client }
    /// Frames between the client and a node stop.
    Partition = "partition" { /// The client.
        client, /// 0: both ways; 1: to the node; 2: to the client.
        way, /// 0: all nodes; else the node, from 1.
        node }
    /// The partition ends.
    Heal = "heal" { /// The client.
        client, /// 0: all nodes; else the node, from 1.
        node }
    /// The client's way to every node has this latency from now on.
    Delay = "delay" { /// The client.
        client, /// One-way latency, in microseconds.
        latency }
    /// The connection is reset: both ends are notified, and data under way is lost.
    Reset = "reset" { /// The client.
        client }
    /// The connection dies in silence: neither end is notified.
    Vanish = "vanish" { /// The client.
        client }
    /// The client moves to another network: it gives its connection up at once, and data
    /// that was sent over the old connection reaches the node late.
    Roam = "roam" { /// The client.
        client, /// Delay, in milliseconds; 0: directly after the take-over.
        millis }
    /// The client stops reading.
    Stall = "stall" { /// The client.
        client, /// Duration, in milliseconds.
        millis }
    /// The client's next reliable messages are sent twice each, as by a client that sends
    /// again at the least doubt. No effect on sealed messages, since a seal opens once.
    Repeat = "repeat" { /// The client.
        client, /// Number of messages.
        count }
    /// The client reads slowly from now on.
    Slow = "slow" { /// The client.
        client, /// Microseconds between two frames; 0: no wait.
        gap }
    /// The client's process pauses.
    PauseClient = "pause-client" { /// The client.
        client, /// Duration, in milliseconds.
        millis }
    /// The node's process pauses.
    PauseNode = "pause-node" { /// Duration, in milliseconds.
        millis, /// The node.
        node }
    /// The node dies and is started again with an empty memory.
    Crash = "crash" { /// Milliseconds until it is started.
        millis, /// 1: the host is gone, and no peer is notified; 0: connections are reset.
        silent, /// The node.
        node }
    /// The node is drained, stopped and started again.
    Drain = "drain" { /// Milliseconds until it is stopped.
        millis, /// The node.
        node }
    /// The client's process dies and is started again with an empty memory.
    CrashClient = "crash-client" { /// The client.
        client }
    /// A wall clock jumps.
    Jump = "jump" { /// 0: the first node; then the clients, then the other nodes.
        process, /// Size of the jump, in milliseconds; may be negative.
        millis }
    /// The client gives its connection up and connects to another node; data that was sent
    /// over the old connection arrives late.
    Move = "move" { /// The client.
        client, /// Delay, in milliseconds; 0: directly after the take-over.
        millis, /// The new node.
        node }
    /// Frames between two nodes stop.
    CutNodes = "cut-nodes" { /// One node.
        one, /// The other node.
        other, /// 0: both ways; 1: from `one` to `other`; 2: from `other` to `one`.
        way }
    /// Frames between two nodes pass again.
    HealNodes = "heal-nodes" { /// One node.
        one, /// The other node.
        other }
    /// The way between two nodes has this latency from now on.
    DelayNodes = "delay-nodes" { /// One node.
        one, /// The other node.
        other, /// One-way latency, in microseconds.
        latency }
    /// The links between two nodes are reset: both are notified, and data under way is lost.
    ResetNodes = "reset-nodes" { /// One node.
        one, /// The other node.
        other }
    /// The links between two nodes die in silence: neither node is notified.
    VanishNodes = "vanish-nodes" { /// One node.
        one, /// The other node.
        other }
    /// Messages between a node and the registry stop.
    CutRegistry = "cut-registry" { /// 0: both ways; 1: to the registry; 2: to the node.
        way, /// The node.
        node }
    /// Messages between a node and the registry pass again.
    HealRegistry = "heal-registry" { /// The node.
        node }
    /// The way between a node and the registry has this latency from now on.
    DelayRegistry = "delay-registry" { /// One-way latency, in microseconds.
        latency, /// The node.
        node }
    /// Events of the node's watches arrive late from now on.
    LagWatches = "lag-watches" { /// Delay, in milliseconds; 0: none.
        millis, /// The node.
        node }
    /// The node's next requests to the registry are executed or not, now or later, and are
    /// never answered.
    BlurRegistry = "blur-registry" { /// Number of requests.
        count, /// The node.
        node }
    /// The registry pauses.
    PauseRegistry = "pause-registry" { /// Duration, in milliseconds.
        millis }
    /// The registry stops and is started again with all its data.
    RestartRegistry = "restart-registry" { /// Milliseconds until it is started.
        millis, /// 1: no node is notified; 0: connections are reset.
        silent }
    /// The registry's leader is gone, and another is elected.
    ElectRegistry = "elect-registry" { /// Duration of the election, in milliseconds.
        millis }
    /// The registry's history is compacted.
    CompactRegistry = "compact-registry" { /// Number of the last revisions to keep.
        keep }
    /// The registry's data is copied, for a later restore.
    CopyRegistry = "copy-registry" {}
    /// The registry stops and is started again from the last copy, or empty.
    ReturnRegistry = "return-registry" { /// Milliseconds until it is started.
        millis, /// 1: empty; 0: as it was copied last.
        wiped }
    /// The registry has no space left, and refuses requests that need space.
    FillRegistry = "fill-registry" { /// Milliseconds until the registry has space again.
        millis }
    /// The client searches for a match.
    Queue = "queue" { /// The client.
        client, /// 0: one against one; 1: two against two, if a queue exists.
        mode, /// 0: alone; else number of a party of two.
        party, /// The player's rating.
        rating }
    /// The client gives its search up.
    Cancel = "cancel" { /// The client.
        client }
    /// The client leaves the room of its match early.
    LeaveMatch = "leave-match" { /// The client.
        client }
    /// The matcher of a mode fails.
    FailMatcher = "fail-matcher" { /// The mode, as in `queue`.
        mode, /// 0: the node crashes; 1: the node crashes in silence; 2: the node pauses; 3: the
        /// node is cut off from the registry; 4: nothing from the registry reaches the node;
        /// 5: the next requests are blurred, as in `blur-registry`; 6: the watches lag; 7: the
        /// next write of a match, or of a ticket's end, is executed only after the node is gone.
        how, /// Milliseconds until the fault is over.
        millis }
    /// The client gives up its match.
    GiveUp = "give-up" { /// The client.
        client }
    /// A node's wall clock is off from now on, beyond the allowed difference between nodes.
    SetWrong = "set-wrong" { /// The node.
        node, /// Error of the clock, in milliseconds; may be negative. 0: the clock is right again.
        millis }
}
