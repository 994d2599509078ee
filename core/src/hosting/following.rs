//! A room of another primary: its tail, and the members on this node.

use alloc::vec::Vec;

use bytes::Bytes;
use skirmish_proto::v1;

use super::backing::Duty;
use super::common::Common;
use super::local::Granted;
use super::{Departure, Hold, NextRole, Passage, RoomContext, RoomEffect, RoomInput, Seated};
use crate::base::id::{Name, NodeId, SessionId};
use crate::base::plant::Plant;
use crate::base::slab::Key;
use crate::base::time::Instant;
use crate::registrar::Reign;
use crate::room::Posted;
use crate::wire::RoomMessage;

/// State of a follower, beside the tail of the room.
#[derive(Clone, Debug)]
pub(crate) struct Following {
    pub(super) primary: NodeId,
    /// Term of the primary.
    pub(super) term: u32,
    /// Node that goes on with the room if the primary dies, if this is another one.
    pub(super) backup: Option<NodeId>,
    /// The open link to the primary.
    pub(super) link: Option<Key>,
    /// The open link to the backup.
    pub(super) backup_link: Option<Key>,
    /// Number of the last `Attach`; 0 before the first.
    pub(super) attach: u64,
    pub(super) tail: Tail,
    /// Time at which the registry is asked for the primary; `None` while the primary is known to live.
    pub(super) look_at: Option<Instant>,
    pub(super) duty: Duty,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tail {
    /// The tail is received.
    Attached,
    /// The tail is not received; sessions wait for it until then.
    Detached { until: Instant },
}

impl Following {
    /// Follows a primary that was not asked for the tail yet.
    pub(super) const fn new(reign: Reign, until: Instant) -> Self {
        let Reign { primary, term, backup, .. } = reign;
        Self {
            primary,
            term,
            backup,
            link: None,
            backup_link: None,
            attach: 0,
            tail: Tail::Detached { until },
            look_at: None,
            duty: Duty::Reader,
        }
    }

    // Getters.

    /// Returns the nodes that may lead the room.
    pub(super) fn leaders(&self) -> impl Iterator<Item = NodeId> + use<> {
        [Some(self.primary), self.backup].into_iter().flatten()
    }

    /// Returns the open link to the primary.
    pub(super) const fn link(&self) -> Option<Key> {
        self.link
    }

    /// Returns the link for messages of members to the primary: only once the tail is received, so
    /// that each message is sent over one link.
    pub(super) fn way(&self) -> Option<Key> {
        self.link.filter(|_| self.tail == Tail::Attached)
    }

    /// Returns the time of the next deadline.
    pub(super) fn deadline(&self) -> Option<Instant> {
        [self.overdue_at(), self.look_at, self.duty_deadline()].into_iter().flatten().min()
    }

    /// Returns true if the registry is asked for the primary.
    pub(super) const fn looks(&self) -> bool {
        self.look_at.is_some()
    }

    /// Returns the time at which sessions have waited for the tail for long enough.
    pub(super) const fn overdue_at(&self) -> Option<Instant> {
        match self.tail {
            Tail::Attached => None,
            Tail::Detached { until } => Some(until),
        }
    }

    // Inputs.

    pub(super) fn handle(
        &mut self,
        common: &mut Common,
        cx: &mut RoomContext<'_>,
        input: RoomInput,
    ) -> NextRole {
        match input {
            RoomInput::Depart { session, departure } => self.depart(common, cx, session, departure),
            RoomInput::Linked { link, node } => self.linked(common, cx, link, node),
            RoomInput::Unlinked { link, .. } => self.unlinked(common, cx, link),
            RoomInput::From { link, node, message, metadata } => {
                if node == self.primary && common.is_epoch(cx, message.epoch()) {
                    return self.take(common, cx, link, message, &metadata);
                }
                self.take_from_other(common, cx, link, node, &message);
            }
            RoomInput::NodeGone { node } => return self.node_gone(common, cx, node),
            RoomInput::Led(reign) => return self.led(common, cx, reign),
            RoomInput::LedBy(reign) => return self.led_by(common, cx, reign),
            RoomInput::Vacant => return NextRole::Over(v1::LeftReason::Gone),
            RoomInput::Unavailable | RoomInput::Unclaimed => self.unanswered(cx),
            RoomInput::Close(reason) => return NextRole::Close(reason),
            RoomInput::Timeout => {
                if common.is_time_to_ask_again(cx.now.instant) {
                    self.enter_waiting(common, cx);
                }
                self.tail_overdue(common, cx);
                self.look(common, cx);
                self.review_duty(common, cx);
            }
            // Taken before the role is asked, and news for a primary.
            RoomInput::Arrive(_)
            | RoomInput::Redirect { .. }
            | RoomInput::Epoch { .. }
            | RoomInput::Presence { .. }
            | RoomInput::Paired { .. }
            | RoomInput::Recruited(_)
            | RoomInput::Deposed(_)
            | RoomInput::PeersChanged
            | RoomInput::Lost
            | RoomInput::PlacesKnown
            | RoomInput::Leased => {}
        }
        NextRole::Stay
    }

