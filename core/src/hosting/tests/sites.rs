//! Nodes with one room each, as little of them as the room can tell: no connections, no frames of
//! clients, and one key of a registry.
//!
//! Every message is under way until a test delivers it, first in, first out on each way.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt::Write as _;

use bytes::Bytes;
use skirmish_proto::v1;

use super::record::{Registry, Request, node, site_of};
use crate::base::bug::Bugs;
use crate::base::id::{Cursor, Name, NodeId, SessionId};
use crate::base::plant::Planted;
use crate::base::rng::Rng;
use crate::base::slab::Key;
use crate::base::time::{Duration, Instant, Now, Wall};
use crate::config::Config;
use crate::hosting::{
    Arrival, Candidates, Departure, Hosted, KeptPlaces, LiveLeases, RoomContext, RoomCounts, RoomEffect,
    RoomEffects, RoomInput, SayVerdict, join_deadline,
};
use crate::registrar::Reign;
use crate::wire::{Frame, RoomMessage, ToNode, Zstd, encode};

/// The nodes to which a node has a link.
struct LinkedSites(Vec<(NodeId, Key)>);

impl Candidates for LinkedSites {
    fn choose(
        &self,
        _: &mut Rng,
        shunned: Option<NodeId>,
        members: &BTreeMap<NodeId, usize>,
    ) -> Option<(NodeId, Key)> {
        let may = self.0.iter().filter(|(node, _)| Some(*node) != shunned);
        may.max_by_key(|(node, _)| (members.get(node).copied(), core::cmp::Reverse(*node))).copied()
    }

    fn link_to(&self, node: NodeId) -> Option<Key> {
        self.0.iter().find(|(linked, _)| *linked == node).map(|(_, link)| *link)
    }
}

/// Places of a room that keeps none.
struct NoPlaces;

impl KeptPlaces for NoPlaces {
    fn are_awaited(&self, _: &Name) -> bool {
        false
    }

    fn kept_from(&self, _: &Name, _: &Name, _: &mut dyn Iterator<Item = &Name>) -> usize {
        0
    }
}

/// The player of a node, with a session that never ends.
#[derive(Clone, Debug, Default)]
pub(super) struct Player {
    /// True if the player wants to be in the room.
    pub(super) wants: bool,
    /// True if the session is in the room, or on its way in.
    pub(super) is_local: bool,
    /// Number of the member; 0 while there is none.
    pub(super) number: u32,
    /// Epoch in which the session is a member.
    pub(super) epoch: u64,
    /// Epoch of the session itself.
    pub(super) session_epoch: u64,
    /// Messages of the membership passed to the room, and those that the player has yet to send.
    pub(super) said: u64,
    pub(super) to_say: u64,
    /// True if the session has gone on at another node.
    pub(super) moved: bool,
    /// The last reason for which the session was expelled.
    pub(super) expelled: Option<v1::LeftReason>,
}

/// A node.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) hosted: Option<Hosted>,
    /// False once the process is dead.
    pub(super) lives: bool,
    pub(super) leases: LiveLeases,
    /// Epoch and newest entry of the room since the leases may have ended, if the node is its primary.
    ended_at: Option<(u64, u64)>,
    pub(super) player: Player,
    /// The nodes that the room follows.
    pub(super) follows: BTreeSet<NodeId>,
    /// Links over which the room is read, or that are marked for a reader.
    pub(super) reads: BTreeSet<Key>,
    attempts: u64,
    rng: Rng,
}

/// All nodes, the registry, and everything that is under way.
#[derive(Clone, Debug)]
pub(super) struct Sites {
    pub(super) sites: Vec<Site>,
    pub(super) now: Now,
    pub(super) registry: Registry,
    /// Frames from a node to another.
    pub(super) frames: BTreeMap<(usize, usize), VecDeque<Bytes>>,
    /// True if a link takes one frame of the room after each input only.
    pub(super) is_slow: bool,
    /// Generation of the open link between two nodes, the smaller first; `None` if it is cut.
    pub(super) links: BTreeMap<(usize, usize), Option<u32>>,
    generations: u32,
    pub(super) planted: Planted,
    pub(super) replicas: u32,
    /// Entries of all logs, by epoch and number: replicas agree.
    entries: BTreeMap<(u64, u64), Bytes>,
}

