//! The memory that a node may need at most, computed from its configuration.
//!
//! Each item is a number of things and an upper bound of the bytes of one thing: the memory that a
//! stranger can make a node keep, rounded up by the structures around it. Memory of the kernel,
//! such as socket buffers, is not counted.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use super::connections as clients;
use crate::base::id::MAX_NAME;
use crate::config::Config;
use crate::crdt::MAX_VALUE;

/// Bytes of the structures of one connection, session, room or member, with their places in tables
/// and agendas.
const CONNECTION: usize = 6 * 1024;
const SESSION: usize = 1024;
const ROOM: usize = 4 * 1024;
const MEMBER: usize = 1024;
/// Bytes around one log entry, latest message or state entry.
const ENTRY: usize = 256;
const LATEST: usize = 512;
const STATE: usize = 512;
/// Bytes of one ticket at its matcher.
const TICKET: usize = 2 * 1024;

/// Memory that the shell adds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shell {
    /// Bytes of a connection's buffers beside frames.
    pub connection: usize,
    /// Bytes of a request for an upgrade.
    pub head: usize,
    /// Bytes of a link's buffers beside frames.
    pub link: usize,
    /// Bytes of an embedded registry, or of the requests to an external one that are under way.
    pub registry: usize,
}

/// Item of the budget: a number of things, and the bytes of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// Name of the things.
    pub what: &'static str,
    /// Highest number of the things.
    pub count: usize,
    /// Highest number of bytes of each.
    pub each: usize,
}

impl Item {
    const fn new(what: &'static str, count: usize, each: usize) -> Self {
        Self { what, count, each }
    }

    /// Returns the bytes of all things together.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        (self.count as u64).saturating_mul(self.each as u64)
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, count, each } = self;
        write!(f, "{what}: {count} of {} each, {}", Size(*each as u64), Size(self.bytes()))
    }
}

/// Upper bound of a node's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    items: Vec<Item>,
    connection: usize,
    address: u64,
}

impl Budget {
    /// Computes the budget of a configuration.
    #[must_use]
    pub fn new(config: &Config, shell: Shell) -> Self {
        let Config { connections, sessions, rooms, frames, links, matchmaking, .. } = config;
        // One frame that is read, one that has arrived in part with the buffer that grew for it,
        // and one that is written or was queued last.
        let frame = frames.frame_bytes * 4;
        let connection = CONNECTION + shell.connection + clients::CONTROL_BYTES + frame;
        let hello = shell.head + frames.frame_bytes;
        let session = SESSION + sessions.rooms * MEMBER;
        let log = rooms.window_bytes + frames.body_bytes + Config::FRAME_OVERHEAD;
        let room = ROOM + log + rooms.window_entries * ENTRY + rooms.latest_bytes;
        let latest = rooms.latest_keys as usize * LATEST;
        let state = rooms.state_entries * (MAX_VALUE + 2 * MAX_NAME + STATE);
        let member = MEMBER + latest + state;
        let members =
            sessions.total.saturating_mul(sessions.rooms).min(rooms.total.saturating_mul(rooms.members));
        let link = links.queue_bytes + shell.link + 4 * links.frame_bytes;
        let tickets = matchmaking.queues.len() * matchmaking.tickets;
        let items = vec![
            Item::new("connections", connections.total, connection),
            Item::new("requests and Hellos before the Welcome", connections.unauthenticated, hello),
            Item::new("sessions", sessions.total, session),
            Item::new("windows and latest messages of rooms", rooms.total, room),
            Item::new("members and their state", members, member),
            Item::new("links", links.total, link),
            Item::new("tickets", tickets, TICKET),
            Item::new("registry", 1, shell.registry),
        ];
        let each = connection + session + sessions.rooms * (room + member);
        let address = (connections.per_address.min(connections.total) as u64).saturating_mul(each as u64);
        Self { items, connection, address }
    }

    /// Returns the items of the budget, the largest first.
    #[must_use]
    pub fn items(&self) -> Vec<Item> {
        let mut items = self.items.clone();
        items.sort_by_key(|item| core::cmp::Reverse(item.bytes()));
        items
    }

    /// Returns the bytes of all items together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.items.iter().fold(0, |sum, item| sum.saturating_add(item.bytes()))
    }

    /// Returns the bytes of one connection, without its session and rooms.
    #[must_use]
    pub const fn of_connection(&self) -> usize {
        self.connection
    }

    /// Returns the bytes of all connections of one address, with their sessions, each in the
    /// highest number of rooms, which have no other members.
    #[must_use]
    pub const fn of_address(&self) -> u64 {
        self.address
    }
}

/// Number of bytes, formatted for people.
#[derive(Clone, Copy, Debug)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
        let mut size = self.0;
        let mut unit = 0;
        // Rounded up, since the number is a bound.
        while size >= 10 * 1024 && unit + 1 < UNITS.len() {
            size = size.div_ceil(1024);
            unit += 1;
        }
        write!(f, "{size} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;

    use super::*;

    fn total(change: impl FnOnce(&mut Config)) -> u64 {
        let mut config = Config::default();
        change(&mut config);
        Budget::new(&config, Shell::default()).total()
    }

    #[test]
    fn every_limit_costs_what_it_lets_in() {
        let usual = total(|_| {});
        let one = |change: fn(&mut Config)| total(change) - usual;
        assert_eq!(one(|c| c.connections.unauthenticated += 1), 64 * 1024);
        assert!(one(|c| c.connections.total += 1) > clients::CONTROL_BYTES as u64);
        assert!(one(|c| c.links.total += 1) > Config::default().links.queue_bytes as u64);
        assert_eq!(one(|c| c.links.queue_bytes += 1), 256);
        assert_eq!(one(|c| c.rooms.window_bytes += 1), 20_000);
        assert_eq!(one(|c| c.rooms.state_entries += 1), 320_000 * (1024 + 128 + 512));
        for change in [
            (|c| c.sessions.total += 1) as fn(&mut Config),
            |c| c.sessions.rooms += 1,
            |c| c.rooms.total += 1,
            |c| c.rooms.latest_keys += 1,
            |c| c.rooms.latest_bytes += 1,
            |c| c.rooms.window_entries += 1,
            |c| c.frames.frame_bytes += 1,
            |c| c.frames.body_bytes += 1,
            |c| c.links.frame_bytes += 1,
        ] {
            assert!(one(change) > 0);
        }
    }

    #[test]
    fn the_largest_item_comes_first_and_they_add_up() {
        let budget = Budget::new(&Config::default(), Shell { registry: 1 << 20, ..Shell::default() });
        let items = budget.items();
        assert!(items.windows(2).all(|pair| pair[0].bytes() >= pair[1].bytes()));
        assert_eq!(items.iter().map(Item::bytes).sum::<u64>(), budget.total());
        assert!(budget.of_address() < budget.total());
    }

    #[test]
    fn nothing_overflows_at_the_largest_limits() {
        let largest = |c: &mut Config| {
            c.sessions.total = usize::MAX;
            c.rooms.total = usize::MAX;
        };
        assert_eq!(total(largest), u64::MAX);
    }

    #[test]
    fn sizes_are_rounded_up() {
        for (bytes, shown) in
            [(0, "0 B"), (10_239, "10239 B"), (10_240, "10 KiB"), (10 * 1024 * 1024 + 1, "11 MiB")]
        {
            assert_eq!(Size(bytes).to_string(), shown);
        }
    }
}
