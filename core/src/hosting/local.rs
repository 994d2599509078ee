//! Sessions of this node that are members of a room, or are being admitted.

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
    /// Place in the log to go on from, as the member that the session was.
    pub(crate) resume: Option<Cursor>,
    /// Number of entries before the membership to deliver.
    pub(crate) history: u32,
    /// Time until which a join is tried anew.
    pub(crate) until: Instant,
    /// Number of times that the join was tried anew.
    pub(crate) retries: u32,
    /// Answer of the primary, another node, that has not taken effect yet.
    pub(crate) granted: Option<Granted>,
    /// Highest `client_seq` sent to the primary, another node.
    pub(crate) relayed: u64,
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
            resume,
            history,
            until,
            retries: 0,
            granted: None,
            relayed: 0,
        }
    }

    /// Returns true if the session asks for a membership in any life of the room.
    pub(super) const fn is_new_join(&self) -> bool {
        self.number == 0 && self.resume.is_none()
    }

    /// Returns the entry after which the member reads, if the membership begins after entry
    /// `before`, entry `first` is the oldest in the log, and no entry after `last` may be read.
    pub(super) fn start(&self, before: u64, first: u64, last: u64) -> u64 {
        let start = before.saturating_sub(self.history.into()).max(first - 1);
        self.resume.map_or(start, |cursor| cursor.seq.min(last))
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
