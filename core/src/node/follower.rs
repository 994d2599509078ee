//! Rooms that another node is the primary of: their tail, and what members here write.

use alloc::vec::Vec;

use bytes::Bytes;
use skirmish_proto::v1;

use super::inbound::{SUSPENDED_RETRY, millis, plain_trace};
use super::rooms::ATTACH_TIMEOUT;
use super::{Node, Passage};
use crate::base::id::{Name, NodeId, SessionId};
use crate::base::plant::Plant;
use crate::base::slab::Key;
use crate::base::time::{Duration, Now};
use crate::hosting::Following;
use crate::node::link::Reader;
use crate::room::{Member, Posted, Seat, Turn};
use crate::session::{Granted, SessionKey};
use crate::wire;

/// When to send again what did not fit into the link.
const CONGESTED_RETRY: Duration = Duration::from_millis(100);

impl Node {
    // The tail.

    /// Starts to follow a room, as soon as there is a link.
    pub(super) fn follow(&mut self, now: Now, room: Key, node: NodeId) {
        self.peer(now, node).rooms.insert(room);
        self.attach(now, room);
        self.book_room(room);
    }

    /// Asks for the tail of a room, if there is a link to its primary.
    pub(super) fn attach(&mut self, now: Now, room: Key) {
        let Some(hosted) = self.rooms.get_mut(room) else {
            return self.bugs.found("the tail is asked for of a room that is not in the table");
        };
        let Some(following) = hosted.following_mut() else {
            return self.bugs.found("the tail is asked for of a room that is not followed");
        };
        let Some(link) = self.peers.get(&following.primary()).and_then(|peer| peer.link) else { return };
        self.attempts += 1;
        following.ask(self.attempts, now.instant + ATTACH_TIMEOUT);
        let message = v1::Attach {
            room: hosted.room.name().as_str().into(),
            epoch: hosted.room.epoch(),
            seq: hosted.room.log().head(),
            number: self.attempts,
        };
        self.tell(now, link, wire::encode(v1::Kind::Attach, &v1::Metadata::default(), &message));
        self.book_room(room);
    }

    pub(super) fn attached(&mut self, now: Now, link: Key, from: NodeId, attached: v1::Attached) {
        let Some(room) = self.followed(from, &attached.room, attached.epoch) else { return };
        let ignores = !self.planted.is(Plant::JoinRaceTold);
        let Some(hosted) = self.rooms.get_mut(room) else {
            return self.bugs.found("a followed room is not in the table");
        };
        let Some(following) = hosted.following_mut() else {
            return self.bugs.found("a followed room has another role");
        };
        if !following.has_asked(attached.number) && ignores {
            return;
        }
        let is_first = following.attached();
        if attached.afresh {
            let member = |m: v1::TailMember| {
                let player = Name::new(&m.player).ok()?;
                Some(Member { number: m.member, player, seat: Seat::UNKNOWN, client_seq: m.client_seq })
            };
            let members = attached.members.into_iter().filter_map(member).collect();
            let turn = Turn { number: attached.turn, ends_ms: attached.turn_ends_ms };
            hosted.room.follow_from(attached.seq, members, turn);
            self.expel_strangers(now, room);
            self.wake_readers(room);
        }
        let Some(hosted) = self.rooms.get_mut(room) else {
            return self.bugs.found("a room vanished while its tail came");
        };
        if is_first {
            // Those who were members before go on; those who wait come in.
            hosted.waiting.clone_from(&hosted.locals);
            hosted.add_reader(link);
            if let Some(link) = self.links.get_mut(link) {
                link.read(room, Reader::new(0, 0));
            }
            self.wake_link(link);
        }
        self.enter_waiting(now, room);
    }

    /// Members here who are none any more: they went with an entry that is not in the window
    /// now, of which the tail does not tell.
    fn expel_strangers(&mut self, now: Now, room: Key) {
        let Some(hosted) = self.rooms.get(room) else {
            return self.bugs.found("a room vanished while its tail came");
        };
        let is_stranger = |key: &&SessionKey| {
            let memberships = self.sessions.get(**key).map(|session| &session.memberships);
            let number = memberships.and_then(|m| m.iter().find(|m| m.room == room)).map_or(0, |m| m.number);
            number > 0 && hosted.room.member(number).is_none()
        };
        let strangers: Vec<SessionKey> = hosted.locals.iter().filter(is_stranger).copied().collect();
        for session in strangers {
            self.expel(now, room, session, v1::LeftReason::Gone);
        }
    }

