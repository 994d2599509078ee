//! The application's handle to a client, and the task behind it.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use skirmish_core::client::{Client as Machine, ClientConfig, ClientState, CommandError, Event, MessageId};
use skirmish_core::id::Cursor;
use skirmish_core::rng::Seed;
use skirmish_core::time::{Duration, Now};
use skirmish_proto::v1;
use tokio::sync::{mpsc, oneshot};

use super::dial::{Credentials, Dial, Endpoint};
use super::driver::{Act, App, Driver};
use super::error::Error;
use super::event_queue::{Events, Feed, event_queue};
use crate::clock::Clock;

/// Commands that may wait for the task.
const COMMANDS: usize = 64;

type QueuedCommand = Box<dyn FnOnce(&mut Machine, Now) + Send>;

/// Commands a client. Clones command the same client. When the last clone is dropped, the client
/// ends its session and stops.
#[derive(Clone, Debug)]
pub struct Client {
    commands: mpsc::Sender<QueuedCommand>,
}

impl Client {
    /// Returns a builder of a client for the server at `url` (`ws://` or `wss://`), with the token
    /// to send.
    pub fn builder(url: &str, credentials: impl Into<Credentials>) -> ClientBuilder {
        ClientBuilder {
            url: url.to_owned(),
            nodes: Vec::new(),
            credentials: credentials.into(),
            config: ClientConfig::default(),
            seed: None,
            clock: None,
            dialer: None,
            #[cfg(not(madsim))]
            tls: None,
            headers: Vec::new(),
            event_capacity: 256,
            #[cfg(feature = "plant")]
            planted: skirmish_core::plant::Planted::default(),
        }
    }

    /// Asks to become a member of a room, and requests its `history` last entries. Also works while
    /// offline. The answer is [`Event::Joined`] or [`Event::Left`].
    ///
    /// # Errors
    /// [`CommandError::BadName`], [`CommandError::TooManyRooms`]; or the client has ended.
    pub async fn join(&self, room: &str, history: u32) -> Result<(), Error> {
        let room = room.to_owned();
        self.command(move |machine, now| machine.join(now, &room, history)).await
    }

    /// Asks to leave a room. The answer is [`Event::Left`].
    ///
    /// # Errors
    /// [`CommandError::NotInRoom`]; or the client has ended.
    pub async fn leave(&self, room: &str) -> Result<(), Error> {
        let room = room.to_owned();
        self.command(move |machine, now| machine.leave(now, &room)).await
    }

    /// Sends a reliable message to all members of the room. Kept while offline, up to the caps of
    /// [`ClientConfig`]. Its outcome is reported by [`Event::Outcome`].
    ///
    /// # Errors
    /// [`CommandError::NotInRoom`], [`CommandError::OutboxFull`], [`CommandError::TooLarge`];
    /// or the client has ended.
    pub async fn say(&self, room: &str, body: impl Into<Bytes>, type_url: &str) -> Result<MessageId, Error> {
        let (room, body, type_url) = (room.to_owned(), body.into(), type_url.to_owned());
        self.command(move |machine, now| machine.say(now, &room, body, &type_url)).await
    }

    /// Sends a message like [`Self::say`], and ends a turn of the room with it. If `turn` is the
    /// room's current turn when the message is appended, the next turn begins; otherwise the
    /// message has no effect on turns. Turn 0 is before the first.
    ///
    /// # Errors
    /// As [`Self::say`].
    pub async fn end_turn(
        &self,
        room: &str,
        turn: u32,
        body: impl Into<Bytes>,
        type_url: &str,
    ) -> Result<MessageId, Error> {
        let (room, body, type_url) = (room.to_owned(), body.into(), type_url.to_owned());
        self.command(move |machine, now| machine.end_turn(now, &room, turn, body, &type_url)).await
    }

    /// Sends a latest message: only the newest by `key` counts, such as a position.
    ///
    /// # Errors
    /// [`CommandError::NotInRoom`], [`CommandError::BadKey`], [`CommandError::TooLarge`]; or
    /// the client has ended.
    pub async fn latest(
        &self,
        room: &str,
        key: u32,
        body: impl Into<Bytes>,
        type_url: &str,
    ) -> Result<(), Error> {
        let (room, body, type_url) = (room.to_owned(), body.into(), type_url.to_owned());
        self.command(move |machine, now| machine.latest(now, &room, key, body, &type_url)).await
    }

