//! Classes of tickets with equal traits. The agreement of two classes is computed once, instead of
//! reading distant memory for each pair of tickets.

use alloc::vec::Vec;

use super::ticket::Traits;

/// Maximum number of known classes: one bit each.
const MOST: u8 = 64;
/// Bit of a class that has conditions.
const CHOOSY: u8 = 0x80;

/// Class of a ticket, if one was free, and a bit that says that the ticket has conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TicketClass(u8);

/// The classes of a queue. In a queue with more than [`MOST`] different traits, some tickets get no
/// class and are compared one by one.
#[derive(Debug, Default)]
pub(super) struct TicketClasses {
    known: Vec<KnownClass>,
    /// Indexes of the classes in use, sorted by their traits.
    sorted: Vec<u8>,
}

#[derive(Debug, Default)]
struct KnownClass {
    traits: Traits,
    /// Number of tickets of the class. A class without tickets is free.
    tickets: usize,
    /// Bit `n`: tickets of this class and of class `n` meet the conditions of each other.
    agrees: u64,
}

impl TicketClass {
    /// Returns the value for a ticket without a class.
    pub(super) const fn none(traits: &Traits) -> Self {
        Self::new(MOST, traits)
    }

    const fn new(index: u8, traits: &Traits) -> Self {
        Self(if traits.conditions.is_empty() { index } else { index | CHOOSY })
    }

    /// Returns the byte that represents the class, as in [`Self::from_byte`].
    pub(super) const fn byte(self) -> u8 {
        self.0
    }

    pub(super) const fn from_byte(byte: u8) -> Self {
        Self(byte)
    }

    pub(super) const fn is_choosy(self) -> bool {
        self.0 & CHOOSY != 0
    }

    /// Returns true if this is one of the known classes.
    pub(super) const fn is_known(self) -> bool {
        self.index() < MOST
    }

    const fn index(self) -> u8 {
        self.0 & !CHOOSY
    }
}

impl TicketClasses {
    /// Counts a ticket, and returns its class; a ticket that finds no class free is not counted.
    pub(super) fn join(&mut self, traits: &Traits) -> TicketClass {
        let Self { known, sorted } = self;
        let place = sorted.binary_search_by(|index| {
            known.get(usize::from(*index)).map_or(core::cmp::Ordering::Less, |known| known.traits.cmp(traits))
        });
        let index = match place {
            Ok(place) => sorted.get(place).copied(),
            Err(place) => {
                let index = self.add(traits);
                self.sorted.splice(place..place, index);
                index
            }
        };
        let class = index.and_then(|index| Some((index, self.known.get_mut(usize::from(index))?)));
        let Some((index, known)) = class else { return TicketClass::none(traits) };
        known.tickets += 1;
        TicketClass::new(index, traits)
    }

    /// Uncounts a removed ticket of this class. Returns false if the class has no ticket; a ticket
    /// without a class was never counted.
    pub(super) fn leave(&mut self, class: TicketClass) -> bool {
        if !class.is_known() {
            return true;
        }
        let known = self.known.get_mut(usize::from(class.index()));
        let Some(known) = known.filter(|known| known.tickets > 0) else { return false };
        known.tickets -= 1;
        if known.tickets == 0 {
            known.traits = Traits::default();
            self.sorted.retain(|index| *index != class.index());
        }
        true
    }

    /// Returns true if tickets of these classes agree; `None` if one of them has no class.
    pub(super) fn agree(&self, one: TicketClass, other: TicketClass) -> Option<bool> {
        let known = self.known.get(usize::from(one.index()))?;
        other.is_known().then(|| known.agrees >> other.index() & 1 == 1)
    }

    /// Assigns a free class to these traits.
    fn add(&mut self, traits: &Traits) -> Option<u8> {
        let free = self.known.iter().position(|known| known.tickets == 0);
        let index = u8::try_from(free.unwrap_or(self.known.len())).ok().filter(|index| *index < MOST)?;
        if free.is_none() {
            self.known.push(KnownClass::default());
        }
        let mut agrees = u64::from(traits.agree(traits)) << index;
        for (other, known) in (0_u8..).zip(&mut self.known).filter(|(_, known)| known.tickets > 0) {
            let agree = u64::from(traits.agree(&known.traits));
            agrees |= agree << other;
            known.agrees = known.agrees & !(1 << index) | agree << index;
        }
        *self.known.get_mut(usize::from(index))? = KnownClass { traits: traits.clone(), tickets: 0, agrees };
        Some(index)
    }

    /// Returns the number of tickets that have a class.
    pub(super) fn len(&self) -> usize {
        self.known.iter().map(|known| known.tickets).sum()
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;
    use crate::base::id::Name;
    use crate::matchmaking::{Condition, Test, Value};

    /// Returns one of 100 different traits, some of which meet the conditions of each other.
    fn traits(own: i64, wanted: Option<i64>) -> Traits {
        let attribute = Name::new("x").unwrap();
        let test = |wanted| Test::Is(Value::Number(wanted));
        let condition = |wanted| Condition { attribute: attribute.clone(), test: test(wanted) };
        Traits {
            attributes: vec![(attribute.clone(), Value::Number(own))],
            conditions: wanted.map(condition).into_iter().collect(),
        }
    }

    proptest! {
        #[test]
        fn classes_agree_as_their_traits_do(
            events in proptest::collection::vec(
                (0..10_i64, proptest::option::weighted(0.9, 0..10_i64), any::<prop::sample::Index>(), 0..3_u8),
                1..400,
            ),
        ) {
            let (mut classes, mut tickets) = (TicketClasses::default(), Vec::new());
            for (own, wanted, index, kind) in events {
                if kind < 2 || tickets.is_empty() {
                    let traits = traits(own, wanted);
                    tickets.push((classes.join(&traits), traits));
                } else {
                    let (class, _) = tickets.swap_remove(index.index(tickets.len()));
                    prop_assert!(classes.leave(class));
                }
                let classed = tickets.iter().filter(|(class, _)| class.is_known());
                prop_assert_eq!(classes.len(), classed.count());
                for (one, one_traits) in tickets.iter().rev().take(5) {
                    prop_assert_eq!(one.is_choosy(), !one_traits.conditions.is_empty());
                    for (other, other_traits) in &tickets {
                        let verdict = classes.agree(*one, *other);
                        prop_assert_eq!(verdict.is_some(), one.is_known() && other.is_known());
                        prop_assert_eq!(verdict, verdict.map(|_| one_traits.agree(other_traits)));
                    }
                }
            }
        }
    }

    #[test]
    fn who_finds_no_class_free_has_none() {
        let mut classes = TicketClasses::default();
        let all: Vec<TicketClass> = (0..70).map(|own| classes.join(&traits(own, None))).collect();
        assert_eq!(classes.len(), 64);
        assert_eq!(all.iter().filter(|class| !class.is_known()).count(), 6);
        assert_eq!(classes.agree(all[0], all[69]), None);
        assert_eq!(classes.agree(all[69], all[0]), None);
        assert!(classes.leave(all[69]) && classes.leave(all[3]));
        assert!(!classes.leave(all[3]), "the class has no ticket any more");
        assert_eq!(classes.join(&traits(99, Some(0))), TicketClass(3 | CHOOSY));
        assert_eq!(classes.agree(TicketClass(3 | CHOOSY), all[0]), Some(true));
        assert_eq!(classes.agree(all[1], TicketClass(3 | CHOOSY)), Some(false));
    }
}
