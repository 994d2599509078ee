//! A world with every kind of fault: lost and late answers, slow watches, compaction, crashes,
//! pauses, nodes that are cut off, players that move, leave and change their wishes. The oracle
//! watches every revision. Afterwards, without faults, no player may be left without an outcome.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use skirmish_proto::v1::{self, TicketState};

use super::clients::{alone, party};
use super::cluster::{Cluster, Faults, name};
use crate::base::time::Duration;
use crate::matchmaking::record::decode;
use crate::matchmaking::{MatchmakingConfig, QueueConfig, keys};
use crate::registry::Request;

const NODES: usize = 3;
const PLAYERS: u64 = 12;
/// Number of steps with faults, each of up to half a second.
const STEPS: usize = 200;

fn config() -> MatchmakingConfig {
    let queue = |mode, size| {
        let mut queue = QueueConfig::new(name(mode), 2, size, vec![name("eu")]);
        queue.time_out = Duration::from_secs(20);
        queue
    };
    let mut config = MatchmakingConfig::new(vec![queue("duel", 1), queue("duo", 2)]);
    config.join_window = Duration::from_secs(20);
    config.sweep_interval = Duration::from_secs(5);
    config.party_grace = Duration::from_secs(2);
    config.absence_delay = Duration::from_millis(300);
    config.absence_grace = Duration::from_secs(8);
    config.calls = 8;
    config.tickets = 8;
    config.page = 3;
    config.queues[1].backfill = true;
    config
}

