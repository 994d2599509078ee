//! Every order in which messages can arrive, in the small: up to three nodes, one room, one key of
//! the registry.
//!
//! The search tries every order of the messages under way (first in, first out on each way), of the
//! players' requests, and of a few faults, and visits each state once. After every step at most one
//! node may change the room (G6), logs agree (G1) and every bound holds (G11). At the end, once
//! nothing is under way and deadlines have passed, all players that want to be in the room are in
//! it, in the same epoch, and every message is in the log once, in order (G3, G4).

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use xxhash_rust::xxh3::xxh3_128;

use super::sites::Sites;
#[cfg(feature = "plant")]
use crate::base::plant::Plant;
use crate::base::plant::Planted;

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// A player sends its next request.
    Ask(usize),
    /// A player whose session was expelled asks for a membership again.
    Return(usize),
    /// A member sends a message.
    Say(usize),
    Request(usize),
    News(usize),
    Frame(usize, usize),
    Cut(usize, usize),
    Connect(usize, usize),
    Lapse(usize),
    Expire(usize),
    Lease(usize),
    TimeOut(usize),
}

/// A request of a player.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Join,
    Leave,
    Say,
    /// The session is registered anew, with a higher epoch.
    Renew,
}

/// A case to search.
#[derive(Clone, Copy)]
struct Case {
    /// Requests of the player at each node, in order.
    wishes: &'static [&'static [Wish]],
    /// Highest number of cut links, of lapsed leases, and of deadlines before the end.
    cuts: usize,
    lapses: usize,
    time_outs: usize,
    planted: Planted,
}

impl Case {
    fn of(wishes: &'static [&'static [Wish]]) -> Self {
        Self { wishes, cuts: 0, lapses: 0, time_outs: 0, planted: Planted::default() }
    }
}

/// Faults of a run so far, and requests of players.
#[derive(Clone, Debug)]
struct Progress {
    asked: Vec<usize>,
    cuts: usize,
    lapses: usize,
    time_outs: usize,
    /// Nodes whose leases have ended in the registry.
    expired: Vec<bool>,
}

#[derive(Clone)]
struct SearchState {
    sites: Sites,
    progress: Progress,
    /// Steps so far, to be shown with a failure.
    way: Vec<Step>,
}

impl SearchState {
    fn new(case: Case) -> Self {
        let count = case.wishes.len();
        let expired = alloc::vec![false; count];
        let progress = Progress { asked: alloc::vec![0; count], cuts: 0, lapses: 0, time_outs: 0, expired };
        Self { sites: Sites::new(count, case.planted), progress, way: Vec::new() }
    }

    fn steps(&self, case: &Case) -> Vec<Step> {
        let Self { sites, progress, .. } = self;
        let mut steps = Vec::new();
        for (at, wishes) in case.wishes.iter().enumerate() {
            let player = &sites.sites[at].player;
            let is_ready = |wish: &Wish| *wish != Wish::Say || player.number > 0;
            if wishes.get(progress.asked[at]).is_some_and(is_ready) {
                steps.push(Step::Ask(at));
            }
            if player.wants && !player.is_local {
                steps.push(Step::Return(at));
            }
            if player.number > 0 && player.said < player.to_say {
                steps.push(Step::Say(at));
            }
            if !sites.registry.requests[at].is_empty() {
                steps.push(Step::Request(at));
            }
            if !sites.registry.news[at].is_empty() {
                steps.push(Step::News(at));
            }
            match (sites.sites[at].leases.lone, progress.expired[at]) {
                (true, _) if progress.lapses < case.lapses => steps.push(Step::Lapse(at)),
                (true, _) => {}
                (false, expired) => {
                    if !expired {
                        steps.push(Step::Expire(at));
                    }
                    steps.push(Step::Lease(at));
                }
            }
            if progress.time_outs < case.time_outs && sites.deadline(at).is_some() {
                steps.push(Step::TimeOut(at));
            }
        }
        let frames = sites.frames.iter().filter(|(_, queue)| !queue.is_empty());
        steps.extend(frames.map(|((from, to), _)| Step::Frame(*from, *to)));
        for (&(one, other), link) in &sites.links {
            match link {
                None => steps.push(Step::Connect(one, other)),
                Some(_) if progress.cuts < case.cuts => steps.push(Step::Cut(one, other)),
                Some(_) => {}
            }
        }
        steps
    }

