//! Sizes, limits and rates of a scenario.

use std::fmt;
use std::time::Duration;

use skirmish_core::client::ClientConfig;
use skirmish_core::config::{
    Config, ConnectionLimits, FrameLimits, HeartbeatConfig, LinkLimits, Rate, Rates, RegistrarConfig,
    ReplicationConfig, RoomLimits, SessionLimits,
};
use skirmish_core::id::Name;
use skirmish_core::matchmaking::{MatchmakingConfig, Quality, QueueConfig, Widening};

use super::Action;

/// Size of the largest frame that the workload makes, in bytes.
const LARGEST_FRAME: u64 = 2_200;

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

        impl Shape {
            /// Sets a field by its name.
            pub(super) fn set(&mut self, name: &str, value: u64) -> Result<(), String> {
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
    /// Number of clients.
    clients = 3;
    /// Number of players; client `n` plays player `n` modulo this number.
    players = 3;
    /// Number of rooms.
    rooms = 1;
    /// Length of the phase with faults, in milliseconds.
    chaos_ms = 10_000;
    /// One-way latency of a client's way to a node, in microseconds.
    latency_us = 5_000;
    /// Largest random addition to `latency_us`, in microseconds.
    jitter_us = 1_000;
    /// Bytes under way from a client to the node before the client is held back.
    pipe_up = 65_536;
    /// Bytes under way from the node to a client before the node is held back.
    pipe_down = 65_536;
    /// Time from accept to the end of the upgrade, in microseconds.
    upgrade_us = 1_000;
    /// Largest error of wall clocks, in milliseconds.
    skew_ms = 0;
    /// 1: an end that closes a connection keeps reading until the other end closes too, as in
    /// WebSocket's closing handshake; 0: the connection is gone at once.
    close_waits = 1;
    /// Largest error of the speed of clocks, in parts per million.
    drift_ppm = 0;
    /// Most connections of a node.
    conn_total = 64;
    /// Most connections from one address.
    conn_per_address = 16;
    /// Most connections without `Hello`.
    conn_unauthenticated = 16;
    /// Time from accept to `Hello`, in milliseconds.
    handshake_ms = 10_000;
    /// Time to send queued frames while a connection closes, in milliseconds.
    linger_ms = 5_000;
    /// Heartbeat interval, in milliseconds.
    heartbeat_ms = 15_000;
    /// Jitter of the heartbeat interval, in percent.
    heartbeat_jitter = 10;
    /// Reliable messages per second.
    reliable_rate = 60;
    /// Reliable messages in a burst.
    reliable_burst = 120;
    /// Latest messages per second.
    latest_rate = 120;
    /// Latest messages in a burst.
    latest_burst = 240;
    /// Most sessions of a node.
    session_total = 64;
    /// Life of a session without a connection, in milliseconds.
    session_ttl_ms = 60_000;
    /// Most rooms of a session.
    session_rooms = 8;
    /// Most rooms of a node.
    room_total = 64;
    /// Most members of a room.
    room_members = 64;
    /// Entries in the window of a room's log.
    window_entries = 1_024;
    /// Bytes in the window of a room's log.
    window_bytes = 262_144;
    /// Flush interval, in milliseconds.
    flush_ms = 0;
    /// 1: clients end turns with some of their messages.
    turns = 0;
    /// Time after which a turn ends by itself, in milliseconds; 0: never.
    turn_ms = 0;
    /// Keys of latest messages for each member.
    latest_keys = 8;
    /// Names of properties and counters for each player.
    state_entries = 32;
    /// Longest lead of a stamp, in milliseconds.
    clock_bound_ms = 2_000;
    /// Life of a tombstone, in milliseconds.
    tombstone_ms = 600_000;
    /// Size from which payloads are compressed, in bytes; 0: never.
    compress_from = 1_024;
    /// Shortest back-off of a client, in milliseconds.
    backoff_min_ms = 500;
    /// Longest back-off of a client, in milliseconds.
    backoff_max_ms = 3_000;
    /// A client's deadline for a connection, in milliseconds.
    connect_ms = 10_000;
    /// Most reliable messages in a client's outbox.
    outbox = 1_024;
    /// Percent of the clients that accept compressed payloads.
    zstd_percent = 50;
    /// Percent of the clients that ask for sealing.
    seal_percent = 0;
    /// Number of nodes.
    nodes = 1;
    /// 1: the registry is a process of its own; 0: the registry is in the process of the only node.
    /// With several nodes the registry is always a process of its own.
    remote_registry = 0;
    /// Largest error of the nodes' wall clocks if there are several nodes, in milliseconds.
    node_skew_ms = 50;
    /// Percent of a client's dials that go to another node than the one before.
    wander_percent = 0;
    /// One-way latency between nodes, in microseconds.
    node_latency_us = 500;
    /// Largest random addition to `node_latency_us`, in microseconds.
    node_jitter_us = 100;
    /// Bytes under way from a node to another before the sending node is held back.
    node_pipe = 1_048_576;
    /// Bytes that may wait for a link between nodes.
    link_queue = 16_777_216;
    /// Heartbeat interval of links between nodes, in milliseconds.
    link_heartbeat_ms = 1_000;
    /// Time from the connect of a link to its `LinkHello`, in milliseconds.
    link_handshake_ms = 3_000;
    /// Shortest back-off of dials between nodes, in milliseconds.
    link_backoff_min_ms = 100;
    /// Longest back-off of dials between nodes, in milliseconds.
    link_backoff_max_ms = 3_000;
    /// One-way latency to the registry, in microseconds.
    registry_latency_us = 500;
    /// Largest random addition to `registry_latency_us`, in microseconds.
    registry_jitter_us = 100;
    /// Time for which a node's driver gathers requests to the registry into a group, in
    /// microseconds. An answer to an earlier group ends the gathering. 0: each request is sent
    /// alone and at once.
    group_us = 0;
    /// Time-out of a node's requests to the registry, in milliseconds.
    registry_call_ms = 2_000;
    /// Time after which either end of a connection to the registry detects that the connection is
    /// dead, in milliseconds.
    registry_keepalive_ms = 5_000;
    /// Time to live of a node's lease, in seconds.
    node_lease_s = 10;
    /// Time to live of the lease of the rooms that a node leads, in seconds.
    room_lease_s = 60;
    /// Nodes that have a room: 1, or 2 for rooms with a backup.
    replicas = 1;
    /// Queues for matches: 0: none; 1: one against one; 2: also two against two.
    queues = 0;
    /// 1: free places of running matches are filled.
    backfill = 0;
    /// Time from one round of a matcher to the next, in milliseconds.
    queue_interval_ms = 250;
    /// Longest wait of a ticket, in milliseconds.
    queue_time_out_ms = 10_000;
    /// Largest difference of ratings at the start of a search.
    rating_start = 100;
    /// Growth of the largest difference of ratings, per second.
    rating_per_s = 50;
    /// Upper bound of the largest difference of ratings.
    rating_most = 600;
    /// Time that a match waits for each of its players to join its room, in milliseconds.
    join_window_ms = 5_000;
    /// Time that a party waits for a player whose ticket is gone, in milliseconds.
    party_grace_ms = 1_000;
    /// Time for a reconnect before the player's ticket is marked as absent, in milliseconds.
    absence_delay_ms = 200;
    /// Time that the ticket of a player without a connection is kept, in milliseconds; at most the
    /// life of a session.
    absence_grace_ms = 10_000;
    /// Time from one check of all matches for finished ones to the next, in milliseconds.
    sweep_ms = 2_000;
    /// Keys that matchmaking reads in one request.
    queue_page = 500;
    /// Requests of matchmaking that are under way at once.
    queue_calls = 64;
    /// Longest time that a player plays a match, in milliseconds.
    match_ms = 3_000;
    /// Control frames of a connection per second: all frames but reliable and latest messages.
    control_rate = 1_000_000;
    /// Control frames of a connection in a burst.
    control_burst = 1_000_000;
    /// Bytes of a connection per second.
    bytes_rate = 1 << 30;
    /// Bytes of a connection in a burst.
    bytes_burst = 1 << 30;
}

/// Modes that have queues, in order of their numbers.
pub const MODES: [&str; 2] = ["duel", "duo"];

impl Shape {
    /// Returns the configuration of a node.
    #[must_use]
    pub fn node_config(&self) -> Config {
        let large = Rate { per_second: 1_000_000, burst: 1_000_000 };
        let rate = |per_second, burst| Rate { per_second: small(per_second), burst: small(burst) };
        Config {
            connections: ConnectionLimits {
                total: size(self.conn_total),
                per_address: size(self.conn_per_address),
                ipv6_prefix: 64,
                unauthenticated: size(self.conn_unauthenticated),
                handshake_timeout: Duration::from_millis(self.handshake_ms),
                linger: Duration::from_millis(self.linger_ms),
            },
            heartbeat: HeartbeatConfig {
                interval: Duration::from_millis(self.heartbeat_ms),
                jitter_percent: u8::try_from(self.heartbeat_jitter.min(100)).unwrap_or(100),
                unhealthy_after: 2,
                close_after: 3,
            },
            rates: Rates {
                reliable: rate(self.reliable_rate, self.reliable_burst),
                latest: rate(self.latest_rate, self.latest_burst),
                control: rate(self.control_rate, self.control_burst),
                bytes: rate(self.bytes_rate, self.bytes_burst),
                logins: large,
                logins_per_address: large,
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
                pending_ops: 16,
                flush_interval: Duration::from_millis(self.flush_ms),
                turn_time: Duration::from_millis(self.turn_ms),
                latest_keys: small(self.latest_keys),
                // Space for one message of the largest size, and little more.
                latest_bytes: 20 * 1024,
                state_entries: size(self.state_entries),
                clock_bound: Duration::from_millis(self.clock_bound_ms),
                tombstone_horizon: Duration::from_millis(self.tombstone_ms),
            },
            frames: FrameLimits {
                compress_from: size(self.compress_from),
                ..FrameLimits { frame_bytes: 64 * 1024, body_bytes: 16 * 1024, compress_from: 0 }
            },
            links: LinkLimits {
                total: 256,
                handshake_timeout: Duration::from_millis(self.link_handshake_ms),
                heartbeat: HeartbeatConfig {
                    interval: Duration::from_millis(self.link_heartbeat_ms),
                    jitter_percent: 10,
                    unhealthy_after: 2,
                    close_after: 3,
                },
                frame_bytes: 256 * 1024,
                queue_bytes: size(self.link_queue),
                backoff_min: Duration::from_millis(self.link_backoff_min_ms),
                backoff_max: Duration::from_millis(self.link_backoff_max_ms),
            },
            replication: ReplicationConfig {
                replicas: small(self.replicas),
                backup_patience: Duration::from_secs(1),
            },
            registrar: RegistrarConfig {
                node_ttl: Duration::from_secs(self.node_lease_s),
                room_ttl: Duration::from_secs(self.room_lease_s),
                call_timeout: Duration::from_millis(self.registry_call_ms),
                ..RegistrarConfig::default()
            },
            matchmaking: self.matchmaking(),
        }
    }

    /// Returns the configuration of matchmaking.
    #[must_use]
    pub fn matchmaking(&self) -> MatchmakingConfig {
        let queue = |(mode, team_size): (&str, u8)| QueueConfig {
            rating: Widening {
                start: small(self.rating_start.min(self.rating_most)),
                per_second: small(self.rating_per_s),
                most: small(self.rating_most),
            },
            // Every ticket within the window of ratings is good enough.
            quality: Quality { floor: 0, worst_spread: 800, worst_difference: 200 },
            backfill: self.backfill > 0,
            time_out: Duration::from_millis(self.queue_time_out_ms.max(self.queue_interval_ms)),
            interval: Duration::from_millis(self.queue_interval_ms),
            ..QueueConfig::new(name(mode), 2, team_size, vec![name("eu")])
        };
        MatchmakingConfig {
            trust_rating: true,
            join_window: Duration::from_millis(self.join_window_ms),
            party_grace: Duration::from_millis(self.party_grace_ms),
            absence_delay: Duration::from_millis(self.absence_delay_ms.min(self.absence_ms())),
            absence_grace: Duration::from_millis(self.absence_ms()),
            sweep_interval: Duration::from_millis(self.sweep_ms),
            players: size(self.session_total),
            calls: size(self.queue_calls),
            page: small(self.queue_page),
            backoff_max: Duration::from_secs(1),
            ..MatchmakingConfig::new(MODES.into_iter().zip(1..).take(size(self.queues)).map(queue).collect())
        }
    }

    /// Returns the time that the ticket of an absent player is kept, in milliseconds.
    fn absence_ms(&self) -> u64 {
        self.absence_grace_ms.min(self.session_ttl_ms).max(1)
    }

    /// Returns the number of nodes.
    #[must_use]
    pub fn node_count(&self) -> usize {
        size(self.nodes.clamp(1, 5))
    }

    /// Returns true if the registry is a process of its own.
    #[must_use]
    pub fn has_remote_registry(&self) -> bool {
        self.node_count() > 1 || self.remote_registry > 0
    }

    /// Returns the configuration of a client; `percent` (below 100) is the client's place in the
    /// population.
    #[must_use]
    pub fn client_config(&self, percent: u64) -> ClientConfig {
        ClientConfig {
            agent: "sim/1".into(),
            backoff_min: Duration::from_millis(self.backoff_min_ms),
            backoff_max: Duration::from_millis(self.backoff_max_ms),
            connect_timeout: Duration::from_millis(self.connect_ms),
            ping_interval: Duration::from_millis(self.heartbeat_ms / 2),
            // Leaves time for a round trip in any case.
            ping_timeout: Duration::from_millis(self.heartbeat_ms / 4 + 50)
                .max(Duration::from_micros((self.latency_us + self.jitter_us) * 4)),
            outbox_messages: size(self.outbox),
            accept_zstd: percent < self.zstd_percent,
            seal: 99 - percent.min(99) < self.seal_percent,
            ..ClientConfig::default()
        }
    }

    /// Bound of L1, in microseconds. Within this time after the last fault every breakage is found
    /// (heartbeats, deadlines), undone (back-off, life of a session) and made up for: `backlog`
    /// messages are sent at the reliable rate, and as fast as the pipes carry them. One pipe full,
    /// or one frame if that is larger, is under way at once. Doubled, since clocks may drift.
    #[must_use]
    pub fn liveness_bound(&self, backlog: u64) -> u64 {
        let found_out = self.heartbeat_ms * 5 + self.connect_ms + self.handshake_ms + self.linger_ms;
        let undone = self.backoff_max_ms * 4 + self.session_ttl_ms;
        let made_up = backlog * 1_000 / self.reliable_rate.max(1) + self.flush_ms * 10;
        let flight_ms = (self.latency_us + self.jitter_us) / 1_000;
        let in_one_flight = (self.pipe_up.min(self.pipe_down) / LARGEST_FRAME).max(1);
        let carried = backlog * flight_ms / in_one_flight;
        let under_way = (self.latency_us + self.jitter_us) * 50 / 1_000 + 5_000;
        let among_nodes = if self.has_remote_registry() { self.cluster_bound(backlog) } else { 0 };
        let matched = if self.queues > 0 { self.matchmaking_bound() } else { 0 };
        (found_out + undone + made_up + carried + under_way + among_nodes + matched) * 2 * 1_000
    }

    /// Longest time that a node takes to find out that its wall clock is off, in microseconds, once
    /// the node has links to most of the others. A ping that is under way is answered, and one
    /// more, on ways with a latency of `slowest` at most. The node's clock may be slow.
    #[must_use]
    pub fn clock_bound(&self, slowest: u64) -> u64 {
        (self.link_heartbeat_ms * 4_000 + slowest * 8 + 1_000_000) * 2
    }

    /// Longest time that a node takes to find out that nothing arrives over a connection any more,
    /// in microseconds. Before `Hello` the handshake's deadline counts. After that, the ping after
    /// the last answered one is sent, and then enough pings are missed. The node's clock may be
    /// slow.
    #[must_use]
    pub fn silence_bound(&self) -> u64 {
        let heartbeat = self.node_config().heartbeat;
        let beats = self.heartbeat_ms * (u64::from(heartbeat.close_after) + 1);
        let speed_ppm = 1_000_000 - self.drift_ppm.min(500_000);
        (self.handshake_ms + beats) * 1_000 * 1_000_000 / speed_ppm
    }

    /// Returns true if an action is a fault of the servers in this cluster, or an operator's act.
    ///
    /// A way to the registry that [`Action::disturbs_servers`] permits is a fault where requests do
    /// not outlast it: a request is gathered, waits for a group that is on its way and back, and is
    /// then on its own way and back, four ways in all. A node that gives each request up before
    /// has no registry that works.
    #[must_use]
    pub fn is_disturbed_by(&self, action: Action) -> bool {
        let outlasts_calls = match action {
            Action::DelayRegistry { latency, .. } => {
                let way = u64::try_from(latency).unwrap_or(0) + self.registry_jitter_us;
                let speed_ppm = 1_000_000 - self.drift_ppm.min(500_000);
                self.group_us + way * 4 > self.registry_call_ms * 1_000 * speed_ppm / 1_000_000
            }
            _ => false,
        };
        outlasts_calls || action.disturbs_servers()
    }

    /// Longest time that a node takes to find out that the registry takes no writes, in
    /// microseconds, if nothing else is wrong: a check may be under way or the connection may be
    /// missing, and then another check is due. The node's clock may be slow.
    #[must_use]
    pub fn refusal_bound(&self) -> u64 {
        let check = self.node_config().registrar.write_check.as_micros();
        let round_trips = (self.registry_latency_us + self.registry_jitter_us) * 8 + self.group_us;
        let calls = (self.registry_call_ms * 2 + self.registry_keepalive_ms) * 1_000;
        let speed_ppm = 1_000_000 - self.drift_ppm.min(500_000);
        (u64::try_from(check).unwrap_or(u64::MAX) + round_trips + calls) * 1_000_000 / speed_ppm
    }

    /// Longest time that a client takes to find out that nothing arrives over its connection any
    /// more, in microseconds. The client's clock may be slow.
    #[must_use]
    pub fn deafness_bound(&self) -> u64 {
        let longest = self.client_config(0).longest_deafness();
        let speed_ppm = 1_000_000 - self.drift_ppm.min(500_000);
        u64::try_from(longest.as_micros()).unwrap_or(u64::MAX).saturating_mul(1_000_000) / speed_ppm
    }

    /// Addition of matchmaking to the bound of L1, in milliseconds: the longest wait of a ticket,
    /// of a party for its player and of a room for its first player, and the time until a match is
    /// played and found to be over. Each step may have just missed its turn.
    fn matchmaking_bound(&self) -> u64 {
        let found = self.queue_time_out_ms + self.queue_interval_ms * 2 + self.party_grace_ms;
        let over = self.match_ms + self.join_window_ms + self.sweep_ms * 3;
        let registry_ms = (self.registry_latency_us + self.registry_jitter_us) / 1_000;
        found + over + 5_000 + (self.registry_call_ms + registry_ms) * 20
    }

    /// Longest time that a match may keep a player that never joins, in microseconds, if nothing
    /// fails: the time to join, and the time until the next check of the match. Clocks may drift.
    #[must_use]
    pub fn missed_bound(&self) -> u64 {
        let registry_ms = (self.registry_latency_us + self.registry_jitter_us) / 1_000;
        let looked = self.sweep_ms * 3 + registry_ms * 100 + self.queue_time_out_ms.min(2_000);
        (self.join_window_ms + looked) * 1_100
    }

    /// Addition of several nodes and their registry to the bound of L1, in milliseconds. A dead
    /// connection to the registry is found, the leases of the dead end (twice, if a new leader of
    /// the registry renews them), the living nodes register again, links are dialed, and rooms are
    /// claimed, attached to and entered.
    fn cluster_bound(&self, backlog: u64) -> u64 {
        let registry_ms = (self.registry_latency_us + self.registry_jitter_us) / 1_000;
        let node_ms = (self.node_latency_us + self.node_jitter_us) / 1_000;
        let registered = self.registry_keepalive_ms * 2
            + (self.node_lease_s + self.room_lease_s) * 3_000
            + self.registry_call_ms * 4
            + registry_ms * 50;
        let linked = self.link_heartbeat_ms * 5 + self.link_handshake_ms * 4 + self.link_backoff_max_ms * 2;
        let in_one_flight = (self.node_pipe / LARGEST_FRAME).max(1);
        let entered = 20_000 + node_ms * 50 + backlog * node_ms / in_one_flight;
        registered + linked + entered
    }
}

fn name(text: &str) -> Name {
    Name::new(text).expect("the names of modes and regions are names")
}

fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_that_answers_after_the_node_has_given_up_is_a_fault() {
        let shape =
            Shape { registry_call_ms: 500, registry_jitter_us: 1_000, group_us: 20_000, ..Shape::default() };
        let delayed = |latency| Action::DelayRegistry { latency, node: 0 };
        assert!(!shape.is_disturbed_by(delayed(119_000)));
        assert!(shape.is_disturbed_by(delayed(119_001)));
        let patient = Shape { registry_call_ms: 5_000, ..shape };
        assert!(!patient.is_disturbed_by(delayed(119_001)));
        let hasty = Shape { drift_ppm: 100_000, ..shape };
        assert!(hasty.is_disturbed_by(delayed(107_000)), "the clock of the node may be fast");
        assert!(!shape.is_disturbed_by(Action::DelayNodes { latency: 119_001, one: 0, other: 1 }));
    }
}
