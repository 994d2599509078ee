//! Sessions of this node that are members of a room, or are being admitted.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::base::id::{Cursor, Name, SessionId};
use crate::base::slab::Key;
use crate::base::time::Instant;
use crate::hosting::Arrival;

/// A session of this node.
#[derive(Clone, Debug)]
pub(crate) struct LocalSession {
    pub(crate) session: Key,
    pub(crate) id: SessionId,
    pub(crate) epoch: u64,
    pub(crate) player: Name,
    /// Number of the member; 0 while the session is being admitted.
    pub(crate) number: u32,
    /// True if the session waits for the room's primary to let it in, or to let it go on.
    pub(crate) waits: bool,
    /// Number of the entry into the room: an answer with another number is late.
    pub(crate) attempt: u64,
    /// The way of the session into the room, until the session is a member. Boxed, since most
    /// sessions of most rooms are members.
    admission: Option<Box<WayInto>>,
    /// Answer of the primary, another node, that has not taken effect yet.
    pub(crate) granted: Option<Granted>,
    /// Highest `client_seq` sent to the primary, another node.
    pub(crate) relayed: u64,
    /// True if a message was refused until the primary is there: the client is told when it is.
    pub(crate) held: bool,
}

/// The way of a session into a room.
#[derive(Clone, Copy, Debug)]
pub(super) struct WayInto {
    /// Place in the log to go on from, as the member that the session was.
    pub(super) resume: Option<Cursor>,
    /// Number of entries before the membership to deliver.
    history: u32,
    /// Time until which a join is tried anew.
    until: Instant,
    /// Number of times that the join was tried anew.
    pub(super) retries: u32,
}

/// Answer of a primary to a session that enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Granted {
    pub(crate) number: u32,
    pub(crate) resumed: bool,
    /// Entry with which the answer takes effect.
    pub(crate) at: u64,
}

impl LocalSession {
    /// Creates a session that is being admitted.
    pub(super) fn new(arrival: Arrival, attempt: u64) -> Self {
        let Arrival { session, id, epoch, player, resume, history, until } = arrival;
        Self {
            session,
            id,
            epoch,
            player,
            number: 0,
            waits: true,
            attempt,
            admission: Some(Box::new(WayInto { resume, history, until, retries: 0 })),
            granted: None,
            relayed: 0,
            held: false,
        }
    }

    /// Returns the place in the log to go on from, if the session is being admitted as the member
    /// that it was.
    pub(super) fn resume(&self) -> Option<Cursor> {
        self.admission.as_ref()?.resume
    }

    /// Returns the way into the room, while the session is being admitted.
    pub(super) fn admission(&mut self) -> Option<&mut WayInto> {
        self.admission.as_deref_mut()
    }

    /// Returns true if the session asks for a membership in any life of the room, and still may.
    pub(super) fn may_join_again(&self, now: Instant) -> bool {
        self.admission.as_ref().is_some_and(|admission| admission.resume.is_none() && admission.until > now)
    }

    /// Returns true if the session is being admitted, and may still be refused and ask again.
    pub(super) fn may_ask_again(&self, now: Instant) -> bool {
        self.admission.as_ref().is_some_and(|admission| admission.until > now)
    }

    /// Makes the session a member of this number. Returns the entry after which the member reads, if
    /// the membership begins after entry `before`, entry `first` is the oldest in the log, and no
    /// entry after `last` may be read.
    pub(super) fn seat(&mut self, number: u32, before: u64, first: u64, last: u64) -> u64 {
        self.number = number;
        let admission = self.admission.take();
        let history = admission.as_ref().map_or(0, |admission| admission.history);
        let start = before.saturating_sub(history.into()).max(first - 1);
        admission.and_then(|admission| admission.resume).map_or(start, |cursor| cursor.seq.min(last))
    }
}

/// The sessions of this node in a room, in the order of their arrival.
#[derive(Clone, Debug, Default)]
pub(crate) struct LocalSessions(Vec<LocalSession>);

impl LocalSessions {
    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> core::slice::Iter<'_, LocalSession> {
        self.0.iter()
    }

    pub(super) fn iter_mut(&mut self) -> core::slice::IterMut<'_, LocalSession> {
        self.0.iter_mut()
    }

    pub(super) fn get(&self, session: Key) -> Option<&LocalSession> {
        self.0.iter().find(|local| local.session == session)
    }

    pub(super) fn get_mut(&mut self, session: Key) -> Option<&mut LocalSession> {
        self.0.iter_mut().find(|local| local.session == session)
    }

    /// Returns the session of a member.
    pub(super) fn of_member(&mut self, number: u32) -> Option<&mut LocalSession> {
        self.0.iter_mut().find(|local| local.number == number && number > 0)
    }

    /// Returns the waiting sessions.
    pub(super) fn waiting(&self) -> Vec<Key> {
        self.0.iter().filter(|local| local.waits).map(|local| local.session).collect()
    }

    pub(super) fn push(&mut self, local: LocalSession) {
        if self.0.len() == self.0.capacity() {
            // Rooms are many and small: a doubled capacity would mostly stay unused.
            self.0.reserve_exact(self.0.len() / 4 + 1);
        }
        self.0.push(local);
    }

    pub(super) fn remove(&mut self, session: Key) -> Option<LocalSession> {
        let at = self.0.iter().position(|local| local.session == session)?;
        Some(self.0.remove(at))
    }

    /// Takes out the sessions that a test chooses.
    pub(super) fn take(&mut self, chosen: impl Fn(&LocalSession) -> bool) -> Self {
        let (taken, kept) = core::mem::take(&mut self.0).into_iter().partition(chosen);
        self.0 = kept;
        Self(taken)
    }
}

impl IntoIterator for LocalSessions {
    type Item = LocalSession;
    type IntoIter = alloc::vec::IntoIter<LocalSession>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
