//! A room: one log, and its members as cursors into it.
//!
//! [`Room`] decides what is in the log and in which order, recognises a message that
//! comes a second time, and says how far members may read. Who is connected, and what
//! goes to whom when, is [`node`](crate::node)'s.

mod latest;
mod log;
mod turn;

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use skirmish_proto::v1;

use crate::config::RoomLimits;
use crate::crdt::{Replica, ReplicaLimits};
use crate::id::Name;
use crate::plant::{Plant, Planted};
use crate::rng::Seed;
use crate::time::{Instant, Now, Wall};
use crate::wire;

pub use latest::{LatestBoard, Posted};
pub use log::Log;
pub use turn::Turn;

use turn::Turns;

/// A member of a room, as the room knows it. `S` is whatever its owner calls a session.
#[derive(Debug)]
pub struct Member<S> {
    /// The member's number; unique within the epoch.
    pub number: u32,
    /// Its player.
    pub player: Name,
    /// Its session.
    pub session: S,
    /// The highest `client_seq` of the session in the log.
    pub client_seq: u64,
}

/// What became of a reliable message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// It is entry `seq` of the log.
    Appended {
        /// The entry's number.
        seq: u64,
        /// It has ended a turn.
        turned: bool,
    },
    /// It is in the log already.
    Duplicate,
    /// Messages before it are missing; this number is expected.
    Gap {
        /// The `client_seq` expected.
        expected: u64,
    },
}

/// A room.
#[derive(Debug)]
pub struct Room<S> {
    name: Name,
    epoch: u64,
    log: Log,
    /// Entries up to this one may be read: committed, and out of the flush interval.
    released: u64,
    /// Ordered by number, since numbers only grow.
    members: Vec<Member<S>>,
    next_member: u32,
    /// Newest messages of the latest class.
    pub latest: LatestBoard,
    /// Presence, properties, counters.
    pub state: Replica,
    turns: Turns,
    /// When the messages gathered so far are to be released.
    flush_at: Option<Instant>,
    compress_from: usize,
    scratch: v1::Entry,
    planted: Planted,
}

/// What a room is made with.
#[derive(Debug)]
pub struct RoomConfig<'a> {
    /// Caps and times.
    pub limits: &'a RoomLimits,
    /// Entries from this size on are compressed; 0 never.
    pub compress_from: usize,
    /// The replica that the server writes the room's state as.
    pub replica: u64,
    /// Keeps the room's names from being chosen to collide.
    pub seed: Seed,
    /// A bug, for the simulator.
    pub planted: Planted,
}

impl<S: Copy> Room<S> {
    /// An empty room in its epoch.
    #[must_use]
    pub fn new(name: Name, epoch: u64, config: &RoomConfig<'_>) -> Self {
        let limits = config.limits;
        let state_limits = ReplicaLimits {
            entries_per_owner: limits.state_entries,
            entries: limits.members.saturating_mul(limits.state_entries + 1).saturating_mul(2),
            clock_bound: limits.clock_bound,
            tombstone_horizon: limits.tombstone_horizon,
            planted: config.planted,
        };
        let scratch = v1::Entry { room: name.as_str().into(), epoch, ..v1::Entry::default() };
        Self {
            name,
            epoch,
            log: Log::new(limits.window_entries, limits.window_bytes),
            released: 0,
            members: Vec::new(),
            next_member: 1,
            latest: LatestBoard::new(limits.latest_bytes, config.planted),
            state: Replica::new(config.replica, state_limits, config.seed),
            turns: Turns::new(limits.turn_time),
            flush_at: None,
            compress_from: config.compress_from,
            scratch,
            planted: config.planted,
        }
    }

    /// Names the epoch of a room that has no entry yet.
    pub fn start(&mut self, epoch: u64) {
        self.epoch = epoch;
        self.scratch.epoch = epoch;
    }

    /// The room's name.
    #[must_use]
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// Which life of the room this is.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The window of the log.
    #[must_use]
    pub const fn log(&self) -> &Log {
        &self.log
    }

    /// Entries up to this one may be read.
    #[must_use]
    pub const fn released(&self) -> u64 {
        self.released
    }

    /// The members, by number.
    #[must_use]
    pub fn members(&self) -> &[Member<S>] {
        &self.members
    }

    /// The member of this number.
    #[must_use]
    pub fn member(&self, number: u32) -> Option<&Member<S>> {
        let at = self.members.binary_search_by_key(&number, |m| m.number).ok()?;
        self.members.get(at)
    }

    /// The member of this number, to be changed.
    pub fn member_mut(&mut self, number: u32) -> Option<&mut Member<S>> {
        let at = self.members.binary_search_by_key(&number, |m| m.number).ok()?;
        self.members.get_mut(at)
    }