fn session() -> Key {
    Key { slot: 0, generation: 0 }
}

pub(super) fn config() -> Config {
    let mut config = Config::default();
    config.frames.compress_from = 0;
    config
}

impl Sites {
    pub(super) fn new(count: usize, planted: Planted) -> Self {
        let site = |at: usize| Site {
            hosted: None,
            lives: true,
            leases: LiveLeases { lone: true, rooms: true },
            ended_at: None,
            player: Player::default(),
            follows: BTreeSet::new(),
            reads: BTreeSet::new(),
            attempts: 0,
            rng: Rng::new([at as u8 + 1; 32]),
        };
        let pairs = (0..count).flat_map(|one| (one + 1..count).map(move |other| (one, other)));
        Self {
            sites: (0..count).map(site).collect(),
            now: Now { instant: Instant::ZERO, wall: Wall(1_700_000_000_000) },
            registry: Registry::new(count),
            frames: BTreeMap::new(),
            is_slow: false,
            links: pairs.map(|pair| (pair, Some(0))).collect(),
            generations: 0,
            planted,
            replicas: 1,
            entries: BTreeMap::new(),
        }
    }

    /// State of everything, as text. Equal texts mean equal behaviour.
    pub(super) fn fingerprint(&self) -> String {
        let mut text = String::new();
        for site in &self.sites {
            let Site { hosted, lives, leases, player, follows, reads, attempts, .. } = site;
            write!(text, "{lives} {leases:?} {player:?} {follows:?} {reads:?} {attempts}").unwrap();
            if let Some(hosted) = hosted {
                let room = hosted.room();
                let (epoch, head, released) = (room.epoch(), room.log().head(), room.released());
                let (change, members) = (room.state.change(), room.members());
                let (role, locals) = (hosted.role(), &hosted.common.locals);
                let readers = &hosted.common.readers;
                write!(
                    text,
                    "{epoch} {head} {released} {change} {members:?} {role:?} {locals:?} {readers:?}"
                )
                .unwrap();
                let ops: Vec<v1::Op> = room.ops_after(0).collect();
                write!(text, "{} {:?} {:?} {ops:?}", room.term(), room.applied_op(), room.released_op())
                    .unwrap();
            }
        }
        let Self { now, registry, frames, links, .. } = self;
        write!(text, "{now:?} {registry:?} {frames:?} {links:?}").unwrap();
        text
    }

    // Inputs.

    pub(super) fn link(&self, from: usize, to: usize) -> Option<Key> {
        let generation = (*self.links.get(&(from.min(to), from.max(to)))?)?;
        Some(Key { slot: to as u32, generation })
    }

