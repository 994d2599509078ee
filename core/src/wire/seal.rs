//! Sealed payloads: authenticated encryption with a key agreed in the session (row W3).
//!
//! # Protection
//!
//! A connection already runs over TLS. A seal protects payloads from a party that ends the TLS on
//! the way: a proxy, a load balancer or a content delivery network.
//!
//! * A party that only reads learns the kinds, sizes, times and metadata of the frames, and the
//!   content of `Hello` and `Welcome` (token and session identifier included), but no other
//!   payload.
//! * If the client has pinned the server's static key, an active party cannot read or change a
//!   payload either. Nor can it drop, repeat, reorder or insert a frame in the middle of the
//!   connection unnoticed. Without a pinned key it can, by agreeing on a key with each side.
//! * Recorded traffic stays unreadable if the static key leaks later, since both sides also use
//!   keys that exist for one connection only.
//!
//! A seal hides neither the metadata nor the existence of frames. A seal cannot distinguish a
//! connection that was cut off from one that ended. The client is not authenticated by the seal;
//! that is the task of the token. Payloads are compressed before they are sealed, so the size of a
//! frame can leak secrets that share a payload with text that an attacker has chosen.
//!
//! # Agreement and encryption
//!
//! Both sides draw an ephemeral X25519 key. `Hello.seal_key` and `Welcome.seal_key` carry
//! the public halves. All payloads after the `Welcome` are sealed.
//!
//! ```text
//! secret = X25519(ephemeral, ephemeral)
//!          and, if pinned, followed by X25519(client's ephemeral, server's static)
//! prk    = HKDF-SHA256-Extract(salt = "skirmish.v1 seal", secret)
//! key    = HKDF-SHA256-Expand(prk, direction | pinned | client's ephemeral public key |
//!              server's ephemeral public key | server's static public key, if pinned |
//!              session identifier, 32 bytes)
//! ```
//!
//! `direction` is one byte, `C` for frames of the client and `S` for frames of the server.
//! `pinned` is one byte, 1 or 0. A shared secret of zeros only is refused.
//!
//! A payload is sealed with ChaCha20-Poly1305. The tag of 16 bytes follows the ciphertext
//! and counts as payload. The nonce is the number of frames sealed in this direction
//! before, as 12 bytes big-endian. The nonce is not sent, because the transport keeps the order.
//! The associated data are the header in its sent form, and the metadata.

use alloc::vec::Vec;
use core::fmt;

use bytes::{Bytes, BytesMut};
use chacha20poly1305::aead::AeadInOut as _;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _, Nonce, Tag};
use hkdf::Hkdf;
use sha2::Sha256;
use x25519_dalek::{PublicKey, SharedSecret, StaticSecret};
use zeroize::Zeroizing;

use super::frame::Header;
use super::{FLAG_SEALED, Frame, HEADER_LEN, TRAILER_LEN, WireError, encode};

/// Bytes that a seal adds to a frame.
pub const OVERHEAD: usize = 16;

const SALT: &[u8] = b"skirmish.v1 seal";

/// Returns the public half of a server's static secret, for clients to pin.
#[must_use]
pub fn public_key(statik: [u8; 32]) -> [u8; 32] {
    PublicKey::from(&StaticSecret::from(statik)).to_bytes()
}

/// Client's side of the agreement, before the `Welcome`.
pub struct Offer {
    ephemeral: StaticSecret,
    public: [u8; 32],
    pinned: Option<[u8; 32]>,
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offer").field("pinned", &self.pinned.is_some()).finish_non_exhaustive()
    }
}

impl Offer {
    /// Creates an offer. `ephemeral` is 32 random bytes, for this connection only; `pinned` is the
    /// server's static public key, if the client has it.
    #[must_use]
    pub fn new(ephemeral: [u8; 32], pinned: Option<[u8; 32]>) -> Self {
        let ephemeral = StaticSecret::from(ephemeral);
        let public = PublicKey::from(&ephemeral).to_bytes();
        Self { ephemeral, public, pinned }
    }

    /// Returns the value for `Hello.seal_key`.
    #[must_use]
    pub const fn public(&self) -> [u8; 32] {
        self.public
    }

