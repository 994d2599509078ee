//! The primary's side of a pair: a candidate is recruited and caught up, named, and dropped again.

use bytes::Bytes;
use skirmish_proto::v1;

use super::common::Common;
use super::context::LiveLeases;
use super::leading::Leading;
use super::op_stream::OpStream;
use super::pair::{PairPeer, PairState, PairStep};
use super::reader::Reader;
use super::{NextRole, RoomContext, RoomEffect};
use crate::base::id::NodeId;
use crate::base::plant::Plant;
use crate::base::slab::Key;
use crate::base::time::{Duration, Instant};
use crate::registrar::Reign;
use crate::wire;

/// Time after which a room without a candidate looks for one again.
const RECRUIT_PAUSE: Duration = Duration::from_secs(1);

/// Time for which a node that was lost as a candidate or backup is not recruited again.
const SHUNNED: Duration = Duration::from_secs(10);

/// Bytes of ops in one frame, about.
const OPS_FRAME_BYTES: usize = 16 * 1024;

impl Leading {
    // Getters.

    /// Returns the time at which the pair has to be reviewed.
    pub(super) fn pair_deadline(&self, common: &Common, leases: LiveLeases) -> Option<Instant> {
        let peer = self.pair.peer().filter(|peer| !peer.is_lost && peer.owes());
        let recruits = self.pair.may_serve(leases) && common.room.pending_ops() == 0;
        let recruit_at = self.pair.recruit_at.filter(|_| recruits);
        [recruit_at, peer.map(|peer| peer.patience)].into_iter().flatten().min()
    }

    /// Returns the message that tells which nodes lead the room and back it up.
    pub(super) fn lead_message(&self, common: &Common, cx: &RoomContext<'_>) -> v1::Lead {
        v1::Lead {
            room: common.room.name().as_str().into(),
            epoch: common.room.epoch(),
            term: common.room.term(),
            primary: cx.node.0,
            backup: self.pair.backup().map_or(0, |backup| backup.0),
        }
    }

    // Inputs.

    /// Does what the state of the pair, the leases and the clock ask for.
    pub(super) fn review_pair(&mut self, common: &mut Common, cx: &mut RoomContext<'_>) {
        if cx.config.replication.replicas < 2 {
            return;
        }
        self.check_patience(common, cx);
        match self.pair.state() {
            PairState::Alone => self.recruit(common, cx),
            PairState::Recruiting => {
                let is_lost = self.pair.peer().is_some_and(|peer| peer.is_lost);
                if is_lost {
                    self.end_recruiting(common, cx);
                } else if self.has_caught_up(common, cx) {
                    self.name(common, cx);
                }
            }
            PairState::Naming | PairState::Paired => self.drop_lost(common, cx),
            PairState::Dropping => {}
        }
    }

    /// Marks the other node as lost if it makes no progress.
    fn check_patience(&mut self, common: &Common, cx: &RoomContext<'_>) {
        let now = cx.now.instant;
        let most = cx.config.rooms.pending_ops;
        let is_recruiting = self.pair.state() == PairState::Recruiting;
        let Some(peer) = self.pair.peer_mut() else { return };
        let is_over = |peer: &PairPeer| peer.owes() && peer.patience <= now;
        // A candidate stores nothing before it has read the entries and the state.
        if is_recruiting && is_over(peer) && peer.has_read_on(&common.readers, common.room.log().head()) {
            peer.patience = now + cx.config.replication.backup_patience;
        }
        // A primary that commits alone does not wait for a candidate that cannot follow.
        let is_far_behind = is_recruiting && peer.behind() > most;
        peer.is_lost |= is_far_behind || is_over(peer);
    }

    /// Chooses a candidate, and asks it to follow the room.
    fn recruit(&mut self, common: &Common, cx: &mut RoomContext<'_>) {
        let now = cx.now.instant;
        let is_due = self.pair.recruit_at.is_some_and(|at| at <= now);
        if !is_due || !self.pair.may_serve(cx.leases) || common.room.pending_ops() > 0 {
            return;
        }
        let shunned = self.pair.shunned.filter(|(_, until)| *until > now).map(|(node, _)| node);
        let members = self.members_by_node();
        let Some((node, link)) = cx.candidates.choose(cx.rng, shunned, &members) else {
            // A link that opens is told to the room.
            self.pair.recruit_at = shunned.map(|_| now + RECRUIT_PAUSE);
            return;
        };
        self.pair.recruit_at = None;
        self.pair.recruit(node, link, now + cx.config.replication.backup_patience);
        if common.readers.links().any(|reader| reader == link) {
            cx.effects.marks.wake_links = true;
        } else {
            let (room, epoch, term) =
                (common.room.name().as_str().into(), common.room.epoch(), common.room.term());
            let recruit = v1::Recruit { room, epoch, term };
            common.tell_plain(cx, link, v1::Kind::Recruit, &recruit);
        }
    }

