//! Keeps the keys of a deployment below a prefix. The prefix is put before every key that is sent
//! to the registry, and removed from every key that is received.

use bytes::Bytes;
use skirmish_core::registry::{
    Answer, Change, Compare, Delete, KeyValue, News, Put, Range, RegistryCommand, RegistryEvent, RegistryOp,
    Request, Response, Span, Txn, Watch, Watched,
};

/// The prefix; empty for none.
#[derive(Clone, Debug, Default)]
pub(super) struct Prefix(Bytes);

impl Prefix {
    pub(super) fn new(prefix: &str) -> Self {
        Self(Bytes::copy_from_slice(prefix.as_bytes()))
    }

    /// Puts the prefix before the keys of a call.
    pub(super) fn add(&self, call: RegistryCommand) -> RegistryCommand {
        match call {
            _ if self.0.is_empty() => call,
            RegistryCommand::Request { id, request } => {
                RegistryCommand::Request { id, request: self.request(request) }
            }
            RegistryCommand::Watch { id, watch } => {
                RegistryCommand::Watch { id, watch: Watch { span: self.span(watch.span), ..watch } }
            }
            RegistryCommand::Unwatch(_) => call,
        }
    }

    /// Removes the prefix from the keys of an event.
    pub(super) fn strip(&self, event: RegistryEvent) -> RegistryEvent {
        match event {
            _ if self.0.is_empty() => event,
            RegistryEvent::Reply { id, outcome } => RegistryEvent::Reply {
                id,
                outcome: outcome
                    .map(|Response { revision, answer }| Response { revision, answer: self.answer(answer) }),
            },
            RegistryEvent::Watched(Watched { id, revision, news }) => {
                let news = match news {
                    News::Changes(changes) => {
                        News::Changes(changes.into_iter().map(|change| self.change(change)).collect())
                    }
                    News::Created | News::Progress | News::Compacted { .. } | News::Canceled => news,
                };
                RegistryEvent::Watched(Watched { id, revision, news })
            }
            RegistryEvent::Connected { .. } => event,
        }
    }

    fn key(&self, key: &[u8]) -> Bytes {
        [&self.0, key].concat().into()
    }

    fn span(&self, Span { key, end }: Span) -> Span {
        let end = match end.as_ref() {
            [] => end,
            // Without end: to the last key below the prefix.
            [0] => Span::prefix(self.0.clone()).end,
            end => self.key(end),
        };
        Span { key: self.key(&key), end }
    }

    fn request(&self, request: Request) -> Request {
        match request {
            Request::Range(range) => Request::Range(self.range(range)),
            Request::Put(put) => Request::Put(self.put(put)),
            Request::Delete(delete) => Request::Delete(self.delete(delete)),
            Request::Txn(txn) => Request::Txn(self.txn(txn)),
            Request::Compact { .. }
            | Request::Grant { .. }
            | Request::Revoke(_)
            | Request::KeepAlive(_)
            | Request::TimeToLive { .. } => request,
        }
    }

    fn range(&self, range: Range) -> Range {
        Range { span: self.span(range.span), ..range }
    }

    fn put(&self, put: Put) -> Put {
        Put { key: self.key(&put.key), ..put }
    }

    fn delete(&self, delete: Delete) -> Delete {
        Delete { span: self.span(delete.span), ..delete }
    }

    fn txn(&self, Txn { compares, success, failure }: Txn) -> Txn {
        let compare = |compare: Compare| Compare { span: self.span(compare.span), ..compare };
        let ops = |ops: Vec<RegistryOp>| ops.into_iter().map(|op| self.op(op)).collect();
        Txn {
            compares: compares.into_iter().map(compare).collect(),
            success: ops(success),
            failure: ops(failure),
        }
    }

    fn op(&self, op: RegistryOp) -> RegistryOp {
        match op {
            RegistryOp::Range(range) => RegistryOp::Range(self.range(range)),
            RegistryOp::Put(put) => RegistryOp::Put(self.put(put)),
            RegistryOp::Delete(delete) => RegistryOp::Delete(self.delete(delete)),
            RegistryOp::Txn(txn) => RegistryOp::Txn(self.txn(txn)),
        }
    }

    fn stripped(&self, key: Bytes) -> Bytes {
        if key.starts_with(&self.0) { key.slice(self.0.len()..) } else { key }
    }

    fn key_value(&self, kv: KeyValue) -> KeyValue {
        KeyValue { key: self.stripped(kv.key), ..kv }
    }

