//! A room of which this node is the primary: when it may change, what is committed, and who reads.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use skirmish_proto::v1;

use super::admission::Grant;
use super::common::Common;
use super::context::LiveLeases;
use super::pair::{Pair, PairState};
use super::{NextRole, RoomContext, RoomEffect, RoomInput};
use crate::base::id::NodeId;
use crate::base::slab::Key;
use crate::base::time::Instant;
use crate::room::{Applied, Member};
use crate::wire::RoomMessage;

/// State of a room's primary, beside the room.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leading {
    /// Place of each member's session, also of those whose join is not applied yet.
    pub(super) places: BTreeMap<u32, Place>,
    /// Members without a session, by the time until which they are members.
    pub(super) away: BTreeSet<(Instant, u32)>,
    /// Memberships to grant, by the op after which they are granted.
    pub(super) grants: VecDeque<Grant>,
    /// The backup of the room, or its candidate.
    pub(super) pair: Pair,
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

impl Leading {
    // Getters.

    /// The gate: returns true if the room may be changed now. No other code decides it.
    pub(super) const fn may_serve(&self, cx: &RoomContext<'_>) -> bool {
        self.pair.may_serve(cx.leases)
    }

    /// Returns the number of members whose sessions are on other nodes, for each.
    pub(super) fn members_by_node(&self) -> BTreeMap<NodeId, usize> {
        let mut members = BTreeMap::new();
        for place in self.places.values() {
            if let Place::There(node) = place {
                *members.entry(*node).or_default() += 1;
            }
        }
        members
    }

    /// Returns true if the session of a member is on that node.
    pub(super) fn is_there(&self, number: u32, node: NodeId) -> bool {
        self.places.get(&number) == Some(&Place::There(node))
    }

    /// Returns the time of the next deadline. While the leases may have ended, no member is removed
    /// and no turn ends; [`RoomInput::Leased`] makes up for both.
    pub(super) fn deadline(&self, common: &Common, leases: LiveLeases) -> Option<Instant> {
        let expiry = self.away.first().map(|(until, _)| *until);
        let turn = common.room.turn_ends_at().filter(|_| !common.room.is_turn_ending());
        let changes = [expiry, turn].into_iter().flatten().min().filter(|_| self.pair.may_serve(leases));
        [changes, self.pair_deadline(common, leases)].into_iter().flatten().min()
    }

