//! Every order in which messages can arrive, in the small: a few nodes, one room, one key of the
//! registry.
//!
//! The nodes and the registry are real; the search delivers the messages under way. It tries every
//! order of deliveries (first in, first out on each way), of players' requests, and of a fault or
//! two, until nothing is under way any more. Steps that do not depend on each other, since they
//! change different places, are tried in one order only: a step that is tried later in the same
//! state *sleeps* until a dependent step is taken (Godefroid, *Partial-Order Methods for the
//! Verification of Concurrent Systems*, 1996).
//!
//! After every step the room has at most one primary (G6) and every bound holds (G11). At the end,
//! after some time, all players that want to be in the room are in it, in the same epoch.

use super::cluster::{Cluster, Member, UnderWay};
use super::*;

/// A step of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// A player sends its next request.
    Ask(usize),
    /// The registry receives the next call of a node.
    Call(usize),
    /// As [`Self::Call`], but the node does not receive the answer.
    Lose(usize),
    /// A node receives the registry's next event.
    Told(usize),
    /// A node receives the next frame of a link.
    Frame(usize, LinkId),
    /// All links between two nodes are lost, and dialed again.
    Cut(usize, usize),
}

impl Step {
    /// Returns the place that the step changes: a node, or the registry. `None` for several places.
    fn place(self) -> Option<usize> {
        match self {
            Self::Ask(node) | Self::Told(node) | Self::Frame(node, _) => Some(node),
            Self::Call(_) | Self::Lose(_) => Some(usize::MAX),
            Self::Cut(..) => None,
        }
    }

    fn depends_on(self, other: Self) -> bool {
        match (self.place(), other.place()) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        }
    }
}

/// A request of a player.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Join,
    Leave,
}

/// One case of the search.
#[derive(Clone, Copy)]
struct Case {
    /// Requests of the player at each node, in order.
    wishes: &'static [&'static [Wish]],
    /// Answers of the registry that may be lost.
    lost: usize,
    /// Links that may be lost.
    cuts: usize,
    /// Number of steps after which the other steps are taken in one order only.
    depth: usize,
    planted: Planted,
}

impl Case {
    /// A case without faults, searched to the end.
    fn of(wishes: &'static [&'static [Wish]]) -> Self {
        Self { wishes, lost: 0, cuts: 0, depth: usize::MAX, planted: Planted::default() }
    }
}

/// A cluster, with the number of requests and faults so far.
struct Run {
    case: Case,
    cluster: Cluster,
    members: Vec<Member>,
    asked: Vec<usize>,
    lost: usize,
    cuts: usize,
    told: Vec<Vec<ToClient>>,
}

impl Run {
    fn new(case: Case) -> Self {
        let mut cluster = Cluster::planted(case.wishes.len(), Config::default(), case.planted);
        let names = ["ann", "bob", "cid"];
        let members = (0..case.wishes.len()).map(|n| cluster.connect(n, names[n], None)).collect();
        cluster.under_way = Some(UnderWay::default());
        let nobody = case.wishes.iter().map(|_| 0).collect();
        let told = case.wishes.iter().map(|_| Vec::new()).collect();
        Self { case, cluster, members, asked: nobody, lost: 0, cuts: 0, told }
    }

    /// Returns the possible steps, in a fixed order.
    fn steps(&self) -> Vec<Step> {
        let under_way = self.cluster.under_way.as_ref().unwrap();
        let mut steps = Vec::new();
        for (node, wishes) in self.case.wishes.iter().enumerate() {
            if self.asked[node] < wishes.len() {
                steps.push(Step::Ask(node));
            }
        }
        steps.extend(
            under_way.told.iter().filter(|(_, queue)| !queue.is_empty()).map(|(node, _)| Step::Told(*node)),
        );
        let frames = under_way.frames.iter().filter(|(_, queue)| !queue.is_empty());
        steps.extend(frames.map(|((node, link), _)| Step::Frame(*node, *link)));
        for node in under_way.calls.iter().filter(|(_, queue)| !queue.is_empty()).map(|(node, _)| *node) {
            steps.push(Step::Call(node));
            if self.lost < self.case.lost {
                steps.push(Step::Lose(node));
            }
        }
        if self.cuts < self.case.cuts && !steps.is_empty() {
            steps.push(Step::Cut(0, 1));
        }
        steps
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Ask(node) => {
                let wish = self.case.wishes[node][self.asked[node]];
                self.asked[node] += 1;
                let member = &self.members[node];
                match wish {
                    Wish::Join => {
                        let join = v1::Join { room: "arena".into(), history: 0, request: 0 };
                        self.cluster.send(member, v1::Kind::Join, &join);
                    }
                    Wish::Leave => {
                        self.cluster.send(
                            member,
                            v1::Kind::Leave,
                            &v1::Leave { room: "arena".into(), request: 0 },
                        );
                    }
                }
            }
            Step::Call(node) => self.cluster.deliver_call(node, false),
            Step::Lose(node) => {
                self.lost += 1;
                self.cluster.deliver_call(node, true);
            }
            Step::Told(node) => self.cluster.deliver_told(node),
            Step::Frame(node, link) => self.cluster.deliver_frame(node, link),
            Step::Cut(one, other) => {
                self.cuts += 1;
                self.cluster.cut(one, other);
                self.cluster.cut.clear();
            }
        }
        self.check();
    }

    fn check(&mut self) {
        let primaries = self.cluster.nodes.iter().flatten().filter(|node| node.leads("arena").is_some());
        assert!(primaries.count() <= 1, "two nodes lead the room");
        for (member, told) in self.members.iter().zip(&mut self.told) {
            told.extend(self.cluster.received(member));
        }
    }

    /// Delivers everything that is under way, and lets time pass.
    fn finish(mut self) {
        while let Some(step) =
            self.steps().into_iter().find(|step| !matches!(step, Step::Lose(_) | Step::Cut(..)))
        {
            self.take(step);
        }
        self.cluster.under_way = None;
        self.cluster.advance(Duration::from_secs(20));
        self.check();
        let mut lives = Vec::new();
        for (told, wishes) in self.told.iter().zip(self.case.wishes) {
            let answers = told.iter().filter_map(|message| match message {
                ToClient::Joined(joined) => Some(Ok(joined.epoch)),
                ToClient::Left(left) => Some(Err(left.reason())),
                _ => None,
            });
            let last = answers.last();
            match wishes.last() {
                Some(Wish::Join) => match last {
                    Some(Ok(epoch)) => lives.push(epoch),
                    other => panic!("who wants to be in the room was told {other:?}"),
                },
                Some(Wish::Leave) => assert_eq!(last, Some(Err(v1::LeftReason::Asked))),
                None => {}
            }
        }
        lives.dedup();
        assert!(lives.len() <= 1, "members are in several lives of the room: {lives:?}");
    }
}

