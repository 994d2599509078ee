//! Sessions: what a player has on the server, whether connected or not (rows S1, R2).
//!
//! A session outlives its connections. Each connection that takes it raises its epoch,
//! and only the newest may write (guarantee G7).

use alloc::vec::Vec;
use core::hash::BuildHasher;

use hashbrown::HashMap;
use siphasher::sip::SipHasher13;

use crate::agenda::Booking;
use crate::id::{ConnId, Name, SessionId};
use crate::rng::Seed;
use crate::slab::{Key, Slab};
use crate::time::Instant;

/// A session's place in the [`Sessions`] table.
pub(crate) type SessionKey = Key;

/// A session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) player: Name,
    /// Counts its connections.
    pub(crate) epoch: u64,
    /// The connection that may write, if there is one.
    pub(crate) conn: Option<ConnId>,
    /// When it ends, while it has no connection.
    pub(crate) expires: Option<Instant>,
    pub(crate) booking: Booking,
    /// The replica that it writes rooms' states as.
    pub(crate) replica: u64,
    /// Its rooms; at most as many as the configuration allows.
    pub(crate) memberships: Vec<Membership>,
    /// Which membership is served next, so that no room starves another.
    pub(crate) turn: usize,
}

/// A session's membership of a room: all cursors, no queue. What the member is sent is
/// computed from these when its connection takes more.
#[derive(Debug)]
pub(crate) struct Membership {
    pub(crate) room: Key,
    pub(crate) number: u32,
    /// Where it started to read, before the first entry that it was owed.
    pub(crate) start: u64,
    /// Entries up to this one were handed to the connection.
    pub(crate) seq: u64,
    /// Latest messages up to this version were.
    pub(crate) latest: u64,
    /// Changes of the room's state up to this one were.
    pub(crate) change: u64,
    /// The removals that the room's state had forgotten when the member last had reason to
    /// walk the tree.
    pub(crate) forgotten: u64,
    /// The `Joined` to send.
    pub(crate) joined: Option<Joined>,
    /// The `Snapshot` to send though no entry is missing: the member is new.
    pub(crate) welcome_snapshot: bool,
    /// An `Ack` to send.
    pub(crate) acknowledge: bool,
    /// The `Throttle` of reliable messages to send.
    pub(crate) throttle: Option<Throttle>,
    /// The number that the last `Throttle` of reliable messages named.
    pub(crate) throttled: Option<u64>,
    /// The `Throttle` of latest messages to send: milliseconds to wait.
    pub(crate) latest_throttle: Option<u32>,
    /// Until when dropped latest messages need not be told again.
    pub(crate) latest_throttled: Instant,
}

/// How a membership came about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Joined {
    pub(crate) resumed: bool,
}

/// A `Throttle` that is owed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Throttle {
    pub(crate) expected: u64,
    pub(crate) retry_after_ms: u32,
}

impl Membership {
    /// A new membership, which reads the log after `seq`, and the state from its beginning.
    pub(crate) const fn new(room: Key, number: u32, seq: u64, forgotten: u64) -> Self {
        Self {
            room,
            number,
            start: seq,
            seq,
            latest: 0,
            change: 0,
            forgotten,
            joined: Some(Joined { resumed: false }),
            welcome_snapshot: true,
            acknowledge: false,
            throttle: None,
            throttled: None,
            latest_throttle: None,
            latest_throttled: Instant::ZERO,
        }
    }
}

/// The sessions of a node, by player. Player names come from strangers, so their hash
/// is keyed from the node's seed.
#[derive(Debug)]
pub(crate) struct Sessions {
    slab: Slab<Session>,
    by_player: HashMap<Name, SessionKey, KeyedHasher>,
}

impl Sessions {
    pub(crate) fn new(seed: Seed, cap: usize) -> Self {
        Self { slab: Slab::new(cap), by_player: HashMap::with_hasher(KeyedHasher::new(seed)) }
    }

    pub(crate) const fn len(&self) -> usize {
        self.slab.len()
    }

    pub(crate) fn get(&self, key: SessionKey) -> Option<&Session> {
        self.slab.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: SessionKey) -> Option<&mut Session> {
        self.slab.get_mut(key)
    }

    pub(crate) fn of_player(&self, player: &Name) -> Option<SessionKey> {
        self.by_player.get(player).copied()
    }

    /// Adds a session; `None` if the table is full. The player must not have one.
    pub(crate) fn insert(&mut self, session: Session) -> Option<SessionKey> {
        let player = session.player.clone();
        let key = self.slab.insert(session)?;
        self.by_player.insert(player, key);
        Some(key)
    }

    pub(crate) fn remove(&mut self, key: SessionKey) -> Option<Session> {
        let session = self.slab.remove(key)?;
        self.by_player.remove(&session.player);
        Some(session)
    }
}

/// A hasher keyed from the node's seed: strangers cannot choose names that collide.
#[derive(Clone, Debug)]
pub(crate) struct KeyedHasher([u8; 16]);

impl KeyedHasher {
    pub(crate) fn new(seed: Seed) -> Self {
        let mut key = [0; 16];
        key.copy_from_slice(&seed[..16]);
        Self(key)
    }
}

impl BuildHasher for KeyedHasher {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_key(&self.0)
    }
}
