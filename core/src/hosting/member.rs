//! Messages of members, and the frames that members and other nodes are owed.

use bytes::Bytes;
use skirmish_proto::v1;

use super::common::Common;
use super::leading::Leading;
use super::reader::Reader;
use super::{
    CONGESTED_RETRY_MS, Following, Hosted, PENDING_RETRY_MS, Passage, Role, RoomContext, RoomCounts,
    STATE_FRAME_BYTES, SUSPENDED_RETRY_MS,
};
use crate::base::id::{Name, NodeId};
use crate::base::plant::Plant;
use crate::base::slab::Key;
use crate::crdt::StateError;
use crate::room::{Judged, Posted, SayOrder};
use crate::wire::{self, plain_trace};

/// The verdict on a reliable message of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SayVerdict {
    /// The message is the next of its member: [`Hosted::take`] takes it.
    Next,
    /// The message is in the log, which is to be acknowledged.
    Known,
    /// The message was taken, or sent to the primary, and is not in the log yet.
    Passed,
    /// The message is refused: messages from `expected` on are to be sent after a time.
    Held { expected: u64, retry_after_ms: u32 },
    /// There is no such member: the client does not know the answer to its `Join` yet.
    Nobody,
}

impl Hosted {
    // Reliable messages.

    /// Judges a reliable message of a member whose session is on this node. `takes_more`: the link
    /// to the primary takes another message.
    pub(crate) fn judge(
        &mut self,
        cx: &mut RoomContext<'_>,
        number: u32,
        say: &v1::Say,
        takes_more: bool,
    ) -> SayVerdict {
        let Self { common, role } = self;
        match role {
            Role::Claiming(_) => SayVerdict::Nobody,
            Role::Leading(leading) => leading.judge(common, cx, number, say),
            Role::Following(following) => following.judge(common, cx, number, say, takes_more),
        }
    }

    /// Takes a reliable message that was judged to be [the next](SayVerdict::Next): appends it, or
    /// sends it to the primary.
    pub(crate) fn take(
        &mut self,
        cx: &mut RoomContext<'_>,
        number: u32,
        say: v1::Say,
        metadata: &v1::Metadata,
    ) {
        let Self { common, role } = self;
        match role {
            Role::Claiming(_) => cx.bugs.found("a message is taken of a room that is being claimed"),
            Role::Leading(leading) => leading.append(common, cx, number, say, metadata),
            Role::Following(following) => following.relay(common, cx, number, say, metadata),
        }
    }

    // Latest messages.

    /// Takes a latest message of a member whose session is on this node. `takes_more`: the link to
    /// the primary takes another message. Returns false if the board is full.
    pub(crate) fn take_latest(
        &mut self,
        cx: &mut RoomContext<'_>,
        number: u32,
        latest: v1::Latest,
        metadata: &v1::Metadata,
        takes_more: bool,
    ) -> bool {
        let Self { common, role } = self;
        cx.effects.counts.latest += 1;
        match role {
            Role::Leading(leading) => leading.post(common, cx, number, latest, metadata),
            Role::Following(following) => {
                // Only the newest counts, so a message that does not fit is no loss.
                if let Some(link) = following.link().filter(|_| takes_more) {
                    let latest = v1::Latest { member: number, epoch: common.room.epoch(), ..latest };
                    common.passes(cx, metadata, Passage::Relayed);
                    common.tell(cx, link, v1::Kind::Latest, &plain_trace(metadata), &latest);
                }
                true
            }
            Role::Claiming(_) => true,
        }
    }

    // State.

    /// Merges entries of the room's state that a player of this node has written.
    ///
    /// # Errors
    /// As for [`Replica::merge`](crate::crdt::Replica::merge); then nothing was merged.
    pub(crate) fn write(
        &mut self,
        cx: &mut RoomContext<'_>,
        player: &Name,
        entries: &[v1::StateEntry],
    ) -> Result<(), StateError> {
        if self.common.room.state.merge(cx.now, Some(player.as_str()), entries)? {
            match &self.role {
                Role::Leading(leading) => leading.changed(&mut self.common, cx),
                Role::Claiming(_) | Role::Following(_) => self.common.release(cx),
            }
        }
        Ok(())
    }

    // Other nodes.

