//! The admission of sessions to a room of which this node is the primary.
//!
//! A membership is granted once the op that makes it is applied: until then the op may be lost with
//! this node, and nobody may have been told of it.

use alloc::vec::Vec;

use skirmish_proto::v1;

use super::common::Common;
use super::leading::{Leading, Place};
use super::{RoomContext, RoomEffect, Seated};
use crate::base::id::{Name, NodeId, SessionId};
use crate::base::slab::Key;
use crate::room::{FutureMember, Seat};

/// A session that asks for a membership, on this node or on another.
struct Entrant {
    seat: Seat,
    place: Place,
    player: Name,
    resume: bool,
}

/// Cause for which an entrant is not let in.
enum NotAdmitted {
    For(v1::LeftReason),
    /// The player has gone on with another epoch of this or another session.
    Outdated {
        newest_epoch: u64,
    },
}

/// A membership that is granted once an op is applied.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    /// Number of the op.
    op: u64,
    number: u32,
    resumed: bool,
    to: Grantee,
}

/// Session that a membership is granted to.
#[derive(Clone, Debug)]
enum Grantee {
    /// To a session of this node.
    Here(Key),
    /// To another node, over a link.
    There { link: Key, node: NodeId, enter: v1::Enter, player: Name },
}

/// The membership of an entrant.
struct Admitted {
    number: u32,
    resumed: bool,
}

impl Leading {
    /// Grants the memberships whose op is applied.
    pub(super) fn give_grants(&mut self, common: &mut Common, cx: &mut RoomContext<'_>) {
        while self.grants.front().is_some_and(|grant| grant.op <= common.room.applied())
            && let Some(Grant { number, resumed, to, .. }) = self.grants.pop_front()
        {
            // The session may have gone meanwhile.
            if let (Some(member), Some(Place::Here(_) | Place::There(_))) =
                (common.room.member(number), self.places.get(&number))
            {
                let player = member.player.clone();
                common.set_present(cx, &player, true);
            }
            common.release(cx);
            self.record(common, cx);
            match to {
                Grantee::Here(session) => Self::seat_local(common, cx, session, number, resumed),
                Grantee::There { link, node, enter, player } => {
                    if self.is_there(number, node) {
                        Self::tell_entered(common, cx, link, enter, player, Ok(Admitted { number, resumed }));
                    }
                }
            }
        }
    }

