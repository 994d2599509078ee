//! What is known of a run: what every client's application was told, as the oracles
//! want it, and the state of every process.

use std::fmt;
use std::hash::Hasher as _;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use madsim::time::TimeHandle;
use skirmish_core::client::{Event, Outcome, State};
use skirmish_io::client::Client;
use skirmish_io::clock::Clock;
use skirmish_io::server::Handle;
use skirmish_proto::v1::{EntryKind, Reason};
use tokio::sync::{mpsc, oneshot};
use xxhash_rust::xxh3::Xxh3;

use super::plan::{Deed, Plan};
use crate::coverage::Coverage;
use crate::history::{History, Lane};
use crate::oracle::{Entry, Guarantee, Observation, Oracles, Room, Verdict, Violation, Who};

/// A connection over a link that was cut is tried again with a back-off of up to 10 s,
/// in microseconds: so long a mended link may still hold something back.
pub(super) const AFTERMATH: u64 = 12_000_000;

/// The moment, in microseconds since the start of the run.
pub(super) fn at() -> u64 {
    u64::try_from(TimeHandle::current().elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// The ledger, as all processes share it. Never locked over an await.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<Ledger>>);

/// A client's process and its host.
pub(super) struct Seat {
    pub(super) player: usize,
    pub(super) life: u32,
    /// From the start of the process until it is killed or its client has ended.
    pub(super) running: bool,
    pub(super) paused: bool,
    /// The application is in the middle of a command.
    pub(super) busy: bool,
    /// What the application takes for each event, in milliseconds.
    pub(super) dawdles: u64,
    pub(super) skew_ms: i64,
    /// Nothing gets from the client to the server.
    pub(super) blocked: Arc<AtomicBool>,
    /// Nothing gets from the server to the client.
    pub(super) deaf: bool,
    pub(super) state: State,
    pub(super) client: Option<Client>,
    pub(super) clock: Option<Clock>,
    pub(super) orders: Option<mpsc::UnboundedSender<Deed>>,
    /// When something last held it back.
    pub(super) troubled: u64,
    /// Until when something that is over may still hold it back.
    pub(super) shaken_until: u64,
    /// What its connection was given while the link was bad comes in one by one, at the
    /// latency of the link each: a habit of the simulated network.
    pub(super) backlogged: bool,
    /// The epoch of its last session.
    epoch: u64,
    /// Since when another client of the player has the session.
    superseded: Option<u64>,
}

/// The server's process and its host.
#[derive(Default)]
pub(super) struct ServerSeat {
    pub(super) life: u64,
    pub(super) handle: Option<Handle>,
    pub(super) clock: Option<Clock>,
    pub(super) stop: Option<oneshot::Sender<()>>,
    pub(super) paused: bool,
    pub(super) cut: bool,
    /// Packets take longer than usual or are lost.
    pub(super) stormy: bool,
    pub(super) skew_ms: i64,
    /// Until when news of a session that has ended may still be under way.
    pub(super) unsettled_until: u64,
}

/// What is known of a run.
pub(super) struct Ledger {
    pub(super) history: History,
    pub(super) coverage: Coverage,
    pub(super) oracles: Oracles,
    /// The first that was found by a client's task.
    pub(super) violation: Option<Violation>,
    pub(super) seats: Vec<Seat>,
    pub(super) server: ServerSeat,
    next_serial: u64,
    /// By serial: whose message it is, and since when that client had no session any
    /// more when it was said.
    fenced: Vec<Option<(Who, u64)>>,
    traced: bool,
}

impl Shared {
    pub(super) fn new(plan: &Plan, traced: bool) -> Self {
        let seat = |client| Seat {
            player: plan.player(client),
            life: 0,
            running: false,
            paused: false,
            busy: false,
            dawdles: 0,
            skew_ms: 0,
            blocked: Arc::default(),
            deaf: false,
            state: State::Idle,
            client: None,
            clock: None,
            orders: None,
            troubled: 0,
            shaken_until: 0,
            backlogged: false,
            epoch: u64::MAX,
            superseded: None,
        };
        Self(Arc::new(Mutex::new(Ledger {
            history: History::new(false),
            coverage: Coverage::default(),
            oracles: Oracles::default(),
            violation: None,
            seats: (0..plan.clients()).map(seat).collect(),
            server: ServerSeat::default(),
            next_serial: 1,
            fenced: vec![None],
            traced,
        })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger {
    /// Something happened. A trace is printed at once, so that it is there even if the
    /// run ends in a panic.
    #[allow(clippy::print_stdout, reason = "the trace is what was asked for")]
    pub(super) fn note(&mut self, lane: Lane, what: fmt::Arguments<'_>) {
        let at = at();
        self.history.record(at, lane, what);
        if self.traced {
            println!("{:>5}.{:06}  {:<9} {what}", at / 1_000_000, at % 1_000_000, lane.to_string());
        }
    }

    pub(super) fn who(&self, client: usize) -> Who {
        Who { client, life: self.seats[client].life }
    }

    /// The serial of the next message that is said.
    pub(super) fn serial(&mut self) -> u64 {
        let serial = self.next_serial;
        self.next_serial += 1;
        self.fenced.push(None);
        serial
    }

    /// The client took a message.
    pub(super) fn said(&mut self, who: Who, room: Room, message: u64, serial: u64) {
        self.note(Lane::Client(who.client), format_args!("says {serial} in room {room} as {message}"));
        let superseded = self.seats[who.client].superseded;
        if let (Some(slot), Ok(index)) = (superseded, usize::try_from(serial)) {
            self.fenced[index] = Some((who, slot));
        }
        self.observe(&Observation::Said { who, room, message, serial });
    }

    /// A client has ended by itself: nothing that its application said may be without an
    /// outcome.
    pub(super) fn ended(&mut self, who: Who) {
        let open = self.oracles.open_messages(who);
        if open > 0 {
            let what = format!("{who} has ended without telling the outcome of {open} messages");
            self.judge(Err(Violation { guarantee: Guarantee::Kept, what }));
        }
    }

    /// The life of a client's process has ended.
    pub(super) fn gone(&mut self, client: usize) {
        if !std::mem::take(&mut self.seats[client].running) {
            return;
        }
        let who = self.who(client);
        let seat = &mut self.seats[client];
        seat.life += 1;
        seat.busy = false;
        seat.state = State::Idle;
        (seat.client, seat.clock, seat.orders) = (None, None, None);
        (seat.superseded, seat.epoch) = (None, u64::MAX);
        self.observe(&Observation::Gone { who });
    }

    /// Tells the oracles; the first violation is kept.
    pub(super) fn observe(&mut self, seen: &Observation) {
        let verdict = self.oracles.observe(at(), seen);
        self.judge(verdict);
    }

    fn judge(&mut self, verdict: Verdict) {
        if let Err(violation) = verdict
            && self.violation.is_none()
        {
            self.note(Lane::World, format_args!("VIOLATION {violation}"));
            self.violation = Some(violation);
        }
    }

    /// A look at everybody, as often as nothing else happens.
    pub(super) fn look(&mut self, within: u64) {
        let at = at();
        let ServerSeat { paused, cut, stormy, .. } = self.server;
        let server = paused || cut || stormy || self.server.handle.is_none();
        let mut free = Vec::new();
        for (client, seat) in self.seats.iter_mut().enumerate() {
            let held = seat.is_held() || server;
            if held {
                seat.shaken_until = at + AFTERMATH;
            }
            if held
                || seat.backlogged
                || at < seat.shaken_until
                || !seat.running
                || seat.state != State::Connected
            {
                seat.troubled = at;
            } else {
                free.push((Who { client, life: seat.life }, seat.troubled));
            }
        }
        let verdict = self.oracles.look(at, &free, within);
        self.judge(verdict);
        let Some(handle) = self.server.handle.clone() else { return };
        let result = handle.inspect(|node| node.audit());
        self.history.frame(format!("{at} {:?}", handle.stats()).as_bytes());
        self.observe(&Observation::Audit { result });
    }

    /// A client's application was told something.
    pub(super) fn event(&mut self, who: Who, event: Event) {
        self.note(Lane::Client(who.client), format_args!("{event:?}"));
        let seen = match event {
            Event::StateChanged { to, .. } => {
                let seat = &mut self.seats[who.client];
                seat.state = to;
                seat.backlogged &= to != State::Connected;
                return;
            }
            Event::Session { epoch, resumed, lost } => {
                self.coverage.hit(if resumed { "session resumed" } else { "session opened" });
                self.holds(who.client, epoch);
                Observation::Session { who, resumed, lost }
            }
            Event::Joined { room, epoch, resumed, .. } => {
                self.coverage.hit(if resumed { "join resumed" } else { "joined" });
                Observation::Joined { who, room: room_number(&room), epoch, resumed }
            }
            Event::Left { room, .. } => Observation::Left { who, room: room_number(&room) },
            Event::Snapshot { room, cursor, missing, .. } => {
                self.coverage.hit(match missing {
                    Some(_) => "snapshot with loss",
                    None => "snapshot without loss",
                });
                Observation::Snapshot { who, room: room_number(&room), cursor, missing }
            }
            Event::Latest { room, member, key, version, .. } => {
                self.coverage.hit("latest delivered");
                Observation::Latest { who, room: room_number(&room), member, key, version }
            }
            Event::Outcome { message, outcome, .. } => {
                self.coverage.hit(match outcome {
                    Outcome::Acknowledged => "acknowledged",
                    Outcome::Refused => "refused",
                    Outcome::Unknown => "unknown",
                });
                Observation::Outcome { who, message: message.0, outcome }
            }
            Event::Closed {
                reason: reason @ (Reason::ProtocolError | Reason::Incompatible | Reason::Unauthenticated),
                message,
            } => {
                let what =
                    format!("{who} was disconnected, though both sides are honest: {reason:?}, {message}");
                self.judge(Err(Violation { guarantee: Guarantee::Liveness, what }));
                return;
            }
            entry @ Event::Entry { .. } => {
                let Some(entry) = digested(who, entry) else { return };
                self.coverage.hit("entry");
                self.delivered(&entry);
                Observation::Entry(entry)
            }
            Event::State { .. }
            | Event::StateRefused { .. }
            | Event::Throttled { .. }
            | Event::Application { .. }
            | Event::Ticket { .. }
            | Event::Matched(_)
            | Event::Closed { .. } => {
                return;
            }
        };
        self.observe(&seen);
    }

    /// The client has its player's session, unless it was told so late. Epochs say who
    /// was later, but start again with a session that is new.
    fn holds(&mut self, client: usize, epoch: u64) {
        let at = at();
        let seat = &mut self.seats[client];
        (seat.superseded, seat.epoch) = (None, epoch);
        let (player, late) = (seat.player, seat.is_held() || at < seat.shaken_until);
        if late || at < self.server.unsettled_until {
            return;
        }
        for (other, seat) in self.seats.iter_mut().enumerate() {
            if other != client && seat.player == player && seat.running && seat.epoch < epoch {
                seat.superseded.get_or_insert(at);
            }
        }
    }

    /// G7, as far as it shows from the outside: what a client says after another one has
    /// got the session of its player, and before it has one itself, reaches nobody.
    fn delivered(&mut self, entry: &Entry) {
        let index = entry.serial.and_then(|serial| usize::try_from(serial).ok());
        let Some(Some((who, since))) = index.and_then(|index| self.fenced.get(index).copied()) else {
            return;
        };
        let seat = &self.seats[who.client];
        // Whether it has a session may not have reached an application that is held up.
        let held_up = seat.is_held() || at() < seat.shaken_until;
        if seat.life == who.life && seat.superseded == Some(since) && !held_up {
            self.observe(&Observation::Fenced { client: who.client, written: (0, 1) });
        }
    }
}

impl Seat {
    /// Whether something holds the client back now.
    pub(super) fn is_held(&self) -> bool {
        let blocked = self.blocked.load(std::sync::atomic::Ordering::Relaxed);
        self.paused || self.deaf || blocked || self.dawdles > 0
    }
}

/// The name of a room.
pub(super) fn room_name(room: Room) -> String {
    format!("room-{room}")
}

fn room_number(name: &str) -> Room {
    name.rsplit('-').next().and_then(|digits| digits.parse().ok()).unwrap_or(Room::MAX)
}

/// An entry as the oracles take it.
fn digested(who: Who, event: Event) -> Option<Entry> {
    let Event::Entry { room, cursor, kind, member, message, client_seq, at_ms, body, type_url, player, turn } =
        event
    else {
        return None;
    };
    let mut digest = Xxh3::new();
    let (turn, turn_ends_ms) = turn.map_or((0, 0), |turn| (turn.number, turn.ends_ms));
    for number in [kind as u64, member.into(), client_seq, at_ms, turn.into(), turn_ends_ms] {
        digest.write_u64(number);
    }
    for bytes in [&body[..], type_url.as_bytes(), player.as_bytes()] {
        digest.write_u64(bytes.len() as u64);
        digest.write(bytes);
    }
    let head = || body.get(..8).and_then(|head| head.try_into().ok()).map_or(0, u64::from_be_bytes);
    Some(Entry {
        who,
        room: room_number(&room),
        cursor,
        member,
        client_seq,
        serial: (kind == EntryKind::Say).then(head),
        own: message.map(|message| message.0),
        turn,
        digest: digest.finish(),
    })
}
