//! Tests of the bundles: what may share a fate, within which bounds, and what comes of it.

use etcd_client::TxnResponse;
use etcd_client::proto::{
    PbPutResponse, PbResponseHeader, PbResponseOp, PbTxnOpRequest, PbTxnOpResponse, PbTxnRequest,
    PbTxnResponse,
};
use proptest::prelude::*;
use skirmish_core::registry::{Answer, Compare, Delete, Failure, LeaseId, Put, Range, Response, Span};

use super::super::outcome::Wrong;
use super::super::request::bundles;
use super::super::response::{Nonsense, Shape, group};
use super::super::send::Fault;
use super::*;

fn put(key: &str) -> Op {
    Op::Put(Put::new(key.to_owned(), "value", Some(LeaseId(1))))
}

fn read(key: &str) -> Op {
    Op::Range(Range::of(Span::one(key.to_owned())))
}

/// Writes a key that is not there yet.
fn claim(key: &str) -> Txn {
    Txn { compares: vec![Compare::absent(key.to_owned())], success: vec![put(key)], failure: vec![read(key)] }
}

fn bare(key: &str) -> Request {
    let Op::Put(put) = put(key) else { unreachable!() };
    Request::Put(put)
}

fn way(txn: Txn) -> Way {
    Need::of(&Request::Txn(txn)).way
}

#[test]
fn what_has_comparisons_is_tied_if_its_other_branch_may_be_left_out() {
    assert_eq!(Need::of(&bare("a")).way, Way::Sure);
    assert_eq!(way(Txn { success: vec![put("a"), read("a")], ..Txn::default() }), Way::Sure);
    assert_eq!(way(claim("a")), Way::Tied);
    assert_eq!(way(Txn { failure: vec![], ..claim("a") }), Way::Tied);
    assert_eq!(way(Txn { success: vec![], ..claim("a") }), Way::Tied);
}

#[test]
fn what_could_be_refused_for_its_other_branch_goes_apart() {
    // Whoever may not read `b` may not do this at all, though `b` would not be read.
    assert_eq!(way(Txn { failure: vec![read("b")], ..claim("a") }), Way::Apart);
    assert_eq!(way(Txn { failure: vec![put("a")], ..claim("a") }), Way::Apart);
    assert_eq!(way(Txn { compares: vec![], ..claim("a") }), Way::Apart);
    let wider = Op::Range(Range::of(Span::prefix("a")));
    assert_eq!(way(Txn { failure: vec![wider], ..claim("a") }), Way::Apart);
    let past = Op::Range(Range { revision: 3, ..Range::of(Span::one("a")) });
    assert_eq!(way(Txn { failure: vec![past], ..claim("a") }), Way::Apart);
    let delete = Op::Delete(Delete::of(Span::one("a")));
    assert_eq!(way(Txn { failure: vec![delete], ..claim("a") }), Way::Apart);
    assert_eq!(way(Txn { success: vec![Op::Txn(claim("b"))], ..claim("a") }), Way::Apart);
}

fn packed(tied: usize, requests: &[Request]) -> Vec<Bundle> {
    let mut packer = Packer::new(tied);
    assert!(requests.iter().all(|request| packer.add(Need::of(request))));
    packer.finish()
}

/// Bundles by way and members.
fn plain(bundles: &[Bundle]) -> Vec<(Way, &[usize])> {
    bundles.iter().map(|bundle| (bundle.way, &*bundle.members)).collect()
}

/// One of each way and two that are tied.
fn mixed() -> Vec<Request> {
    let apart = Txn { failure: vec![put("c")], ..claim("c") };
    [Request::Txn(claim("a")), bare("b"), Request::Txn(apart), Request::Txn(claim("d"))].to_vec()
}

