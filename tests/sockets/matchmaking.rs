//! Searches for matches, with the program itself, the client library and bots.

use std::collections::BTreeSet;

use skirmish_core::wire::ToClient;
use skirmish_io::client::{ClientState, Event, Queue, TicketState};
use skirmish_proto::v1;
use skirmish_tests::duel::{DUEL, matched, play, queue, state, wish};
use skirmish_tests::eventually;
use skirmish_tests::http::get;
use skirmish_tests::player::{Player, builder};
use skirmish_tests::process::{KeyFile, Process, run};
use skirmish_tests::proxy::Proxy;
use skirmish_tests::socket::Socket;

#[tokio::test]
async fn two_players_are_matched_and_play_again_and_again() {
    let server = Process::start(&[DUEL]).await;
    let mut alice = Player::start(builder(&server.url(), "alice"));
    let mut bob = Player::start(builder(&server.url(), "bob"));
    let mut matches = BTreeSet::new();
    for _ in 0..3 {
        queue(&mut alice).await;
        bob.client.queue(wish("duel")).await.expect("nothing else is searched for");
        let found = [matched(&mut alice).await, matched(&mut bob).await];
        play(&mut alice, &mut bob, found.each_ref()).await;
        matches.insert(found[0].r#match.clone());
    }
    assert_eq!(matches.len(), 3, "every match has a name of its own");
}

#[tokio::test]
async fn a_ticket_that_is_taken_back_is_in_no_match() {
    let server = Process::start(&[DUEL]).await;
    let mut alice = Player::start(builder(&server.url(), "alice"));
    assert!(alice.client.cancel().await.is_err(), "there is nothing to take back");
    let mut carol = Player::start(builder(&server.url(), "carol"));
    queue(&mut carol).await;
    carol.client.cancel().await.expect("she searches");
    assert_eq!(state(&mut carol).await.0, TicketState::Cancelled);
    // Carol would be the opponent if her search still ran.
    queue(&mut alice).await;
    let mut bob = Player::start(builder(&server.url(), "bob"));
    bob.client.queue(wish("duel")).await.expect("nothing else is searched for");
    let found = [matched(&mut alice).await, matched(&mut bob).await];
    play(&mut alice, &mut bob, found.each_ref()).await;
    let seen = carol.leave().await;
    assert!(!seen.iter().any(|event| matches!(event, Event::Matched(_))), "{seen:#?}");
}

#[tokio::test]
async fn what_cannot_be_queued_for_is_refused_with_the_reason() {
    let server = Process::start(&[DUEL]).await;
    let mut alice = Player::start(builder(&server.url(), "alice"));
    alice.client.queue(wish("chess")).await.expect("it is a name");
    let (refused, reason) = state(&mut alice).await;
    assert_eq!(refused, TicketState::Refused);
    assert!(reason.contains("mode"), "{reason}");
    let party = Queue { party: "friends".to_owned(), party_size: 2, ..wish("duel") };
    alice.client.queue(party).await.expect("the search before has ended");
    let (refused, reason) = state(&mut alice).await;
    assert_eq!(refused, TicketState::Refused);
    assert!(reason.contains("party"), "{reason}");
    // She can search again.
    queue(&mut alice).await;

    let without = Process::start(&[]).await;
    let mut bob = Player::start(builder(&without.url(), "bob"));
    bob.client.queue(wish("duel")).await.expect("it is a name");
    let (refused, reason) = state(&mut bob).await;
    assert_eq!(refused, TicketState::Refused);
    assert!(reason.contains("no matches"), "{reason}");
}

#[tokio::test]
async fn a_stranger_with_the_name_of_a_party_is_not_in_it() {
    let duo = "matchmaking.queues=[{ mode = \"duo\", teams = 2, team_size = 2, regions = [\"local\"], interval = \"10ms\" }]";
    let server = Process::start(&[duo]).await;
    let [mut eve, mut alice, mut bob, mut carol, mut dave] =
        ["eve", "alice", "bob", "carol", "dave"].map(|name| Player::start(builder(&server.url(), name)));
    let party = |key: &'static [u8]| Queue {
        party: "friends".to_owned(),
        party_size: 2,
        party_key: key.into(),
        ..wish("duo")
    };
    for (player, wish) in [
        (&mut eve, party(b"")),
        (&mut alice, party(b"secret")),
        (&mut carol, wish("duo")),
        (&mut dave, wish("duo")),
    ] {
        player.client.queue(wish).await.expect("nothing else is searched for");
        assert_eq!(state(player).await.0, TicketState::Waiting);
    }
    let gathers = async || get(server.admin, "/tickets/alice").await.1.contains("1 of the 2 players");
    eventually("the party of alice lacks a player", gathers).await;
    let (_, why) = get(server.admin, "/tickets/alice").await;
    assert!(!why.contains("secret"), "{why}");
    bob.client.queue(party(b"secret")).await.expect("nothing else is searched for");
    let found = [matched(&mut alice).await, matched(&mut bob).await];
    assert_eq!(found[0].team, found[1].team);
    let players: Vec<_> = found[0].teams.iter().flat_map(|team| &team.players).collect();
    assert!(!players.contains(&&"eve".to_owned()), "{players:?}");
    let alone = Queue { party_key: b"secret"[..].into(), ..wish("duo") };
    eve.client.cancel().await.expect("she searches");
    assert_eq!(state(&mut eve).await.0, TicketState::Cancelled);
    eve.client.queue(alone).await.expect("the search before has ended");
    let (refused, reason) = state(&mut eve).await;
    assert!(refused == TicketState::Refused && reason.contains("key"), "{refused:?} {reason}");
}

