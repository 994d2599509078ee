//! Checks of the reigns in the records of rooms, and of the nodes that may commit.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::base::id::{Name, NodeId};
use crate::base::time::Instant;
use crate::registrar::keys::{Subject, node_key};
use crate::registrar::{Decision, Registrar, Reign, RoomClaim};
use crate::registry::{Answer, KeyValue, Range, Registry, Request, Span};

/// Records of rooms over time, and the wishes of their primaries.
#[derive(Default)]
pub(super) struct Reigns {
    /// Newest record of each room, with the revision of its creation.
    newest: BTreeMap<Name, (Reign, u64)>,
    /// All records, by room and revision, but for those of earlier terms in a store that went back. A node
    /// that has such a room began anew without it.
    history: BTreeMap<(Name, u64), Reign>,
    /// Nodes that have begun anew, each with the records of that moment: the node has no copy of their rooms.
    forgotten: BTreeMap<NodeId, BTreeSet<(Name, u64)>>,
    /// Highest term in each epoch of a room.
    terms: BTreeMap<(Name, u64), u32>,
    /// Backups that a primary may name in its term: the confirmed one, and those wished for since.
    wishes: BTreeMap<(NodeId, Name, u64, u32), Vec<Option<NodeId>>>,
    /// Last wish of each primary in its term, also before a restore.
    last_wishes: BTreeMap<(NodeId, Name, u64, u32), Option<NodeId>>,
    /// Nodes that have asked for a swap of a room.
    pub(super) swapping: BTreeSet<(NodeId, Name)>,
    pub(super) swaps: usize,
    pub(super) paired: usize,
    pub(super) deposed: usize,
}

impl Reigns {
    /// Returns the reign in the newest record of a room, or in an earlier one.
    pub(super) fn of(&self, room: &Name, age: usize) -> Option<Reign> {
        let of_room = self.history.iter().filter(|((name, _), _)| name == room);
        of_room.rev().nth(age).map(|(_, reign)| *reign)
    }

    /// Returns true if a node may have a copy of a room of this reign. Only a node with a copy asks for a swap,
    /// and a node that begins anew closes its rooms.
    pub(super) fn may_have_copy(&self, node: NodeId, room: &Name, reign: Reign) -> bool {
        let forgotten = self.forgotten.get(&node);
        forgotten.is_none_or(|records| !records.contains(&(room.clone(), reign.revision)))
    }

    /// Handles a wish of a node for a backup.
    pub(super) fn wished(&mut self, registrar: &Registrar, room: &Name, backup: Option<NodeId>) {
        let Some(Reign { epoch, term, primary, .. }) = registrar.reign(room) else { return };
        let key = (primary, room.clone(), epoch, term);
        // In a store that went back, a request of an earlier wish may still be executed, until the node notices.
        if let Some(wishes) = self.wishes.get_mut(&key) {
            wishes.push(backup);
        }
        self.last_wishes.insert(key, backup);
    }

    pub(super) fn decided(&mut self, node: NodeId, decision: &Decision) {
        match decision {
            Decision::Room { room, outcome: RoomClaim::Primary(reign) } => {
                assert_eq!(reign.primary, node);
                let key = (node, room.clone(), reign.epoch, reign.term);
                self.wishes.entry(key).or_insert_with(|| alloc::vec![reign.backup]);
                self.swaps += usize::from(reign.term > 1);
            }
            Decision::RoomPaired { room, backup, revision } => {
                self.paired += 1;
                // A store that went back has another history.
                let Some(reign) = self.history.get(&(room.clone(), *revision)) else { return };
                if reign.primary != node {
                    return;
                }
                assert_eq!(reign.backup, *backup, "{room} is paired as it is");
                let key = (node, room.clone(), reign.epoch, reign.term);
                assert_eq!(self.last_wishes.get(&key), Some(backup), "the last wish");
                self.wishes.insert(key, alloc::vec![*backup]);
            }
            Decision::RoomDeposed { reign, .. } => {
                self.deposed += 1;
                assert_ne!(reign.primary, node);
            }
            Decision::Anew { .. } => {
                self.wishes.retain(|(id, ..), _| *id != node);
                self.last_wishes.retain(|(id, ..), _| *id != node);
                self.forgotten.insert(node, self.history.keys().cloned().collect());
            }
            _ => {}
        }
    }

