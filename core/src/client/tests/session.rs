//! Connecting, resuming, giving up.

use super::*;

fn states(events: &[Event]) -> Vec<ClientState> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::StateChanged { to, .. } => Some(*to),
            _ => None,
        })
        .collect()
}

#[test]
fn a_fresh_session_is_connected_at_the_welcome() {
    let mut script = Script::new(config());
    assert_eq!(script.client.poll_timeout(), None);
    script.connect();
    assert_eq!(script.client.state(), ClientState::Syncing);
    let hello = script.welcome(false);
    assert_eq!(hello.resume, None);
    assert!(hello.accept_zstd && hello.seal_key.is_empty());
    assert!(script.outputs.contains(&Output::Dial));
    let events = script.events();
    assert!(events.contains(&Event::Session { epoch: 1, resumed: false, lost: false }));
    assert_eq!(states(&events), [ClientState::Connecting, ClientState::Syncing, ClientState::Connected]);
}

#[test]
fn rooms_that_are_wanted_ride_with_the_hello() {
    let mut script = Script::new(config());
    script.client.join(script.now, "a", 3).unwrap();
    script.connect();
    let hello = script.welcome(false);
    assert_eq!(hello.joins, [v1::Join { room: "a".into(), history: 3, request: 0 }]);
    assert_eq!((script.client.state(), script.sent()), (ClientState::Connected, Vec::new()));
    script.joined(5, 10, 0, false);
    script.settle_state();
    // If the connection is lost before the answer, the membership is unknown, so the join is sent
    // again.
    script.client.join(script.now, "b", 0).unwrap();
    script.cut();
    let hello = script.hello();
    assert_eq!(hello.resume.unwrap().rooms.len(), 1);
    assert_eq!(hello.joins, [v1::Join { room: "b".into(), history: 0, request: 0 }]);
    script.cut();
    let hello = script.welcome(true);
    assert_eq!(hello.joins, [v1::Join { room: "b".into(), history: 0, request: 0 }]);
}

#[test]
fn a_hello_takes_sixteen_rooms_and_none_that_are_to_be_sealed() {
    let mut script = Script::connected();
    script.client.limits.rooms = 20;
    script.client.handle_disconnected(script.now);
    for room in 0..20 {
        script.drain();
        script.client.join(script.now, &alloc::format!("room-{room:02}"), 0).unwrap();
    }
    script.drain();
    script.reconnect();
    let hello = script.welcome(true);
    assert_eq!((hello.joins.len(), script.sent().len()), (16, 4));

    let mut script = Script::new(ClientConfig { seal: true, ..config() });
    script.client.join(script.now, "a", 0).unwrap();
    script.connect();
    assert_eq!(script.hello().joins, []);
}

#[test]
fn what_a_hello_has_asked_for_is_the_new_sessions_when_the_old_one_is_lost() {
    for leaves in [false, true] {
        let mut script = Script::connected();
        script.client.handle_disconnected(script.now);
        script.drain();
        script.client.join(script.now, "a", 0).unwrap();
        script.reconnect();
        assert_eq!(script.hello().joins.len(), 1);
        if leaves {
            script.client.leave(script.now, "a").unwrap();
            script.drain();
        }
        script.tell(v1::Kind::Welcome, &welcome(false));
        if !leaves {
            assert_eq!(script.sent(), []);
            script.client.leave(script.now, "a").unwrap();
            script.drain();
        }
        // The server has let the client in, so a `Leave` is necessary.
        assert_eq!(script.sent(), [ToServer::Leave(v1::Leave { room: "a".into(), request: 0 })]);
        script.events();
        script.left(v1::LeftReason::Asked);
        assert!(matches!(&script.events()[..], [Event::Left { reason: v1::LeftReason::Asked, .. }]));
        assert_eq!(script.client.rooms().count(), 0);
    }
}

#[test]
fn queued_output_is_a_deadline_that_is_due() {
    let mut script = Script::new(config());
    script.client.connect(script.now);
    assert_eq!(script.client.poll_timeout().unwrap().at, script.now.instant);
    script.drain();
    assert!(script.client.poll_timeout().unwrap().at > script.now.instant);
}

#[test]
fn a_resume_names_the_session_and_the_cursors_and_waits_for_the_answers() {
    let mut script = Script::in_room();
    script.entry(11, 2, 1);
    script.cut();
    let hello = script.welcome(true);
    let resume = hello.resume.unwrap();
    assert_eq!(resume.session, Bytes::from_static(&SESSION));
    assert_eq!(resume.rooms, [v1::RoomCursor { room: "a".into(), epoch: 5, seq: 11, request: 0 }]);
    assert_eq!(script.client.state(), ClientState::Syncing);
    assert_eq!(script.sent(), []);
    script.joined(5, 11, 0, true);
    assert_eq!(script.client.state(), ClientState::Connected);
    script.entry(12, 2, 2);
    let events = script.events();
    assert!(matches!(events.last(), Some(Event::Entry { cursor, .. }) if cursor.seq == 12));
}