    /// Returns true if the candidate has stored everything that is committed.
    fn has_caught_up(&self, common: &Common, cx: &RoomContext<'_>) -> bool {
        let peer = self.pair.peer().filter(|_| self.pair.may_serve(cx.leases));
        let stream = peer.and_then(|peer| peer.stream.as_ref());
        let applied = common.room.applied();
        let has_all = |stream: &OpStream| {
            stream.is_installed() && stream.stored() >= applied || cx.planted.is(Plant::NamedBehind)
        };
        stream.is_some_and(has_all)
    }

    fn name(&mut self, common: &Common, cx: &mut RoomContext<'_>) {
        if let Some(peer) = self.pair.peer() {
            common.emit(cx, RoomEffect::Pair { backup: Some(peer.node) });
            self.pair.step(PairStep::CaughtUp);
        }
    }

    /// Ends the recruiting of a candidate that no record may name.
    fn end_recruiting(&mut self, common: &mut Common, cx: &mut RoomContext<'_>) {
        let now = cx.now.instant;
        if let Some(peer) = self.pair.peer() {
            self.pair.shunned = Some((peer.node, now + SHUNNED));
            self.dismiss(common, cx);
        }
        self.pair.step(PairStep::Lost);
        self.pair.recruit_at = Some(now + RECRUIT_PAUSE);
        common.room.end_digest();
        self.commit(common, cx);
    }

    /// Has the record name no backup any more, once the leases live: until then an unknown outcome of
    /// the write would stop a pair that can go on without the registry.
    fn drop_lost(&mut self, common: &mut Common, cx: &mut RoomContext<'_>) {
        let is_lost = self.pair.peer().is_some_and(|peer| peer.is_lost);
        if is_lost && cx.leases.lone {
            self.pair.step(PairStep::Lost);
            common.emit(cx, RoomEffect::Pair { backup: None });
        }
    }

    /// Has the former backup read entries again, if it still reads the room.
    fn dismiss(&self, common: &Common, cx: &mut RoomContext<'_>) {
        if let Some(link) = self.pair.peer().and_then(|peer| peer.link) {
            let lead = v1::Lead { backup: 0, ..self.lead_message(common, cx) };
            common.tell_plain(cx, link, v1::Kind::Lead, &lead);
        }
    }

    /// Handles the registry's report that the record names a backup, or none.
    pub(super) fn recorded(
        &mut self,
        common: &mut Common,
        cx: &mut RoomContext<'_>,
        backup: Option<NodeId>,
        revision: u64,
    ) {
        match (self.pair.state(), backup) {
            (PairState::Naming | PairState::Paired, Some(node)) => {
                if let Some(peer) = self.pair.peer_at(node) {
                    peer.record = revision;
                    self.pair.step(PairStep::Named);
                    self.tell_readers(common, cx);
                }
            }
            (PairState::Dropping, None) => {
                let now = cx.now.instant;
                self.dismiss(common, cx);
                self.pair.shunned = self.pair.peer().map(|peer| (peer.node, now + SHUNNED));
                self.pair.step(PairStep::Dropped);
                self.pair.recruit_at = Some(now);
                common.room.end_digest();
                self.tell_readers(common, cx);
            }
            // About a wish before the last one.
            _ => {}
        }
        self.commit(common, cx);
        self.seat_waiting(common, cx);
    }

    /// Tells followers which nodes lead the room and back it up.
    fn tell_readers(&self, common: &Common, cx: &mut RoomContext<'_>) {
        let lead = self.lead_message(common, cx);
        for link in common.readers.links() {
            common.tell_plain(cx, link, v1::Kind::Lead, &lead);
        }
    }

    /// Takes the word of another node that it has stored ops.
    pub(super) fn stored(
        &mut self,
        common: &mut Common,
        cx: &mut RoomContext<'_>,
        node: NodeId,
        stored: &v1::Stored,
    ) {
        let patience = cx.now.instant + cx.config.replication.backup_patience;
        let is_now = stored.term == common.room.term();
        let Some(peer) = self.pair.peer_at(node).filter(|_| is_now) else { return };
        if stored.refused {
            peer.is_lost = true;
        } else if let Some(stream) = &mut peer.stream
            && stream.store(stored.number)
        {
            (peer.patience, peer.is_lost) = (patience, false);
        }
        self.commit(common, cx);
    }