    fn take(&mut self, case: &Case, step: Step) {
        let Self { sites, progress, way } = self;
        way.push(step);
        match step {
            Step::Ask(at) => {
                let wish = case.wishes[at][progress.asked[at]];
                progress.asked[at] += 1;
                match wish {
                    Wish::Join => sites.join(at),
                    Wish::Leave => sites.leave(at),
                    Wish::Say => sites.sites[at].player.to_say += 1,
                    Wish::Renew => sites.raise(at, sites.sites[at].player.session_epoch + 1),
                }
            }
            Step::Return(at) => {
                let expelled = sites.sites[at].player.expelled;
                let is_disturbed = progress.lapses > 0 || progress.time_outs > 0;
                assert!(is_disturbed, "a player who wants to be in the room was told {expelled:?} (L2)");
                sites.arrive(at);
            }
            Step::Say(at) => sites.say(at),
            Step::Request(at) => sites.registry.take_request(at),
            Step::News(at) => sites.take_news(at),
            Step::Frame(from, to) => sites.take_frame(from, to),
            Step::Cut(one, other) => {
                progress.cuts += 1;
                sites.cut(one, other);
            }
            Step::Connect(one, other) => sites.connect(one, other),
            Step::Lapse(at) => {
                progress.lapses += 1;
                sites.lapse(at);
            }
            Step::Expire(at) => {
                progress.expired[at] = true;
                sites.expire(at);
            }
            Step::Lease(at) => {
                progress.expired[at] = false;
                sites.lease(at);
            }
            Step::TimeOut(at) => {
                progress.time_outs += 1;
                sites.time_out(at);
            }
        }
        self.sites.check();
    }

    /// Delivers everything and lets time pass, in one order, until every player is in the room or
    /// out of it, as it wants.
    fn finish(mut self, case: &Case) {
        let none = Case { cuts: 0, lapses: 0, time_outs: 0, ..*case };
        for _ in 0..400 {
            let mut steps = self.steps(&none);
            steps.retain(|step| !matches!(step, Step::Expire(_)));
            // A refused message is sent again after everything else.
            steps.sort_by_key(|step| matches!(step, Step::Say(_)));
            if let Some(step) = steps.first() {
                self.take(case, *step);
                continue;
            }
            let is_seated = |player: &super::sites::Player| !player.wants || player.number > 0;
            if self.sites.sites.iter().all(|site| is_seated(&site.player)) {
                return self.check_end(case);
            }
            let due = (0..case.wishes.len()).filter_map(|at| Some((self.sites.deadline(at)?, at)));
            let Some((_, at)) = due.min() else { break };
            self.progress.time_outs += 1;
            self.sites.time_out(at);
            self.sites.check();
        }
        panic!("players wait for ever after {:?}: {}", self.way, self.sites.fingerprint());
    }

    fn check_end(&self, case: &Case) {
        let mut lives = self.sites.lives();
        let wanted = self.sites.sites.iter().filter(|site| site.player.wants).count();
        assert_eq!(lives.len(), wanted, "players are members that do not want it, or are not that do");
        lives.dedup();
        assert!(lives.len() <= 1, "members are in several lives of the room: {lives:?}");
        for at in 0..case.wishes.len() {
            let player = &self.sites.sites[at].player;
            if player.number > 0 {
                let said: Vec<u64> = (1..=player.said).collect();
                assert_eq!(self.sites.in_log(at), said, "messages in the log");
                let known = self.sites.seat_epoch(at);
                assert_eq!(known, Some(player.session_epoch), "the primary knows an older session");
            }
        }
    }
}