    /// Sets a property of this player in the room's replicated state; `None` removes the property.
    /// Works while offline, and is merged after a reconnect.
    ///
    /// # Errors
    /// [`CommandError::NotInRoom`], [`CommandError::BadName`], [`CommandError::TooLarge`],
    /// [`CommandError::StateFull`]; or the client has ended.
    pub async fn set_property(&self, room: &str, name: &str, value: Option<Bytes>) -> Result<(), Error> {
        let (room, name) = (room.to_owned(), name.to_owned());
        self.command(move |machine, now| machine.set_property(now, &room, &name, value)).await
    }

    /// Adds to this player's share of a counter of the room; a negative `delta` subtracts. Works
    /// while offline, and is merged after a reconnect.
    ///
    /// # Errors
    /// [`CommandError::NotInRoom`], [`CommandError::BadName`], [`CommandError::StateFull`]; or
    /// the client has ended.
    pub async fn add(&self, room: &str, counter: &str, delta: i64) -> Result<(), Error> {
        let (room, counter) = (room.to_owned(), counter.to_owned());
        self.command(move |machine, now| machine.add(now, &room, &counter, delta)).await
    }

    /// Sends a message to the application at the server. Possible only while connected.
    ///
    /// # Errors
    /// [`CommandError::NotConnected`], [`CommandError::TooLarge`]; or the client has ended.
    pub async fn send(&self, type_url: &str, payload: impl Into<Bytes>) -> Result<(), Error> {
        let (type_url, payload) = (type_url.to_owned(), payload.into());
        self.command(move |machine, now| machine.send(now, &type_url, payload)).await
    }

    /// Searches for a match, also while offline. The search goes on across connections until
    /// [`Event::Matched`] reports a match, or [`Event::Ticket`] reports another end. A player in a
    /// match must leave its room, or give the match up, before the next search. Returns the number
    /// of the search, which its events have, too.
    ///
    /// # Errors
    /// [`CommandError::Searching`], [`CommandError::BadName`], [`CommandError::TooLarge`]; or
    /// the client has ended.
    pub async fn queue(&self, queue: v1::Queue) -> Result<u64, Error> {
        self.command(move |machine, now| machine.queue(now, queue)).await
    }

    /// Cancels the current search, and a match that may have been found meanwhile.
    /// [`Event::Ticket`] reports the end of the search.
    ///
    /// # Errors
    /// [`CommandError::NotSearching`]; or the client has ended.
    pub async fn cancel(&self) -> Result<(), Error> {
        self.command(Machine::cancel).await
    }

    /// Gives up the match of the last [`Event::Matched`], even if the player has not joined its
    /// room; also while offline. A player in the room leaves it. The answer is [`Event::GivenUp`];
    /// a later search finds another match.
    ///
    /// # Errors
    /// [`CommandError::NotMatched`]; or the client has ended.
    pub async fn give_up_match(&self) -> Result<(), Error> {
        self.command(Machine::give_up_match).await
    }

    /// Returns the number of the current search for a match. Events of the search have the same
    /// number.
    ///
    /// # Errors
    /// The client has ended.
    pub async fn search(&self) -> Result<Option<u64>, Error> {
        self.inspect(Machine::search).await
    }

    /// Returns a player's property in a room, from this client's replica.
    ///
    /// # Errors
    /// The client has ended.
    pub async fn property(&self, room: &str, player: &str, name: &str) -> Result<Option<Bytes>, Error> {
        let (room, player, name) = (room.to_owned(), player.to_owned(), name.to_owned());
        self.inspect(move |machine| machine.replica(&room)?.property(&player, &name).cloned()).await
    }

    /// Returns a counter of a room, from this client's replica; 0 if there is no such counter.
    ///
    /// # Errors
    /// The client has ended.
    pub async fn counter(&self, room: &str, name: &str) -> Result<i64, Error> {
        let (room, name) = (room.to_owned(), name.to_owned());
        self.inspect(move |machine| machine.replica(&room).map_or(0, |replica| replica.counter(&name))).await
    }

    /// Returns the players that are present in a room, from this client's replica.
    ///
    /// # Errors
    /// The client has ended.
    pub async fn present(&self, room: &str) -> Result<Vec<String>, Error> {
        let room = room.to_owned();
        self.inspect(move |machine| {
            let replica = machine.replica(&room);
            replica.map(|replica| replica.present().map(str::to_owned).collect()).unwrap_or_default()
        })
        .await
    }