#[tokio::test]
async fn a_search_that_has_ended_is_answered_again_by_its_number() {
    let server = Process::start(&[DUEL]).await;
    let mut socket = Socket::open(server.address, "alice").await;
    let queue = |search| Queue { search, ..wish("duel") };
    socket.send(v1::Kind::Queue, &queue(5)).await;
    assert_eq!(ticket_state(&mut socket).await, (TicketState::Waiting, 5));
    socket.send(v1::Kind::Cancel, &v1::Cancel { search: 4, ..v1::Cancel::default() }).await;
    assert_eq!(ticket_state(&mut socket).await, (TicketState::None, 4), "that is another one");
    socket.send(v1::Kind::Cancel, &v1::Cancel { search: 5, ..v1::Cancel::default() }).await;
    assert_eq!(ticket_state(&mut socket).await, (TicketState::Cancelled, 5));
    // As if the client had sent this `Queue` before it read the answer.
    socket.send(v1::Kind::Queue, &queue(5)).await;
    assert_eq!(ticket_state(&mut socket).await, (TicketState::Cancelled, 5));
    socket.send(v1::Kind::Queue, &queue(6)).await;
    assert_eq!(ticket_state(&mut socket).await, (TicketState::Waiting, 6));
    let mut bob = Player::start(builder(&server.url(), "bob"));
    bob.client.queue(wish("duel")).await.expect("nothing else is searched for");
    let number = bob.client.search().await.expect("it runs").expect("he searches");
    let answers = |message| match message {
        ToClient::Matched(matched) => Some(matched.search),
        _ => None,
    };
    assert_eq!((socket.until(answers).await, matched(&mut bob).await.search), (6, number));
}

/// Returns the next state of a ticket, and the number of its search.
async fn ticket_state(socket: &mut Socket) -> (TicketState, u64) {
    let state = |message| match message {
        ToClient::Queued(queued) => match queued.state() {
            TicketState::Unavailable | TicketState::Lost => None,
            state => Some((state, queued.search)),
        },
        _ => None,
    };
    socket.until(state).await
}

#[tokio::test]
async fn who_is_away_when_the_match_forms_is_told_on_return() {
    // The connection may be lost for a long time before its player counts as absent.
    let server = Process::start(&[DUEL, "matchmaking.absence_delay=30s"]).await;
    let proxy = Proxy::start(server.address, None).await;
    let mut alice = Player::start(builder(&proxy.url(), "alice"));
    let mut bob = Player::start(builder(&server.url(), "bob"));
    queue(&mut alice).await;
    proxy.block();
    let cut = |event: &Event| matches!(event, Event::StateChanged { from: ClientState::Connected, .. });
    alice.until("the cut", |event| cut(event).then_some(())).await;
    bob.client.queue(wish("duel")).await.expect("nothing else is searched for");
    let of_bob = matched(&mut bob).await;
    proxy.unblock();
    let of_alice = matched(&mut alice).await;
    play(&mut alice, &mut bob, [&of_alice, &of_bob]).await;
}

