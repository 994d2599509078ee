//! Searching for a match.

use skirmish_proto::v1::TicketState;

use super::*;
use crate::client::CommandError;

fn request() -> v1::Queue {
    v1::Queue { mode: "duel".into(), ..v1::Queue::default() }
}

/// Returns the request that is sent for a search.
fn asks(search: u64) -> ToServer {
    ToServer::Queue(v1::Queue { search, ..request() })
}

fn gives_up(search: u64) -> ToServer {
    ToServer::Cancel(v1::Cancel { search, ..v1::Cancel::default() })
}

/// Creates a client that searches. Returns the client and the number of the search.
fn searching() -> (Script, u64) {
    let mut script = Script::connected();
    let search = script.search();
    (script, search)
}

impl Script {
    /// Begins a search, and returns its number.
    fn search(&mut self) -> u64 {
        self.client.queue(self.now, request()).unwrap();
        let search = self.client.search().unwrap();
        assert_eq!(self.sent(), [asks(search)]);
        search
    }

    fn ticket(&mut self, search: u64, state: TicketState) -> Vec<Event> {
        self.events();
        let mode = "duel".into();
        let queued = v1::Queued { search, state: state.into(), mode, ..v1::Queued::default() };
        self.tell(v1::Kind::Queued, &queued);
        self.events()
    }

    fn matched(&mut self, search: u64, id: &str) -> Vec<Event> {
        self.events();
        let matched = v1::Matched { search, r#match: id.into(), ..v1::Matched::default() };
        self.tell(v1::Kind::Matched, &matched);
        self.events()
    }
}

#[test]
fn a_search_is_sent_again_on_every_connection_until_it_has_ended() {
    let (mut script, search) = searching();
    assert_eq!(script.client.queue(script.now, request()), Err(CommandError::Searching));
    assert_eq!(script.ticket(search, TicketState::Waiting).len(), 1);
    script.cut();
    script.welcome(true);
    assert_eq!(script.sent(), [asks(search)]);
    assert_eq!(script.matched(search, "m1").len(), 1);
    assert!(!script.client.is_searching());
    assert_eq!(script.matched(search, "m1"), [], "it is told until it is over");
    let filled = v1::Matched { search, r#match: "m1".into(), fills: 1, ..v1::Matched::default() };
    script.tell(v1::Kind::Matched, &filled);
    assert_eq!(script.events(), [Event::Matched(filled)], "somebody has come");
    assert_eq!(script.matched(search, "m1"), [], "that is older");
    script.cut();
    script.welcome(true);
    assert_eq!(script.sent(), []);
}

#[test]
fn a_search_is_given_up_once_the_server_says_so() {
    let (mut script, search) = searching();
    script.client.cancel(script.now).unwrap();
    assert_eq!(script.sent(), [gives_up(search)]);
    assert!(script.client.is_searching(), "it may have ended in a match");
    script.ticket(search, TicketState::Cancelled);
    assert!(!script.client.is_searching());
    assert_eq!(script.client.cancel(script.now), Err(CommandError::NotSearching));
}

#[test]
fn a_ticket_that_is_lost_is_asked_for_again_on_the_connection_that_was_told() {
    let (mut script, search) = searching();
    let lost = |search, session_epoch| {
        let state = TicketState::Lost.into();
        v1::Queued { search, state, session_epoch, ..v1::Queued::default() }
    };
    let session_epoch = 1 << 20;
    script.tell(v1::Kind::Queued, &lost(search, session_epoch));
    assert_eq!(script.sent(), [ToServer::Queue(v1::Queue { search, session_epoch, ..request() })]);
    script.tell(v1::Kind::Queued, &lost(search - 1, session_epoch + 1));
    assert_eq!(script.sent(), [], "that is no search of its own that goes on");
    // An epoch that was received on one connection is not sent with the `Queue` on the next one,
    // but with the `Resume`. A `Welcome` in between does not lower the epoch.
    for _ in 0..2 {
        script.cut();
        assert_eq!(script.welcome(true).resume.map(|resume| resume.epoch), Some(session_epoch));
    }
    assert_eq!(script.sent(), [asks(search)]);
    script.client.cancel(script.now).unwrap();
    assert_eq!(script.sent(), [gives_up(search)]);
    script.tell(v1::Kind::Queued, &lost(search, session_epoch));
    assert_eq!(script.sent(), [], "it was given up");
    assert!(script.client.is_searching());
}

#[test]
fn every_search_has_a_number_of_its_own_also_in_another_life() {
    let (mut script, first) = searching();
    script.ticket(first, TicketState::TimedOut);
    let second = script.search();
    assert_eq!(second, first + 1);
    let mut other = Client::new(config(), [4; 32]);
    // The application does not choose the number.
    other.queue(script.now, v1::Queue { search: first, ..request() }).unwrap();
    let third = other.search().unwrap();
    assert!(third.abs_diff(first) > 1_000, "{first} and {third}");
    assert!(first != 0 && third != 0);
}

#[test]
fn what_is_told_of_other_searches_is_no_answer_to_the_one_that_goes_on() {
    let (mut script, first) = searching();
    script.client.cancel(script.now).unwrap();
    script.sent();
    // The messages cross: the ticket had timed out.
    script.ticket(first, TicketState::TimedOut);
    let second = script.search();
    // Repeated answers to the first search, and an answer to a search of another client of the
    // player.
    for search in [first, second + 7, 0] {
        for state in [TicketState::None, TicketState::Cancelled, TicketState::TimedOut] {
            assert_eq!(script.ticket(search, state), []);
        }
        assert_eq!(script.ticket(search, TicketState::Waiting), []);
        assert_eq!(script.matched(search, "m1"), []);
    }
    assert_eq!(script.client.search(), Some(second));
    assert_eq!(script.matched(second, "m1").len(), 1);
    assert!(!script.client.is_searching());
}

#[test]
fn whoever_is_still_in_a_match_hears_of_it_when_he_searches_for_another() {
    let (mut script, first) = searching();
    script.matched(first, "m1");
    let second = script.search();
    assert_eq!(script.matched(first, "m1"), [], "the server has not heard of the search");
    assert_eq!(script.matched(second, "m1").len(), 1);
    assert!(!script.client.is_searching());
}

#[test]
fn a_search_that_was_given_up_is_not_begun_anew_on_the_next_connection() {
    let (mut script, first) = searching();
    script.client.cancel(script.now).unwrap();
    script.sent();
    script.cut();
    script.welcome(true);
    assert_eq!(script.sent(), [gives_up(first)]);
    script.ticket(first, TicketState::None);
    assert!(!script.client.is_searching());
    // The next search is requested again.
    script.search();
}

#[test]
fn while_no_search_goes_on_the_player_hears_of_what_an_earlier_life_of_the_client_asked_for() {
    let (mut script, first) = searching();
    script.ticket(first, TicketState::TimedOut);
    let earlier = first - 1;
    for state in [TicketState::Waiting, TicketState::TimedOut] {
        let told = script.ticket(earlier, state);
        assert!(matches!(told[..], [Event::Ticket { search, .. }] if search == earlier), "{told:?}");
        assert_eq!(script.ticket(first, state), [], "it has ended");
    }
    assert_eq!(script.matched(earlier, "m1").len(), 1);
    assert_eq!(script.sent(), []);
}
