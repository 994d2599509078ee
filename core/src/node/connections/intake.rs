//! Input of connections: from the bytes of a frame to a message of a session.

use alloc::string::{String, ToString as _};

use bytes::Bytes;
use skirmish_proto::v1;
use subtle::ConstantTimeEq as _;

use super::connection::{AdmittedPlayer, Connection, Phase};
use super::metering::Class;
use super::{Connections, Offence};
use crate::base::id::Name;
use crate::base::plant::Plant;
use crate::base::slab::Key;
use crate::node::Wrong;
use crate::node::cx::Cx;
use crate::wire::{self, Frame, ToServer, WireError};

/// Input of a client that concerns more than its connection.
#[derive(Debug)]
pub(crate) enum ClientInput {
    /// The first frame of an admitted player.
    Hello { player: Name, hello: v1::Hello },
    /// A message of the session that the connection has.
    Message { session: Key, message: ToServer, metadata: v1::Metadata },
}

/// The content of a frame.
struct Decoded {
    message: ToServer,
    metadata: v1::Metadata,
    /// Bytes of the frame with its payload inflated.
    inflated: usize,
}

impl Connections {
    /// Reads a frame. Returns the input that the node is to carry out, if the frame is more than a
    /// matter of the connection. Ignored if the connection is being closed.
    pub(crate) fn handle_frame(&mut self, cx: &mut Cx<'_>, key: Key, frame: Bytes) -> Option<ClientInput> {
        // The node may have dropped the connection, and the driver does not know that yet.
        let connection = self.table.get_mut(key)?;
        let fenced = connection.is_closing() && !cx.planted.is(Plant::OldConnectionWrites);
        if fenced || matches!(connection.phase, Phase::Upgrading { .. }) {
            return None;
        }
        self.stats.frames_in += 1;
        self.stats.bytes_in += frame.len() as u64;
        if connection.heartbeat.handle_frame(&cx.config.heartbeat) {
            self.stats.unhealthy -= 1;
        }
        match self.read(cx, key, frame) {
            Ok(input) => input,
            Err(offence) => {
                self.punish(cx, key, offence);
                None
            }
        }
    }

    fn read(&mut self, cx: &mut Cx<'_>, key: Key, frame: Bytes) -> Result<Option<ClientInput>, Offence> {
        let length = frame.len() as u64;
        self.charge(cx, key, Class::Bytes, length)?;
        match self.decode(cx, key, frame) {
            Ok(decoded) => {
                let more = (decoded.inflated as u64).saturating_sub(length);
                if more > 0 {
                    self.charge(cx, key, Class::Bytes, more)?;
                }
                self.sort(cx, key, decoded.message, decoded.metadata)
            }
            Err(WireError::UnknownKind(kind)) if self.is_open(key) => {
                self.charge(cx, key, Class::Control, 1)?;
                self.unsupported(cx, key, v1::Unsupported { kind: kind.into(), type_url: String::new() });
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn decode(&mut self, cx: &Cx<'_>, key: Key, bytes: Bytes) -> Result<Decoded, WireError> {
        let most = cx.config.frames.frame_bytes;
        let mut frame = Frame::decode(bytes, most)?;
        if let Some(seal) = self.table.get_mut(key).and_then(|connection| connection.seal.as_mut()) {
            frame = seal.open(frame)?;
        }
        let frame = self.zstd.inflate(frame, most)?;
        let inflated = wire::HEADER_LEN + frame.metadata.len() + frame.payload.len() + wire::TRAILER_LEN;
        Ok(Decoded { message: ToServer::decode(&frame)?, metadata: frame.metadata()?, inflated })
    }

    /// Handles messages of the connection itself, and passes those of its session on.
    fn sort(
        &mut self,
        cx: &mut Cx<'_>,
        key: Key,
        message: ToServer,
        metadata: v1::Metadata,
    ) -> Result<Option<ClientInput>, Offence> {
        let protocol_error = |what| Err(Offence::new(v1::Reason::ProtocolError, what));
        let Some(connection) = self.table.get_mut(key) else {
            cx.bugs.found("a connection vanished while it was read");
            return Ok(None);
        };
        match &connection.phase {
            Phase::Greeting { identity, .. } => return greet(identity, message).map(Some),
            Phase::Claiming { .. } => return protocol_error("a frame before the Welcome"),
            // A closing connection is read only with a planted bug.
            Phase::Upgrading { .. } | Phase::Open | Phase::Closing { .. } => {}
        }
        let Some(session) = connection.session else {
            cx.bugs.found("an open connection has no session");
            return Ok(None);
        };
        let class = match &message {
            ToServer::Say(_) => Some(Class::Reliable),
            ToServer::Latest(_) => Some(Class::Latest),
            ToServer::Pong(pong) if connection.heartbeat.handle_pong(cx.now.instant, pong.nonce) => None,
            _ => Some(Class::Control),
        };
        if let Some(class) = class {
            self.charge(cx, key, class, 1)?;
        }
        match message {
            ToServer::Hello(_) => protocol_error("a second Hello"),
            ToServer::Ping(ping) => {
                let pong = v1::Pong { nonce: ping.nonce };
                self.answer(cx, key, wire::encode(v1::Kind::Pong, &v1::Metadata::default(), &pong));
                Ok(None)
            }
            ToServer::Pong(_) => Ok(None),
            message => Ok(Some(ClientInput::Message { session, message, metadata })),
        }
    }

    /// Tells a client that one of its messages is unsupported.
    pub(crate) fn unsupported(&mut self, cx: &mut Cx<'_>, key: Key, what: v1::Unsupported) {
        self.stats.unsupported += 1;
        self.answer(cx, key, wire::encode(v1::Kind::Unsupported, &v1::Metadata::default(), &what));
    }

    /// Returns true if frames of a connection's session are accepted.
    pub(crate) fn is_open(&self, key: Key) -> bool {
        self.table.get(key).is_some_and(Connection::is_open)
    }
}

/// Takes the first message of a connection for the `Hello` of its player.
fn greet(identity: &AdmittedPlayer, message: ToServer) -> Result<ClientInput, Offence> {
    let ToServer::Hello(hello) = message else {
        return Err(Offence::new(v1::Reason::ProtocolError, "the first frame must be Hello"));
    };
    if !hello.token.is_empty() && !bool::from(hello.token.ct_eq(&identity.token)) {
        let what = "the token in Hello is not that of the upgrade";
        return Err(Offence::new(v1::Reason::Unauthenticated, what));
    }
    Ok(ClientInput::Hello { player: identity.player.clone(), hello })
}

impl From<WireError> for Offence {
    fn from(error: WireError) -> Self {
        let reason = match error.fault() {
            wire::FaultSide::Incompatible => v1::Reason::Incompatible,
            wire::FaultSide::Misbehaved | wire::FaultSide::Caller => v1::Reason::ProtocolError,
        };
        let wrong = match error {
            WireError::FrameTooLong(_)
            | WireError::InflatedTooLong(_)
            | WireError::MetadataTooLong(_)
            | WireError::TooManyItems(_) => Wrong::Size,
            _ => Wrong::Protocol,
        };
        Self { reason, what: error.to_string(), wrong }
    }
}
