//! A room at the client: the phase of the membership, the cursor, and the messages that wait.

use alloc::collections::BTreeMap;
use alloc::string::String;

use bytes::Bytes;
use skirmish_proto::v1;

use super::event::{Event, Outcome, Outputs};
use super::outbox::Outbox;
use super::replicated::Replicated;
use crate::base::id::Cursor;
use crate::base::time::Instant;

/// Maximum number of latest messages whose version is remembered; more than members times keys of a
/// room of the default size. At the bound, the smallest version is forgotten; see [`Versions`].
const MAX_VERSIONS: usize = 4_096;

/// Phase of the client's membership in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RoomPhase {
    /// The room waits to be joined, not before the time, if there is one.
    Wanted { not_before: Option<Instant> },
    /// `Join` was sent on this connection.
    Joining,
    /// The client is a member in this session. `live` is true once the server has confirmed this on
    /// this connection.
    Member { live: bool },
    /// The room is being left. `sent`: `Leave` was sent on this connection. `live`: the server had
    /// confirmed the membership on this connection. `again`: the room is joined again afterwards.
    Leaving { sent: bool, live: bool, again: bool },
}

/// Type of a request for a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestKind {
    Join,
    /// The room is named by the `Resume` of the `Hello`.
    Resume,
    Leave,
}

/// The newest request for a room on this connection. The number stays after the answer `Joined`,
/// since it names the membership, and goes with the answer `Left`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RoomRequest {
    pub(super) number: u64,
    pub(super) kind: RequestKind,
    pub(super) answered: bool,
}

/// Counter of a client's requests for rooms, over all rooms, connections and sessions.
#[derive(Debug, Default)]
pub(super) struct RequestCounter(u64);

impl RequestCounter {
    pub(super) fn next(&mut self, kind: RequestKind) -> RoomRequest {
        RoomRequest { number: self.next_number(), kind, answered: false }
    }

