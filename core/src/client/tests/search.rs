//! Searching for a match.

use skirmish_proto::v1::TicketState;

use super::*;
use crate::client::CommandError;

fn wish() -> v1::Queue {
    v1::Queue { mode: "duel".into(), ..v1::Queue::default() }
}

fn searching() -> Script {
    let mut script = Script::connected();
    script.client.queue(script.now, wish()).unwrap();
    assert_eq!(script.sent(), [ToServer::Queue(wish())]);
    script
}

impl Script {
    fn ticket(&mut self, state: TicketState) -> Vec<Event> {
        self.events();
        let queued = v1::Queued { state: state.into(), mode: "duel".into(), ..v1::Queued::default() };
        self.tell(v1::Kind::Queued, &queued);
        self.events()
    }

    fn matched(&mut self, id: &str) -> Vec<Event> {
        self.events();
        self.tell(v1::Kind::Matched, &v1::Matched { r#match: id.into(), ..v1::Matched::default() });
        self.events()
    }
}

#[test]
fn a_search_is_sent_again_on_every_connection_until_it_has_ended() {
    let mut script = searching();
    assert_eq!(script.client.queue(script.now, wish()), Err(CommandError::Searching));
    assert_eq!(script.ticket(TicketState::Waiting).len(), 1);
    script.cut();
    script.welcome(true);
    assert_eq!(script.sent(), [ToServer::Queue(wish())]);
    assert_eq!(script.matched("m1").len(), 1);
    assert!(!script.client.is_searching());
    assert_eq!(script.matched("m1"), [], "it is told until it is over");
    let filled = v1::Matched { r#match: "m1".into(), fills: 1, ..v1::Matched::default() };
    script.tell(v1::Kind::Matched, &filled);
    assert_eq!(script.events(), [Event::Matched(filled)], "somebody has come");
    assert_eq!(script.matched("m1"), [], "that is older");
    script.cut();
    script.welcome(true);
    assert_eq!(script.sent(), []);
}

#[test]
fn a_search_is_given_up_once_the_server_says_so() {
    let mut script = searching();
    script.client.cancel(script.now).unwrap();
    assert_eq!(script.sent(), [ToServer::Cancel(v1::Cancel {})]);
    assert!(script.client.is_searching(), "it may have ended in a match");
    script.ticket(TicketState::Cancelled);
    assert!(!script.client.is_searching());
    assert_eq!(script.client.cancel(script.now), Err(CommandError::NotSearching));
}

#[test]
fn the_late_answer_to_a_cancel_does_not_end_the_next_search() {
    let mut script = searching();
    script.client.cancel(script.now).unwrap();
    script.sent();
    // They cross: the ticket had timed out.
    script.ticket(TicketState::TimedOut);
    script.client.queue(script.now, wish()).unwrap();
    script.sent();
    assert_eq!(script.ticket(TicketState::None), []);
    assert!(script.client.is_searching());
    // Also if that one is given up, which is not sent yet.
    script.client.cancel(script.now).unwrap();
    assert_eq!(script.ticket(TicketState::None), []);
    assert_eq!(script.sent(), [ToServer::Cancel(v1::Cancel {})]);
    assert_eq!(script.ticket(TicketState::Cancelled).len(), 1);
    assert!(!script.client.is_searching());
}

#[test]
fn whoever_is_still_in_a_match_hears_of_it_when_he_searches_for_another() {
    let mut script = searching();
    script.matched("m1");
    script.client.queue(script.now, wish()).unwrap();
    script.sent();
    assert_eq!(script.matched("m1").len(), 1);
    assert!(!script.client.is_searching());
}

#[test]
fn a_search_that_was_given_up_is_not_begun_anew_on_the_next_connection() {
    let mut script = searching();
    script.client.cancel(script.now).unwrap();
    script.sent();
    script.cut();
    script.welcome(true);
    assert_eq!(script.sent(), [ToServer::Cancel(v1::Cancel {})]);
    script.ticket(TicketState::None);
    assert!(!script.client.is_searching());
    // The next one is asked for again.
    script.client.queue(script.now, wish()).unwrap();
    assert_eq!(script.sent(), [ToServer::Queue(wish())]);
}

#[test]
fn a_ticket_of_a_search_that_has_ended_is_taken_back() {
    let mut script = searching();
    script.matched("m1");
    script.client.queue(script.now, wish()).unwrap();
    script.cut();
    script.welcome(true);
    // They cross: the server tells the old match before it hears of the new search.
    assert_eq!(script.sent(), [ToServer::Queue(wish())]);
    script.matched("m1");
    assert!(!script.client.is_searching());
    assert_eq!(script.ticket(TicketState::Waiting), []);
    assert_eq!(script.sent(), [ToServer::Cancel(v1::Cancel {})]);
    assert_eq!(script.ticket(TicketState::Waiting), []);
    assert_eq!(script.sent(), []);
    // As long as nobody has said that it is gone.
    script.cut();
    script.welcome(true);
    assert_eq!(script.sent(), [ToServer::Cancel(v1::Cancel {})]);
    assert_eq!(script.ticket(TicketState::Cancelled), []);
    script.cut();
    script.welcome(true);
    assert_eq!(script.sent(), []);
    // A ticket from before the client was started may be wanted.
    assert_eq!(script.ticket(TicketState::Waiting).len(), 1);
    assert_eq!(script.sent(), []);
}
