//! Keys of the registry, and the records that they have as values.

use alloc::format;
use core::str;

use bytes::Bytes;
use prost::Message as _;
use skirmish_proto::v1;

use super::event::Reign;
use crate::base::id::{DialNumber, Name, NodeId, SessionId};
use crate::registry::{KeyValue, Span};

pub(super) const NODES: &str = "/nodes/";
pub(super) const SESSIONS: &str = "/sessions/";
/// The key of the [generation](super::generation).
pub(super) const GENERATION: &str = "/generation";
const ROOMS: &str = "/rooms/";
const MATCHMAKING: &str = "/match/";
const PLAYER: &str = "/sessions/player:";

/// Key of the generation, and the prefixes of all other keys of a deployment.
pub(super) const PLACES: [&str; 5] = [GENERATION, MATCHMAKING, NODES, ROOMS, SESSIONS];

/// All keys but that of the generation.
pub(super) fn everything() -> impl Iterator<Item = Span> {
    [MATCHMAKING, NODES, ROOMS, SESSIONS].into_iter().map(Span::prefix)
}

/// Session or room that a record is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// A player's session.
    Session(Name),
    /// A room.
    Room(Name),
}

impl Subject {
    pub(super) fn key(&self) -> Bytes {
        match self {
            Self::Session(player) => format!("{PLAYER}{player}").into(),
            Self::Room(room) => format!("{ROOMS}{room}/state").into(),
        }
    }

    /// Returns the session that a key belongs to; `None` for any other key.
    pub(super) fn session(key: &[u8]) -> Option<Self> {
        let player = str::from_utf8(key).ok()?.strip_prefix(PLAYER)?;
        Some(Self::Session(Name::new(player).ok()?))
    }

    /// Returns the owner named by a record; `None` if the record is unreadable.
    pub(super) fn owner(&self, kv: &KeyValue) -> Option<Owner> {
        match self {
            Self::Session(_) => {
                let record = v1::SessionRecord::decode(kv.value.clone()).ok()?;
                let session = Some(SessionId::from_wire(&record.session)?);
                let dial = DialNumber { client: record.client, dial: record.dial };
                Some(Owner { session, dial, ..Owner::new(kv, record.node, record.epoch, record.base) })
            }
            Self::Room(_) => {
                let record = v1::RoomRecord::decode(kv.value.clone()).ok()?;
                let v1::RoomRecord { epoch, primary, base, players, turn, countdown_ms, .. } = record;
                // A record without a term is of the first one.
                let term = record.term.max(FIRST_TERM);
                let backup = Some(NodeId(record.backup)).filter(|backup| backup.0 > 0);
                let state = RoomState { players, turn, countdown_ms };
                Some(Owner { term, backup, state, ..Owner::new(kv, primary, epoch, base) })
            }
        }
    }
}

/// Owner of a session or a room, with its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) node: NodeId,
    pub(super) epoch: u64,
    /// Revision of the last write of the record.
    pub(super) modified: u64,
    /// Base of the claim, if the last write of the record was a claim: the epoch is then the revision plus
    /// this base.
    pub(super) claimed: Option<u64>,
    /// Of a session's record.
    pub(super) session: Option<SessionId>,
    /// Of a session's record: connection for which the record was written.
    pub(super) dial: DialNumber,
    /// Term, backup and state of a room's record.
    pub(super) term: u32,
    pub(super) backup: Option<NodeId>,
    pub(super) state: RoomState,
}

impl Owner {
    fn new(kv: &KeyValue, node: u64, epoch: u64, base: u64) -> Self {
        let claimed = (epoch == 0).then_some(base);
        Self {
            node: NodeId(node),
            epoch: if epoch == 0 { base.saturating_add(kv.modified) } else { epoch },
            modified: kv.modified,
            claimed,
            session: None,
            dial: DialNumber::default(),
            term: 0,
            backup: None,
            state: RoomState::default(),
        }
    }

    /// Returns true if a room's record is of this term of this epoch.
    pub(super) const fn is_of(&self, epoch: u64, term: u32) -> bool {
        self.epoch == epoch && self.term == term
    }

    /// Returns the reign that a room's record tells of.
    pub(super) const fn reign(&self) -> Reign {
        let Self { node: primary, epoch, term, backup, modified: revision, .. } = *self;
        Reign { epoch, term, primary, backup, revision }
    }
}

/// Returns the owner and the epoch in a record of a session or a room, for simulation and debugging. `None`
/// if the record is of neither.
#[must_use]
pub fn record_owner(kv: &KeyValue) -> Option<(NodeId, u64)> {
    let subject = Subject::session(&kv.key).or_else(|| {
        let room = str::from_utf8(&kv.key).ok()?.strip_prefix(ROOMS)?.strip_suffix("/state")?;
        Some(Subject::Room(Name::new(room).ok()?))
    })?;
    subject.owner(kv).map(|owner| (owner.node, owner.epoch))
}

/// Returns the key of a node's record.
#[must_use]
pub fn node_key(node: NodeId) -> Bytes {
    format!("{NODES}{node}").into()
}

