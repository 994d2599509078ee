//! A room of which this node is the primary: places of the members' sessions, joins and leaves.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use skirmish_proto::v1;

use super::common::Common;
use super::{Departure, NextRole, RoomContext, RoomEffect, RoomInput, Seated};
use crate::base::id::{Name, NodeId, SessionId};
use crate::base::slab::Key;
use crate::base::time::Instant;
use crate::room::{Member, Seat};
use crate::wire::RoomMessage;

/// State of a room's primary, beside the room.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leading {
    places: BTreeMap<u32, Place>,
    /// Members without a session, by the time until which they are members.
    away: BTreeSet<(Instant, u32)>,
}

/// The place of a member's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// On this node.
    Here(Key),
    /// On another node, over its link.
    There(NodeId),
    /// Unknown: the node or the link is gone, or another node owns the session and has not said so
    /// yet. The member is kept until then.
    Away(Instant),
}

/// A session that asks for a membership, on this node or on another.
struct Entrant {
    seat: Seat,
    place: Place,
    player: Name,
    resume: bool,
}

/// A membership that was granted.
struct Admitted {
    number: u32,
    resumed: bool,
    /// Entry before the membership, or the newest entry if the session was a member already.
    before: u64,
}

impl Leading {
    // Getters.

    /// The gate: returns true if the room may be changed now. No other code decides it.
    pub(super) const fn may_serve(cx: &RoomContext<'_>) -> bool {
        cx.leased
    }

    /// Returns true if the session of a member is on that node.
    pub(super) fn is_there(&self, number: u32, node: NodeId) -> bool {
        self.places.get(&number) == Some(&Place::There(node))
    }

    /// Returns the time of the next deadline. While the leases may have ended, no member is removed
    /// and no turn ends; [`RoomInput::Leased`] makes up for both.
    pub(super) fn deadline(&self, common: &Common, leased: bool) -> Option<Instant> {
        let expiry = self.away.first().map(|(until, _)| *until);
        [expiry, common.room.turn_ends_at()].into_iter().flatten().min().filter(|_| leased)
    }