/// Tries every order. Returns the number of orders.
fn search(case: Case) -> usize {
    let mut tried = 0;
    // A state is named by the steps that lead there, with the steps that sleep in it.
    let mut open: Vec<(Vec<Step>, Vec<Step>)> = Vec::from([(Vec::new(), Vec::new())]);
    while let Some((mut way, mut sleeping)) = open.pop() {
        let mut run = Run::new(case);
        way.iter().for_each(|step| run.take(*step));
        loop {
            let steps = run.steps();
            let awake: Vec<Step> = steps.into_iter().filter(|step| !sleeping.contains(step)).collect();
            let Some((first, rest)) = awake.split_first() else { break };
            if way.len() >= case.depth {
                break;
            }
            let mut before = sleeping.clone();
            before.push(*first);
            for step in rest {
                let asleep = before.iter().copied().filter(|other| !other.depends_on(*step)).collect();
                let mut there = way.clone();
                there.push(*step);
                open.push((there, asleep));
                before.push(*step);
            }
            sleeping.retain(|other| !other.depends_on(*first));
            way.push(*first);
            run.take(*first);
        }
        run.finish();
        tried += 1;
    }
    tried
}

#[test]
fn two_who_join_a_new_room_at_once_meet_whatever_is_lost() {
    let wishes: &[&[Wish]] = &[&[Wish::Join], &[Wish::Join]];
    let case = Case::of(wishes);
    assert_eq!(search(case), 64);
    assert!(search(Case { lost: 1, cuts: 1, ..case }) > 1_000);
}

#[test]
fn a_leave_that_crosses_a_join_ends_the_room_or_does_not() {
    let wishes: &[&[Wish]] = &[&[Wish::Join, Wish::Leave], &[Wish::Join]];
    let case = Case::of(wishes);
    assert!(search(case) > 400);
    assert!(search(Case { lost: 1, depth: 20, ..case }) > 500);
}

#[test]
fn who_leaves_may_come_again() {
    let both: &[&[Wish]] = &[&[Wish::Join, Wish::Leave], &[Wish::Join, Wish::Leave]];
    let again: &[&[Wish]] = &[&[Wish::Join, Wish::Leave, Wish::Join], &[Wish::Join]];
    for wishes in [both, again] {
        assert!(search(Case { depth: 16, ..Case::of(wishes) }) > 500);
    }
}

#[test]
fn three_who_join_a_new_room_at_once_meet() {
    let wishes: &[&[Wish]] = &[&[Wish::Join], &[Wish::Join], &[Wish::Join]];
    assert!(search(Case { depth: 15, ..Case::of(wishes) }) > 500);
}

#[cfg(feature = "plant")]
#[test]
#[should_panic(expected = "two nodes lead the room")]
fn a_claim_that_compares_nothing_is_found() {
    let wishes: &[&[Wish]] = &[&[Wish::Join], &[Wish::Join]];
    search(Case { planted: Planted::with(Plant::ClaimUncompared), ..Case::of(wishes) });
}

#[cfg(feature = "plant")]
#[test]
#[should_panic(expected = "who wants to be in the room was told Some(Err(Gone))")]
fn a_race_that_is_told_to_a_player_is_found() {
    let wishes: &[&[Wish]] = &[&[Wish::Join, Wish::Leave], &[Wish::Join]];
    search(Case { planted: Planted::with(Plant::JoinRaceTold), ..Case::of(wishes) });
}
