//! What etcd answers, as the registry's answers. Nothing is copied: the messages are taken
//! apart.

use etcd_client as etcd;
use etcd_client::proto::{
    PbDeleteResponse, PbEvent, PbKeyValue, PbPutResponse, PbRangeResponse, PbResponseHeader, PbResponseOp,
    PbTxnOpResponse, PbTxnResponse,
};
use skirmish_core::registry::{Answer, Change, KeyValue, LeaseId, Request, Response};

use super::bundle::{Bundle, Way};

/// Why an answer cannot be made sense of: etcd does not send such.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the registry's answer makes no sense")]
pub(super) struct Nonsense;

/// A number of etcd's; there are none below zero where this is used.
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn lease(lease: i64) -> Option<LeaseId> {
    (lease != 0).then(|| LeaseId(unsigned(lease)))
}

/// The revision in a header.
pub(super) fn revision(header: Option<&PbResponseHeader>) -> Result<u64, Nonsense> {
    header.map(|header| unsigned(header.revision)).ok_or(Nonsense)
}

fn key_value(kv: PbKeyValue) -> KeyValue {
    KeyValue {
        key: kv.key.into(),
        value: kv.value.into(),
        created: unsigned(kv.create_revision),
        modified: unsigned(kv.mod_revision),
        version: unsigned(kv.version),
        lease: lease(kv.lease),
    }
}

fn range_answer(response: PbRangeResponse) -> Answer {
    Answer::Range {
        kvs: response.kvs.into_iter().map(key_value).collect(),
        more: response.more,
        count: unsigned(response.count),
    }
}

fn put_answer(response: PbPutResponse) -> Answer {
    Answer::Put { prev: response.prev_kv.map(key_value) }
}

fn delete_answer(response: PbDeleteResponse) -> Answer {
    Answer::Delete {
        deleted: unsigned(response.deleted),
        prev: response.prev_kvs.into_iter().map(key_value).collect(),
    }
}

fn txn_answer(response: PbTxnResponse) -> Result<Answer, Nonsense> {
    let answers = response.responses.into_iter().map(step_answer).collect::<Result<_, _>>()?;
    Ok(Answer::Txn { succeeded: response.succeeded, answers })
}

fn step_answer(response: PbResponseOp) -> Result<Answer, Nonsense> {
    match response.response.ok_or(Nonsense)? {
        PbTxnOpResponse::ResponseRange(range) => Ok(range_answer(range)),
        PbTxnOpResponse::ResponsePut(put) => Ok(put_answer(put)),
        PbTxnOpResponse::ResponseDeleteRange(delete) => Ok(delete_answer(delete)),
        PbTxnOpResponse::ResponseTxn(txn) => txn_answer(txn),
    }
}

pub(super) fn range(response: etcd::GetResponse) -> Result<Response, Nonsense> {
    let revision = revision(response.0.header.as_ref())?;
    Ok(Response { revision, answer: range_answer(response.0) })
}

pub(super) fn put(response: etcd::PutResponse) -> Result<Response, Nonsense> {
    let revision = revision(response.0.header.as_ref())?;
    Ok(Response { revision, answer: put_answer(response.0) })
}

pub(super) fn delete(response: etcd::DeleteResponse) -> Result<Response, Nonsense> {
    let revision = revision(response.0.header.as_ref())?;
    Ok(Response { revision, answer: delete_answer(response.0) })
}

pub(super) fn txn(response: etcd::TxnResponse) -> Result<Response, Nonsense> {
    let revision = revision(response.0.header.as_ref())?;
    Ok(Response { revision, answer: txn_answer(response.0)? })
}

/// What the answer to a member of a group is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// The answer to one step.
    Step,
    /// Those to so many, of a transaction that succeeded.
    Steps(usize),
}

impl Shape {
    pub(super) fn of(request: &Request) -> Self {
        if let Request::Txn(txn) = request { Self::Steps(txn.success.len()) } else { Self::Step }
    }
}

