//! Records of sessions and rooms in a registry.

use skirmish_core::id::NodeId;
use skirmish_core::registrar::record_owner;
use skirmish_core::registry::{Answer, Range, Registry, Request, Response, Span};
use skirmish_core::time::Instant;

/// Returns the sessions and rooms of a registry: their keys, owners and epochs.
pub(crate) fn all(machine: &mut Registry, now: Instant) -> Vec<(String, NodeId, u64)> {
    let mut records = Vec::new();
    for prefix in ["/sessions/player:", "/rooms/"] {
        let range = Request::Range(Range::of(Span::prefix(prefix)));
        let Ok(Response { answer: Answer::Range { kvs, .. }, .. }) = machine.handle(now, &range) else {
            continue;
        };
        records.extend(kvs.iter().filter_map(|kv| {
            // A match's room has no owner until the first player joins.
            let (node, epoch) = record_owner(kv).filter(|(node, _)| node.0 > 0)?;
            Some((String::from_utf8_lossy(&kv.key).into_owned(), node, epoch))
        }));
    }
    records
}
