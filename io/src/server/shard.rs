//! A shard: the node, and the shell's data for each connection and link.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll, Waker};

use skirmish_core::id::{ConnId, LinkId, Name, NodeId};
use skirmish_core::node::{Event, Identity, Node, Output, Overhead, Refusal, Wrong};
use skirmish_core::registrar::Anew;
use skirmish_core::registry::{RegistryCommand, RegistryEvent};
use skirmish_core::rng::Rng;
use skirmish_core::time::{Deadline, Duration, Instant, Now};

use super::application::ApplicationMessage;
use super::audit::Audit;
use super::checks::Lateness;
use super::logging;
use super::metrics::ShardCounters;
use super::readiness::Readiness;
use super::socket::{Closing, Lingering, SendProgress, Socket, SocketInput, SocketLost};
use crate::log_queue::LogQueue;
use crate::registry::NodeRegistry;

/// Connections that the writer sends to in one round, before other tasks run. tokio lets a task use
/// sockets 128 times in a round; sending to a connection uses one of them, seldom more.
const WRITE_BURST: usize = 32;

/// The node, and its connections and links.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) node: Node,
    pub(super) registry: NodeRegistry,
    pub(super) counters: ShardCounters,
    /// Limits for log lines that strangers can cause.
    pub(super) audit: Audit,
    /// Last time at which a listener found no free descriptor.
    pub(super) out_of_files: Option<Instant>,
    /// Queue of log lines, if the server was given one.
    pub(super) log: Option<LogQueue>,
    pub(super) rng: Rng,
    /// Time of the driver's last run.
    pub(super) driven: Instant,
    lateness: Lateness,
    pub(super) readiness: Readiness,
    /// Time of the next readiness check.
    pub(super) next_check: Instant,
    /// Evidence that the registry was replaced. Kept until the node serves again.
    pub(super) registry_replaced: Option<Anew>,
    /// True if new connections are accepted.
    pub(super) accepting: bool,
    /// True if the node gives up its records in the registry.
    pub(super) stopping: bool,
    /// True if nothing drives the node any more.
    abandoned: bool,
    slots: Vec<ConnectionSlot>,
    /// Connections that wait for the writer, in the order in which they were queued.
    outbox: VecDeque<ConnId>,
    writer: Option<Waker>,
    /// Buffer for the frames of one connection.
    scratch: Vec<u8>,
    links: BTreeMap<LinkId, LinkSlot>,
    /// Names of the nodes that the registry names, for people.
    pub(super) names: BTreeMap<NodeId, String>,
    /// Nodes to dial.
    pub(super) dials: VecDeque<LinkDial>,
    /// Last time at which the log reported displaced connections, and their number since.
    pub(super) displaced: (Option<Instant>, u64),
    /// Last error on the way to each unreachable node.
    pub(super) link_errors: BTreeMap<NodeId, String>,
    /// Requests without an answer of the registry.
    pub(super) asked: usize,
    /// Application messages of one input that wait for their handlers.
    pub(super) mail: Vec<ApplicationMessage>,
    /// Time until which the driver sleeps; `None` while the driver runs or was woken.
    pub(super) armed: Option<Instant>,
}

/// Data of a connection, at index [`ConnId::slot`].
#[derive(Debug, Default)]
struct ConnectionSlot {
    conn: Option<ConnId>,
    /// Address of the peer, or of the client that a proxy named.
    address: Option<IpAddr>,
    /// Waker of the connection's task.
    waker: Option<Waker>,
    player: Option<Name>,
    closing: Option<Closing>,
    sending: SendState,
    /// The WebSocket, from its upgrade until the socket is lost.
    socket: Option<Box<Socket>>,
}

/// Result of one read from a connection.
#[derive(Debug)]
pub(super) struct Received {
    /// `None` if nothing has arrived, or if nothing may be read now.
    pub(super) input: Option<SocketInput>,
    pub(super) overhead: Overhead,
    /// True if the node had held the input of this connection and everything that arrived meanwhile
    /// is read.
    pub(super) caught_up: bool,
}

impl Received {
    const NOTHING: Self =
        Self { input: None, overhead: Overhead { controls: 0, fragments: 0 }, caught_up: false };
}

