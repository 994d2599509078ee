//! Messages of the server about a room.

use alloc::collections::BTreeMap;
use alloc::string::String;

use skirmish_proto::v1;

use super::event::{Outcome, StateRefusal};
use super::replicated::Keep;
use super::room::{ClientRoom, RequestKind, RoomPhase, RoomRequest};
use super::{Client, Event, Fault};
use crate::base::id::Cursor;
use crate::base::plant::Plant;
use crate::base::time::{Duration, Now};
use crate::matchmaking::keys;
use crate::room::Turn;

/// Longest wait that a `Throttle` may ask for. A longer wait is cut to this one.
const LONGEST_THROTTLE: Duration = Duration::from_secs(60);

/// Returns true if an answer that names a request answers this one.
const fn is_answered(request: &RoomRequest, named: u64) -> bool {
    named != 0 && request.number == named
}

/// Returns a room whose membership the server has confirmed on this connection. Messages about
/// other rooms are ignored, since they belong to earlier memberships.
fn live_room<'a>(rooms: &'a mut BTreeMap<String, ClientRoom>, name: &str) -> Option<&'a mut ClientRoom> {
    rooms.get_mut(name).filter(|room| room.is_live())
}

/// Returns a live room with this epoch. Messages of other epochs are ignored, since they belong
/// to earlier lives of the room.
fn live_room_in<'a>(
    rooms: &'a mut BTreeMap<String, ClientRoom>,
    name: &str,
    epoch: u64,
) -> Option<&'a mut ClientRoom> {
    live_room(rooms, name).filter(|room| room.epoch() == epoch)
}

impl Client {
    pub(super) fn joined(&mut self, now: Now, joined: v1::Joined) -> Result<(), Fault> {
        let clock = self.server_clock(now);
        let identity = self.identity().ok_or(Fault::BeforeWelcome)?;
        let Self { rooms, outputs, config, planted, .. } = self;
        // The client may have left the room meanwhile.
        let Some(room) = rooms.get_mut(&joined.room) else { return Ok(()) };
        let name = &joined.room;
        let Some(request) = room.request.as_mut().filter(|request| is_answered(request, joined.request))
        else {
            // The answer to an earlier request.
            return Ok(());
        };
        request.answered = true;
        let (was_member, was_live) = match room.phase {
            RoomPhase::Leaving { .. } => return Ok(()),
            RoomPhase::Member { live } => (true, live),
            RoomPhase::Wanted { .. } | RoomPhase::Joining => (false, false),
        };
        let same_log = room.cursor.is_some_and(|cursor| cursor.epoch == joined.epoch);
        let resumed = was_member && joined.resumed && same_log;
        if resumed {
            if joined.client_seq < room.outbox.acknowledged() {
                return Err(Fault::AcknowledgedLost);
            }
            let acknowledged = room
                .outbox
                .acknowledge(joined.client_seq, config.outbox_messages)
                .map_err(|_| Fault::NeverSent)?;
            outputs.outcomes(name, acknowledged, Outcome::Acknowledged);
            if !was_live {
                room.outbox.resend(planted.is(Plant::ResentBackwards));
            }
        } else {
            if same_log && room.cursor.is_some_and(|cursor| joined.seq < cursor.seq) {
                return Err(Fault::LogWentBack);
            }
            outputs.outcomes(name, room.outbox.settle_sent(), Outcome::Unknown);
            room.outbox.renumber(joined.client_seq);
        }
        let away = room.away_since.take().map_or(Duration::ZERO, |since| now.instant.since(since));
        let keep = if room.replicated.is_of_another_life(joined.epoch) {
            Keep::Own
        } else if away >= identity.limits.tombstone_horizon {
            Keep::Unsent
        } else {
            Keep::Everything
        };
        let refused = room.replicated.joined(clock, &config.player, &identity, joined.epoch, keep);
        outputs.no_place(name, refused);
        // A new membership in a log that the client knows keeps the cursor, so that the snapshot
        // that follows can report the entries that were missed.
        if !same_log {
            room.cursor = Some(Cursor { epoch: joined.epoch, seq: joined.seq });
            room.fresh = true;
            room.versions.clear();
        }
        room.member = joined.member;
        room.phase = RoomPhase::Member { live: true };
        let (epoch, member) = (joined.epoch, joined.member);
        outputs.event(Event::Joined { room: joined.room, epoch, member, resumed });
        Ok(())
    }

