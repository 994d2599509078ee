//! Rooms that this node is the primary of, for the nodes that follow them.

use alloc::vec::Vec;

use bytes::Bytes;
use skirmish_proto::v1;

use super::inbound::{SUSPENDED_RETRY, millis, plain_trace};
use super::outbound::{STATE_FRAME_BYTES, plain};
use super::rooms::{Admitted, Entrant};
use super::{Node, Passage};
use crate::base::id::{Name, NodeId, SessionId};
use crate::base::plant::Plant;
use crate::base::slab::Key;
use crate::base::time::Now;
use crate::hosting::{Hosted, Place};
use crate::node::link::Reader;
use crate::room::{Judged, Member, Posted, Seat};
use crate::wire;

impl Node {
    pub(super) fn take_attach(&mut self, now: Now, link: Key, attach: &v1::Attach) {
        if self.attach_early(link, attach) {
            return;
        }
        let Some(room) = self.led(now, link, &attach.room, attach.epoch) else { return };
        let Some(hosted) = self.rooms.get_mut(room) else {
            return self.bugs.found("a room that this node leads is not in the table");
        };
        let log = hosted.room.log();
        let reaches = !hosted.room.has_lost(attach.seq) && attach.seq <= log.head() && attach.seq > 0;
        let attached = if reaches {
            let (room, epoch) = (attach.room.clone(), attach.epoch);
            v1::Attached { room, epoch, seq: attach.seq, number: attach.number, ..v1::Attached::default() }
        } else {
            afresh(hosted, attach.number)
        };
        let reader = Reader::new(attached.seq, attach.number);
        hosted.add_reader(link);
        // Before anything is told: a link that goes then takes leave of every room that it reads.
        if let Some(link) = self.links.get_mut(link) {
            link.read(room, reader);
        }
        self.tell(now, link, wire::encode(v1::Kind::Attached, &v1::Metadata::default(), &attached));
        self.wake_link(link);
    }

    pub(super) fn take_detach(&mut self, now: Now, link: Key, from: NodeId, detach: &v1::Detach) {
        let room = Name::new(&detach.room).ok().and_then(|name| self.rooms_by_name.get(&name).copied());
        let hosted = room.and_then(|room| Some((room, self.rooms.get_mut(room)?)));
        let Some((room, hosted)) = hosted else { return };
        if let Some(claiming) = hosted.claiming_mut() {
            claiming.forget(link);
        }
        let Some((room, hosted)) = Some((room, hosted))
            .filter(|(_, hosted)| hosted.is_primary() && hosted.room.epoch() == detach.epoch)
        else {
            return;
        };
        hosted.remove_reader(link);
        if let Some(link) = self.links.get_mut(link) {
            link.forget(room);
        }
        // It said of each member that it goes; one that it did not speak of is away.
        self.members_away(now, room, from);
    }

    pub(super) fn take_enter(&mut self, now: Now, link: Key, from: NodeId, enter: &v1::Enter) {
        let Some(room) = self.led(now, link, &enter.room, enter.epoch) else { return };
        let (Some(id), Ok(player)) = (SessionId::from_wire(&enter.session), Name::new(&enter.player)) else {
            return;
        };
        let awaits = self.rooms.get(room).is_some_and(|hosted| self.desk.awaits_places(hosted.room.name()));
        if !self.registrar.may_serve(now.instant) || awaits {
            // The follower asks again when it is attached again, which it is told then.
            return;
        }
        // What the registry will say is known already: the player is there now.
        self.session_lost(now, &player, enter.session_epoch);
        let entrant = Entrant {
            seat: Seat { session: id, epoch: enter.session_epoch },
            place: Place::There(from),
            player,
            resume: enter.resume,
        };
        let admitted = self.admit_member(now, room, entrant);
        // Closed meanwhile if nobody but the session that is lost has waited for it; the follower
        // was told so.
        let Some(hosted) = self.rooms.get(room) else { return };
        let mut entered = v1::Entered {
            room: enter.room.clone(),
            epoch: enter.epoch,
            session: enter.session.clone(),
            session_epoch: enter.session_epoch,
            player: enter.player.clone(),
            attempt: enter.attempt,
            seq: hosted.room.released(),
            ..v1::Entered::default()
        };
        match admitted {
            Ok(Admitted { number, resumed, .. }) => (entered.member, entered.resumed) = (number, resumed),
            Err(reason) => entered.reason = reason.into(),
        }
        self.tell(now, link, wire::encode(v1::Kind::Entered, &v1::Metadata::default(), &entered));
        self.close_if_idle(now, room);
    }

