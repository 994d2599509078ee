//! Places in the table of connections.

use super::*;
use crate::config::Rate;

fn small(total: usize, per_address: usize, unauthenticated: usize) -> World {
    World::new(|config| {
        config.connections.total = total;
        config.connections.per_address = per_address;
        config.connections.unauthenticated = unauthenticated;
    })
}

/// Opens a connection, which then waits no more.
fn open(world: &mut World, key: Key) {
    world.input(|connections, cx| connections.open(cx, key, SESSION, false));
}

#[test]
fn each_cap_refuses_with_its_reason() {
    let mut world = small(3, 2, 10);
    for address in [1, 1] {
        let key = world.accept_from(address).unwrap();
        open(&mut world, key);
    }
    assert_eq!(world.accept_from(1), Err(Refusal::AddressFull));
    let key = world.accept_from(2).unwrap();
    open(&mut world, key);
    assert_eq!(world.accept_from(3), Err(Refusal::Full));
    let mut world = small(10, 5, 2);
    for address in [1, 2] {
        world.accept_from(address).unwrap();
    }
    assert_eq!(world.accept_from(3), Err(Refusal::TooManyUnauthenticated));
    assert_eq!((world.stats().accepted, world.stats().refused), (2, 1));
    assert!(world.outputs().is_empty());
}

#[test]
fn an_address_that_connects_too_often_is_refused_with_the_wait() {
    let mut world = World::new(|config| config.rates.logins_per_address = Rate { per_second: 1, burst: 2 });
    for _ in 0..2 {
        world.accept_from(1).unwrap();
    }
    assert_eq!(world.accept_from(1), Err(Refusal::TooFast(SECOND)));
    assert_eq!((world.stats().logins_limited, world.stats().refused), (1, 1));
    world.accept_from(2).unwrap();
    world.now.instant = world.now.instant + SECOND;
    world.accept_from(1).unwrap();
}

#[test]
fn the_oldest_connection_of_the_address_with_most_makes_room() {
    let mut world = small(10, 5, 3);
    let first = world.accept_from(1).unwrap();
    let second = world.accept_from(1).unwrap();
    world.accept_from(2).unwrap();
    // One of two has not two more than another of two would have.
    assert_eq!(world.accept_from(2), Err(Refusal::TooManyUnauthenticated));
    world.accept_from(3).unwrap();
    let conn = ConnId::from_key(first);
    let displaced = Event::Displaced { conn, address: Address([1; 16]).counted(64) };
    assert_eq!(world.outputs(), [Output::Event(displaced), Output::Abort(conn)]);
    assert_eq!(world.stats().displaced, 1);
    assert_eq!(world.connections.trace(first), None);
    assert!(world.connections.trace(second).is_some());
    assert_eq!(world.connections.unauthenticated(), 3);
}

#[test]
fn a_connection_that_stalls_makes_room_for_any_other_but_not_while_its_session_is_claimed() {
    for claims in [false, true] {
        let mut world = small(10, 5, 1);
        let key = if claims { world.claim() } else { world.accept() };
        world.advance(world.config.connections.handshake_timeout / 2 - Duration::from_micros(1));
        assert_eq!(world.accept_from(2), Err(Refusal::TooManyUnauthenticated));
        world.advance(Duration::from_micros(1));
        assert_eq!(world.accept_from(2).is_ok(), !claims);
        assert_eq!(world.connections.trace(key).is_none(), !claims);
    }
}

#[test]
fn an_open_or_closing_connection_waits_no_more() {
    let mut world = small(10, 5, 1);
    let key = world.open();
    assert_eq!(world.connections.unauthenticated(), 0);
    let other = world.accept_from(2).unwrap();
    assert_eq!(world.connections.unauthenticated(), 1);
    world.close(other, v1::Reason::Draining);
    assert_eq!(world.connections.unauthenticated(), 0);
    assert_eq!(world.connections.len(), 2);
    world.input(|connections, cx| connections.forget(cx, key));
    assert_eq!(world.connections.len(), 1);
}

#[test]
fn a_proxied_connection_counts_for_its_client_once_that_is_named() {
    let mut world = small(10, 1, 10);
    let proxied = |world: &mut World| {
        let proxy = Source::Proxy(Address([9; 16]));
        world.input(|connections, cx| connections.accept(cx, proxy)).unwrap()
    };
    let count_for = |world: &mut World, key, client| {
        world.input(|connections, cx| connections.count_for(cx, key, Address([client; 16])))
    };
    let (first, second) = (proxied(&mut world), proxied(&mut world));
    assert_eq!(count_for(&mut world, first, 1), Ok(()));
    assert_eq!(count_for(&mut world, first, 1), Ok(()), "it counts once");
    assert_eq!(count_for(&mut world, second, 1), Err(Refusal::AddressFull));
    assert_eq!(world.accept_from(1), Err(Refusal::AddressFull));
    assert_eq!(count_for(&mut world, second, 2), Ok(()));
    assert_eq!(world.stats().refused, 2);
    world.input(|connections, cx| connections.forget(cx, first));
    world.accept_from(1).unwrap();
}

#[test]
fn a_proxied_connection_keeps_its_age_and_counts_as_a_login_of_its_client() {
    let mut world = World::new(|config| {
        config.connections.unauthenticated = 1;
        config.rates.logins_per_address = Rate { per_second: 1, burst: 1 };
    });
    let proxied = |world: &mut World| {
        let proxy = Source::Proxy(Address([9; 16]));
        world.input(|connections, cx| connections.accept(cx, proxy))
    };
    let count_for = |world: &mut World, key, client| {
        world.input(|connections, cx| connections.count_for(cx, key, Address([client; 16])))
    };
    let key = proxied(&mut world).unwrap();
    world.advance(world.config.connections.handshake_timeout / 2);
    assert_eq!(count_for(&mut world, key, 1), Ok(()));
    assert_eq!(world.accept_from(1), Err(Refusal::TooFast(SECOND)));
    // It stalls, however lately its client was named.
    let key = proxied(&mut world).unwrap();
    assert_eq!(count_for(&mut world, key, 1), Err(Refusal::TooFast(SECOND)));
    assert_eq!((world.stats().displaced, world.stats().logins_limited, world.stats().refused), (1, 2, 2));
    world.input(|connections, cx| connections.forget(cx, key));
    assert_eq!(count_for(&mut world, key, 2), Ok(()), "it is gone");
}
