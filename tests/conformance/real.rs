//! A real etcd behind the types of the core.

use bytes::Bytes;
use etcd_client::{
    Client, CompactionOptions, Compare as EtcdCompare, CompareOp, DeleteOptions, DeleteResponse,
    Error as ClientError, Event, EventType, GetOptions, GetResponse, LeaseGrantOptions,
    LeaseTimeToLiveOptions, PutOptions, PutResponse, ResponseHeader, Txn as EtcdTxn, TxnOp, TxnOpResponse,
    TxnResponse, WatchFilterType, WatchOptions,
};
use skirmish_core::registry::{
    Answer, Change, Compare, CompareTarget, Delete, Error, Put, Range, RegistryOp, Relation, Request,
    Response, Txn, Watch,
};
use skirmish_tests::etcd::key_value;

/// Sends a request to etcd.
///
/// # Panics
/// If etcd's answer has no equivalent in the core.
pub(crate) async fn call(client: &mut Client, request: &Request) -> Result<Response, Error> {
    send(client, request).await.map_err(|error| refusal(&error))
}

async fn send(client: &mut Client, request: &Request) -> Result<Response, ClientError> {
    Ok(match request {
        Request::Range(range) => {
            let got = client.get(range.span.key.clone(), Some(range_options(range))).await?;
            response(got.header(), range_answer(&got))
        }
        Request::Put(put) => {
            let got = client.put(put.key.clone(), put.value.clone(), Some(put_options(put))).await?;
            response(got.header(), put_answer(&got))
        }
        Request::Delete(delete) => {
            let got = client.delete(delete.span.key.clone(), Some(delete_options(delete))).await?;
            response(got.header(), delete_answer(&got))
        }
        Request::Txn(txn) => {
            let got = client.txn(to_txn(txn)).await?;
            response(got.header(), txn_answer(&got))
        }
        Request::Compact { revision } => {
            // The compacted revisions are removed before the answer, not some time later.
            let options = CompactionOptions::new().with_physical();
            let got = client.compact(signed(*revision), Some(options)).await?;
            response(got.header(), Answer::Compact)
        }
        Request::Grant { id, ttl_s } => {
            let options = LeaseGrantOptions::new().with_id(signed(id.0));
            let got = client.lease_grant(signed(*ttl_s), Some(options)).await?;
            assert_eq!(got.id(), signed(id.0));
            response(got.header(), Answer::Granted { ttl_s: unsigned(got.ttl()) })
        }
        Request::Revoke(id) => {
            let got = client.lease_revoke(signed(id.0)).await?;
            response(got.header(), Answer::Revoked)
        }
        Request::KeepAlive(id) => {
            // The client does not pass on the first answer.
            let (mut keeper, mut answers) = client.lease_keep_alive(signed(id.0)).await?;
            keeper.keep_alive().await?;
            let got = answers.message().await?.expect("an answer");
            response(got.header(), Answer::KeptAlive { ttl_s: unsigned(got.ttl()) })
        }
        Request::TimeToLive { id, keys } => {
            let options = keys.then(|| LeaseTimeToLiveOptions::new().with_keys());
            let got = client.lease_time_to_live(signed(id.0), options).await?;
            if got.ttl() < 0 {
                return Err(ClientError::LeaseKeepAliveError("lease not found".into()));
            }
            let mut keys: Vec<Bytes> = got.keys().iter().map(|key| key.clone().into()).collect();
            keys.sort();
            let (left_s, granted_s) = (unsigned(got.ttl()), unsigned(got.granted_ttl()));
            response(got.header(), Answer::TimeToLive { left_s, granted_s, keys })
        }
    })
}

/// Returns etcd's options for a watch. The caller passes the first key of the span itself.
pub(crate) fn watch_options(id: i64, watch: &Watch) -> WatchOptions {
    let mut options = WatchOptions::new()
        .with_watch_id(id)
        .with_range(watch.span.end.clone())
        .with_start_revision(signed(watch.start));
    if watch.prev {
        options = options.with_prev_key();
    }
    if watch.progress {
        options = options.with_progress_notify();
    }
    let filters = [(watch.no_put, WatchFilterType::NoPut), (watch.no_delete, WatchFilterType::NoDelete)];
    options
        .with_filters(filters.into_iter().filter_map(|(on, filter)| on.then_some(filter)).collect::<Vec<_>>())
}

pub(crate) fn change(event: &Event) -> Change {
    let kv = event.kv().expect("an event has a key");
    let prev = event.prev_kv().map(key_value);
    match event.event_type() {
        EventType::Put => Change::Put { kv: key_value(kv), prev },
        EventType::Delete => {
            let revision = unsigned(kv.mod_revision());
            Change::Delete { key: Bytes::copy_from_slice(kv.key()), revision, prev }
        }
    }
}

