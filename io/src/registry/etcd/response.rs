//! Converts etcd's answers to the registry's answers. Moves the parts of a message, without copies.

use etcd_client as etcd;
use etcd_client::proto::{
    PbDeleteResponse, PbEvent, PbKeyValue, PbPutResponse, PbRangeResponse, PbResponseHeader, PbResponseOp,
    PbTxnOpResponse, PbTxnResponse,
};
use skirmish_core::registry::{Answer, Change, KeyValue, LeaseId, Response};

/// An answer with a missing part or an impossible value. etcd sends no such answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the registry's answer makes no sense")]
pub(super) struct MalformedAnswer;

/// Converts a number of etcd. No such number is below zero.
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn lease(lease: i64) -> Option<LeaseId> {
    (lease != 0).then(|| LeaseId(unsigned(lease)))
}

/// Returns the revision in a header.
pub(super) fn revision(header: Option<&PbResponseHeader>) -> Result<u64, MalformedAnswer> {
    header.map(|header| unsigned(header.revision)).ok_or(MalformedAnswer)
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

fn txn_answer(response: PbTxnResponse) -> Result<Answer, MalformedAnswer> {
    let answers = response.responses.into_iter().map(step_answer).collect::<Result<_, _>>()?;
    Ok(Answer::Txn { succeeded: response.succeeded, answers })
}

fn step_answer(response: PbResponseOp) -> Result<Answer, MalformedAnswer> {
    match response.response.ok_or(MalformedAnswer)? {
        PbTxnOpResponse::ResponseRange(range) => Ok(range_answer(range)),
        PbTxnOpResponse::ResponsePut(put) => Ok(put_answer(put)),
        PbTxnOpResponse::ResponseDeleteRange(delete) => Ok(delete_answer(delete)),
        PbTxnOpResponse::ResponseTxn(txn) => txn_answer(txn),
    }
}

pub(super) fn range(response: etcd::GetResponse) -> Result<Response, MalformedAnswer> {
    let revision = revision(response.0.header.as_ref())?;
    Ok(Response { revision, answer: range_answer(response.0) })
}

pub(super) fn put(response: etcd::PutResponse) -> Result<Response, MalformedAnswer> {
    let revision = revision(response.0.header.as_ref())?;
    Ok(Response { revision, answer: put_answer(response.0) })
}

pub(super) fn delete(response: etcd::DeleteResponse) -> Result<Response, MalformedAnswer> {
    let revision = revision(response.0.header.as_ref())?;
    Ok(Response { revision, answer: delete_answer(response.0) })
}

pub(super) fn txn(response: etcd::TxnResponse) -> Result<Response, MalformedAnswer> {
    let revision = revision(response.0.header.as_ref())?;
    Ok(Response { revision, answer: txn_answer(response.0)? })
}

/// Returns the remaining time of a lease; `None` if there is no such lease.
pub(super) fn time_to_live(
    response: etcd::LeaseTimeToLiveResponse,
) -> Result<Option<Response>, MalformedAnswer> {
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
pub(super) struct WatchMessage {
    /// Number of the watch on the stream.
    pub(super) number: i64,
    /// Newest revision of etcd.
    pub(super) revision: u64,
    pub(super) created: bool,
    pub(super) canceled: bool,
    /// If not 0, the watch has ended because everything before this revision is compacted.
    pub(super) compacted: u64,
    /// True if the next message has more changes of the last change's revision.
    pub(super) fragment: bool,
    pub(super) changes: Vec<Change>,
}

pub(super) fn heard(response: etcd::WatchResponse) -> Result<WatchMessage, MalformedAnswer> {
    let response = response.0;
    Ok(WatchMessage {
        number: response.watch_id,
        revision: response.header.as_ref().map_or(0, |header| unsigned(header.revision)),
        created: response.created,
        canceled: response.canceled,
        compacted: unsigned(response.compact_revision),
        fragment: response.fragment,
        changes: response.events.into_iter().map(change).collect::<Result<_, _>>()?,
    })
}

fn change(event: PbEvent) -> Result<Change, MalformedAnswer> {
    let kv = event.kv.ok_or(MalformedAnswer)?;
    let prev = event.prev_kv.map(key_value);
    match event.r#type {
        0 => Ok(Change::Put { kv: key_value(kv), prev }),
        1 => Ok(Change::Delete { key: kv.key.into(), revision: unsigned(kv.mod_revision), prev }),
        _ => Err(MalformedAnswer),
    }
}

#[cfg(test)]
mod tests {
    use skirmish_core::registry::Failure;

    use super::*;
    use crate::registry::etcd::outcome::EtcdFailure;
    use crate::registry::etcd::send::SendFault;

    fn step(response: PbTxnOpResponse) -> PbResponseOp {
        PbResponseOp { response: Some(response) }
    }

    fn put_step() -> PbResponseOp {
        step(PbTxnOpResponse::ResponsePut(PbPutResponse::default()))
    }

    fn nested(succeeded: bool, responses: Vec<PbResponseOp>) -> PbResponseOp {
        step(PbTxnOpResponse::ResponseTxn(PbTxnResponse { header: None, succeeded, responses }))
    }

    fn response(responses: Vec<PbResponseOp>) -> etcd::TxnResponse {
        let header = Some(PbResponseHeader { revision: 7, ..PbResponseHeader::default() });
        etcd::TxnResponse(PbTxnResponse { header, succeeded: true, responses })
    }

    #[test]
    fn nested_transactions_have_the_revision_of_the_whole() {
        let inner = nested(true, vec![nested(false, vec![put_step()])]);
        let answered = txn(response(vec![nested(true, vec![put_step(), put_step()]), inner])).unwrap();
        let put = || Answer::Put { prev: None };
        let answer = |succeeded, answers| Answer::Txn { succeeded, answers };
        let inner = answer(true, vec![answer(false, vec![put()])]);
        let whole = answer(true, vec![answer(true, vec![put(), put()]), inner]);
        assert_eq!(answered, Response { revision: 7, answer: whole });
    }

    #[test]
    fn an_answer_that_makes_no_sense_leaves_the_request_unknown() {
        let no_step = PbResponseOp { response: None };
        assert_eq!(txn(response(vec![nested(true, vec![no_step])])), Err(MalformedAnswer));
        assert_eq!(txn(etcd::TxnResponse(PbTxnResponse::default())), Err(MalformedAnswer), "no header");
        let fault = SendFault::from(MalformedAnswer);
        assert!(matches!(
            fault,
            SendFault::Wrong { wrong: EtcdFailure::Outcome(Failure::Unknown), from_etcd: false, .. }
        ));
    }
}
