//! A link between two nodes, from its connection to its end.

use bytes::Bytes;
use skirmish_proto::v1;

use super::LinkClosure;
use super::queue::LinkQueue;
use super::rooms::LinkRooms;
use crate::base::agenda::Booking;
use crate::base::id::{Address, NodeId};
use crate::base::plant::Planted;
use crate::base::rng::Rng;
use crate::base::slab::Key;
use crate::base::time::{Duration, Instant, LATE};
use crate::config::LinkLimits;
use crate::node::heartbeat::{Beat, Heartbeat};

/// Origin of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// This node has dialed that one.
    Dialed(NodeId),
    /// Somebody has connected from this address.
    Stranger(Address),
}

/// A link.
#[derive(Debug)]
pub(super) struct Link {
    caller: Caller,
    /// The node at the other end. The side that dialed knows that node from the start, the
    /// other side from the `LinkHello`.
    node: Option<NodeId>,
    /// Deadline of the peer's `LinkHello`; `None` when that has come.
    greeting: Option<Instant>,
    /// True if frames are known to pass both ways.
    is_proven: bool,
    /// True if the greeting was given its time once more, since this node had stood still.
    was_excused: bool,
    heartbeat: Heartbeat,
    /// The ping whose answer measures the clock of the peer, and the time when the ping was
    /// sent. One at a time: an answer may take longer than the interval of pings.
    probe: Option<(u64, Instant)>,
    booking: Booking,
    queue: LinkQueue,
    rooms: LinkRooms,
    /// True if the driver knows that there is something to transmit.
    is_woken: bool,
}

/// Next step of a link whose deadline has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkStep {
    /// Nothing is due yet.
    Wait,
    /// Send a ping with this nonce.
    Ping(u64),
    /// Drop the link.
    Close(LinkClosure),
}

impl Link {
    /// A link that was connected just now.
    pub(super) fn new(
        limits: &LinkLimits,
        caller: Caller,
        now: Instant,
        rng: &mut Rng,
        planted: Planted,
    ) -> Self {
        let node = match caller {
            Caller::Dialed(node) => Some(node),
            Caller::Stranger(_) => None,
        };
        Self {
            caller,
            node,
            greeting: Some(now + limits.handshake_timeout),
            is_proven: false,
            was_excused: false,
            heartbeat: Heartbeat::new(&limits.heartbeat, now, rng),
            probe: None,
            booking: Booking::default(),
            queue: LinkQueue::new(limits.queue_bytes, planted),
            rooms: LinkRooms::default(),
            is_woken: false,
        }
    }

    // Getters.

    /// The node at the other end, if known.
    pub(super) const fn node(&self) -> Option<NodeId> {
        self.node
    }

    /// Returns true if both sides have said `LinkHello`.
    pub(super) const fn is_open(&self) -> bool {
        self.greeting.is_none()
    }

    /// Returns true if frames are known to pass both ways.
    pub(super) const fn is_proven(&self) -> bool {
        self.is_proven
    }

    /// Smoothed round trip of the link; `None` before the first pong.
    pub(super) const fn rtt(&self) -> Option<Duration> {
        self.heartbeat.rtt()
    }

    /// Address of a link whose node is not known yet, and the deadline of its `LinkHello`.
    pub(super) const fn stranger(&self) -> Option<(Address, Instant)> {
        match (self.caller, self.node, self.greeting) {
            (Caller::Stranger(address), None, Some(until)) => Some((address, until)),
            _ => None,
        }
    }

    /// Returns true if messages of members may be relayed over the link.
    pub(super) fn takes_more(&self) -> bool {
        self.queue.takes_more()
    }

    /// The rooms that are read for the peer.
    pub(super) const fn rooms(&self) -> &LinkRooms {
        &self.rooms
    }

    /// The moment at which [`Self::handle_timeout`] is due.
    pub(super) fn deadline(&self) -> Instant {
        let due = self.heartbeat.due();
        self.greeting.map_or(due, |until| until.min(due))
    }

    // Inputs.

    /// Notes that any frame came: the peer lives.
    pub(super) fn handle_frame(&mut self, limits: &LinkLimits) {
        self.heartbeat.handle_frame(&limits.heartbeat);
    }

    /// Reads the `LinkHello` of the peer: the node that the peer says to be.
    ///
    /// # Errors
    /// If the peer is, or means, another node than it should.
    pub(super) fn check_hello(&self, own: NodeId, hello: &v1::LinkHello) -> Result<NodeId, LinkClosure> {
        let from = NodeId(hello.node);
        let is_right = hello.to == own.0 && from != own && self.node.is_none_or(|node| node == from);
        if is_right { Ok(from) } else { Err(LinkClosure::WrongNode) }
    }

    /// Opens the link to a node whose `LinkHello` was accepted. Returns true if this side has
    /// still to answer with its own.
    pub(super) fn open(&mut self, limits: &LinkLimits, from: NodeId, now: Instant, rng: &mut Rng) -> bool {
        let is_owed = self.node.is_none();
        self.node = Some(from);
        self.greeting = None;
        // To the side that has dialed, the LinkHello is an answer.
        self.is_proven = !is_owed;
        self.heartbeat = Heartbeat::new(&limits.heartbeat, now, rng);
        // The clock of the peer is to be measured at once.
        self.heartbeat.hurry(now);
        is_owed
    }

