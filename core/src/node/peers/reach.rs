//! Other nodes that the registry names and no link leads to.

use alloc::string::String;

use crate::base::id::NodeId;
use crate::base::time::Duration;

/// Another node that cannot be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreachable {
    /// The node.
    pub node: NodeId,
    /// Its name, as its record says; may be empty.
    pub name: String,
    /// The address at which it takes links, as its record says; empty if it takes none.
    pub address: String,
    /// Time for which no link to it has worked.
    pub lasts: Duration,
    /// True if this node is the one of the two that dials.
    pub dials: bool,
}