    pub(super) fn take_relay(
        &mut self,
        now: Now,
        link: Key,
        from: NodeId,
        relay: v1::Relay,
        metadata: &v1::Metadata,
    ) {
        let Some(room) = self.led(now, link, &relay.room, relay.epoch) else { return };
        let serves = self.registrar.may_serve(now.instant);
        let Self { rooms, zstd, stats, planted, .. } = self;
        let Some(hosted) = rooms.get_mut(room) else {
            return self.bugs.found("a room that this node leads is not in the table");
        };
        let Some(member) = hosted.room.member(relay.member) else { return };
        let is_here = member.seat.epoch == relay.session_epoch && hosted.is_there(relay.member, from);
        if !is_here && !planted.is(Plant::SessionEpochUncompared) {
            // Another node has the session now.
            stats.fenced += 1;
            return;
        }
        let client_seq = member.client_seq;
        let v1::Relay { room: name, epoch, member, client_seq: number, body, type_url, ends_turn, .. } =
            relay;
        let mut hold =
            v1::Hold { room: name.clone(), epoch, member, expected: client_seq + 1, retry_after_ms: 0 };
        if !serves {
            hold.retry_after_ms = millis(SUSPENDED_RETRY);
            return self.tell(now, link, wire::encode(v1::Kind::Hold, &v1::Metadata::default(), &hold));
        }
        let say = v1::Say { room: name, client_seq: number, body, type_url, ends_turn };
        match hosted.room.judge(member, &say) {
            Some(Judged::Next) => {
                let turned = hosted.room.say(now, member, say, &plain_trace(metadata), zstd);
                self.said(now, room, metadata, turned);
            }
            // The follower passes on each message once, until it enters anew; what it knows
            // of the log then covers those that were there already.
            Some(Judged::Duplicate) => stats.duplicates += 1,
            Some(judged @ (Judged::Gap { .. } | Judged::Full)) => {
                if judged == Judged::Full {
                    stats.throttled += 1;
                    self.release(room);
                }
                self.tell(now, link, wire::encode(v1::Kind::Hold, &v1::Metadata::default(), &hold));
            }
            None => self.bugs.found("a member vanished while its message was taken"),
        }
    }

    pub(super) fn take_latest(
        &mut self,
        now: Now,
        from: NodeId,
        latest: v1::Latest,
        metadata: &v1::Metadata,
    ) {
        let Some(room) = self.led_quietly(&latest.room, latest.epoch) else { return };
        let serves = self.registrar.may_serve(now.instant);
        let Some(hosted) = self.rooms.get_mut(room).filter(|_| serves) else { return };
        let number = latest.member;
        if !hosted.is_there(number, from) || latest.key >= self.config.rooms.latest_keys {
            return;
        }
        self.stats.latest += 1;
        match hosted.room.put_latest(number, latest, &plain_trace(metadata)) {
            Posted::New => {}
            Posted::Replaced => self.stats.conflated += 1,
            Posted::Full => return self.stats.throttled += 1,
        }
        self.passes(room, metadata, Passage::Taken);
        self.room_changed(now, room);
    }

    pub(super) fn take_exit(&mut self, now: Now, from: NodeId, exit: &v1::Exit) {
        let Some(room) = self.led_quietly(&exit.room, exit.epoch) else { return };
        let Some(hosted) = self.rooms.get(room) else {
            return self.bugs.found("a room that this node leads is not in the table");
        };
        let Some(member) = hosted.room.member(exit.member) else { return };
        if member.seat.epoch != exit.session_epoch || !hosted.is_there(exit.member, from) {
            return;
        }
        if exit.away {
            let player = member.player.clone();
            self.set_away(now, room, exit.member);
            self.set_present_in(now, room, &player, false);
            self.room_changed(now, room);
        } else {
            self.remove_member(now, room, exit.member);
            self.close_if_idle(now, room);
        }
    }

    /// A link is gone: the members behind it are away.
    pub(super) fn detach_reader(&mut self, now: Now, room: Key, link: Key, peer: NodeId) {
        let Some(hosted) = self.rooms.get_mut(room) else {
            return self.bugs.found("a room that this node leads is not in the table");
        };
        hosted.remove_reader(link);
        self.members_away(now, room, peer);
    }

    fn members_away(&mut self, now: Now, room: Key, node: NodeId) {
        let Some(hosted) = self.rooms.get(room) else {
            return self.bugs.found("members are away of a room that is not in the table");
        };
        let there = hosted.room.members().iter().filter(|m| hosted.is_there(m.number, node));
        let members: Vec<_> = there.map(|m| (m.number, m.player.clone())).collect();
        for (number, player) in members {
            self.set_away(now, room, number);
            self.set_present_in(now, room, &player, false);
        }
        self.room_changed(now, room);
    }