/// Visits every state, up to a limit. Returns the number of states, and true if these were all.
fn search(case: Case, most: usize) -> (usize, bool) {
    let mut visited: BTreeSet<u128> = BTreeSet::new();
    let mut open = Vec::from([SearchState::new(case)]);
    while let Some(state) = open.pop() {
        let steps = state.steps(&case);
        // States without anything under way are ends, except for faults that are still possible.
        if steps.iter().all(|step| matches!(step, Step::Cut(..) | Step::Lapse(_) | Step::TimeOut(_))) {
            state.clone().finish(&case);
        }
        for step in steps {
            let mut next = state.clone();
            next.take(&case, step);
            let text = alloc::format!("{:?} {}", next.progress, next.sites.fingerprint());
            if visited.insert(xxh3_128(text.as_bytes())) {
                if visited.len() >= most {
                    next.finish(&case);
                    return (visited.len(), false);
                }
                open.push(next);
            }
        }
    }
    (visited.len(), true)
}

const JOIN: &[Wish] = &[Wish::Join];
const JOIN_AND_LEAVE: &[Wish] = &[Wish::Join, Wish::Leave];
const JOIN_AND_SAY: &[Wish] = &[Wish::Join, Wish::Say];
const JOIN_AND_SAY_TWICE: &[Wish] = &[Wish::Join, Wish::Say, Wish::Say];
const JOIN_AND_RENEW: &[Wish] = &[Wish::Join, Wish::Renew];
const COME_AGAIN: &[Wish] = &[Wish::Join, Wish::Leave, Wish::Join];

/// Asserts that a case has more than so many states, and that all were visited.
fn exhaust(case: Case, more_than: usize) {
    let (states, all) = search(case, 60_000);
    assert!(all && states > more_than, "{states} states, all of them: {all}");
}

#[test]
fn players_who_join_a_new_room_at_once_meet() {
    exhaust(Case { cuts: 2, ..Case::of(&[JOIN, JOIN]) }, 2_000);
    exhaust(Case::of(&[JOIN, JOIN, JOIN]), 10_000);
}

#[test]
fn a_leave_that_crosses_a_join_ends_the_room_or_does_not() {
    exhaust(Case { cuts: 1, time_outs: 1, ..Case::of(&[JOIN_AND_LEAVE, JOIN]) }, 5_000);
    exhaust(Case { time_outs: 1, ..Case::of(&[COME_AGAIN, JOIN]) }, 5_000);
}

#[test]
fn a_session_that_is_registered_anew_is_known_by_its_newest_epoch() {
    exhaust(Case { cuts: 1, ..Case::of(&[JOIN_AND_RENEW, JOIN_AND_RENEW]) }, 1_000);
}

#[test]
fn messages_are_in_the_log_once_and_in_order_whichever_link_is_cut() {
    exhaust(Case { cuts: 1, ..Case::of(&[JOIN_AND_SAY_TWICE, JOIN]) }, 2_000);
    exhaust(Case { cuts: 1, ..Case::of(&[JOIN_AND_SAY, JOIN_AND_SAY]) }, 5_000);
}

#[test]
fn a_node_whose_lease_may_have_ended_changes_nothing() {
    exhaust(Case { lapses: 1, ..Case::of(&[JOIN, JOIN]) }, 5_000);
    exhaust(Case { lapses: 1, ..Case::of(&[JOIN_AND_SAY]) }, 10);
    exhaust(Case { lapses: 1, ..Case::of(&[JOIN_AND_SAY, JOIN]) }, 15_000);
}

#[cfg(feature = "plant")]
fn search_with(plant: Plant, case: Case) {
    search(Case { planted: Planted::with(plant), ..case }, 60_000);
}

#[cfg(feature = "plant")]
#[test]
#[should_panic(expected = "was told Some(Gone) (L2)")]
fn a_race_that_is_told_to_a_player_is_found() {
    search_with(Plant::JoinRaceTold, Case::of(&[JOIN_AND_LEAVE, JOIN]));
}

#[cfg(feature = "plant")]
#[test]
#[should_panic(expected = "two nodes have different entries at one place")]
fn an_epoch_that_is_used_twice_is_found() {
    search_with(Plant::EpochReused, Case::of(&[JOIN_AND_LEAVE, JOIN]));
}

#[cfg(feature = "plant")]
#[test]
#[should_panic(expected = "messages in the log")]
fn a_relayed_message_that_is_forgotten_with_its_link_is_found() {
    search_with(Plant::RelayForgotten, Case { cuts: 1, ..Case::of(&[JOIN_AND_SAY, JOIN_AND_SAY]) });
}