#[test]
fn pings_are_answered_while_syncing_and_while_connected() {
    let mut script = Script::in_room();
    script.tell(v1::Kind::Ping, &v1::Ping { nonce: 1, rtt_us: 1_500 });
    assert_eq!(script.sent(), [ToServer::Pong(v1::Pong { nonce: 1 })]);
    assert_eq!(script.client.rtt(), Some(Duration::from_micros(1_500)));
    script.cut();
    script.welcome(true);
    script.tell(v1::Kind::Ping, &v1::Ping { nonce: 2, rtt_us: 0 });
    assert_eq!(script.client.state(), ClientState::Syncing);
    assert_eq!(script.sent(), [ToServer::Pong(v1::Pong { nonce: 2 })]);
}

#[test]
fn a_dead_path_is_left_within_seconds_where_the_server_answers_pings() {
    let mut script = Script::new(config());
    script.connect();
    script.hello();
    script.tell(v1::Kind::Welcome, &v1::Welcome { answers_pings: true, ..welcome(false) });
    let ping = |nonce, rtt_us| [ToServer::Ping(v1::Ping { nonce, rtt_us })];
    let _ = script.sent();
    // Answered by the pong, and by any other frame.
    assert_eq!(script.sleep_to_deadline(), "the server is silent");
    assert_eq!(script.sent(), ping(1, 0));
    script.sleep(Duration::from_millis(100));
    script.tell(v1::Kind::Pong, &v1::Pong { nonce: 1 });
    assert_eq!(script.client.rtt(), Some(Duration::from_millis(100)));
    assert_eq!(script.sleep_to_deadline(), "the server is silent");
    assert_eq!(script.sent(), ping(2, 100_000));
    script.tell(v1::Kind::Left, &v1::Left { room: "b".into(), ..v1::Left::default() });
    assert_eq!(script.client.state(), ClientState::Connected);
    // Not answered: the connection is dead within seconds.
    let since = script.now.instant;
    assert_eq!(script.sleep_to_deadline(), "the server is silent");
    assert_eq!(script.sent(), ping(3, 100_000));
    assert_eq!(script.sleep_to_deadline(), "the server is silent");
    assert_eq!(script.client.state(), ClientState::Disconnected);
    assert_eq!(script.now.instant.since(since), Duration::from_secs(7));
    // The round trip of the next connection is measured anew.
    script.reconnect();
    script.hello();
    script.tell(v1::Kind::Welcome, &v1::Welcome { answers_pings: true, epoch: 2, ..welcome(true) });
    assert_eq!(script.client.state(), ClientState::Connected);
}

#[test]
fn whoever_waits_for_an_answer_asks_sooner() {
    let mut script = Script::new(config());
    script.connect();
    script.hello();
    script.tell(v1::Kind::Welcome, &v1::Welcome { answers_pings: true, ..welcome(false) });
    script.client.join(script.now, "a", 0).unwrap();
    let _ = script.sent();
    let since = script.now.instant;
    while script.client.state() == ClientState::Connected {
        script.sleep_to_deadline();
        let _ = script.sent();
    }
    // Before any round trip was measured: two seconds of silence, four for the answer.
    assert_eq!(script.now.instant.since(since), Duration::from_secs(6));
}

#[test]
fn a_silent_server_is_hung_up_on_after_four_heartbeats_and_dialled_again() {
    let mut script = Script::connected();
    script.sleep(Duration::from_millis(3_999));
    assert_eq!(script.client.state(), ClientState::Connected);
    assert_eq!(script.sleep_to_deadline(), "the server is silent");
    assert_eq!(script.client.state(), ClientState::Disconnected);
    assert!(script.outputs.contains(&Output::Hangup));
    script.outputs.clear();
    script.sleep_to_deadline();
    assert!(script.outputs.contains(&Output::Dial));
}

#[test]
fn dial_and_handshake_have_a_deadline() {
    let mut script = Script::new(config());
    script.client.connect(script.now);
    script.drain();
    assert_eq!(script.sleep_to_deadline(), "the dial takes too long");
    script.reconnect();
    assert_eq!(script.sleep_to_deadline(), "the handshake takes too long");
    assert_eq!(script.client.state(), ClientState::Disconnected);
}

