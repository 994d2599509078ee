//! The backup's side of a pair: the room is installed, ops are stored, and the room is taken over.

use alloc::boxed::Box;
use alloc::vec::Vec;

use skirmish_proto::v1;

use super::common::Common;
use super::following::Following;
use super::{RoomContext, RoomEffect};
use crate::base::slab::Key;
use crate::base::time::{Duration, Instant};
use crate::registrar::Reign;
use crate::room::{Applied, OpStored};

/// Time after which a take-over is tried again that the registry did not answer.
const SWAP_PAUSE: Duration = Duration::from_millis(100);

/// Part of a follower in keeping the room alive.
#[derive(Clone, Debug, Default)]
pub(crate) enum Duty {
    /// The follower reads for its members only.
    #[default]
    Reader,
    /// The primary has asked the node to become the backup. The room is kept without members until then.
    Candidate { until: Instant },
    /// The node has the state of the room, and stores its ops.
    Backup(Box<Backup>),
}

/// State of a backup, beside the room, which has the ops.
#[derive(Clone, Debug)]
pub(crate) struct Backup {
    /// Revision of the record that names this node; 0 while no record is known to name it.
    record: u64,
    takeover: Takeover,
    /// Links of followers that have lost the primary, and wait for this node to lead.
    waiting: Vec<Key>,
}

/// Way of a backup to the lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takeover {
    /// The primary is not suspected.
    Idle,
    /// The registry is asked.
    Asked,
    /// The registry did not answer; it is asked again then.
    Again(Instant),
}

impl Duty {
    /// Ends the duty. Returns the links of the followers that wait for this node to lead.
    fn finish(self) -> Vec<Key> {
        match self {
            Self::Backup(backup) => backup.waiting,
            Self::Reader | Self::Candidate { .. } => Vec::new(),
        }
    }
}

impl Backup {
    fn new(waiting: Vec<Key>) -> Box<Self> {
        Box::new(Self { record: 0, takeover: Takeover::Idle, waiting })
    }
}

impl Following {
    // Getters.

    /// Returns true if the room is kept for the sake of other nodes.
    pub(super) const fn is_kept(&self) -> bool {
        !matches!(self.duty, Duty::Reader)
    }

    /// Returns true if the node has the state of the room, and stores its ops.
    pub(super) const fn is_backup(&self) -> bool {
        matches!(self.duty, Duty::Backup(_))
    }

    /// Returns true if the registry was asked to let this node lead.
    pub(super) fn is_taking_over(&self) -> bool {
        matches!(&self.duty, Duty::Backup(backup) if backup.takeover == Takeover::Asked)
    }

    /// Returns the time at which the duty has to be reviewed.
    pub(super) fn duty_deadline(&self) -> Option<Instant> {
        match &self.duty {
            Duty::Reader => None,
            Duty::Candidate { until } => Some(*until),
            Duty::Backup(backup) => match backup.takeover {
                Takeover::Idle | Takeover::Asked => None,
                Takeover::Again(at) => Some(at),
            },
        }
    }

    /// Returns true if the room is read over a link, which needs no reader.
    pub(super) fn reads(&self, link: Key) -> bool {
        let waits = |duty: &Duty| matches!(duty, Duty::Backup(backup) if backup.waiting.contains(&link));
        self.link == Some(link) || waits(&self.duty)
    }

    /// Number of links of followers that wait.
    pub(super) fn waiting(&self) -> usize {
        match &self.duty {
            Duty::Backup(backup) => backup.waiting.len(),
            Duty::Reader | Duty::Candidate { .. } => 0,
        }
    }

    // Inputs.

    /// Keeps the room, as the primary asks for.
    pub(super) fn recruited(&mut self, cx: &mut RoomContext<'_>) {
        if matches!(self.duty, Duty::Reader) {
            let until = cx.now.instant + cx.config.replication.backup_patience * 2;
            self.duty = Duty::Candidate { until };
        }
    }

    /// Keeps the room for longer: the primary goes on with sending it.
    pub(super) fn stay_candidate(&mut self, cx: &RoomContext<'_>) {
        if let Duty::Candidate { until } = &mut self.duty {
            *until = cx.now.instant + cx.config.replication.backup_patience * 2;
        }
    }

    /// Takes the state of the room, behind the entries that the primary has sent.
    pub(super) fn install(
        &mut self,
        common: &mut Common,
        cx: &mut RoomContext<'_>,
        link: Key,
        install: v1::Install,
    ) {
        let (number, term) = (install.applied, install.term);
        let is_whole = common.room.log().head() == install.seq && self.way() == Some(link);
        if is_whole && common.room.install(cx.now, install).is_ok() {
            self.term = term;
            self.duty = Duty::Backup(Backup::new(core::mem::take(&mut self.duty).finish()));
            self.tell_stored(common, cx, link, number, false);
        } else {
            self.tell_stored(common, cx, link, number, true);
        }
    }

    fn tell_stored(&self, common: &Common, cx: &mut RoomContext<'_>, link: Key, number: u64, refused: bool) {
        let (room, epoch) = (common.room.name().as_str().into(), common.room.epoch());
        let stored = v1::Stored { room, epoch, term: self.term, number, refused };
        common.tell_plain(cx, link, v1::Kind::Stored, &stored);
    }