/// The connection is over: its task ends.
#[derive(Debug)]
pub(super) struct ConnectionOver;

/// Relation of a connection to the shard's writer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum SendState {
    /// The connection has no WebSocket yet, or sends nothing any more.
    #[default]
    Never,
    /// The node has nothing to send to the connection.
    Idle,
    /// The connection is in the outbox.
    Queued,
    /// The socket is full. The connection's task waits until the socket accepts more.
    Blocked,
}

/// A node to dial.
#[derive(Debug)]
pub(super) struct LinkDial {
    pub(super) node: NodeId,
    pub(super) address: String,
    /// Maximum time of the dial.
    pub(super) limit: Duration,
}

/// Data of a link.
#[derive(Debug)]
struct LinkSlot {
    waker: Option<Waker>,
    /// The node that this node has dialed.
    dialed: Option<NodeId>,
    /// Name or address of the other end, for people.
    peer: String,
    transmit: bool,
}

impl Shard {
    /// Creates a shard. The node must have been started.
    pub(super) fn new(
        node: Node,
        registry: NodeRegistry,
        rng: Rng,
        now: Now,
        (audit, log): (Audit, Option<LogQueue>),
    ) -> Self {
        let mut shard = Self {
            node,
            registry,
            counters: ShardCounters::default(),
            audit,
            out_of_files: None,
            log,
            rng,
            driven: now.instant,
            lateness: Lateness::default(),
            readiness: Readiness::default(),
            next_check: now.instant,
            registry_replaced: None,
            accepting: true,
            stopping: false,
            abandoned: false,
            slots: Vec::new(),
            outbox: VecDeque::new(),
            writer: None,
            scratch: Vec::new(),
            links: BTreeMap::new(),
            names: BTreeMap::new(),
            dials: VecDeque::new(),
            displaced: (None, 0),
            link_errors: BTreeMap::new(),
            asked: 0,
            mail: Vec::new(),
            armed: None,
        };
        shard.node.start(now);
        shard.settle(now);
        shard
    }

    /// Notes a run of the driver. If no deadline is armed, something has just woken the driver.
    pub(super) fn drive(&mut self, now: Instant) {
        let late = self.armed.map_or(Duration::ZERO, |deadline| now.since(deadline));
        self.lateness.note(now, late);
        self.driven = now;
    }

    /// Returns the worst lateness of the driver, of the last seconds or so far in the current wait.
    pub(super) fn lateness(&self, now: Instant) -> Duration {
        self.lateness.worst(now).max(now.since(self.driven + super::DRIVER_PULSE))
    }

    /// Accepts a connection. A proxied connection names its client later.
    pub(super) fn accept(&mut self, now: Now, peer: IpAddr, proxied: bool) -> Result<ConnId, Refusal> {
        let conn = match proxied {
            true => self.node.handle_proxied(now, peer.into())?,
            false => self.node.handle_accept(now, peer.into())?,
        };
        if self.slots.len() <= conn.slot() {
            self.slots.resize_with(conn.slot() + 1, ConnectionSlot::default);
        }
        if let Some(slot) = self.slots.get_mut(conn.slot()) {
            *slot = ConnectionSlot { conn: Some(conn), address: Some(peer), ..ConnectionSlot::default() };
        }
        Ok(conn)
    }

    /// Sets the address of the client that a proxy named.
    pub(super) fn identify(&mut self, now: Now, conn: ConnId, client: IpAddr) -> Result<(), Refusal> {
        if let Some(slot) = self.slot(conn) {
            slot.address = Some(client);
        }
        self.node.handle_address(now, conn, client.into())
    }

    /// Informs the node that a connection has passed the checks of the upgrade.
    pub(super) fn upgraded(&mut self, now: Now, conn: ConnId, identity: Identity) {
        if let Some(slot) = self.slot(conn) {
            slot.player = Some(identity.player.clone());
        }
        self.node.handle_upgraded(now, conn, identity);
    }

