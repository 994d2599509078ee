//! Output of connections: queued frames, and frames from the cursors of sessions.

use alloc::collections::VecDeque;

use bytes::Bytes;
use skirmish_proto::v1;

use super::Connections;
use super::connection::Phase;
use crate::base::bug::Bugs;
use crate::base::id::ConnId;
use crate::base::slab::Key;
use crate::node::Output;
use crate::node::cx::Cx;

/// Sources of the next frame of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NextFrame {
    /// A frame that waited in the connection.
    Own(Bytes),
    /// The `Welcome`, which is sent unsealed, even if the connection has a seal.
    Clear(Bytes),
    /// The cursors of the session, and after them the connection's
    /// [last frame](Connections::take_goodbye).
    Session { session: Key, accept_zstd: bool },
    /// Nothing but the connection's [last frame](Connections::take_goodbye).
    Last,
}

impl Connections {
    /// Tells the driver of frames to transmit, unless the driver knows already. Returns true if the
    /// driver knew.
    #[inline]
    pub(crate) fn wake(&mut self, bugs: &mut Bugs, out: &mut VecDeque<Output>, key: Key) -> bool {
        let Some(connection) = self.table.get_mut(key) else {
            bugs.found("a connection is woken that is not in the table");
            return false;
        };
        let was_woken = core::mem::replace(&mut connection.woken, true);
        if !was_woken {
            out.push_back(Output::Wake(ConnId::from_key(key)));
        }
        was_woken
    }

    /// Queues an answer to a request, and wakes the connection. A peer that lets answers pile up
    /// is closed.
    pub(crate) fn answer(&mut self, cx: &mut Cx<'_>, key: Key, frame: Bytes) {
        let Some(connection) = self.table.get_mut(key) else {
            return cx.bugs.found("an answer is for a connection that is not in the table");
        };
        if connection.queue.push_answer(frame) {
            self.wake(cx.bugs, cx.out, key);
        } else {
            let what = "requests without reading the answers";
            self.punish(cx, key, super::Offence::new(v1::Reason::RateLimited, what));
        }
    }

    /// [Answers](Self::answer), unless the last frame that waits in the connection is the same.
    pub(crate) fn answer_once(&mut self, cx: &mut Cx<'_>, key: Key, frame: Bytes) {
        if self.table.get(key).is_none_or(|connection| connection.queue.last() != Some(&frame)) {
            self.answer(cx, key, frame);
        }
    }

    /// Queues a message of the application, and wakes the connection. Returns false if the
    /// connection is not open, or its queue is full.
    pub(crate) fn send(&mut self, cx: &mut Cx<'_>, key: Key, frame: Bytes) -> bool {
        let Some(connection) = self.table.get_mut(key).filter(|connection| connection.is_open()) else {
            return false;
        };
        let queued = connection.queue.push_message(frame);
        self.wake(cx.bugs, cx.out, key);
        queued
    }

    /// Returns the source of a connection's next frame, which is to be given to
    /// [`Self::transmit`]. `None` if the connection is gone.
    #[inline]
    pub(crate) fn next_frame(&mut self, out: &mut VecDeque<Output>, key: Key) -> Option<NextFrame> {
        // The driver may ask for a connection that the node has given up.
        let connection = self.table.get_mut(key)?;
        if let Some(welcome) = connection.welcome.take() {
            return Some(NextFrame::Clear(welcome));
        }
        let was_held = connection.is_held();
        if let Some(frame) = connection.queue.pop() {
            if was_held && !connection.is_held() {
                out.push_back(Output::Resume(ConnId::from_key(key)));
            }
            return Some(NextFrame::Own(frame));
        }
        let session = match &connection.phase {
            Phase::Open | Phase::Closing { owed: true, .. } => connection.session,
            Phase::Upgrading { .. }
            | Phase::Greeting { .. }
            | Phase::Claiming { .. }
            | Phase::Closing { .. } => None,
        };
        Some(session.map_or(NextFrame::Last, |session| NextFrame::Session {
            session,
            accept_zstd: connection.accept_zstd,
        }))
    }

    /// Takes the last frame of a connection that is being closed, if it is still to be sent.
    #[inline]
    pub(crate) fn take_goodbye(&mut self, key: Key) -> Option<Bytes> {
        match &mut self.table.get_mut(key)?.phase {
            Phase::Closing { goodbye, .. } => goodbye.take(),
            Phase::Upgrading { .. } | Phase::Greeting { .. } | Phase::Claiming { .. } | Phase::Open => None,
        }
    }

    /// Counts a frame that goes out, sealed if the connection has a seal. Without a frame the
    /// connection is asleep until it is woken.
    #[inline]
    pub(crate) fn transmit(&mut self, cx: &mut Cx<'_>, key: Key, frame: Option<Bytes>) -> Option<Bytes> {
        let Some(connection) = self.table.get_mut(key) else {
            cx.bugs.found("a connection vanished while its next frame was read");
            return None;
        };
        let Some(frame) = frame else {
            connection.woken = false;
            return None;
        };
        let Some(seal) = connection.seal.as_mut() else {
            return Some(self.count_out(frame));
        };
        match seal.seal(&frame) {
            Ok(sealed) => Some(self.count_out(sealed)),
            Err(_) => {
                self.key_used_up(cx, key);
                None
            }
        }
    }

    /// Closes a connection at the end of its counter of sealed frames: a new connection agrees on a
    /// new key.
    #[cold]
    fn key_used_up(&mut self, cx: &mut Cx<'_>, key: Key) {
        if let Some(connection) = self.table.get_mut(key) {
            connection.seal = None;
            connection.welcome = None;
        }
        self.close(cx, key, v1::Reason::Overloaded, "the key of the connection is used up");
    }

    /// Counts a frame that is sent unsealed.
    #[inline]
    pub(crate) const fn count_out(&mut self, frame: Bytes) -> Bytes {
        self.stats.frames_out += 1;
        self.stats.bytes_out += frame.len() as u64;
        frame
    }
}
