//! Places in the connection table: caps by address, and shares of the places for connections
//! that have not said `Hello`.
//!
//! These places are few, and a stranger can take one by connecting. While all are taken, a
//! connection from an address that has fewer than its share of them takes the place of the
//! oldest one of the address that has most. So nobody keeps others out who has fewer
//! addresses than there are places, and a crowd that comes at once does not push itself out.

use alloc::collections::{BTreeMap, BTreeSet};
use core::cmp::Reverse;

use super::{Event, Node, Output, Refusal};
use crate::base::id::{Address, ConnId};
use crate::base::slab::Key;
use crate::base::time::{Instant, Now};
use crate::config::ConnectionLimits;
use crate::node::connection::{Connection, Phase};

/// Whom a connection is counted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// The client, by the part of its address that counts.
    Client(Address),
    /// A trusted proxy that has not said yet who its client is. It has no cap of its own.
    Proxy(Address),
}

/// How far a connection is on its way to `Hello`, in the order in which they make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// It is silent, or its upgrade is being checked.
    Upgrading,
    /// It has not said `Hello`.
    Greeting,
    /// The registry is asked for its session.
    Claiming,
}

impl Stage {
    /// The stage of a connection; `None` if it does not wait.
    const fn of(connection: &Connection) -> Option<Self> {
        match connection.phase {
            Phase::Upgrading { .. } => Some(Self::Upgrading),
            Phase::Greeting { .. } => Some(Self::Greeting),
            Phase::Claiming { .. } => Some(Self::Claiming),
            Phase::Open | Phase::Closing { .. } => None,
        }
    }
}

/// The connections of one source.
#[derive(Debug, Default)]
struct Tally {
    connections: usize,
    /// Those that have not said `Hello`, by stage and number: the first makes room first.
    waiting: BTreeMap<(Stage, u64), (Key, Instant)>,
}

impl Tally {
    fn rank(&self, source: Source) -> Option<Rank> {
        let ((_, number), _) = self.waiting.first_key_value()?;
        Some((self.waiting.len(), Reverse(*number), source))
    }
}

/// Connections that wait, the number of the first of them, and the source. The last in this
/// order makes room: the source with most, or of those the one whose first is the oldest.
type Rank = (usize, Reverse<u64>, Source);

/// The connections, by source. As large as the connection table at most.
#[derive(Debug, Default)]
pub(super) struct Admission {
    tallies: BTreeMap<Source, Tally>,
    ranking: BTreeSet<Rank>,
    waiting: usize,
}

impl Admission {
    /// Connections that have not said `Hello`.
    pub(super) const fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether one more connection of a source may come, and which one has to go for it.
    fn find_place(
        &self,
        caps: &ConnectionLimits,
        now: Instant,
        source: Source,
        full: bool,
    ) -> Result<Option<Key>, Refusal> {
        let own = self.tallies.get(&source);
        let connections = own.map_or(0, |tally| tally.connections);
        if matches!(source, Source::Client(_)) && connections >= caps.per_address {
            return Err(Refusal::AddressFull);
        }
        let refusal = match (full, self.waiting >= caps.unauthenticated) {
            (false, false) => return Ok(None),
            (true, _) => Refusal::Full,
            (false, true) => Refusal::TooManyUnauthenticated,
        };
        let own = own.map_or(0, |tally| tally.waiting.len());
        let Some((most, _, biggest)) = self.ranking.last() else { return Err(refusal) };
        // It is there: both tables are kept together, which `audit` checks.
        let first = self.tallies.get(biggest).and_then(|tally| tally.waiting.first_key_value());
        let Some(((stage, _), (key, since))) = first else { return Err(refusal) };
        // Among equals whoever came first goes on, unless it does not: else a crowd that
        // comes at once would push out each other, and nobody would get in.
        let stalls = *stage < Stage::Claiming && now.since(*since) >= caps.handshake_timeout / 2;
        if *most >= own + 2 || stalls { Ok(Some(*key)) } else { Err(refusal) }
    }

    /// Changes what is known of a source.
    fn update<R>(&mut self, source: Source, change: impl FnOnce(&mut Tally) -> R) -> R {
        let tally = self.tallies.entry(source).or_default();
        if let Some(rank) = tally.rank(source) {
            self.ranking.remove(&rank);
        }
        self.waiting -= tally.waiting.len();
        let result = change(tally);
        self.waiting += tally.waiting.len();
        if let Some(rank) = tally.rank(source) {
            self.ranking.insert(rank);
        }
        if tally.connections == 0 {
            self.tallies.remove(&source);
        }
        result
    }

    fn insert(&mut self, key: Key, connection: &Connection, now: Instant) {
        self.update(connection.source, |tally| {
            tally.connections += 1;
            if let Some(stage) = Stage::of(connection) {
                tally.waiting.insert((stage, connection.number), (key, now));
            }
        });
    }

    /// Forgets a connection. When it came, if it still waited.
    fn remove(&mut self, connection: &Connection) -> Option<Instant> {
        self.update(connection.source, |tally| {
            tally.connections -= 1;
            let (_, since) = tally.waiting.remove(&(Stage::of(connection)?, connection.number))?;
            Some(since)
        })
    }

    /// A connection changes its stage, or does not wait any more.
    fn advance(&mut self, source: Source, number: u64, from: Stage, to: Option<Stage>) {
        self.update(source, |tally| {
            if let Some(place) = tally.waiting.remove(&(from, number))
                && let Some(to) = to
            {
                tally.waiting.insert((to, number), place);
            }
        });
    }