    /// Ready when the node closes a connection that is not open yet, or has dropped the connection.
    /// The task is woken then.
    pub(super) fn poll_closing(&mut self, conn: ConnId, cx: &Context<'_>) -> Poll<()> {
        match self.slot(conn) {
            Some(slot) => {
                slot.register(cx);
                if slot.closing.is_some() { Poll::Ready(()) } else { Poll::Pending }
            }
            None => Poll::Ready(()),
        }
    }

    /// Stores the WebSocket of a connection. The socket is dropped if the connection is over.
    pub(super) fn open(&mut self, conn: ConnId, socket: Socket) {
        let Some(slot) = self.slot(conn) else { return };
        slot.socket = Some(Box::new(socket));
        slot.sending = SendState::Idle;
        // The node may have had frames for the connection before.
        self.enqueue(conn);
    }

    /// Reads from a connection.
    ///
    /// # Errors
    /// The connection is over.
    pub(super) fn receive(&mut self, conn: ConnId) -> Result<Received, ConnectionOver> {
        let (held, behind) = (self.node.is_held(conn), self.node.is_behind(conn));
        let slot = self.slot(conn).ok_or(ConnectionOver)?;
        let socket = slot.socket.as_mut().ok_or(ConnectionOver)?;
        if slot.closing.is_some() || !socket.is_open() {
            return Ok(Received::NOTHING);
        }
        if held {
            return Ok(Received::NOTHING);
        }
        let input = socket.receive();
        let overhead = socket.overhead();
        let caught_up = behind && matches!(input, Ok(None));
        let answers = socket.is_unflushed();
        if let Ok(Some(SocketInput::Violation(_, _, Some(error)))) | Err(SocketLost(Some(error))) = &input {
            logging::failed(self, conn, error);
        }
        if answers {
            self.enqueue(conn);
        }
        input.map(|input| Received { input, overhead, caught_up }).map_err(|_| ConnectionOver)
    }

    /// Does the rest of the work of a connection's task after reading: waits until a full socket
    /// accepts more, or until the peer has closed too.
    ///
    /// # Errors
    /// The connection is over.
    pub(super) fn wait(&mut self, conn: ConnId, cx: &Context<'_>) -> Result<(), ConnectionOver> {
        let slot = self.slot(conn).ok_or(ConnectionOver)?;
        slot.register(cx);
        let socket = slot.socket.as_mut().ok_or(ConnectionOver)?;
        if socket.is_closed() {
            match socket.linger() {
                Lingering::Waiting => {}
                Lingering::Budget => slot.wake(),
                Lingering::Over => return Err(ConnectionOver),
            }
        } else if slot.sending == SendState::Blocked && socket.flush().map_err(|_| ConnectionOver)? {
            slot.sending = SendState::Idle;
            self.enqueue(conn);
        }
        Ok(())
    }

    /// Closes the socket of a connection that has no task any more.
    pub(super) fn lose(&mut self, conn: ConnId) {
        if let Some(slot) = self.slot(conn) {
            slot.socket = None;
            slot.sending = SendState::Never;
        }
    }

    /// Frees the slot of a connection when its task has ended.
    pub(super) fn closed(&mut self, now: Now, conn: ConnId) {
        if let Some(slot) = self.slot(conn) {
            *slot = ConnectionSlot::default();
        }
        self.node.handle_closed(now, conn);
    }

    /// Ends the task of every connection and link.
    pub(super) fn abandon(&mut self) {
        self.abandoned = true;
        self.slots.drain(..).for_each(|slot| slot.wake());
        let links = std::mem::take(&mut self.links).into_values().filter_map(|slot| slot.waker);
        links.for_each(Waker::wake);
    }

    /// Queues a connection for the writer.
    fn enqueue(&mut self, conn: ConnId) {
        let Some(slot) = self.slot(conn) else { return };
        if slot.sending == SendState::Idle {
            slot.sending = SendState::Queued;
            if self.outbox.is_empty()
                && let Some(writer) = &self.writer
            {
                writer.wake_by_ref();
            }
            self.outbox.push_back(conn);
        }
    }