#[tokio::test]
async fn who_is_absent_is_not_matched_until_it_is_back() {
    let server = Process::start(&[DUEL, "matchmaking.absence_delay=10ms"]).await;
    let proxy = Proxy::start(server.address, None).await;
    let mut alice = Player::start(builder(&proxy.url(), "alice"));
    let [mut bob, mut carol, mut dave] =
        ["bob", "carol", "dave"].map(|name| Player::start(builder(&server.url(), name)));
    queue(&mut alice).await;
    proxy.block();
    let absent = async || get(server.admin, "/tickets/alice").await.1.contains("absent: alice");
    eventually("alice is absent", absent).await;
    // The absent player would be the first of the three.
    for player in [&mut carol, &mut dave] {
        player.client.queue(wish("duel")).await.expect("nothing else is searched for");
    }
    assert_eq!(matched(&mut carol).await.r#match, matched(&mut dave).await.r#match);
    assert!(absent().await, "she keeps her ticket");
    proxy.unblock();
    bob.client.queue(wish("duel")).await.expect("nothing else is searched for");
    let found = [matched(&mut alice).await, matched(&mut bob).await];
    play(&mut alice, &mut bob, found.each_ref()).await;
}

#[tokio::test]
async fn who_does_not_come_is_out_and_who_came_is_told() {
    let soon = ["matchmaking.join_window=1s", "matchmaking.sweep_interval=50ms"];
    let server = Process::start(&[DUEL, soon[0], soon[1]]).await;
    let [mut alice, mut bob] = ["alice", "bob"].map(|name| Player::start(builder(&server.url(), name)));
    queue(&mut alice).await;
    bob.client.queue(wish("duel")).await.expect("nothing else is searched for");
    let (of_alice, of_bob) = (matched(&mut alice).await, matched(&mut bob).await);
    assert_eq!(of_alice.r#match, of_bob.r#match);
    alice.client.join(&of_alice.room, 0).await.expect("the room has a good name");
    alice.joined(&of_alice.room).await;
    let over = matched(&mut alice).await;
    assert!(over.over && over.r#match == of_alice.r#match && over.fills > of_alice.fills, "{over:?}");
    let left: Vec<_> = over.teams.iter().flat_map(|team| &team.players).collect();
    assert_eq!(left, ["alice"]);
    // Both players are free, and find each other again.
    queue(&mut alice).await;
    bob.client.queue(wish("duel")).await.expect("the search before has ended");
    let found = [matched(&mut alice).await, matched(&mut bob).await];
    assert_ne!(found[0].r#match, over.r#match);
    play(&mut alice, &mut bob, found.each_ref()).await;
}

#[tokio::test]
async fn operators_are_told_why_a_ticket_waits() {
    let server = Process::start(&[DUEL]).await;
    let ask = |player| {
        let path = format!("/tickets/{player}");
        async move { get(server.admin, &path).await }
    };
    let mut alice = Player::start(builder(&server.url(), "alice"));
    queue(&mut alice).await;
    eventually("the matcher knows the ticket", async || ask("alice").await.0 == 200).await;
    let (_, why) = ask("alice").await;
    for part in ["waits for", "0 of 1 other players agree", "rating window", "latency cap"] {
        assert!(why.contains(part), "`{part}` is not in {why:?}");
    }
    let (status, why) = ask("bob").await;
    assert!(status == 404 && why.contains("no ticket of that player waits in duel"), "{status} {why:?}");
    assert_eq!(ask("b%20b").await.0, 400);
    assert_eq!(get(server.address, "/tickets/alice").await.0, 404, "players do not see it");
    let without = Process::start(&[]).await;
    let (status, why) = get(without.admin, "/tickets/alice").await;
    assert!(status == 404 && why.contains("this node forms no matches"), "{status} {why:?}");
}

#[tokio::test]
async fn bots_play_whole_matches() {
    let arguments = ["bots", "--match", "duel", "--players", "20", "--duration", "5s", "--battle", "500ms"];
    let more = ["--cancel-rate", "0.2", "--disconnect-rate", "0.1", "--json"];
    let output = run(&arguments).await;
    let table = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{table}{error}");
    for row in ["last ticket to all told", "own ticket to told", "G2 ", "G8 one match", "all held"] {
        assert!(table.contains(row), "{row}: {table}");
    }

    let output = run(&[&arguments[..], &more[..]].concat()).await;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert!(output.status.success(), "{report:#}");
    assert!(report["matches"]["formed"].as_u64() > Some(0), "{report:#}");
}

#[tokio::test]
async fn bots_on_a_server_that_makes_no_matches_fail() {
    let server = Process::start(&[]).await;
    let (url, key) = (server.url(), KeyFile::write());
    let arguments = ["bots", "--match", "duel", "--players", "2", "--duration", "1s", "--warmup", "0s"];
    let output = run(&[&arguments[..], &["--server", &url], &key.options()].concat()).await;
    let table = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{table}");
    assert!(table.contains("the ticket is refused: this server makes no matches"), "{table}");
}
