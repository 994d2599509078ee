//! Guarantees G1 to G5 as the players see them.
//!
//! Every bot reports the deliveries of its client machine, and the [`Checker`] compares:
//!
//! * G1: each room keeps hashes of its newest entries by their place in the log. A member that
//!   delivers another entry at the same place is noticed at once.
//! * G2: at the end, no acknowledged message may be missing at a member that stayed. A message is
//!   missing if the member has delivered a later one, or if nothing is in flight any more. If a
//!   member is away or behind when the players' patience is over, the result is unknown: the
//!   message may be in flight. An unknown result is no breach, but the guarantee is not counted as
//!   held either.
//! * G3: an entry at or before the member's cursor, and a sender's number that was delivered
//!   before, are duplicates.
//! * G4: the numbers of each sender only grow.
//! * G5: places in the log are consecutive, unless a snapshot names the first and last missing
//!   entry.
//!
//! Memory is bounded by members times members per room, plus a window of each room.

mod member;
mod room;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use skirmish_core::id::Cursor;

use member::CheckedMember;
use room::CheckedRoom;

/// The guarantees that the bots can check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckedGuarantee {
    /// G1: any two members deliver the same entries in the same order.
    Order,
    /// G2: nothing acknowledged is lost.
    NoLoss,
    /// G3: nothing is delivered twice.
    NoDuplicate,
    /// G4: the messages of each sender are delivered in the order of sending.
    SenderOrder,
    /// G5: no gap without a snapshot that announces the gap.
    NoSilentGap,
}

impl CheckedGuarantee {
    /// All guarantees, in the order of their numbers.
    pub(super) const ALL: [Self; 5] =
        [Self::Order, Self::NoLoss, Self::NoDuplicate, Self::SenderOrder, Self::NoSilentGap];

    /// Returns the number and name.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Order => "G1 order",
            Self::NoLoss => "G2 nothing acknowledged is lost",
            Self::NoDuplicate => "G3 nothing twice",
            Self::SenderOrder => "G4 per-sender FIFO",
            Self::NoSilentGap => "G5 no gap unannounced",
        }
    }
}

/// Number of breaches of a guarantee, and a description of the first one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Breaches {
    pub count: u64,
    pub first: Option<String>,
}

impl Breaches {
    pub(super) fn add(&mut self, what: impl FnOnce() -> String) {
        self.count += 1;
        self.first.get_or_insert_with(what);
    }

    /// Adds the breaches of another checker.
    pub(super) fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.first = self.first.take().or(other.first);
    }
}

/// Findings of a checker, once every expected delivery has arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// Breaches by guarantee.
    pub breaches: [Breaches; 5],
    /// Cases in which a loss is neither proved nor excluded (G2).
    pub unknown: Breaches,
    pub counts: Counts,
}

/// Other counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Deliveries of an entry or message that was delivered before.
    pub duplicates: u64,
    /// Deliveries after a later message of the same sender.
    pub out_of_order: u64,
    /// Acknowledged messages that are missing at a member that stayed.
    pub lost: u64,
    /// Missing entries that a snapshot has announced.
    pub announced: u64,
    /// Entries so old that no other member's entry was left for comparison.
    pub uncompared: u64,
}

impl Counts {
    /// Adds the counters of another checker.
    pub(super) const fn merge(&mut self, other: Self) {
        self.duplicates += other.duplicates;
        self.out_of_order += other.out_of_order;
        self.lost += other.lost;
        self.announced += other.announced;
        self.uncompared += other.uncompared;
    }
}

/// An entry as a member has delivered it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delivery {
    /// Cursor of the entry.
    pub cursor: Cursor,
    /// [`entry_hash`] of the entry.
    pub hash: u64,
    /// Sender and number, if the entry is a bot's message.
    pub said: Option<(u32, u64)>,
}

/// Returns a hash of everything in an entry that must be the same for every member.
pub(super) fn entry_hash(kind: i32, member: u32, client_seq: u64, body: &[u8], player: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (kind, member, client_seq).hash(&mut hasher);
    body.hash(&mut hasher);
    player.hash(&mut hasher);
    hasher.finish()
}

/// Compares the players' deliveries. Player `p` is in room `p / room_size`, and only there.
#[derive(Debug)]
pub(super) struct Checker {
    room_size: u32,
    members: Vec<CheckedMember>,
    rooms: Vec<CheckedRoom>,
    senders: Vec<Sender>,
    breaches: [Breaches; 5],
    counts: Counts,
}

