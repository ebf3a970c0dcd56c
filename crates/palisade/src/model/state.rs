//! States of objects, and the transitions between them that are allowed (INPUT-11).
//!
//! A stored state changes by a transition of the locked object only: [`crate::store`] asks
//! [`State::may_become`] about the state that the row has.

/// The state of an object. Its one table lists the transitions that are allowed.
pub trait State: Copy + PartialEq + Send + Sync + 'static {
    /// Whether an object in this state may get the state `to`.
    fn may_become(self, to: Self) -> bool;
}

/// The state of objects that have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stateless;

impl State for Stateless {
    fn may_become(self, _: Self) -> bool {
        false
    }
}
