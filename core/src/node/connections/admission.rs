//! Places in the connection table: caps by address, and shares of the places for connections
//! that have not said `Hello`.
//!
//! These places are few, and a stranger can take one by connecting. While all are taken, a new
//! connection from an address below its share displaces the oldest connection of the address with
//! most. So players cannot be kept out by a stranger with fewer addresses than there are places,
//! and the connections of a sudden crowd do not displace each other.

use alloc::collections::{BTreeMap, BTreeSet};
use core::cmp::Reverse;

use super::Connections;
use super::connection::{Connection, Phase};
use crate::base::bug::Bugs;
use crate::base::id::{Address, ConnId};
use crate::base::slab::Key;
use crate::base::time::Instant;
use crate::config::ConnectionLimits;
use crate::node::cx::Cx;
use crate::node::{Event, Output, Refusal};

/// The address that a connection is counted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// The client.
    Client(Address),
    /// A trusted proxy that has not named its client yet. A proxy has no cap of its own.
    Proxy(Address),
}

impl Source {
    /// Returns the source with the part of its address that counts.
    fn counted(self, ipv6_prefix: u8) -> Self {
        match self {
            Self::Client(address) => Self::Client(address.counted(ipv6_prefix)),
            Self::Proxy(address) => Self::Proxy(address.counted(ipv6_prefix)),
        }
    }
}

/// Stages of a connection before its session is open, in the order in which connections make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// The connection is silent, or its upgrade is being checked.
    Upgrading,
    /// The client has not said `Hello`.
    Greeting,
    /// The registry is asked for the session.
    Claiming,
}

impl Stage {
    /// Returns the stage of a connection; `None` if the connection does not wait.
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

/// Waiting connections of a source: their number, the number of the first, and the source. The last
/// in this order makes room: the source with most connections or, among equals, the source with the
/// oldest first connection.
type Rank = (usize, Reverse<u64>, Source);

/// The connections, by source. As large as the connection table at most.
#[derive(Debug, Default)]
pub(super) struct Admission {
    tallies: BTreeMap<Source, Tally>,
    ranking: BTreeSet<Rank>,
    waiting: usize,
}

impl Admission {
    /// Returns the number of connections that wait for a session.
    pub(super) const fn waiting(&self) -> usize {
        self.waiting
    }

    /// Finds a place for one more connection of a source. Returns the connection that has to make
    /// room, if one has to.
    ///
    /// # Errors
    /// If there is no place.
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
        // The source is in the table: both tables change together, which `audit` checks.
        let first = self.tallies.get(biggest).and_then(|tally| tally.waiting.first_key_value());
        let Some(((stage, _), (key, since))) = first else { return Err(refusal) };
        // Among equals the first connection stays, unless it stalls. Else the connections of a
        // sudden crowd would displace each other, and none would be admitted.
        let stalls = *stage < Stage::Claiming && now.since(*since) >= caps.handshake_timeout / 2;
        if *most >= own + 2 || stalls { Ok(Some(*key)) } else { Err(refusal) }
    }

    /// Changes the tally and the rank of a source.
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

    /// Forgets a connection. Returns the time of its accept, if the connection still waited.
    pub(super) fn remove(&mut self, connection: &Connection) -> Option<Instant> {
        self.update(connection.source, |tally| {
            tally.connections -= 1;
            let (_, since) = tally.waiting.remove(&(Stage::of(connection)?, connection.number))?;
            Some(since)
        })
    }

    /// Moves a connection to another stage, or out of those that wait.
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
    ///
    /// # Errors
    /// Names the bound that does not hold.
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

impl Connections {
    /// Accepts a connection. The connection may take the place of another that has no session.
    ///
    /// # Errors
    /// If a cap is reached, or the address connects too often. Then the connection leaves no state.
    pub(crate) fn accept(&mut self, cx: &mut Cx<'_>, source: Source) -> Result<Key, Refusal> {
        let caps = &cx.config.connections;
        let source = source.counted(caps.ipv6_prefix);
        let full = self.table.len() >= caps.total;
        let place = self.admission.find_place(caps, cx.now.instant, source, full);
        match place.and_then(|place| self.take_login(cx.now.instant, source).map(|()| place)) {
            Ok(None) => {}
            Ok(Some(displaced)) => self.displace(cx, displaced),
            Err(refusal) => return Err(self.refuse(refusal)),
        }
        let number = self.stats.accepted + 1;
        let connection = Connection::new(number, cx.config, &self.allowances, source, cx.now.instant, cx.rng);
        let Some(key) = self.table.insert(connection) else {
            cx.bugs.found("a place that was found for a connection is none");
            return Err(self.refuse(Refusal::Full));
        };
        self.stats.accepted += 1;
        if let Some(connection) = self.table.get(key) {
            self.admission.insert(key, connection, cx.now.instant);
        }
        self.book(key);
        Ok(key)
    }

    /// Counts a connection that is refused, and returns the reason.
    pub(crate) const fn refuse(&mut self, refusal: Refusal) -> Refusal {
        self.stats.refused += 1;
        refusal
    }

    /// Counts a connection for the address that its proxy has named.
    ///
    /// # Errors
    /// If the address has reached its cap on connections, or connects too often. The connection
    /// still counts for the proxy.
    pub(crate) fn count_for(&mut self, cx: &mut Cx<'_>, key: Key, client: Address) -> Result<(), Refusal> {
        let caps = &cx.config.connections;
        let source = Source::Client(client).counted(caps.ipv6_prefix);
        // The node may have dropped the connection, and the driver does not know that yet.
        if self.table.get(key).is_none_or(|connection| connection.source == source) {
            return Ok(());
        }
        let of_address = self.admission.tallies.get(&source).map_or(0, |tally| tally.connections);
        if of_address >= caps.per_address {
            return Err(self.refuse(Refusal::AddressFull));
        }
        if let Err(refusal) = self.take_login(cx.now.instant, source) {
            return Err(self.refuse(refusal));
        }
        let Some(connection) = self.table.get_mut(key) else {
            cx.bugs.found("a connection vanished while its address was counted");
            return Ok(());
        };
        let since = self.admission.remove(connection);
        connection.source = source;
        self.admission.insert(key, connection, since.unwrap_or(cx.now.instant));
        Ok(())
    }

    /// Counts a log-in of an address, if the address is the client's.
    fn take_login(&mut self, now: Instant, source: Source) -> Result<(), Refusal> {
        let Source::Client(address) = source else { return Ok(()) };
        let taken = self.logins.take(now, &address);
        self.stats.logins_limited += u64::from(taken.is_err());
        taken.map_err(Refusal::TooFast)
    }

    /// Drops a connection that has no session, to make room for another.
    fn displace(&mut self, cx: &mut Cx<'_>, key: Key) {
        let Some(connection) = self.table.get(key) else {
            return cx.bugs.found("a connection that makes room is not in the table");
        };
        let (Source::Client(address) | Source::Proxy(address)) = connection.source;
        self.stats.displaced += 1;
        let conn = ConnId::from_key(key);
        cx.event(Event::Displaced { conn, address });
        cx.out.push_back(Output::Abort(conn));
        if self.forget(cx, key).is_some() {
            cx.bugs.found("a connection that makes room has a session");
        }
    }

    /// Changes the phase of a connection, and its place among the waiting ones.
    pub(super) fn change_phase(&mut self, bugs: &mut Bugs, key: Key, change: impl FnOnce(&mut Connection)) {
        let Some(connection) = self.table.get_mut(key) else {
            return bugs.found("the phase changes of a connection that is not in the table");
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
}