/// Outcomes of a player's own messages.
#[derive(Debug, Default)]
struct Sender {
    /// The highest acknowledged number.
    acknowledged: u64,
    /// Numbers of messages that were refused, or have an unknown outcome.
    not_acknowledged: BTreeSet<u64>,
}

impl Sender {
    fn is_acknowledged(&self, number: u64) -> bool {
        number <= self.acknowledged && !self.not_acknowledged.contains(&number)
    }
}

impl Checker {
    pub(super) fn new(players: u32, room_size: u32) -> Self {
        let room_size = room_size.max(1);
        let rooms = players.div_ceil(room_size);
        Self {
            room_size,
            members: (0..players).map(|_| CheckedMember::default()).collect(),
            rooms: (0..rooms).map(|_| CheckedRoom::default()).collect(),
            senders: (0..players).map(|_| Sender::default()).collect(),
            breaches: Default::default(),
            counts: Counts::default(),
        }
    }

    /// Notes that the player's client was welcomed on a new connection.
    pub(super) fn connected(&mut self, player: u32) {
        self.members[player as usize].connections += 1;
    }

    /// Notes that the player is a member of its room: by the same membership as before if
    /// `resumed`, else by a new one, for which no earlier entry is required.
    pub(super) fn joined(&mut self, player: u32, resumed: bool) {
        self.members[player as usize].join(resumed);
    }

    /// Notes that the player is not a member any more.
    pub(super) fn left(&mut self, player: u32) {
        self.members[player as usize].present = false;
    }

    /// Checks an entry that the player has delivered.
    pub(super) fn delivered(&mut self, player: u32, delivery: Delivery) {
        let room = &mut self.rooms[(player / self.room_size) as usize];
        let member = &mut self.members[player as usize];
        let Cursor { epoch, seq } = delivery.cursor;

        match member.cursor {
            Some(at) if at.epoch != epoch => {
                let what = || format!("player {player} went from epoch {} to {epoch} in silence", at.epoch);
                breach(&mut self.breaches, CheckedGuarantee::NoSilentGap, what);
            }
            Some(at) if seq <= at.seq => {
                self.counts.duplicates += 1;
                let what = || format!("player {player} delivered {epoch}/{seq} after {epoch}/{}", at.seq);
                breach(&mut self.breaches, CheckedGuarantee::NoDuplicate, what);
            }
            Some(at) if seq != at.seq + 1 => {
                let what = || format!("player {player} went from {epoch}/{} to {epoch}/{seq}", at.seq);
                breach(&mut self.breaches, CheckedGuarantee::NoSilentGap, what);
            }
            _ => {}
        }
        member.cursor = Some(member.cursor.map_or(delivery.cursor, |at| at.max(delivery.cursor)));

        match room.compare(delivery.cursor, delivery.hash) {
            room::Compared::Same => {}
            room::Compared::TooOld => self.counts.uncompared += 1,
            room::Compared::Different => {
                let what = || format!("player {player} has another entry at {epoch}/{seq} than others");
                breach(&mut self.breaches, CheckedGuarantee::Order, what);
            }
        }

        if let Some((sender, number)) = delivery.said {
            if sender / self.room_size != player / self.room_size {
                let what = || format!("player {player} got a message of player {sender}'s room");
                breach(&mut self.breaches, CheckedGuarantee::Order, what);
                return;
            }
            let place = (sender % self.room_size) as usize;
            let snapshots = member.snapshots;
            match member.peer(place).advance(number, snapshots) {
                member::NumberCheck::Forward => {}
                member::NumberCheck::Again => {
                    self.counts.duplicates += 1;
                    let what = || format!("player {player} got message {number} of player {sender} twice");
                    breach(&mut self.breaches, CheckedGuarantee::NoDuplicate, what);
                }
                member::NumberCheck::Late => {
                    self.counts.out_of_order += 1;
                    let what = || {
                        format!("player {player} got message {number} of player {sender} after later ones")
                    };
                    breach(&mut self.breaches, CheckedGuarantee::SenderOrder, what);
                }
            }
        }
    }

