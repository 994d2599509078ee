//! Commands about rooms: their primaries and backups, and the state in their records.
//!
//! # Pairs
//!
//! The record of a room names a primary and perhaps a backup, in a term of an epoch. The three changes of the
//! pair are transactions that compare the revision of the record, so the records of an epoch are one chain:
//!
//! * The primary names or drops the backup, in its own term ([`Registrar::pair_room`]).
//! * The backup swaps the two names and begins the next term ([`Registrar::swap_room`]). The former primary
//!   becomes the backup. A swap that left no backup would open the room to other nodes: a third node could
//!   begin a new epoch as soon as the record of the new primary's node is gone.
//!
//! While the record names a backup, no other node begins a new epoch, even if neither node of the pair lives.
//! The record ends with the lease of the primary that wrote it.
//!
//! A primary that finds a later term in the record is deposed ([`Decision::RoomDeposed`]). From then on the
//! registrar neither writes nor deletes the record.

use alloc::vec::Vec;

use super::claim::{Attempt, Goal};
use super::event::{Full, Reign, RoomClaim};
use super::keys::{RoomState, Subject};
use super::table::{Claim, Held, Swap, Task};
use super::{Decision, Registrar};
use crate::base::id::{DialNumber, Name, NodeId, SessionId};
use crate::base::plant::Plant;
use crate::base::time::{Instant, Now};

impl Registrar {
    // Getters.

    /// Returns the epoch of a room, if this node is its primary as far as is known.
    #[must_use]
    pub fn holds_room(&self, room: &Name) -> Option<u64> {
        self.holds(&Subject::Room(room.clone()))
    }

    /// Returns the reign in which this node is the room's primary, as far as is known.
    #[must_use]
    pub fn reign(&self, room: &Name) -> Option<Reign> {
        let entry = self.table.entries.get(&Subject::Room(room.clone()))?;
        Some(entry.held?.reign(self.me))
    }

    /// Returns true if the rooms' lease surely lives, by the registry's clock too, and this node knows of no
    /// loss of the registry's store. A room with a backup needs no more: only the backup can take the room
    /// over, so the lease and the record of the node do not matter. A room without a backup needs
    /// [`Self::may_serve`].
    #[must_use]
    pub fn keeps_rooms(&self, now: Instant) -> bool {
        let lives = self.room_lease.surely_lives(now) || self.planted.is(Plant::LeaseAssumed);
        self.running && lives && self.generation.goes_on()
    }

    // Commands.

    /// Claims a room. All waiting claims of a room share one answer.
    ///
    /// # Errors
    /// [`Full`].
    pub fn claim_room(&mut self, now: Now, room: &Name) -> Result<(), Full> {
        let now = self.observe(now);
        let subject = Subject::Room(room.clone());
        if self.table.entries.get(&subject).is_some_and(|entry| entry.is_claimed()) {
            return Ok(());
        }
        self.reserve_claim(&subject)?;
        let none = SessionId([0; 16]);
        let until = now + self.config.claim_timeout;
        let dial = DialNumber::default();
        let claim = Claim { serial: self.next_claim, until, token: 0, named: None, fresh: none, dial };
        self.claim(now, subject, claim);
        Ok(())
    }

    /// Releases a room, in the way of [`Self::release_session`]. The record is deleted only if it is of the
    /// held term. A swap of the room is given up and has no answer.
    pub fn release_room(&mut self, now: Now, room: &Name) {
        let subject = Subject::Room(room.clone());
        let at = self.observe(now);
        self.cancel_swap(at, &subject);
        self.release(now, &subject);
    }

    /// Deletes a stray record that names this node as the primary of a room unknown to this node. Another
    /// node asks for the room because of such a record, which a claim or a swap leaves if the registry
    /// executes the request long after the node gave it up. Without such a record nothing is written: a record
    /// written here would send other nodes to this node once more. A record with a backup that lives stays,
    /// since the backup has the room.
    pub fn sweep_room(&mut self, now: Now, room: &Name) {
        let now = self.observe(now);
        let subject = Subject::Room(room.clone());
        if self.table.entries.get(&subject).is_none_or(|entry| entry.is_unused()) {
            self.sweep(now, &subject, Attempt::new(Goal::Drop { held: None }));
        }
        self.finish(now);
    }

    /// Sets the number of members of a held room, the application's turn, and the end of the turn in Unix
    /// milliseconds (0: never). The record is written at most once in
    /// [`super::RegistrarConfig::room_refresh`], with the newest values, also if the turn changes, or
    /// together with another backup.
    pub fn update_room(&mut self, now: Now, room: &Name, players: u32, turn: u32, countdown_ms: u64) {
        let now = self.observe(now);
        let subject = Subject::Room(room.clone());
        // The node may not have heard yet that the room is lost.
        if let Some(entry) = self.table.entries.get_mut(&subject)
            && entry.held.is_some()
        {
            entry.room.wanted = RoomState { players, turn, countdown_ms };
            if entry.work.is_none() {
                self.advance(now, &subject);
            }
        }
        self.finish(now);
    }

