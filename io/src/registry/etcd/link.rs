//! A connection and the two streams on it.

use std::future::{Future, pending};
use std::pin::Pin;
use std::time::Duration;

use etcd_client::{Client, LeaseKeepAliveStream, LeaseKeeper, WatchRequestSender, WatchResponseStream};
use skirmish_core::registry::LeaseId;
use skirmish_core::time::Instant;

use super::connect::{Dialing, EtcdDialError};
use super::outcome::text;
use super::request::{signed, watch_options};
use super::response::{WatchMessage, heard, unsigned};
use super::send::LARGEST_ANSWER;
use super::watch::WatchRequest;
use crate::rounds::within;

/// State of the connection.
pub(super) enum EtcdLink {
    /// No connection; the next dial is at this time.
    Down(Instant),
    /// A connection to the named endpoint is being opened.
    Dialing(String, Dialing),
    /// A connection is open.
    Up(Box<EtcdConnection>),
}

/// An open connection.
pub(super) struct EtcdConnection {
    pub(super) client: Box<Client>,
    pub(super) since: Instant,
    /// True if the stream of watches needs a fresh token.
    pub(super) stale: bool,
    pub(super) watching: WatchesStream,
    pub(super) keeping: KeepAlivesStream,
}

type Opening<T> = Pin<Box<dyn Future<Output = Result<T, String>> + Send>>;

/// The stream of watches.
pub(super) enum WatchesStream {
    None,
    Opening(Opening<(WatchRequestSender, Box<WatchResponseStream>)>),
    Open(WatchRequestSender, Box<WatchResponseStream>),
}

/// The stream of keep-alives.
pub(super) enum KeepAlivesStream {
    None,
    Opening(LeaseId, Opening<Option<(LeaseKeeper, Box<LeaseKeepAliveStream>)>>),
    Open(LeaseKeeper, Box<LeaseKeepAliveStream>),
}

/// An answer to a keep-alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeepAliveAnswer {
    pub(super) lease: LeaseId,
    /// New time to live; 0 if there is no such lease.
    pub(super) ttl_s: u64,
    pub(super) revision: u64,
}

/// An event of a connection.
pub(super) enum LinkEvent {
    /// A dial has ended, with an open connection and the identifier of the cluster, or with an
    /// error.
    Dialed(Result<(Box<Client>, u64), EtcdDialError>),
    /// The stream of watches is open.
    WatchOpen(WatchRequestSender, Box<WatchResponseStream>),
    /// The request on the stream of watches was sent.
    WatchSent,
    /// The stream of watches has sent a message.
    Heard(WatchMessage),
    /// The stream of keep-alives is open; `None` if there is no such lease.
    KeepOpen(LeaseId, Option<(LeaseKeeper, Box<LeaseKeepAliveStream>)>),
    /// A keep-alive was sent.
    KeepSent,
    /// A keep-alive was answered.
    Kept(KeepAliveAnswer),
    /// The connection is broken.
    Broken(String),
}

impl EtcdLink {
    /// Waits for the next event. `request` is the next request for the stream of watches, `keep` the
    /// next lease to keep alive. Messages of watches are received only if `listening`. Cancel-safe:
    /// nothing is lost, and nothing happens without an event.
    pub(super) async fn next_event(
        &mut self,
        request: Option<&WatchRequest>,
        keep: Option<LeaseId>,
        listening: bool,
    ) -> LinkEvent {
        match self {
            Self::Down(_) => pending().await,
            Self::Dialing(_, dialing) => LinkEvent::Dialed(dialing.as_mut().await),
            Self::Up(up) => {
                let EtcdConnection { watching, keeping, .. } = up.as_mut();
                tokio::select! {
                    biased;
                    event = keeping.next_event(keep) => event,
                    event = watching.next_event(request, listening) => event,
                }
            }
        }
    }
}

