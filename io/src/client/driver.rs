//! Machine and socket of a client in one, to be polled by the client's task.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use skirmish_core::client::{Client as Machine, ClientConfig, ClientState, Event, Output};
use skirmish_core::rng::Seed;
use skirmish_core::time::{Duration, Instant, LATE, Now};
use tokio::time::{Sleep, sleep_until};

use super::dial::{BoxFuture, Endpoint};
use super::error::DialError;
use super::socket::{ClientSocket, SocketGone, TrackedSocket};
use crate::clock::Clock;
use crate::rounds::{before, rounds};

/// Frames received from the socket in one pass before other tasks run.
const FRAMES: usize = 64;
/// Commands executed in one pass.
const COMMANDS: usize = 64;
/// Passes over all inputs in one poll.
const PASSES: usize = 8;
/// Maximum number of times that all input is read again before a deadline, because time passed
/// meanwhile.
const READINGS: u8 = 3;
/// Maximum time for closing a connection.
const LINGER: Duration = Duration::from_secs(2);
/// Shortest sleep, so that a deadline that stays due cannot become a busy loop.
const SHORTEST: Duration = Duration::from_millis(5);

/// Result of [`App::poll_command`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// No command. The application wakes the task later, or has set [`App::deadline`].
    Nothing,
    /// The machine was given one command.
    Commanded,
    /// The connection is to be dropped without a close frame, like a cut cable.
    Cut,
}

/// The application on top of a [`Driver`].
pub trait App {
    /// Handles an event. Must not block.
    fn event(&mut self, now: Now, event: Event);

    /// Gives the machine at most one command.
    fn poll_command(&mut self, cx: &mut Context<'_>, now: Now, machine: &mut Machine) -> Act;

    /// Ready if the application accepts more events. While pending, nothing is read from the socket
    /// and the machine's clock stands still. The application wakes the task when that changes.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    /// Returns the time of the next [`Self::poll_command`] even without another event.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// Handles a failed dial. The machine backs off, unless the error is final.
    fn dial_failed(&mut self, _error: &DialError) {}
}

/// Owns a client machine and its socket, and follows the driving contract of the core.
///
/// A driver has no task of its own: poll it from one. The one timer is moved only when the next
/// deadline becomes earlier.
pub struct Driver {
    machine: Machine,
    endpoint: Endpoint,
    /// Target of the next dial, modulo the number of targets.
    next_target: usize,
    clock: Clock,
    connection: ConnectionState,
    timer: LazyTimer,
    /// Set while a deadline is due: all received input is read first.
    reading: Option<Reading>,
}

/// The rounds that a deadline waits for.
struct Reading {
    since: Instant,
    /// Number of times that the reading has begun.
    begun: u8,
    rounds: BoxFuture<()>,
}

enum ConnectionState {
    None,
    Dialing(BoxFuture<Result<ClientSocket, DialError>>),
    Open(TrackedSocket),
    Closing { link: TrackedSocket, until: Instant },
}

impl Driver {
    /// Creates a client that connects to the endpoint.
    #[must_use]
    pub fn new(endpoint: Endpoint, config: ClientConfig, seed: Seed, clock: Clock) -> Self {
        let mut machine = Machine::new(config, seed);
        machine.connect(clock.now());
        let next_target = endpoint.first(seed);
        Self {
            machine,
            endpoint,
            next_target,
            clock,
            connection: ConnectionState::None,
            timer: LazyTimer::default(),
            reading: None,
        }
    }

    /// Plants a bug in the machine.
    #[cfg(feature = "plant")]
    pub fn plant(&mut self, planted: skirmish_core::plant::Planted) {
        self.machine.plant(planted);
    }