    /// State from another node, of a room that this one leads or follows.
    pub(super) fn take_state(&mut self, now: Now, from: NodeId, state: &v1::State) {
        let led = self.led_quietly(&state.room, state.epoch);
        let Some(room) = led.or_else(|| self.followed(from, &state.room, state.epoch)) else { return };
        let Some(hosted) = self.rooms.get_mut(room) else {
            return self.bugs.found("a room that was found by its name is not in the table");
        };
        let replica = &mut hosted.room.state;
        let mut merge = |entries: &[v1::StateEntry]| match led {
            Some(_) => replica.merge_from_follower(now, entries),
            None => replica.merge(now, None, entries),
        };
        let changed = merge(&state.entries).unwrap_or_else(|_| {
            self.stats.state_full += 1;
            // What there is no place for keeps nothing else out: it is not sent again.
            let single = state.entries.chunks(1).map(|entry| merge(entry) == Ok(true));
            single.fold(false, |changed, news| changed | news)
        });
        if changed {
            self.room_changed(now, room);
            self.book_room(room);
        }
    }

    /// Tells those who follow a room that it goes on after a while without a primary.
    pub(super) fn attach_again(&mut self, now: Now, room: Key) {
        let Some(hosted) = self.rooms.get(room) else {
            return self.bugs.found("a room that goes on is not in the table");
        };
        let (name, epoch) = (hosted.room.name().as_str(), hosted.room.epoch());
        let attached = v1::Attached { room: name.into(), epoch, ..v1::Attached::default() };
        for link in hosted.readers.clone() {
            let reader = self.links.get(link).and_then(|link| link.readers.get(&room));
            let Some(number) = reader.map(|reader| reader.attach) else { continue };
            let attached = v1::Attached { number, ..attached.clone() };
            self.tell(now, link, wire::encode(v1::Kind::Attached, &v1::Metadata::default(), &attached));
        }
    }

    pub(super) fn exited(
        &mut self,
        now: Now,
        link: Key,
        room: &Name,
        epoch: u64,
        member: u32,
        reason: v1::LeftReason,
    ) {
        let message = v1::Exited { room: room.as_str().into(), epoch, member, reason: reason.into() };
        self.tell(now, link, wire::encode(v1::Kind::Exited, &v1::Metadata::default(), &message));
    }

    /// What comes next of a room for the peer of a link.
    pub(super) fn next_of_room(&mut self, link: Key, room: Key) -> Option<Bytes> {
        let Self { links, rooms, stats, .. } = self;
        let hosted = rooms.get_mut(room)?;
        let reader = links.get_mut(link)?.readers.get_mut(&room)?;
        if hosted.is_primary() {
            if hosted.room.has_lost(reader.seq) {
                let attached = afresh(hosted, reader.attach);
                reader.seq = attached.seq;
                stats.snapshots += 1;
                return Some(plain(v1::Kind::Attached, &attached));
            }
            if reader.seq < hosted.room.released()
                && let Some(frame) = hosted.room.log().get(reader.seq + 1, false)
            {
                reader.seq += 1;
                return Some(frame.clone());
            }
            if let Some((version, frame)) = hosted.room.latest.next(reader.latest, 0) {
                reader.latest = version;
                return Some(frame.clone());
            }
        }
        if reader.change < hosted.room.state.change() {
            let (entries, change) = hosted.room.state.changes_since(reader.change, STATE_FRAME_BYTES);
            reader.change = change;
            if !entries.is_empty() {
                let (room, epoch) = (hosted.room.name().as_str().into(), hosted.room.epoch());
                let state = v1::State { room, epoch, entries, ..v1::State::default() };
                return Some(plain(v1::Kind::State, &state));
            }
        }
        None
    }

    /// A room that this node leads in that epoch. Whoever means another is told so.
    fn led(&mut self, now: Now, link: Key, room: &str, epoch: u64) -> Option<Key> {
        let led = self.led_quietly(room, epoch);
        if led.is_none()
            && let Ok(name) = Name::new(room)
        {
            self.stats.refused_epochs += 1;
            self.exited(now, link, &name, epoch, 0, v1::LeftReason::Gone);
            if !self.rooms_by_name.contains_key(&name) {
                self.registrar.sweep_room(now, &name);
            }
        }
        led
    }

    fn led_quietly(&self, room: &str, epoch: u64) -> Option<Key> {
        let room = *self.rooms_by_name.get(&Name::new(room).ok()?)?;
        let hosted = self.rooms.get(room)?;
        let is_epoch = hosted.room.epoch() == epoch || self.planted.is(Plant::EpochUncompared);
        (hosted.is_primary() && is_epoch).then_some(room)
    }
}

/// The tail of a room from as far back as its window reaches, for the `Attach` of this number.
fn afresh(hosted: &Hosted, number: u64) -> v1::Attached {
    let member = |m: &Member| v1::TailMember {
        member: m.number,
        player: m.player.as_str().into(),
        client_seq: m.client_seq,
    };
    v1::Attached {
        room: hosted.room.name().as_str().into(),
        epoch: hosted.room.epoch(),
        seq: hosted.room.log().first() - 1,
        afresh: true,
        members: hosted.room.members().iter().map(member).collect(),
        turn: hosted.room.turn().number,
        turn_ends_ms: hosted.room.turn().ends_ms,
        number,
    }
}
