//! Answers and records of the registry that have a wrong shape.

use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;
use skirmish_proto::v1;

use super::clients::alone;
use super::cluster::name;
use super::rules::{cluster, run};
use crate::base::id::NodeId;
use crate::base::time::{Instant, Now, Wall};
use crate::matchmaking::matcher::Standing;
use crate::matchmaking::player_tickets::PlayerTickets;
use crate::matchmaking::record::encode;
use crate::matchmaking::{Matcher, MatchmakingConfig, QueueConfig, keys};
use crate::registry::{
    Answer, CallId, CallNumbers, Change, Error, Failure, KeyValue, LeaseId, News, Put, RegistryCommand,
    RegistryEvent, RegistryOp, Request, Response, Txn, WatchId, Watched,
};

const NODE: NodeId = NodeId(7);
const LEASE: LeaseId = LeaseId(9);

fn config() -> MatchmakingConfig {
    MatchmakingConfig::new(vec![QueueConfig::new(name("duel"), 2, 1, vec![name("eu")])])
}

fn at(seconds: u64) -> Now {
    Now { instant: Instant::from_micros(seconds * 1_000_000), wall: Wall(1_700_000_000_000 + seconds * 1000) }
}

/// Returns the next request among the commands.
fn request(commands: impl IntoIterator<Item = RegistryCommand>) -> Option<(CallId, Request)> {
    commands.into_iter().find_map(|command| match command {
        RegistryCommand::Request { id, request } => Some((id, request)),
        RegistryCommand::Watch { .. } | RegistryCommand::Unwatch(_) => None,
    })
}

fn reply(id: CallId, revision: u64, answer: Answer) -> RegistryEvent {
    RegistryEvent::Reply { id, outcome: Ok(Response { revision, answer }) }
}

fn range(kvs: Vec<KeyValue>) -> Answer {
    let count = kvs.len() as u64;
    Answer::Range { kvs, more: false, count }
}

fn kv(key: Bytes, value: Bytes, revision: u64) -> KeyValue {
    KeyValue { key, value, created: revision, modified: revision, version: 1, lease: Some(LEASE) }
}

#[test]
fn an_answer_without_the_state_of_a_player_is_none() {
    let (mut tickets, ann) =
        (PlayerTickets::new(config(), NODE, [3; 32], CallNumbers::new(1, 1)), name("ann"));
    tickets.start(at(1));
    let (id, _) = request(tickets.poll_call()).expect("it reads the revision");
    tickets.handle_event(at(1), reply(id, 5, range(Vec::new())));
    tickets.arrive(at(1), &ann, 4);
    let (id, look) = request(core::iter::from_fn(|| tickets.poll_call())).expect("it reads the state");
    let answers = vec![range(Vec::new()); 3];
    tickets.handle_event(at(1), reply(id, 6, Answer::Txn { succeeded: true, answers }));
    tickets.cancel(at(1), &ann, 1);
    assert_eq!(tickets.poll_decision(), None, "she may have a ticket");
    tickets.handle_timeout(at(9));
    assert_eq!(request(tickets.poll_call()).map(|(_, request)| request), Some(look));
    assert_eq!(tickets.stats().failed, 1);
}

#[test]
fn a_room_keeps_places_only_for_players_that_were_read() {
    let (mut tickets, room) =
        (PlayerTickets::new(config(), NODE, [3; 32], CallNumbers::new(1, 1)), name("match:1-1"));
    tickets.host(at(1), &room);
    let (id, read) = request(tickets.poll_call()).expect("it reads the match");
    tickets.handle_event(at(1), reply(id, 5, Answer::Txn { succeeded: true, answers: Vec::new() }));
    assert!(tickets.awaits_places(&room), "nothing is known of the match");
    tickets.handle_timeout(at(9));
    let (id, again) = request(tickets.poll_call()).expect("it reads the match again");
    assert_eq!(again, read);
    let answers = vec![range(Vec::new())];
    tickets.handle_event(at(9), reply(id, 6, Answer::Txn { succeeded: true, answers }));
    assert!(!tickets.awaits_places(&room), "there is no such match");
}

/// Returns a matcher that was elected and has listed these tickets, with the watch of tickets.
fn elected(tickets: Vec<KeyValue>) -> (Matcher, WatchId) {
    let mut matcher = Matcher::new(&config(), NODE, [3; 32], CallNumbers::new(1, 1));
    matcher.start(at(1));
    matcher.set_lease(at(1), Some(LEASE));
    let (id, _) = next(&mut matcher).expect("it claims the election");
    let elected = kv(keys::matcher(&name("duel")), encode(&v1::MatcherRecord { node: NODE.0 }), 5);
    let answers = vec![Answer::Put { prev: None }, range(vec![elected])];
    matcher.handle_event(at(1), reply(id, 5, Answer::Txn { succeeded: true, answers }));
    let (id, _) = next(&mut matcher).expect("it lists the tickets");
    matcher.handle_event(at(1), reply(id, 5, range(tickets)));
    let Some(RegistryCommand::Watch { id, watch }) = matcher.poll_call() else { panic!("no watch") };
    assert_eq!(watch.span, keys::tickets());
    (matcher, id)
}

