//! A clean history passes, and each way to break a guarantee is caught.

use super::*;

/// Two rooms of two; players 0 and 1 are in the first.
struct History {
    checker: Checker,
}

fn at(seq: u64) -> Cursor {
    Cursor { epoch: 1, seq }
}

impl History {
    /// Creates a history in which every player has joined, at the beginning of the log.
    fn new() -> Self {
        let mut checker = Checker::new(4, 2);
        for player in 0..4 {
            checker.connected(player);
            checker.joined(player, false);
            checker.snapshot(player, at(0), None);
        }
        Self { checker }
    }

    /// `player` delivers message `number` of `sender` at place `seq`.
    fn gets(&mut self, player: u32, seq: u64, sender: u32, number: u64) -> &mut Self {
        let hash = entry_hash(1, sender, number, b"body", "");
        let said = Some((sender, number));
        self.checker.delivered(player, Delivery { cursor: at(seq), hash, said });
        if player == sender {
            self.checker.acknowledged(sender, number);
            self.checker.sequenced(sender, at(seq));
        }
        self
    }

    /// Both players of the first room deliver the message.
    fn both(&mut self, seq: u64, sender: u32, number: u64) -> &mut Self {
        self.gets(0, seq, sender, number).gets(1, seq, sender, number)
    }

    fn end(mut self) -> ([u64; 5], Counts) {
        let Findings { breaches, unknown, counts } = self.checker.finish(|_| true, true);
        for breaches in &breaches {
            assert_eq!(breaches.count > 0, breaches.first.is_some());
        }
        assert_eq!(unknown, Breaches::default());
        (breaches.map(|breaches| breaches.count), counts)
    }

    /// Ends the players' patience. Returns the number of unknown cases, and the breaches.
    fn unsettled(mut self, reachable: impl Fn(u32) -> bool) -> (u64, [u64; 5]) {
        let Findings { breaches, unknown, .. } = self.checker.finish(reachable, false);
        assert_eq!(unknown.count > 0, unknown.first.is_some());
        (unknown.count, breaches.map(|breaches| breaches.count))
    }

    fn clean(self) {
        assert_eq!(self.end().0, [0; 5]);
    }

    /// Checks that exactly this guarantee is broken.
    fn breaks(self, guarantee: CheckedGuarantee) -> Counts {
        let (breaches, counts) = self.end();
        for other in CheckedGuarantee::ALL {
            assert_eq!(breaches[other as usize] > 0, other == guarantee, "{} in {breaches:?}", other.title());
        }
        counts
    }
}

#[test]
fn a_clean_history_passes() {
    let mut history = History::new();
    history.both(1, 0, 1).both(2, 1, 1).both(3, 0, 2);
    history.checker.latest(0, 1, 1);
    history.checker.latest(0, 1, 4);
    history.clean();
}

#[test]
fn a_different_entry_at_one_place_breaks_order() {
    let mut history = History::new();
    history.both(1, 0, 1).gets(0, 2, 0, 2).gets(1, 2, 1, 1).gets(0, 3, 1, 1).gets(1, 3, 0, 2);
    history.breaks(CheckedGuarantee::Order);
}

#[test]
fn a_message_of_another_room_breaks_order() {
    let mut history = History::new();
    history.gets(0, 1, 2, 1);
    history.breaks(CheckedGuarantee::Order);
}

#[test]
fn an_acknowledged_message_that_is_skipped_is_lost() {
    // The log has no gap, and message 2 is not in it.
    let mut history = History::new();
    history.both(1, 0, 1);
    history.checker.acknowledged(0, 2);
    history.both(2, 0, 3);
    assert_eq!(history.breaks(CheckedGuarantee::NoLoss).lost, 2);
}

#[test]
fn an_acknowledged_message_that_never_comes_is_lost_when_nothing_is_under_way() {
    // Message 2 was acknowledged and is not in the log.
    let mut history = History::new();
    history.both(1, 0, 1);
    history.checker.acknowledged(0, 2);
    assert_eq!(history.breaks(CheckedGuarantee::NoLoss).lost, 2, "at both");
}

#[test]
fn what_has_not_come_when_patience_is_over_is_not_known_to_be_lost() {
    let behind = || {
        let mut history = History::new();
        history.both(1, 0, 1).gets(0, 2, 0, 2);
        assert!(history.checker.is_behind(1));
        history
    };
    assert_eq!(behind().unsettled(|_| true), (2, [0; 5]), "by the cursor and by the number");
    assert_eq!(behind().unsettled(|player| player != 1), (2, [0; 5]), "nor of who is away");
    // A player who is away and has delivered everything misses nothing.
    let mut away = History::new();
    away.both(1, 0, 1);
    let Findings { unknown, .. } = away.checker.finish(|player| player != 1, true);
    assert_eq!(unknown, Breaches::default());
    let mut first = History::new();
    first.gets(0, 1, 0, 1);
    assert_eq!(first.unsettled(|_| true), (1, [0; 5]), "by the cursor alone");
    // The sender may not have received the message either.
    let mut acknowledged = History::new();
    acknowledged.both(1, 0, 1);
    acknowledged.checker.acknowledged(0, 2);
    assert_eq!(acknowledged.unsettled(|_| true), (2, [0; 5]));
}