#[test]
fn waits_follow_what_the_server_asks_for() {
    let mut script = Script::connected();
    let goodbye =
        v1::Goodbye { reason: v1::Reason::Draining.into(), message: String::new(), retry_after_ms: 20_000 };
    script.tell(v1::Kind::Goodbye, &goodbye);
    assert_eq!(script.closed(), Some(v1::Reason::Draining));
    let wait = script.client.poll_timeout().unwrap().at - script.now.instant;
    assert!(wait >= Duration::from_secs(20) && wait <= Duration::from_secs(23), "{wait:?}");
}

#[test]
fn after_a_healthy_connection_the_first_dial_is_at_once_and_the_next_after_a_back_off() {
    let wait = |script: &Script| script.client.poll_timeout().unwrap().at - script.now.instant;
    let ms = Duration::from_millis;
    for (lived, waits) in [(2_999, ms(500)..=ms(1_000)), (3_000, ms(0)..=ms(250))] {
        let mut script = Script::connected();
        script.sleep(ms(lived));
        script.client.handle_disconnected(script.now);
        script.drain();
        assert!(waits.contains(&wait(&script)), "{lived}: {:?}", wait(&script));
        script.sleep_to_deadline();
        assert_eq!(script.client.state(), ClientState::Connecting);
        script.client.handle_disconnected(script.now);
        script.drain();
        assert!((ms(500)..=ms(2_000)).contains(&wait(&script)), "{:?}", wait(&script));
    }
}

#[test]
fn connect_cuts_the_back_off_short() {
    let mut script = Script::connected();
    script.client.handle_disconnected(script.now);
    script.drain();
    script.client.connect(script.now);
    script.drain();
    assert_eq!(script.client.state(), ClientState::Connecting);
}

#[test]
fn after_a_final_reason_nothing_is_dialled() {
    use v1::Reason;
    for reason in [Reason::TakenOver, Reason::Kicked, Reason::Unauthenticated, Reason::Incompatible] {
        let mut script = Script::connected();
        script.tell(v1::Kind::Goodbye, &v1::Goodbye { reason: reason.into(), ..v1::Goodbye::default() });
        assert!(script.outputs.contains(&Output::Hangup));
        assert_eq!(script.closed(), Some(reason));
        assert_eq!((script.client.state(), script.client.poll_timeout()), (ClientState::Idle, None));
    }
}

#[test]
fn disconnect_says_goodbye_and_settles_everything() {
    let mut script = Script::in_room();
    let sent = script.say("sent");
    script.sent();
    let unsent = script.say("unsent");
    script.client.disconnect(script.now);
    script.drain();
    assert!(script.outputs.contains(&Output::Hangup));
    assert_eq!(script.outcomes(), [(sent, Outcome::Unknown), (unsent, Outcome::Refused)]);
    let goodbye = v1::Goodbye { reason: v1::Reason::ClientLeft.into(), ..v1::Goodbye::default() };
    assert_eq!(script.sent(), [ToServer::Goodbye(goodbye)]);
    assert_eq!((script.client.state(), script.client.poll_timeout()), (ClientState::Idle, None));
}

#[test]
fn malformed_frames_and_frames_out_of_turn_break_the_protocol() {
    let ping = encode(v1::Kind::Ping, &v1::Metadata::default(), &v1::Ping::default());
    let hello = encode(v1::Kind::Hello, &v1::Metadata::default(), &v1::Hello::default());
    let mut other = ping.to_vec();
    other[5] += 1;
    for (frame, fault) in [
        (Bytes::from_static(b"nonsense"), Fault::Wire(WireError::BadMagic)),
        (Bytes::from(other), Fault::UnknownVersion),
        (ping, Fault::BeforeWelcome),
        (hello, Fault::Wire(WireError::WrongDirection(v1::Kind::Hello))),
    ] {
        let mut script = Script::new(config());
        script.connect();
        script.hello();
        script.client.handle_frame(script.now, frame);
        script.drain();
        assert!(script.outputs.contains(&Output::Hangup));
        assert_eq!(script.fault(), Some(fault));
        // After a fault that the server would cause again, the client does not dial again.
        let is_final = fault.reason() == v1::Reason::Incompatible;
        assert_eq!(
            script.client.state(),
            if is_final { ClientState::Idle } else { ClientState::Disconnected }
        );
    }
    let mut script = Script::connected();
    script.tell(v1::Kind::Welcome, &welcome(false));
    assert_eq!(script.fault(), Some(Fault::SecondWelcome));
}

