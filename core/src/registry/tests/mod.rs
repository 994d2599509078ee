//! Tests of the registry machine alone. The conformance tests in `tests/` compare its answers with real
//! etcds.

mod lease;
mod random;
mod store;
mod txn;
mod watch;

use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;

use super::*;
use crate::base::time::{Duration, Instant};

/// Registry that is audited after every call, and its clock.
struct Bench {
    registry: Registry,
    now: Instant,
}

impl Bench {
    fn new(config: RegistryConfig) -> Self {
        Self { registry: Registry::new(config, Instant::ZERO), now: Instant::ZERO }
    }

    fn etcd() -> Self {
        Self::new(RegistryConfig::etcd())
    }

    fn handle(&mut self, request: Request) -> Result<Response, Error> {
        let before = (self.registry.revision(), self.everything(), self.registry.leases());
        let result = self.registry.handle(self.now, &request);
        self.registry.audit().unwrap();
        if result.is_err() {
            let after = (self.registry.revision(), self.everything(), self.registry.leases());
            assert_eq!(before, after, "{request:?} was refused and had an effect");
        }
        result
    }

    /// Returns all keys, without side effects.
    fn everything(&self) -> Vec<KeyValue> {
        let Answer::Range { kvs, .. } = self.registry.range(&Range::of(Span::prefix(""))) else {
            unreachable!("a read is answered by a range")
        };
        kvs
    }

    /// Executes a request that must succeed, and returns the answer.
    fn ok(&mut self, request: Request) -> Answer {
        self.handle(request).unwrap().answer
    }

    fn put(&mut self, key: &'static str, value: &'static str) -> u64 {
        self.handle(put(key, value)).unwrap().revision
    }

    fn delete(&mut self, span: Span) -> u64 {
        self.handle(Request::Delete(Delete::of(span))).unwrap().revision
    }

    fn get(&mut self, key: &'static str) -> Option<KeyValue> {
        self.range(Range::of(Span::one(key))).pop()
    }

    fn range(&mut self, range: Range) -> Vec<KeyValue> {
        match self.ok(Request::Range(range)) {
            Answer::Range { kvs, .. } => kvs,
            other => panic!("{other:?}"),
        }
    }

    fn grant(&mut self, id: u64, ttl_s: u64) -> Result<Response, Error> {
        self.handle(Request::Grant { id: LeaseId(id), ttl_s })
    }

    fn watch(&mut self, id: u64, watch: Watch) {
        self.registry.watch(self.now, WatchId(id), watch).unwrap();
        self.registry.audit().unwrap();
    }

    /// Returns all news of the watches.
    fn told(&mut self) -> Vec<Watched> {
        let mut told = Vec::new();
        while let Some(watched) = self.registry.poll_output() {
            self.registry.audit().unwrap();
            told.push(watched);
        }
        told
    }

    /// Returns all news as short texts: watch, revision, news.
    fn news(&mut self) -> Vec<alloc::string::String> {
        self.told().iter().map(short).collect()
    }

    fn sleep(&mut self, ms: u64) {
        self.now = self.now + Duration::from_millis(ms);
        self.registry.handle_timeout(self.now);
        self.registry.audit().unwrap();
    }
}

fn put(key: &'static str, value: &'static str) -> Request {
    Request::Put(Put::new(key, value, None))
}

fn leased(key: &'static str, value: &'static str, lease: u64) -> Put {
    Put::new(key, value, Some(LeaseId(lease)))
}

fn span(key: &'static str, end: &'static str) -> Span {
    Span { key: key.into(), end: end.into() }
}

fn keys(kvs: &[KeyValue]) -> Vec<&str> {
    kvs.iter().map(|kv| text(&kv.key)).collect()
}

fn text(bytes: &Bytes) -> &str {
    core::str::from_utf8(bytes).unwrap()
}

/// Formats a change: `+key=value` for a write, `-key` for a deletion, and the value before in parentheses.
fn short(watched: &Watched) -> alloc::string::String {
    use alloc::format;
    use alloc::string::String;
    let was =
        |prev: &Option<KeyValue>| prev.as_ref().map_or_else(String::new, |p| format!("({})", text(&p.value)));
    let news = match &watched.news {
        News::Changes(changes) => {
            let each = changes.iter().map(|change| match change {
                Change::Put { kv, prev } => {
                    format!("+{}={}{}@{}", text(&kv.key), text(&kv.value), was(prev), kv.modified)
                }
                Change::Delete { key, revision, prev } => format!("-{}{}@{revision}", text(key), was(prev)),
            });
            each.collect::<Vec<_>>().join(" ")
        }
        other => format!("{other:?}"),
    };
    format!("{} to {}: {news}", watched.id.0, watched.revision)
}