    pub(super) fn audit(&self, members: usize) -> Result<(), &'static str> {
        if self.places.len() > members {
            return Err("places of members");
        }
        if self.grants.len() > self.places.len() {
            return Err("memberships to grant");
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
                self.lose_peer(common, cx, node);
            }
            RoomInput::From { link, node, message, metadata } => {
                if let RoomMessage::Lead(lead) = &message
                    && common.is_epoch(cx, lead.epoch)
                    && let Some(next) = Self::is_deposed_by(common, lead)
                {
                    return next;
                }
                self.take(common, cx, link, node, message, &metadata);
            }
            RoomInput::Paired { backup, revision } => self.recorded(common, cx, backup, revision),
            RoomInput::Deposed(reign) => {
                if reign.epoch == common.room.epoch() && reign.term > common.room.term() {
                    return NextRole::StepDown(reign);
                }
            }
            RoomInput::PeersChanged => self.peers_changed(common, cx),
            RoomInput::PlacesKnown => {
                // Sessions on other nodes are let in when those nodes ask again.
                self.attach_again(common, cx);
                self.seat_waiting(common, cx);
            }
            RoomInput::Leased => {
                self.attach_again(common, cx);
                self.commit(common, cx);
                self.expire_away(common, cx);
                self.seat_waiting(common, cx);
                self.review_pair(common, cx);
            }
            RoomInput::Timeout => {
                if common.is_time_to_ask_again(cx.now.instant) {
                    self.seat_waiting(common, cx);
                }
                self.end_turn(common, cx);
                self.expire_away(common, cx);
                self.review_pair(common, cx);
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
            | RoomInput::Led(_)
            | RoomInput::LedBy(_)
            | RoomInput::Vacant
            | RoomInput::Recruited(_)
            | RoomInput::Unavailable
            | RoomInput::Unclaimed
            | RoomInput::NodeGone { .. }
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
            RoomMessage::Attach(attach) => self.attach(common, cx, link, node, &attach),
            RoomMessage::Detach(_) => {
                common.readers.end(link);
                common.emit(cx, RoomEffect::Unread { link });
                // The node has reported every member that leaves; all others are away.
                self.members_away(common, cx, node);
                self.lose_peer(common, cx, node);
            }
            RoomMessage::Stored(stored) => self.stored(common, cx, node, &stored),
            // A primary that was deposed does not know yet.
            RoomMessage::Recruit(v1::Recruit { term, .. })
            | RoomMessage::Install(v1::Install { term, .. })
            | RoomMessage::Replicate(v1::Replicate { term, .. })
            | RoomMessage::Lead(v1::Lead { term, .. }) => {
                if term < common.room.term() {
                    let lead = self.lead_message(common, cx);
                    common.tell_plain(cx, link, v1::Kind::Lead, &lead);
                }
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

    fn end_turn(&mut self, common: &mut Common, cx: &mut RoomContext<'_>) {
        let is_over = common.room.turn_ends_at().is_some_and(|at| at <= cx.now.instant);
        if is_over && self.may_serve(cx) {
            common.room.end_turn(cx.now);
            self.commit(common, cx);
        }
    }

    // Commit.

    /// Commits what cannot be lost any more, and grants the memberships that wait for it. A lone primary
    /// commits everything that it has appended.
    pub(super) fn commit(&mut self, common: &mut Common, cx: &mut RoomContext<'_>) {
        self.send_ops(common, cx);
        while self.pair.may_commit(common.room.applied() + 1, cx.leases, cx.planted)
            && let Some(applied) = common.room.commit_next(cx.now, cx.zstd)
        {
            match applied {
                Applied::Silent => {}
                Applied::Entry { turned } => {
                    cx.effects.counts.entries += 1;
                    self.changed(common, cx);
                    if turned {
                        self.record(common, cx);
                    }
                }
                Applied::Joined { .. } => cx.effects.counts.members += 1,
                Applied::Left { player, .. } => {
                    if common.room.state.set_present(cx.now, player.as_str(), false).is_err() {
                        cx.effects.counts.state_full += 1;
                    }
                    cx.effects.counts.members -= 1;
                    common.release(cx);
                    self.record(common, cx);
                }
            }
            self.give_grants(common, cx);
        }
        if self.pair.state() == PairState::Recruiting {
            self.review_pair(common, cx);
        }
    }

    /// Adds the ops that were appended to those for the backup.
    fn send_ops(&mut self, common: &Common, cx: &mut RoomContext<'_>) {
        let Some(peer) = self.pair.peer_mut() else { return };
        let Some(stream) = &mut peer.stream else { return };
        if stream.is_through() {
            // Until now the backup has owed nothing.
            peer.patience = cx.now.instant + cx.config.replication.backup_patience;
        }
        for op in common.room.ops_after(stream.newest()) {
            stream.push(op);
            cx.effects.marks.wake_links = true;
        }
    }

    // Followers.

    /// Sends the tail of the room to a node, from the node's cursor or afresh.
    pub(super) fn attach(
        &mut self,
        common: &mut Common,
        cx: &mut RoomContext<'_>,
        link: Key,
        node: NodeId,
        attach: &v1::Attach,
    ) {
        if !common.is_epoch(cx, attach.epoch) {
            common.emit(cx, RoomEffect::Unread { link });
            return common.refuse_epoch(cx, link, attach.epoch);
        }
        let replicates = self.rejoin(common, cx, link, node, attach);
        let log = common.room.log();
        let reaches = !common.room.has_lost(attach.seq) && attach.seq <= log.head() && attach.seq > 0;
        let attached = if reaches || replicates {
            let seq = attach.seq;
            v1::Attached { seq, replicates, ..self.attached(common, attach.number) }
        } else {
            self.afresh(common, attach.number)
        };
        common.readers.begin(link, attached.seq, attach.number, replicates);
        // Before anything is sent, since the end of a link ends the reading of every room over that
        // link.
        common.emit(cx, RoomEffect::Read { link });
        common.tell_plain(cx, link, v1::Kind::Attached, &attached);
        // The backup may have told which ops it has stored, and owe no other word of them.
        self.commit(common, cx);
        self.review_pair(common, cx);
    }

    /// Tells followers that the room continues after a time without a primary.
    fn attach_again(&self, common: &Common, cx: &mut RoomContext<'_>) {
        for (link, reader) in common.readers.iter() {
            let replicates = reader.stores;
            let attached = v1::Attached { replicates, ..self.attached(common, reader.attach) };
            common.tell_plain(cx, *link, v1::Kind::Attached, &attached);
        }
    }

    /// Returns the answer to the `Attach` of this number, without a place in the log.
    fn attached(&self, common: &Common, number: u64) -> v1::Attached {
        let room = &common.room;
        let backup = self.pair.backup().map_or(0, |backup| backup.0);
        let (name, epoch, term) = (room.name().as_str().into(), room.epoch(), room.term());
        v1::Attached { room: name, epoch, number, term, backup, ..v1::Attached::default() }
    }

    /// Returns the tail of the room, from the first entry of its window on, for the `Attach` of this
    /// number.
    pub(super) fn afresh(&self, common: &Common, number: u64) -> v1::Attached {
        let room = &common.room;
        let member = |member: &Member| v1::TailMember {
            member: member.number,
            player: member.player.as_str().into(),
            client_seq: member.client_seq,
        };
        v1::Attached {
            seq: room.log().first() - 1,
            afresh: true,
            members: room.members().iter().map(member).collect(),
            turn: room.turn().number,
            turn_ends_ms: room.turn().ends_ms,
            ..self.attached(common, number)
        }
    }
}
