//! Checks of the invariants, from outside of the nodes.

use alloc::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use skirmish_proto::v1;

use super::reigns::Reigns;
use crate::base::id::{Name, NodeId, SessionId};
use crate::base::time::Instant;
use crate::registrar::{Decision, Reign, RoomClaim, SessionClaim};
use crate::registry::{Answer, KeyValue, Range, Registry, Request, Span};

/// Owner of a key: node, epoch, and term of a room.
type Owned = (NodeId, u64, u32);

#[derive(Default)]
pub(super) struct Oracle {
    /// All granted epochs, by session or room, with the terms of rooms.
    epochs: BTreeMap<(bool, Name, u64, u32), NodeId>,
    /// Last granted session of each player.
    sessions: BTreeMap<Name, SessionId>,
    /// Epoch of each session that a node owns, as last seen.
    held: BTreeMap<(NodeId, Name), u64>,
    rooms: BTreeMap<(NodeId, Name), (u64, u32)>,
    /// Claims without an answer.
    tokens: BTreeSet<(NodeId, u64)>,
    /// Answers that are due, and a flag that is true if the room was released since the last claim.
    room_claims: BTreeMap<(NodeId, Name), (usize, bool)>,
    /// Last epoch of each key, and its owner.
    records: BTreeMap<alloc::vec::Vec<u8>, Owned>,
    /// Owners in the registry now.
    now: BTreeMap<alloc::vec::Vec<u8>, Owned>,
    serving: BTreeMap<NodeId, bool>,
    seen: u64,
    /// Times that a node began anew.
    pub(super) anew: usize,
    /// Highest epoch and term granted to each node for a session or room, in any life of the store.
    highest: BTreeMap<(NodeId, bool, Name), (u64, u32)>,
    pub(super) reigns: Reigns,
}

impl Oracle {
    pub(super) fn granted(&self) -> usize {
        self.epochs.len()
    }

    pub(super) fn last_session(&self, player: &Name) -> Option<SessionId> {
        self.sessions.get(player).copied()
    }

    pub(super) fn claimed_session(&mut self, node: NodeId, token: u64) {
        assert!(self.tokens.insert((node, token)));
    }

    pub(super) fn claimed_room(&mut self, node: NodeId, room: Name) {
        let (owed, released) = self.room_claims.entry((node, room)).or_default();
        if *owed == 0 || *released {
            (*owed, *released) = (*owed + 1, false);
        }
    }

    /// Handles a wish for a swap: the claims of before have no answer.
    pub(super) fn swapped(&mut self, node: NodeId, room: &Name) {
        self.reigns.swapping.insert((node, room.clone()));
        self.room_claims.remove(&(node, room.clone()));
    }

    pub(super) fn released_room(&mut self, node: NodeId, room: Name) {
        self.room_claims.entry((node, room)).or_default().1 = true;
    }

    pub(super) fn crashed(&mut self, node: NodeId) {
        self.tokens.retain(|(id, _)| *id != node);
        self.room_claims.retain(|(id, _), _| *id != node);
    }

    pub(super) fn decided(&mut self, node: NodeId, decision: Decision) {
        self.reigns.decided(node, &decision);
        match decision {
            Decision::Serving | Decision::NotServing => {
                let serving = decision == Decision::Serving;
                let before = self.serving.insert(node, serving).unwrap_or(false);
                assert_ne!(before, serving, "said twice");
            }
            Decision::Session { token, player, outcome } => {
                assert!(self.tokens.remove(&(node, token)), "an answer to no claim");
                if let SessionClaim::Granted { id, epoch, resumed, .. } = outcome {
                    if resumed {
                        assert!(self.sessions.contains_key(&player), "there was none to resume");
                    }
                    self.rises((node, true, player.clone()), (epoch, 0));
                    let before = self.epochs.insert((true, player.clone(), epoch, 0), node);
                    assert_eq!(before, None, "{node}: epoch {epoch} of {player} was granted before");
                    self.sessions.insert(player, id);
                }
            }
            Decision::Room { room, outcome } => {
                let (owed, _) = self.room_claims.entry((node, room.clone())).or_default();
                let is_swap = self.reigns.swapping.contains(&(node, room.clone()));
                assert!(*owed > 0 || is_swap, "an answer to no claim");
                *owed = owed.saturating_sub(1);
                if let RoomClaim::Primary(Reign { epoch, term, .. }) = outcome {
                    let again = self.rooms.insert((node, room.clone()), (epoch, term)) == Some((epoch, term));
                    if !again {
                        self.rises((node, false, room.clone()), (epoch, term));
                    }
                    let before = self.epochs.insert((false, room.clone(), epoch, term), node);
                    assert!(
                        before.is_none() || again,
                        "{node}: term {term} of epoch {epoch} of {room} was granted before"
                    );
                }
            }
            Decision::SessionKept { player, epoch } => {
                self.rises((node, true, player.clone()), (epoch, 0));
                let before = self.epochs.insert((true, player.clone(), epoch, 0), node);
                assert_eq!(before, None, "{node}: epoch {epoch} of {player} was granted before");
            }
            Decision::SessionLost { player, epoch } => {
                let held = self.held.get(&(node, player.clone())).copied();
                assert!(held.is_none_or(|held| held < epoch), "{player} was lost to an older one");
            }
            Decision::RoomPaired { .. } => {}
            Decision::RoomDeposed { room, .. } | Decision::RoomLost { room, .. } => {
                assert!(self.rooms.remove(&(node, room)).is_some(), "lost what was not held");
            }
            Decision::Anew { .. } => {
                self.anew += 1;
                self.rooms.retain(|(id, _), _| *id != node);
            }
            Decision::NodeUp { id, .. } | Decision::NodeDown { id } => assert_ne!(id, node),
        }
    }

