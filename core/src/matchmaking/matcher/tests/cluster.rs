//! Nodes with player tickets and a matcher each, their players, and one registry between them.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec;
use alloc::vec::Vec;
use core::mem::take;

use skirmish_proto::v1::{self, TicketState};

use super::oracle::Oracle;
use crate::base::id::{Name, NodeId};
use crate::base::rng::Rng;
use crate::base::time::{Duration, Instant, Now, Wall};
use crate::matchmaking::player_tickets::PlayerTickets;
use crate::matchmaking::record::{decode, encode};
use crate::matchmaking::{Matcher, MatchmakingConfig, keys};
use crate::registry::{
    Answer, CallNumbers, KeyValue, LeaseId, Put, Range, Registry, RegistryCommand, RegistryConfig,
    RegistryEvent, Request, Response, Span, Watch, WatchId,
};

/// Time for which a node's lease lives without a keep-alive.
pub(super) const TTL: Duration = Duration::from_secs(5);
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(1);
pub(super) const ORACLE: WatchId = WatchId(u64::MAX);

/// Frequencies of faults, of 1000 requests, and delays.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    pub(super) refused: u64,
    pub(super) lost_request: u64,
    pub(super) lost_reply: u64,
    /// The request is executed after its outcome was reported as unknown.
    pub(super) late: u64,
    /// A watch reports a change seconds later.
    pub(super) slow_watch: u64,
    /// Maximum delay of a player's frames, in milliseconds: messages to the player cross them.
    pub(super) slow_frames: u64,
}

pub(super) struct Cluster {
    pub(super) config: MatchmakingConfig,
    pub(super) now: Instant,
    pub(super) rng: Rng,
    pub(super) registry: Registry,
    pub(super) nodes: Vec<Node>,
    pub(super) players: BTreeMap<Name, Player>,
    pub(super) faults: Faults,
    pub(super) oracle: Oracle,
    pub(super) events: BTreeMap<(Instant, u64), Event>,
    pub(super) serial: u64,
    pub(super) lives: u64,
    /// Number of searches that players have begun.
    pub(super) searches: u64,
    /// True if a request was executed after its outcome was reported as unknown.
    pub(super) late: bool,
}

pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) life: u64,
    pub(super) player_tickets: PlayerTickets,
    pub(super) matcher: Matcher,
    /// The lease, in the node's view.
    pub(super) lease: Option<LeaseId>,
    pub(super) believed_until: Instant,
    pub(super) paused: bool,
    pub(super) inbox: Vec<RegistryEvent>,
    /// True if the node does not reach the registry.
    pub(super) cut: bool,
    /// Number of the node's connection to the registry.
    pub(super) link: u64,
    pub(super) watches: BTreeMap<WatchId, Watch>,
    pub(super) watch_at: Instant,
    /// Sessions that are on this node in its view, with their epochs.
    pub(super) sessions: BTreeMap<Name, u64>,
    /// Decisions of the matcher, for the tests.
    pub(super) decisions: Vec<super::super::MatcherDecision>,
}

/// A player's client.
#[derive(Default)]
pub(super) struct Player {
    /// Node to which the client is connected.
    pub(super) home: Option<usize>,
    /// Number of the client's connection.
    pub(super) connection: u64,
    /// Frames under way on the newest connection.
    pub(super) line: VecDeque<Frame>,
    pub(super) wish: Option<v1::Queue>,
    pub(super) cancel: bool,
    pub(super) matched: Option<v1::Matched>,
    /// All states of tickets that the client has received.
    pub(super) heard: Vec<TicketState>,
    pub(super) last: v1::Queued,
}

pub(super) enum Event {
    Call {
        node: usize,
        life: u64,
        call: RegistryCommand,
        fate: Fate,
    },
    Registry {
        node: usize,
        life: u64,
        link: Option<u64>,
        event: RegistryEvent,
    },
    KeepAlive {
        node: usize,
        life: u64,
    },
    Moved {
        node: usize,
        life: u64,
        player: Name,
        epoch: u64,
    },
    /// Delivers frames that a player has sent on a connection.
    Frames {
        player: Name,
        connection: u64,
    },
}

