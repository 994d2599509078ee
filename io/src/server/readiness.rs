//! Reasons for which a node is not ready for players, each with the time of its beginning.
//!
//! [`checks`](super::checks) finds the reasons that hold, at the driver's pulse and at each
//! request. [`Readiness`] keeps them, and reports each line of the log that is due.

use std::borrow::Cow;
use std::fmt;

use skirmish_core::time::{Duration, Instant};

/// Time after which a reason that no longer holds counts as ended and is logged so. A reason that
/// returns sooner is still the same trouble and adds no line.
const SETTLED: Duration = Duration::from_secs(5);
/// Longest detail of a reason, in characters. The rest is left out.
const LONGEST_DETAIL: usize = 300;

/// A reason for which a node is not ready. Ordered by gravity, the gravest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Reason {
    /// The node will stop soon.
    Draining,
    /// Another deployment uses the same registry.
    RegistryShared,
    /// The registry was restored, wiped or replaced, and the node starts afresh.
    RegistryReplaced,
    /// The registry has no space left and refuses writes.
    RegistryFull,
    /// The registry refuses the node's user, or refuses the keys that the node reads or writes.
    RegistryDenied,
    /// The data of the registry is corrupt, and the registry refuses everything.
    RegistryCorrupt,
    /// The registry can be reached and refuses writes, for another reason.
    RegistryRefuses,
    /// The registry does not confirm that the node lives.
    RegistrySilent,
    /// The node's wall clock is off.
    ClockOff,
    /// The node has not yet compared its wall clock with those of the others.
    ClockUnknown,
    /// More than half of the other nodes cannot be reached.
    LinksDead,
    /// The event loop stands still, or did so in the last seconds.
    DriverLate,
    /// Hardly any file or connection can be opened.
    OutOfFiles,
    /// Log lines are dropped, or will be soon.
    LogLost,
    /// A warning: some other node cannot be reached.
    PeerUnreachable,
}

impl Reason {
    /// All reasons, the gravest first.
    pub const ALL: [Self; 15] = [
        Self::Draining,
        Self::RegistryShared,
        Self::RegistryReplaced,
        Self::RegistryFull,
        Self::RegistryDenied,
        Self::RegistryCorrupt,
        Self::RegistryRefuses,
        Self::RegistrySilent,
        Self::ClockOff,
        Self::ClockUnknown,
        Self::LinksDead,
        Self::DriverLate,
        Self::OutOfFiles,
        Self::LogLost,
        Self::PeerUnreachable,
    ];

