//! One room on one node: the room, the role of the node in it, and the sessions of this node
//! that are members.
//!
//! A node has a room because somebody here wants to be in it. It asks the registry whose the room
//! is ([`Claiming`]). Then it is the room's primary ([`Leading`]), or it follows the node that is
//! ([`Following`]). Each role has state of its own, and that state goes with the role.

mod claiming;
mod following;
mod leading;

use alloc::vec::Vec;

pub(crate) use claiming::{Claiming, EarlyAttach};
pub(crate) use following::Following;
pub(crate) use leading::{Leading, Place};

use crate::base::agenda::Booking;
use crate::base::id::NodeId;
use crate::base::slab::Key;
use crate::room::Room;
use crate::session::SessionKey;

/// A room on this node.
#[derive(Debug)]
pub(crate) struct Hosted {
    pub(crate) room: Room,
    pub(crate) role: Role,
    pub(crate) booking: Booking,
    /// Sessions of this node that are members, or on their way in.
    pub(crate) locals: Vec<SessionKey>,
    /// Sessions that are on their way in.
    pub(crate) waiting: Vec<SessionKey>,
    /// Links on which the room is read: at the primary those of followers, at a follower that to
    /// the primary, which reads its members' state.
    pub(crate) readers: Vec<Key>,
}

/// The role of a node in a room.
#[derive(Debug)]
pub(crate) enum Role {
    /// The registry is asked whose the room is.
    Claiming(Claiming),
    /// The node is the room's primary: it sequences the messages.
    Leading(Leading),
    /// Another node is the primary.
    Following(Following),
}

impl Hosted {
    /// A room that is being claimed.
    pub(crate) fn new(room: Room) -> Self {
        Self {
            room,
            role: Role::Claiming(Claiming::default()),
            booking: Booking::default(),
            locals: Vec::new(),
            waiting: Vec::new(),
            readers: Vec::new(),
        }
    }

    // Getters.

    /// Returns true if the node is the room's primary.
    pub(crate) const fn is_primary(&self) -> bool {
        matches!(self.role, Role::Leading(_))
    }

    /// State of the role, if the room is being claimed.
    pub(crate) const fn claiming_mut(&mut self) -> Option<&mut Claiming> {
        match &mut self.role {
            Role::Claiming(claiming) => Some(claiming),
            Role::Leading(_) | Role::Following(_) => None,
        }
    }

    /// State of the role, if the node is the primary.
    pub(crate) const fn leading(&self) -> Option<&Leading> {
        match &self.role {
            Role::Leading(leading) => Some(leading),
            Role::Claiming(_) | Role::Following(_) => None,
        }
    }

    /// State of the role, if another node is the primary.
    pub(crate) const fn following(&self) -> Option<&Following> {
        match &self.role {
            Role::Following(following) => Some(following),
            Role::Claiming(_) | Role::Leading(_) => None,
        }
    }

    /// As [`Self::following`], to be changed.
    pub(crate) const fn following_mut(&mut self) -> Option<&mut Following> {
        match &mut self.role {
            Role::Following(following) => Some(following),
            Role::Claiming(_) | Role::Leading(_) => None,
        }
    }

    /// The primary that this node follows.
    pub(crate) fn primary(&self) -> Option<NodeId> {
        self.following().map(Following::primary)
    }

    /// Returns true if the session of a member is on that node.
    pub(crate) fn is_there(&self, number: u32, node: NodeId) -> bool {
        self.leading().is_some_and(|leading| leading.place_of(number) == Some(Place::There(node)))
    }

    /// Returns true if nobody needs the room here.
    pub(crate) fn is_idle(&self) -> bool {
        self.locals.is_empty() && (!self.is_primary() || self.room.members().is_empty())
    }

    // Changes.

    /// Notes, at the primary, where the session of a member is. Nothing if nobody is that member.
    pub(crate) fn place(&mut self, number: u32, place: Place) {
        if let Role::Leading(leading) = &mut self.role
            && self.room.member(number).is_some()
        {
            leading.place(number, place);
        }
    }

    /// Forgets, at the primary, where the session of a member was.
    pub(crate) fn forget_place(&mut self, number: u32) {
        if let Role::Leading(leading) = &mut self.role {
            leading.forget(number);
        }
    }

    /// A session is no member any more, nor on its way in.
    pub(crate) fn forget_local(&mut self, session: SessionKey) {
        self.locals.retain(|local| *local != session);
        self.waiting.retain(|waiting| *waiting != session);
    }

    /// Adds a link on which the room is read.
    pub(crate) fn add_reader(&mut self, link: Key) {
        if !self.readers.contains(&link) {
            self.readers.push(link);
        }
    }

    /// A link does not read the room any more.
    pub(crate) fn remove_reader(&mut self, link: Key) {
        self.readers.retain(|reader| *reader != link);
    }
}
