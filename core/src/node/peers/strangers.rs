//! Links of nodes that have not said `LinkHello` yet, and the one that goes when there are too many.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::base::id::Address;
use crate::base::slab::Key;
use crate::base::time::Instant;

/// Link of a node that is not known yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stranger {
    pub(super) address: Address,
    /// Deadline of the `LinkHello`: the oldest link has the earliest.
    pub(super) until: Instant,
    pub(super) link: Key,
}

/// The link that makes place for another stranger, which comes from `comes`; `None` if there is
/// place. Strangers have a quarter of `places`, and one at least. When these are taken, the oldest
/// link of the address with most strangers goes, the new one counted. So an address that only
/// connects keeps no node out.
pub(super) fn displaced(
    strangers: impl Iterator<Item = Stranger>,
    comes: Address,
    places: usize,
) -> Option<Key> {
    let mut by_address: BTreeMap<Address, Vec<(Instant, Key)>> = BTreeMap::new();
    let mut count = 0_usize;
    for Stranger { address, until, link } in strangers {
        by_address.entry(address).or_default().push((until, link));
        count += 1;
    }
    if count < places / 4 {
        return None;
    }
    let size =
        |(address, links): &(Address, Vec<_>)| (links.len() + usize::from(*address == comes), *address);
    let (_, links) = by_address.into_iter().max_by_key(size)?;
    links.into_iter().min().map(|(_, oldest)| oldest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn address(last: u8) -> Address {
        Address([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last])
    }

    /// Returns the slot of the link that is displaced, of strangers with these addresses and
    /// deadlines in slots 0, 1, ...
    fn slot(strangers: &[(u8, u64)], comes: u8, places: usize) -> Option<u32> {
        let stranger = |(slot, (last, until)): (u32, &(u8, u64))| Stranger {
            address: address(*last),
            until: Instant::from_micros(*until),
            link: Key { slot, generation: 0 },
        };
        displaced((0..).zip(strangers).map(stranger), address(comes), places).map(|key| key.slot)
    }

    #[test]
    fn nobody_goes_while_a_quarter_of_the_places_is_not_taken() {
        let three = [(1, 10), (1, 20), (1, 30)];
        assert_eq!(slot(&three, 1, 16), None);
        assert_eq!(slot(&three, 1, 12), Some(0));
        assert_eq!(slot(&[], 1, 1), None, "one place there is always");
        assert_eq!(slot(&[(1, 10)], 1, 1), Some(0));
    }

    #[test]
    fn the_oldest_of_the_address_with_most_strangers_goes() {
        assert_eq!(slot(&[(1, 5), (2, 30), (2, 20)], 3, 12), Some(2));
        assert_eq!(slot(&[(1, 5), (2, 30), (3, 20)], 2, 12), Some(1), "the new one counts");
        assert_eq!(slot(&[(1, 5), (2, 30), (3, 20)], 9, 12), Some(2), "of equals the highest address");
    }
}
