//! Open files: the number of player connections that fit into the process's limit, and the number
//! of descriptors that are kept for everything else.

use std::fmt;

use crate::config::{Config, RegistryKind};

/// Maximum number of operators' connections at a time.
pub(super) const OPERATORS: usize = 64;
/// Maximum number of connections that are being refused at a time.
pub(super) const REFUSALS: usize = 64;
/// Descriptors for standard streams, runtime, signals, listeners with their spares, and files that
/// are read.
const BASE: usize = 32;
/// Descriptors for connections to etcd. A reconnection needs old and new ones at the same time.
const ETCD: usize = 16;
/// One in so many descriptors may be a link, and at least [`FEWEST_LINKS`].
const LINKS_SHARE: usize = 8;
const FEWEST_LINKS: usize = 16;
/// Number of connections below which a server does not start.
const FEWEST_CONNECTIONS: usize = 16;

/// Treatment of a `connections.total` that needs more open files than the limit allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// The server does not start: the number was configured.
    Refuse,
    /// The number is the default, and is lowered to the limit, with a warning.
    Lower,
}

/// Distribution of the descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Connections of players.
    pub(super) connections: usize,
    /// Links to other nodes.
    pub(super) links: usize,
    /// Descriptors for everything but players, links included.
    pub(super) kept: usize,
}

/// The limit of open files may be too low.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    connections: usize,
    kept: usize,
    limit: usize,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, kept, limit } = *self;
        let needed = connections.saturating_add(kept);
        write!(
            f,
            "{connections} connections need {needed} open files, {kept} of them kept for operators, other \
             nodes, the registry and refusals, and the limit is {limit}: raise it (`ulimit -n {needed}`, or \
             LimitNOFILE={needed} of a unit)"
        )?;
        match limit.saturating_sub(kept) {
            fits @ FEWEST_CONNECTIONS.. => write!(f, ", or set connections.total to {fits} at most"),
            _ => Ok(()),
        }
    }
}

impl Plan {
    /// Distributes `limit` descriptors. `links` is the largest possible number of links.
    ///
    /// # Errors
    /// If the connections of the configuration do not fit and cannot be lowered.
    pub(super) fn new(config: &Config, links: usize, limit: usize, excess: Excess) -> Result<Self, Shortage> {
        let shared = config.registry.kind == RegistryKind::Etcd;
        let links = if shared { links.min((limit / LINKS_SHARE).max(FEWEST_LINKS)) } else { 0 };
        let operators = if config.admin.enabled { OPERATORS } else { 0 };
        let etcd = if shared { ETCD } else { 0 };
        let kept = BASE + REFUSALS + operators + etcd + links;
        let wanted = config.connections.total;
        let fits = limit.saturating_sub(kept);
        let connections = match excess {
            _ if wanted <= fits => wanted,
            Excess::Lower if fits >= FEWEST_CONNECTIONS => fits,
            // The default is no wish, so the error names the lowest possible number.
            Excess::Lower => return Err(Shortage { connections: FEWEST_CONNECTIONS, kept, limit }),
            Excess::Refuse => return Err(Shortage { connections: wanted, kept, limit }),
        };
        Ok(Self { connections, links, kept })
    }
}

/// Returns the number of open descriptors of this process, if the system reports the number.
#[cfg(not(madsim))]
pub(super) fn open() -> Option<usize> {
    const LIST: &str = "/proc/self/fd";
    // Linux reports the number as the directory's size, from 6.2 on.
    match usize::try_from(std::fs::metadata(LIST).ok()?.len()).ok()? {
        // Minus the descriptor that reads the list.
        0 => Some(std::fs::read_dir(LIST).ok()?.count().saturating_sub(1)),
        open => Some(open),
    }
}

/// Returns the process's limit of open descriptors.
#[cfg(not(madsim))]
pub(super) fn limit() -> Option<usize> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current?;
    usize::try_from(limit).ok()
}

/// Returns true if fewer than `ENOUGH` descriptors can be opened.
#[cfg(not(madsim))]
pub(super) fn are_scarce() -> bool {
    use std::os::fd::AsFd as _;
    const ENOUGH: usize = 4;
    let stderr = std::io::stderr();
    let opened: Vec<_> = (0..ENOUGH).map_while(|_| stderr.as_fd().try_clone_to_owned().ok()).collect();
    opened.len() < ENOUGH
}

/// Simulated hosts have enough descriptors.
#[cfg(madsim)]
pub(super) const fn are_scarce() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(total: usize, shared: bool) -> Config {
        let mut config = Config::default();
        config.connections.total = total;
        if shared {
            config.registry.kind = RegistryKind::Etcd;
        }
        config
    }

    #[test]
    fn what_fits_is_left_alone() {
        for excess in [Excess::Refuse, Excess::Lower] {
            let plan = Plan::new(&config(840, false), 256, 1000, excess);
            assert_eq!(plan, Ok(Plan { connections: 840, links: 0, kept: 160 }));
        }
    }

    #[test]
    fn what_was_set_is_refused_with_both_ways_out() {
        let error = Plan::new(&config(841, false), 256, 1000, Excess::Refuse).unwrap_err().to_string();
        for part in ["841 connections need 1001 open files", "160 of them", "the limit is 1000"] {
            assert!(error.contains(part), "{error}");
        }
        assert!(error.contains("`ulimit -n 1001`") && error.contains("LimitNOFILE=1001"), "{error}");
        assert!(error.ends_with("or set connections.total to 840 at most"), "{error}");
    }

    #[test]
    fn the_default_is_lowered_until_a_server_makes_no_sense() {
        let lowered = |limit, shared| Plan::new(&config(18_000, shared), 256, limit, Excess::Lower);
        assert_eq!(lowered(256, false).map(|plan| plan.connections), Ok(96));
        assert_eq!(lowered(256, true), Ok(Plan { connections: 48, links: 32, kept: 208 }));
        assert_eq!(lowered(20_000, true), Ok(Plan { connections: 18_000, links: 256, kept: 432 }));
        assert_eq!(lowered(176, false).map(|plan| plan.connections), Ok(16));
        let error = lowered(175, false).unwrap_err().to_string();
        assert!(error.starts_with("16 connections need 176 open files"), "{error}");
        assert!(error.ends_with("LimitNOFILE=176 of a unit)"), "{error}");
    }

    #[test]
    fn no_numbers_overflow() {
        assert!(Plan::new(&config(usize::MAX, true), usize::MAX, 0, Excess::Refuse).is_err());
        assert!(Plan::new(&config(usize::MAX, true), 256, usize::MAX, Excess::Refuse).is_err());
        Shortage { connections: usize::MAX, kept: 1, limit: 0 }.to_string();
    }

    #[test]
    #[cfg(not(madsim))]
    fn this_process_has_descriptors() {
        let before = open().unwrap();
        let files: Vec<_> = (0..10).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        assert!(open().unwrap() >= files.len() && before > 2);
        assert!(limit().unwrap() > files.len() && !are_scarce());
    }
}
