//! Errors of the configuration: their keys, conditions and texts.

use alloc::string::{String, ToString as _};
use alloc::vec;

use super::*;
use crate::base::id::Name;
use crate::matchmaking::QueueConfig;

/// A sound configuration with a queue.
fn sound() -> Config {
    let name = |text| Name::new(text).unwrap();
    let mut config = Config::default();
    config.matchmaking.queues.push(QueueConfig::new(name("duel"), 2, 1, vec![name("eu")]));
    config
}

/// The key that the error names after a change, and the problem with its value.
fn wrong(change: impl FnOnce(&mut Config)) -> (String, Problem) {
    let mut config = sound();
    change(&mut config);
    let error = config.validate().unwrap_err();
    assert_eq!(error.to_string(), alloc::format!("{} {}", error.key, error.problem));
    (error.key.into_owned(), error.problem)
}

#[test]
fn the_error_of_each_limit_names_its_key() {
    use Problem::{
        AboveOf, Horizon, Least, LeastOf, LeastTime, MatchInRoom, Most, MostOf, Range, RoomFor, Snapshot,
        ThirdOfLeases, Turn, WholeSeconds, Zero,
    };
    type Change = fn(&mut Config);
    assert_eq!(sound().validate(), Ok(()));
    let most = u64::from(u32::MAX) - 1;
    let second = Duration::from_secs(1);
    let limits: [(Change, &str, Problem); 58] = [
        (|c| c.connections.total = 0, "connections.total", Range(1, most)),
        (|c| c.connections.total = u32::MAX as usize, "connections.total", Range(1, most)),
        (|c| c.connections.per_address = 0, "connections.per_address", Least(1)),
        (|c| c.connections.ipv6_prefix = 31, "connections.ipv6_prefix", Range(32, 128)),
        (|c| c.connections.unauthenticated = 0, "connections.unauthenticated", Least(1)),
        (|c| c.connections.handshake_timeout = Duration::ZERO, "connections.handshake_timeout", Zero),
        (|c| c.heartbeat.interval = Duration::ZERO, "heartbeat.interval", Zero),
        (|c| c.heartbeat.jitter_percent = 51, "heartbeat.jitter_percent", Most(50)),
        (|c| c.heartbeat.unhealthy_after = 0, "heartbeat.unhealthy_after", Least(1)),
        (|c| c.heartbeat.close_after = 2, "heartbeat.close_after", AboveOf("heartbeat.unhealthy_after")),
        (|c| c.rates.reliable.per_second = 0, "rates.reliable.per_second", Least(1)),
        (|c| c.rates.reliable.burst = 0, "rates.reliable.burst", Least(1)),
        (|c| c.rates.latest.per_second = 0, "rates.latest.per_second", Least(1)),
        (|c| c.rates.control.burst = 0, "rates.control.burst", Least(1)),
        (|c| c.rates.bytes.per_second = 0, "rates.bytes.per_second", Least(1)),
        (|c| c.rates.bytes.burst = 65_535, "rates.bytes.burst", LeastOf("frames.frame_bytes")),
        (|c| c.rates.logins.per_second = 0, "rates.logins.per_second", Least(1)),
        (|c| c.rates.logins_per_address.burst = 0, "rates.logins_per_address.burst", Least(1)),
        (|c| c.sessions.total = 0, "sessions.total", Least(1)),
        (|c| c.sessions.rooms = 0, "sessions.rooms", Least(1)),
        (|c| c.rooms.total = 0, "rooms.total", Least(1)),
        (|c| c.rooms.members = 0, "rooms.members", Range(1, 4096)),
        (|c| c.rooms.members = 4097, "rooms.members", Range(1, 4096)),
        (|c| c.rooms.members = 1, "rooms.members", MatchInRoom(2)),
        (|c| c.rooms.window_entries = 0, "rooms.window_entries", Least(1)),
        (|c| c.rooms.window_bytes = 0, "rooms.window_bytes", Least(1)),
        (|c| c.rooms.latest_bytes = 2048, "rooms.latest_bytes", RoomFor("frames.body_bytes")),
        (|c| c.rooms.turn_time = Duration::from_millis(99), "rooms.turn_time", Turn),
        (|c| c.rooms.tombstone_horizon = c.longest_absence(), "rooms.tombstone_horizon", Horizon),
        (
            |c| c.frames.body_bytes = c.frames.frame_bytes - 2047,
            "frames.frame_bytes",
            RoomFor("frames.body_bytes"),
        ),
        (|c| c.rooms.members = 2_000, "frames.frame_bytes", Snapshot),
        (|c| c.links.total = 0, "links.total", Least(1)),
        (|c| c.links.handshake_timeout = Duration::ZERO, "links.handshake_timeout", Zero),
        (|c| c.links.heartbeat.interval = Duration::ZERO, "cluster.heartbeat.interval", Zero),
        (|c| c.links.heartbeat.jitter_percent = 51, "cluster.heartbeat.jitter_percent", Most(50)),
        (|c| c.links.heartbeat.unhealthy_after = 0, "cluster.heartbeat.unhealthy_after", Least(1)),
        (
            |c| c.links.heartbeat.close_after = 1,
            "cluster.heartbeat.close_after",
            AboveOf("cluster.heartbeat.unhealthy_after"),
        ),
        (|c| c.links.frame_bytes = 65_536, "links.frame_bytes", RoomFor("frames.frame_bytes")),
        (|c| c.links.backoff_min = Duration::ZERO, "links.backoff_min", Zero),
        (|c| c.links.backoff_max = Duration::ZERO, "links.backoff_max", LeastOf("links.backoff_min")),
        (|c| c.registrar.node_ttl = Duration::from_secs(1), "cluster.node_ttl", LeastTime(second * 2)),
        (|c| c.registrar.room_ttl = Duration::from_millis(9_500), "cluster.room_ttl", WholeSeconds),
        (|c| c.registrar.margin_percent = 0, "registrar.margin_percent", Range(1, 50)),
        (|c| c.registrar.call_timeout = Duration::ZERO, "registrar.call_timeout", Zero),
        (|c| c.registrar.call_timeout = Duration::from_secs(4), "registrar.call_timeout", ThirdOfLeases),
        (|c| c.registrar.claim_timeout = Duration::ZERO, "registrar.claim_timeout", Zero),
        (|c| c.registrar.backoff_min = Duration::ZERO, "registrar.backoff_min", Zero),
        (
            |c| c.registrar.backoff_max = Duration::ZERO,
            "registrar.backoff_max",
            LeastOf("registrar.backoff_min"),
        ),
        (|c| c.registrar.write_check = Duration::ZERO, "registrar.write_check", Zero),
        (|c| c.registrar.batch = 0, "registrar.batch", Least(1)),
        (|c| c.registrar.in_flight = 1, "registrar.in_flight", LeastOf("registrar.batch")),
        (|c| c.registrar.claims = 0, "registrar.claims", Least(1)),
        (|c| c.registrar.keys = 0, "registrar.keys", Least(1)),
        (|c| c.registrar.page = 0, "registrar.page", Least(1)),
        (|c| c.matchmaking.calls = 2, "matchmaking.calls", Least(3)),
        (
            |c| c.matchmaking.absence_grace = c.sessions.ttl + Duration::from_secs(1),
            "matchmaking.absence_grace",
            MostOf("sessions.ttl"),
        ),
        (|c| c.matchmaking.queues[0].teams = 0, "matchmaking.queues[0].teams", Range(1, 100)),
        (
            |c| c.matchmaking.queues[0].rating.most = 1_000_001,
            "matchmaking.queues[0].rating.most",
            Most(1_000_000),
        ),
    ];
    for (change, key, problem) in limits {
        assert_eq!(wrong(change), (key.into(), problem));
    }
}

#[test]
fn a_problem_is_told_with_its_numbers() {
    let told = |problem: Problem| problem.to_string();
    assert_eq!(told(Problem::Range(32, 128)), "must be from 32 to 128");
    assert_eq!(told(Problem::RoomFor("frames.body_bytes")), "must be at least frames.body_bytes + 2048");
    assert_eq!(told(Problem::LeastTime(Duration::from_secs(2))), "must be at least 2s");
    assert!(told(Problem::Turn).ends_with("or at least 100ms"));
    assert!(
        told(Problem::Snapshot).starts_with("must have 80 bytes for each of rooms.members, and 2048 more")
    );
}
