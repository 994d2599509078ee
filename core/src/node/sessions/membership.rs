//! The membership of a session in a room: cursors, and the frames that the member is owed.

use alloc::string::String;

use bytes::Bytes;
use skirmish_proto::v1;

use crate::base::plant::{Plant, Planted};
use crate::base::slab::Key;
use crate::base::time::{Duration, Instant};
use crate::hosting::{Hold, STATE_FRAME_BYTES, Seated};
use crate::room::Room;
use crate::wire;

/// A session's membership in a room: all cursors, no queue. Frames for the member are made from these
/// when its connection takes more.
#[derive(Debug)]
pub(in crate::node) struct Membership {
    pub(super) room: Key,
    /// Number of the client's newest request for the room, to join it or to continue in it.
    request: u64,
    /// Number of the member; 0 while the session is being admitted.
    number: u32,
    /// Entry after which the member began to read.
    start: u64,
    /// Last entry that was handed to the connection.
    seq: u64,
    /// Version of the last latest message that was.
    latest: u64,
    /// Last change of the room's state that was.
    change: u64,
    /// Removals that the room's state had forgotten when the member last had reason to reconcile.
    forgotten: u64,
    /// `Joined` to send, and whether it says that the member was one before.
    joined: Option<bool>,
    /// True if a `Snapshot` is to be sent though no entry is missing: the member is new.
    welcome_snapshot: bool,
    /// True if an `Ack` is to be sent.
    acknowledge: bool,
    window: SendWindow,
    /// `Throttle` of latest messages to send: milliseconds to wait.
    latest_throttle: Option<u32>,
    /// Time until which dropped latest messages are not reported again.
    latest_throttled: Instant,
}

/// Window of the reliable messages that a member may send.
///
/// A refused message closes the window: messages from a number on are to be sent again after a
/// time. Messages that were under way behind the refused one find the window closed, which is
/// reported once.
#[derive(Clone, Copy, Debug, Default)]
struct SendWindow {
    /// `Throttle` to send: the number expected, and milliseconds to wait.
    throttle: Option<(u64, u32)>,
    /// Number that the last `Throttle` named.
    named: Option<u64>,
}

impl SendWindow {
    const fn close(&mut self, hold: Hold) {
        let Hold { client_seq, expected, retry_after_ms } = hold;
        let is_named = matches!(self.named, Some(named) if named == expected);
        if client_seq == expected || !is_named {
            self.reopen_at(expected, retry_after_ms);
        }
    }

    /// Has messages from a number on sent again, after a time.
    const fn reopen_at(&mut self, expected: u64, retry_after_ms: u32) {
        self.named = Some(expected);
        self.throttle = Some((expected, retry_after_ms));
    }
}

/// Frame that a cursor stands for.
pub(super) enum Owed {
    Entry(Bytes),
    Snapshot(Bytes),
    Other(Bytes),
}

impl Membership {
    /// Creates a membership that is being admitted, for the client's request of this number.
    pub(super) const fn new(room: Key, request: u64) -> Self {
        Self {
            room,
            request,
            number: 0,
            start: 0,
            seq: 0,
            latest: 0,
            change: 0,
            forgotten: 0,
            joined: None,
            welcome_snapshot: false,
            acknowledge: false,
            window: SendWindow { throttle: None, named: None },
            latest_throttle: None,
            latest_throttled: Instant::ZERO,
        }
    }

    // Getters.

    pub(in crate::node) const fn room(&self) -> Key {
        self.room
    }

    /// Returns the number of the client's newest request for the room, to join it or to continue.
    pub(in crate::node) const fn request(&self) -> u64 {
        self.request
    }

    /// Returns the number of the member; 0 while the session is being admitted.
    pub(in crate::node) const fn number(&self) -> u32 {
        self.number
    }

    /// Returns true if the session is a member already.
    pub(in crate::node) const fn is_seated(&self) -> bool {
        self.number > 0
    }

    // Changes.

    /// Begins to read: the log from the cursor that the room names, and the state from its
    /// beginning.
    pub(in crate::node) const fn begin(&mut self, seated: Seated) {
        let Seated { number, seq, resumed, forgotten } = seated;
        self.number = number;
        (self.start, self.seq) = (seq, seq);
        (self.latest, self.change, self.forgotten) = (0, 0, forgotten);
        self.joined = Some(resumed);
        self.welcome_snapshot = true;
    }

    /// Answers a `Join` of a member whose client has not received, or has forgotten, the answer to
    /// an earlier one. While the session is being admitted, the answer will name this `Join`.
    pub(in crate::node) const fn join_again(&mut self, request: u64) {
        self.request = request;
        if self.is_seated() {
            self.joined = Some(true);
            self.welcome_snapshot = true;
        }
    }

    /// Names the request with which a client resumes a room while its session is being admitted.
    pub(in crate::node) const fn redirect(&mut self, request: u64) {
        self.request = request;
    }

    /// Goes on from a client's place in the log.
    pub(in crate::node) fn resume(&mut self, room: &Room, seq: u64, request: u64, planted: Planted) {
        self.request = request;
        // Nothing beyond the released entries was ever sent: a larger number is a lie that harms
        // only its author.
        let late = u64::from(planted.is(Plant::ResumeOffByOne));
        self.seq = (seq + late).min(room.released());
        self.latest = 0;
        (self.change, self.forgotten) = (room.state.change(), room.state.forgotten());
        self.joined = Some(true);
        // If nothing was delivered yet, the snapshot of the join may be lost too.
        self.welcome_snapshot = seq <= self.start;
        self.acknowledge = false;
        self.window = SendWindow::default();
    }

