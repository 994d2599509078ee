//! A player with the client library, and all events so far.

use skirmish_core::time::Duration;
use skirmish_io::client::{Client, ClientBuilder, ClientConfig, Event, Events, MessageId, Outcome};
use skirmish_proto::v1;

use crate::{token, within};

/// Returns a builder of a client that reconnects fast, so that tests with many cuts end soon.
#[must_use]
pub fn builder(url: &str, player: &str) -> ClientBuilder {
    let config = ClientConfig {
        backoff_min: Duration::from_millis(5),
        backoff_max: Duration::from_millis(50),
        ..ClientConfig::default()
    };
    Client::builder(url, token(player)).config(config).player(player)
}

/// A player.
#[derive(Debug)]
pub struct Player {
    /// Handle for commands.
    pub client: Client,
    /// Events read so far.
    pub seen: Vec<Event>,
    events: Events,
}

impl Player {
    /// Starts a player, whose client connects by itself.
    ///
    /// # Panics
    /// If the builder's settings are invalid.
    #[must_use]
    pub fn start(builder: ClientBuilder) -> Self {
        let (client, events) = builder.start().expect("good settings");
        Self { client, seen: Vec::new(), events }
    }

    /// Starts a player and joins a room.
    pub async fn join(builder: ClientBuilder, room: &str) -> Self {
        let mut player = Self::start(builder);
        player.client.join(room, 0).await.expect("the room has a good name");
        player.joined(room).await;
        player
    }

    /// Returns the next event.
    ///
    /// # Panics
    /// If the client has ended.
    pub async fn next(&mut self) -> Event {
        let event = within("an event", self.events.next_event()).await.expect("the client has not ended");
        self.seen.push(event.clone());
        event
    }

    /// Reads events until `pick` returns a value.
    ///
    /// # Panics
    /// If the client ends before, or the event does not come in time.
    pub async fn until<T>(&mut self, what: &str, mut pick: impl FnMut(&Event) -> Option<T>) -> T {
        let found = async {
            loop {
                if let Some(picked) = pick(&self.next().await) {
                    return picked;
                }
            }
        };
        match tokio::time::timeout(crate::PATIENCE, found).await {
            Ok(picked) => picked,
            Err(_) => panic!("waited for {what}; what happened: {:#?}", self.seen),
        }
    }

    /// Reads events until `holds` is true for all events so far.
    pub async fn has_seen(&mut self, what: &str, mut holds: impl FnMut(&[Event]) -> bool) {
        while !holds(&self.seen) {
            self.until(what, |_| Some(())).await;
        }
    }

    /// Reads events until the player has joined the room.
    pub async fn joined(&mut self, name: &str) {
        let is = |event: &Event| matches!(event, Event::Joined { room, .. } if room == name);
        self.until("a joined room", |event| is(event).then_some(())).await;
    }

    /// Sends a reliable message and returns its identifier.
    ///
    /// # Panics
    /// If the client refuses the message.
    pub async fn say(&self, room: &str, body: &str) -> MessageId {
        self.client.say(room, body.to_owned(), "").await.expect("there is a place in the outbox")
    }

    /// Reads events until the message has an outcome, and returns the outcome.
    pub async fn outcome(&mut self, of: MessageId) -> Outcome {
        self.has_seen("an outcome", |seen| outcomes(seen, of).next().is_some()).await;
        outcomes(&self.seen, of).next().expect("it was seen")
    }

    /// Reads events until these bodies were delivered.
    pub async fn hears(&mut self, bodies: &[&str]) {
        let what = format!("the messages {bodies:?}");
        self.has_seen(&what, |seen| bodies.iter().all(|body| heard(seen).any(|heard| heard == *body))).await;
    }

    /// Disconnects, and reads to the end of the events.
    pub async fn leave(mut self) -> Vec<Event> {
        // The client may have ended already.
        let _ = self.client.disconnect().await;
        within("the end of a client", async {
            while let Some(event) = self.events.next_event().await {
                self.seen.push(event);
            }
        })
        .await;
        self.seen
    }
}

/// Returns the outcomes of a message.
pub fn outcomes(seen: &[Event], of: MessageId) -> impl Iterator<Item = Outcome> {
    seen.iter().filter_map(move |event| match event {
        Event::Outcome { message, outcome, .. } if *message == of => Some(*outcome),
        _ => None,
    })
}

/// Returns the delivered messages, in order.
pub fn heard(seen: &[Event]) -> impl Iterator<Item = &str> {
    seen.iter().filter_map(|event| match event {
        Event::Entry { kind: v1::EntryKind::Say, body, .. } => std::str::from_utf8(body).ok(),
        _ => None,
    })
}
