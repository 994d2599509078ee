//! The sessions of a node: a player's presence on the server, with a connection or without (rows S1,
//! R2).
//!
//! A session outlives its connections, and only the newest may write (guarantee G7). A client numbers
//! its connections, so the newest is known whichever `Hello` arrives first.

mod membership;
mod session;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;

use bytes::Bytes;
use hashbrown::HashMap;

use crate::base::agenda::Agenda;
use crate::base::bug::Bugs;
use crate::base::id::{ConnId, DialNumber, Name, SessionId};
use crate::base::keyed_hasher::KeyedHasher;
use crate::base::plant::{Plant, Planted};
use crate::base::rng::Seed;
use crate::base::slab::{Key, Slab};
use crate::base::time::{Duration, Instant, LATE};
use crate::config::Config;
use crate::node::logins::Logins;
use crate::room::Room;

use membership::Owed;

pub(super) use membership::Membership;
pub(super) use session::{Attachment, Newcomer, Session};

/// The sessions of a node, by key and by player. Names of players come from strangers, so their hash
/// is keyed from the node's seed.
#[derive(Debug)]
pub(super) struct Sessions {
    slab: Slab<Session>,
    by_player: HashMap<Name, Key, KeyedHasher>,
    logins: Logins<Name>,
    agenda: Agenda<Key>,
    stats: SessionStats,
}

/// Gauge of sessions without a connection, and counters since the node's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SessionStats {
    pub(super) detached: usize,
    pub(super) logins_limited: u64,
    pub(super) takeovers: u64,
    pub(super) resumes: u64,
    pub(super) expiries: u64,
    pub(super) deliveries: u64,
    pub(super) snapshots: u64,
}

/// The session of a player that says `Hello`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// The named session is here, and continues without a request to the registry.
    Here(Key),
    /// The named session is here, but was on another node in the meantime.
    Outdated(Key),
    /// The node has to ask the registry.
    No,
}

/// A session that has ended on this node.
#[derive(Debug)]
pub(super) struct EndedSession {
    pub(super) player: Name,
    pub(super) conn: Option<ConnId>,
}

/// Connections that may bring the player of a session back.
#[derive(Clone, Copy)]
pub(super) struct Door<'a> {
    /// Returns true if a connection's player is known and the `Hello` is awaited.
    pub(super) is_greeting: &'a dyn Fn(ConnId) -> bool,
    /// True if there are connections of unknown players.
    pub(super) has_strangers: bool,
}

impl Sessions {
    /// Creates an empty table.
    pub(super) fn new(config: &Config, seed: Seed) -> Self {
        Self {
            slab: Slab::new(config.sessions.total),
            by_player: HashMap::with_hasher(KeyedHasher::new(seed)),
            logins: Logins::new(config.rates.logins, config.sessions.total),
            agenda: Agenda::new(),
            stats: SessionStats::default(),
        }
    }

    // Getters.

    pub(super) const fn len(&self) -> usize {
        self.slab.len()
    }

    pub(super) const fn stats(&self) -> SessionStats {
        self.stats
    }

    pub(super) fn get(&self, session: Key) -> Option<&Session> {
        self.slab.get(session)
    }

    pub(super) fn keys(&self) -> Vec<Key> {
        self.slab.keys().collect()
    }

    pub(super) fn of_player(&self, player: &Name) -> Option<Key> {
        self.by_player.get(player).copied()
    }

    /// Returns the connection of a session, if the session is here and has one.
    pub(super) fn conn(&self, session: Key) -> Option<ConnId> {
        self.slab.get(session)?.conn()
    }

    /// Returns the connection of a player's session, if there is one.
    pub(super) fn conn_of(&self, player: &Name) -> Option<ConnId> {
        self.conn(self.of_player(player)?)
    }

    /// Returns the time of the next deadline, with the session.
    pub(super) fn next_timer(&self) -> Option<(Instant, Key)> {
        self.agenda.next()
    }

    // The way from `Hello` to `Welcome`.

    /// Counts a log-in of a player.
    ///
    /// # Errors
    /// If the player logs in too often: the time to wait.
    pub(super) fn take_login(&mut self, now: Instant, player: &Name) -> Result<(), Duration> {
        let taken = self.logins.take(now, player);
        self.stats.logins_limited += u64::from(taken.is_err());
        taken
    }

    /// Notes a connection after its upgrade has named the player.
    pub(super) fn knock(&mut self, player: &Name, conn: ConnId, is_greeting: impl Fn(ConnId) -> bool) {
        let session = self.of_player(player);
        if let Some(session) = session.and_then(|session| self.slab.get_mut(session)) {
            session.knocking.retain(|conn| is_greeting(*conn));
            session.knocking.push(conn);
        }
    }