    /// Asks the primary to let those in who wait.
    pub(super) fn enter_waiting(&mut self, now: Now, room: Key) {
        let Some(hosted) = self.rooms.get(room) else {
            return self.bugs.found("sessions wait for a room that is not in the table");
        };
        if hosted.following().is_some_and(Following::is_attached) {
            for session in hosted.waiting.clone() {
                self.enter(now, room, session);
            }
            self.close_if_idle(now, room);
        }
    }

    fn enter(&mut self, now: Now, room: Key, session: SessionKey) {
        let (Some(hosted), Some(s)) = (self.rooms.get(room), self.sessions.get_mut(session)) else {
            return self.bugs.found("a session, or the room that it waits for, is gone");
        };
        // Without a link it is asked for when there is one: the tail comes first then.
        let Some(link) = hosted.primary().and_then(|node| self.peers.get(&node)?.link) else { return };
        let epoch = hosted.room.epoch();
        let Some(membership) = s.memberships.iter_mut().find(|m| m.room == room) else {
            return self.bugs.found("a session waits for a room and has no membership");
        };
        membership.entry.granted = None;
        if membership.number == 0 && membership.entry.resume.is_some_and(|cursor| cursor.epoch != epoch) {
            return self.expel(now, room, session, v1::LeftReason::Gone);
        }
        let message = v1::Enter {
            room: hosted.room.name().as_str().into(),
            epoch,
            session: Bytes::copy_from_slice(s.id.as_bytes()),
            session_epoch: s.epoch,
            player: s.player.as_str().into(),
            resume: membership.number > 0 || membership.entry.resume.is_some(),
            attempt: membership.entry.attempt,
        };
        self.tell(now, link, wire::encode(v1::Kind::Enter, &v1::Metadata::default(), &message));
    }

    pub(super) fn entered(&mut self, now: Now, from: NodeId, entered: &v1::Entered) {
        let Some(room) = self.followed(from, &entered.room, entered.epoch) else { return };
        let Some(id) = SessionId::from_wire(&entered.session) else { return };
        let Some(hosted) = self.rooms.get(room) else {
            return self.bugs.found("a followed room is not in the table");
        };
        let of_id = |key: &&SessionKey| self.sessions.get(**key).is_some_and(|session| session.id == id);
        let Some(&session) = hosted.locals.iter().find(of_id) else {
            // It has gone meanwhile: it left the room, or is not here any more.
            let of_player = Name::new(&entered.player).ok().and_then(|name| self.sessions.of_player(&name));
            let is_here = of_player.and_then(|key| self.sessions.get(key)).is_some_and(|s| s.id == id);
            if entered.member > 0 {
                self.exit(now, room, from, entered.member, entered.session_epoch, !is_here);
            }
            return;
        };
        let membership = self
            .sessions
            .get_mut(session)
            .and_then(|session| session.memberships.iter_mut().find(|membership| membership.room == room));
        // It has left since this was asked, and comes again: that has an answer of its own.
        let Some(membership) = membership.filter(|m| m.entry.attempt == entered.attempt) else { return };
        if entered.member == 0 {
            self.expel(now, room, session, entered.reason());
            return self.close_if_idle(now, room);
        }
        let (number, resumed) = (entered.member, entered.resumed);
        membership.entry.granted = Some(Granted { number, resumed, at: entered.seq });
        if let Some(hosted) = self.rooms.get_mut(room)
            && !hosted.waiting.contains(&session)
        {
            hosted.waiting.push(session);
        }
        self.activate(now, room);
    }