    /// Lets the waiting sessions of this node in.
    pub(super) fn seat_waiting(&mut self, common: &mut Common, cx: &mut RoomContext<'_>) {
        if self.may_serve(cx) && !cx.places.are_awaited(common.room.name()) {
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
        match self.admit(common, cx, entrant) {
            Ok(admitted) => self.grant_after(common, cx, admitted, Grantee::Here(session)),
            Err(NotAdmitted::Outdated { newest_epoch }) => common.refuse_outdated(cx, session, newest_epoch),
            Err(NotAdmitted::For(reason)) => common.expel(cx, session, reason),
        }
    }

    /// Has a membership granted once everything that was appended for it is applied.
    fn grant_after(
        &mut self,
        common: &mut Common,
        cx: &mut RoomContext<'_>,
        admitted: Admitted,
        to: Grantee,
    ) {
        let Admitted { number, resumed } = admitted;
        // A session that asks again, or from another place, is answered once.
        self.revoke_grants(number);
        self.grants.push_back(Grant { op: common.room.appended(), number, resumed, to });
        self.commit(common, cx);
        self.give_grants(common, cx);
    }

    /// Takes back what was to be granted to a member.
    pub(super) fn revoke_grants(&mut self, number: u32) {
        self.grants.retain(|grant| grant.number != number);
    }

    /// Makes a session of this node the session of a member.
    fn seat_local(common: &mut Common, cx: &mut RoomContext<'_>, session: Key, number: u32, resumed: bool) {
        let Common { room, locals, .. } = common;
        // A session that has left meanwhile is no member of this node any more.
        let Some(local) = locals.get_mut(session) else { return };
        let before = if resumed { room.released() } else { room.log().head() - 1 };
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
    ) -> Result<Admitted, NotAdmitted> {
        self.end_other_sessions(common, cx, &entrant)?;
        let Entrant { seat, place, player, resume } = entrant;
        let mut members = 0;
        let mut known = None;
        for member in common.room.future_members() {
            members += 1;
            if member.seat.session == seat.session {
                known = Some((member.number, member.seat));
            }
        }
        match known {
            // A newer connection of the session is known already. The entrant hears of that from
            // the registry, or may ask again when the newer one is gone.
            Some((_, old)) if old.epoch > seat.epoch => {
                Err(NotAdmitted::Outdated { newest_epoch: old.epoch })
            }
            Some((number, old)) => {
                if old != seat {
                    common.room.seat(cx.now, number, seat);
                }
                let before = self.place(number, place);
                if let Some(Place::Here(session)) = before.filter(|before| *before != place) {
                    common.locals.remove(session);
                    common.emit(cx, RoomEffect::Drop { session });
                }
                Ok(Admitted { number, resumed: true })
            }
            None if resume => Err(NotAdmitted::For(v1::LeftReason::Gone)),
            None => {
                let kept = {
                    let mut players = common.room.future_members().map(|member| member.player);
                    cx.places.kept_from(common.room.name(), &player, &mut players)
                };
                if members + kept >= cx.config.rooms.members {
                    return Err(NotAdmitted::For(v1::LeftReason::RoomFull));
                }
                let number = common.room.join(cx.now, player, seat);
                self.place(number, place);
                Ok(Admitted { number, resumed: false })
            }
        }
    }

    /// Ends the memberships of older sessions of the entrant's player, since a player has one
    /// session. An older session is not admitted after a newer one.
    fn end_other_sessions(
        &mut self,
        common: &mut Common,
        cx: &mut RoomContext<'_>,
        entrant: &Entrant,
    ) -> Result<(), NotAdmitted> {
        let Entrant { seat, player, .. } = entrant;
        let is_other =
            |member: &FutureMember<'_>| member.player == player && member.seat.session != seat.session;
        let others: Vec<(u32, Seat)> = common
            .room
            .future_members()
            .filter(is_other)
            .map(|member| (member.number, member.seat))
            .collect();
        let newest_epoch = others.iter().map(|(_, other)| other.epoch).max().unwrap_or(0);
        if newest_epoch > seat.epoch {
            return Err(NotAdmitted::Outdated { newest_epoch });
        }
        if common.room.has_outlived(cx.now, player, seat.epoch) {
            return Err(NotAdmitted::For(v1::LeftReason::Gone));
        }
        for (number, _) in others {
            // The session ends as well, but only once the registry says so.
            if let Some(Place::Here(session)) = self.places.get(&number).copied() {
                common.expel(cx, session, v1::LeftReason::Gone);
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
        let seat = Seat { session: local.id, epoch: local.epoch };
        if let Some(number) = self.member_of(session, local.number)
            && common.room.future_member(number).is_some()
        {
            common.room.seat(cx.now, number, seat);
            self.place(number, Place::Here(session));
            self.commit(common, cx);
        }
    }

    /// Returns the number of the member that a session of this node is, or will be once its join is
    /// applied. `number` is the number that the session knows; 0 for none.
    pub(super) fn member_of(&self, session: Key, number: u32) -> Option<u32> {
        let granted = |grant: &&Grant| matches!(grant.to, Grantee::Here(to) if to == session);
        match number {
            0 => self.grants.iter().find(granted).map(|grant| grant.number),
            number => Some(number),
        }
    }

    /// Lets the session of another node in.
    pub(super) fn enter(
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
        if !self.may_serve(cx) || cx.places.are_awaited(common.room.name()) {
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
        match self.admit(common, cx, entrant) {
            Ok(admitted) => {
                let to = Grantee::There { link, node, enter: enter.clone(), player };
                self.grant_after(common, cx, admitted, to);
            }
            Err(refusal) => Self::tell_entered(common, cx, link, enter.clone(), player, Err(refusal)),
        }
    }

    /// Answers another node that has asked to let a session in.
    fn tell_entered(
        common: &Common,
        cx: &mut RoomContext<'_>,
        link: Key,
        enter: v1::Enter,
        player: Name,
        admitted: Result<Admitted, NotAdmitted>,
    ) {
        let v1::Enter { room, epoch, session, session_epoch, player: name, attempt, .. } = enter;
        let seq = common.room.released();
        let mut entered = v1::Entered {
            room,
            epoch,
            session,
            session_epoch,
            player: name,
            attempt,
            seq,
            ..v1::Entered::default()
        };
        match admitted {
            Ok(Admitted { number, resumed }) => (entered.member, entered.resumed) = (number, resumed),
            Err(NotAdmitted::For(reason)) => entered.reason = reason.into(),
            Err(NotAdmitted::Outdated { newest_epoch }) => {
                entered.newest_epoch = newest_epoch;
                entered.reason = v1::LeftReason::Gone.into();
            }
        }
        common.tell_plain(cx, link, v1::Kind::Entered, &entered);
        // The registry will report that as well: the player is on that node now.
        common.emit(cx, RoomEffect::Superseded { player, epoch: session_epoch });
    }
}