#[test]
fn members_go_with_those_of_their_way() {
    let apart = [Way::Tied, Way::Sure, Way::Apart];
    let bundles = packed(64, &mixed());
    assert_eq!(plain(&bundles), [(apart[0], &[0, 3][..]), (apart[1], &[1]), (apart[2], &[2])]);
    let bundles = packed(1, &mixed());
    assert_eq!(plain(&bundles), [(Way::Apart, &[0, 2, 3][..]), (Way::Sure, &[1])]);
    let bundles = packed(64, &mixed()[..2]);
    assert_eq!(plain(&bundles), [(Way::Apart, &[0][..]), (Way::Sure, &[1])], "nobody to be tied with");
    let claims: Vec<_> = (0..5).map(|i| Request::Txn(claim(&i.to_string()))).collect();
    let sizes = |tied| packed(tied, &claims).iter().map(|bundle| bundle.members.len()).collect::<Vec<_>>();
    assert_eq!((sizes(2), sizes(4)), (vec![2, 2, 1], vec![4, 1]));
}

/// A step of an answer.
fn said(response: PbTxnOpResponse) -> PbResponseOp {
    PbResponseOp { response: Some(response) }
}

fn put_said() -> PbResponseOp {
    said(PbTxnOpResponse::ResponsePut(PbPutResponse::default()))
}

fn txn_said(succeeded: bool, responses: Vec<PbResponseOp>) -> PbTxnResponse {
    PbTxnResponse { header: None, succeeded, responses }
}

fn nested(succeeded: bool, responses: Vec<PbResponseOp>) -> PbResponseOp {
    said(PbTxnOpResponse::ResponseTxn(txn_said(succeeded, responses)))
}

/// What comes of a group if etcd says this at revision 7.
fn outcomes(requests: &[Request], said: PbTxnResponse) -> Result<Vec<Option<Response>>, Nonsense> {
    let header = Some(PbResponseHeader { revision: 7, ..PbResponseHeader::default() });
    let shapes: Vec<_> = requests.iter().map(Shape::of).collect();
    group(TxnResponse(PbTxnResponse { header, ..said }), &packed(64, requests), &shapes)
}

fn done(answer: Answer) -> Option<Response> {
    Some(Response { revision: 7, answer })
}

fn wrote(succeeded: bool) -> Answer {
    Answer::Txn { succeeded, answers: vec![Answer::Put { prev: None }] }
}

#[test]
fn each_member_has_its_own_answer() {
    let apart = nested(true, vec![nested(false, vec![put_said()])]);
    let said = |tied| txn_said(true, vec![tied, nested(true, vec![put_said()]), apart.clone()]);
    let others = [done(Answer::Put { prev: None }), done(wrote(false))];

    let answers = outcomes(&mixed(), said(nested(true, vec![put_said(), put_said()]))).unwrap();
    assert_eq!(answers, [&[done(wrote(true))][..], &others, &[done(wrote(true))]].concat());
    // A comparison of one of the tied did not hold: nothing is known of either, and the
    // others have what is theirs.
    let answers = outcomes(&mixed(), said(nested(false, vec![]))).unwrap();
    assert_eq!(answers, [&[None][..], &others, &[None]].concat());
}

#[test]
fn a_group_of_one_bundle_is_that_transaction() {
    let requests = ["a", "b"].map(|key| Request::Txn(claim(key)));
    let answers = outcomes(&requests, txn_said(true, vec![put_said(), put_said()])).unwrap();
    assert_eq!(answers, [done(wrote(true)), done(wrote(true))]);
    assert_eq!(outcomes(&requests, txn_said(false, vec![])).unwrap(), [None, None]);
    // Several steps of a member stay together, and one without any has an empty answer.
    let two = Txn { success: vec![put("a"), put("b")], ..claim("a") };
    let none = Txn { success: vec![], ..claim("c") };
    let requests = [two, none].map(Request::Txn);
    let answers = outcomes(&requests, txn_said(true, vec![put_said(), put_said()])).unwrap();
    let two = Answer::Txn { succeeded: true, answers: vec![Answer::Put { prev: None }; 2] };
    assert_eq!(answers, [done(two), done(Answer::Txn { succeeded: true, answers: vec![] })]);
}

