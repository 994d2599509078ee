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