impl WatchesStream {
    /// Opens the stream with a first request, and with a fresh token if the last one was stale.
    pub(super) fn open(client: &Client, request: &WatchRequest, stale: bool, patience: Duration) -> Self {
        let WatchRequest::Create { number, start, watch } = request else { return Self::None };
        let (key, options) = watch_options(watch, *number, *start);
        let client = client.clone();
        let opening = async move {
            if stale {
                client.refresh_token().await?;
            }
            let mut watches = client.watch_client().max_decoding_message_size(LARGEST_ANSWER);
            watches.watch(key, Some(options)).await
        };
        Self::Opening(Box::pin(async move {
            match within(patience, opening).await {
                Ok(Ok(stream)) => {
                    let (sender, stream) = stream.split();
                    Ok((sender, Box::new(stream)))
                }
                Ok(Err(error)) => Err(text(&error)),
                Err(_) => Err("the stream of watches does not open".to_owned()),
            }
        }))
    }

    async fn next_event(&mut self, request: Option<&WatchRequest>, listening: bool) -> LinkEvent {
        match self {
            Self::None => pending().await,
            Self::Opening(opening) => match opening.as_mut().await {
                Ok((sender, stream)) => LinkEvent::WatchOpen(sender, stream),
                Err(error) => LinkEvent::Broken(error),
            },
            Self::Open(sender, stream) => {
                tokio::select! {
                    biased;
                    sent = send_request(sender, request) => match sent {
                        Ok(()) => LinkEvent::WatchSent,
                        Err(error) => LinkEvent::Broken(text(&error)),
                    },
                    message = stream.message(), if listening => match message {
                        Ok(Some(response)) => match heard(response) {
                            Ok(heard) => LinkEvent::Heard(heard),
                            Err(malformed) => LinkEvent::Broken(malformed.to_string()),
                        },
                        Ok(None) => LinkEvent::Broken("the stream of watches has ended".to_owned()),
                        Err(error) => LinkEvent::Broken(text(&error)),
                    },
                }
            }
        }
    }
}

async fn send_request(
    sender: &mut WatchRequestSender,
    request: Option<&WatchRequest>,
) -> Result<(), etcd_client::Error> {
    match request {
        None => pending().await,
        Some(WatchRequest::Cancel { number }) => sender.cancel(*number).await,
        Some(WatchRequest::Create { number, start, watch }) => {
            let (key, options) = watch_options(watch, *number, *start);
            sender.watch(key, Some(options)).await
        }
    }
}

impl KeepAlivesStream {
    /// Opens the stream with a keep-alive. The library keeps the answer to itself, so the
    /// keep-alive has to be sent once more on the open stream.
    pub(super) fn open(client: &Client, lease: LeaseId, patience: Duration) -> Self {
        let mut client = client.lease_client();
        let opening = async move {
            match within(patience, client.keep_alive(signed(lease.0))).await {
                Ok(Ok((keeper, stream))) => Ok(Some((keeper, Box::new(stream)))),
                // The library's error for a time to live of 0.
                Ok(Err(etcd_client::Error::LeaseKeepAliveError(why))) if why == "lease not found" => Ok(None),
                Ok(Err(error)) => Err(text(&error)),
                Err(_) => Err("the stream of keep-alives does not open".to_owned()),
            }
        };
        Self::Opening(lease, Box::pin(opening))
    }

    async fn next_event(&mut self, keep: Option<LeaseId>) -> LinkEvent {
        match self {
            Self::None => pending().await,
            Self::Opening(lease, opening) => match opening.as_mut().await {
                Ok(opened) => LinkEvent::KeepOpen(*lease, opened),
                Err(error) => LinkEvent::Broken(error),
            },
            Self::Open(keeper, stream) => {
                // The library has a stream for each lease; etcd accepts any lease on any stream.
                if let Some(lease) = keep {
                    keeper.id = signed(lease.0);
                }
                tokio::select! {
                    biased;
                    sent = keeper.keep_alive(), if keep.is_some() => match sent {
                        Ok(()) => LinkEvent::KeepSent,
                        Err(error) => LinkEvent::Broken(text(&error)),
                    },
                    message = stream.message() => match message {
                        Ok(Some(response)) => LinkEvent::Kept(KeepAliveAnswer {
                            lease: LeaseId(unsigned(response.0.id)),
                            ttl_s: unsigned(response.0.ttl),
                            revision: response.0.header.as_ref().map_or(0, |header| unsigned(header.revision)),
                        }),
                        Ok(None) => LinkEvent::Broken("the stream of keep-alives has ended".to_owned()),
                        Err(error) => LinkEvent::Broken(text(&error)),
                    },
                }
            }
        }
    }
}
