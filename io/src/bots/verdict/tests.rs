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
    /// Everybody has joined, at the beginning of the log.
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

    /// Both players of the first room deliver it.
    fn both(&mut self, seq: u64, sender: u32, number: u64) -> &mut Self {
        self.gets(0, seq, sender, number).gets(1, seq, sender, number)
    }

    fn end(mut self) -> ([u64; 5], Counts) {
        let (breaches, counts) = self.checker.finish(|_| true);
        for breaches in &breaches {
            assert_eq!(breaches.count > 0, breaches.first.is_some());
        }
        (breaches.map(|breaches| breaches.count), counts)
    }

    fn clean(self) {
        assert_eq!(self.end().0, [0; 5]);
    }

    /// Exactly this guarantee is broken.
    fn breaks(self, guarantee: Guarantee) -> Counts {
        let (breaches, counts) = self.end();
        for other in Guarantee::ALL {
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
    history.breaks(Guarantee::Order);
}

#[test]
fn a_message_of_another_room_breaks_order() {
    let mut history = History::new();
    history.gets(0, 1, 2, 1);
    history.breaks(Guarantee::Order);
}

#[test]
fn an_acknowledged_message_that_is_skipped_is_lost() {
    // The log is without a gap, and message 2 is not in it.
    let mut history = History::new();
    history.both(1, 0, 1);
    history.checker.acknowledged(0, 2);
    history.both(2, 0, 3);
    assert_eq!(history.breaks(Guarantee::NoLoss).lost, 2);
}

#[test]
fn an_acknowledged_message_that_never_comes_is_lost() {
    let mut history = History::new();
    history.both(1, 0, 1).gets(0, 2, 0, 2);
    assert!(history.checker.is_behind(1));
    let counts = history.breaks(Guarantee::NoLoss);
    assert_eq!(counts.lost, 2, "by the cursor and by the number");
}

#[test]
fn a_lost_message_is_seen_by_the_cursor_alone() {
    let mut history = History::new();
    history.gets(0, 1, 0, 1);
    history.breaks(Guarantee::NoLoss);
}

#[test]
fn the_unreachable_and_those_who_left_are_owed_nothing() {
    let mut history = History::new();
    history.both(1, 0, 1).gets(0, 2, 0, 2);
    history.checker.left(1);
    history.clean();

    let mut history = History::new();
    history.both(1, 0, 1).gets(0, 2, 0, 2);
    let (breaches, _) = history.checker.finish(|player| player != 1);
    assert_eq!(breaches.map(|breaches| breaches.count), [0; 5]);
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
    assert_eq!(history.breaks(Guarantee::NoDuplicate).duplicates, 2, "by the cursor and by the number");
}

#[test]
fn a_message_that_is_logged_twice_is_a_duplicate() {
    let mut history = History::new();
    history.both(1, 0, 1).both(2, 0, 1);
    history.breaks(Guarantee::NoDuplicate);
}

#[test]
fn a_message_that_was_overtaken_breaks_the_senders_order() {
    let mut history = History::new();
    history.both(1, 0, 1).both(2, 0, 3).both(3, 0, 2);
    assert_eq!(history.breaks(Guarantee::SenderOrder).out_of_order, 2);
}

#[test]
fn one_from_before_the_first_breaks_the_senders_order() {
    let mut history = History::new();
    history.both(1, 0, 2).both(2, 0, 1);
    history.breaks(Guarantee::SenderOrder);
}

#[test]
fn a_gap_in_silence_is_caught() {
    let mut history = History::new();
    history.both(1, 0, 1);
    history.checker.not_acknowledged(0, 2);
    history.gets(0, 2, 0, 2).both(3, 0, 3);
    history.breaks(Guarantee::NoSilentGap);
}

#[test]
fn another_epoch_in_silence_is_caught() {
    let mut history = History::new();
    history.both(1, 0, 1);
    let delivery = Delivery { cursor: Cursor { epoch: 2, seq: 1 }, hash: 1, said: None };
    history.checker.delivered(1, delivery);
    history.breaks(Guarantee::NoSilentGap);
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
        history.breaks(Guarantee::NoSilentGap);
    }
}

#[test]
fn a_snapshot_that_goes_back_is_caught() {
    let mut history = History::new();
    history.both(1, 0, 1).both(2, 0, 2).both(3, 0, 3);
    history.checker.snapshot(1, at(1), Some((1, 1)));
    let (breaches, _) = history.end();
    assert!(breaches[Guarantee::NoSilentGap as usize] > 0);
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
    history.breaks(Guarantee::SenderOrder);

    let mut history = History::new();
    history.checker.latest(0, 1, 5);
    history.checker.latest(0, 1, 5);
    history.breaks(Guarantee::NoDuplicate);

    // After a reconnect the newest may be shown again.
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