    /// Checks a snapshot that the player has received in place of entries.
    pub(super) fn snapshot(&mut self, player: u32, cursor: Cursor, missing: Option<(u64, u64)>) {
        let member = &mut self.members[player as usize];
        if let Some(at) = member.cursor.filter(|at| at.epoch == cursor.epoch) {
            let announced = match missing {
                Some((first, last)) => first <= at.seq + 1 && last == cursor.seq,
                None => cursor.seq == at.seq,
            };
            if !announced || cursor.seq < at.seq {
                let what = || {
                    format!(
                        "player {player} went from {}/{} to the snapshot at {}, said to miss {missing:?}",
                        at.epoch, at.seq, cursor.seq
                    )
                };
                breach(&mut self.breaches, CheckedGuarantee::NoSilentGap, what);
            }
        }
        if let Some((first, last)) = missing {
            self.counts.announced += (last + 1).saturating_sub(first);
        }
        member.cursor = Some(cursor);
        member.snapshots += 1;
    }

    /// Checks a latest message that the player has delivered.
    pub(super) fn latest(&mut self, player: u32, sender: u32, number: u64) {
        let member = &mut self.members[player as usize];
        let connection = member.connections;
        let peer = member.peer((sender % self.room_size) as usize);
        if number < peer.latest {
            self.counts.out_of_order += 1;
            let what = || format!("player {player} got latest {number} of player {sender} after a newer one");
            breach(&mut self.breaches, CheckedGuarantee::SenderOrder, what);
        } else if number == peer.latest && connection == peer.latest_connection {
            self.counts.duplicates += 1;
            let what = || format!("player {player} got latest {number} of player {sender} twice");
            breach(&mut self.breaches, CheckedGuarantee::NoDuplicate, what);
        }
        peer.latest = peer.latest.max(number);
        peer.latest_connection = connection;
    }

    /// Notes the acknowledgement of a player's own message.
    pub(super) fn acknowledged(&mut self, player: u32, number: u64) {
        let sender = &mut self.senders[player as usize];
        sender.acknowledged = sender.acknowledged.max(number);
    }

    /// Notes that the player has delivered its own message, which also acknowledges the message.
    pub(super) fn sequenced(&mut self, player: u32, cursor: Cursor) {
        let room = &mut self.rooms[(player / self.room_size) as usize];
        room.acknowledged = room.acknowledged.max(cursor);
    }

    /// Notes that the player's own message was refused, or has an unknown outcome.
    pub(super) fn not_acknowledged(&mut self, player: u32, number: u64) {
        self.senders[player as usize].not_acknowledged.insert(number);
    }

    /// Returns true if the player is a member that has not delivered every acknowledged message.
    pub(super) fn is_behind(&self, player: u32) -> bool {
        let room = &self.rooms[(player / self.room_size) as usize];
        self.members[player as usize].is_behind(room.acknowledged)
    }

    /// Returns the counters of wrong or missing deliveries so far.
    pub(super) const fn counts(&self) -> Counts {
        self.counts
    }

    /// Checks for losses, once every expected delivery has arrived. `settled` is true if nothing is
    /// in flight any more, and false if the players' patience has ended. `reachable` returns true
    /// for connected players.
    pub(super) fn finish(&mut self, reachable: impl Fn(u32) -> bool, settled: bool) -> Findings {
        let mut unknown = Breaches::default();
        for (player, member) in (0..).zip(&self.members).filter(|(_, member)| member.present) {
            let room = &self.rooms[(player / self.room_size) as usize];
            let is_behind = member.is_behind(room.acknowledged);
            let is_there = reachable(player);
            if !is_there && !settled {
                unknown.add(|| format!("player {player} was away at the end"));
            } else if is_behind {
                let at = member.cursor;
                unknown
                    .add(|| format!("player {player} was still at {at:?}, before an acknowledged message"));
            }
            let first = player / self.room_size * self.room_size;
            for (sender, peer) in (first..).zip(&member.peers) {
                let Some(of) = self.senders.get(sender as usize) else { continue };
                // The member has passed the sender's own last delivery, so the message can no
                // longer arrive.
                let own = &self.members[sender as usize];
                let seen = own.delivered((sender - first) as usize);
                let passed = |number| settled && is_there || !is_behind && number <= seen;
                let missed = peer.missed(of.acknowledged, member.snapshots);
                for (number, is_skipped) in missed.filter(|(number, _)| of.is_acknowledged(*number)) {
                    let what = || format!("player {player} never got message {number} of player {sender}");
                    if is_skipped || passed(number) {
                        self.counts.lost += 1;
                        breach(&mut self.breaches, CheckedGuarantee::NoLoss, what);
                    } else {
                        unknown.add(what);
                    }
                }
            }
        }
        Findings { breaches: self.breaches.clone(), unknown, counts: self.counts }
    }
}

fn breach(breaches: &mut [Breaches; 5], guarantee: CheckedGuarantee, what: impl FnOnce() -> String) {
    breaches[guarantee as usize].add(what);
}
