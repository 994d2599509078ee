//! Departures from a room of which this node is the primary, and the places of members' sessions.

use alloc::vec::Vec;

use skirmish_proto::v1;

use super::common::Common;
use super::leading::{Leading, Place};
use super::{Departure, RoomContext, RoomEffect};
use crate::base::id::NodeId;
use crate::base::slab::Key;

impl Leading {
    pub(super) fn depart(
        &mut self,
        common: &mut Common,
        cx: &mut RoomContext<'_>,
        session: Key,
        departure: Departure,
    ) {
        let Some(local) = common.depart(cx, session) else { return };
        let Some(number) = self.member_of(session, local.number) else { return };
        match departure {
            Departure::Leaves => self.remove_member(common, cx, number),
            Departure::Moves => {
                self.set_away(cx, number);
                common.set_present(cx, &local.player, false);
            }
        }
    }

    /// Keeps a member without a session for as long as sessions are kept.
    fn set_away(&mut self, cx: &mut RoomContext<'_>, number: u32) {
        self.place(number, Place::Away(cx.now.instant + cx.config.sessions.ttl));
    }

    /// Removes a member. While the room may not be changed, the member is only marked, and removed
    /// later.
    pub(super) fn remove_member(&mut self, common: &mut Common, cx: &mut RoomContext<'_>, number: u32) {
        if common.room.future_member(number).is_none() {
            // Else the deadline of the member would stay for ever.
            self.forget(number);
            return cx.bugs.found("somebody goes who is no member");
        }
        if !self.may_serve(cx) {
            self.place(number, Place::Away(cx.now.instant));
            return;
        }
        self.forget(number);
        // Nobody waits for the membership any more.
        self.revoke_grants(number);
        common.room.leave(cx.now, number);
        self.commit(common, cx);
    }

    /// Ends the memberships of players that were away for too long.
    pub(super) fn expire_away(&mut self, common: &mut Common, cx: &mut RoomContext<'_>) {
        while let Some((until, number)) = self.away.first().copied()
            && until <= cx.now.instant
            && self.may_serve(cx)
        {
            cx.effects.counts.expiries += 1;
            let player = common.room.future_member(number).map(|member| member.player.clone());
            self.remove_member(common, cx, number);
            if let Some(player) = player {
                common.emit(cx, RoomEffect::Expired { player });
            }
        }
    }

    /// Removes a member of another node.
    pub(super) fn exit(
        &mut self,
        common: &mut Common,
        cx: &mut RoomContext<'_>,
        node: NodeId,
        exit: &v1::Exit,
    ) {
        let Some(member) = common.room.future_member(exit.member) else { return };
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
    pub(super) fn members_away(&mut self, common: &mut Common, cx: &mut RoomContext<'_>, node: NodeId) {
        let there = self.places.iter().filter(|(_, place)| **place == Place::There(node));
        let members: Vec<u32> = there.map(|(number, _)| *number).collect();
        for number in members {
            self.set_away(cx, number);
            // The player is not present before the join is applied.
            if let Some(player) = common.room.member(number).map(|member| member.player.clone()) {
                common.set_present(cx, &player, false);
            }
        }
        self.changed(common, cx);
    }

    // Places.

    /// Notes the place of a member's session. Returns the place before.
    pub(super) fn place(&mut self, number: u32, place: Place) -> Option<Place> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Instant;

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