    /// Lets those in, or go on, whom the primary has granted it, once the tail has come as
    /// far as the primary had when it did.
    fn activate(&mut self, now: Now, room: Key) {
        let Some(hosted) = self.rooms.get_mut(room) else {
            return self.bugs.found("a room vanished while its members came in");
        };
        if hosted.waiting.is_empty() {
            return;
        }
        let head = hosted.room.log().head();
        let mut present = Vec::new();
        let mut woken = Vec::new();
        let Self { sessions, planted, bugs, .. } = self;
        hosted.waiting.retain(|key| {
            let Some(session) = sessions.get_mut(*key) else {
                bugs.found("a session that is gone waits for a room");
                return false;
            };
            let Some(membership) = session.memberships.iter_mut().find(|m| m.room == room) else {
                bugs.found("a session waits for a room and has no membership");
                return false;
            };
            let Some(granted) = membership.entry.granted.filter(|granted| granted.at <= head) else {
                return true;
            };
            let client_seq = hosted.room.member(granted.number).map_or(0, |member| member.client_seq);
            if membership.number == granted.number {
                // What was passed on and did not arrive is to be sent again.
                membership.entry.granted = None;
                if membership.relayed > client_seq && !planted.is(Plant::RelayForgotten) {
                    membership.throttled = None;
                    membership.hold(client_seq + 1, client_seq + 1, 0);
                }
            } else {
                let wish = membership.entry;
                let before = if granted.resumed { granted.at } else { granted.at.saturating_sub(1) };
                let first = hosted.room.log().first() - 1;
                let start = before.saturating_sub(wish.history.into()).max(first);
                let seq = wish.resume.map_or(start, |cursor| cursor.seq.min(granted.at));
                membership.begin(granted.number, seq, granted.resumed, hosted.room.state.forgotten());
            }
            if !planted.is(Plant::RelayForgotten) {
                membership.relayed = client_seq;
            }
            present.push(session.player.clone());
            woken.extend(session.conn);
            false
        });
        let name = self.rooms.get(room).map(|hosted| hosted.room.name().clone());
        for player in present {
            self.set_present_in(now, room, &player, true);
            if let Some(name) = &name {
                self.join_match(now, &player, name);
            }
        }
        for conn in woken {
            self.wake(conn.key());
        }
    }

    pub(super) fn tail_entry(
        &mut self,
        now: Now,
        from: NodeId,
        entry: &v1::Entry,
        metadata: &v1::Metadata,
        frame: Bytes,
    ) -> bool {
        let Some(room) = self.followed(from, &entry.room, entry.epoch) else { return true };
        let Self { rooms, zstd, planted, .. } = self;
        let Some(hosted) = rooms.get_mut(room) else {
            self.bugs.found("a followed room is not in the table");
            return true;
        };
        let is_attached = hosted.following().is_some_and(Following::is_attached);
        if !is_attached && !planted.is(Plant::JoinRaceTold) {
            // Sent before the primary heard that everybody here had left; somebody came again.
            return true;
        }
        let head = hosted.room.log().head();
        if entry.seq > head + 1 {
            return false;
        }
        if entry.seq == head + 1 {
            hosted.room.follow(entry, frame, zstd);
            self.passes(room, metadata, Passage::Followed);
            self.wake_readers(room);
            self.activate(now, room);
            // It did not ask to go: its player came in with a newer session.
            if entry.kind() == v1::EntryKind::Leave
                && let Some(session) = self.local_member(room, entry.member)
            {
                self.expel(now, room, session, v1::LeftReason::Gone);
                self.close_if_idle(now, room);
            }
        }
        true
    }

    pub(super) fn tail_latest(
        &mut self,
        from: NodeId,
        latest: &v1::Latest,
        metadata: &v1::Metadata,
        frame: Bytes,
    ) {
        let Some(room) = self.followed(from, &latest.room, latest.epoch) else { return };
        let Some(hosted) = self.rooms.get_mut(room) else {
            return self.bugs.found("a followed room is not in the table");
        };
        if latest.key < self.config.rooms.latest_keys && hosted.room.member(latest.member).is_some() {
            let posted = hosted.room.follow_latest(latest.member, latest.key, frame);
            self.stats.conflated += u64::from(posted == Posted::Replaced);
            self.passes(room, metadata, Passage::Followed);
            self.wake_readers(room);
        }
    }