    /// Sends to the connections at the front of the outbox. Returns true if more connections are
    /// queued.
    pub(super) fn write(&mut self, now: Now, cx: &Context<'_>) -> bool {
        remember(&mut self.writer, cx.waker());
        // A connection with more frames than its budget waits for the next round.
        for _ in 0..WRITE_BURST.min(self.outbox.len()) {
            let Some(conn) = self.outbox.pop_front() else { return false };
            self.send(now, conn);
        }
        !self.outbox.is_empty()
    }

    fn send(&mut self, now: Now, conn: ConnId) {
        let Self { node, slots, scratch, .. } = self;
        let Some(slot) = slots.get_mut(conn.slot()).filter(|slot| slot.conn == Some(conn)) else { return };
        let Some(socket) = &mut slot.socket else { return };
        let sent = socket.send(node, now, conn, slot.closing, scratch);
        slot.sending = match sent {
            Ok(SendProgress::All) => SendState::Idle,
            Ok(SendProgress::Budget) => SendState::Queued,
            Ok(SendProgress::Blocked) => SendState::Blocked,
            Ok(SendProgress::Closed) => SendState::Never,
            Err(_) => {
                slot.socket = None;
                SendState::Never
            }
        };
        match slot.sending {
            SendState::Idle => {}
            SendState::Queued => self.outbox.push_back(conn),
            // The socket wakes the task.
            SendState::Blocked => {}
            SendState::Never => slot.wake(),
        }
    }

    /// Returns the player of a connection, once the upgrade has named the player.
    pub(super) fn player(&self, conn: ConnId) -> Option<&Name> {
        self.slots.get(conn.slot()).filter(|slot| slot.conn == Some(conn))?.player.as_ref()
    }

    /// Returns the address of a connection's peer, or of the client that a proxy named.
    pub(super) fn address(&self, conn: ConnId) -> Option<IpAddr> {
        self.slots.get(conn.slot()).filter(|slot| slot.conn == Some(conn))?.address
    }

    /// Adds a link to a node that was dialed. Returns `None` if the caller must drop the link.
    pub(super) fn link(&mut self, now: Now, dialed: NodeId, peer: String) -> Option<LinkId> {
        let link = self.node.handle_link(now, dialed).filter(|_| !self.abandoned)?;
        self.links.insert(link, LinkSlot { waker: None, dialed: Some(dialed), peer, transmit: false });
        Some(link)
    }

    /// Adds a link that was accepted from `address`. Returns `None` if the caller must drop the
    /// link.
    pub(super) fn caller(&mut self, now: Now, address: IpAddr) -> Option<LinkId> {
        let link = self.node.handle_caller(now, address.into()).filter(|_| !self.abandoned)?;
        let peer = address.to_string();
        self.links.insert(link, LinkSlot { waker: None, dialed: None, peer, transmit: false });
        Some(link)
    }

    /// Returns true if the node has something to transmit to a link, and keeps the waker of the
    /// link's task. Returns `None` if the link must be dropped.
    pub(super) fn link_orders(&mut self, link: LinkId, waker: &Waker) -> Option<bool> {
        let slot = self.links.get_mut(&link)?;
        remember(&mut slot.waker, waker);
        Some(slot.transmit)
    }

    /// Notes that the node has nothing more to transmit to this link.
    pub(super) fn link_transmitted(&mut self, link: LinkId) {
        if let Some(slot) = self.links.get_mut(&link) {
            slot.transmit = false;
        }
    }

    /// Returns the name or address of a link's other end, for people.
    pub(super) fn link_peer(&self, link: LinkId) -> Option<&str> {
        Some(&self.links.get(&link)?.peer)
    }

    /// Returns the address of a link's other end, if that end is known by an address.
    pub(super) fn link_address(&self, link: LinkId) -> Option<IpAddr> {
        let peer = self.link_peer(link)?;
        peer.parse().ok().or_else(|| Some(peer.parse::<SocketAddr>().ok()?.ip()))
    }

    /// Removes a link after its task has ended for the reason `why`.
    pub(super) fn unlink(&mut self, now: Now, link: LinkId, why: String) {
        if let Some(node) = self.links.remove(&link).and_then(|slot| slot.dialed) {
            self.link_errors.insert(node, why);
        }
        self.node.handle_link_closed(now, link);
    }