#[test]
fn events_that_nobody_polls_close_the_connection() {
    let mut script = Script::new(ClientConfig { events: 8, ..config() });
    script.connect();
    script.welcome(false);
    script.outputs.clear();
    let metadata = v1::Metadata { type_url: "t".into(), ..v1::Metadata::default() };
    for _ in 0..100 {
        let frame = wire::encode_bytes(v1::Kind::Application, &metadata, b"x");
        script.client.handle_frame(script.now, frame);
    }
    assert_eq!(script.client.join(script.now, "b", 0), Err(super::super::CommandError::Undrained));
    script.drain();
    assert!(script.outputs.len() <= 8 + 3);
    assert_eq!(script.fault(), Some(Fault::NotPolled));
}

#[test]
fn a_sealed_session_seals_both_ways() {
    for pinned in [false, true] {
        let statik = [9; 32];
        let key = pinned.then(|| wire::seal::public_key(statik));
        let mut script = Script::new(ClientConfig { seal: true, pinned: key, ..config() });
        script.connect();
        let hello = script.hello();
        assert_eq!(hello.seal_pinned, pinned);
        let statik = pinned.then_some(statik);
        let (public, mut seal) = wire::seal::answer([4; 32], statik, &hello.seal_key, &SESSION).unwrap();
        let seal_key = Bytes::copy_from_slice(&public);
        script.tell(v1::Kind::Welcome, &v1::Welcome { seal_key, ..welcome(false) });
        let ping = encode(v1::Kind::Ping, &v1::Metadata::default(), &v1::Ping { nonce: 3, rtt_us: 0 });
        script.client.handle_frame(script.now, seal.seal(&ping).unwrap());
        script.drain();
        let frame = Frame::decode(script.client.poll_transmit(script.now).unwrap(), 1 << 16).unwrap();
        let pong = ToServer::decode(&seal.open(frame).unwrap()).unwrap();
        assert_eq!(pong, ToServer::Pong(v1::Pong { nonce: 3 }));
        script.outputs.clear();
        script.client.handle_frame(script.now, ping);
        script.drain();
        assert_eq!(script.fault(), Some(Fault::Wire(WireError::NotSealed)));
    }
}

#[test]
fn a_server_that_does_not_seal_is_incompatible() {
    let mut script = Script::new(ClientConfig { seal: true, ..config() });
    script.connect();
    script.welcome(false);
    assert_eq!(script.fault(), Some(Fault::NoSeal));
    assert_eq!(script.client.state(), ClientState::Idle);
}

#[test]
fn whoever_logs_in_too_often_waits_as_long_as_the_server_says() {
    let limited = || v1::Goodbye {
        reason: v1::Reason::RateLimited.into(),
        message: String::new(),
        retry_after_ms: 20_000,
    };
    let mut script = Script::connected();
    script.tell(v1::Kind::Goodbye, &limited());
    let wait = script.client.poll_timeout().unwrap().at - script.now.instant;
    assert!(wait >= Duration::from_secs(20) && wait <= Duration::from_secs(23), "{wait:?}");
    // An impatient application does not shorten the wait.
    script.sleep(Duration::from_secs(19));
    script.client.connect(script.now);
    script.drain();
    assert_eq!(script.client.state(), ClientState::Disconnected);
    script.reconnect();
    // A client that is refused before the upgrade waits as well.
    let mut script = Script::connected();
    script.client.handle_disconnected(script.now);
    script.drain();
    script.sleep_to_deadline();
    script.drain();
    assert_eq!(script.client.state(), ClientState::Connecting);
    script.client.handle_refused(script.now, Duration::from_secs(20));
    script.drain();
    let wait = script.client.poll_timeout().unwrap().at - script.now.instant;
    assert!(wait >= Duration::from_secs(20) && wait <= Duration::from_secs(23), "{wait:?}");
}

#[test]
fn a_welcome_that_makes_no_sense_is_the_servers_fault() {
    let short = v1::Welcome { session: Bytes::from_static(b"short"), ..welcome(false) };
    let no_session = Fault::Wire(WireError::BadFieldLength("Welcome.session"));
    for (welcome, fault) in [(short, no_session), (welcome(true), Fault::ResumedUnasked)] {
        let mut script = Script::new(config());
        script.connect();
        script.hello();
        script.tell(v1::Kind::Welcome, &welcome);
        assert_eq!(script.fault(), Some(fault));
    }
}

#[test]
fn a_goodbye_is_no_fault() {
    let mut script = Script::connected();
    let goodbye = v1::Goodbye { reason: v1::Reason::ProtocolError.into(), ..v1::Goodbye::default() };
    script.tell(v1::Kind::Goodbye, &goodbye);
    let closed =
        |event: &Event| matches!(event, Event::Closed { reason: v1::Reason::ProtocolError, fault: None, .. });
    assert!(script.events().iter().any(closed));
}