    /// Returns the name of the reason in metrics and in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::RegistryShared => "registry_shared",
            Self::RegistryReplaced => "registry_replaced",
            Self::RegistryFull => "registry_full",
            Self::RegistryDenied => "registry_denied",
            Self::RegistryCorrupt => "registry_corrupt",
            Self::RegistryRefuses => "registry_refuses",
            Self::RegistrySilent => "registry_silent",
            Self::ClockOff => "clock_off",
            Self::ClockUnknown => "clock_unknown",
            Self::LinksDead => "links_dead",
            Self::DriverLate => "driver_late",
            Self::OutOfFiles => "out_of_files",
            Self::LogLost => "log_lost",
            Self::PeerUnreachable => "peer_unreachable",
        }
    }

    /// Describes the problem.
    const fn problem(self) -> &'static str {
        match self {
            Self::Draining => "draining: this node is about to stop",
            Self::RegistryShared => {
                "another deployment, with other token keys, uses this etcd and prefix, and was there first"
            }
            Self::RegistryReplaced => {
                "the registry was restored, wiped or replaced, all sessions and rooms are over"
            }
            Self::RegistryFull => "the registry has no space left, players cannot log in",
            Self::RegistryDenied => "the registry denies this node access, players cannot log in",
            Self::RegistryCorrupt => "the data of the registry is corrupt, players cannot log in",
            Self::RegistryRefuses => "the registry takes no writes, players cannot log in",
            Self::RegistrySilent => "the registry does not confirm that this node lives",
            Self::ClockOff => "the wall clock is off, nobody is let in",
            Self::ClockUnknown => "the wall clock was not compared with those of all other nodes yet",
            Self::LinksDead => "most other nodes cannot be reached, players here and there cannot meet",
            Self::DriverLate => "the event loop stands still for too long",
            Self::OutOfFiles => "out of files: hardly any connection can be opened",
            Self::LogLost => "log lines are lost",
            Self::PeerUnreachable => "another node cannot be reached",
        }
    }

    /// Describes the action that ends the problem.
    const fn remedy(self) -> &'static str {
        match self {
            Self::Draining => "send players to other nodes",
            Self::RegistryShared => {
                "set registry.prefix to one of this deployment's own at all its nodes; if it is meant to be the same deployment, give this node a key of auth.keys that the others have"
            }
            Self::RegistryReplaced => {
                "wait: the node serves again by itself within twice cluster.node_ttl; if nobody did this on purpose, check etcd's data and registry.etcd.endpoints"
            }
            Self::RegistryFull => {
                "make room in etcd: `etcdctl compact --physical REVISION`, with the revision that `etcdctl endpoint status --write-out=json` shows, `etcdctl defrag` at each member, then `etcdctl alarm disarm`; if it fills up again, start its members with --auto-compaction-mode=periodic --auto-compaction-retention=10m, and with a larger --quota-backend-bytes"
            }
            Self::RegistryDenied => {
                "give the node's user its rights: `etcdctl role grant-permission ROLE readwrite --prefix=true PREFIX/`, with registry.prefix for PREFIX; check registry.etcd.user, registry.etcd.password_file and, with `etcdctl auth status`, that etcd checks users if one is set"
            }
            Self::RegistryCorrupt => {
                "find the member by `etcdctl alarm list`, remove it (`etcdctl member remove`), add it again without data (`etcdctl member add`), then `etcdctl alarm disarm`; or restore etcd from a snapshot"
            }
            Self::RegistryRefuses => {
                "check etcd's log and disk, that a majority of its members runs, and `etcdctl endpoint status --cluster`"
            }
            Self::RegistrySilent => {
                "check that etcd runs, has a leader, and can be reached at registry.etcd.endpoints"
            }
            Self::ClockOff => {
                "synchronize the clocks of all nodes (chrony, ntpd, systemd-timesyncd; `chronyc tracking` or `timedatectl` shows how they stand): they may differ by rooms.clock_bound; the node serves again by itself"
            }
            Self::ClockUnknown => {
                "wait: nodes that do not answer are left out after cluster.node_ttl, at most 10 s; if it lasts, check the links between nodes"
            }
            Self::OutOfFiles => {
                "raise the limit on open files (ulimit -n, LimitNOFILE; `prlimit --nofile` for a running server)"
            }
            Self::LogLost => {
                "make room where standard error goes, let its reader keep up, or raise log.level (players are served)"
            }
            Self::LinksDead | Self::PeerUnreachable => {
                "check cluster.link.address, cluster.link.advertise and cluster.tls of both nodes, and firewalls between them"
            }
            Self::DriverLate => {
                "give the node more CPU, or move what blocks its thread (a handler, a paused machine) elsewhere"
            }
        }
    }

    /// Minimum duration of the reason before the log reports it: trouble that passes by itself is
    /// not logged. `/readyz` does not wait.
    const fn patience(self) -> Duration {
        match self {
            // A node that starts has no answer yet.
            Self::RegistrySilent | Self::ClockUnknown => Duration::from_secs(2),
            Self::Draining
            | Self::RegistryShared
            | Self::RegistryReplaced
            | Self::RegistryFull
            | Self::RegistryDenied
            | Self::RegistryCorrupt
            | Self::RegistryRefuses
            | Self::ClockOff
            | Self::LinksDead
            | Self::DriverLate
            | Self::OutOfFiles
            | Self::LogLost
            | Self::PeerUnreachable => Duration::ZERO,
        }
    }

    /// Returns true if the node is ready in spite of this reason.
    #[must_use]
    pub const fn is_warning(self) -> bool {
        matches!(self, Self::PeerUnreachable)
    }

    /// Returns true if an operator has to act.
    pub(super) const fn is_fault(self) -> bool {
        !matches!(self, Self::Draining)
    }
}

/// A reason that holds. Displayed as one line: the problem, its detail, and the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The reason.
    pub reason: Reason,
    /// Details of this case. May be empty.
    pub detail: Cow<'static, str>,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.problem())?;
        if !self.detail.is_empty() {
            f.write_str(": ")?;
            // The detail may quote text of other programs.
            let shown = self.detail.chars().map(|c| if c.is_control() { ' ' } else { c });
            shown.take(LONGEST_DETAIL).try_for_each(|c| fmt::Write::write_char(f, c))?;
        }
        write!(f, "; {}", self.reason.remedy())
    }
}

/// The causes that keep a server from being ready: at least one, the gravest first. Displayed as
/// one line for each cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotReady(Vec<Cause>);