    /// Handles a restored store, which may have older records.
    pub(super) fn restored(&mut self) {
        self.newest.clear();
        self.wishes.clear();
    }

    /// Checks a record of a room that may have changed since the last call.
    pub(super) fn look(&mut self, registry: &mut Registry, now: Instant, room: &Name, kv: &KeyValue) {
        let reign = Subject::Room(room.clone()).owner(kv).unwrap().reign();
        let before = self.newest.insert(room.clone(), (reign, kv.created));
        if before.is_some_and(|(before, _)| before.revision == reign.revision) {
            return;
        }
        let highest = self.terms.entry((room.clone(), reign.epoch)).or_default();
        *highest = (*highest).max(reign.term);
        if *highest == reign.term {
            self.history.insert((room.clone(), reign.revision), reign);
        }
        let key = (reign.primary, room.clone(), reign.epoch, reign.term);
        if let Some(wishes) = self.wishes.get(&key) {
            assert!(wishes.contains(&reign.backup), "{room}: {reign:?} is none of {wishes:?}");
        }
        let Some((before, created)) = before else { return };
        if created != kv.created {
            assert!(before.epoch < reign.epoch, "{room}: {before:?} was gone, then {reign:?}");
        } else if before.epoch == reign.epoch && before.term == reign.term {
            assert_eq!(before.primary, reign.primary, "{room}: {before:?}, then {reign:?}");
        } else if before.epoch == reign.epoch {
            let names = (Some(reign.primary), reign.backup, reign.term);
            let swapped = (before.backup, Some(before.primary), before.term + 1);
            assert_eq!(names, swapped, "{room}: {before:?}, then {reign:?}");
        } else {
            // A primary that has given the room up may begin anew once the backup does not live.
            let is_its_own = before.primary == reign.primary;
            let taken_from = Some(before.primary).filter(|_| !is_its_own);
            let dead = before.backup.or(taken_from);
            let lives = dead.is_some_and(|dead| lives(registry, now, dead));
            assert!(
                !lives && (before.backup.is_none() || is_its_own),
                "{room}: {before:?} is overtaken by {reign:?}"
            );
        }
    }

    /// Returns true if a room has had a later term than the one of this reign, in the same epoch.
    pub(super) fn is_deposed(&self, room: &Name, reign: Reign) -> bool {
        self.terms.get(&(room.clone(), reign.epoch)).is_some_and(|newest| *newest > reign.term)
    }

    /// Returns true if a node may commit messages of a room, as far as the node knows. A node with a backup
    /// commits what the backup has stored, and no backup stores anything of an earlier term.
    pub(super) fn may_commit(&self, registrar: &Registrar, now: Instant, room: &Name) -> bool {
        let Some(reign) = registrar.reign(room) else { return false };
        let is_newest = !self.is_deposed(room, reign);
        let entry = &registrar.table.entries[&Subject::Room(room.clone())];
        match (reign.backup, entry.room.backup) {
            (None, None) => registrar.may_serve(now),
            (Some(_), None) => registrar.keeps_rooms(now) && is_newest,
            (_, Some(_)) => registrar.may_serve(now) && is_newest,
        }
    }
}

fn lives(registry: &mut Registry, now: Instant, node: NodeId) -> bool {
    let range = Request::Range(Range::of(Span::one(node_key(node))));
    match registry.handle(now, &range).unwrap().answer {
        Answer::Range { kvs, .. } => !kvs.is_empty(),
        other => panic!("{other:?}"),
    }
}