    /// Handles the loss of a node, or of the link to it.
    pub(super) fn lose_peer(&mut self, common: &mut Common, cx: &mut RoomContext<'_>, node: NodeId) {
        if let Some(peer) = self.pair.peer_at(node) {
            (peer.link, peer.is_lost) = (None, true);
            self.review_pair(common, cx);
        }
    }

    /// Looks for a candidate soon: the set of linked nodes has changed.
    pub(super) fn peers_changed(&mut self, common: &mut Common, cx: &mut RoomContext<'_>) {
        if let Some(peer) = self.pair.peer().filter(|peer| peer.link.is_none())
            && let Some(link) = cx.candidates.link_to(peer.node)
        {
            // The node may have taken over, which it answers.
            let lead = v1::Lead { backup: peer.node.0, ..self.lead_message(common, cx) };
            common.tell_plain(cx, link, v1::Kind::Lead, &lead);
        }
        if self.pair.state() == PairState::Alone && cx.config.replication.replicas > 1 {
            let soon = cx.now.instant + cx.rng.duration(Duration::ZERO..=RECRUIT_PAUSE);
            self.pair.recruit_at = Some(self.pair.recruit_at.map_or(soon, |at| at.min(soon)));
            self.review_pair(common, cx);
        }
    }

    /// Goes on with the ops to the backup over another link. Returns false if the node is no backup, or
    /// lacks ops.
    pub(super) fn rejoin(
        &mut self,
        common: &mut Common,
        cx: &RoomContext<'_>,
        link: Key,
        node: NodeId,
        attach: &v1::Attach,
    ) -> bool {
        let patience = cx.now.instant + cx.config.replication.backup_patience;
        let state = self.pair.state();
        let newest = common.room.appended();
        let Some(peer) = self.pair.peer_at(node) else { return false };
        let goes_on = match &mut peer.stream {
            Some(stream) if attach.stores && attach.applied <= newest => {
                stream.rejoin(attach.applied, &attach.runs)
            }
            // A candidate begins with the entries.
            None => return false,
            Some(_) => false,
        };
        if goes_on {
            (peer.link, peer.patience) = (Some(link), patience);
            peer.is_lost &= state == PairState::Dropping;
        } else {
            peer.is_lost = true;
        }
        goes_on
    }

    // Frames for the backup.

    /// Returns the next frame with ops for the backup, if it reads over this link. A former backup reads
    /// nothing until it asks for the tail.
    pub(super) fn next_ops(&mut self, common: &Common, link: Key) -> Option<Bytes> {
        let room = &common.room;
        let peer = self.pair.peer_mut().filter(|peer| peer.link == Some(link))?;
        let record = peer.record;
        let released = room.released_op();
        let ops = peer.stream.as_mut()?.next(released.number, OPS_FRAME_BYTES)?;
        let told = peer.stream.as_ref().map_or(0, OpStream::released);
        let replicate = v1::Replicate {
            room: room.name().as_str().into(),
            epoch: room.epoch(),
            term: room.term(),
            ops,
            released: told,
            digest: if told == released.number { released.digest } else { 0 },
            record,
        };
        Some(wire::encode(v1::Kind::Replicate, &v1::Metadata::default(), &replicate))
    }

    /// Returns the state of the room for a candidate that reads over this link and has all entries. Ops
    /// follow from then on.
    pub(super) fn next_install(
        &mut self,
        common: &mut Common,
        link: Key,
        reader: &mut Reader,
    ) -> Option<Bytes> {
        let reads = |peer: &&mut PairPeer| peer.link == Some(link) && peer.stream.is_none();
        let peer = self.pair.peer_mut().filter(reads)?;
        let room = &mut common.room;
        if room.pending_ops() > 0 || room.released() < room.log().head() {
            return None;
        }
        room.begin_digest();
        peer.stream = Some(OpStream::installing(room.applied()));
        reader.stores = true;
        Some(wire::encode(v1::Kind::Install, &v1::Metadata::default(), &room.installed()))
    }

    /// Ends the role for another primary of the same life of the room.
    pub(super) fn is_deposed_by(common: &Common, lead: &v1::Lead) -> Option<NextRole> {
        let reign = Reign {
            epoch: lead.epoch,
            term: lead.term,
            primary: NodeId(lead.primary),
            backup: (lead.backup > 0).then_some(NodeId(lead.backup)),
            revision: 0,
        };
        (reign.term > common.room.term() && lead.primary > 0).then_some(NextRole::StepDown(reign))
    }
}