struct World {
    c: Cluster,
    /// Faults that this world has.
    nodes_fail: bool,
    players_move: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut c = Cluster::new(config(), NODES, seed);
        let rng = &mut c.rng;
        let mut rate = |most| if rng.range(0..=1) == 0 { 0 } else { rng.range(0..=most) };
        let faults = Faults {
            refused: rate(100),
            lost_request: rate(100),
            lost_reply: rate(200),
            late: rate(60),
            slow_watch: rate(700),
            slow_frames: rate(400),
        };
        let (nodes_fail, players_move) = (rng.range(0..=3) > 0, rng.range(0..=2) > 0);
        c.faults = faults;
        Self { c, nodes_fail, players_move }
    }

    fn pick(&mut self, most: u64) -> u64 {
        self.c.rng.range(0..=most - 1)
    }

    fn connect(&mut self, player: &str) {
        let node = usize::try_from(self.pick(NODES as u64)).unwrap();
        if self.c.can_connect(node) {
            self.c.connect(player, node);
        }
    }

    fn wish(&mut self) -> v1::Queue {
        match self.pick(4) {
            0 | 1 => alone("duel"),
            2 => alone("duo"),
            _ => party("duo", &format!("party{}", self.pick(3)), 2),
        }
    }

    fn player_acts(&mut self) {
        let player: String = format!("p{}", self.pick(PLAYERS));
        if self.c.player(&player).home.is_none() {
            return self.connect(&player);
        }
        match self.pick(15) {
            0..=4 if self.c.player(&player).wish.is_none() => {
                let wish = self.wish();
                self.c.queue(&player, wish);
            }
            5 if self.c.player(&player).wish.is_some() => self.c.cancel(&player),
            6 if self.players_move => self.connect(&player),
            7 if self.players_move => self.c.disconnect(&player),
            8 if self.players_move && self.pick(3) == 0 => self.c.end_session(&player),
            9 | 10 => {
                if let Some(matched) = self.c.player(&player).matched.clone() {
                    if self.pick(2) == 0 {
                        self.c.claim_room(&matched.room);
                    }
                    self.c.leave(&player);
                }
            }
            12..=14 => self.c.join(&player),
            _ => {}
        }
    }

    fn node_fails(&mut self) {
        let node = usize::try_from(self.pick(NODES as u64)).unwrap();
        let (is_cut, is_paused) = (self.c.nodes[node].cut, self.c.nodes[node].paused);
        match self.pick(8) {
            _ if is_paused => self.c.resume(node),
            _ if is_cut => self.c.heal(node),
            0 => self.c.crash(node),
            1 | 2 => self.c.pause(node),
            3 => self.c.cut(node),
            4..=6 => {
                // A connection to the registry breaks, and revisions are compacted meanwhile.
                self.c.cut(node);
                self.c.run(Duration::from_millis(200));
                let revision = self.c.registry.revision();
                if self.c.registry.compacted().is_none_or(|compacted| compacted < revision) {
                    self.c.ask(&Request::Compact { revision });
                }
                self.c.heal(node);
            }
            _ => self.c.revoke(node),
        }
    }

    fn run(&mut self) {
        for _ in 0..STEPS {
            let time = Duration::from_millis(self.pick(500));
            self.c.run(time);
            self.player_acts();
            if self.nodes_fail && self.pick(5) == 0 {
                self.node_fails();
            }
        }
    }

    /// Ends all faults, and connects all players.
    fn calm(&mut self) {
        self.c.faults = Faults::default();
        for node in 0..NODES {
            if self.c.nodes[node].paused {
                self.c.resume(node);
            }
            if self.c.nodes[node].cut {
                self.c.heal(node);
            }
        }
        // Lost leases are detected, and made again.
        self.c.run(Duration::from_secs(12));
        for player in (0..PLAYERS).map(|player| format!("p{player}")) {
            if self.c.player(&player).home.is_none() {
                self.connect(&player);
            }
        }
        self.c.run(Duration::from_secs(20));
    }

    /// Checks that no player is left without an outcome.
    fn check(&mut self) {
        let live = self.c.oracle.live.clone();
        for (player, matched) in &live {
            assert!(self.c.oracle.was_told(player, matched), "{player} was not told of its match");
            assert_eq!(self.c.ticket(player.as_str()), None);
        }
        let now_ms = self.c.time().wall.0;
        let mut waiting: BTreeMap<String, Vec<v1::Queue>> = BTreeMap::new();
        for player in 0..PLAYERS {
            let player = format!("p{player}");
            let ticket = self.c.ticket(&player);
            let client = self.c.player(&player);
            assert_eq!(client.wish, ticket.as_ref().and_then(|ticket| ticket.queue.clone()), "{player}");
            let Some(ticket) = ticket else { continue };
            assert_eq!(ticket.state(), TicketState::Waiting, "{player} was not told how its ticket ended");
            let waited_ms = now_ms - ticket.queued_ms;
            assert!(waited_ms < 30_000, "{player} waits for {waited_ms} ms: it was forgotten");
            let client = self.c.player(&player);
            assert_eq!(
                client.heard.last(),
                Some(&TicketState::Waiting),
                "{player} was not told that it waits"
            );
            let queue = ticket.queue.unwrap();
            waiting.entry(queue.mode.clone()).or_default().push(queue);
        }
        // No waiting player has another one to be matched with.
        assert!(waiting.get("duel").map_or(0, Vec::len) < 2, "{waiting:?}");
        let mut pairs: BTreeMap<&str, usize> = BTreeMap::new();
        for queue in waiting.get("duo").into_iter().flatten() {
            *pairs.entry(&queue.party).or_default() += 1;
        }
        let alone = pairs.remove("").unwrap_or(0);
        let teams = alone / 2 + pairs.values().filter(|count| **count >= 2).count();
        assert!(teams < 2, "{waiting:?}");
        for mode in ["duel", "duo"] {
            let elected = self.c.nodes.iter().flat_map(|node| node.matcher.elected());
            assert_eq!(elected.filter(|elected| elected.as_str() == mode).count(), 1);
        }
        // No player that waits alone could fill a free place of a running match.
        let mut free = Vec::new();
        for matched in live.values().filter(|matched| matched.mode == "duo") {
            let room = self.c.get(keys::room(&matched.room)).map(|kv| decode::<v1::RoomRecord>(&kv.value));
            let players = live.values().filter(|other| other.r#match == matched.r#match).count();
            if players < 4 && room.is_some_and(|room| room.primary != 0) {
                free.push(matched.r#match.clone());
            }
        }
        assert!(alone == 0 || free.is_empty(), "{free:?} have free places, and {waiting:?} wait");
        // Every match has a player, and every notice has a match.
        for kv in self.c.list(keys::matches()) {
            let record: v1::MatchRecord = decode(&kv.value);
            let id = record.r#match.unwrap().r#match;
            assert!(live.values().any(|matched| matched.r#match == id), "{id} is over");
        }
    }
}

/// Runs one world, from a seed. Returns its counts, for the test that enough has happened.
fn world(seed: u64) -> (u64, u64, BTreeMap<i32, u64>) {
    let mut world = World::new(seed);
    world.run();
    world.calm();
    world.check();
    (world.c.oracle.formed, world.c.oracle.filled, world.c.oracle.ended)
}

#[test]
fn nobody_is_matched_twice_in_part_or_not_at_all() {
    // In some of these, a node whose lease was over has received no report of a player's move.
    let (first, count) = (300, 60);
    let (mut formed, mut filled, mut ended) = (0, 0, BTreeMap::<i32, u64>::new());
    for seed in first..first + count {
        let (matches, fills, ends) = world(seed);
        (formed, filled) = (formed + matches, filled + fills);
        ends.into_iter().for_each(|(state, count)| *ended.entry(state).or_default() += count);
    }
    assert!(formed > 5 * count, "{formed} matches are too few to tell anything");
    assert!(filled > count / 2, "{filled} fills are too few to tell anything");
    let of = |state: TicketState| ended.get(&state.into()).copied().unwrap_or(0);
    assert!(of(TicketState::TimedOut) > count && of(TicketState::PartyLost) > count / 10, "{ended:?}");
}

#[test]
fn the_same_seed_is_the_same_world() {
    assert_eq!(world(5), world(5));
}