    /// Notes that a frame came after the `LinkHello`. The peer sends none before it has heard
    /// this side's `LinkHello`.
    pub(super) const fn prove(&mut self) {
        self.is_proven = true;
    }

    /// Takes the answer to a ping. Returns the time when that ping was sent if the answer
    /// measures the clock of the peer.
    pub(super) fn handle_pong(&mut self, now: Instant, nonce: u64) -> Option<Instant> {
        self.heartbeat.handle_pong(now, nonce);
        self.probe.take_if(|(probe, _)| *probe == nonce).map(|(_, sent)| sent)
    }

    /// Decides on the deadlines of greeting and heartbeat. A greeting that is found
    /// [late](LATE) is given its time once more.
    pub(super) fn handle_timeout(&mut self, limits: &LinkLimits, now: Instant, rng: &mut Rng) -> LinkStep {
        self.booking.clear();
        if let Some(until) = self.greeting.filter(|until| *until <= now)
            && now.since(until) > LATE
            && !core::mem::replace(&mut self.was_excused, true)
        {
            self.greeting = Some(now + limits.handshake_timeout);
        }
        if self.greeting.is_some_and(|until| until <= now) {
            return LinkStep::Close(LinkClosure::HandshakeTimeout);
        }
        match self.heartbeat.handle_timeout(&limits.heartbeat, now, rng) {
            Beat::Ping { nonce, .. } if self.is_open() => {
                self.probe.get_or_insert((nonce, now));
                LinkStep::Ping(nonce)
            }
            Beat::Early | Beat::Ping { .. } => LinkStep::Wait,
            Beat::Dead => LinkStep::Close(LinkClosure::HeartbeatTimeout),
        }
    }

    // Commands.

    /// The booking in the agenda of links.
    pub(super) const fn booking(&mut self) -> &mut Booking {
        &mut self.booking
    }

    /// Queues a frame. False if the peer is too far behind.
    pub(super) fn queue(&mut self, frame: Bytes) -> bool {
        self.queue.push(frame)
    }

    /// Begins to read a room for the peer.
    pub(super) fn read(&mut self, room: Key) {
        self.rooms.insert(room);
    }

    /// Ends the reading of a room.
    pub(super) fn unread(&mut self, room: Key) {
        self.rooms.remove(room);
    }

    /// Marks a room that may have something new. False if the room is not read for the peer.
    pub(super) fn mark(&mut self, room: Key) -> bool {
        self.rooms.mark(room)
    }

    /// Notes that there is something to transmit. Returns true if the driver does not know yet.
    pub(super) const fn wake(&mut self) -> bool {
        !core::mem::replace(&mut self.is_woken, true)
    }

    /// Notes that the driver was told that there is nothing to transmit.
    pub(super) const fn sleep(&mut self) {
        self.is_woken = false;
    }

    // Polls.

    /// Takes out the oldest frame that was queued.
    pub(super) fn next_queued(&mut self) -> Option<Bytes> {
        self.queue.pop()
    }

    /// Takes the next room to read for the peer; none before both have said `LinkHello`. A room
    /// that had something is to be [marked](Self::mark) again.
    pub(super) fn next_ready(&mut self) -> Option<Key> {
        if self.is_open() { self.rooms.next_ready() } else { None }
    }

    /// Checks the bounds of the link.
    pub(super) fn audit(&self, limits: &LinkLimits) -> Result<(), &'static str> {
        self.queue.audit(limits.queue_bytes)?;
        self.rooms.audit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const OWN: NodeId = NodeId(1);
    const OTHER: NodeId = NodeId(2);
    const ADDRESS: Address = Address([7; 16]);

    struct Bench {
        limits: LinkLimits,
        rng: Rng,
        link: Link,
    }

    impl Bench {
        fn new(caller: Caller) -> Self {
            let (limits, mut rng) = (Config::default().links, Rng::new([1; 32]));
            let link = Link::new(&limits, caller, Instant::ZERO, &mut rng, Planted::default());
            Self { limits, rng, link }
        }

        fn open(&mut self, now: Instant) -> bool {
            self.link.open(&self.limits, OTHER, now, &mut self.rng)
        }

        fn timeout(&mut self, now: Instant) -> LinkStep {
            self.link.handle_timeout(&self.limits, now, &mut self.rng)
        }
    }

    const fn hello(node: u64, to: u64) -> v1::LinkHello {
        v1::LinkHello { node, to }
    }

    #[test]
    fn a_peer_is_the_node_that_was_dialed_and_means_this_one() {
        let dialed = Bench::new(Caller::Dialed(OTHER)).link;
        let called = Bench::new(Caller::Stranger(ADDRESS)).link;
        let wrong = Err(LinkClosure::WrongNode);
        for (said, to_dialed, to_called) in [
            (hello(2, 1), Ok(OTHER), Ok(OTHER)),
            (hello(3, 1), wrong, Ok(NodeId(3))),
            (hello(2, 3), wrong, wrong),
            (hello(1, 1), wrong, wrong),
        ] {
            assert_eq!(dialed.check_hello(OWN, &said), to_dialed, "{said:?}");
            assert_eq!(called.check_hello(OWN, &said), to_called, "{said:?}");
        }
    }

