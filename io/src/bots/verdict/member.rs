//! What one member delivered.

use skirmish_core::id::Cursor;

/// Numbers remembered as not delivered, for each sender. A member misses one only when the
/// sender's message was refused, or is lost.
const HOLES: usize = 4_096;

/// A member of a room.
#[derive(Debug, Default)]
pub(super) struct CheckedMember {
    pub present: bool,
    /// The last entry delivered, or skipped by a snapshot.
    pub cursor: Option<Cursor>,
    /// Snapshots so far; across each, numbers may be missing.
    pub snapshots: u32,
    /// Connections so far.
    pub connections: u32,
    /// By the sender's place in the room.
    pub peers: Vec<CheckedSender>,
}

/// What a member delivered of one sender.
#[derive(Clone, Debug, Default)]
pub(super) struct CheckedSender {
    /// The first number delivered; 0 before that.
    first: u64,
    /// The last one.
    last: u64,
    /// [`Member::snapshots`] as of `last`.
    snapshots: u32,
    /// Numbers in between that were not delivered.
    holes: Vec<u64>,
    /// Number of the newest latest message, and the connection on which it came.
    pub latest: u64,
    pub latest_connection: u32,
}

/// What the next number of a sender is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NumberCheck {
    /// Beyond the last.
    Forward,
    /// Delivered before.
    Again,
    /// Overtaken by a later one.
    Late,
}

impl CheckedMember {
    /// A membership begins, or goes on.
    pub(super) fn join(&mut self, resumed: bool) {
        self.present = true;
        if !resumed {
            self.cursor = None;
            for peer in &mut self.peers {
                *peer = CheckedSender {
                    latest: peer.latest,
                    latest_connection: peer.latest_connection,
                    ..CheckedSender::default()
                };
            }
        }
    }

    /// Whether it has not delivered yet what is acknowledged.
    pub(super) fn is_behind(&self, acknowledged: Cursor) -> bool {
        self.present && self.cursor.is_some_and(|at| at < acknowledged && at.epoch == acknowledged.epoch)
    }

    /// The last number delivered of the sender at this place in the room; 0 for none.
    pub(super) fn delivered(&self, place: usize) -> u64 {
        self.peers.get(place).map_or(0, |peer| peer.last)
    }

    /// The sender at this place in the room.
    pub(super) fn peer(&mut self, place: usize) -> &mut CheckedSender {
        if place >= self.peers.len() {
            self.peers.resize(place + 1, CheckedSender::default());
        }
        &mut self.peers[place]
    }
}

impl CheckedSender {
    /// The member delivered this number; it had `snapshots` so far.
    pub(super) fn advance(&mut self, number: u64, snapshots: u32) -> NumberCheck {
        if number > self.last {
            if self.first == 0 {
                self.first = number;
            } else if self.snapshots == snapshots {
                let room = HOLES.saturating_sub(self.holes.len());
                self.holes.extend((self.last + 1..number).take(room));
            }
            self.last = number;
            self.snapshots = snapshots;
            return NumberCheck::Forward;
        }
        if let Some(index) = self.holes.iter().position(|hole| *hole == number) {
            self.holes.swap_remove(index);
            return NumberCheck::Late;
        }
        if number < self.first { NumberCheck::Late } else { NumberCheck::Again }
    }

    /// Numbers up to `until` that a member that had `snapshots` should have delivered and
    /// did not, and whether it has delivered later ones. Nothing is owed from before the first
    /// delivery, nor across a snapshot.
    pub(super) fn missed(&self, until: u64, snapshots: u32) -> impl Iterator<Item = (u64, bool)> {
        let owed = self.first != 0 && self.snapshots == snapshots;
        let tail = if owed { self.last + 1..until + 1 } else { 0..0 };
        self.holes.iter().map(|hole| (*hole, true)).chain(tail.map(|number| (number, false)))
    }
}