impl NotReady {
    /// Returns the causes, the gravest first.
    #[must_use]
    pub fn causes(&self) -> &[Cause] {
        &self.0
    }
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, cause) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            cause.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for NotReady {}

/// A log line that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ReadinessChange {
    /// A reason holds.
    Began(Cause),
    /// A reason does not hold any more.
    Ended {
        reason: Reason,
        /// Time from the first beginning to the last end.
        lasted: Duration,
        /// Number of beginnings in that time.
        times: u32,
    },
}

/// State of one reason.
#[derive(Clone, Debug, Default)]
struct ReasonState {
    /// Beginning of the reason, if it holds.
    since: Option<Instant>,
    detail: Cow<'static, str>,
    /// Last end of the reason.
    ended: Instant,
    /// After the log has reported the reason: its first beginning, and the number of beginnings
    /// since.
    told: Option<(Instant, u32)>,
}

/// State of every reason.
#[derive(Debug, Default)]
pub(super) struct Readiness([ReasonState; Reason::ALL.len()]);

impl Readiness {
    /// Sets the state of a reason: `None` if the reason does not hold, else its detail, which may
    /// be empty. Called again and again; a call without a change costs nothing.
    pub(super) fn set(&mut self, now: Instant, reason: Reason, holds: Option<Cow<'static, str>>) {
        let Some(state) = self.0.get_mut(reason as usize) else { return };
        match (holds, state.since) {
            (Some(detail), since) => {
                state.detail = detail;
                if since.is_none() {
                    state.since = Some(now);
                    if let Some((_, times)) = &mut state.told {
                        *times = times.saturating_add(1);
                    }
                }
            }
            (None, Some(_)) => {
                state.since = None;
                state.detail = Cow::Borrowed("");
                state.ended = now;
            }
            (None, None) => {}
        }
    }

    /// Returns the time since which a reason holds, or `None` if it does not hold.
    #[cfg_attr(madsim, allow(dead_code, reason = "the admin listener is not simulated"))]
    pub(super) fn since(&self, reason: Reason) -> Option<Instant> {
        self.0.get(reason as usize)?.since
    }

    /// Returns `Ok` if no reason keeps the node from being ready.
    ///
    /// # Errors
    /// The causes that do.
    pub(super) fn verdict(&self) -> Result<(), NotReady> {
        let causes: Vec<Cause> = self.causes().filter(|cause| !cause.reason.is_warning()).collect();
        if causes.is_empty() { Ok(()) } else { Err(NotReady(causes)) }
    }

    /// Returns the causes that hold and do not keep the node from being ready.
    #[cfg_attr(madsim, allow(dead_code, reason = "the admin listener is not simulated"))]
    pub(super) fn warnings(&self) -> impl Iterator<Item = Cause> {
        self.causes().filter(|cause| cause.reason.is_warning())
    }

    fn causes(&self) -> impl Iterator<Item = Cause> {
        let holds = |(reason, state): (Reason, &ReasonState)| state.since.map(|_| state.cause(reason));
        Reason::ALL.into_iter().zip(&self.0).filter_map(holds)
    }

    /// Returns a log line that is due. Call until `None`.
    pub(super) fn poll_change(&mut self, now: Instant) -> Option<ReadinessChange> {
        let mut reasons = Reason::ALL.into_iter().zip(&mut self.0);
        reasons.find_map(|(reason, state)| state.poll_change(now, reason))
    }
}

impl ReasonState {
    fn cause(&self, reason: Reason) -> Cause {
        Cause { reason, detail: self.detail.clone() }
    }

