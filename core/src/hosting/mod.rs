//! One room on one node: the room, the role of the node in it, and the sessions of this node
//! that are members.
//!
//! A node has a room because a session of the node asks for a membership. The registry names the
//! room's primary ([`Claiming`]). Then this node is the primary ([`Leading`]), or it follows the
//! primary ([`Following`]). Each role has its own state, which ends with the role.
//!
//! [`Hosted`] changes only itself. [`Hosted::handle`] takes an [`RoomInput`] and queues
//! [`RoomEffect`]s: frames for links, requests to the registry, events for sessions. Messages of
//! members have their own methods (`member`), as they are many and have typed answers.

mod admission;
mod backing;
mod claiming;
mod common;
mod context;
mod departure;
mod effect;
mod following;
mod input;
mod leading;
mod local;
mod member;
mod op_stream;
mod pair;
mod reader;
mod replication;
mod succession;
#[cfg(test)]
mod tests;
mod upstream;

use skirmish_proto::v1;

pub(crate) use claiming::Claiming;
pub(crate) use common::Common;
pub(crate) use context::{Candidates, KeptPlaces, LiveLeases, RoomContext};
pub use effect::Passage;
pub(crate) use effect::{Hold, RoomCounts, RoomEffect, RoomEffects, Seated};
pub(crate) use following::Following;
pub(crate) use input::{Arrival, Departure, RoomInput};
pub(crate) use leading::Leading;
pub(crate) use member::SayVerdict;

use crate::base::id::{Name, NodeId};
use crate::base::plant::Plant;
use crate::base::slab::Key;
use crate::base::time::{Duration, Instant, Now};
use crate::config::Config;
use crate::hosting::local::{LocalSession, LocalSessions};
use crate::registrar::Reign;
use crate::room::Room;

/// Time for which sessions wait for the tail of a room before they are told that the room is
/// gone, and try again. Half of the time for which a client waits for the answer to its resume: one
/// room that cannot be had must not keep the client from its other rooms.
pub(crate) const ATTACH_TIMEOUT: Duration = Duration::from_secs(5);

/// Time from a `Join` after which the registry is not asked again about its room: the client
/// is told that the room is gone, and may try again. As long as the wait for a tail.
const JOIN_TIMEOUT: Duration = ATTACH_TIMEOUT;

/// Milliseconds after which messages are sent again that were refused since the leases of the
/// node may have ended, or since there is no link to the primary.
const SUSPENDED_RETRY_MS: u32 = 500;

/// Milliseconds after which messages are sent again for which the backup has no place yet.
const PENDING_RETRY_MS: u32 = 50;

/// Milliseconds after which messages are sent again that did not fit into a link.
const CONGESTED_RETRY_MS: u32 = 100;

/// Bytes of a room's state in one frame, about.
pub(crate) const STATE_FRAME_BYTES: usize = 8 * 1024;

/// Shortest and longest pause before the registry is asked again; the pause doubles each time.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Time after which a session asks again that was refused because of a newer one.
const ASK_AGAIN_PAUSE: Duration = Duration::from_millis(100);

/// A room on this node.
#[derive(Clone, Debug)]
pub(crate) struct Hosted {
    common: Common,
    role: Role,
}

/// The role of a node in a room.
#[derive(Clone, Debug)]
pub(crate) enum Role {
    /// The registry is asked for the room's primary.
    Claiming(Claiming),
    /// The node is the room's primary: it sequences the messages.
    Leading(Leading),
    /// Another node is the primary.
    Following(Following),
}

/// The consequence of an input for the role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NextRole {
    /// The role continues.
    Stay,
    /// The node is the primary of a new life.
    Lead(Reign),
    /// Another node is the primary.
    Follow(Reign),
    /// Another node is the primary, and asks this one to back the room up.
    BackUp(Reign),
    /// The node, a backup, is the primary from now on, in the same life.
    TakeOver(Reign),
    /// Another node is the primary from now on, in the same life.
    StepDown(Reign),
    /// The room is closed here.
    Close(v1::LeftReason),
    /// The life of the room is over. Sessions that have asked for a membership in any life ask
    /// again; all others are expelled.
    Over(v1::LeftReason),
}

impl Hosted {
    /// Creates a room that is claimed for its first session.
    pub(crate) fn new(cx: &mut RoomContext<'_>, name: Name) -> Self {
        let role = Role::Claiming(Claiming::at(cx.now.instant));
        Self { common: Common::new(cx.new_room(name)), role }
    }

