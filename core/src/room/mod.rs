//! A room: one log, with members as cursors into that log.
//!
//! [`Room`] decides the content and the order of the log, recognises a message that is sent again,
//! and limits the entries that members may read. Connections, and the frames that they receive,
//! belong to [`node`](crate::node).
//!
//! Every change is an [`Op`], which passes four steps: *appended*, with its number and its log
//! time; *committed*, once it cannot be lost any more; *applied* by the [`Machine`], which makes
//! the entry; and *released*, so that members may read the entry:
//!
//! ```text
//! say, join, leave, seat, end_turn -> append -> commit_next -> Machine::apply -> log -> release
//! ```
//!
//! The primary of the room appends and decides the commit; a lone primary commits at once.
//! A [broadcast tree](tree) plans the ways of the entries through many nodes.
//!
//! The window of the log never loses an entry that was not released: a message that would push such
//! an entry out is refused.

mod backup;
mod latest;
mod log;
mod machine;
mod op;
mod op_message;
mod order;
mod pending;
mod recently_left;
#[cfg(test)]
mod tests;
pub mod tree;
mod turn;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use skirmish_proto::v1;

use crate::base::id::Name;
use crate::base::plant::{Plant, Planted};
use crate::base::rng::Seed;
use crate::base::time::{Duration, Instant, Now};
use crate::config::RoomLimits;
use crate::crdt::{Replica, ReplicaLimits};
use crate::wire;
use pending::{PendingOp, PendingOps};

pub use backup::{OpMark, OpStored};
pub use latest::{LatestBoard, Posted};
pub use log::Log;
pub use machine::{Applied, Machine, MachineConfig, Member, Seat};
pub use op::{Input, Op};
pub use op_message::MalformedOp;
pub(crate) use order::SayOrder;
pub use pending::FutureMember;
pub use recently_left::RecentlyLeft;
pub use turn::Turn;

/// Highest number of bytes of an entry's frame beside its content and the room's name: header,
/// trailer, trace, and numbers.
const AROUND_CONTENT: usize = 192;

/// Comparison of a reliable message with the messages that the room has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// The message is the next: [`Room::say`] may append it.
    Next,
    /// The message is in the log already.
    Duplicate,
    /// The message is appended already, and not committed yet: its entry will acknowledge it.
    Pending,
    /// Messages before this one are missing.
    Gap {
        /// The `client_seq` expected.
        expected: u64,
    },
    /// The message is the next, but finds no place until the entries appended before are released.
    Full,
}

/// A room.
#[derive(Clone, Debug)]
pub struct Room {
    name: Name,
    epoch: u64,
    /// Term in which ops are appended.
    term: u32,
    machine: Machine,
    /// Ops that are appended and not committed.
    pending: PendingOps,
    log: Log,
    /// Last entry that members may read: applied, and out of the flush interval.
    released: u64,
    /// Bytes of the entries after `released`.
    unreleased: usize,
    /// The op that was applied last when entries were released.
    released_op: OpMark,
    /// Digest of the applied ops; 0 while the room has no replica.
    digest: u64,
    /// Newest latest messages.
    pub latest: LatestBoard,
    /// State of the room: presence, properties, counters.
    pub state: Replica,
    /// Deadline of the turn, by the clock of the room's primary.
    turn_ends_at: Option<Instant>,
    /// Deadline for the release of the messages gathered so far.
    flush_at: Option<Instant>,
    compress_from: usize,
    scratch: v1::Entry,
    planted: Planted,
}

/// Arguments of a new room.
#[derive(Debug)]
pub struct RoomConfig<'a> {
    /// Caps and times of rooms.
    pub limits: &'a RoomLimits,
    /// Smallest entry that is compressed, in bytes; 0 for no compression.
    pub compress_from: usize,
    /// Time for which players that left are remembered.
    pub remember: Duration,
    /// Replica as which the server writes the room's state.
    pub replica: u64,
    /// Seed for the hashes of the room's names, so that clients cannot choose names that collide.
    pub seed: Seed,
    /// A bug, for the simulator.
    pub planted: Planted,
}

