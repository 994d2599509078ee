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
use super::queue::{Events, Feed, queue};
use crate::clock::Clock;

/// Commands that may wait for the task.
const COMMANDS: usize = 64;

type QueuedCommand = Box<dyn FnOnce(&mut Machine, Now) + Send>;

/// Commands a client. Clones command the same client; when the last is dropped, the client
/// says goodbye and ends.
#[derive(Clone, Debug)]
pub struct Client {
    commands: mpsc::Sender<QueuedCommand>,
}

impl Client {
    /// A client for the server at `url` (`ws://` or `wss://`) that shows it this token.
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

    /// Asks to be a member of a room, and of its `history` last entries. May be asked for
    /// while offline. The answer is [`Event::Joined`] or [`Event::Left`].
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

    /// Sends a reliable message to everybody in the room. Kept while offline, up to the caps
    /// of [`ClientConfig`]. Its fate comes as [`Event::Outcome`].
    ///
    /// # Errors
    /// [`CommandError::NotInRoom`], [`CommandError::OutboxFull`], [`CommandError::TooLarge`];
    /// or the client has ended.
    pub async fn say(&self, room: &str, body: impl Into<Bytes>, type_url: &str) -> Result<MessageId, Error> {
        let (room, body, type_url) = (room.to_owned(), body.into(), type_url.to_owned());
        self.command(move |machine, now| machine.say(now, &room, body, &type_url)).await
    }

    /// Sends a message as [`Self::say`] does, with which a turn of the room ends and the next
    /// begins, if it is the room's turn when the message is appended; else it is one like any
    /// other. Turn 0 is before the first.
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

    /// Sends a message of which only the newest by `key` counts, such as a position.
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

    /// Sets a property of this player in the room's replicated state; `None` removes it.
    /// Works while offline and is merged on return.
    ///
    /// # Errors
    /// [`CommandError::NotInRoom`], [`CommandError::BadName`], [`CommandError::TooLarge`],
    /// [`CommandError::StateFull`]; or the client has ended.
    pub async fn set_property(&self, room: &str, name: &str, value: Option<Bytes>) -> Result<(), Error> {
        let (room, name) = (room.to_owned(), name.to_owned());
        self.command(move |machine, now| machine.set_property(now, &room, &name, value)).await
    }

    /// Adds to this player's share of a counter of the room; a negative `delta` takes away.
    /// Works while offline and is merged on return.
    ///
    /// # Errors
    /// [`CommandError::NotInRoom`], [`CommandError::BadName`], [`CommandError::StateFull`]; or
    /// the client has ended.
    pub async fn add(&self, room: &str, counter: &str, delta: i64) -> Result<(), Error> {
        let (room, counter) = (room.to_owned(), counter.to_owned());
        self.command(move |machine, now| machine.add(now, &room, &counter, delta)).await
    }

    /// Sends a message to the application at the server; only while connected.
    ///
    /// # Errors
    /// [`CommandError::NotConnected`], [`CommandError::TooLarge`]; or the client has ended.
    pub async fn send(&self, type_url: &str, payload: impl Into<Bytes>) -> Result<(), Error> {
        let (type_url, payload) = (type_url.to_owned(), payload.into());
        self.command(move |machine, now| machine.send(now, &type_url, payload)).await
    }

    /// Searches for a match, also while offline. The search goes on across connections until
    /// [`Event::Matched`] says that there is one, or [`Event::Ticket`] how it ended. Whoever
    /// is in a match leaves its room, or gives the match up, before the next search.
    /// Returns the number of the search, which what is told of it has, too.
    ///
    /// # Errors
    /// [`CommandError::Searching`], [`CommandError::BadName`], [`CommandError::TooLarge`]; or
    /// the client has ended.
    pub async fn queue(&self, queue: v1::Queue) -> Result<u64, Error> {
        self.command(move |machine, now| machine.queue(now, queue)).await
    }

    /// Gives the search for a match up, with the match that may have been found meanwhile: how
    /// it ended is told by [`Event::Ticket`].
    ///
    /// # Errors
    /// [`CommandError::NotSearching`]; or the client has ended.
    pub async fn cancel(&self) -> Result<(), Error> {
        self.command(Machine::cancel).await
    }

    /// Gives up the match that [`Event::Matched`] has told last, whether the player has come or
    /// not; also while offline. If the player is in its room, it leaves that. The answer is
    /// [`Event::GivenUp`]; a search that is begun after this finds another match.
    ///
    /// # Errors
    /// [`CommandError::NotMatched`]; or the client has ended.
    pub async fn give_up_match(&self) -> Result<(), Error> {
        self.command(Machine::give_up_match).await
    }

    /// The number of the search for a match that goes on; what is told of it has the same.
    ///
    /// # Errors
    /// The client has ended.
    pub async fn search(&self) -> Result<Option<u64>, Error> {
        self.inspect(Machine::search).await
    }