    // Getters.

    /// Returns the room.
    pub(crate) const fn room(&self) -> &Room {
        &self.common.room
    }

    /// Returns the room, so that a test can plant a state.
    #[cfg(test)]
    pub(crate) const fn room_mut(&mut self) -> &mut Room {
        &mut self.common.room
    }

    /// Returns the wall clock for the room's state, and the latest stamp that the room accepts, in
    /// Unix milliseconds.
    pub(crate) fn believes(&mut self, now: Now) -> (u64, u64) {
        self.common.room.state.believes(now)
    }

    /// Returns the role.
    pub(crate) const fn role(&self) -> &Role {
        &self.role
    }

    /// Returns the sessions of this node that are members or are being admitted.
    pub(crate) fn locals(&self) -> impl Iterator<Item = Key> + '_ {
        self.common.locals.iter().map(|local| local.session)
    }

    /// Links over which the room is read: at the primary those of followers; at a follower that to
    /// the primary, which reads the state of the members.
    pub(crate) fn readers(&self) -> impl Iterator<Item = Key> + '_ {
        self.common.readers.links()
    }

    /// Returns true if the node is the room's primary.
    pub(crate) const fn is_primary(&self) -> bool {
        matches!(self.role, Role::Leading(_))
    }

    /// Returns true if the registry is asked for the primary of the first life of the room here.
    pub(crate) const fn is_claiming(&self) -> bool {
        matches!(self.role, Role::Claiming(_))
    }

    /// Returns true if this node leads, and commits without a backup.
    pub(crate) const fn commits_alone(&self) -> bool {
        matches!(&self.role, Role::Leading(leading) if leading.pair.is_alone())
    }

    /// Returns true if this node leads, and may change the room with these leases.
    pub(crate) const fn may_serve(&self, leases: LiveLeases) -> bool {
        matches!(&self.role, Role::Leading(leading) if leading.pair.may_serve(leases))
    }

    /// Returns the node that may take over, at the primary, and the number of ops that are committed.
    pub(crate) fn committed(&self) -> Option<(NodeId, u64)> {
        match &self.role {
            Role::Leading(leading) if !leading.pair.is_alone() => {
                Some((leading.pair.peer()?.node, self.common.room.applied()))
            }
            Role::Claiming(_) | Role::Leading(_) | Role::Following(_) => None,
        }
    }

    /// Returns the number of ops that the node has, as the primary or the backup.
    pub(crate) fn stored(&self) -> Option<u64> {
        let has_ops = match &self.role {
            Role::Claiming(_) => false,
            Role::Leading(_) => true,
            Role::Following(following) => following.is_backup(),
        };
        has_ops.then(|| self.common.room.appended())
    }

    /// Returns the backup that the registry names, at the primary.
    pub(crate) fn backup(&self) -> Option<NodeId> {
        match &self.role {
            Role::Leading(leading) => leading.pair.backup(),
            Role::Claiming(_) | Role::Following(_) => None,
        }
    }

    /// Link to the primary over which messages of members are sent; `None` if the node is the
    /// primary, or if there is no link.
    pub(crate) const fn upstream(&self) -> Option<Key> {
        match &self.role {
            Role::Following(following) => following.link(),
            Role::Claiming(_) | Role::Leading(_) => None,
        }
    }

    /// Returns true if the room is to be read over a link.
    pub(crate) fn reads(&self, link: Key) -> bool {
        let by_role = match &self.role {
            Role::Claiming(claiming) => claiming.reads(link),
            Role::Leading(_) => false,
            Role::Following(following) => following.reads(link),
        };
        by_role || self.common.readers.get(link).is_some()
    }

    /// Returns the time of the next [`RoomInput::Timeout`], with these leases of the node.
    pub(crate) fn deadline(&self, leases: LiveLeases) -> Option<Instant> {
        let role = match &self.role {
            Role::Claiming(claiming) => claiming.deadline(),
            Role::Leading(leading) => leading.deadline(&self.common, leases),
            Role::Following(following) => following.deadline(),
        };
        [role, self.common.deadline()].into_iter().flatten().min()
    }

    fn is_idle(&self) -> bool {
        let is_kept = match &self.role {
            Role::Claiming(_) => false,
            Role::Leading(_) => !self.common.room.members().is_empty() || self.common.room.pending_ops() > 0,
            Role::Following(following) => following.is_kept(),
        };
        self.common.locals.is_empty() && !is_kept
    }

    // Inputs.

    /// Takes an input.
    pub(crate) fn handle(&mut self, cx: &mut RoomContext<'_>, input: RoomInput) {
        let Self { common, role } = self;
        let next = match input {
            RoomInput::Arrive(arrival) => {
                common.arrive(cx, arrival);
                match role {
                    Role::Claiming(claiming) => claiming.ask(common, cx),
                    Role::Leading(leading) => leading.seat_waiting(common, cx),
                    Role::Following(following) => following.enter_waiting(common, cx),
                }
                NextRole::Stay
            }
            RoomInput::Redirect { session, resume } => {
                common.redirect(cx, session, resume);
                NextRole::Stay
            }
            RoomInput::Epoch { session, epoch } => {
                common.raise(cx, session, epoch);
                match role {
                    Role::Claiming(_) => {}
                    Role::Leading(leading) => leading.reseat(common, cx, session),
                    Role::Following(following) => following.enter_again(common, cx, session),
                }
                NextRole::Stay
            }
            RoomInput::Presence { session, present } => {
                common.set_local_present(cx, session, present);
                match role {
                    Role::Leading(leading) => leading.changed(common, cx),
                    Role::Claiming(_) | Role::Following(_) => common.release(cx),
                }
                NextRole::Stay
            }
            input => {
                if matches!(input, RoomInput::Timeout) {
                    common.timeout(cx);
                }
                match role {
                    Role::Claiming(claiming) => claiming.handle(common, cx, input),
                    Role::Leading(leading) => leading.handle(common, cx, input),
                    Role::Following(following) => following.handle(common, cx, input),
                }
            }
        };
        match next {
            NextRole::Stay => {}
            NextRole::Lead(reign) => self.lead(cx, reign),
            NextRole::Follow(reign) => self.follow(cx, reign),
            NextRole::BackUp(reign) => {
                self.follow(cx, reign);
                if let Role::Following(following) = &mut self.role {
                    following.recruited(cx);
                }
            }
            NextRole::TakeOver(reign) => self.take_over(cx, reign),
            NextRole::StepDown(reign) => self.step_down(cx, reign),
            NextRole::Close(reason) => return self.close(cx, reason),
            NextRole::Over(reason) => return self.restart(cx, reason),
        }
        if self.is_idle() {
            self.close(cx, v1::LeftReason::Gone);
        }
    }

    fn lead(&mut self, cx: &mut RoomContext<'_>, reign: Reign) {
        let epoch = if cx.planted.is(Plant::EpochReused) { 1 } else { reign.epoch };
        let Self { common, role } = self;
        let before = core::mem::replace(role, Role::Leading(Leading::default()));
        common.room.start(epoch);
        common.room.lead(cx.now, reign.term);
        common.emit(cx, RoomEffect::Opened { epoch });
        let (Role::Leading(leading), Role::Claiming(claiming)) = (role, before) else {
            return cx.bugs.found("a room is led that was not being claimed");
        };
        for early in claiming.finish() {
            leading.attach(common, cx, early.link, early.node, &early.attach);
        }
        leading.seat_waiting(common, cx);
        leading.peers_changed(common, cx);
    }

    fn follow(&mut self, cx: &mut RoomContext<'_>, reign: Reign) {
        let Self { common, role } = self;
        common.room.start(reign.epoch);
        let until = cx.now.instant + ATTACH_TIMEOUT;
        let following = Following::new(reign, until);
        let before = core::mem::replace(role, Role::Following(following));
        let Role::Claiming(claiming) = before else {
            return cx.bugs.found("a room is followed that was not being claimed");
        };
        for early in claiming.finish() {
            common.refuse_epoch(cx, early.link, early.attach.epoch);
            common.emit(cx, RoomEffect::Unread { link: early.link });
        }
        for node in [Some(reign.primary), reign.backup].into_iter().flatten() {
            common.emit(cx, RoomEffect::Follow { node });
        }
    }

    // The end of a life of the room.

    /// Closes the room here.
    fn close(&mut self, cx: &mut RoomContext<'_>, reason: v1::LeftReason) {
        self.end(cx, reason);
        cx.effects.marks.closed = true;
    }

    /// Ends the role and its state, and notifies all sessions and nodes that depend on it.
    fn end(&mut self, cx: &mut RoomContext<'_>, reason: v1::LeftReason) {
        let Self { common, role } = self;
        for local in core::mem::take(&mut common.locals) {
            common.emit(cx, RoomEffect::Expel { session: local.session, reason });
        }
        let readers = common.readers.take();
        let epoch = common.room.epoch();
        match core::mem::replace(role, Role::Claiming(Claiming::default())) {
            Role::Claiming(claiming) => {
                for early in claiming.finish() {
                    common.tell_exited(cx, early.link, early.attach.epoch, 0, v1::LeftReason::Gone);
                    common.emit(cx, RoomEffect::Unread { link: early.link });
                }
            }
            Role::Leading(_) => {
                cx.effects.counts.members -= common.room.members().len();
                for link in readers {
                    common.tell_exited(cx, link, epoch, 0, reason);
                    common.emit(cx, RoomEffect::Unread { link });
                }
                common.emit(cx, RoomEffect::Release);
                common.emit(cx, RoomEffect::Closed { epoch });
            }
            Role::Following(following) => {
                following.give_up_taking_over(common, cx);
                for node in following.leaders() {
                    common.emit(cx, RoomEffect::Unfollow { node });
                }
                if let Some(link) = following.link() {
                    common.emit(cx, RoomEffect::Unread { link });
                    let room = common.room.name().as_str().into();
                    common.tell_plain(cx, link, v1::Kind::Detach, &v1::Detach { room, epoch });
                }
                for link in following.finish() {
                    common.emit(cx, RoomEffect::Unread { link });
                }
            }
        }
    }

    /// Ends the life of the room. Sessions that have asked for a membership in any life of it claim
    /// the next, after a pause that grows; the room is closed if there are none.
    fn restart(&mut self, cx: &mut RoomContext<'_>, reason: v1::LeftReason) {
        let now = cx.now.instant;
        let retries = !cx.planted.is(Plant::JoinRaceTold);
        let mut joins: LocalSessions = self.common.locals.take(|local| retries && local.may_join_again(now));
        self.end(cx, reason);
        let tries = |local: &mut LocalSession| local.admission().map(|admission| admission.retries);
        let Some(retries) = joins.iter_mut().filter_map(tries).max() else {
            cx.effects.marks.closed = true;
            return;
        };
        cx.effects.counts.joins_retried += joins.len() as u64;
        let pause = (PAUSE_MIN * 2_u32.pow(retries.min(16))).min(PAUSE_MAX);
        let pause = cx.rng.duration(pause / 2..=pause);
        self.common = Common::new(cx.new_room(self.common.room.name().clone()));
        for mut local in joins {
            if let Some(admission) = local.admission() {
                admission.retries += 1;
            }
            local.waits = true;
            local.granted = None;
            self.common.locals.push(local);
        }
        self.role = Role::Claiming(Claiming::at(now + pause));
    }

    /// Checks the bounds of the room (G11), on a node with so many sessions and links.
    ///
    /// # Errors
    /// Names the bound that does not hold.
    pub(crate) fn audit(&self, config: &Config, sessions: usize, links: usize) -> Result<(), &'static str> {
        let check = |holds: bool, bound| if holds { Ok(()) } else { Err(bound) };
        let Common { room, locals, readers, .. } = &self.common;
        // A player that left behind the first entry of a tail is a member until that entry was read.
        let behind = if self.is_primary() { 0 } else { config.rooms.window_entries };
        let members = config.rooms.members + behind;
        room.audit(&crate::config::RoomLimits { members, ..config.rooms.clone() })?;
        check(!self.is_idle(), "rooms without a member")?;
        check(locals.len() <= sessions, "sessions in a room")?;
        check(readers.len() <= links, "links that read a room")?;
        match &self.role {
            Role::Claiming(claiming) => {
                check(claiming.early() <= config.links.total, "links that wait for the claim of a room")
            }
            Role::Leading(leading) => leading.audit(room.future_members().count().max(room.members().len())),
            Role::Following(following) => {
                check(following.waiting() <= config.links.total, "links that wait for a backup to lead")
            }
        }
    }
}

/// Time until which a `Join` of this moment is tried anew.
pub(crate) fn join_deadline(now: Now) -> Instant {
    now.instant + JOIN_TIMEOUT
}
