//! A room as the client sees it: whether it is in, how far it has got, and what waits.

use alloc::collections::BTreeMap;
use alloc::string::String;

use bytes::Bytes;
use skirmish_proto::v1;

use super::event::{Event, Outcome, Outputs};
use super::outbox::Outbox;
use super::replicated::Replicated;
use crate::base::id::Cursor;
use crate::base::time::Instant;

/// Latest messages whose version is remembered: more than a room of the usual size has
/// members times keys.
const MAX_VERSIONS: usize = 4_096;

/// How far the client is with being in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RoomPhase {
    /// To be joined, not before the time, if there is one.
    Wanted { not_before: Option<Instant> },
    /// `Join` was sent on this connection.
    Joining,
    /// A member in this session; `live` once the server has said so on this connection.
    Member { live: bool },
    /// To be left. `sent`: `Leave` was sent on this connection; `live`: the server had
    /// said on this connection that the client is a member; `again`: to be joined after.
    Leaving { sent: bool, live: bool, again: bool },
}

/// A room that the client is in, wants to be in, or is leaving.
#[derive(Debug)]
pub(super) struct ClientRoom {
    pub(super) phase: RoomPhase,
    /// How many entries from before the join to ask for.
    pub(super) history: u32,
    /// The server may believe that this session is a member, because a `Join` was sent in it.
    pub(super) asked: bool,
    /// Asked for in the `Hello` of this connection, which has no answer yet.
    pub(super) greeted: bool,
    /// Named in the `Resume` of this connection and not answered yet.
    pub(super) awaited: bool,
    /// Named in a `Resume` that found the session lost: a `Left` may follow that is about
    /// the membership of then.
    pub(super) stale: bool,
    /// The client's number in the room.
    pub(super) member: u32,
    /// The last entry delivered.
    pub(super) cursor: Option<Cursor>,
    /// A member anew, and nothing delivered yet: the snapshot may set the cursor anywhere.
    pub(super) fresh: bool,
    /// Since when the room's state may have changed without the client hearing of it.
    pub(super) away_since: Option<Instant>,
    pub(super) outbox: Outbox,
    /// Latest messages to be sent, by key.
    pub(super) latest: BTreeMap<u32, (Bytes, String)>,
    pub(super) versions: Versions,
    pub(super) replicated: Replicated,
    /// Which kind of message is tried first when the room may send again.
    pub(super) lane: usize,
}

impl ClientRoom {
    pub(super) fn new(history: u32) -> Self {
        Self {
            phase: RoomPhase::Wanted { not_before: None },
            history,
            asked: false,
            greeted: false,
            awaited: false,
            stale: false,
            member: 0,
            cursor: None,
            fresh: false,
            away_since: None,
            outbox: Outbox::default(),
            latest: BTreeMap::new(),
            versions: Versions::default(),
            replicated: Replicated::default(),
            lane: 0,
        }
    }

    /// Whether the application is in the room as far as it knows, or will be.
    pub(super) fn is_wanted(&self) -> bool {
        !matches!(self.phase, RoomPhase::Leaving { again: false, .. })
    }

    /// Whether the server has said on this connection that the client is a member, and
    /// so entries of the room are to be expected.
    pub(super) fn is_live(&self) -> bool {
        matches!(self.phase, RoomPhase::Member { live: true } | RoomPhase::Leaving { live: true, .. })
    }

    /// Whether messages to the room may be sent now.
    pub(super) fn is_open(&self) -> bool {
        self.phase == RoomPhase::Member { live: true }
    }

    /// When the room may be joined, if that is not yet.
    pub(super) fn not_before(&self) -> Option<Instant> {
        match self.phase {
            RoomPhase::Wanted { not_before } => not_before,
            RoomPhase::Joining | RoomPhase::Member { .. } | RoomPhase::Leaving { .. } => None,
        }
    }

    pub(super) fn may_be_joined(&self, now: Instant) -> bool {
        matches!(self.phase, RoomPhase::Wanted { not_before } if not_before.is_none_or(|at| at <= now))
    }

    /// What asks the server for it.
    pub(super) fn join(&mut self, name: &str) -> v1::Join {
        self.phase = RoomPhase::Joining;
        self.asked = true;
        v1::Join { room: String::from(name), history: self.history }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.cursor.map_or(0, |cursor| cursor.epoch)
    }

