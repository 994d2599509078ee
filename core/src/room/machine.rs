//! The state that the ops of a room make: members, the numbers of their messages, and the turn.
//!
//! [`Machine::apply`] is a function of that state and an op. It reads no clock and uses no
//! randomness: all replicas that apply the same ops have the same state and make the same entries.

use alloc::vec::Vec;

use bytes::Bytes;
use skirmish_proto::v1;

use super::op::{Input, Op};
use super::recently_left::RecentlyLeft;
use super::turn::Turn;
use crate::base::id::{Name, SessionId};
use crate::base::plant::{Plant, Planted};
use crate::base::time::Duration;

/// Session that occupies a member's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// The session.
    pub session: SessionId,
    /// Epoch of the session; a session with a lower epoch cannot write.
    pub epoch: u64,
}

impl Seat {
    /// Seat of a member whose session is known only at the room's primary.
    pub const UNKNOWN: Self = Self { session: SessionId([0; 16]), epoch: 0 };
}

/// A member of a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Number of the member, unique within the epoch.
    pub number: u32,
    /// The player.
    pub player: Name,
    /// Session of the player.
    pub seat: Seat,
    /// Highest `client_seq` of the member in the log.
    pub client_seq: u64,
}

/// Result of applying an op.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The op changed nothing that members see, and makes no entry.
    Silent,
    /// The op makes an entry.
    Entry {
        /// True if the op has ended a turn.
        turned: bool,
    },
    /// A player has become a member, with an entry.
    Joined {
        /// Number of the member.
        number: u32,
    },
    /// A player is no member any more, with an entry.
    Left {
        /// Number of the member that the player was.
        number: u32,
        /// The player.
        player: Name,
    },
}

/// State machine of a room.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Ordered by number, since numbers only grow.
    pub(super) members: Vec<Member>,
    pub(super) next_member: u32,
    pub(super) turn: Turn,
    /// Duration of a turn; zero if turns do not end by themselves.
    turn_time: Duration,
    pub(super) recently_left: RecentlyLeft,
    /// Number and log time of the last op applied.
    pub(super) applied: (u64, u64),
    planted: Planted,
}

/// Rules that are the same for all replicas of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineConfig {
    /// Duration of a turn; zero if turns do not end by themselves.
    pub turn_time: Duration,
    /// Time for which players that left are remembered.
    pub remember: Duration,
    /// Cap on the remembered players that left; beyond the cap, the first that left are forgotten.
    pub remembered: usize,
    /// A bug, for the simulator.
    pub planted: Planted,
}

impl Machine {
    /// Creates the machine of a room without ops.
    #[must_use]
    pub fn new(config: MachineConfig) -> Self {
        Self {
            members: Vec::new(),
            next_member: 1,
            turn: Turn { number: 0, ends_ms: 0 },
            turn_time: config.turn_time,
            recently_left: RecentlyLeft::new(config.remember, config.remembered),
            applied: (0, 0),
            planted: config.planted,
        }
    }

    // Getters.

    /// Returns the members, by number.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Returns the member with a number.
    #[must_use]
    pub fn member(&self, number: u32) -> Option<&Member> {
        self.members.get(self.place_of(number).ok()?)
    }

    /// Returns the turn.
    #[must_use]
    pub const fn turn(&self) -> Turn {
        self.turn
    }

    /// Returns the number of the next player that joins.
    pub(super) const fn next_member(&self) -> u32 {
        self.next_member
    }

    /// Returns the number of the last op applied; 0 before the first.
    #[must_use]
    pub const fn applied(&self) -> u64 {
        self.applied.0
    }

    /// Returns the log time of an op that is appended at this wall clock.
    #[must_use]
    pub fn log_time(&self, wall_ms: u64) -> u64 {
        self.applied.1.max(wall_ms)
    }

    /// Returns the players that left and are remembered.
    #[must_use]
    pub const fn recently_left(&self) -> &RecentlyLeft {
        &self.recently_left
    }

    // Inputs.

