//! A scenario: everything that a run depends on, as data.
//!
//! A scenario is drawn from a seed ([`crate::draw`]), printed, parsed back, run, and
//! made shorter by leaving steps out. Numbers that name a client or a room are taken
//! modulo how many there are, so every list of steps is a scenario.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use skirmish_core::client::ClientConfig;
use skirmish_core::config::{
    Config, ConnectionLimits, FrameLimits, Heartbeat, Rate, Rates, RoomLimits, SessionLimits,
};

/// The first line of a printed scenario.
const HEADER: &str = "skirmish-scenario 1";

/// Why a text is not a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for ParseError {}

/// Everything that a run depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// What the machines and the network draw from.
    pub seed: u64,
    /// Sizes, limits and rates.
    pub shape: Shape,
    /// What is done, in order of time.
    pub steps: Vec<Step>,
}

impl Scenario {
    /// The same scenario with other steps.
    #[must_use]
    pub fn with_steps(&self, steps: Vec<Step>) -> Self {
        Self { seed: self.seed, shape: self.shape, steps }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}\nseed {}", self.seed)?;
        write!(f, "{}", self.shape)?;
        self.steps.iter().try_for_each(|step| writeln!(f, "at {} {}", step.at, step.action))
    }
}

impl FromStr for Scenario {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut scenario = Self { seed: 0, shape: Shape::default(), steps: Vec::new() };
        for (index, line) in text.lines().enumerate() {
            let error = |what: String| ParseError { line: index + 1, what };
            if index == 0 && line != HEADER {
                return Err(error(format!("a scenario begins with \"{HEADER}\"")));
            }
            let line = line.split('#').next().unwrap_or_default().trim();
            let Some((word, rest)) = line.split_once(' ') else {
                if line.is_empty() {
                    continue;
                }
                return Err(error(format!("\"{line}\" has no value")));
            };
            match word {
                "skirmish-scenario" => {}
                "seed" => scenario.seed = number(rest).map_err(error)?,
                "at" => {
                    let (at, action) = rest
                        .split_once(' ')
                        .ok_or_else(|| error("a step has a time and an action".into()))?;
                    let at = number(at).map_err(error)?;
                    scenario.steps.push(Step { at, action: action.parse().map_err(error)? });
                }
                name => scenario.shape.set(name, number(rest).map_err(error)?).map_err(error)?,
            }
        }
        scenario.steps.sort_by_key(|step| step.at);
        Ok(scenario)
    }
}

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
    /// Nothing passes between the client and the node.
    Partition = "partition" { /// Which.
        client, /// 0: both ways; 1: to the node; 2: to the client.
        way }
    /// The partition ends.
    Heal = "heal" { /// Which.
        client }
    /// The client's way to the node takes this long from now on.
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
        millis }
    /// The node dies and is started again with nothing left.
    Crash = "crash" { /// Milliseconds until it is started.
        millis, /// 1: the host is gone, nobody is told; 0: connections are reset.
        silent }
    /// The node is drained, stopped and started again.
    Drain = "drain" { /// Milliseconds until it is stopped.
        millis }
    /// The client's process dies and is started again with nothing left.
    CrashClient = "crash-client" { /// Which.
        client }
    /// A wall clock jumps.
    Jump = "jump" { /// 0: the node's; else the clients', from 1.
        process, /// Milliseconds; may be negative.
        millis }
}