    /// Executes the node's outputs. Returns true if the driver must be woken because a deadline has
    /// become earlier.
    pub(super) fn settle(&mut self, now: Now) -> bool {
        loop {
            while let Some(output) = self.node.poll_output() {
                self.carry_out(now, output);
            }
            let Some(event) = self.registry.poll_event() else { break };
            self.asked = self.asked.saturating_sub(usize::from(matches!(event, RegistryEvent::Reply { .. })));
            self.node.handle_registry_event(now, event);
        }
        let sleeps_too_long = match (self.due(), self.armed) {
            (Some(due), Some(armed)) => due < armed,
            // Not armed: the driver runs or was woken.
            (_, None) | (None, _) => false,
        };
        if sleeps_too_long {
            self.armed = None;
        }
        sleeps_too_long
    }

    pub(super) fn carry_out(&mut self, now: Now, output: Output) {
        match output {
            Output::Wake(conn) => self.enqueue(conn),
            Output::Resume(conn) => {
                if let Some(slot) = self.slot(conn) {
                    slot.wake();
                }
            }
            Output::Close(conn, reason) => {
                logging::closing(self, now.instant, conn, reason);
                if let Some(slot) = self.slot(conn) {
                    slot.closing = Some(Closing { reason, wrong: Wrong::Protocol });
                    // The task may still be at the upgrade.
                    slot.wake();
                }
                self.enqueue(conn);
            }
            Output::Abort(conn) => {
                logging::aborted(self, conn);
                // The task finds no slot of its own and ends.
                if let Some(slot) = self.slot(conn) {
                    slot.wake();
                    *slot = ConnectionSlot::default();
                }
            }
            Output::Registry(call) => {
                self.asked += usize::from(matches!(call, RegistryCommand::Request { .. }));
                self.registry.handle(now.instant, call);
            }
            Output::Dial { node, address, limit } => self.dials.push_back(LinkDial { node, address, limit }),
            Output::WakeLink(link) => {
                if let Some(slot) = self.links.get_mut(&link) {
                    slot.transmit = true;
                    if let Some(waker) = &slot.waker {
                        waker.wake_by_ref();
                    }
                }
            }
            Output::CloseLink(link, why) => {
                logging::link_dropped(self, now.instant, link, why);
                // The task finds no slot of its own and ends.
                let Some(slot) = self.links.remove(&link) else { return };
                if let Some(node) = slot.dialed {
                    self.link_errors.insert(node, why.to_string());
                }
                if let Some(waker) = slot.waker {
                    waker.wake();
                }
            }
            Output::Event(Event::Displaced { conn, address }) => {
                logging::displaced(self, now.instant, conn, address);
            }
            Output::Event(event) => {
                // The node has emitted `Close` before.
                if let Event::Misbehaved { conn, wrong, .. } = event
                    && let Some(closing) = self.slot(conn).and_then(|slot| slot.closing.as_mut())
                {
                    closing.wrong = wrong;
                }
                if let Some(message) = logging::event(self, now.instant, event) {
                    self.mail.push(message);
                }
            }
        }
    }

    /// Returns the number of sockets that may have input.
    pub(super) fn sockets(&self) -> usize {
        let stats = self.node.stats();
        stats.connections + stats.links
    }

    /// Returns the earliest deadline of the node and the registry.
    pub(super) fn due(&self) -> Option<Instant> {
        let due = Deadline::earliest(self.node.poll_timeout(), self.registry.poll_timeout());
        due.map(|deadline| deadline.at)
    }

    fn slot(&mut self, conn: ConnId) -> Option<&mut ConnectionSlot> {
        self.slots.get_mut(conn.slot()).filter(|slot| slot.conn == Some(conn))
    }
}

impl ConnectionSlot {
    /// Keeps the waker of the connection's task.
    fn register(&mut self, cx: &Context<'_>) {
        remember(&mut self.waker, cx.waker());
    }

    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}

/// Keeps a waker. An equal waker is not cloned again.
fn remember(place: &mut Option<Waker>, waker: &Waker) {
    match place {
        Some(known) => known.clone_from(waker),
        none => *none = Some(waker.clone()),
    }
}