    /// The connection is lost; the session may live on.
    pub(super) fn disconnected(&mut self, now: Instant) {
        if self.is_live() {
            self.away_since = Some(now);
        }
        self.greeted = false;
        self.awaited = false;
        self.stale = false;
        self.phase = match self.phase {
            RoomPhase::Wanted { .. } | RoomPhase::Joining => RoomPhase::Wanted { not_before: None },
            RoomPhase::Member { .. } => RoomPhase::Member { live: false },
            RoomPhase::Leaving { again, .. } => RoomPhase::Leaving { sent: false, live: false, again },
        };
        self.outbox.resend(false);
        self.replicated.disconnected();
    }

    /// The membership is gone and the room is wanted none the less: what was sent has an
    /// unknown outcome, what was not waits for the next membership.
    pub(super) fn rejoin(
        &mut self,
        now: Instant,
        name: &str,
        not_before: Option<Instant>,
        outputs: &mut Outputs,
    ) {
        self.away_since.get_or_insert(now);
        outputs.outcomes(name, self.outbox.settle_sent(), Outcome::Unknown);
        self.outbox.retry_at = None;
        self.replicated.disconnected();
        self.awaited = false;
        // What was delivered must not be delivered again, should it be the same log.
        if self.cursor.is_some() {
            self.history = 0;
        }
        self.phase = RoomPhase::Wanted { not_before };
    }

    /// Every message gets its outcome.
    pub(super) fn settle(&mut self, name: &str, outputs: &mut Outputs) {
        outputs.outcomes(name, self.outbox.settle_sent(), Outcome::Unknown);
        outputs.outcomes(name, self.outbox.settle_unsent(), Outcome::Refused);
        self.latest.clear();
    }

    /// The room is to be forgotten.
    pub(super) fn close(&mut self, name: &str, reason: v1::LeftReason, outputs: &mut Outputs) {
        self.settle(name, outputs);
        outputs.event(Event::Left { room: String::from(name), reason });
    }

    /// The room was left, as asked; if it is to be joined `again`, as a new one, with what
    /// was said since.
    pub(super) fn end(&mut self, name: &str, again: bool, outputs: &mut Outputs) {
        outputs.outcomes(name, self.outbox.settle_sent(), Outcome::Unknown);
        outputs.event(Event::Left { room: String::from(name), reason: v1::LeftReason::Asked });
        if !again {
            return;
        }
        *self = Self {
            outbox: core::mem::take(&mut self.outbox),
            latest: core::mem::take(&mut self.latest),
            replicated: core::mem::take(&mut self.replicated),
            away_since: self.away_since,
            ..Self::new(self.history)
        };
    }
}

/// The newest version delivered, by member and key.
#[derive(Debug, Default)]
pub(super) struct Versions {
    newest: BTreeMap<(u32, u32), u64>,
    /// Versions up to this one were forgotten: nothing that is not newer counts as new.
    forgotten: u64,
}

impl Versions {
    pub(super) fn clear(&mut self) {
        self.newest.clear();
        self.forgotten = 0;
    }

    /// Whether the version is newer than every one before of this member and key.
    pub(super) fn grows(&mut self, member: u32, key: u32, version: u64) -> bool {
        if let Some(newest) = self.newest.get_mut(&(member, key)) {
            let newer = version > *newest;
            *newest = version.max(*newest);
            return newer;
        }
        if version <= self.forgotten {
            return false;
        }
        if self.newest.len() >= MAX_VERSIONS {
            let oldest = self.newest.iter().min_by_key(|(_, version)| **version).map(|(k, v)| (*k, *v));
            if let Some((key, version)) = oldest {
                self.newest.remove(&key);
                self.forgotten = self.forgotten.max(version);
            }
            if version <= self.forgotten {
                return false;
            }
        }
        self.newest.insert((member, key), version);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_count_by_member_and_key() {
        let mut versions = Versions::default();
        assert!(versions.grows(1, 0, 5));
        assert!(!versions.grows(1, 0, 5));
        assert!(!versions.grows(1, 0, 4));
        assert!(versions.grows(1, 1, 3));
        assert!(versions.grows(2, 0, 1));
        assert!(versions.grows(1, 0, 6));
    }

    #[test]
    fn forgotten_versions_are_never_delivered_again() {
        let mut versions = Versions::default();
        for version in 1..=10_000 {
            assert!(versions.grows(u32::try_from(version).unwrap(), 0, version));
        }
        assert_eq!(versions.newest.len(), MAX_VERSIONS);
        for version in 1..=10_000 {
            assert!(!versions.grows(u32::try_from(version).unwrap(), 0, version));
        }
    }
}
