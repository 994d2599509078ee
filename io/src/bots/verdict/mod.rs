//! Guarantees G1 to G5 as the players see them.
//!
//! Every bot reports what its client machine delivered, and the [`Checker`] compares:
//!
//! * G1: each room remembers a hash of its newest entries by their place in the log; a
//!   member that delivers another entry at the same place is seen at once.
//! * G2: at the end, no acknowledged message may be missing at a member that stayed. It is
//!   missing if the member has delivered what comes after it, or if nothing is under way any
//!   more. Of a member that is away or behind when the players' patience is over, nobody knows:
//!   it may be on its way. That is no breach, and nothing has held.
//! * G3: an entry at or before the member's cursor, and a sender's number that was
//!   delivered before, are duplicates.
//! * G4: the numbers of each sender only grow.
//! * G5: places in the log are consecutive, unless a snapshot says from where to where
//!   entries are missing.
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

/// What the bots can check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckedGuarantee {
    /// G1: any two members deliver the same entries in the same order.
    Order,
    /// G2: nothing acknowledged is lost.
    NoLoss,
    /// G3: nothing is delivered twice.
    NoDuplicate,
    /// G4: each sender's messages come in the order in which it sent them.
    SenderOrder,
    /// G5: no gap without a snapshot that says so.
    NoSilentGap,
}

impl CheckedGuarantee {
    /// All of them, in the order of their numbers.
    pub(super) const ALL: [Self; 5] =
        [Self::Order, Self::NoLoss, Self::NoDuplicate, Self::SenderOrder, Self::NoSilentGap];

    /// Number and name.
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

/// How often a guarantee was broken, and the first time in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Breaches {
    pub count: u64,
    pub first: Option<String>,
}

impl Breaches {
    /// Adds one.
    pub(super) fn add(&mut self, what: impl FnOnce() -> String) {
        self.count += 1;
        self.first.get_or_insert_with(what);
    }

    /// Adds those of another checker.
    pub(super) fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.first = self.first.take().or(other.first);
    }
}

/// What a checker has found, once everything is delivered that will be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// What was broken, by guarantee.
    pub breaches: [Breaches; 5],
    /// Of whom nobody knows whether something is lost (G2).
    pub unknown: Breaches,
    pub counts: Counts,
}

/// What was counted besides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Deliveries that came twice.
    pub duplicates: u64,
    /// Deliveries that came after a later one of the same sender.
    pub out_of_order: u64,
    /// Acknowledged messages that a member that stayed did not get.
    pub lost: u64,
    /// Entries that a snapshot said were missing.
    pub announced: u64,
    /// Entries so old that no other member's was left to compare with.
    pub uncompared: u64,
}

impl Counts {
    /// Adds those of another checker.
    pub(super) const fn merge(&mut self, other: Self) {
        self.duplicates += other.duplicates;
        self.out_of_order += other.out_of_order;
        self.lost += other.lost;
        self.announced += other.announced;
        self.uncompared += other.uncompared;
    }
}

/// An entry as a member delivered it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delivery {
    /// Its place in the log.
    pub cursor: Cursor,
    /// [`entry_hash`] of it.
    pub hash: u64,
    /// Sender and number, if it is a bot's message.
    pub said: Option<(u32, u64)>,
}

/// Hash of everything in an entry that must be the same for every member.
pub(super) fn entry_hash(kind: i32, member: u32, client_seq: u64, body: &[u8], player: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (kind, member, client_seq).hash(&mut hasher);
    body.hash(&mut hasher);
    player.hash(&mut hasher);
    hasher.finish()
}

/// Compares what players deliver. Player `p` is in room `p / room_size`, and only there.
#[derive(Debug)]
pub(super) struct Checker {
    room_size: u32,
    members: Vec<CheckedMember>,
    rooms: Vec<CheckedRoom>,
    senders: Vec<Sender>,
    breaches: [Breaches; 5],
    counts: Counts,
}

/// What a player heard of its own messages.
#[derive(Debug, Default)]
struct Sender {
    /// The highest number acknowledged.
    acknowledged: u64,
    /// Numbers that were refused, or whose outcome is unknown.
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

    /// The player's client was welcomed on a new connection.
    pub(super) fn connected(&mut self, player: u32) {
        self.members[player as usize].connections += 1;
    }

    /// The player is a member of its room: the same membership as before, or a new one to
    /// which nothing is owed from before.
    pub(super) fn joined(&mut self, player: u32, resumed: bool) {
        self.members[player as usize].join(resumed);
    }

    /// The player is not a member any more.
    pub(super) fn left(&mut self, player: u32) {
        self.members[player as usize].present = false;
    }

    /// The player delivered an entry.
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

    /// The player got a snapshot of its room instead of entries.
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

    /// The player delivered a latest message.
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

    /// The player's own message was acknowledged.
    pub(super) fn acknowledged(&mut self, player: u32, number: u64) {
        let sender = &mut self.senders[player as usize];
        sender.acknowledged = sender.acknowledged.max(number);
    }

    /// The player delivered its own message, which acknowledges it.
    pub(super) fn sequenced(&mut self, player: u32, cursor: Cursor) {
        let room = &mut self.rooms[(player / self.room_size) as usize];
        room.acknowledged = room.acknowledged.max(cursor);
    }

    /// The player's own message was refused, or what became of it is unknown.
    pub(super) fn not_acknowledged(&mut self, player: u32, number: u64) {
        self.senders[player as usize].not_acknowledged.insert(number);
    }

    /// Whether the player is a member that has not delivered yet what is acknowledged.
    pub(super) fn is_behind(&self, player: u32) -> bool {
        let room = &self.rooms[(player / self.room_size) as usize];
        self.members[player as usize].is_behind(room.acknowledged)
    }

    /// Deliveries wrong or missing so far.
    pub(super) const fn counts(&self) -> Counts {
        self.counts
    }

    /// Looks for losses, once everything is delivered that will be: `settled` if nothing is
    /// under way any more; else the players' patience is over. `reachable` are those who are
    /// connected.
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
                // Behind what the sender has delivered itself, its own message cannot come.
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