    /// Returns the machine, for its getters.
    #[must_use]
    pub const fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Does all work that is possible now, and arranges for the task to be woken for more. Ready
    /// when the client has ended: after [`Machine::disconnect`], or because the server has ended
    /// the session for good.
    ///
    /// # Errors
    /// A final [`DialError`], which ends the client too.
    pub fn poll(&mut self, cx: &mut Context<'_>, app: &mut impl App) -> Poll<Result<(), DialError>> {
        let now = self.clock.now();
        let mut ticked = false;
        self.drain(now, app);
        for _ in 0..PASSES {
            let mut again = false;
            // While the application accepts no events, nothing runs that would cause one.
            let ready = app.poll_ready(cx).is_ready();
            if ready {
                again |= self.dialed(now, cx, app)?;
                // Before the timeouts: received frames prove that the server lives.
                again |= self.receive(now, cx, app);
                if !ticked && self.is_due(now, cx) {
                    ticked = true;
                    self.machine.handle_timeout(now);
                    self.drain(now, app);
                    again = true;
                }
            }
            again |= self.command(now, cx, app);
            again |= self.send(now, cx, app);
            if again {
                continue;
            }
            if self.has_ended() {
                // This machine will never be connected again: messages without an outcome get one.
                self.machine.disconnect(now);
                self.drain(now, app);
                return Poll::Ready(Ok(()));
            }
            if self.rest(now, cx, app, ready).is_pending() {
                return Poll::Pending;
            }
            break;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Drains all outputs, as the contract demands after each input and command.
    fn drain(&mut self, now: Now, app: &mut impl App) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Event(event) => app.event(now, event),
                // The rest of the last connection is of no interest any more.
                Output::Dial => {
                    self.connection = ConnectionState::Dialing(self.endpoint.open(self.next_target));
                    self.next_target = self.next_target.wrapping_add(1);
                }
                Output::Hangup => {
                    self.connection = match std::mem::replace(&mut self.connection, ConnectionState::None) {
                        ConnectionState::Open(link) => {
                            ConnectionState::Closing { link, until: now.instant + LINGER }
                        }
                        closing @ ConnectionState::Closing { .. } => closing,
                        ConnectionState::None | ConnectionState::Dialing(_) => ConnectionState::None,
                    };
                }
            }
        }
    }

    /// Returns true if a deadline is due, and all input that had arrived by then was read.
    fn is_due(&mut self, now: Now, cx: &mut Context<'_>) -> bool {
        let Some(due) = self.machine.poll_timeout().filter(|due| due.at <= now.instant) else {
            self.reading = None;
            return false;
        };
        let begin = |begun| Reading {
            since: now.instant,
            begun,
            rounds: Box::pin(rounds(before(due.at, now.instant, 0))),
        };
        let reading = self.reading.get_or_insert_with(|| begin(1));
        while reading.rounds.as_mut().poll(cx).is_ready() {
            // Unless the process stood still once more.
            if now.instant.since(reading.since) <= LATE || reading.begun >= READINGS {
                self.reading = None;
                return true;
            }
            *reading = begin(reading.begun + 1);
        }
        false
    }

    fn dialed(&mut self, now: Now, cx: &mut Context<'_>, app: &mut impl App) -> Result<bool, DialError> {
        let ConnectionState::Dialing(dialing) = &mut self.connection else { return Ok(false) };
        let Poll::Ready(result) = dialing.as_mut().poll(cx) else { return Ok(false) };
        match result {
            Ok(socket) => {
                self.connection = ConnectionState::Open(TrackedSocket::new(socket));
                self.machine.handle_connected(now);
                self.drain(now, app);
                Ok(true)
            }
            Err(error) => {
                app.dial_failed(&error);
                if error.is_final() {
                    self.connection = ConnectionState::None;
                    self.machine.disconnect(now);
                    self.drain(now, app);
                    return Err(error);
                }
                tracing::debug!(%error, "dial failed");
                self.connection = ConnectionState::None;
                self.machine.handle_refused(now, error.retry_after());
                self.drain(now, app);
                Ok(true)
            }
        }
    }

    /// Reads frames, up to the budget. Returns true if there may be more, or if the connection has
    /// changed.
    fn receive(&mut self, now: Now, cx: &mut Context<'_>, app: &mut impl App) -> bool {
        for _ in 0..FRAMES {
            let ConnectionState::Open(link) = &mut self.connection else { return false };
            match link.poll_frame(cx) {
                Poll::Pending => return false,
                Poll::Ready(Ok(frame)) => {
                    self.machine.handle_frame(now, frame);
                    self.drain(now, app);
                }
                Poll::Ready(Err(SocketGone)) => {
                    self.lost(now, app);
                    return true;
                }
            }
            if app.poll_ready(cx).is_pending() {
                return false;
            }
        }
        true
    }

