//! Shared parts of the tests over real sockets: servers in the test process and in processes of their own,
//! sockets without the client library, players with it, and a proxy that cuts connections.
//!
//! A test waits for an expected event, with a deadline far above the normal time, and never for a fixed time.

pub mod duel;
pub mod etcd;
pub mod history;
pub mod http;
pub mod pipe;
pub mod player;
pub mod process;
pub mod proxy;
pub mod server;
pub mod socket;

use std::future::Future;
use std::time::Duration;

use skirmish_core::id::Name;
use skirmish_io::clock::Clock;
use skirmish_io::token::Keys;

/// Time limit of every expected event.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Secret of the only key of each server.
pub const SECRET: &str = "a secret of the tests, 32 bytes or more";

/// Time between two checks of a condition.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Waits for a future.
///
/// # Panics
/// If the future is not ready within [`PATIENCE`].
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} for {what}"),
    }
}

/// Repeats `check` until it returns true.
///
/// # Panics
/// If `check` does not return true within [`PATIENCE`].
pub async fn eventually(what: &str, mut check: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !check().await {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    })
    .await;
}

/// Returns the keys of the servers.
///
/// # Panics
/// Never: the secret is long enough.
#[must_use]
pub fn keys() -> Keys {
    Keys::from_secret("test", SECRET.as_bytes()).expect("the secret is long enough")
}

/// Returns a token that the servers accept.
#[must_use]
pub fn token(player: &str) -> String {
    signed(&keys(), player, 0)
}

/// Returns a token for a player, signed `age_seconds` ago and valid for a day from then.
///
/// # Panics
/// If the player's name is invalid.
#[must_use]
pub fn signed(keys: &Keys, player: &str, age_seconds: u64) -> String {
    let mut wall = Clock::new().now().wall;
    wall.0 -= age_seconds * 1_000;
    let player = Name::new(player).expect("a name");
    keys.sign(&player, Duration::from_secs(24 * 3600), wall, None).expect("the key can sign")
}