    pub(super) fn audit(&self, members: usize) -> Result<(), &'static str> {
        if self.places.len() > members {
            return Err("places of members");
        }
        if self.away.len() > self.places.len() { Err("members that are away") } else { Ok(()) }
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
            RoomInput::Unlinked { link, node } => {
                if common.readers.end(link) {
                    self.members_away(common, cx, node);
                }
            }
            RoomInput::From { link, node, message, metadata } => {
                self.take(common, cx, link, node, message, &metadata);
            }
            RoomInput::PlacesKnown => {
                // Sessions on other nodes are let in when those nodes ask again.
                Self::attach_again(common, cx);
                self.seat_waiting(common, cx);
            }
            RoomInput::Leased => {
                Self::attach_again(common, cx);
                self.expire_away(common, cx);
                self.seat_waiting(common, cx);
                cx.effects.marks.book = true;
            }
            RoomInput::Timeout => {
                self.end_turn(common, cx);
                self.expire_away(common, cx);
            }
            RoomInput::Lost => {
                cx.effects.counts.rooms_lost += 1;
                return NextRole::Over(v1::LeftReason::Gone);
            }
            RoomInput::Close(reason) => return NextRole::Close(reason),
            // Taken before the role is asked, late answers of the registry, and links to a node that
            // the room does not follow.
            RoomInput::Arrive(_)
            | RoomInput::Redirect { .. }
            | RoomInput::Epoch { .. }
            | RoomInput::Presence { .. }
            | RoomInput::Led { .. }
            | RoomInput::LedBy { .. }
            | RoomInput::Unavailable
            | RoomInput::Unclaimed
            | RoomInput::PrimaryGone
            | RoomInput::Linked { .. } => {}
        }
        NextRole::Stay
    }

    /// Handles a message of a follower.
    fn take(
        &mut self,
        common: &mut Common,
        cx: &mut RoomContext<'_>,
        link: Key,
        node: NodeId,
        message: RoomMessage,
        metadata: &v1::Metadata,
    ) {
        if !common.is_epoch(cx, message.epoch()) {
            // The node waits for an answer to these; the others are late.
            if let RoomMessage::Attach(_) | RoomMessage::Enter(_) | RoomMessage::Relay(_) = message {
                common.refuse_epoch(cx, link, message.epoch());
            }
            return;
        }
        match message {
            RoomMessage::Attach(attach) => self.attach(common, cx, link, &attach),
            RoomMessage::Detach(_) => {
                common.readers.end(link);
                common.emit(cx, RoomEffect::Unread { link });
                // The node has reported every member that leaves; all others are away.
                self.members_away(common, cx, node);
            }
            RoomMessage::Enter(enter) => self.enter(common, cx, link, node, &enter),
            RoomMessage::Relay(relay) => self.take_relay(common, cx, link, node, relay, metadata),
            RoomMessage::Exit(exit) => self.exit(common, cx, node, &exit),
            RoomMessage::Latest(latest, _) => self.take_latest(common, cx, node, latest, metadata),
            RoomMessage::State(state) => {
                let replica = &mut common.room.state;
                let mut merge = |entries: &[_]| replica.merge_from_follower(cx.now, entries);
                if super::member::merge_all(&mut merge, &state.entries, &mut cx.effects.counts) {
                    self.changed(common, cx);
                    cx.effects.marks.book = true;
                }
            }
            // Late: about an epoch of the room in which this node was a follower.
            RoomMessage::Attached(_)
            | RoomMessage::Entered(_)
            | RoomMessage::Hold(_)
            | RoomMessage::Exited(_)
            | RoomMessage::Entry(..) => {}
        }
    }

    // Visibility for readers.

    /// Lets readers see a change: at once, or at the end of the flush interval.
    pub(super) fn changed(&self, common: &mut Common, cx: &mut RoomContext<'_>) {
        let interval = cx.config.rooms.flush_interval;
        // The window must not lose an entry that was not released.
        if interval.is_zero() || common.room.is_window_full() {
            common.release(cx);
        } else {
            common.room.gather_until(cx.now.instant + interval);
            cx.effects.marks.book = true;
        }
    }

    /// Has the registry note the number of members and the turn.
    pub(super) fn record(&self, common: &Common, cx: &mut RoomContext<'_>) {
        let members = common.room.members().len();
        // Nothing is written about a room that is being given up.
        if members > 0 {
            let turn = common.room.turn();
            let players = u32::try_from(members).unwrap_or(u32::MAX);
            common.emit(cx, RoomEffect::Record { players, turn: turn.number, turn_ends_ms: turn.ends_ms });
        }
    }

    fn end_turn(&self, common: &mut Common, cx: &mut RoomContext<'_>) {
        let is_over = common.room.turn_ends_at().is_some_and(|at| at <= cx.now.instant);
        if is_over && Self::may_serve(cx) {
            common.room.end_turn(cx.now, cx.zstd);
            cx.effects.counts.entries += 1;
            self.changed(common, cx);
            self.turned(common, cx);
        }
    }

    /// Notes that another turn has begun.
    pub(super) fn turned(&self, common: &Common, cx: &mut RoomContext<'_>) {
        cx.effects.marks.book = true;
        self.record(common, cx);
    }

    // Followers.

    /// Sends the tail of the room to a node, from the node's cursor or afresh.
    pub(super) fn attach(
        &self,
        common: &mut Common,
        cx: &mut RoomContext<'_>,
        link: Key,
        attach: &v1::Attach,
    ) {
        if !common.is_epoch(cx, attach.epoch) {
            common.emit(cx, RoomEffect::Unread { link });
            return common.refuse_epoch(cx, link, attach.epoch);
        }
        let log = common.room.log();
        let reaches = !common.room.has_lost(attach.seq) && attach.seq <= log.head() && attach.seq > 0;
        let attached = if reaches {
            let (room, epoch) = (attach.room.clone(), attach.epoch);
            v1::Attached { room, epoch, seq: attach.seq, number: attach.number, ..v1::Attached::default() }
        } else {
            afresh(common, attach.number)
        };
        common.readers.begin(link, attached.seq, attach.number);
        // Before anything is sent, since the end of a link ends the reading of every room over that
        // link.
        common.emit(cx, RoomEffect::Read { link });
        common.tell_plain(cx, link, v1::Kind::Attached, &attached);
    }

    /// Tells followers that the room continues after a time without a primary.
    fn attach_again(common: &Common, cx: &mut RoomContext<'_>) {
        let (room, epoch) = (common.room.name().as_str(), common.room.epoch());
        for (link, reader) in common.readers.iter() {
            let number = reader.attach;
            let attached = v1::Attached { room: room.into(), epoch, number, ..v1::Attached::default() };
            common.tell_plain(cx, *link, v1::Kind::Attached, &attached);
        }
    }

    /// Lets the session of another node in.
    fn enter(
        &mut self,
        common: &mut Common,
        cx: &mut RoomContext<'_>,
        link: Key,
        node: NodeId,
        enter: &v1::Enter,
    ) {
        let (Some(id), Ok(player)) = (SessionId::from_wire(&enter.session), Name::new(&enter.player)) else {
            return;
        };
        if !Self::may_serve(cx) || cx.places.are_awaited(common.room.name()) {
            // The follower asks again after the next `Attached`, which it receives when sessions
            // can be let in.
            return;
        }
        let entrant = Entrant {
            seat: Seat { session: id, epoch: enter.session_epoch },
            place: Place::There(node),
            player: player.clone(),
            resume: enter.resume,
        };
        let admitted = self.admit(common, cx, entrant);
        let mut entered = v1::Entered {
            room: enter.room.clone(),
            epoch: enter.epoch,
            session: enter.session.clone(),
            session_epoch: enter.session_epoch,
            player: enter.player.clone(),
            attempt: enter.attempt,
            seq: common.room.released(),
            ..v1::Entered::default()
        };
        match admitted {
            Ok(Admitted { number, resumed, .. }) => (entered.member, entered.resumed) = (number, resumed),
            Err(reason) => entered.reason = reason.into(),
        }
        common.tell_plain(cx, link, v1::Kind::Entered, &entered);
        // The registry will report that as well: the player is on that node now.
        common.emit(cx, RoomEffect::Superseded { player, epoch: enter.session_epoch });
    }

    /// Removes a member of another node.
    fn exit(&mut self, common: &mut Common, cx: &mut RoomContext<'_>, node: NodeId, exit: &v1::Exit) {
        let Some(member) = common.room.member(exit.member) else { return };
        if member.seat.epoch != exit.session_epoch || !self.is_there(exit.member, node) {
            return;
        }
        if exit.away {
            let player = member.player.clone();
            self.set_away(cx, exit.member);
            common.set_present(cx, &player, false);
            self.changed(common, cx);
        } else {
            self.remove_member(common, cx, exit.member);
        }
    }

    /// Marks members away if their sessions were on a node.
    fn members_away(&mut self, common: &mut Common, cx: &mut RoomContext<'_>, node: NodeId) {
        let there = common.room.members().iter().filter(|member| self.is_there(member.number, node));
        let members: Vec<_> = there.map(|member| (member.number, member.player.clone())).collect();
        for (number, player) in members {
            self.set_away(cx, number);
            common.set_present(cx, &player, false);
        }
        self.changed(common, cx);
    }

    // Coming in.

    /// Lets the waiting sessions of this node in.
    pub(super) fn seat_waiting(&mut self, common: &mut Common, cx: &mut RoomContext<'_>) {
        if Self::may_serve(cx) && !cx.places.are_awaited(common.room.name()) {
            for session in common.locals.waiting() {
                self.seat(common, cx, session);
            }
        }
    }

    fn seat(&mut self, common: &mut Common, cx: &mut RoomContext<'_>, session: Key) {
        // An entrant before this one may have ended another session of its player.
        let Some(local) = common.locals.get_mut(session) else { return };
        local.waits = false;
        if local.resume().is_some_and(|cursor| cursor.epoch != common.room.epoch()) {
            return common.expel(cx, session, v1::LeftReason::Gone);
        }
        let entrant = Entrant {
            seat: Seat { session: local.id, epoch: local.epoch },
            place: Place::Here(session),
            player: local.player.clone(),
            resume: local.resume().is_some(),
        };
        let Admitted { number, resumed, before } = match self.admit(common, cx, entrant) {
            Ok(admitted) => admitted,
            Err(reason) => return common.expel(cx, session, reason),
        };
        let Some(local) = common.locals.get_mut(session) else {
            return cx.bugs.found("a session vanished while it came in");
        };
        let room = &common.room;
        let seq = local.seat(number, before, room.log().first(), room.released());
        let seated = Seated { number, seq, resumed, forgotten: room.state.forgotten() };
        common.emit(cx, RoomEffect::Seated { session, seated });
    }

    /// Makes an entrant a member, or lets an earlier member continue.
    fn admit(
        &mut self,
        common: &mut Common,
        cx: &mut RoomContext<'_>,
        entrant: Entrant,
    ) -> Result<Admitted, v1::LeftReason> {
        self.end_other_sessions(common, cx, &entrant)?;
        let Entrant { seat, place, player, resume } = entrant;
        let members = common.room.members();
        let mut players = members.iter().map(|member| &member.player);
        let kept = cx.places.kept_from(common.room.name(), &player, &mut players);
        let is_full = members.len() + kept >= cx.config.rooms.members;
        let known = members.iter().find(|member| member.seat.session == seat.session);
        let admitted = match known.map(|member| (member.number, member.seat)) {
            // A newer connection of the session is known already. The entrant hears of that from
            // the registry, or may ask again when the newer one is gone.
            Some((_, old)) if old.epoch > seat.epoch => return Err(v1::LeftReason::Gone),
            Some((number, old)) => {
                if old != seat {
                    common.room.seat(cx.now, number, seat, cx.zstd);
                }
                let before = self.place(number, place);
                if let Some(Place::Here(session)) = before.filter(|before| *before != place) {
                    common.locals.remove(session);
                    common.emit(cx, RoomEffect::Drop { session });
                }
                Admitted { number, resumed: true, before: common.room.released() }
            }
            None if resume => return Err(v1::LeftReason::Gone),
            None if is_full => return Err(v1::LeftReason::RoomFull),
            None => {
                let Some(number) = common.room.join(cx.now, player.clone(), seat, cx.zstd) else {
                    cx.bugs.found("a join makes nobody a member");
                    return Err(v1::LeftReason::Gone);
                };
                self.place(number, place);
                cx.effects.counts.members += 1;
                Admitted { number, resumed: false, before: common.room.log().head() - 1 }
            }
        };
        common.set_present(cx, &player, true);
        common.release(cx);
        self.record(common, cx);
        Ok(admitted)
    }

    /// Ends the memberships of older sessions of the entrant's player, since a player has one
    /// session. An older session is not admitted after a newer one.
    fn end_other_sessions(
        &mut self,
        common: &mut Common,
        cx: &mut RoomContext<'_>,
        entrant: &Entrant,
    ) -> Result<(), v1::LeftReason> {
        let Entrant { seat, place, player, .. } = entrant;
        let is_other = |member: &&Member| member.player == *player && member.seat.session != seat.session;
        let others: Vec<(u32, Seat)> = common
            .room
            .members()
            .iter()
            .filter(is_other)
            .map(|member| (member.number, member.seat))
            .collect();
        let is_older = common.room.has_outlived(cx.now, player, seat.epoch);
        if is_older || others.iter().any(|(_, other)| other.epoch > seat.epoch) {
            return Err(v1::LeftReason::Gone);
        }
        for (number, _) in others {
            if let Some(Place::Here(session)) = self.places.get(&number).copied() {
                match place {
                    // The whole session is about to end, which its client is told.
                    Place::There(_) => {
                        common.locals.remove(session);
                        common.emit(cx, RoomEffect::Drop { session });
                    }
                    Place::Here(_) | Place::Away(_) => common.expel(cx, session, v1::LeftReason::Gone),
                }
            }
            self.remove_member(common, cx, number);
        }
        Ok(())
    }

    /// Registers the epoch of a session of this node as that of its member.
    pub(super) fn reseat(&mut self, common: &mut Common, cx: &mut RoomContext<'_>, session: Key) {
        let Some(local) = common.locals.get(session) else {
            return cx.bugs.found("a session that is not in the room is registered anew");
        };
        let (number, seat) = (local.number, Seat { session: local.id, epoch: local.epoch });
        if common.room.member(number).is_some() {
            common.room.seat(cx.now, number, seat, cx.zstd);
            self.place(number, Place::Here(session));
        }
    }

    // Going.

    fn depart(&mut self, common: &mut Common, cx: &mut RoomContext<'_>, session: Key, departure: Departure) {
        let Some(local) = common.depart(cx, session).filter(|local| local.number > 0) else { return };
        match departure {
            Departure::Leaves => self.remove_member(common, cx, local.number),
            Departure::Moves => {
                self.set_away(cx, local.number);
                common.set_present(cx, &local.player, false);
            }
        }
    }

    /// Keeps a member without a session for as long as sessions are kept.
    fn set_away(&mut self, cx: &mut RoomContext<'_>, number: u32) {
        self.place(number, Place::Away(cx.now.instant + cx.config.sessions.ttl));
        cx.effects.marks.book = true;
    }

    /// Removes a member. While the room may not be changed, the member is only marked, and removed
    /// later.
    fn remove_member(&mut self, common: &mut Common, cx: &mut RoomContext<'_>, number: u32) {
        cx.effects.marks.book = true;
        let Some(member) = common.room.member(number) else {
            // Else the deadline of the member would stay for ever.
            self.forget(number);
            return cx.bugs.found("somebody goes who is no member");
        };
        let player = member.player.clone();
        if !Self::may_serve(cx) {
            self.place(number, Place::Away(cx.now.instant));
            return;
        }
        self.forget(number);
        if common.room.state.set_present(cx.now, player.as_str(), false).is_err() {
            cx.effects.counts.state_full += 1;
        }
        common.room.leave(cx.now, number, cx.zstd);
        cx.effects.counts.members -= 1;
        common.release(cx);
        self.record(common, cx);
    }

    /// Ends the memberships of players that were away for too long.
    fn expire_away(&mut self, common: &mut Common, cx: &mut RoomContext<'_>) {
        while let Some((until, number)) = self.away.first().copied()
            && until <= cx.now.instant
            && Self::may_serve(cx)
        {
            cx.effects.counts.expiries += 1;
            let player = common.room.member(number).map(|member| member.player.clone());
            self.remove_member(common, cx, number);
            if let Some(player) = player {
                common.emit(cx, RoomEffect::Expired { player });
            }
        }
    }

    // Places.

    /// Notes the place of a member's session. Returns the place before.
    fn place(&mut self, number: u32, place: Place) -> Option<Place> {
        let before = self.forget(number);
        if let Place::Away(until) = place {
            self.away.insert((until, number));
        }
        self.places.insert(number, place);
        before
    }

    /// Forgets the place of a member's session, and returns it.
    fn forget(&mut self, number: u32) -> Option<Place> {
        let before = self.places.remove(&number);
        if let Some(Place::Away(until)) = before {
            self.away.remove(&(until, number));
        }
        before
    }
}

