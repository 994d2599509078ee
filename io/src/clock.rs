//! The clock: the only place of the shell that reads one.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use skirmish_core::time::{Instant, Now, Wall};
use tokio::time::Instant as TokioInstant;

/// Reads both clocks as the core takes them. Cheap to clone; clones share the origin
/// and the skew.
#[derive(Clone, Debug)]
pub struct Clock {
    origin: TokioInstant,
    skew_ms: Arc<AtomicI64>,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// A clock whose monotonic side starts at zero now.
    #[must_use]
    pub fn new() -> Self {
        Self { origin: TokioInstant::now(), skew_ms: Arc::new(AtomicI64::new(0)) }
    }

    /// Sets the wall clock wrong by this many milliseconds, for simulation.
    pub fn set_skew_ms(&self, skew_ms: i64) {
        self.skew_ms.store(skew_ms, Ordering::Relaxed);
    }

    /// What time it is.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "this is the shell's clock")]
    pub fn now(&self) -> Now {
        let micros = u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX);
        let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let wall = u64::try_from(unix.as_millis()).unwrap_or(u64::MAX);
        Now {
            instant: Instant::from_micros(micros),
            wall: Wall(wall.saturating_add_signed(self.skew_ms.load(Ordering::Relaxed))),
        }
    }

    /// The runtime's instant for a core instant, to sleep until.
    #[must_use]
    pub fn deadline(&self, at: Instant) -> TokioInstant {
        self.origin + std::time::Duration::from_micros(at.as_micros())
    }
}
