//! Whether the nodes that share a registry belong together.
//!
//! Two deployments that were given the same etcd and the same prefix by mistake would have
//! their players, rooms and matches in common. Nodes of one deployment check tokens with the
//! same keys, so each node's record has fingerprints of its keys. A node that finds others
//! registered before it, none of which has a key in common with it, does not register.
//!
//! Keys are rotated by adding one everywhere and removing the old one later: at every moment
//! each node has a key in common with some node that was there before.

use sha2::{Digest as _, Sha256};
use skirmish_proto::v1;

use super::Registrar;
use super::pending::Purpose;
use crate::base::id::NodeId;
use crate::base::time::Instant;
use crate::registry::Request;

/// What others may know of a key that tokens are checked with: whether it is the same.
/// `material` is the secret or the public key.
#[must_use]
pub fn key_fingerprint(id: &str, material: &[u8]) -> u64 {
    let mut digest = Sha256::new().chain_update(b"skirmish.v1 token key\0");
    digest = digest.chain_update(id.as_bytes()).chain_update(b"\0").chain_update(material);
    digest.finalize().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

impl Registrar {
    /// A node of another deployment that keeps this one from registering.
    #[must_use]
    pub fn stranger(&self) -> Option<(NodeId, &v1::NodeRecord)> {
        let id = self.stranger?;
        Some((id, self.directory.get(id)?))
    }

    /// Whether the node may have records, as far as others are concerned.
    pub(super) fn may_register(&self) -> bool {
        let keys = &self.presence.record().token_keys;
        self.may_rely_on_store()
            && (!self.running || keys.is_empty() || self.nodes.was_read() && self.stranger.is_none())
    }

    /// Looks again whether the nodes that were there before belong to this one.
    pub(super) fn review_deployment(&mut self, now: Instant) {
        let keys = &self.presence.record().token_keys;
        let life = self.presence.life().unwrap_or(u64::MAX);
        let has_keys = |(_, created, record): &(NodeId, u64, &v1::NodeRecord)| {
            *created < life && !record.token_keys.is_empty()
        };
        let before = || self.directory.lives().filter(|other| other.0 != self.me).filter(has_keys);
        let belongs = |(_, _, other): (NodeId, u64, &v1::NodeRecord)| {
            other.token_keys.iter().any(|key| keys.contains(key))
        };
        let is_strange = !keys.is_empty() && !before().any(belongs);
        let oldest = before().min_by_key(|(_, created, _)| *created);
        self.stranger = oldest.filter(|_| is_strange).map(|(id, ..)| id);
        if self.stranger.is_some() && self.node_lease.is_registered() {
            // Both came at once; whoever was registered first stays.
            for lease in [self.node_lease.id(), self.room_lease.id()] {
                self.send(now, Purpose::Stray, Request::Revoke(lease));
            }
            self.presence.forget();
            let Self { node_lease, room_lease, config, rng, .. } = self;
            node_lease.handle_gone(config, now, rng);
            room_lease.handle_gone(config, now, rng);
        }
    }
}