    /// Checks that the tables agree with each other and with the caps.
    pub(super) fn audit(&self, caps: &ConnectionLimits, connections: usize) -> Result<(), &'static str> {
        let check = |holds: bool, bound| if holds { Ok(()) } else { Err(bound) };
        check(self.waiting <= caps.unauthenticated, "unauthenticated connections")?;
        let tallies = || self.tallies.iter();
        check(tallies().map(|(_, tally)| tally.connections).sum::<usize>() == connections, "addresses")?;
        check(tallies().map(|(_, tally)| tally.waiting.len()).sum::<usize>() == self.waiting, "strangers")?;
        let of_address = tallies().all(|(source, tally)| {
            let capped = matches!(source, Source::Client(_));
            !capped || tally.connections <= caps.per_address
        });
        check(of_address, "connections of an address")?;
        check(
            tallies().all(|(_, tally)| tally.waiting.len() <= tally.connections),
            "strangers of an address",
        )?;
        let ranks = tallies().filter_map(|(source, tally)| tally.rank(*source)).collect::<BTreeSet<_>>();
        check(ranks == self.ranking, "order of addresses")
    }
}

impl Node {
    /// A trusted proxy has connected for a client, of which nothing is known yet. It counts
    /// for the proxy, which has no cap of its own, until [`Self::handle_address`].
    ///
    /// # Errors
    /// If a cap is reached; then there is no state for it, and the driver drops it.
    pub fn handle_proxied(&mut self, now: Now, proxy: Address) -> Result<ConnId, Refusal> {
        let now = self.begin(now);
        self.accept(now, Source::Proxy(proxy.counted(self.config.connections.ipv6_prefix)))
    }

    /// A proxy has said whom a connection is for: it counts for that address from now on.
    ///
    /// # Errors
    /// If the address has as many connections as it may, or logs in too fast: the connection still counts for the
    /// proxy, and the driver closes it.
    pub fn handle_address(&mut self, now: Now, conn: ConnId, client: Address) -> Result<(), Refusal> {
        let now = self.begin(now);
        let caps = &self.config.connections;
        let source = Source::Client(client.counted(caps.ipv6_prefix));
        let key = conn.key();
        if self.connections.get(key).is_none_or(|connection| connection.source == source) {
            return Ok(());
        }
        let of_address = self.admission.tallies.get(&source).map_or(0, |tally| tally.connections);
        if of_address >= caps.per_address {
            self.stats.refused += 1;
            return Err(Refusal::AddressFull);
        }
        if let Err(refusal) = self.take_login(now, source) {
            self.stats.refused += 1;
            return Err(refusal);
        }
        let Some(connection) = self.connections.get_mut(key) else {
            self.bugs.found("a connection vanished while its address was counted");
            return Ok(());
        };
        let since = self.admission.remove(connection);
        connection.source = source;
        self.admission.insert(key, connection, since.unwrap_or(now.instant));
        Ok(())
    }

    pub(super) fn accept(&mut self, now: Now, source: Source) -> Result<ConnId, Refusal> {
        let caps = &self.config.connections;
        let full = self.connections.len() >= caps.total;
        let place = match self.draining {
            Some(_) => Err(Refusal::Draining),
            None => self.clock_is_right(),
        };
        let place = place.and_then(|()| self.admission.find_place(caps, now.instant, source, full));
        let place = place.and_then(|place| self.take_login(now, source).map(|()| place));
        match place {
            Ok(None) => {}
            Ok(Some(displaced)) => self.displace(now, displaced),
            Err(refusal) => {
                self.stats.refused += 1;
                return Err(refusal);
            }
        }
        let number = self.stats.accepted + 1;
        let connection =
            Connection::new(number, &self.config, &self.allowances, source, now.instant, &mut self.rng);
        let Some(key) = self.connections.insert(connection) else {
            self.bugs.found("a place that was found for a connection is none");
            self.stats.refused += 1;
            return Err(Refusal::Full);
        };
        self.stats.accepted += 1;
        if let Some(connection) = self.connections.get(key) {
            self.admission.insert(key, connection, now.instant);
        }
        self.book_connection(key);
        Ok(ConnId::from_key(key))
    }

    /// Counts a log-in of an address, if the address is the client's.
    fn take_login(&mut self, now: Now, source: Source) -> Result<(), Refusal> {
        let Source::Client(address) = source else { return Ok(()) };
        let taken = self.logins_by_address.take(now.instant, &address);
        self.stats.logins_limited += u64::from(taken.is_err());
        taken.map_err(Refusal::TooFast)
    }

    /// A connection that has not said `Hello` makes room for another.
    fn displace(&mut self, now: Now, key: Key) {
        let Some(connection) = self.connections.get(key) else {
            return self.bugs.found("a connection that makes room is not in the table");
        };
        let (Source::Client(address) | Source::Proxy(address)) = connection.source;
        self.stats.displaced += 1;
        let conn = ConnId::from_key(key);
        self.event(Event::Displaced { conn, address });
        self.outputs.push_back(Output::Abort(conn));
        self.forget_connection(now, key);
    }

    /// Changes the phase of a connection.
    pub(super) fn change_phase(&mut self, key: Key, change: impl FnOnce(&mut Connection)) {
        let Some(connection) = self.connections.get_mut(key) else {
            return self.bugs.found("the phase changes of a connection that is not in the table");
        };
        let before = Stage::of(connection);
        change(connection);
        let after = Stage::of(connection);
        if let Some(before) = before
            && after != Some(before)
        {
            self.admission.advance(connection.source, connection.number, before, after);
        }
    }

    /// A connection is gone.
    pub(super) fn give_place_up(&mut self, connection: &Connection) {
        self.admission.remove(connection);
    }
}
