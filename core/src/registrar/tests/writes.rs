//! Tests of the checks of writes: what they cost, how soon a refusal is known, and its end.

use alloc::vec;
use alloc::vec::Vec;

use super::bench::{Fate, name, session};
use super::*;
use crate::base::time::Duration;
use crate::registry::{Error, Request};

const FULL: Failure = Failure::Refused(Error::NoSpace);

impl Bench {
    /// Lets the time pass with a registry that refuses every request with a write.
    fn pass_refused(&mut self, ms: u64, failure: Failure) {
        let end = self.now.instant + Duration::from_millis(ms);
        loop {
            self.news();
            while let Some(call) = self.calls.front() {
                match call {
                    RegistryCommand::Request { id, request } if has_write(request) => {
                        let id = *id;
                        self.calls.pop_front();
                        self.tell(id, Err(failure));
                    }
                    _ => {
                        self.step(Fate::Done);
                    }
                }
                self.news();
            }
            let due = self.registrar.poll_timeout().map_or(end, |deadline| deadline.at).max(self.now.instant);
            self.now.instant = due.min(end);
            self.registry.handle_timeout(self.now.instant);
            if due > end {
                return;
            }
            self.registrar.handle_timeout(self.now);
            self.collect();
        }
    }

    fn failure(&self) -> Option<Failure> {
        self.registrar.write_failure(self.now.instant)
    }
}

fn has_write(request: &Request) -> bool {
    use crate::registry::RegistryOp;
    match request {
        Request::Put(_) | Request::Grant { .. } => true,
        Request::Txn(txn) => {
            txn.success.iter().chain(&txn.failure).any(|op| matches!(op, RegistryOp::Put(_)))
        }
        _ => false,
    }
}

#[test]
fn a_check_makes_no_revision_and_touches_every_place_where_a_node_writes() {
    let mut bench = Bench::serving();
    bench.pass(60_000, Fate::Done);
    let (revision, before) = (bench.registry.revision(), bench.requests.len());
    bench.pass(60_000, Fate::Done);
    assert_eq!(bench.registry.revision(), revision);
    let made = bench.requests.split_off(before);
    let checks: Vec<&Request> = made.iter().filter(|request| has_write(request)).collect();
    assert!((30..=34).contains(&checks.len()), "{}", checks.len());
    for check in checks {
        let text = alloc::format!("{check:?}");
        for place in ["/generation", "/match/", "/nodes/", "/rooms/", "/sessions/"] {
            assert!(text.contains(place), "{text}");
        }
    }
    assert_eq!(bench.failure(), None);
}

#[test]
fn a_refusal_is_known_within_seconds_without_a_claim_and_so_is_its_end() {
    let mut bench = Bench::serving();
    bench.pass(10_000, Fate::Done);
    bench.pass_refused(2_000, FULL);
    assert_eq!(bench.failure(), Some(FULL));
    // The node keeps serving, since its leases live.
    bench.pass_refused(120_000, FULL);
    assert_eq!((bench.failure(), bench.take()), (Some(FULL), vec![]));
    assert!(bench.registrar.may_serve(bench.now.instant));
    // A registry that restarts to get more space is still out of space.
    bench.pass_refused(2_500, Failure::Unavailable);
    assert_eq!(bench.failure(), Some(FULL));
    bench.pass(2_000, Fate::Done);
    assert_eq!((bench.failure(), bench.take()), (None, vec![]));
}

#[test]
fn a_refused_claim_brings_the_check_forward() {
    let mut bench = Bench::serving();
    bench.pass(10_000, Fate::Done);
    bench.registrar.claim_session(bench.now, 1, &name("p"), None, session(1), DialNumber::default()).unwrap();
    bench.collect();
    bench.pass_refused(0, FULL);
    assert_eq!(bench.failure(), Some(FULL));
    let refused = Decision::Session { token: 1, player: name("p"), outcome: SessionClaim::Refused };
    assert_eq!(bench.take(), [refused]);
}

#[test]
fn a_claim_that_is_refused_for_what_is_in_it_is_no_refusal_of_writes() {
    let mut bench = Bench::serving();
    bench.registrar.claim_session(bench.now, 1, &name("p"), None, session(1), DialNumber::default()).unwrap();
    bench.collect();
    let Some(RegistryCommand::Request { id, .. }) = bench.calls.pop_front() else {
        panic!("a claim is asked for")
    };
    bench.tell(id, Err(Failure::Refused(Error::TooLarge)));
    bench.pass(10, Fate::Done);
    assert_eq!(bench.failure(), None);
}

#[test]
fn writes_that_nobody_answers_are_a_failure_after_the_time_of_a_claim() {
    let mut bench = Bench::serving();
    bench.pass(10_000, Fate::Done);
    bench.pass_refused(4_500, Failure::Unknown);
    assert_eq!(bench.failure(), None, "an election takes that long");
    bench.pass_refused(4_000, Failure::Unknown);
    assert_eq!(bench.failure(), Some(Failure::Unknown));
    bench.pass(2_000, Fate::Done);
    assert_eq!(bench.failure(), None);
}

#[test]
fn checks_go_on_after_a_new_generation() {
    let mut bench = Bench::serving();
    bench.pass(10_000, Fate::Done);
    while !matches!(bench.calls.back(), Some(RegistryCommand::Request { request, .. }) if has_write(request))
    {
        bench.now.instant = bench.registrar.poll_timeout().unwrap().at;
        bench.registrar.handle_timeout(bench.now);
        bench.calls.clear();
        bench.collect();
    }
    bench.calls.clear();
    bench.registrar.handle_event(bench.now, RegistryEvent::Connected { cluster: 1 });
    bench.registrar.handle_event(bench.now, RegistryEvent::Connected { cluster: 2 });
    bench.collect();
    bench.pass(30_000, Fate::Done);
    assert!(bench.requests.iter().rev().take(40).any(has_write));
    bench.pass_refused(2_000, FULL);
    assert_eq!(bench.failure(), Some(FULL));
}
