//! One player: its known state in the registry, its wish, and the next action that follows.

use alloc::boxed::Box;
use alloc::string::{String, ToString as _};
use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;
use skirmish_proto::v1::{self, TicketState};

use super::PlayerTicketsDecision;
use super::absence::Absence;
use super::quit::{Quit, QuitAnswer as Quitting};
use super::request::{none, record};
use super::view::{MatchInfo, Notice, SessionView, TicketView, View};
use super::wish::{Ended, Wish};
use crate::base::id::{Name, NodeId};
use crate::base::plant::{Plant, Planted};
use crate::base::time::{Instant, Wall};
use crate::matchmaking::keys::{self, Kind};
use crate::matchmaking::record::{decode, encode, unmatched};
use crate::registry::{Answer, Change, Compare, Delete, LeaseId, Put, RegistryOp, Span, Txn};

/// Reason given for the end of a search with a match, once the match is over.
pub(super) const MATCH_OVER: &str = "the match is over that was found";

/// A player whose session is on this node.
#[derive(Debug)]
pub(super) struct Player {
    pub(super) name: Name,
    /// Epoch of the session.
    pub(super) epoch: u64,
    /// Epoch of the session's record from which on a player that has asked for its search here was at no
    /// other node: that of the claim, or that of a `Lost` message that the player has answered.
    pub(super) vouched: u64,
    /// State in the registry; `None` if it must be read.
    pub(super) view: Option<View>,
    /// Revision of the newest change that was reported while there was no view. A later answer with
    /// an older revision is not used as a view.
    pub(super) missed: u64,
    pub(super) wish: Wish,
    /// True while a ticket in the registry may be the player's own from another node, and becomes
    /// the wish. Later, a ticket without a wish is a leftover.
    pub(super) adopts: bool,
    /// True if the wish is that of a ticket from another node, and the player has not asked for the
    /// search here. The claim may be that of a connection that is gone: then the player may be at the
    /// other node still, and learn there how the search ends.
    pub(super) is_unasked: bool,
    /// Absence of the player, while it has no connection.
    pub(super) absence: Option<Absence>,
    /// Room of a match that the session joined last.
    pub(super) room: Option<Name>,
    /// Rooms of matches that the session has kept since it was resumed; `None` if it was not
    /// resumed, or was in no match since.
    pub(super) returned: Option<Vec<Name>>,
    /// Matches that the player has left, until the registry confirms it.
    pub(super) quits: Vec<Quit>,
    /// Mode of a match that was over before it had begun, and the waiting time, in milliseconds,
    /// with which the player's next search of that mode starts.
    pub(super) credit: Option<(String, u64)>,
    pub(super) match_info: MatchInfo,
    /// Last message to the player.
    pub(super) last_message: LastMessage,
    /// End of the last numbered search, as sent to the player.
    pub(super) ended: Option<Box<Ended>>,
    /// True if the session has ended here, and only its ticket and its match are left.
    pub(super) parting: bool,
    /// True if another session keeps the ticket.
    pub(super) moved: bool,
    /// Number of the open request.
    pub(super) asked: Option<u64>,
    /// Place of the player in line.
    pub(super) line_number: Option<u64>,
    /// True if the open request writes a ticket.
    pub(super) puts: bool,
    /// True if the open request makes earlier requests void.
    pub(super) fences: bool,
    /// True if a ticket may have been written, or may still be, by a request with unknown outcome.
    pub(super) doubt: bool,
    /// Number of failed requests in a row.
    pub(super) failures: u32,
    pub(super) retry: Option<Instant>,
}

/// Last message to a player.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LastMessage {
    Nothing,
    Unavailable,
    Waiting,
    /// Request to ask again, since the session was registered again with this epoch.
    Lost(u64),
    /// End of the ticket that was written at this revision.
    Ended(u64),
    /// Match of the player, after this number of fills.
    Matched(u32),
}

/// Next action for a player.
#[derive(Debug)]
pub(super) enum NextAction {
    /// Nothing, until a change.
    Rest,
    /// Notify the player; another action may follow.
    Tell(PlayerTicketsDecision),
    /// Send a request to the registry; with the name of the match that it reads, if any.
    Ask(Txn, Option<String>),
    /// Read the state again after a wait: this node may not write for the player now.
    Wait,
    /// Remove the player.
    Forget,
}

/// Values that all players of a node share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context {
    pub(super) wall: Wall,
    pub(super) node: NodeId,
    pub(super) lease: Option<LeaseId>,
    pub(super) planted: Planted,
}

