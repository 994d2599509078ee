//! Correct histories of the registry, and incorrect ones.

use skirmish_core::matchmaking::{QueueConfig, encode};

use super::*;

fn name(text: &str) -> Name {
    Name::new(text).expect("it is one")
}

fn put(revision: u64, key: impl Into<bytes::Bytes>, value: bytes::Bytes) -> Change {
    let (created, modified, version) = (revision, revision, 1);
    let kv = KeyValue { key: key.into(), value, created, modified, version, lease: None };
    Change::Put { kv, prev: None }
}

fn delete(revision: u64, key: impl Into<bytes::Bytes>) -> Change {
    Change::Delete { key: key.into(), revision, prev: None }
}

/// Returns the number of a player's search.
fn number(player: &str) -> u64 {
    player.bytes().map(u64::from).sum()
}

fn ticket(revision: u64, player: &str, state: TicketState) -> Change {
    let search = number(player);
    let queue = Some(v1::Queue { mode: "duel".into(), search, ..v1::Queue::default() });
    let record = v1::TicketRecord { queue, state: state.into(), ..v1::TicketRecord::default() };
    put(revision, keys::ticket(&name(player)), encode(&record))
}

fn notice(revision: u64, player: &str, team: u32) -> Change {
    let record = v1::NoticeRecord {
        r#match: "m".into(),
        team,
        fills: 0,
        search: number(player),
        ..v1::NoticeRecord::default()
    };
    put(revision, keys::notice(&name(player)), encode(&record))
}