    /// Returns the next frame of the room for the node at the other end of a link, if there is one.
    pub(crate) fn next_for(&mut self, link: Key, counts: &mut RoomCounts) -> Option<Bytes> {
        // A link is marked for a room before the room has the reader.
        let mut reader = *self.common.readers.get_mut(link)?;
        let Self { common, role } = self;
        let frame = match role {
            Role::Leading(leading) => leading.next_for(common, link, &mut reader, counts),
            Role::Claiming(_) | Role::Following(_) => None,
        };
        let frame = frame.or_else(|| {
            let room = &self.common.room;
            if reader.change >= room.state.change() {
                return None;
            }
            let (entries, change) = room.state.changes_since(reader.change, STATE_FRAME_BYTES);
            reader.change = change;
            let (name, epoch) = (room.name().as_str().into(), room.epoch());
            let state = v1::State { room: name, epoch, entries, ..v1::State::default() };
            (!state.entries.is_empty()).then(|| plain(v1::Kind::State, &state))
        });
        if let Some(kept) = self.common.readers.get_mut(link) {
            *kept = reader;
        }
        frame
    }
}

impl Leading {
    /// Returns the next frame of the log for a reader: ops for the backup, entries for others, then
    /// latest messages.
    fn next_for(
        &mut self,
        common: &mut Common,
        link: Key,
        reader: &mut Reader,
        counts: &mut RoomCounts,
    ) -> Option<Bytes> {
        let frame = if reader.stores {
            self.next_ops(common, link)
        } else {
            self.next_entry(common, reader, counts).or_else(|| self.next_install(common, link, reader))
        };
        frame.or_else(|| {
            let (version, frame) = common.room.latest.next(reader.latest, 0)?;
            reader.latest = version;
            Some(frame.clone())
        })
    }

    fn next_entry(&self, common: &Common, reader: &mut Reader, counts: &mut RoomCounts) -> Option<Bytes> {
        let room = &common.room;
        if room.has_lost(reader.seq) {
            let attached = self.afresh(common, reader.attach);
            reader.seq = attached.seq;
            counts.snapshots += 1;
            return Some(plain(v1::Kind::Attached, &attached));
        }
        if reader.seq < room.released()
            && let Some(frame) = room.log().get(reader.seq + 1, false)
        {
            reader.seq += 1;
            return Some(frame.clone());
        }
        None
    }

    /// Judges a reliable message of a member.
    fn judge(&self, common: &mut Common, cx: &mut RoomContext<'_>, number: u32, say: &v1::Say) -> SayVerdict {
        let Some(judged) = common.room.judge(number, say) else { return SayVerdict::Nobody };
        let expected = match judged {
            Judged::Gap { expected } => expected,
            Judged::Next | Judged::Full | Judged::Duplicate | Judged::Pending => say.client_seq,
        };
        let held = |retry_after_ms| SayVerdict::Held { expected, retry_after_ms };
        match judged {
            Judged::Duplicate => {
                cx.effects.counts.duplicates += 1;
                SayVerdict::Known
            }
            Judged::Pending => SayVerdict::Passed,
            _ if !self.may_serve(cx) => held(SUSPENDED_RETRY_MS),
            Judged::Next if common.room.pending_ops() >= cx.config.rooms.pending_ops => {
                cx.effects.counts.throttled += 1;
                held(PENDING_RETRY_MS)
            }
            Judged::Next => SayVerdict::Next,
            Judged::Gap { .. } => held(0),
            Judged::Full => {
                cx.effects.counts.throttled += 1;
                common.release(cx);
                // Ops that are not committed are not released either.
                held(if common.room.pending_ops() > 0 { PENDING_RETRY_MS } else { 0 })
            }
        }
    }

    fn append(
        &mut self,
        common: &mut Common,
        cx: &mut RoomContext<'_>,
        number: u32,
        say: v1::Say,
        metadata: &v1::Metadata,
    ) {
        common.room.say(cx.now, number, say, plain_trace(metadata));
        common.passes(cx, metadata, Passage::Taken);
        self.commit(common, cx);
    }

    /// Takes a reliable message that another node has sent for its member.
    pub(super) fn take_relay(
        &mut self,
        common: &mut Common,
        cx: &mut RoomContext<'_>,
        link: Key,
        node: NodeId,
        relay: v1::Relay,
        metadata: &v1::Metadata,
    ) {
        // The member may have left meanwhile.
        let Some(member) = common.room.future_member(relay.member) else { return };
        let is_there = member.seat.epoch == relay.session_epoch && self.is_there(relay.member, node);
        if !is_there && !cx.planted.is(Plant::SessionEpochUncompared) {
            // Another node owns the session now.
            cx.effects.counts.fenced += 1;
            return;
        }
        let v1::Relay { room, epoch, member: number, client_seq, body, type_url, ends_turn, .. } = relay;
        let taken = member.client_seq;
        let say = v1::Say { room, client_seq, body, type_url, ends_turn };
        match self.judge(common, cx, number, &say) {
            SayVerdict::Next => self.append(common, cx, number, say, metadata),
            SayVerdict::Held { retry_after_ms, .. } => {
                let (room, expected) = (say.room, taken + 1);
                let hold = v1::Hold { room, epoch, member: number, expected, retry_after_ms };
                common.tell_plain(cx, link, v1::Kind::Hold, &hold);
            }
            // The follower sends each message once, until it enters again. With the answer it
            // learns the head of the log.
            SayVerdict::Known | SayVerdict::Passed => {}
            SayVerdict::Nobody => cx.bugs.found("a member vanished while its message was taken"),
        }
    }

