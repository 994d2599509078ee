//! Memory of the world by which a second primary of a room and a second writing session of a player
//! are found.

use std::collections::BTreeMap;

use bytes::Bytes;
use skirmish_core::id::{Cursor, LinkId, Name};
use skirmish_core::wire::{FLAG_SEALED, Frame, RoomMessage, ToClient, ToNode};
use skirmish_proto::v1::Kind;

use super::World;
use crate::oracle::{Observation, Verdict};

/// State of the module.
#[derive(Default)]
pub(super) struct PrimaryWatch {
    /// Last head of each room on the node that led it, with the node's life.
    heads: BTreeMap<(usize, u64), (u32, Cursor)>,
    /// Members that joined over their newest connection, by room, epoch and member.
    joined: BTreeMap<(u64, u64, u32), JoinedMember>,
}

/// A member that was notified of its join.
#[derive(Clone)]
struct JoinedMember {
    client: usize,
    player: Name,
    /// Epoch of the session in its `Welcome`: newer connections have higher ones.
    welcomed: u64,
    /// Epoch of the session in the registry.
    claimed: u64,
}

impl World<'_> {
    /// Observes the rooms of a node, and the rooms that the node leads, after one of its inputs.
    pub(super) fn inspect(&mut self, node: usize) -> Verdict {
        let process = &self.nodes[node];
        let life = process.life;
        let now = process.clock.now(self.at).instant;
        for (room, name) in self.rooms.open() {
            let Some(machine) = self.nodes[node].machine.as_ref() else { return Ok(()) };
            let head = machine.head(&name);
            if let (Some(head), Some(replica)) = (head, machine.replica(&name)) {
                let number = u32::try_from(room).unwrap_or(u32::MAX);
                self.oracles.replicated((node, life), number, head.epoch, replica)?;
            }
            let (Some((epoch, term)), Some(head)) = (machine.reign(&name), head) else {
                self.primary_watch.heads.remove(&(node, room));
                continue;
            };
            let serves = machine.may_change(now, &name);
            if machine.backup(&name).is_some() {
                self.coverage.hit("room backed up");
            }
            let before = self.primary_watch.heads.insert((node, room), (life, head));
            let before = before.filter(|(of, cursor)| *of == life && cursor.epoch == epoch);
            let room = u32::try_from(room).unwrap_or(u32::MAX);
            if before.is_none() {
                self.observe(Observation::Leads { node: (node, life), room, epoch, term })?;
            }
            // A backup that has taken over has entries that it did not append.
            let known = before.map_or(if term > 1 { head.seq } else { 0 }, |(_, cursor)| cursor.seq);
            if known < head.seq {
                self.observe(Observation::Appended { node: (node, life), room, epoch, term, serves })?;
            }
        }
        if self.nodes.len() > 1 {
            self.count_primaries()?;
            self.compare_backups()?;
        }
        Ok(())
    }

    /// Checks that whoever may take a room over has everything that is committed.
    fn compare_backups(&mut self) -> Verdict {
        for (room, name) in self.rooms.open() {
            let machines = || self.nodes.iter().filter_map(|node| node.machine.as_ref());
            let committed = machines().filter_map(|machine| machine.committed(&name));
            let pairs: Vec<(u64, u64)> = committed
                .filter_map(|(peer, epoch, committed)| {
                    let peer = machines().find(|machine| machine.id() == peer)?;
                    let (of, stored) = peer.stored(&name)?;
                    (of == epoch).then_some((committed, stored))
                })
                .collect();
            let room = u32::try_from(room).unwrap_or(u32::MAX);
            for (committed, stored) in pairs {
                self.observe(Observation::BackedUp { room, committed, stored })?;
            }
        }
        Ok(())
    }

    /// Checks that at most one node commits changes of a room alone at any moment.
    fn count_primaries(&mut self) -> Verdict {
        for (room, name) in self.rooms.open() {
            let mut serving = 0;
            for process in &self.nodes {
                let now = process.clock.now(self.at).instant;
                if process.machine.as_ref().is_some_and(|machine| machine.commits_alone(now, &name)) {
                    serving |= 1 << process.number;
                }
            }
            let room = u32::try_from(room).unwrap_or(u32::MAX);
            self.observe(Observation::Serving { room, nodes: serving })?;
        }
        Ok(())
    }

    /// Observes a frame that a node sends over a connection. A frame that confirms a join fences
    /// the player's older connections in that room from now on.
    pub(super) fn note_joined_frame(&mut self, id: u64, frame: &Bytes) {
        if self.nodes.len() == 1 {
            return;
        }
        let Ok(frame) = Frame::decode(frame.clone(), usize::MAX) else { return };
        if frame.message() != Ok(Kind::Joined) || frame.flags & FLAG_SEALED != 0 {
            return;
        }
        if let Ok(ToClient::Joined(joined)) = ToClient::decode(&frame) {
            self.note_joined(id, &joined.room, joined.epoch, joined.member);
        }
    }

    /// Records a member that was notified of its join. On a sealed connection the client reports
    /// the join.
    pub(super) fn note_joined(&mut self, id: u64, room: &str, epoch: u64, member: u32) {
        let Some(conn) = self.conns.get(&id) else { return };
        let player = self.clients[conn.client].player.clone();
        let claimed =
            self.nodes[conn.to].machine.as_ref().and_then(|node| node.session_epoch(player.as_str()));
        let Some(claimed) = claimed else { return };
        let room = self.rooms.number(room);
        let joined = JoinedMember { client: conn.client, player, welcomed: conn.epoch, claimed };
        let known = self.primary_watch.joined.entry((room, epoch, member)).or_insert_with(|| joined.clone());
        if joined.welcomed > known.welcomed {
            *known = joined;
        }
    }

    /// Returns the rooms, with their epochs, that a newer connection of the player has joined.
    pub(super) fn rooms_left(&self, id: u64) -> Vec<(u64, u64)> {
        let Some(conn) = self.conns.get(&id).filter(|conn| conn.epoch > 0) else { return Vec::new() };
        let player = &self.clients[conn.client].player;
        if self.newest.get(player).is_none_or(|newest| newest.0 <= conn.epoch) {
            return Vec::new();
        }
        let left = |joined: &JoinedMember| joined.player == *player && joined.welcomed > conn.epoch;
        let joined = self.primary_watch.joined.iter().filter(|(_, joined)| left(joined));
        joined.map(|(&(room, epoch, _), _)| (room, epoch)).collect()
    }

    /// Passes a frame from another node to a node. A frame that relays for a session that has
    /// joined elsewhere since must not be written.
    pub(super) fn link_frame(&mut self, node_link: u64, end: usize, link: LinkId, frame: Bytes) -> Verdict {
        let Some(node) = self.node_links.get(&node_link).map(|node_link| node_link.ends[end].node) else {
            return Ok(());
        };
        let Some((name, client)) = self.outdated(&frame) else {
            self.node_input(node, |machine, now| machine.handle_link_frame(now, link, frame))?;
            return Ok(());
        };
        self.coverage.hit("fenced relay");
        let written = self.node_input(node, |machine, now| {
            let before = machine.head(&name).map_or(0, |head| head.seq);
            machine.handle_link_frame(now, link, frame);
            (before, machine.head(&name).map_or(0, |head| head.seq))
        })?;
        written.map_or(Ok(()), |written| self.observe(Observation::Fenced { client, written }))
    }

    /// Returns the room and the client of a frame that relays a message which the session sent
    /// before it moved.
    fn outdated(&mut self, frame: &Bytes) -> Option<(String, usize)> {
        let decoded = Frame::decode(frame.clone(), usize::MAX).ok()?;
        if decoded.message() != Ok(Kind::Relay) {
            return None;
        }
        let Ok(ToNode::Room(RoomMessage::Relay(relay))) = ToNode::decode(&decoded, frame.clone()) else {
            return None;
        };
        let room = self.rooms.number(&relay.room);
        let joined = self.primary_watch.joined.get(&(room, relay.epoch, relay.member))?;
        (joined.claimed > relay.session_epoch).then_some((relay.room, joined.client))
    }
}