/// The answers to the members of a group that went in bundles; none to those of a bundle
/// that failed.
pub(super) fn group(
    response: etcd::TxnResponse,
    bundles: &[Bundle],
    shapes: &[Shape],
) -> Result<Vec<Option<Response>>, Nonsense> {
    let mut answers = vec![None; shapes.len()];
    let revision = revision(response.0.header.as_ref())?;
    if let [only] = bundles {
        bundle(response.0, revision, only, shapes, &mut answers)?;
        return Ok(answers);
    }
    let steps = response.0.responses;
    if !response.0.succeeded || steps.len() != bundles.len() {
        return Err(Nonsense);
    }
    for (step, one) in steps.into_iter().zip(bundles) {
        let Some(PbTxnOpResponse::ResponseTxn(txn)) = step.response else { return Err(Nonsense) };
        bundle(txn, revision, one, shapes, &mut answers)?;
    }
    Ok(answers)
}

fn bundle(
    response: PbTxnResponse,
    revision: u64,
    bundle: &Bundle,
    shapes: &[Shape],
    answers: &mut [Option<Response>],
) -> Result<(), Nonsense> {
    if !response.succeeded {
        let nothing = bundle.way == Way::Tied && response.responses.is_empty();
        return if nothing { Ok(()) } else { Err(Nonsense) };
    }
    let mut steps = response.responses.into_iter();
    for &at in &bundle.members {
        let (Some(place), Some(shape)) = (answers.get_mut(at), shapes.get(at)) else { return Err(Nonsense) };
        let answer = match shape {
            Shape::Steps(count) if bundle.way != Way::Apart => {
                let answers: Vec<_> =
                    steps.by_ref().take(*count).map(step_answer).collect::<Result<_, _>>()?;
                if answers.len() != *count {
                    return Err(Nonsense);
                }
                Answer::Txn { succeeded: true, answers }
            }
            _ => step_answer(steps.next().ok_or(Nonsense)?)?,
        };
        *place = Some(Response { revision, answer });
    }
    if steps.next().is_some() { Err(Nonsense) } else { Ok(()) }
}

/// What is left of a lease; `None` if there is no such lease.
pub(super) fn time_to_live(response: etcd::LeaseTimeToLiveResponse) -> Result<Option<Response>, Nonsense> {
    let response = response.0;
    let revision = revision(response.header.as_ref())?;
    if response.ttl < 0 {
        return Ok(None);
    }
    let mut keys: Vec<_> = response.keys.into_iter().map(Into::into).collect();
    keys.sort_unstable();
    let answer = Answer::TimeToLive {
        left_s: unsigned(response.ttl),
        granted_s: unsigned(response.granted_ttl),
        keys,
    };
    Ok(Some(Response { revision, answer }))
}

/// A message of a stream of watches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// The watch's number on the stream.
    pub(super) number: i64,
    /// etcd's newest revision.
    pub(super) revision: u64,
    pub(super) created: bool,
    pub(super) canceled: bool,
    /// If not 0, the watch ended because everything before this is compacted.
    pub(super) compacted: u64,
    /// There is more of the last change's revision to come.
    pub(super) fragment: bool,
    pub(super) changes: Vec<Change>,
}

pub(super) fn heard(response: etcd::WatchResponse) -> Result<Heard, Nonsense> {
    let response = response.0;
    Ok(Heard {
        number: response.watch_id,
        revision: response.header.as_ref().map_or(0, |header| unsigned(header.revision)),
        created: response.created,
        canceled: response.canceled,
        compacted: unsigned(response.compact_revision),
        fragment: response.fragment,
        changes: response.events.into_iter().map(change).collect::<Result<_, _>>()?,
    })
}

fn change(event: PbEvent) -> Result<Change, Nonsense> {
    let kv = event.kv.ok_or(Nonsense)?;
    let prev = event.prev_kv.map(key_value);
    match event.r#type {
        0 => Ok(Change::Put { kv: key_value(kv), prev }),
        1 => Ok(Change::Delete { key: kv.key.into(), revision: unsigned(kv.mod_revision), prev }),
        _ => Err(Nonsense),
    }
}