    /// Has the record of a held room name this backup, or none. The last wish counts, and is tried without a
    /// time limit until [`Decision::RoomPaired`] confirms it or the room is lost. Repeatable.
    pub fn pair_room(&mut self, now: Now, room: &Name, backup: Option<NodeId>) {
        let now = self.observe(now);
        let subject = Subject::Room(room.clone());
        // The node may not have heard yet that the room is lost.
        if let Some(entry) = self.table.entries.get_mut(&subject)
            && entry.held.is_some()
        {
            entry.room.backup = Some(backup);
            if entry.work.is_none() {
                self.advance(now, &subject);
            }
        }
        self.finish(now);
    }

    /// Takes over, as the named backup, the room that `primary` leads in this term of this epoch. The former
    /// primary becomes the backup. `revision` MUST be that of a record which names this node as the backup,
    /// such as the newest one of the primary's [`Self::reign`]: the swap compares nothing else of the record.
    /// With 0 or an outdated revision, the record is read first.
    ///
    /// The swap is tried without a time limit as long as the record names this term, this primary and this
    /// backup. It has one answer, [`Decision::Room`]. A later swap of the room replaces one that is not begun.
    /// Claims of the room that wait have no answer, which would be taken for that of the swap.
    ///
    /// # Errors
    /// [`Full`], if there are too many sessions and rooms.
    pub fn swap_room(
        &mut self,
        now: Now,
        room: &Name,
        epoch: u64,
        term: u32,
        primary: NodeId,
        revision: u64,
    ) -> Result<(), Full> {
        let now = self.observe(now);
        let subject = Subject::Room(room.clone());
        self.reserve_entry(&subject)?;
        self.cancel_claims(now, &subject);
        if self.running {
            let entry = self.table.entries.entry(subject.clone()).or_default();
            let goal = entry.work.as_ref().map(|work| work.attempt.goal);
            let is_begun = matches!(goal, Some(Goal::SwapRoom { epoch: e, term: t, primary: p })
                if (e, t, p) == (epoch, term, primary));
            entry.tasks.retain(|task| !matches!(task, Task::Swap(_)));
            if !is_begun {
                entry.tasks.push_back(Task::Swap(Swap { epoch, term, primary, revision }));
                self.advance(now, &subject);
            }
        } else {
            self.answer_swap(&subject, RoomClaim::Unavailable);
        }
        self.finish(now);
        Ok(())
    }

    // Steps.

    /// Gives up the claims of a room. One that was sent is undone, since the registry may still execute it.
    fn cancel_claims(&mut self, now: Instant, subject: &Subject) {
        let Some(entry) = self.table.entries.get(subject) else { return };
        let waiting = entry.tasks.iter().filter_map(|task| match task {
            Task::Claim(claim) => Some(*claim),
            Task::Swap(_) | Task::Release => None,
        });
        let at_work = entry.work.as_ref().and_then(|work| work.claim);
        let claims: Vec<Claim> = at_work.into_iter().chain(waiting).collect();
        for claim in claims {
            self.table.claims.remove(&(claim.until, claim.serial));
            let entry = self.table.entries.get_mut(subject);
            if let Some((_, Some(work))) = entry.and_then(|entry| entry.take_claim(claim.serial)) {
                self.undo(now, subject, work.sent);
            }
        }
    }

    /// Gives up a swap. If the swap was sent, the registry may still execute it.
    fn cancel_swap(&mut self, now: Instant, subject: &Subject) {
        let Some(entry) = self.table.entries.get_mut(subject) else { return };
        entry.tasks.retain(|task| !matches!(task, Task::Swap(_)));
        if let Some(work) = entry.work.take_if(|work| work.is_swap()) {
            self.undo(now, subject, work.sent);
        }
    }

    pub(super) fn answer_swap(&mut self, subject: &Subject, outcome: RoomClaim) {
        self.say_of_room(subject, |room| Decision::Room { room, outcome });
    }

    pub(super) fn say_paired(&mut self, subject: &Subject, held: Held) {
        let Held { backup, modified: revision, .. } = held;
        self.say_of_room(subject, |room| Decision::RoomPaired { room, backup, revision });
    }

    pub(super) fn say_deposed(&mut self, subject: &Subject, reign: Reign) {
        self.say_of_room(subject, |room| Decision::RoomDeposed { room, reign });
    }

    fn say_of_room(&mut self, subject: &Subject, decision: impl FnOnce(Name) -> Decision) {
        match subject {
            Subject::Room(room) => self.decisions.push_back(decision(room.clone())),
            Subject::Session(_) => self.bugs.found("the record of a session is handled as a room's"),
        }
    }
}