    /// Stores ops, and applies those that the primary has released.
    pub(super) fn replicate(
        &mut self,
        common: &mut Common,
        cx: &mut RoomContext<'_>,
        link: Key,
        replicate: v1::Replicate,
    ) {
        let v1::Replicate { term, ops, released, digest, record, .. } = replicate;
        let Duty::Backup(backup) = &mut self.duty else { return };
        if term != self.term {
            return;
        }
        backup.record = backup.record.max(record);
        let newest = ops.last().map(|op| op.number);
        for op in ops {
            if !matches!(common.room.store(op), Ok(OpStored::Stored | OpStored::Applied)) {
                return self.refuse(common, cx, link);
            }
        }
        if let Some(newest) = newest {
            self.tell_stored(common, cx, link, newest, false);
        }
        self.apply(common, cx, released);
        let applied = common.room.applied_op();
        if digest != 0 && applied.number == released && applied.digest != digest {
            self.refuse(common, cx, link);
        }
    }

    /// Gives the duty up: the state of the room differs from that of the primary. The tail is read again.
    fn refuse(&mut self, common: &mut Common, cx: &mut RoomContext<'_>, link: Key) {
        cx.effects.counts.backups_diverged += 1;
        let number = common.room.appended();
        self.tell_stored(common, cx, link, number, true);
        self.resign(common, cx);
        self.ask_afresh(common, cx, link);
    }

    /// Ends the duty. Followers that wait for this node to lead go on with their primary.
    pub(super) fn resign(&mut self, common: &mut Common, cx: &mut RoomContext<'_>) {
        self.give_up_taking_over(common, cx);
        let duty = core::mem::take(&mut self.duty);
        if matches!(duty, Duty::Backup(_)) {
            common.room.end_backup();
        }
        for link in duty.finish() {
            self.unread(common, cx, link);
        }
    }

    /// Applies ops up to a number.
    fn apply(&mut self, common: &mut Common, cx: &mut RoomContext<'_>, released: u64) {
        let before = common.room.applied();
        while common.room.applied() < released
            && let Some(applied) = common.room.commit_next(cx.now, cx.zstd)
        {
            if let Applied::Left { number, .. } = applied {
                // The member did not ask to leave: its player has joined with a newer session.
                Self::expel_member(common, cx, number, v1::LeftReason::Gone);
            }
        }
        if common.room.applied() > before {
            common.release(cx);
            Self::activate(common, cx);
        }
    }

    // The take-over.

    /// Suspects the primary: asks the registry to let this node lead.
    pub(super) fn suspect(&mut self, common: &Common, cx: &mut RoomContext<'_>) {
        let Duty::Backup(backup) = &mut self.duty else { return };
        if backup.takeover == Takeover::Asked {
            return;
        }
        backup.takeover = Takeover::Asked;
        let effect = RoomEffect::Swap { term: self.term, primary: self.primary, record: backup.record };
        common.emit(cx, effect);
    }

    /// Trusts the primary again, which has answered.
    pub(super) fn trust(&mut self) {
        if let Duty::Backup(backup) = &mut self.duty
            && let Takeover::Again(_) = backup.takeover
        {
            backup.takeover = Takeover::Idle;
        }
    }

    /// Gives up a take-over without an answer. Otherwise it would succeed once the record names this node again.
    pub(super) fn give_up_taking_over(&self, common: &Common, cx: &mut RoomContext<'_>) {
        if self.is_taking_over() {
            common.emit(cx, RoomEffect::Release);
        }
    }

    /// Has the take-over tried again later: the registry did not answer.
    pub(super) fn take_over_later(&mut self, cx: &mut RoomContext<'_>) {
        if let Duty::Backup(backup) = &mut self.duty {
            backup.takeover = if self.link.is_some() {
                Takeover::Idle
            } else {
                Takeover::Again(cx.now.instant + SWAP_PAUSE)
            };
        }
    }

    /// Reviews the duty at its deadline.
    pub(super) fn review_duty(&mut self, common: &mut Common, cx: &mut RoomContext<'_>) {
        let now = cx.now.instant;
        if self.duty_deadline().is_none_or(|at| at > now) {
            return;
        }
        match &self.duty {
            Duty::Reader => {}
            Duty::Candidate { .. } => self.duty = Duty::Reader,
            Duty::Backup(_) => self.suspect(common, cx),
        }
    }

    /// Keeps the link of a follower that has lost the primary, until this node leads. Returns false if
    /// this node is no backup.
    pub(super) fn keep_waiting(&mut self, common: &Common, cx: &mut RoomContext<'_>, link: Key) -> bool {
        let Duty::Backup(backup) = &mut self.duty else { return false };
        if !backup.waiting.contains(&link) {
            backup.waiting.push(link);
            common.emit(cx, RoomEffect::Read { link });
        }
        true
    }

    /// Forgets the link of a follower that waits.
    pub(super) fn forget_waiting(&mut self, common: &Common, cx: &mut RoomContext<'_>, link: Key) {
        if let Duty::Backup(backup) = &mut self.duty {
            backup.waiting.retain(|waiting| *waiting != link);
            self.unread(common, cx, link);
        }
    }

    /// Ends the reading over a link, unless the room is still read over it.
    pub(super) fn unread(&self, common: &Common, cx: &mut RoomContext<'_>, link: Key) {
        if !self.reads(link) {
            common.emit(cx, RoomEffect::Unread { link });
        }
    }

    /// Ends the role for the lead. Returns the links of the followers that wait for it.
    pub(super) fn finish(self) -> Vec<Key> {
        self.duty.finish()
    }

    /// Returns a follower of the node that has taken over, which this one was the primary of before.
    pub(super) fn deposed(reign: Reign, until: Instant) -> Self {
        let duty = Duty::Backup(Backup::new(Vec::new()));
        Self { duty, ..Self::new(Reign { backup: None, ..reign }, until) }
    }
}