    #[test]
    fn a_link_works_both_ways_once_something_came_back() {
        let mut dialed = Bench::new(Caller::Dialed(OTHER));
        assert_eq!(dialed.link.stranger(), None);
        assert!(!dialed.open(Instant::ZERO), "it has greeted first");
        assert!(dialed.link.is_proven());
        let mut called = Bench::new(Caller::Stranger(ADDRESS));
        let until = Instant::ZERO + called.limits.handshake_timeout;
        assert_eq!((called.link.node(), called.link.stranger()), (None, Some((ADDRESS, until))));
        assert!(called.open(Instant::ZERO), "it is still to answer");
        assert_eq!((called.link.node(), called.link.stranger()), (Some(OTHER), None));
        assert!(called.link.is_open() && !called.link.is_proven());
        called.link.prove();
        assert!(called.link.is_proven());
    }

    #[test]
    fn a_greeting_has_its_time_and_once_more_if_this_side_stood_still() {
        let mut bench = Bench::new(Caller::Dialed(OTHER));
        let limit = bench.limits.handshake_timeout;
        bench.limits.heartbeat.interval = limit * 10;
        let Bench { limits, rng, link } = &mut bench;
        *link = Link::new(limits, Caller::Dialed(OTHER), Instant::ZERO, rng, Planted::default());
        let until = Instant::ZERO + limit;
        assert_eq!(bench.link.deadline(), until);
        let late = until + LATE + Duration::from_micros(1);
        assert_eq!(bench.timeout(late), LinkStep::Wait);
        assert_eq!(bench.link.deadline(), late + limit);
        let closed = LinkStep::Close(LinkClosure::HandshakeTimeout);
        assert_eq!(bench.timeout(late + limit + LATE * 2), closed, "once");
        let mut punctual = Bench::new(Caller::Dialed(OTHER));
        assert_eq!(punctual.timeout(until + LATE), closed);
    }

    #[test]
    fn pings_are_sent_once_the_link_is_open() {
        let mut bench = Bench::new(Caller::Dialed(OTHER));
        let due = bench.link.heartbeat.due();
        assert!(due < Instant::ZERO + bench.limits.handshake_timeout);
        assert_eq!(bench.timeout(due), LinkStep::Wait, "the peer is not known yet");
        bench.open(due);
        assert_eq!(bench.link.deadline(), due, "the first ping is due at once");
        assert_eq!(bench.timeout(due), LinkStep::Ping(1));
        assert_eq!(bench.timeout(due), LinkStep::Wait);
    }

    #[test]
    fn a_peer_that_answers_nothing_is_given_up_and_one_that_sends_is_not() {
        let mut bench = Bench::new(Caller::Dialed(OTHER));
        bench.open(Instant::ZERO);
        let pings = |bench: &mut Bench| {
            let step = |bench: &mut Bench| bench.timeout(bench.link.deadline());
            (1..50).find(|_| step(bench) == LinkStep::Close(LinkClosure::HeartbeatTimeout))
        };
        assert_eq!(pings(&mut bench), Some(1 + u32::from(bench.limits.heartbeat.close_after)));
        let mut bench = Bench::new(Caller::Dialed(OTHER));
        bench.open(Instant::ZERO);
        for _ in 0..50 {
            assert!(matches!(bench.timeout(bench.link.deadline()), LinkStep::Ping(_)));
            bench.link.handle_frame(&bench.limits);
        }
    }

    #[test]
    fn one_ping_at_a_time_measures_the_clock_of_the_peer() {
        let mut bench = Bench::new(Caller::Dialed(OTHER));
        bench.open(Instant::ZERO);
        let mut ping = || {
            let due = bench.link.deadline();
            let LinkStep::Ping(nonce) = bench.timeout(due) else { panic!("no ping is due") };
            (nonce, due)
        };
        let ((first, sent), (second, later)) = (ping(), ping());
        assert_eq!(bench.link.handle_pong(later, second), None, "the first is on its way yet");
        assert_eq!(bench.link.handle_pong(later, first), Some(sent));
        assert_eq!(bench.link.handle_pong(later, first), None, "once");
    }

    #[test]
    fn rooms_are_read_over_an_open_link_only() {
        let mut bench = Bench::new(Caller::Dialed(OTHER));
        let room = Key { slot: 4, generation: 0 };
        bench.link.read(room);
        assert_eq!(bench.link.next_ready(), None);
        bench.open(Instant::ZERO);
        assert_eq!((bench.link.next_ready(), bench.link.next_ready()), (Some(room), None));
    }

    #[test]
    fn the_driver_is_woken_until_it_was_told_that_there_is_nothing() {
        let mut link = Bench::new(Caller::Dialed(OTHER)).link;
        assert_eq!((link.wake(), link.wake()), (true, false));
        link.sleep();
        assert!(link.wake());
    }
}
