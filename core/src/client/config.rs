//! What a client is told at its start.

use alloc::string::String;

use crate::base::time::Duration;

/// Configuration of a client. [`Default`] is fit for production once [`Self::player`]
/// is set.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Name and version of the program, for the server's logs. At most 64 bytes are
    /// sent.
    pub agent: String,
    /// The player that the token names: whose properties and counters this client
    /// writes to a room's state. Without it they are refused as
    /// [`BadName`](super::CommandError::BadName).
    pub player: String,
    /// Shortest wait before another dial (row R1).
    pub backoff_min: Duration,
    /// Longest wait before another dial, unless the server asks for a longer one.
    pub backoff_max: Duration,
    /// Each of the two steps to being connected may take this long: the dial with its
    /// upgrade, and `Hello` until every room has been answered.
    pub connect_timeout: Duration,
    /// Silence after which the client pings the server; while it waits for an answer, after a
    /// second, or twice the measured round-trip time-out (RFC 6298) if that is longer. At
    /// least a second makes sense: the server counts pings among its control frames.
    pub ping_interval: Duration,
    /// How long nothing at all may come after a ping before the connection is given up: this,
    /// or four measured round-trip time-outs if that is longer, at most four times this.
    pub ping_timeout: Duration,
    /// Reliable messages without an outcome that are kept, over all rooms.
    pub outbox_messages: usize,
    /// Their bodies and type names, in bytes.
    pub outbox_bytes: usize,
    /// Outputs that may wait for `poll_output` before further input is refused: a frame
    /// closes the connection, a command is an error, a timeout does nothing. A single
    /// input may pass this by the outcomes of the messages that it settles and a few
    /// events for each room.
    pub events: usize,
    /// Whether to join a room again that was gone, or whose session was lost.
    pub rejoin: bool,
    /// Largest frame taken, and largest payload after inflating, in bytes.
    pub max_frame: usize,
    /// Whether the server may compress.
    pub accept_zstd: bool,
    /// Whether payloads are sealed; a server that cannot is
    /// [`Incompatible`](skirmish_proto::v1::Reason::Incompatible).
    pub seal: bool,
    /// With [`Self::seal`]: the server's static public key, which only the right server
    /// has the other half of.
    pub pinned: Option<[u8; 32]>,
    /// Entries of one room's state that are kept: more than the server's rooms may have, which
    /// is `2 * members * (state_entries + 1)` of its configuration, 16,896 by default, and what
    /// this client adds while it is cut off. A room with more is
    /// [`Incompatible`](skirmish_proto::v1::Reason::Incompatible).
    pub state_entries: usize,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            agent: String::from(concat!("skirmish/", env!("CARGO_PKG_VERSION"))),
            player: String::new(),
            backoff_min: Duration::from_millis(500),
            backoff_max: Duration::from_millis(3_000),
            connect_timeout: Duration::from_secs(10),
            ping_interval: Duration::from_secs(5),
            ping_timeout: Duration::from_secs(2),
            outbox_messages: 1_024,
            outbox_bytes: 1024 * 1024,
            events: 1_024,
            rejoin: true,
            max_frame: 64 * 1024,
            accept_zstd: true,
            seal: false,
            pinned: None,
            state_entries: 65_536,
        }
    }
}