    /// Owes an `Ack`: a message came that is in the log.
    pub(in crate::node) const fn acknowledge(&mut self) {
        self.acknowledge = true;
    }

    /// Refuses a reliable message for now.
    pub(in crate::node) const fn hold(&mut self, hold: Hold) {
        self.window.close(hold);
    }

    /// Has the client send again, at once, messages that were taken and are lost.
    pub(in crate::node) const fn resend(&mut self, expected: u64) {
        self.window.reopen_at(expected, 0);
    }

    /// Notes that a latest message was dropped. Returns true if that is to be reported, with the time
    /// to wait in milliseconds: once in each `interval`.
    pub(in crate::node) fn drop_latest(
        &mut self,
        now: Instant,
        retry_after_ms: u32,
        interval: Duration,
    ) -> bool {
        let reports = now >= self.latest_throttled;
        if reports {
            self.latest_throttled = now + interval;
            self.latest_throttle = Some(retry_after_ms);
        }
        reports
    }

    // Frames.

    /// Returns the next frame for the member. The order: the answer to the join, refusals, the log,
    /// latest messages, the state.
    #[inline]
    pub(super) fn next(&mut self, room: &Room, accept_zstd: bool, planted: Planted) -> Option<Owed> {
        if self.number == 0 {
            return None;
        }
        if planted.is(Plant::GapUnannounced) {
            // The planted bug continues with the oldest entry, without a report.
            self.seq = self.seq.max(room.log().first() - 1);
        }
        // Most frames are entries, and most calls find no frame.
        if !self.owes_notice() && !room.has_lost(self.seq) {
            if self.seq < room.released() {
                return self.next_entry(room, accept_zstd);
            }
            if !self.acknowledge
                && self.latest >= room.latest.version()
                && self.change >= room.state.change()
                && self.forgotten >= room.state.forgotten()
            {
                return None;
            }
        }
        self.next_of_any(room, accept_zstd, planted)
    }

    /// Returns true if a frame comes before the next entry.
    fn owes_notice(&self) -> bool {
        self.joined.is_some()
            || self.welcome_snapshot
            || self.window.throttle.is_some()
            || self.latest_throttle.is_some()
    }

    #[inline]
    fn next_entry(&mut self, room: &Room, accept_zstd: bool) -> Option<Owed> {
        let frame = room.log().get(self.seq + 1, accept_zstd)?;
        self.seq += 1;
        Some(Owed::Entry(frame.clone()))
    }

    fn next_of_any(&mut self, room: &Room, accept_zstd: bool, planted: Planted) -> Option<Owed> {
        let number = self.number;
        let client_seq = || room.member(number).map_or(0, |member| member.client_seq);
        let name = || String::from(room.name().clone());
        let epoch = room.epoch();
        if let Some(resumed) = self.joined.take() {
            let early = u64::from(planted.is(Plant::AcknowledgedUnlogged) && resumed);
            let (room, member, seq, client_seq) = (name(), self.number, self.seq, client_seq() + early);
            let joined = v1::Joined { room, epoch, member, resumed, client_seq, seq, request: self.request };
            self.acknowledge = false;
            return Some(Owed::Other(plain(v1::Kind::Joined, &joined)));
        }
        if core::mem::take(&mut self.welcome_snapshot) && !room.has_lost(self.seq) {
            let snapshot = room.snapshot(self.number, self.seq, 0);
            return Some(Owed::Other(plain(v1::Kind::Snapshot, &snapshot)));
        }
        if room.has_lost(self.seq) {
            let snapshot = room.snapshot(self.number, room.released(), self.seq + 1);
            self.seq = room.released();
            return Some(Owed::Snapshot(plain(v1::Kind::Snapshot, &snapshot)));
        }
        if let Some((expected, retry_after_ms)) = self.window.throttle.take() {
            let class = v1::Class::Reliable.into();
            let throttle = v1::Throttle { room: name(), class, expected, retry_after_ms };
            return Some(Owed::Other(plain(v1::Kind::Throttle, &throttle)));
        }
        if let Some(retry_after_ms) = self.latest_throttle.take() {
            let class = v1::Class::Latest.into();
            let throttle = v1::Throttle { room: name(), class, expected: 0, retry_after_ms };
            return Some(Owed::Other(plain(v1::Kind::Throttle, &throttle)));
        }
        if self.seq < room.released() {
            return self.next_entry(room, accept_zstd);
        }
        if core::mem::take(&mut self.acknowledge) {
            let ack = v1::Ack { room: name(), epoch, client_seq: client_seq() };
            return Some(Owed::Other(plain(v1::Kind::Ack, &ack)));
        }
        if let Some((version, frame)) = room.latest.next(self.latest, self.number) {
            self.latest = version;
            return Some(Owed::Other(frame.clone()));
        }
        let forgotten = room.state.forgotten();
        if self.forgotten < forgotten && self.change < forgotten {
            self.forgotten = forgotten;
            let step = v1::Reconcile { room: name(), epoch, ..v1::Reconcile::default() };
            return Some(Owed::Other(plain(v1::Kind::Reconcile, &step)));
        }
        if self.change < room.state.change() {
            let (entries, change) = room.state.changes_since(self.change, STATE_FRAME_BYTES);
            self.change = change;
            if !entries.is_empty() {
                let state = v1::State { room: name(), epoch, entries, ..v1::State::default() };
                return Some(Owed::Other(plain(v1::Kind::State, &state)));
            }
        }
        None
    }
}

/// A frame without metadata, made only when it is needed.
fn plain(kind: v1::Kind, message: &impl prost::Message) -> Bytes {
    wire::encode(kind, &v1::Metadata::default(), message)
}