    /// Returns true if the player's session has had a newer connection of the same client.
    pub(super) fn had_newer(&self, player: &Name, dial: DialNumber) -> bool {
        let session = self.of_player(player).and_then(|session| self.get(session));
        session.is_some_and(|session| dial.is_behind(session.dial()))
    }

    /// Finds the session that a `Hello` names, for a client that knows epoch `newest`. `registered`
    /// is the epoch with which the node has registered the player's session, if it has.
    pub(super) fn find(
        &self,
        player: &Name,
        named: Option<SessionId>,
        newest: u64,
        registered: Option<u64>,
    ) -> Known {
        let Some(key) = self.of_player(player) else { return Known::No };
        let Some(session) = self.get(key).filter(|session| Some(session.id()) == named) else {
            return Known::No;
        };
        // Only this node tells of the epoch with which it has registered the session anew; an epoch in
        // between may be that of a node that had the session before.
        if newest <= session.epoch() || Some(newest) == registered {
            Known::Here(key)
        } else {
            Known::Outdated(key)
        }
    }

    /// Adds a session without a connection, claimed with an epoch. `None` if the table is full. The
    /// player must not have a session here.
    pub(super) fn insert(&mut self, id: SessionId, player: &Name, epoch: u64) -> Option<Key> {
        let key = self.slab.insert(Session::new(id, player.clone(), epoch))?;
        self.by_player.insert(player.clone(), key);
        self.stats.detached += 1;
        Some(key)
    }

    /// Registers a claim of a session with a higher epoch. Returns the rooms that must hear of the
    /// claim.
    pub(super) fn raise(&mut self, bugs: &mut Bugs, session: Key, epoch: u64) -> Vec<Key> {
        let Some(session) = self.slab.get_mut(session) else {
            bugs.found("the epoch rises of a session that is gone");
            return Vec::new();
        };
        session.raise(epoch);
        session.rooms()
    }

    /// Gives a session to a connection, as [`Session::attach`].
    pub(super) fn attach(
        &mut self,
        bugs: &mut Bugs,
        session: Key,
        newcomer: Newcomer,
        registered: Option<u64>,
        resumed: bool,
    ) -> Option<Attachment> {
        let Some(session) = self.slab.get_mut(session) else {
            bugs.found("a session that is gone is given to a connection");
            return None;
        };
        let attachment = session.attach(newcomer, registered, resumed)?;
        self.stats.detached -= usize::from(attachment.old.is_none());
        self.stats.takeovers += u64::from(attachment.old.is_some());
        self.stats.resumes += u64::from(!attachment.is_new);
        Some(attachment)
    }

    /// Counts a connection that was closed because a newer one of its player took the session over.
    pub(super) const fn count_takeover(&mut self) {
        self.stats.takeovers += 1;
    }

    // Without a connection.

    /// Takes a session from a closed connection. Returns the player; `None` if the session has a
    /// newer connection, or has ended.
    pub(super) fn detach(
        &mut self,
        bugs: &mut Bugs,
        session: Key,
        conn: ConnId,
        expires: Instant,
    ) -> Option<Name> {
        let detached = self.slab.get_mut(session)?;
        if !detached.detach(conn) {
            return None;
        }
        let player = detached.player().clone();
        self.stats.detached += 1;
        self.start_expiry(bugs, session, expires);
        Some(player)
    }

    /// Ends a session at a time, unless a connection takes it before.
    pub(super) fn start_expiry(&mut self, bugs: &mut Bugs, key: Key, expires: Instant) {
        let Some(session) = self.slab.get_mut(key) else {
            return bugs.found("a session that is gone is to expire");
        };
        session.expires = Some(expires);
        session.excused = false;
        self.agenda.book(key, &mut session.booking, expires);
    }

