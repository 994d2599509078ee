//! What goes out: read from the cursors of a session when its connection takes more.

use alloc::string::String;

use bytes::Bytes;
use skirmish_proto::v1;

use super::Node;
use crate::base::plant::Plant;
use crate::base::slab::Key;
use crate::base::time::Now;
use crate::hosting::STATE_FRAME_BYTES;
use crate::node::connections::NextFrame;
use crate::room::Room;
use crate::session::{Membership, SessionKey};
use crate::wire;

/// What a cursor stands for.
enum Next {
    Entry(Bytes),
    Snapshot(Bytes),
    Other(Bytes),
}

impl Node {
    pub(super) fn next_frame(&mut self, now: Now, key: Key) -> Option<Bytes> {
        let frame = match self.connections.next_frame(&mut self.outputs, key)? {
            NextFrame::Clear(frame) => return Some(self.connections.count_out(frame)),
            NextFrame::Own(frame) => Some(frame),
            NextFrame::Session { session, accept_zstd } => {
                let frame = self.next_of_session(session, accept_zstd);
                frame.or_else(|| self.connections.take_goodbye(key))
            }
            NextFrame::Last => self.connections.take_goodbye(key),
        };
        let (connections, mut cx) = self.connections(now);
        connections.transmit(&mut cx, key, frame)
    }

    fn next_of_session(&mut self, session: SessionKey, accept_zstd: bool) -> Option<Bytes> {
        let Self { sessions, rooms, stats, planted, .. } = self;
        let session = sessions.get_mut(session)?;
        let count = session.memberships.len();
        for turn in 0..count {
            let at = (session.turn + turn) % count;
            let Some(membership) = session.memberships.get_mut(at) else { continue };
            let Some(hosted) = rooms.get(membership.room) else { continue };
            let next = if planted.is(Plant::GapUnannounced) {
                membership.skip_lost(hosted.room());
                membership.next(hosted.room(), accept_zstd, *planted)
            } else {
                membership.next(hosted.room(), accept_zstd, *planted)
            };
            let Some(next) = next else { continue };
            session.turn = (at + 1) % count;
            return Some(match next {
                Next::Entry(frame) => {
                    stats.deliveries += 1;
                    frame
                }
                Next::Snapshot(frame) => {
                    stats.snapshots += 1;
                    frame
                }
                Next::Other(frame) => frame,
            });
        }
        None
    }
}

impl Membership {
    /// What the member is owed next. The order: how it became a member, what was refused,
    /// the log, the latest messages, the state.
    fn next(&mut self, room: &Room, accept_zstd: bool, planted: crate::base::plant::Planted) -> Option<Next> {
        if self.number == 0 {
            return None;
        }
        let epoch = room.epoch();
        if let Some(joined) = self.joined.take() {
            let early = u64::from(planted.is(Plant::AcknowledgedUnlogged) && joined.resumed);
            let message = v1::Joined {
                room: String::from(room.name().clone()),
                epoch: room.epoch(),
                member: self.number,
                resumed: joined.resumed,
                client_seq: room.member(self.number).map_or(0, |m| m.client_seq) + early,
                seq: self.seq,
            };
            self.acknowledge = false;
            return Some(Next::Other(plain(v1::Kind::Joined, &message)));
        }
        if core::mem::take(&mut self.welcome_snapshot) && !room.has_lost(self.seq) {
            let snapshot = room.snapshot(self.number, self.seq, 0);
            return Some(Next::Other(plain(v1::Kind::Snapshot, &snapshot)));
        }
        if room.has_lost(self.seq) {
            let snapshot = room.snapshot(self.number, room.released(), self.seq + 1);
            self.seq = room.released();
            return Some(Next::Snapshot(plain(v1::Kind::Snapshot, &snapshot)));
        }
        if let Some(throttle) = self.throttle.take() {
            let message = v1::Throttle {
                room: String::from(room.name().clone()),
                class: v1::Class::Reliable.into(),
                expected: throttle.expected,
                retry_after_ms: throttle.retry_after_ms,
            };
            return Some(Next::Other(plain(v1::Kind::Throttle, &message)));
        }
        if let Some(retry_after_ms) = self.latest_throttle.take() {
            let message = v1::Throttle {
                room: String::from(room.name().clone()),
                class: v1::Class::Latest.into(),
                expected: 0,
                retry_after_ms,
            };
            return Some(Next::Other(plain(v1::Kind::Throttle, &message)));
        }
        if self.seq < room.released()
            && let Some(frame) = room.log().get(self.seq + 1, accept_zstd)
        {
            self.seq += 1;
            return Some(Next::Entry(frame.clone()));
        }
        if core::mem::take(&mut self.acknowledge) {
            let message = v1::Ack {
                room: String::from(room.name().clone()),
                epoch: room.epoch(),
                client_seq: room.member(self.number).map_or(0, |m| m.client_seq),
            };
            return Some(Next::Other(plain(v1::Kind::Ack, &message)));
        }
        if let Some((version, frame)) = room.latest.next(self.latest, self.number) {
            self.latest = version;
            return Some(Next::Other(frame.clone()));
        }
        let forgotten = room.state.forgotten();
        if self.forgotten < forgotten && self.change < forgotten {
            self.forgotten = forgotten;
            let room = String::from(room.name().clone());
            let walk = v1::Reconcile { room, epoch, ..v1::Reconcile::default() };
            return Some(Next::Other(plain(v1::Kind::Reconcile, &walk)));
        }
        if self.change < room.state.change() {
            let (entries, change) = room.state.changes_since(self.change, STATE_FRAME_BYTES);
            self.change = change;
            if !entries.is_empty() {
                let state = v1::State {
                    room: String::from(room.name().clone()),
                    epoch: room.epoch(),
                    entries,
                    ..v1::State::default()
                };
                return Some(Next::Other(plain(v1::Kind::State, &state)));
            }
        }
        None
    }

    /// Goes on with the oldest entry there is, without a word (a planted bug).
    fn skip_lost(&mut self, room: &Room) {
        self.seq = self.seq.max(room.log().first() - 1);
    }
}

/// A frame without metadata. That is not made before it is needed: most calls need none.
fn plain(kind: v1::Kind, message: &impl prost::Message) -> Bytes {
    wire::encode(kind, &v1::Metadata::default(), message)
}
