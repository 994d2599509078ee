//! The way of a follower to the room's primary: the tail over a link, and another primary after a
//! take-over.

use alloc::vec::Vec;

use skirmish_proto::v1;

use super::backing::Duty;
use super::common::Common;
use super::following::{Following, Tail};
use super::local::LocalSession;
use super::{ATTACH_TIMEOUT, NextRole, RoomContext, RoomEffect};
use crate::base::id::{Name, NodeId};
use crate::base::plant::Plant;
use crate::base::slab::Key;
use crate::base::time::Duration;
use crate::registrar::Reign;
use crate::room::{Member, Seat, Turn};

/// Time after which the registry is asked for a primary that is out of reach.
const LOOK_AFTER: Duration = Duration::from_millis(100);

/// Pause between two questions to the registry for the primary of a room whose primary is gone.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

impl Following {
    // The primary.

    /// Hears which nodes lead the room and back it up.
    pub(super) fn hear_lead(
        &mut self,
        common: &mut Common,
        cx: &mut RoomContext<'_>,
        link: Key,
        from: NodeId,
        lead: &v1::Lead,
    ) {
        let backup = (lead.backup > 0).then_some(NodeId(lead.backup));
        if lead.term > self.term && NodeId(lead.primary) != cx.node {
            self.adopt(common, cx, NodeId(lead.primary), lead.term, backup);
        } else if lead.term == self.term && from == self.primary {
            self.set_backup(common, cx, backup);
            let is_dismissed = backup != Some(cx.node);
            let resigns = is_dismissed && self.is_backup();
            if resigns {
                self.resign(common, cx);
            } else if is_dismissed && self.is_kept() {
                // The primary has given this candidate up.
                self.duty = Duty::Reader;
            }
            // A node that was asked for the tail before it knew that it leads does not answer that.
            let is_owed = self.link == Some(link) && self.tail != Tail::Attached;
            if resigns || is_owed && NodeId(lead.primary) == from {
                self.ask(common, cx, link);
            }
        }
    }

    /// Tells a node that takes this one for the primary which node leads, and lets it wait for this one
    /// to lead if this is the backup. Returns false if the node can only be refused.
    pub(super) fn redirect(&mut self, common: &Common, cx: &mut RoomContext<'_>, link: Key) -> bool {
        if !self.keep_waiting(common, cx, link) && self.term < 2 {
            return false;
        }
        let backup = if self.is_backup() { Some(cx.node) } else { self.backup };
        let lead = v1::Lead {
            room: common.room.name().as_str().into(),
            epoch: common.room.epoch(),
            term: self.term,
            primary: self.primary.0,
            backup: backup.map_or(0, |backup| backup.0),
        };
        common.tell_plain(cx, link, v1::Kind::Lead, &lead);
        true
    }

    /// Follows another primary of the same life of the room.
    pub(super) fn adopt(
        &mut self,
        common: &mut Common,
        cx: &mut RoomContext<'_>,
        primary: NodeId,
        term: u32,
        backup: Option<NodeId>,
    ) {
        for node in self.leaders() {
            common.emit(cx, RoomEffect::Unfollow { node });
        }
        for link in [self.link.take(), self.backup_link.take()].into_iter().flatten() {
            common.readers.end(link);
            self.unread(common, cx, link);
        }
        (self.primary, self.term, self.look_at) = (primary, term, None);
        self.backup = backup.filter(|backup| *backup != cx.node);
        self.detach(cx);
        self.look_later(cx);
        self.trust();
        for node in self.leaders() {
            common.emit(cx, RoomEffect::Follow { node });
        }
    }

    fn set_backup(&mut self, common: &Common, cx: &mut RoomContext<'_>, backup: Option<NodeId>) {
        let backup = backup.filter(|backup| *backup != cx.node);
        if self.backup != backup {
            if let Some(node) = core::mem::replace(&mut self.backup, backup) {
                common.emit(cx, RoomEffect::Unfollow { node });
            }
            self.backup_link = None;
            if let Some(node) = backup {
                common.emit(cx, RoomEffect::Follow { node });
            }
        }
    }

    /// Finds out whether the primary leads that does not send the tail. It may have been dead when this
    /// node heard of it.
    fn doubt_primary(&mut self, common: &Common, cx: &mut RoomContext<'_>) {
        if self.is_backup() {
            self.suspect(common, cx);
        } else if cx.config.replication.replicas > 1 {
            self.look_at = Some(cx.now.instant);
            self.look(common, cx);
        }
    }

