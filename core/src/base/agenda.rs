//! Queue of all deadlines of a node, which replaces a timer for each connection.

use alloc::collections::BTreeSet;

use crate::base::time::Instant;

/// Deadlines of things, at most one for each thing. A thing keeps the time of its booking, and
/// books again only for an earlier time. A thing that is booked too early is examined when it is
/// due, and books again. So the common case, a deadline that moves later, costs nothing.
#[derive(Clone, Debug)]
pub(crate) struct Agenda<T>(BTreeSet<(Instant, T)>);

/// Time for which a thing is booked, if it is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Booking(Option<Instant>);

impl<T: Ord + Copy> Agenda<T> {
    pub(crate) const fn new() -> Self {
        Self(BTreeSet::new())
    }

    /// Books `thing` for `at`, unless it is booked for an earlier time.
    pub(crate) fn book(&mut self, thing: T, booking: &mut Booking, at: Instant) {
        match booking.0 {
            Some(earlier) if earlier <= at => return,
            Some(later) => {
                self.0.remove(&(later, thing));
            }
            None => {}
        }
        self.0.insert((at, thing));
        booking.0 = Some(at);
    }

    /// Removes the booking of `thing`.
    pub(crate) fn cancel(&mut self, thing: T, booking: &mut Booking) {
        if let Some(at) = booking.0.take() {
            self.0.remove(&(at, thing));
        }
    }

    /// Returns the earliest booking.
    pub(crate) fn next(&self) -> Option<(Instant, T)> {
        self.0.first().copied()
    }

    /// Removes and returns the earliest thing that is due. The caller then calls [`Booking::clear`]
    /// on its booking.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<T> {
        if self.next()?.0 > now {
            return None;
        }
        self.0.pop_first().map(|(_, thing)| thing)
    }

    /// Returns the number of bookings.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Booking {
    /// Notes that the agenda has removed the thing.
    pub(crate) const fn clear(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_one_booking_for_each_thing_the_earliest() {
        let at = Instant::from_micros;
        let mut agenda = Agenda::new();
        let (mut a, mut b) = (Booking::default(), Booking::default());
        agenda.book('a', &mut a, at(10));
        agenda.book('a', &mut a, at(20));
        agenda.book('b', &mut b, at(15));
        agenda.book('b', &mut b, at(5));
        assert_eq!((agenda.next(), agenda.len()), (Some((at(5), 'b')), 2));
        assert_eq!(agenda.take_due(at(4)), None);
        assert_eq!(agenda.take_due(at(10)), Some('b'));
        b.clear();
        agenda.cancel('a', &mut a);
        assert_eq!(agenda.take_due(at(99)), None);
        agenda.book('b', &mut b, at(7));
        assert_eq!(agenda.take_due(at(99)), Some('b'));
    }
}