    /// Returns the cursor of the last delivered entry of a room; `None` if the client is no member.
    ///
    /// # Errors
    /// The client has ended.
    pub async fn cursor(&self, room: &str) -> Result<Option<Cursor>, Error> {
        let room = room.to_owned();
        self.inspect(move |machine| machine.cursor(&room)).await
    }

    /// Returns the client's state, one of five.
    ///
    /// # Errors
    /// The client has ended.
    pub async fn state(&self) -> Result<ClientState, Error> {
        self.inspect(|machine| machine.state()).await
    }

    /// Returns the smoothed round-trip time, once known.
    ///
    /// # Errors
    /// The client has ended.
    pub async fn rtt(&self) -> Result<Option<Duration>, Error> {
        self.inspect(|machine| machine.rtt()).await
    }

    /// Ends the session: messages without an outcome are given up, and the events end once the
    /// connection is closed.
    ///
    /// # Errors
    /// The client has ended already.
    pub async fn disconnect(&self) -> Result<(), Error> {
        self.run(|machine, now| machine.disconnect(now)).await
    }

    /// Calls `look` with the machine, for data that no other method returns.
    ///
    /// # Errors
    /// The client has ended.
    pub async fn inspect<R, F>(&self, look: F) -> Result<R, Error>
    where
        R: Send + 'static,
        F: FnOnce(&Machine) -> R + Send + 'static,
    {
        self.run(move |machine, _| look(machine)).await
    }

    async fn command<R, F>(&self, command: F) -> Result<R, Error>
    where
        R: Send + 'static,
        F: FnOnce(&mut Machine, Now) -> Result<R, CommandError> + Send + 'static,
    {
        Ok(self.run(command).await??)
    }

    async fn run<R, F>(&self, command: F) -> Result<R, Error>
    where
        R: Send + 'static,
        F: FnOnce(&mut Machine, Now) -> R + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let command: QueuedCommand = Box::new(move |machine, now| {
            // An error means that the caller no longer waits for the answer. The command was
            // executed.
            let _ = reply.send(command(machine, now));
        });
        self.commands.send(command).await.map_err(|_| Error::Ended)?;
        answer.await.map_err(|_| Error::Ended)
    }
}

/// Settings of a client before its start.
#[derive(Clone)]
pub struct ClientBuilder {
    url: String,
    nodes: Vec<String>,
    credentials: Credentials,
    config: ClientConfig,
    seed: Option<Seed>,
    clock: Option<Clock>,
    dialer: Option<Arc<dyn Dial>>,
    #[cfg(not(madsim))]
    tls: Option<Arc<tokio_rustls::rustls::ClientConfig>>,
    headers: Vec<(String, String)>,
    event_capacity: usize,
    #[cfg(feature = "plant")]
    planted: skirmish_core::plant::Planted,
}

impl ClientBuilder {
    /// Sets the machine's configuration: back-off, outbox, sealing and so on.
    #[must_use]
    pub fn config(mut self, config: ClientConfig) -> Self {
        self.config = config;
        self
    }

    /// Adds addresses of other nodes of the server's cluster. The client dials one of all addresses
    /// at random, and the next one after each failure or lost connection.
    #[must_use]
    pub fn nodes<U: Into<String>>(mut self, urls: impl IntoIterator<Item = U>) -> Self {
        self.nodes.extend(urls.into_iter().map(Into::into));
        self
    }

    /// Sets the player that the token names, the owner of the properties and counters that this
    /// client writes. Without it [`Client::set_property`] and [`Client::add`] are refused.
    #[must_use]
    pub fn player(mut self, player: &str) -> Self {
        player.clone_into(&mut self.config.player);
        self
    }

    /// Sets the seed of the client's randomness. By default the operating system gives one.
    #[must_use]
    pub const fn seed(mut self, seed: Seed) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Sets the clock. By default a new one.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Sets the way to open byte streams. By default TCP.
    #[must_use]
    pub fn dialer(mut self, dialer: Arc<dyn Dial>) -> Self {
        self.dialer = Some(dialer);
        self
    }

