//! Places for connections that have not said `Hello`.

use alloc::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn world(total: usize, per_address: usize, unauthenticated: usize) -> World {
    World::new(|config| {
        config.connections.total = total;
        config.connections.per_address = per_address;
        config.connections.unauthenticated = unauthenticated;
    })
}

fn address(number: u8) -> Address {
    Address::from(core::net::IpAddr::from([10, 0, 0, number]))
}

fn accept(world: &mut World, number: u8) -> Result<ConnId, Refusal> {
    let accepted = world.node.handle_accept(world.now, address(number));
    // One after the other, so that one of them is the oldest.
    world.now.instant = world.now.instant + Duration::from_micros(1);
    world.node.audit().unwrap();
    accepted
}

/// Returns the connections that were displaced since the last call.
fn displaced(world: &mut World) -> Vec<ConnId> {
    let mut displaced = vec![];
    let mut aborted = vec![];
    while let Some(output) = world.node.poll_output() {
        match output {
            Output::Event(Event::Displaced { conn, .. }) => displaced.push(conn),
            Output::Abort(conn) => aborted.push(conn),
            _ => {}
        }
    }
    assert_eq!(displaced, aborted);
    displaced
}

#[test]
fn silent_connections_of_few_addresses_keep_nobody_out() {
    let mut world = world(2_000, 256, 1_024);
    let mut silent = vec![];
    for number in 0..5 {
        for _ in 0..256 {
            silent.extend(accept(&mut world, number));
        }
    }
    assert_eq!(world.node.stats().unauthenticated, 1_024);
    assert!(silent.len() >= 1_024);
    displaced(&mut world);
    for newcomer in 10..110 {
        accept(&mut world, newcomer).expect("a new address gets in");
        assert_eq!(displaced(&mut world).len(), 1);
    }
    // The address with most connections displaces no other.
    assert_eq!(accept(&mut world, 0), Err(Refusal::TooManyUnauthenticated));
    assert_eq!(world.node.stats().unauthenticated, 1_024);
}

#[test]
fn the_oldest_silent_one_of_the_address_with_most_goes_first() {
    let mut world = world(10, 5, 4);
    let upgraded = accept(&mut world, 1).unwrap();
    let player = Name::new("ann").unwrap();
    let identity = Identity { player, token: Bytes::new(), trace: Trace::default() };
    world.node.handle_upgraded(world.now, upgraded, identity);
    let oldest = accept(&mut world, 1).unwrap();
    accept(&mut world, 1).unwrap();
    let other = accept(&mut world, 2).unwrap();
    displaced(&mut world);
    accept(&mut world, 3).unwrap();
    assert_eq!(displaced(&mut world), [oldest]);
    assert!(world.node.trace(upgraded).is_some() && world.node.trace(other).is_some());
}

#[test]
fn a_crowd_that_comes_at_once_does_not_push_itself_out() {
    let mut world = world(1_000, 5, 100);
    let mut first = vec![];
    for number in 0..100 {
        first.push(accept(&mut world, number).unwrap());
    }
    for number in 100..200 {
        assert_eq!(accept(&mut world, number), Err(Refusal::TooManyUnauthenticated));
    }
    assert_eq!(displaced(&mut world), []);
    // Connections that make no progress are displaced after half of their time.
    let half = world.node.config().connections.handshake_timeout / 2;
    world.now.instant = world.now.instant + half;
    for number in 100..150 {
        accept(&mut world, number).unwrap();
    }
    assert_eq!(displaced(&mut world), first[..50]);
}

#[test]
fn a_client_behind_a_trusted_proxy_counts_for_its_own_address() {
    let mut world = world(100, 2, 50);
    let proxy = address(99);
    let comes = |world: &mut World, client: u8| {
        let conn = world.node.handle_proxied(world.now, proxy).unwrap();
        let known = world.node.handle_address(world.now, conn, address(client));
        world.node.audit().unwrap();
        (conn, known)
    };
    for client in 0..10 {
        assert_eq!(comes(&mut world, client).1, Ok(()));
        assert_eq!(comes(&mut world, client).1, Ok(()));
        let (third, refused) = comes(&mut world, client);
        assert_eq!(refused, Err(Refusal::AddressFull));
        assert_eq!(world.node.handle_accept(world.now, address(client)), Err(Refusal::AddressFull));
        world.node.handle_closed(world.now, third);
    }
    // A proxy has no cap before it has named the client of a connection.
    for _ in 0..10 {
        world.node.handle_proxied(world.now, proxy).unwrap();
    }
    world.node.audit().unwrap();
    assert_eq!(world.node.stats().connections, 30);
}

#[test]
fn an_address_is_what_one_subscriber_has() {
    let counted = |text: &str, prefix| {
        let address: core::net::IpAddr = text.parse().unwrap();
        Address::from(address).counted(prefix).to_string()
    };
    assert_eq!(counted("192.0.2.7", 64), "192.0.2.7");
    assert_eq!(counted("::ffff:192.0.2.7", 64), "192.0.2.7");
    assert_eq!(counted("64:ff9b::192.0.2.7", 64), "192.0.2.7", "NAT64 has all of IPv4 in one network");
    assert_eq!(counted("2001:db8:1:2:3:4:5:6", 64), "2001:db8:1:2::");
    assert_eq!(counted("2001:db8:1:2:3:4:5:6", 56), "2001:db8:1::");
    assert_eq!(counted("2001:db8:1:2:3:4:5:6", 32), "2001:db8::");
    assert_eq!(counted("2001:db8:1:2:3:4:5:6", 128), "2001:db8:1:2:3:4:5:6");
    assert_eq!(counted("::1", 64), "::");
}

proptest! {
    /// A connection is accepted if its address has fewer connections than its share, after any
    /// sequence of steps. Addresses with no more than their share keep their places.
    #[test]
    fn an_address_below_its_share_is_let_in(
        places in 1_usize..12,
        steps in prop::collection::vec((0_u8..8, 0_u8..10), 0..120),
    ) {
        let mut world = world(100, 100, places);
        let mut conns: Vec<(ConnId, u8)> = vec![];
        for (number, action) in steps {
            match action {
                0..=7 => {
                    let mut counts: BTreeMap<u8, usize> = BTreeMap::from([(number, 0)]);
                    for (_, of) in &conns {
                        *counts.entry(*of).or_default() += 1;
                    }
                    let share = places / counts.len();
                    let accepted = accept(&mut world, number);
                    if counts[&number] < share || conns.len() < places {
                        prop_assert!(accepted.is_ok(), "{number} of {counts:?}, {places} places");
                    }
                    let gone = displaced(&mut world);
                    for conn in &gone {
                        let (_, victim) = conns[conns.iter().position(|(c, _)| c == conn).unwrap()];
                        prop_assert!(counts[&victim] >= counts[&number] + 2);
                        prop_assert_eq!(Some(&counts[&victim]), counts.values().max());
                    }
                    conns.retain(|(conn, _)| !gone.contains(conn));
                    conns.extend(accepted.ok().map(|conn| (conn, number)));
                }
                _ if conns.is_empty() => {}
                _ => {
                    let (conn, _) = conns.remove(usize::from(number) % conns.len());
                    world.node.handle_closed(world.now, conn);
                    world.node.audit().unwrap();
                }
            }
            prop_assert_eq!(world.node.stats().unauthenticated, conns.len());
        }
    }
}
