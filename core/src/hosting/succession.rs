//! Changes of the primary within a life of a room: a backup takes over, a primary steps down.

use alloc::vec::Vec;

use skirmish_proto::v1;

use super::common::Common;
use super::leading::{Leading, Place};
use super::local::LocalSession;
use super::pair::Pair;
use super::{ATTACH_TIMEOUT, Following, Hosted, Role, RoomContext, RoomEffect};
use crate::base::slab::Key;
use crate::registrar::Reign;

impl Hosted {
    /// Returns true if an answer of the registry about the room's primary is awaited.
    pub(crate) fn awaits_registry(&self) -> bool {
        match &self.role {
            Role::Claiming(_) => true,
            Role::Leading(_) => false,
            Role::Following(following) => following.is_taking_over() || following.looks(),
        }
    }

    /// Takes the lead over from the primary whose backup this node is. Everything that is stored will be
    /// committed, by the rule of the pair.
    pub(super) fn take_over(&mut self, cx: &mut RoomContext<'_>, reign: Reign) {
        let Self { common, role } = self;
        let before = core::mem::replace(role, Role::Leading(Leading::default()));
        let (Role::Leading(leading), Role::Following(following)) = (role, before) else {
            return cx.bugs.found("a room is taken over that was not followed");
        };
        for node in following.leaders() {
            common.emit(cx, RoomEffect::Unfollow { node });
        }
        let old_link = following.link();
        for link in common.readers.take() {
            common.emit(cx, RoomEffect::Unread { link });
        }
        common.room.lead(cx.now, reign.term);
        let patience = cx.now.instant + cx.config.replication.backup_patience;
        if let Some(peer) = reign.backup {
            leading.pair = Pair::swapped(&common.room, peer, reign.revision, patience, old_link.is_none());
        }
        cx.effects.counts.members += common.room.members().len();
        cx.effects.counts.rooms_taken_over += 1;
        common.emit(cx, RoomEffect::TookOver { epoch: common.room.epoch(), term: reign.term });
        leading.take_places(common, cx);
        let lead = leading.lead_message(common, cx);
        let waiting = following.finish();
        for link in waiting.iter().copied().chain(old_link) {
            common.tell_plain(cx, link, v1::Kind::Lead, &lead);
        }
        // The room is read over the old link since this node has asked for the tail, which may not have come.
        for link in waiting.into_iter().chain(old_link) {
            common.emit(cx, RoomEffect::Unread { link });
        }
        leading.commit(common, cx);
        leading.seat_waiting(common, cx);
        leading.review_pair(common, cx);
    }

    /// Follows the node that has taken over, as its backup if the record names this node.
    pub(super) fn step_down(&mut self, cx: &mut RoomContext<'_>, reign: Reign) {
        let Reign { term, primary, backup, .. } = reign;
        let Self { common, role } = self;
        let until = cx.now.instant + ATTACH_TIMEOUT;
        let following = if backup == Some(cx.node) {
            Following::deposed(reign, until)
        } else {
            common.room.end_backup();
            Following::new(reign, until)
        };
        cx.effects.counts.members -= common.room.members().len();
        let Common { room, locals, .. } = common;
        for local in locals.iter_mut() {
            // Messages that were appended may be lost, and are sent again.
            local.relayed = room.future_member(local.number).map_or(0, |member| member.client_seq);
            (local.waits, local.granted, local.held) = (true, None, true);
        }
        common.release(cx);
        let lead = v1::Lead {
            room: common.room.name().as_str().into(),
            epoch: common.room.epoch(),
            term,
            primary: primary.0,
            backup: backup.map_or(0, |backup| backup.0),
        };
        for link in common.readers.take() {
            common.tell_plain(cx, link, v1::Kind::Lead, &lead);
            common.emit(cx, RoomEffect::Unread { link });
        }
        common.emit(cx, RoomEffect::SteppedDown { epoch: common.room.epoch(), term });
        for node in following.leaders() {
            common.emit(cx, RoomEffect::Follow { node });
        }
        *role = Role::Following(following);
    }
}

impl Leading {
    /// Finds the places of the members: on this node, or unknown until they come.
    fn take_places(&mut self, common: &mut Common, cx: &mut RoomContext<'_>) {
        let away = Place::Away(cx.now.instant + cx.config.sessions.ttl);
        let members: Vec<(u32, u64, u64)> = common
            .room
            .future_members()
            .map(|member| (member.number, member.seat.epoch, member.client_seq))
            .collect();
        for (number, epoch, client_seq) in &members {
            // The session has gone on at another node, of which this node has not heard.
            let is_outdated = |local: &&mut LocalSession| local.epoch < *epoch;
            if let Some(local) = common.locals.of_member(*number).filter(is_outdated) {
                let (session, player) = (local.session, local.player.clone());
                common.locals.remove(session);
                common.emit(cx, RoomEffect::Drop { session });
                common.emit(cx, RoomEffect::Superseded { player, epoch: *epoch });
            }
            let local = common.locals.of_member(*number).map(|local| {
                local.held = false;
                local.relayed = 0;
                local.session
            });
            self.place(*number, local.map_or(away, Place::Here));
            if let Some(session) = local {
                common.emit(cx, RoomEffect::Resend { session, expected: client_seq + 1 });
            }
        }
        let is_stranger = |number: u32| number > 0 && members.iter().all(|(member, ..)| *member != number);
        let strangers: Vec<Key> = common
            .locals
            .iter()
            .filter(|local| is_stranger(local.number))
            .map(|local| local.session)
            .collect();
        for session in strangers {
            common.expel(cx, session, v1::LeftReason::Gone);
        }
    }
}
