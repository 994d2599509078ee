//! Sessions: what a player has on the server, whether connected or not (rows S1, R2).
//!
//! A session outlives its connections. Each connection that takes it raises its epoch,
//! and only the newest may write (guarantee G7).

use alloc::vec::Vec;

use hashbrown::HashMap;
use sha2::{Digest as _, Sha256};

use crate::base::agenda::Booking;
use crate::base::id::{ConnId, Name, SessionId};
use crate::base::keyed_hasher::KeyedHasher;
use crate::base::rng::Seed;
use crate::base::slab::{Key, Slab};
use crate::base::time::{Duration, Instant};

/// A session's place in the [`Sessions`] table.
pub(crate) type SessionKey = Key;

/// A session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) player: Name,
    /// The revision at which this node claimed it: fences other nodes.
    pub(crate) epoch: u64,
    /// The revision at which it was registered, when its newest connection came: that of the
    /// claim, or a later one if the node's lease was over in between.
    pub(crate) registered: u64,
    /// Counts the connections it had here: the newest fences the others.
    pub(crate) attached: u64,
    /// The number of the newest of them.
    pub(crate) newest: u64,
    /// The connection that may write, if there is one.
    pub(crate) conn: Option<ConnId>,
    /// When it ends, while it has no connection.
    pub(crate) expires: Option<Instant>,
    pub(crate) booking: Booking,
    /// Connections whose upgrade has named the player: each may bring a resume. Those that
    /// have said their `Hello` or are gone go when another comes.
    pub(crate) knocking: Vec<ConnId>,
    /// Whether its end was put off once, since it lost its connection.
    pub(crate) excused: bool,
    /// The replica that it writes rooms' states as.
    pub(crate) replica: u64,
    /// Its rooms, those included that it is on its way into; at most as many as the
    /// configuration allows.
    pub(crate) memberships: Vec<Membership>,
    /// Which membership is served next, so that no room starves another.
    pub(crate) turn: usize,
}

/// Connections of a session on one node that its `Welcome`s tell apart.
const ATTACHES: u64 = 1 << 12;

impl Session {
    /// It has another connection, of this number, now that it is registered with this
    /// revision, if it is.
    pub(crate) fn attach(&mut self, connection: u64, registered: Option<u64>) {
        self.newest = connection;
        self.attached = (self.attached + 1).min(ATTACHES - 1);
        self.registered = self.registered.max(self.epoch).max(registered.unwrap_or(0));
    }

    /// The epoch that the newest connection is told.
    pub(crate) const fn welcomed(&self) -> u64 {
        told(self.epoch).saturating_add(self.attached)
    }
}

/// The replica that a session writes rooms' states as, at whichever node: so counters have no
/// new share with every move. Others see it, and it tells nothing of the session's identifier.
pub(crate) fn replica_of(session: SessionId) -> u64 {
    let digest =
        Sha256::new().chain_update(b"skirmish.v1 replica").chain_update(session.as_bytes()).finalize();
    digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// How a client is told of the revision at which its session was registered: so that it is
/// above all that a `Welcome` of an earlier revision says, and below those of this one.
pub(crate) const fn told(revision: u64) -> u64 {
    revision.saturating_mul(ATTACHES)
}

/// The revision that a client was told of.
pub(crate) const fn revision(told: u64) -> u64 {
    told / ATTACHES
}

/// A session's membership of a room: all cursors, no queue. What the member is sent is
/// computed from these when its connection takes more.
#[derive(Debug)]
pub(crate) struct Membership {
    pub(crate) room: Key,
    /// 0 while it is on its way in.
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
    /// A membership that is on its way.
    pub(crate) const fn new(room: Key) -> Self {
        Self {
            room,
            number: 0,
            start: 0,
            seq: 0,
            latest: 0,
            change: 0,
            forgotten: 0,
            joined: None,
            welcome_snapshot: false,
            acknowledge: false,
            throttle: None,
            throttled: None,
            latest_throttle: None,
            latest_throttled: Instant::ZERO,
        }
    }

    /// A reliable message was not taken: those from `expected` on are taken again after a
    /// while. Messages that were under way behind it each find that out; it is said once.
    pub(crate) fn hold(&mut self, client_seq: u64, expected: u64, retry_after_ms: u32) {
        if client_seq == expected || self.throttled != Some(expected) {
            self.throttled = Some(expected);
            self.throttle = Some(Throttle { expected, retry_after_ms });
        }
    }

    /// A latest message was dropped. Whether that is to be told, with the time to wait in
    /// milliseconds: once in each `interval`.
    pub(crate) fn drop_latest(&mut self, now: Instant, retry_after_ms: u32, interval: Duration) -> bool {
        let told = now >= self.latest_throttled;
        if told {
            self.latest_throttled = now + interval;
            self.latest_throttle = Some(retry_after_ms);
        }
        told
    }

    /// Has the client send again, at once, messages that were taken and are lost.
    pub(crate) const fn resend(&mut self, expected: u64) {
        self.throttled = Some(expected);
        self.throttle = Some(Throttle { expected, retry_after_ms: 0 });
    }

    /// Begins to read: the log from where the room says, and the state from its beginning.
    pub(crate) const fn begin(&mut self, number: u32, seq: u64, resumed: bool, forgotten: u64) {
        self.number = number;
        (self.start, self.seq) = (seq, seq);
        (self.latest, self.change, self.forgotten) = (0, 0, forgotten);
        self.joined = Some(Joined { resumed });
        self.welcome_snapshot = true;
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

    pub(crate) fn keys(&self) -> impl Iterator<Item = SessionKey> + '_ {
        self.slab.keys()
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