    /// Applies the next op, and writes its entry into `entry`, except the room's name and epoch and
    /// the entry's number.
    ///
    /// An op about a member that does not exist, and a message that is in the log already, change
    /// nothing.
    pub fn apply(&mut self, op: Op, entry: &mut v1::Entry) -> Applied {
        let Op { number, at_ms, input, .. } = op;
        self.applied = (number, at_ms);
        entry.at_ms = at_ms;
        (entry.member, entry.client_seq, entry.turn, entry.turn_ends_ms) = (0, 0, 0, 0);
        entry.body = Bytes::new();
        entry.type_url.clear();
        entry.player.clear();
        match input {
            Input::Say { member, client_seq, body, type_url, ends_turn } => {
                let repeats = self.planted.is(Plant::DuplicateApplied);
                let Some(known) = self.member_mut(member) else { return Applied::Silent };
                if client_seq != known.client_seq + 1 && !repeats {
                    return Applied::Silent;
                }
                known.client_seq = client_seq;
                entry.kind = v1::EntryKind::Say.into();
                (entry.member, entry.client_seq) = (member, client_seq);
                (entry.body, entry.type_url) = (body, type_url);
                let turned = ends_turn == Some(self.turn.number);
                if turned {
                    self.begin_turn(entry);
                }
                Applied::Entry { turned }
            }
            Input::Join { player, seat } => {
                let number = self.next_member;
                self.next_member += 1;
                name(entry, v1::EntryKind::Join, number, &player);
                self.members.push(Member { number, player, seat, client_seq: 0 });
                Applied::Joined { number }
            }
            Input::Leave { member } => {
                let Ok(place) = self.place_of(member) else { return Applied::Silent };
                let Member { number, player, seat, .. } = self.members.remove(place);
                name(entry, v1::EntryKind::Leave, number, &player);
                self.recently_left.add(at_ms, player.clone(), seat.epoch);
                Applied::Left { number, player }
            }
            Input::Seat { member, seat } => {
                if let Some(member) = self.member_mut(member) {
                    member.seat = seat;
                }
                Applied::Silent
            }
            Input::EndTurn { turn } if turn != self.turn.number => Applied::Silent,
            Input::EndTurn { .. } => {
                entry.kind = v1::EntryKind::Turn.into();
                self.begin_turn(entry);
                Applied::Entry { turned: true }
            }
        }
    }

    /// Follows an entry that the room's primary has made.
    pub(super) fn follow(&mut self, entry: &v1::Entry) {
        let place = self.place_of(entry.member);
        match (entry.kind(), place) {
            (v1::EntryKind::Say, Ok(place)) => {
                if let Some(member) = self.members.get_mut(place) {
                    member.client_seq = member.client_seq.max(entry.client_seq);
                }
            }
            (v1::EntryKind::Join, Err(place)) => {
                if let Ok(player) = Name::new(&entry.player) {
                    let seat = Seat::UNKNOWN;
                    let member = Member { number: entry.member, player, seat, client_seq: 0 };
                    self.members.insert(place, member);
                }
            }
            (v1::EntryKind::Leave, Ok(place)) => {
                self.members.remove(place);
            }
            _ => {}
        }
        if entry.turn > 0 {
            self.turn = Turn { number: entry.turn, ends_ms: entry.turn_ends_ms };
        }
    }

    /// Restarts from the primary's state, with these members and in this turn. Returns the members
    /// that were removed.
    pub(super) fn follow_from(&mut self, mut members: Vec<Member>, turn: Turn) -> Vec<Member> {
        members.sort_by_key(|member| member.number);
        members.dedup_by_key(|member| member.number);
        self.turn = turn;
        let mut gone = core::mem::replace(&mut self.members, members);
        gone.retain(|member| self.place_of(member.number).is_err());
        gone
    }

    fn place_of(&self, number: u32) -> Result<usize, usize> {
        self.members.binary_search_by_key(&number, |member| member.number)
    }

    fn member_mut(&mut self, number: u32) -> Option<&mut Member> {
        let place = self.place_of(number).ok()?;
        self.members.get_mut(place)
    }

    fn begin_turn(&mut self, entry: &mut v1::Entry) {
        self.turn = self.turn.next(entry.at_ms, self.turn_time);
        (entry.turn, entry.turn_ends_ms) = (self.turn.number, self.turn.ends_ms);
    }
}

/// Returns true if the entry is a join or a leave.
fn name(entry: &mut v1::Entry, kind: v1::EntryKind, number: u32, player: &Name) {
    entry.kind = kind.into();
    entry.member = number;
    entry.player.push_str(player.as_str());
}
