//! What the tasks of a server have in common: a shard, and its driver and writer.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use skirmish_core::id::{ConnId, NodeId};
use skirmish_core::node::Node;
use skirmish_core::rng::Rng;
use skirmish_core::time::{LATE, Now};
use tokio::sync::Notify;

use super::application::ApplicationMessage;
use super::audit::Audit;
use super::shard::Shard;
use crate::clock::Clock;
use crate::config;
use crate::log_queue::LogQueue;
use crate::registry::NodeRegistry;
use crate::turns::{before, turns};

/// How often the driver begins anew to read what is there because it stood still meanwhile.
const READINGS: usize = 3;

/// A shard that tasks share. All of them run on one thread, so the lock is never waited
/// for; it is never held over an await.
#[derive(Debug)]
pub(super) struct SharedShard {
    clock: Clock,
    shard: Mutex<Shard>,
    /// The driver's deadline became earlier.
    rearm: Notify,
    /// The last connection is gone.
    idle: Notify,
    /// The node wants another node dialed.
    dial: Notify,
    /// The registry has answered everything.
    answered: Notify,
}

impl SharedShard {
    /// A shard with the limits of the log, and the log's queue if it has one.
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

    /// Gives the node one input, and carries out what it answers. Application messages
    /// go to `mail`, to be handled after the lock is free again.
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

    /// [`Self::input`] for inputs that no application message can come from.
    pub(super) fn command<R>(&self, f: impl FnOnce(&mut Shard, Now) -> R) -> R {
        self.input(&mut Vec::new(), f)
    }

    /// Takes what the node has to transmit. Unlike an input this changes no deadline, unless
    /// it leaves the shell something to do.
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

    /// Sends to connections what the node has for them, for as long as it is polled.
    ///
    /// What one look at the sockets has brought is read before anything is sent, up to the
    /// budget of each connection: the tasks that have something to read queue before the
    /// writer, which is woken by the first of them. So a connection is flushed once for all
    /// that came.
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

    /// Looks at the shard.
    pub(super) fn lock(&self) -> MutexGuard<'_, Shard> {
        self.shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// A connection's task is done.
    pub(super) fn closed(&self, conn: ConnId) {
        let none_left = self.command(|shard, now| {
            shard.closed(now, conn);
            shard.node.stats().connections == 0
        });
        if none_left {
            self.idle.notify_one();
        }
    }

    /// Waits until there is no connection.
    pub(super) async fn idle(&self) {
        while self.lock().node.stats().connections > 0 {
            self.idle.notified().await;
        }
    }

    /// The next node to dial, and where.
    pub(super) async fn next_dial(&self) -> (NodeId, String) {
        loop {
            if let Some(dial) = self.lock().dials.pop_front() {
                return dial;
            }
            self.dial.notified().await;
        }
    }

    /// Waits until the registry has something to tell.
    async fn told(&self) {
        // A future for each look, since the lock is not held between them. The registry
        // remembers the waker.
        poll_fn(|cx| pin!(self.lock().registry.ready()).poll(cx)).await;
    }

    /// Waits until the registry has answered everything.
    pub(super) async fn answered(&self) {
        while self.lock().asked > 0 {
            self.answered.notified().await;
        }
    }

    /// Wakes the tasks of the shell that the node has something for.
    fn announce(&self, shard: &Shard) {
        if !shard.dials.is_empty() {
            self.dial.notify_one();
        }
        if shard.asked == 0 {
            self.answered.notify_one();
        }
    }

    /// Has the task of every connection and link end.
    pub(super) fn abandon(&self) {
        self.lock().abandon();
    }

    /// The time, when all that had arrived by then was given to the node: deadlines up to it
    /// may be judged.
    async fn heard(&self) -> Now {
        let mut now = self.clock.now();
        for _ in 0..READINGS {
            let due = {
                let shard = self.lock();
                // A deadline of before was looked at then.
                shard.due().map(|due| due.max(shard.driven)).map(|due| (due, shard.sockets()))
            };
            let Some((due, sockets)) = due.filter(|(due, _)| *due <= now.instant) else { break };
            turns(before(due, now.instant, sockets)).await;
            let after = self.clock.now();
            if after.instant.since(now.instant) <= LATE {
                break;
            }
            now = after;
        }
        now
    }

    /// Calls the node's timeouts for as long as it is polled. The one timer of the
    /// shard.
    pub(super) async fn drive(&self) {
        loop {
            let now = self.heard().await;
            let deadline = {
                let mut shard = self.lock();
                shard.drive(now.instant);
                // What the registry has told is input, too.
                shard.settle(self.clock.now());
                // The clock decides, not the timer that woke this task.
                if shard.node.poll_timeout().is_some_and(|deadline| deadline.at <= now.instant) {
                    shard.node.handle_timeout(now);
                }
                shard.settle(self.clock.now());
                // After the node, which may just renew what would end now.
                shard.registry.handle_timeout(now.instant);
                shard.settle(self.clock.now());
                super::checks::pulse(&mut shard, now.instant);
                self.announce(&shard);
                let deadline = shard.due();
                // Also runs when there is nothing to do, so that its pulse can be felt.
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
                () = self.told() => {}
                () = tokio::time::sleep_until(self.clock.deadline(deadline)) => {}
            }
        }
    }
}
