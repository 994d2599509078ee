//! Data of the operating system about a process: CPU time, memory, file descriptors.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::param::clock_ticks_per_second;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use skirmish_core::time::Duration;

use super::Error;

/// Descriptors besides the connections: runtime, terminal, files.
const SPARE: u64 = 64;

/// A server whose process is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MonitoredServer {
    /// Another process.
    Process(u32),
    /// This process without the calling thread, on which the bots run. The memory of server and
    /// bots cannot be separated.
    Rest,
}

impl MonitoredServer {
    /// Returns the CPU time so far, user and system; `None` if there is no such process.
    pub(super) fn cpu(self) -> Option<Duration> {
        match self {
            Self::Process(pid) => cpu(&process(pid).join("stat")),
            Self::Rest => Some(cpu(Path::new("/proc/self/stat"))?.saturating_sub(own_cpu())),
        }
    }

    /// Returns the resident memory in bytes, if it can be measured.
    pub(super) fn resident(self) -> Option<u64> {
        let Self::Process(pid) = self else { return None };
        let status = fs::read_to_string(process(pid).join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    }
}

/// Returns the CPU time of the calling thread.
pub(super) fn own_cpu() -> Duration {
    cpu(Path::new("/proc/thread-self/stat")).unwrap_or_default()
}

/// Raises the limit of file descriptors to the hard limit if `connections` need more than the
/// current one.
///
/// # Errors
/// If the hard limit is too low.
pub(super) fn reserve_descriptors(connections: u64) -> Result<(), Error> {
    let needed = connections + SPARE;
    let limit = getrlimit(Resource::Nofile);
    let allowed = |limit: Option<u64>| limit.is_none_or(|limit| limit >= needed);
    if allowed(limit.current) {
        return Ok(());
    }
    if allowed(limit.maximum) {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            return Ok(());
        }
    }
    Err(Error::Descriptors { needed, limit: limit.maximum.or(limit.current).unwrap_or(0) })
}

fn process(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}"))
}

/// Returns the sum of user and system time from a `stat` file.
fn cpu(stat: &Path) -> Option<Duration> {
    let ticks = ticks(&fs::read_to_string(stat).ok()?)?;
    let per_second = clock_ticks_per_second().max(1);
    Some(Duration::from_micros(ticks * (1_000_000 / per_second)))
}

/// Returns `utime + stime`: the 14th and 15th field. The second field is the name in parentheses,
/// which may have spaces and parentheses itself.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_read_behind_any_name() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194304 1 0 0 0 250 50 0 0 20 0 1 0 5 100 10";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("nonsense"), None);
    }

    #[test]
    fn this_process_can_be_read() {
        let own = MonitoredServer::Process(std::process::id());
        assert!(own.cpu().is_some());
        assert!(own.resident().is_some_and(|bytes| bytes > 0));
        assert_eq!(MonitoredServer::Rest.resident(), None);
    }

    #[test]
    fn too_many_descriptors_are_refused() {
        assert!(reserve_descriptors(1).is_ok());
        let limit = getrlimit(Resource::Nofile);
        if limit.maximum.is_some() {
            assert!(matches!(reserve_descriptors(u64::MAX / 2), Err(Error::Descriptors { .. })));
        }
    }
}