impl Player {
    pub(super) const fn new(name: Name, epoch: u64) -> Self {
        Self {
            name,
            epoch,
            vouched: epoch,
            view: None,
            missed: 0,
            wish: Wish::Nothing,
            adopts: true,
            is_unasked: false,
            absence: None,
            room: None,
            returned: None,
            quits: Vec::new(),
            credit: None,
            match_info: MatchInfo::Unread,
            last_message: LastMessage::Nothing,
            ended: None,
            parting: false,
            moved: false,
            asked: None,
            line_number: None,
            puts: false,
            fences: false,
            doubt: false,
            failures: 0,
            retry: None,
        }
    }

    /// Returns the next action. There is one action at a time, since the registry may have changed
    /// when an action is complete.
    pub(super) fn next(&mut self, context: Context) -> NextAction {
        let look = |player: &Self| NextAction::Ask(player.look(context, None), None);
        if self.doubt && !self.parting && context.lease.is_some() {
            self.fences = true;
            return look(self);
        }
        let Some(view) = self.view.clone() else { return look(self) };
        if self.parting {
            return self.part(context, &view);
        }
        if let Some(notice) = &view.notice {
            return self.in_match(context, &view, notice, view.ticket.as_deref());
        }
        if let Some(decision) = self.is_late() {
            return NextAction::Tell(decision);
        }
        self.leave();
        if let Some(decision) = self.settle_quit(None) {
            return NextAction::Tell(decision);
        }
        if let Some(decision) = self.answer_again(context, None) {
            return NextAction::Tell(decision);
        }
        let Some(ticket) = &view.ticket else { return self.idle(context, &view) };
        match ticket.waiting() {
            Some(queue) => self.waiting(context, &view, ticket, queue),
            None => self.ended(context, &view, ticket),
        }
    }

    /// Repeats the end of a search if the player asks for the search again. The search does not
    /// start again. `match_id` is the match of the player; the end of a search with this match is
    /// not repeated, since the match itself is the answer.
    fn answer_again(&mut self, context: Context, match_id: Option<&str>) -> Option<PlayerTicketsDecision> {
        let ended = self.ended.as_deref()?;
        let asked = self.wish.search().is_some_and(|search| ended.is_of(search));
        let is_notified = match_id.is_some() && ended.match_id.as_deref() == match_id;
        if !asked || is_notified || context.planted.is(Plant::SearchReopened) {
            return None;
        }
        let queued = ended.queued.clone();
        self.wish = Wish::Nothing;
        Some(PlayerTicketsDecision::Ticket { player: self.name.clone(), queued })
    }

    /// Ends the wish, and remembers the end of the search if the search has a number.
    pub(super) fn end(&mut self, queued: v1::Queued, match_id: Option<&str>) {
        self.wish = Wish::Nothing;
        if queued.search != 0 {
            self.ended = Some(Box::new(Ended { queued, match_id: match_id.map(String::from) }));
        }
    }

