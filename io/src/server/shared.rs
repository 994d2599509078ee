//! Data that the tasks of a server share: a shard, with its driver and writer.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use skirmish_core::id::ConnId;
use skirmish_core::node::Node;
use skirmish_core::rng::Rng;
use skirmish_core::time::{LATE, Now};
use tokio::sync::Notify;

use super::application::ApplicationMessage;
use super::audit::Audit;
use super::shard::{LinkDial, Shard};
use crate::clock::Clock;
use crate::config;
use crate::log_queue::LogQueue;
use crate::registry::NodeRegistry;
use crate::rounds::{before, rounds};

/// Maximum number of times that the driver reads all input again because time passed while it read.
const READINGS: usize = 3;

/// A shard that tasks share. All of them run on one thread, so no task ever waits for the lock. The
/// lock is never held over an await.
#[derive(Debug)]
pub(super) struct SharedShard {
    clock: Clock,
    shard: Mutex<Shard>,
    /// Notified when the driver's deadline has become earlier.
    rearm: Notify,
    /// Notified when the last connection is gone.
    idle: Notify,
    /// Notified when the node wants to dial another node.
    dial: Notify,
    /// Notified when the registry has answered every request.
    answered: Notify,
}

impl SharedShard {
    /// Creates the shared shard, with the limits of the log, and the log's queue if there is one.
    pub(super) fn new(
        node: Node,
        registry: NodeRegistry,
        clock: Clock,
        rng: Rng,
        (limits, log): (&config::LogConfig, Option<LogQueue>),
    ) -> Self {
        let now = clock.now();
        let (per_address, total) = (limits.audit_per_address.into(), limits.audit_total.into());
        let audit = Audit::new(per_address, total, now.instant);
        let shard = Shard::new(node, registry, rng, now, (audit, log));
        Self {
            clock,
            shard: Mutex::new(shard),
            rearm: Notify::new(),
            idle: Notify::new(),
            dial: Notify::new(),
            answered: Notify::new(),
        }
    }

    /// Gives the node one input, and executes the resulting outputs. Application messages are
    /// appended to `mail`: their handlers are called after the lock is released.
    pub(super) fn input<R>(
        &self,
        mail: &mut Vec<ApplicationMessage>,
        f: impl FnOnce(&mut Shard, Now) -> R,
    ) -> R {
        let now = self.clock.now();
        let mut shard = self.lock();
        let result = f(&mut shard, now);
        if shard.settle(now) {
            self.rearm.notify_one();
        }
        self.announce(&shard);
        mail.append(&mut shard.mail);
        result
    }

    /// [`Self::input`] for inputs that cause no application message.
    pub(super) fn command<R>(&self, f: impl FnOnce(&mut Shard, Now) -> R) -> R {
        self.input(&mut Vec::new(), f)
    }

    /// Gives `f` the shard to take frames that the node transmits. Unlike an input, this changes no
    /// deadline, unless the node also has an output for the shell.
    pub(super) fn pull<R>(&self, f: impl FnOnce(&mut Shard, Now) -> R) -> R {
        let now = self.clock.now();
        let mut shard = self.lock();
        let result = f(&mut shard, now);
        if let Some(output) = shard.node.poll_output() {
            shard.carry_out(now, output);
            if shard.settle(now) {
                self.rearm.notify_one();
            }
            self.announce(&shard);
        }
        result
    }

    /// Sends the node's frames to the connections, for as long as the future is polled.
    ///
    /// Everything that one poll of the sockets has found is read before anything is sent, up to the
    /// budget of each connection. The first task that reads wakes the writer, and all tasks with
    /// input are queued before the writer. So each connection is flushed once for all messages that
    /// were read.
    pub(super) async fn write(&self) {
        poll_fn(|cx| {
            let more = self.pull(|shard, now| shard.write(now, cx));
            if more {
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        })
        .await
    }

    /// Locks the shard.
    pub(super) fn lock(&self) -> MutexGuard<'_, Shard> {
        self.shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Reports that a connection's task has ended.
    pub(super) fn closed(&self, conn: ConnId) {
        let none_left = self.command(|shard, now| {
            shard.closed(now, conn);
            shard.node.stats().connections == 0
        });
        if none_left {
            self.idle.notify_one();
        }
    }

    /// Waits until the last connection is gone.
    pub(super) async fn idle(&self) {
        while self.lock().node.stats().connections > 0 {
            self.idle.notified().await;
        }
    }

    /// Returns the next node to dial.
    pub(super) async fn next_dial(&self) -> LinkDial {
        loop {
            if let Some(dial) = self.lock().dials.pop_front() {
                return dial;
            }
            self.dial.notified().await;
        }
    }

    /// Waits until the registry has an event.
    async fn registry_ready(&self) {
        // A new future for each poll, since the lock is not held between polls. The registry
        // remembers the waker.
        poll_fn(|cx| pin!(self.lock().registry.ready()).poll(cx)).await;
    }

    /// Waits until the registry has answered every request.
    pub(super) async fn answered(&self) {
        while self.lock().asked > 0 {
            self.answered.notified().await;
        }
    }

    /// Wakes the tasks of the shell that have new work.
    fn announce(&self, shard: &Shard) {
        if !shard.dials.is_empty() {
            self.dial.notify_one();
        }
        if shard.asked == 0 {
            self.answered.notify_one();
        }
    }

    /// Ends the task of every connection and link.
    pub(super) fn abandon(&self) {
        self.lock().abandon();
    }

    /// Returns the current time after everything that had arrived by then was given to the node.
    /// Deadlines up to this time may be judged.
    async fn time_after_input(&self) -> Now {
        let mut now = self.clock.now();
        for _ in 0..READINGS {
            let due = {
                let shard = self.lock();
                // An earlier deadline was handled by the last run.
                shard.due().map(|due| due.max(shard.driven)).map(|due| (due, shard.sockets()))
            };
            let Some((due, sockets)) = due.filter(|(due, _)| *due <= now.instant) else { break };
            rounds(before(due, now.instant, sockets)).await;
            let after = self.clock.now();
            if after.instant.since(now.instant) <= LATE {
                break;
            }
            now = after;
        }
        now
    }

    /// Calls the node's timeouts for as long as the future is polled. Has the only timer of the
    /// shard.
    pub(super) async fn drive(&self) {
        loop {
            let now = self.time_after_input().await;
            let deadline = {
                let mut shard = self.lock();
                shard.drive(now.instant);
                // Events of the registry are input, too.
                shard.settle(self.clock.now());
                // The clock decides, not the timer that woke this task.
                if shard.node.poll_timeout().is_some_and(|deadline| deadline.at <= now.instant) {
                    shard.node.handle_timeout(now);
                }
                shard.settle(self.clock.now());
                // After the node: the node may just renew a lease that would end now.
                shard.registry.handle_timeout(now.instant);
                shard.settle(self.clock.now());
                super::checks::pulse(&mut shard, now.instant);
                self.announce(&shard);
                let deadline = shard.due();
                // The driver also runs without a deadline, so that a stalled event loop shows.
                let pulse = now.instant + super::DRIVER_PULSE;
                let deadline = deadline.map_or(pulse, |at| at.min(pulse));
                shard.armed = Some(deadline);
                deadline
            };
            // A deadline that is due again at once must not starve the connections.
            tokio::task::yield_now().await;
            tokio::select! {
                biased;
                () = self.rearm.notified() => {}
                () = self.registry_ready() => {}
                () = tokio::time::sleep_until(self.clock.deadline(deadline)) => {}
            }
        }
    }
}