fn next(matcher: &mut Matcher) -> Option<(CallId, Request)> {
    request(core::iter::from_fn(|| matcher.poll_call()))
}

#[test]
fn a_match_is_not_over_because_an_answer_lacks_its_players() {
    let (mut matcher, _) = elected(Vec::new());
    matcher.handle_timeout(at(600));
    let (id, _) = next(&mut matcher).expect("it lists the matches");
    let team = |player: &str| v1::Team { players: vec![player.into()] };
    let matched = v1::Matched {
        r#match: "1-1".into(),
        mode: "duel".into(),
        room: keys::room_of("1-1"),
        teams: vec![team("ann"), team("bob")],
        ..v1::Matched::default()
    };
    let record = v1::MatchRecord { r#match: Some(matched), ..v1::MatchRecord::default() };
    let listed = range(vec![kv(keys::match_key("1-1"), encode(&record), 5)]);
    matcher.handle_event(at(600), reply(id, 5, listed));
    let (id, look) = next(&mut matcher).expect("it reads room and notices");
    let answers = vec![range(Vec::new())];
    matcher.handle_event(at(600), reply(id, 5, Answer::Txn { succeeded: true, answers }));
    assert_eq!(next(&mut matcher), None, "nothing is known of the players");
    matcher.handle_timeout(at(610));
    let (id, again) = next(&mut matcher).expect("it reads them again");
    assert_eq!(again, look);
    let answers = vec![range(Vec::new()); 3];
    matcher.handle_event(at(610), reply(id, 5, Answer::Txn { succeeded: true, answers }));
    let Some((_, Request::Txn(end))) = next(&mut matcher) else { panic!("the match is over") };
    assert!(end.success.len() == 1 && !end.compares.is_empty());
}

#[test]
fn a_match_that_is_refused_ends_no_later_ticket() {
    let ticket = |player: &str, revision| {
        let (queue, state) = (Some(alone("duel")), v1::TicketState::Waiting.into());
        let record =
            v1::TicketRecord { queue, state, queued_ms: at(1).wall.0, ..v1::TicketRecord::default() };
        kv(keys::ticket(&name(player)), encode(&record), revision)
    };
    for at_once in [true, false] {
        let (mut matcher, id) = elected(vec![ticket("ann", 2), ticket("bob", 3)]);
        matcher.handle_timeout(at(1));
        let (form, _) = next(&mut matcher).expect("a match forms");
        // Meanwhile Ann ends her search, and begins another one.
        let gone = Change::Delete { key: keys::ticket(&name("ann")), revision: 6, prev: None };
        let comes = Change::Put { kv: ticket("ann", 7), prev: None };
        let reports = if at_once { vec![vec![gone, comes]] } else { vec![vec![gone], vec![comes]] };
        for (changes, revision) in reports.into_iter().zip(7..) {
            let news = News::Changes(changes);
            matcher.handle_event(at(1), RegistryEvent::Watched(Watched { id, revision, news }));
        }
        let outcome = Err(Failure::Refused(Error::TooLarge));
        matcher.handle_event(at(1), RegistryEvent::Reply { id: form, outcome });
        let ends = core::iter::from_fn(|| next(&mut matcher)).map(|(_, request)| match request {
            Request::Txn(Txn { mut success, .. }) => success.pop(),
            _ => None,
        });
        let keys = ends.map(|op| match op {
            Some(RegistryOp::Put(put)) => put.key,
            _ => Bytes::new(),
        });
        assert_eq!(keys.collect::<Vec<_>>(), [keys::ticket(&name("bob"))]);
        assert!(matches!(matcher.explain(at(1).instant, &name("ann")), Some(Standing::Waits(_))));
    }
}

#[test]
fn a_waiting_ticket_without_a_request_is_no_ticket() {
    let mut c = cluster(1, &[]);
    let record = v1::TicketRecord { state: v1::TicketState::Waiting.into(), ..v1::TicketRecord::default() };
    c.ask(&Request::Put(Put::new(keys::ticket(&name("ann")), encode(&record), None)));
    c.connect("ann", 0);
    run(&mut c, 1);
    assert_eq!((c.ticket("ann"), c.heard("ann")), (None, Vec::new()));
    c.queue("ann", alone("duel"));
    run(&mut c, 1);
    assert_eq!(c.heard("ann"), [v1::TicketState::Waiting]);
}