    /// Takes the message of the primary about this life of the room.
    fn take(
        &mut self,
        common: &mut Common,
        cx: &mut RoomContext<'_>,
        link: Key,
        message: RoomMessage,
        metadata: &v1::Metadata,
    ) -> NextRole {
        match message {
            RoomMessage::Attached(attached) => self.attached(common, cx, link, attached),
            RoomMessage::Entered(entered) => self.entered(common, cx, link, &entered),
            RoomMessage::Hold(hold) => Self::held(common, cx, &hold),
            // The registry knows whether the life of the room is over, or the node has lost its state.
            RoomMessage::Exited(exited) if exited.member == 0 && self.is_backup() => {
                // The open link is no sign of a primary: the registry is asked again if it does not answer.
                self.detach(cx);
                self.suspect(common, cx);
            }
            RoomMessage::Exited(exited) if exited.member == 0 => return NextRole::Over(exited.reason()),
            RoomMessage::Exited(exited) => Self::expel_member(common, cx, exited.member, exited.reason()),
            RoomMessage::Entry(entry, frame) => {
                self.stay_candidate(cx);
                self.entry(common, cx, link, &entry, metadata, frame);
            }
            RoomMessage::Latest(latest, frame) => Self::latest(common, cx, &latest, metadata, frame),
            RoomMessage::State(state) => {
                let replica = &mut common.room.state;
                let mut merge = |entries: &[_]| replica.merge(cx.now, None, entries);
                if super::member::merge_all(&mut merge, &state.entries, &mut cx.effects.counts) {
                    common.release(cx);
                }
            }
            RoomMessage::Recruit(_) => self.recruited(cx),
            RoomMessage::Install(install) => self.install(common, cx, link, install),
            RoomMessage::Replicate(replicate) => self.replicate(common, cx, link, replicate),
            RoomMessage::Lead(lead) => self.hear_lead(common, cx, link, self.primary, &lead),
            // The primary assumes that this node is the primary.
            RoomMessage::Attach(_) => {
                if !self.redirect(common, cx, link) {
                    common.refuse_epoch(cx, link, common.room.epoch());
                }
            }
            RoomMessage::Enter(_) | RoomMessage::Relay(_) => {
                common.refuse_epoch(cx, link, common.room.epoch());
            }
            RoomMessage::Detach(_) => self.forget_waiting(common, cx, link),
            RoomMessage::Exit(_) | RoomMessage::Stored(_) => {}
        }
        NextRole::Stay
    }

    /// Takes the message of a node that is not known to be the primary.
    fn take_from_other(
        &mut self,
        common: &mut Common,
        cx: &mut RoomContext<'_>,
        link: Key,
        node: NodeId,
        message: &RoomMessage,
    ) {
        let is_epoch = common.is_epoch(cx, message.epoch());
        match message {
            RoomMessage::Lead(lead) if is_epoch => self.hear_lead(common, cx, link, node, lead),
            // The backup has taken over.
            RoomMessage::Attached(attached) if is_epoch && attached.term > self.term => {
                let backup = (attached.backup > 0).then_some(NodeId(attached.backup));
                self.adopt(common, cx, node, attached.term, backup);
            }
            RoomMessage::Detach(_) => self.forget_waiting(common, cx, link),
            RoomMessage::Attach(_) if is_epoch && self.redirect(common, cx, link) => {}
            // The node waits for an answer to these messages; the others are late.
            RoomMessage::Attach(_) | RoomMessage::Enter(_) | RoomMessage::Relay(_) => {
                common.refuse_epoch(cx, link, message.epoch());
            }
            _ => {}
        }
    }

