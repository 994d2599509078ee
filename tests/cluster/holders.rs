//! Owners of sessions and rooms, by etcd's keys and leases and by the metrics of the nodes. A key exists only
//! once, so the keys alone prove nothing: the possible error is a node that serves a session or room although
//! the key names another node.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use skirmish_core::registrar::record_owner;
use skirmish_core::registry::{KeyValue, LeaseId};
use skirmish_tests::PATIENCE;
use skirmish_tests::http::metric;
use tokio::time::{sleep, timeout};

use crate::nodes::{Nodes, Registry, number};

/// State of etcd once nothing has two owners.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Holders {
    /// Epoch of the room.
    pub(crate) epoch: u64,
    /// All leases in etcd.
    pub(crate) leases: BTreeSet<LeaseId>,
}

/// Waits until each player's session is owned by the player's node only, the only room is led by one node and
/// followed by the other nodes with players, and each node has exactly two leases.
///
/// # Panics
/// If this state is not reached.
pub(crate) async fn settled<R: Registry>(
    nodes: &Nodes<R>,
    room: &str,
    players: &BTreeMap<&str, usize>,
) -> Holders {
    let mut wrong = Vec::new();
    let settled = timeout(PATIENCE, async {
        loop {
            let holders;
            (holders, wrong) = holders_now(nodes, room, players).await;
            if wrong.is_empty() {
                return holders;
            }
            sleep(PATIENCE / 1_000).await;
        }
    });
    match settled.await {
        Ok(holders) => holders,
        Err(_) => panic!("waited {PATIENCE:?} for everything to be held once: {wrong:#?}"),
    }
}

/// Returns the present holders, and the differences from the state that [`settled`] expects.
pub(crate) async fn holders_now<R: Registry>(
    nodes: &Nodes<R>,
    room: &str,
    players: &BTreeMap<&str, usize>,
) -> (Holders, Vec<String>) {
    let mut wrong = Vec::new();
    let ids: Vec<u64> = nodes.nodes.iter().map(number).collect();

    let registered = nodes.records("/nodes/").await;
    let keys: BTreeSet<_> = registered.iter().map(key).collect();
    let expected = nodes.nodes.iter().map(|node| format!("/nodes/{}", node.node)).collect();
    differ(&mut wrong, "nodes in etcd", keys, expected);
    let node_lease = |id: u64| registered.iter().find(|kv| key(kv) == format!("/nodes/{id:016x}"))?.lease;

    let sessions: Vec<_> = nodes.records("/sessions/").await.iter().map(held).collect();
    let owners: BTreeMap<_, _> = sessions.iter().map(|(key, (owner, _))| (key.clone(), *owner)).collect();
    let of_player =
        |(player, node): (&&str, &usize)| (format!("/sessions/player:{player}"), Some(ids[*node]));
    differ(&mut wrong, "sessions in etcd", owners, players.iter().map(of_player).collect());

    let rooms = nodes.records("/rooms/").await;
    let keys: Vec<_> = rooms.iter().map(key).collect();
    differ(&mut wrong, "rooms in etcd", keys, vec![format!("/rooms/{room}/state")]);
    let (primary, epoch) =
        rooms.first().and_then(record_owner).map_or((0, 0), |(node, epoch)| (node.0, epoch));
    let room_lease = rooms.first().and_then(|kv| kv.lease);

    let listed = nodes.etcd.client().await.leases().await.expect("etcd answers");
    let lease = |id: i64| LeaseId(u64::try_from(id).expect("leases are positive"));
    let leases: BTreeSet<_> = listed.leases().iter().map(|status| lease(status.id())).collect();
    differ(&mut wrong, "leases", leases.len(), 2 * ids.len());
    let used = ids.iter().map(|id| node_lease(*id)).chain([room_lease]);
    let used: BTreeSet<_> = used.map(|lease| lease.filter(|lease| leases.contains(lease))).collect();
    differ(&mut wrong, "leases of nodes and of the room", used.iter().flatten().count(), ids.len() + 1);
    // Sessions are on the lease of rooms of their node.
    let of_sessions: BTreeSet<_> = sessions.iter().map(|(_, held)| *held).collect();
    let owners: BTreeSet<_> = of_sessions.iter().map(|(owner, _)| *owner).collect();
    differ(&mut wrong, "leases of sessions, one for each node", of_sessions.len(), owners.len());
    for (owner, lease) in of_sessions {
        let is_of_rooms = lease.is_some_and(|lease| leases.contains(&lease))
            && ids.iter().all(|id| node_lease(*id) != lease)
            && (owner == Some(primary)) == (lease == room_lease);
        differ(&mut wrong, &format!("{lease:?} of sessions is the lease of rooms"), is_of_rooms, true);
    }

    for (index, node) in nodes.nodes.iter().enumerate() {
        let here = players.values().filter(|at| **at == index).count();
        let leads = ids[index] == primary;
        let expected = [here, usize::from(leads), usize::from(!leads && here > 0)];
        let mut figures = [None; 3];
        let names = ["skirmish_sessions", "skirmish_rooms_led", "skirmish_rooms_followed"];
        for (figure, name) in figures.iter_mut().zip(names) {
            *figure = metric(node.admin, name).await;
        }
        let expected = expected.map(|count| u64::try_from(count).ok());
        differ(&mut wrong, &format!("sessions, rooms led and followed by node {index}"), figures, expected);
    }
    (Holders { epoch, leases }, wrong)
}

fn differ<T: PartialEq + Debug>(wrong: &mut Vec<String>, what: &str, found: T, expected: T) {
    if found != expected {
        wrong.push(format!("{what}: {found:?}, not {expected:?}"));
    }
}

fn key(kv: &KeyValue) -> String {
    String::from_utf8(kv.key.to_vec()).expect("keys are text")
}

/// Returns a key with the node in its record and its lease.
fn held(kv: &KeyValue) -> (String, (Option<u64>, Option<LeaseId>)) {
    (key(kv), (record_owner(kv).map(|(node, _)| node.0), kv.lease))
}