    /// Sets the TLS settings for `wss://`. By default the system's trusted certificates.
    #[cfg(not(madsim))]
    #[must_use]
    pub fn tls(mut self, tls: Arc<tokio_rustls::rustls::ClientConfig>) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Adds a header to each upgrade, such as `Origin` or `traceparent`.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the number of events that may wait to be read, 256 by default. Above this number
    /// nothing is read from the socket. One frame or command may exceed the number by the few
    /// events that it causes.
    #[must_use]
    pub const fn event_capacity(mut self, events: usize) -> Self {
        self.event_capacity = events;
        self
    }

    /// Plants a bug in the client.
    #[cfg(feature = "plant")]
    #[must_use]
    pub const fn plant(mut self, planted: skirmish_core::plant::Planted) -> Self {
        self.planted = planted;
        self
    }

    /// Starts the client and returns at once. The client connects in the background, however long
    /// that takes. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the address or a header is invalid, or the operating system gives no seed.
    pub fn start(self) -> Result<(Client, Events), Error> {
        self.spawn(None)
    }

    /// Starts the client and waits until it is connected. An unreachable or full server is dialled
    /// again with back-off, for as long as the caller waits. The events begin with the connection.
    ///
    /// # Errors
    /// As [`Self::start`], and if the server refuses the client for good: see
    /// [`super::DialError::is_final`].
    pub async fn connect(self) -> Result<(Client, Events), Error> {
        let (connected, wait) = oneshot::channel();
        let (client, mut events) = self.spawn(Some(connected))?;
        match wait.await {
            Ok(()) => Ok((client, events)),
            Err(_) => {
                // The task has ended; its error, if any, is set before the end of the events.
                while events.next_event().await.is_some() {}
                Err(events.take_error().map_or(Error::Ended, Error::Dial))
            }
        }
    }

    fn spawn(self, connected: Option<oneshot::Sender<()>>) -> Result<(Client, Events), Error> {
        let mut endpoint = Endpoint::new(&self.url, self.credentials, self.config.max_frame)?;
        endpoint = endpoint.with_nodes(&self.nodes)?.with_headers(&self.headers)?;
        if let Some(dialer) = self.dialer {
            endpoint = endpoint.with_dialer(dialer);
        }
        #[cfg(not(madsim))]
        if let Some(tls) = self.tls {
            endpoint = endpoint.with_tls(tls);
        }
        let seed = match self.seed {
            Some(seed) => seed,
            None => {
                let mut seed = Seed::default();
                getrandom::fill(&mut seed).map_err(|error| Error::Seed(error.to_string()))?;
                seed
            }
        };
        let clock = self.clock.unwrap_or_default();
        let (feed, events) = event_queue(self.event_capacity);
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let mut driver = Driver::new(endpoint, self.config, seed, clock);
        #[cfg(feature = "plant")]
        driver.plant(self.planted);
        let mut relay = Relay { commands: inbox, orphaned: false, feed, connected };
        tokio::spawn(async move {
            let result = poll_fn(|cx| driver.poll(cx, &mut relay)).await;
            relay.feed.end(result.err());
        });
        Ok((Client { commands }, events))
    }
}

impl std::fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("url", &self.url)
            .field("nodes", &self.nodes)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// The application of the task: passes commands in and events out.
struct Relay {
    commands: mpsc::Receiver<QueuedCommand>,
    /// True if all handles were dropped.
    orphaned: bool,
    feed: Feed,
    connected: Option<oneshot::Sender<()>>,
}

impl App for Relay {
    fn event(&mut self, _now: Now, event: Event) {
        if matches!(event, Event::StateChanged { to: ClientState::Connected, .. })
            && let Some(connected) = self.connected.take()
        {
            // The caller may have stopped waiting; then the handles are gone, too.
            let _ = connected.send(());
        }
        // No event is read while `connect` waits; failed attempts must not fill the queue.
        if self.connected.is_none() || matches!(event, Event::Session { .. }) {
            self.feed.push(event);
        }
    }

    fn poll_command(&mut self, cx: &mut Context<'_>, now: Now, machine: &mut Machine) -> Act {
        if self.orphaned {
            return Act::Nothing;
        }
        match self.commands.poll_recv(cx) {
            Poll::Pending => Act::Nothing,
            Poll::Ready(Some(command)) => {
                command(machine, now);
                Act::Commanded
            }
            Poll::Ready(None) => {
                self.orphaned = true;
                machine.disconnect(now);
                Act::Commanded
            }
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.feed.poll_place(cx)
    }
}
