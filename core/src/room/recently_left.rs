//! Players that left a room recently. An older session of such a player is not admitted afterwards.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use skirmish_proto::v1;

use super::op_message::MalformedOp;
use crate::base::id::Name;
use crate::base::time::Duration;

/// Players that left, with the epochs of their sessions. A node that has not heard of a newer
/// session could let the older one in again after the newer one has left. Such a node hears of the
/// newer session, or stops, long before these players are forgotten. If the registry has compacted
/// the missed change, the node registers the older session anew, which then is the newest.
#[derive(Clone, Debug)]
pub struct RecentlyLeft {
    /// Log time until which a player is remembered, the player, and the epoch.
    players: VecDeque<(u64, Name, u64)>,
    remember_ms: u64,
    most: usize,
}

impl RecentlyLeft {
    /// Creates an empty list. Players are remembered for `remember`, at most `most` of them: the
    /// first that left are forgotten first.
    pub(super) fn new(remember: Duration, most: usize) -> Self {
        let remember_ms = u64::try_from(remember.as_millis()).unwrap_or(u64::MAX);
        Self { players: VecDeque::new(), remember_ms, most }
    }

    /// Adds a player that leaves at a log time.
    pub(super) fn add(&mut self, at_ms: u64, player: Name, epoch: u64) {
        self.players.retain(|(until, known, _)| *until > at_ms && *known != player);
        self.players.push_back((at_ms.saturating_add(self.remember_ms), player, epoch));
        while self.players.len() > self.most {
            self.players.pop_front();
        }
    }

    /// Returns the players, in the order in which they left, as messages.
    pub(super) fn to_messages(&self) -> Vec<v1::InstalledDeparture> {
        let message = |(until_ms, player, session_epoch): &(u64, Name, u64)| v1::InstalledDeparture {
            player: player.as_str().into(),
            session_epoch: *session_epoch,
            until_ms: *until_ms,
        };
        self.players.iter().map(message).collect()
    }

    /// Creates the list of a message, with the limits of another list.
    pub(super) fn from_messages(
        limits: &Self,
        messages: Vec<v1::InstalledDeparture>,
    ) -> Result<Self, MalformedOp> {
        let player = |left: v1::InstalledDeparture| {
            Ok((left.until_ms, Name::new(&left.player).map_err(|_| MalformedOp)?, left.session_epoch))
        };
        let Self { remember_ms, most, .. } = *limits;
        if messages.len() > most {
            return Err(MalformedOp);
        }
        let players = messages.into_iter().map(player).collect::<Result<_, _>>()?;
        Ok(Self { players, remember_ms, most })
    }

    /// Returns true if `epoch` is older than the epoch with which the player left recently.
    #[must_use]
    pub fn is_older(&self, at_ms: u64, player: &Name, epoch: u64) -> bool {
        self.players.iter().any(|(until, known, left)| *until > at_ms && known == player && *left > epoch)
    }

    /// Returns the number of players remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.players.len()
    }

    /// Returns true if no player is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.players.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_to_leave_are_remembered_for_a_while() {
        let name = |text| Name::new(text).unwrap();
        let mut left = RecentlyLeft::new(Duration::from_secs(10), 2);
        left.add(0, name("ann"), 5);
        assert_eq!([4, 5, 6].map(|epoch| left.is_older(9_999, &name("ann"), epoch)), [true, false, false]);
        assert!(!left.is_older(9_999, &name("bob"), 4));
        assert!(!left.is_older(10_000, &name("ann"), 4), "it is forgotten, also if nobody else leaves");
        left.add(1_000, name("ann"), 7);
        left.add(1_000, name("bob"), 6);
        assert!(left.is_older(2_000, &name("ann"), 6) && left.len() == 2);
        left.add(2_000, name("cid"), 8);
        assert!(!left.is_older(2_000, &name("ann"), 6), "there is no place for all");
        left.add(11_000, name("dan"), 9);
        assert!(!left.is_older(11_000, &name("bob"), 5) && left.is_older(11_000, &name("cid"), 7));
    }
}
