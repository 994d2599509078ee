//! Numbers of rooms, in both worlds: rooms of steps and rooms of matches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// All known rooms.
pub(crate) struct Rooms {
    names: Vec<Arc<str>>,
    numbers: BTreeMap<Arc<str>, u64>,
    /// Rooms of steps, and rooms of matches as long as any process has them.
    open: BTreeSet<u64>,
    /// Number of the rooms of steps.
    plain: u64,
}

impl Rooms {
    /// Creates this many rooms of steps.
    pub(crate) fn new(plain: u64) -> Self {
        let mut rooms =
            Self { names: Vec::new(), numbers: BTreeMap::new(), open: BTreeSet::new(), plain: plain.max(1) };
        for number in 0..rooms.plain {
            rooms.number(&room_name(number));
        }
        rooms
    }

    /// Returns a room's number; a new one for an unknown room.
    pub(crate) fn number(&mut self, name: &str) -> u64 {
        let known = self.numbers.get(name).copied();
        let number = known.unwrap_or_else(|| {
            let (number, name) = (self.names.len() as u64, Arc::<str>::from(name));
            self.names.push(Arc::clone(&name));
            self.numbers.insert(name, number);
            number
        });
        self.open.insert(number);
        number
    }

    /// Returns the name of a numbered room.
    pub(crate) fn name(&self, number: u64) -> Arc<str> {
        let name = usize::try_from(number).ok().and_then(|number| self.names.get(number));
        name.map_or_else(|| room_name(number).into(), Arc::clone)
    }

    /// Returns the number of the rooms of steps.
    pub(crate) fn plain(&self) -> u64 {
        self.plain
    }

    /// Forgets the rooms of matches for which `is_had` returns false.
    pub(crate) fn forget(&mut self, is_had: impl Fn(u64, &str) -> bool) {
        let plain = self.plain;
        for (number, name) in self.open().into_iter().filter(|(number, _)| *number >= plain) {
            if !is_had(number, &name) {
                self.open.remove(&number);
            }
        }
    }

    /// Returns all open rooms, with their names.
    pub(crate) fn open(&self) -> Vec<(u64, Arc<str>)> {
        self.open.iter().map(|number| (*number, self.name(*number))).collect()
    }
}

/// Returns the name of a room of steps.
pub(crate) fn room_name(room: u64) -> String {
    format!("room-{room}")
}
