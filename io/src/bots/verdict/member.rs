//! Deliveries of one member.

use skirmish_core::id::Cursor;

/// Maximum number of undelivered numbers that are kept for each sender. A member misses a number
/// only if the message was refused, or is lost.
const HOLES: usize = 4_096;

/// A member of a room.
#[derive(Debug, Default)]
pub(super) struct CheckedMember {
    pub present: bool,
    /// Cursor of the last entry that was delivered, or skipped by a snapshot.
    pub cursor: Option<Cursor>,
    /// Number of snapshots so far. Across each of them, numbers may be missing.
    pub snapshots: u32,
    /// Number of connections so far.
    pub connections: u32,
    /// Senders by their place in the room.
    pub peers: Vec<CheckedSender>,
}

/// Deliveries of one member from one sender.
#[derive(Clone, Debug, Default)]
pub(super) struct CheckedSender {
    /// The first delivered number; 0 before that.
    first: u64,
    /// The last delivered number.
    last: u64,
    /// [`CheckedMember::snapshots`] as of `last`.
    snapshots: u32,
    /// Numbers in between that were not delivered.
    holes: Vec<u64>,
    /// Number of the newest latest message, and the connection of its delivery.
    pub latest: u64,
    pub latest_connection: u32,
}

/// Relation of a sender's next number to the earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NumberCheck {
    /// Above the last number.
    Forward,
    /// Delivered before.
    Again,
    /// Overtaken by a later one.
    Late,
}

impl CheckedMember {
    /// Begins a membership, or continues one.
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

    /// Returns true if the member has not delivered every acknowledged message.
    pub(super) fn is_behind(&self, acknowledged: Cursor) -> bool {
        self.present && self.cursor.is_some_and(|at| at < acknowledged && at.epoch == acknowledged.epoch)
    }

    /// Returns the last delivered number of the sender at this place in the room; 0 for none.
    pub(super) fn delivered(&self, place: usize) -> u64 {
        self.peers.get(place).map_or(0, |peer| peer.last)
    }

    /// Returns the sender at this place in the room.
    pub(super) fn peer(&mut self, place: usize) -> &mut CheckedSender {
        if place >= self.peers.len() {
            self.peers.resize(place + 1, CheckedSender::default());
        }
        &mut self.peers[place]
    }
}

impl CheckedSender {
    /// Notes the delivery of a number. `snapshots` is the member's number of snapshots so far.
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

    /// Returns the numbers up to `until` that a member with `snapshots` snapshots should have
    /// delivered and has not, each with true if the member has delivered later ones. No number is
    /// required from before the first delivery, nor across a snapshot.
    pub(super) fn missed(&self, until: u64, snapshots: u32) -> impl Iterator<Item = (u64, bool)> {
        let owed = self.first != 0 && self.snapshots == snapshots;
        let tail = if owed { self.last + 1..until + 1 } else { 0..0 };
        self.holes.iter().map(|hole| (*hole, true)).chain(tail.map(|number| (number, false)))
    }
}