    /// Takes an entry that the room's primary has appended, and its frame; it must be the
    /// next. What members it names are seated at `seat`.
    pub fn follow(&mut self, entry: &v1::Entry, frame: Bytes, seat: S, zstd: &mut wire::Zstd) {
        let at = self.members.binary_search_by_key(&entry.member, |m| m.number);
        match (entry.kind(), at) {
            (v1::EntryKind::Say, Ok(at)) => {
                if let Some(member) = self.members.get_mut(at) {
                    member.client_seq = member.client_seq.max(entry.client_seq);
                }
            }
            (v1::EntryKind::Join, Err(at)) => {
                if let Ok(player) = Name::new(&entry.player) {
                    let member = Member { number: entry.member, player, session: seat, client_seq: 0 };
                    self.members.insert(at, member);
                }
            }
            (v1::EntryKind::Leave, Ok(at)) => {
                self.members.remove(at);
                self.latest.remove_member(entry.member);
            }
            _ => {}
        }
        if entry.turn > 0 {
            self.turns.follow(Turn { number: entry.turn, ends_ms: entry.turn_ends_ms });
        }
        let compress = self.compress_from > 0 && frame.len() >= self.compress_from;
        let compressed = if compress { zstd.deflate(&frame) } else { None };
        self.log.append(frame, compressed);
        self.release();
    }

    /// Starts afresh after entry `seq`, with these members and in this turn, as the room's
    /// primary says.
    pub fn follow_from(&mut self, seq: u64, mut members: Vec<Member<S>>, turn: Turn) {
        self.turns.follow(turn);
        members.sort_by_key(|member| member.number);
        members.dedup_by_key(|member| member.number);
        let gone = |number| members.binary_search_by_key(&number, |m: &Member<S>| m.number).is_err();
        for member in self.members.iter().map(|m| m.number).filter(|number| gone(*number)) {
            self.latest.remove_member(member);
        }
        self.members = members;
        self.log.restart(seq);
        self.release();
    }

    /// A latest message as the room's primary passes it on.
    pub fn follow_latest(&mut self, number: u32, key: u32, frame: Bytes) -> Posted {
        self.latest.put(number, key, frame)
    }

    /// Appends the join of a new member and returns its number. Changes of membership are
    /// released at once, so that nobody is told of members whose join it has yet to read.
    pub fn join(&mut self, wall: Wall, player: Name, session: S, zstd: &mut wire::Zstd) -> u32 {
        let number = self.next_member;
        self.next_member += 1;
        self.members.push(Member { number, player: player.clone(), session, client_seq: 0 });
        self.append_membership(wall, v1::EntryKind::Join, number, &player, zstd);
        self.release();
        number
    }

    /// Appends the leave of a member and forgets it. Nothing if it is not a member.
    pub fn leave(&mut self, now: Now, number: u32, zstd: &mut wire::Zstd) {
        let Ok(at) = self.members.binary_search_by_key(&number, |m| m.number) else { return };
        let member = self.members.remove(at);
        self.append_membership(now.wall, v1::EntryKind::Leave, number, &member.player, zstd);
        self.release();
        self.latest.remove_member(number);
        self.state.remove_owner(now, member.player.as_str());
    }

    /// A reliable message of a member. `None` if it is not a member.
    pub fn say(
        &mut self,
        now: Now,
        number: u32,
        say: v1::Say,
        metadata: &v1::Metadata,
        zstd: &mut wire::Zstd,
    ) -> Option<Said> {
        let at = self.members.binary_search_by_key(&number, |m| m.number).ok()?;
        let member = self.members.get_mut(at)?;
        let expected = member.client_seq + 1;
        if say.client_seq > expected {
            return Some(Said::Gap { expected });
        }
        if say.client_seq < expected && !self.planted.is(Plant::DuplicateApplied) {
            return Some(Said::Duplicate);
        }
        member.client_seq = say.client_seq;
        self.scratch.kind = v1::EntryKind::Say.into();
        self.scratch.member = number;
        self.scratch.client_seq = say.client_seq;
        self.scratch.body = say.body;
        self.scratch.type_url = say.type_url;
        let turned = say.ends_turn == Some(self.turns.turn().number);
        if turned {
            self.begin_turn(now);
        }
        self.append(now.wall, metadata, zstd);
        Some(Said::Appended { seq: self.log.head(), turned })
    }

    /// The turn.
    #[must_use]
    pub const fn turn(&self) -> Turn {
        self.turns.turn()
    }

    /// When the time of the turn is over, and [`Self::end_turn`] is to be called.
    #[must_use]
    pub const fn turn_ends_at(&self) -> Option<Instant> {
        self.turns.ends_at()
    }