    // Entries and latest messages.

    fn entry(
        &self,
        common: &mut Common,
        cx: &mut RoomContext<'_>,
        link: Key,
        entry: &v1::Entry,
        metadata: &v1::Metadata,
        frame: Bytes,
    ) {
        if self.tail != Tail::Attached && !cx.planted.is(Plant::JoinRaceTold) {
            // Sent before the primary heard that all sessions here had left; a session has joined
            // again since.
            return;
        }
        let head = common.room.log().head();
        if entry.seq > head + 1 {
            return common.emit(cx, RoomEffect::Gap { link });
        }
        if entry.seq == head + 1 {
            common.room.follow(entry, frame, cx.zstd);
            common.passes(cx, metadata, Passage::Followed);
            cx.effects.marks.wake = true;
            Self::activate(common, cx);
            // The member did not ask to leave: its player has joined with a newer session.
            if entry.kind() == v1::EntryKind::Leave {
                Self::expel_member(common, cx, entry.member, v1::LeftReason::Gone);
            }
        }
    }

    fn latest(
        common: &mut Common,
        cx: &mut RoomContext<'_>,
        latest: &v1::Latest,
        metadata: &v1::Metadata,
        frame: Bytes,
    ) {
        let is_known = common.room.member(latest.member).is_some();
        if is_known && latest.key < cx.config.rooms.latest_keys {
            let posted = common.room.follow_latest(latest.member, latest.key, frame);
            cx.effects.counts.conflated += u64::from(posted == Posted::Replaced);
            common.passes(cx, metadata, Passage::Followed);
            cx.effects.marks.wake = true;
        }
    }

    // Members of this node.

    /// Asks the primary to let the waiting sessions in.
    pub(super) fn enter_waiting(&self, common: &mut Common, cx: &mut RoomContext<'_>) {
        // Else the primary is asked when the tail is received.
        let Some(link) = self.way() else { return };
        for session in common.locals.waiting() {
            Self::enter(common, cx, link, session);
        }
    }

    /// Asks the primary to let a session go on that was registered anew.
    pub(super) fn enter_again(&self, common: &mut Common, cx: &mut RoomContext<'_>, session: Key) {
        if let Some(local) = common.locals.get_mut(session) {
            local.waits = true;
        }
        self.enter_waiting(common, cx);
    }

    fn enter(common: &mut Common, cx: &mut RoomContext<'_>, link: Key, session: Key) {
        let epoch = common.room.epoch();
        let Some(local) = common.locals.get_mut(session) else {
            return cx.bugs.found("a session that waits for a room is not in it");
        };
        local.granted = None;
        if local.resume().is_some_and(|cursor| cursor.epoch != epoch) {
            return common.expel(cx, session, v1::LeftReason::Gone);
        }
        let enter = v1::Enter {
            room: common.room.name().as_str().into(),
            epoch,
            session: Bytes::copy_from_slice(local.id.as_bytes()),
            session_epoch: local.epoch,
            player: local.player.as_str().into(),
            resume: local.number > 0 || local.resume().is_some(),
            attempt: local.attempt,
        };
        common.tell_plain(cx, link, v1::Kind::Enter, &enter);
    }