    /// Handles a restored registry, which may have older records.
    pub(super) fn restored(&mut self) {
        self.records.clear();
        self.reigns.restored();
        self.seen = 0;
    }

    /// Checks that the epochs and terms granted to a node rise, in all lives of the store.
    fn rises(&mut self, key: (NodeId, bool, Name), granted: (u64, u32)) {
        let before = self.highest.insert(key, granted);
        assert!(before.is_none_or(|before| before < granted), "granted {before:?} before {granted:?}");
    }

    /// Checks that the epoch of a session that a node owns never falls.
    pub(super) fn holds(&mut self, node: NodeId, player: Name, epoch: Option<u64>) {
        if let Some(epoch) = epoch {
            let before = self.held.insert((node, player.clone()), epoch);
            assert!(before.is_none_or(|before| before <= epoch), "{node} {player}: {before:?} then {epoch}");
        }
    }

    /// Checks all records: the epochs of a key never fall, and one epoch has one owner.
    pub(super) fn look(&mut self, registry: &mut Registry, now: Instant) {
        if self.seen == registry.revision() {
            return;
        }
        self.seen = registry.revision();
        self.now.clear();
        for prefix in ["/sessions/", "/rooms/"] {
            let range = Range::of(Span::prefix(prefix));
            let answer = registry.handle(now, &Request::Range(range)).unwrap().answer;
            let Answer::Range { kvs, .. } = answer else { panic!("{answer:?}") };
            for kv in kvs {
                let (node, epoch, term) = owner(&kv);
                let key = kv.key.to_vec();
                self.now.insert(key.clone(), (node, epoch, term));
                if let Some((before, e, t)) = self.records.insert(key, (node, epoch, term)) {
                    assert!((epoch, term) >= (e, t), "{kv:?}: epoch {e}, term {t}, then {epoch}, {term}");
                    assert!(
                        (epoch, term) > (e, t) || node == before,
                        "{kv:?}: epoch {epoch} of two nodes in term {term}"
                    );
                }
                if let Some(room) = kv.key.strip_prefix(b"/rooms/") {
                    let room = str::from_utf8(room.strip_suffix(b"/state").unwrap()).unwrap();
                    self.reigns.look(registry, now, &Name::new(room).unwrap(), &kv);
                }
            }
        }
    }

    pub(super) fn session_of(&self, player: &Name) -> Option<Owned> {
        self.now.get(alloc::format!("/sessions/player:{player}").as_bytes()).copied()
    }

    pub(super) fn room_of(&self, room: &Name) -> Option<Owned> {
        self.now.get(alloc::format!("/rooms/{room}/state").as_bytes()).copied()
    }

    pub(super) fn check_answered(&self) {
        assert!(
            self.tokens.is_empty() && self.room_claims.values().all(|(owed, _)| *owed == 0),
            "claims without an answer"
        );
    }
}

fn owner(kv: &KeyValue) -> Owned {
    let (node, epoch, base, term) = if kv.key.starts_with(b"/rooms/") {
        let record = v1::RoomRecord::decode(kv.value.clone()).unwrap();
        assert!(record.term > 0, "nodes write the term");
        (record.primary, record.epoch, record.base, record.term)
    } else {
        let record = v1::SessionRecord::decode(kv.value.clone()).unwrap();
        (record.node, record.epoch, record.base, 0)
    };
    (NodeId(node), if epoch == 0 { base + kv.modified } else { epoch }, term)
}