    pub(super) fn left(&mut self, now: Now, left: v1::Left) {
        use v1::LeftReason;

        if self.pending_leaves.take_answered(left.request) {
            return;
        }
        let Self { rooms, outputs, config, .. } = self;
        // The client may have left the room meanwhile.
        let Some(room) = rooms.get_mut(&left.room) else { return };
        let name = &left.room;
        let reason = left.reason();
        let answers = room.request.is_some_and(|request| is_answered(&request, left.request));
        // A message was of no member: news only if the client is one, as far as it knows.
        let answers_message = left.request == 0 && room.is_open();
        if !answers && !answers_message {
            return;
        }
        let request = room.request.take();
        let gone = matches!(reason, LeftReason::Unspecified | LeftReason::Gone | LeftReason::NotAMember);
        let answers_leave = request.is_some_and(|request| request.kind == RequestKind::Leave);
        let keep = match room.phase {
            // The membership is over, or a join was refused, but the match of the room may go on.
            RoomPhase::Leaving { again, .. } if !answers_leave && keys::match_of(name).is_some() => {
                room.phase = RoomPhase::Leaving { sent: false, live: false, again };
                true
            }
            RoomPhase::Leaving { again, .. } => {
                room.end(name, again, outputs);
                again
            }
            RoomPhase::Wanted { .. } => true,
            RoomPhase::Joining if gone => {
                let not_before = now.instant + config.backoff_min;
                room.phase = RoomPhase::Wanted { not_before: Some(not_before) };
                true
            }
            RoomPhase::Member { .. } if gone && config.rejoin => {
                room.rejoin(now.instant, name, None, outputs);
                outputs.event(Event::Left { room: name.clone(), reason });
                true
            }
            RoomPhase::Joining | RoomPhase::Member { .. } => {
                room.close(name, reason, outputs);
                false
            }
        };
        if !keep {
            rooms.remove(&left.room);
        }
        if answers_leave {
            self.search.leave(&left.room);
        }
    }

    pub(super) fn entry(&mut self, entry: v1::Entry) -> Result<(), Fault> {
        let Self { rooms, outputs, config, .. } = self;
        let Some(room) = live_room(rooms, &entry.room) else { return Ok(()) };
        let Some(cursor) = room.cursor.filter(|cursor| cursor.epoch == entry.epoch) else {
            return Err(Fault::EntryOfAnotherEpoch);
        };
        if entry.seq <= cursor.seq {
            return Ok(());
        }
        if entry.seq - cursor.seq > 1 {
            return Err(Fault::Gap);
        }
        let kind = entry.kind();
        let mut message = None;
        if kind == v1::EntryKind::Say && entry.member == room.member {
            let acknowledged = room
                .outbox
                .acknowledge(entry.client_seq, config.outbox_messages)
                .map_err(|_| Fault::NeverSent)?;
            outputs.outcomes(&entry.room, acknowledged, Outcome::Acknowledged);
            message = room.outbox.seen(entry.client_seq);
        }
        // The cursor moves only here: an entry that is a fault was not delivered, and has to be
        // sent again.
        let cursor = Cursor { seq: entry.seq, ..cursor };
        room.cursor = Some(cursor);
        room.fresh = false;
        outputs.event(Event::Entry {
            room: entry.room,
            cursor,
            kind,
            member: entry.member,
            message,
            client_seq: entry.client_seq,
            at_ms: entry.at_ms,
            body: entry.body,
            type_url: entry.type_url,
            player: entry.player,
            turn: (entry.turn > 0).then_some(Turn { number: entry.turn, ends_ms: entry.turn_ends_ms }),
        });
        Ok(())
    }

    pub(super) fn ack(&mut self, ack: &v1::Ack) -> Result<(), Fault> {
        self.acknowledge(&ack.room, ack.epoch, ack.client_seq)
    }