#[test]
fn what_was_passed_by_is_lost_however_little_patience_there_was() {
    let lost = [0, 1, 0, 0, 0];
    let passes = |history: &mut History| {
        let delivery = Delivery { cursor: at(2), hash: entry_hash(1, 0, 2, b"body", ""), said: None };
        history.checker.delivered(1, delivery);
    };
    // A later message of the sender was delivered.
    let mut history = History::new();
    history.both(1, 0, 1).gets(0, 2, 0, 2).gets(0, 3, 0, 3);
    passes(&mut history);
    history.gets(1, 3, 0, 3);
    assert_eq!(history.unsettled(|_| true), (0, lost));
    // The member has delivered as much as the sender, but not this message.
    let mut history = History::new();
    history.both(1, 0, 1).gets(0, 2, 0, 2);
    passes(&mut history);
    assert_eq!(history.unsettled(|_| true), (0, lost));
}

#[test]
fn the_unreachable_and_those_who_left_are_owed_nothing() {
    let mut history = History::new();
    history.both(1, 0, 1).gets(0, 2, 0, 2);
    history.checker.left(1);
    history.clean();

    let mut history = History::new();
    history.both(1, 0, 1).gets(0, 2, 0, 2);
    assert_eq!(history.checker.finish(|player| player != 1, true).breaches[1].count, 0);
}

#[test]
fn refused_and_unknown_messages_may_be_missing() {
    let mut history = History::new();
    history.both(1, 0, 1);
    history.checker.not_acknowledged(0, 2);
    history.both(2, 0, 3);
    history.clean();
}

#[test]
fn an_entry_again_is_a_duplicate() {
    let mut history = History::new();
    history.both(1, 0, 1).both(2, 0, 2).gets(1, 2, 0, 2);
    assert_eq!(
        history.breaks(CheckedGuarantee::NoDuplicate).duplicates,
        2,
        "by the cursor and by the number"
    );
}

#[test]
fn a_message_that_is_logged_twice_is_a_duplicate() {
    let mut history = History::new();
    history.both(1, 0, 1).both(2, 0, 1);
    history.breaks(CheckedGuarantee::NoDuplicate);
}

#[test]
fn a_message_that_was_overtaken_breaks_the_senders_order() {
    let mut history = History::new();
    history.both(1, 0, 1).both(2, 0, 3).both(3, 0, 2);
    assert_eq!(history.breaks(CheckedGuarantee::SenderOrder).out_of_order, 2);
}

#[test]
fn one_from_before_the_first_breaks_the_senders_order() {
    let mut history = History::new();
    history.both(1, 0, 2).both(2, 0, 1);
    history.breaks(CheckedGuarantee::SenderOrder);
}

#[test]
fn a_gap_in_silence_is_caught() {
    let mut history = History::new();
    history.both(1, 0, 1);
    history.checker.not_acknowledged(0, 2);
    history.gets(0, 2, 0, 2).both(3, 0, 3);
    history.breaks(CheckedGuarantee::NoSilentGap);
}

#[test]
fn another_epoch_in_silence_is_caught() {
    let mut history = History::new();
    history.both(1, 0, 1);
    let delivery = Delivery { cursor: Cursor { epoch: 2, seq: 1 }, hash: 1, said: None };
    history.checker.delivered(1, delivery);
    history.breaks(CheckedGuarantee::NoSilentGap);
}

#[test]
fn an_announced_gap_passes() {
    let mut history = History::new();
    history.both(1, 0, 1).gets(0, 2, 0, 2).gets(0, 3, 0, 3);
    history.checker.snapshot(1, at(3), Some((2, 3)));
    history.both(4, 0, 4);
    assert_eq!(history.checker.counts().announced, 2);
    history.clean();
}

#[test]
fn a_snapshot_that_hides_a_gap_is_caught() {
    for missing in [None, Some((3, 3)), Some((2, 2))] {
        let mut history = History::new();
        history.both(1, 0, 1).gets(0, 2, 0, 2).gets(0, 3, 0, 3);
        history.checker.snapshot(1, at(3), missing);
        history.breaks(CheckedGuarantee::NoSilentGap);
    }
}

#[test]
fn a_snapshot_that_goes_back_is_caught() {
    let mut history = History::new();
    history.both(1, 0, 1).both(2, 0, 2).both(3, 0, 3);
    history.checker.snapshot(1, at(1), Some((1, 1)));
    let (_, breaches) = history.unsettled(|_| true);
    assert!(breaches[CheckedGuarantee::NoSilentGap as usize] > 0);
}

#[test]
fn a_new_membership_starts_afresh() {
    let mut history = History::new();
    history.both(1, 0, 1).gets(0, 2, 0, 2);
    history.checker.joined(1, false);
    history.checker.snapshot(1, at(0), None);
    history.gets(1, 1, 0, 1).gets(1, 2, 0, 2);
    history.clean();
}

#[test]
fn latest_messages_never_go_back_nor_repeat() {
    let mut history = History::new();
    history.checker.latest(0, 1, 5);
    history.checker.latest(0, 1, 4);
    history.breaks(CheckedGuarantee::SenderOrder);

    let mut history = History::new();
    history.checker.latest(0, 1, 5);
    history.checker.latest(0, 1, 5);
    history.breaks(CheckedGuarantee::NoDuplicate);

    // After a reconnect the newest latest message may be delivered again.
    let mut history = History::new();
    history.checker.latest(0, 1, 5);
    history.checker.connected(0);
    history.checker.latest(0, 1, 5);
    history.clean();
}

#[test]
fn the_window_of_a_room_is_bounded() {
    let mut history = History::new();
    for seq in 1..=3_000 {
        history.gets(0, seq, 0, seq);
    }
    history.gets(1, 1, 0, 1);
    assert_eq!(history.checker.counts().uncompared, 1);
}
