//! A room of which this node is the primary: where the sessions of its members are.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::base::id::NodeId;
use crate::base::time::Instant;
use crate::session::SessionKey;

/// State of a room's primary, beside the room.
#[derive(Debug, Default)]
pub(crate) struct Leading {
    places: BTreeMap<u32, Place>,
    /// Members whose session is nowhere, by the time until which they are kept.
    away: BTreeSet<(Instant, u32)>,
}

/// The place of a member's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On this node.
    Here(SessionKey),
    /// On another node, over its link.
    There(NodeId),
    /// Nowhere: its node or its link is gone, or another node has it and has not said so
    /// yet. The member is kept until then.
    Away(Instant),
}

impl Leading {
    /// Number of members whose place is known.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// Number of members whose session is nowhere.
    pub(crate) fn away(&self) -> usize {
        self.away.len()
    }

    /// The place of a member's session.
    pub(crate) fn place_of(&self, number: u32) -> Option<Place> {
        self.places.get(&number).copied()
    }

    /// The member that is kept for the shortest time of those whose session is nowhere, and until
    /// when.
    pub(crate) fn next_expiry(&self) -> Option<(Instant, u32)> {
        self.away.first().copied()
    }

    /// The session of a member is somewhere else now.
    pub(super) fn place(&mut self, number: u32, place: Place) {
        self.forget(number);
        if let Place::Away(until) = place {
            self.away.insert((until, number));
        }
        self.places.insert(number, place);
    }

    /// A member is gone.
    pub(super) fn forget(&mut self, number: u32) {
        if let Some(Place::Away(until)) = self.places.remove(&number) {
            self.away.remove(&(until, number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_away_expires_in_order_and_is_away_no_more_once_it_is_back() {
        let at = Instant::from_micros;
        let mut leading = Leading::default();
        leading.place(1, Place::Away(at(30)));
        leading.place(2, Place::Away(at(20)));
        leading.place(3, Place::There(NodeId(7)));
        assert_eq!((leading.len(), leading.away(), leading.next_expiry()), (3, 2, Some((at(20), 2))));
        leading.place(2, Place::Away(at(40)));
        assert_eq!(leading.next_expiry(), Some((at(30), 1)));
        leading.place(1, Place::There(NodeId(8)));
        leading.forget(2);
        assert_eq!(
            (leading.len(), leading.away(), leading.place_of(1)),
            (2, 0, Some(Place::There(NodeId(8))))
        );
    }
}
