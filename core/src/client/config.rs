//! Configuration of a client.

use alloc::string::String;

use crate::base::time::Duration;

/// Configuration of a client. [`Default`] is fit for production once [`Self::player`]
/// is set.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Name and version of the program, for the server's logs. Default `skirmish/` and the version
    /// of this crate. At most 64 bytes are sent.
    pub agent: String,
    /// Player that the token names, the owner of the properties and counters that this client
    /// writes to a room's state. Empty by default; then these writes are refused as
    /// [`BadName`](super::CommandError::BadName).
    pub player: String,
    /// Minimum wait before another dial (row R1). Default 500 ms. After the loss of a connection that
    /// was ready for at least [`Self::backoff_max`], the wait is from 0 to half of the minimum, unless
    /// the server asks for a wait.
    pub backoff_min: Duration,
    /// Maximum wait before another dial, unless the server asks for a longer wait. Default 3 s.
    pub backoff_max: Duration,
    /// Maximum time for each of the two steps of connecting: first the dial with the upgrade, then
    /// the time from `Hello` until the server has answered for every room. Default 10 s. Then the
    /// connection is given up.
    pub connect_timeout: Duration,
    /// Silence after which the client pings the server. Default 5 s. While the client waits for an
    /// answer, the silence is 1 s, or twice the round-trip time-out (RFC 6298; 1 s before the first
    /// measurement) if that is longer, but never longer than this setting. Values below 1 s make no
    /// sense, since the server counts pings among the client's control frames.
    pub ping_interval: Duration,
    /// Maximum silence after a ping; then the connection is given up. Default 2 s. The silence is
    /// four round-trip time-outs instead if that is longer, up to four times this setting.
    pub ping_timeout: Duration,
    /// Maximum number of reliable messages without an outcome, over all rooms. Default 1,024. At
    /// the bound, `say` returns [`OutboxFull`](super::CommandError::OutboxFull).
    pub outbox_messages: usize,
    /// Maximum size of these messages (bodies and type names), in bytes. Default 1 MiB. Beyond it,
    /// `say` returns [`OutboxFull`](super::CommandError::OutboxFull).
    pub outbox_bytes: usize,
    /// Outputs that may wait for `poll_output`. Default 1,024. At the bound, a received frame
    /// closes the connection, a command returns an error, and a time-out has no effect. A single
    /// input may exceed the bound by the outcomes of the messages that it settles, and by a few
    /// events for each room.
    pub events: usize,
    /// True to join a room again after the room was gone or the session was lost. Default true.
    pub rejoin: bool,
    /// Maximum size of a received frame, and of an inflated payload, in bytes. Default 64 KiB. A
    /// larger one closes the connection.
    pub max_frame: usize,
    /// True to let the server compress frames. Default true.
    pub accept_zstd: bool,
    /// True to seal payloads. Default false. A server that cannot seal is
    /// [`Incompatible`](skirmish_proto::v1::Reason::Incompatible).
    pub seal: bool,
    /// With [`Self::seal`]: the static public key of the server. Only the right server has the
    /// secret half of this key.
    pub pinned: Option<[u8; 32]>,
    /// Maximum number of entries of one room's state at this client. Default 65,536. A room of the
    /// server may have `2 * members * (state_entries + 1)` entries by the server's configuration
    /// (16,896 by default). The maximum must be larger, since this client adds entries while it is
    /// cut off. A room with more entries is
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
