//! Late `Hello`s of clients that number their connections.

use super::cluster::{Cluster, Member};
use super::*;

/// Connections of one client, which numbers them.
struct Dialler {
    session: Bytes,
    epoch: u64,
}

impl Dialler {
    fn hello(&self, dial: u64) -> v1::Hello {
        let resume = (!self.session.is_empty()).then(|| v1::Resume {
            session: self.session.clone(),
            rooms: vec![],
            epoch: self.epoch,
        });
        v1::Hello { resume, client: 77, dial, ..v1::Hello::default() }
    }

    /// Connects, and keeps the session of the `Welcome`.
    fn connect(&mut self, cluster: &mut Cluster, node: usize, dial: u64) -> Member {
        let member = cluster.accept(node, "ann");
        cluster.send(&member, v1::Kind::Hello, &self.hello(dial));
        let told = cluster.received(&member);
        let ToClient::Welcome(welcome) = &told[0] else { panic!("no Welcome: {told:?}") };
        (self.session, self.epoch) = (welcome.session.clone(), welcome.epoch);
        member
    }
}

fn end(messages: &[ToClient]) -> Option<v1::Reason> {
    goodbye(messages)
}

/// Returns the nodes that have a session of ann.
fn homes(cluster: &mut Cluster) -> Vec<usize> {
    (0..2).filter(|node| cluster.node(*node).session_epoch("ann").is_some()).collect()
}

#[test]
fn a_late_hello_at_the_same_node_does_not_take_the_session_whatever_it_names() {
    let mut cluster = Cluster::new(1);
    let mut ann = Dialler { session: Bytes::new(), epoch: 0 };
    let first = ann.hello(1);
    let newest = ann.connect(&mut cluster, 0, 3);
    for hello in [first, ann.hello(2), v1::Hello { resume: None, ..ann.hello(2) }] {
        let late = cluster.accept(0, "ann");
        cluster.send(&late, v1::Kind::Hello, &hello);
        assert_eq!(end(&cluster.received(&late)), Some(v1::Reason::TakenOver));
    }
    assert_eq!(cluster.received(&newest), []);
    assert_eq!(cluster.node(0).stats().takeovers, 0);
    // Another client is another device, and takes over.
    let other = cluster.accept(0, "ann");
    let hello = v1::Hello { client: 78, dial: 1, ..v1::Hello::default() };
    cluster.send(&other, v1::Kind::Hello, &hello);
    assert!(matches!(&cluster.received(&other)[..], [ToClient::Welcome(_), ..]));
    assert_eq!(end(&cluster.received(&newest)), Some(v1::Reason::TakenOver));
}

#[test]
fn a_late_hello_at_another_node_finds_the_record_of_the_newer_connection() {
    let mut cluster = Cluster::new(2);
    let mut ann = Dialler { session: Bytes::new(), epoch: 0 };
    ann.connect(&mut cluster, 0, 1);
    let late = ann.hello(2);
    let newest = ann.connect(&mut cluster, 1, 3);
    let conn = cluster.accept(0, "ann");
    cluster.send(&conn, v1::Kind::Hello, &late);
    assert_eq!(end(&cluster.received(&conn)), Some(v1::Reason::TakenOver));
    cluster.advance(Duration::from_secs(5));
    assert_eq!(end(&cluster.received(&newest)), None);
    assert_eq!(homes(&mut cluster), [1]);
}

#[test]
fn a_node_takes_the_session_back_that_a_late_hello_has_brought_to_another_node() {
    let mut cluster = Cluster::new(2);
    let bob = cluster.join(1, "bob");
    let mut ann = Dialler { session: Bytes::new(), epoch: 0 };
    ann.connect(&mut cluster, 0, 1);
    let late = ann.hello(2);
    // The node welcomes this one without a claim, so the record names the first connection.
    let newest = ann.connect(&mut cluster, 0, 3);
    cluster.send(&newest, v1::Kind::Join, &v1::Join { room: "arena".into(), history: 0, request: 0 });
    assert!(cluster.received(&newest).iter().any(|message| matches!(message, ToClient::Joined(_))));
    let conn = cluster.accept(1, "ann");
    cluster.send(&conn, v1::Kind::Hello, &late);
    cluster.advance(Duration::from_secs(5));
    assert!(cluster.closed.contains(&(1, conn.conn, v1::Reason::TakenOver)), "{:?}", cluster.closed);
    assert_eq!((end(&cluster.received(&newest)), homes(&mut cluster)), (None, vec![0]));
    // The primary of the room has let the late connection in, and takes messages of the newest.
    let before = cluster.node(1).stats().entries;
    cluster.send(&newest, v1::Kind::Say, &say(1, "here"));
    assert_eq!(cluster.node(1).stats().entries, before + 1);
    assert!(!cluster.received(&bob).is_empty());
}

