//! Charges connections for input that was read from them.

use skirmish_proto::v1;

use super::connection::Connection;
use super::meter::{Allowance, Charge, Meter};
use super::{Connections, Offence};
use crate::base::bug::Bugs;
use crate::base::plant::Plant;
use crate::base::rate::Bucket;
use crate::base::slab::Key;
use crate::base::time::{Duration, Instant};
use crate::config::Config;
use crate::node::cx::Cx;

/// Bytes that each fragment of a WebSocket message but the first is charged for, beside the bytes
/// of the message.
const FRAGMENT_BYTES: u64 = 1024;

/// Frames of the WebSocket that are no message, or more than a message needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overhead {
    /// Pings, pongs and closes: each counts as a control frame.
    pub controls: u32,
    /// Fragments of messages but their first: each counts as bytes.
    pub fragments: u32,
}

impl Overhead {
    /// Returns true if there was no overhead.
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.controls == 0 && self.fragments == 0
    }
}

/// Classes of rate-limited frames, and bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Reliable,
    Latest,
    Control,
    Bytes,
}

impl Class {
    const fn excess(self) -> &'static str {
        match self {
            Self::Reliable => "far more reliable messages than the limits allow",
            Self::Latest => "far more latest messages than the limits allow",
            Self::Control => "far more requests than the limits allow",
            Self::Bytes => "far more bytes than the limits allow",
        }
    }
}

/// One value for each rate-limited class of frames.
#[derive(Clone, Copy, Debug)]
pub(super) struct Classes<T> {
    reliable: T,
    latest: T,
    control: T,
    bytes: T,
}

/// Rates at which a connection sends, by class, whether its frames are accepted or not.
pub(super) type Meters = Classes<Meter>;

/// Rates that connections are allowed, by class.
pub(super) type Allowances = Classes<Allowance>;

impl<T> Classes<T> {
    pub(super) const fn of(&self, class: Class) -> &T {
        match class {
            Class::Reliable => &self.reliable,
            Class::Latest => &self.latest,
            Class::Control => &self.control,
            Class::Bytes => &self.bytes,
        }
    }

    pub(super) const fn of_mut(&mut self, class: Class) -> &mut T {
        match class {
            Class::Reliable => &mut self.reliable,
            Class::Latest => &mut self.latest,
            Class::Control => &mut self.control,
            Class::Bytes => &mut self.bytes,
        }
    }
}

impl Allowances {
    /// Returns the allowances for the limits of a configuration.
    pub(super) fn new(config: &Config) -> Self {
        let rates = &config.rates;
        let of = |limit| Allowance::new(limit, config.heartbeat.longest_stall());
        Self {
            reliable: of(rates.reliable),
            latest: of(rates.latest),
            control: of(rates.control),
            bytes: of(rates.bytes),
        }
    }
}

impl Meters {
    /// Creates full meters.
    pub(super) const fn new(allowances: &Allowances, now: Instant) -> Self {
        Self {
            reliable: Meter::new(&allowances.reliable, now),
            latest: Meter::new(&allowances.latest, now),
            control: Meter::new(&allowances.control, now),
            bytes: Meter::new(&allowances.bytes, now),
        }
    }

    /// Notes that the driver has read all received input.
    pub(super) fn caught_up(&mut self, allowances: &Allowances, now: Instant) {
        self.reliable.caught_up(&allowances.reliable, now);
        self.latest.caught_up(&allowances.latest, now);
        self.control.caught_up(&allowances.control, now);
        self.bytes.caught_up(&allowances.bytes, now);
    }
}

impl Connections {
    /// Returns true if a connection was paused, and [`Self::handle_drained`] has not been called
    /// since.
    pub(crate) fn is_behind(&self, key: Key) -> bool {
        self.table.get(key).is_some_and(|connection| connection.behind)
    }

    /// Returns true if the driver must not read a connection.
    pub(crate) fn is_held(&self, key: Key) -> bool {
        self.table.get(key).is_some_and(Connection::is_held)
    }

    /// Notes that the driver has read all received input of a connection.
    pub(crate) fn handle_drained(&mut self, now: Instant, key: Key) {
        // The node may have dropped the connection, and the driver does not know that yet.
        if let Some(connection) = self.table.get_mut(key) {
            connection.caught_up(&self.allowances, now);
        }
    }

    /// Charges a connection for frames of its WebSocket that are no message.
    pub(crate) fn handle_overhead(&mut self, cx: &mut Cx<'_>, key: Key, overhead: Overhead) {
        // The node may have dropped the connection, and the driver does not know that yet.
        if self.table.get(key).is_none_or(Connection::is_closing) {
            return;
        }
        if let Err(offence) = self.charge_overhead(cx, key, overhead) {
            self.punish(cx, key, offence);
        }
    }

    fn charge_overhead(&mut self, cx: &mut Cx<'_>, key: Key, overhead: Overhead) -> Result<(), Offence> {
        let Overhead { controls, fragments } = overhead;
        if fragments > 0 {
            self.charge(cx, key, Class::Bytes, u64::from(fragments) * FRAGMENT_BYTES)?;
        }
        if controls > 0 {
            self.charge(cx, key, Class::Control, controls.into())?;
        }
        Ok(())
    }

    /// Charges a connection for input that was read, accepted or refused. Pauses the connection if
    /// it exceeds its limits.
    ///
    /// # Errors
    /// If no stall can explain the excess.
    pub(super) fn charge(
        &mut self,
        cx: &mut Cx<'_>,
        key: Key,
        class: Class,
        tokens: u64,
    ) -> Result<(), Offence> {
        let Some(connection) = self.table.get_mut(key) else {
            cx.bugs.found("a connection is charged that is not in the table");
            return Ok(());
        };
        if connection.is_closing() {
            // A closed connection is read only with a planted bug.
            return Ok(());
        }
        match connection.charge(&self.allowances, cx.now.instant, class, tokens) {
            Charge::Within => Ok(()),
            Charge::Pause(pause) if !cx.planted.is(Plant::BacklogPunished) => {
                self.stats.pauses += u64::from(connection.paused.is_none());
                connection.paused = connection.paused.max(Some(cx.now.instant + pause));
                connection.behind = true;
                self.book(key);
                Ok(())
            }
            Charge::Pause(_) | Charge::Spent => Err(Offence::new(v1::Reason::RateLimited, class.excess())),
        }
    }

    /// Counts a reliable message that is to be appended.
    ///
    /// # Errors
    /// If the connection sends too many messages; the error is the time until the next is allowed.
    pub(crate) fn take_reliable(&mut self, bugs: &mut Bugs, now: Instant, key: Key) -> Result<(), Duration> {
        self.take(bugs, now, key, |connection| &mut connection.buckets.reliable)
    }

    /// Counts a latest message that is to be accepted.
    ///
    /// # Errors
    /// As [`Self::take_reliable`].
    pub(crate) fn take_latest(&mut self, bugs: &mut Bugs, now: Instant, key: Key) -> Result<(), Duration> {
        self.take(bugs, now, key, |connection| &mut connection.buckets.latest)
    }

    fn take(
        &mut self,
        bugs: &mut Bugs,
        now: Instant,
        key: Key,
        bucket: fn(&mut Connection) -> &mut Bucket,
    ) -> Result<(), Duration> {
        let Some(connection) = self.table.get_mut(key) else {
            bugs.found("a connection vanished while it was read");
            return Ok(());
        };
        bucket(connection).take(now, 1)
    }
}
