//! Whose turn it is: the order in which tickets are searched for.

use crate::base::id::Name;
use crate::base::time::Instant;

/// The place of a ticket in the order: the oldest first, and of equals by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct QueueOrder {
    pub(super) queued: Instant,
    /// How the name begins, filled up with zeros, which no name has: it sorts as the name
    /// does. Many tickets come at once, and most names are told apart by it where it lies,
    /// without a look at the name, which is elsewhere in memory.
    start: [u64; 2],
    name: Name,
}

impl QueueOrder {
    pub(super) fn new(queued: Instant, name: &Name) -> Self {
        let mut bytes = name.as_str().bytes();
        let mut word = || (0..8).fold(0, |word, _| word << 8 | u64::from(bytes.next().unwrap_or(0)));
        Self { queued, start: [word(), word()], name: name.clone() }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_by_age_and_then_by_name(turns in proptest::collection::vec((0..2_u64, "[a-bA.:-]{1,20}"), 2..20)) {
            let key = |(micros, name): &(u64, alloc::string::String)| {
                (Instant::from_micros(*micros), Name::new(name).unwrap())
            };
            let plain: Vec<(Instant, Name)> = turns.iter().map(key).collect();
            for one in &plain {
                for other in &plain {
                    let turns = [one, other].map(|(queued, name)| QueueOrder::new(*queued, name));
                    prop_assert_eq!(turns[0].cmp(&turns[1]), one.cmp(other));
                }
            }
        }
    }
}