    /// Takes a latest message that another node has sent for its member.
    pub(super) fn take_latest(
        &self,
        common: &mut Common,
        cx: &mut RoomContext<'_>,
        node: NodeId,
        latest: v1::Latest,
        metadata: &v1::Metadata,
    ) {
        let is_known = latest.key < cx.config.rooms.latest_keys;
        if is_known && self.may_serve(cx) && self.is_there(latest.member, node) {
            cx.effects.counts.latest += 1;
            self.post(common, cx, latest.member, latest, metadata);
        }
    }

    /// Puts a latest message on the board. Returns false if the board is full.
    fn post(
        &self,
        common: &mut Common,
        cx: &mut RoomContext<'_>,
        number: u32,
        latest: v1::Latest,
        metadata: &v1::Metadata,
    ) -> bool {
        match common.room.put_latest(number, latest, &plain_trace(metadata)) {
            Posted::New => {}
            Posted::Replaced => cx.effects.counts.conflated += 1,
            Posted::Full => {
                cx.effects.counts.throttled += 1;
                return false;
            }
        }
        common.passes(cx, metadata, Passage::Taken);
        self.changed(common, cx);
        true
    }
}

impl Following {
    /// Judges a reliable message of a member on this node, before the primary does.
    fn judge(
        &self,
        common: &mut Common,
        cx: &mut RoomContext<'_>,
        number: u32,
        say: &v1::Say,
        takes_more: bool,
    ) -> SayVerdict {
        let in_log = common.room.member(number).map_or(0, |member| member.client_seq);
        let Some(local) = common.locals.of_member(number) else { return SayVerdict::Nobody };
        // A `Hold` may arrive late, after the refused message was accepted.
        local.relayed = local.relayed.max(in_log);
        match SayOrder::of(local.relayed, say.client_seq) {
            SayOrder::Duplicate if say.client_seq <= in_log => {
                cx.effects.counts.duplicates += 1;
                SayVerdict::Known
            }
            SayOrder::Duplicate => SayVerdict::Passed,
            SayOrder::Gap { expected } => SayVerdict::Held { expected, retry_after_ms: 0 },
            SayOrder::Next => {
                let expected = say.client_seq;
                if local.waits || self.way().is_none() {
                    local.held = true;
                    return SayVerdict::Held { expected, retry_after_ms: SUSPENDED_RETRY_MS };
                }
                if !takes_more {
                    cx.effects.counts.throttled += 1;
                    return SayVerdict::Held { expected, retry_after_ms: CONGESTED_RETRY_MS };
                }
                SayVerdict::Next
            }
        }
    }

    /// Sends a reliable message of a member to the primary.
    fn relay(
        &self,
        common: &mut Common,
        cx: &mut RoomContext<'_>,
        number: u32,
        say: v1::Say,
        metadata: &v1::Metadata,
    ) {
        let (Some(link), Some(local)) = (self.way(), common.locals.of_member(number)) else {
            return cx.bugs.found("a message is sent to a primary that was judged not to be");
        };
        let v1::Say { room, client_seq, body, type_url, ends_turn } = say;
        local.relayed = client_seq;
        let (session_epoch, epoch) = (local.epoch, common.room.epoch());
        let relay =
            v1::Relay { room, epoch, member: number, session_epoch, client_seq, body, type_url, ends_turn };
        common.passes(cx, metadata, Passage::Relayed);
        common.tell(cx, link, v1::Kind::Relay, &plain_trace(metadata), &relay);
    }
}

/// Merges entries all at once, or else one by one: an entry without a place does not block the
/// others, as the sender does not send them again. Returns true if anything has changed.
pub(super) fn merge_all(
    merge: &mut dyn FnMut(&[v1::StateEntry]) -> Result<bool, StateError>,
    entries: &[v1::StateEntry],
    counts: &mut RoomCounts,
) -> bool {
    merge(entries).unwrap_or_else(|_| {
        counts.state_full += 1;
        let single = entries.chunks(1).map(|entry| merge(entry) == Ok(true));
        single.fold(false, |changed, news| changed | news)
    })
}

/// A frame without metadata.
fn plain(kind: v1::Kind, message: &impl prost::Message) -> Bytes {
    wire::encode(kind, &v1::Metadata::default(), message)
}