    pub(super) fn hold(&mut self, from: NodeId, hold: &v1::Hold) {
        if self.planted.is(Plant::HoldIgnored) {
            return;
        }
        let Some(room) = self.followed(from, &hold.room, hold.epoch) else { return };
        // It may have left meanwhile.
        let Some(session) = self.local_member(room, hold.member) else { return };
        let Some(s) = self.sessions.get_mut(session) else {
            return self.bugs.found("a member of this node has no session");
        };
        let conn = s.conn;
        if let Some(membership) = s.memberships.iter_mut().find(|m| m.room == room) {
            membership.relayed = hold.expected.saturating_sub(1);
            membership.hold(hold.expected, hold.expected, hold.retry_after_ms);
        }
        if let Some(conn) = conn {
            self.wake(conn.key());
        }
    }

    pub(super) fn exited_from(&mut self, now: Now, from: NodeId, exited: &v1::Exited) {
        let Some(room) = self.followed(from, &exited.room, exited.epoch) else { return };
        if exited.member == 0 {
            return self.room_over(now, room, exited.reason());
        }
        if let Some(session) = self.local_member(room, exited.member) {
            self.expel(now, room, session, exited.reason());
            self.close_if_idle(now, room);
        }
    }

    /// The link to a room's primary is gone: its tail stands still until there is another.
    pub(super) fn detach_tail(&mut self, now: Now, room: Key, link: Key) {
        // A room that was closed with its node stays among what the link reads.
        let Some(hosted) = self.rooms.get_mut(room) else { return };
        hosted.remove_reader(link);
        if let Some(following) = hosted.following_mut() {
            following.detach(now.instant + ATTACH_TIMEOUT);
            self.book_room(room);
        }
    }

    /// The tail has not come for too long: those who wait for it try again.
    pub(super) fn attach_timeout(&mut self, now: Now, room: Key) {
        let Some(hosted) = self.rooms.get_mut(room) else { return };
        let Some(following) = hosted.following_mut() else { return };
        if !following.take_overdue(now.instant, now.instant + ATTACH_TIMEOUT) {
            return;
        }
        for session in hosted.waiting.clone() {
            let memberships = self.sessions.get(session).map(|session| &session.memberships);
            let is_new = memberships.is_some_and(|m| m.iter().any(|m| m.room == room && m.number == 0));
            if is_new {
                self.expel(now, room, session, v1::LeftReason::Gone);
            }
        }
        self.close_if_idle(now, room);
    }

    /// Stops to follow a room that is closed here.
    pub(super) fn unfollow(&mut self, now: Now, room: Key, name: &Name, epoch: u64, node: NodeId) {
        // A room may be closed because its node is dead.
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.rooms.remove(&room);
        let Some(link) = peer.link else { return };
        let message = v1::Detach { room: name.as_str().into(), epoch };
        if let Some(link) = self.links.get_mut(link) {
            link.forget(room);
        }
        self.tell(now, link, wire::encode(v1::Kind::Detach, &v1::Metadata::default(), &message));
    }

    // What members here write.

