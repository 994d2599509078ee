//! Order in which tickets are searched for.

use crate::base::id::Name;
use crate::base::time::Instant;

/// Place of a ticket in the order: the oldest first, equally old tickets by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct QueueOrder {
    pub(super) queued: Instant,
    /// First bytes of the name, padded with zeros. No name contains a zero, so these bytes sort as
    /// the name does. Many tickets arrive at once, and these bytes tell most names apart without
    /// access to the name in distant memory.
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
        fn is_by_age_and_then_by_name(orders in proptest::collection::vec((0..2_u64, "[a-bA.:-]{1,20}"), 2..20)) {
            let key = |(micros, name): &(u64, alloc::string::String)| {
                (Instant::from_micros(*micros), Name::new(name).unwrap())
            };
            let plain: Vec<(Instant, Name)> = orders.iter().map(key).collect();
            for one in &plain {
                for other in &plain {
                    let orders = [one, other].map(|(queued, name)| QueueOrder::new(*queued, name));
                    prop_assert_eq!(orders[0].cmp(&orders[1]), one.cmp(other));
                }
            }
        }
    }
}