    fn answer(&self, answer: Answer) -> Answer {
        let all = |kvs: Vec<KeyValue>| kvs.into_iter().map(|kv| self.key_value(kv)).collect();
        match answer {
            Answer::Range { kvs, more, count } => Answer::Range { kvs: all(kvs), more, count },
            Answer::Put { prev } => Answer::Put { prev: prev.map(|kv| self.key_value(kv)) },
            Answer::Delete { deleted, prev } => Answer::Delete { deleted, prev: all(prev) },
            Answer::Txn { succeeded, answers } => Answer::Txn {
                succeeded,
                answers: answers.into_iter().map(|answer| self.answer(answer)).collect(),
            },
            Answer::TimeToLive { left_s, granted_s, keys } => {
                let keys = keys.into_iter().map(|key| self.stripped(key)).collect();
                Answer::TimeToLive { left_s, granted_s, keys }
            }
            Answer::Compact | Answer::Granted { .. } | Answer::Revoked | Answer::KeptAlive { .. } => answer,
        }
    }

    fn change(&self, change: Change) -> Change {
        match change {
            Change::Put { kv, prev } => {
                Change::Put { kv: self.key_value(kv), prev: prev.map(|kv| self.key_value(kv)) }
            }
            Change::Delete { key, revision, prev } => {
                Change::Delete { key: self.stripped(key), revision, prev: prev.map(|kv| self.key_value(kv)) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use skirmish_core::registry::{CallId, Embedded, RegistryConfig, WatchId};
    use skirmish_core::time::Instant;

    use super::*;

    /// Returns the events that follow these calls, each passed through the prefix.
    fn events(store: &mut Embedded, prefix: &Prefix, calls: &[RegistryCommand]) -> Vec<RegistryEvent> {
        let mut events = Vec::new();
        for call in calls {
            store.handle_call(Instant::from_micros(1), prefix.add(call.clone()));
            events.extend(std::iter::from_fn(|| store.poll_event()).map(|event| prefix.strip(event)));
        }
        events
    }

    #[test]
    fn a_deployment_below_a_prefix_hears_what_it_would_without_and_nothing_of_another() {
        let request = |id, request| RegistryCommand::Request { id: CallId(id), request };
        let range = |span| Request::Range(Range::of(span));
        let put = |key: &'static str| Put { prev: true, ..Put::new(key, "v", None) };
        let all = Span::prefix("/nodes/");
        let txn = Txn {
            compares: vec![
                Compare::absent("/nodes/b"),
                Compare { span: all.clone(), ..Compare::absent("/") },
            ],
            success: vec![RegistryOp::Txn(Txn {
                success: vec![RegistryOp::Put(put("/nodes/b"))],
                ..Txn::default()
            })],
            failure: vec![RegistryOp::Put(put("/nodes/c")), RegistryOp::Range(Range::of(all.clone()))],
        };
        let calls = [
            RegistryCommand::Watch {
                id: WatchId(1),
                watch: Watch { prev: true, ..Watch::of(all.clone(), 0) },
            },
            request(2, Request::Put(put("/nodes/a"))),
            request(3, Request::Put(put("/nodes/a"))),
            request(4, Request::Txn(txn)),
            request(5, range(Span::from("/"))),
            request(6, range(Span::prefix(""))),
            request(7, Request::Delete(Delete { prev: true, span: all })),
        ];
        let plain = events(&mut embedded(), &Prefix::default(), &calls);
        for prefix in ["/a", "/a/b", "/zz"] {
            assert_eq!(events(&mut embedded(), &Prefix::new(prefix), &calls), plain, "{prefix}");
        }
        // Side by side, no deployment reads, compares or deletes the keys of another.
        let mut store = embedded();
        events(&mut store, &Prefix::new("/b"), &calls[1..4]);
        let answers = |events: Vec<RegistryEvent>| {
            let answer = |event| match event {
                RegistryEvent::Reply {
                    outcome: Ok(Response { answer: Answer::Range { kvs, .. }, .. }),
                    ..
                } => Some(kvs.into_iter().map(|kv| (kv.key, kv.version)).collect::<Vec<_>>()),
                _ => None,
            };
            events.into_iter().filter_map(answer).collect::<Vec<_>>()
        };
        assert_eq!(answers(events(&mut store, &Prefix::new("/a"), &calls)), answers(plain));
        let left = answers(events(&mut store, &Prefix::new("/b"), &calls[4..5]));
        assert_eq!(left, [[(Bytes::from("/nodes/a"), 2), (Bytes::from("/nodes/c"), 1)]]);
    }

    fn embedded() -> Embedded {
        Embedded::new(RegistryConfig::default(), Instant::from_micros(1))
    }
}
