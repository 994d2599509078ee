//! The client library: the client machine of the core over a real WebSocket (rows R1, R2, W1).
//!
//! [`Client::builder`] sets the server and the token. [`ClientBuilder::connect`] waits for the
//! first session and returns two halves: [`Client`] accepts commands, [`Events`] returns events.
//! One task drives both, and reconnects, resumes and repeats messages by itself.
//!
//! ```no_run
//! use skirmish_io::client::{Client, Event, Outcome};
//!
//! # async fn play() -> Result<(), skirmish_io::client::Error> {
//! let builder = Client::builder("ws://127.0.0.1:9500/", "a signed token").player("alice");
//! let (client, mut events) = builder.connect().await?;
//! client.join("arena", 0).await?;
//! let attack = client.say("arena", "north gate", "mygame.v1.Attack").await?;
//! client.set_property("arena", "hat", Some("red".into())).await?;
//! while let Some(event) = events.next_event().await {
//!     match event {
//!         Event::Entry { cursor, member, body, .. } => {
//!             tracing::info!("{cursor:?} member {member} says {body:?}");
//!         }
//!         Event::Outcome { message, outcome: Outcome::Acknowledged, .. } if message == attack => break,
//!         _ => {}
//!     }
//! }
//! client.disconnect().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Matches
//!
//! [`Client::queue`] searches for a match of one of the server's modes. The search outlives
//! connections. It ends with [`Event::Matched`], which names the room to join, or with an
//! [`Event::Ticket`] that has the reason for a missing match. Each search has a number of its own
//! ([`Client::search`]), which its events have, too. Leaving the match's room leaves the match. A
//! player that does not join the room gives the match up with [`Client::give_up_match`].
//!
//! ```no_run
//! use skirmish_io::client::{Client, Error, Event, Queue, TicketState};
//!
//! # async fn search() -> Result<(), Error> {
//! let builder = Client::builder("ws://127.0.0.1:9500/", "a signed token").player("alice");
//! let (client, mut events) = builder.connect().await?;
//! client.queue(Queue { mode: "duel".into(), ..Queue::default() }).await?;
//! while let Some(event) = events.next_event().await {
//!     match event {
//!         Event::Ticket { state: TicketState::Waiting, .. } => tracing::info!("in the queue"),
//!         Event::Ticket { state: TicketState::Unavailable | TicketState::Lost, .. } => {
//!             tracing::info!("still trying");
//!         }
//!         Event::Ticket { state, reason, .. } => {
//!             tracing::info!("no match: {state:?} {reason}");
//!             break;
//!         }
//!         Event::Matched(found) => {
//!             tracing::info!("team {} of {:?}", found.team, found.teams);
//!             client.join(&found.room, 0).await?;
//!             client.say(&found.room, "good luck", "mygame.v1.Chat").await?;
//!             client.leave(&found.room).await?;
//!         }
//!         // From now on the player may search for another match.
//!         Event::Left { .. } => break,
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Back-pressure
//!
//! Events wait in a queue of [`ClientBuilder::event_capacity`]. While the queue is full, the task
//! reads nothing from the socket. So an application that stops reading costs a constant amount of
//! memory here, and the server treats the client like any slow reader: latest messages are
//! conflated, and entries that fall out of the room's window are replaced by an explicit snapshot.
//! The client also answers no heartbeat meanwhile. After three of them the server closes the
//! connection, and the session resumes once events are read again. Commands are always executed,
//! so one task may both command and read.
//!
//! # Without a task
//!
//! The task runs a [`Driver`]: machine and socket, polled with an [`App`] that gets each event by a
//! plain call. Programs with very many clients use the driver directly.

mod dial;
mod driver;
mod error;
mod event_queue;
mod handle;
mod socket;

pub use dial::{BoxFuture, Credentials, Dial, Endpoint, ServerAddress, Stream, Tcp};
pub use driver::{Act, App, Driver};
pub use error::{DialError, Error};
pub use event_queue::Events;
pub use handle::{Client, ClientBuilder};
pub use skirmish_core::client::{
    Client as Machine, ClientConfig, ClientState, CommandError, Event, MessageId, Outcome, StateRefusal,
};
pub use skirmish_proto::v1::{Matched, Queue, TicketState};