    pub(super) const fn next_number(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

/// A room that the client is in, wants to be in, or is leaving.
#[derive(Debug)]
pub(super) struct ClientRoom {
    pub(super) phase: RoomPhase,
    /// Number of entries from before the join to ask for.
    pub(super) history: u32,
    /// True if the server may count this session as a member, because a `Join` was sent in this
    /// session.
    pub(super) asked: bool,
    /// The request that an answer of the server must name.
    pub(super) request: Option<RoomRequest>,
    /// Number of the client as a member of the room.
    pub(super) member: u32,
    /// Last delivered entry.
    pub(super) cursor: Option<Cursor>,
    /// True for a new membership without a delivered entry: the snapshot may set the cursor
    /// anywhere.
    pub(super) fresh: bool,
    /// Time since which the room's state may have changed without the client's knowledge.
    pub(super) away_since: Option<Instant>,
    pub(super) outbox: Outbox,
    /// Latest messages to be sent, by key.
    pub(super) latest: BTreeMap<u32, (Bytes, String)>,
    pub(super) versions: Versions,
    pub(super) replicated: Replicated,
    /// Index of the kind of message that is tried first when the room sends again.
    pub(super) lane: usize,
}

impl ClientRoom {
    pub(super) fn new(history: u32) -> Self {
        Self {
            phase: RoomPhase::Wanted { not_before: None },
            history,
            asked: false,
            request: None,
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

    /// Returns true if the application is in the room as far as it knows, or will be.
    pub(super) fn is_wanted(&self) -> bool {
        !matches!(self.phase, RoomPhase::Leaving { again: false, .. })
    }

    /// Returns true if the server has confirmed the membership on this connection, so that entries
    /// of the room are expected.
    pub(super) fn is_live(&self) -> bool {
        matches!(self.phase, RoomPhase::Member { live: true } | RoomPhase::Leaving { live: true, .. })
    }

    /// Returns true if messages to the room may be sent now.
    pub(super) fn is_open(&self) -> bool {
        self.phase == RoomPhase::Member { live: true }
    }

    /// Returns the time from which the room may be joined, if it has to wait.
    pub(super) fn not_before(&self) -> Option<Instant> {
        match self.phase {
            RoomPhase::Wanted { not_before } => not_before,
            RoomPhase::Joining | RoomPhase::Member { .. } | RoomPhase::Leaving { .. } => None,
        }
    }

    pub(super) fn may_be_joined(&self, now: Instant) -> bool {
        matches!(self.phase, RoomPhase::Wanted { not_before } if not_before.is_none_or(|at| at <= now))
    }

    /// Returns true if the server has not answered the resume of the room yet.
    pub(super) fn is_resuming(&self) -> bool {
        self.request.is_some_and(|request| request.kind == RequestKind::Resume && !request.answered)
    }

    /// Returns the request to join the room.
    pub(super) fn join(&mut self, name: &str, requests: &mut RequestCounter) -> v1::Join {
        self.phase = RoomPhase::Joining;
        self.asked = true;
        let request = requests.next(RequestKind::Join);
        self.request = Some(request);
        v1::Join { room: String::from(name), history: self.history, request: request.number }
    }

    /// Returns the request to continue in the room from the cursor. Without a cursor, the request is
    /// for an epoch that no room has, so that the server begins a new membership.
    pub(super) fn resume(&mut self, name: &str, requests: &mut RequestCounter) -> v1::RoomCursor {
        let (epoch, seq) = (self.epoch(), self.cursor.map_or(0, |cursor| cursor.seq));
        let request = requests.next(RequestKind::Resume);
        self.request = Some(request);
        v1::RoomCursor { room: String::from(name), epoch, seq, request: request.number }
    }

    /// Returns the request to leave the room, if it was not sent on this connection.
    pub(super) fn next_leave(&mut self, name: &str, requests: &mut RequestCounter) -> Option<v1::Leave> {
        let RoomPhase::Leaving { sent: sent @ false, .. } = &mut self.phase else { return None };
        *sent = true;
        let request = requests.next(RequestKind::Leave);
        self.request = Some(request);
        Some(v1::Leave { room: String::from(name), request: request.number })
    }

    pub(super) fn epoch(&self) -> u64 {
        self.cursor.map_or(0, |cursor| cursor.epoch)
    }

    /// Handles the loss of the connection; the session may live on.
    pub(super) fn disconnected(&mut self, now: Instant) {
        if self.is_live() {
            self.away_since = Some(now);
        }
        self.request = None;
        self.phase = match self.phase {
            RoomPhase::Wanted { .. } | RoomPhase::Joining => RoomPhase::Wanted { not_before: None },
            RoomPhase::Member { .. } => RoomPhase::Member { live: false },
            RoomPhase::Leaving { again, .. } => RoomPhase::Leaving { sent: false, live: false, again },
        };
        self.outbox.resend(false);
        self.replicated.disconnected();
    }

    /// Handles the loss of a membership in a room that is still wanted. Messages that were sent
    /// have an unknown outcome; messages that were not sent wait for the next membership.
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
        self.request = None;
        // Delivered entries must not be delivered again if the log is the same.
        if self.cursor.is_some() {
            self.history = 0;
        }
        self.phase = RoomPhase::Wanted { not_before };
    }

    /// Gives every message its outcome.
    pub(super) fn settle(&mut self, name: &str, outputs: &mut Outputs) {
        outputs.outcomes(name, self.outbox.settle_sent(), Outcome::Unknown);
        outputs.outcomes(name, self.outbox.settle_unsent(), Outcome::Refused);
        self.latest.clear();
    }

    /// Reports the end of the membership, before the room is forgotten.
    pub(super) fn close(&mut self, name: &str, reason: v1::LeftReason, outputs: &mut Outputs) {
        self.settle(name, outputs);
        outputs.event(Event::Left { room: String::from(name), reason });
    }

    /// Reports that the room was left on request. With `again`, the room starts anew, and keeps the
    /// messages and writes that were made since the request.
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

/// Newest delivered version, by member and key.
#[derive(Debug, Default)]
pub(super) struct Versions {
    newest: BTreeMap<(u32, u32), u64>,
    /// Highest version that was forgotten. For an unknown member and key, a version up to this one
    /// does not count as new.
    forgotten: u64,
}

impl Versions {
    pub(super) fn clear(&mut self) {
        self.newest.clear();
        self.forgotten = 0;
    }

    /// Returns true if the version is newer than all earlier ones of this member and key.
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
