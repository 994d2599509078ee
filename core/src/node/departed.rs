//! Who has left a room lately: an older session of the player does not come in after that.

use alloc::collections::VecDeque;

use crate::id::Name;
use crate::time::Instant;

/// Players who have left, with the epochs of their sessions. A node that has not heard that
/// a newer session took over could let the older one in again once the newer has left. It
/// hears of it, or stops, long before these are forgotten; or, if what it has missed is
/// compacted, it registers the older one anew, which then is the newest there is.
#[derive(Debug, Default)]
pub(super) struct Departed(VecDeque<(Instant, Name, u64)>);

impl Departed {
    /// Somebody leaves, and is remembered until then; of more than `most` the first that
    /// left are forgotten.
    pub(super) fn leave(&mut self, now: Instant, until: Instant, player: Name, epoch: u64, most: usize) {
        self.0.retain(|(until, known, _)| *until > now && *known != player);
        self.0.push_back((until, player, epoch));
        while self.0.len() > most {
            self.0.pop_front();
        }
    }

    /// Whether a session of this epoch is older than the one that has left lately.
    pub(super) fn is_older(&self, now: Instant, player: &Name, epoch: u64) -> bool {
        self.0.iter().any(|(until, known, left)| *until > now && known == player && *left > epoch)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_to_leave_are_remembered_for_a_while() {
        let at = |seconds: u64| Instant::from_micros(seconds * 1_000_000);
        let name = |text| Name::new(text).unwrap();
        let mut departed = Departed::default();
        departed.leave(at(0), at(10), name("ann"), 5, 2);
        assert_eq!(
            [4, 5, 6].map(|epoch| departed.is_older(at(9), &name("ann"), epoch)),
            [true, false, false]
        );
        assert!(!departed.is_older(at(9), &name("bob"), 4));
        assert!(!departed.is_older(at(10), &name("ann"), 4), "it is forgotten, also if nobody else leaves");
        departed.leave(at(1), at(11), name("ann"), 7, 2);
        departed.leave(at(1), at(11), name("bob"), 6, 2);
        assert!(departed.is_older(at(2), &name("ann"), 6) && departed.len() == 2);
        departed.leave(at(2), at(12), name("cid"), 8, 2);
        assert!(!departed.is_older(at(2), &name("ann"), 6), "there is no place for all");
        departed.leave(at(11), at(21), name("dan"), 9, 2);
        assert!(!departed.is_older(at(11), &name("bob"), 5) && departed.is_older(at(11), &name("cid"), 7));
    }
}
