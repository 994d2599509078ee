//! Sends one request, which may carry a group, and converts the answer to an outcome.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use etcd_client::{
    Client, CompactionOptions, KvClient, LeaseClient, LeaseGrantOptions, LeaseTimeToLiveOptions,
};
use skirmish_core::registry::{Answer, Error, Failure, Request, Response};

use super::outcome::{EtcdFailure, judge, text};
use super::request::{delete_options, put_options, range_options, signed, transaction};
use super::response::{self, MalformedAnswer, revision, unsigned};
use crate::rounds::within;

/// Largest answer, in bytes.
pub(super) const LARGEST_ANSWER: usize = 64 * 1024 * 1024;

/// The reason for a missing answer.
#[derive(Debug)]
pub(super) enum SendFault {
    /// An error was received.
    Wrong {
        /// Meaning of the error for the request.
        wrong: EtcdFailure,
        /// True if etcd itself has sent the error, so that the connection works.
        from_etcd: bool,
        /// Text for people.
        text: String,
    },
    /// Nothing was received in time.
    Silence,
}

impl From<etcd_client::Error> for SendFault {
    fn from(error: etcd_client::Error) -> Self {
        let from_etcd = matches!(&error, etcd_client::Error::GRpcStatus(status)
            if status.message().starts_with("etcdserver: ") || status.message().starts_with("grpc: "));
        Self::Wrong { wrong: judge(&error), from_etcd, text: text(&error) }
    }
}

impl From<MalformedAnswer> for SendFault {
    fn from(malformed: MalformedAnswer) -> Self {
        Self::Wrong {
            wrong: EtcdFailure::Outcome(Failure::Unknown),
            from_etcd: false,
            text: malformed.to_string(),
        }
    }
}

pub(super) type Sending = Pin<Box<dyn Future<Output = Result<Response, SendFault>> + Send>>;

/// Sends a request, and waits for the answer for at most `patience`.
pub(super) fn send(client: &Client, request: Request, patience: Duration) -> Sending {
    let kv = client.kv_client().max_decoding_message_size(LARGEST_ANSWER);
    let lease = client.lease_client();
    Box::pin(
        async move { within(patience, send_one(kv, lease, request)).await.map_err(|_| SendFault::Silence)? },
    )
}

async fn send_one(mut kv: KvClient, mut lease: LeaseClient, request: Request) -> Result<Response, SendFault> {
    let response = match &request {
        Request::Range(range) => {
            response::range(kv.get(&*range.span.key, Some(range_options(range))).await?)?
        }
        Request::Put(put) => response::put(kv.put(&*put.key, &*put.value, Some(put_options(put))).await?)?,
        Request::Delete(delete) => {
            response::delete(kv.delete(&*delete.span.key, Some(delete_options(delete))).await?)?
        }
        Request::Txn(txn) => response::txn(kv.txn(transaction(txn)).await?)?,
        Request::Compact { revision: at } => {
            let response = kv.compact(signed(*at), Some(CompactionOptions::new())).await?;
            Response { revision: revision(response.0.header.as_ref())?, answer: Answer::Compact }
        }
        Request::Grant { id, ttl_s } => {
            let options = LeaseGrantOptions::new().with_id(signed(id.0));
            let response = lease.grant(signed(*ttl_s), Some(options)).await?.0;
            let answer = Answer::Granted { ttl_s: unsigned(response.ttl) };
            Response { revision: revision(response.header.as_ref())?, answer }
        }
        Request::Revoke(id) => {
            let response = lease.revoke(signed(id.0)).await?;
            Response { revision: revision(response.0.header.as_ref())?, answer: Answer::Revoked }
        }
        Request::TimeToLive { id, keys } => {
            let options = LeaseTimeToLiveOptions::new();
            let options = if *keys { options.with_keys() } else { options };
            let response = lease.time_to_live(signed(id.0), Some(options)).await?;
            response::time_to_live(response)?.ok_or_else(|| refused(Error::LeaseNotFound))?
        }
        // Keep-alives have a stream of their own.
        Request::KeepAlive(_) => return Err(refused(Error::LeaseNotFound)),
    };
    Ok(response)
}

fn refused(error: Error) -> SendFault {
    let text = error.to_string();
    SendFault::Wrong { wrong: EtcdFailure::Outcome(Failure::Refused(error)), from_etcd: true, text }
}