#[test]
fn what_makes_no_sense_is_not_guessed_at() {
    let tied = ["a", "b"].map(|key| Request::Txn(claim(key)));
    for said in [
        txn_said(true, vec![put_said()]),
        txn_said(true, vec![put_said(), put_said(), put_said()]),
        // Something may have been done.
        txn_said(false, vec![put_said()]),
    ] {
        let Err(nonsense) = outcomes(&tied, said) else { panic!("it makes no sense") };
        let fault = Fault::from(nonsense);
        assert!(matches!(fault, Fault::Wrong { wrong: Wrong::Outcome(Failure::Unknown), .. }));
    }
    let sure = ["a", "b"].map(bare);
    assert!(outcomes(&sure, txn_said(false, vec![])).is_err(), "there was nothing to fail");
    for said in [
        txn_said(false, vec![]),
        txn_said(true, vec![nested(true, vec![put_said(), put_said()])]),
        txn_said(true, vec![put_said(), put_said(), put_said()]),
    ] {
        assert!(outcomes(&mixed(), said).is_err());
    }
    let shapes: Vec<_> = tied.iter().map(Shape::of).collect();
    assert!(group(TxnResponse(txn_said(true, vec![])), &packed(64, &tied), &shapes).is_err(), "no header");
}

#[test]
fn tying_is_given_up_where_it_fails_and_tried_again() {
    let mut trust = Trust::default();
    assert_eq!(trust.size(), WIDTH);
    trust.handle_answered(8, 1);
    assert_eq!(trust.size(), WIDTH, "it pays nevertheless");
    trust.handle_answered(8, 3);
    assert_eq!(trust.size(), WIDTH / 2);
    trust.handle_answered(0, 0);
    assert_eq!(trust.size(), WIDTH / 2, "nothing was learnt");
    trust.handle_answered(8, 0);
    assert_eq!(trust.size(), WIDTH);
    while trust.size() > 1 {
        trust.handle_answered(1, 1);
    }
    for _ in 1..RETRY {
        trust.handle_answered(0, 0);
        assert_eq!(trust.size(), 1);
    }
    trust.handle_answered(0, 0);
    assert_eq!(trust.size(), 2);
    trust.handle_answered(4, 0);
    assert_eq!(trust.size(), 4);
}

/// Steps as etcd counts them: at most so many may be left after each level.
fn depth(txn: &PbTxnRequest) -> usize {
    let own = txn.compare.len().max(txn.success.len()).max(txn.failure.len());
    let nested = txn.success.iter().chain(&txn.failure).map(|op| match &op.request {
        Some(PbTxnOpRequest::RequestTxn(txn)) => depth(txn),
        _ => 0,
    });
    own + nested.max().unwrap_or(0)
}

fn any_request() -> impl Strategy<Value = Request> {
    let txn = || {
        (0usize..30, 0usize..30, 0usize..3, any::<bool>()).prop_map(|(compares, success, failure, apart)| {
            Txn {
                compares: vec![Compare::absent("k"); compares],
                success: vec![put("k"); success],
                failure: vec![read(if apart { "other" } else { "k" }); failure],
            }
        })
    };
    prop_oneof![
        2 => Just(bare("k")),
        6 => txn().prop_map(Request::Txn),
        1 => (txn(), txn()).prop_map(|(inner, outer)| Request::Txn(Txn {
            success: vec![Op::Txn(inner)],
            ..outer
        })),
    ]
}

proptest! {
    /// Whatever goes together: etcd takes it, every member is in one bundle, and only what
    /// may share a fate does.
    #[test]
    fn bundles_are_sound(
        requests in prop::collection::vec(any_request(), 2..600),
        tied in 1usize..=WIDTH,
    ) {
        let mut packer = Packer::new(tied);
        let added = requests.iter().take_while(|request| packer.add(Need::of(request))).count();
        prop_assert!(added > 0);
        let packed = packer.finish();
        prop_assert!(packed.len() <= BUNDLES);
        let mut members: Vec<usize> = packed.iter().flat_map(|bundle| bundle.members.clone()).collect();
        members.sort_unstable();
        prop_assert_eq!(members, (0..added).collect::<Vec<_>>());
        for bundle in &packed {
            let size = bundle.members.len();
            prop_assert!(bundle.way != Way::Tied || (2..=tied).contains(&size));
            for &member in &bundle.members {
                let way = Need::of(&requests[member]).way;
                prop_assert!(way == bundle.way || (way == Way::Tied && bundle.way == Way::Apart));
            }
        }
        let members: Vec<_> = requests.iter().take(added).collect();
        let sent = PbTxnRequest::from(bundles(&members, &packed));
        prop_assert!(depth(&sent) <= MAX_STEPS);
    }
}