/// Returns the tail of a room, from the first entry of its window on, for the `Attach` of this
/// number.
pub(super) fn afresh(common: &Common, number: u64) -> v1::Attached {
    let room = &common.room;
    let member = |member: &Member| v1::TailMember {
        member: member.number,
        player: member.player.as_str().into(),
        client_seq: member.client_seq,
    };
    v1::Attached {
        room: room.name().as_str().into(),
        epoch: room.epoch(),
        seq: room.log().first() - 1,
        afresh: true,
        members: room.members().iter().map(member).collect(),
        turn: room.turn().number,
        turn_ends_ms: room.turn().ends_ms,
        number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_members_expire_in_order_and_stay_once_they_are_back() {
        let at = Instant::from_micros;
        let mut leading = Leading::default();
        leading.place(1, Place::Away(at(30)));
        leading.place(2, Place::Away(at(20)));
        leading.place(3, Place::There(NodeId(7)));
        assert_eq!((leading.places.len(), leading.away.len()), (3, 2));
        assert_eq!(leading.away.first(), Some(&(at(20), 2)));
        leading.place(2, Place::Away(at(40)));
        assert_eq!(leading.away.first(), Some(&(at(30), 1)));
        assert_eq!(leading.place(1, Place::There(NodeId(8))), Some(Place::Away(at(30))));
        leading.forget(2);
        assert_eq!((leading.places.len(), leading.away.len()), (2, 0));
        assert!(leading.is_there(1, NodeId(8)) && !leading.is_there(3, NodeId(8)));
    }
}
