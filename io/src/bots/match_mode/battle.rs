//! The battle of one match: its bots, their deliveries (G1 to G5), and its end.

use skirmish_core::time::Instant;

use super::super::verdict::{Checker, Findings};

/// A battle. The players are numbered by their place in the battle.
#[derive(Debug)]
pub(super) struct MatchBattle {
    /// Bots of the battle, in the order of their places.
    bots: Vec<u32>,
    /// True for each bot that has sent all its messages and has their outcomes.
    done: Vec<bool>,
    /// End of talking.
    pub until: Instant,
    pub checker: Checker,
    over: bool,
}

impl MatchBattle {
    /// Creates a battle of these bots that lasts until `until`.
    pub(super) fn new(bots: Vec<u32>, until: Instant) -> Self {
        let players = u32::try_from(bots.len()).unwrap_or(u32::MAX);
        let done = vec![false; bots.len()];
        Self { done, until, checker: Checker::new(players, players), bots, over: false }
    }

    /// Returns the bot's place in the battle.
    pub(super) fn place(&self, bot: u32) -> Option<u32> {
        self.bots.iter().position(|other| *other == bot).and_then(|place| u32::try_from(place).ok())
    }

    /// Returns the bots of the battle.
    pub(super) fn bots(&self) -> &[u32] {
        &self.bots
    }

    /// Returns true if every player may leave.
    pub(super) const fn is_over(&self) -> bool {
        self.over
    }

    /// Notes that the bot has sent all its messages, and has their outcomes.
    pub(super) fn done(&mut self, bot: u32) {
        if let Some(done) = self.bots.iter().position(|other| *other == bot) {
            self.done[done] = true;
        }
    }

    /// Returns true if every bot is done and has delivered every acknowledged message. A loss is
    /// excluded only then, so no bot leaves earlier.
    pub(super) fn is_settled(&self) -> bool {
        self.done.iter().all(|done| *done) && (0..).zip(&self.bots).all(|(at, _)| !self.checker.is_behind(at))
    }

    /// Ends the battle: every player may leave. Returns the findings, and the number of players
    /// that were away or behind.
    pub(super) fn end(&mut self, connected: impl Fn(u32) -> bool) -> (Findings, u32) {
        self.over = true;
        let open = (0..).zip(&self.done).filter(|(at, done)| !**done || self.checker.is_behind(*at)).count();
        let bots = &self.bots;
        let findings = self.checker.finish(|place| connected(bots[place as usize]), open == 0);
        (findings, u32::try_from(open).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use skirmish_core::id::Cursor;

    use super::super::super::verdict::Delivery;
    use super::*;

    /// Bots 7 and 9. Both are in the room, and 7 has sent a message.
    fn battle() -> MatchBattle {
        let mut battle = MatchBattle::new(vec![7, 9], Instant::from_micros(1));
        for place in 0..2 {
            battle.checker.connected(place);
            battle.checker.joined(place, false);
            battle.checker.snapshot(place, Cursor { epoch: 1, seq: 0 }, None);
        }
        delivers(&mut battle, 0);
        battle.checker.acknowledged(0, 1);
        battle.checker.sequenced(0, Cursor { epoch: 1, seq: 1 });
        battle
    }

    fn delivers(battle: &mut MatchBattle, place: u32) {
        let cursor = Cursor { epoch: 1, seq: 1 };
        battle.checker.delivered(place, Delivery { cursor, hash: 1, said: Some((0, 1)) });
    }

    #[test]
    fn it_is_settled_when_all_are_done_and_nobody_is_behind() {
        let mut battle = battle();
        assert_eq!((battle.place(9), battle.place(8)), (Some(1), None));
        battle.done(7);
        delivers(&mut battle, 1);
        assert!(!battle.is_settled(), "bot 9 is not done");
        battle.done(9);
        assert!(battle.is_settled());
        let (Findings { breaches, unknown, .. }, open) = battle.end(|_| true);
        assert!(breaches.iter().chain([&unknown]).all(|found| found.count == 0), "{breaches:?} {unknown:?}");
        assert_eq!((open, battle.is_over()), (0, true));
    }

    #[test]
    fn who_is_behind_holds_it_up_and_nobody_knows_what_it_never_gets() {
        let mut battle = battle();
        battle.done(7);
        battle.done(9);
        assert!(!battle.is_settled(), "bot 9 is behind");
        let (Findings { breaches, unknown, counts }, open) = battle.end(|_| true);
        assert!(breaches.iter().all(|breaches| breaches.count == 0), "{breaches:?}");
        assert_eq!((unknown.count, counts.lost, open), (1, 0, 1));
    }
}
