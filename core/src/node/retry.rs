//! Joins that a race between nodes leaves without an answer.
//!
//! A `Join` asks for the room whatever its life is. What the registry says of a room is as of
//! a moment: until the `Attach` arrives, its primary may have ended that life of the room, or
//! may itself not have heard yet that the room is its own. The primary keeps an early `Attach`
//! until it has heard ([`Node::attach_early`]); the follower asks the registry again
//! ([`Node::room_over`]), with growing pauses and for [`JOIN_TIMEOUT`].

use alloc::vec::Vec;

use skirmish_proto::v1;

use super::Node;
use super::rooms::ATTACH_TIMEOUT;
use crate::base::id::Name;
use crate::base::plant::Plant;
use crate::base::slab::Key;
use crate::base::time::{Duration, Instant, Now};
use crate::hosting::{EarlyAttach, Hosted, Role};
use crate::session::{Membership, SessionKey};

/// Time from a `Join` after which the registry is not asked again about its room: the client
/// is told that the room is gone, and may try again. As long as the wait for a tail.
pub(super) const JOIN_TIMEOUT: Duration = ATTACH_TIMEOUT;

/// Shortest and longest pause before the registry is asked again; the pause doubles each time.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(500);

impl Node {
    // At the primary.

    /// Keeps an `Attach` for a room that this node is claiming. False if it is not.
    pub(super) fn attach_early(&mut self, link: Key, attach: &v1::Attach) -> bool {
        let room = Name::new(&attach.room).ok().and_then(|name| self.rooms_by_name.get(&name).copied());
        let Self { rooms, links, planted, .. } = self;
        let claiming = room.and_then(|room| rooms.get_mut(room)?.claiming_mut());
        let Some(claiming) = claiming.filter(|_| !planted.is(Plant::JoinRaceTold)) else { return false };
        claiming.keep(EarlyAttach { link, attach: attach.clone() }, |link| links.get(link).is_some());
        true
    }

    /// Answers what was kept while the room was claimed: the registry has said whose it is.
    pub(super) fn answer_early(&mut self, now: Now, before: Role) {
        let Role::Claiming(claiming) = before else { return };
        for early in claiming.finish() {
            if self.links.get(early.link).is_some() {
                self.take_attach(now, early.link, &early.attach);
            }
        }
    }

    /// Refuses what was kept of a room that is closed before it has an epoch.
    pub(super) fn refuse_early(&mut self, now: Now, name: &Name, early: Vec<EarlyAttach>) {
        for EarlyAttach { link, attach } in early {
            self.exited(now, link, name, attach.epoch, 0, v1::LeftReason::Gone);
        }
    }

    // At the follower, and wherever a room ends.

    /// Ends a room here whose life is over. Its members are told; sessions that have asked for
    /// the room, and not for this life of it, ask again.
    pub(super) fn room_over(&mut self, now: Now, room: Key, reason: v1::LeftReason) {
        let Some(name) = self.rooms.get(room).map(|hosted| hosted.room.name().clone()) else {
            return self.bugs.found("a room that is over is not in the table");
        };
        let joins = self.take_joins(now, room);
        self.close_room(now, room, reason);
        let Some(retries) = joins.iter().map(|(_, membership)| membership.entry.retries).max() else {
            return;
        };
        self.stats.joins_retried += joins.len() as u64;
        let pause = (PAUSE_MIN * 2_u32.pow(retries.min(16))).min(PAUSE_MAX);
        let pause = self.rng.duration(pause / 2..=pause);
        let again = self.place_room(&name);
        if let Some(claiming) = again.and_then(|room| self.rooms.get_mut(room)?.claiming_mut()) {
            claiming.put_off(now.instant + pause);
        }
        for (session, mut membership) in joins {
            let Some(room) = again else {
                self.refuse(now, session, &name, v1::LeftReason::Limit);
                continue;
            };
            membership.entry.retries += 1;
            self.begin_entry(session, room, membership);
        }
        if let Some(room) = again {
            self.book_room(room);
        }
    }

    /// Takes out the sessions whose `Join` may be tried anew.
    fn take_joins(&mut self, now: Now, room: Key) -> Vec<(SessionKey, Membership)> {
        let mut joins = Vec::new();
        if self.planted.is(Plant::JoinRaceTold) {
            return joins;
        }
        let Self { rooms, sessions, bugs, .. } = self;
        let Some(hosted) = rooms.get_mut(room) else {
            self.bugs.found("a room that is over is not in the table");
            return joins;
        };
        hosted.locals.retain(|key| {
            let Some(session) = sessions.get_mut(*key) else {
                bugs.found("a session that is gone is in a room that is over");
                return false;
            };
            let is_join = |m: &Membership| m.room == room && m.is_new_join() && m.entry.until > now.instant;
            let Some(at) = session.memberships.iter().position(is_join) else { return true };
            joins.push((*key, session.memberships.remove(at)));
            false
        });
        let Hosted { locals, waiting, .. } = hosted;
        waiting.retain(|key| locals.contains(key));
        joins
    }

    /// Claims a room anew when the pause is over.
    pub(super) fn claim_again(&mut self, now: Now, room: Key) {
        let Some(hosted) = self.rooms.get_mut(room) else {
            return self.bugs.found("a room vanished before it was claimed again");
        };
        if !hosted.claiming_mut().is_some_and(|claiming| claiming.take_due(now.instant)) {
            return;
        }
        let name = hosted.room.name().clone();
        if self.registrar.claim_room(now, &name).is_err() {
            self.close_room(now, room, v1::LeftReason::Limit);
        }
    }

    /// Tells a session that it does not get into a room.
    fn refuse(&mut self, now: Now, session: SessionKey, name: &Name, reason: v1::LeftReason) {
        if let Some(conn) = self.sessions.get(session).and_then(|session| session.conn) {
            self.left(now, conn.key(), name.as_str(), reason, false);
        }
    }
}

/// When a `Join` of this moment is not tried anew any more.
pub(super) fn join_deadline(now: Now) -> Instant {
    now.instant + JOIN_TIMEOUT
}