/// Returns the node that a key belongs to; `None` for any other key.
pub(super) fn node_of(key: &[u8]) -> Option<NodeId> {
    let digits = str::from_utf8(key).ok()?.strip_prefix(NODES)?;
    let id = NodeId(u64::from_str_radix(digits, 16).ok()?);
    (node_key(id) == key).then_some(id)
}

pub(super) fn session_record(
    session: SessionId,
    dial: DialNumber,
    node: NodeId,
    epoch: u64,
    base: u64,
) -> Bytes {
    let session = Bytes::copy_from_slice(session.as_bytes());
    let DialNumber { client, dial } = dial;
    v1::SessionRecord { session, node: node.0, epoch, base, client, dial }.encode_to_vec().into()
}

/// Fields of a room's record that change while the primary stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RoomState {
    pub(super) players: u32,
    pub(super) turn: u32,
    pub(super) countdown_ms: u64,
}

impl RoomState {
    /// State written by a claim: a room is claimed for one joining player.
    pub(super) const OPENED: Self = Self { players: 1, turn: 0, countdown_ms: 0 };
}

/// Term of a room's first reign in an epoch.
pub(super) const FIRST_TERM: u32 = 1;

/// Returns the record of a reign in a room; with epoch 0, of the one that begins with the write.
pub(super) fn room_record(reign: Reign, base: u64, state: RoomState) -> Bytes {
    let Reign { epoch, term, primary, backup, .. } = reign;
    let RoomState { players, turn, countdown_ms } = state;
    let (primary, backup) = (primary.0, backup.map_or(0, |backup| backup.0));
    v1::RoomRecord { epoch, primary, players, turn, countdown_ms, base, term, backup }.encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(epoch: u64, base: u64) -> Bytes {
        let reign = Reign { epoch, term: 3, primary: NodeId(1), backup: Some(NodeId(2)), revision: 0 };
        room_record(reign, base, RoomState::default())
    }

    fn kv(value: Bytes) -> KeyValue {
        let key = Subject::Room(Name::new("r").unwrap()).key();
        KeyValue { key, value, created: 3, modified: 9, version: 2, lease: None }
    }

    #[test]
    fn keys_are_as_the_records_file_says_and_are_read_back() {
        let player = Subject::Session(Name::new("a:b").unwrap());
        assert_eq!(player.key(), "/sessions/player:a:b");
        assert_eq!(Subject::session(b"/sessions/player:a:b"), Some(player));
        assert_eq!(Subject::session(b"/sessions/player:"), None);
        assert_eq!(Subject::session(b"/sessions/other"), None);
        assert_eq!(Subject::Room(Name::new("r").unwrap()).key(), "/rooms/r/state");
        assert_eq!(node_key(NodeId(0xAB)), "/nodes/00000000000000ab");
        assert_eq!(node_of(b"/nodes/00000000000000ab"), Some(NodeId(0xAB)));
        for key in ["/nodes/ab", "/nodes/00000000000000AB", "/nodes/+0000000000000ab", "/nodes/"] {
            assert_eq!(node_of(key.as_bytes()), None, "{key}");
        }
    }

    #[test]
    fn everything_is_every_key_but_that_of_the_generation() {
        use crate::matchmaking::keys as matches;
        let name = Name::new("n").unwrap();
        let rooms = [Subject::Room(name.clone()).key(), Subject::Session(name.clone()).key()];
        let others = [node_key(NodeId(1)), matches::ticket(&name), matches::notice(&name)];
        let more = [matches::match_key("1"), matches::matcher(&name), matches::ticket_fence(NodeId(1))];
        for key in rooms.into_iter().chain(others).chain(more) {
            assert_eq!(everything().filter(|span| span.contains(&key)).count(), 1, "{key:?}");
        }
        assert!(everything().all(|span| !span.contains(GENERATION.as_bytes())));
    }

    #[test]
    fn an_epoch_of_zero_is_the_revision_that_wrote_the_record_and_its_base() {
        let subject = Subject::Room(Name::new("r").unwrap());
        let owner = |value| subject.owner(&kv(value)).map(|owner| (owner.epoch, owner.claimed));
        assert_eq!(owner(room(0, 70)), Some((79, Some(70))));
        assert_eq!(owner(room(4, 70)), Some((4, None)));
        assert_eq!(owner(Bytes::from_static(b"\xff")), None);
        let session = Subject::Session(Name::new("p").unwrap());
        assert!(session.owner(&kv(Bytes::new())).is_none(), "a session has an identifier");
    }
    #[test]
    fn a_record_of_a_room_names_the_reign_and_one_of_before_is_of_the_first_term_without_a_backup() {
        let subject = Subject::Room(Name::new("r").unwrap());
        let reign = |value| subject.owner(&kv(value)).unwrap().reign();
        let (primary, backup) = (NodeId(1), Some(NodeId(2)));
        assert_eq!(reign(room(4, 70)), Reign { epoch: 4, term: 3, primary, backup, revision: 9 });
        let before = v1::RoomRecord { epoch: 4, primary: 1, players: 5, ..v1::RoomRecord::default() };
        let before = subject.owner(&kv(before.encode_to_vec().into())).unwrap();
        assert_eq!(before.reign(), Reign { epoch: 4, term: 1, primary, backup: None, revision: 9 });
        assert_eq!(before.state.players, 5);
    }
}