    /// Takes the state from an answer; `match_id` is the match that was read. Returns true if the
    /// state has changed.
    pub(super) fn read(&mut self, revision: u64, answers: &[Answer], match_id: Option<String>) -> bool {
        let known = self.view.as_ref().map_or(self.missed, |view| view.read.max(view.reported));
        if revision < known {
            return false;
        }
        let mut ranges = answers.iter().filter_map(|answer| match answer {
            Answer::Range { kvs, .. } => Some(kvs.first()),
            _ => None,
        });
        let mut next = || ranges.next().flatten();
        let (session, ticket, notice) = (next(), next(), next());
        let fence = next().map_or(0, |kv| kv.modified);
        let view = View {
            read: revision,
            reported: 0,
            fence,
            session: session.map(SessionView::of),
            ticket: ticket.map(TicketView::of).map(Box::new),
            notice: notice.map(Notice::of),
        };
        if let Some(id) = match_id {
            let known = next().and_then(|kv| decode::<v1::MatchRecord>(&kv.value).r#match);
            self.match_info = known
                .filter(|known| known.r#match == id)
                .map_or(MatchInfo::Absent(id), |known| MatchInfo::Known(Box::new(known)));
        }
        let same = self.view.as_ref().is_some_and(|old| {
            (old.fence, old.session, &old.ticket, &old.notice)
                == (view.fence, view.session, &view.ticket, &view.notice)
        });
        self.view = Some(view);
        !same
    }

    /// Takes a reported change into the view. Returns true if the change is new to it.
    pub(super) fn take_change(&mut self, kind: Kind, change: &Change) -> bool {
        let Some(view) = &mut self.view else {
            self.missed = self.missed.max(change.revision());
            return false;
        };
        if change.revision() <= view.read {
            return false;
        }
        view.reported = change.revision();
        let kv = match change {
            Change::Put { kv, .. } => Some(kv),
            Change::Delete { .. } => None,
        };
        match kind {
            Kind::Ticket => view.ticket = kv.map(TicketView::of).map(Box::new),
            Kind::Notice => view.notice = kv.map(Notice::of),
        }
        true
    }

    /// Returns true if the view is older than a revision.
    pub(super) fn is_older(&self, revision: u64) -> bool {
        self.view.as_ref().is_some_and(|view| view.read < revision)
    }

    /// Returns true if a wish of the player is open.
    pub(super) fn is_waiting(&self) -> bool {
        self.wish != Wish::Nothing && !self.parting
    }

    /// Continues with another session of the player. Earlier wishes and messages were those of the
    /// earlier session. The state in the registry is read again.
    pub(super) fn succeed(&mut self, epoch: u64) {
        // Earlier requests compare the session's key, which has changed with the epoch.
        self.doubt &= self.epoch == epoch;
        (self.wish, self.ended) = (Wish::Nothing, None);
        if self.epoch == 0 {
            // No session was here: the player's session was gone, and now it is back.
            self.quits.clear();
        }
        self.quits.iter_mut().for_each(|quit| quit.answer = Quitting::Nothing);
        self.credit = None;
        (self.epoch, self.vouched) = (epoch, epoch);
        (self.parting, self.moved) = (false, false);
        self.adopts = true;
        self.view = None;
    }

    /// Returns true if the next message is that nothing is left, so that the state must be read
    /// first.
    pub(super) const fn takes_back(&self) -> bool {
        self.parting || matches!(self.wish, Wish::Cancel { .. })
    }

    /// Returns the message on the player's ticket.
    pub(super) fn queued(&self, wall: Wall, state: TicketState, reason: &str) -> v1::Queued {
        let ticket = self.view.as_ref().and_then(|view| view.ticket.as_deref());
        let (mode, queued_ms, search) = match (&self.wish, ticket) {
            (Wish::Queue { queue, queued_ms }, _) => (queue.mode.clone(), *queued_ms, queue.search),
            (Wish::Cancel { mode, search, .. }, _) => (mode.clone(), wall.0, *search),
            (_, Some(ticket)) => (ticket.mode(), ticket.record.queued_ms, ticket.search()),
            _ => (String::new(), wall.0, 0),
        };
        let waited_ms = u32::try_from(wall.0.saturating_sub(queued_ms)).unwrap_or(u32::MAX);
        let (state, reason) = (state.into(), reason.to_string());
        v1::Queued { state, mode, reason, waited_ms, search, ..v1::Queued::default() }
    }

    /// Returns the decision that notifies the player of its ticket's state.
    pub(super) fn tell(&self, wall: Wall, state: TicketState, reason: &str) -> PlayerTicketsDecision {
        PlayerTicketsDecision::Ticket { player: self.name.clone(), queued: self.queued(wall, state, reason) }
    }

    /// Notifies the player of the end of its search.
    fn tell_end(&mut self, queued: v1::Queued) -> NextAction {
        self.end(queued.clone(), None);
        NextAction::Tell(PlayerTicketsDecision::Ticket { player: self.name.clone(), queued })
    }

    /// Forgets the match: the player is in none.
    fn leave(&mut self) {
        self.match_info = MatchInfo::Unread;
        self.returned = None;
        self.forget_match();
    }

    fn forget_match(&mut self) {
        if matches!(self.last_message, LastMessage::Matched(_)) {
            self.last_message = LastMessage::Nothing;
        }
    }

    fn in_match(
        &mut self,
        context: Context,
        view: &View,
        notice: &Notice,
        ticket: Option<&TicketView>,
    ) -> NextAction {
        let id = &notice.record.r#match;
        if let Some(decision) = self.answer_again(context, Some(id)) {
            return NextAction::Tell(decision);
        }
        self.give_up_answer(notice);
        if let Some(decision) = self.settle_quit(Some(notice)) {
            return NextAction::Tell(decision);
        }
        let mut over = self.is_out(notice);
        match &self.match_info {
            MatchInfo::Known(matched) if matched.r#match == *id && matched.fills >= notice.record.fills => {
                let message = LastMessage::Matched(matched.fills);
                if !over && matched.over {
                    let (matched, notice) = (matched.clone(), notice.clone());
                    match self.end_match(*matched, &notice) {
                        Some(next) => return next,
                        None => over = true,
                    }
                } else if !over && (self.last_message != message || self.wish != Wish::Nothing) {
                    // The match is the answer to every search of the player.
                    let asked = self.wish.search().filter(|search| *search != 0);
                    let search = asked.unwrap_or(notice.record.search);
                    let team = notice.record.team;
                    let matched = v1::Matched { team, search, ..(**matched).clone() };
                    let (mode, reason) = (matched.mode.clone(), MATCH_OVER.to_string());
                    let queued = v1::Queued { mode, reason, ..none(search) };
                    self.end(queued, Some(id));
                    (self.last_message, self.adopts) = (message, false);
                    return NextAction::Tell(PlayerTicketsDecision::Matched {
                        player: self.name.clone(),
                        matched,
                    });
                }
            }
            // The notice names a match that does not exist, and nothing else would delete the
            // notice.
            MatchInfo::Absent(absent) if absent == id => over = true,
            _ if over => {}
            _ => return NextAction::Ask(self.look(context, Some(id)), Some(id.clone())),
        }
        if over {
            let key = keys::notice(&self.name);
            let compare = Compare::unchanged(key.clone(), notice.modified);
            return self.write(context, view, vec![compare], RegistryOp::Delete(Delete::of(Span::one(key))));
        }
        // A player of a match has no ticket.
        if let Some(ticket) = ticket {
            return self.remove(context, view, ticket);
        }
        let is_in = self.room.as_ref().is_some_and(|room| room.as_str() == keys::room_of(id));
        if is_in && !notice.record.joined && !context.planted.is(Plant::JoinUnmarked) {
            let key = keys::notice(&self.name);
            let compare = Compare::unchanged(key.clone(), notice.modified);
            let joined = v1::NoticeRecord { joined: true, ..notice.record.clone() };
            let put = RegistryOp::Put(Put::new(key, encode(&joined), None));
            return self.write(context, view, vec![compare], put);
        }
        NextAction::Rest
    }

    fn waiting(
        &mut self,
        context: Context,
        view: &View,
        ticket: &TicketView,
        waiting: &v1::Queue,
    ) -> NextAction {
        if self.adopts {
            match &self.wish {
                Wish::Cancel { .. } if self.wish.is_of_other(ticket.search()) => {
                    let queued = self.queued(context.wall, TicketState::None, "");
                    return self.tell_end(queued);
                }
                Wish::Nothing => {
                    let (queue, queued_ms) = (Box::new(waiting.clone()), ticket.record.queued_ms);
                    self.wish = Wish::Queue { queue, queued_ms };
                    self.is_unasked = true;
                }
                Wish::Queue { .. } | Wish::Cancel { .. } => {}
            }
        }
        self.adopts = false;
        if let Wish::Cancel { found, .. } = &mut self.wish {
            *found = true;
        }
        let Wish::Queue { queue, queued_ms } = &mut self.wish else {
            return self.remove(context, view, ticket);
        };
        if *waiting == **queue {
            // The search has waited since the ticket's time.
            *queued_ms = ticket.record.queued_ms.min(*queued_ms);
        }
        let mut wanted = record(queue, *queued_ms, context.node, self.epoch);
        let (written, is_leased) = (ticket.record.absent_ms, ticket.lease.is_some());
        wanted.absent_ms = written;
        let is_other = ticket.record != wanted || !is_leased || ticket.lease != context.lease;
        wanted.absent_ms = self.absent_ms(written, is_other);
        if is_other || wanted.absent_ms != written {
            return self.put(context, view, ticket.modified, &wanted);
        }
        if self.last_message == LastMessage::Waiting {
            return NextAction::Rest;
        }
        self.last_message = LastMessage::Waiting;
        NextAction::Tell(self.tell(context.wall, TicketState::Waiting, ""))
    }

    /// Notifies the player of the end of the ticket, then deletes the ticket. If this node fails in
    /// between, the next one notifies the player. A wish for another search shows that the player
    /// knows of the end, or that another client asked for this search. A record that is no ticket is
    /// deleted at once.
    fn ended(&mut self, context: Context, view: &View, ticket: &TicketView) -> NextAction {
        self.adopts = false;
        let state = ticket.record.state();
        let is_other = self.wish.is_of_other(ticket.search());
        if is_other
            || self.last_message == LastMessage::Ended(ticket.modified)
            || matches!(state, TicketState::Unspecified | TicketState::Waiting)
        {
            return self.remove(context, view, ticket);
        }
        if self.absence.is_some() {
            // No connection would receive the message.
            return NextAction::Rest;
        }
        self.last_message = LastMessage::Ended(ticket.modified);
        let reason = match state {
            TicketState::Refused => "the players do not fit together into a match of this mode",
            TicketState::TimedOut if ticket.record.absent_ms > 0 => {
                "the player had no connection for longer than a ticket waits for one"
            }
            _ => "",
        };
        let queued = self.queued(context.wall, state, reason);
        self.tell_end(queued)
    }

    fn idle(&mut self, context: Context, view: &View) -> NextAction {
        self.adopts = false;
        self.use_credit();
        match &self.wish {
            Wish::Nothing => NextAction::Rest,
            Wish::Queue { queue, queued_ms } => {
                let mut wanted = record(queue, *queued_ms, context.node, self.epoch);
                wanted.absent_ms = self.absent_ms(0, true);
                self.put(context, view, 0, &wanted)
            }
            Wish::Cancel { found, .. } => {
                // The end of a search at another node is not known here.
                let state = if *found { TicketState::Cancelled } else { TicketState::None };
                self.last_message = LastMessage::Nothing;
                let queued = self.queued(context.wall, state, "");
                self.tell_end(queued)
            }
        }
    }

    /// Acts after the end of the session here: removes the player from the match whose room it has
    /// left, and deletes its ticket. A ticket of an earlier node is deleted too, as long as there
    /// is no newer session. A ticket that this session wrote is deleted without a comparison of the
    /// session's key.
    fn part(&self, context: Context, view: &View) -> NextAction {
        if context.planted.is(Plant::TicketForgotten) {
            return NextAction::Forget;
        }
        let delete = |key: Bytes, modified, fence: Option<Compare>| {
            let compares = [Compare::unchanged(key.clone(), modified)].into_iter().chain(fence);
            NextAction::Ask(
                self.txn(context, compares.collect(), RegistryOp::Delete(Delete::of(Span::one(key)))),
                None,
            )
        };
        let session = keys::session(&self.name);
        let no_newer = match view.session {
            None => Some(Compare::absent(session)),
            Some(s) if s.node == context.node => Some(Compare::unchanged(session, s.modified)),
            Some(_) => None,
        };
        if let Some(ticket) = view.ticket.as_ref().filter(|_| !self.moved) {
            let (key, record) = (keys::ticket(&self.name), &ticket.record);
            if record.node == context.node.0 && record.session_epoch == self.epoch {
                return delete(key, ticket.modified, None);
            }
            if record.session_epoch < self.epoch && no_newer.is_some() {
                return delete(key, ticket.modified, no_newer);
            }
        }
        if let (Some(notice), Some(no_newer)) = (&view.notice, no_newer)
            && self.is_out(notice)
        {
            return delete(keys::notice(&self.name), notice.modified, Some(no_newer));
        }
        NextAction::Forget
    }

    /// Writes the ticket, if the current one is still that of the revision `modified`; 0 for none.
    fn put(&mut self, context: Context, view: &View, modified: u64, wanted: &v1::TicketRecord) -> NextAction {
        if context.lease.is_none() {
            // The player is attended to again when there is a lease.
            return self.stall(context, NextAction::Rest);
        }
        if let Some(epoch) = self.to_confirm(context, view) {
            return self.ask_again(context, epoch);
        }
        let key = keys::ticket(&self.name);
        let fence = Compare::unchanged(keys::ticket_fence(context.node), view.fence);
        let mut compares = vec![Compare::unchanged(key.clone(), modified), fence];
        unmatched(&mut compares, &self.name);
        let put = Put::new(key, encode(wanted), context.lease);
        match self.write(context, view, compares, RegistryOp::Put(put)) {
            NextAction::Wait => self.stall(context, NextAction::Wait),
            next => {
                self.puts = true;
                next
            }
        }
    }

    /// Notifies the player, once, that its ticket cannot be written for now.
    fn stall(&mut self, context: Context, next: NextAction) -> NextAction {
        if self.last_message == LastMessage::Unavailable {
            return next;
        }
        self.last_message = LastMessage::Unavailable;
        let reason = "the registry does not let this node queue the player yet";
        NextAction::Tell(self.tell(context.wall, TicketState::Unavailable, reason))
    }

    fn remove(&self, context: Context, view: &View, ticket: &TicketView) -> NextAction {
        let key = keys::ticket(&self.name);
        let compare = Compare::unchanged(key.clone(), ticket.modified);
        self.write(context, view, vec![compare], RegistryOp::Delete(Delete::of(Span::one(key))))
    }
}