/// A frame from a player.
pub(super) enum Frame {
    Queue(v1::Queue),
    /// Number of the search.
    Cancel(u64),
    /// Name of the room.
    Leave(Name),
    /// Name of the room.
    Join(Name),
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Fate {
    Done,
    LostReply,
    Late,
}

pub(super) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

impl Cluster {
    pub(super) fn new(config: MatchmakingConfig, nodes: usize, seed: u64) -> Self {
        config.validate().unwrap();
        let mut bytes = [7; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        let now = Instant::from_micros(1_000_000_000);
        let mut registry = Registry::new(RegistryConfig::etcd(), now);
        let mut watch = Watch::of(Span::prefix("/match/"), 1);
        watch.prev = true;
        registry.watch(now, ORACLE, watch).unwrap();
        let mut cluster = Self {
            oracle: Oracle::new(&config),
            config,
            now,
            rng: Rng::new(bytes),
            registry,
            nodes: Vec::new(),
            players: BTreeMap::new(),
            faults: Faults::default(),
            events: BTreeMap::new(),
            serial: 0,
            lives: 0,
            searches: 0,
            late: false,
        };
        for index in 0..nodes {
            let node = cluster.boot();
            cluster.nodes.push(node);
            cluster.begin(index);
        }
        cluster
    }

    pub(super) fn time(&self) -> Now {
        Now { instant: self.now, wall: Wall(1_700_000_000_000 + self.now.as_micros() / 1000) }
    }

    pub(super) fn boot(&mut self) -> Node {
        self.lives += 1;
        let first = self.lives << 40;
        let id = NodeId(self.lives);
        let seed = self.rng.split();
        Node {
            id,
            life: self.lives,
            player_tickets: PlayerTickets::new(self.config.clone(), id, seed, CallNumbers::new(first, 2)),
            matcher: Matcher::new(&self.config, id, self.rng.split(), CallNumbers::new(first + 1, 2)),
            lease: None,
            believed_until: self.now,
            paused: false,
            inbox: Vec::new(),
            cut: false,
            link: 0,
            watches: BTreeMap::new(),
            watch_at: self.now,
            sessions: BTreeMap::new(),
            decisions: Vec::new(),
        }
    }

    pub(super) fn begin(&mut self, index: usize) {
        let now = self.time();
        let node = &mut self.nodes[index];
        node.player_tickets.start(now);
        node.matcher.start(now);
        self.keep_alive(index);
        self.drain(index);
    }

    /// Replaces a crashed node by a new one, which knows nothing.
    pub(super) fn crash(&mut self, index: usize) {
        self.unwatch(index);
        for player in self.players.values_mut().filter(|player| player.home == Some(index)) {
            player.home = None;
        }
        self.nodes[index] = self.boot();
        self.begin(index);
    }

    pub(super) fn cut(&mut self, index: usize) {
        self.unwatch(index);
        self.nodes[index].cut = true;
    }

    /// Reconnects the node to the registry, which makes the node's watches again.
    pub(super) fn heal(&mut self, index: usize) {
        self.unwatch(index);
        let node = &mut self.nodes[index];
        node.cut = false;
        for (id, watch) in &node.watches {
            self.registry.watch(self.now, *id, watch.clone()).unwrap();
        }
        if self.can_connect(index) {
            self.register_sessions(index, false);
        }
        self.pump();
        self.drain(index);
    }

    pub(super) fn unwatch(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.link += 1;
        node.watches.keys().for_each(|id| self.registry.unwatch(*id));
    }

    /// Ends the node's lease, without the node's knowledge.
    pub(super) fn revoke(&mut self, index: usize) {
        if let Some(lease) = self.nodes[index].lease {
            // The lease may have ended already.
            let _ = self.registry.handle(self.now, &Request::Revoke(lease));
            self.pump();
        }
    }

    pub(super) fn pause(&mut self, index: usize) {
        self.nodes[index].paused = true;
    }

    pub(super) fn resume(&mut self, index: usize) {
        self.nodes[index].paused = false;
        // At random, due deadlines are handled before the registry's reports, or only after them.
        if self.rng.range(0..=1) == 0 {
            self.wake(index);
        }
        for event in take(&mut self.nodes[index].inbox) {
            self.tell(index, event);
        }
        self.wake(index);
    }

    // The registry, for the tests and the parts of a node that these tests lack.

    pub(super) fn ask(&mut self, request: &Request) -> Response {
        let response = self.registry.handle(self.now, request).unwrap();
        self.pump();
        response
    }

    pub(super) fn get(&mut self, key: impl Into<bytes::Bytes>) -> Option<KeyValue> {
        let answer = self.ask(&Request::Range(Range::of(Span::one(key)))).answer;
        let Answer::Range { kvs, .. } = answer else { panic!("{answer:?}") };
        kvs.into_iter().next()
    }

    pub(super) fn list(&mut self, span: Span) -> Vec<KeyValue> {
        let Answer::Range { kvs, .. } = self.ask(&Request::Range(Range::of(span))).answer else { panic!() };
        kvs
    }

    pub(super) fn ticket(&mut self, player: &str) -> Option<v1::TicketRecord> {
        self.get(keys::ticket(&name(player))).map(|kv| decode(&kv.value))
    }

    pub(super) fn notice(&mut self, player: &str) -> Option<v1::NoticeRecord> {
        self.get(keys::notice(&name(player))).map(|kv| decode(&kv.value))
    }

    pub(super) fn claim(&mut self, player: &Name, index: usize, epoch: u64) -> u64 {
        let node = &self.nodes[index];
        let record = v1::SessionRecord {
            session: vec![1; 16].into(),
            node: node.id.0,
            epoch,
            base: 0,
            ..v1::SessionRecord::default()
        };
        let put = Put::new(keys::session(player), encode(&record), node.lease);
        self.ask(&Request::Put(put)).revision
    }

    /// Prolongs the lease, loses it, or makes a new one; then claims the sessions again.
    pub(super) fn keep_alive(&mut self, index: usize) {
        let now = self.time();
        let life = self.nodes[index].life;
        self.schedule(KEEP_ALIVE, Event::KeepAlive { node: index, life });
        let node = &mut self.nodes[index];
        if node.paused {
            return;
        }
        let lost = match node.lease {
            Some(_) if node.cut => self.now >= node.believed_until,
            Some(lease) => self.registry.handle(self.now, &Request::KeepAlive(lease)).is_err(),
            None => false,
        };
        if lost {
            node.lease = None;
            node.player_tickets.set_lease(now, None);
            node.matcher.set_lease(now, None);
        }
        if !node.cut {
            node.believed_until = self.now + (TTL - KEEP_ALIVE);
            if node.lease.is_none() {
                self.serve_again(index);
            }
        }
        self.pump();
        self.drain(index);
    }

    pub(super) fn serve_again(&mut self, index: usize) {
        let now = self.time();
        let id = LeaseId(self.rng.range(1..=u64::MAX >> 1));
        self.ask(&Request::Grant { id, ttl_s: TTL.as_secs() });
        self.nodes[index].lease = Some(id);
        self.register_sessions(index, true);
        self.nodes[index].player_tickets.set_lease(now, Some(id));
        self.nodes[index].matcher.set_lease(now, Some(id));
    }

    /// Reads the records of the node's sessions, of which the node had no reports meanwhile. A
    /// missing record is written again, even if the player was at another node in between, which
    /// the node cannot know. `anew`: existing records are written again too, with their epochs.
    fn register_sessions(&mut self, index: usize, anew: bool) {
        for player in self.nodes[index].sessions.clone().into_keys() {
            let there = self.get(keys::session(&player));
            match there.map(|kv| (kv.modified, decode::<v1::SessionRecord>(&kv.value))) {
                None => drop(self.claim(&player, index, 0)),
                Some((modified, record)) if record.node == self.nodes[index].id.0 => {
                    let epoch = if record.epoch == 0 { modified } else { record.epoch };
                    if anew {
                        self.claim(&player, index, epoch);
                    }
                }
                Some(_) => self.lose_session(&player, index),
            }
        }
    }

    /// Ends a session here after another node has claimed it, and closes a connection of it.
    pub(super) fn lose_session(&mut self, player: &Name, index: usize) {
        let now = self.time();
        self.nodes[index].sessions.remove(player);
        self.nodes[index].player_tickets.depart(now, player, true);
        if let Some(client) = self.players.get_mut(player).filter(|client| client.home == Some(index)) {
            client.home = None;
        }
    }

    pub(super) fn leader(&self, mode: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.matcher.elected().any(|elected| elected.as_str() == mode))
    }

    pub(super) fn heard(&self, player: &str) -> Vec<TicketState> {
        self.players.get(&name(player)).map(|player| player.heard.clone()).unwrap_or_default()
    }
}
