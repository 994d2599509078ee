//! Check that the nodes of a registry belong to one deployment.
//!
//! Two deployments with the same etcd and the same prefix, by mistake, would share players, rooms and
//! matches. The nodes of one deployment check tokens with the same keys, so the record of each node has
//! fingerprints of the keys. A node does not register if other nodes with keys registered before it and none
//! of them shares a key with it.
//!
//! An operator rotates keys by adding a new key on every node and removing the old key later. So each node
//! always shares a key with some node that registered before.

use sha2::{Digest as _, Sha256};
use skirmish_proto::v1;

use super::Registrar;
use super::pending::Purpose;
use crate::base::id::NodeId;
use crate::base::time::Instant;
use crate::registry::Request;

/// Returns the fingerprint of a key that tokens are checked with. Fingerprints show only that two keys are
/// equal. `material` is the secret or the public key.
#[must_use]
pub fn key_fingerprint(id: &str, material: &[u8]) -> u64 {
    let mut digest = Sha256::new().chain_update(b"skirmish.v1 token key\0");
    digest = digest.chain_update(id.as_bytes()).chain_update(b"\0").chain_update(material);
    digest.finalize().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

impl Registrar {
    /// Returns the node of another deployment that keeps this node from registering.
    #[must_use]
    pub fn foreign_node(&self) -> Option<(NodeId, &v1::NodeRecord)> {
        let id = self.foreign_node?;
        Some((id, self.directory.get(id)?))
    }

    /// Returns true if the node may register, as far as the deployment and the generation are concerned.
    pub(super) fn may_register(&self) -> bool {
        let keys = &self.presence.record().token_keys;
        self.may_rely_on_store()
            && (!self.running || keys.is_empty() || self.nodes.was_read() && self.foreign_node.is_none())
    }

    /// Compares again the keys of the nodes that registered before this one.
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
        let is_foreign = !keys.is_empty() && !before().any(belongs);
        let oldest = before().min_by_key(|(_, created, _)| *created);
        self.foreign_node = oldest.filter(|_| is_foreign).map(|(id, ..)| id);
        if self.foreign_node.is_some() && self.node_lease.is_registered() {
            // Both nodes registered at the same time; the earlier registration stays.
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
