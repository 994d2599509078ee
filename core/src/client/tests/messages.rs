//! Reliable and latest messages on their way to the server.

use super::super::CommandError;
use super::*;

fn throttle(script: &mut Script, expected: u64, retry_after_ms: u32) {
    let class = v1::Class::Reliable.into();
    let throttle = v1::Throttle { room: "a".into(), class, expected, retry_after_ms };
    script.tell(v1::Kind::Throttle, &throttle);
}

#[test]
fn what_is_unacknowledged_is_sent_again_in_order_after_a_resume() {
    let mut script = Script::in_room();
    let ids = ["x", "y", "z"].map(|text| script.say(text));
    assert_eq!(script.said(), [(1, "x".into()), (2, "y".into()), (3, "z".into())]);
    script.cut();
    script.say("offline");
    script.welcome(true);
    script.joined(5, 10, 1, true);
    assert_eq!(script.outcomes(), [(ids[0], Outcome::Acknowledged)]);
    assert_eq!(script.said(), [(2, "y".into()), (3, "z".into()), (4, "offline".into())]);
    script.entry(11, 1, 1);
    let named = script
        .events()
        .into_iter()
        .any(|event| matches!(event, Event::Entry { message: Some(id), .. } if id == ids[0]));
    assert!(named, "the entry names its message though that was acknowledged before");
}

#[test]
fn a_throttle_goes_back_to_the_number_expected_and_waits() {
    let mut script = Script::in_room();
    let ids = ["x", "y", "z"].map(|text| script.say(text));
    script.sent();
    script.entry(11, 1, 1);
    throttle(&mut script, 2, 300);
    throttle(&mut script, 2, 300);
    assert_eq!(script.outcomes(), [(ids[0], Outcome::Acknowledged)]);
    script.sleep(Duration::from_millis(299));
    assert_eq!(script.said(), []);
    assert_eq!(script.sleep_to_deadline(), "the throttle is over");
    assert_eq!(script.said(), [(2, "y".into()), (3, "z".into())]);
    // A `Throttle` that an acknowledgement has overtaken causes no message to be sent twice.
    script.entry(12, 1, 3);
    throttle(&mut script, 2, 0);
    script.sleep(Duration::from_millis(1));
    assert_eq!(script.said(), []);
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_breaks_the_protocol() {
    let mut script = Script::in_room();
    script.say("unsent");
    script.tell(v1::Kind::Ack, &v1::Ack { room: "a".into(), epoch: 5, client_seq: 1 });
    assert_eq!(script.fault(), Some(Fault::NeverSent));
}

#[test]
fn a_resume_that_forgets_acknowledged_messages_breaks_the_protocol() {
    let mut script = Script::in_room();
    script.say("x");
    script.sent();
    script.entry(11, 1, 1);
    script.cut();
    script.welcome(true);
    script.outputs.clear();
    script.joined(5, 11, 0, true);
    assert_eq!(script.fault(), Some(Fault::AcknowledgedLost));
}

#[test]
fn messages_are_kept_while_offline_up_to_the_caps() {
    let mut script = Script::new(ClientConfig { outbox_messages: 3, outbox_bytes: 10, ..config() });
    script.client.join(script.now, "a", 0).unwrap();
    let now = script.now;
    let mut say = |body: &'static [u8]| script.client.say(now, "a", Bytes::from_static(body), "t");
    assert!(say(b"1234").is_ok());
    assert_eq!(say(b"12345"), Err(CommandError::OutboxFull));
    assert!(say(b"1234").is_ok());
    assert_eq!(say(b""), Err(CommandError::OutboxFull));
    assert_eq!(script.client.outstanding(), 2);
    let body = Bytes::from_static(&[0; 20_000]);
    assert_eq!(script.client.say(now, "a", body, ""), Err(CommandError::TooLarge));
}

#[test]
fn no_more_is_in_flight_than_half_a_burst() {
    let mut script = Script::in_room();
    for _ in 0..100 {
        script.say("x");
    }
    assert_eq!(script.said().len(), 60);
    script.entry(11, 1, 30);
    assert_eq!(script.said().len(), 30);
}

#[test]
fn of_latest_messages_the_newest_is_kept_and_sent_once() {
    let mut script = Script::connected();
    script.client.join(script.now, "a", 0).unwrap();
    let now = script.now;
    let mut latest =
        |key, body: &'static [u8]| script.client.latest(now, "a", key, Bytes::from_static(body), "");
    assert_eq!([latest(0, b"old"), latest(1, b"other"), latest(0, b"new")], [Ok(()); 3]);
    assert_eq!(latest(8, b""), Err(CommandError::BadKey));
    script.sent();
    script.joined(5, 10, 0, false);
    let bodies: Vec<Bytes> = script
        .sent()
        .into_iter()
        .filter_map(|message| match message {
            ToServer::Latest(latest) => Some(latest.body),
            _ => None,
        })
        .collect();
    assert_eq!(bodies, ["new", "other"]);
}

#[test]
fn rooms_take_turns() {
    let mut script = Script::in_room();
    script.client.join(script.now, "b", 0).unwrap();
    script.sent();
    let request = script.request("b");
    let joined = v1::Joined { room: "b".into(), epoch: 1, member: 1, request, ..v1::Joined::default() };
    script.tell(v1::Kind::Joined, &joined);
    script.settle_state();
    for room in ["a", "a", "a", "b", "b"] {
        script.client.say(script.now, room, Bytes::new(), "").unwrap();
    }
    let order: Vec<String> = script
        .sent()
        .into_iter()
        .filter_map(|message| match message {
            ToServer::Say(say) => Some(say.room),
            _ => None,
        })
        .collect();
    let first_four: alloc::collections::BTreeSet<_> = [[&order[0], &order[1]], [&order[2], &order[3]]]
        .map(|pair| pair.into_iter().collect::<alloc::collections::BTreeSet<_>>())
        .into();
    assert_eq!(first_four.len(), 1, "{order:?}");
}

#[test]
fn application_messages_need_a_connection() {
    let mut script = Script::connected();
    // The server closes the connection for a body above the limit.
    let largest = crate::config::Config::default().frames.body_bytes;
    let too_large = Bytes::from(alloc::vec![0; largest + 1]);
    assert_eq!(script.client.send(script.now, "t", too_large), Err(CommandError::TooLarge));
    script.client.send(script.now, "game.v1.Ready", Bytes::from_static(b"x")).unwrap();
    assert!(matches!(script.sent().as_slice(), [ToServer::Application { type_url, .. }]
        if type_url == "game.v1.Ready"));
    script.client.handle_disconnected(script.now);
    script.drain();
    assert_eq!(script.client.send(script.now, "t", Bytes::new()), Err(CommandError::NotConnected));
}

#[cfg(feature = "plant")]
#[test]
fn planted_bugs_show() {
    use crate::base::plant::{Plant, Planted};

    let mut script = Script::in_room();
    script.client.plant(Planted::with(Plant::ResentBackwards));
    script.say("x");
    script.say("y");
    script.sent();
    script.cut();
    script.welcome(true);
    script.joined(5, 10, 0, true);
    assert_eq!(script.said(), [(1, "y".into()), (2, "x".into())]);

    let mut script = Script::connected();
    script.client.plant(Planted::with(Plant::BackoffForever));
    script.client.handle_disconnected(script.now);
    script.drain();
    script.sleep_to_deadline();
    assert_eq!((script.client.state(), script.client.poll_timeout()), (ClientState::Idle, None));
}
