//! Agreement of several servers and their registry once faults have stopped: every room has one
//! primary, every session is on its client's server, and the registry's records match.

use skirmish_core::id::NodeId;
use skirmish_core::node::Node;
use skirmish_io::server::Handle;

use super::hosts::Hosts;
use super::player::player_name;
use super::write_watch::ServerView;
use crate::oracle::{Guarantee, Verdict, Violation};

fn broken<T>(guarantee: Guarantee, description: String) -> Result<T, Violation> {
    Err(Violation { guarantee, description })
}

impl Hosts {
    /// Returns the handles of the servers. All servers must run.
    pub(super) fn running(&self) -> Result<Vec<Handle>, Violation> {
        let ledger = self.shared.lock();
        let mut handles = Vec::new();
        for (number, server) in ledger.servers.iter().enumerate() {
            let Some(handle) = &server.handle else {
                return broken(Guarantee::Liveness, format!("server {number} does not run"));
            };
            handles.push(handle.clone());
        }
        Ok(handles)
    }

    /// Checks that all servers agree, if the registry has a host of its own.
    pub(super) fn agreed(&self, present: &[usize]) -> Verdict {
        let (views, records, rooms) = {
            let ledger = self.shared.lock();
            let Some(registry_state) = &ledger.registry_state else { return Ok(()) };
            (ledger.views(), registry_state.records(), ledger.open_rooms())
        };
        for (number, view) in views.iter().enumerate() {
            if !view.as_ref().is_some_and(|view| view.serves) {
                return broken(Guarantee::Liveness, format!("server {number} does not serve"));
            }
        }
        let views: Vec<ServerView> = views.into_iter().flatten().collect();
        for (room, name) in rooms {
            let of_room = || views.iter().filter_map(|view| view.rooms.get(&room));
            let epochs: Vec<u64> = of_room().filter_map(|room| Some(room.head?.epoch)).collect();
            let primaries = of_room().filter(|room| room.reign.is_some()).count();
            if primaries != usize::from(!epochs.is_empty()) || epochs.iter().any(|epoch| *epoch != epochs[0])
            {
                let description = format!(
                    "{name} has {primaries} primaries, and its epoch is {epochs:?} at those who have it"
                );
                return broken(Guarantee::Primary, description);
            }
        }
        let servers = self.running()?;
        self.settled(present, &servers)?;
        recorded(&records, &servers)
    }

    /// Checks that every session is on the server that its client is connected to, and nowhere
    /// else.
    fn settled(&self, present: &[usize], servers: &[Handle]) -> Verdict {
        for &client in present {
            let (player, home) = {
                let ledger = self.shared.lock();
                (player_name(ledger.clients[client].player), ledger.clients[client].reached)
            };
            let has = |server: &Handle| server.inspect(|node| node.session_epoch(player.as_str()).is_some());
            let with: Vec<usize> = (0..servers.len()).filter(|number| has(&servers[*number])).collect();
            if with != [home] {
                let description = format!(
                    "{player} is connected to server {home}, but servers {with:?} have a session of it"
                );
                return broken(Guarantee::Fence, description);
            }
        }
        Ok(())
    }
}

/// Checks that every record of the registry names a session or a room that its server has.
fn recorded(records: &[(String, NodeId, u64)], servers: &[Handle]) -> Verdict {
    for (key, owner, epoch) in records {
        let held = |node: &Node| match key.strip_prefix("/sessions/player:") {
            Some(player) => node.session_epoch(player),
            None => node.leads(key.strip_prefix("/rooms/")?.strip_suffix("/state")?),
        };
        let of_owner = |server: &Handle| server.inspect(|node| (node.id() == *owner).then(|| held(node)));
        let held = servers.iter().find_map(of_owner).flatten();
        // A session that was registered again after the loss of its server's lease has a newer
        // epoch in the registry than the server uses.
        let is_room = key.starts_with("/rooms/");
        if !held.is_some_and(|held| held == *epoch || !is_room && held < *epoch) {
            let guarantee = if is_room { Guarantee::Primary } else { Guarantee::Fence };
            let description =
                format!("{key} is {owner}'s by the registry, in epoch {epoch}; there it is {held:?}");
            return broken(guarantee, description);
        }
    }
    Ok(())
}
