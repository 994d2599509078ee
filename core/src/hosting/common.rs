//! The part of a room on a node that every role has.

use skirmish_proto::v1;

use super::local::{LocalSession, LocalSessions};
use super::reader::Readers;
use super::{ASK_AGAIN_PAUSE, Arrival, Passage, RoomContext, RoomEffect};
use crate::base::id::{Cursor, Name};
use crate::base::plant::Plant;
use crate::base::slab::Key;
use crate::base::time::Instant;
use crate::room::Room;
use crate::wire::{self, Trace};

/// The room, the sessions of this node in it, and the links over which other nodes read it.
#[derive(Clone, Debug)]
pub(crate) struct Common {
    pub(crate) room: Room,
    pub(crate) locals: LocalSessions,
    pub(crate) readers: Readers,
    /// Time at which sessions that were refused ask again.
    ask_again_at: Option<Instant>,
}

impl Common {
    pub(super) fn new(room: Room) -> Self {
        let (locals, readers) = (LocalSessions::default(), Readers::default());
        Self { room, locals, readers, ask_again_at: None }
    }

    pub(super) fn emit(&self, cx: &mut RoomContext<'_>, effect: RoomEffect) {
        cx.effects.push(self.room.name(), effect);
    }

    /// Sends a message over a link.
    pub(super) fn tell(
        &self,
        cx: &mut RoomContext<'_>,
        link: Key,
        kind: v1::Kind,
        metadata: &v1::Metadata,
        message: &impl prost::Message,
    ) {
        self.emit(cx, RoomEffect::Tell { link, frame: wire::encode(kind, metadata, message) });
    }

    /// Sends a message without metadata over a link.
    pub(super) fn tell_plain(
        &self,
        cx: &mut RoomContext<'_>,
        link: Key,
        kind: v1::Kind,
        message: &impl prost::Message,
    ) {
        self.tell(cx, link, kind, &v1::Metadata::default(), message);
    }

    /// Tells a node that a member, or every member if the number is 0, is out of the room in an
    /// epoch.
    pub(super) fn tell_exited(
        &self,
        cx: &mut RoomContext<'_>,
        link: Key,
        epoch: u64,
        member: u32,
        reason: v1::LeftReason,
    ) {
        let room = self.room.name().as_str().into();
        let exited = v1::Exited { room, epoch, member, reason: reason.into() };
        self.tell_plain(cx, link, v1::Kind::Exited, &exited);
    }

    /// Refuses a message of a node that assumes this one to be the primary in an epoch.
    pub(super) fn refuse_epoch(&self, cx: &mut RoomContext<'_>, link: Key, epoch: u64) {
        cx.effects.counts.refused_epochs += 1;
        self.tell_exited(cx, link, epoch, 0, v1::LeftReason::Gone);
    }

    /// Returns true if a message of another node is about this life of the room.
    pub(super) fn is_epoch(&self, cx: &RoomContext<'_>, epoch: u64) -> bool {
        self.room.epoch() == epoch || cx.planted.is(Plant::EpochUncompared)
    }

    /// Reports a message that has passed the room, if it is traced.
    pub(super) fn passes(&self, cx: &mut RoomContext<'_>, metadata: &v1::Metadata, passage: Passage) {
        if let Some(trace) = Trace::from_metadata(metadata) {
            self.emit(cx, RoomEffect::Passed { passage, trace });
        }
    }

    // Visibility for readers.

    /// Lets members and links read everything that was applied.
    pub(super) fn release(&mut self, cx: &mut RoomContext<'_>) {
        self.room.release();
        cx.effects.marks.wake = true;
    }

    /// Has the members' connections notice that a player of the room came or went.
    pub(super) fn set_present(&mut self, cx: &mut RoomContext<'_>, player: &Name, present: bool) {
        if self.room.state.set_present(cx.now, player.as_str(), present).is_err() {
            cx.effects.counts.state_full += 1;
        }
        cx.effects.marks.wake_links = true;
    }

    /// Collects tombstones, and releases entries at the end of their interval.
    pub(super) fn timeout(&mut self, cx: &mut RoomContext<'_>) {
        let now = cx.now;
        if self.room.state.poll_timeout().is_some_and(|deadline| deadline.at <= now.instant) {
            self.room.state.collect(now);
        }
        if self.room.flush_at().is_some_and(|at| at <= now.instant) {
            self.release(cx);
        }
    }

    /// Returns the time of the next [`Self::timeout`].
    pub(super) fn deadline(&self) -> Option<Instant> {
        let collect = self.room.state.poll_timeout().map(|deadline| deadline.at);
        [self.room.flush_at(), collect, self.ask_again_at].into_iter().flatten().min()
    }

    /// Returns true once if it is time for waiting sessions to ask again.
    pub(super) fn is_time_to_ask_again(&mut self, now: Instant) -> bool {
        self.ask_again_at.take_if(|at| *at <= now).is_some()
    }

    // Sessions of this node.

    /// Adds a session that is being admitted.
    pub(super) fn arrive(&mut self, cx: &mut RoomContext<'_>, arrival: Arrival) {
        let attempt = cx.next_attempt();
        self.locals.push(LocalSession::new(arrival, attempt));
    }

    /// Sets the cursor from which a session continues that is being admitted.
    pub(super) fn redirect(&mut self, cx: &mut RoomContext<'_>, session: Key, resume: Cursor) {
        match self.locals.get_mut(session).and_then(LocalSession::admission) {
            Some(admission) => admission.resume = Some(resume),
            None => cx.bugs.found("a session that is not being admitted has another cursor"),
        }
    }

    /// Sets the epoch of a session, in every role: the session enters and writes with this epoch.
    pub(super) fn raise(&mut self, cx: &mut RoomContext<'_>, session: Key, epoch: u64) {
        match self.locals.get_mut(session) {
            Some(local) => local.epoch = epoch,
            None => cx.bugs.found("the epoch rises of a session that is not in the room"),
        }
    }

    /// Sets the presence of the player of a session.
    pub(super) fn set_local_present(&mut self, cx: &mut RoomContext<'_>, session: Key, present: bool) {
        match self.locals.get(session).map(|local| local.player.clone()) {
            Some(player) => self.set_present(cx, &player, present),
            None => cx.bugs.found("a session that is not in the room comes or goes"),
        }
    }

    /// Refuses a session whose player has gone on with another epoch. The registry is asked which of the two
    /// is the newer one; until then a session that is being admitted asks again, for as long as a join is
    /// tried anew.
    pub(super) fn refuse_outdated(&mut self, cx: &mut RoomContext<'_>, session: Key, newest_epoch: u64) {
        let now = cx.now.instant;
        let Some(local) = self.locals.get_mut(session) else { return };
        if !local.may_ask_again(now) {
            return self.expel(cx, session, v1::LeftReason::Gone);
        }
        local.waits = true;
        let player = local.player.clone();
        self.ask_again_at.get_or_insert(now + ASK_AGAIN_PAUSE);
        self.emit(cx, RoomEffect::Superseded { player, epoch: newest_epoch });
    }

    /// Takes out a session.
    pub(super) fn depart(&mut self, cx: &mut RoomContext<'_>, session: Key) -> Option<LocalSession> {
        let local = self.locals.remove(session);
        if local.is_none() {
            cx.bugs.found("a session leaves a room that it is not in");
        }
        local
    }

    /// Ends the membership of a session of this node, and tells the client the reason.
    pub(super) fn expel(&mut self, cx: &mut RoomContext<'_>, session: Key, reason: v1::LeftReason) {
        self.locals.remove(session);
        self.emit(cx, RoomEffect::Expel { session, reason });
    }
}