    /// Handles the loss of a node's record.
    pub(super) fn node_gone(
        &mut self,
        common: &mut Common,
        cx: &mut RoomContext<'_>,
        node: NodeId,
    ) -> NextRole {
        if self.backup == Some(node) {
            (self.backup, self.backup_link) = (None, None);
        }
        if self.primary != node {
            return NextRole::Stay;
        }
        if matches!(self.duty, Duty::Backup(_)) {
            self.suspect(common, cx);
        } else if self.backup.is_none() {
            return NextRole::Over(v1::LeftReason::Gone);
        } else {
            self.look_at = Some(cx.now.instant);
            self.look(common, cx);
        }
        if self.link.is_none() {
            // The node may come back before the backup has taken over.
            common.emit(cx, RoomEffect::Follow { node });
        }
        NextRole::Stay
    }

    /// Has the registry asked for the primary soon, unless the tail comes before.
    fn look_later(&mut self, cx: &RoomContext<'_>) {
        if !self.is_backup() && cx.config.replication.replicas > 1 {
            self.look_at = Some(cx.now.instant + LOOK_AFTER);
        }
    }

    /// Asks the registry for the primary, if it is time.
    pub(super) fn look(&mut self, common: &Common, cx: &mut RoomContext<'_>) {
        if self.look_at.is_some_and(|at| at <= cx.now.instant) {
            self.look_at = Some(cx.now.instant + LOOK_PAUSE);
            common.emit(cx, RoomEffect::Claim);
        }
    }

    /// Handles the registry's answer that names this node the primary.
    pub(super) fn led(&self, common: &Common, cx: &mut RoomContext<'_>, reign: Reign) -> NextRole {
        if reign.epoch == common.room.epoch() && self.is_taking_over() {
            return NextRole::TakeOver(reign);
        }
        // A new life of the room, or one whose state this node does not have any more.
        common.emit(cx, RoomEffect::Release);
        NextRole::Over(v1::LeftReason::Gone)
    }

    /// Handles the registry's answer that names another node the primary.
    pub(super) fn led_by(&mut self, common: &mut Common, cx: &mut RoomContext<'_>, reign: Reign) -> NextRole {
        let Reign { epoch, term, primary, backup, .. } = reign;
        if epoch != common.room.epoch() || primary == cx.node {
            return NextRole::Over(v1::LeftReason::Gone);
        }
        let was_taking_over = self.is_taking_over();
        self.take_over_later(cx);
        if term > self.term {
            self.adopt(common, cx, primary, term, backup);
        } else if term == self.term {
            self.set_backup(common, cx, backup);
            if was_taking_over && backup != Some(cx.node) {
                // The record does not name this node.
                self.resign(common, cx);
                match self.link {
                    Some(link) => self.ask(common, cx, link),
                    None => self.look_at = Some(cx.now.instant + LOOK_PAUSE),
                }
            }
        }
        NextRole::Stay
    }

    /// Handles the missing answer of the registry.
    pub(super) fn unanswered(&mut self, cx: &mut RoomContext<'_>) {
        self.take_over_later(cx);
    }

    // The tail.

    /// Asks for the tail over a link that has opened: from the primary, or from the backup if the primary
    /// may be dead.
    pub(super) fn linked(&mut self, common: &Common, cx: &mut RoomContext<'_>, link: Key, node: NodeId) {
        if node == self.primary {
            self.trust();
            self.ask(common, cx, link);
        } else if self.backup == Some(node) {
            self.backup_link = Some(link);
            self.ask_backup(common, cx);
        }
    }

    /// Asks for the tail over a link to the primary.
    fn ask(&mut self, common: &Common, cx: &mut RoomContext<'_>, link: Key) {
        self.link = Some(link);
        self.attach = cx.next_attempt();
        self.detach(cx);
        common.emit(cx, RoomEffect::Read { link });
        let seq = common.room.log().head();
        self.tell_attach(common, cx, link, seq);
    }

    /// Asks for the whole tail over a link to the primary, since the own one is wrong.
    pub(super) fn ask_afresh(&mut self, common: &Common, cx: &mut RoomContext<'_>, link: Key) {
        self.attach = cx.next_attempt();
        self.detach(cx);
        self.tell_attach(common, cx, link, 0);
    }

