//! Churn: players that connect, join, leave and close, over and over.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Context;

use hdrhistogram::Histogram;
use skirmish_core::time::{Duration, Instant, Now};
use skirmish_proto::v1::LeftReason;
use tokio::time::sleep;

use super::Error;
use super::interrupt::{TICK, WaitEnd, interruptible};
use super::process::{MonitoredServer, own_cpu};
use super::progress::Progress;
use super::report::{Report, Usage};
use super::stats::{histogram, record};
use super::swarm::Swarm;
use crate::client::{Act, App, DialError, Event, Machine};

/// Results of a churn.
pub(super) struct ChurnResults {
    /// Whole cycles that ended in the window.
    pub whole: u64,
    /// Failed cycles that ended in the window.
    pub failed: u64,
    /// Durations of the whole cycles.
    pub took: Histogram<u64>,
    /// The first error.
    pub trouble: Option<String>,
}

/// The results, and a switch for measuring.
struct ChurnTally {
    churned: ChurnResults,
    measuring: bool,
    ever: u64,
}

impl ChurnTally {
    fn add(&mut self, cycle: ChurnCycle, took: Duration) {
        self.ever += 1;
        if self.measuring && cycle.whole {
            self.churned.whole += 1;
            record(&mut self.churned.took, took);
        } else if self.measuring {
            self.churned.failed += 1;
        }
        if let Some(trouble) = cycle.trouble {
            self.churned.trouble.get_or_insert(trouble);
        }
    }
}

/// Runs a churn: `inflight` workers, each with one cycle after the other.
pub(super) async fn run(swarm: &Swarm) -> Result<Report, Error> {
    let options = &swarm.options;
    let churned = ChurnResults { whole: 0, failed: 0, took: histogram(), trouble: None };
    let tally = Arc::new(Mutex::new(ChurnTally { churned, measuring: false, ever: 0 }));
    let lock = || tally.lock().unwrap_or_else(PoisonError::into_inner);
    let progress = Progress::new(0);
    progress.stage("churn", (options.warmup + options.duration).as_secs());

    let mut usage = Usage::default();
    let work = async {
        let workers = (0..options.inflight).map(|worker| cycles(swarm, worker, &tally));
        futures_util::future::join_all(workers).await;
    };
    let measure = async {
        sleep(options.warmup).await;
        lock().measuring = true;
        let begin = swarm.clock.now().instant;
        let (cpu, own) = (swarm.watched.and_then(MonitoredServer::cpu), own_cpu());
        let waited = interruptible(&swarm.interruption, async {
            loop {
                let passed = swarm.clock.now().instant.since(begin);
                if passed >= options.duration {
                    return;
                }
                progress.show((options.warmup + passed).as_secs(), format!("s, {} cycles", lock().ever));
                sleep(TICK.min(options.duration - passed)).await;
            }
        })
        .await;
        lock().measuring = false;
        usage.measured = swarm.clock.now().instant.since(begin);
        usage.interrupted = waited == WaitEnd::Interrupted;
        usage.server_cpu = swarm
            .watched
            .and_then(MonitoredServer::cpu)
            .zip(cpu)
            .map(|(end, begin)| end.saturating_sub(begin));
        usage.bots_cpu = own_cpu().saturating_sub(own);
    };
    tokio::select! {
        biased;
        () = work => {}
        () = measure => {}
    }
    let tally = lock();
    if usage.measured.is_zero() {
        return Err(Error::Interrupted);
    }
    Ok(Report::of_churn(options, &tally.churned, &usage))
}

/// Runs one cycle after the other. Each worker has players of its own: two simultaneous cycles of
/// one player would take over each other's session.
async fn cycles(swarm: &Swarm, worker: u32, tally: &Mutex<ChurnTally>) {
    let options = &swarm.options;
    let own = (options.players / options.inflight).max(1);
    for count in 0_u64.. {
        let place = u32::try_from(count % u64::from(own)).unwrap_or_default();
        let player = place * options.inflight + worker;
        let mut rng = swarm.rng(count << 32 | u64::from(worker));
        let begin = swarm.clock.now().instant;
        let mut cycle = ChurnCycle::new(options.room(player), begin + options.patience);
        let mut driver = swarm.driver(player, &mut rng);
        let result = poll_fn(|cx| driver.poll(cx, &mut cycle)).await;
        let end = swarm.clock.now().instant;

        if let Err(error) = result {
            cycle.fail(error.to_string());
        }
        let whole = cycle.whole;
        tally.lock().unwrap_or_else(PoisonError::into_inner).add(cycle, end.since(begin));
        if !whole {
            // A server that refuses every player must not be hammered.
            sleep(TICK).await;
        }
    }
}

/// One cycle, from connect to close.
struct ChurnCycle {
    room: String,
    step: ChurnStep,
    /// Time at which the cycle is given up.
    until: Instant,
    /// True if the connection was made, and the room joined and left.
    whole: bool,
    /// The first error.
    trouble: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChurnStep {
    Join,
    AwaitJoined,
    Leave,
    AwaitLeft,
    Close,
    Closed,
}

impl ChurnCycle {
    const fn new(room: String, until: Instant) -> Self {
        Self { room, step: ChurnStep::Join, until, whole: false, trouble: None }
    }

    fn fail(&mut self, trouble: String) {
        self.trouble.get_or_insert(trouble);
        if self.step != ChurnStep::Closed {
            self.step = ChurnStep::Close;
        }
    }
}

impl App for ChurnCycle {
    fn event(&mut self, _now: Now, event: Event) {
        match event {
            Event::Joined { .. } if self.step == ChurnStep::AwaitJoined => self.step = ChurnStep::Leave,
            Event::Left { reason: LeftReason::Asked, .. } if self.step == ChurnStep::AwaitLeft => {
                self.whole = true;
                self.step = ChurnStep::Close;
            }
            Event::Left { reason, .. } if self.step != ChurnStep::Closed => self.fail(format!("{reason:?}")),
            Event::Closed { reason, message, .. } if self.step != ChurnStep::Closed => {
                self.fail(format!("connection closed: {reason:?} {message}"));
            }
            _ => {}
        }
    }

    fn poll_command(&mut self, _cx: &mut Context<'_>, now: Now, machine: &mut Machine) -> Act {
        if now.instant >= self.until {
            self.fail("a cycle took too long".to_owned());
        }
        let result = match self.step {
            ChurnStep::AwaitJoined | ChurnStep::AwaitLeft | ChurnStep::Closed => return Act::Nothing,
            ChurnStep::Join => {
                self.step = ChurnStep::AwaitJoined;
                machine.join(now, &self.room, 0)
            }
            ChurnStep::Leave => {
                self.step = ChurnStep::AwaitLeft;
                machine.leave(now, &self.room)
            }
            ChurnStep::Close => {
                self.step = ChurnStep::Closed;
                machine.disconnect(now);
                Ok(())
            }
        };
        if let Err(error) = result {
            self.fail(format!("{error:?}"));
        }
        Act::Commanded
    }

    fn deadline(&self) -> Option<Instant> {
        (self.step != ChurnStep::Closed).then_some(self.until)
    }

    fn dial_failed(&mut self, error: &DialError) {
        // A cycle is counted once, whole or not, without a second attempt.
        self.fail(error.to_string());
    }
}
