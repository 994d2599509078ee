//! Which ticket a player waits with.

use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;

use xxhash_rust::xxh3::xxh3_64;

use crate::base::id::Name;
use crate::base::slab::Key;

/// Tickets by player.
///
/// A name is elsewhere in memory, and a look-up by name among many players would read
/// dozens of them. So the tickets are found by the hashes of names; it is asked of the
/// ticket whether it is the player's. Names that were chosen to have one hash make look-ups
/// as slow as those of names, and no slower: so the hash needs no secret.
#[derive(Debug, Default)]
pub(super) struct Players {
    tickets: BTreeMap<u64, Key>,
    /// Players who came while their hash was another's.
    others: BTreeMap<Name, Key>,
}

impl Players {
    pub(super) fn len(&self) -> usize {
        self.tickets.len() + self.others.len()
    }

    /// The player's ticket; `holds` tells whether a ticket is a player's.
    pub(super) fn get(&self, player: &Name, holds: impl FnOnce(Key) -> bool) -> Option<Key> {
        let found = self.tickets.get(&hash(player)).copied().filter(|key| holds(*key));
        found.or_else(|| self.others.get(player).copied())
    }

    /// Adds a player who has no ticket yet.
    pub(super) fn insert(&mut self, player: &Name, key: Key) {
        match self.tickets.entry(hash(player)) {
            Entry::Vacant(place) => drop(place.insert(key)),
            Entry::Occupied(_) => drop(self.others.insert(player.clone(), key)),
        }
    }

    /// Takes out a player who has this ticket.
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
        // Of another with the hash of `b`.
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