    pub(super) fn snapshot(&mut self, snapshot: v1::Snapshot) -> Result<(), Fault> {
        self.acknowledge(&snapshot.room, snapshot.epoch, snapshot.client_seq)?;
        let Self { rooms, outputs, .. } = self;
        let Some(room) = live_room(rooms, &snapshot.room) else { return Ok(()) };
        let Some(cursor) = room.cursor.as_mut().filter(|cursor| cursor.epoch == snapshot.epoch) else {
            return Err(Fault::SnapshotOfAnotherEpoch);
        };
        if snapshot.seq < cursor.seq && !room.fresh {
            return Err(Fault::SnapshotWentBack);
        }
        if snapshot.seq == cursor.seq && !room.fresh && matches!(room.phase, RoomPhase::Leaving { .. }) {
            // The server has answered a join twice, and the client leaves meanwhile: the second
            // answer has no news.
            return Ok(());
        }
        let missing = match snapshot.missing_from {
            // The client's cursor is more exact than the server about the entries that were
            // delivered.
            _ if !room.fresh && snapshot.seq > cursor.seq => Some((cursor.seq + 1, snapshot.seq)),
            from if from > 0 && from <= snapshot.seq && room.fresh => Some((from, snapshot.seq)),
            _ => None,
        };
        cursor.seq = snapshot.seq;
        let cursor = *cursor;
        room.fresh = false;
        let v1::Snapshot { room, members, turn: number, turn_ends_ms: ends_ms, .. } = snapshot;
        outputs.event(Event::Snapshot { room, cursor, missing, members, turn: Turn { number, ends_ms } });
        Ok(())
    }

    pub(super) fn throttle(&mut self, now: Now, throttle: v1::Throttle) {
        let class = throttle.class();
        let retry_after = Duration::from_millis(throttle.retry_after_ms.into()).min(LONGEST_THROTTLE);
        let Some(room) = live_room(&mut self.rooms, &throttle.room) else { return };
        if class == v1::Class::Reliable {
            room.outbox.go_back(throttle.expected, now.instant + retry_after);
        }
        self.outputs.event(Event::Throttled { room: throttle.room, class, retry_after });
    }

    pub(super) fn latest_received(&mut self, latest: v1::Latest) {
        let Some(room) = live_room_in(&mut self.rooms, &latest.room, latest.epoch) else { return };
        if room.versions.grows(latest.member, latest.key, latest.version) {
            self.outputs.event(Event::Latest {
                room: latest.room,
                member: latest.member,
                key: latest.key,
                version: latest.version,
                body: latest.body,
                type_url: latest.type_url,
            });
        }
    }

    pub(super) fn state_received(&mut self, now: Now, state: &v1::State) -> Result<(), Fault> {
        if state.refused && !state.full {
            let session = self.session.as_mut().ok_or(Fault::BeforeWelcome)?;
            session.clock.wall_ms = state.wall_ms;
            session.clock.heard = now.instant;
        }
        let clock = self.server_clock(now);
        let Self { rooms, outputs, config, .. } = self;
        let Some(room) = live_room_in(rooms, &state.room, state.epoch) else { return Ok(()) };
        if state.full {
            room.replicated.give_up(&state.entries);
            let names = state.entries.iter().map(|entry| entry.name.clone()).collect();
            let why = if state.superseded { StateRefusal::Superseded } else { StateRefusal::Full };
            outputs.event(Event::StateRefused { room: String::from(&state.room), names, why });
        } else if state.refused {
            room.replicated.refused(clock, &config.player, state);
        } else if room.replicated.merge(clock, &state.entries)? {
            outputs.event(Event::State { room: String::from(&state.room) });
        }
        Ok(())
    }

    pub(super) fn reconcile(&mut self, step: &v1::Reconcile) -> Result<(), Fault> {
        let Self { rooms, outputs, config, .. } = self;
        let Some(room) = live_room_in(rooms, &step.room, step.epoch) else { return Ok(()) };
        if room.replicated.reconcile(&config.player, step)? {
            outputs.event(Event::State { room: String::from(&step.room) });
        }
        Ok(())
    }

    fn acknowledge(&mut self, room: &str, epoch: u64, client_seq: u64) -> Result<(), Fault> {
        let Self { rooms, outputs, config, .. } = self;
        let name = room;
        let Some(room) = live_room_in(rooms, name, epoch) else { return Ok(()) };
        let acknowledged =
            room.outbox.acknowledge(client_seq, config.outbox_messages).map_err(|_| Fault::NeverSent)?;
        outputs.outcomes(name, acknowledged, Outcome::Acknowledged);
        Ok(())
    }
}