    /// Lets the backup know that this node waits for it to lead, while the primary is out of reach.
    fn ask_backup(&self, common: &Common, cx: &mut RoomContext<'_>) {
        if let (None, Some(link)) = (self.link, self.backup_link) {
            self.tell_attach(common, cx, link, common.room.log().head());
        }
    }

    fn tell_attach(&self, common: &Common, cx: &mut RoomContext<'_>, link: Key, seq: u64) {
        let stores = matches!(self.duty, Duty::Backup(_));
        let attach = v1::Attach {
            room: common.room.name().as_str().into(),
            epoch: common.room.epoch(),
            seq,
            number: self.attach,
            applied: if stores { common.room.applied() } else { 0 },
            runs: if stores { common.room.runs() } else { Vec::new() },
            stores,
        };
        common.tell_plain(cx, link, v1::Kind::Attach, &attach);
    }

    /// Waits for the tail from now on.
    pub(super) fn detach(&mut self, cx: &mut RoomContext<'_>) {
        self.tail = Tail::Detached { until: cx.now.instant + ATTACH_TIMEOUT };
    }

    pub(super) fn unlinked(&mut self, common: &mut Common, cx: &mut RoomContext<'_>, link: Key) {
        if common.readers.end(link) {
            self.detach(cx);
        }
        self.forget_waiting(common, cx, link);
        self.backup_link = self.backup_link.filter(|open| *open != link);
        if self.link == Some(link) {
            self.link = None;
            self.suspect(common, cx);
            self.ask_backup(common, cx);
            // The backup that this node knows of may be dead, or not the last one.
            self.look_later(cx);
        }
    }

    pub(super) fn attached(
        &mut self,
        common: &mut Common,
        cx: &mut RoomContext<'_>,
        link: Key,
        attached: v1::Attached,
    ) {
        if self.attach != attached.number && !cx.planted.is(Plant::JoinRaceTold) {
            return;
        }
        let is_first = core::mem::replace(&mut self.tail, Tail::Attached) != Tail::Attached;
        self.term = self.term.max(attached.term);
        self.look_at = None;
        self.set_backup(common, cx, (attached.backup > 0).then_some(NodeId(attached.backup)));
        if !attached.replicates && matches!(self.duty, Duty::Backup(_)) {
            self.resign(common, cx);
        }
        if attached.afresh {
            let member = |member: v1::TailMember| {
                let v1::TailMember { member: number, player, client_seq } = member;
                Some(Member { number, player: Name::new(&player).ok()?, seat: Seat::UNKNOWN, client_seq })
            };
            let members = attached.members.into_iter().filter_map(member).collect();
            let turn = Turn { number: attached.turn, ends_ms: attached.turn_ends_ms };
            common.room.follow_from(attached.seq, members, turn);
            Self::expel_strangers(common, cx);
            cx.effects.marks.wake = true;
        }
        if is_first {
            // Sessions that were members before continue; those that wait are admitted.
            common.locals.iter_mut().for_each(|local| local.waits = true);
            common.readers.begin(link, 0, 0, false);
            common.emit(cx, RoomEffect::Read { link });
        }
        self.enter_waiting(common, cx);
    }

    /// Expels members of this node that are none any more: they left with an entry that is not in
    /// the window now, of which the tail does not tell.
    fn expel_strangers(common: &mut Common, cx: &mut RoomContext<'_>) {
        let room = &common.room;
        let is_stranger = |local: &&LocalSession| local.number > 0 && room.member(local.number).is_none();
        let strangers: Vec<Key> =
            common.locals.iter().filter(is_stranger).map(|local| local.session).collect();
        for session in strangers {
            common.expel(cx, session, v1::LeftReason::Gone);
        }
    }

    /// Expels the sessions that have waited for the tail for too long, so that they try again.
    pub(super) fn tail_overdue(&mut self, common: &mut Common, cx: &mut RoomContext<'_>) {
        if self.overdue_at().is_some_and(|until| until <= cx.now.instant) {
            self.detach(cx);
            self.doubt_primary(common, cx);
            let overdue = common.locals.take(|local| local.waits && local.number == 0);
            for local in overdue {
                common.emit(cx, RoomEffect::Expel { session: local.session, reason: v1::LeftReason::Gone });
            }
        }
    }
}
