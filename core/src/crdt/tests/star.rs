//! One server, and clients that may write only their own entries, with clocks that are wrong by
//! hours.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use proptest::prelude::*;
use skirmish_proto::v1;

use super::{at, replica, skewed};
use crate::base::time::Now;
use crate::crdt::{Replica, StateError};

#[derive(Clone, Debug)]
enum Step {
    Set {
        client: usize,
        name: u8,
        value: Option<u8>,
    },
    Add {
        client: usize,
        delta: i8,
    },
    Present {
        client: usize,
        present: bool,
    },
    RemoveOwner {
        client: usize,
    },
    /// The client sends its changes after change `after`. The message may be lost.
    Up {
        client: usize,
        after: u64,
        lost: bool,
    },
    /// The server sends its changes after change `after`.
    Down {
        client: usize,
        after: u64,
    },
    Observe {
        client: usize,
    },
    Drift {
        client: usize,
        skew_ms: i64,
    },
    Pass {
        ms: u64,
    },
}

const CLIENTS: usize = 3;

fn step() -> impl Strategy<Value = Step> {
    let client = || 0..CLIENTS;
    prop_oneof![
        4 => (client(), 0..3_u8, proptest::option::weighted(0.7, 0..9_u8))
            .prop_map(|(client, name, value)| Step::Set { client, name, value }),
        1 => (client(), any::<i8>()).prop_map(|(client, delta)| Step::Add { client, delta }),
        1 => (client(), any::<bool>()).prop_map(|(client, present)| Step::Present { client, present }),
        1 => client().prop_map(|client| Step::RemoveOwner { client }),
        4 => (client(), 0..9_u64, any::<bool>()).prop_map(|(client, after, lost)| Step::Up { client, after, lost }),
        4 => (client(), 0..9_u64).prop_map(|(client, after)| Step::Down { client, after }),
        1 => client().prop_map(|client| Step::Observe { client }),
        1 => (client(), prop_oneof![-2_500..2_500_i64, -3_600_000..3_600_000_i64])
            .prop_map(|(client, skew_ms)| Step::Drift { client, skew_ms }),
        2 => (0..3_000_u64).prop_map(|ms| Step::Pass { ms }),
    ]
}

fn clock_and_replica(clients: &mut [(Replica, i64)], client: usize, ms: u64) -> (Now, &mut Replica) {
    let (replica, skew_ms) = &mut clients[client];
    (skewed(ms + 10_000_000, *skew_ms), replica)
}

struct Star {
    server: Replica,
    clients: Vec<(Replica, i64)>,
    ms: u64,
}

fn player(client: usize) -> String {
    format!("player{client}")
}

impl Star {
    fn run(&mut self, step: &Step) {
        let (now, server_now, ms) = (at(self.ms), self.server_now(), self.ms);
        match *step {
            Step::Set { client: who, name, value } => {
                let value = value.map(|value| Bytes::from(alloc::vec![value]));
                let (now, replica) = clock_and_replica(&mut self.clients, who, ms);
                replica.set_property(now, &player(who), &format!("{name}"), value).unwrap();
            }
            Step::Add { client: who, delta } => {
                let (now, replica) = clock_and_replica(&mut self.clients, who, ms);
                replica.add(now, &player(who), "n", delta.into()).unwrap();
            }
            Step::Present { client, present } => {
                self.server.set_present(server_now, &player(client), present).unwrap();
            }
            Step::RemoveOwner { client } => self.server.remove_owner(server_now, &player(client)),
            Step::Up { client: who, after, lost } => {
                let (mut entries, _) = self.clients[who].0.changes_since(after, usize::MAX);
                entries.retain(|entry| entry.owner == player(who) && entry.domain() != v1::Domain::Presence);
                if !lost {
                    self.up(who, &entries);
                }
            }
            Step::Down { client: who, after } => {
                let (entries, _) = self.server.changes_since(after, usize::MAX);
                let (now, replica) = clock_and_replica(&mut self.clients, who, ms);
                replica.merge(now, None, &entries).unwrap();
            }
            Step::Observe { client: who } => {
                let (client_now, replica) = clock_and_replica(&mut self.clients, who, ms);
                replica.observe_wall(client_now, now.wall.0 + 10_000_000);
            }
            Step::Drift { client, skew_ms } => self.clients[client].1 = skew_ms,
            Step::Pass { ms } => self.ms += ms,
        }
    }

    fn server_now(&self) -> Now {
        at(self.ms + 10_000_000)
    }

    /// Delivers the client's entries. If the server refuses the stamps, delivers freshly stamped
    /// entries.
    fn up(&mut self, client: usize, entries: &[v1::StateEntry]) {
        let now = self.server_now();
        let (replica, skew_ms) = &mut self.clients[client];
        match self.server.merge(now, Some(&player(client)), entries) {
            Ok(_) => {}
            Err(StateError::ClockTooFarAhead) => {
                let (wall_ms, latest_ms) = self.server.believes(now);
                let client_now = skewed(self.ms + 10_000_000, *skew_ms);
                let again = replica.restamp(client_now, &player(client), wall_ms, latest_ms);
                self.server.merge(now, Some(&player(client)), &again).expect("fresh stamps");
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Runs a reconciliation that the client starts. Returns the number of messages.
    fn reconcile(&mut self, client: usize) -> usize {
        let mut step = Some(self.clients[client].0.start_reconcile());
        let mut messages = 0;
        while let Some(message) = step.take() {
            messages += 1;
            if messages % 2 == 1 {
                let answer = self.server.reconcile(&message).unwrap();
                let now = skewed(self.ms + 10_000_000, self.clients[client].1);
                self.clients[client].0.merge(now, None, &answer.entries).unwrap();
                step = answer.reconcile;
            } else {
                let mut answer = self.clients[client].0.reconcile(&message).unwrap();
                answer.keep_owner(&player(client));
                self.up(client, &answer.entries);
                step = answer.reconcile;
            }
        }
        messages
    }
}

proptest! {
    #[test]
    fn clients_converge_with_their_server(steps in proptest::collection::vec(step(), 0..80)) {
        let clients = (0..CLIENTS).map(|id| (replica(id as u64 + 2), 0)).collect();
        let mut star = Star { server: replica(1), clients, ms: 0 };
        for step in &steps {
            star.run(step);
        }
        for round in 0.. {
            let quiet = (0..CLIENTS).fold(true, |quiet, client| (star.reconcile(client) == 1) & quiet);
            if quiet {
                break;
            }
            prop_assert!(round < 6, "reconciliations go on finding something");
        }
        for (client, _) in &star.clients {
            prop_assert_eq!(client.root(), star.server.root());
            prop_assert_eq!(client.counter("n"), star.server.counter("n"));
            prop_assert!(client.properties().eq(star.server.properties()));
        }
        // Afterwards the server accepts writes of every client.
        for client in 0..CLIENTS {
            star.run(&Step::Set { client, name: 9, value: Some(1) });
            star.run(&Step::Up { client, after: 0, lost: false });
            star.reconcile(client);
            let heard = star.server.property(&player(client), "9").is_some();
            prop_assert!(heard, "player{} is not heard", client);
        }
    }
}