    /// The time of the turn is over.
    pub fn end_turn(&mut self, now: Now, zstd: &mut wire::Zstd) {
        self.scratch.kind = v1::EntryKind::Turn.into();
        self.scratch.member = 0;
        self.scratch.client_seq = 0;
        self.begin_turn(now);
        self.append(now.wall, &v1::Metadata::default(), zstd);
    }

    /// The entry that is appended next ends the turn.
    fn begin_turn(&mut self, now: Now) {
        let Turn { number, ends_ms } = self.turns.end(now);
        (self.scratch.turn, self.scratch.turn_ends_ms) = (number, ends_ms);
    }

    /// A latest message of a member.
    pub fn put_latest(&mut self, number: u32, latest: v1::Latest, metadata: &v1::Metadata) -> Posted {
        let key = latest.key;
        let version = self.latest.next_version();
        let message = v1::Latest { member: number, epoch: self.epoch, version, ..latest };
        self.latest.put(number, key, wire::encode(v1::Kind::Latest, metadata, &message))
    }

    /// Whether a reader that has got everything up to `seq` needs a snapshot to go on.
    #[must_use]
    pub const fn has_lost(&self, seq: u64) -> bool {
        seq + 1 < self.log.first()
    }

    /// The snapshot that moves a reader to `seq`.
    #[must_use]
    pub fn snapshot(&self, number: u32, seq: u64, missing_from: u64) -> v1::Snapshot {
        let member = |m: &Member<S>| v1::Member { member: m.number, player: String::from(m.player.clone()) };
        v1::Snapshot {
            room: String::from(self.name.clone()),
            epoch: self.epoch,
            seq,
            missing_from,
            client_seq: self.member(number).map_or(0, |m| m.client_seq),
            members: self.members.iter().map(member).collect(),
            turn: self.turns.turn().number,
            turn_ends_ms: self.turns.turn().ends_ms,
        }
    }

    /// Whether the next entry could push one out of the window that was not released.
    #[must_use]
    pub fn is_window_full(&self) -> bool {
        self.released < self.log.head() && self.released + 1 == self.log.first() && self.log.is_full()
    }

    /// When [`Self::release`] is to be called for what was appended.
    #[must_use]
    pub const fn flush_at(&self) -> Option<Instant> {
        self.flush_at
    }

    /// Something changed. Starts to gather, if it has not yet: what is there goes out at
    /// `at`.
    pub fn gather_until(&mut self, at: Instant) {
        self.flush_at.get_or_insert(at);
    }

    /// Lets members read everything that was appended.
    pub fn release(&mut self) {
        self.flush_at = None;
        self.released = self.log.head();
    }

    /// Checks the room's bounds (G11).
    ///
    /// # Errors
    /// Names the bound that does not hold.
    pub fn audit(&self, limits: &RoomLimits) -> Result<(), &'static str> {
        let check = |holds: bool, bound| if holds { Ok(()) } else { Err(bound) };
        check(self.members.len() <= limits.members, "members of a room")?;
        check(self.log.is_bounded() || self.log.first() == self.log.head(), "window of a log")?;
        check(
            self.latest.len() <= limits.members * limits.latest_keys as usize,
            "latest messages of a room",
        )?;
        check(
            self.latest.len() <= self.members.len() * limits.latest_keys as usize,
            "latest messages of members",
        )?;
        check(self.latest.bytes() <= limits.latest_bytes, "bytes of latest messages of a room")
    }

    fn append_membership(
        &mut self,
        wall: Wall,
        kind: v1::EntryKind,
        number: u32,
        player: &Name,
        zstd: &mut wire::Zstd,
    ) {
        self.scratch.kind = kind.into();
        self.scratch.member = number;
        self.scratch.client_seq = 0;
        self.scratch.player = String::from(player.clone());
        self.append(wall, &v1::Metadata::default(), zstd);
        self.scratch.player = String::new();
    }

    fn append(&mut self, wall: Wall, metadata: &v1::Metadata, zstd: &mut wire::Zstd) {
        self.scratch.seq = self.log.head() + 1;
        self.scratch.at_ms = wall.0;
        let plain = wire::encode(v1::Kind::Entry, metadata, &self.scratch);
        self.scratch.body = Bytes::new();
        self.scratch.type_url = String::new();
        (self.scratch.turn, self.scratch.turn_ends_ms) = (0, 0);
        let compress = self.compress_from > 0 && plain.len() >= self.compress_from;
        let compressed = if compress { zstd.deflate(&plain) } else { None };
        self.log.append(plain, compressed);
        // A large entry may push out some that were not released: they are lost to all.
        self.released = self.released.max(self.log.first() - 1);
    }
}