#[test]
fn a_client_resumes_the_rooms_that_a_late_hello_has_taken() {
    let mut cluster = Cluster::new(2);
    let mut ann = Dialler { session: Bytes::new(), epoch: 0 };
    ann.connect(&mut cluster, 0, 1);
    let join = v1::Join { room: "arena".into(), history: 0, request: 0 };
    let late = v1::Hello { joins: vec![join.clone()], ..ann.hello(2) };
    let newest = ann.connect(&mut cluster, 0, 3);
    cluster.send(&newest, v1::Kind::Join, &join);
    cluster.received(&newest);
    // Node 0 has the room, and hears of the late connection by the link only.
    cluster.unregistered = vec![0];
    let conn = cluster.accept(1, "ann");
    cluster.send(&conn, v1::Kind::Hello, &late);
    assert!(matches!(&cluster.received(&conn)[..], [ToClient::Welcome(_), ToClient::Joined(_), ..]));
    assert_eq!((end(&cluster.received(&newest)), homes(&mut cluster)), (None, vec![0, 1]));
    cluster.unregistered = vec![];
    cluster.advance(Duration::from_secs(5));
    assert_eq!(
        (end(&cluster.received(&newest)), homes(&mut cluster)),
        (Some(v1::Reason::Overloaded), vec![0])
    );
    let back = cluster.accept(0, "ann");
    cluster.send(&back, v1::Kind::Hello, &v1::Hello { joins: vec![join], ..ann.hello(4) });
    let told = cluster.received(&back);
    assert!(matches!(&told[..], [ToClient::Welcome(welcome), ToClient::Joined(_), ..] if welcome.resumed));
}

/// A node that does not hear from the registry cannot tell which of two sessions is the newer one.
#[test]
fn a_member_is_told_that_another_device_has_taken_its_place_even_if_its_node_hears_nothing() {
    let mut cluster = Cluster::new(2);
    let mut ann = Dialler { session: Bytes::new(), epoch: 0 };
    let here = ann.connect(&mut cluster, 0, 1);
    let join = v1::Join { room: "arena".into(), history: 0, request: 0 };
    cluster.send(&here, v1::Kind::Join, &join);
    cluster.received(&here);
    cluster.unregistered = vec![0];
    let other = cluster.accept(1, "ann");
    let hello = v1::Hello { client: 78, dial: 1, joins: vec![join], ..v1::Hello::default() };
    cluster.send(&other, v1::Kind::Hello, &hello);
    assert!(matches!(&cluster.received(&other)[..], [ToClient::Welcome(_), ToClient::Joined(_), ..]));
    let told = cluster.received(&here);
    let left = |m: &ToClient| matches!(m, ToClient::Left(left) if left.reason() == v1::LeftReason::Gone);
    assert!(told.iter().any(left), "{told:?}");
    assert_eq!((end(&told), homes(&mut cluster)), (None, vec![0, 1]));
}

#[test]
fn a_join_waits_until_it_is_known_that_a_late_hello_is_the_older_one() {
    let mut cluster = Cluster::new(2);
    cluster.join(1, "bob");
    let mut ann = Dialler { session: Bytes::new(), epoch: 0 };
    ann.connect(&mut cluster, 0, 1);
    let join = v1::Join { room: "arena".into(), history: 0, request: 0 };
    let late = v1::Hello { joins: vec![join.clone()], ..ann.hello(2) };
    // The node welcomes this one without a claim, so the record names the first connection.
    let newest = ann.connect(&mut cluster, 0, 3);
    cluster.unregistered = vec![0];
    let conn = cluster.accept(1, "ann");
    cluster.send(&conn, v1::Kind::Hello, &late);
    assert!(matches!(&cluster.received(&conn)[..], [ToClient::Welcome(_), ToClient::Joined(_), ..]));
    cluster.send(&newest, v1::Kind::Join, &join);
    assert_eq!(cluster.received(&newest), []);
    cluster.unregistered = vec![];
    cluster.advance(Duration::from_secs(3));
    let told = cluster.received(&newest);
    assert!(matches!(&told[..], [ToClient::Joined(_), ..]), "{told:?}");
    assert_eq!((end(&told), homes(&mut cluster)), (None, vec![0]));
}

#[test]
fn a_player_that_was_away_when_its_node_died_resumes_at_another_node_as_long_as_promised() {
    for away in [12_000, 39_999] {
        let mut cluster = Cluster::new(2);
        let mut bob = cluster.join(1, "bob");
        let ann = cluster.join(0, "ann");
        let ToClient::Welcome(welcome) = &ann.told[0] else { panic!("no Welcome: {:?}", ann.told) };
        assert_eq!(welcome.session_ttl_ms, 40_000);
        // The node dies just before it would have renewed its leases.
        cluster.advance(Duration::from_millis(2_900));
        let now = cluster.now;
        cluster.node(0).handle_closed(now, ann.conn);
        cluster.kill(0);
        cluster.say(&mut bob, "meanwhile");
        cluster.advance(Duration::from_millis(away));
        let mut back = cluster.connect(1, "ann", ann.resume());
        assert!(matches!(&back.told[0], ToClient::Welcome(welcome) if welcome.resumed), "{away}");
        let resumed = |m: &ToClient| matches!(m, ToClient::Joined(joined) if joined.resumed);
        assert!(back.told.iter().any(resumed), "{away}: {:?}", back.told);
        assert_eq!(said(&back.told).len(), 1, "{away}");
        back.said = ann.said;
        cluster.say(&mut back, "here");
        assert!(cluster.heard(&mut bob).contains(&"here".into()));
    }
}
