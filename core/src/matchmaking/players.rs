//! The ticket of each waiting player.

use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;

use xxhash_rust::xxh3::xxh3_64;

use crate::base::id::Name;
use crate::base::slab::Key;

/// Tickets by player.
///
/// A name is in distant memory, and a look-up by name among many players would read dozens of
/// names. So a ticket is found by the hash of the name, and the caller checks that the ticket is
/// the player's. An attacker can choose names with equal hashes. Look-ups of such names are as slow
/// as look-ups by name, but no slower, so the hash needs no secret.
#[derive(Debug, Default)]
pub(super) struct Players {
    tickets: BTreeMap<u64, Key>,
    /// Players whose hash was another player's when they were added.
    others: BTreeMap<Name, Key>,
}

impl Players {
    pub(super) fn len(&self) -> usize {
        self.tickets.len() + self.others.len()
    }

    /// Returns the player's ticket. `holds` must return true for a ticket that contains the player.
    pub(super) fn get(&self, player: &Name, holds: impl FnOnce(Key) -> bool) -> Option<Key> {
        let found = self.tickets.get(&hash(player)).copied().filter(|key| holds(*key));
        found.or_else(|| self.others.get(player).copied())
    }

    /// Adds a player that has no ticket yet.
    pub(super) fn insert(&mut self, player: &Name, key: Key) {
        match self.tickets.entry(hash(player)) {
            Entry::Vacant(place) => drop(place.insert(key)),
            Entry::Occupied(_) => drop(self.others.insert(player.clone(), key)),
        }
    }

    /// Removes a player that has a ticket.
    pub(super) fn remove(&mut self, player: &Name) {
        if self.others.remove(player).is_none() {
            self.tickets.remove(&hash(player));
        }
    }
}

fn hash(player: &Name) -> u64 {
    xxh3_64(player.as_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_one_hash_are_told_apart() {
        let key = |slot| Key { slot, generation: 0 };
        let [a, b] = ["a", "b"].map(|name| Name::new(name).unwrap());
        let mut players = Players::default();
        players.insert(&a, key(0));
        // A ticket of another player with the hash of `b`.
        players.tickets.insert(hash(&b), key(1));
        let find = |players: &Players, player, ticket| players.get(player, |key| key.slot == ticket);
        assert_eq!(find(&players, &b, 2), None);
        players.insert(&b, key(2));
        assert_eq!((find(&players, &b, 2), players.len()), (Some(key(2)), 3));
        players.remove(&b);
        assert_eq!((find(&players, &b, 2), players.len()), (None, 2));
        assert_eq!(find(&players, &b, 1), Some(key(1)), "the other has its ticket still");
        players.remove(&a);
        assert_eq!((find(&players, &a, 0), players.len()), (None, 1));
    }
}