fn matched() -> v1::Matched {
    let team = |player: &str| v1::Team { players: vec![player.into()] };
    let (room, teams) = (keys::room_of("m"), vec![team("ann"), team("bob")]);
    v1::Matched { r#match: "m".into(), mode: "duel".into(), room, teams, ..v1::Matched::default() }
}

/// All changes that form a match.
fn whole(revision: u64) -> Vec<Change> {
    let record = v1::MatchRecord { r#match: Some(matched()), matcher_epoch: 1, ..v1::MatchRecord::default() };
    vec![
        delete(revision, keys::ticket(&name("ann"))),
        delete(revision, keys::ticket(&name("bob"))),
        notice(revision, "ann", 0),
        notice(revision, "bob", 1),
        put(revision, keys::room(&matched().room), encode(&v1::RoomRecord::default())),
        put(revision, keys::match_key("m"), encode(&record)),
    ]
}

fn queued() -> Vec<Change> {
    let elected = put(1, keys::matcher(&name("duel")), encode(&v1::MatcherRecord { node: 7 }));
    vec![elected, ticket(2, "ann", TicketState::Waiting), ticket(3, "bob", TicketState::Waiting)]
}

fn matches() -> Matches {
    let queue = QueueConfig::new(name("duel"), 2, 1, vec![name("eu")]);
    let mut matches = Matches::new(&MatchmakingConfig::new(vec![queue]));
    for (client, player) in ["ann", "bob"].into_iter().enumerate() {
        assert_eq!(matches.asked(client, &name(player), number(player)), Ok(()));
    }
    matches
}

fn run(changes: &[Change]) -> Verdict {
    matches().changed(0, None, changes)
}

#[test]
fn a_match_without_any_one_of_its_parts_is_caught() {
    assert_eq!(run(&[queued(), whole(4)].concat()), Ok(()));
    // Without the match itself, the notices name a match that does not exist.
    for part in 0..whole(4).len() {
        let mut changes = whole(4);
        changes.remove(part);
        assert!(run(&[queued(), changes].concat()).is_err(), "without part {part}");
    }
}

#[test]
fn a_match_of_who_is_not_elected_is_caught() {
    let key = keys::matcher(&name("duel"));
    assert!(run(&[queued(), vec![delete(4, key.clone())], whole(5)].concat()).is_err());
    let other = put(5, key.clone(), encode(&v1::MatcherRecord { node: 8 }));
    assert!(run(&[queued(), vec![delete(4, key), other.clone()], whole(6)].concat()).is_err());
    assert!(run(&[queued(), vec![other]].concat()).is_err(), "two are elected");
}

#[test]
fn a_ticket_that_has_ended_is_not_consumed_and_does_not_wait_again() {
    let ended = ticket(4, "ann", TicketState::TimedOut);
    assert!(run(&[queued(), vec![ended.clone()], whole(5)].concat()).is_err());
    let again = ticket(5, "ann", TicketState::Waiting);
    assert!(run(&[queued(), vec![ended, again]].concat()).is_err());
}

#[test]
fn a_match_that_takes_an_absent_player_is_caught() {
    let absent = |absent_ms| {
        let search = number("ann");
        let queue = Some(v1::Queue { mode: "duel".into(), search, ..v1::Queue::default() });
        let state = TicketState::Waiting.into();
        let record = v1::TicketRecord { queue, state, absent_ms, ..v1::TicketRecord::default() };
        put(4 + absent_ms % 2, keys::ticket(&name("ann")), encode(&record))
    };
    assert!(run(&[queued(), vec![absent(1_000)], whole(5)].concat()).is_err());
    assert_eq!(run(&[queued(), vec![absent(1_000), absent(0)], whole(6)].concat()), Ok(()));
}

#[test]
fn who_is_in_a_match_is_neither_queued_nor_in_another() {
    assert!(run(&[queued(), whole(4), vec![ticket(5, "ann", TicketState::Waiting)]].concat()).is_err());
    let mut other = whole(5);
    other.retain(is_put);
    assert!(run(&[queued(), whole(4), other].concat()).is_err());
    let over = |revision| delete(revision, keys::match_key("m"));
    assert!(run(&[queued(), whole(4), vec![over(5)]].concat()).is_err());
    let left = [delete(5, keys::notice(&name("ann"))), delete(6, keys::notice(&name("bob"))), over(7)];
    assert_eq!(run(&[queued(), whole(4), left.to_vec()].concat()), Ok(()));
}

fn told(player: &str) -> v1::Matched {
    v1::Matched { search: number(player), team: u32::from(player == "bob"), ..matched() }
}

#[test]
fn who_was_told_an_end_is_not_queued_or_matched_by_that_search() {
    let (ann, search) = (name("ann"), number("ann"));
    let mut all = matches();
    assert_eq!(all.changed(0, None, &queued()), Ok(()));
    assert_eq!(all.ended(0, &ann, search, TicketState::Cancelled), Ok(()));
    assert!(all.has_ended(&ann, search));
    assert!(all.changed(0, None, &whole(4)).is_err());
    let mut all = matches();
    assert_eq!(all.ended(0, &ann, search, TicketState::Cancelled), Ok(()));
    assert!(all.changed(0, None, &queued()).is_err());
    // The same holds for a search that no client has begun.
    let queue = QueueConfig::new(name("duel"), 2, 1, vec![name("eu")]);
    let mut all = Matches::new(&MatchmakingConfig::new(vec![queue]));
    assert!(all.changed(0, None, &queued()).is_err());
    // A restarted client knows of no end, and the player is matched.
    let mut all = matches();
    assert_eq!(all.changed(0, None, &queued()), Ok(()));
    all.restarted(0);
    assert_eq!(all.changed(0, None, &whole(4)), Ok(()));
    assert_eq!(all.told(0, &ann, &told("ann")), Ok(()));
}

#[test]
fn a_search_ends_once_and_is_the_one_that_goes_on() {
    let (ann, search) = (name("ann"), number("ann"));
    let formed = || {
        let mut all = matches();
        assert_eq!(all.changed(0, None, &[queued(), whole(4)].concat()), Ok(()));
        all
    };
    let mut all = formed();
    assert_eq!(all.told(0, &ann, &told("ann")), Ok(()));
    assert_eq!(all.told(0, &ann, &told("ann")), Ok(()), "it is told again");
    assert!(all.ended(0, &ann, search, TicketState::Cancelled).is_err(), "it has ended with a match");
    assert!(all.asked(0, &ann, search).is_err(), "of that number there was one");
    let mut all = formed();
    assert_eq!(all.ended(0, &ann, search, TicketState::None), Ok(()));
    assert!(all.told(0, &ann, &told("ann")).is_err(), "it has ended without one");
    // A client is notified only of the search that goes on.
    let mut all = formed();
    all.restarted(0);
    assert_eq!(all.asked(0, &ann, 7), Ok(()));
    assert!(all.asked(0, &ann, 8).is_err(), "one goes on");
    let mut all = formed();
    all.restarted(0);
    assert_eq!(all.asked(0, &ann, 7), Ok(()));
    assert!(all.told(0, &ann, &told("ann")).is_err());
    assert!(all.ended(0, &ann, search, TicketState::None).is_err());
    // The match may answer a later search than the one that brought the player there.
    assert_eq!(all.told(0, &ann, &v1::Matched { search: 7, ..told("ann") }), Ok(()));
    assert!(formed().told(0, &ann, &v1::Matched { search: 7, ..told("ann") }).is_err(), "there is none");
}

#[test]
fn what_another_client_was_told_ends_no_search_of_this_one() {
    let (ann, search) = (name("ann"), number("ann"));
    let mut all = matches();
    assert_eq!(all.ended(2, &ann, search, TicketState::None), Ok(()));
    assert!(!all.has_ended(&ann, search));
    assert_eq!(all.changed(0, None, &[queued(), whole(4)].concat()), Ok(()));
    assert_eq!(all.told(0, &ann, &told("ann")), Ok(()));
}

#[test]
fn a_notice_that_names_another_search_is_caught() {
    let other = |revision, fills| {
        let record = v1::NoticeRecord {
            r#match: "m".into(),
            team: 0,
            fills,
            search: 7,
            ..v1::NoticeRecord::default()
        };
        put(revision, keys::notice(&name("ann")), encode(&record))
    };
    let mut changes = whole(4);
    changes[2] = other(4, 0);
    assert!(run(&[queued(), changes].concat()).is_err());
    let bob_leaves = vec![delete(5, keys::notice(&name("bob")))];
    let until = [queued(), whole(4), bob_leaves, vec![ticket(6, "cid", TicketState::Waiting)]].concat();
    let mut changes = filled(7);
    changes[1] = other(7, 1);
    assert!(with_backfill().changed(0, None, &[until, changes].concat()).is_err());
}

#[test]
fn what_clients_are_told_and_never_was_is_caught() {
    let mut all = matches();
    assert!(all.ended(0, &name("ann"), number("ann"), TicketState::TimedOut).is_err());
    assert!(all.told(0, &name("ann"), &told("ann")).is_err());
    assert_eq!(all.changed(0, None, &[queued(), whole(4)].concat()), Ok(()));
    assert_eq!(all.told(0, &name("ann"), &told("ann")), Ok(()));
    assert!(
        all.told(1, &name("bob"), &v1::Matched { team: 0, ..told("bob") }).is_err(),
        "he is in the other"
    );
    assert!(all.told(0, &name("ann"), &v1::Matched { quality: 1, ..told("ann") }).is_err());
}

/// Cid fills the place of Bob, who has left.
fn filled(revision: u64) -> Vec<Change> {
    let team = |player: &str| v1::Team { players: vec![player.into()] };
    let matched = v1::Matched { teams: vec![team("ann"), team("cid")], fills: 1, ..matched() };
    let record = v1::MatchRecord { r#match: Some(matched), matcher_epoch: 1, ..v1::MatchRecord::default() };
    let notice = |player: &str, team| {
        let record = v1::NoticeRecord {
            r#match: "m".into(),
            team,
            fills: 1,
            search: number(player),
            ..v1::NoticeRecord::default()
        };
        put(revision, keys::notice(&name(player)), encode(&record))
    };
    vec![
        delete(revision, keys::ticket(&name("cid"))),
        notice("ann", 0),
        notice("cid", 1),
        put(revision, keys::match_key("m"), encode(&record)),
    ]
}

fn with_backfill() -> Matches {
    let mut queue = QueueConfig::new(name("duel"), 2, 1, vec![name("eu")]);
    queue.backfill = true;
    let mut matches = Matches::new(&MatchmakingConfig::new(vec![queue]));
    for (client, player) in ["ann", "bob", "cid"].into_iter().enumerate() {
        assert_eq!(matches.asked(client, &name(player), number(player)), Ok(()));
    }
    matches
}

#[test]
fn a_fill_without_any_one_of_its_parts_or_of_a_place_that_is_taken_is_caught() {
    let bob_leaves = vec![delete(5, keys::notice(&name("bob")))];
    let until = [queued(), whole(4), bob_leaves, vec![ticket(6, "cid", TicketState::Waiting)]].concat();
    let mut all = with_backfill();
    assert_eq!(all.changed(0, None, &[until.clone(), filled(7)].concat()), Ok(()));
    let filled_with_bob = v1::Matched { fills: 1, ..told("ann") };
    assert!(all.told(0, &name("ann"), &filled_with_bob).is_err(), "Bob is not in it any more");
    assert_eq!(all.told(0, &name("ann"), &told("ann")), Ok(()), "it was like this");
    assert!(
        matches().changed(0, None, &[until.clone(), filled(7)].concat()).is_err(),
        "no place is to be filled"
    );
    for part in 0..filled(7).len() {
        let mut changes = filled(7);
        changes.remove(part);
        assert!(
            with_backfill().changed(0, None, &[until.clone(), changes].concat()).is_err(),
            "without part {part}"
        );
    }
    let mut there = until;
    there.remove(queued().len() + whole(4).len());
    assert!(with_backfill().changed(0, None, &[there, filled(7)].concat()).is_err(), "Bob is there");
}

#[test]
fn who_is_put_out_has_not_come_and_nobody_stays_who_has_not() {
    // Bob is put out, and only Ann is left.
    let out = |over| {
        let teams = vec![v1::Team { players: vec!["ann".into()] }, v1::Team::default()];
        let matched = v1::Matched { teams, fills: 1, over, ..matched() };
        let record =
            v1::MatchRecord { r#match: Some(matched), matcher_epoch: 1, ..v1::MatchRecord::default() };
        let ann = v1::NoticeRecord {
            r#match: "m".into(),
            fills: 1,
            search: number("ann"),
            ..v1::NoticeRecord::default()
        };
        vec![
            put(6, keys::notice(&name("ann")), encode(&ann)),
            delete(6, keys::notice(&name("bob"))),
            put(6, keys::match_key("m"), encode(&record)),
        ]
    };
    let until = [queued(), whole(4)].concat();
    for over in [false, true] {
        assert_eq!(run(&[until.clone(), out(over)].concat()), Ok(()));
    }
    let came = v1::NoticeRecord {
        r#match: "m".into(),
        team: 1,
        search: number("bob"),
        joined: true,
        ..v1::NoticeRecord::default()
    };
    let came = put(5, keys::notice(&name("bob")), encode(&came));
    assert!(run(&[until.clone(), vec![came.clone()], out(true)].concat()).is_err(), "he has come");
    let mut still = out(true);
    still.remove(1);
    assert!(run(&[until.clone(), still].concat()).is_err(), "he has a notice");
    // Bob was notified that he is in the room, but his arrival was never recorded.
    let mut all = matches();
    assert_eq!(all.changed(0, None, &until), Ok(()));
    all.calm(1);
    all.joined(2, &name("bob"), &matched().room);
    assert!(all.changed(3, None, &out(true)).is_err());
    let mut all = matches();
    assert_eq!(all.changed(0, None, &until), Ok(()));
    assert_eq!(all.overdue(99, 9), None, "faults may be the reason");
    all.calm(100);
    assert_eq!(all.overdue(109, 9), None);
    assert!(all.overdue(110, 9).is_some());
    assert_eq!(all.changed(110, None, &[came]), Ok(()));
    assert!(all.overdue(110, 9).is_some_and(|description| description.contains("ann")));
}

#[test]
fn what_is_left_behind_is_named() {
    let mut all = matches();
    assert_eq!(all.changed(0, None, &queued()), Ok(()));
    assert!(all.left_behind().is_some());
    assert_eq!(all.changed(0, None, &whole(4)), Ok(()));
    assert!(all.left_behind().is_some());
    let gone = [keys::notice(&name("ann")), keys::notice(&name("bob")), keys::match_key("m")];
    assert_eq!(all.changed(0, None, &gone.map(|key| delete(5, key))), Ok(()));
    assert_eq!(all.left_behind(), None);
}

#[test]
fn two_that_wait_beside_each_other_are_counted() {
    let half = matches().modes["duel"].time_out / 2;
    for (wait, count) in [(half, 0), (half + 1, 1)] {
        let mut all = matches();
        assert_eq!(all.changed(5, None, &queued()), Ok(()));
        assert_eq!(all.changed(5 + wait, None, &[ticket(4, "ann", TicketState::TimedOut)]), Ok(()));
        assert_eq!(all.counts().passed_over, count);
        // Nobody else waits any more.
        assert_eq!(all.changed(5 + wait, None, &[ticket(5, "bob", TicketState::TimedOut)]), Ok(()));
        assert_eq!(all.counts().passed_over, count);
    }
}

#[test]
fn what_is_ended_by_who_is_not_elected_is_caught() {
    let [me, other] = [Some(NodeId(7)), Some(NodeId(8))];
    let ended = [ticket(4, "ann", TicketState::TimedOut)];
    let gone = ["ann", "bob"].map(|player| delete(5, keys::notice(&name(player))));
    let over = [gone.to_vec(), vec![delete(5, keys::match_key("m"))]].concat();
    for (author, holds) in [(me, true), (None, true), (other, false)] {
        let mut all = matches();
        assert_eq!(all.changed(0, None, &queued()), Ok(()));
        assert_eq!(all.changed(0, author, &ended).is_ok(), holds);
        let mut all = matches();
        assert_eq!(all.changed(0, None, &[queued(), whole(4)].concat()), Ok(()));
        assert_eq!(all.changed(0, author, &over).is_ok(), holds);
    }
}

#[test]
fn who_was_told_that_it_has_left_a_match_is_not_told_of_it_again() {
    let formed = || {
        let mut matches = matches();
        matches.changed(0, None, &[queued(), whole(4)].concat()).expect("it forms");
        assert_eq!(matches.told(0, &name("ann"), &told("ann")), Ok(()));
        matches
    };
    let room = keys::room_of("m");
    for (reason, is_out) in [
        (v1::LeftReason::Asked, true),
        (v1::LeftReason::Kicked, true),
        (v1::LeftReason::Gone, false),
        (v1::LeftReason::RoomFull, false),
        (v1::LeftReason::NotAMember, false),
    ] {
        let mut matches = formed();
        assert_eq!(matches.left(0, &room, reason), is_out);
        assert_eq!(matches.told_before(0, &name("ann"), &told("ann")).is_err(), is_out, "{reason:?}");
        assert_eq!(matches.told(1, &name("bob"), &told("bob")), Ok(()), "who stays is told");
        matches.restarted(0);
        assert_eq!(matches.told_before(0, &name("ann"), &told("ann")), Ok(()), "it knows nothing any more");
    }
    let mut matches = formed();
    assert!(!matches.left(0, "arena", v1::LeftReason::Asked) && matches.given_up(0, "other").is_err());
    assert_eq!(matches.given_up(0, "m"), Ok(()));
    assert!(matches.told(0, &name("ann"), &told("ann")).is_err());
}

#[test]
fn a_notice_says_once_that_its_player_has_come_and_nothing_else() {
    let with = |joined, fills| {
        let search = number("ann");
        let record = v1::NoticeRecord {
            r#match: "m".into(),
            team: 0,
            fills,
            search,
            joined,
            ..v1::NoticeRecord::default()
        };
        put(5, keys::notice(&name("ann")), encode(&record))
    };
    assert_eq!(run(&[queued(), whole(4), vec![with(true, 0)]].concat()), Ok(()));
    assert!(run(&[queued(), whole(4), vec![with(true, 1)]].concat()).is_err());
    assert!(run(&[queued(), whole(4), vec![with(false, 0)]].concat()).is_err());
    assert!(run(&[queued(), vec![with(true, 0)]].concat()).is_err(), "of no match");
}
