//! Tests of the transaction of a group and of its answers.

use alloc::vec;
use alloc::vec::Vec;

use super::super::bundle::BundleKind;
use super::super::member::GroupMember;
use super::super::transaction::{request, responses};
use super::bundle::{bare, mixed, packed};
use super::{claim, put};
use crate::registry::{Answer, CallId, MalformedResponse, RegistryOp, Request, Response, Txn};

const REVISION: u64 = 7;

fn members(requests: &[Request]) -> Vec<GroupMember> {
    requests.iter().map(|request| GroupMember::new(CallId(0), request.clone(), 128)).collect()
}

/// Splits the response to a group of these requests.
fn outcomes(requests: &[Request], answer: Answer) -> Result<Vec<Option<Response>>, MalformedResponse> {
    let response = Response { revision: REVISION, answer };
    responses(response, &members(requests), &packed(64, requests))
}

fn answered(answer: Answer) -> Option<Response> {
    Some(Response { revision: REVISION, answer })
}

const fn put_answer() -> Answer {
    Answer::Put { prev: None }
}

const fn txn_answer(succeeded: bool, answers: Vec<Answer>) -> Answer {
    Answer::Txn { succeeded, answers }
}

fn wrote(succeeded: bool) -> Answer {
    txn_answer(succeeded, vec![put_answer()])
}

#[test]
fn the_transaction_of_a_group_has_a_step_for_each_bundle() {
    let requests = mixed();
    let Request::Txn(sent) = request(&members(&requests), &packed(64, &requests)) else {
        panic!("a group is a transaction")
    };
    let [a, c, d] = ["a", "c", "d"].map(claim);
    let shared = Txn {
        compares: [a.compares, d.compares].concat(),
        success: [a.success, d.success].concat(),
        failure: vec![],
    };
    let unconditional = Txn { success: vec![put("b")], ..Txn::default() };
    let nested =
        Txn { success: vec![RegistryOp::Txn(Txn { failure: vec![put("c")], ..c })], ..Txn::default() };
    let success = [shared, unconditional, nested].map(RegistryOp::Txn).to_vec();
    assert_eq!(sent, Txn { success, ..Txn::default() });
}

#[test]
fn a_lone_member_is_sent_as_it_is() {
    let requests = [Request::Txn(claim("a"))];
    let bundles = packed(64, &requests);
    assert_eq!(bundles[0].kind, BundleKind::Nested);
    assert_eq!(request(&members(&requests), &bundles), requests[0]);
    assert_eq!(outcomes(&requests, wrote(false)), Ok(vec![answered(wrote(false))]));
}

#[test]
fn each_member_has_its_own_answer() {
    let nested = txn_answer(true, vec![wrote(false)]);
    let said = |shared| txn_answer(true, vec![shared, wrote(true), nested.clone()]);
    let others = [answered(put_answer()), answered(wrote(false))];

    let answers = outcomes(&mixed(), said(txn_answer(true, vec![put_answer(); 2]))).unwrap();
    assert_eq!(answers, [&[answered(wrote(true))][..], &others, &[answered(wrote(true))]].concat());
    // A comparison of a shared bundle did not hold: its members have no answer, and the other members have
    // theirs.
    let answers = outcomes(&mixed(), said(txn_answer(false, vec![]))).unwrap();
    assert_eq!(answers, [&[None][..], &others, &[None]].concat());
}

#[test]
fn a_group_of_one_bundle_is_that_transaction() {
    let requests = ["a", "b"].map(|key| Request::Txn(claim(key)));
    let answers = outcomes(&requests, txn_answer(true, vec![put_answer(); 2])).unwrap();
    assert_eq!(answers, [answered(wrote(true)), answered(wrote(true))]);
    assert_eq!(outcomes(&requests, txn_answer(false, vec![])).unwrap(), [None, None]);
    // The steps of a member stay together, and a member without steps has an empty answer.
    let two = Txn { success: vec![put("a"), put("b")], ..claim("a") };
    let none = Txn { success: vec![], ..claim("c") };
    let requests = [two, none].map(Request::Txn);
    let answers = outcomes(&requests, txn_answer(true, vec![put_answer(); 2])).unwrap();
    let two = txn_answer(true, vec![put_answer(); 2]);
    assert_eq!(answers, [answered(two), answered(txn_answer(true, vec![]))]);
}

#[test]
fn malformed_answers_are_refused() {
    let shared = ["a", "b"].map(|key| Request::Txn(claim(key)));
    for answer in [
        put_answer(),
        wrote(true),
        txn_answer(true, vec![put_answer(); 3]),
        // The registry may have executed steps.
        wrote(false),
    ] {
        assert_eq!(outcomes(&shared, answer), Err(MalformedResponse));
    }
    let unconditional = ["a", "b"].map(bare);
    let nothing = txn_answer(false, vec![]);
    assert!(outcomes(&unconditional, nothing.clone()).is_err(), "there was nothing to fail");
    for answer in [
        nothing,
        txn_answer(true, vec![txn_answer(true, vec![put_answer(); 2])]),
        txn_answer(true, vec![put_answer(); 3]),
    ] {
        assert!(outcomes(&mixed(), answer).is_err());
    }
}