    /// A player's property in a room, as this client knows it.
    ///
    /// # Errors
    /// The client has ended.
    pub async fn property(&self, room: &str, player: &str, name: &str) -> Result<Option<Bytes>, Error> {
        let (room, player, name) = (room.to_owned(), player.to_owned(), name.to_owned());
        self.inspect(move |machine| machine.replica(&room)?.property(&player, &name).cloned()).await
    }

    /// A counter of a room, as this client knows it; 0 if there is none.
    ///
    /// # Errors
    /// The client has ended.
    pub async fn counter(&self, room: &str, name: &str) -> Result<i64, Error> {
        let (room, name) = (room.to_owned(), name.to_owned());
        self.inspect(move |machine| machine.replica(&room).map_or(0, |replica| replica.counter(&name))).await
    }

    /// The players present in a room, as this client knows it.
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

    /// The last entry of a room that was delivered; `None` if not a member.
    ///
    /// # Errors
    /// The client has ended.
    pub async fn cursor(&self, room: &str) -> Result<Option<Cursor>, Error> {
        let room = room.to_owned();
        self.inspect(move |machine| machine.cursor(&room)).await
    }

    /// Which of the five states the client is in.
    ///
    /// # Errors
    /// The client has ended.
    pub async fn state(&self) -> Result<ClientState, Error> {
        self.inspect(|machine| machine.state()).await
    }

    /// The smoothed round trip, once known.
    ///
    /// # Errors
    /// The client has ended.
    pub async fn rtt(&self) -> Result<Option<Duration>, Error> {
        self.inspect(|machine| machine.rtt()).await
    }

    /// Says goodbye: the session ends, messages without an outcome are given up, and the
    /// events end once the connection is closed.
    ///
    /// # Errors
    /// The client has ended already.
    pub async fn disconnect(&self) -> Result<(), Error> {
        self.run(|machine, now| machine.disconnect(now)).await
    }

    /// Looks at the machine, for what the other methods do not tell.
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
            // Nobody waits for the answer any more if this fails; the command was given.
            let _ = reply.send(command(machine, now));
        });
        self.commands.send(command).await.map_err(|_| Error::Ended)?;
        answer.await.map_err(|_| Error::Ended)
    }
}

/// Settings of a client to be.
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
    /// Settings of the machine: back-off, outbox, sealing and so on.
    #[must_use]
    pub fn config(mut self, config: ClientConfig) -> Self {
        self.config = config;
        self
    }

    /// Addresses of other nodes of the cluster that the client's own address is one of. The
    /// client dials one of all at random, and after each failure or lost connection the next.
    #[must_use]
    pub fn nodes<U: Into<String>>(mut self, urls: impl IntoIterator<Item = U>) -> Self {
        self.nodes.extend(urls.into_iter().map(Into::into));
        self
    }

    /// The player that the token names: whose properties and counters this client writes.
    /// Without it [`Client::set_property`] and [`Client::add`] are refused.
    #[must_use]
    pub fn player(mut self, player: &str) -> Self {
        player.clone_into(&mut self.config.player);
        self
    }

    /// The seed of the client's randomness; by default the operating system gives one.
    #[must_use]
    pub const fn seed(mut self, seed: Seed) -> Self {
        self.seed = Some(seed);
        self
    }

    /// The clock; by default a new one.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// How byte streams are opened; by default over TCP.
    #[must_use]
    pub fn dialer(mut self, dialer: Arc<dyn Dial>) -> Self {
        self.dialer = Some(dialer);
        self
    }

    /// TLS settings for `wss://`; by default the certificates that the system trusts.
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

    /// Events that may wait to be read, 256 by default. Beyond that nothing is read from the
    /// socket. One frame or command may pass it by the few events that it causes.
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

    /// Starts the client and returns at once; it connects in the background, for as long as
    /// it takes. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the address or a header is not one, or there is no randomness for the seed.
    pub fn start(self) -> Result<(Client, Events), Error> {
        self.spawn(None)
    }

    /// Starts the client and waits until it is connected. A server that is out of reach or
    /// full is tried again with back-off, for as long as the caller waits. The events begin
    /// with the connection.
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
                // The task has ended; its error, if any, comes before the end of the events.
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
        let (feed, events) = queue(self.event_capacity);
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
        f.debug_struct("Builder")
            .field("url", &self.url)
            .field("nodes", &self.nodes)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// The application of the task: passes commands in and events out.
struct Relay {
    commands: mpsc::Receiver<QueuedCommand>,
    /// All handles are gone.
    orphaned: bool,
    feed: Feed,
    connected: Option<oneshot::Sender<()>>,
}

impl App for Relay {
    fn event(&mut self, _now: Now, event: Event) {
        if matches!(event, Event::StateChanged { to: ClientState::Connected, .. })
            && let Some(connected) = self.connected.take()
        {
            // Whoever waited may have stopped to; then the handles are gone, too.
            let _ = connected.send(());
        }
        // Nobody reads while `connect` waits; failed attempts must not fill the queue.
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
