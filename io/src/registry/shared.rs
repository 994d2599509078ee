//! Status and counters that the task behind a remote registry publishes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use skirmish_core::registry::{Error, Failure};
use skirmish_core::time::{Duration, Instant};
use tokio::sync::Notify;

use super::{RegistryCounters, RegistryRefusal, Status};

/// Shared between the task and the node's end.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedStatus(Arc<StatusInner>);

#[derive(Debug, Default)]
struct StatusInner {
    status: Mutex<Status>,
    calls: AtomicU64,
    refused: AtomicU64,
    unavailable: AtomicU64,
    unknown: AtomicU64,
    latency_us: AtomicU64,
    groups: AtomicU64,
    members: AtomicU64,
    halved: AtomicU64,
    connections: AtomicU64,
    /// Cluster of the newest connection.
    cluster: AtomicU64,
    woken: Notify,
    news: AtomicU64,
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Relaxed);
}

/// Returns true if a failure is ordinary news of the key or lease in question, such as a lease that
/// has ended.
const fn is_about_request(failure: Failure) -> bool {
    matches!(
        failure,
        Failure::Refused(
            Error::LeaseNotFound
                | Error::LeaseExists
                | Error::KeyNotFound
                | Error::Compacted
                | Error::FutureRevision
        )
    )
}

impl SharedStatus {
    pub(super) fn status(&self) -> Status {
        self.0.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn counters(&self) -> RegistryCounters {
        let inner = &self.0;
        RegistryCounters {
            calls: inner.calls.load(Relaxed),
            refused: inner.refused.load(Relaxed),
            unavailable: inner.unavailable.load(Relaxed),
            unknown: inner.unknown.load(Relaxed),
            latency_us: inner.latency_us.load(Relaxed),
            groups: inner.groups.load(Relaxed),
            members: inner.members.load(Relaxed),
            halved: inner.halved.load(Relaxed),
            connections: inner.connections.load(Relaxed),
            news: inner.news.load(Relaxed),
        }
    }

    pub(super) fn connected(&self, now: Instant, cluster: u64) {
        {
            let mut status = self.0.status.lock().unwrap_or_else(PoisonError::into_inner);
            self.0.cluster.store(cluster, Relaxed);
            add(&self.0.connections, 1);
            status.connected = true;
            status.since = now;
        }
        self.0.woken.notify_one();
    }

    /// Returns the number of connections so far, and the cluster of the newest.
    pub(super) fn connections(&self) -> (u64, u64) {
        let _status = self.0.status.lock().unwrap_or_else(PoisonError::into_inner);
        (self.0.connections.load(Relaxed), self.0.cluster.load(Relaxed))
    }

    /// Waits for a connection that no earlier call has waited for.
    pub(super) async fn woken(&self) {
        self.0.woken.notified().await;
    }

    /// Reports that there is no connection. `refusal` is set if the registry has refused to
    /// connect.
    pub(super) fn failed(&self, now: Instant, error: String, refusal: Option<Failure>) {
        let mut status = self.0.status.lock().unwrap_or_else(PoisonError::into_inner);
        if status.connected {
            status.connected = false;
            status.since = now;
        }
        status.refusal = refusal.map(|failure| RegistryRefusal { failure, words: error.clone() });
        status.error = Some(error);
    }

    /// Reports a request that was not executed. The reason is kept unless it lies in the request.
    pub(super) fn not_done(&self, failure: Failure, words: String) {
        if !is_about_request(failure) {
            let mut status = self.0.status.lock().unwrap_or_else(PoisonError::into_inner);
            status.refusal = Some(RegistryRefusal { failure, words });
        }
    }

    pub(super) fn answered<T>(&self, outcome: &Result<T, Failure>, latency: Duration) {
        let inner = &self.0;
        add(&inner.calls, 1);
        add(&inner.latency_us, u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
        match outcome {
            Ok(_) => {}
            Err(Failure::Refused(_)) => add(&inner.refused, 1),
            Err(Failure::Unavailable) => add(&inner.unavailable, 1),
            Err(Failure::Unknown) => add(&inner.unknown, 1),
        }
    }

    pub(super) fn sent(&self, members: usize) {
        add(&self.0.groups, 1);
        add(&self.0.members, members as u64);
    }

    pub(super) fn halved(&self) {
        add(&self.0.halved, 1);
    }

    pub(super) fn news(&self) {
        add(&self.0.news, 1);
    }
}