    /// Finishes the agreement with `Welcome.seal_key` and `Welcome.session`.
    ///
    /// # Errors
    /// If the server's key is not 32 bytes long, or if this key or the pinned key has small order.
    pub fn finish(self, server_public: &[u8], session: &[u8]) -> Result<Seal, WireError> {
        let server_public = parse_public(server_public)?;
        let agreed = contributory(self.ephemeral.diffie_hellman(&server_public.into()))?;
        let pinned = match self.pinned {
            None => None,
            Some(key) => Some((contributory(self.ephemeral.diffie_hellman(&key.into()))?, key)),
        };
        let keys = Agreement { agreed, pinned, client: self.public, server: server_public };
        Ok(Seal::new(keys.key(Direction::ToServer, session), keys.key(Direction::ToClient, session)))
    }
}

/// Answers an offer, on the server's side. Returns `Welcome.seal_key` and the seal.
///
/// `ephemeral` is 32 random bytes, for this connection only. `statik` is the server's static
/// secret, given if and only if `Hello.seal_pinned` is set; a server without such a secret refuses
/// this `Hello`. `session` is `Welcome.session`.
///
/// # Errors
/// If the client's key is not 32 bytes long or has small order.
pub fn answer(
    ephemeral: [u8; 32],
    statik: Option<[u8; 32]>,
    client_public: &[u8],
    session: &[u8],
) -> Result<([u8; 32], Seal), WireError> {
    let client = parse_public(client_public)?;
    let ephemeral = StaticSecret::from(ephemeral);
    let server = PublicKey::from(&ephemeral).to_bytes();
    let agreed = contributory(ephemeral.diffie_hellman(&client.into()))?;
    let pinned = match statik.map(StaticSecret::from) {
        None => None,
        Some(secret) => {
            let shared = contributory(secret.diffie_hellman(&client.into()))?;
            Some((shared, PublicKey::from(&secret).to_bytes()))
        }
    };
    let keys = Agreement { agreed, pinned, client, server };
    Ok((server, Seal::new(keys.key(Direction::ToClient, session), keys.key(Direction::ToServer, session))))
}

/// Keys and counters of one connection, for both directions. A frame that does not open is a fatal
/// error: the error becomes the state, and no later frame opens.
pub struct Seal {
    sealing: Sequence,
    opening: Sequence,
    failed: Option<WireError>,
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal")
            .field("sealed", &self.sealing.used)
            .field("opened", &self.opening.used)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

impl Seal {
    fn new(sealing: ChaCha20Poly1305, opening: ChaCha20Poly1305) -> Self {
        let sequence = |cipher| Sequence { cipher, used: 0 };
        Self { sealing: sequence(sealing), opening: sequence(opening), failed: None }
    }

    /// Returns the frame with its payload sealed (after compression, if any), [`OVERHEAD`] bytes
    /// longer. `frame` is the result of [`super::encode()`] or [`super::Zstd::deflate`]. Sealed
    /// frames must be sent in the order in which they were sealed, once each.
    ///
    /// # Errors
    /// [`WireError::NotAFrame`] if `frame` is something else, or is sealed already; then no nonce
    /// is used. [`WireError::SealExhausted`] after 2^64 - 1 frames.
    pub fn seal(&mut self, frame: &Bytes) -> Result<Bytes, WireError> {
        let header = Header::of_encoded(frame)
            .filter(|header| header.flags & FLAG_SEALED == 0)
            .ok_or(WireError::NotAFrame)?;
        let sealed_len = header.payload_len + OVERHEAD;
        let (Ok(metadata_field), Ok(payload_field)) =
            (u16::try_from(header.metadata_len), u32::try_from(sealed_len))
        else {
            return Err(WireError::NotAFrame);
        };
        let mut buffer = Vec::with_capacity(header.payload_start() + sealed_len + TRAILER_LEN);
        let flags = header.flags | FLAG_SEALED;
        buffer.extend_from_slice(&Header::write(header.kind, flags, metadata_field, payload_field));
        buffer.extend_from_slice(&frame[HEADER_LEN..header.payload_end()]);
        let (associated, payload) = buffer.split_at_mut(header.payload_start());
        let tag = self.sealing.seal(associated, payload)?;
        buffer.extend_from_slice(&tag);
        Ok(encode::finish(buffer))
    }

