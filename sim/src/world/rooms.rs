//! Numbers for rooms: those that steps speak of, and those of matches.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::World;
use super::client::room_name;
use crate::oracle::Room;

/// All rooms that were heard of.
pub(super) struct Rooms {
    names: Vec<Rc<str>>,
    numbers: BTreeMap<Rc<str>, u64>,
    /// Rooms of steps, and those of matches as long as anybody has them.
    open: BTreeSet<u64>,
    /// How many are of steps.
    plain: u64,
}

impl Rooms {
    /// So many rooms that steps speak of.
    pub(super) fn new(plain: u64) -> Self {
        let mut rooms =
            Self { names: Vec::new(), numbers: BTreeMap::new(), open: BTreeSet::new(), plain: plain.max(1) };
        for number in 0..rooms.plain {
            rooms.number(&room_name(number));
        }
        rooms
    }

    /// A room's number; a new one if it was not heard of before.
    pub(super) fn number(&mut self, name: &str) -> u64 {
        let known = self.numbers.get(name).copied();
        let number = known.unwrap_or_else(|| {
            let (number, name) = (self.names.len() as u64, Rc::<str>::from(name));
            self.names.push(Rc::clone(&name));
            self.numbers.insert(name, number);
            number
        });
        self.open.insert(number);
        number
    }

    /// The name of a number that was given.
    pub(super) fn name(&self, number: u64) -> Rc<str> {
        let name = usize::try_from(number).ok().and_then(|number| self.names.get(number));
        name.map_or_else(|| room_name(number).into(), Rc::clone)
    }

    /// The rooms that steps speak of.
    pub(super) fn plain(&self) -> u64 {
        self.plain
    }

    /// All rooms that anybody may have, with their names.
    pub(super) fn open(&self) -> Vec<(u64, Rc<str>)> {
        self.open.iter().map(|number| (*number, self.name(*number))).collect()
    }
}

impl World<'_> {
    /// The number of a room by its name, for the oracles.
    pub(super) fn room(&mut self, name: &str) -> Room {
        u32::try_from(self.rooms.number(name)).unwrap_or(Room::MAX)
    }

    /// Stops looking at rooms of matches that nobody has any more.
    pub(super) fn forget_rooms(&mut self) {
        let plain = self.rooms.plain;
        for (number, name) in self.rooms.open().into_iter().filter(|(number, _)| *number >= plain) {
            let at_node = self
                .nodes
                .iter()
                .filter_map(|node| node.machine.as_ref())
                .any(|node| node.head(&name).is_some());
            let at_client = self.clients.iter().any(|client| client.machine.cursor(&name).is_some());
            if !at_node && !at_client {
                self.rooms.open.remove(&number);
            }
        }
    }
}