    pub(super) fn relay(
        &mut self,
        now: Now,
        key: Key,
        session: SessionKey,
        room: Key,
        say: v1::Say,
        metadata: &v1::Metadata,
    ) {
        let Self { connections, sessions, rooms, links, peers, stats, .. } = self;
        let (Some(connection), Some(s)) = (connections.get_mut(key), sessions.get_mut(session)) else {
            return self.bugs.found("a connection or its session vanished while it was read");
        };
        let Some(hosted) = rooms.get(room) else {
            return self.bugs.found("a room vanished while a message was passed on");
        };
        let (session_epoch, epoch) = (s.epoch, hosted.room.epoch());
        let Some(membership) = s.memberships.iter_mut().find(|m| m.room == room) else {
            return self.bugs.found("a membership vanished while a message was passed on");
        };
        let number = membership.number;
        // A `Hold` may have come late, after what it asks for was taken.
        let known = hosted.room.member(number).map_or(0, |member| member.client_seq);
        membership.relayed = membership.relayed.max(known);
        let expected = membership.relayed + 1;
        if say.client_seq < expected {
            // It is on its way, or in the log already.
            if hosted.room.member(number).is_some_and(|member| say.client_seq <= member.client_seq) {
                stats.duplicates += 1;
                membership.acknowledge = true;
                self.wake(key);
            }
            return;
        }
        if say.client_seq > expected {
            membership.hold(say.client_seq, expected, 0);
            return self.wake(key);
        }
        let attached = hosted.following().is_some_and(Following::is_attached);
        let settled = !hosted.waiting.contains(&session);
        let link = hosted.primary().and_then(|node| peers.get(&node)?.link).filter(|_| attached && settled);
        let Some(key_of_link) = link else {
            membership.hold(say.client_seq, expected, millis(SUSPENDED_RETRY));
            return self.wake(key);
        };
        if !links.get(key_of_link).is_some_and(crate::node::link::Link::takes_more) {
            stats.throttled += 1;
            membership.hold(say.client_seq, expected, millis(CONGESTED_RETRY));
            return self.wake(key);
        }
        if let Err(wait) = connection.buckets.reliable.take(now.instant, 1) {
            stats.throttled += 1;
            membership.hold(say.client_seq, expected, millis(wait));
            return self.wake(key);
        }
        membership.relayed = say.client_seq;
        let message = v1::Relay {
            room: say.room,
            epoch,
            member: number,
            session_epoch,
            client_seq: say.client_seq,
            body: say.body,
            type_url: say.type_url,
            ends_turn: say.ends_turn,
        };
        self.passes(room, metadata, Passage::Relayed);
        self.tell(now, key_of_link, wire::encode(v1::Kind::Relay, &plain_trace(metadata), &message));
    }

    pub(super) fn relay_latest(
        &mut self,
        now: Now,
        room: Key,
        number: u32,
        latest: v1::Latest,
        metadata: &v1::Metadata,
    ) {
        let Some(hosted) = self.rooms.get(room) else {
            return self.bugs.found("a room vanished while a message was passed on");
        };
        let link = hosted.primary().and_then(|node| self.peers.get(&node)?.link);
        // The newest counts: what does not fit is not missed.
        let takes = |link: &Key| self.links.get(*link).is_some_and(crate::node::link::Link::takes_more);
        let Some(link) = link.filter(takes) else { return };
        let message = v1::Latest { member: number, epoch: hosted.room.epoch(), ..latest };
        self.passes(room, metadata, Passage::Relayed);
        self.tell(now, link, wire::encode(v1::Kind::Latest, &plain_trace(metadata), &message));
    }

    pub(super) fn exit(
        &mut self,
        now: Now,
        room: Key,
        node: NodeId,
        member: u32,
        session_epoch: u64,
        away: bool,
    ) {
        // A primary without a link to this node takes all members here for away.
        let Some(link) = self.peers.get(&node).and_then(|peer| peer.link) else { return };
        let Some(hosted) = self.rooms.get(room) else {
            return self.bugs.found("a member leaves a room that is not in the table");
        };
        let (room, epoch) = (hosted.room.name().as_str().into(), hosted.room.epoch());
        let message = v1::Exit { room, epoch, member, session_epoch, away };
        self.tell(now, link, wire::encode(v1::Kind::Exit, &v1::Metadata::default(), &message));
    }

    // Look-ups.

    /// A room that this node follows on that node in that epoch. Anything else is late.
    pub(super) fn followed(&self, from: NodeId, room: &str, epoch: u64) -> Option<Key> {
        let room = *self.rooms_by_name.get(&Name::new(room).ok()?)?;
        let hosted = self.rooms.get(room)?;
        let is_epoch = hosted.room.epoch() == epoch || self.planted.is(Plant::EpochUncompared);
        (hosted.primary() == Some(from) && is_epoch).then_some(room)
    }

    /// The session of this node that is this member of a room.
    fn local_member(&self, room: Key, number: u32) -> Option<SessionKey> {
        let is_it = |key: &&SessionKey| {
            self.sessions.get(**key).is_some_and(|session| {
                session.memberships.iter().any(|m| m.room == room && m.number == number)
            })
        };
        self.rooms.get(room)?.locals.iter().find(is_it).copied()
    }
}