impl Room {
    /// Creates an empty room in its epoch.
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
        let machine = MachineConfig {
            turn_time: limits.turn_time,
            remember: config.remember,
            remembered: limits.members,
            planted: config.planted,
        };
        let scratch = v1::Entry { room: name.as_str().into(), epoch, ..v1::Entry::default() };
        Self {
            name,
            epoch,
            term: 1,
            machine: Machine::new(machine),
            pending: PendingOps::default(),
            log: Log::new(limits.window_entries, limits.window_bytes),
            released: 0,
            unreleased: 0,
            released_op: OpMark::default(),
            digest: 0,
            latest: LatestBoard::new(limits.latest_bytes, config.planted),
            state: Replica::new(config.replica, state_limits, config.seed),
            turn_ends_at: None,
            flush_at: None,
            compress_from: config.compress_from,
            scratch,
            planted: config.planted,
        }
    }

    /// Sets the epoch of a room that has no entry yet.
    pub fn start(&mut self, epoch: u64) {
        self.epoch = epoch;
        self.scratch.epoch = epoch;
    }

    // Getters.

    /// Returns the room's name.
    #[must_use]
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// Returns the room's epoch.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Returns the window of the log.
    #[must_use]
    pub const fn log(&self) -> &Log {
        &self.log
    }

    /// Returns the number of the last entry that members may read.
    #[must_use]
    pub const fn released(&self) -> u64 {
        self.released
    }

    /// Returns the members, by number.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        self.machine.members()
    }

    /// Returns the member with this number.
    #[must_use]
    pub fn member(&self, number: u32) -> Option<&Member> {
        self.machine.member(number)
    }

    /// Returns the number of the newest op that is appended.
    #[must_use]
    pub fn appended(&self) -> u64 {
        self.machine.applied() + self.pending.len() as u64
    }

    /// Returns the number of the newest op that is applied.
    #[must_use]
    pub const fn applied(&self) -> u64 {
        self.machine.applied()
    }

    /// Returns a member as it will be once all ops are applied; `None` if there will be none.
    #[must_use]
    pub fn future_member(&self, number: u32) -> Option<FutureMember<'_>> {
        self.pending.member(&self.machine, number)
    }

    /// Returns the members as they will be once all ops are applied, by number.
    pub fn future_members(&self) -> impl Iterator<Item = FutureMember<'_>> {
        self.pending.members(&self.machine)
    }

    /// Returns the players that left and are remembered.
    #[must_use]
    pub const fn recently_left(&self) -> &RecentlyLeft {
        self.machine.recently_left()
    }

    /// Returns true if a session of this epoch is older than the one with which its player left
    /// recently.
    #[must_use]
    pub fn has_outlived(&self, now: Now, player: &Name, epoch: u64) -> bool {
        self.recently_left().is_older(self.machine.log_time(now.wall.0), player, epoch)
    }

    /// Returns the turn.
    #[must_use]
    pub const fn turn(&self) -> Turn {
        self.machine.turn()
    }

    /// Returns the deadline of the turn, at which [`Self::end_turn`] must be called.
    #[must_use]
    pub const fn turn_ends_at(&self) -> Option<Instant> {
        self.turn_ends_at
    }

    /// Returns true if the op that ends the turn at its deadline is appended.
    #[must_use]
    pub fn is_turn_ending(&self) -> bool {
        self.pending.ends_turn()
    }

    /// Returns the deadline of the appended entries, at which [`Self::release`] must be called.
    #[must_use]
    pub const fn flush_at(&self) -> Option<Instant> {
        self.flush_at
    }

    /// Returns true if a reader that has received everything up to `seq` needs a snapshot to
    /// continue.
    #[must_use]
    pub const fn has_lost(&self, seq: u64) -> bool {
        seq + 1 < self.log.first()
    }

    /// Returns true if the next entry, of any size, could push an unreleased entry out of the
    /// window.
    #[must_use]
    pub fn is_window_full(&self) -> bool {
        self.would_lose(self.size(0))
    }

    /// Returns the snapshot that moves a reader to `seq`.
    #[must_use]
    pub fn snapshot(&self, number: u32, seq: u64, missing_from: u64) -> v1::Snapshot {
        let member = |m: &Member| v1::Member { member: m.number, player: String::from(m.player.clone()) };
        let turn = self.turn();
        v1::Snapshot {
            room: String::from(self.name.clone()),
            epoch: self.epoch,
            seq,
            missing_from,
            client_seq: self.member(number).map_or(0, |m| m.client_seq),
            members: self.members().iter().map(member).collect(),
            turn: turn.number,
            turn_ends_ms: turn.ends_ms,
        }
    }

    // The log, at the room's primary.

    /// Compares a reliable message with the messages that the room has. Returns `None` if there is
    /// no such member.
    #[must_use]
    pub fn judge(&self, number: u32, say: &v1::Say) -> Option<Judged> {
        let appended = self.future_member(number)?.client_seq;
        Some(match SayOrder::of(appended, say.client_seq) {
            SayOrder::Gap { expected } => Judged::Gap { expected },
            SayOrder::Duplicate if !self.planted.is(Plant::DuplicateApplied) => {
                let applied = self.member(number).map_or(0, |member| member.client_seq);
                if say.client_seq <= applied { Judged::Duplicate } else { Judged::Pending }
            }
            _ if self.would_lose(self.size(say.body.len() + say.type_url.len())) => Judged::Full,
            SayOrder::Next | SayOrder::Duplicate => Judged::Next,
        })
    }

    /// Appends a reliable message that is [the next](Judged::Next) of its member.
    pub fn say(&mut self, now: Now, number: u32, say: v1::Say, metadata: v1::Metadata) {
        let v1::Say { client_seq, body, type_url, ends_turn, .. } = say;
        self.append(now, Input::Say { member: number, client_seq, body, type_url, ends_turn }, metadata);
    }

    /// Makes a player a member once the op is applied. Returns the number of the member.
    pub fn join(&mut self, now: Now, player: Name, seat: Seat) -> u32 {
        let number = self.pending.next_member(&self.machine);
        self.append(now, Input::Join { player, seat }, v1::Metadata::default());
        number
    }

    /// Removes a member once the op is applied.
    pub fn leave(&mut self, now: Now, number: u32) {
        self.append(now, Input::Leave { member: number }, v1::Metadata::default());
    }

    /// Sets another epoch for the session of a member, once the op is applied.
    pub fn seat(&mut self, now: Now, number: u32, seat: Seat) {
        self.append(now, Input::Seat { member: number, seat }, v1::Metadata::default());
    }

    /// Ends the turn at its deadline, once the op is applied.
    pub fn end_turn(&mut self, now: Now) {
        if self.is_window_full() {
            self.release();
        }
        if !self.pending.ends_turn() {
            let turn = self.turn().number;
            self.append(now, Input::EndTurn { turn }, v1::Metadata::default());
        }
    }

    fn append(&mut self, now: Now, input: Input, metadata: v1::Metadata) {
        let log_time = self.machine.log_time(now.wall.0);
        let at_ms = self.pending.newest_ms().map_or(log_time, |newest| newest.max(log_time));
        let op = Op { number: self.appended() + 1, term: self.term, at_ms, input };
        let metadata = (metadata != v1::Metadata::default()).then(|| Box::new(metadata));
        self.pending.push(PendingOp { op, metadata });
    }

    /// Commits the oldest op that is appended, and applies it; `None` if there is none. The caller
    /// decides that the op cannot be lost any more.
    ///
    /// Joins and leaves are released at once, so that no member hears of another one whose join it
    /// has not read.
    pub fn commit_next(&mut self, now: Now, zstd: &mut wire::Zstd) -> Option<Applied> {
        let PendingOp { op, metadata } = self.pending.pop()?;
        let at_ms = op.at_ms;
        let is_membership = matches!(op.input, Input::Join { .. } | Input::Leave { .. });
        if is_membership || self.pushes_out(0, self.size(op.input.content())) {
            self.release();
        }
        let number = op.number;
        let applied = self.machine.apply(op, &mut self.scratch);
        if applied == Applied::Silent {
            self.extend_digest(number, &[]);
            return Some(applied);
        }
        if self.scratch.turn > 0 {
            let lasts = self.scratch.turn_ends_ms.checked_sub(at_ms).map(Duration::from_millis);
            self.turn_ends_at = lasts.map(|lasts| now.instant + lasts);
        }
        self.scratch.seq = self.log.head() + 1;
        let frame = match &metadata {
            Some(metadata) => wire::encode(v1::Kind::Entry, metadata, &self.scratch),
            None => wire::encode(v1::Kind::Entry, &v1::Metadata::default(), &self.scratch),
        };
        self.extend_digest(number, &frame);
        let compressed = self.compressed(&frame, zstd);
        self.unreleased += self.log.append(frame, compressed);
        if let Applied::Left { number, player } = &applied {
            self.latest.remove_member(*number);
            self.state.remove_owner(now, player.as_str());
        }
        if is_membership {
            self.release();
        }
        Some(applied)
    }

    fn extend_digest(&mut self, number: u64, frame: &[u8]) {
        if self.digest != 0 {
            self.digest = backup::chain(self.digest, number, frame);
        }
    }

    /// Returns the highest number of bytes in the log of an entry with so many bytes of content.
    fn size(&self, content: usize) -> usize {
        let frame = content + self.name.as_str().len() + AROUND_CONTENT;
        // Counted with the compressed frame, which is kept only if it is smaller.
        if self.compress_from > 0 && frame >= self.compress_from { 2 * frame } else { frame }
    }

    /// Returns true if an entry of so many bytes, behind those of the pending ops, could push an
    /// unreleased entry out of the window.
    fn would_lose(&self, bytes: usize) -> bool {
        let pending: usize = self.pending.contents().map(|content| self.size(content)).sum();
        self.pushes_out(self.pending.len(), pending + bytes)
    }

    /// Returns true if an entry behind `pending` others, all of `bytes` bytes, could push an
    /// unreleased entry out of the window.
    fn pushes_out(&self, pending: usize, bytes: usize) -> bool {
        let unreleased = usize::try_from(self.log.head() - self.released).unwrap_or(usize::MAX);
        let entries = unreleased.saturating_add(pending);
        entries > 0 && !self.log.fits(entries.saturating_add(1), self.unreleased + bytes)
    }

    fn compressed(&self, frame: &Bytes, zstd: &mut wire::Zstd) -> Option<Bytes> {
        if self.compress_from > 0 && frame.len() >= self.compress_from { zstd.deflate(frame) } else { None }
    }

    /// Schedules the release of a change for `at`, unless a release is scheduled already.
    pub fn gather_until(&mut self, at: Instant) {
        self.flush_at.get_or_insert(at);
    }

    /// Lets members read all applied entries.
    pub fn release(&mut self) {
        self.flush_at = None;
        self.released = self.log.head();
        self.released_op = self.applied_op();
        self.unreleased = 0;
    }

    /// Puts a latest message of a member up.
    pub fn put_latest(&mut self, number: u32, latest: v1::Latest, metadata: &v1::Metadata) -> Posted {
        let key = latest.key;
        let version = self.latest.next_version();
        let message = v1::Latest { member: number, epoch: self.epoch, version, ..latest };
        self.latest.put(number, key, wire::encode(v1::Kind::Latest, metadata, &message))
    }

    // The tail, at a node that follows the primary.

    /// Takes an entry of the room's primary, with its frame. The entry must be the next.
    pub fn follow(&mut self, entry: &v1::Entry, frame: Bytes, zstd: &mut wire::Zstd) {
        self.machine.follow(entry);
        if entry.kind() == v1::EntryKind::Leave {
            self.latest.remove_member(entry.member);
        }
        let compressed = self.compressed(&frame, zstd);
        self.log.append(frame, compressed);
        self.release();
    }

    /// Restarts after entry `seq`, with the members and the turn that the room's primary names.
    pub fn follow_from(&mut self, seq: u64, members: Vec<Member>, turn: Turn) {
        for member in self.machine.follow_from(members, turn) {
            self.latest.remove_member(member.number);
        }
        self.log.restart(seq);
        self.release();
    }

    /// Puts a latest message up that the room's primary has passed on.
    pub fn follow_latest(&mut self, number: u32, key: u32, frame: Bytes) -> Posted {
        self.latest.put(number, key, frame)
    }

    /// Checks the room's bounds (G11).
    ///
    /// # Errors
    /// Names the bound that does not hold.
    pub fn audit(&self, limits: &RoomLimits) -> Result<(), &'static str> {
        let check = |holds: bool, bound| if holds { Ok(()) } else { Err(bound) };
        let members = self.members().len();
        check(members <= limits.members, "members of a room")?;
        check(self.recently_left().len() <= limits.members, "members that have left")?;
        check(self.log.is_bounded() || self.log.first() == self.log.head(), "window of a log")?;
        check(self.released + 1 >= self.log.first(), "entries that were lost before they were released")?;
        let latest = self.latest.len();
        check(latest <= limits.members * limits.latest_keys as usize, "latest messages of a room")?;
        check(latest <= members * limits.latest_keys as usize, "latest messages of members")?;
        check(self.latest.bytes() <= limits.latest_bytes, "bytes of latest messages of a room")
    }
}