    /// Opens a sealed frame, in place if its buffer has no other owner.
    ///
    /// # Errors
    /// If the frame is not sealed, is not the next one that the peer has sealed, or was changed.
    pub fn open(&mut self, frame: Frame) -> Result<Frame, WireError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let result = self.opening.open(frame);
        self.failed = result.as_ref().err().copied();
        result
    }
}

/// One direction: the key, and the number of used nonces.
struct Sequence {
    cipher: ChaCha20Poly1305,
    used: u64,
}

impl Sequence {
    fn seal(&mut self, associated: &[u8], payload: &mut [u8]) -> Result<[u8; OVERHEAD], WireError> {
        let nonce = self.next_nonce()?;
        let tag = self
            .cipher
            .encrypt_inout_detached(&nonce, associated, payload.into())
            // The cipher accepts 256 GiB in one piece, more than a length field can state.
            .map_err(|_| WireError::NotAFrame)?;
        Ok(tag.into())
    }

    fn open(&mut self, mut frame: Frame) -> Result<Frame, WireError> {
        if frame.flags & FLAG_SEALED == 0 {
            return Err(WireError::NotSealed);
        }
        let mut associated = Vec::with_capacity(HEADER_LEN + frame.metadata.len());
        associated.extend_from_slice(&frame.header);
        associated.extend_from_slice(&frame.metadata);
        let mut payload = core::mem::take(&mut frame.payload)
            .try_into_mut()
            .unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        let (content, tag) = payload.split_last_chunk_mut::<OVERHEAD>().ok_or(WireError::NotAuthentic)?;
        let len = content.len();
        let nonce = self.next_nonce()?;
        self.cipher
            .decrypt_inout_detached(&nonce, &associated, content.into(), &Tag::from(*tag))
            .map_err(|_| WireError::NotAuthentic)?;
        payload.truncate(len);
        frame.with_payload(payload.freeze(), FLAG_SEALED)
    }

    fn next_nonce(&mut self) -> Result<Nonce, WireError> {
        let next = self.used.checked_add(1).ok_or(WireError::SealExhausted)?;
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.used.to_be_bytes());
        self.used = next;
        Ok(nonce.into())
    }
}

#[derive(Clone, Copy)]
enum Direction {
    ToServer,
    ToClient,
}

/// Values that both sides know after the exchange.
struct Agreement {
    agreed: SharedSecret,
    /// Secret shared with the server's static key, and that key.
    pinned: Option<(SharedSecret, [u8; 32])>,
    client: [u8; 32],
    server: [u8; 32],
}

impl Agreement {
    fn key(&self, direction: Direction, session: &[u8]) -> ChaCha20Poly1305 {
        let mut secret = Zeroizing::new([0; 64]);
        let (first, second) = secret.split_at_mut(32);
        first.copy_from_slice(self.agreed.as_bytes());
        let (secret, statik): (&[u8], &[u8]) = match &self.pinned {
            None => (first, &[]),
            Some((shared, statik)) => {
                second.copy_from_slice(shared.as_bytes());
                (&secret[..], statik)
            }
        };
        let direction = match direction {
            Direction::ToServer => b"C",
            Direction::ToClient => b"S",
        };
        // All parts except the last have a fixed length, given the flag, so no two agreements have
        // the same text.
        let info =
            [direction, &[u8::from(self.pinned.is_some())][..], &self.client, &self.server, statik, session];
        let mut key = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(Some(SALT), secret)
            .expand_multi_info(&info, &mut *key)
            .expect("32 bytes are one block of the hash");
        ChaCha20Poly1305::new((&*key).into())
    }
}

fn parse_public(bytes: &[u8]) -> Result<[u8; 32], WireError> {
    bytes.try_into().map_err(|_| WireError::BadPublicKey)
}

fn contributory(secret: SharedSecret) -> Result<SharedSecret, WireError> {
    if secret.was_contributory() { Ok(secret) } else { Err(WireError::WeakPublicKey) }
}