    /// Executes commands, up to the budget. Returns true if there may be more.
    fn command(&mut self, now: Now, cx: &mut Context<'_>, app: &mut impl App) -> bool {
        for _ in 0..COMMANDS {
            match app.poll_command(cx, now, &mut self.machine) {
                Act::Nothing => return false,
                Act::Commanded => self.drain(now, app),
                Act::Cut => {
                    self.lost(now, app);
                    return true;
                }
            }
            if matches!(self.connection, ConnectionState::Dialing(_)) {
                return true;
            }
        }
        true
    }

    /// Writes the machine's frames while the socket accepts them, and flushes. Returns true if the
    /// connection has changed.
    fn send(&mut self, now: Now, cx: &mut Context<'_>, app: &mut impl App) -> bool {
        let machine = &mut self.machine;
        let next = || machine.poll_transmit(now);
        match &mut self.connection {
            ConnectionState::None | ConnectionState::Dialing(_) => false,
            ConnectionState::Open(link) => match link.poll_send(cx, next) {
                Poll::Pending | Poll::Ready(Ok(())) => false,
                Poll::Ready(Err(SocketGone)) => {
                    self.lost(now, app);
                    true
                }
            },
            ConnectionState::Closing { link, until } => {
                if link.poll_close(cx, next).is_pending() && *until > now.instant {
                    return false;
                }
                // The machine has forgotten this connection, and is not notified.
                self.connection = ConnectionState::None;
                true
            }
        }
    }

    /// Handles the loss of a connection, or a failed dial.
    fn lost(&mut self, now: Now, app: &mut impl App) {
        self.connection = ConnectionState::None;
        self.machine.handle_disconnected(now);
        self.drain(now, app);
    }

    /// Returns true if the machine wants no connection and the last one is closed. The machine may
    /// still have deadlines, such as for tombstones, but they have no effect any more.
    fn has_ended(&self) -> bool {
        matches!(self.connection, ConnectionState::None) && self.machine.state() == ClientState::Idle
    }

    /// Sleeps until the earliest deadline.
    fn rest(&mut self, now: Now, cx: &mut Context<'_>, app: &impl App, ready: bool) -> Poll<()> {
        let mut want = self.machine.poll_timeout().filter(|_| ready).map(|deadline| deadline.at);
        let mut also = |at: Instant| want = Some(want.map_or(at, |want| want.min(at)));
        if let Some(at) = app.deadline() {
            also(at);
        }
        if let ConnectionState::Closing { until, .. } = &self.connection {
            also(*until);
        }
        let Some(mut want) = want else { return Poll::Pending };
        if want <= now.instant {
            want = now.instant + SHORTEST;
        }
        self.timer.poll_until(cx, &self.clock, now.instant, want)
    }
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// One timer of the runtime. Deadlines move with almost every frame, mostly to a later time. So the
/// timer is left unchanged until it fires, unless it would fire too late.
#[derive(Default)]
struct LazyTimer {
    sleep: Option<Pin<Box<Sleep>>>,
    at: Instant,
    waker: Option<Waker>,
}

impl LazyTimer {
    fn poll_until(&mut self, cx: &mut Context<'_>, clock: &Clock, now: Instant, want: Instant) -> Poll<()> {
        let early_enough = now < self.at && self.at <= want;
        let registered = self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if early_enough && registered {
            return Poll::Pending;
        }
        let at = if early_enough { self.at } else { want };
        let sleep = match &mut self.sleep {
            Some(sleep) => {
                sleep.as_mut().reset(clock.deadline(at));
                sleep
            }
            none => none.insert(Box::pin(sleep_until(clock.deadline(at)))),
        };
        self.at = at;
        self.waker = Some(cx.waker().clone());
        sleep.as_mut().poll(cx)
    }
}