    /// Calls the room of a node, if there is one, and executes the effects.
    fn call<R>(&mut self, at: usize, call: impl FnOnce(&mut Hosted, &mut RoomContext<'_>) -> R) -> Option<R> {
        let (config, mut bugs, mut zstd) = (self.config(), Bugs::new(), Zstd::default());
        let mut effects = RoomEffects::new();
        effects.counts = RoomCounts { members: 1000, ..RoomCounts::default() };
        let candidates = self.linked(at);
        let Site { hosted, leases, attempts, rng, .. } = &mut self.sites[at];
        effects.begin(Key { slot: at as u32, generation: 0 });
        let mut cx = RoomContext {
            now: self.now,
            node: node(at),
            leases: *leases,
            candidates: &candidates,
            config: &config,
            places: &NoPlaces,
            attempts,
            rng,
            zstd: &mut zstd,
            bugs: &mut bugs,
            effects: &mut effects,
            planted: self.planted,
        };
        let result = call(hosted.as_mut()?, &mut cx);
        if effects.marks.closed {
            *hosted = None;
        }
        while let Some((_, _, effect)) = effects.poll() {
            self.carry_out(at, effect);
        }
        self.read(at);
        Some(result)
    }

    /// Returns the nodes to which a node has a link.
    fn linked(&self, at: usize) -> LinkedSites {
        let others = (0..self.sites.len()).filter(|other| *other != at);
        LinkedSites(others.filter_map(|other| Some((node(other), self.link(at, other)?))).collect())
    }

    fn config(&self) -> Config {
        let mut config = config();
        config.replication.replicas = self.replicas;
        config
    }

    pub(super) fn input(&mut self, at: usize, input: RoomInput) {
        let _closed = self.call(at, |hosted, cx| hosted.handle(cx, input));
    }

    fn carry_out(&mut self, at: usize, effect: RoomEffect) {
        let Site { player, hosted, .. } = &mut self.sites[at];
        match effect {
            RoomEffect::Claim => self.registry.ask(at, Request::Claim),
            RoomEffect::Release => self.registry.ask(at, Request::Release),
            RoomEffect::Pair { backup } => {
                let room = hosted.as_ref().unwrap().room();
                let (epoch, term) = (room.epoch(), room.term());
                self.registry.ask(at, Request::Pair { epoch, term, backup });
            }
            RoomEffect::Swap { term, primary, .. } => {
                let epoch = hosted.as_ref().unwrap().room().epoch();
                self.registry.ask(at, Request::Swap { epoch, term, primary });
            }
            RoomEffect::Tell { link, frame } => self.send(at, link, frame),
            RoomEffect::Read { link } => drop(self.sites[at].reads.insert(link)),
            RoomEffect::Unread { link } => drop(self.sites[at].reads.remove(&link)),
            RoomEffect::Gap { .. } => panic!("a link has lost an entry"),
            RoomEffect::Follow { node } => {
                self.sites[at].follows.insert(node);
                if let Some(link) = self.link(at, site_of(node)) {
                    self.input(at, RoomInput::Linked { link, node });
                }
            }
            RoomEffect::Unfollow { node } => drop(self.sites[at].follows.remove(&node)),
            RoomEffect::Seated { seated, .. } => {
                assert_eq!((player.number, player.is_local), (0, true), "seated twice, or after it has left");
                player.number = seated.number;
                player.epoch = hosted.as_ref().unwrap().room().epoch();
            }
            RoomEffect::Hold { hold, .. } => player.said = player.said.min(hold.expected - 1),
            RoomEffect::Resend { expected, .. } => player.said = player.said.min(expected - 1),
            RoomEffect::Expel { reason, .. } => {
                player.expelled = Some(reason);
                (player.is_local, player.number, player.said) = (false, 0, 0);
            }
            RoomEffect::Drop { .. } => {
                assert!(player.moved, "a session is dropped that no other has replaced");
                (player.is_local, player.number, player.said) = (false, 0, 0);
            }
            RoomEffect::Unwanted { link, exit, .. } => {
                let exit = encode(v1::Kind::Exit, &v1::Metadata::default(), &exit);
                self.send(at, link, exit);
            }
            RoomEffect::Record { .. }
            | RoomEffect::Opened { .. }
            | RoomEffect::Closed { .. }
            | RoomEffect::TookOver { .. }
            | RoomEffect::SteppedDown { .. }
            | RoomEffect::Superseded { .. }
            | RoomEffect::Expired { .. }
            | RoomEffect::Passed { .. } => {}
        }
    }

    fn send(&mut self, at: usize, link: Key, frame: Bytes) {
        let to = link.slot as usize;
        // The link may have ended since.
        if self.link(at, to) == Some(link) {
            self.frames.entry((at, to)).or_default().push_back(frame);
        }
    }

    /// Sends every frame of the room over every link.
    fn read(&mut self, at: usize) {
        let mut counts = RoomCounts::default();
        for link in self.sites[at].reads.clone() {
            while let Some(frame) =
                self.sites[at].hosted.as_mut().and_then(|hosted| hosted.next_for(link, &mut counts))
            {
                self.send(at, link, frame);
                if self.is_slow {
                    break;
                }
            }
        }
    }

    // Steps.

    pub(super) fn join(&mut self, at: usize) {
        self.sites[at].player.wants = true;
        self.arrive(at);
    }

    /// Has the player of a node, whose session was expelled, ask for a membership again.
    pub(super) fn arrive(&mut self, at: usize) {
        let player = &mut self.sites[at].player;
        player.is_local = true;
        player.expelled = None;
        let epoch = player.session_epoch;
        self.open(at);
        let arrival = self.arrival(at, epoch);
        self.input(at, RoomInput::Arrive(arrival));
    }

    /// Has the session of a player, which another node has, go on at a node.
    pub(super) fn resume(&mut self, player: usize, at: usize) {
        let Player { epoch, session_epoch, .. } = self.sites[player].player;
        let seq = self.sites[at].hosted.as_ref().unwrap().room().log().head();
        (self.sites[at].player.is_local, self.sites[player].player.moved) = (true, true);
        let arrival = self.arrival(player, session_epoch + 1);
        self.input(at, RoomInput::Arrive(Arrival { resume: Some(Cursor { epoch, seq }), ..arrival }));
    }

    fn arrival(&self, player: usize, epoch: u64) -> Arrival {
        Arrival {
            session: session(),
            id: SessionId([player as u8 + 1; 16]),
            epoch,
            player: Name::new(["ann", "bob", "cid"][player]).unwrap(),
            resume: None,
            history: 0,
            until: join_deadline(self.now),
        }
    }

    /// Adds the room to a node that does not have it.
    fn open(&mut self, at: usize) {
        let (config, mut bugs, mut zstd) = (self.config(), Bugs::new(), Zstd::default());
        let mut effects = RoomEffects::new();
        let candidates = self.linked(at);
        let Site { hosted, leases, attempts, rng, .. } = &mut self.sites[at];
        if hosted.is_none() {
            let mut cx = RoomContext {
                now: self.now,
                node: node(at),
                leases: *leases,
                candidates: &candidates,
                config: &config,
                places: &NoPlaces,
                attempts,
                rng,
                zstd: &mut zstd,
                bugs: &mut bugs,
                effects: &mut effects,
                planted: self.planted,
            };
            *hosted = Some(Hosted::new(&mut cx, Name::new("arena").unwrap()));
        }
    }

    /// Registers the session of a node with another epoch.
    pub(super) fn raise(&mut self, at: usize, epoch: u64) {
        let player = &mut self.sites[at].player;
        player.session_epoch = epoch;
        if !player.is_local {
            return;
        }
        self.input(at, RoomInput::Epoch { session: session(), epoch });
    }

    pub(super) fn leave(&mut self, at: usize) {
        let player = &mut self.sites[at].player;
        player.wants = false;
        (player.number, player.said) = (0, 0);
        if core::mem::take(&mut player.is_local) {
            let departure = Departure::Leaves;
            self.input(at, RoomInput::Depart { session: session(), departure });
        }
    }

    /// Has the member of a node say its next message, or say it again.
    pub(super) fn say(&mut self, at: usize) {
        let Player { number, said, .. } = self.sites[at].player;
        let client_seq = said + 1;
        let say = v1::Say { room: "arena".into(), client_seq, ..v1::Say::default() };
        let verdict = self.call(at, |hosted, cx| {
            let verdict = hosted.judge(cx, number, &say, true);
            if verdict == SayVerdict::Next {
                hosted.take(cx, number, say, &v1::Metadata::default());
            }
            verdict
        });
        self.check();
        match verdict.unwrap() {
            SayVerdict::Next | SayVerdict::Known | SayVerdict::Passed => {
                self.sites[at].player.said = client_seq;
            }
            // The message is sent again later.
            SayVerdict::Held { expected, .. } => {
                assert!(expected <= client_seq, "the room asks for the future")
            }
            SayVerdict::Nobody => panic!("the session is a member, and the room does not know it"),
        }
    }

    /// Gives a node the next frame of another.
    pub(super) fn take_frame(&mut self, from: usize, to: usize) {
        let bytes = self.frames.get_mut(&(from, to)).unwrap().pop_front().unwrap();
        let frame = Frame::decode(bytes.clone(), config().links.frame_bytes).unwrap();
        let ToNode::Room(message) = ToNode::decode(&frame, bytes).unwrap() else {
            panic!("a room has sent a frame that is about no room");
        };
        let link = self.link(to, from).unwrap();
        if let (None, RoomMessage::Recruit(recruit)) = (&self.sites[to].hosted, &message) {
            let (epoch, term, backup, revision) = (recruit.epoch, recruit.term, None, 0);
            let reign = Reign { epoch, term, primary: node(from), backup, revision };
            self.open(to);
            return self.input(to, RoomInput::Recruited(reign));
        }
        if self.sites[to].hosted.is_none() {
            if let Some(exited) = refusal(&message) {
                self.send(to, link, exited);
            }
            return;
        }
        let metadata = frame.metadata().unwrap();
        self.input(to, RoomInput::From { link, node: node(from), message, metadata });
    }

    /// Cuts the link between two nodes: everything under way over it is lost.
    pub(super) fn cut(&mut self, one: usize, other: usize) {
        let ends = [(one, other), (other, one)];
        let links = ends.map(|(at, to)| self.link(at, to).unwrap());
        self.links.insert((one, other), None);
        for ((at, to), link) in ends.into_iter().zip(links) {
            self.frames.remove(&(at, to));
            self.sites[at].reads.remove(&link);
            self.input(at, RoomInput::Unlinked { link, node: node(to) });
        }
    }

    /// Connects two nodes anew.
    pub(super) fn connect(&mut self, one: usize, other: usize) {
        self.generations += 1;
        self.links.insert((one, other), Some(self.generations));
        for (at, to) in [(one, other), (other, one)] {
            if self.sites[at].follows.contains(&node(to))
                && let Some(link) = self.link(at, to)
            {
                self.input(at, RoomInput::Linked { link, node: node(to) });
            }
            self.input(at, RoomInput::PeersChanged);
        }
    }

    /// Time of the next deadline of a node's room.
    pub(super) fn deadline(&self, at: usize) -> Option<Instant> {
        let site = &self.sites[at];
        site.hosted.as_ref()?.deadline(site.leases)
    }

    /// Lets time pass until the next deadline of a node's room.
    pub(super) fn time_out(&mut self, at: usize) {
        let due = self.deadline(at).unwrap().max(self.now.instant);
        self.pass(due - self.now.instant);
        self.input(at, RoomInput::Timeout);
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now.instant = self.now.instant + time;
        self.now.wall.0 += u64::try_from(time.as_millis()).unwrap();
    }

    /// Lets everything arrive that is under way.
    pub(super) fn settle(&mut self) {
        loop {
            let frame = self.frames.iter().find(|(_, queue)| !queue.is_empty()).map(|(way, _)| *way);
            match (self.registry.next_request(), self.registry.next_news(), frame) {
                (Some(at), _, _) => self.registry.take_request(at),
                (_, Some(at), _) => self.take_news(at),
                (_, _, Some((from, to))) => self.take_frame(from, to),
                (None, None, None) => break,
            }
            self.check();
        }
    }

    /// The verdict on a message of a node's member.
    pub(super) fn judge(&mut self, at: usize, client_seq: u64, takes_more: bool) -> SayVerdict {
        let number = self.sites[at].player.number;
        let say = v1::Say { room: "arena".into(), client_seq, ..v1::Say::default() };
        self.call(at, |hosted, cx| hosted.judge(cx, number, &say, takes_more)).unwrap()
    }

    // Checks.

    /// Checks everything that holds after each step.
    pub(super) fn check(&mut self) {
        let is_primary =
            |site: &&Site| site.leases.lone && site.hosted.as_ref().is_some_and(Hosted::commits_alone);
        assert!(self.sites.iter().filter(is_primary).count() <= 1, "two nodes may change the room");
        let nodes = self.sites.len();
        let config = self.config();
        for site in &mut self.sites {
            let reads = |link: &Key| site.hosted.as_ref().is_some_and(|hosted| hosted.reads(*link));
            assert!(site.reads.iter().all(reads), "a link is read for nobody");
            let Some(hosted) = &site.hosted else {
                assert!(!site.player.is_local, "a session is in a room that is closed");
                continue;
            };
            hosted.audit(&config, 1, nodes).unwrap();
            let (room, number) = (hosted.room(), site.player.number);
            let may_not = hosted.commits_alone() && !site.leases.lone;
            let led = Some((room.epoch(), room.log().head())).filter(|_| may_not);
            let before = core::mem::replace(&mut site.ended_at, led);
            let is_changed =
                before.zip(led).is_some_and(|(before, now)| before.0 == now.0 && before.1 < now.1);
            assert!(!is_changed, "a node changes the room whose lease may have ended");
            if number > 0 {
                assert_eq!(site.player.epoch, room.epoch(), "a member is in another life of the room");
            }
            for seq in room.log().first()..=room.log().head() {
                let frame = room.log().get(seq, false).unwrap();
                let known = self.entries.entry((room.epoch(), seq)).or_insert_with(|| frame.clone());
                assert_eq!(known, frame, "two nodes have different entries at one place");
            }
        }
    }

    /// Returns the epoch of a player's session as the room's primary knows it.
    pub(super) fn seat_epoch(&self, player: usize) -> Option<u64> {
        let number = self.sites[player].player.number;
        let leads = |site: &&Site| site.hosted.as_ref().is_some_and(Hosted::is_primary);
        let room = self.sites.iter().find(leads)?.hosted.as_ref()?.room();
        Some(room.member(number)?.seat.epoch)
    }

    /// Returns the epochs in which players are members.
    pub(super) fn lives(&self) -> Vec<u64> {
        let member = |site: &Site| {
            let room = site.hosted.as_ref()?.room();
            room.member(site.player.number).map(|_| site.player.epoch)
        };
        self.sites.iter().filter_map(member).collect()
    }

    /// Returns the numbers of a member's messages in the log of the primary, in order.
    pub(super) fn in_log(&self, player: usize) -> Vec<u64> {
        let (epoch, number) = (self.sites[player].player.epoch, self.sites[player].player.number);
        let of_life = self.entries.range((epoch, 0)..(epoch + 1, 0));
        let entries = of_life.map(|(_, frame)| {
            let bytes = frame.clone();
            let frame = Frame::decode(bytes.clone(), config().links.frame_bytes).unwrap();
            match ToNode::decode(&frame, bytes).unwrap() {
                ToNode::Room(RoomMessage::Entry(entry, _)) => entry,
                other => panic!("the log has {other:?}"),
            }
        });
        let is_own = |entry: &v1::Entry| entry.kind() == v1::EntryKind::Say && entry.member == number;
        entries.filter(is_own).map(|entry| entry.client_seq).collect()
    }
}

/// The answer of a node to a message about a room that it does not have.
fn refusal(message: &RoomMessage) -> Option<Bytes> {
    match message {
        RoomMessage::Attach(_) | RoomMessage::Enter(_) | RoomMessage::Relay(_) => {
            let room = message.room().to_string();
            let (epoch, reason) = (message.epoch(), v1::LeftReason::Gone.into());
            let exited = v1::Exited { room, epoch, member: 0, reason };
            Some(encode(v1::Kind::Exited, &v1::Metadata::default(), &exited))
        }
        _ => None,
    }
}