macro_rules! shape {
    ($($(#[$doc:meta])* $field:ident = $default:expr;)*) => {
        /// Sizes, limits and rates of a scenario.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Shape { $($(#[$doc])* pub $field: u64,)* }

        impl Default for Shape {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        /// Bytes of the largest frame that the workload makes.
const LARGEST_FRAME: u64 = 2_200;

impl Shape {
            /// Sets a field by its name.
            fn set(&mut self, name: &str, value: u64) -> Result<(), String> {
                match name {
                    $(stringify!($field) => self.$field = value,)*
                    _ => return Err(format!("there is no parameter \"{name}\"")),
                }
                Ok(())
            }
        }

        impl fmt::Display for Shape {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                $(writeln!(f, concat!(stringify!($field), " {}"), self.$field)?;)*
                Ok(())
            }
        }
    };
}

shape! {
    /// Clients.
    clients = 3;
    /// Players; client `n` plays player `n` modulo this.
    players = 3;
    /// Rooms that are spoken of.
    rooms = 1;
    /// Length of the phase with faults, in milliseconds.
    chaos_ms = 10_000;
    /// Time one way over a link, in microseconds.
    latency_us = 5_000;
    /// Added at random, up to this many microseconds.
    jitter_us = 1_000;
    /// Bytes under way from a client to the node before the client is held back.
    pipe_up = 65_536;
    /// Bytes under way from the node to a client before the node is held back.
    pipe_down = 65_536;
    /// Time from accepting a connection to the end of its upgrade, in microseconds.
    upgrade_us = 1_000;
    /// Wall clocks are off by up to this many milliseconds.
    skew_ms = 0;
    /// 1: whoever closes a connection waits until the other end closes it too, as the
    /// closing handshake of WebSocket does, and gets what comes meanwhile; 0: it is gone.
    close_waits = 1;
    /// Clocks run fast or slow by up to this many parts in a million.
    drift_ppm = 0;
    /// Connections in all.
    conn_total = 64;
    /// Connections from one address.
    conn_per_address = 16;
    /// Connections without `Hello`.
    conn_unauthenticated = 16;
    /// From accepting to `Hello`, in milliseconds.
    handshake_ms = 10_000;
    /// Time to send what is queued when closing, in milliseconds.
    linger_ms = 5_000;
    /// Heartbeat interval in milliseconds.
    heartbeat_ms = 15_000;
    /// Its jitter in percent.
    heartbeat_jitter = 10;
    /// Reliable messages per second.
    reliable_rate = 60;
    /// Reliable messages at once.
    reliable_burst = 120;
    /// Latest messages per second.
    latest_rate = 120;
    /// Latest messages at once.
    latest_burst = 240;
    /// Sessions in all.
    session_total = 64;
    /// Life of a session without a connection, in milliseconds.
    session_ttl_ms = 60_000;
    /// Rooms of a session.
    session_rooms = 8;
    /// Rooms in all.
    room_total = 64;
    /// Members of a room.
    room_members = 64;
    /// Entries in a log's window.
    window_entries = 1_024;
    /// Bytes in a log's window.
    window_bytes = 262_144;
    /// Flush interval in milliseconds.
    flush_ms = 0;
    /// Keys of latest messages.
    latest_keys = 8;
    /// Names of properties and counters for each player.
    state_entries = 32;
    /// How far ahead a stamp may be, in milliseconds.
    clock_bound_ms = 2_000;
    /// How long a tombstone is kept, in milliseconds.
    tombstone_ms = 600_000;
    /// Payloads from this size on are compressed; 0 never.
    compress_from = 1_024;
    /// Shortest back-off of a client, in milliseconds.
    backoff_min_ms = 500;
    /// Longest back-off of a client, in milliseconds.
    backoff_max_ms = 3_000;
    /// A client's deadline for a connection, in milliseconds.
    connect_ms = 10_000;
    /// Reliable messages that a client keeps.
    outbox = 1_024;
    /// Percent of the clients that take compressed payloads.
    zstd_percent = 50;
    /// Percent of the clients that ask for sealing.
    seal_percent = 0;
}

impl Shape {
    /// The node's configuration.
    #[must_use]
    pub fn node_config(&self) -> Config {
        let large = Rate { per_second: 1_000_000, burst: 1_000_000 };
        let rate = |per_second, burst| Rate { per_second: small(per_second), burst: small(burst) };
        Config {
            connections: ConnectionLimits {
                total: size(self.conn_total),
                per_address: size(self.conn_per_address),
                unauthenticated: size(self.conn_unauthenticated),
                handshake_timeout: Duration::from_millis(self.handshake_ms),
                linger: Duration::from_millis(self.linger_ms),
            },
            heartbeat: Heartbeat {
                interval: Duration::from_millis(self.heartbeat_ms),
                jitter_percent: u8::try_from(self.heartbeat_jitter.min(100)).unwrap_or(100),
                unhealthy_after: 2,
                close_after: 3,
            },
            rates: Rates {
                reliable: rate(self.reliable_rate, self.reliable_burst),
                latest: rate(self.latest_rate, self.latest_burst),
                control: large,
                bytes: Rate { per_second: 1 << 30, burst: 1 << 30 },
            },
            sessions: SessionLimits {
                total: size(self.session_total),
                ttl: Duration::from_millis(self.session_ttl_ms),
                rooms: size(self.session_rooms),
            },
            rooms: RoomLimits {
                total: size(self.room_total),
                members: size(self.room_members),
                window_entries: size(self.window_entries),
                window_bytes: size(self.window_bytes),
                flush_interval: Duration::from_millis(self.flush_ms),
                latest_keys: small(self.latest_keys),
                state_entries: size(self.state_entries),
                clock_bound: Duration::from_millis(self.clock_bound_ms),
                tombstone_horizon: Duration::from_millis(self.tombstone_ms),
            },
            frames: FrameLimits {
                compress_from: size(self.compress_from),
                ..FrameLimits { frame_bytes: 64 * 1024, body_bytes: 16 * 1024, compress_from: 0 }
            },
        }
    }

    /// A client's configuration; `percent` (below 100) is the client's place in the
    /// population.
    #[must_use]
    pub fn client_config(&self, percent: u64) -> ClientConfig {
        ClientConfig {
            agent: "sim/1".into(),
            backoff_min: Duration::from_millis(self.backoff_min_ms),
            backoff_max: Duration::from_millis(self.backoff_max_ms),
            connect_timeout: Duration::from_millis(self.connect_ms),
            outbox_messages: size(self.outbox),
            accept_zstd: percent < self.zstd_percent,
            seal: 99 - percent.min(99) < self.seal_percent,
            ..ClientConfig::default()
        }
    }

    /// The bound of L1 in microseconds: within this time after the last fault, whatever
    /// was broken is found out (heartbeats, deadlines), undone (back-off, life of a
    /// session) and made up for (`backlog` messages at the reliable rate, and as fast as
    /// the pipes carry them: what is on its way at once is one pipe full, or one frame if
    /// that is larger). Doubled for clocks that drift.
    #[must_use]
    pub fn liveness_bound(&self, backlog: u64) -> u64 {
        let found_out = self.heartbeat_ms * 5 + self.connect_ms + self.handshake_ms + self.linger_ms;
        let undone = self.backoff_max_ms * 4 + self.session_ttl_ms;
        let made_up = backlog * 1_000 / self.reliable_rate.max(1) + self.flush_ms * 10;
        let flight_ms = (self.latency_us + self.jitter_us) / 1_000;
        let in_one_flight = (self.pipe_up.min(self.pipe_down) / LARGEST_FRAME).max(1);
        let carried = backlog * flight_ms / in_one_flight;
        let under_way = (self.latency_us + self.jitter_us) * 50 / 1_000 + 5_000;
        (found_out + undone + made_up + carried + under_way) * 2 * 1_000
    }
}

fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.trim().parse().map_err(|_| format!("\"{text}\" is not a number of this kind"))
}

fn field(word: Option<&str>, name: &str) -> Result<i64, String> {
    let word = word.ok_or_else(|| format!("{name}=... is missing"))?;
    match word.split_once('=') {
        Some((key, value)) if key == name => number(value),
        _ => Err(format!("{name}=... is expected where \"{word}\" is")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::draw;

    #[test]
    fn a_printed_scenario_parses_back_to_itself() {
        for seed in 0..200 {
            let scenario = draw(seed);
            assert_eq!(scenario.to_string().parse::<Scenario>(), Ok(scenario));
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let error = format!("{HEADER}\nseed 1\nat 5 say client=0 room=0").parse::<Scenario>();
        assert_eq!(error, Err(ParseError { line: 3, what: "count=... is missing".into() }));
        assert!("seed 1".parse::<Scenario>().is_err());
    }
}
