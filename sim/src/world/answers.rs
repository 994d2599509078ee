//! Requests of clients about rooms, and the answers, as they pass over connections. The connections
//! are observed because a client may repeat a request without the knowledge of its application.

use bytes::Bytes;
use skirmish_core::wire::{Frame, ToClient, ToServer};
use skirmish_proto::v1::{Kind, LeftReason};

use super::World;
use crate::oracle::{Observation, Verdict};

/// Returns a frame of this kind whose payload is neither sealed nor compressed.
fn plain(frame: &Bytes, kind: Kind) -> Option<Frame> {
    // Most frames have other kinds: the header shows this without a checksum.
    let named = frame.get(10..12)?;
    if named != (kind as u16).to_be_bytes() {
        return None;
    }
    Frame::decode(frame.clone(), usize::MAX).ok().filter(|frame| frame.flags == 0)
}

impl World<'_> {
    /// Observes a frame that a client sends over a connection.
    pub(super) fn note_asked(&mut self, conn: u64, frame: &Bytes) -> Verdict {
        let Some(Ok(ToServer::Hello(hello))) = plain(frame, Kind::Hello).map(|f| ToServer::decode(&f)) else {
            return Ok(());
        };
        if let Some(process) = self.conns.get(&conn).map(|conn| &self.clients[conn.client]) {
            let greeters = self.greeters.entry(process.player.clone()).or_default();
            greeters.insert(process.client_life());
        }
        for cursor in hello.resume.map(|resume| resume.rooms).unwrap_or_default() {
            let room = self.room(&cursor.room);
            self.observe(Observation::Resumes { conn, room })?;
        }
        Ok(())
    }

    /// Observes a frame that arrives at a client over a connection.
    pub(super) fn note_told(&mut self, client: usize, conn: u64, frame: &Bytes) -> Verdict {
        let Some(Ok(ToClient::Left(left))) = plain(frame, Kind::Left).map(|f| ToClient::decode(&f)) else {
            return Ok(());
        };
        if left.reason() != LeftReason::Gone {
            return Ok(());
        }
        let shape = &self.scenario.shape;
        let healthy = !self.faulted && shape.players >= shape.clients;
        let (client_life, room) = (self.clients[client].client_life(), self.room(&left.room));
        self.observe(Observation::ToldGone { client_life, conn, room, healthy })
    }
}
