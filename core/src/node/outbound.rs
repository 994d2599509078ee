//! Frames for connections: read from the cursors of a session when its connection takes more.

use bytes::Bytes;

use super::Node;
use crate::base::slab::Key;
use crate::base::time::Now;
use crate::node::connections::NextFrame;

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

    fn next_of_session(&mut self, session: Key, accept_zstd: bool) -> Option<Bytes> {
        let Self { sessions, rooms, planted, .. } = self;
        sessions.next_frame(session, |room| Some(rooms.get(room)?.room()), accept_zstd, *planted)
    }
}
