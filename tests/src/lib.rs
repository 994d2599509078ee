//! What the tests from outside share: servers in this process and in one of their own,
//! sockets without our client on them, players with it, and a proxy that cuts.
//!
//! A test waits for what must happen, with a deadline that no working machine comes
//! near, and never for a time to pass.

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

/// How long anything that must happen may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The secret of every server's only key.
pub const SECRET: &str = "a secret of the tests, 32 bytes or more";

/// Between two looks at something that cannot be waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Waits for a future.
///
/// # Panics
/// If it is not ready within [`PATIENCE`].
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} for {what}"),
    }
}

/// Looks again and again until `check` holds.
///
/// # Panics
/// If it does not within [`PATIENCE`].
pub async fn eventually(what: &str, mut check: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !check().await {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    })
    .await;
}

/// The keys of the servers.
///
/// # Panics
/// Never: the secret is long enough.
#[must_use]
pub fn keys() -> Keys {
    Keys::from_secret("test", SECRET.as_bytes()).expect("the secret is long enough")
}

/// A token that the servers take.
#[must_use]
pub fn token(player: &str) -> String {
    signed(&keys(), player, 0)
}

/// A token for a player, signed `age_seconds` ago and good for a day from then.
///
/// # Panics
/// If the player's name is none.
#[must_use]
pub fn signed(keys: &Keys, player: &str, age_seconds: u64) -> String {
    let mut wall = Clock::new().now().wall;
    wall.0 -= age_seconds * 1_000;
    let player = Name::new(player).expect("a name");
    keys.sign(&player, Duration::from_secs(24 * 3600), wall, None).expect("the key can sign")
}
