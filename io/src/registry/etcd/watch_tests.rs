//! Tests of the watches: requests on a stream, news for the node, and the revision from which a
//! broken stream is resumed.

use bytes::Bytes;
use skirmish_core::registry::{KeyValue, Span};

use super::*;

const A: WatchId = WatchId(70);

fn put(key: &'static str, modified: u64) -> Change {
    let kv = KeyValue {
        key: Bytes::from(key),
        value: Bytes::new(),
        created: modified,
        modified,
        version: 1,
        lease: None,
    };
    Change::Put { kv, prev: None }
}

/// Sends all requests. Returns the numbers and starts of the created watches, and the numbers of
/// the cancelled ones.
fn send_all(watches: &mut EtcdWatches) -> (Vec<(i64, u64)>, Vec<i64>) {
    let (mut created, mut cancelled) = (Vec::new(), Vec::new());
    while let Some(request) = watches.to_send() {
        match request {
            WatchRequest::Create { number, start, .. } => created.push((*number, *start)),
            WatchRequest::Cancel { number } => cancelled.push(*number),
        }
        watches.handle_sent();
    }
    (created, cancelled)
}

fn created(number: i64, revision: u64) -> WatchMessage {
    WatchMessage { number, revision, created: true, ..WatchMessage::default() }
}

fn changed(number: i64, fragment: bool, changes: Vec<Change>) -> WatchMessage {
    WatchMessage { number, revision: 99, fragment, changes, ..WatchMessage::default() }
}

/// Returns a watch of everything that runs from the revision after 10, and its number.
fn running() -> (EtcdWatches, i64) {
    let mut watches = EtcdWatches::default();
    watches.add(A, Watch::of(Span::prefix(""), 0));
    let (asked, _) = send_all(&mut watches);
    let [(number, 0)] = asked[..] else { panic!("{asked:?}") };
    let told = watches.handle_heard(created(number, 10)).unwrap();
    assert_eq!(told, Watched { id: A, revision: 10, news: News::Created });
    (watches, number)
}

#[test]
fn a_broken_stream_is_resumed_after_what_was_told_and_confirmed_once() {
    let (mut watches, number) = running();
    let told = watches.handle_heard(changed(number, false, vec![put("a", 11), put("b", 12)])).unwrap();
    assert_eq!((told.revision, told.news), (12, News::Changes(vec![put("a", 11), put("b", 12)])));
    watches.restart();
    let (asked, _) = send_all(&mut watches);
    let [(again, 13)] = asked[..] else { panic!("{asked:?}") };
    assert_ne!(again, number);
    assert_eq!(watches.handle_heard(created(again, 20)), None);
    // Late messages of the old stream belong to no watch, and news are not repeated.
    assert_eq!(watches.handle_heard(changed(number, false, vec![put("c", 13)])), None);
    let told = watches.handle_heard(changed(again, false, vec![put("b", 12), put("c", 13)])).unwrap();
    assert_eq!((told.revision, told.news), (13, News::Changes(vec![put("c", 13)])));
}

#[test]
fn one_that_never_ran_starts_from_where_it_was_to() {
    let mut watches = EtcdWatches::default();
    watches.add(A, Watch::of(Span::one("a"), 0));
    watches.add(WatchId(71), Watch::of(Span::one("b"), 5));
    send_all(&mut watches);
    watches.restart();
    let (asked, _) = send_all(&mut watches);
    assert_eq!(asked.iter().map(|(_, start)| *start).collect::<Vec<_>>(), [0, 5]);
    let told = watches.handle_heard(created(asked[1].0, 30)).unwrap();
    assert_eq!((told.id, told.revision), (WatchId(71), 4));
}

#[test]
fn changes_of_one_revision_are_never_parted() {
    let (mut watches, number) = running();
    let first = watches.handle_heard(changed(number, true, vec![put("a", 11), put("b", 12)])).unwrap();
    assert_eq!((first.revision, first.news), (11, News::Changes(vec![put("a", 11)])));
    assert_eq!(watches.handle_heard(changed(number, true, vec![put("c", 12)])), None);
    let rest = watches.handle_heard(changed(number, false, vec![put("d", 12), put("e", 13)])).unwrap();
    let all = vec![put("b", 12), put("c", 12), put("d", 12), put("e", 13)];
    assert_eq!((rest.revision, rest.news), (13, News::Changes(all)));

    // If the stream breaks in between, the whole revision is sent again.
    assert_eq!(watches.handle_heard(changed(number, true, vec![put("f", 14)])), None);
    watches.restart();
    let (asked, _) = send_all(&mut watches);
    assert_eq!(asked[0].1, 14);
    watches.handle_heard(created(asked[0].0, 20));
    let told = watches.handle_heard(changed(asked[0].0, false, vec![put("f", 14), put("g", 14)])).unwrap();
    assert_eq!(told.news, News::Changes(vec![put("f", 14), put("g", 14)]));
}

#[test]
fn progress_is_told_and_never_goes_back() {
    let (mut watches, number) = running();
    let progress = |revision| WatchMessage { number, revision, ..WatchMessage::default() };
    let told = watches.handle_heard(progress(15)).unwrap();
    assert_eq!((told.revision, told.news), (15, News::Progress));
    assert_eq!(watches.handle_heard(progress(12)), None);
    watches.restart();
    assert_eq!(send_all(&mut watches).0[0].1, 16);
}

#[test]
fn compaction_and_refusal_end_a_watch() {
    let (mut watches, number) = running();
    let end = WatchMessage { number, canceled: true, compacted: 40, ..WatchMessage::default() };
    let told = watches.handle_heard(end.clone()).unwrap();
    assert_eq!(told, Watched { id: A, revision: 10, news: News::Compacted { oldest: 40 } });
    assert_eq!((watches.handle_heard(end), watches.len()), (None, 0));

    // A watch that is refused at once has no number in the answer.
    watches.add(A, Watch::of(Span::one("a"), 0));
    watches.add(WatchId(71), Watch::of(Span::one("b"), 0));
    send_all(&mut watches);
    let refused = WatchMessage { number: -1, created: true, canceled: true, ..WatchMessage::default() };
    let told = watches.handle_heard(refused).unwrap();
    assert_eq!((told.id, told.news), (A, News::Canceled));
    assert_eq!(watches.len(), 1);
}

#[test]
fn an_ended_watch_is_cancelled_if_it_was_begun_and_silent_from_then_on() {
    let (mut watches, number) = running();
    watches.remove(A);
    assert_eq!(send_all(&mut watches), (vec![], vec![number]));
    assert_eq!(watches.handle_heard(changed(number, false, vec![put("a", 11)])), None);
    watches.add(A, Watch::of(Span::one("a"), 0));
    watches.remove(A);
    assert_eq!(watches.to_send(), None);
}

#[test]
fn with_a_token_a_refusal_is_believed_the_second_time() {
    let mut watches = EtcdWatches::new(true);
    watches.add(A, Watch::of(Span::one("a"), 0));
    let refused = |number| WatchMessage { number, created: true, canceled: true, ..WatchMessage::default() };
    let (asked, _) = send_all(&mut watches);
    assert_eq!(watches.handle_heard(refused(asked[0].0)), None);
    assert!(watches.take_stale() && !watches.take_stale());
    watches.restart();
    let (asked, _) = send_all(&mut watches);
    let told = watches.handle_heard(refused(asked[0].0)).unwrap();
    assert_eq!((told.news, watches.take_stale()), (News::Canceled, false));
}