    /// Takes the answer of the primary to a session that enters.
    fn entered(&self, common: &mut Common, cx: &mut RoomContext<'_>, link: Key, entered: &v1::Entered) {
        let Some(id) = SessionId::from_wire(&entered.session) else { return };
        let Some(local) = common.locals.iter_mut().find(|local| local.id == id) else {
            // The session left the room meanwhile, or is not on this node any more.
            if let (Ok(player), true) = (Name::new(&entered.player), entered.member > 0) {
                let exit = self.exit_of(common, entered.member, entered.session_epoch, false);
                let session = entered.session.clone();
                common.emit(cx, RoomEffect::Unwanted { link, session, player, exit });
            }
            return;
        };
        if local.attempt != entered.attempt {
            // The session has left since and joins again; that join has an answer of its own.
            return;
        }
        if entered.member == 0 && entered.session_epoch < local.epoch {
            // The session was registered anew since, and has entered again with that epoch.
            return;
        }
        if entered.member == 0 && entered.newest_epoch > local.epoch {
            let session = local.session;
            return common.refuse_outdated(cx, session, entered.newest_epoch);
        }
        if entered.member == 0 {
            let session = local.session;
            return common.expel(cx, session, entered.reason());
        }
        let (number, resumed) = (entered.member, entered.resumed);
        local.granted = Some(Granted { number, resumed, at: entered.seq });
        local.waits = true;
        Self::activate(common, cx);
    }

    /// Admits or continues waiting sessions, once the tail has reached the entry that the primary
    /// had when it granted the membership.
    pub(super) fn activate(common: &mut Common, cx: &mut RoomContext<'_>) {
        let Common { room, locals, .. } = common;
        let head = room.log().head();
        let first = room.log().first();
        let mut effects = Vec::new();
        let mut present = Vec::new();
        for local in locals.iter_mut().filter(|local| local.waits) {
            let Some(granted) = local.granted.filter(|granted| granted.at <= head) else { continue };
            (local.waits, local.granted) = (false, None);
            let session = local.session;
            let client_seq = room.member(granted.number).map_or(0, |member| member.client_seq);
            if local.number == granted.number {
                // Messages that were sent and did not arrive are sent again.
                let is_held = core::mem::take(&mut local.held);
                if (is_held || local.relayed > client_seq) && !cx.planted.is(Plant::RelayForgotten) {
                    effects.push(RoomEffect::Resend { session, expected: client_seq + 1 });
                }
            } else {
                let before = if granted.resumed { granted.at } else { granted.at.saturating_sub(1) };
                let seq = local.seat(granted.number, before, first, granted.at);
                let (number, resumed) = (granted.number, granted.resumed);
                let seated = Seated { number, seq, resumed, forgotten: room.state.forgotten() };
                effects.push(RoomEffect::Seated { session, seated });
            }
            if !cx.planted.is(Plant::RelayForgotten) {
                local.relayed = client_seq;
            }
            present.push(local.player.clone());
        }
        for effect in effects {
            common.emit(cx, effect);
        }
        for player in present {
            common.set_present(cx, &player, true);
        }
    }

    /// Has a member send its refused messages again.
    fn held(common: &mut Common, cx: &mut RoomContext<'_>, hold: &v1::Hold) {
        if cx.planted.is(Plant::HoldIgnored) {
            return;
        }
        // The member may have left meanwhile.
        let Some(local) = common.locals.of_member(hold.member) else { return };
        local.relayed = hold.expected.saturating_sub(1);
        let session = local.session;
        let (client_seq, expected, retry_after_ms) = (hold.expected, hold.expected, hold.retry_after_ms);
        common.emit(cx, RoomEffect::Hold { session, hold: Hold { client_seq, expected, retry_after_ms } });
    }

    pub(super) fn expel_member(
        common: &mut Common,
        cx: &mut RoomContext<'_>,
        number: u32,
        reason: v1::LeftReason,
    ) {
        // A member of another node, or one that has left here already.
        let Some(local) = common.locals.of_member(number) else { return };
        let session = local.session;
        common.expel(cx, session, reason);
    }

    fn depart(&self, common: &mut Common, cx: &mut RoomContext<'_>, session: Key, departure: Departure) {
        let Some(local) = common.depart(cx, session).filter(|local| local.number > 0) else { return };
        common.set_present(cx, &local.player, false);
        // A primary without a link to this node marks all members here away.
        if let Some(link) = self.link {
            let away = departure == Departure::Moves;
            let exit = self.exit_of(common, local.number, local.epoch, away);
            common.tell_plain(cx, link, v1::Kind::Exit, &exit);
        }
    }

    fn exit_of(&self, common: &Common, member: u32, session_epoch: u64, away: bool) -> v1::Exit {
        let (room, epoch) = (common.room.name().as_str().into(), common.room.epoch());
        v1::Exit { room, epoch, member, session_epoch, away }
    }
}