    /// Takes out the next session with a passed deadline.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Key> {
        self.agenda.take_due(now)
    }

    /// Judges a session at its deadline. Returns true if the session must end. The end is postponed
    /// by one handshake timeout while a connection may bring the player.
    pub(super) fn is_over(
        &mut self,
        bugs: &mut Bugs,
        now: Instant,
        config: &Config,
        planted: Planted,
        key: Key,
        door: Door<'_>,
    ) -> bool {
        let Some(session) = self.slab.get_mut(key) else {
            bugs.found("a session that is not in the table is due");
            return false;
        };
        session.booking.clear();
        let Some(at) = session.expires else { return false };
        let later = if at > now {
            Some(at)
        } else {
            // A connection sends its `Hello` in bounded time. The player may also be on a
            // connection without a name yet, or could not arrive while the node stood still. Either
            // reason excuses once; both together excuse each time.
            let at_the_door = session.knocking.iter().any(|conn| (door.is_greeting)(*conn));
            let (late, strangers) = (now.since(at) > LATE, door.has_strangers);
            let excused = (late || strangers) && !core::mem::replace(&mut session.excused, true);
            let may_come = (excused || (late && strangers)) && !planted.is(Plant::TimeoutsFirst);
            (at_the_door || may_come).then(|| now + config.connections.handshake_timeout)
        };
        match later {
            Some(later) => {
                session.expires = Some(later);
                self.agenda.book(key, &mut session.booking, later);
            }
            None => self.stats.expiries += 1,
        }
        later.is_none()
    }

    /// Forgets a session. Its memberships must be [taken](Self::take_memberships) before.
    pub(super) fn remove(&mut self, session: Key) -> Option<EndedSession> {
        let mut ended = self.slab.remove(session)?;
        self.by_player.remove(ended.player());
        self.agenda.cancel(session, &mut ended.booking);
        self.stats.detached -= usize::from(ended.conn().is_none());
        Some(EndedSession { player: ended.player().clone(), conn: ended.conn() })
    }

    // Memberships.

    /// Begins a membership in a room. Returns false if the session has reached its cap on rooms.
    pub(super) fn begin_membership(&mut self, session: Key, room: Key, request: u64, most: usize) -> bool {
        let Some(session) = self.slab.get_mut(session) else { return false };
        let fits = session.memberships.len() < most;
        if fits {
            // Most sessions are in one room: no place is kept for more.
            session.memberships.reserve_exact(1);
            session.memberships.push(Membership::new(room, request));
        }
        fits
    }

    /// Ends a membership in a room.
    pub(super) fn end_membership(&mut self, session: Key, room: Key) -> Option<Membership> {
        // The whole session may have ended.
        let memberships = &mut self.slab.get_mut(session)?.memberships;
        let at = memberships.iter().position(|membership| membership.room == room)?;
        Some(memberships.remove(at))
    }

    /// Ends a membership that a room has taken for one on another node.
    pub(super) fn drop_membership(&mut self, session: Key, room: Key) {
        if self.end_membership(session, room).is_some()
            && let Some(session) = self.slab.get_mut(session)
        {
            session.dropped = true;
        }
    }

    /// Takes out all memberships of a session.
    pub(super) fn take_memberships(&mut self, session: Key) -> Vec<Membership> {
        let memberships = self.slab.get_mut(session).map(|session| &mut session.memberships);
        memberships.map(core::mem::take).unwrap_or_default()
    }

    /// Puts memberships back that were taken out.
    pub(super) fn keep_memberships(&mut self, session: Key, memberships: Vec<Membership>) {
        if let Some(session) = self.slab.get_mut(session) {
            session.memberships = memberships;
        }
    }

    /// Returns the membership of a session in a room; `None` if it has ended.
    pub(super) fn membership(&mut self, session: Key, room: Key) -> Option<&mut Membership> {
        self.slab.get_mut(session)?.memberships.iter_mut().find(|membership| membership.room == room)
    }

    /// The first membership of a session in a room that a test chooses.
    pub(super) fn membership_if(
        &mut self,
        session: Key,
        is_room: impl Fn(Key) -> bool,
    ) -> Option<&mut Membership> {
        self.slab.get_mut(session)?.memberships.iter_mut().find(|membership| is_room(membership.room))
    }

    /// Returns the next frame for a session. `room` looks rooms up.
    pub(super) fn next_frame<'a>(
        &mut self,
        session: Key,
        room: impl Fn(Key) -> Option<&'a Room>,
        accept_zstd: bool,
        planted: Planted,
    ) -> Option<Bytes> {
        let session = self.slab.get_mut(session)?;
        let count = session.memberships.len();
        for turn in 0..count {
            let at = (session.served + turn) % count;
            let Some(membership) = session.memberships.get_mut(at) else { continue };
            let Some(room) = room(membership.room) else { continue };
            let Some(owed) = membership.next(room, accept_zstd, planted) else { continue };
            session.served = (at + 1) % count;
            return Some(match owed {
                Owed::Entry(frame) => {
                    self.stats.deliveries += 1;
                    frame
                }
                Owed::Snapshot(frame) => {
                    self.stats.snapshots += 1;
                    frame
                }
                Owed::Other(frame) => frame,
            });
        }
        None
    }

    /// Checks the bounds of the table.
    pub(super) fn audit(&self, config: &Config) -> Result<(), &'static str> {
        let check = |holds: bool, bound| if holds { Ok(()) } else { Err(bound) };
        check(self.slab.len() <= config.sessions.total, "sessions")?;
        check(self.by_player.len() == self.slab.len(), "players of sessions")?;
        check(self.logins.len() <= config.sessions.total, "players whose log-ins are counted")?;
        check(self.agenda.len() <= self.slab.len(), "deadlines of sessions")?;
        for session in self.slab.keys().filter_map(|key| self.get(key)) {
            check(session.memberships().len() <= config.sessions.rooms, "rooms of a session")?;
        }
        Ok(())
    }
}