    fn poll_change(&mut self, now: Instant, reason: Reason) -> Option<ReadinessChange> {
        match (self.since, self.told) {
            (Some(since), None) if now.since(since) >= reason.patience() => {
                self.told = Some((since, 1));
                Some(ReadinessChange::Began(self.cause(reason)))
            }
            (None, Some((began, times))) if now.since(self.ended) >= SETTLED => {
                self.told = None;
                Some(ReadinessChange::Ended { reason, lasted: self.ended.since(began), times })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: u64 = 1_000;

    fn at(millis: u64) -> Instant {
        Instant::from_micros(millis * MILLI)
    }

    fn changes(readiness: &mut Readiness, now: Instant) -> Vec<ReadinessChange> {
        std::iter::from_fn(|| readiness.poll_change(now)).collect()
    }

    #[test]
    fn the_order_is_that_of_all_and_names_are_unique() {
        assert!(Reason::ALL.is_sorted());
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
            let same = Reason::ALL.iter().filter(|other| other.name() == reason.name()).count();
            assert_eq!(same, 1, "{reason:?}");
        }
    }

    #[test]
    fn what_holds_is_listed_the_gravest_first_one_a_line() {
        let mut readiness = Readiness::default();
        assert_eq!(readiness.verdict(), Ok(()));
        readiness.set(at(1), Reason::DriverLate, Some("3.2 s\nand a line".into()));
        readiness.set(at(2), Reason::Draining, Some("".into()));
        let why = readiness.verdict().unwrap_err();
        let text = why.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!(lines[0], "draining: this node is about to stop; send players to other nodes");
        assert!(lines[1].contains("too long: 3.2 s and a line; give"), "{text}");
        assert_eq!(readiness.since(Reason::DriverLate), Some(at(1)));
        readiness.set(at(3), Reason::Draining, None);
        readiness.set(at(3), Reason::DriverLate, None);
        assert_eq!(readiness.verdict(), Ok(()));
        assert_eq!(readiness.since(Reason::DriverLate), None);
    }

    #[test]
    fn a_warning_does_not_keep_the_node_from_being_ready() {
        let mut readiness = Readiness::default();
        readiness.set(at(1), Reason::PeerUnreachable, Some("node b".into()));
        assert_eq!(readiness.verdict(), Ok(()));
        let warnings: Vec<String> = readiness.warnings().map(|cause| cause.to_string()).collect();
        assert!(
            matches!(&warnings[..], [one] if one.contains("cannot be reached: node b; check")),
            "{warnings:?}"
        );
        assert_eq!(changes(&mut readiness, at(1)).len(), 1);
        readiness.set(at(2), Reason::LinksDead, Some("".into()));
        assert_eq!(readiness.verdict().unwrap_err().causes().len(), 1);
    }

    #[test]
    fn every_reason_says_what_to_do_and_is_bounded() {
        for reason in Reason::ALL {
            let line = Cause { reason, detail: "x".repeat(10_000).into() }.to_string();
            assert!(line.ends_with(&format!("; {}", reason.remedy())), "{line}");
            assert!(line.len() < 1_000, "{line}");
        }
    }

    #[test]
    fn beginning_and_end_are_told_once_with_how_long_it_lasted() {
        let mut readiness = Readiness::default();
        for tick in 0..20 {
            readiness.set(at(tick * 500), Reason::DriverLate, Some("".into()));
            let told = changes(&mut readiness, at(tick * 500));
            assert_eq!(told.len(), usize::from(tick == 0), "{tick}: {told:?}");
        }
        readiness.set(at(10_000), Reason::DriverLate, None);
        assert_eq!(changes(&mut readiness, at(10_000)), []);
        let ended =
            ReadinessChange::Ended { reason: Reason::DriverLate, lasted: Duration::from_secs(10), times: 1 };
        assert_eq!(changes(&mut readiness, at(15_000)), [ended]);
        assert_eq!(changes(&mut readiness, at(60_000)), []);
    }

    #[test]
    fn a_reason_that_comes_and_goes_does_not_flood_the_log() {
        let mut readiness = Readiness::default();
        let mut told = Vec::new();
        for tick in 0..600 {
            let holds = tick % 2 == 0;
            readiness.set(at(tick * 1_000), Reason::DriverLate, holds.then(|| "".into()));
            assert_eq!(readiness.verdict().is_err(), holds, "what is answered does not wait");
            told.extend(changes(&mut readiness, at(tick * 1_000)));
        }
        assert_eq!(told.len(), 1, "{told:?}");
        let last = changes(&mut readiness, at(700_000));
        let ended = ReadinessChange::Ended {
            reason: Reason::DriverLate,
            lasted: Duration::from_secs(599),
            times: 300,
        };
        assert_eq!(last, [ended]);
    }

    #[test]
    fn a_registry_that_answers_soon_after_the_start_is_no_news() {
        let mut readiness = Readiness::default();
        readiness.set(at(0), Reason::RegistrySilent, Some("".into()));
        assert_eq!(changes(&mut readiness, at(1_999)), []);
        readiness.set(at(1_999), Reason::RegistrySilent, None);
        assert_eq!(changes(&mut readiness, at(100_000)), []);
        readiness.set(at(100_000), Reason::RegistrySilent, Some("".into()));
        assert_eq!(changes(&mut readiness, at(102_000)).len(), 1);
    }
}