fn refusal(error: &ClientError) -> Error {
    let text = match error {
        ClientError::GRpcStatus(status) => status.message(),
        ClientError::LeaseKeepAliveError(text) => text.as_str(),
        other => panic!("etcd cannot be asked: {other}"),
    };
    match text {
        "etcdserver: key is not provided" => Error::EmptyKey,
        "etcdserver: duplicate key given in txn request" => Error::DuplicateKey,
        "etcdserver: too many operations in txn request" => Error::TooManyOps,
        "etcdserver: request is too large" => Error::TooLarge,
        "etcdserver: mvcc: required revision has been compacted" => Error::Compacted,
        "etcdserver: mvcc: required revision is a future revision" => Error::FutureRevision,
        "etcdserver: requested lease not found" | "lease not found" => Error::LeaseNotFound,
        "etcdserver: lease already exists" => Error::LeaseExists,
        "etcdserver: too large lease TTL" => Error::LeaseTtlTooLarge,
        "etcdserver: value is provided" => Error::ValueProvided,
        "etcdserver: lease is provided" => Error::LeaseProvided,
        "etcdserver: key not found" => Error::KeyNotFound,
        "etcdserver: mvcc: database space exceeded" => Error::NoSpace,
        other => panic!("etcd refuses: {other}"),
    }
}

fn response(header: Option<&ResponseHeader>, answer: Answer) -> Response {
    Response { revision: unsigned(header.expect("a header").revision()), answer }
}

fn range_options(range: &Range) -> GetOptions {
    let mut options = GetOptions::new()
        .with_range(range.span.end.clone())
        .with_revision(signed(range.revision))
        .with_limit(signed(range.limit));
    if range.keys_only {
        options = options.with_keys_only();
    }
    if range.count_only {
        options = options.with_count_only();
    }
    options
}

fn put_options(put: &Put) -> PutOptions {
    let mut options = PutOptions::new().with_lease(put.lease.map_or(0, |id| signed(id.0)));
    if put.prev {
        options = options.with_prev_key();
    }
    if put.ignore_value {
        options = options.with_ignore_value();
    }
    if put.ignore_lease {
        options = options.with_ignore_lease();
    }
    options
}

fn delete_options(delete: &Delete) -> DeleteOptions {
    let options = DeleteOptions::new().with_range(delete.span.end.clone());
    if delete.prev { options.with_prev_key() } else { options }
}

fn to_txn(txn: &Txn) -> EtcdTxn {
    let ops = |ops: &[RegistryOp]| ops.iter().map(to_op).collect::<Vec<_>>();
    EtcdTxn::new()
        .when(txn.compares.iter().map(to_compare).collect::<Vec<_>>())
        .and_then(ops(&txn.success))
        .or_else(ops(&txn.failure))
}

fn to_op(op: &RegistryOp) -> TxnOp {
    match op {
        RegistryOp::Range(range) => TxnOp::get(range.span.key.clone(), Some(range_options(range))),
        RegistryOp::Put(put) => TxnOp::put(put.key.clone(), put.value.clone(), Some(put_options(put))),
        RegistryOp::Delete(delete) => TxnOp::delete(delete.span.key.clone(), Some(delete_options(delete))),
        RegistryOp::Txn(txn) => TxnOp::txn(to_txn(txn)),
    }
}

fn to_compare(compare: &Compare) -> EtcdCompare {
    let key = compare.span.key.clone();
    let relation = match compare.relation {
        Relation::Equal => CompareOp::Equal,
        Relation::NotEqual => CompareOp::NotEqual,
        Relation::Greater => CompareOp::Greater,
        Relation::Less => CompareOp::Less,
    };
    let compared = match &compare.target {
        CompareTarget::Version(version) => EtcdCompare::version(key, relation, signed(*version)),
        CompareTarget::Create(revision) => EtcdCompare::create_revision(key, relation, signed(*revision)),
        CompareTarget::Mod(revision) => EtcdCompare::mod_revision(key, relation, signed(*revision)),
        CompareTarget::Value(value) => EtcdCompare::value(key, relation, value.clone()),
        CompareTarget::Lease(lease) => EtcdCompare::lease(key, relation, lease.map_or(0, |id| signed(id.0))),
    };
    compared.with_range(compare.span.end.clone())
}

fn range_answer(got: &GetResponse) -> Answer {
    Answer::Range {
        kvs: got.kvs().iter().map(key_value).collect(),
        more: got.more(),
        count: unsigned(got.count()),
    }
}

fn put_answer(got: &PutResponse) -> Answer {
    Answer::Put { prev: got.prev_key().map(key_value) }
}

fn delete_answer(got: &DeleteResponse) -> Answer {
    Answer::Delete { deleted: unsigned(got.deleted()), prev: got.prev_kvs().iter().map(key_value).collect() }
}

fn txn_answer(got: &TxnResponse) -> Answer {
    let answers = got.op_responses();
    let answers = answers.iter().map(|answer| match answer {
        TxnOpResponse::Get(got) => range_answer(got),
        TxnOpResponse::Put(got) => put_answer(got),
        TxnOpResponse::Delete(got) => delete_answer(got),
        TxnOpResponse::Txn(got) => txn_answer(got),
    });
    Answer::Txn { succeeded: got.succeeded(), answers: answers.collect() }
}

pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).expect("63 bits are enough")
}

pub(crate) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).expect("etcd counts upwards")
}
